// Every vectorised kernel of every instruction set of this machine, called by itself: random small
// shapes against the plain loops in double precision, nothing written but the results, the same
// bits for any number of workers, and between instruction sets where docs/cpu.md says so. (test_ops
// has the operators, on chosen shapes.)
#include "launches.h"
#include "nets.h"
#include "support.h"

#include <inttypes.h>
#include <math.h>

#include "device/cpu/set.h"

enum { CASES = 300, CASES_QUICK = 60 };

static int case_count(void) {
    return quick() ? CASES_QUICK : CASES;
}

// ---- Values -----------------------------------------------------------------------------------

// How far a float result may be from `want`. sum: of the absolute values of all products, where the
// result is such a sum. Rounding errors are as good as random: they grow with the root of the
// depth.
static double tolerance(const launch_case *c, double want, double sum) {
    double unit = c->exact ? 0x1p-24 * fabs(want) / (1 + fabs(want)) : 0x1p-24;
    if (!c->linear) return unit * (8 + 2 * sqrt(c->depth)) * (1 + fabs(want));
    double own = c->slope > 1 ? 1 + fabs(want) : 0; // of what is applied to the sum
    return unit * ((8 + 2 * sqrt(c->depth)) * c->slope * sum + 8 * own);
}

static void check_values(const char *set, const launch_case *c, const outcome *got,
                         const outcome *want, const outcome *sums) {
    for (int b = 0; b < c->launch.binding_count; b++)
        for (size_t i = 0; is_written(c, b) && i < c->operand[b].count; i++) {
            double x = element_of(c, got, BT_F32, b, i), y = element_of(c, want, BT_F64, b, i);
            double sum = c->linear ? element_of(c, sums, BT_F64, b, i) : 0;
            bool fine = x == y || (isnan(x) && isnan(y)) ||
                        (c->operand[b].type == 'r' && fabs(x - y) <= tolerance(c, y, sum));
            check(fine, "%s, %s: element %zu of binding %d is %.9g and not %.17g", set, c->text, i,
                  b, x, y);
        }
}

static void check_case(const bt_cpu_set *set, const launch_case *c, const outcome *want,
                       const outcome *sums) {
    static const int workers[] = {2, 3, 5};
    const bt_cpu_kernel *kernel = &set->kernels[c->launch.kernel];
    outcome one = run_case(set->name, c, kernel, BT_F32, 1);
    check_values(set->name, c, &one, want, sums);
    for (int i = 0; i < 3; i++) {
        outcome many = run_case(set->name, c, kernel, BT_F32, workers[i]);
        check(!memcmp(one.block, many.block, one.bytes), "%s, %s: other bits by %d workers",
              set->name, c->text, workers[i]);
        free(many.block);
    }
    free(one.block);
}

static void check_kernel(bt_kernel_id kernel) {
    const bt_cpu_kernel *truth = &bt_cpu_reference_f64[kernel];
    for (int seed = 0; seed < case_count(); seed++) {
        launch_case c = make_case(kernel, (uint64_t)seed), positive = {0};
        outcome want = run_case("f64", &c, truth, BT_F64, 1), sums = {0};
        if (c.linear) {
            positive = absolute_case(&c);
            sums = run_case("f64", &positive, truth, BT_F64, 1);
        }
        for (int i = 0; bt_cpu_set_at(i); i++) check_case(bt_cpu_set_at(i), &c, &want, &sums);
        free(want.block), free(sums.block);
        free_case(&c), free_case(&positive);
    }
}

static void test_kernels(void **state) {
    (void)state;
    int kernels = 0;
    for (int k = 0; k < BT_KERNEL_COUNT; k++) {
        if (!bt_cpu_set_base.kernels[k].run) continue;
        check(has_cases((bt_kernel_id)k), "no cases for %s; add them to tests/launches.c",
              bt_kernel_table[k].name);
        check_kernel((bt_kernel_id)k);
        kernels++;
    }
    check(kernels > 10, "only %d kernels were tested", kernels);
}

// ---- Bits -------------------------------------------------------------------------------------

// Between which instruction sets a launch gives the same bits: what docs/cpu.md promises.
typedef enum agreement { NOWHERE, WITH_FMA, EVERYWHERE } agreement;

static agreement map_agreement(const launch_case *c) {
    bt_map_args args;
    memcpy(&args, c->launch.scalars, sizeof args);
    switch (args.op) {
    case BT_MAP_COPY:
    case BT_MAP_ADD:
    case BT_MAP_SUB:
    case BT_MAP_MUL:
    case BT_MAP_DIV:
    case BT_MAP_NEG:
    case BT_MAP_RELU:
    case BT_MAP_SQRT:
    case BT_MAP_RELU_GRAD: return EVERYWHERE;
    default: break;
    }
    bool plain = args.a_stride[3] > 1 || (c->operand[1].type && args.b_stride[3] > 1);
    return plain ? NOWHERE : WITH_FMA;
}

