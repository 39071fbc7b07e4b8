// `bantam parity`: a device in f32 against the CPU in f64. Every kernel, through the operators and
// their gradients, on many shapes; then whole training steps from the same weights in the same
// order.
#include "parity.h"
#include "net.h"
#include "table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 50 };
// Bounds of the normalised mean square error: sums of products collect more rounding.
static const double PLAIN_BOUND = 1e-10, PRODUCT_BOUND = 1e-9;

// What operands of fewer bits may cost: in a product (rounding both to b bits of mantissa makes a
// relative variance of 2^-2b / 6 at most: 1.6e-7 and 1e-5), in one whose gradient jumps where the
// output is 0 (7e-5 and 6e-4 were measured), and in the loss of a training, which takes other turns
// at such jumps, so that only what is grossly wrong shows there.
static const struct {
    double product, kink, loss;
} bounds[] = {[BT_PRECISION_FP32] = {PRODUCT_BOUND, PRODUCT_BOUND, 1e-4},
              [BT_PRECISION_TF32] = {3e-7, 5e-4, 0.3},
              [BT_PRECISION_BF16] = {2e-5, 5e-3, 0.5}};

// ---- Comparing ---------------------------------------------------------------------------------

// The worst of a row so far, for the outputs [0] and for the gradients [1].
typedef struct deviation {
    double nmse[2], max_abs[2], bound;
    char worst[64]; // the case that has the largest nmse
    int cases;
} deviation;

// The kernels that devices have faster units for.
static bool on_tensor_cores(const parity_row *row) {
    return !strncmp(row->kernels, "matmul", 6) || !strncmp(row->kernels, "conv2d", 6);
}

static double bound_of(const parity_row *row, bt_precision precision) {
    if (row->exact) return 0;
    if (!row->product) return PLAIN_BOUND;
    if (!on_tensor_cores(row)) return PRODUCT_BOUND;
    return row->with.unary == bt_relu ? bounds[precision].kink : bounds[precision].product;
}

static void compare_tensor(const outcome *a, const outcome *reference, int t, double *nmse,
                           double *max_abs) {
    double errors = 0, energy = 0;
    *max_abs = 0;
    for (size_t i = 0; i < reference->counts[t] && i < a->counts[t]; i++) {
        double got = a->values[t][i], want = reference->values[t][i];
        if (isfinite(want)) energy += want * want;
        if (got == want || (isnan(got) && isnan(want))) continue;
        double e = isfinite(got - want) ? fabs(got - want) : INFINITY;
        errors += e * e;
        *max_abs = fmax(*max_abs, e);
    }
    *nmse = errors > 0 ? errors / energy : 0;
    if (isnan(*nmse) || a->counts[t] != reference->counts[t]) *nmse = INFINITY;
}

static void compare(const parity_case *c, const outcome *a, const outcome *reference,
                    deviation *d) {
    double before = fmax(d->nmse[0], d->nmse[1]);
    for (int t = 0; t < PARITY_TENSORS; t++) {
        double nmse, max_abs;
        compare_tensor(a, reference, t, &nmse, &max_abs);
        d->nmse[t > 0] = fmax(d->nmse[t > 0], nmse);
        d->max_abs[t > 0] = fmax(d->max_abs[t > 0], max_abs);
    }
    d->cases++;
    if (fmax(d->nmse[0], d->nmse[1]) > before) memcpy(d->worst, c->text, sizeof d->worst);
}

static bool within(const deviation *d) {
    return fmax(d->nmse[0], d->nmse[1]) <= d->bound;
}

// Runs all cases of a row; counts in `reached` (may be NULL) how many ran each kernel.
static bt_status check_row(bt_context *device, bt_context *reference, const parity_row *row,
                           json_t *reached, deviation *d, bt_context **guilty) {
    const char *at = row->shapes, *kernel;
    parity_case c;
    bt_status status = BT_OK;
    *d = (deviation){.bound = bound_of(row, bt_context_precision(device))};
    while (status == BT_OK && parity_next(row, &at, &c)) {
        outcome o[2] = {[0].kernels = json_object()};
        status = parity_compute(*guilty = device, &c, BT_F32, &o[0]);
        if (status == BT_OK)
            status = parity_compute(*guilty = reference, &c, row->exact ? BT_F32 : BT_F64, &o[1]);
        if (status == BT_OK) compare(&c, &o[0], &o[1], d);
        json_t *unused;
        json_object_foreach(o[0].kernels, kernel, unused) {
            json_int_t count = json_integer_value(json_object_get(reached, kernel));
            json_object_set_new(reached, kernel, json_integer(count + 1));
        }
        outcome_free(&o[0]), outcome_free(&o[1]);
    }
    return status;
}

