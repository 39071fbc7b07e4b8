// `bantam parity`: a device in f32 against the CPU in f64. Every operator and its gradients on
// small odd shapes, then whole training steps from the same weights in the same order.
#include "net.h"
#include "table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 3, STEPS = 50 };
// Bounds of the normalised mean square error; sums of products collect more rounding.
static const double PLAIN_BOUND = 1e-10, PRODUCT_BOUND = 1e-9, LOSS_BOUND = 1e-4;

// ---- Cases -------------------------------------------------------------------------------------

typedef bt_tensor (*build_fn)(bt_context *ctx, const bt_tensor *in);

typedef struct op_case {
    const char *name;
    bt_shape shapes[INPUTS]; // rank 0 from the second on: no input
    bt_tensor (*unary)(bt_context *ctx, bt_tensor a);
    bt_tensor (*binary)(bt_context *ctx, bt_tensor a, bt_tensor b);
    bt_tensor (*scalar)(bt_context *ctx, bt_tensor a, double s);
    build_fn build;
    bool positive; // inputs from 0.5 to 2.5 instead of -2 to 2
    bool product;  // has the wider bound
    bool no_gradient;
} op_case;

static double square(void *user, double x) {
    return (void)user, x * x;
}
static double twice(void *user, double x) {
    return (void)user, 2 * x;
}

static bt_tensor map(bt_context *ctx, const bt_tensor *in) {
    return bt_map(ctx, in[0], square, twice, NULL);
}
static bt_tensor matmul_tn(bt_context *ctx, const bt_tensor *in) {
    return bt_matmul_ex(ctx, in[0], true, in[1], false);
}
static bt_tensor matmul_nt(bt_context *ctx, const bt_tensor *in) {
    return bt_matmul_ex(ctx, in[0], false, in[1], true);
}
static bt_tensor permute(bt_context *ctx, const bt_tensor *in) {
    return bt_permute(ctx, in[0], (const int[]){2, 0, 3, 1});
}
static bt_tensor reshape(bt_context *ctx, const bt_tensor *in) {
    return bt_reshape(ctx, in[0], BT_SHAPE(5, -1));
}
static bt_tensor broadcast(bt_context *ctx, const bt_tensor *in) {
    return bt_broadcast(ctx, in[0], BT_SHAPE(2, 3, 4, 5));
}
static bt_tensor sum(bt_context *ctx, const bt_tensor *in) {
    return bt_sum(ctx, in[0], 5, true);
}
static bt_tensor mean(bt_context *ctx, const bt_tensor *in) {
    return bt_mean(ctx, in[0], 0, false);
}
static bt_tensor max(bt_context *ctx, const bt_tensor *in) {
    return bt_max(ctx, in[0], 2, false);
}
static bt_tensor argmax(bt_context *ctx, const bt_tensor *in) {
    return bt_argmax(ctx, in[0], 1);
}
static bt_tensor softmax(bt_context *ctx, const bt_tensor *in) {
    return bt_softmax(ctx, in[0], 1);
}
static bt_tensor log_softmax(bt_context *ctx, const bt_tensor *in) {
    return bt_log_softmax(ctx, in[0], 2);
}
static bt_tensor conv(bt_context *ctx, const bt_tensor *in) {
    return bt_conv2d(ctx, in[0], in[1], in[2], 1, 0);
}
static bt_tensor conv_strided(bt_context *ctx, const bt_tensor *in) {
    return bt_conv2d(ctx, in[0], in[1], (bt_tensor){0}, 2, 1);
}
static bt_tensor im2col(bt_context *ctx, const bt_tensor *in) {
    return bt_im2col(ctx, in[0], 3, 2, 2, 1);
}
static bt_tensor max_pool(bt_context *ctx, const bt_tensor *in) {
    return bt_max_pool(ctx, in[0], 2, 0, 0);
}
static bt_tensor max_pool_padded(bt_context *ctx, const bt_tensor *in) {
    return bt_max_pool(ctx, in[0], 3, 2, 1);
}
static bt_tensor avg_pool(bt_context *ctx, const bt_tensor *in) {
    return bt_avg_pool(ctx, in[0], 3, 2, 1);
}
static bt_tensor cross_entropy(bt_context *ctx, const bt_tensor *in) {
    static const int32_t labels[7] = {0, 4, 2, -1, 1, 3, 4};
    return bt_cross_entropy(ctx, in[0], bt_from(ctx, BT_I32, BT_SHAPE(7), labels));
}

