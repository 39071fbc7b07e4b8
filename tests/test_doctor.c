// The doctor on trainings that were made sick on purpose, each of which it must name, and on
// healthy ones, where it must find nothing; and the statistics of layers that it judges by.
#include "nets.h"
#include "support.h"

#include <jansson.h>
#include <math.h>

// ---- Statistics -------------------------------------------------------------------------------

enum { LAYERS = 16 };

static bt_model *make_model(bt_context *ctx, const char *spec, int classes, uint64_t seed) {
    bt_model *model;
    ok(ctx, bt_model_make(ctx,
                          &(bt_model_desc){.spec = spec,
                                           .channels = 1,
                                           .height = 28,
                                           .width = 28,
                                           .classes = classes,
                                           .seed = seed},
                          &model));
    return model;
}

// values = scale * values + offset
static void change(bt_context *ctx, bt_tensor t, double scale, double offset) {
    size_t n;
    double *values = read_doubles(ctx, t, &n);
    for (size_t i = 0; i < n; i++) values[i] = scale * values[i] + offset;
    write_doubles(ctx, t, values, n);
    free(values);
}

static double norm_of(bt_context *ctx, bt_tensor t) {
    size_t n;
    double *values = read_doubles(ctx, t, &n), sum = 0;
    for (size_t i = 0; i < n; i++) sum += values[i] * values[i];
    free(values);
    return sqrt(sum);
}

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-4 * fabs(b) + 1e-7;
}

// Against the same figures computed from tensors of the public interface; 200 samples are a whole
// batch and a part of one.
static void test_statistics(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    bt_dataset *set = digits(ctx, 200, false);
    bt_model *model = make_model(ctx, "conv4x5,relu,pool2,fc20,tanh,fc10", 10, 1);
    bt_layer_stats stats[LAYERS];
    int count;
    ok(ctx, bt_model_statistics(ctx, model, set, 0, stats, LAYERS, &count));
    check(count == 6 && bt_model_layer_count(model) == 6, "%d layers", count);
    check(!strcmp(stats[3].name, "3.fc20") && !strcmp(bt_model_layer_name(model, 3), "3.fc20"),
          "layer 3 is \"%s\"", stats[3].name);
    check(!*bt_model_layer_name(model, 6) && !*bt_model_layer_name(model, -1), "a layer too many");

    bt_batch all = bt_dataset_batch(ctx, &(bt_batch_desc){.set = set, .batch = 200});
    bt_tensor loss = bt_cross_entropy(ctx, bt_model_forward(ctx, model, all.images), all.labels);
    bt_tensor weight = bt_model_parameter(model, 2), gradient;
    ok(ctx, bt_grad(ctx, loss, &weight, 1, &gradient));
    check(near(stats[3].gradient_norm, norm_of(ctx, gradient)), "gradient norm %g, not %g",
          stats[3].gradient_norm, norm_of(ctx, gradient));
    check(near(stats[3].weight_norm, norm_of(ctx, weight)), "weight norm %g", stats[3].weight_norm);

    size_t n;
    double *relu = read_doubles(ctx, bt_model_forward_to(ctx, model, all.images, 2), &n);
    double sum = 0, variance = 0, area = 24 * 24;
    for (int c = 0; c < 4; c++) {
        double s = 0, q = 0;
        for (size_t i = 0; i < n; i++)
            if ((int)((double)i / area) % 4 == c) s += relu[i], q += relu[i] * relu[i];
        s /= 200 * area, q /= 200 * area;
        sum += s / 4, variance += (q - s * s) / 4;
    }
    free(relu);
    check(n == (size_t)(200 * 4 * area), "%zu activations", n);
    check(near(stats[1].activation_mean, sum), "mean %g, not %g", stats[1].activation_mean, sum);
    check(near(stats[1].activation_deviation, sqrt(variance)), "deviation %g, not %g",
          stats[1].activation_deviation, sqrt(variance));
    check(isnan(stats[1].weight_norm) && isnan(stats[3].dead) && stats[4].dead == 0, "figures");

    // Room for two layers: the others are counted.
    stats[2].units = -1;
    ok(ctx, bt_model_statistics(ctx, model, set, 50, stats, 2, &count));
    check(count == 6 && stats[2].units == -1, "more layers written than there is room for");
    bt_close(ctx);
}