static bool on_cpu(bt_context *ctx) {
    bt_device_info info;
    bt_context_device(ctx, &info);
    return !strncmp(info.name, "cpu", 3) || !strncmp(info.name, "check", 5);
}

static bool on_gpu(bt_context *ctx) {
    bt_device_info info;
    bt_context_device(ctx, &info);
    return !info.software && !on_cpu(ctx);
}

bool has_word(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *p = list; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (n == length && !strncmp(p, word, n)) return true;
        p += n;
    }
    return false;
}

// Is one of the words of `names` among those of row->kernels?
static bool concerns(const parity_row *row, const char *names) {
    char word[64];
    for (const char *p = row->kernels; *p; p += strspn(p, " ")) {
        snprintf(word, sizeof word, "%.*s", (int)strcspn(p, " "), p);
        if (has_word(names, word)) return true;
        p += strcspn(p, " ");
    }
    return false;
}

bt_status parity_quick(bt_context *device, bt_context *reference, const char *kernels, int *cases,
                       char *sentence, size_t bytes) {
    *cases = 0, *sentence = 0;
    for (int i = 0; i < parity_row_count && !*sentence; i++) {
        const parity_row *row = &parity_rows[i];
        deviation d;
        bt_context *guilty;
        if (!concerns(row, kernels) || row->large || (row->cpu_only && !on_cpu(device))) continue;
        bt_status status = check_row(device, reference, row, NULL, &d, &guilty);
        if (status != BT_OK) {
            snprintf(sentence, bytes, "%s: %s", row->name, bt_error_text(guilty));
            return status;
        }
        if (!within(&d))
            snprintf(sentence, bytes,
                     "%s on %s differs from the f64 reference: NMSE %.1e, bound %.0e", row->name,
                     d.worst, fmax(d.nmse[0], d.nmse[1]), d.bound);
        *cases += d.cases;
    }
    return *sentence ? BT_ERROR_NUMERIC : BT_OK;
}

// ---- The rows ----------------------------------------------------------------------------------

typedef struct parity {
    settings *s;
    bt_context *device, *reference;
    bool kernels, steps;        // what is compared
    double largest, loss_bound; // differences of the loss
    int first_bad;              // the step where it left the bounds; 0: none
    char program[256];          // how the device trained
    int failed, cases;
    json_t *reached; // number of cases that ran each kernel
    table table;
} parity;

static void add_row(parity *p, const parity_row *row, const deviation *d) {
    bool ok = within(d);
    p->failed += !ok;
    p->cases += d->cases;
    table_add(&p->table, json_pack("{s:s,s:s,s:i,s:o,s:o,s:o,s:o,s:s?,s:f,s:b}", "operator",
                                   row->name, "kernels", row->kernels, "shapes", d->cases, "nmse",
                                   real_or_null(d->nmse[0]), "max_abs", real_or_null(d->max_abs[0]),
                                   "grad_nmse", real_or_null(d->nmse[1]), "grad_max_abs",
                                   real_or_null(d->max_abs[1]), "worst_shape",
                                   *d->worst ? d->worst : NULL, "bound", d->bound, "ok", (int)ok));
}

// How many of the kernels, or of those that do what kernel `of` does, had a case.
static size_t reached(const parity *p, const bt_kernel_desc *kernels, int count, const char *of) {
    size_t found = 0;
    for (int i = 0; i < count; i++)
        found += (!of || !strcmp(kernels[i].of, of)) &&
                 json_object_get(p->reached, kernels[i].name) != NULL;
    return found;
}

// Every kernel and variant must have had a case; the names of those that had none. On the CPU,
// which has one kernel for all variants, and where kernels tuned by hand stood in, any variant will
// do.
static json_t *unreached(const parity *p) {
    int count = bt_kernels(NULL, 0);
    json_t *names = json_array();
    bt_kernel_desc *kernels = calloc((size_t)count + 1, sizeof *kernels);
    if (kernels) bt_kernels(kernels, count);
    bool tuned = kernels && reached(p, kernels, count, NULL) < json_object_size(p->reached);
    bool any = tuned || on_cpu(p->device);
    for (int i = 0; i < count && kernels; i++)
        if (any ? !reached(p, kernels, count, kernels[i].of)
                : !json_object_get(p->reached, kernels[i].name))
            json_array_append_new(names, json_string(kernels[i].name));
    free(kernels);
    return names;
}

static int check_operators(parity *p) {
    for (int i = 0; i < parity_row_count; i++) {
        deviation d;
        bt_context *guilty;
        if (parity_rows[i].cpu_only && !on_cpu(p->device)) continue;
        if (parity_rows[i].large && !on_gpu(p->device)) continue;
        bt_status status =
            check_row(p->device, p->reference, &parity_rows[i], p->reached, &d, &guilty);
        if (status != BT_OK) return fail_status(guilty, status);
        add_row(p, &parity_rows[i], &d);
    }
    return 0;
}

