// The simulated GPU: every check of it is shown a kernel that is wrong in one way, in the form that
// tools/kc gives them, and the same kernel when it is right. Also the rules that choose kernels.
#include "device/sim/run.h"
#include "support.h"

// ---- Kernels, as kc writes them --------------------------------------------------------------

typedef enum fault_kind {
    RIGHT,
    BAD_READ,
    BAD_WRITE,
    ABSENT,
    BAD_LOCAL,
    BAD_SHARED,
    SKIPS_ONE,
    SAME_ELEMENT,
    READS_OUT,
    READS_RESULT,
    NO_BARRIER,
    NO_SECOND_BARRIER,
    SAME_WORD,
    UNWRITTEN,
    STALE,
    OTHER_BARRIER,
    EARLY_END,
    LOCAL_POISON,
} fault_kind;

typedef struct bt_test_args {
    uint32_t n;
    uint32_t fault;
} bt_test_args;

typedef struct turn_shared {
    uint32_t count[2];
    float tile[4][17];
} turn_shared;

// At the end of this file, since they are said to come from others.
static void map_thread(bt_sim_thread *t);
static void turn_thread(bt_sim_thread *t);
static void count_thread(bt_sim_thread *t);

static const bt_sim_kernel map_kernel = {"map", map_thread, 0, false};
static const bt_sim_kernel turn_kernel = {"turn", turn_thread, sizeof(turn_shared), true};
static const bt_sim_kernel count_kernel = {"count", count_thread, 0, true};

// ---- Running one -----------------------------------------------------------------------------

enum { N = 128 };
static float x[N] __attribute__((aligned(256))), b[N] __attribute__((aligned(256)));
static float y[N] __attribute__((aligned(256)));
static uint32_t state[64] __attribute__((aligned(256)));

// Two groups of 64 threads on x, (b,) y, or on the state alone.
static bt_status run(const bt_sim_kernel *kernel, bt_kernel_id letters, fault_kind fault,
                     bool with_b, bt_error *err) {
    bt_buffer bx = {x, sizeof x}, bb = {b, sizeof b}, by = {y, sizeof y}, bs = {state, 4};
    bt_launch launch = {.kernel = (uint16_t)letters, .dtype = BT_F32, .binding_count = 3};
    launch.binding[0] = (bt_binding){&bx, 0, sizeof x};
    if (with_b) launch.binding[1] = (bt_binding){&bb, 0, sizeof b};
    launch.binding[2] = (bt_binding){&by, 0, sizeof y};
    if (letters == BT_KERNEL_step_end) {
        launch.binding_count = 4;
        launch.binding[3] = (bt_binding){&bs, 0, 4};
    }
    memcpy(launch.scalars, &(bt_test_args){N, fault}, sizeof(bt_test_args));
    char file[64];
    snprintf(file, sizeof file, "kernels/%s.k", kernel->name);
    bt_portable portable = {.name = kernel->name, .file = file, .line = 3, .group = 64};
    const uint32_t grid[3] = {letters == BT_KERNEL_step_end ? 1 : 2, 1, 1};
    bt_sim *sim;
    for (int i = 0; i < N; i++) x[i] = (float)i, b[i] = 100;
    check(bt_sim_open(err, &sim) == BT_OK, "%s", err->text);
    bt_status status = bt_sim_run(sim, kernel, &portable, grid, &launch, err);
    bt_sim_close(sim);
    return status;
}

static void catches(const bt_sim_kernel *kernel, bt_kernel_id letters, fault_kind fault,
                    const char *sentence) {
    bt_error err = {0};
    bt_status status = run(kernel, letters, fault, false, &err);
    check(status == BT_ERROR_INTERNAL, "fault %d of %s passes", (int)fault, kernel->name);
    check(strstr(err.text, sentence), "fault %d of %s: \"%s\", not \"%s\"", (int)fault,
          kernel->name, err.text, sentence);
}

