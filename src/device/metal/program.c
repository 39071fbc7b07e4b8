// Programs: Metal sends a command buffer once, so each chunk of steps is encoded anew, in one
// encoder, while the chunks before it run. Dispatches of the encoder may run side by side, but for
// the barriers that depend.c finds. (On GPUs with memory of their own they run in order: there
// barriers were seen not to be enough, llama.cpp #19567.) A chunk is as many steps as the GPU runs
// in CHUNK_SECONDS: few command buffers, and none that a watchdog ends. They keep nothing alive
// that they use, which would cost a call for each binding: who frees a program or a pipeline
// waits first.
//
// A timed program has a command buffer for each launch: GPUs of Apple cannot tell the time between
// the dispatches of one.
#include "device/metal/metal_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/launch_log.h"
#include "base/threads.h"
#include "device/depend.h"
#include "device/kernels.h"

enum { CHUNK_LAUNCHES = 2048 }; // at most in a chunk of several steps, to bound its memory
#define CHUNK_SECONDS 0.05

typedef struct metal_launch {
    const char *override; // its name, where one runs the launch
    bt_mtl pipeline;      // of the device
    uint32_t group, grid[3];
    uint32_t scalar_bytes;
} metal_launch;

struct bt_device_program {
    bt_launch *launches;
    metal_launch *resolved; // of each launch
    bool *barrier;          // before each launch
    int count;
    uint64_t generation; // of the kernels that were resolved
    double step_seconds; // of the latest chunk; 0: not known
    double last_end;     // by the clock of the GPU
    double total;
    bt_launch_log *log;      // NULL: not timed
    double clock_offset;     // bt_seconds less the clock of the GPU, in this run
    bt_device_program *next; // of the device
};

// ---- Collecting what has been run -------------------------------------------------------------

// What to do about an MTLCommandBufferError.
static const char *advice(long code) {
    enum { TIMEOUT = 2, PAGE_FAULT = 3, NOT_PERMITTED = 7, OUT_OF_MEMORY = 8, REMOVED = 11 };
    switch (code) {
    case TIMEOUT: return "a kernel took too long: try a smaller batch or model";
    case PAGE_FAULT: return "a kernel left its buffers: --device check or sim finds where";
    case NOT_PERMITTED: return "macOS lets only programs in the foreground use the GPU: run it so";
    case OUT_OF_MEMORY: return "try a smaller batch or model";
    case REMOVED: return "the GPU was removed; a training goes on from its last checkpoint";
    default: return "a training goes on from its last checkpoint";
    }
}

// A command buffer that failed leaves its buffers half written: the device is of no use any more.
static bt_status fail_commands(bt_device *dev, const bt_metal_slot *slot, bt_error *err) {
    enum { OUT_OF_MEMORY = 8 };
    const bt_device_program *program = slot->program;
    bt_mtl error = bt_mtl_object(slot->commands, bt_metal.error);
    long code = BT_METAL(long)(error, bt_metal.code);
    char what[96];
    if (program->log)
        snprintf(what, sizeof what, "kernel %.40s",
                 bt_kernel_table[program->launches[slot->launch].kernel].name);
    else
        snprintf(what, sizeof what, "%u step%s of %d kernels", slot->steps,
                 slot->steps == 1 ? "" : "s", program->count);
    const char *text = bt_mtl_text(bt_mtl_object(error, bt_metal.description));
    const char *domain = bt_mtl_text(bt_mtl_object(error, bt_metal.domain));
    bt_fail(&dev->lost, code == OUT_OF_MEMORY ? BT_ERROR_MEMORY : BT_ERROR_DEVICE,
            "metal:%d (%.40s) failed while it ran %s: %.200s (%.40s %ld); %s", dev->index,
            dev->name, what, text[0] ? text : "Metal does not say why",
            domain[0] ? domain : "no error", code, advice(error ? code : 0));
    return bt_metal_alive(dev, err);
}

