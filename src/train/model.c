// Models: layers from text (spec.c), their parameters with PyTorch's names and layouts, initial
// weights, and the forward graph.
#include "train/train.h"

#include "base/rng.h"
#include "data/dataset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// ---- Initial weights -------------------------------------------------------------------------

// Four numbers of parameter `position`, numbers 4 i ... 4 i + 3; each depends on the seed and its
// place alone.
static void random_block(const bt_model_desc *d, int position, uint32_t i, double out[4]) {
    bt_random4 r = bt_philox(d->seed, BT_STREAM_INIT, (uint64_t)position << 32 | i);
    double u[4];
    for (int k = 0; k < 4; k++) u[k] = ((double)r.v[k] + 0.5) * 0x1p-32; // in (0, 1)
    for (int k = 0; k < 4; k += 2) {
        if (d->init == BT_INIT_XAVIER) {
            out[k] = 2 * u[k] - 1;
            out[k + 1] = 2 * u[k + 1] - 1;
        } else { // Box and Muller, 1958
            double radius = sqrt(-2 * log(u[k])), angle = 6.283185307179586 * u[k + 1];
            out[k] = radius * cos(angle);
            out[k + 1] = radius * sin(angle);
        }
    }
}

static void fill_weights(const bt_model_desc *d, int position, double scale, size_t count,
                         void *out) {
    double block[4];
    for (size_t i = 0; i < count; i++) {
        if (i % 4 == 0) random_block(d, position, (uint32_t)(i / 4), block);
        if (d->dtype == BT_F64)
            ((double *)out)[i] = scale * block[i % 4];
        else
            ((float *)out)[i] = (float)(scale * block[i % 4]);
    }
}

// ---- Parameters ------------------------------------------------------------------------------

static bt_status add_parameter(bt_context *ctx, bt_model *model, int index, const char *kind,
                               bt_shape shape, double scale) {
    int position = model->parameter_count++;
    size_t count = bt_shape_count(shape), bytes = count * bt_dtype_size(model->desc.dtype);
    void *data = NULL;
    if (scale != 0) {
        data = malloc(bytes);
        if (!data) return bt_fail_memory(bt_error_of(ctx), "the weights of a layer", bytes);
        fill_weights(&model->desc, position, scale, count, data);
    }
    bt_tensor t = bt_parameter(ctx, model->desc.dtype, shape, data);
    free(data);
    model->parameters[position] = t;
    model->size += count;
    snprintf(model->names[position], sizeof model->names[position], "%d.%s", index, kind);
    return t.id ? BT_OK : bt_error_of(ctx)->status;
}

static bt_status add_layer(bt_context *ctx, bt_model *model, const bt_layer *l) {
    if (l->kind != BT_LAYER_FC && l->kind != BT_LAYER_CONV) return BT_OK;
    bool conv = l->kind == BT_LAYER_CONV;
    double area = conv ? (double)l->size * l->size : 1;
    double fan_in = area * l->inputs, fan_out = area * l->outputs;
    double scale = model->desc.init == BT_INIT_HE ? sqrt(2 / fan_in) : sqrt(6 / (fan_in + fan_out));
    bt_shape shape =
        conv ? BT_SHAPE(l->outputs, l->inputs, l->size, l->size) : BT_SHAPE(l->outputs, l->inputs);
    BT_TRY(add_parameter(ctx, model, l->index, "weight", shape, scale));
    return add_parameter(ctx, model, l->index, "bias", BT_SHAPE(l->outputs), 0);
}

static void free_model(bt_context *ctx, void *object) {
    (void)ctx;
    bt_model *model = object;
    free(model->spec);
    free(model);
}

bt_status bt_model_make(bt_context *ctx, const bt_model_desc *desc, bt_model **out) {
    *out = NULL;
    bt_model *model = calloc(1, sizeof *model);
    if (!model) return bt_fail_memory(bt_error_of(ctx), "a model", sizeof *model);
    BT_TRY(bt_own(ctx, model, free_model));
    model->desc = *desc;
    BT_TRY(bt_spec_parse(model, bt_error_of(ctx)));
    for (int i = 0; i < model->layer_count; i++) BT_TRY(add_layer(ctx, model, &model->layers[i]));
    *out = model;
    return BT_OK;
}

// ---- Forward ---------------------------------------------------------------------------------

static bt_tensor flatten(bt_context *ctx, bt_tensor x) {
    bt_shape shape = bt_tensor_shape(ctx, x);
    if (shape.rank <= 2) return x;
    return bt_reshape(ctx, x, BT_SHAPE(shape.dim[0], shape.dim[1] * shape.dim[2] * shape.dim[3]));
}

