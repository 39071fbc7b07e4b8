// Making an analysis of a network; see analysis.h. Keeping it is in analysis_file.c.
#include "analysis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// What the making needs beside the result.
typedef struct maker {
    bt_context *ctx;
    bt_model *model;
    bt_dataset *test;
    bt_model_desc desc;
    analysis *a;
    const int32_t *predicted;
    uint8_t *images; // of the misclassified
    float *probabilities;
    int *wrong; // their positions
    int wrong_count;
} maker;

// ---- Mistakes ----------------------------------------------------------------------------------

static void confuse(maker *m) {
    int classes = m->desc.classes;
    for (int i = 0; i < m->a->count; i++) {
        int label = bt_dataset_label(m->test, i), predicted = m->predicted[i];
        if (label >= classes || predicted < 0 || predicted >= classes) continue;
        m->a->confusion[label * classes + predicted]++;
        if (label != predicted) m->wrong[m->wrong_count++] = i;
    }
}

// Channels are averaged.
static uint8_t *grey_of(const uint8_t *image, int channels, size_t pixels) {
    uint8_t *grey = malloc(pixels);
    for (size_t p = 0; grey && p < pixels; p++) {
        int sum = 0;
        for (int c = 0; c < channels; c++) sum += image[(size_t)c * pixels + p];
        grey[p] = (uint8_t)(sum / channels);
    }
    return grey;
}

// Puts a mistake at its place among the worst (NaN is worst); the one that falls off is freed.
static bool rank(maker *m, int k) {
    analysis *a = m->a;
    int i = m->wrong[k], label = bt_dataset_label(m->test, i), at = a->mistake_count;
    const float *p = &m->probabilities[(size_t)k * (size_t)m->desc.classes];
    double own = (double)p[label];
    while (at > 0 && !(own >= a->mistakes[at - 1].p_label)) at--;
    if (at == MISTAKES_MAX) return true;
    mistake new = {i,
                   label,
                   m->predicted[i],
                   own,
                   (double)p[m->predicted[i]],
                   grey_of(bt_dataset_image(m->test, i), m->desc.channels,
                           (size_t)m->desc.height * (size_t)m->desc.width)};
    if (!new.grey) return false;
    if (a->mistake_count == MISTAKES_MAX)
        free(a->mistakes[MISTAKES_MAX - 1].grey);
    else
        a->mistake_count++;
    memmove(&a->mistakes[at + 1], &a->mistakes[at],
            (size_t)(a->mistake_count - 1 - at) * sizeof new);
    a->mistakes[at] = new;
    return true;
}

// The probabilities of the misclassified, a good batch at a time.
static bt_status rank_mistakes(maker *m) {
    enum { AT_ONCE = 1000 };
    size_t bytes = (size_t)m->desc.channels * (size_t)m->desc.height * (size_t)m->desc.width;
    m->images = malloc(AT_ONCE * bytes);
    m->probabilities =
        malloc((size_t)(m->wrong_count + 1) * (size_t)m->desc.classes * sizeof(float));
    if (!m->images || !m->probabilities) return BT_ERROR_MEMORY;
    for (int first = 0; first < m->wrong_count; first += AT_ONCE) {
        int n = m->wrong_count - first < AT_ONCE ? m->wrong_count - first : AT_ONCE;
        for (int k = 0; k < n; k++)
            memcpy(m->images + (size_t)k * bytes, bt_dataset_image(m->test, m->wrong[first + k]),
                   bytes);
        bt_status status = bt_predict(m->ctx, m->model, m->images, n,
                                      &m->probabilities[(size_t)first * (size_t)m->desc.classes]);
        if (status != BT_OK) return status;
    }
    for (int k = 0; k < m->wrong_count; k++)
        if (!rank(m, k)) return BT_ERROR_MEMORY;
    return BT_OK;
}

// ---- Filters -----------------------------------------------------------------------------------

// Of a convolution [out, in, h, w]: every plane is a picture. Of a layer [out, in] that sees whole
// images: each unit's weights, as an image for each channel.
static bool filter_shape(const maker *m, bt_shape shape) {
    analysis *a = m->a;
    bool conv = shape.rank == 4,
         image =
             shape.rank == 2 && shape.dim[1] == m->desc.channels * m->desc.height * m->desc.width;
    if (!conv && !image) return false;
    a->filter_height = conv ? shape.dim[2] : m->desc.height;
    a->filter_width = conv ? shape.dim[3] : m->desc.width;
    a->filter_all = shape.dim[0] * (conv ? shape.dim[1] : m->desc.channels);
    a->filter_count = a->filter_all < FILTERS_MAX ? a->filter_all : FILTERS_MAX;
    return true;
}

