// Trains a network for some steps and stops: for instruction counters. The difference of two runs
// is what the steps between them take; neither start-up nor noise of the machine is in it. One
// thread, the built-in digits, a fixed seed. usage: steps NET BATCH STEPS
#include "bantam.h"

#include <stdio.h>
#include <stdlib.h>

#include "training.h"

// The program of a training step. On failure the context knows why.
static bt_status make(bt_context *ctx, const char *net, int batch, bt_program **out) {
    bt_dataset *digits;
    bt_status status =
        bt_dataset_open(ctx, &(bt_dataset_desc){.name = "digits", .limit = batch}, &digits);
    return status == BT_OK ? training_make(ctx, net, digits, batch, 0.01, out) : status;
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