static bt_tensor apply(bt_context *ctx, const bt_layer *l, const bt_tensor *parameters,
                       bt_tensor x) {
    switch (l->kind) {
    case BT_LAYER_FC:
        x = bt_matmul_ex(ctx, flatten(ctx, x), false, parameters[0], true);
        return bt_add(ctx, x, parameters[1]);
    case BT_LAYER_CONV:
        return bt_conv2d(ctx, x, parameters[0], parameters[1], l->stride, l->padding);
    case BT_LAYER_MAX_POOL: return bt_max_pool(ctx, x, l->size, l->stride, 0);
    case BT_LAYER_AVG_POOL: return bt_avg_pool(ctx, x, l->size, l->stride, 0);
    case BT_LAYER_RELU: return bt_relu(ctx, x);
    case BT_LAYER_SIGMOID: return bt_sigmoid(ctx, x);
    case BT_LAYER_TANH: return bt_tanh(ctx, x);
    case BT_LAYER_GELU: return bt_gelu(ctx, x);
    case BT_LAYER_FLATTEN: return flatten(ctx, x);
    }
    return x;
}

static bool takes(bt_context *ctx, const bt_model *model, bt_tensor images) {
    const bt_model_desc *d = &model->desc;
    bt_shape s = bt_tensor_shape(ctx, images);
    if (!images.id) return false;
    if (s.rank == 4 && s.dim[1] == d->channels && s.dim[2] == d->height && s.dim[3] == d->width)
        return true;
    bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
            "the model takes images [n, %d, %d, %d], and was given rank %d, [%d, %d, %d, %d]",
            d->channels, d->height, d->width, s.rank, s.dim[0], s.dim[1], s.dim[2], s.dim[3]);
    return false;
}

bt_tensor bt_model_layers(bt_context *ctx, const bt_model *model, bt_tensor images, int layers,
                          bt_tensor *outputs) {
    if (!takes(ctx, model, images)) return (bt_tensor){0};
    const bt_tensor *parameters = model->parameters;
    for (int i = 0; i < layers && i < model->layer_count; i++) {
        const bt_layer *l = &model->layers[i];
        bt_scope(ctx, l->name);
        images = apply(ctx, l, parameters, images);
        if (outputs) outputs[i] = images;
        if (l->kind == BT_LAYER_FC || l->kind == BT_LAYER_CONV) parameters += 2;
    }
    bt_scope(ctx, NULL);
    return images;
}

bt_tensor bt_model_forward_to(bt_context *ctx, const bt_model *model, bt_tensor images,
                              int layers) {
    return bt_model_layers(ctx, model, images, layers, NULL);
}

bt_tensor bt_model_forward(bt_context *ctx, const bt_model *model, bt_tensor images) {
    return flatten(ctx, bt_model_layers(ctx, model, images, model->layer_count, NULL));
}

// ---- Questions -------------------------------------------------------------------------------

const char *bt_model_spec(const bt_model *model) {
    return model->spec;
}
void bt_model_describe(const bt_model *model, bt_model_desc *out) {
    *out = model->desc;
}
int bt_model_parameter_count(const bt_model *model) {
    return model->parameter_count;
}
int bt_model_layer_count(const bt_model *model) {
    return model->layer_count;
}
size_t bt_model_size(const bt_model *model) {
    return model->size;
}

bt_tensor bt_model_parameter(const bt_model *model, int i) {
    return i >= 0 && i < model->parameter_count ? model->parameters[i] : (bt_tensor){0};
}

const char *bt_model_parameter_name(const bt_model *model, int i) {
    return i >= 0 && i < model->parameter_count ? model->names[i] : "";
}

const char *bt_model_layer_name(const bt_model *model, int i) {
    return i >= 0 && i < model->layer_count ? model->layers[i].name : "";
}

bt_status bt_model_fits(bt_context *ctx, const bt_model *model, const bt_dataset *set) {
    const bt_model_desc *m = &model->desc;
    const bt_dataset_info *d = &set->info;
    if (d->count < 1)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE, "the data set %s is empty", d->name);
    if (m->channels == d->channels && m->height == d->height && m->width == d->width &&
        m->classes >= d->classes)
        return BT_OK;
    return bt_fail(bt_error_of(ctx), BT_ERROR_DATA,
                   "the data (%s) has images of %d x %d x %d in %d classes, and the model takes "
                   "%d x %d x %d in %d classes",
                   d->name, d->channels, d->height, d->width, d->classes, m->channels, m->height,
                   m->width, m->classes);
}