static void test_right_kernels_run(void **state_unused) {
    (void)state_unused;
    bt_error err = {0};
    for (int with_b = 0; with_b < 2; with_b++) {
        check(run(&map_kernel, BT_KERNEL_map, RIGHT, with_b, &err) == BT_OK, "%s", err.text);
        for (int i = 0; i < N; i++)
            check(y[i] == (float)(i + 1 + 100 * with_b), "y[%d] = %g", i, (double)y[i]);
    }
    check(run(&turn_kernel, BT_KERNEL_map, RIGHT, false, &err) == BT_OK, "%s", err.text);
    for (int i = 0; i < N; i++)
        check(y[i] == (float)(i / 64 * 64 + (i + 61) % 64), "turned y[%d] = %g", i, (double)y[i]);
    state[0] = 41;
    check(run(&count_kernel, BT_KERNEL_step_end, RIGHT, false, &err) == BT_OK, "%s", err.text);
    check(state[0] == 42, "41 + 1 is %u", state[0]);
}

static void test_an_earlier_failure_does_not_stop_it(void **state_unused) {
    (void)state_unused;
    bt_error err = {0};
    (void)bt_fail(&err, BT_ERROR_DATA, "before");
    check(run(&map_kernel, BT_KERNEL_map, RIGHT, false, &err) == BT_OK,
          "an old error is taken for a new one");
    check(run(&map_kernel, BT_KERNEL_map, BAD_READ, false, &err) != BT_OK, "a wrong kernel passes");
}

static void test_indexes(void **state_unused) {
    (void)state_unused;
    catches(&map_kernel, BT_KERNEL_map, BAD_WRITE,
            "kernels/map.k:17: kernel map, group (0,0,0), thread 5: index 128 of binding 2 (128 "
            "elements)");
    catches(&map_kernel, BT_KERNEL_map, BAD_READ,
            "group (1,0,0), thread 63: index 128 of binding 0 (128 elements)");
    catches(&map_kernel, BT_KERNEL_map, ABSENT, "index 0 of binding 1 (0 elements)");
    catches(&map_kernel, BT_KERNEL_map, BAD_LOCAL, "thread 0: index 4 of an array of 4");
    catches(&turn_kernel, BT_KERNEL_map, BAD_SHARED, "thread 0: index 3 of an array of 3");
}

static void test_unwritten(void **state_unused) {
    (void)state_unused;
    catches(&map_kernel, BT_KERNEL_map, SKIPS_ONE,
            "kernels/map.k:3: kernel map leaves element 77 of binding 2 (128 elements) unwritten");
    catches(&turn_kernel, BT_KERNEL_map, UNWRITTEN, "thread 10: reads what no thread wrote");
    catches(&turn_kernel, BT_KERNEL_map, STALE,
            "group (1,0,0), thread 0: reads what no thread wrote");
    // A local array is not watched, but what comes of it is no number.
    bt_error err = {0};
    check(run(&map_kernel, BT_KERNEL_map, LOCAL_POISON, false, &err) == BT_OK, "%s", err.text);
    check(isnan(y[0]), "an unwritten local number gives %g", (double)y[0]);
}

static void test_races(void **state_unused) {
    (void)state_unused;
    catches(&turn_kernel, BT_KERNEL_map, SAME_WORD,
            "thread 1: writes a word of shared memory that thread 0 wrote since the last barrier");
    catches(&turn_kernel, BT_KERNEL_map, NO_SECOND_BARRIER, "of shared memory that thread");
    catches(&map_kernel, BT_KERNEL_map, SAME_ELEMENT,
            "thread 1: writes element 0 of binding 2 that thread 0 wrote in the same launch");
    catches(&map_kernel, BT_KERNEL_map, READS_RESULT,
            "thread 1: reads element 0 of binding 2 that thread 0 wrote in the same launch");
    catches(&count_kernel, BT_KERNEL_step_end, NO_BARRIER,
            "thread 63: writes element 0 of binding 3 that thread 62 read in the same launch");
    // Thread 0 comes first and finds nothing; were it the last, thread 63 would have written.
    catches(&turn_kernel, BT_KERNEL_map, NO_BARRIER, "thread 0: reads what no thread wrote");
}

