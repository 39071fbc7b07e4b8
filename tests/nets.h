// A training program made of the public parts, as bt_train makes it, for tests that look inside.
#ifndef BT_TESTS_NETS_H
#define BT_TESTS_NETS_H

#include "bantam.h"

typedef struct net_desc {
    const char *spec;
    bt_dataset *set; // NULL: the first `limit` digits
    int limit;       // 0: 320
    int batch;       // 0: 64
    bt_dtype dtype;
    uint64_t seed;
    bt_optimizer optimizer;
    bt_hyper hyper; // lr 0: 0.1 with momentum 0.9
    bool file_order, profile;
} net_desc;

typedef struct trained {
    bt_context *ctx;
    bt_dataset *set;
    bt_model *model;
    bt_batch batch;
    bt_tensor logits, loss;
    bt_program *program;
    uint32_t epoch_steps;
} trained;

trained net_make(bt_context *ctx, const net_desc *desc);
// All parameters, then all moments, as bytes; to be freed.
void *net_state(trained *net, size_t *bytes);
double net_loss(trained *net, uint32_t step); // of the log
bt_dataset *digits(bt_context *ctx, int limit, bool test);

#endif
