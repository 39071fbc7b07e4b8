// Sums, means, maxima and their positions. A set of axes becomes one reduction for each run of
// neighbouring axes, each over the middle of [outer, n, inner].
#include "tensor/graph.h"

#include <string.h>

// Sees `shape` as [outer, n, inner] around axes first .. last.
static bt_reduce_args view(bt_shape shape, int first, int last) {
    bt_reduce_args args = {1, 1, 1, 0};
    for (int i = 0; i < shape.rank; i++) {
        uint32_t *part = i < first ? &args.outer : i <= last ? &args.n : &args.inner;
        *part *= (uint32_t)shape.dim[i];
    }
    return args;
}

static bool axes_fit(bt_context *ctx, const char *op, bt_shape shape, unsigned *axes) {
    unsigned all = (1u << shape.rank) - 1;
    if (*axes == 0) *axes = all;
    if ((*axes & ~all) == 0) return true;
    bt_graph_fail(ctx, "%s: axes 0x%x name dimensions that %s does not have", op, *axes,
                  bt_shape_text(shape));
    return false;
}

// One reduction over axes first .. last, which become 1.
static bt_tensor reduce_run(bt_context *ctx, bt_op op, bt_tensor a, int first, int last,
                            bool mean) {
    if (!a.id) return a;
    bt_node node = {.op = op, .in = {a.id}, .dtype = bt_node_of(ctx, a)->dtype};
    node.shape = bt_node_of(ctx, a)->shape;
    node.attr.reduce = view(node.shape, first, last);
    node.attr.reduce.mean = mean;
    for (int i = first; i <= last; i++) node.shape.dim[i] = 1;
    bt_tensor y = bt_node_add(ctx, &node);
    if (op == BT_OP_REDUCE_MAX) bt_node_add_second(ctx, y, BT_I32, node.shape);
    return y;
}

static bt_tensor without_axes(bt_context *ctx, bt_tensor a, unsigned axes) {
    if (!a.id) return a;
    bt_shape from = bt_node_of(ctx, a)->shape, to = {0};
    for (int i = 0; i < from.rank; i++)
        if (!(axes >> i & 1)) to.dim[to.rank++] = from.dim[i];
    return to.rank == from.rank ? a : bt_reshape(ctx, a, to);
}

static bt_tensor reduce(bt_context *ctx, const char *name, bt_op op, bt_tensor a, unsigned axes,
                        bool keep, bool mean) {
    if (!bt_graph_has_reals(ctx, name, a, a)) return (bt_tensor){0};
    bt_shape shape = bt_node_of(ctx, a)->shape;
    if (!axes_fit(ctx, name, shape, &axes)) return (bt_tensor){0};
    for (int last = shape.rank - 1; last >= 0; last--) {
        if (!(axes >> last & 1)) continue;
        int first = last;
        while (first > 0 && axes >> (first - 1) & 1) first--;
        a = reduce_run(ctx, op, a, first, last, mean);
        last = first;
    }
    return keep ? a : without_axes(ctx, a, axes);
}

bt_tensor bt_sum(bt_context *ctx, bt_tensor a, unsigned axes, bool keep) {
    return reduce(ctx, "sum", BT_OP_REDUCE_SUM, a, axes, keep, false);
}

bt_tensor bt_mean(bt_context *ctx, bt_tensor a, unsigned axes, bool keep) {
    return reduce(ctx, "mean", BT_OP_REDUCE_SUM, a, axes, keep, true);
}

bt_tensor bt_max(bt_context *ctx, bt_tensor a, unsigned axes, bool keep) {
    return reduce(ctx, "max", BT_OP_REDUCE_MAX, a, axes, keep, false);
}

bt_tensor bt_argmax(bt_context *ctx, bt_tensor a, int axis) {
    if (!bt_graph_has_reals(ctx, "argmax", a, a)) return (bt_tensor){0};
    bt_shape shape = bt_node_of(ctx, a)->shape;
    if (axis < 0 || axis >= shape.rank)
        return bt_graph_fail(ctx, "argmax: %s has no axis %d", bt_shape_text(shape), axis);
    bt_tensor y = reduce_run(ctx, BT_OP_REDUCE_MAX, a, axis, axis, false);
    if (!y.id) return y;
    return without_axes(ctx, (bt_tensor){bt_node_of(ctx, y)->second}, 1u << axis);
}

