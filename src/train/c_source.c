// A model as C99 that needs nothing but math.h and allocates nothing: weights as constants, one
// plain function for each kind of layer that the model has, and one that calls them in turn.
#include "data/output.h"
#include "train/train.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 64, PER_LINE = 6, PATH = 4096 };

typedef struct image {
    int channels, height, width;
} image;

typedef struct writer {
    const bt_model *model;
    const bt_st_tensor *weights;
    char name[NAME], guard[NAME];
    bt_output calls; // the body of the function, made first
    bt_output file;  // what is written
    image at;        // what the next layer reads,
    int from;        // and from which of the two arrays
    size_t room[2];  // numbers in each of them
    bool used[BT_LAYER_FLATTEN + 1];
} writer;

// ---- Functions of layers -----------------------------------------------------------------------

static const char dense[] =
    "/* out[o] = bias[o] + sum of weight[o][i] in[i] */\n"
    "static void dense(const float *in, int inputs, const float *weight, const float *bias,\n"
    "                  float *out, int outputs)\n"
    "{\n"
    "    for (int o = 0; o < outputs; o++) {\n"
    "        float sum = bias[o];\n"
    "        for (int i = 0; i < inputs; i++)\n"
    "            sum += weight[o * inputs + i] * in[i];\n"
    "        out[o] = sum;\n"
    "    }\n"
    "}\n\n";

static const char conv[] =
    "/* Filters [outputs][channels][size][size] over an image [channels][height][width]; around "
    "it\n"
    "   there are zeros. */\n"
    "static void conv(const float *in, int channels, int height, int width, const float *weight,\n"
    "                 const float *bias, float *out, int outputs, int size, int stride, int "
    "padding)\n"
    "{\n"
    "    const int rows = (height + 2 * padding - size) / stride + 1;\n"
    "    const int columns = (width + 2 * padding - size) / stride + 1;\n"
    "    for (int o = 0; o < outputs; o++)\n"
    "        for (int row = 0; row < rows; row++)\n"
    "            for (int column = 0; column < columns; column++) {\n"
    "                const float *w = weight + o * channels * size * size;\n"
    "                float sum = bias[o];\n"
    "                for (int c = 0; c < channels; c++)\n"
    "                    for (int i = 0; i < size; i++)\n"
    "                        for (int j = 0; j < size; j++, w++) {\n"
    "                            const int y = row * stride + i - padding;\n"
    "                            const int x = column * stride + j - padding;\n"
    "                            if (y >= 0 && y < height && x >= 0 && x < width)\n"
    "                                sum += *w * in[(c * height + y) * width + x];\n"
    "                        }\n"
    "                *out++ = sum;\n"
    "            }\n"
    "}\n\n";

// The two kinds of pooling differ in three places.
static const char pool[] =
    "/* The %s of each window. */\n"
    "static void %s_pool(const float *in, int channels, int height, int width, float *out,\n"
    "                     int size, int stride)\n"
    "{\n"
    "    for (int c = 0; c < channels; c++, in += height * width)\n"
    "        for (int y = 0; y + size <= height; y += stride)\n"
    "            for (int x = 0; x + size <= width; x += stride) {\n";
static const char max_pool[] = "                float most = in[y * width + x];\n"
                               "                for (int i = 0; i < size; i++)\n"
                               "                    for (int j = 0; j < size; j++)\n"
                               "                        if (in[(y + i) * width + x + j] > most)\n"
                               "                            most = in[(y + i) * width + x + j];\n"
                               "                *out++ = most;\n"
                               "            }\n"
                               "}\n\n";
static const char avg_pool[] = "                float sum = 0;\n"
                               "                for (int i = 0; i < size; i++)\n"
                               "                    for (int j = 0; j < size; j++)\n"
                               "                        sum += in[(y + i) * width + x + j];\n"
                               "                *out++ = sum / (float)(size * size);\n"
                               "            }\n"
                               "}\n\n";