static void keep_filters(analysis *a, const float *weights, size_t numbers) {
    a->filter_full = 0;
    for (size_t i = 0; i < numbers; i++)
        if (isfinite(weights[i])) a->filter_full = fmax(a->filter_full, fabs((double)weights[i]));
    for (size_t i = 0; i < numbers; i++) {
        double share =
            isfinite(weights[i]) && a->filter_full > 0 ? (double)weights[i] / a->filter_full : 0;
        a->filters[i] = (uint8_t)lround(128 + 127 * share);
    }
}

// The numbers of a tensor as floats, to be freed; NULL: the context or a lack of memory tells why.
static float *read_weights(const maker *m, bt_tensor t, size_t count) {
    bool exact = bt_tensor_dtype(m->ctx, t) == BT_F64;
    float *out = malloc(count * sizeof *out);
    double *wide = exact ? malloc(count * sizeof *wide) : NULL;
    bt_status status = out && (wide || !exact)
                           ? bt_read(m->ctx, t, exact ? (void *)wide : (void *)out,
                                     count * (exact ? sizeof *wide : sizeof *out))
                           : BT_ERROR_MEMORY;
    for (size_t i = 0; wide && status == BT_OK && i < count; i++) out[i] = (float)wide[i];
    free(wide);
    if (status == BT_OK) return out;
    free(out);
    return NULL;
}

static bt_status take_filters(maker *m) {
    analysis *a = m->a;
    if (bt_model_parameter_count(m->model) == 0) return BT_OK;
    bt_tensor weight = bt_model_parameter(m->model, 0);
    bt_shape shape = bt_tensor_shape(m->ctx, weight);
    if (!filter_shape(m, shape)) return BT_OK;
    size_t kept = (size_t)a->filter_count * (size_t)a->filter_height * (size_t)a->filter_width;
    float *weights = read_weights(m, weight, bt_shape_count(shape));
    a->filters = malloc(kept + 1);
    if (weights && a->filters) {
        keep_filters(a, weights, kept);
        snprintf(a->filter_name, sizeof a->filter_name, "%s", bt_model_parameter_name(m->model, 0));
    }
    free(weights);
    return *a->filter_name ? BT_OK : BT_ERROR_MEMORY;
}

// ---- All of it ---------------------------------------------------------------------------------

static void describe(maker *m, const bt_evaluation *e) {
    bt_dataset_info info;
    analysis *a = m->a;
    bt_dataset_describe(m->test, &info);
    snprintf(a->data, sizeof a->data, "%s", info.name);
    a->classes = m->desc.classes, a->height = m->desc.height, a->width = m->desc.width;
    a->count = e->count, a->correct = e->correct, a->loss = e->loss, a->accuracy = e->accuracy;
    a->standard_error = e->standard_error;
}

static bt_status make(maker *m) {
    analysis *a = m->a;
    a->confusion = calloc((size_t)a->classes * (size_t)a->classes, sizeof *a->confusion);
    m->wrong = calloc((size_t)a->count + 1, sizeof *m->wrong);
    if (!a->confusion || !m->wrong) return BT_ERROR_MEMORY;
    confuse(m);
    bt_status status = rank_mistakes(m);
    if (status == BT_OK) status = take_filters(m);
    if (status != BT_OK) return status;
    status =
        bt_model_statistics(m->ctx, m->model, m->test, 0, a->layers, LAYERS_MAX, &a->layer_count);
    if (a->layer_count > LAYERS_MAX) a->layer_count = LAYERS_MAX;
    return status;
}

analysis *analysis_make(bt_context *ctx, bt_model *model, bt_dataset *test, const bt_evaluation *e,
                        const int32_t *predictions) {
    maker m = {.ctx = ctx, .model = model, .test = test, .predicted = predictions};
    m.a = calloc(1, sizeof *m.a);
    if (!m.a) return NULL;
    bt_model_describe(model, &m.desc);
    describe(&m, e);
    bt_status status = make(&m);
    free(m.wrong);
    free(m.images);
    free(m.probabilities);
    if (status == BT_OK) return m.a;
    analysis_free(m.a);
    return NULL;
}

void analysis_free(analysis *a) {
    if (!a) return;
    for (int i = 0; i < a->mistake_count; i++) free(a->mistakes[i].grey);
    free(a->confusion);
    free(a->filters);
    free(a);
}

class_scores scores_of_class(const uint32_t *matrix, int classes, int c) {
    uint32_t row = 0, column = 0, hits = matrix[c * classes + c];
    for (int i = 0; i < classes; i++)
        row += matrix[c * classes + i], column += matrix[i * classes + c];
    class_scores s = {column ? (double)hits / column : 0, row ? (double)hits / row : 0, 0, row};
    if (hits) s.f1 = 2 * s.precision * s.recall / (s.precision + s.recall);
    return s;
}
