// `bantam sanity`: the checks that tell a network that learns from one that only runs. Gradients
// against central differences in f64, every parameter moves in a step, one batch is learned by
// heart, and an untrained network is as unsure as guessing.
#include "net.h"
#include "table.h"

#include <math.h>
#include <stdlib.h>

enum { BATCH_MAX = 4096, GRADIENT_SAMPLES = 8, GRADIENT_ENTRIES = 12 };
static const double GRADIENT_BOUND = 1e-6, DIFFERENCE = 1e-6, LOSS_BOUND = 0.5;

typedef struct checks {
    settings *s;
    bt_dataset *set;
    bt_dataset_info data;
    int batch, failed;
    table table;
} checks;

static void add_row(checks *c, const char *name, const char *measured, const char *wanted,
                    bool ok) {
    c->failed += !ok;
    table_add(&c->table, json_pack("{s:s,s:s,s:s,s:b}", "check", name, "measured", measured,
                                   "wanted", wanted, "ok", (int)ok));
}

// ---- A network on one batch --------------------------------------------------------------------

// images [batch, c, h, w] of the first samples in `dtype`, from 0 to 1.
static bt_tensor load_images(bt_context *ctx, const checks *c, int batch, bt_dtype dtype) {
    const bt_dataset_info *d = &c->data;
    size_t pixels = (size_t)d->channels * (size_t)(d->height * d->width);
    bt_tensor out = {0};
    void *values = calloc((size_t)batch * pixels, bt_dtype_size(dtype));
    if (!values) return out;
    for (size_t at = 0; at < (size_t)batch * pixels; at++) {
        double pixel = bt_dataset_image(c->set, (int)(at / pixels))[at % pixels] / 255.0;
        if (dtype == BT_F64)
            ((double *)values)[at] = pixel;
        else
            ((float *)values)[at] = (float)pixel;
    }
    out = bt_from(ctx, dtype, BT_SHAPE(batch, d->channels, d->height, d->width), values);
    free(values);
    return out;
}

static int make_net(bt_context *ctx, const checks *c, int batch, bt_dtype dtype, net *out) {
    int32_t labels[BATCH_MAX];
    for (int i = 0; i < batch; i++) labels[i] = bt_dataset_label(c->set, i);
    bt_batch in = {load_images(ctx, c, batch, dtype),
                   bt_from(ctx, BT_I32, BT_SHAPE(batch), labels)};
    return net_make(ctx, c->s, &c->data, in, out);
}

// ---- Gradients ---------------------------------------------------------------------------------

