// Reads a model's layers from text, "conv8x5,relu,pool2,fc10", and follows the shapes through them,
// so that what does not work is said in terms of the text before anything is built.
#include "train/train.h"

#include "base/checked.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What follows the name: o outputs, x the letter, k size, s and p an optional stride and padding.
static const struct {
    const char *name;
    bt_layer_kind kind;
    const char *form, *example;
} grammar[] = {
    {"fc", BT_LAYER_FC, "o", "fc128"},
    {"conv", BT_LAYER_CONV, "oxksp", "conv8x5 or conv16x3s2p1"},
    {"pool", BT_LAYER_MAX_POOL, "ks", "pool2 or pool3s2"},
    {"maxpool", BT_LAYER_MAX_POOL, "ks", "maxpool2 or maxpool3s2"},
    {"avgpool", BT_LAYER_AVG_POOL, "ks", "avgpool2 or avgpool3s2"},
    {"relu", BT_LAYER_RELU, "", "relu"},
    {"sigmoid", BT_LAYER_SIGMOID, "", "sigmoid"},
    {"tanh", BT_LAYER_TANH, "", "tanh"},
    {"gelu", BT_LAYER_GELU, "", "gelu"},
    {"flatten", BT_LAYER_FLATTEN, "", "flatten"},
};
enum { GRAMMAR = sizeof grammar / sizeof *grammar };

// A last layer with one output for each class is added.
static const struct {
    const char *name, *layers;
} presets[] = {
    {"mlp", "fc128,relu"},
    {"lenet", "conv8x5,relu,pool2,conv16x5,relu,pool2"},
    {"lenet5", "conv6x5p2,relu,pool2,conv16x5,relu,pool2,fc120,relu,fc84,relu"},
};
enum { PRESETS = sizeof presets / sizeof *presets };

typedef struct parser {
    bt_error *err;
    bt_layer *layer;             // being read
    int number;                  // 1 is the first
    size_t at;                   // of its text in the spec
    bool alone;                  // it is all there is
    int channels, height, width; // what reaches it
    bool flat;                   // as rows of `channels` numbers
} parser;

__attribute__((format(printf, 2, 3))) static bt_status fail(const parser *p, const char *format,
                                                            ...) {
    char text[384];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return bt_fail(p->err, BT_ERROR_USAGE, "model layer %d, \"%s\" at character %zu: %s", p->number,
                   p->layer->text, p->at + 1, text);
}

// ---- Names -----------------------------------------------------------------------------------

