// The Metal device, below the library and through it, on a Metal that is simulated (sim/metal):
// memory, programs, times, failures, and trainings that follow the CPU. After each test everything
// must have been given back, and nothing done that Metal does not allow. That a real GPU computes
// the same nothing here shows.
#include "device/metal/metal.h"
#include "device/portable.h"
#include "device_calls.h"
#include "metal.h"
#include "nets.h"

#include <math.h>

enum { N = 1000 };

static const bt_device_api *const api = &bt_device_metal;

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

// y = x + one; x = y: every step needs the one before it.
typedef struct counter {
    bt_device *dev;
    bt_buffer x, y, one;
    bt_device_program *program;
} counter;

static bt_buffer filled(bt_device *dev, float value) {
    float values[N];
    bt_buffer out;
    for (int i = 0; i < N; i++) values[i] = value;
    works(api->buffer_init(dev, sizeof values, &err, &out));
    works(api->write(dev, &out, 0, values, sizeof values, &err));
    return out;
}

static bt_status make_program(counter *c, bool timed) {
    const bt_launch launches[] = {map_launch(BT_MAP_ADD, &c->x, &c->one, &c->y, N),
                                  map_launch(BT_MAP_COPY, &c->y, NULL, &c->x, N)};
    return api->program_init(c->dev, launches, 2, &(bt_program_use){.timed = timed}, &err,
                             &c->program);
}

static counter make_buffers(void) {
    counter c = {0};
    works(api->open(0, &(bt_context_desc){.device = "metal"}, &err, &c.dev));
    c.x = filled(c.dev, 0);
    c.y = filled(c.dev, 0);
    c.one = filled(c.dev, 1);
    return c;
}

static void free_counter(counter *c) {
    api->program_done(c->dev, c->program);
    api->buffer_done(c->dev, &c->x);
    api->buffer_done(c->dev, &c->y);
    api->buffer_done(c->dev, &c->one);
    api->close(c->dev);
}

static void expect_all(counter *c, float want) {
    float values[N];
    works(api->read(c->dev, &c->x, 0, values, sizeof values, &err));
    for (int i = 0; i < N; i++)
        check(values[i] == want, "element %d is %g, not %g", i, (double)values[i], (double)want);
}

static void test_probe(void **state) {
    (void)state;
    bt_device_info info;
    check(api->probe(0, &info) && info.available && info.software, "there is no metal:0: %s",
          info.reason);
    check(strstr(info.description, "Simulated Metal"), "metal:0 is \"%s\"", info.description);
    check(info.memory_bytes == (size_t)8 << 30, "it has %zu bytes", info.memory_bytes);
    check(!api->probe(1, &info) && info.reason[0], "there is a metal:1");
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
    works(make_program(&c, false));
    int before = state_now()->commits, dispatches = state_now()->dispatches;
    works(api->run(c.dev, c.program, 700, &err));
    check(state_now()->flying <= 8, "%d command buffers are under way", state_now()->flying);
    expect_all(&c, 700);
    int commits = state_now()->commits - before;
    check(commits <= 70 && state_now()->dispatches - dispatches == 1400,
          "%d command buffers and %d dispatches for 700 steps", commits,
          state_now()->dispatches - dispatches);
    check((int)api->counters(c.dev)->submissions == commits &&
              api->counters(c.dev)->launches == 1400,
          "it counts %d submissions", (int)api->counters(c.dev)->submissions);
    works(api->run(c.dev, c.program, 0, &err));
    works(api->run(c.dev, c.program, 1, &err));
    works(api->write(c.dev, &c.one, 0, (float[N]){0}, sizeof(float[N]), &err));
    works(api->run(c.dev, c.program, 5, &err));
    expect_all(&c, 701);
    free_counter(&c);
}

static void test_times(void **state) {
    (void)state;
    for (int timed = 0; timed < 2; timed++) {
        counter c = make_buffers();
        works(make_program(&c, timed));
        int before = state_now()->commits;
        works(api->run(c.dev, c.program, 20, &err));
        works(api->wait(c.dev, &err));
        double seconds[2], total;
        api->times(c.dev, c.program, seconds, &total);
        check(total > 0 && (seconds[0] > 0) == timed && (seconds[1] > 0) == timed &&
                  seconds[0] + seconds[1] <= total * 1.001,
              "%g + %g of %g s", seconds[0], seconds[1], total);
        check(!timed || state_now()->commits - before == 40, "%d command buffers",
              state_now()->commits - before);
        check(!api->log(c.program) == !timed, "the log is wrong");
        expect_all(&c, 20);
        free_counter(&c);
    }
}

