// Speed and error of matrix products on a device, and on a GPU beside those of its portable
// kernels. usage: matmul DEVICE SIZE...     prints a line of a Markdown table for each size and
// precision
//        SIZE: N, or MxNxK for y [M, N]; a letter t after it: b is stored [N, K]
// Operands are uniform in [-1, 1]; the error is that of 200 elements against sums in f64, relative
// to the root of k. Times are medians, packing of operands included.
#include "bantam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPEATS = 5, SAMPLES = 200 };

typedef struct product {
    size_t m, n, k;
    bool transposed; // b
    float *a, *b, *y;
} product;

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

static double error_of(const product *p) {
    double worst = 0;
    for (size_t s = 0; s < SAMPLES; s++) {
        size_t i = s * 7907 % p->m, j = s * 104723 % p->n;
        double sum = 0;
        for (size_t k = 0; k < p->k; k++)
            sum += (double)p->a[i * p->k + k] *
                   (double)p->b[p->transposed ? j * p->k + k : k * p->n + j];
        worst = fmax(worst, fabs(sum - (double)p->y[i * p->n + j]));
    }
    return worst / sqrt((double)p->k);
}

static bt_status median_time(bt_context *ctx, bt_program *program, double *out) {
    uint32_t steps = 1;
    double seconds[REPEATS], start, spent = 0;
    for (; spent < 0.05; steps *= 2) {
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

// Seconds of one product; y is filled.
static bt_status measure(bt_context *ctx, const product *p, double *seconds) {
    bt_tensor a = bt_input(ctx, BT_F32, BT_SHAPE((int)p->m, (int)p->k), p->a);
    bt_shape shape =
        p->transposed ? BT_SHAPE((int)p->n, (int)p->k) : BT_SHAPE((int)p->k, (int)p->n);
    bt_tensor b = bt_input(ctx, BT_F32, shape, p->b);
    bt_tensor y = bt_matmul_ex(ctx, a, false, b, p->transposed);
    bt_program *program;
    bt_program_desc desc = {.outputs = &y, .output_count = 1};
    bt_status status = bt_program_make(ctx, &desc, &program);
    if (status == BT_OK) status = median_time(ctx, program, seconds);
    if (status == BT_OK)
        status = bt_program_read(ctx, program, 0, p->y, p->m * p->n * sizeof *p->y);
    return status;
}

// One line of the table. Precisions that the device does not have are left out.
static bt_status line(const char *device, bt_precision precision, bool portable, const product *p,
                      const char *name) {
    static const char *const names[] = {"fp32", "tf32", "bf16"};
    bt_context_desc desc = {.device = device, .precision = precision, .no_overrides = portable};
    bt_context *ctx;
    double seconds = 0;
    bt_status status = bt_open(&desc, &ctx);
    if (status == BT_OK && bt_context_precision(ctx) == precision) {
        status = measure(ctx, p, &seconds);
        if (status == BT_OK)
            printf("| %s | %s%s | %.3f ms | %.1f GFLOP/s | %.1e |\n", name, names[precision],
                   portable ? ", portable kernel" : "", 1e3 * seconds,
                   2e-9 * (double)p->m * (double)p->n * (double)p->k / seconds, error_of(p));
        fflush(stdout);
    }
    if (status != BT_OK) fprintf(stderr, "matmul: %s\n", ctx ? bt_error_text(ctx) : "no memory");
    bt_close(ctx);
    return status;
}

static bool read_size(const char *text, product *p) {
    char *end;
    p->m = p->n = p->k = strtoul(text, &end, 10);
    if (*end == 'x') p->n = strtoul(end + 1, &end, 10);
    if (*end == 'x') p->k = strtoul(end + 1, &end, 10);
    p->transposed = *end == 't';
    return p->m > 0 && p->n > 0 && p->k > 0 && p->m < 1 << 20 && p->n < 1 << 20 && p->k < 1 << 20;
}

static bt_status table(const char *device, const char *text) {
    product p;
    if (!read_size(text, &p)) {
        fprintf(stderr, "matmul: %s is no size; give N or MxNxK\n", text);
        return BT_ERROR_USAGE;
    }
    size_t count = p.m * p.k + p.k * p.n + p.m * p.n;
    p.a = malloc(count * sizeof *p.a);
    if (!p.a) {
        fprintf(stderr, "matmul: no memory for %zu numbers\n", count);
        return BT_ERROR_MEMORY;
    }
    p.b = p.a + p.m * p.k;
    p.y = p.b + p.k * p.n;
    fill(p.a, p.m * p.k, 1);
    fill(p.b, p.k * p.n, 2);
    bool tuned = !strncmp(device, "cuda", 4) || !strncmp(device, "gpu", 3) ||
                 !strncmp(device, "metal", 5);
    bt_status status = tuned ? line(device, BT_PRECISION_FP32, true, &p, text) : BT_OK;
    for (int i = BT_PRECISION_FP32; i <= BT_PRECISION_BF16 && status == BT_OK; i++)
        status = line(device, (bt_precision)i, false, &p, text);
    free(p.a);
    return status;
}

int main(int argc, char **argv) {
    bt_status status = BT_OK;
    if (argc < 3) fprintf(stderr, "usage: matmul DEVICE SIZE...\n");
    for (int i = 2; i < argc && status == BT_OK; i++) status = table(argv[1], argv[i]);
    return (int)status;
}
