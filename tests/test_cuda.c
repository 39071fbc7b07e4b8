// The CUDA device, below the library and through it, on a driver that is none (cuda/fake.c): what
// is launched and when, in which order graphs may run, memory, times, exchanged kernels, failures,
// the choice of whole-program kernels. That real GPUs compute the same is what `bantam parity`
// shows.
#include "base/launch_log.h"
#include "base/threads.h"
#include "cuda/fake.h"
#include "device/cuda/cuda_internal.h"

#define TESTED bt_device_cuda
#include "device_calls.h"
#include "nets.h"
#include "program/program.h"

#include <dirent.h>
#include <dlfcn.h>
#include <unistd.h>

static const bt_context_desc portable_alone = {.device = "cuda", .no_overrides = true};
static fake_state_fn fake;
static fake_wish_fn make_wish;

static const char *fake_path(void) {
    static char path[1024];
    const char *build = getenv("BUILD");
    snprintf(path, sizeof path, "%s/tests/fake_cuda.so", build ? build : "build");
    return path;
}

static int start(void **state) {
    (void)state;
    setenv("BANTAM_LIBCUDA", fake_path(), 1);
    setenv("XDG_CACHE_HOME", scratch(), 1);
    void *library = dlopen(fake_path(), RTLD_NOW | RTLD_LOCAL);
    if (!library) fprintf(stderr, "ERROR: %s\n", dlerror());
    if (!library) return 1;
    *(void **)&fake = dlsym(library, "fake_cuda_state");
    *(void **)&make_wish = dlsym(library, "fake_cuda_wish");
    return !fake || !make_wish;
}

static int before_each(void **state) {
    (void)state;
    make_wish(&(fake_wish){0});
    bt_error_clear(&err);
    return 0;
}

// Nothing was done to the driver that it does not allow, and all was given back.
static int after_each(void **state) {
    (void)state;
    const fake_state *f = fake();
    int left = f->allocations + f->streams + f->events + f->modules + f->graphs + f->executables +
               f->contexts;
    if (f->misuse[0]) fprintf(stderr, "ERROR: misuse of the driver: %s\n", f->misuse);
    if (left)
        fprintf(stderr,
                "ERROR: left: %d allocations, %d streams, %d events, %d modules, %d graphs, %d "
                "executables, %d contexts\n",
                f->allocations, f->streams, f->events, f->modules, f->graphs, f->executables,
                f->contexts);
    return left || f->misuse[0];
}

static bt_device *open_device(void) {
    bt_device *dev;
    works(api->open(0, &portable_alone, &err, &dev));
    return dev;
}

// ---- Things to run ----------------------------------------------------------------------------

static counter *make_counter(bool timed) {
    counter *c = allocate(sizeof *c);
    *c = counter_buffers(open_device());
    works(counter_program(c, timed));
    return c;
}

static void free_counter(counter *c) {
    counter_done(c);
    api->close(c->dev);
    free(c);
}

// ---- Probing ----------------------------------------------------------------------------------

static void test_probe(void **state) {
    (void)state;
    bt_device_info info;
    bt_device *none;
    check(api->probe(0, &info) && info.available && !info.software, "there is no cuda:0: %s",
          info.reason);
    check(strstr(info.description, "Fake GPU 0, compute capability 9.0, driver for CUDA 13.0"),
          "cuda:0 is \"%s\"", info.description);
    check(info.memory_bytes == (size_t)8 << 30, "it has %zu bytes", info.memory_bytes);
    check(!api->probe(1, &info) && strstr(info.reason, "the last NVIDIA GPU is cuda:0"),
          "cuda:1 is \"%s\"", info.reason);
    fails(BT_ERROR_DEVICE, "there is no device cuda:7", api->open(7, NULL, &err, &none));
}

