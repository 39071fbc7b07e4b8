// Speed and error of the f32 matrix product on a device.
// usage: matmul DEVICE SIZE...     prints one line of a Markdown table per size
#include "bantam.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { REPEATS = 5, SAMPLES = 200 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fill(float *to, size_t count, uint32_t state) {
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
}

// The largest error of some elements, relative to the root of n (their standard deviation / 3).
static double error_of(const float *a, const float *b, const float *y, size_t n) {
    double worst = 0;
    for (size_t s = 0; s < SAMPLES; s++) {
        size_t i = s * 7907 % n, j = s * 104723 % n;
        double sum = 0;
        for (size_t k = 0; k < n; k++) sum += (double)a[i * n + k] * (double)b[k * n + j];
        worst = fmax(worst, fabs(sum - (double)y[i * n + j]));
    }
    return worst / sqrt((double)n);
}

static bt_status median_time(bt_context *ctx, bt_program *program, double *out) {
    uint32_t steps = 1;
    double seconds[REPEATS], start, spent = 0;
    for (; spent < 0.2; steps *= 2) {
        start = now();
        bt_status status = bt_program_run(ctx, program, steps);
        if (status != BT_OK) return status;
        spent = now() - start;
    }
    for (int i = 0; i < REPEATS; i++) {
        start = now();
        bt_status status = bt_program_run(ctx, program, steps);
        if (status != BT_OK) return status;
        seconds[i] = (now() - start) / steps;
    }
    qsort(seconds, REPEATS, sizeof *seconds, by_size);
    *out = seconds[REPEATS / 2];
    return BT_OK;
}

static bt_status measure(bt_context *ctx, size_t n) {
    size_t bytes = n * n * sizeof(float);
    float *values = malloc(3 * bytes);
    if (!values) return BT_ERROR_MEMORY;
    float *a = values, *b = a + n * n, *y = b + n * n;
    fill(a, n * n, 1);
    fill(b, n * n, 2);
    bt_shape shape = BT_SHAPE((int)n, (int)n);
    bt_tensor product =
        bt_matmul(ctx, bt_input(ctx, BT_F32, shape, a), bt_input(ctx, BT_F32, shape, b));
    bt_program *program;
    bt_program_desc desc = {.outputs = &product, .output_count = 1};
    double seconds = 0;
    bt_status status = bt_program_make(ctx, &desc, &program);
    if (status == BT_OK) status = median_time(ctx, program, &seconds);
    if (status == BT_OK) status = bt_program_read(ctx, program, 0, y, bytes);
    if (status == BT_OK)
        printf("| %zu | %.3f ms | %.1f GFLOP/s | %.1e |\n", n, 1e3 * seconds,
               2e-9 * (double)n * (double)n * (double)n / seconds, error_of(a, b, y, n));
    free(values);
    return status;
}

int main(int argc, char **argv) {
    bt_context *ctx;
    bt_context_desc desc = {.device = argc > 1 ? argv[1] : "cpu"};
    bt_status status = bt_open(&desc, &ctx);
    for (int i = 2; i < argc && status == BT_OK; i++) {
        uint32_t mark = bt_mark(ctx);
        status = measure(ctx, strtoul(argv[i], NULL, 10));
        bt_release(ctx, mark);
    }
    if (status != BT_OK) fprintf(stderr, "matmul: %s\n", ctx ? bt_error_text(ctx) : "no memory");
    bt_close(ctx);
    return (int)status;
}
