// Products of operands rounded to bfloat16 on CPUs that have AVX512-BF16: within the rounding of
// f32 sums of the product of the rounded operands, and to the same bits for any number of threads.
// On other machines, that BF16 is asked for in vain.
#include "launches.h"
#include "nets.h"
#include "support.h"

#include <math.h>

#include "device/cpu/set.h"

static const bt_cpu_set *set_or_skip(void) {
    const bt_cpu_set *set = bt_cpu_set_at(0);
    if (!bt_cpu_has_bf16(set)) skip_because("this processor has no AVX512-BF16");
    return set;
}

// To nearest, ties to even.
static float rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);
    bits &= 0xffff0000;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// ---- The kernel --------------------------------------------------------------------------------

// Values with as many bits as a float has, so that rounding shows.
static void fill_operand(operand *o, uint64_t *state) {
    for (size_t i = 0; i < o->count; i++) o->v[i] = test_random(state, -1, 1);
}

static launch_case round_operands(const launch_case *c) {
    launch_case out = *c;
    for (int b = 0; b < out.launch.binding_count; b++) {
        if (!c->operand[b].type) continue;
        out.operand[b].v = allocate(c->operand[b].count * sizeof(double));
        for (size_t i = 0; i < c->operand[b].count; i++) {
            double v = c->operand[b].v[i];
            out.operand[b].v[i] = b < 2 ? (double)rounded((float)v) : v;
        }
    }
    return out;
}

// As in test_isa: rounding errors are as good as random and grow with the root of the depth.
static void check_results(const launch_case *c, const outcome *got, const outcome *want,
                          const outcome *sums) {
    for (size_t i = 0; i < c->operand[4].count; i++) {
        double x = element_of(c, got, BT_F32, 4, i), y = element_of(c, want, BT_F64, 4, i);
        double sum = element_of(c, sums, BT_F64, 4, i), own = c->slope > 1 ? 1 + fabs(y) : 0;
        double bound = 0x1p-24 * ((8 + 2 * sqrt(c->depth)) * c->slope * sum + 8 * own);
        check(fabs(x - y) <= bound, "%s: element %zu is %.9g and not %.17g, off by %g x the bound",
              c->text, i, x, y, fabs(x - y) / bound);
    }
}

static void check_case(const bt_cpu_set *set, const launch_case *c) {
    const bt_cpu_kernel *truth = &bt_cpu_reference_f64[BT_KERNEL_matmul];
    launch_case whole = round_operands(c), positive = absolute_case(&whole);
    outcome want = run_case("f64", &whole, truth, BT_F64, 1);
    outcome sums = run_case("f64", &positive, truth, BT_F64, 1);
    outcome one = run_case(set->name, c, &set->matmul_bf16, BT_F32, 1);
    check_results(c, &one, &want, &sums);
    for (int workers = 2; workers <= 5; workers++) {
        outcome many = run_case(set->name, c, &set->matmul_bf16, BT_F32, workers);
        check(!memcmp(one.block, many.block, one.bytes), "%s: other bits by %d workers", c->text,
              workers);
        free(many.block);
    }
    free(want.block), free(sums.block), free(one.block);
    free_case(&whole), free_case(&positive);
}

static void test_kernel(void **state) {
    const bt_cpu_set *set = set_or_skip();
    (void)state;
    for (uint64_t seed = 0; seed < (quick() ? 100 : 600); seed++) {
        launch_case c = make_case(BT_KERNEL_matmul, seed);
        uint64_t random = seed;
        fill_operand(&c.operand[0], &random), fill_operand(&c.operand[1], &random);
        check_case(set, &c);
        free_case(&c);
    }
}

// ---- The device --------------------------------------------------------------------------------

static bt_context *open_with(bt_precision precision, int threads) {
    bt_context *ctx = NULL;
    bt_context_desc desc = {.device = "cpu:0", .threads = threads, .precision = precision};
    ok(ctx, bt_open(&desc, &ctx));
    return ctx;
}

// y = a b, by so many threads.
static void multiply(bt_precision precision, int threads, const int *shape, const float *a,
                     const float *b, float *y) {
    int m = shape[0], n = shape[1], k = shape[2];
    bt_context *ctx = open_with(precision, threads);
    bt_tensor product = bt_matmul(ctx, bt_input(ctx, BT_F32, BT_SHAPE(m, k), a),
                                  bt_input(ctx, BT_F32, BT_SHAPE(k, n), b));
    ok(ctx, bt_read(ctx, product, y, (size_t)m * (size_t)n * sizeof *y));
    bt_close(ctx);
}

