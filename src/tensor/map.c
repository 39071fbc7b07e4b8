// Elementwise operators, broadcasting, and the ones that only move elements: permute, broadcast,
// reshape. All but reshape lower to the map kernel, which reads its operands through strides.
#include "tensor/graph.h"

#include <string.h>

// ---- Building --------------------------------------------------------------------------------

static bool broadcast_shape(bt_shape a, bt_shape b, bt_shape *out) {
    int rank = a.rank > b.rank ? a.rank : b.rank;
    *out = (bt_shape){.rank = rank};
    for (int i = 1; i <= rank; i++) {
        int da = i <= a.rank ? a.dim[a.rank - i] : 1, db = i <= b.rank ? b.dim[b.rank - i] : 1;
        if (da != db && da != 1 && db != 1) return false;
        out->dim[rank - i] = da == 1 ? db : da;
    }
    return true;
}

static const char *const map_names[] = {
#define X(id, name, inputs) [BT_MAP_##id] = #name,
    BT_MAPS(X)
#undef X
};

const char *bt_map_name(bt_map_op op) {
    return map_names[op];
}

bt_tensor bt_map_node(bt_context *ctx, bt_map_op op, bt_tensor a, bt_tensor b) {
    bool binary = b.id != 0;
    if (!bt_graph_has_reals(ctx, map_names[op], a, binary ? b : a)) return (bt_tensor){0};
    bt_node node = {.op = BT_OP_MAP, .in = {a.id, b.id}, .attr.map = op};
    node.dtype = bt_node_of(ctx, a)->dtype;
    bt_shape sa = bt_node_of(ctx, a)->shape, sb = binary ? bt_node_of(ctx, b)->shape : sa;
    if (!broadcast_shape(sa, sb, &node.shape))
        return bt_graph_fail(ctx, "%s: shapes %s and %s do not broadcast", map_names[op],
                             bt_shape_text(sa), bt_shape_text(sb));
    return bt_node_add(ctx, &node);
}

static bt_tensor binary(bt_context *ctx, bt_map_op op, bt_tensor a, bt_tensor b) {
    if (!bt_graph_has(ctx, map_names[op], a) || !bt_graph_has(ctx, map_names[op], b))
        return (bt_tensor){0};
    return bt_map_node(ctx, op, a, b);
}

static bt_tensor unary(bt_context *ctx, bt_map_op op, bt_tensor a) {
    return bt_map_node(ctx, op, a, (bt_tensor){0});
}

static bt_tensor with_scalar(bt_context *ctx, bt_map_op op, bt_tensor a, double s) {
    if (!bt_graph_has(ctx, map_names[op], a)) return (bt_tensor){0};
    return binary(ctx, op, a, bt_full(ctx, bt_node_of(ctx, a)->dtype, BT_SCALAR, s));
}

bt_tensor bt_add(bt_context *ctx, bt_tensor a, bt_tensor b) {
    return binary(ctx, BT_MAP_ADD, a, b);
}
bt_tensor bt_sub(bt_context *ctx, bt_tensor a, bt_tensor b) {
    return binary(ctx, BT_MAP_SUB, a, b);
}
bt_tensor bt_mul(bt_context *ctx, bt_tensor a, bt_tensor b) {
    return binary(ctx, BT_MAP_MUL, a, b);
}
bt_tensor bt_div(bt_context *ctx, bt_tensor a, bt_tensor b) {
    return binary(ctx, BT_MAP_DIV, a, b);
}
bt_tensor bt_add_scalar(bt_context *ctx, bt_tensor a, double s) {
    return with_scalar(ctx, BT_MAP_ADD, a, s);
}
bt_tensor bt_sub_scalar(bt_context *ctx, bt_tensor a, double s) {
    return with_scalar(ctx, BT_MAP_SUB, a, s);
}
bt_tensor bt_mul_scalar(bt_context *ctx, bt_tensor a, double s) {
    return with_scalar(ctx, BT_MAP_MUL, a, s);
}
bt_tensor bt_div_scalar(bt_context *ctx, bt_tensor a, double s) {
    return with_scalar(ctx, BT_MAP_DIV, a, s);
}
bt_tensor bt_neg(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_NEG, a);
}
bt_tensor bt_relu(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_RELU, a);
}
bt_tensor bt_sigmoid(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_SIGMOID, a);
}
bt_tensor bt_tanh(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_TANH, a);
}
bt_tensor bt_gelu(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_GELU, a);
}
bt_tensor bt_exp(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_EXP, a);
}
bt_tensor bt_log(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_LOG, a);
}
bt_tensor bt_sqrt(bt_context *ctx, bt_tensor a) {
    return unary(ctx, BT_MAP_SQRT, a);
}