// What `bantam devices` says of cuda with these settings in the environment.
static void expect_reason(const char *settings, const char *part) {
    char command[2048], line[512], said[512] = "";
    const char *build = getenv("BUILD");
    snprintf(command, sizeof command, "%s %s/bantam devices 2>&1", settings,
             build ? build : "build");
    FILE *in = popen(command, "r");
    check(in != NULL, "%s does not run", command);
    while (fgets(line, sizeof line, in))
        if (!strncmp(line, "cuda:0", 6)) snprintf(said, sizeof said, "%s", line);
    pclose(in);
    check(strstr(said, "missing") && strstr(said, part), "with %s it says \"%s\"", settings, said);
}

static void test_reasons(void **state) {
    (void)state;
    expect_reason("BANTAM_LIBCUDA=/nonexistent.so", "there is no NVIDIA driver (libcuda.so.1)");
    expect_reason("FAKE_CUDA_VERSION=12020",
                  "is for CUDA 12.2, and Bantam needs one for CUDA 12.3");
    expect_reason("FAKE_CUDA_DEVICES=0", "finds no GPU");
    expect_reason("FAKE_CUDA_INIT=999", "does not start (999: something is wrong)");
    expect_reason("FAKE_CUDA_CAPABILITY=61", "has compute capability 6.1, and Bantam needs 7.");
}

// ---- Memory -----------------------------------------------------------------------------------

static void test_round_trips(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 3, 4, 5, 255, 256, 257, 100000, 9 << 20};
    bt_device *dev = open_device();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t bytes = sizes[i], offset = bytes % 13;
        uint8_t *want = allocate(bytes), *got = allocate(bytes);
        bt_buffer buffer;
        for (size_t j = 0; j < bytes; j++) want[j] = (uint8_t)(j * 31 + j / 251);
        works(api->buffer_init(dev, bytes, &err, &buffer));
        works(api->write(dev, &buffer, 0, want, bytes, &err));
        if (offset < bytes) want[offset] ^= 0x5a;
        if (offset < bytes) works(api->write(dev, &buffer, offset, want + offset, 1, &err));
        works(api->read(dev, &buffer, 0, got, bytes, &err));
        check(!memcmp(want, got, bytes), "%zu bytes are damaged", bytes);
        fails(BT_ERROR_INTERNAL, "were asked for", api->read(dev, &buffer, 1, got, bytes, &err));
        api->buffer_done(dev, &buffer);
        free(want);
        free(got);
    }
    api->close(dev);
}

static void test_out_of_memory(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_buffer small, big;
    make_wish(&(fake_wish){.bytes_max = 64 << 20});
    works(api->buffer_init(dev, 1 << 20, &err, &small));
    fails(BT_ERROR_MEMORY,
          "a buffer needs 101 MiB; of its 8192 MiB Bantam has 1, and 8191 are free",
          api->buffer_init(dev, 100 << 20, &err, &big));
    works(api->buffer_init(dev, 32 << 20, &err, &big)); // it goes on
    api->buffer_done(dev, &small);
    api->buffer_done(dev, &big);
    api->close(dev);
}

// ---- Programs ---------------------------------------------------------------------------------

static void test_steps(void **state) {
    (void)state;
    counter *c = make_counter(false);
    int launched = fake()->graph_launches;
    works(api->run(c->dev, c->program, 700, &err));
    check(fake()->graph_launches - launched == 10 + 7 + 4, "%d graphs for 700 steps",
          fake()->graph_launches - launched);
    expect(c->dev, &c->x, 700);
    works(api->run(c->dev, c->program, 0, &err));
    works(api->run(c->dev, c->program, 1, &err));
    expect(c->dev, &c->x, 701);
    const bt_device_counters *counters = api->counters(c->dev);
    check(counters->launches == 2 * 701 && counters->submissions == 22,
          "%d launches by %d submissions", (int)counters->launches, (int)counters->submissions);
    check(strstr(api->note(c->program), "2 launches as a graph"), "the note is \"%s\"",
          api->note(c->program));
    bool for_chip = bt_cuda_image_named("portable.cubin");
    check((fake()->edges_early > 0) == for_chip, "%d kernels start early", fake()->edges_early);
    free_counter(c);
}