static const struct {
    bt_layer_kind kind;
    const char *name, *of_x;
} maps[] = {{BT_LAYER_RELU, "relu", "x[i] > 0 ? x[i] : 0"},
            {BT_LAYER_SIGMOID, "sigmoid", "1 / (1 + expf(-x[i]))"},
            {BT_LAYER_TANH, "hyperbolic", "tanhf(x[i])"},
            {BT_LAYER_GELU, "gelu", "0.5f * x[i] * (1 + erff(x[i] * 0.70710678f))"}};
enum { MAPS = sizeof maps / sizeof *maps };

static void put(bt_output *b, const char *text) {
    bt_output_add(b, text, strlen(text));
}

static void put_functions(writer *w) {
    bt_output *b = &w->file;
    if (w->used[BT_LAYER_FC]) put(b, dense);
    if (w->used[BT_LAYER_CONV]) put(b, conv);
    if (w->used[BT_LAYER_MAX_POOL]) {
        bt_output_print(b, pool, "largest number", "max");
        put(b, max_pool);
    }
    if (w->used[BT_LAYER_AVG_POOL]) {
        bt_output_print(b, pool, "mean", "avg");
        put(b, avg_pool);
    }
    for (int i = 0; i < MAPS; i++)
        if (w->used[maps[i].kind])
            bt_output_print(b,
                            "static void %s(float *x, int count)\n{\n"
                            "    for (int i = 0; i < count; i++)\n        x[i] = %s;\n}\n\n",
                            maps[i].name, maps[i].of_x);
}

// ---- Calls -------------------------------------------------------------------------------------

static size_t numbers(const image *at) {
    return (size_t)at->channels * (size_t)at->height * (size_t)at->width;
}

static void need_room(writer *w, int array) {
    if (numbers(&w->at) > w->room[array]) w->room[array] = numbers(&w->at);
}

// The two arrays change their parts: what was written is read next.
static void turn(writer *w, image to) {
    w->at = to;
    w->from = !w->from;
    need_room(w, w->from);
}

static void call_fc(writer *w, const bt_layer *l) {
    char in = "ab"[w->from], out = "ab"[!w->from];
    bt_output_print(&w->calls, "    dense(%c, %d, weight_%d, bias_%d, %c, %d);\n", in, l->inputs,
                    l->index, l->index, out, l->outputs);
    turn(w, (image){l->outputs, 1, 1});
}

static void call_window(writer *w, const bt_layer *l) {
    char in = "ab"[w->from], out = "ab"[!w->from];
    bool is_conv = l->kind == BT_LAYER_CONV;
    const char *name = is_conv ? "conv" : l->kind == BT_LAYER_MAX_POOL ? "max_pool" : "avg_pool";
    image at = w->at, to = {is_conv ? l->outputs : at.channels,
                            (at.height + 2 * l->padding - l->size) / l->stride + 1,
                            (at.width + 2 * l->padding - l->size) / l->stride + 1};
    bt_output_print(&w->calls, "    %s(%c, %d, %d, %d, ", name, in, at.channels, at.height,
                    at.width);
    if (is_conv) bt_output_print(&w->calls, "weight_%d, bias_%d, ", l->index, l->index);
    bt_output_print(&w->calls, "%c, ", out);
    if (is_conv) bt_output_print(&w->calls, "%d, ", l->outputs);
    bt_output_print(&w->calls, "%d, %d", l->size, l->stride);
    if (is_conv) bt_output_print(&w->calls, ", %d", l->padding);
    bt_output_print(&w->calls, "); /* %d x %d x %d */\n", to.channels, to.height, to.width);
    turn(w, to);
}