static const op_case cases[] = {
    {"add (broadcast)", {{3, {3, 1, 5}}, {2, {7, 1}}}, .binary = bt_add},
    {"sub (broadcast)", {{2, {5, 13}}, {1, {13}}}, .binary = bt_sub},
    {"mul", {{2, {3, 37}}, {2, {3, 37}}}, .binary = bt_mul},
    {"div (broadcast)", {{2, {3, 11}}, {2, {3, 1}}}, .binary = bt_div, .positive = true},
    {"add_scalar", {{1, {17}}}, .scalar = bt_add_scalar},
    {"sub_scalar", {{1, {17}}}, .scalar = bt_sub_scalar},
    {"mul_scalar", {{1, {17}}}, .scalar = bt_mul_scalar},
    {"div_scalar", {{1, {17}}}, .scalar = bt_div_scalar},
    {"neg", {{2, {3, 31}}}, .unary = bt_neg},
    {"relu", {{2, {3, 31}}}, .unary = bt_relu},
    {"sigmoid", {{2, {3, 31}}}, .unary = bt_sigmoid},
    {"tanh", {{2, {3, 31}}}, .unary = bt_tanh},
    {"gelu", {{2, {3, 31}}}, .unary = bt_gelu},
    {"exp", {{2, {3, 31}}}, .unary = bt_exp},
    {"log", {{2, {3, 31}}}, .unary = bt_log, .positive = true},
    {"sqrt", {{2, {3, 31}}}, .unary = bt_sqrt, .positive = true},
    {"map (CPU only)", {{2, {3, 31}}}, .build = map},
    {"matmul", {{2, {17, 29}}, {2, {29, 13}}}, .binary = bt_matmul, .product = true},
    {"matmul (batches)", {{3, {3, 5, 7}}, {2, {7, 3}}}, .binary = bt_matmul, .product = true},
    {"matmul (transpose a)", {{2, {29, 17}}, {2, {29, 13}}}, .build = matmul_tn, .product = true},
    {"matmul (transpose b)", {{2, {17, 29}}, {2, {13, 29}}}, .build = matmul_nt, .product = true},
    {"permute", {{4, {2, 3, 5, 7}}}, .build = permute},
    {"transpose", {{3, {2, 5, 7}}}, .unary = bt_transpose},
    {"reshape", {{3, {3, 5, 7}}}, .build = reshape},
    {"broadcast", {{3, {3, 1, 5}}}, .build = broadcast},
    {"sum (two axes)", {{3, {5, 7, 11}}}, .build = sum},
    {"mean (all)", {{3, {5, 7, 11}}}, .build = mean},
    {"max", {{3, {5, 7, 3}}}, .build = max},
    {"argmax", {{3, {5, 7, 3}}}, .build = argmax, .no_gradient = true},
    {"softmax", {{3, {3, 10, 5}}}, .build = softmax},
    {"log_softmax", {{3, {3, 5, 10}}}, .build = log_softmax},
    {"conv2d", {{4, {3, 2, 11, 9}}, {4, {5, 2, 3, 5}}, {1, {5}}}, .build = conv, .product = true},
    {"conv2d (stride, pad)",
     {{4, {2, 3, 9, 11}}, {4, {7, 3, 3, 3}}},
     .build = conv_strided,
     .product = true},
    {"im2col", {{4, {2, 3, 7, 5}}}, .build = im2col},
    {"max_pool", {{4, {2, 3, 10, 8}}}, .build = max_pool},
    {"max_pool (stride, pad)", {{4, {2, 3, 9, 7}}}, .build = max_pool_padded},
    {"avg_pool (stride, pad)", {{4, {2, 3, 9, 7}}}, .build = avg_pool},
    {"bias", {{4, {3, 5, 4, 3}}, {1, {5}}}, .binary = bt_bias},
    {"cross_entropy", {{2, {7, 5}}}, .build = cross_entropy},
    {"mse", {{2, {3, 7}}, {2, {3, 7}}}, .binary = bt_mse},
};
enum { CASE_COUNT = sizeof cases / sizeof cases[0], VALUES_MAX = 1 << 14 };