// Launches that depend on each other in all ways, and some that do not: in whatever order the edges
// of the graph allow (the fake driver takes the last one first), each step gives the same.
static void test_edges_suffice(void **state) {
    (void)state;
    enum { BUFFERS = 6, LAUNCHES = 24, STEPS = 40 };
    bt_device *dev = open_device();
    bt_buffer buffer[BUFFERS];
    float want[BUFFERS];
    bt_launch launches[LAUNCHES];
    int from[LAUNCHES][3];
    uint64_t seed = 7;
    for (int i = 0; i < BUFFERS; i++) buffer[i] = floats(dev, want[i] = (float)i);
    for (int i = 0; i < LAUNCHES; i++) {
        for (int j = 0; j < 3; j++) from[i][j] = (int)test_random(&seed, 0, BUFFERS);
        while (from[i][2] == from[i][0] || from[i][2] == from[i][1])
            from[i][2] = (from[i][2] + 1) % BUFFERS;
        launches[i] = map_launch(BT_MAP_SUB, &buffer[from[i][0]], &buffer[from[i][1]],
                                 &buffer[from[i][2]], N);
    }
    bt_device_program *program;
    works(api->program_init(dev, launches, LAUNCHES, &(bt_program_use){0}, &err, &program));
    works(api->run(dev, program, STEPS, &err));
    for (int i = 0; i < STEPS * LAUNCHES; i++) {
        const int *at = from[i % LAUNCHES];
        want[at[2]] = want[at[0]] - want[at[1]];
    }
    for (int i = 0; i < BUFFERS; i++) expect(dev, &buffer[i], want[i]);
    api->program_done(dev, program);
    for (int i = 0; i < BUFFERS; i++) api->buffer_done(dev, &buffer[i]);
    api->close(dev);
}

static void test_not_run(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_device_program *program;
    bt_buffer x = floats(dev, 1);
    bt_launch launch = map_launch(BT_MAP_COPY, &x, NULL, &x, N);
    launch.dtype = BT_F64;
    fails(BT_ERROR_DEVICE, "GPUs compute in f32",
          api->program_init(dev, &launch, 1, &(bt_program_use){0}, &err, &program));
    works(api->program_init(dev, NULL, 0, &(bt_program_use){0}, &err, &program));
    works(api->run(dev, program, 5, &err));
    works(api->wait(dev, &err));
    api->program_done(dev, program);
    api->buffer_done(dev, &x);
    api->close(dev);
}

// Each of the 2 launches of a step begins after the one before, on the host's clock.
static void check_log(const bt_launch_log *log, int steps) {
    double at = bt_seconds() - 60;
    check(log ? bt_launch_log_kept(log) == steps : !steps, "not %d steps are kept", steps);
    for (int i = 0; i < 2 * steps; i++) {
        uint64_t step;
        const bt_launch_time *time = &bt_launch_log_step(log, i / 2, &step)[i % 2];
        if (i == 2 * 20) at = 0; // another run: the clock of the fake goes its own way
        check(step == (uint64_t)i / 2 && time->start > at - 1e-9 && time->start < bt_seconds(),
              "launch %d of step %d began at %.9f, after %.9f", i % 2, i / 2, time->start, at);
        at = time->start + time->seconds;
    }
}

static void test_times(void **state) {
    (void)state;
    for (int timed = 0; timed < 2; timed++) {
        counter *c = make_counter(timed);
        double seconds[2], total;
        works(api->run(c->dev, c->program, 20, &err));
        works(api->run(c->dev, c->program, 3, &err));
        api->times(c->dev, c->program, seconds, &total);
        check(total > 0, "23 steps took %g s", total);
        for (int i = 0; i < 2; i++) // 3 us of the fake clock each
            check(timed ? seconds[i] > 23 * 2.9e-6 && seconds[i] < 23 * 3.1e-6 : seconds[i] == 0,
                  "launch %d took %g s", i, seconds[i]);
        check_log(api->log(c->program), timed ? 23 : 0);
        expect(c->dev, &c->x, 23);
        free_counter(c);
    }
}

