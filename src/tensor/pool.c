// Max and average pooling. Max pooling remembers where each maximum was, for its gradient.
#include "tensor/graph.h"

static bt_tensor pool(bt_context *ctx, const char *name, bt_op op, bt_tensor x, int size,
                      int stride, int padding) {
    if (!bt_graph_has_reals(ctx, name, x, x)) return (bt_tensor){0};
    bt_shape sx = bt_node_of(ctx, x)->shape;
    if (stride == 0) stride = size;
    if (sx.rank != 4)
        return bt_graph_fail(ctx, "%s: image %s; expected [n, c, h, w]", name, bt_shape_text(sx));
    if (size < 1 || stride < 1 || padding < 0 || padding > size / 2)
        return bt_graph_fail(ctx,
                             "%s: size %d, stride %d, padding %d; size and stride are at least "
                             "1 and the padding at most half the size",
                             name, size, stride, padding);
    int64_t h = sx.dim[2] + 2 * (int64_t)padding, w = sx.dim[3] + 2 * (int64_t)padding;
    // A window over padding alone would have no maximum.
    if (h < size || w < size || sx.dim[2] == 0 || sx.dim[3] == 0)
        return bt_graph_fail(ctx, "%s: a window of %dx%d does not fit an image of %dx%d", name,
                             size, size, sx.dim[2], sx.dim[3]);
    bt_node node = {.op = op,
                    .in = {x.id},
                    .dtype = bt_node_of(ctx, x)->dtype,
                    .shape = BT_SHAPE(sx.dim[0], sx.dim[1], (int)((h - size) / stride + 1),
                                      (int)((w - size) / stride + 1))};
    node.attr.pool = (bt_pool_args){.planes = (uint32_t)sx.dim[0] * (uint32_t)sx.dim[1],
                                    .h = (uint32_t)sx.dim[2],
                                    .w = (uint32_t)sx.dim[3],
                                    .oh = (uint32_t)node.shape.dim[2],
                                    .ow = (uint32_t)node.shape.dim[3],
                                    .size = (uint32_t)size,
                                    .stride = (uint32_t)stride,
                                    .padding = (uint32_t)padding};
    bt_tensor y = bt_node_add(ctx, &node);
    if (op == BT_OP_MAX_POOL) bt_node_add_second(ctx, y, BT_I32, node.shape);
    return y;
}

bt_tensor bt_max_pool(bt_context *ctx, bt_tensor x, int size, int stride, int padding) {
    return pool(ctx, "max_pool", BT_OP_MAX_POOL, x, size, stride, padding);
}

bt_tensor bt_avg_pool(bt_context *ctx, bt_tensor x, int size, int stride, int padding) {
    return pool(ctx, "avg_pool", BT_OP_AVG_POOL, x, size, stride, padding);
}

BT_GRAD(max_pool) {
    const bt_node node = *bt_node_of(ctx, y);
    dx[0] = bt_node_add(ctx, &(bt_node){.op = BT_OP_MAX_POOL_GRAD,
                                        .in = {dy.id, node.second},
                                        .dtype = node.dtype,
                                        .attr.pool = node.attr.pool,
                                        .shape = ctx->nodes[node.in[0]].shape});
}

BT_GRAD(avg_pool) {
    const bt_node node = *bt_node_of(ctx, y);
    dx[0] = bt_node_add(ctx, &(bt_node){.op = BT_OP_AVG_POOL_GRAD,
                                        .in = {dy.id},
                                        .dtype = node.dtype,
                                        .attr.pool = node.attr.pool,
                                        .shape = ctx->nodes[node.in[0]].shape});
}

BT_LOWER(max_pool) {
    bt_emit_max_pool(lo, bt_lower_emission(lo, id, 1), &bt_lower_node(lo, id)->attr.pool);
}

BT_LOWER(max_pool_grad) {
    bt_emit_max_pool_grad(lo, bt_lower_emission(lo, id, 2), &bt_lower_node(lo, id)->attr.pool);
}

BT_LOWER(avg_pool) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_emission e = bt_lower_emission(lo, id, 1);
    e.flops = (double)bt_shape_count(node->shape) * node->attr.pool.size * node->attr.pool.size;
    bt_emit_avg_pool(lo, e, &node->attr.pool);
}

BT_LOWER(avg_pool_grad) {
    bt_emit_avg_pool_grad(lo, bt_lower_emission(lo, id, 1), &bt_lower_node(lo, id)->attr.pool);
}
