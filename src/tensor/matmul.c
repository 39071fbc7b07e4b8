// Matrix product with batch dimensions. The program compiler fuses a bias row and an activation,
// or the derivative of one, into it (program/fuse.c).
#include "tensor/graph.h"

static int dim_from_end(bt_shape s, int i) {
    return i <= s.rank ? s.dim[s.rank - i] : 1;
}

static bt_tensor fail(bt_context *ctx, bt_shape a, bool ta, bt_shape b, bool tb) {
    return bt_graph_fail(ctx, "matmul: %s%s and %s%s do not fit", bt_shape_text(a),
                         ta ? " transposed" : "", bt_shape_text(b), tb ? " transposed" : "");
}

bt_tensor bt_matmul_ex(bt_context *ctx, bt_tensor a, bool ta, bt_tensor b, bool tb) {
    if (!bt_graph_has_reals(ctx, "matmul", a, b)) return (bt_tensor){0};
    bt_shape sa = bt_node_of(ctx, a)->shape, sb = bt_node_of(ctx, b)->shape;
    int k = dim_from_end(sa, ta ? 2 : 1);
    if (sa.rank < 2 || sb.rank < 2 || k != dim_from_end(sb, tb ? 1 : 2))
        return fail(ctx, sa, ta, sb, tb);
    bt_node node = {.op = BT_OP_MATMUL, .in = {a.id, b.id}, .dtype = bt_node_of(ctx, a)->dtype};
    node.attr.matmul.transpose_a = ta;
    node.attr.matmul.transpose_b = tb;
    int rank = node.shape.rank = sa.rank > sb.rank ? sa.rank : sb.rank;
    node.shape.dim[rank - 2] = dim_from_end(sa, ta ? 1 : 2);
    node.shape.dim[rank - 1] = dim_from_end(sb, tb ? 2 : 1);
    for (int i = 3; i <= rank; i++) {
        int da = dim_from_end(sa, i), db = dim_from_end(sb, i);
        if (da != db && da != 1 && db != 1) return fail(ctx, sa, ta, sb, tb);
        node.shape.dim[rank - i] = da == 1 ? db : da;
    }
    return bt_node_add(ctx, &node);
}

bt_tensor bt_matmul(bt_context *ctx, bt_tensor a, bt_tensor b) {
    return bt_matmul_ex(ctx, a, false, b, false);
}

// With A = op(a), B = op(b): dA = dy B^T and dB = A^T dy, transposed back where op transposes.
BT_GRAD(matmul) {
    const bt_node node = *bt_node_of(ctx, y);
    bt_tensor a = {node.in[0]}, b = {node.in[1]};
    bool ta = node.attr.matmul.transpose_a, tb = node.attr.matmul.transpose_b;
    dx[0] = ta ? bt_matmul_ex(ctx, b, tb, dy, true) : bt_matmul_ex(ctx, dy, false, b, !tb);
    dx[1] = tb ? bt_matmul_ex(ctx, dy, true, a, ta) : bt_matmul_ex(ctx, a, !ta, dy, false);
    for (int i = 0; i < 2; i++) dx[i] = bt_unbroadcast(ctx, dx[i], ctx->nodes[node.in[i]].shape);
}

// Elements between the batches of an operand in dimension `i` from the end.
static uint32_t batch_step(bt_shape s, int i) {
    if (i > s.rank || s.dim[s.rank - i] == 1) return 0;
    uint32_t step = 1;
    for (int j = s.rank - i + 1; j < s.rank; j++) step *= (uint32_t)s.dim[j];
    return step;
}

BT_LOWER(matmul) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_shape sa = bt_lower_node(lo, node->in[0])->shape, sb = bt_lower_node(lo, node->in[1])->shape;
    const bt_fusion fusion = bt_lower_fusion(lo, id);
    bt_matmul_args args = {
        .m = (uint32_t)dim_from_end(node->shape, 2),
        .n = (uint32_t)dim_from_end(node->shape, 1),
        .k = (uint32_t)dim_from_end(sa, node->attr.matmul.transpose_a ? 2 : 1),
        .batch1 = (uint32_t)dim_from_end(node->shape, 4),
        .batch2 = (uint32_t)dim_from_end(node->shape, 3),
        .a_step = {batch_step(sa, 4), batch_step(sa, 3)},
        .b_step = {batch_step(sb, 4), batch_step(sb, 3)},
        .transpose_a = node->attr.matmul.transpose_a,
        .transpose_b = node->attr.matmul.transpose_b,
        .epilogue = fusion.epilogue,
    };
    double flops = 2.0 * (double)bt_shape_count(node->shape) * args.k;
    // A batch of rows times one matrix is one taller product.
    if (sb.rank == 2 && !args.transpose_a) {
        args.m *= args.batch1 * args.batch2;
        args.batch1 = args.batch2 = 1;
    }
    bt_emit_matmul(
        lo,
        (bt_emission){.dtype = node->dtype,
                      .binding = {bt_lower_value(lo, node->in[0]), bt_lower_value(lo, node->in[1]),
                                  bt_lower_value(lo, fusion.bias),
                                  bt_lower_value(lo, fusion.y_forward),
                                  bt_lower_value(lo, fusion.out)},
                      .flops = flops},
        &args);
}
