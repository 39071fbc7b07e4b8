// Trains a network for some steps and stops: for instruction counters. The difference of two runs
// is what the steps between them take; neither start-up nor noise of the machine is in it. One
// thread, the built-in digits, a fixed seed. usage: steps NET BATCH STEPS
#include "bantam.h"

#include <stdio.h>
#include <stdlib.h>

enum { PARAMETERS_MAX = 64 };

// The program of a training step. On failure the context knows why.
static bt_status make(bt_context *ctx, const char *net, int batch, bt_program **out) {
    bt_dataset *digits;
    bt_model *model;
    bt_tensor parameters[PARAMETERS_MAX];
    bt_dataset_desc data = {.name = "digits", .limit = batch};
    bt_model_desc desc = {.spec = net, .channels = 1, .height = 28, .width = 28, .classes = 10};
    bt_status status = bt_dataset_open(ctx, &data, &digits);
    if (status == BT_OK) status = bt_model_make(ctx, &desc, &model);
    if (status != BT_OK) return status;
    int count = bt_model_parameter_count(model);
    if (count > PARAMETERS_MAX) return BT_ERROR_USAGE;
    for (int i = 0; i < count; i++) parameters[i] = bt_model_parameter(model, i);
    bt_batch in =
        bt_dataset_batch(ctx, &(bt_batch_desc){.set = digits, .batch = batch, .shuffle = true});
    bt_tensor logits = bt_model_forward(ctx, model, in.images);
    bt_program_desc program = {.loss = bt_cross_entropy(ctx, logits, in.labels),
                               .parameters = parameters,
                               .parameter_count = count,
                               .hyper = &(bt_hyper){.lr = 0.01, .momentum = 0.9},
                               .hyper_count = 1,
                               .logits = logits,
                               .labels = in.labels,
                               .log_steps = 1};
    return bt_program_make(ctx, &program, out);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: steps NET BATCH STEPS\n");
        return 2;
    }
    bt_context *ctx;
    bt_program *program;
    bt_status status = bt_open(&(bt_context_desc){.device = "cpu", .threads = 1}, &ctx);
    if (status == BT_OK) status = make(ctx, argv[1], atoi(argv[2]), &program);
    if (status == BT_OK) status = bt_program_run(ctx, program, (uint32_t)atoi(argv[3]));
    if (status != BT_OK) fprintf(stderr, "steps: %s\n", ctx ? bt_error_text(ctx) : "no memory");
    bt_close(ctx);
    return (int)status;
}
