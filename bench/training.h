// The training step that is measured: a network on images of 28 x 28 pixels and ten classes.
#ifndef BENCH_TRAINING_H
#define BENCH_TRAINING_H

#include "bantam.h"

// Its program; the data set and the model belong to the context. On failure that knows why.
static inline bt_status training_make(bt_context *ctx, const char *net, bt_dataset *images,
                                      int batch, double lr, bt_program **out) {
    enum { PARAMETERS_MAX = 64 };
    bt_model *model;
    bt_tensor parameters[PARAMETERS_MAX];
    bt_model_desc desc = {.spec = net, .channels = 1, .height = 28, .width = 28, .classes = 10};
    bt_status status = bt_model_make(ctx, &desc, &model);
    if (status != BT_OK) return status;
    int count = bt_model_parameter_count(model);
    if (count > PARAMETERS_MAX) return BT_ERROR_USAGE;
    for (int i = 0; i < count; i++) parameters[i] = bt_model_parameter(model, i);
    bt_batch in =
        bt_dataset_batch(ctx, &(bt_batch_desc){.set = images, .batch = batch, .shuffle = true});
    bt_tensor logits = bt_model_forward(ctx, model, in.images);
    bt_program_desc program = {.loss = bt_cross_entropy(ctx, logits, in.labels),
                               .parameters = parameters,
                               .parameter_count = count,
                               .hyper = &(bt_hyper){.lr = lr, .momentum = 0.9},
                               .hyper_count = 1,
                               .logits = logits,
                               .labels = in.labels,
                               .log_steps = 1};
    return bt_program_make(ctx, &program, out);
}

#endif