// Biases start at 0 and pictures are mostly black, so many units would sit exactly on the kink of
// relu, where no derivative exists: random biases take them away from it.
static bt_status move_biases(bt_context *ctx, const net *n) {
    for (int i = 0; i < n->count; i++) {
        bt_shape shape = bt_tensor_shape(ctx, n->parameters[i]);
        size_t bytes = bt_shape_count(shape) * sizeof(double);
        if (shape.rank != 1) continue;
        double *values = malloc(bytes + 1);
        if (!values) return BT_ERROR_MEMORY;
        bt_tensor noise = bt_random_uniform(ctx, BT_F64, shape, 1000 + (uint64_t)i, -0.2, 0.2);
        bt_status status = bt_read(ctx, noise, values, bytes);
        if (status == BT_OK) status = bt_write(ctx, n->parameters[i], values, bytes);
        free(values);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

// (loss(p + h) - loss(p - h)) / 2h for entry `at` of parameter i, whose values are given.
static bt_status difference(bt_context *ctx, const net *n, int i, double *values, size_t count,
                            size_t at, double *out) {
    double loss[2] = {0, 0}, middle = values[at];
    bt_status status = BT_OK;
    for (int side = 0; side < 2 && status == BT_OK; side++) {
        values[at] = middle + (side ? DIFFERENCE : -DIFFERENCE);
        status = bt_write(ctx, n->parameters[i], values, count * sizeof *values);
        if (status == BT_OK) status = bt_read(ctx, n->loss, &loss[side], sizeof loss[side]);
    }
    values[at] = middle;
    *out = (loss[1] - loss[0]) / (2 * DIFFERENCE);
    return status == BT_OK ? bt_write(ctx, n->parameters[i], values, count * sizeof *values)
                           : status;
}

// The largest error of some entries of parameter i, relative to the largest of its gradients.
static bt_status gradient_error(bt_context *ctx, const net *n, int i, bt_tensor gradient,
                                double *values, double *gradients, double *out) {
    size_t count = bt_shape_count(bt_tensor_shape(ctx, n->parameters[i])), steepest = 0;
    double worst = 0;
    bt_status status = bt_read(ctx, n->parameters[i], values, count * sizeof *values);
    if (status == BT_OK) status = bt_read(ctx, gradient, gradients, count * sizeof *gradients);
    for (size_t j = 0; j < count && status == BT_OK; j++)
        if (fabs(gradients[j]) > fabs(gradients[steepest])) steepest = j;
    for (size_t k = 0; k < GRADIENT_ENTRIES && k < count && status == BT_OK; k++) {
        size_t at = k == 0 ? steepest : (size_t)(k * 2654435761u) % count; // spread over all
        double numeric = 0;
        status = difference(ctx, n, i, values, count, at, &numeric);
        worst = fmax(worst, fabs(numeric - gradients[at]));
    }
    *out = worst / fmax(fabs(gradients[steepest]), 1e-30);
    return status;
}

static int check_gradients(bt_context *ctx, checks *c) {
    net n;
    bt_tensor gradients[PARAMETERS_MAX];
    int code =
        make_net(ctx, c, c->batch < GRADIENT_SAMPLES ? c->batch : GRADIENT_SAMPLES, BT_F64, &n);
    if (code) return code;
    CHECK(ctx, bt_grad(ctx, n.loss, n.parameters, n.count, gradients));
    CHECK(ctx, move_biases(ctx, &n));
    size_t room = bt_model_size(n.model) + 1;
    double *values = calloc(2 * room, sizeof *values);
    if (!values) return fail_status(NULL, BT_ERROR_MEMORY);
    bt_status status = BT_OK;
    for (int i = 0; i < n.count && status == BT_OK; i++) {
        char name[64], measured[64], wanted[64];
        double error = 0;
        status = gradient_error(ctx, &n, i, gradients[i], values, values + room, &error);
        snprintf(name, sizeof name, "gradient %s", bt_model_parameter_name(n.model, i));
        snprintf(measured, sizeof measured, "relative error %.1e", error);
        snprintf(wanted, sizeof wanted, "<= %.0e", GRADIENT_BOUND);
        if (status == BT_OK) add_row(c, name, measured, wanted, error <= GRADIENT_BOUND);
    }
    free(values);
    return status == BT_OK ? 0 : fail_status(ctx, status);
}

// ---- Learning ----------------------------------------------------------------------------------

// Runs one step and tells for each parameter how far it went: the norm of its change.
static bt_status step_and_measure(bt_context *ctx, bt_program *p, const net *n, float *values,
                                  double *moved) {
    size_t at = 0, room = bt_model_size(n->model);
    for (int after = 0; after < 2; after++) {
        at = 0;
        for (int i = 0; i < n->count; i++) {
            size_t count = bt_shape_count(bt_tensor_shape(ctx, n->parameters[i]));
            float *to = values + at + (after ? room : 0);
            bt_status status = bt_read(ctx, n->parameters[i], to, count * sizeof *to);
            if (status != BT_OK) return status;
            double sum = 0;
            for (size_t j = 0; after && j < count; j++)
                sum += pow((double)to[j] - (double)values[at + j], 2);
            moved[i] = sqrt(sum);
            at += count;
        }
        bt_status status = after ? BT_OK : bt_program_run(ctx, p, 1);
        if (status != BT_OK) return status;
    }
    return BT_OK;
}

static int check_movement(bt_context *ctx, checks *c, bt_program *p, const net *n) {
    double moved[PARAMETERS_MAX];
    float *values = calloc(2 * bt_model_size(n->model) + 1, sizeof *values);
    if (!values) return fail_status(NULL, BT_ERROR_MEMORY);
    bt_status status = step_and_measure(ctx, p, n, values, moved);
    free(values);
    CHECK(ctx, status);
    for (int i = 0; i < n->count; i++) {
        char name[64], measured[64];
        snprintf(name, sizeof name, "movement %s", bt_model_parameter_name(n->model, i));
        snprintf(measured, sizeof measured, "norm of change %.1e", moved[i]);
        add_row(c, name, measured, "> 0 after one step", moved[i] > 0 && isfinite(moved[i]));
    }
    return 0;
}

static void judge_loss(checks *c, double loss) {
    char measured[64], wanted[64];
    double guessing = log(c->data.classes);
    snprintf(measured, sizeof measured, "%.4f", loss);
    snprintf(wanted, sizeof wanted, "%.3f (ln %d) +- %.1f", guessing, c->data.classes, LOSS_BOUND);
    add_row(c, "initial loss", measured, wanted, fabs(loss - guessing) <= LOSS_BOUND);
}

static int check_overfitting(bt_context *ctx, checks *c, bt_program *p) {
    uint32_t steps = (uint32_t)opt_int(c->s, "steps");
    char measured[64], wanted[64];
    bt_log_entry last = {0};
    CHECK(ctx, bt_program_log(ctx, p, 0, 1, &last));
    judge_loss(c, last.loss);
    while (bt_program_step(p) < steps && last.correct < c->batch) {
        CHECK(ctx, bt_program_run(ctx, p, 1));
        CHECK(ctx, bt_program_log(ctx, p, 0, 1, &last));
    }
    snprintf(measured, sizeof measured, "%.1f %% after %u steps", 100 * last.correct / c->batch,
             bt_program_step(p));
    snprintf(wanted, sizeof wanted, "100 %% in %u", steps);
    add_row(c, "one batch by heart", measured, wanted, last.correct >= c->batch);
    return 0;
}

static int check_learning(bt_context *ctx, checks *c) {
    net n;
    int code = make_net(ctx, c, c->batch, BT_F32, &n);
    if (code) return code;
    bt_program *p;
    code = net_program(ctx, &n, opt_number(c->s, "lr"), 1, false, &p);
    if (code) return code;
    code = check_movement(ctx, c, p, &n);
    return code ? code : check_overfitting(ctx, c, p);
}

// ---- The command -------------------------------------------------------------------------------

static int check_all(bt_context *ctx, checks *c) {
    bt_context *reference; // f64 is the CPU's alone
    int code = open_context(&(bt_context_desc){.threads = opt_int(c->s, "threads")}, &reference);
    if (code) return code;
    code = check_gradients(reference, c);
    bt_close(reference);
    return code ? code : check_learning(ctx, c);
}

static int sanity_body(bt_context *ctx, void *user) {
    static const column columns[] = {{"check", "check", "%-20s"},
                                     {"measured", "measured", "%-23s"},
                                     {"wanted", "wanted", "%-22s"},
                                     {"ok", "result", "ok|FAILED"}};
    settings *s = user;
    checks c = {.s = s, .batch = opt_int(s, "batch")};
    CHECK(ctx, open_data(ctx, s, false, c.batch, &c.set));
    bt_dataset_describe(c.set, &c.data);
    if (c.data.count < c.batch) c.batch = c.data.count;
    bt_model *model; // (may be misspelt)
    CHECK(ctx, bt_model_make(ctx,
                             &(bt_model_desc){.spec = net_spec(s),
                                              .channels = c.data.channels,
                                              .height = c.data.height,
                                              .width = c.data.width,
                                              .classes = c.data.classes},
                             &model));
    table_begin(&c.table, columns, 4, opt_flag(s, "json"));
    int code = check_all(ctx, &c);
    if (!code && opt_flag(s, "json"))
        print_json(json_pack("{s:s,s:i,s:O}", "model", net_spec(s), "failed", c.failed, "checks",
                             c.table.rows));
    table_end(&c.table);
    if (code || !c.failed) return code;
    return fail(BT_ERROR_NUMERIC, "%d check%s failed: this network does not learn as it should",
                c.failed, c.failed > 1 ? "s" : "");
}

int command_sanity(settings *s) {
    int code = choose_data(s, 1);
    return code ? code : with_device(s, sanity_body, s);
}