static void test_refusals(void **state) {
    (void)state;
    counter c = make_buffers();
    wish_for(&(metal_sim_wish){.compile_error = "kernels/map.k:7:1: error: it is Friday"});
    fails(BT_ERROR_DEVICE,
          "kernel map_vector (kernels/map.k) does not compile: kernels/map.k:7:1: error",
          make_program(&c, false));
    fails(BT_ERROR_DEVICE, "it is Friday; this is Bantam's fault", make_program(&c, false));
    wish_for(&(metal_sim_wish){.pipeline_error = "too many registers"});
    fails(BT_ERROR_DEVICE, "gives Metal no pipeline: too many registers", make_program(&c, false));
    wish_for(&(metal_sim_wish){.no_function = true});
    fails(BT_ERROR_DEVICE, "gives Metal no function", make_program(&c, false));
    wish_for(&(metal_sim_wish){.threads_max = 128});
    fails(BT_ERROR_DEVICE, "with 128 at most", make_program(&c, false));
    reset();
    works(make_program(&c, false)); // it goes on
    works(api->run(c.dev, c.program, 3, &err));
    expect_all(&c, 3);
    wish_for(&(metal_sim_wish){.memory_max = 16 << 20});
    bt_buffer big;
    fails(BT_ERROR_MEMORY, "out of memory on metal:0",
          api->buffer_init(c.dev, 32 << 20, &err, &big));
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
        works(make_program(&c, i == 0));
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

// y = op(a) op(b) + bias, then ReLU, of uniform numbers; returns which override ran, or NULL.
static const char *product(bool no_overrides, bool transposed, float *y) {
    enum { M = 250, DEPTH = 45 };
    static const uint32_t n = 300;
    bt_device *dev;
    bt_buffer buffers[4];
    const size_t sizes[4] = {M * DEPTH, DEPTH * n, n, M * n};
    uint64_t seed = 5;
    works(api->open(0, &(bt_context_desc){.no_overrides = no_overrides}, &err, &dev));
    for (int i = 0; i < 4; i++) {
        works(api->buffer_init(dev, sizes[i] * sizeof(float), &err, &buffers[i]));
        for (size_t j = 0; j < sizes[i]; j++) y[j] = (float)test_random(&seed, -1, 1);
        works(api->write(dev, &buffers[i], 0, y, sizes[i] * sizeof(float), &err));
    }
    bt_launch launch = {.kernel = BT_KERNEL_matmul, .dtype = BT_F32, .binding_count = 5};
    bt_matmul_args args = {.m = M,
                           .n = n,
                           .k = DEPTH,
                           .batch1 = 1,
                           .batch2 = 1,
                           .transpose_a = transposed,
                           .transpose_b = transposed,
                           .epilogue = BT_MAP_RELU};
    memcpy(launch.scalars, &args, sizeof args);
    static const int place[4] = {0, 1, 2, 4};
    for (int i = 0; i < 4; i++)
        launch.binding[place[i]] = (bt_binding){&buffers[i], 0, buffers[i].bytes};
    bt_device_program *program;
    works(api->program_init(dev, &launch, 1, &(bt_program_use){0}, &err, &program));
    works(api->run(dev, program, 1, &err));
    works(api->read(dev, &buffers[3], 0, y, buffers[3].bytes, &err));
    int into = -1;
    double bytes = 0;
    const char *name = api->merged(program, 0, &into, &bytes);
    check(into == 0, "its time goes to launch %d", into);
    api->program_done(dev, program);
    for (int i = 0; i < 4; i++) api->buffer_done(dev, &buffers[i]);
    api->close(dev);
    return name;
}

static void test_override(void **state) {
    (void)state;
    enum { ROOM = 250 * 300 };
    float *want = allocate(ROOM * sizeof *want), *got = allocate(ROOM * sizeof *got);
    for (int transposed = 0; transposed < 2; transposed++) {
        check(!product(true, transposed, want), "an override runs though it was switched off");
        const char *name = product(false, transposed, got);
        check(name && !strcmp(name, "matmul_simd"), "%s runs", name ? name : "no override");
        for (int i = 0; i < ROOM; i++)
            check(fabsf(got[i] - want[i]) < 1e-5f, "element %d is %g, not %g", i, (double)got[i],
                  (double)want[i]);
        wish_for(&(metal_sim_wish){.family = 6}); // has no SIMD-group matrices
        check(!product(false, transposed, got), "an override runs on a GPU that is too old");
        check(!memcmp(want, got, ROOM * sizeof *got), "the portable kernel gives other bits");
        reset();
    }
    free(want);
    free(got);
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

// A kernel is exchanged while a program exists; what does not compile changes nothing.
static void test_swap(void **state) {
    (void)state;
    counter c = make_buffers();
    works(make_program(&c, false));
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
    expect_all(&c, 21);
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
    free_counter(&c);
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
        TEST(test_probe),       TEST(test_round_trips),   TEST(test_steps),    TEST(test_times),
        TEST(test_refusals),    TEST(test_lost),          TEST(test_override), TEST(test_swap),
        TEST(test_mlp_follows), TEST(test_lenet_follows),
    };
    return cmocka_run_group_tests(on_device, metal_start, NULL);
}