static void take_times(bt_metal_slot *slot) {
    bt_device_program *program = slot->program;
    double start = BT_METAL(double)(slot->commands, bt_metal.gpu_start);
    double end = BT_METAL(double)(slot->commands, bt_metal.gpu_end);
    double busy = end > start ? end - start : 0;
    if (slot->first) {
        program->clock_offset = slot->sent - start;
        program->total += busy;
    } else if (end > program->last_end) {
        program->total += end - program->last_end;
    }
    program->last_end = end;
    program->step_seconds = busy > 0 ? busy / slot->steps : 1e-9; // known, however short
    if (program->log)
        bt_launch_log_add(program->log, slot->launch, program->clock_offset + start, busy);
}

// Waits for what was sent in the slot, if anything, and takes its times.
static bt_status collect(bt_device *dev, bt_metal_slot *slot, bt_error *err) {
    enum { COMPLETED = 4 }; // MTLCommandBufferStatusCompleted
    if (!slot->commands) return bt_metal_alive(dev, err);
    void *pool = bt_metal.pool_push();
    bt_mtl_do(slot->commands, bt_metal.wait);
    bt_status status = bt_metal_alive(dev, err);
    if (bt_mtl_number(slot->commands, bt_metal.status) != COMPLETED)
        status = fail_commands(dev, slot, err);
    else if (status == BT_OK)
        take_times(slot);
    bt_mtl_release(slot->commands);
    *slot = (bt_metal_slot){0};
    bt_metal.pool_pop(pool);
    return status;
}

// Nothing is under way afterwards, even where something failed.
bt_status bt_metal_wait(bt_device *dev, bt_error *err) {
    for (uint32_t i = 0; i < BT_METAL_IN_FLIGHT; i++) // the oldest first
        (void)collect(dev, &dev->slots[(dev->next_slot + i) % BT_METAL_IN_FLIGHT], err);
    return bt_metal_alive(dev, err);
}

// ---- Encoding ---------------------------------------------------------------------------------

// What is set in an encoder stays set: only what differs is set again.
typedef struct encoder {
    bt_mtl handle, pipeline;
    bool used; // by a dispatch
    struct {
        bt_mtl buffer;
        size_t offset;
    } bound[BT_BINDINGS_MAX + 1];
} encoder;

// A kernel does not touch a binding that is absent, but Metal wants each to be bound.
static void bind(const bt_device *dev, encoder *to, int at, const bt_binding *binding) {
    bool there = binding->buffer && binding->bytes > 0;
    bt_mtl buffer = there ? binding->buffer->handle : dev->nothing;
    size_t offset = there ? binding->offset : 0;
    if (to->bound[at].buffer == buffer && to->bound[at].offset == offset) return;
    to->bound[at].buffer = buffer;
    to->bound[at].offset = offset;
    BT_METAL(void, bt_mtl, bt_mtl_uint, bt_mtl_uint)
    (to->handle, bt_metal.set_buffer, buffer, offset, (bt_mtl_uint)at);
}

static void encode(const bt_device *dev, const bt_device_program *program, int i, encoder *to) {
    enum { BUFFERS = 1 }; // MTLBarrierScopeBuffers
    const bt_launch *launch = &program->launches[i];
    const metal_launch *at = &program->resolved[i];
    int count = launch->binding_count;
    if (to->used && program->barrier[i] && dev->concurrent)
        BT_METAL(void, bt_mtl_uint)(to->handle, bt_metal.barrier, BUFFERS);
    to->used = true;
    if (to->pipeline != at->pipeline)
        BT_METAL(void, bt_mtl)(to->handle, bt_metal.set_pipeline, at->pipeline);
    to->pipeline = at->pipeline;
    for (int b = 0; b < count; b++) bind(dev, to, b, &launch->binding[b]);
    to->bound[count].buffer = NULL;
    BT_METAL(void, const void *, bt_mtl_uint, bt_mtl_uint)
    (to->handle, bt_metal.set_bytes, launch->scalars, at->scalar_bytes, (bt_mtl_uint)count);
    bt_mtl_size grid = {at->grid[0], at->grid[1], at->grid[2]}, group = {at->group, 1, 1};
    BT_METAL(void, bt_mtl_size, bt_mtl_size)(to->handle, bt_metal.dispatch, grid, group);
}