// ---- Operators ---------------------------------------------------------------------------------

// What a case computes: its output and the gradients of its inputs, as doubles.
typedef struct outcome {
    double values[INPUTS + 1][VALUES_MAX];
    size_t counts[INPUTS + 1];
} outcome;

// The same values in both precisions, exact in f32.
static bt_tensor make_values(bt_context *ctx, bt_dtype dtype, bt_shape shape, uint32_t seed,
                             bool positive) {
    double wide[VALUES_MAX];
    float narrow[VALUES_MAX];
    size_t count = bt_shape_count(shape);
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < count && i < VALUES_MAX; i++) {
        state = state * 1664525u + 1013904223u;
        narrow[i] = (float)(ldexp(state, positive ? -31 : -30) + (positive ? 0.5 : -2));
        wide[i] = (double)narrow[i];
    }
    return bt_input(ctx, dtype, shape, dtype == BT_F64 ? (void *)wide : (void *)narrow);
}

static bt_status read_values(bt_context *ctx, bt_tensor t, double *out, size_t *count) {
    union {
        float f[VALUES_MAX];
        int32_t i[VALUES_MAX];
        double d[VALUES_MAX];
    } raw;
    bt_dtype dtype = bt_tensor_dtype(ctx, t);
    *count = bt_shape_count(bt_tensor_shape(ctx, t));
    bt_status status = bt_read(ctx, t, &raw, *count * bt_dtype_size(dtype));
    for (size_t i = 0; i < *count && status == BT_OK; i++)
        out[i] = dtype == BT_F64 ? raw.d[i] : dtype == BT_F32 ? (double)raw.f[i] : raw.i[i];
    return status;
}

static bt_tensor build(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    if (c->unary) return c->unary(ctx, in[0]);
    if (c->binary) return c->binary(ctx, in[0], in[1]);
    return c->scalar ? c->scalar(ctx, in[0], 1.75) : c->build(ctx, in);
}

// The gradients are those of the sum of the outputs, each times a number of its own.
static bt_status compute(bt_context *ctx, const op_case *c, bt_dtype dtype, outcome *o) {
    bt_tensor in[INPUTS] = {{0}}, gradients[INPUTS];
    int count = 0;
    memset(o->counts, 0, sizeof o->counts);
    while (count < INPUTS && c->shapes[count].rank) {
        in[count] = make_values(ctx, dtype, c->shapes[count], (uint32_t)count + 1, c->positive);
        count++;
    }
    bt_tensor out = build(ctx, c, in);
    bt_status status = read_values(ctx, out, o->values[0], &o->counts[0]);
    if (status != BT_OK || c->no_gradient) return status;
    bt_tensor weights = make_values(ctx, dtype, bt_tensor_shape(ctx, out), 9, false);
    bt_tensor total = bt_sum(ctx, bt_mul(ctx, out, weights), 0, false);
    status = bt_grad(ctx, total, in, count, gradients);
    for (int i = 0; i < count && status == BT_OK; i++)
        status = read_values(ctx, gradients[i], o->values[i + 1], &o->counts[i + 1]);
    return status;
}

typedef struct deviation {
    double nmse, largest;
} deviation;

// The worst of tensors [first, last).
static deviation compare(const outcome *a, const outcome *reference, int first, int last) {
    deviation worst = {0, 0};
    for (int t = first; t < last; t++) {
        double square_error = 0, energy = 0;
        for (size_t i = 0; i < a->counts[t]; i++) {
            double e = a->values[t][i] - reference->values[t][i];
            if (isnan(e)) e = INFINITY;
            square_error += e * e, energy += reference->values[t][i] * reference->values[t][i];
            worst.largest = fmax(worst.largest, fabs(e));
        }
        double nmse = square_error > 0 ? square_error / energy : 0;
        worst.nmse = fmax(worst.nmse, isnan(nmse) ? INFINITY : nmse);
    }
    return worst;
}

