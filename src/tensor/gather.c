// The batch of the current step, picked from a data set that is resident on the device.
#include "tensor/graph.h"

bt_tensor bt_gather_node(bt_context *ctx, bt_tensor bytes, bt_tensor labels, bt_tensor index,
                         bt_shape image, bt_dtype dtype, const bt_gather_args *args) {
    if (!bt_graph_has(ctx, "batch", bytes) || !bt_graph_has(ctx, "batch", labels) ||
        !bt_graph_has(ctx, "batch", index))
        return (bt_tensor){0};
    bt_shape shape = BT_SHAPE((int)args->batch, image.dim[0], image.dim[1], image.dim[2]);
    bt_tensor images = bt_node_add(ctx, &(bt_node){.op = BT_OP_GATHER,
                                                   .in = {bytes.id, labels.id, index.id},
                                                   .dtype = dtype,
                                                   .shape = shape,
                                                   .attr.gather = *args});
    bt_node_add_second(ctx, images, BT_I32, BT_SHAPE((int)args->batch));
    return images;
}

BT_LOWER(gather) {
    const bt_node *node = bt_lower_node(lo, id);
    const bt_gather_args *args = &node->attr.gather;
    double numbers = (double)args->batch * args->pixels; // of the whole set, only these are read
    bt_emit_gather_batch(
        lo,
        (bt_emission){.dtype = node->dtype,
                      .binding = {bt_lower_value(lo, node->in[0]), bt_lower_value(lo, node->in[1]),
                                  bt_lower_value(lo, node->in[2]), bt_lower_state(lo),
                                  bt_lower_value(lo, id), bt_lower_second(lo, id)},
                      .bytes = numbers * (1 + (double)bt_dtype_size(node->dtype))},
        args);
}