// fn(user, a), or fn(user, a) b with b.
static bt_tensor map_host_node(bt_context *ctx, bt_tensor a, bt_tensor b, bt_map_fn fn,
                               bt_map_fn derivative, void *user) {
    if (!bt_graph_has_reals(ctx, "bt_map", a, b.id ? b : a)) return (bt_tensor){0};
    if (!ctx->api->host)
        return bt_fail(bt_error_of(ctx), BT_ERROR_DEVICE,
                       "bt_map calls a function of the host, which device %s cannot; use the cpu",
                       ctx->api->name),
               (bt_tensor){0};
    bt_node node = {.op = BT_OP_MAP_HOST, .in = {a.id, b.id}, .derivative = derivative};
    node.attr.host = (bt_map_host_args){.fn = fn, .user = user};
    node.dtype = bt_node_of(ctx, a)->dtype;
    node.shape = bt_node_of(ctx, a)->shape;
    return bt_node_add(ctx, &node);
}

bt_tensor bt_map(bt_context *ctx, bt_tensor a, bt_map_fn fn, bt_map_fn derivative, void *user) {
    return map_host_node(ctx, a, (bt_tensor){0}, fn, derivative, user);
}

bt_tensor bt_permute(bt_context *ctx, bt_tensor a, const int order[BT_RANK_MAX]) {
    if (!bt_graph_has_reals(ctx, "permute", a, a)) return (bt_tensor){0};
    bt_shape shape = bt_node_of(ctx, a)->shape;
    bt_node node = {.op = BT_OP_PERMUTE, .in = {a.id}, .dtype = bt_node_of(ctx, a)->dtype};
    node.shape.rank = shape.rank;
    unsigned seen = 0;
    for (int i = 0; i < shape.rank; i++) {
        if (order[i] < 0 || order[i] >= shape.rank || seen >> order[i] & 1)
            return bt_graph_fail(ctx, "permute: order[%d] = %d; each of 0 to %d must come once", i,
                                 order[i], shape.rank - 1);
        seen |= 1u << order[i];
        node.attr.order[i] = order[i];
        node.shape.dim[i] = shape.dim[order[i]];
    }
    return bt_node_add(ctx, &node);
}

bt_tensor bt_transpose(bt_context *ctx, bt_tensor a) {
    if (!bt_graph_has(ctx, "transpose", a)) return (bt_tensor){0};
    int rank = bt_node_of(ctx, a)->shape.rank, order[BT_RANK_MAX] = {0, 1, 2, 3};
    if (rank < 2)
        return bt_graph_fail(ctx, "transpose: needs two dimensions, and %s has %d",
                             bt_shape_text(bt_node_of(ctx, a)->shape), rank);
    order[rank - 2] = rank - 1;
    order[rank - 1] = rank - 2;
    return bt_permute(ctx, a, order);
}

bt_tensor bt_reshape(bt_context *ctx, bt_tensor a, bt_shape shape) {
    if (!bt_graph_has(ctx, "reshape", a)) return (bt_tensor){0};
    const bt_node *from = bt_node_of(ctx, a);
    size_t count = bt_shape_count(from->shape), known = 1;
    int open = -1;
    bool bad = shape.rank < 0 || shape.rank > BT_RANK_MAX;
    for (int i = 0; !bad && i < shape.rank; i++) {
        bad = shape.dim[i] < -1 || (shape.dim[i] == -1 && open >= 0);
        if (shape.dim[i] == -1)
            open = i;
        else
            known *= (size_t)shape.dim[i] & 0x7fffffff;
    }
    if (!bad && open >= 0 && known) shape.dim[open] = (int)(count / known);
    if (bad || (open >= 0 && !known) || bt_shape_count(shape) != count)
        return bt_graph_fail(ctx, "reshape: %s does not have the elements of %s",
                             bt_shape_text(from->shape), bt_shape_text(shape));
    return bt_node_add(
        ctx, &(bt_node){.op = BT_OP_RESHAPE, .in = {a.id}, .dtype = from->dtype, .shape = shape});
}