// Levenshtein's distance; both shorter than BT_LAYER_TEXT.
static int distance(const char *a, const char *b) {
    int row[BT_LAYER_TEXT + 1];
    int n = (int)strlen(b);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

static void nearer(const char *name, const char *candidate, const char **nearest, int *least) {
    int d = distance(name, candidate);
    if (d >= *least) return;
    *least = d;
    *nearest = candidate;
}

static bt_status fail_name(const parser *p, const char *name) {
    const char *nearest = NULL;
    int least = (int)strlen(name) / 3 + 2;
    for (int i = 0; i < GRAMMAR; i++) nearer(name, grammar[i].name, &nearest, &least);
    for (int i = 0; i < PRESETS && p->alone; i++) nearer(name, presets[i].name, &nearest, &least);
    return fail(
        p,
        "there is no such layer%s%s%s; there are fcN, convOxK (also sS, pP), poolK, maxpoolK "
        "and avgpoolK (also sS), relu, sigmoid, tanh, gelu, flatten, and alone the presets "
        "mlp, lenet, lenet5",
        nearest ? ", did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

// ---- One layer -------------------------------------------------------------------------------

static bool read_number(const char **s, int least, int *out) {
    int value = 0, digits = 0;
    for (; isdigit((unsigned char)**s); (*s)++) {
        if (++digits > 7) return false;
        value = 10 * value + (**s - '0');
    }
    *out = value;
    return digits > 0 && value >= least;
}

static bool read_form(const char *form, const char *s, bt_layer *layer) {
    for (; *form; form++) {
        bool named = *form == 'x' || *form == 's' || *form == 'p';
        if (named && *s != *form) {
            if (*form == 'x') return false;
            continue;
        }
        s += named;
        if (*form == 'x') continue;
        int *field = *form == 'o'   ? &layer->outputs
                     : *form == 'k' ? &layer->size
                     : *form == 's' ? &layer->stride
                                    : &layer->padding;
        if (!read_number(&s, *form != 'p', field)) return false;
    }
    return *s == 0;
}

// Takes the text up to the next comma, without spaces and in lower case, and returns its end.
static const char *take_text(parser *p, const char *s) {
    size_t length = 0;
    for (; *s && *s != ','; s++) {
        if (isspace((unsigned char)*s)) continue;
        if (length < BT_LAYER_TEXT - 1) p->layer->text[length++] = (char)tolower((unsigned char)*s);
    }
    return s;
}

static bt_status read_layer(parser *p) {
    const char *text = p->layer->text;
    char name[BT_LAYER_TEXT] = "";
    for (int i = 0; isalpha((unsigned char)text[i]); i++) name[i] = text[i];
    if (!*text) return fail(p, "a layer is missing here; layers are separated by one comma");
    for (int i = 0; i < GRAMMAR; i++) {
        if (strcmp(name, grammar[i].name)) continue;
        p->layer->kind = grammar[i].kind;
        if (read_form(grammar[i].form, text + strlen(name), p->layer)) return BT_OK;
        return fail(p, "write it as %s%s", grammar[i].example,
                    *grammar[i].form ? ", with numbers from 1 to 9999999" : "");
    }
    return fail_name(p, name);
}

// ---- Shapes ----------------------------------------------------------------------------------

static bool fits_count(const size_t *factors, int n) {
    size_t product = 1;
    for (int i = 0; i < n; i++)
        if (!bt_mul_ok(product, factors[i], &product)) return false;
    return product < (size_t)1 << 31;
}

static bt_status slide(parser *p, const char *what) {
    bt_layer *l = p->layer;
    if (p->flat)
        return fail(p, "it needs an image, but what comes before gives rows of %d numbers",
                    p->channels);
    int h = p->height + 2 * l->padding, w = p->width + 2 * l->padding;
    if (h < l->size || w < l->size)
        return fail(p, "its %dx%d %s does not fit into the %dx%d image that reaches it%s", l->size,
                    l->size, what, h, w, l->padding ? " (padding counted)" : "");
    p->height = (h - l->size) / l->stride + 1;
    p->width = (w - l->size) / l->stride + 1;
    return BT_OK;
}

static bt_status shape_flatten(parser *p) {
    p->channels *= p->height * p->width; // was checked to be below 2^31
    p->height = p->width = 1;
    p->flat = true;
    return BT_OK;
}

static bt_status shape_fc(parser *p) {
    shape_flatten(p);
    p->layer->inputs = p->channels;
    p->channels = p->layer->outputs;
    if (fits_count((size_t[]){(size_t)p->layer->inputs, (size_t)p->channels}, 2)) return BT_OK;
    return fail(p, "its weights, %d x %d, are 2^31 or more", p->channels, p->layer->inputs);
}

static bt_status shape_conv(parser *p) {
    bt_layer *l = p->layer;
    if (!l->stride) l->stride = 1;
    BT_TRY(slide(p, "filter"));
    l->inputs = p->channels;
    p->channels = l->outputs;
    size_t o = (size_t)l->outputs, k = (size_t)l->size;
    if (!fits_count((size_t[]){o, (size_t)l->inputs, k, k}, 4))
        return fail(p, "its weights, %d x %d x %d x %d, are 2^31 or more", l->outputs, l->inputs,
                    l->size, l->size);
    if (fits_count((size_t[]){o, (size_t)p->height, (size_t)p->width}, 3)) return BT_OK;
    return fail(p, "its output, %d x %d x %d, is 2^31 numbers or more", l->outputs, p->height,
                p->width);
}

static bt_status shape_pool(parser *p) {
    if (!p->layer->stride) p->layer->stride = p->layer->size;
    return slide(p, "window");
}

static bt_status shape_same(parser *p) {
    (void)p;
    return BT_OK;
}

static bt_status (*const shape_rules[])(parser *p) = {
    [BT_LAYER_FC] = shape_fc,           [BT_LAYER_CONV] = shape_conv,
    [BT_LAYER_MAX_POOL] = shape_pool,   [BT_LAYER_AVG_POOL] = shape_pool,
    [BT_LAYER_RELU] = shape_same,       [BT_LAYER_SIGMOID] = shape_same,
    [BT_LAYER_TANH] = shape_same,       [BT_LAYER_GELU] = shape_same,
    [BT_LAYER_FLATTEN] = shape_flatten,
};

// ---- The whole -------------------------------------------------------------------------------

static bt_status check_desc(const bt_model_desc *d, bt_error *err) {
    if (!d->spec || !*d->spec)
        return bt_fail(err, BT_ERROR_USAGE,
                       "no model is named; use a preset (mlp, lenet, lenet5) or layers such as "
                       "\"fc128,relu,fc10\"");
    if (d->channels < 1 || d->height < 1 || d->width < 1 || d->classes < 1 ||
        !fits_count((size_t[]){(size_t)d->channels, (size_t)d->height, (size_t)d->width}, 3))
        return bt_fail(err, BT_ERROR_USAGE,
                       "a model of images of %d x %d x %d (channels, height, width) and %d classes "
                       "is impossible; each must be 1 or more, and an image below 2^31 numbers",
                       d->channels, d->height, d->width, d->classes);
    if (d->dtype != BT_F32 && d->dtype != BT_F64)
        return bt_fail(err, BT_ERROR_USAGE, "a model is f32 or f64, not dtype %d", (int)d->dtype);
    if (d->init == BT_INIT_HE || d->init == BT_INIT_XAVIER) return BT_OK;
    return bt_fail(err, BT_ERROR_USAGE, "initialisation %d does not exist; there are He and Xavier",
                   (int)d->init);
}

static bt_status read_layers(bt_model *model, const char *spec, parser *p) {
    int index = 0;
    for (const char *s = spec;; s++) {
        if (p->number++ == BT_LAYERS_MAX)
            return bt_fail(p->err, BT_ERROR_USAGE, "the model has more than %d layers",
                           BT_LAYERS_MAX);
        p->layer = &model->layers[model->layer_count++];
        p->at = (size_t)(s - spec);
        s = take_text(p, s);
        p->alone = p->number == 1 && !*s;
        BT_TRY(read_layer(p));
        BT_TRY(shape_rules[p->layer->kind](p));
        p->layer->index = index;
        snprintf(p->layer->name, sizeof p->layer->name, "%d.%s", index, p->layer->text);
        index += p->layer->kind != BT_LAYER_FLATTEN;
        if (!*s) return BT_OK;
    }
}

// The layers of a preset, or spec itself, as the caller's copy.
static char *expand(const bt_model_desc *d) {
    for (int i = 0; i < PRESETS; i++) {
        if (strcmp(d->spec, presets[i].name)) continue;
        char text[128];
        snprintf(text, sizeof text, "%s,fc%d", presets[i].layers, d->classes);
        return strdup(text);
    }
    return strdup(d->spec);
}

// The text as it is kept: what was read, without spaces and in lower case.
static void join(bt_model *model) {
    char *out = model->spec;
    for (int i = 0; i < model->layer_count; i++) {
        size_t length = strlen(model->layers[i].text);
        if (i) *out++ = ',';
        memcpy(out, model->layers[i].text, length);
        out += length;
    }
    *out = 0;
}

bt_status bt_spec_parse(bt_model *model, bt_error *err) {
    const bt_model_desc *d = &model->desc;
    BT_TRY(check_desc(d, err));
    model->spec = expand(d);
    if (!model->spec) return bt_fail_memory(err, "the model's text", strlen(d->spec) + 1);
    parser p = {.err = err, .channels = d->channels, .height = d->height, .width = d->width};
    BT_TRY(read_layers(model, model->spec, &p));
    shape_flatten(&p);
    if (p.channels != d->classes)
        return fail(&p,
                    "the last layer gives %d numbers and the data has %d classes; end with fc%d",
                    p.channels, d->classes, d->classes);
    join(model);
    model->desc.spec = model->spec;
    return BT_OK;
}