static bt_status resolve_launch(bt_device *dev, const bt_launch *launch, metal_launch *at,
                                bt_error *err) {
    int kernel = bt_metal_override_for(dev, launch, at->grid);
    at->override = kernel < 0 ? NULL : dev->table[kernel].name;
    if (kernel < 0)
        BT_TRY(bt_portable_pick(dev->table, bt_portable_count, launch, at->grid, err, &kernel));
    BT_TRY(bt_metal_pipeline_for(dev, launch, kernel, &at->pipeline, err));
    at->group = dev->table[kernel].group;
    at->scalar_bytes = bt_kernel_table[launch->kernel].scalar_bytes;
    return BT_OK;
}

// Finds the kernels of the launches, now and after each swap of a kernel.
static bt_status resolve(bt_device *dev, bt_device_program *program, bt_error *err) {
    BT_TRY(bt_metal_wait(dev, err));
    for (int i = 0; i < program->count; i++)
        BT_TRY(resolve_launch(dev, &program->launches[i], &program->resolved[i], err));
    program->step_seconds = 0;
    program->generation = dev->generation;
    return BT_OK;
}

bt_status bt_metal_resolve_all(bt_device *dev, bt_error *err) {
    for (bt_device_program *at = dev->programs; at; at = at->next) BT_TRY(resolve(dev, at, err));
    return BT_OK;
}

// ---- Running ----------------------------------------------------------------------------------

// Commits launches [begin, end) as often as `slot` says, which is what to collect then.
static bt_status commit(bt_device *dev, bt_metal_slot *slot, int begin, int end, bt_error *err) {
    enum { SERIAL, CONCURRENT }; // MTLDispatchType
    bt_mtl commands = bt_mtl_object(dev->queue, bt_metal.command_buffer);
    encoder to = {0};
    if (commands)
        to.handle = BT_METAL(bt_mtl, bt_mtl_uint)(commands, bt_metal.compute_encoder,
                                                  dev->concurrent ? CONCURRENT : SERIAL);
    if (!to.handle)
        return bt_fail(err, BT_ERROR_DEVICE,
                       "metal:%d (%s) gives no command %s; close other programs that use the GPU",
                       dev->index, dev->name, commands ? "encoder" : "buffer");
    for (uint32_t step = 0; step < slot->steps; step++)
        for (int i = begin; i < end; i++) encode(dev, slot->program, i, &to);
    bt_mtl_do(to.handle, bt_metal.end_encoding);
    slot->commands = bt_mtl_object(commands, bt_metal.retain);
    slot->sent = bt_seconds();
    bt_mtl_do(commands, bt_metal.commit);
    dev->counters.submissions++;
    dev->counters.launches += (uint64_t)slot->steps * (uint32_t)(end - begin);
    return BT_OK;
}

// Sends launches [begin, end), `steps` times, when there is room for it.
static bt_status send(bt_device *dev, bt_device_program *program, int begin, int end,
                      uint32_t steps, bool first, bt_error *err) {
    bt_metal_slot *slot = &dev->slots[dev->next_slot % BT_METAL_IN_FLIGHT];
    BT_TRY(collect(dev, slot, err));
    bt_metal_slot next = {.program = program, .steps = steps, .launch = begin, .first = first};
    void *pool = bt_metal.pool_push();
    bt_status status = commit(dev, &next, begin, end, err);
    bt_metal.pool_pop(pool);
    if (status != BT_OK) return status;
    *slot = next;
    dev->next_slot++;
    return BT_OK;
}

static uint32_t chunk_of(const bt_device_program *program, uint32_t steps) {
    double limit = program->step_seconds > 0 ? CHUNK_SECONDS / program->step_seconds : 1;
    double most = (double)CHUNK_LAUNCHES / program->count;
    if (limit > most) limit = most;
    return limit < 1 ? 1 : steps > limit ? (uint32_t)limit : steps;
}

