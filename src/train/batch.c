// Data sets on the device: the bytes are uploaded once, and the batch of each step is gathered
// there (kernel gather_batch).
#include "data/dataset.h"
#include "tensor/graph.h"

#include <stdlib.h>

static void forget_base(bt_context *ctx, void *object) {
    (void)ctx;
    bt_dataset *set = object;
    set->images_id = set->labels_id = 0;
}

static void forget_index(bt_context *ctx, void *object) {
    (void)ctx;
    ((bt_dataset *)object)->index_id = 0;
}

static bt_tensor upload_labels(bt_context *ctx, const bt_dataset *base) {
    size_t bytes = (size_t)base->total * sizeof(int32_t);
    int32_t *labels = malloc(bytes ? bytes : 1);
    if (!labels) return bt_fail_memory(bt_error_of(ctx), "labels", bytes), (bt_tensor){0};
    for (uint32_t i = 0; i < base->total; i++) labels[i] = base->labels[i];
    bt_tensor t = bt_from(ctx, BT_I32, BT_SHAPE((int)base->total), labels);
    free(labels);
    return t;
}

// Uploads what is not there yet. bt_release frees tensors, so what was uploaded is forgotten then.
static bool make_resident(bt_context *ctx, bt_dataset *set) {
    bt_dataset *base = set->base;
    const bt_dataset_info *info = &base->info;
    if (!base->images_id || !base->labels_id) {
        bt_shape shape = BT_SHAPE((int)base->total, info->channels, info->height, info->width);
        base->images_id = bt_from(ctx, BT_U8, shape, base->images).id;
        base->labels_id = upload_labels(ctx, base).id;
        if (bt_own(ctx, base, forget_base) != BT_OK) return false;
    }
    if (!set->index_id) {
        set->index_id = bt_from(ctx, BT_I32, BT_SHAPE(set->info.count), set->index).id;
        if (bt_own(ctx, set, forget_index) != BT_OK) return false;
    }
    return base->images_id && base->labels_id && set->index_id;
}

bt_batch bt_dataset_batch(bt_context *ctx, const bt_batch_desc *desc) {
    bt_dataset *set = desc->set;
    const bt_dataset_info *info = &set->info;
    if (desc->batch < 1 || info->count < 1)
        return bt_graph_fail(ctx, "a batch of %d samples from a set of %d: both must be at least 1",
                             desc->batch, info->count),
               (bt_batch){{0}, {0}};
    if (!make_resident(ctx, set)) return (bt_batch){{0}, {0}};
    bt_gather_args args = {.count = (uint32_t)info->count,
                           .batch = (uint32_t)desc->batch,
                           .pixels = (uint32_t)(info->channels * info->height * info->width),
                           .shuffle = desc->shuffle,
                           .seed = (uint32_t)(desc->seed ^ desc->seed >> 32)};
    bt_shape image = BT_SHAPE(info->channels, info->height, info->width);
    bt_tensor images =
        bt_gather_node(ctx, (bt_tensor){set->base->images_id}, (bt_tensor){set->base->labels_id},
                       (bt_tensor){set->index_id}, image, desc->dtype, &args);
    return (bt_batch){images, {images.id ? bt_node_of(ctx, images)->second : 0}};
}
