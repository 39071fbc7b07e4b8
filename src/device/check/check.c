// See check.h. Every buffer lies between guard bytes and begins as NaN. Around each launch: what it
// writes whole is filled with a NaN that nothing computes, and must be gone afterwards; every other
// byte of the buffers that it sees, and all guards, must be what they were.
#include "device/check/check.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/launch_log.h"
#include "base/threads.h"
#include "device/cpu/cpu.h"
#include "device/kernels.h"

enum { GUARD = BT_BINDING_ALIGN, GUARD_BYTE = 0xb5 };

// NaN as a float and as the upper or lower half of a double.
static const uint32_t fresh = 0x7ffcdead, unwritten = 0xfff8dead;

typedef struct guarded {
    bt_buffer inner; // GUARD bytes, the buffer, at least GUARD bytes
    size_t bytes;
    unsigned char *before; // what it held before the launch, made when needed
    struct guarded *next;
} guarded;

struct bt_device {
    const bt_device_api *under;
    bt_device *dev;
    guarded *buffers;
    bt_device_counters counters;
};

struct bt_device_program {
    bt_launch *launches;          // on the inner buffers
    bt_device_program **programs; // of one launch each
    int count;
    bt_launch_log *log; // NULL: not timed
};

static void fill(void *at, size_t bytes, uint32_t word) {
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)at)[i] = (unsigned char)(word >> 8 * (i % 4));
}

static unsigned char *content(const guarded *g) {
    return (unsigned char *)g->inner.handle + GUARD;
}

// ---- Device and buffers ----------------------------------------------------------------------

static bool check_probe(int index, bt_device_info *out) {
    bt_device_info cpu;
    if (!bt_device_cpu.probe(index, &cpu)) return false;
    *out = cpu;
    out->software = true;
    snprintf(out->name, sizeof out->name, "check:%d", index);
    snprintf(out->description, sizeof out->description,
             "the CPU, checking every launch; slow: %.85s", cpu.description);
    return true;
}

bt_status bt_check_open(const bt_device_api *under, int index, const bt_context_desc *desc,
                        bt_error *err, bt_device **out) {
    bt_device *dev = *out = calloc(1, sizeof *dev);
    if (!dev) return bt_fail_memory(err, "the checking device", sizeof *dev);
    dev->under = under;
    bt_status status = under->open(index, desc, err, &dev->dev);
    if (status == BT_OK) return BT_OK;
    free(dev);
    *out = NULL;
    return status;
}

static bt_status check_open(int index, const bt_context_desc *desc, bt_error *err,
                            bt_device **out) {
    return bt_check_open(&bt_device_cpu, index, desc, err, out);
}

static void check_close(bt_device *dev) {
    if (!dev) return;
    dev->under->close(dev->dev);
    free(dev);
}

static bt_status check_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out) {
    size_t whole;
    *out = (bt_buffer){0};
    if (!bt_add_ok(bytes, 2 * GUARD, &whole)) return bt_fail_memory(err, "a buffer", bytes);
    guarded *g = calloc(1, sizeof *g);
    if (!g) return bt_fail_memory(err, "a buffer", sizeof *g);
    bt_status status = dev->under->buffer_init(dev->dev, whole, err, &g->inner);
    if (status != BT_OK) {
        free(g);
        return status;
    }
    memset(g->inner.handle, GUARD_BYTE, whole);
    fill(content(g), bytes, fresh);
    g->bytes = bytes;
    g->next = dev->buffers;
    dev->buffers = g;
    *out = (bt_buffer){g, bytes};
    return BT_OK;
}

static void check_buffer_done(bt_device *dev, bt_buffer *buffer) {
    guarded *g = buffer->handle, **at = &dev->buffers;
    if (!g) return;
    while (*at != g) at = &(*at)->next;
    *at = g->next;
    dev->under->buffer_done(dev->dev, &g->inner);
    free(g->before);
    free(g);
    *buffer = (bt_buffer){0};
}

static bt_status check_range(const bt_buffer *buffer, size_t offset, size_t bytes, bt_error *err) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return BT_OK;
    return bt_fail(err, BT_ERROR_INTERNAL, "%zu bytes at %zu of a buffer of %zu were asked for",
                   bytes, offset, buffer->bytes);
}

static bt_status check_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                             size_t bytes, bt_error *err) {
    guarded *g = buffer->handle;
    BT_TRY(check_range(buffer, offset, bytes, err));
    dev->counters.bytes_written += bytes;
    return dev->under->write(dev->dev, &g->inner, GUARD + offset, data, bytes, err);
}

