// Exports as other programs see them: ONNX by its checker and in a real runtime, .npz by NumPy and
// PyTorch, C by a compiler; and what they write back into a model. The readers are in tests/export.
#include "support.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOGITS = 1000, IMAGES = 10000, FEW = 2000, PATH = 600, OUTPUT = 1200 };

// Every kind of layer is in one of them.
static const struct {
    const char *name, *spec;
} nets[] = {
    {"mlp", "mlp"},
    {"lenet", "lenet"},
    {"lenet5", "lenet5"},
    {"odd", "conv6x5s2p2,gelu,avgpool3s2,conv12x3p1,tanh,avgpool2,flatten,fc24,sigmoid,fc10"},
    {"all-conv", "conv4x3,relu,maxpool3s2,conv8x3s2,gelu,conv10x5"},
};
enum { NETS = sizeof nets / sizeof *nets };
static bool with_mnist; // then it is what they are trained on

static const char *in_net(int net, const char *file) {
    char name[128];
    snprintf(name, sizeof name, "%s/%s", nets[net].name, file);
    return in_scratch(name);
}

static void put_file(int net, const char *file, const void *data, size_t bytes) {
    write_file(in_net(net, file), data, bytes);
}

// ---- The networks ------------------------------------------------------------------------------

static bt_dataset *open_set(bt_context *ctx, const char *name, bool test, int limit) {
    bt_dataset *set = NULL;
    ok(ctx,
       bt_dataset_open(ctx, &(bt_dataset_desc){.name = name, .test = test, .limit = limit}, &set));
    return set;
}

static bt_model *train_net(bt_context *ctx, int net, const char *data) {
    bt_model *model = NULL;
    bt_train_result result;
    ok(ctx, bt_model_make(ctx,
                          &(bt_model_desc){.spec = nets[net].spec,
                                           .channels = 1,
                                           .height = 28,
                                           .width = 28,
                                           .classes = 10,
                                           .seed = 1},
                          &model));
    bt_train_desc desc = {.model = model,
                          .train = open_set(ctx, data, false, 4000),
                          .batch = 32,
                          .epochs = 1,
                          .hyper = {.lr = 0.05, .momentum = 0.9}};
    ok(ctx, bt_train(ctx, &desc, &result));
    return model;
}

// images.f32 and logits.f32 of the first LOGITS samples.
static void put_logits(bt_context *ctx, int net, bt_model *model, const bt_dataset *set) {
    bt_dataset_info info;
    bt_dataset_describe(set, &info);
    int count = info.count < LOGITS ? info.count : LOGITS;
    size_t numbers = (size_t)count * 784, bytes = (size_t)count * 10 * sizeof(float);
    float *images = allocate(numbers * sizeof *images), *logits = allocate(bytes);
    for (size_t i = 0; i < numbers; i++)
        images[i] = (float)bt_dataset_image(set, (int)(i / 784))[i % 784] / 255;
    bt_tensor x = bt_from(ctx, BT_F32, BT_SHAPE(count, 1, 28, 28), images);
    ok(ctx, bt_read(ctx, bt_model_forward(ctx, model, x), logits, bytes));
    put_file(net, "images.f32", images, numbers * sizeof *images);
    put_file(net, "logits.f32", logits, bytes);
    free(images), free(logits);
}

// NAME.u8 and NAME.classes: the images of a test set, and the class that Bantam gives each.
static void put_classes(bt_context *ctx, int net, bt_model *model, const char *name, int limit) {
    char file[64];
    bt_dataset_info info;
    bt_evaluation e;
    bt_dataset *set = open_set(ctx, name, true, quick() ? 1000 : limit);
    bt_dataset_describe(set, &info);
    uint8_t *images = allocate((size_t)info.count * 784);
    int32_t *classes = allocate((size_t)info.count * sizeof *classes);
    for (int i = 0; i < info.count; i++)
        memcpy(images + (size_t)i * 784, bt_dataset_image(set, i), 784);
    ok(ctx, bt_evaluate(ctx, model, set, 0, &e, classes));
    check(e.accuracy > 0.3, "%s has learnt nothing: %g of %s", nets[net].name, e.accuracy, name);
    snprintf(file, sizeof file, "%s.u8", name);
    put_file(net, file, images, (size_t)info.count * 784);
    snprintf(file, sizeof file, "%s.classes", name);
    FILE *out = fopen(in_net(net, file), "w");
    check(out, "cannot write %s", file);
    for (int i = 0; i < info.count; i++) fprintf(out, "%d\n", classes[i]);
    fclose(out);
    free(images), free(classes);
}