// What failed after a part of its steps was sent leaves buffers that nobody knows.
static bt_status send_more(bt_device *dev, bt_device_program *program, int begin, int end,
                           uint32_t steps, bool first, bt_error *err) {
    bt_status status = send(dev, program, begin, end, steps, first, err);
    if (status != BT_OK && !first && dev->lost.status == BT_OK) dev->lost = *err;
    return status;
}

static bt_status run_timed(bt_device *dev, bt_device_program *program, uint32_t steps,
                           bt_error *err) {
    BT_TRY(bt_metal_wait(dev, err)); // so that the clocks are compared on an idle GPU
    for (uint32_t step = 0; step < steps; step++)
        for (int i = 0; i < program->count; i++)
            BT_TRY(send_more(dev, program, i, i + 1, 1, step == 0 && i == 0, err));
    return BT_OK;
}

bt_status bt_metal_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err) {
    BT_TRY(bt_metal_alive(dev, err));
    if (program->count == 0) return BT_OK;
    if (program->generation != dev->generation) BT_TRY(resolve(dev, program, err));
    if (program->log) return run_timed(dev, program, steps, err);
    for (uint32_t done = 0; done < steps;) {
        bool known = program->step_seconds > 0;
        uint32_t chunk = chunk_of(program, steps - done);
        BT_TRY(send_more(dev, program, 0, program->count, chunk, done == 0, err));
        done += chunk;
        // The next chunk needs to know how long a step takes.
        if (!known && done < steps) BT_TRY(bt_metal_wait(dev, err));
    }
    return BT_OK;
}

void bt_metal_times(bt_device *dev, const bt_device_program *program, double *seconds,
                    double *total) {
    bt_error ignored = {0}; // what failed is not counted
    (void)bt_metal_wait(dev, &ignored);
    for (int i = 0; i < program->count; i++)
        seconds[i] = program->log ? program->log->seconds[i] : 0;
    *total = program->total;
}

const char *bt_metal_merged(const bt_device_program *program, int launch, int *into,
                            double *bytes) {
    (void)bytes; // an override moves what the kernel moves
    *into = launch;
    return program->resolved[launch].override;
}

const bt_launch_log *bt_metal_log(const bt_device_program *program) {
    return program->log;
}

// ---- Making -----------------------------------------------------------------------------------

void bt_metal_program_done(bt_device *dev, bt_device_program *program) {
    bt_error ignored = {0};
    if (!program) return;
    (void)bt_metal_wait(dev, &ignored);
    for (bt_device_program **at = &dev->programs; *at; at = &(*at)->next)
        if (*at == program) {
            *at = program->next;
            break;
        }
    free(program->launches);
    free(program->resolved);
    free(program->barrier);
    bt_launch_log_free(program->log);
    free(program);
}

static bt_status make(bt_device *dev, bt_device_program *program, const bt_launch *launches,
                      bool timed, bt_error *err) {
    size_t count = (size_t)program->count;
    program->launches = calloc(count + 1, sizeof *program->launches);
    program->resolved = calloc(count + 1, sizeof *program->resolved);
    program->barrier = calloc(count + 1, sizeof *program->barrier);
    if (!program->launches || !program->resolved || !program->barrier)
        return bt_fail_memory(err, "a program", count * sizeof *launches);
    if (count > 0) memcpy(program->launches, launches, count * sizeof *launches);
    bt_place_barriers(program->launches, program->count, NULL, NULL, program->barrier);
    if (timed) BT_TRY(bt_launch_log_make(program->count, err, &program->log));
    return resolve(dev, program, err);
}

bt_status bt_metal_program_init(bt_device *dev, const bt_launch *launches, int count,
                                const bt_program_use *use, bt_error *err, bt_device_program **out) {
    *out = NULL;
    bt_device_program *program = calloc(1, sizeof *program);
    if (!program) return bt_fail_memory(err, "a program", sizeof *program);
    program->count = count;
    bt_status status = make(dev, program, launches, use->timed, err);
    if (status != BT_OK) {
        bt_metal_program_done(dev, program);
        return status;
    }
    program->next = dev->programs;
    dev->programs = program;
    *out = program;
    return BT_OK;
}
