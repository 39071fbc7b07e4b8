// What the layers of a model do with samples: norms of weights and gradients, spread of
// activations, units that no gradient passes. One program gives all of it for a batch; the sums
// over batches are made here in double precision, so that memory does not grow with the number of
// samples.
#include "train/train.h"

#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 128, SAMPLES = 1000 };

typedef struct unit {
    double sum, squares;
    bool alive; // some gradient passed
} unit;

typedef struct layer_sums {
    const bt_layer *layer;
    int units, places; // places of a unit in one sample
    unit *unit;
    int output, gradient; // positions in the program's outputs; gradient -1: none
    size_t weights;
    double *weight_gradient;
} layer_sums;

typedef struct statistics {
    bt_context *ctx;
    const bt_model *model;
    layer_sums layers[BT_LAYERS_MAX];
    bt_tensor outputs[2 * BT_LAYERS_MAX];
    int output_count, rows, count; // of a batch, and in all
    bt_program *program;
    void *raw; // of the largest output, as the device has it
    double *values;
} statistics;

// ---- Making ----------------------------------------------------------------------------------

static void *take(statistics *s, size_t count, size_t size) {
    void *block = calloc(count ? count : 1, size);
    if (!block) return bt_fail_memory(bt_error_of(s->ctx), "statistics", count * size), NULL;
    return bt_own(s->ctx, block, bt_free_block) == BT_OK ? block : NULL;
}

static bt_status make_sums(statistics *s, layer_sums *l, bt_tensor activation) {
    bt_shape shape = bt_tensor_shape(s->ctx, activation);
    l->units = shape.dim[1];
    l->places = shape.rank == 4 ? shape.dim[2] * shape.dim[3] : 1;
    l->unit = take(s, (size_t)l->units, sizeof *l->unit);
    return l->unit ? BT_OK : bt_error_of(s->ctx)->status;
}

static bt_status make_layers(statistics *s, const bt_tensor *activations, const bt_tensor *grads) {
    const bt_model *model = s->model;
    int weight = 0;
    for (int i = 0; i < model->layer_count; i++) {
        layer_sums *l = &s->layers[i];
        *l = (layer_sums){.layer = &model->layers[i], .output = s->output_count, .gradient = -1};
        s->outputs[s->output_count++] = activations[i];
        BT_TRY(make_sums(s, l, activations[i]));
        if (l->layer->kind != BT_LAYER_FC && l->layer->kind != BT_LAYER_CONV) continue;
        l->gradient = s->output_count;
        s->outputs[s->output_count++] = grads[weight];
        l->weights = bt_shape_count(bt_tensor_shape(s->ctx, model->parameters[weight]));
        l->weight_gradient = take(s, l->weights, sizeof *l->weight_gradient);
        if (!l->weight_gradient) return bt_error_of(s->ctx)->status;
        weight += 2; // a bias follows
    }
    return BT_OK;
}

static size_t output_count(const statistics *s, int output) {
    return bt_shape_count(bt_tensor_shape(s->ctx, s->outputs[output]));
}

static bt_status make(statistics *s, bt_dataset *set, int samples) {
    bt_tensor activations[BT_LAYERS_MAX] = {{0}}, grads[2 * BT_LAYERS_MAX];
    const bt_model *model = s->model;
    bt_context *ctx = s->ctx;
    if (samples <= 0) samples = SAMPLES;
    s->rows = samples < BATCH ? samples : BATCH;
    if (s->rows > set->info.count) s->rows = set->info.count;
    int batches = (samples - 1) / s->rows + 1, most_batches = (set->info.count - 1) / s->rows + 1;
    s->count = batches < most_batches ? batches * s->rows : set->info.count;
    bt_batch batch = bt_dataset_batch(
        ctx, &(bt_batch_desc){.set = set, .batch = s->rows, .dtype = model->desc.dtype});
    bt_tensor last = bt_model_layers(ctx, model, batch.images, model->layer_count, activations);
    bt_tensor logits = bt_reshape(ctx, last, BT_SHAPE(s->rows, model->desc.classes));
    bt_tensor loss = bt_cross_entropy(ctx, logits, batch.labels);
    BT_TRY(bt_error_of(ctx)->status);
    BT_TRY(bt_grad(ctx, loss, model->parameters, model->parameter_count, grads));
    BT_TRY(make_layers(s, activations, grads));
    size_t most = 0;
    for (int i = 0; i < s->output_count; i++)
        if (output_count(s, i) > most) most = output_count(s, i);
    for (int i = 0; i < model->parameter_count; i++) {
        size_t count = bt_shape_count(bt_tensor_shape(ctx, model->parameters[i]));
        if (count > most) most = count;
    }
    s->raw = take(s, most, sizeof(double));
    s->values = take(s, most, sizeof(double));
    if (!s->raw || !s->values) return bt_error_of(ctx)->status;
    return bt_program_make(
        ctx, &(bt_program_desc){.outputs = s->outputs, .output_count = s->output_count},
        &s->program);
}

// ---- Adding up -------------------------------------------------------------------------------