static void test_divergent_barriers(void **state_unused) {
    (void)state_unused;
    catches(
        &turn_kernel, BT_KERNEL_map, OTHER_BARRIER,
        "kernels/turn.k:30: kernel turn, group (0,0,0), thread 32: waits at this barrier, while "
        "thread 0 waits at that of line 40");
    catches(&turn_kernel, BT_KERNEL_map, EARLY_END,
            "kernels/turn.k:40: kernel turn, group (0,0,0), thread 5: has ended, while thread 0 "
            "waits at this barrier");
}

static void test_functions(void **state_unused) {
    (void)state_unused;
    check(bt_sim_to_uint_f(-1) == 0 && bt_sim_to_uint_f(3.9f) == 3 && bt_sim_to_uint_f(NAN) == 0 &&
              bt_sim_to_uint_f(INFINITY) == UINT32_MAX,
          "uint(float) is wrong");
    check(bt_sim_to_int_f(-3.9f) == -3 && bt_sim_to_int_f(NAN) == 0 &&
              bt_sim_to_int_f(-INFINITY) == INT32_MIN && bt_sim_to_int_f(3e9f) == INT32_MAX,
          "int(float) is wrong");
    check(bt_sim_umulhi(0xffffffff, 0xffffffff) == 0xfffffffe &&
              bt_sim_abs_i(INT32_MIN) == INT32_MIN,
          "integer functions are wrong");
    check(bt_sim_as_uint(bt_sim_as_float(0x3f800000)) == 0x3f800000, "as_uint is wrong");
}

// ---- Rules -----------------------------------------------------------------------------------

#define RULE(...) ((const uint32_t[BT_RULE_WORDS_MAX]){__VA_ARGS__})
#define NUM(n)    BT_RULE_NUMBER, (n)
#define WORD(n)   BT_RULE_WORD, (n)

static void test_rules(void **state_unused) {
    (void)state_unused;
    _Alignas(8) unsigned char scalars[BT_SCALAR_BYTES_MAX] = {0};
    memcpy(scalars + 4, &(uint32_t){1000}, 4);
    static const struct {
        uint32_t rule[12], value;
    } good[] = {
        {{NUM(7)}, 7},
        {{WORD(1), NUM(255), BT_RULE_ADD, NUM(256), BT_RULE_DIV}, 4},
        {{NUM(9), NUM(4), BT_RULE_SUB}, 5},
        {{NUM(9), NUM(4), BT_RULE_MUL}, 36},
        {{NUM(9), NUM(4), BT_RULE_MOD}, 1},
        {{NUM(9), NUM(4), BT_RULE_MIN}, 4},
        {{NUM(9), NUM(4), BT_RULE_MAX}, 9},
        {{NUM(9), NUM(4), BT_RULE_LT}, 0},
        {{NUM(4), NUM(4), BT_RULE_LE}, 1},
        {{NUM(9), NUM(4), BT_RULE_GT}, 1},
        {{NUM(3), NUM(4), BT_RULE_GE}, 0},
        {{NUM(4), NUM(4), BT_RULE_EQ}, 1},
        {{NUM(4), NUM(4), BT_RULE_NE}, 0},
        {{NUM(2), NUM(4), BT_RULE_AND}, 1},
        {{NUM(0), NUM(0), BT_RULE_OR}, 0},
        {{NUM(2), BT_RULE_NOT}, 0},
    };
    uint32_t value;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        check(bt_rule_value(good[i].rule, scalars, &value) && value == good[i].value,
              "rule %zu gives %u, not %u", i, value, good[i].value);
    check(bt_rule_value(NULL, scalars, &value) && value == 1, "no rule is not 1");
}

