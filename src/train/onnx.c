// A model as an ONNX file (IR version 8, opset 13, which everything since ONNX 1.10 reads): layers
// become nodes, weights initializers. Numbers of fields are those of onnx.proto.
#include "data/output.h"
#include "train/train.h"

#include <string.h>

enum { IR_VERSION = 8, OPSET = 13, FLOAT = 1, INT_ATTRIBUTE = 2, INTS_ATTRIBUTE = 7 };
enum { NAME = 64 };

typedef struct writer {
    const bt_model *model;
    const bt_st_tensor *weight; // of the next layer that has some
    bt_output file;
    char value[NAME]; // the last node's output, which is the next one's input
    bool flat;        // it is [N, features], not [N, channels, height, width]
} writer;

// ---- Parts of a graph --------------------------------------------------------------------------

static void put_ints(bt_output *b, const char *name, int value, int count) {
    size_t attribute = bt_proto_begin(b, 5);
    bt_proto_text(b, 1, name);
    for (int i = 0; i < count; i++) bt_proto_int(b, 8, (uint64_t)value);
    bt_proto_int(b, 20, INTS_ATTRIBUTE);
    bt_proto_end(b, attribute);
}

static void put_int(bt_output *b, const char *name, int value) {
    size_t attribute = bt_proto_begin(b, 5);
    bt_proto_text(b, 1, name);
    bt_proto_int(b, 3, (uint64_t)value);
    bt_proto_int(b, 20, INT_ATTRIBUTE);
    bt_proto_end(b, attribute);
}

// A node from the last value (and two more inputs, or NULL) to the value `name`.
static size_t begin_node(writer *w, const char *op, const char *second, const char *third,
                         const char *name) {
    size_t node = bt_proto_begin(&w->file, 1);
    bt_proto_text(&w->file, 1, w->value);
    if (second) bt_proto_text(&w->file, 1, second);
    if (third) bt_proto_text(&w->file, 1, third);
    bt_proto_text(&w->file, 2, name);
    bt_proto_text(&w->file, 3, name);
    bt_proto_text(&w->file, 4, op);
    snprintf(w->value, sizeof w->value, "%s", name);
    return node;
}

static void put_node(writer *w, const char *op, const char *second, const char *name) {
    bt_proto_end(&w->file, begin_node(w, op, second, NULL, name));
}

static void put_flatten(writer *w, const char *name) {
    if (w->flat) return;
    size_t node = begin_node(w, "Flatten", NULL, NULL, name);
    put_int(&w->file, "axis", 1);
    bt_proto_end(&w->file, node);
    w->flat = true;
}

static void put_tensor(writer *w, const char *name, const size_t *dim, int rank, const void *data,
                       size_t count) {
    size_t tensor = bt_proto_begin(&w->file, 5);
    for (int i = 0; i < rank; i++) bt_proto_int(&w->file, 1, dim[i]);
    bt_proto_int(&w->file, 2, FLOAT);
    bt_proto_text(&w->file, 8, name);
    size_t raw = bt_proto_begin(&w->file, 9);
    bt_output_numbers(&w->file, data, count, sizeof(float));
    bt_proto_end(&w->file, raw);
    bt_proto_end(&w->file, tensor);
}

// A graph's input or output: [N, dim ...].
static void put_value(writer *w, int field, const char *name, const int *dim, int count) {
    size_t value = bt_proto_begin(&w->file, field);
    bt_proto_text(&w->file, 1, name);
    size_t type = bt_proto_begin(&w->file, 2), tensor = bt_proto_begin(&w->file, 1);
    bt_proto_int(&w->file, 1, FLOAT);
    size_t shape = bt_proto_begin(&w->file, 2);
    for (int i = -1; i < count; i++) {
        size_t d = bt_proto_begin(&w->file, 1);
        if (i < 0)
            bt_proto_text(&w->file, 2, "N");
        else
            bt_proto_int(&w->file, 1, (uint64_t)dim[i]);
        bt_proto_end(&w->file, d);
    }
    bt_proto_end(&w->file, shape);
    bt_proto_end(&w->file, tensor);
    bt_proto_end(&w->file, type);
    bt_proto_end(&w->file, value);
}

// ---- Layers ------------------------------------------------------------------------------------

static void put_fc(writer *w, const char *name) {
    char flat[NAME];
    snprintf(flat, sizeof flat, "%.40s.flatten", name);
    put_flatten(w, flat);
    size_t node = begin_node(w, "Gemm", w->weight[0].name, w->weight[1].name, name);
    put_int(&w->file, "transB", 1); // weights are [out, in]
    bt_proto_end(&w->file, node);
    w->weight += 2;
}

static void put_window(writer *w, const char *op, const bt_layer *l, const char *name) {
    bool conv = l->kind == BT_LAYER_CONV;
    size_t node = conv ? begin_node(w, op, w->weight[0].name, w->weight[1].name, name)
                       : begin_node(w, op, NULL, NULL, name);
    put_ints(&w->file, "kernel_shape", l->size, 2);
    put_ints(&w->file, "strides", l->stride, 2);
    if (conv) put_ints(&w->file, "pads", l->padding, 4);
    bt_proto_end(&w->file, node);
    if (conv) w->weight += 2;
}

