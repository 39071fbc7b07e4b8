// The reader of networks behind the whole-program kernels: it must understand what it claims to,
// and step aside from everything else, since a kernel that trains another network than was asked
// for would be found by nobody.
#include "support.h"

#include "device/cpu/cpu.h"
#include "device/cuda/whole.h"
#include "nets.h"
#include "tensor/graph.h"

// ---- A CPU that reads every program it is given ----------------------------------------------

static bt_net seen;
static bool understood;
static char why[BT_WHY_BYTES];
// Spoils the launches before they are read: < 0: none.
static int without = -1;
static bool no_outputs = true; // as bt_train makes programs; net_make has the logits as one

static bool seen_probabilities(const bt_launch *launches, int count) {
    for (int i = 0; i < count; i++)
        if (launches[i].kernel == BT_KERNEL_softmax) return true;
    return false;
}

static bt_status spy_program_init(bt_device *dev, const bt_launch *launches, int count,
                                  const bt_program_use *use, bt_error *err,
                                  bt_device_program **out) {
    bt_launch copy[128];
    int n = 0;
    for (int i = 0; i < count; i++)
        if (i != without) copy[n++] = launches[i];
    bool hide = no_outputs && use->output_count == 1 && !seen_probabilities(launches, count);
    understood = bt_net_read(copy, n, hide ? &(bt_program_use){0} : use, &seen, why);
    return bt_device_cpu.program_init(dev, launches, count, use, err, out);
}

static bt_device_api spy_api;

static bt_context *open_spy(void) {
    bt_context *ctx = open_cpu(1);
    spy_api = bt_device_cpu;
    spy_api.program_init = spy_program_init;
    ctx->api = &spy_api;
    without = -1;
    return ctx;
}

static trained make(bt_context *ctx, const char *spec) {
    return net_make(ctx, &(net_desc){.spec = spec, .limit = 100, .batch = 32, .seed = 1});
}

// ---- Tests -----------------------------------------------------------------------------------

static void test_mlp(void **state) {
    (void)state;
    bt_context *ctx = open_spy();
    make(ctx, "fc48,tanh,fc24,sigmoid,fc10");
    check(understood, "not understood: %s", why);
    const bt_net_layer *l = seen.layer;
    check(seen.layers == 3 && seen.trains && seen.classes == 10 && !seen.clips, "%d layers",
          seen.layers);
    check(l[0].kind == BT_NET_FC && l[0].c == 784 && l[0].o == 48 &&
              l[0].activation == BT_MAP_TANH && l[1].c == 48 && l[1].o == 24 &&
              l[1].activation == BT_MAP_SIGMOID && l[2].activation == BT_MAP_COPY,
          "other layers");
    check(l[0].weight == 0 && l[0].bias == 48 * 784 && l[1].weight >= 48 * 785, "other places");
    check(seen.gather.batch == 32 && seen.gather.count == 100 && seen.moment[0].buffer &&
              !seen.moment[1].buffer && seen.log.buffer,
          "other settings");
    bt_close(ctx);
}

static void test_cnn(void **state) {
    (void)state;
    bt_context *ctx = open_spy();
    make(ctx, "lenet5");
    check(understood, "not understood: %s", why);
    const bt_net_layer *l = seen.layer;
    check(seen.layers == 5 && l[0].kind == BT_NET_CONV && l[0].padding == 2 && l[0].pool == 2 &&
              l[0].o == 6 && l[0].oh == 28 && l[0].size == 5 && l[1].h == 14 && l[1].oh == 10 &&
              l[1].pool == 2 && l[2].kind == BT_NET_FC && l[2].c == 400 && l[4].o == 10,
          "other layers");
    make(ctx, "conv4x3,relu,conv6x5p2,tanh,pool2,fc10"); // no pooling between the convolutions
    check(understood && seen.layers == 3 && seen.layer[0].pool == 1, "not understood: %s", why);
    bt_close(ctx);
}