static void make_net(bt_context *ctx, int net) {
    uint32_t mark = bt_mark(ctx);
    bt_model *model = train_net(ctx, net, with_mnist ? "mnist" : "digits");
    mkdir(in_scratch(nets[net].name), 0777);
    put_file(net, "shape", "1 28 28 10", 10);
    put_file(net, "spec", bt_model_spec(model), strlen(bt_model_spec(model)));
    put_logits(ctx, net, model, open_set(ctx, with_mnist ? "mnist" : "digits", true, LOGITS));
    put_classes(ctx, net, model, "digits", with_mnist ? FEW : IMAGES);
    if (with_mnist) put_classes(ctx, net, model, "mnist", IMAGES);
    ok(ctx, bt_model_export(ctx, model, BT_EXPORT_ONNX, in_net(net, "model.onnx")));
    ok(ctx, bt_model_export(ctx, model, BT_EXPORT_NPZ, in_net(net, "model.npz")));
    ok(ctx, bt_model_export(ctx, model, BT_EXPORT_C, in_net(net, "model.c")));
    ok(ctx, bt_model_save(ctx, model, in_net(net, "model.safetensors")));
    bt_release(ctx, mark);
}

static int make_nets(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    bt_dataset *set;
    with_mnist = bt_dataset_open(ctx, &(bt_dataset_desc){.name = "mnist"}, &set) == BT_OK;
    bt_error_reset(ctx);
    for (int net = 0; net < NETS; net++) make_net(ctx, net);
    bt_close(ctx);
    return 0;
}

// ---- Other programs ----------------------------------------------------------------------------

// A Python that has the module, or the test is skipped.
static const char *python_with(const char *module) {
    static const char *const pythons[] = {"/usr/bin/python3", "python3"};
    char out[OUTPUT];
    for (int i = 0; i < 2; i++)
        if (shell(out, sizeof out, "%s -c 'import %s'", pythons[i], module) == 0) return pythons[i];
    snprintf(out, sizeof out, "no Python with %s here (Debian: python3-%s)", module, module);
    skip_because(out);
    return NULL;
}

// The folders of all nets, as arguments.
static const char *folders(char text[NETS * PATH]) {
    size_t at = 0;
    for (int net = 0; net < NETS; net++)
        at += (size_t)snprintf(text + at, PATH, " '%s'", in_scratch(nets[net].name));
    return text;
}

// The program must end well; what it says is shown.
static void run_reader(const char *program, const char *script) {
    char out[OUTPUT], all[NETS * PATH];
    int code = shell(out, sizeof out, "%s tests/export/%s %s", program, script, folders(all));
    check(code == 0, "%s: %s", script, out);
    printf("%s\n", out);
}

static void test_onnx_checker(void **state) {
    (void)state;
    run_reader(python_with("onnx"), "check_onnx.py");
}

static void test_onnx_runtime(void **state) {
    (void)state;
    const char *build = getenv("BUILD"), *path = getenv("NODE_PATH");
    char node[3 * PATH], out[OUTPUT];
    snprintf(node, sizeof node, "NODE_PATH='%s/tests/node/node_modules:%s' node",
             build ? build : "build", path ? path : "");
    if (shell(out, sizeof out, "%s -e 'require(\"onnxruntime-node\")'", node) != 0)
        skip_because("no onnxruntime-node here (scripts/install-deps.sh ci installs it by npm)");
    run_reader(node, "onnx_runtime.js");
}

static void test_numpy(void **state) {
    (void)state;
    run_reader(python_with("numpy"), "check_numpy.py");
}

static void test_torch(void **state) {
    (void)state;
    run_reader(python_with("torch"), "check_numpy.py torch");
}