// x Phi(x) = (x / 2) (1 + erf(x / sqrt 2)); opset 13 has no Gelu.
static void put_gelu(writer *w, const bt_layer *l, const char *name) {
    char x[NAME], half[NAME], part[NAME];
    memcpy(x, w->value, sizeof x);
    snprintf(half, sizeof half, "%.40s.half", l->name);
    put_node(w, "Mul", "gelu.half", half);
    memcpy(w->value, x, sizeof x);
    static const char *const parts[][2] = {
        {"Mul", "gelu.root"}, {"Erf", NULL}, {"Add", "gelu.one"}};
    for (int i = 0; i < 3; i++) {
        snprintf(part, sizeof part, "%.40s.%s", l->name, parts[i][0]);
        put_node(w, parts[i][0], parts[i][1], part);
    }
    put_node(w, "Mul", half, name);
}

// What needs nothing but a name.
static const char *const plain_ops[] = {
    [BT_LAYER_RELU] = "Relu", [BT_LAYER_SIGMOID] = "Sigmoid", [BT_LAYER_TANH] = "Tanh"};

static bt_status put_layer(writer *w, const bt_layer *l, const char *name, bt_error *err) {
    switch (l->kind) {
    case BT_LAYER_FC: put_fc(w, name); return BT_OK;
    case BT_LAYER_CONV: put_window(w, "Conv", l, name); return BT_OK;
    case BT_LAYER_MAX_POOL: put_window(w, "MaxPool", l, name); return BT_OK;
    case BT_LAYER_AVG_POOL: put_window(w, "AveragePool", l, name); return BT_OK;
    case BT_LAYER_GELU: put_gelu(w, l, name); return BT_OK;
    case BT_LAYER_RELU:
    case BT_LAYER_SIGMOID:
    case BT_LAYER_TANH: put_node(w, plain_ops[l->kind], NULL, name); return BT_OK;
    case BT_LAYER_FLATTEN: return BT_OK; // where a layer needs it
    }
    return bt_fail(err, BT_ERROR_USAGE, "the layer %s cannot be exported to ONNX", l->name);
}

static bt_status put_layers(writer *w, bt_error *err) {
    const bt_model *m = w->model;
    int last = 0;
    bool flat = false;
    for (int i = 0; i < m->layer_count; i++) {
        if (m->layers[i].kind != BT_LAYER_FLATTEN) last = i;
        if (m->layers[i].kind == BT_LAYER_FC) flat = true;
    }
    for (int i = 0; i <= last; i++) {
        bool ends = i == last && flat;
        BT_TRY(put_layer(w, &m->layers[i], ends ? "logits" : m->layers[i].name, err));
    }
    put_flatten(w, "logits");
    return BT_OK;
}

// ---- The file ----------------------------------------------------------------------------------

static void put_initializers(writer *w, const bt_st_tensor *weights) {
    static const float one = 1, half = 0.5F, root = 0.70710678118654752F;
    bool gelu = false;
    for (int i = 0; i < w->model->parameter_count; i++)
        put_tensor(w, weights[i].name, weights[i].dim, weights[i].rank, weights[i].data,
                   weights[i].bytes / sizeof(float));
    for (int i = 0; i < w->model->layer_count; i++)
        gelu = gelu || w->model->layers[i].kind == BT_LAYER_GELU;
    if (!gelu) return;
    put_tensor(w, "gelu.one", NULL, 0, &one, 1);
    put_tensor(w, "gelu.half", NULL, 0, &half, 1);
    put_tensor(w, "gelu.root", NULL, 0, &root, 1);
}

static bt_status put_graph(writer *w, const bt_st_tensor *weights, bt_error *err) {
    const bt_model_desc *d = &w->model->desc;
    size_t graph = bt_proto_begin(&w->file, 7);
    BT_TRY(put_layers(w, err));
    bt_proto_text(&w->file, 2, "bantam");
    put_initializers(w, weights);
    put_value(w, 11, "images", (int[]){d->channels, d->height, d->width}, 3);
    put_value(w, 12, "logits", &d->classes, 1);
    bt_proto_end(&w->file, graph);
    return BT_OK;
}

static void put_property(writer *w, const char *key, const char *value) {
    size_t property = bt_proto_begin(&w->file, 14);
    bt_proto_text(&w->file, 1, key);
    bt_proto_text(&w->file, 2, value);
    bt_proto_end(&w->file, property);
}

bt_status bt_onnx_write(const bt_model *model, const bt_st_tensor *weights, const char *path,
                        bt_error *err) {
    writer w = {.model = model, .weight = weights, .value = "images"};
    bt_proto_int(&w.file, 1, IR_VERSION);
    bt_proto_text(&w.file, 2, "bantam");
    bt_proto_text(&w.file, 3, BT_VERSION_TEXT);
    bt_status status = put_graph(&w, weights, err);
    size_t opset = bt_proto_begin(&w.file, 8);
    bt_proto_text(&w.file, 1, "");
    bt_proto_int(&w.file, 2, OPSET);
    bt_proto_end(&w.file, opset);
    put_property(&w, "model", model->spec);
    put_property(&w, "images", "bytes / 255, as [N, channels, height, width]");
    if (status == BT_OK) return bt_output_write(&w.file, path, err);
    bt_output_free(&w.file);
    return status;
}