// On the CPU, and by the portable kernels.
static void test_dead_share(void **state) {
    (void)state;
    static const struct {
        const char *device, *spec;
        double offset;
    } cases[] = {{"cpu", "fc8,relu,fc10", -50}, {"cpu", "fc8,gelu,fc10", -50},
                 {"cpu", "fc8,tanh,fc10", 50},  {"cpu", "fc8,sigmoid,fc10", -50},
                 {"sim", "fc8,relu,fc10", -50}, {"cpu", "conv8x3,relu,fc10", -50}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_device = cases[i].device;
        bt_context *ctx = open_cpu(1);
        test_device = "cpu";
        bt_model *model = make_model(ctx, cases[i].spec, 10, 1);
        bt_layer_stats stats[LAYERS];
        int count;
        float bias[8] = {0};
        for (int dead = 0; dead < 3; dead++) bias[2 * dead] = (float)cases[i].offset;
        ok(ctx, bt_write(ctx, bt_model_parameter(model, 1), bias, sizeof bias));
        ok(ctx,
           bt_model_statistics(ctx, model, digits(ctx, 100, false), 100, stats, LAYERS, &count));
        check(stats[1].dead == 3.0 / 8, "%s: %g of the units are dead", cases[i].spec,
              stats[1].dead);
        bt_close(ctx);
    }
}

// ---- Sick -------------------------------------------------------------------------------------

// How a training is made sick, and what must be said of it.
typedef struct disease {
    const char *name, *spec;
    bt_hyper hyper; // lr 0: 0.05 and momentum 0.9
    bt_optimizer optimizer;
    int limit, epochs;      // samples (0: 3000); epochs 0: it is seen before
    double weights, biases; // weights times this (0: 1), biases plus that
    int rotten;             // what is done to the data, below
    const char *code, *layer;
} disease;

enum { NOTHING, UNBALANCED, RANDOM, SHUFFLED, CONSTANT, FAINT };

static const disease diseases[] = {
    {"rate x 1000", "lenet", {.lr = 50, .momentum = 0.9}, .code = "lr-high"},
    {"rate / 10000", "lenet", {.lr = 5e-6, .momentum = 0.9}, .code = "lr-low"},
    {"adam's rate x 1000", "mlp", {3, 0.9, 0.999, 1e-8, 0, 0}, BT_ADAM, .code = "lr-high"},
    {"adam's rate / 10000", "mlp", {3e-7, 0.9, 0.999, 1e-8, 0, 0}, BT_ADAM, .code = "lr-low"},
    {"weights x 5", "mlp", .weights = 5, .code = "first-loss"},
    {"weights x 100, behind", "lenet", .weights = 100, .code = "signal-explodes",
     .layer = "3.conv16x5"},
    {"weights x 100, gradients", "lenet5", .weights = 100, .code = "gradient-explodes"},
    {"weights x 0.001", "lenet", .weights = 0.001, .code = "signal-vanishes"},
    {"weights x 0.001, mlp", "mlp", .weights = 0.001, .code = "signal-vanishes",
     .layer = "0.fc128"},
    {"biases at -10", "mlp", .biases = -10, .code = "dead-units", .layer = "1.relu"},
    {"biases at -10, conv", "lenet", .biases = -10, .code = "dead-units", .layer = "1.relu"},
    {"tanh at its bounds", "fc32,tanh,fc10", .biases = 20, .code = "dead-units", .layer = "1.tanh"},
    {"six sigmoids",
     "fc64,sigmoid,fc64,sigmoid,fc64,sigmoid,fc64,sigmoid,fc64,sigmoid,fc64,sigmoid,fc10",
     .code = "gradient-vanishes", .layer = "0.fc64"},
    {"95 % of one class", "mlp", .rotten = UNBALANCED, .code = "classes-unbalanced"},
    {"one image", "mlp", .rotten = CONSTANT, .code = "inputs-constant"},
    {"faint images", "mlp", .rotten = FAINT, .code = "inputs-not-scaled"},
    {"random labels, by heart", "mlp", .rotten = RANDOM, .limit = 500, .epochs = 60,
     .code = "labels-random"},
    {"shuffled labels", "mlp", .rotten = SHUFFLED, .limit = 6000, .epochs = 1,
     .code = "nothing-learned"},
    {"few samples", "mlp", .limit = 120, .epochs = 60, .code = "overfitting"},
    {"diverged", "lenet", {.lr = 1, .momentum = 0.9}, .epochs = 1, .code = "one-class"},
    {"diverged, dead", "lenet", {.lr = 1, .momentum = 0.9}, .epochs = 1, .code = "nothing-learned"},
};