static void test_hostile_rules(void **state_unused) {
    (void)state_unused;
    static const unsigned char scalars[BT_SCALAR_BYTES_MAX] = {0};
    static const uint32_t bad[][12] = {
        {BT_RULE_END},
        {NUM(1), NUM(2)},
        {NUM(1), BT_RULE_ADD},
        {BT_RULE_NOT},
        {NUM(1), NUM(0), BT_RULE_DIV},
        {NUM(1), NUM(0), BT_RULE_MOD},
        {NUM(0), NUM(1), BT_RULE_SUB},
        {NUM(~0u), NUM(1), BT_RULE_ADD},
        {NUM(65536), NUM(65536), BT_RULE_MUL},
        {WORD(16)},
        {WORD(~0u)},
        {NUM(1), NUM(1), 99},
    };
    uint32_t value, deep[BT_RULE_WORDS_MAX], endless[BT_RULE_WORDS_MAX];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check(!bt_rule_value(bad[i], scalars, &value), "bad rule %zu gives %u", i, value);
    for (int i = 0; i < BT_RULE_WORDS_MAX; i++) deep[i] = endless[i] = BT_RULE_NUMBER;
    deep[2 * (BT_RULE_DEPTH + 1)] = BT_RULE_END;
    check(!bt_rule_value(deep, scalars, &value), "a rule that is too deep passes");
    for (int i = 2; i < BT_RULE_WORDS_MAX; i++) endless[i] = BT_RULE_NOT;
    check(!bt_rule_value(endless, scalars, &value), "a rule without an end passes");
    endless[BT_RULE_WORDS_MAX - 1] = BT_RULE_NUMBER;
    check(!bt_rule_value(endless, scalars, &value), "a rule that ends in the middle passes");
}

static void test_pick(void **state_unused) {
    (void)state_unused;
    const bt_portable table[] = {
        {.name = "impossible",
         .file = "a.k",
         .kernel = BT_KERNEL_map,
         .when = RULE(NUM(1), NUM(0), BT_RULE_DIV)},
        {.name = "small",
         .file = "a.k",
         .kernel = BT_KERNEL_map,
         .when = RULE(WORD(0), NUM(10), BT_RULE_LT)},
        {.name = "map",
         .file = "a.k",
         .kernel = BT_KERNEL_map,
         .grid = {RULE(WORD(0), NUM(255), BT_RULE_ADD, NUM(256), BT_RULE_DIV), RULE(WORD(1))}},
    };
    bt_launch launch = {.kernel = BT_KERNEL_map, .dtype = BT_F32};
    uint32_t grid[3], words[2] = {1000, 0};
    bt_error err = {0};
    int index = -1;
    memcpy(launch.scalars, words, sizeof words);
    check(bt_portable_pick(table, 3, &launch, grid, &err, &index) == BT_OK, "%s", err.text);
    check(index == 2 && grid[0] == 4 && grid[1] == 1 && grid[2] == 1, "%d: %u, %u, %u", index,
          grid[0], grid[1], grid[2]);
    words[1] = 70000;
    memcpy(launch.scalars, words, sizeof words);
    check(bt_portable_pick(table, 3, &launch, grid, &err, &index) == BT_ERROR_USAGE,
          "70000 groups pass");
    check(strstr(err.text, "70000") && strstr(err.text, "map"), "%s", err.text);
    bt_error_clear(&err);
    words[0] = ~0u;
    memcpy(launch.scalars, words, sizeof words);
    check(bt_portable_pick(table, 3, &launch, grid, &err, &index) == BT_ERROR_USAGE,
          "an overflow passes");
    words[0] = 9;
    memcpy(launch.scalars, words, sizeof words);
    check(bt_portable_pick(table, 3, &launch, grid, &err, &index) == BT_OK && index == 1,
          "9 picks %d", index);
    bt_error_clear(&err);
    launch.dtype = BT_F64;
    check(bt_portable_pick(table, 3, &launch, grid, &err, &index) == BT_ERROR_DEVICE, "f64 passes");
    launch.dtype = BT_F32;
    launch.kernel = BT_KERNEL_map_host;
    check(bt_portable_pick(table, 3, &launch, grid, &err, &index) == BT_ERROR_DEVICE,
          "map_host passes");
}