bt_tensor bt_broadcast(bt_context *ctx, bt_tensor a, bt_shape shape) {
    if (!bt_graph_has_reals(ctx, "broadcast", a, a)) return (bt_tensor){0};
    const bt_node *from = bt_node_of(ctx, a);
    bt_shape result;
    if (shape.rank > BT_RANK_MAX || !broadcast_shape(from->shape, shape, &result) ||
        !bt_shape_equal(result, shape))
        return bt_graph_fail(ctx, "broadcast: %s does not repeat to %s", bt_shape_text(from->shape),
                             bt_shape_text(shape));
    return bt_node_add(
        ctx, &(bt_node){.op = BT_OP_BROADCAST, .in = {a.id}, .dtype = from->dtype, .shape = shape});
}

bt_tensor bt_bias(bt_context *ctx, bt_tensor x, bt_tensor bias) {
    if (!bt_graph_has_reals(ctx, "bias", x, bias)) return (bt_tensor){0};
    bt_shape sx = bt_node_of(ctx, x)->shape, sb = bt_node_of(ctx, bias)->shape;
    if (sx.rank < 2 || sb.rank != 1 || sb.dim[0] != sx.dim[1])
        return bt_graph_fail(ctx, "bias: %s does not fit dimension 1 of %s", bt_shape_text(sb),
                             bt_shape_text(sx));
    bt_shape aligned = {.rank = sx.rank - 1, .dim = {sb.dim[0], 1, 1}};
    if (aligned.rank > 1) bias = bt_reshape(ctx, bias, aligned);
    return bt_add(ctx, x, bias);
}

// ---- Gradients -------------------------------------------------------------------------------

bt_tensor bt_unbroadcast(bt_context *ctx, bt_tensor dy, bt_shape shape) {
    if (!dy.id) return dy;
    bt_shape from = bt_node_of(ctx, dy)->shape;
    unsigned axes = 0;
    for (int i = 0; i < from.rank; i++) {
        int j = i - (from.rank - shape.rank);
        if (j < 0 || (shape.dim[j] == 1 && from.dim[i] != 1)) axes |= 1u << i;
    }
    if (axes) dy = bt_sum(ctx, dy, axes, true);
    if (dy.id && !bt_shape_equal(bt_node_of(ctx, dy)->shape, shape))
        dy = bt_reshape(ctx, dy, shape);
    return dy;
}

bt_tensor bt_times_scalar_grad(bt_context *ctx, bt_tensor t, bt_tensor dy) {
    if (!dy.id || bt_node_of(ctx, dy)->one) return t;
    return bt_mul(ctx, t, bt_reshape(ctx, dy, BT_SCALAR));
}

BT_GRAD(reshape) {
    dx[0] = bt_reshape(ctx, dy, ctx->nodes[bt_node_of(ctx, y)->in[0]].shape);
}

BT_GRAD(permute) {
    const bt_node *node = bt_node_of(ctx, y);
    int inverse[BT_RANK_MAX] = {0};
    for (int i = 0; i < node->shape.rank; i++) inverse[node->attr.order[i]] = i;
    dx[0] = bt_permute(ctx, dy, inverse);
}

BT_GRAD(broadcast) {
    dx[0] = bt_unbroadcast(ctx, dy, ctx->nodes[bt_node_of(ctx, y)->in[0]].shape);
}

BT_GRAD(map) {
    const bt_node node = *bt_node_of(ctx, y);
    bt_tensor a = {node.in[0]}, b = {node.in[1]};
    switch (node.attr.map) {
    case BT_MAP_COPY: dx[0] = dy; break;
    case BT_MAP_ADD: dx[0] = dx[1] = dy; break;
    case BT_MAP_SUB: dx[0] = dy, dx[1] = bt_neg(ctx, dy); break;
    case BT_MAP_MUL: dx[0] = bt_mul(ctx, dy, b), dx[1] = bt_mul(ctx, dy, a); break;
    case BT_MAP_DIV:
        dx[0] = bt_div(ctx, dy, b);
        dx[1] = bt_neg(ctx, bt_mul(ctx, dx[0], y));
        break;
    case BT_MAP_NEG: dx[0] = bt_neg(ctx, dy); break;
    case BT_MAP_RELU: dx[0] = bt_map_node(ctx, BT_MAP_RELU_GRAD, y, dy); break;
    case BT_MAP_SIGMOID: dx[0] = bt_map_node(ctx, BT_MAP_SIGMOID_GRAD, y, dy); break;
    case BT_MAP_TANH: dx[0] = bt_map_node(ctx, BT_MAP_TANH_GRAD, y, dy); break;
    case BT_MAP_GELU: dx[0] = bt_map_node(ctx, BT_MAP_GELU_GRAD, a, dy); break;
    case BT_MAP_EXP: dx[0] = bt_mul(ctx, dy, y); break;
    case BT_MAP_LOG: dx[0] = bt_div(ctx, dy, a); break;
    case BT_MAP_SQRT: dx[0] = bt_map_node(ctx, BT_MAP_SQRT_GRAD, y, dy); break;
    default: bt_graph_fail(ctx, "%s has no gradient of its own", map_names[node.attr.map]); return;
    }
    for (int i = 0; i < 2; i++)
        if (dx[i].id) dx[i] = bt_unbroadcast(ctx, dx[i], ctx->nodes[node.in[i]].shape);
}