static void widen(const statistics *s, size_t count) {
    if (s->model->desc.dtype == BT_F64) {
        memcpy(s->values, s->raw, count * sizeof(double));
        return;
    }
    for (size_t i = 0; i < count; i++) s->values[i] = (double)((const float *)s->raw)[i];
}

static bt_status read_output(statistics *s, int output) {
    size_t count = output_count(s, output), size = bt_dtype_size(s->model->desc.dtype);
    BT_TRY(bt_program_read(s->ctx, s->program, output, s->raw, count * size));
    widen(s, count);
    return BT_OK;
}

// Is the derivative of the function that gave `a` so small that next to nothing passes? Below 1 %
// of its largest value; gelu's is there where its value is, left of -3.5.
static bool passes(bt_layer_kind kind, double a) {
    switch (kind) {
    case BT_LAYER_RELU: return a > 0;
    case BT_LAYER_GELU: return fabs(a) > 1e-3;
    case BT_LAYER_SIGMOID: return a * (1 - a) > 0.0025;
    case BT_LAYER_TANH: return 1 - a * a > 0.01;
    default: return true;
    }
}

static void add_activations(layer_sums *l, const double *values, int rows) {
    for (int r = 0; r < rows; r++)
        for (int u = 0; u < l->units; u++) {
            unit *sums = &l->unit[u];
            for (int p = 0; p < l->places; p++, values++) {
                sums->sum += *values;
                sums->squares += *values * *values;
                sums->alive |= passes(l->layer->kind, *values);
            }
        }
}

static bt_status add_batch(statistics *s, int rows) {
    BT_TRY(bt_program_run(s->ctx, s->program, 1));
    for (int i = 0; i < s->model->layer_count; i++) {
        layer_sums *l = &s->layers[i];
        BT_TRY(read_output(s, l->output));
        add_activations(l, s->values, rows);
        if (l->gradient < 0) continue;
        BT_TRY(read_output(s, l->gradient));
        double share = (double)rows / s->count;
        for (size_t k = 0; k < l->weights; k++) l->weight_gradient[k] += share * s->values[k];
    }
    return BT_OK;
}

// ---- Telling ---------------------------------------------------------------------------------

static double norm(const double *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += values[i] * values[i];
    return sqrt(sum);
}

static bool can_die(bt_layer_kind kind) {
    return kind == BT_LAYER_RELU || kind == BT_LAYER_GELU || kind == BT_LAYER_SIGMOID ||
           kind == BT_LAYER_TANH;
}

static void describe(const statistics *s, const layer_sums *l, bt_layer_stats *out) {
    double n = (double)s->count * l->places, sum = 0, variance = 0, dead = 0;
    for (int u = 0; u < l->units; u++) {
        double mean = l->unit[u].sum / n, v = l->unit[u].squares / n - mean * mean;
        sum += mean / l->units;
        variance += (v < 0 ? 0 : v) / l->units; // rounding; NaN stays
        dead += !l->unit[u].alive;
    }
    *out = (bt_layer_stats){.units = l->units,
                            .weight_norm = NAN,
                            .gradient_norm = NAN,
                            .activation_mean = sum,
                            .activation_deviation = sqrt(variance),
                            .dead = can_die(l->layer->kind) ? dead / l->units : NAN};
    snprintf(out->name, sizeof out->name, "%s", l->layer->name);
}

static bt_status describe_all(statistics *s, bt_layer_stats *out, int max) {
    size_t size = bt_dtype_size(s->model->desc.dtype);
    int weight = 0;
    for (int i = 0; i < s->model->layer_count; i++) {
        const layer_sums *l = &s->layers[i];
        if (i < max) describe(s, l, &out[i]);
        if (l->gradient < 0) continue;
        BT_TRY(bt_read(s->ctx, s->model->parameters[weight], s->raw, l->weights * size));
        widen(s, l->weights);
        weight += 2;
        if (i >= max) continue;
        out[i].weight_norm = norm(s->values, l->weights);
        out[i].gradient_norm = norm(l->weight_gradient, l->weights);
    }
    return BT_OK;
}

static bt_status look(statistics *s, bt_dataset *set, int samples, bt_layer_stats *out, int max) {
    BT_TRY(bt_model_fits(s->ctx, s->model, set));
    BT_TRY(make(s, set, samples));
    for (int at = 0; at < s->count; at += s->rows)
        BT_TRY(add_batch(s, s->count - at < s->rows ? s->count - at : s->rows));
    return describe_all(s, out, max);
}

bt_status bt_model_statistics(bt_context *ctx, const bt_model *model, bt_dataset *set, int samples,
                              bt_layer_stats *out, int max, int *count) {
    *count = 0;
    statistics *s = calloc(1, sizeof *s);
    if (!s) return bt_fail_memory(bt_error_of(ctx), "statistics", sizeof *s);
    s->ctx = ctx;
    s->model = model;
    uint32_t mark = bt_mark(ctx);
    bt_status status = look(s, set, samples, out, max);
    bt_release(ctx, mark);
    if (status == BT_OK) *count = model->layer_count;
    free(s);
    return status;
}