// The first digits, with what is wrong about them.
static bt_dataset *make_set(bt_context *ctx, const disease *d) {
    int limit = d->limit ? d->limit : 3000;
    bt_dataset *good = digits(ctx, limit, false), *out;
    if (!d->rotten) return good;
    uint8_t *images = allocate((size_t)limit * 784), *labels = allocate((size_t)limit);
    uint64_t state = 5;
    int count = 0;
    for (int i = 0; i < limit; i++) {
        int label = bt_dataset_label(good, i), other = (int)test_random(&state, 0, 10);
        if (d->rotten == UNBALANCED && label != 3 && test_random(&state, 0, 1) > 0.006) continue;
        memcpy(images + 784 * (size_t)count, bt_dataset_image(good, d->rotten == CONSTANT ? 0 : i),
               784);
        labels[count++] = (uint8_t)(d->rotten == RANDOM || d->rotten == SHUFFLED ? other : label);
    }
    for (int i = 0; i < 784 * count && d->rotten == FAINT; i++) images[i] /= 16;
    ok(ctx, bt_dataset_make(ctx, images, labels, count, 1, 28, 28, 10, &out));
    free(images);
    free(labels);
    return out;
}

static void note_epoch(void *user, const bt_progress *now, int max) {
    bt_epoch *epochs = user;
    if (now->event == BT_EVENT_EPOCH && now->epoch <= max)
        epochs[now->epoch - 1] = (bt_epoch){now->epoch, now->train_loss, now->train_accuracy,
                                            now->val_loss, now->val_accuracy};
}

enum { EPOCHS_MAX = 64 };

static bt_answer on_progress(void *user, const bt_progress *now) {
    note_epoch(user, now, EPOCHS_MAX);
    return BT_CONTINUE;
}

static void infect(bt_context *ctx, bt_model *model, const disease *d) {
    for (int i = 0; i < bt_model_parameter_count(model); i++) {
        bool weight = strstr(bt_model_parameter_name(model, i), "weight");
        bool last = i >= bt_model_parameter_count(model) - 2;
        if (weight && d->weights != 0) change(ctx, bt_model_parameter(model, i), d->weights, 0);
        if (!weight && !last) change(ctx, bt_model_parameter(model, i), 1, d->biases);
    }
}

static void examine(bt_context *ctx, bt_train_desc *desc, bt_diagnosis *found) {
    bt_epoch epochs[EPOCHS_MAX];
    bt_train_result result;
    desc->callback = on_progress;
    desc->user = epochs;
    ok(ctx, bt_doctor_before(ctx, desc, found));
    if (desc->epochs == 0) return;
    ok(ctx, bt_train(ctx, desc, &result));
    ok(ctx, bt_doctor_after(ctx, desc, epochs, result.epochs, found));
}

static const char *list(const bt_diagnosis *found) {
    static char text[4096];
    int at = snprintf(text, sizeof text, "looked at %s", found->looked_at);
    for (int i = 0; i < found->count && at < (int)sizeof text; i++)
        at += snprintf(text + at, sizeof text - (size_t)at, "; %s %s %s: %s",
                       bt_severity_name(found->findings[i].severity), found->findings[i].code,
                       found->findings[i].layer, found->findings[i].text);
    return text;
}