typedef struct parity {
    settings *s;
    bt_context *device, *reference;
    int failed;
    table table;
} parity;

static void add_row(parity *p, const op_case *c, deviation forward, deviation backward) {
    double bound = c->product ? PRODUCT_BOUND : PLAIN_BOUND;
    bool ok = forward.nmse <= bound && backward.nmse <= bound;
    p->failed += !ok;
    table_add(&p->table,
              json_pack("{s:s,s:o,s:o,s:o,s:o,s:f,s:b}", "operator", c->name, "nmse",
                        real_or_null(forward.nmse), "max_abs", real_or_null(forward.largest),
                        "grad_nmse", real_or_null(backward.nmse), "grad_max_abs",
                        real_or_null(backward.largest), "bound", bound, "ok", (int)ok));
}

static int check_operators(parity *p) {
    bt_device_info device;
    bt_context_device(p->device, &device);
    bool on_cpu = !strncmp(device.name, "cpu", 3);
    outcome *o = calloc(2, sizeof *o);
    if (!o) return fail_status(NULL, BT_ERROR_MEMORY);
    int code = 0;
    for (int i = 0; i < CASE_COUNT && !code; i++) {
        if (cases[i].build == map && !on_cpu) continue;
        uint32_t marks[] = {bt_mark(p->device), bt_mark(p->reference)};
        bt_status status = compute(p->device, &cases[i], BT_F32, &o[0]);
        if (status != BT_OK) code = fail_status(p->device, status);
        if (!code) status = compute(p->reference, &cases[i], BT_F64, &o[1]);
        if (!code && status != BT_OK) code = fail_status(p->reference, status);
        if (!code)
            add_row(p, &cases[i], compare(&o[0], &o[1], 0, 1),
                    compare(&o[0], &o[1], 1, INPUTS + 1));
        bt_release(p->device, marks[0]);
        bt_release(p->reference, marks[1]);
    }
    free(o);
    return code;
}

// ---- Training steps ----------------------------------------------------------------------------

typedef struct trajectory {
    bt_dataset_info data;
    uint8_t *images, *labels;
    double *weights; // of the device's model, in order
    bt_log_entry log[STEPS];
} trajectory;

// Moves the weights between the model and the array of doubles.
static bt_status share_weights(bt_context *ctx, const bt_model *model, bool give, double *weights) {
    bt_status status = BT_OK;
    for (int i = 0; i < bt_model_parameter_count(model) && status == BT_OK; i++) {
        bt_tensor t = bt_model_parameter(model, i);
        size_t count = bt_shape_count(bt_tensor_shape(ctx, t));
        size_t bytes = count * bt_dtype_size(bt_tensor_dtype(ctx, t));
        if (give) {
            float *narrow = malloc(bytes + 1);
            status = narrow ? bt_read(ctx, t, narrow, bytes) : BT_ERROR_MEMORY;
            for (size_t j = 0; j < count && status == BT_OK; j++) weights[j] = (double)narrow[j];
            free(narrow);
        } else {
            status = bt_write(ctx, t, weights, bytes);
        }
        weights += count;
    }
    return status;
}

static int run_steps(bt_context *ctx, const settings *s, bt_dtype dtype, trajectory *t) {
    net n;
    bt_dataset *set;
    bt_program *program;
    const bt_dataset_info *d = &t->data;
    CHECK(ctx, bt_dataset_make(ctx, t->images, t->labels, d->count, d->channels, d->height,
                               d->width, d->classes, &set));
    bt_batch_desc order = {
        .set = set, .batch = opt_int(s, "batch"), .dtype = dtype, .shuffle = true};
    int code = net_make(ctx, s, d, bt_dataset_batch(ctx, &order), &n);
    if (code) return code;
    if (!t->weights) t->weights = calloc(bt_model_size(n.model) + 1, sizeof *t->weights);
    if (!t->weights) return fail_status(NULL, BT_ERROR_MEMORY);
    CHECK(ctx, share_weights(ctx, n.model, dtype == BT_F32, t->weights));
    code = net_program(ctx, &n, 0.02, STEPS, false, &program);
    if (code) return code;
    CHECK(ctx, bt_program_run(ctx, program, STEPS));
    CHECK(ctx, bt_program_log(ctx, program, 0, STEPS, t->log));
    return 0;
}