// ---- C -----------------------------------------------------------------------------------------

static void compile_net(int net, const char *compiler) {
    const char *folder = in_scratch(nets[net].name);
    char out[OUTPUT];
    int code = shell(out, sizeof out,
                     "%s -std=c99 -Wall -Wextra -Wshadow -Wconversion -Werror -pedantic -O3 -I%s "
                     "-o %s/classify %s/model.c tests/export/classify.c -lm",
                     compiler, folder, folder, folder);
    check(code == 0, "%s: %s cannot compile it: %s", nets[net].name, compiler, out);
}

static void compare_classes(int net, const char *set) {
    const char *folder = in_scratch(nets[net].name);
    char out[OUTPUT];
    int code =
        shell(out, sizeof out, "%s/classify <%s/%s.u8 >%s/answers", folder, folder, set, folder);
    check(code == 0, "%s: the program ends with %d", nets[net].name, code);
    code = shell(out, sizeof out, "cmp %s/answers %s/%s.classes && wc -l <%s/answers", folder,
                 folder, set, folder);
    check(code == 0, "%s, %s: other classes than Bantam's: %s", nets[net].name, set, out);
    printf("# %s: the same classes of %s images of %s\n", nets[net].name, out, set);
}

static void test_c_source(void **state) {
    (void)state;
    const char *cc = getenv("CC"), *other = cc && strstr(cc, "clang") ? "gcc" : "clang";
    char out[OUTPUT];
    bool two = shell(out, sizeof out, "%s --version", other) == 0;
    for (int net = 0; net < NETS; net++) {
        if (two) compile_net(net, other);
        compile_net(net, cc && *cc ? cc : "cc");
        compare_classes(net, "digits");
    }
}

static void test_c_source_mnist(void **state) {
    (void)state;
    if (!with_mnist) skip_because("no MNIST here; set BANTAM_DATA to the folder that holds mnist/");
    for (int net = 0; net < NETS; net++) compare_classes(net, "mnist");
}

static void test_c_needs_only_math(void **state) {
    (void)state;
    char out[OUTPUT];
    int code = shell(out, sizeof out, "grep -hE '#include|malloc|calloc|free' %s %s | sort | uniq",
                     in_net(1, "model.c"), in_net(1, "model.h"));
    check(code == 0 && !strcmp(out, "#include \"model.h\"\n#include <math.h>"),
          "the files include or call: %s", out);
}

static bt_model *make_untrained(bt_context *ctx, const char *spec, bt_dtype dtype) {
    bt_model *model = NULL;
    bt_model_desc desc = {
        .spec = spec, .channels = 1, .height = 4, .width = 4, .classes = 3, .dtype = dtype};
    ok(ctx, bt_model_make(ctx, &desc, &model));
    return model;
}

