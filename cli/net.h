// A network with its loss, for the commands that look at single training steps.
#ifndef CLI_NET_H
#define CLI_NET_H

#include "cli.h"

enum { PARAMETERS_MAX = 64 };

typedef struct net {
    bt_model *model;
    bt_tensor parameters[PARAMETERS_MAX], logits, labels, loss;
    int count;
} net;

const char *net_spec(const settings *s); // the first argument, else mlp
// For images [n, c, h, w] and labels [n] of a data set like `data`.
int net_make(bt_context *ctx, const settings *s, const bt_dataset_info *data, bt_batch in,
             net *out);
// Trains with SGD, momentum 0.9 and a constant rate.
int net_program(bt_context *ctx, const net *n, double lr, int log_steps, bool profile,
                bt_program **out);

#endif
