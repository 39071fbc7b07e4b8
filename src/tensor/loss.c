// Losses. Cross-entropy gives its gradient in the same launch that computes it, as the second
// result, since both need the same exponentials.
#include "tensor/graph.h"

bt_tensor bt_cross_entropy(bt_context *ctx, bt_tensor logits, bt_tensor labels) {
    if (!bt_graph_has_reals(ctx, "cross_entropy", logits, logits) ||
        !bt_graph_has(ctx, "cross_entropy", labels))
        return (bt_tensor){0};
    const bt_node *x = bt_node_of(ctx, logits), *t = bt_node_of(ctx, labels);
    if (x->shape.rank != 2 || x->shape.dim[1] == 0)
        return bt_graph_fail(ctx, "cross_entropy: logits are %s, not [rows, classes]",
                             bt_shape_text(x->shape));
    if (t->dtype != BT_I32 || t->shape.rank != 1 || t->shape.dim[0] != x->shape.dim[0])
        return bt_graph_fail(ctx, "cross_entropy: labels are %s %s, not i32 [%d]",
                             bt_dtype_name(t->dtype), bt_shape_text(t->shape), x->shape.dim[0]);
    bt_dtype dtype = x->dtype;
    bt_shape shape = x->shape;
    bt_tensor loss =
        bt_node_add(ctx, &(bt_node){.op = BT_OP_XENT,
                                    .in = {logits.id, labels.id},
                                    .dtype = dtype,
                                    .shape = BT_SCALAR,
                                    .attr.xent = {(uint32_t)shape.dim[0], (uint32_t)shape.dim[1]}});
    bt_node_add_second(ctx, loss, dtype, shape);
    return loss;
}

bt_tensor bt_mse(bt_context *ctx, bt_tensor a, bt_tensor b) {
    bt_tensor d = bt_sub(ctx, a, b);
    return bt_mean(ctx, bt_mul(ctx, d, d), 0, false);
}

BT_GRAD(cross_entropy) {
    dx[0] = bt_times_scalar_grad(ctx, (bt_tensor){bt_node_of(ctx, y)->second}, dy);
}

BT_LOWER(cross_entropy) {
    const bt_node *node = bt_lower_node(lo, id);
    const bt_xent_args *args = &node->attr.xent;
    bt_storage labels = bt_lower_value(lo, node->in[1]);
    bt_storage rows = bt_lower_temporary(lo, args->rows * bt_dtype_size(node->dtype));
    bt_emit_xent(lo,
                 (bt_emission){.dtype = node->dtype,
                               .binding = {bt_lower_value(lo, node->in[0]), labels, rows,
                                           bt_lower_second(lo, id)},
                               .flops = 5.0 * args->rows * args->cols},
                 args);
    bt_emit_xent_mean(lo,
                      (bt_emission){.dtype = node->dtype,
                                    .binding = {rows, labels, bt_lower_value(lo, id)},
                                    .flops = args->rows},
                      args);
}