BT_GRAD(map_host) {
    const bt_node node = *bt_node_of(ctx, y);
    if (!node.derivative) {
        bt_graph_fail(ctx, "bt_map: a gradient is asked for and no derivative was given");
        return;
    }
    dx[0] =
        map_host_node(ctx, (bt_tensor){node.in[0]}, dy, node.derivative, NULL, node.attr.host.user);
}

// ---- Lowering --------------------------------------------------------------------------------

// Element strides of `from` seen as `to`, aligned at the last of four dimensions; 0 repeats.
static void broadcast_strides(bt_shape from, bt_shape to, uint32_t stride[4]) {
    uint32_t step = 1;
    memset(stride, 0, 4 * sizeof *stride);
    for (int i = 1; i <= from.rank; i++) {
        int dim = from.dim[from.rank - i];
        bool repeats = dim == 1 && to.dim[to.rank - i] != 1;
        stride[4 - i] = repeats ? 0 : step;
        step *= (uint32_t)dim;
    }
}

// Merges neighbouring dimensions that both operands walk through as one, and drops those of 1,
// so that the kernel meets dense data as one long row.
static void collapse(bt_map_args *args) {
    int last = 3;
    for (int i = 2; i >= 0; i--) {
        if (args->dim[i] == 1) continue;
        uint32_t n = args->dim[last];
        bool merges = n == 1 || (args->a_stride[i] == n * args->a_stride[last] &&
                                 args->b_stride[i] == n * args->b_stride[last]);
        if (!merges) last--;
        uint32_t dim = args->dim[i], a = args->a_stride[i], b = args->b_stride[i];
        if (merges && n != 1) {
            args->dim[last] = n * dim;
        } else {
            args->dim[last] = dim;
            args->a_stride[last] = a;
            args->b_stride[last] = b;
        }
    }
    for (int i = 0; i < last; i++) {
        args->dim[i] = 1;
        args->a_stride[i] = args->b_stride[i] = 0;
    }
}

static void emit_map(bt_lowering *lo, uint32_t id, bt_map_args args) {
    const bt_node *node = bt_lower_node(lo, id);
    for (int i = 0; i < 4; i++) {
        int d = i - (4 - node->shape.rank);
        args.dim[i] = d >= 0 ? (uint32_t)node->shape.dim[d] : 1;
    }
    collapse(&args);
    bt_emission e = bt_lower_emission(lo, id, 2);
    e.flops = args.op == BT_MAP_COPY ? 0 : (double)bt_shape_count(node->shape);
    bt_emit_map(lo, e, &args);
}

BT_LOWER(map) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_map_args args = {.op = node->attr.map};
    broadcast_strides(bt_lower_node(lo, node->in[0])->shape, node->shape, args.a_stride);
    if (node->in[1])
        broadcast_strides(bt_lower_node(lo, node->in[1])->shape, node->shape, args.b_stride);
    else
        memcpy(args.b_stride, args.a_stride, sizeof args.b_stride);
    emit_map(lo, id, args);
}

BT_LOWER(broadcast) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_map_args args = {.op = BT_MAP_COPY};
    broadcast_strides(bt_lower_node(lo, node->in[0])->shape, node->shape, args.a_stride);
    memcpy(args.b_stride, args.a_stride, sizeof args.b_stride);
    emit_map(lo, id, args);
}

BT_LOWER(permute) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_shape from = bt_lower_node(lo, node->in[0])->shape;
    uint32_t dense[4];
    bt_map_args args = {.op = BT_MAP_COPY};
    broadcast_strides(from, from, dense);
    for (int i = 0; i < from.rank; i++)
        args.a_stride[4 - from.rank + i] = dense[4 - from.rank + node->attr.order[i]];
    memcpy(args.b_stride, args.a_stride, sizeof args.b_stride);
    emit_map(lo, id, args);
}

BT_LOWER(map_host) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_map_host_args args = node->attr.host;
    bt_emission e = bt_lower_emission(lo, id, 2);
    args.n = (uint32_t)bt_shape_count(node->shape);
    e.flops = args.n;
    bt_emit_map_host(lo, e, &args);
}
