// The Metal device, below the library and through it, on a Metal that is simulated (sim/metal):
// memory, programs, times, failures, and trainings that follow the CPU. After each test everything
// must have been given back, and nothing done that Metal does not allow. That a real GPU computes
// the same nothing here shows.
#include "base/launch_log.h"
#include "base/threads.h"
#include "device/metal/metal_internal.h"
#include "device/portable.h"

#define TESTED bt_device_metal
#include "device_calls.h"
#include "metal.h"
#include "nets.h"

#include <math.h>
#include <pthread.h>

static int before_device(void **state) {
    (void)state;
    reset();
    bt_error_clear(&err);
    return 0;
}

static int after_device(void **state) {
    (void)state;
    test_device = "cpu";
    return metal_nothing_left();
}

static counter make_buffers(void) {
    bt_device *dev;
    works(api->open(0, &(bt_context_desc){.device = "metal"}, &err, &dev));
    return counter_buffers(dev);
}

static void free_counter(counter *c) {
    counter_done(c);
    api->close(c->dev);
}

static void test_probe(void **state) {
    (void)state;
    bt_device_info info;
    check(api->probe(0, &info) && info.available && info.software, "there is no metal:0: %s",
          info.reason);
    check(strstr(info.description, "Simulated Metal"), "metal:0 is \"%s\"", info.description);
    check(info.memory_bytes == (size_t)8 << 30, "it has %zu bytes", info.memory_bytes);
    check(!api->probe(1, &info) && info.reason[0], "there is a metal:1");
    wish_for(&(metal_sim_wish){.no_default = true}); // over ssh, say
    check(api->probe(0, &info) && info.available, "the only device is not found: %s", info.reason);
    wish_for(&(metal_sim_wish){.no_device = true});
    check(!api->probe(0, &info) && info.reason[0], "there is a device");
    counter c;
    bt_error_clear(&err);
    check(api->open(0, NULL, &err, &c.dev) == BT_ERROR_DEVICE && err.text[0], "it opens");
    wish_for(&(metal_sim_wish){.shared_max = 8192});
    fails(BT_ERROR_DEVICE, "8192 bytes of threadgroup memory", api->open(0, NULL, &err, &c.dev));
}

static void test_round_trips(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 3, 4, 5, 255, 256, 257, 100000, 9 << 20};
    counter c = make_buffers();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t bytes = sizes[i], offset = bytes % 13;
        uint8_t *want = allocate(bytes), *got = allocate(bytes);
        bt_buffer buffer;
        for (size_t j = 0; j < bytes; j++) want[j] = (uint8_t)(j * 31 + j / 251);
        works(api->buffer_init(c.dev, bytes, &err, &buffer));
        check(state_now()->bytes % 256 == 0, "a buffer of %zu bytes is not whole bindings", bytes);
        works(api->write(c.dev, &buffer, 0, want, bytes, &err));
        if (offset < bytes) want[offset] ^= 0x5a;
        if (offset < bytes) works(api->write(c.dev, &buffer, offset, want + offset, 1, &err));
        works(api->read(c.dev, &buffer, 0, got, bytes, &err));
        check(!memcmp(want, got, bytes), "%zu bytes are damaged", bytes);
        fails(BT_ERROR_INTERNAL, "were asked for", api->read(c.dev, &buffer, 1, got, bytes, &err));
        api->buffer_done(c.dev, &buffer);
        free(want);
        free(got);
    }
    free_counter(&c);
}