// Copies enough samples for all steps, with labels below --classes.
static int take_samples(parity *p, trajectory *t) {
    bt_dataset *set;
    CHECK(p->reference, open_data(p->reference, p->s, false, STEPS * opt_int(p->s, "batch"), &set));
    bt_dataset_describe(set, &t->data);
    t->data.classes = opt_int(p->s, "classes");
    size_t count = (size_t)t->data.count;
    size_t bytes = (size_t)t->data.channels * (size_t)(t->data.height * t->data.width);
    t->images = malloc(count * bytes + 1), t->labels = malloc(count + 1);
    if (!t->images || !t->labels) return fail_status(NULL, BT_ERROR_MEMORY);
    for (size_t i = 0; i < count; i++) {
        memcpy(t->images + i * bytes, bt_dataset_image(set, (int)i), bytes);
        t->labels[i] = (uint8_t)(bt_dataset_label(set, (int)i) % t->data.classes);
    }
    return 0;
}

// Compares the losses of every step; *first_bad is 0 when all are within the bound.
static int check_training(parity *p, double *largest, int *first_bad) {
    trajectory t = {0};
    bt_log_entry device[STEPS];
    int code = take_samples(p, &t);
    if (!code) code = run_steps(p->device, p->s, BT_F32, &t);
    memcpy(device, t.log, sizeof device);
    if (!code) code = run_steps(p->reference, p->s, BT_F64, &t);
    for (int i = 0; i < STEPS && !code; i++) {
        double difference = fabs(device[i].loss - t.log[i].loss);
        if (!(difference <= LOSS_BOUND) && !*first_bad) *first_bad = i + 1;
        *largest = isnan(difference) ? INFINITY : fmax(*largest, difference);
    }
    free(t.images), free(t.labels), free(t.weights);
    p->failed += *first_bad != 0;
    return code;
}

// ---- The command -------------------------------------------------------------------------------

static int report_parity(parity *p, double largest, int first_bad) {
    const char *spec = net_spec(p->s);
    if (p->table.silent) {
        print_json(json_pack("{s:i,s:O,s:{s:s,s:i,s:o,s:f,s:i}}", "failed", p->failed, "operators",
                             p->table.rows, "training", "model", spec, "steps", STEPS,
                             "largest_difference", real_or_null(largest), "bound", LOSS_BOUND,
                             "first_bad_step", first_bad));
    } else {
        printf("\n%d training steps of %s, batch %d: largest difference of the loss %.1e, bound "
               "%.0e: %s\n",
               STEPS, spec, opt_int(p->s, "batch"), largest, LOSS_BOUND,
               first_bad ? "FAILED" : "ok");
        if (first_bad) printf("first step out of bounds: %d\n", first_bad);
    }
    if (!p->failed) return 0;
    return fail(BT_ERROR_NUMERIC, "%d comparison%s with the f64 reference out of bounds", p->failed,
                p->failed > 1 ? "s" : "");
}

static int parity_body(bt_context *ctx, void *user) {
    static const column columns[] = {
        {"operator", "operator", "%-22s"},    {"nmse", "NMSE", "%9.1e"},
        {"max_abs", "max abs", "%9.1e"},      {"grad_nmse", "grad NMSE", "%9.1e"},
        {"grad_max_abs", "max abs", "%9.1e"}, {"bound", "bound", "%6.0e"},
        {"ok", "result", "ok|FAILED"}};
    parity p = {.s = user, .device = ctx};
    double largest = 0;
    int first_bad = 0, code = open_context("cpu", opt_int(p.s, "threads"), &p.reference);
    if (code) return code;
    table_begin(&p.table, columns, 7, opt_flag(p.s, "json"));
    code = check_operators(&p);
    if (!code) code = check_training(&p, &largest, &first_bad);
    if (!code) code = report_parity(&p, largest, first_bad);
    table_end(&p.table);
    bt_close(p.reference);
    return code;
}

int command_parity(settings *s) {
    int code = choose_data(s, 1);
    return code ? code : with_device(s, parity_body);
}
