// The simulated GPU as a device: runs the portable kernels, compiled as C, thread by thread, and
// checks what no GPU does (run.c). For machines without a GPU, and for those who write kernels.
#include <stdlib.h>

#include "base/checked.h"
#include "base/launch_log.h"
#include "base/threads.h"
#include "device/sim/run.h"

struct bt_device {
    bt_sim *sim;
    bt_device_counters counters;
};

typedef struct sim_launch {
    bt_launch launch;
    int portable;
    uint32_t grid[3];
} sim_launch;

struct bt_device_program {
    sim_launch *launches;
    int count;
    bt_launch_log *log; // NULL: not timed
    double total;
};

static bool sim_probe(int index, bt_device_info *out) {
    if (index > 0) return false;
    *out = (bt_device_info){.available = true, .software = true};
    snprintf(out->name, sizeof out->name, "sim");
    snprintf(out->description, sizeof out->description,
             "simulated GPU: runs the portable kernels thread by thread and checks them; slow");
    return true;
}

static bt_status sim_open(int index, const bt_context_desc *desc, bt_error *err, bt_device **out) {
    (void)index, (void)desc;
    bt_device *dev = *out = calloc(1, sizeof *dev);
    if (!dev) return bt_fail_memory(err, "the simulated GPU", sizeof *dev);
    bt_status status = bt_sim_open(err, &dev->sim);
    if (status == BT_OK) return BT_OK;
    free(dev);
    *out = NULL;
    return status;
}

static void sim_close(bt_device *dev) {
    if (!dev) return;
    bt_sim_close(dev->sim);
    free(dev);
}

// Whole bindings, since a kernel reads bytes as words; filled with what shows if it is read.
static bt_status sim_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out) {
    (void)dev;
    size_t rounded;
    *out = (bt_buffer){NULL, bytes};
    if (bt_align_ok(bytes, BT_BINDING_ALIGN, &rounded))
        out->handle = aligned_alloc(BT_BINDING_ALIGN, rounded);
    if (!out->handle) return bt_fail_memory(err, "a buffer", bytes);
    bt_sim_poison(out->handle, rounded);
    return BT_OK;
}

static void sim_buffer_done(bt_device *dev, bt_buffer *buffer) {
    (void)dev;
    free(buffer->handle);
    *buffer = (bt_buffer){0};
}

static bt_status check_range(const bt_buffer *buffer, size_t offset, size_t bytes, bt_error *err) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return BT_OK;
    return bt_fail(err, BT_ERROR_INTERNAL, "%zu bytes at %zu of a buffer of %zu were asked for",
                   bytes, offset, buffer->bytes);
}

static bt_status sim_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                           size_t bytes, bt_error *err) {
    BT_TRY(check_range(buffer, offset, bytes, err));
    if (bytes > 0) memcpy((char *)buffer->handle + offset, data, bytes);
    dev->counters.bytes_written += bytes;
    return BT_OK;
}

static bt_status sim_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                          size_t bytes, bt_error *err) {
    BT_TRY(check_range(buffer, offset, bytes, err));
    if (bytes > 0) memcpy(data, (const char *)buffer->handle + offset, bytes);
    dev->counters.bytes_read += bytes;
    return BT_OK;
}

static void sim_program_done(bt_device *dev, bt_device_program *program) {
    (void)dev;
    if (!program) return;
    bt_launch_log_free(program->log);
    free(program->launches);
    free(program);
}

static bt_status sim_program_init(bt_device *dev, const bt_launch *launches, int count,
                                  const bt_program_use *use, bt_error *err,
                                  bt_device_program **out) {
    *out = NULL;
    bt_device_program *program = calloc(1, sizeof *program);
    if (!program) return bt_fail_memory(err, "a program", sizeof *program);
    program->count = count;
    program->launches = calloc((size_t)count + 1, sizeof *program->launches);
    bt_status status = program->launches
                           ? BT_OK
                           : bt_fail_memory(err, "a program", (size_t)count * sizeof(sim_launch));
    if (status == BT_OK && use->timed) status = bt_launch_log_make(count, err, &program->log);
    for (int i = 0; i < count && status == BT_OK; i++) {
        sim_launch *l = &program->launches[i];
        l->launch = launches[i];
        status = bt_portable_pick(bt_portable_table, bt_portable_count, &launches[i], l->grid, err,
                                  &l->portable);
    }
    if (status != BT_OK)
        sim_program_done(dev, program);
    else
        *out = program;
    return status;
}

static bt_status sim_run(bt_device *dev, bt_device_program *program, uint32_t steps,
                         bt_error *err) {
    double begin = bt_seconds();
    dev->counters.submissions++;
    for (uint32_t step = 0; step < steps; step++)
        for (int i = 0; i < program->count; i++) {
            sim_launch *l = &program->launches[i];
            double start = program->log ? bt_seconds() : 0;
            BT_TRY(bt_sim_run(dev->sim, &bt_sim_kernels[l->portable],
                              &bt_portable_table[l->portable], l->grid, &l->launch, err));
            dev->counters.launches++;
            if (program->log) bt_launch_log_add(program->log, i, start, bt_seconds() - start);
        }
    program->total += bt_seconds() - begin;
    return BT_OK;
}

static bt_status sim_wait(bt_device *dev, bt_error *err) { // sim_run has waited already
    (void)dev, (void)err;
    return BT_OK;
}

static void sim_times(bt_device *dev, const bt_device_program *program, double *seconds,
                      double *total) {
    (void)dev;
    for (int i = 0; i < program->count; i++)
        seconds[i] = program->log ? program->log->seconds[i] : 0;
    *total = program->total;
}

static const bt_launch_log *sim_log(const bt_device_program *program) {
    return program->log;
}

static const bt_device_counters *sim_counters(const bt_device *dev) {
    return &dev->counters;
}

const bt_device_api bt_device_sim = {
    .name = "sim",
    .portable = true,
    .probe = sim_probe,
    .open = sim_open,
    .close = sim_close,
    .buffer_init = sim_buffer_init,
    .buffer_done = sim_buffer_done,
    .write = sim_write,
    .read = sim_read,
    .program_init = sim_program_init,
    .program_done = sim_program_done,
    .run = sim_run,
    .wait = sim_wait,
    .times = sim_times,
    .log = sim_log,
    .counters = sim_counters,
};
