// bt_model_export: takes the weights off the device, checks that they are finite, and hands them to
// the writer of the format.
#include "data/npz.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

// The weights in F32, which is what the formats hold; `memory` is to be freed.
static bt_status narrow(const bt_st_tensor *from, int count, bt_error *err, bt_st_tensor *out,
                        float **memory) {
    size_t numbers = 0;
    for (int i = 0; i < count; i++) numbers += from[i].bytes / sizeof(double);
    float *at = *memory = malloc((numbers + 1) * sizeof *at);
    if (!at) return bt_fail_memory(err, "weights in f32", numbers * sizeof *at);
    for (int i = 0; i < count; i++) {
        const double *wide = from[i].data;
        out[i] = from[i];
        out[i].dtype = BT_F32;
        out[i].data = at;
        out[i].bytes = from[i].bytes / 2;
        for (size_t k = 0; k < from[i].bytes / sizeof(double); k++) *at++ = (float)wide[k];
    }
    return BT_OK;
}

static bt_status write_as(bt_context *ctx, const bt_model *model, bt_export format,
                          const bt_st_tensor *weights, const char *path) {
    bt_error *err = bt_error_of(ctx);
    switch (format) {
    case BT_EXPORT_ONNX: return bt_onnx_write(model, weights, path, err);
    case BT_EXPORT_NPZ: return bt_npz_write(path, weights, model->parameter_count, err);
    case BT_EXPORT_C: return bt_c_source_write(model, weights, path, err);
    }
    return bt_fail(err, BT_ERROR_USAGE, "there is no export format %d", (int)format);
}

static bt_status export(bt_context *ctx, const bt_model *model, bt_export format,
                        const char *path) {
    bt_checkpoint *c;
    BT_TRY(bt_checkpoint_make(ctx, model, NULL, 0, NULL, &c));
    BT_TRY(bt_checkpoint_take(ctx, c, NULL, NULL, 0));
    const bt_st_tensor *weights = bt_checkpoint_tensors(c);
    if (model->desc.dtype == BT_F32 || format == BT_EXPORT_NPZ)
        return write_as(ctx, model, format, weights, path);
    bt_st_tensor narrowed[2 * BT_LAYERS_MAX];
    float *memory = NULL;
    bt_status status = narrow(weights, model->parameter_count, bt_error_of(ctx), narrowed, &memory);
    if (status == BT_OK) status = write_as(ctx, model, format, narrowed, path);
    free(memory);
    return status;
}

bt_status bt_model_export(bt_context *ctx, const bt_model *model, bt_export format,
                          const char *path) {
    uint32_t mark = bt_mark(ctx);
    bt_status status = export(ctx, model, format, path);
    bt_release(ctx, mark);
    return status;
}