static bt_status call_layer(writer *w, const bt_layer *l, bt_error *err) {
    w->used[l->kind] = true;
    for (int i = 0; i < MAPS; i++)
        if (maps[i].kind == l->kind) {
            bt_output_print(&w->calls, "    %s(%c, %zu);\n", maps[i].name, "ab"[w->from],
                            numbers(&w->at));
            return BT_OK;
        }
    switch (l->kind) {
    case BT_LAYER_FC: call_fc(w, l); return BT_OK;
    case BT_LAYER_CONV:
    case BT_LAYER_MAX_POOL:
    case BT_LAYER_AVG_POOL: call_window(w, l); return BT_OK;
    case BT_LAYER_FLATTEN: return BT_OK; // the numbers lie in that order
    default: break;
    }
    return bt_fail(err, BT_ERROR_USAGE, "the layer %s cannot be exported to C", l->name);
}

// ---- The files ---------------------------------------------------------------------------------

static void put_weights(writer *w, int i) {
    const bt_st_tensor *t = &w->weights[i];
    const float *values = t->data;
    const char *kind = strchr(t->name, '.') + 1; // "0.weight"
    bt_output_print(&w->file, "static const float %s_%d[", kind, atoi(t->name));
    for (int d = 0; d < t->rank; d++) bt_output_print(&w->file, "%s%zu", d ? " * " : "", t->dim[d]);
    put(&w->file, "] = {");
    for (size_t k = 0; k < t->bytes / sizeof(float); k++) {
        char text[32];
        snprintf(text, sizeof text, "%.9g", (double)values[k]);
        const char *point = strpbrk(text, ".e") ? "" : ".0";
        bt_output_print(&w->file, "%s%s%sf,", k % PER_LINE ? " " : "\n    ", text, point);
    }
    put(&w->file, "\n};\n\n");
}

static void put_title(writer *w, bt_output *b, const char *what) {
    bt_output_print(b, "/* %s\n   Made by `bantam export` (Bantam %s) from the network\n   ", what,
                    BT_VERSION_TEXT);
    put(b, w->model->spec); // of any length, and without what could end a comment
    put(b, " */\n");
}

static void put_source(writer *w) {
    bt_output *b = &w->file;
    const bt_model_desc *d = &w->model->desc;
    char last = "ab"[w->from];
    put_title(w, b, "Classifies images.");
    bt_output_print(b, "#include \"%s.h\"\n\n#include <math.h>\n\n", w->name);
    for (int i = 0; i < w->model->parameter_count; i++) put_weights(w, i);
    put(b, "/* What a layer reads, and what it writes. */\n");
    bt_output_print(b, "static float a[%zu]", w->room[0]);
    if (w->room[1]) bt_output_print(b, ", b[%zu]", w->room[1]);
    put(b, ";\n\n");
    put_functions(w);
    bt_output_print(b, "int %s_classify(const unsigned char *image, float *probabilities)\n{\n",
                    w->name);
    put(b, "    int best = 0;\n    float sum = 0;\n");
    bt_output_print(
        b, "    for (int i = 0; i < %d * %d * %d; i++)\n        a[i] = (float)image[i] / 255;\n",
        d->channels, d->height, d->width);
    bt_output_add(b, w->calls.data, w->calls.size);
    b->failed = b->failed || w->calls.failed;
    bt_output_print(b,
                    "    for (int i = 1; i < %d; i++)\n        if (%c[i] > %c[best])\n"
                    "            best = i;\n    if (!probabilities)\n        return best;\n",
                    d->classes, last, last);
    bt_output_print(b,
                    "    for (int i = 0; i < %d; i++) {\n"
                    "        probabilities[i] = expf(%c[i] - %c[best]);\n"
                    "        sum += probabilities[i];\n    }\n",
                    d->classes, last, last);
    bt_output_print(b, "    for (int i = 0; i < %d; i++)\n        probabilities[i] /= sum;\n",
                    d->classes);
    put(b, "    return best;\n}\n");
}