static void test_present(void **state_unused) {
    (void)state_unused;
    bt_buffer buffer = {0};
    bt_launch launch = {.binding_count = 4};
    launch.binding[0].buffer = launch.binding[2].buffer = launch.binding[5].buffer = &buffer;
    check(bt_portable_present(&launch) == 5, "present: %u", bt_portable_present(&launch));
}

// ---- The kernels that there are, as a device -------------------------------------------------

enum { ROWS = 37, COLS = 70 };

static void compute(const char *device, float out[ROWS * COLS], bt_counters *counters) {
    bt_context *ctx;
    bt_status status = bt_open(&(bt_context_desc){.device = device}, &ctx);
    check(status == BT_OK, "%s", bt_error_text(ctx));
    bt_tensor a = bt_random_normal(ctx, BT_F32, BT_SHAPE(ROWS, 129), 1, 0, 1);
    bt_tensor w = bt_random_normal(ctx, BT_F32, BT_SHAPE(129, COLS), 2, 0, 1);
    bt_tensor bias = bt_random_normal(ctx, BT_F32, BT_SHAPE(COLS), 3, 0, 1);
    bt_tensor t = bt_tanh(ctx, bt_add(ctx, bt_matmul(ctx, a, w), bias));
    ok(ctx, bt_read(ctx, bt_mul(ctx, t, t), out, ROWS * COLS * sizeof *out));
    bt_context_counters(ctx, counters);
    bt_close(ctx);
}

static void test_runs_as_a_device(void **state_unused) {
    (void)state_unused;
    float *want = allocate(ROWS * COLS * sizeof *want), *got = allocate(ROWS * COLS * sizeof *got);
    bt_counters counters;
    compute("cpu", want, &counters);
    compute("sim", got, &counters);
    for (int i = 0; i < ROWS * COLS; i++)
        check(fabsf(got[i] - want[i]) < 1e-4f, "element %d is %g, not %g", i, (double)got[i],
              (double)want[i]);
    check(counters.submissions == 1 && counters.launches == 5 &&
              counters.bytes_read == ROWS * COLS * sizeof *got,
          "%d submissions, %d launches, %d bytes read", (int)counters.submissions,
          (int)counters.launches, (int)counters.bytes_read);
    free(want);
    free(got);
}

static void test_doubles_are_refused(void **state_unused) {
    (void)state_unused;
    bt_context *ctx;
    double one = 1;
    check(bt_open(&(bt_context_desc){.device = "sim"}, &ctx) == BT_OK, "%s", bt_error_text(ctx));
    bt_tensor a = bt_from(ctx, BT_F64, BT_SHAPE(1), &one);
    refused(ctx, BT_ERROR_DEVICE, "f64", bt_read(ctx, bt_exp(ctx, a), &one, sizeof one));
    bt_close(ctx);
}