static void test_diseases(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof diseases / sizeof *diseases; i++) {
        const disease *d = &diseases[i];
        if (quick() && d->epochs > 1) continue;
        bt_context *ctx = open_cpu(2);
        bt_dataset *set = make_set(ctx, d), *train = set, *validation = NULL;
        if (d->epochs > 1) ok(ctx, bt_dataset_split(ctx, set, 0.3, 1, &train, &validation));
        bt_train_desc desc = {.model = make_model(ctx, d->spec, 10, 2),
                              .train = train,
                              .validation = validation,
                              .epochs = d->epochs,
                              .optimizer = d->optimizer,
                              .hyper = d->hyper};
        if (d->hyper.lr == 0) desc.hyper = (bt_hyper){.lr = 0.05, .momentum = 0.9};
        infect(ctx, desc.model, d);
        bt_diagnosis found;
        examine(ctx, &desc, &found);
        const bt_finding *f = NULL;
        for (int k = 0; k < found.count; k++) {
            bool there = !d->layer || !strcmp(found.findings[k].layer, d->layer);
            if (there && !strcmp(found.findings[k].code, d->code)) f = &found.findings[k];
        }
        check(f, "%s: not %s %s, but %s", d->name, d->code, d->layer ? d->layer : "", list(&found));
        check(strlen(f->text) > 20 && strlen(f->hint) > 10, "%s: says \"%s\", \"%s\"", d->name,
              f->text, f->hint);
        if (getenv("BT_TEST_SHOW")) fprintf(stderr, "%s: %s\n", d->name, list(&found));
        bt_close(ctx);
    }
}

// ---- Healthy ----------------------------------------------------------------------------------

static void test_healthy(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        bt_optimizer optimizer;
        bt_hyper hyper;
        uint64_t seed;
    } runs[] = {
        {"mlp", BT_SGD, {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.0005}, 0},
        {"mlp", BT_SGD, {.lr = 0.1}, 1},
        {"mlp", BT_ADAM, {0.003, 0.9, 0.999, 1e-8, 0, 0}, 2},
        {"lenet", BT_SGD, {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.0005}, 3},
        {"lenet", BT_SGD, {.lr = 0.1}, 4},
        {"lenet", BT_ADAMW, {0.003, 0.9, 0.999, 1e-8, 0.01, 0}, 5},
        {"lenet5", BT_SGD, {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.0005}, 6},
        {"lenet5", BT_ADAM, {0.003, 0.9, 0.999, 1e-8, 0, 0}, 7},
        {"fc64,tanh,fc10", BT_NESTEROV, {.lr = 0.05, .momentum = 0.9}, 8},
        {"conv6x3,gelu,pool2,fc32,sigmoid,fc10", BT_ADAM, {0.003, 0.9, 0.999, 1e-8, 0, 0}, 9},
    };
    for (int i = 0; i < (quick() ? 2 : 10); i++) {
        bt_context *ctx = open_cpu(2);
        bt_dataset *train, *validation;
        ok(ctx, bt_dataset_split(ctx, digits(ctx, 6000, false), 0.1, 1, &train, &validation));
        bt_train_desc desc = {.model = make_model(ctx, runs[i].spec, 10, runs[i].seed),
                              .train = train,
                              .validation = validation,
                              .epochs = 3,
                              .optimizer = runs[i].optimizer,
                              .hyper = runs[i].hyper,
                              .schedule = BT_SCHEDULE_ONECYCLE,
                              .seed = runs[i].seed};
        bt_diagnosis found;
        examine(ctx, &desc, &found);
        check(found.count == 0, "%s, seed %d: %s", runs[i].spec, (int)runs[i].seed, list(&found));
        check(strstr(found.looked_at, "labels") && strstr(found.looked_at, "epochs"),
              "looked at: %s", found.looked_at);
        bt_close(ctx);
    }
}

// ---- Side effects -----------------------------------------------------------------------------