// Many steps in few command buffers, of which few are under way; writing and reading wait for them.
static void test_steps(void **state) {
    (void)state;
    counter c = make_buffers();
    works(counter_program(&c, false));
    int before = state_now()->commits, dispatches = state_now()->dispatches;
    works(api->run(c.dev, c.program, 12000, &err)); // 24 000 launches, so 12 chunks and the first
    check(state_now()->flying <= 4, "%d command buffers are under way", state_now()->flying);
    expect(c.dev, &c.x, 12000);
    int commits = state_now()->commits - before;
    check(commits >= 12 && commits <= 300 && state_now()->dispatches - dispatches == 24000,
          "%d command buffers and %d dispatches for 12000 steps", commits,
          state_now()->dispatches - dispatches);
    check((int)api->counters(c.dev)->submissions == commits &&
              api->counters(c.dev)->launches == 24000,
          "it counts %d submissions", (int)api->counters(c.dev)->submissions);
    works(api->run(c.dev, c.program, 0, &err));
    works(api->run(c.dev, c.program, 1, &err));
    works(api->write(c.dev, &c.one, 0, (float[N]){0}, sizeof(float[N]), &err));
    works(api->run(c.dev, c.program, 5, &err));
    expect(c.dev, &c.x, 12001);
    check(state_now()->concurrent > 0, "launches never run side by side");
    works(api->run(c.dev, c.program, 50, &err)); // and what is under way outlives its program
    free_counter(&c);
}

// On GPUs with memory of their own launches run in order.
static void test_not_unified(void **state) {
    (void)state;
    wish_for(&(metal_sim_wish){.not_unified = true});
    int before = state_now()->concurrent;
    counter c = make_buffers();
    works(counter_program(&c, false));
    works(api->run(c.dev, c.program, 20, &err));
    expect(c.dev, &c.x, 20);
    check(state_now()->concurrent == before, "%d encoders are concurrent",
          state_now()->concurrent - before);
    free_counter(&c);
}

static void test_times(void **state) {
    (void)state;
    for (int timed = 0; timed < 2; timed++) {
        counter c = make_buffers();
        works(counter_program(&c, timed));
        int before = state_now()->commits;
        double start = bt_seconds();
        works(api->run(c.dev, c.program, 20, &err));
        works(api->run(c.dev, c.program, 20, &err));
        works(api->wait(c.dev, &err));
        double end = bt_seconds(), seconds[2], total;
        api->times(c.dev, c.program, seconds, &total);
        check(total <= end - start, "%g s of %g", total, end - start);
        for (int i = 0; timed && i < bt_launch_log_kept(api->log(c.program)); i++) {
            uint64_t step;
            const bt_launch_time *at = bt_launch_log_step(api->log(c.program), i, &step);
            check(at[0].start >= start && at[1].start + at[1].seconds <= end + 1e-3 &&
                      at[0].start < at[1].start,
                  "step %d is not on the host's clock", (int)step);
        }
        check(total > 0 && (seconds[0] > 0) == timed && (seconds[1] > 0) == timed &&
                  seconds[0] + seconds[1] <= total * 1.001,
              "%g + %g of %g s", seconds[0], seconds[1], total);
        check(!timed || state_now()->commits - before == 80, "%d command buffers",
              state_now()->commits - before);
        check(!api->log(c.program) == !timed, "the log is wrong");
        expect(c.dev, &c.x, 40);
        free_counter(&c);
    }
}