static void test_gpu_is_not_simulated(void **state_unused) {
    (void)state_unused;
    bt_context *ctx;
    bt_device_info info;
    if (bt_open(&(bt_context_desc){.device = "gpu"}, &ctx) == BT_OK) {
        bt_context_device(ctx, &info);
        check(!info.software, "\"gpu\" is %s", info.name);
    }
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_kernels_run),
        cmocka_unit_test(test_an_earlier_failure_does_not_stop_it),
        cmocka_unit_test(test_indexes),
        cmocka_unit_test(test_unwritten),
        cmocka_unit_test(test_races),
        cmocka_unit_test(test_divergent_barriers),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_hostile_rules),
        cmocka_unit_test(test_pick),
        cmocka_unit_test(test_present),
        cmocka_unit_test(test_runs_as_a_device),
        cmocka_unit_test(test_doubles_are_refused),
        cmocka_unit_test(test_gpu_is_not_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// ---- The kernels; nothing may follow them, because of #line ----------------------------------

// y[i] = x[i] + 1 (+ b[i] where there is b)
static void map_thread(bt_sim_thread *t) {
    const uint32_t lid = t->lid, gx = t->gx, gy = t->gy, gz = t->gz, ngx = t->ngx;
    const bt_test_args *p = t->group->scalars;
    for (uint32_t i = gx * 64u + lid; i < p->n; i += ngx * 64u) {
        float local[4];
        BT_SIM_POISON(local);
        local[BT_SIM_INDEX(p->fault == BAD_LOCAL ? 4u + lid : 3u, 4u)] = 1.0f;
        if (p->fault == SKIPS_ONE && i == 77u) {
            continue;
        }
        float v = local[BT_SIM_INDEX(p->fault == LOCAL_POISON ? 2u : 3u, 4u)];
        if (BT_SIM_HAS(1) || p->fault == ABSENT) {
            v += BT_SIM_IN(float, 1, i);
        }
        if (p->fault == SAME_ELEMENT) {
            BT_SIM_AT(float, 2, 0u) = (float)(i + 500u);
        }
        if (p->fault == READS_OUT) {
            v += BT_SIM_AT(float, 2, i);
        }
        if (p->fault == READS_RESULT && i > 0u) {
            v += BT_SIM_AT(float, 2, i - 1u);
        }
        v += BT_SIM_IN(float, 0, p->fault == BAD_READ ? i + 1u : i);
#line 17 "kernels/map.k"
        BT_SIM_AT(float, 2, p->fault == BAD_WRITE && i == 5u ? p->n : i) = v;
    }
}

// Each group turns its 64 numbers by one place, three times; each time by way of shared memory.
static void turn_thread(bt_sim_thread *t) {
    const uint32_t lid = t->lid, gx = t->gx, gy = t->gy, gz = t->gz, ngx = t->ngx;
    const bt_test_args *p = t->group->scalars;
    turn_shared *sh = t->group->shared;
    float v = BT_SIM_IN(float, 0, gx * 64u + lid);
    for (uint32_t round = 0u; round < 3u; round++) {
        const uint32_t from = (lid + 63u) % 64u;
        if (!(p->fault == UNWRITTEN && lid == 9u) && !(p->fault == STALE && gx == 1u)) {
            BT_SIM_SHARED(sh->tile[BT_SIM_INDEX(lid / 16u, 4u)][BT_SIM_INDEX(lid % 16u, 17u)]) = v;
        }
        if (p->fault == SAME_WORD) {
            BT_SIM_SHARED(sh->count[BT_SIM_INDEX(0u, 2u)]) = lid;
        }
        if (p->fault == EARLY_END && lid == 5u) {
            return;
        }
        if (p->fault == OTHER_BARRIER && lid >= 32u) {
#line 30 "kernels/turn.k"
            BT_SIM_BARRIER();
        } else if (p->fault != NO_BARRIER) {
#line 40 "kernels/turn.k"
            BT_SIM_BARRIER();
        }
#line 50 "kernels/turn.k"
        v = BT_SIM_SHARED(sh->tile[BT_SIM_INDEX(from / 16u, p->fault == BAD_SHARED ? 3u : 4u)]
                                  [BT_SIM_INDEX(from % 16u, 17u)]);
        if (p->fault != NO_SECOND_BARRIER) {
            BT_SIM_BARRIER();
        }
    }
    BT_SIM_AT(float, 2, gx * 64u + lid) = v;
}

// s[lid] += 1, and the last thread writes what all have read.
static void count_thread(bt_sim_thread *t) {
    const bt_test_args *p = t->group->scalars;
    const uint32_t first = BT_SIM_AT(uint32_t, 3, 0u);
    if (p->fault != NO_BARRIER) {
        BT_SIM_BARRIER();
    }
    if (t->lid == 63u) {
        BT_SIM_AT(uint32_t, 3, 0u) = first + 1u;
    }
}