static void test_same_bits(void **state) {
    (void)state;
    size_t bytes[2];
    void *weights[2];
    for (int doctor = 0; doctor < 2; doctor++) {
        bt_context *ctx = open_cpu(2);
        bt_train_desc desc = {.model = make_model(ctx, "lenet", 10, 1),
                              .train = digits(ctx, 2000, false),
                              .epochs = 2,
                              .hyper = {.lr = 0.1, .momentum = 0.9}};
        bt_diagnosis found;
        bt_train_result result;
        if (doctor) ok(ctx, bt_doctor_before(ctx, &desc, &found));
        check(!doctor || isfinite(found.lr_low), "no rate helps: %s", list(&found));
        ok(ctx, bt_train(ctx, &desc, &result));
        if (doctor) ok(ctx, bt_doctor_after(ctx, &desc, NULL, 0, &found));
        // A network that has learned is not judged as a fresh one.
        if (doctor) ok(ctx, bt_doctor_before(ctx, &desc, &found));
        check(!doctor || (isnan(found.lr_low) && !strstr(found.looked_at, "signal")),
              "a second visit looked at %s", list(&found));
        trained net = {.ctx = ctx, .model = desc.model};
        ok(ctx, bt_model_save(ctx, net.model, in_scratch(doctor ? "with" : "without")));
        weights[doctor] = read_file(in_scratch(doctor ? "with" : "without"), &bytes[doctor]);
        bt_close(ctx);
    }
    check(bytes[0] == bytes[1] && !memcmp(weights[0], weights[1], bytes[0]),
          "the doctor changed the training");
    free(weights[0]);
    free(weights[1]);
}

static json_t *train(const char *options, const char *out) {
    char command[2048], line[8192] = "";
    const char *build = getenv("BUILD");
    snprintf(command, sizeof command,
             "%s/bantam train fc32,relu,fc10 digits --limit 6000 --quiet --json --loss-log %s.csv "
             "--out %s %s 2>%s",
             build ? build : "build", in_scratch(out), in_scratch(out), options,
             in_scratch("stderr"));
    FILE *pipe = popen(command, "r");
    check(pipe && fgets(line, sizeof line, pipe), "no output of %s", command);
    check(pclose(pipe) == 0, "%s failed", command);
    json_t *result = json_loads(line, 0, NULL);
    check(result, "no JSON: %s", line);
    return result;
}

static void test_command(void **state) {
    (void)state;
    char path[600];
    json_t *plain = train("--epochs 2", "plain"), *well = train("--epochs 2 --doctor", "well"),
           *ill = train("--epochs 1 --doctor --lr 1e-5", "ill");
    check(!json_object_get(plain, "findings"), "findings without --doctor");
    check(json_array_size(json_object_get(well, "findings")) == 0, "findings in a healthy run");
    const json_t *first = json_array_get(json_object_get(ill, "findings"), 0);
    const char *code = json_string_value(json_object_get(first, "code"));
    check(code && !strcmp(code, "lr-low"), "the first finding is %s", code);
    snprintf(path, sizeof path, "%s/run.json", in_scratch("ill"));
    json_t *record = json_load_file(path, 0, NULL);
    check(json_equal(json_object_get(record, "findings"), json_object_get(ill, "findings")),
          "run.json has other findings");
    check(json_string_value(json_object_get(json_object_get(record, "doctor"), "looked_at")),
          "run.json does not say what was looked at");
    size_t bytes[2];
    uint8_t *losses[2] = {read_file(in_scratch("plain.csv"), &bytes[0]),
                          read_file(in_scratch("well.csv"), &bytes[1])};
    check(losses[0] && losses[1] && bytes[0] > 1000 && bytes[0] == bytes[1] &&
              !memcmp(losses[0], losses[1], bytes[0]),
          "the losses of the steps differ with --doctor");
    free(losses[0]), free(losses[1]);
    json_decref(plain), json_decref(well), json_decref(ill), json_decref(record);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics), cmocka_unit_test(test_dead_share),
        cmocka_unit_test(test_diseases),   cmocka_unit_test(test_healthy),
        cmocka_unit_test(test_same_bits),  cmocka_unit_test(test_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