// ---- Training steps ----------------------------------------------------------------------------

typedef struct trajectory {
    bt_dataset_info data;
    uint8_t *images, *labels;
    double *weights; // of the device's model, in order
    bt_log_entry log[STEPS];
    char program[256]; // bt_program_note
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
    snprintf(t->program, sizeof t->program, "%s", bt_program_note(program));
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

// Compares the losses of every step.
static int check_training(parity *p) {
    trajectory t = {0};
    bt_log_entry device[STEPS];
    int code = take_samples(p, &t);
    if (!code) code = run_steps(p->device, p->s, BT_F32, &t);
    memcpy(device, t.log, sizeof device);
    memcpy(p->program, t.program, sizeof p->program);
    if (!code) code = run_steps(p->reference, p->s, BT_F64, &t);
    for (int i = 0; i < STEPS && !code; i++) {
        double difference = fabs(device[i].loss - t.log[i].loss);
        if (!(difference <= p->loss_bound) && !p->first_bad) p->first_bad = i + 1;
        p->largest = isnan(difference) ? INFINITY : fmax(p->largest, difference);
    }
    free(t.images), free(t.labels), free(t.weights);
    p->failed += p->first_bad != 0;
    return code;
}

// ---- The command -------------------------------------------------------------------------------

static void print_parity(const parity *p, const json_t *missed) {
    size_t i;
    json_t *name;
    if (p->steps) {
        printf("\n%d training steps of %s, batch %d: largest difference of the loss %.1e, bound "
               "%.0e: %s\n",
               STEPS, net_spec(p->s), opt_int(p->s, "batch"), p->largest, p->loss_bound,
               p->first_bad ? "FAILED" : "ok");
        if (*p->program) printf("program: %s\n", p->program);
        if (p->first_bad) printf("first step out of bounds: %d\n", p->first_bad);
    }
    if (!p->kernels) return;
    printf("%d cases; %zu kernels ran", p->cases, json_object_size(p->reached));
    json_array_foreach(missed, i, name)
        printf("%s%s", i ? ", " : "; NOT reached: ", json_string_value(name));
    putchar('\n');
}

static int report_parity(parity *p) {
    json_t *missed = p->kernels ? unreached(p) : json_array();
    p->failed += (int)json_array_size(missed);
    if (opt_flag(p->s, "json"))
        print_json(json_pack("{s:i,s:i,s:O,s:O,s:O,s:{s:s,s:i,s:o,s:f,s:i,s:s}}", "failed",
                             p->failed, "cases", p->cases, "operators", p->table.rows, "kernels",
                             p->reached, "unreached", missed, "training", "model", net_spec(p->s),
                             "steps", STEPS, "largest_difference", real_or_null(p->largest),
                             "bound", p->loss_bound, "first_bad_step", p->first_bad, "program",
                             p->program));
    else
        print_parity(p, missed);
    json_decref(missed);
    if (!p->failed) return 0;
    return fail(BT_ERROR_NUMERIC, "%d comparison%s with the f64 reference out of bounds", p->failed,
                p->failed > 1 ? "s" : "");
}

static int parity_body(bt_context *ctx, void *user) {
    static const column columns[] = {{"operator", "operator", "%-23s"},
                                     {"shapes", "shapes", "%6lld"},
                                     {"nmse", "NMSE", "%8.1e"},
                                     {"max_abs", "max abs", "%8.1e"},
                                     {"grad_nmse", "gradient", "%8.1e"},
                                     {"grad_max_abs", "max abs", "%8.1e"},
                                     {"worst_shape", "worst shape", "%-24s"},
                                     {"bound", "bound", "%6.0e"},
                                     {"ok", "result", "ok|FAILED"}};
    parity p = {.s = user,
                .device = ctx,
                .loss_bound = bounds[bt_context_precision(ctx)].loss,
                .reached = json_object()};
    int code = open_context(&(bt_context_desc){.threads = opt_int(p.s, "threads")}, &p.reference);
    if (code) return code;
    p.kernels = !opt_is(p.s, "phase", "training"), p.steps = !opt_is(p.s, "phase", "kernels");
    code = p.steps ? check_training(&p) : 0; // (first, as the model may be misspelt)
    table_begin(&p.table, columns, 9, opt_flag(p.s, "json") || !p.kernels || code);
    if (!code && p.kernels) code = check_operators(&p);
    if (!code) code = report_parity(&p);
    table_end(&p.table);
    json_decref(p.reached);
    bt_close(p.reference);
    return code;
}

int command_parity(settings *s) {
    int code = choose_data(s, 1);
    return code ? code : with_device(s, parity_body, s);
}