static agreement agreement_of(const launch_case *c) {
    bt_reduce_args reduce;
    memcpy(&reduce, c->launch.scalars, sizeof reduce);
    switch (c->launch.kernel) {
    case BT_KERNEL_map: return map_agreement(c);
    case BT_KERNEL_gather_batch:
    case BT_KERNEL_max_pool:
    case BT_KERNEL_max_pool_grad:
    case BT_KERNEL_step_end: return EVERYWHERE;
    case BT_KERNEL_matmul:
    case BT_KERNEL_conv2d:
    case BT_KERNEL_update: return WITH_FMA;
    case BT_KERNEL_reduce_sum: return reduce.inner > 1 ? WITH_FMA : NOWHERE; // else over lanes
    default: return NOWHERE;
    }
}

static bool has_fma(const bt_cpu_set *set) {
#if defined(__x86_64__)
    return set == &bt_cpu_set_avx2 || set == &bt_cpu_set_avx512;
#elif defined(__aarch64__)
    return set == &bt_cpu_set_base;
#else
    return set == NULL;
#endif
}

// Adds the results to a hash, any NaN as the same one.
static uint64_t hash_results(const launch_case *c, const outcome *out, uint64_t hash) {
    for (int b = 0; b < c->launch.binding_count; b++)
        for (size_t i = 0; is_written(c, b) && i < c->operand[b].count; i++) {
            double x = element_of(c, out, BT_F32, b, i);
            float value = (float)x;
            uint32_t bits = (uint32_t)(int32_t)(c->operand[b].type == 'i' ? x : 0);
            if (c->operand[b].type == 'r') memcpy(&bits, &value, 4);
            hash = (hash ^ (isnan(x) ? 0x7fc00000u : bits)) * 0x100000001b3u;
        }
    return hash;
}

// One number for all results of a kernel on which sets with `level` agree.
static uint64_t hash_kernel(const bt_cpu_set *set, bt_kernel_id kernel, agreement level) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (int seed = 0; seed < case_count(); seed++) {
        launch_case c = make_case(kernel, (uint64_t)seed);
        if (agreement_of(&c) >= level) {
            outcome out = run_case(set->name, &c, &set->kernels[kernel], BT_F32, 1);
            hash = hash_results(&c, &out, hash);
            free(out.block);
        }
        free_case(&c);
    }
    return hash;
}

// (tests/test_neon.sh compares the lines of one processor with those of another.)
static void test_bits(void **state) {
    (void)state;
    for (int k = 0; k < BT_KERNEL_COUNT; k++) {
        if (!bt_cpu_set_base.kernels[k].run) continue;
        uint64_t first[2] = {0};
        const char *name[2] = {NULL, NULL};
        for (int i = 0; bt_cpu_set_at(i); i++)
            for (int fma = 0; fma <= has_fma(bt_cpu_set_at(i)); fma++) {
                uint64_t hash =
                    hash_kernel(bt_cpu_set_at(i), (bt_kernel_id)k, fma ? WITH_FMA : EVERYWHERE);
                if (!name[fma]) name[fma] = bt_cpu_set_at(i)->name, first[fma] = hash;
                check(hash == first[fma], "%s: other bits by %s than by %s",
                      bt_kernel_table[k].name, bt_cpu_set_at(i)->name, name[fma]);
            }
        if (name[1]) printf("# bits %s %016" PRIx64 "\n", bt_kernel_table[k].name, first[1]);
    }
}

// ---- Training ---------------------------------------------------------------------------------

typedef struct trajectory {
    bt_log_entry log[8];
    void *state;
    size_t bytes;
} trajectory;

static trajectory train(const char *spec, int threads) {
    trajectory t;
    trained net =
        net_make(open_cpu(threads), &(net_desc){.spec = spec, .seed = 5, .limit = 50, .batch = 16});
    ok(net.ctx, bt_program_run(net.ctx, net.program, 8));
    ok(net.ctx, bt_program_log(net.ctx, net.program, 0, 8, t.log));
    t.state = net_state(&net, &t.bytes);
    bt_close(net.ctx);
    return t;
}

// Networks learn the same by every instruction set, with the same bits for any number of threads.
static void test_training(void **state) {
    (void)state;
    static const char *const specs[] = {"mlp", "lenet"};
    for (int s = 0; s < 2; s++) {
        trajectory first = {0};
        for (int i = 0; bt_cpu_set_at(i); i++) {
            char device[16];
            snprintf(device, sizeof device, "cpu:%d", i);
            test_device = device;
            trajectory one = train(specs[s], 1), three = train(specs[s], 3);
            check(!memcmp(one.state, three.state, one.bytes), "%s by %s: other bits by 3 threads",
                  specs[s], bt_cpu_set_at(i)->name);
            if (i == 0) first = one;
            for (int step = 0; step < 8; step++)
                check(fabs(one.log[step].loss - first.log[step].loss) < 1e-4,
                      "%s by %s: the loss of step %d is %.9g and not %.9g", specs[s],
                      bt_cpu_set_at(i)->name, step, one.log[step].loss, first.log[step].loss);
            if (i > 0) free(one.state);
            free(three.state);
        }
        free(first.state);
    }
    test_device = "cpu";
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
