// Speed and error of the f32 matrix product on a device with the kernels of a folder; learn.sh runs
// it for each step of docs/learn/kernels.md. A shared machine disturbs, so the best time counts.
// usage: learn DEVICE FOLDER SIZE...     prints one line per size; fails when a result is wrong
#include "bantam.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { REPEATS = 5, SAMPLES = 300 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// The smallest time of one product; `steps` of them are queued at once.
static bt_status best_time(bt_context *ctx, bt_program *program, double *best) {
    uint32_t steps = 1;
    bt_status status = bt_program_run(ctx, program, 1); // compiles
    *best = INFINITY;
    for (int i = 0; i < REPEATS && status == BT_OK;) {
        double start = now();
        status = bt_program_run(ctx, program, steps);
        double spent = now() - start;
        *best = fmin(*best, spent / steps);
        if (spent < 0.1)
            steps *= 2;
        else
            i++;
    }
    return status;
}

// The largest error of some elements, relative to the root of n.
static double error_of(const float *a, const float *b, const float *y, size_t n) {
    double worst = 0;
    for (size_t s = 0; s < SAMPLES; s++) {
        size_t i = s * 7907 % n, j = (s * 104723 + n - 1) % n;
        double sum = 0;
        for (size_t k = 0; k < n; k++) sum += (double)a[i * n + k] * (double)b[k * n + j];
        double error = fabs(sum - (double)y[i * n + j]);
        if (!(error <= worst)) worst = error; // NaN too
    }
    return worst / sqrt((double)n);
}

static bt_status measure(bt_context *ctx, size_t n, double *error) {
    float *a = malloc(3 * n * n * sizeof *a), *b = a + n * n, *y = b + n * n;
    if (!a) return BT_ERROR_MEMORY;
    for (size_t i = 0; i < 2 * n * n; i++)
        a[i] = (float)((uint32_t)i * 2654435761u >> 8) * 0x1p-23f - 1;
    bt_shape shape = BT_SHAPE((int)n, (int)n);
    bt_tensor product =
        bt_matmul(ctx, bt_input(ctx, BT_F32, shape, a), bt_input(ctx, BT_F32, shape, b));
    bt_program *program;
    double seconds = 0;
    bt_status status =
        bt_program_make(ctx, &(bt_program_desc){.outputs = &product, .output_count = 1}, &program);
    if (status == BT_OK) status = best_time(ctx, program, &seconds);
    if (status == BT_OK) status = bt_program_read(ctx, program, 0, y, n * n * sizeof *y);
    if (status == BT_OK) {
        *error = error_of(a, b, y, n);
        printf("%5zu %12.3f ms %9.2f GFLOP/s   error %.1e\n", n, 1e3 * seconds,
               2e-9 * (double)n * (double)n * (double)n / seconds, *error);
    }
    free(a);
    return status;
}

int main(int argc, char **argv) {
    char swapped[4096];
    bt_context *ctx;
    bt_status status = bt_open(&(bt_context_desc){.device = argc > 1 ? argv[1] : "vulkan"}, &ctx);
    if (status == BT_OK && argc > 2)
        status = bt_kernels_load(ctx, argv[2], swapped, sizeof swapped);
    for (int i = 3; i < argc && status == BT_OK; i++) {
        uint32_t mark = bt_mark(ctx);
        double error = 0;
        status = measure(ctx, strtoul(argv[i], NULL, 10), &error);
        bt_release(ctx, mark);
        if (status == BT_OK && !(error < 1e-5)) {
            fprintf(stderr, "learn: the product of size %s is wrong by %g\n", argv[i], error);
            bt_close(ctx);
            return 1;
        }
    }
    if (status != BT_OK) fprintf(stderr, "learn: %s\n", ctx ? bt_error_text(ctx) : "no memory");
    bt_close(ctx);
    return (int)status;
}