static bt_status check_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                            size_t bytes, bt_error *err) {
    const guarded *g = buffer->handle;
    BT_TRY(check_range(buffer, offset, bytes, err));
    dev->counters.bytes_read += bytes;
    return dev->under->read(dev->dev, &g->inner, GUARD + offset, data, bytes, err);
}

// ---- Programs --------------------------------------------------------------------------------

static void check_program_done(bt_device *dev, bt_device_program *program) {
    if (!program) return;
    for (int i = 0; i < program->count && program->programs; i++)
        dev->under->program_done(dev->dev, program->programs[i]);
    bt_launch_log_free(program->log);
    free(program->programs);
    free(program->launches);
    free(program);
}

static bt_status add_launch(bt_device *dev, bt_device_program *program, const bt_launch *launch,
                            bt_error *err) {
    bt_launch *mine = &program->launches[program->count];
    *mine = *launch;
    for (int i = 0; i < launch->binding_count; i++) {
        bt_binding *b = &mine->binding[i];
        if (!b->buffer) continue;
        b->buffer = &((guarded *)launch->binding[i].buffer->handle)->inner;
        b->offset += GUARD;
    }
    BT_TRY(dev->under->program_init(dev->dev, mine, 1, &(bt_program_use){0}, err,
                                    &program->programs[program->count]));
    program->count++;
    return BT_OK;
}

static bt_status check_program_init(bt_device *dev, const bt_launch *launches, int count,
                                    const bt_program_use *use, bt_error *err,
                                    bt_device_program **out) {
    *out = NULL;
    size_t slots = (size_t)count + 1;
    bt_device_program *program = calloc(1, sizeof *program);
    if (!program) return bt_fail_memory(err, "a program", sizeof *program);
    program->launches = calloc(slots, sizeof *program->launches);
    program->programs = calloc(slots, sizeof *program->programs);
    bt_status status = program->launches && program->programs
                           ? BT_OK
                           : bt_fail_memory(err, "a program", slots * sizeof(bt_launch));
    for (int i = 0; i < count && status == BT_OK; i++)
        status = add_launch(dev, program, &launches[i], err);
    if (status == BT_OK && use->timed) status = bt_launch_log_make(count, err, &program->log);
    if (status != BT_OK)
        check_program_done(dev, program);
    else
        *out = program;
    return status;
}

// ---- Around a launch -------------------------------------------------------------------------

static char mode_of(const bt_launch *launch, int i) {
    return (char)(bt_kernel_table[launch->kernel].bindings[i] | 0x20); // lower case
}

static guarded *buffer_of(const bt_launch *launch, int i) {
    return (guarded *)launch->binding[i].buffer; // inner is its first member
}

static unsigned char *data_of(const bt_launch *launch, int i) {
    return (unsigned char *)launch->binding[i].buffer->handle + launch->binding[i].offset;
}

// Fills what the launch writes whole, then keeps a copy of every buffer that it sees.
static bt_status before_launch(const bt_launch *launch, bt_error *err) {
    for (int i = 0; i < launch->binding_count; i++)
        if (launch->binding[i].buffer && mode_of(launch, i) == 'w')
            fill(data_of(launch, i), launch->binding[i].bytes, unwritten);
    for (int i = 0; i < launch->binding_count; i++) {
        if (!launch->binding[i].buffer) continue;
        guarded *g = buffer_of(launch, i);
        if (!g->before && !(g->before = malloc(g->bytes)))
            return bt_fail_memory(err, "the copy of a buffer", g->bytes);
        memcpy(g->before, content(g), g->bytes);
    }
    return BT_OK;
}

static bt_status check_whole(const bt_launch *launch, int i, bt_error *err) {
    // A double is unwritten when both halves are: one alone may be a number's.
    size_t unit = launch->dtype == BT_F64 ? 8 : 4, bytes = launch->binding[i].bytes;
    const uint32_t pattern[2] = {unwritten, unwritten};
    for (size_t at = 0; at < bytes; at += unit) {
        size_t size = bytes - at < unit ? bytes - at : unit;
        if (memcmp(data_of(launch, i) + at, pattern, size) != 0) continue;
        return bt_fail(err, BT_ERROR_INTERNAL,
                       "kernel %s leaves bytes %zu to %zu of binding %d (%zu bytes) unwritten",
                       bt_kernel_table[launch->kernel].name, at, at + size - 1, i, bytes);
    }
    return BT_OK;
}

// Is this byte of the buffer in a binding that the launch writes?
static bool may_write(const bt_launch *launch, const guarded *g, size_t byte) {
    for (int i = 0; i < launch->binding_count; i++) {
        const bt_binding *b = &launch->binding[i];
        if (b->buffer && buffer_of(launch, i) == g && mode_of(launch, i) != 'r' &&
            byte + GUARD >= b->offset && byte + GUARD - b->offset < b->bytes)
            return true;
    }
    return false;
}