static void test_refusals(void **state) {
    (void)state;
    counter c = make_buffers();
    wish_for(&(metal_sim_wish){.compile_error = "kernels/map.k:7:1: error: it is Friday"});
    fails(BT_ERROR_DEVICE,
          "kernel map_vector (kernels/map.k) does not compile: kernels/map.k:7:1: error",
          counter_program(&c, false));
    fails(BT_ERROR_DEVICE, "it is Friday; this is Bantam's fault", counter_program(&c, false));
    wish_for(&(metal_sim_wish){.pipeline_error = "too many registers"});
    fails(BT_ERROR_DEVICE, "gives Metal no pipeline: too many registers",
          counter_program(&c, false));
    wish_for(&(metal_sim_wish){.no_function = true});
    fails(BT_ERROR_DEVICE, "gives Metal no function", counter_program(&c, false));
    wish_for(&(metal_sim_wish){.no_function = true, .no_words = true});
    fails(BT_ERROR_DEVICE, "gives Metal no function: Metal does not say why",
          counter_program(&c, false));
    wish_for(&(metal_sim_wish){.threads_max = 128});
    fails(BT_ERROR_DEVICE, "with 128 at most", counter_program(&c, false));
    reset();
    works(counter_program(&c, false)); // it goes on
    check(state_now()->fast_math == 0, "%d libraries are not of IEEE arithmetic",
          state_now()->fast_math);
    works(api->run(c.dev, c.program, 3, &err));
    expect(c.dev, &c.x, 3);
    wish_for(&(metal_sim_wish){.memory_max = 16 << 20});
    bt_buffer big, some;
    works(api->buffer_init(c.dev, 3 << 20, &err, &some));
    fails(BT_ERROR_MEMORY, "33554432 bytes were asked for, 3.0 of 8192.0 MiB are in use",
          api->buffer_init(c.dev, 32 << 20, &err, &big));
    api->buffer_done(c.dev, &some);
    wish_for(&(metal_sim_wish){.memory_max = 0});
    fails(BT_ERROR_MEMORY, "out of memory on metal:0",
          api->buffer_init(c.dev, (size_t)5 << 30, &err, &big));
    free_counter(&c);
}