// Names become part of C, and weights must be numbers in every locale.
static void test_c_names(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_model *model = make_untrained(ctx, "fc3", BT_F32);
    static const char *const bad[] = {"model", "model.cc", "my-net.c", "1net.c",
                                      ".c",    "a b.c",    "net\".c"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(ctx, BT_ERROR_USAGE, "C file",
                bt_model_export(ctx, model, BT_EXPORT_C, in_scratch(bad[i])));
    refused(ctx, BT_ERROR_USAGE, "must end in .c",
            bt_model_export(ctx, model, BT_EXPORT_C, in_scratch("net.onnx")));
    refused(ctx, BT_ERROR_USAGE, "hide the C library's",
            bt_model_export(ctx, model, BT_EXPORT_C, in_scratch("math.c")));
    float weights[48] = {0, 1, -1, 1e-30F, 1e30F, 0.1F};
    ok(ctx, bt_write(ctx, bt_model_parameter(model, 0), weights, sizeof weights));
    ok(ctx, bt_model_export(ctx, model, BT_EXPORT_C, in_scratch("my_net.c")));
    size_t n;
    char *text = (char *)read_file(in_scratch("my_net.c"), &n);
    check(text &&
              strstr(text, "{\n    0.0f, 1.0f, -1.0f, 1e-30f, 1.00000002e+30f, 0.100000001f,") &&
              strstr(text, "int my_net_classify("),
          "my_net.c has no such text: %.1500s", text ? text : "");
    free(text);
    weights[3] = NAN;
    ok(ctx, bt_write(ctx, bt_model_parameter(model, 0), weights, sizeof weights));
    for (int f = 0; f < 3; f++)
        refused(ctx, BT_ERROR_NUMERIC, "0.weight holds numbers that are not finite",
                bt_model_export(ctx, model, (bt_export)f, in_scratch("my_net.c")));
    bt_close(ctx);
}

// ---- Into a model ------------------------------------------------------------------------------

static void same_weights(bt_context *ctx, const bt_model *a, const bt_model *b, double within,
                         const char *what) {
    for (int i = 0; i < bt_model_parameter_count(a); i++) {
        size_t n;
        double *x = read_doubles(ctx, bt_model_parameter(a, i), &n);
        double *y = read_doubles(ctx, bt_model_parameter(b, i), NULL);
        for (size_t k = 0; k < n; k++)
            check(fabs(x[k] - y[k]) <= within * fabs(x[k]) + within * 1e-4,
                  "%s: %s[%zu] is %g, not %g", what, bt_model_parameter_name(a, i), k, y[k], x[k]);
        free(x), free(y);
    }
}

static void test_numpy_writes(void **state) {
    (void)state;
    static const struct {
        const char *file;
        double within;
    } files[] = {{"model.npz", 0},   {"plain.npz", 0}, {"compressed.npz", 0},
                 {"fortran.npz", 0}, {"wide.npz", 0},  {"half.npz", 1e-3}};
    python_with("numpy");
    bt_context *ctx = open_cpu(1);
    bt_model_desc desc = {.channels = 1, .height = 28, .width = 28, .classes = 10};
    for (int net = 0; net < NETS; net++) {
        bt_model *saved, *model;
        ok(ctx, bt_model_load(ctx, in_net(net, "model.safetensors"), BT_F32, &saved));
        desc.spec = nets[net].spec;
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            char how[200];
            ok(ctx, bt_model_make(ctx, &desc, &model));
            ok(ctx, bt_model_import(ctx, model, in_net(net, files[i].file), how, sizeof how));
            check(strstr(how, "matched by name"), "%s: %s", files[i].file, how);
            same_weights(ctx, saved, model, files[i].within, files[i].file);
        }
        refused(ctx, BT_ERROR_DATA, "pickle",
                bt_model_import(ctx, model, in_net(net, "pickle.npz"), NULL, 0));
    }
    bt_close(ctx);
}

// In f64 an .npz keeps every bit, and the others are rounded once.
static void test_wide_model(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_model *a = make_untrained(ctx, "conv2x3,tanh,fc3", BT_F64), *b;
    ok(ctx, bt_model_export(ctx, a, BT_EXPORT_NPZ, in_scratch("wide.npz")));
    ok(ctx, bt_model_export(ctx, a, BT_EXPORT_ONNX, in_scratch("wide.onnx")));
    ok(ctx, bt_model_export(ctx, a, BT_EXPORT_C, in_scratch("wide.c")));
    b = make_untrained(ctx, "conv2x3,relu,fc3", BT_F64);
    ok(ctx, bt_model_import(ctx, b, in_scratch("wide.npz"), NULL, 0));
    same_weights(ctx, a, b, 0, "f64");
    struct stat info;
    check(!stat(in_scratch("wide.onnx"), &info) && info.st_size > 100, "no ONNX file of f64");
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_onnx_checker),
        cmocka_unit_test(test_onnx_runtime),
        cmocka_unit_test(test_numpy),
        cmocka_unit_test(test_torch),
        cmocka_unit_test(test_numpy_writes),
        cmocka_unit_test(test_wide_model),
        cmocka_unit_test(test_c_source),
        cmocka_unit_test(test_c_source_mnist),
        cmocka_unit_test(test_c_needs_only_math),
        cmocka_unit_test(test_c_names),
    };
    return cmocka_run_group_tests(tests, make_nets, NULL);
}