static bt_status check_unchanged(const bt_launch *launch, int i, bt_error *err) {
    enum { BLOCK = BT_BINDING_ALIGN };
    const guarded *g = buffer_of(launch, i);
    const unsigned char *now = content(g);
    for (size_t at = 0; at < g->bytes; at += BLOCK) {
        size_t size = g->bytes - at < BLOCK ? g->bytes - at : BLOCK;
        if (memcmp(now + at, g->before + at, size) == 0) continue;
        for (size_t byte = at; byte < at + size; byte++)
            if (now[byte] != g->before[byte] && !may_write(launch, g, byte))
                return bt_fail(err, BT_ERROR_INTERNAL,
                               "kernel %s changed byte %zu of the buffer of binding %d (which is "
                               "at %zu + %zu, '%c'), outside of what it may write",
                               bt_kernel_table[launch->kernel].name, byte, i,
                               launch->binding[i].offset - GUARD, launch->binding[i].bytes,
                               mode_of(launch, i));
    }
    return BT_OK;
}

static bool guard_holds(const unsigned char *at) {
    for (int i = 0; i < GUARD; i++)
        if (at[i] != GUARD_BYTE) return false;
    return true;
}

static bt_status check_guards(const bt_device *dev, const bt_launch *launch, bt_error *err) {
    for (const guarded *g = dev->buffers; g; g = g->next) {
        bool below = !guard_holds(g->inner.handle);
        if (!below && guard_holds(content(g) + g->bytes)) continue;
        int binding = -1;
        for (int i = launch->binding_count - 1; i >= 0; i--)
            if (launch->binding[i].buffer && buffer_of(launch, i) == g) binding = i;
        return bt_fail(err, BT_ERROR_INTERNAL,
                       "kernel %s wrote %s a buffer of %zu bytes (binding %d; -1: one it does not "
                       "even see)",
                       bt_kernel_table[launch->kernel].name, below ? "below" : "beyond the end of",
                       g->bytes, binding);
    }
    return BT_OK;
}

static bt_status after_launch(const bt_device *dev, const bt_launch *launch, bt_error *err) {
    BT_TRY(check_guards(dev, launch, err));
    for (int i = 0; i < launch->binding_count; i++) {
        if (!launch->binding[i].buffer) continue;
        BT_TRY(check_unchanged(launch, i, err));
        if (mode_of(launch, i) == 'w') BT_TRY(check_whole(launch, i, err));
    }
    return BT_OK;
}

static bt_status check_run(bt_device *dev, bt_device_program *program, uint32_t steps,
                           bt_error *err) {
    dev->counters.submissions++;
    for (uint32_t step = 0; step < steps; step++)
        for (int i = 0; i < program->count; i++) {
            const bt_launch *launch = &program->launches[i];
            BT_TRY(before_launch(launch, err));
            double start = bt_seconds();
            BT_TRY(dev->under->run(dev->dev, program->programs[i], 1, err));
            BT_TRY(dev->under->wait(dev->dev, err));
            if (program->log) bt_launch_log_add(program->log, i, start, bt_seconds() - start);
            BT_TRY(after_launch(dev, launch, err));
            dev->counters.launches++;
        }
    return BT_OK;
}

static bt_status check_wait(bt_device *dev, bt_error *err) {
    return dev->under->wait(dev->dev, err);
}

static void check_times(bt_device *dev, const bt_device_program *program, double *seconds,
                        double *total) {
    (void)dev;
    *total = 0; // (what is checked in between is not counted)
    for (int i = 0; i < program->count; i++)
        *total += seconds[i] = program->log ? program->log->seconds[i] : 0;
}

static const bt_launch_log *check_log(const bt_device_program *program) {
    return program->log;
}

static const bt_device_counters *check_counters(const bt_device *dev) {
    return &dev->counters;
}

static bt_precision check_precision(const bt_device *dev) {
    return dev->under->precision ? dev->under->precision(dev->dev) : BT_PRECISION_FP32;
}

const bt_device_api bt_device_check = {
    .name = "check",
    .host = true,
    .probe = check_probe,
    .open = check_open,
    .close = check_close,
    .buffer_init = check_buffer_init,
    .buffer_done = check_buffer_done,
    .write = check_write,
    .read = check_read,
    .program_init = check_program_init,
    .program_done = check_program_done,
    .run = check_run,
    .wait = check_wait,
    .times = check_times,
    .log = check_log,
    .counters = check_counters,
    .precision = check_precision,
};
