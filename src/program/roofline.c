// The roofline of a device (Williams, Waterman and Patterson, 2009), by the library's own kernels:
// the best of products and of copies that double in size until one takes long enough. Small ones
// count too, because what a small network touches stays in caches.
#include "base/cache.h"
#include "base/launch_log.h"
#include "base/threads.h"
#include "program/program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE_MIN = 64, SIDE_MAX = 8192, STEPS = 2 * BT_LOG_STEPS, LAUNCHES_MAX = 4 };
static const double part_seconds = 0.2;  // for each of the two
static const double side_seconds = 0.03; // for each size
static const double tick = 4e-6;         // what takes less is not timed well by the clock of a GPU

// What the measurement depends on; the head of the cache file.
typedef struct key {
    char text[256];
} key;

static key key_of(const bt_context *ctx, bt_dtype dtype) {
    key k;
    bt_device_info device;
    memset(&k, 0, sizeof k);
    bt_context_device(ctx, &device);
    snprintf(k.text, sizeof k.text, "%s %s %s %s %s %d", BT_VERSION_TEXT, device.name,
             device.description, bt_dtype_name(dtype), bt_precision_name(bt_context_precision(ctx)),
             ctx->threads ? ctx->threads : bt_core_count());
    return k;
}

// FNV-1a of the key: each device has a file of its own.
static void name_of(const key *k, char name[64]) {
    uint64_t hash = 14695981039346656037u;
    for (const char *p = k->text; *p; p++) hash = (hash ^ (unsigned char)*p) * 1099511628211u;
    snprintf(name, 64, "roofline-%016llx", (unsigned long long)hash);
}

// Numbers between 0 and 1: what is computed with zeros takes less power, and so may be faster.
static bt_tensor make_input(bt_context *ctx, bt_dtype dtype, int side) {
    size_t count = (size_t)side * (size_t)side, bytes = count * bt_dtype_size(dtype);
    void *values = malloc(bytes);
    uint32_t state = 1;
    for (size_t i = 0; values && i < count; i++) {
        state = state * 1664525u + 1013904223u;
        double value = (state >> 8) * 0x1p-24;
        if (dtype == BT_F64)
            ((double *)values)[i] = value;
        else
            ((float *)values)[i] = (float)value;
    }
    bt_tensor t = values ? bt_input(ctx, dtype, BT_SHAPE(side, side), values) : (bt_tensor){0};
    free(values);
    return t;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Seconds of a step as a profile counts them, its launches but step_end: the lower quartile, as
// other work on a CPU slows some of them, and some are a tick of a clock too short.
static double quartile(const bt_program *p) {
    bt_span spans[2 * BT_LOG_STEPS * LAUNCHES_MAX];
    double seconds[2 * BT_LOG_STEPS] = {0};
    int count = bt_program_trace(p, spans, sizeof spans / sizeof *spans), each = p->launch_count;
    for (int i = 0; i < count; i++)
        if (i % each < each - 1) seconds[i / each] += spans[i].seconds;
    qsort(seconds, (size_t)(count / each), sizeof *seconds, compare_doubles);
    return seconds[count / each / 4];
}

static bt_status time_steps(bt_context *ctx, bt_program *p, double *out) {
    if (p->launch_count < 2 || p->launch_count > LAUNCHES_MAX)
        return bt_fail(bt_error_of(ctx), BT_ERROR_INTERNAL,
                       "the roofline's program has %d launches", p->launch_count);
    double begin = bt_seconds();
    BT_TRY(bt_program_run(ctx, p, 2));
    double fit = side_seconds / (bt_seconds() - begin + 1e-9);
    BT_TRY(bt_program_run(ctx, p, fit < 2 ? 2 : fit > STEPS ? STEPS : (uint32_t)fit));
    *out = quartile(p);
    return BT_OK;
}

// A product, or a copy, of square matrices.
static bt_status time_side(bt_context *ctx, bt_dtype dtype, bool product, int side, double *out) {
    uint32_t mark = bt_mark(ctx);
    bt_tensor a = make_input(ctx, dtype, side);
    bt_tensor b = product ? bt_matmul(ctx, a, a) : bt_add_scalar(ctx, a, 1);
    bt_program *p;
    bt_status status = bt_program_make(
        ctx, &(bt_program_desc){.outputs = &b, .output_count = 1, .profile = true}, &p);
    if (status == BT_OK) status = time_steps(ctx, p, out);
    bt_release(ctx, mark);
    return status;
}

// The best rate over the sides, in 10^9 operations or bytes per second.
static bt_status best_rate(bt_context *ctx, bt_dtype dtype, bool product, double *out) {
    double begin = bt_seconds(), last = 0, seconds = 0;
    for (int side = SIDE_MIN; side <= SIDE_MAX; side *= 2) {
        // The next one takes 8 (or 4) times as long, a few times, and some time to prepare.
        double expected = seconds * (product ? 8 : 4) * 5, now = bt_seconds();
        if (now - begin + (expected > last ? expected : last) > part_seconds) break;
        BT_TRY(time_side(ctx, dtype, product, side, &seconds));
        last = 2 * (bt_seconds() - now);
        double area = (double)side * side;
        double work = product ? 2 * area * side : 2 * area * (double)bt_dtype_size(dtype);
        double rate = 1e-9 * work / seconds;
        if ((seconds >= tick || side == SIDE_MIN) && !(rate <= *out)) *out = rate;
    }
    return BT_OK;
}

bt_status bt_roofline_find(bt_context *ctx, bt_dtype dtype, bt_roofline *out) {
    key wanted = key_of(ctx, dtype), found;
    char name[64];
    size_t bytes = 0;
    name_of(&wanted, name);
    unsigned char *data = bt_cache_read(name, &found, sizeof found, sizeof *out, &bytes);
    bool known = data && bytes == sizeof *out && !memcmp(&found, &wanted, sizeof found);
    if (known) memcpy(out, data, sizeof *out);
    free(data);
    // (A damaged file is no reason to print nonsense.)
    if (known && out->gflops > 0 && out->gbytes_s > 0 && isfinite(out->gflops + out->gbytes_s))
        return BT_OK;
    *out = (bt_roofline){0};
    BT_TRY(best_rate(ctx, dtype, true, &out->gflops));
    BT_TRY(best_rate(ctx, dtype, false, &out->gbytes_s));
    bt_cache_write(name, &wanted, sizeof wanted, out, sizeof *out);
    return BT_OK;
}
