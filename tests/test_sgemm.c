// Matrix products on the CPU have the bits of one chain of multiply-adds for each part of k (see
// bt_cpu_depth_cut), whatever their shape, how operands lie, the number of threads and the path
// that is taken: tiles of all heights, packed or not, single rows and columns, several blocks.
#include "support.h"

#include <math.h>

#define BT_ISA base
#include "device/cpu/kernels_isa.h"

typedef struct shape {
    int m, n, k;
} shape;

// Does multiply-add round once?
static bool is_fused(bt_context *ctx) {
    bt_device_info info;
    bt_context_device(ctx, &info);
    return !strstr(info.description, "SSE2");
}

static float element(const float *a, const float *b, size_t k, size_t a_step, size_t b_step,
                     bool fused) {
    float y = 0;
    for (size_t part = 0; part < bt_cpu_depth_cuts(k); part++) {
        float sum = 0;
        for (size_t p = bt_cpu_depth_cut(k, part); p < bt_cpu_depth_cut(k, part + 1); p++) {
            float x = a[p * a_step], w = b[p * b_step];
            sum = fused ? fmaf(x, w, sum) : x * w + sum;
        }
        y = part > 0 ? y + sum : sum;
    }
    return y;
}

static void check_bits(const float *y, const float *a, const float *b, const float *bias,
                       const shape *s, int flip, bool fused) {
    size_t m = (size_t)s->m, n = (size_t)s->n, k = (size_t)s->k;
    size_t step = 1 + m * n * k / 4000000; // of large products some elements
    for (size_t at = 0; at < m * n; at += step) {
        size_t i = at / n, j = at % n;
        float want = element(flip & 1 ? a + i : a + i * k, flip & 2 ? b + j * k : b + j, k,
                             flip & 1 ? m : 1, flip & 2 ? 1 : n, fused);
        if (bias) want = fmaxf(0, want + bias[j]);
        check(y[at] == want, "%zu x %zu x %zu, flip %d%s: [%zu, %zu] is %.9g and not %.9g", m, n, k,
              flip, bias ? ", bias" : "", i, j, (double)y[at], (double)want);
    }
}

static void check_product(bt_context *ctx, const shape *s, int flip, bool biased) {
    size_t m = (size_t)s->m, n = (size_t)s->n, k = (size_t)s->k;
    float *a = allocate((m * k + k * n + n + m * n) * sizeof *a);
    float *b = a + m * k, *bias = b + k * n, *y = bias + n;
    uint64_t state = m * 7 + n * 31 + k;
    for (float *x = a; x < y; x++) *x = (float)test_random(&state, -1, 1);
    uint32_t mark = bt_mark(ctx);
    bt_shape a_shape = flip & 1 ? BT_SHAPE(s->k, s->m) : BT_SHAPE(s->m, s->k);
    bt_shape b_shape = flip & 2 ? BT_SHAPE(s->n, s->k) : BT_SHAPE(s->k, s->n);
    bt_tensor in_a = bt_input(ctx, BT_F32, a_shape, a), in_b = bt_input(ctx, BT_F32, b_shape, b);
    bt_tensor out = bt_matmul_ex(ctx, in_a, flip & 1, in_b, flip & 2);
    if (biased) out = bt_relu(ctx, bt_add(ctx, out, bt_input(ctx, BT_F32, BT_SHAPE(s->n), bias)));
    ok(ctx, bt_read(ctx, out, y, m * n * sizeof *y));
    check_bits(y, a, b, biased ? bias : NULL, s, flip, is_fused(ctx));
    bt_release(ctx, mark);
    free(a);
}

static void check_shapes(const shape *shapes, size_t count) {
    for (int threads = 1; threads <= 3; threads++) {
        bt_context *ctx = open_cpu(threads);
        for (size_t i = 0; i < count; i++)
            for (int flip = 0; flip < 4; flip++) {
                check_product(ctx, &shapes[i], flip, false);
                check_product(ctx, &shapes[i], flip, true);
            }
        bt_close(ctx);
    }
}

static void small_ones(void **state) {
    shape shapes[120];
    uint64_t seed = 6;
    (void)state;
    for (size_t i = 0; i < 120; i++) {
        int m = (int)test_random(&seed, 1, 40), n = (int)test_random(&seed, 1, 80);
        shapes[i] = (shape){m, n, (int)test_random(&seed, 1, 100)};
    }
    check_shapes(shapes, quick() ? 20 : 120);
}

// One to three rows (or one column), at the edges of wide tiles, vectors and parts of k.
static void few_rows(void **state) {
    static const shape shapes[] = {
        {1, 128, 784}, {1, 10, 128},  {1, 131, 17}, {1, 32, 3},     {1, 257, 401}, {1, 300, 1024},
        {2, 100, 50},  {2, 257, 30},  {3, 129, 33}, {3, 70, 900},   {128, 1, 784}, {257, 1, 401},
        {10, 1, 3},    {513, 1, 256}, {1, 1, 1000}, {1, 4096, 256}, {300, 2, 40},
    };
    (void)state;
    check_shapes(shapes, sizeof shapes / sizeof *shapes);
}

// Blocks of rows and of columns, more than one part of k.
static void several_blocks(void **state) {
    static const shape shapes[] = {
        {64, 128, 784}, {500, 40, 801},   {347, 300, 256}, {5, 4200, 20},
        {340, 4130, 9}, {150, 2070, 410}, {700, 17, 33},   {128, 784, 64},
    };
    (void)state;
    check_shapes(shapes, quick() ? 3 : sizeof shapes / sizeof *shapes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_ones),
        cmocka_unit_test(few_rows),
        cmocka_unit_test(several_blocks),
    };
    bt_device_info devices[16];
    int count = bt_devices(devices, 16), failed = 0;
    for (int i = 0; i < count && i < 16; i++) {
        bool plain = strstr(devices[i].description, "plain loops");
        if (strncmp(devices[i].name, "cpu:", 4) != 0 || plain) continue;
        test_device = devices[i].name;
        failed += cmocka_run_group_tests_name(devices[i].description, tests, NULL, NULL);
    }
    return failed;
}
