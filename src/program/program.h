// A compiled step and the device memory that belongs to it.
#ifndef BT_PROGRAM_PROGRAM_H
#define BT_PROGRAM_PROGRAM_H

#include "program/lower.h"

// Parameters that lie side by side and are updated by one launch.
typedef struct bt_run {
    bt_binding params;
    bt_buffer *grads, *moment[2];
    size_t partial_offset; // of its squared sums in program->partials
    uint32_t chunks;
} bt_run;

typedef struct bt_trained {
    int run;
    size_t offset, bytes; // in the run
} bt_trained;

typedef struct bt_launch_info {
    char label[48];
    const char *kernel; // that the device runs for it
    double flops, bytes;
    bool merged; // into another launch, to which its time and arithmetic count
} bt_launch_info;

struct bt_program {
    const bt_device_api *api;
    bt_device *device;
    bt_device_program *device_program;
    bt_buffer *temporary, *state, *table, *log, *predictions, *partials;
    bt_run *runs;
    int run_count;
    bt_trained *trained; // by position in desc.parameters
    int trained_count, moment_count;
    bt_binding *outputs;
    int output_count;
    bt_launch_info *infos;
    int launch_count;
    bt_dtype dtype; // of loss and log
    uint32_t step, log_steps, prediction_count;
    bool timed;
    uint64_t steps_run;
    bt_program_stats stats;
};

void bt_program_free(bt_context *ctx, void *program);
// Plans memory and hands the launches to the device.
bt_status bt_lowering_finish(bt_lowering *lo, bt_program *p,
                             const bt_program_desc *d) BT_MUST_CHECK;

// ---- Training part of a program (optimizer.c) ------------------------------------------------

// Groups desc's parameters into runs and makes their gradient and moment buffers, zeroed.
bt_status bt_optimizer_open(bt_context *ctx, bt_program *p,
                            const bt_program_desc *desc) BT_MUST_CHECK;
// Directs each gradient into its place (before lowering).
void bt_optimizer_place_gradients(bt_lowering *lo, const bt_program *p, const bt_tensor *grads);
// Copies the gradients that could not be computed in place, clips, updates (after lowering).
void bt_optimizer_emit(bt_lowering *lo, bt_program *p, const bt_program_desc *desc,
                       const bt_tensor *grads);

#endif