static void test_evaluation(void **state) {
    (void)state;
    bt_context *ctx = open_spy();
    trained net = make(ctx, "lenet");
    bt_evaluation e;
    int32_t predictions[100];
    ok(ctx, bt_evaluate(ctx, net.model, net.set, 50, &e, predictions));
    check(understood && !seen.trains && seen.layers == 3 && seen.predictions.buffer &&
              seen.log.buffer,
          "not understood: %s", why);
    uint8_t images[3 * 784] = {0};
    float probabilities[30];
    ok(ctx, bt_predict(ctx, net.model, images, 3, probabilities));
    check(understood && seen.probabilities.buffer, "not understood: %s", why);
    bt_close(ctx);
}

// What the whole-program kernels do not do must not be taken for what they do.
static void test_steps_aside(void **state) {
    (void)state;
    static const char *const specs[] = {
        "fc16,gelu,fc10",          "conv4x3s2,relu,fc10", "conv4x3,relu,avgpool2,fc10",
        "conv4x3,pool2,relu,fc10", "fc16,relu,fc10,relu",
    };
    bt_context *ctx = open_spy();
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        make(ctx, specs[i]);
        check(!understood && why[0], "%s was understood", specs[i]);
    }
    net_make(ctx, &(net_desc){.spec = "fc10", .limit = 100, .dtype = BT_F64});
    check(!understood, "f64 was understood");
    no_outputs = false;
    make(ctx, "mlp"); // whose logits are read from outside
    no_outputs = true;
    check(!understood && strstr(why, "outside"), "outputs: %s", why);
    bt_close(ctx);
}

static bt_tensor parameter(bt_context *ctx, bt_shape shape) {
    return bt_parameter(ctx, BT_F32, shape, NULL);
}

// A reshape is no launch: between convolutions it must be seen by the shapes around it.
static void test_reshape(void **state) {
    (void)state;
    bt_context *ctx = open_spy();
    for (int odd = 0; odd < 2; odd++) {
        bt_batch batch = bt_dataset_batch(
            ctx, &(bt_batch_desc){.set = digits(ctx, 64, false), .batch = 32, .dtype = BT_F32});
        bt_tensor x = bt_conv2d(ctx, batch.images, parameter(ctx, BT_SHAPE(4, 1, 3, 3)),
                                parameter(ctx, BT_SHAPE(4)), 1, 0);
        if (odd) x = bt_reshape(ctx, x, BT_SHAPE(32, 16, 13, 13));
        x = bt_conv2d(ctx, x, parameter(ctx, BT_SHAPE(5, odd ? 16 : 4, 3, 3)),
                      parameter(ctx, BT_SHAPE(5)), 1, 0);
        x = bt_reshape(ctx, x, BT_SHAPE(32, -1));
        bt_tensor weight = parameter(ctx, BT_SHAPE(10, bt_tensor_shape(ctx, x).dim[1]));
        bt_tensor logits =
            bt_add(ctx, bt_matmul_ex(ctx, x, false, weight, true), parameter(ctx, BT_SHAPE(10)));
        bt_program *program;
        ok(ctx,
           bt_program_make(ctx,
                           &(bt_program_desc){.loss = bt_cross_entropy(ctx, logits, batch.labels),
                                              .logits = logits,
                                              .labels = batch.labels},
                           &program));
        check(understood == !odd, "odd %d: %s", odd, why);
    }
    bt_close(ctx);
}

// What is logged and read must be of the last layer.
static void test_loss_inside(void **state) {
    (void)state;
    bt_context *ctx = open_spy();
    bt_batch batch = bt_dataset_batch(
        ctx, &(bt_batch_desc){.set = digits(ctx, 64, false), .batch = 32, .dtype = BT_F32});
    bt_tensor x = bt_reshape(ctx, batch.images, BT_SHAPE(32, 784));
    bt_tensor first =
        bt_add(ctx, bt_matmul_ex(ctx, x, false, parameter(ctx, BT_SHAPE(10, 784)), true),
               parameter(ctx, BT_SHAPE(10)));
    bt_tensor second =
        bt_add(ctx, bt_matmul_ex(ctx, first, false, parameter(ctx, BT_SHAPE(10, 10)), true),
               parameter(ctx, BT_SHAPE(10)));
    bt_program *program;
    ok(ctx, bt_program_make(ctx,
                            &(bt_program_desc){.loss = bt_cross_entropy(ctx, first, batch.labels),
                                               .logits = second,
                                               .labels = batch.labels},
                            &program));
    check(!understood, "a loss of layer 0 was taken for that of layer 1");
    ok(ctx, bt_program_make(ctx, &(bt_program_desc){.logits = second, .labels = batch.labels},
                            &program));
    check(!understood, "a program without a loss was understood");
    bt_close(ctx);
}