// A command buffer that fails says so at the next call that waits, and at all that follow.
static void test_lost(void **state) {
    (void)state;
    static const struct {
        long code;
        bt_status status;
        const char *part;
    } cases[] = {{2, BT_ERROR_DEVICE, "a kernel took too long"},
                 {3, BT_ERROR_DEVICE, "a kernel left its buffers"},
                 {8, BT_ERROR_MEMORY, "try a smaller batch"},
                 {11, BT_ERROR_DEVICE, "the GPU was removed"},
                 {1, BT_ERROR_DEVICE, "a training goes on from its last checkpoint"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        counter c = make_buffers();
        works(counter_program(&c, i == 0));
        metal_sim_wish wish = {.command_error = "Caused an error", .command_code = cases[i].code};
        wish_for(&wish);
        bt_status status = api->run(c.dev, c.program, 1, &err);
        if (status == BT_OK) fails(cases[i].status, "Caused an error", api->wait(c.dev, &err));
        fails(cases[i].status, cases[i].part, api->run(c.dev, c.program, 1, &err));
        float value;
        fails(cases[i].status, "metal:0 (Simulated Metal) failed",
              api->read(c.dev, &c.x, 0, &value, sizeof value, &err));
        free_counter(&c);
    }
}

typedef struct product {
    uint32_t m, n, k, batch1, batch2;
    bool shared_a, shared_b; // all products have the first of them
    bool transpose_a, transpose_b, bias, forward;
    bool small; // for the portable kernels
} product;

enum { A, B, BIAS, FORWARD, Y, OPERANDS };

// What element (z, r, c) of y should be, after a ReLU or times the slope of one.
static double truth_of(const product *p, float *const v[OPERANDS], size_t z, size_t r, size_t c) {
    const float *a = v[A] + (p->shared_a ? 0 : z * p->m * p->k);
    const float *b = v[B] + (p->shared_b ? 0 : z * p->k * p->n);
    double sum = p->bias ? v[BIAS][c] : 0;
    for (size_t i = 0; i < p->k; i++)
        sum += (double)a[p->transpose_a ? i * p->m + r : r * p->k + i] *
               (double)b[p->transpose_b ? c * p->k + i : i * p->n + c];
    if (p->forward) return v[FORWARD][(z * p->m + r) * p->n + c] > 0 ? sum : 0;
    return sum > 0 ? sum : 0;
}

static bt_matmul_args scalars_of(const product *p) {
    uint32_t a = p->shared_a ? 0 : p->m * p->k, b = p->shared_b ? 0 : p->k * p->n;
    return (bt_matmul_args){.m = p->m,
                            .n = p->n,
                            .k = p->k,
                            .batch1 = p->batch1,
                            .batch2 = p->batch2,
                            .a_step = {a * p->batch2, a},
                            .b_step = {b * p->batch2, b},
                            .transpose_a = p->transpose_a,
                            .transpose_b = p->transpose_b,
                            .epilogue = p->forward ? BT_MAP_RELU_GRAD : BT_MAP_RELU};
}

// Runs it between two launches that bind other things at the same places; returns which override
// ran, or NULL.
static const char *run_product(bt_device *dev, const product *p, float *const v[OPERANDS],
                               const size_t count[OPERANDS]) {
    bt_buffer buffers[OPERANDS], spare = floats(dev, 1);
    for (int i = 0; i < OPERANDS; i++) {
        works(api->buffer_init(dev, count[i] * sizeof(float), &err, &buffers[i]));
        works(api->write(dev, &buffers[i], 0, v[i], count[i] * sizeof(float), &err));
    }
    bt_launch launch = {.kernel = BT_KERNEL_matmul, .dtype = BT_F32, .binding_count = OPERANDS};
    bt_matmul_args args = scalars_of(p);
    memcpy(launch.scalars, &args, sizeof args);
    for (int i = 0; i < OPERANDS; i++)
        if ((i != BIAS || p->bias) && (i != FORWARD || p->forward))
            launch.binding[i] = (bt_binding){&buffers[i], 0, buffers[i].bytes};
    bt_launch other = map_launch(BT_MAP_COPY, &spare, NULL, &spare, 1);
    const bt_launch launches[] = {launch, other, launch};
    bt_device_program *program;
    works(api->program_init(dev, launches, 3, &(bt_program_use){0}, &err, &program));
    works(api->run(dev, program, 1, &err));
    works(api->read(dev, &buffers[Y], 0, v[Y], buffers[Y].bytes, &err));
    int into = -1;
    double bytes = 0;
    const char *name = api->merged(program, 2, &into, &bytes);
    check(into == 2, "its time goes to launch %d", into);
    api->program_done(dev, program);
    for (int i = 0; i < OPERANDS; i++) api->buffer_done(dev, &buffers[i]);
    api->buffer_done(dev, &spare);
    return name;
}

static void check_product(const product *p, bool no_overrides, bool overridden) {
    size_t batch = (size_t)p->batch1 * p->batch2, y = batch * p->m * p->n;
    const size_t count[OPERANDS] = {batch * p->m * p->k, batch * p->k * p->n, p->n, y, y};
    float *v[OPERANDS];
    uint64_t seed = 5;
    bt_device *dev;
    works(api->open(0, &(bt_context_desc){.no_overrides = no_overrides}, &err, &dev));
    for (int i = 0; i < OPERANDS; i++) {
        v[i] = allocate(count[i] * sizeof *v[i]);
        for (size_t j = 0; j < count[i]; j++) v[i][j] = (float)test_random(&seed, -1, 1);
    }
    const char *name = run_product(dev, p, v, count);
    check(overridden ? name && !strcmp(name, "matmul_simd") : !name, "%ux%ux%u is done by %s", p->m,
          p->n, p->k, name ? name : "no override");
    for (size_t i = 0; i < y; i++) {
        double want = truth_of(p, v, i / p->n / p->m, i / p->n % p->m, i % p->n);
        check(fabs(v[Y][i] - want) < 1e-5 * p->k, "%ux%ux%u, element %zu is %g, not %g", p->m, p->n,
              p->k, i, (double)v[Y][i], want);
    }
    for (int i = 0; i < OPERANDS; i++) free(v[i]);
    api->close(dev);
}

// The products of an override, in all their kinds, and those that just are none of it.
static void test_override(void **state) {
    (void)state;
    static const product products[] = {
        {250, 300, 45, 1, 1, .bias = true},
        {256, 257, 32, 1, 1, .transpose_a = true},
        {255, 256, 33, 1, 1, .transpose_b = true},
        {250, 300, 64, 1, 1, .transpose_a = true, .transpose_b = true, .forward = true},
        {32, 65, 47, 2, 4, .bias = true, .forward = true},
        {33, 63, 48, 4, 4, .shared_b = true, .transpose_a = true},
        {65, 32, 80, 3, 3, .shared_a = true, .transpose_b = true},
        {256, 256, 31, 1, 1, .small = true},
        {31, 64, 64, 4, 4, .small = true},
        {64, 31, 64, 4, 4, .small = true},
        {64, 64, 64, 3, 5, .small = true},
    };
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        check_product(&products[i], false, !products[i].small);
    check_product(&products[0], true, false);
    wish_for(&(metal_sim_wish){.family = 6}); // has no SIMD-group matrices
    check_product(&products[0], false, false);
}

static const char seven[] =
    "#include <metal_stdlib>\n"
    "using namespace metal;\n"
    "#line 70 \"kernels/map.k\"\n"
    "kernel void map_vector(device const float *a [[buffer(0)]], device float *y [[buffer(2)]],\n"
    "    uint lid [[thread_index_in_threadgroup]], uint3 at [[threadgroup_position_in_grid]]) {\n"
    "    uint i = at.x * 256u + lid;\n"
    "    if (i < 1000u) y[i] = a[i] + 7.0f;\n"
    "}\n";

// Does an override run a product that is large enough?
static bool overridden(bt_device *dev) {
    static const product large = {.m = 256, .n = 256, .k = 64, .batch1 = 1, .batch2 = 1};
    static float zeros[256 * 256];
    float *v[OPERANDS] = {zeros, zeros, zeros, zeros, zeros};
    static const size_t count[OPERANDS] = {256 * 64, 64 * 256, 256, 256 * 256, 256 * 256};
    return run_product(dev, &large, v, count);
}

// A kernel is exchanged while a program exists; what does not compile changes nothing.
static void test_swap(void **state) {
    (void)state;
    counter c = make_buffers();
    works(counter_program(&c, false));
    works(api->run(c.dev, c.program, 20, &err));
    uint32_t grid[3];
    int index;
    bt_launch launch = map_launch(BT_MAP_ADD, &c.x, &c.one, &c.y, N);
    works(bt_portable_pick(bt_portable_table, bt_portable_count, &launch, grid, &err, &index));
    bt_portable rules = bt_portable_table[index]; // that soon are gone
    uint32_t four[] = {BT_RULE_NUMBER, 4, BT_RULE_END};
    char broken[sizeof seven];
    memcpy(broken, seven, sizeof seven);
    memcpy(strstr(broken, "7.0f"), "bad!", 4);
    fails(BT_ERROR_DATA, "kernels/map.k:73", api->kernel_swap(c.dev, index, &rules, broken, &err));
    works(api->run(c.dev, c.program, 1, &err)); // the old one is still there
    expect(c.dev, &c.x, 21);
    rules.grid[0] = four;
    rules.grid[1] = rules.grid[2] = NULL;
    works(api->run(c.dev, c.program, 1, &err)); // and may be under way
    works(api->kernel_swap(c.dev, index, &rules, seven, &err));
    memset(four, 0xff, sizeof four);
    works(api->run(c.dev, c.program, 2, &err)); // x + 7 twice: the copy is another kernel's
    float x;
    works(api->read(c.dev, &c.x, 0, &x, sizeof x, &err));
    check(x == 22 + 2 * 7 || x == 22 + 4 * 7, "the new kernel is not used: %g", (double)x);
    fails(BT_ERROR_USAGE, "no kernel -1", api->kernel_swap(c.dev, -1, &rules, seven, &err));
    check(overridden(c.dev), "another kernel's override is gone");
    int matmul = 0;
    while (bt_portable_table[matmul].kernel != BT_KERNEL_matmul) matmul++;
    works(
        api->kernel_swap(c.dev, matmul, &bt_portable_table[matmul], bt_metal_texts[matmul], &err));
    check(!overridden(c.dev), "an override hides a kernel that was exchanged");
    free_counter(&c);
}

// Contexts of several threads share what the process has of Metal, and nothing else.
static void *in_thread(void *unused) {
    (void)unused;
    static float zeros[N];
    bt_error why = {0};
    bt_device *dev;
    bt_buffer x;
    bt_device_program *program = NULL;
    float value = 0;
    if (api->open(0, NULL, &why, &dev) != BT_OK) return "it does not open";
    bool good = api->buffer_init(dev, sizeof zeros, &why, &x) == BT_OK &&
                api->write(dev, &x, 0, zeros, sizeof zeros, &why) == BT_OK;
    bt_launch more = map_launch(BT_MAP_EXP, &x, NULL, &x, N);
    good = good &&
           api->program_init(dev, &more, 1, &(bt_program_use){0}, &why, &program) == BT_OK &&
           api->run(dev, program, 2, &why) == BT_OK &&
           api->read(dev, &x, 0, &value, sizeof value, &why) == BT_OK;
    api->program_done(dev, program);
    api->buffer_done(dev, &x);
    api->close(dev);
    return good && fabsf(value - expf(1)) < 1e-5f ? NULL : "it computes something else";
}

static void test_threads(void **state) {
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        check(!pthread_create(&threads[i], NULL, in_thread, NULL), "no thread %d", i);
    for (int i = 0; i < THREADS; i++) {
        void *what;
        pthread_join(threads[i], &what);
        check(!what, "thread %d: %s", i, (const char *)what);
    }
}

// Step by step as on the CPU, through the public interface.
static void follow(const net_desc *desc, uint32_t steps) {
    double *want = allocate(steps * sizeof *want);
    for (int on_metal = 0; on_metal < 2; on_metal++) {
        test_device = on_metal ? "metal" : "cpu";
        bt_context *ctx = open_cpu(1);
        trained net = net_make(ctx, desc);
        ok(ctx, bt_program_run(ctx, net.program, steps));
        for (uint32_t s = 0; s < steps; s++) {
            double loss = net_loss(&net, s);
            if (!on_metal) want[s] = loss;
            check(loss - want[s] < 1e-4 && want[s] - loss < 1e-4,
                  "%s, step %u: the loss is %.7f, and %.7f on the CPU", desc->spec, s, loss,
                  want[s]);
        }
        bt_close(ctx);
    }
    free(want);
}

static void test_mlp_follows(void **state) {
    (void)state;
    follow(&(net_desc){.spec = "mlp", .limit = 640, .hyper = {.lr = 0.05, .momentum = 0.9}}, 30);
    follow(&(net_desc){.spec = "fc20,tanh,fc10",
                       .limit = 300,
                       .batch = 50,
                       .optimizer = BT_ADAM,
                       .hyper = {.lr = 0.001, .momentum = 0.9, .beta2 = 0.999, .epsilon = 1e-8}},
           12);
}

// 2 000 images, an epoch of them.
static void test_lenet_follows(void **state) {
    (void)state;
    int images = quick() ? 256 : 2000;
    follow(&(net_desc){.spec = "lenet", .limit = images, .hyper = {.lr = 0.02, .momentum = 0.9}},
           (uint32_t)(images + 63) / 64);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, before_device, after_device)
    const struct CMUnitTest on_device[] = {
        TEST(test_probe),       TEST(test_round_trips), TEST(test_steps),
        TEST(test_times),       TEST(test_refusals),    TEST(test_lost),
        TEST(test_not_unified), TEST(test_override),    TEST(test_swap),
        TEST(test_threads),     TEST(test_mlp_follows), TEST(test_lenet_follows),
    };
    return cmocka_run_group_tests(on_device, metal_start, NULL);
}