static void put_header(writer *w, bt_output *b) {
    const bt_model_desc *d = &w->model->desc;
    put_title(w, b, "Classifies images. C99; needs math.h (-lm), allocates nothing.");
    bt_output_print(b, "#ifndef %s_H\n#define %s_H\n\n", w->guard, w->guard);
    put(b, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    bt_output_print(
        b, "enum { %s_CHANNELS = %d, %s_HEIGHT = %d, %s_WIDTH = %d, %s_CLASSES = %d };\n\n",
        w->guard, d->channels, w->guard, d->height, w->guard, d->width, w->guard, d->classes);
    bt_output_print(
        b,
        "/* The most probable class of an image [channels][height][width] of bytes, as it"
        " was trained\n   on. probabilities may be NULL; else it gets %d numbers. One "
        "call at a time: the layers\n   work in static arrays, %zu bytes. */\n",
        d->classes, (w->room[0] + w->room[1]) * sizeof(float));
    bt_output_print(b, "int %s_classify(const unsigned char *image, float *probabilities);\n\n",
                    w->name);
    put(b, "#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
}

static bool hides_a_header(const char *name) {
    static const char *const headers[] = {
        "assert", "complex", "ctype",  "errno",  "fenv",   "float",  "inttypes", "iso646",
        "limits", "locale",  "math",   "setjmp", "signal", "stdarg", "stdbool",  "stddef",
        "stdint", "stdio",   "stdlib", "string", "tgmath", "time",   "wchar",    "wctype"};
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        if (!strcmp(name, headers[i])) return true;
    return false;
}

// "out/my_net.c" names the function my_net_classify.
static bt_status set_name(writer *w, const char *path, bt_error *err) {
    const char *slash = strrchr(path, '/'), *stem = slash ? slash + 1 : path;
    size_t length = strlen(stem);
    bool fits = length > 2 && length - 2 < NAME && !strcmp(stem + length - 2, ".c") &&
                strlen(path) < PATH && !isdigit((unsigned char)*stem);
    for (size_t i = 0; fits && i < length - 2; i++) {
        unsigned char c = (unsigned char)stem[i];
        fits = (c < 128 && isalnum(c)) || c == '_';
        w->name[i] = (char)c;
        w->guard[i] = (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); // as in no locale
    }
    if (fits && hides_a_header(w->name))
        return bt_fail(err, BT_ERROR_USAGE,
                       "'%.200s' cannot be a C file: %s.h beside it would hide the C library's; "
                       "take another name",
                       path, w->name);
    if (fits) return BT_OK;
    if (length < 2 || strcmp(stem + length - 2, ".c") != 0)
        return bt_fail(err, BT_ERROR_USAGE, "'%.200s' cannot be a C file: its name must end in .c",
                       path);
    return bt_fail(err, BT_ERROR_USAGE,
                   "'%.200s' cannot be a C file that names its function: before .c it has 1 to %d "
                   "letters, digits and _, beginning with no digit",
                   path, NAME - 1);
}

static bt_status write_files(writer *w, const char *path, bt_error *err) {
    char header[PATH];
    bt_output h = {0};
    snprintf(header, sizeof header, "%s", path);
    header[strlen(header) - 1] = 'h';
    bt_c_locale l = bt_c_locale_enter();
    put_source(w);
    put_header(w, &h);
    bt_c_locale_leave(l);
    bt_status status = bt_output_write(&w->file, path, err);
    if (status == BT_OK) return bt_output_write(&h, header, err);
    bt_output_free(&h);
    return status;
}

bt_status bt_c_source_write(const bt_model *model, const bt_st_tensor *weights, const char *path,
                            bt_error *err) {
    const bt_model_desc *d = &model->desc;
    writer w = {.model = model, .weights = weights, .at = {d->channels, d->height, d->width}};
    BT_TRY(set_name(&w, path, err));
    need_room(&w, 0);
    bt_status status = BT_OK;
    for (int i = 0; i < model->layer_count && status == BT_OK; i++)
        status = call_layer(&w, &model->layers[i], err);
    if (status == BT_OK) status = write_files(&w, path, err);
    bt_output_free(&w.calls);
    return status;
}