// Any launch that is missing must be missed.
static void test_every_launch_counts(void **state) {
    (void)state;
    static const char *const specs[] = {"mlp", "lenet", "conv4x3,relu,fc16,tanh,fc10"};
    bt_context *ctx = open_spy();
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        trained net = make(ctx, specs[i]);
        check(understood, "%s is not understood: %s", specs[i], why);
        bt_program_stats stats;
        bt_program_describe(net.program, &stats);
        for (without = 0; without < stats.launches; without++) {
            make(ctx, specs[i]);
            check(!understood, "%s was understood without launch %d", specs[i], without);
        }
        without = -1;
    }
    bt_close(ctx);
}

// ---- Texts of whole-program kernels -------------------------------------------------------------

// Compiles, as far as clang can without CUDA, what NVRTC would be given for the network last seen,
// for every whole-program kernel that takes it. How many those are.
static int compile_texts(const char *what, bt_precision precision) {
    const bt_gpu hopper = {90, 132, 232448, precision};
    int taken = 0;
    for (const bt_whole *const *whole = bt_wholes; *whole; whole++) {
        bt_whole_plan plan = {0};
        if (!(*whole)->plan(&seen, &hopper, &plan, why)) continue;
        char path[1100], command[4096];
        snprintf(path, sizeof path, "%s/%s.cu", scratch(), (*whole)->name);
        FILE *file = fopen(path, "w");
        check(file != NULL, "%s cannot be written", path);
        fprintf(file, "%s\n#include \"args.h\"\n#include \"%s\"\n", plan.defines, plan.source);
        fclose(file);
        snprintf(command, sizeof command,
                 "clang++ -x cuda --cuda-device-only -nocudainc -nocudalib --cuda-gpu-arch=sm_86 "
                 "-std=c++17 -fsyntax-only -Wno-unknown-cuda-version -Wno-cuda-compat -include "
                 "tests/cuda/toolkit.h "
                 "-Ikernels/cuda '%s' >&2",
                 path);
        check(system(command) == 0, "%s for %s does not compile; defines:\n%s", plan.source, what,
              plan.defines);
        taken++;
    }
    return taken;
}

static void test_texts_compile(void **state) {
    (void)state;
    if (system("command -v clang++ >/dev/null")) skip_because("no clang++ here");
    static const char *const specs[] = {"mlp",
                                        "lenet",
                                        "lenet5",
                                        "fc256,relu,fc128,relu,fc10",
                                        "conv6x3,relu,pool2,conv12x3,relu,pool2,fc32,relu,fc10",
                                        "conv4x3p1,tanh,pool2,fc20,sigmoid,fc10"};
    static const int batches[] = {64, 50, 1000};
    bt_context *ctx = open_spy();
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        trained net = make(ctx, specs[i]);
        for (bt_precision p = BT_PRECISION_FP32; p <= BT_PRECISION_BF16; p++)
            check(understood && compile_texts(specs[i], p) == 1, "%s: who trains it?", specs[i]);
        bt_evaluation e;
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            ok(ctx, bt_evaluate(ctx, net.model, net.set, batches[b], &e, NULL));
            check(understood, "evaluation of %s: %s", specs[i], why);
            check(compile_texts(specs[i], BT_PRECISION_FP32) > 0, "%s: who evaluates it?",
                  specs[i]);
        }
        uint8_t images[784] = {0};
        float probabilities[10];
        ok(ctx, bt_predict(ctx, net.model, images, 1, probabilities));
        check(understood && compile_texts(specs[i], BT_PRECISION_FP32) > 0, "prediction of %s: %s",
              specs[i], why);
    }
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mlp),
        cmocka_unit_test(test_cnn),
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_steps_aside),
        cmocka_unit_test(test_every_launch_counts),
        cmocka_unit_test(test_reshape),
        cmocka_unit_test(test_loss_inside),
        cmocka_unit_test(test_texts_compile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