// The library above, on this device and on the simulated one: the same kernels, the same bits.
static void *train(const char *device, bool overrides, size_t *bytes) {
    bt_context *ctx = NULL;
    bt_context_desc desc = {.device = device, .no_overrides = !overrides};
    ok(ctx, bt_open(&desc, &ctx));
    trained net = net_make(ctx, &(net_desc){.spec = "conv3x5,relu,pool2,fc16,tanh,fc10",
                                            .limit = 40,
                                            .batch = 8,
                                            .optimizer = BT_ADAM,
                                            .hyper = {.lr = 0.01, .momentum = 0.9, .beta2 = 0.99}});
    ok(ctx, bt_program_run(ctx, net.program, 18));
    void *state = net_state(&net, bytes);
    bt_close(ctx);
    return state;
}

static void test_training(void **state) {
    (void)state;
    size_t bytes[2];
    void *ours = train("cuda", false, &bytes[0]), *theirs = train("sim", false, &bytes[1]);
    check(bytes[0] == bytes[1] && !memcmp(ours, theirs, bytes[0]), "cuda and sim differ");
    free(ours);
    free(theirs);
}

// ---- Whole-program kernels --------------------------------------------------------------------

typedef struct said {
    char note[512];
    fake_state state;
    bt_counters counters;
    bool ahead;
    bt_whole_plan plan; // source NULL: launch by launch
} said;

// A program as `bantam train`, or `eval`, makes it.
static bt_program *make_program(bt_context *ctx, const trained *net, bool trains) {
    bt_program *program = NULL;
    bt_tensor parameters[32];
    int count = bt_model_parameter_count(net->model);
    for (int i = 0; i < count; i++) parameters[i] = bt_model_parameter(net->model, i);
    const bt_hyper hyper = {.lr = 0.1, .momentum = 0.9};
    const bt_program_desc desc = {.loss = net->loss,
                                  .logits = net->logits,
                                  .labels = net->batch.labels,
                                  .parameters = parameters,
                                  .parameter_count = trains ? count : 0,
                                  .optimizer = BT_SGD,
                                  .hyper = &hyper,
                                  .hyper_count = 1,
                                  .log_steps = 5};
    ok(ctx, bt_program_make(ctx, &desc, &program));
    return program;
}

static said run_net(const char *spec, int batch, bool trains, const bt_context_desc *desc) {
    said out = {0};
    bt_context *ctx = NULL;
    ok(ctx, bt_open(desc, &ctx));
    trained net = net_make(ctx, &(net_desc){.spec = spec, .batch = batch});
    bt_program *program = make_program(ctx, &net, trains);
    int graphs = fake()->graph_launches;
    const bt_whole_plan *plan = bt_cuda_plan(program->device_program);
    if (plan || batch < 64) ok(ctx, bt_program_run(ctx, program, 3)); // the simulator is slow
    snprintf(out.note, sizeof out.note, "%s", bt_program_note(program));
    if (plan) {
        out.plan = *plan;
        out.ahead = bt_cuda_ahead(plan);
    }
    out.state = *fake();
    out.state.graph_launches -= graphs;
    bt_context_counters(ctx, &out.counters);
    bt_close(ctx);
    return out;
}

static const bt_context_desc with_overrides = {.device = "cuda"};