static void check_some(const int *shape, const float *a, const float *b, const float *y) {
    size_t n = (size_t)shape[1], k = (size_t)shape[2], count = (size_t)shape[0] * n;
    for (size_t i = 0; i < count; i += 1 + count / 5000) {
        double want = 0, sum = 0;
        for (size_t p = 0; p < k; p++) {
            double term = (double)rounded(a[i / n * k + p]) * (double)rounded(b[p * n + i % n]);
            want += term, sum += fabs(term);
        }
        check(fabs((double)y[i] - want) <= 0x1p-24 * (8 + 2 * sqrt((double)k)) * sum,
              "%d x %zu x %zu: element %zu is %.9g and not %.17g", shape[0], n, k, i, (double)y[i],
              want);
    }
}

// Several blocks of rows, of columns and of k; and small products, which stay in f32.
static void test_products(void **state) {
    static const int shapes[][3] = {{300, 1100, 850}, {33, 32, 401}, {129, 515, 32},
                                    {64, 128, 784},   {31, 64, 64},  {64, 10, 128}};
    set_or_skip();
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int *shape = shapes[s];
        size_t count = (size_t)shape[0] * (size_t)shape[1];
        size_t a_count = (size_t)shape[0] * (size_t)shape[2];
        size_t b_count = (size_t)shape[1] * (size_t)shape[2];
        float *a = allocate((a_count + b_count + 2 * count) * sizeof *a);
        float *b = a + a_count, *y = b + b_count, *other = y + count;
        uint64_t random = s;
        for (float *x = a; x < y; x++) *x = (float)test_random(&random, -1, 1);
        multiply(BT_PRECISION_BF16, 1, shape, a, b, y);
        for (int threads = 2; threads <= 3; threads++) {
            multiply(BT_PRECISION_BF16, threads, shape, a, b, other);
            check(!memcmp(y, other, count * sizeof *y), "other bits by %d threads", threads);
        }
        multiply(BT_PRECISION_FP32, 1, shape, a, b, other);
        bool small = shape[0] < 32 || shape[1] < 32;
        check(small == !memcmp(y, other, count * sizeof *y), "%d x %d: f32 %s", shape[0], shape[1],
              small ? "is rounded" : "is not rounded");
        if (!small) check_some(shape, a, b, y);
        free(a);
    }
}

// The precision is the device's where the processor has it, and FP32 elsewhere.
static void test_precision(void **state) {
    (void)state;
    for (int i = 0; bt_cpu_set_at(i); i++) {
        char name[16];
        snprintf(name, sizeof name, "cpu:%d", i);
        for (bt_precision p = BT_PRECISION_FP32; p <= BT_PRECISION_BF16; p++) {
            bt_context *ctx = NULL;
            ok(ctx, bt_open(&(bt_context_desc){.device = name, .precision = p}, &ctx));
            bool has = p == BT_PRECISION_BF16 && bt_cpu_has_bf16(bt_cpu_set_at(i));
            assert_int_equal(bt_context_precision(ctx), has ? p : BT_PRECISION_FP32);
            bt_close(ctx);
        }
    }
}

// What a training runs is named, and it learns. (The first layer leaves out zeros, in f32, and the
// last one is small.)
static void test_training(void **state) {
    set_or_skip();
    (void)state;
    net_desc desc = {.spec = "fc64,relu,fc64,relu,fc10", .seed = 1};
    trained net = net_make(open_with(BT_PRECISION_BF16, 2), &desc);
    const char *kernel;
    int named = 0;
    for (int i = 0; (kernel = bt_program_kernel(net.program, i)); i++)
        named += !strcmp(kernel, "matmul_bf16");
    check(named == 3, "%d products of bfloat16 in a step", named);
    ok(net.ctx, bt_program_run(net.ctx, net.program, 100));
    double before = net_loss(&net, 0), after = net_loss(&net, 99);
    check(after < before / 2, "the loss is %g, then %g", before, after);
    bt_close(net.ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_precision),
        cmocka_unit_test(test_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