BT_GRAD(reduce_sum) {
    const bt_node node = *bt_node_of(ctx, y);
    bt_shape shape = ctx->nodes[node.in[0]].shape;
    if (node.attr.reduce.mean) dy = bt_div_scalar(ctx, dy, node.attr.reduce.n);
    dx[0] = bt_broadcast(ctx, dy, shape);
}

BT_GRAD(reduce_max) {
    const bt_node node = *bt_node_of(ctx, y);
    dx[0] = bt_node_add(ctx, &(bt_node){.op = BT_OP_SCATTER_AXIS,
                                        .in = {dy.id, node.second},
                                        .dtype = node.dtype,
                                        .shape = ctx->nodes[node.in[0]].shape,
                                        .attr.reduce = node.attr.reduce});
}

static double reduce_flops(const bt_reduce_args *a) {
    return (double)a->outer * a->n * a->inner;
}

BT_LOWER(reduce_sum) {
    const bt_reduce_args *args = &bt_lower_node(lo, id)->attr.reduce;
    bt_emission e = bt_lower_emission(lo, id, 1);
    e.flops = reduce_flops(args);
    bt_emit_reduce_sum(lo, e, args);
}

BT_LOWER(reduce_max) {
    const bt_reduce_args *args = &bt_lower_node(lo, id)->attr.reduce;
    bt_emission e = bt_lower_emission(lo, id, 1);
    e.flops = reduce_flops(args);
    bt_emit_reduce_max(lo, e, args);
}

BT_LOWER(scatter_axis) {
    bt_emit_scatter_axis(lo, bt_lower_emission(lo, id, 2), &bt_lower_node(lo, id)->attr.reduce);
}

// ---- Softmax ---------------------------------------------------------------------------------

static bt_tensor softmax(bt_context *ctx, const char *name, bt_tensor a, int axis, bool log) {
    if (!bt_graph_has_reals(ctx, name, a, a)) return (bt_tensor){0};
    bt_node node = {.op = BT_OP_SOFTMAX, .in = {a.id}, .dtype = bt_node_of(ctx, a)->dtype};
    node.shape = bt_node_of(ctx, a)->shape;
    if (axis < 0 || axis >= node.shape.rank)
        return bt_graph_fail(ctx, "%s: %s has no axis %d", name, bt_shape_text(node.shape), axis);
    bt_reduce_args v = view(node.shape, axis, axis);
    node.attr.softmax = (bt_softmax_args){v.outer, v.n, v.inner, log};
    return bt_node_add(ctx, &node);
}

bt_tensor bt_softmax(bt_context *ctx, bt_tensor a, int axis) {
    return softmax(ctx, "softmax", a, axis, false);
}

bt_tensor bt_log_softmax(bt_context *ctx, bt_tensor a, int axis) {
    return softmax(ctx, "log_softmax", a, axis, true);
}

BT_GRAD(softmax) {
    bt_node node = *bt_node_of(ctx, y);
    dx[0] = bt_node_add(ctx, &(bt_node){.op = BT_OP_SOFTMAX_GRAD,
                                        .in = {y.id, dy.id},
                                        .dtype = node.dtype,
                                        .shape = node.shape,
                                        .attr.softmax = node.attr.softmax});
}

static bt_emission softmax_emission(bt_lowering *lo, uint32_t id, int inputs) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_emission e = bt_lower_emission(lo, id, inputs);
    e.flops = 4.0 * (double)bt_shape_count(node->shape);
    return e;
}

BT_LOWER(softmax) {
    bt_emit_softmax(lo, softmax_emission(lo, id, 1), &bt_lower_node(lo, id)->attr.softmax);
}

BT_LOWER(softmax_grad) {
    bt_emit_softmax_grad(lo, softmax_emission(lo, id, 2), &bt_lower_node(lo, id)->attr.softmax);
}