// The presets as `bantam train` makes them are compiled ahead, by a build that has nvcc: nobody
// waits for a compiler. When plans have changed, kernels/cuda/ahead.txt is to become what is
// written here.
static void test_ahead(void **state) {
    (void)state;
    static const struct {
        const char *name, *spec;
        int batch;
        bool trains;
        bt_precision precision;
    } ahead[] = {
        {"mlp", "mlp", 64, true, BT_PRECISION_FP32},
        {"lenet", "lenet", 64, true, BT_PRECISION_FP32},
        {"lenet_tf32", "lenet", 64, true, BT_PRECISION_TF32},
        {"lenet5", "lenet5", 64, true, BT_PRECISION_FP32},
        {"mlp_eval", "mlp", 1000, false, BT_PRECISION_FP32},
        {"lenet_eval", "lenet", 1000, false, BT_PRECISION_FP32},
        {"lenet5_eval", "lenet5", 1000, false, BT_PRECISION_FP32},
    };
    char path[1100], missing[256] = "";
    snprintf(path, sizeof path, "%s.txt", fake_path());
    FILE *list = fopen(path, "w");
    check(list != NULL, "%s cannot be written", path);
    fprintf(list,
            "# Whole-program kernels that the build compiles: NAME SOURCE, and what is defined "
            "before the source.\n# Written by tests/test_cuda.c.\n\n");
    for (size_t i = 0; i < sizeof ahead / sizeof *ahead; i++) {
        bt_context_desc desc = with_overrides;
        desc.precision = ahead[i].precision;
        said s = run_net(ahead[i].spec, ahead[i].batch, ahead[i].trains, &desc);
        if (!s.ahead) snprintf(missing, sizeof missing, "%s", ahead[i].name);
        if (!s.plan.source) continue; // there is no compiler, and it is not there ahead
        fprintf(list, "%s %s\n%s\n", ahead[i].name, s.plan.source, s.plan.defines);
        check(s.state.graph_launches == 0 && s.counters.launches == 1, "%s: %d graphs, %d launches",
              ahead[i].name, s.state.graph_launches, (int)s.counters.launches);
    }
    fclose(list);
    if (!bt_cuda_image_named("ahead_mlp.cubin"))
        skip_because("this build compiled nothing ahead (TUNED=on, with nvcc)");
    check(!missing[0], "%s is not compiled ahead: copy %s to kernels/cuda/ahead.txt", missing,
          path);
}

static void test_step_aside(void **state) {
    (void)state;
    said s = run_net("fc16,relu,fc10", 8, true, &portable_alone);
    check(strstr(s.note, "portable kernels were asked for") && s.state.graph_launches > 0,
          "with overrides off: \"%s\"", s.note);
    s = run_net("conv2x5s3,relu,fc10", 8, true, &with_overrides);
    check(strstr(s.note, "no whole-program kernel: ") && s.state.graph_launches > 0,
          "a network that nobody knows: \"%s\"", s.note);
    if (quick()) return; // NVRTC takes a minute when it is watched
    make_wish(&(fake_wish){.blocks_fit = 1});
    s = run_net("conv4x5,relu,pool2,fc10", 8, true, &with_overrides);
    check(s.state.graph_launches > 0 &&
              (strstr(s.note, "on the GPU at once, and") || strstr(s.note, "NVRTC")),
          "a GPU that is too small: \"%s\"", s.note);
}

// ---- Exchanged kernels ------------------------------------------------------------------------

static void test_swap(void **state) {
    (void)state;
    char why[256];
    counter *c = make_counter(false);
    works(api->run(c->dev, c->program, 3, &err));
    int at = 0;
    while (strcmp(bt_portable_table[at].name, "map_vector")) at++;
    const bt_portable *rules = &bt_portable_table[at];
    static const char text[] = "extern \"C\" __global__ void bt_map_vector() {}";
    if (!bt_cuda_compiler(why, sizeof why)) {
        fails(BT_ERROR_DATA, "there is no NVRTC", api->kernel_swap(c->dev, at, rules, text, &err));
    } else {
        fails(BT_ERROR_DATA, "error", api->kernel_swap(c->dev, at, rules, "no kernel", &err));
        works(api->kernel_swap(c->dev, at, rules, text, &err));
        works(api->kernel_swap(c->dev, at, rules, text, &err));
    }
    fails(BT_ERROR_USAGE, "there is no kernel -1", api->kernel_swap(c->dev, -1, rules, text, &err));
    works(api->run(c->dev, c->program, 4, &err));
    expect(c->dev, &c->x, 7);
    free_counter(c);
}

// ---- Failures ---------------------------------------------------------------------------------

static void test_fault(void **state) {
    (void)state;
    counter *c = make_counter(false);
    float values[N];
    works(api->run(c->dev, c->program, 2, &err));
    works(api->wait(c->dev, &err));
    make_wish(&(fake_wish){.fault_after = 3});
    works(api->run(c->dev, c->program, 5, &err)); // it is only sent
    static const char sentence[] =
        "the device cuda:0 (Fake GPU 0) was lost while running kernels: CUDA_ERROR_ILLEGAL_ADDRESS";
    fails(BT_ERROR_DEVICE, sentence, api->wait(c->dev, &err));
    fails(BT_ERROR_DEVICE, sentence, api->run(c->dev, c->program, 1, &err));
    fails(BT_ERROR_DEVICE, sentence, api->read(c->dev, &c->x, 0, values, sizeof values, &err));
    fails(BT_ERROR_DEVICE, sentence, api->write(c->dev, &c->x, 0, values, sizeof values, &err));
    make_wish(&(fake_wish){0}); // as a new context would be: what is left can be given back
    c->dev->lost = (bt_error){0};
    free_counter(c);
}

static void test_modules_refused(void **state) {
    (void)state;
    bt_device *dev = open_device();
    bt_buffer x = floats(dev, 1), y = floats(dev, 1);
    const bt_launch launch = map_launch(BT_MAP_COPY, &x, NULL, &y, N);
    bt_device_program *program;
    make_wish(&(fake_wish){.refuse_module = CUDA_ERROR_UNSUPPORTED_PTX_VERSION});
    fails(BT_ERROR_DEVICE, "install a newer driver",
          api->program_init(dev, &launch, 1, &(bt_program_use){0}, &err, &program));
    make_wish(&(fake_wish){0});
    api->buffer_done(dev, &x);
    api->buffer_done(dev, &y);
    api->close(dev);
}

// ---- The cache on disk ------------------------------------------------------------------------

static void damage_cache(void) {
    char path[1200];
    snprintf(path, sizeof path, "%s/bantam", scratch());
    DIR *dir = opendir(path);
    check(dir != NULL, "there is no folder %s", path);
    for (struct dirent *e; (e = readdir(dir));) {
        if (strncmp(e->d_name, "cuda-", 5)) continue;
        snprintf(path, sizeof path, "%s/bantam/%s", scratch(), e->d_name);
        FILE *file = fopen(path, "r+b");
        check(file != NULL, "%s cannot be written", path);
        fseek(file, -1, SEEK_END);
        fputc('x', file);
        fclose(file);
    }
    closedir(dir);
}

static void test_cache(void **state) {
    (void)state;
    static const unsigned char code[] = "\177ELF and so on";
    size_t bytes = 0;
    check(!bt_cuda_cache_read("a key", &bytes), "there is something in an empty cache");
    bt_cuda_cache_write("a key", code, sizeof code);
    unsigned char *got = bt_cuda_cache_read("a key", &bytes);
    check(got && bytes == sizeof code && !memcmp(got, code, bytes), "the code is not there");
    free(got);
    check(!bt_cuda_cache_read("another key", &bytes), "another key has it too");
    damage_cache();
    check(!bt_cuda_cache_read("a key", &bytes), "damaged code is believed");
}

#define T(name) cmocka_unit_test_setup_teardown(name, before_each, after_each)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_probe),    T(test_reasons),         T(test_round_trips), T(test_out_of_memory),
        T(test_steps),    T(test_edges_suffice),   T(test_not_run),     T(test_times),
        T(test_training), T(test_ahead),           T(test_step_aside),  T(test_swap),
        T(test_fault),    T(test_modules_refused), T(test_cache),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
