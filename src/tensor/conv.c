// Convolution and its two gradients; im2col and its adjoint.
#include "tensor/graph.h"

#include <limits.h>

// Fills in the output size of a window of kh x kw over [h, w]; false with a sentence where none
// fits.
static bool window_fits(bt_context *ctx, const char *op, bt_conv_args *a, int stride, int padding) {
    if (stride == 0) stride = 1;
    if (stride < 0 || padding < 0 || stride > 1 << 16 || padding > 1 << 16) {
        bt_graph_fail(ctx,
                      "%s: stride %d, padding %d; the stride is 1 to %d and the padding 0 to %d",
                      op, stride, padding, 1 << 16, 1 << 16);
        return false;
    }
    a->stride = (uint32_t)stride;
    a->padding = (uint32_t)padding;
    uint32_t h = a->h + 2 * a->padding, w = a->w + 2 * a->padding;
    if (a->kh == 0 || a->kw == 0 || h < a->kh || w < a->kw) {
        bt_graph_fail(ctx, "%s: a window of %ux%u does not fit an image of %ux%u with padding %d",
                      op, a->kh, a->kw, a->h, a->w, padding);
        return false;
    }
    a->oh = (h - a->kh) / a->stride + 1;
    a->ow = (w - a->kw) / a->stride + 1;
    return true;
}

bt_tensor bt_conv2d(bt_context *ctx, bt_tensor x, bt_tensor w, bt_tensor bias, int stride,
                    int padding) {
    if (!bt_graph_has_reals(ctx, "conv2d", x, w) ||
        (bias.id && !bt_graph_has_reals(ctx, "conv2d", x, bias)))
        return (bt_tensor){0};
    bt_shape sx = bt_node_of(ctx, x)->shape, sw = bt_node_of(ctx, w)->shape;
    if (sx.rank != 4 || sw.rank != 4 || sx.dim[1] != sw.dim[1])
        return bt_graph_fail(ctx,
                             "conv2d: image %s and weight %s; expected [n, c, h, w] and "
                             "[o, c, kh, kw]",
                             bt_shape_text(sx), bt_shape_text(sw));
    if (bias.id) {
        bt_shape sb = bt_node_of(ctx, bias)->shape;
        if (sb.rank != 1 || sb.dim[0] != sw.dim[0])
            return bt_graph_fail(ctx, "conv2d: bias %s for %d output channels", bt_shape_text(sb),
                                 sw.dim[0]);
    }
    bt_conv_args args = {.n = (uint32_t)sx.dim[0],
                         .c = (uint32_t)sx.dim[1],
                         .h = (uint32_t)sx.dim[2],
                         .w = (uint32_t)sx.dim[3],
                         .o = (uint32_t)sw.dim[0],
                         .kh = (uint32_t)sw.dim[2],
                         .kw = (uint32_t)sw.dim[3]};
    if (!window_fits(ctx, "conv2d", &args, stride, padding)) return (bt_tensor){0};
    return bt_node_add(
        ctx, &(bt_node){.op = BT_OP_CONV2D,
                        .in = {x.id, w.id, bias.id},
                        .dtype = bt_node_of(ctx, x)->dtype,
                        .shape = BT_SHAPE(sx.dim[0], sw.dim[0], (int)args.oh, (int)args.ow),
                        .attr.conv = args});
}

bt_tensor bt_im2col(bt_context *ctx, bt_tensor x, int kh, int kw, int stride, int padding) {
    if (!bt_graph_has_reals(ctx, "im2col", x, x)) return (bt_tensor){0};
    bt_shape sx = bt_node_of(ctx, x)->shape;
    if (sx.rank != 4 || kh < 1 || kw < 1 || kh > 1 << 16 || kw > 1 << 16)
        return bt_graph_fail(ctx,
                             "im2col: image %s and window %dx%d; expected [n, c, h, w] and a "
                             "window of at least 1x1",
                             bt_shape_text(sx), kh, kw);
    bt_conv_args args = {.n = (uint32_t)sx.dim[0],
                         .c = (uint32_t)sx.dim[1],
                         .h = (uint32_t)sx.dim[2],
                         .w = (uint32_t)sx.dim[3],
                         .kh = (uint32_t)kh,
                         .kw = (uint32_t)kw};
    if (!window_fits(ctx, "im2col", &args, stride, padding)) return (bt_tensor){0};
    int64_t taps = (int64_t)kh * kw, pixels = (int64_t)args.oh * args.ow;
    if (pixels > INT_MAX || taps > INT_MAX || taps * sx.dim[1] > INT_MAX)
        return bt_graph_fail(ctx,
                             "im2col: %dx%d windows at %ux%u places of %s are 2^31 numbers or "
                             "more",
                             kh, kw, args.oh, args.ow, bt_shape_text(sx));
    bt_shape shape = BT_SHAPE(sx.dim[0], sx.dim[1] * (int)taps, (int)pixels);
    return bt_node_add(ctx, &(bt_node){.op = BT_OP_IM2COL,
                                       .in = {x.id},
                                       .dtype = bt_node_of(ctx, x)->dtype,
                                       .shape = shape,
                                       .attr.conv = args});
}

static bt_tensor conv_node(bt_context *ctx, bt_op op, bt_tensor a, bt_tensor b, bt_shape shape,
                           const bt_node *like) {
    if (!a.id) return a;
    return bt_node_add(ctx, &(bt_node){.op = op,
                                       .in = {a.id, b.id},
                                       .dtype = like->dtype,
                                       .shape = shape,
                                       .attr.conv = like->attr.conv});
}

BT_GRAD(conv2d) {
    const bt_node node = *bt_node_of(ctx, y);
    bt_tensor x = {node.in[0]}, w = {node.in[1]};
    dx[0] = conv_node(ctx, BT_OP_CONV2D_GRAD_INPUT, dy, w, ctx->nodes[x.id].shape, &node);
    dx[1] = conv_node(ctx, BT_OP_CONV2D_GRAD_WEIGHT, dy, x, ctx->nodes[w.id].shape, &node);
    if (node.in[2]) dx[2] = bt_sum(ctx, dy, 1u << 0 | 1u << 2 | 1u << 3, false);
}

BT_GRAD(im2col) {
    const bt_node node = *bt_node_of(ctx, y);
    dx[0] = conv_node(ctx, BT_OP_COL2IM, dy, (bt_tensor){0}, ctx->nodes[node.in[0]].shape, &node);
}

static double conv_flops(const bt_conv_args *a) {
    return 2.0 * a->n * a->o * a->oh * a->ow * a->c * a->kh * a->kw;
}

BT_LOWER(conv2d) {
    const bt_node *node = bt_lower_node(lo, id);
    const bt_fusion fusion = bt_lower_fusion(lo, id);
    bt_conv_args args = node->attr.conv;
    args.epilogue = fusion.epilogue;
    bt_emit_conv2d(
        lo,
        (bt_emission){.dtype = node->dtype,
                      .binding = {bt_lower_value(lo, node->in[0]), bt_lower_value(lo, node->in[1]),
                                  bt_lower_value(lo, node->in[2]), bt_lower_value(lo, fusion.out)},
                      .flops = conv_flops(&args)},
        &args);
}

BT_LOWER(conv2d_grad_input) {
    const bt_conv_args *args = &bt_lower_node(lo, id)->attr.conv;
    bt_emission e = bt_lower_emission(lo, id, 2);
    e.flops = conv_flops(args);
    bt_emit_conv2d_grad_input(lo, e, args);
}

BT_LOWER(conv2d_grad_weight) {
    const bt_node *node = bt_lower_node(lo, id);
    const bt_conv_args *args = &node->attr.conv;
    uint32_t weights = (uint32_t)bt_shape_count(node->shape);
    uint32_t chunks = (args->n + BT_CONV_CHUNK - 1) / BT_CONV_CHUNK;
    if ((uint64_t)chunks * weights > INT32_MAX)
        bt_lower_fail(
            lo, BT_ERROR_USAGE,
            "the gradient of a convolution's weights needs 2^31 partial sums or more; try "
            "a smaller batch");
    bt_storage partial =
        chunks == 1 ? bt_lower_value(lo, id)
                    : bt_lower_temporary(lo, (size_t)chunks * weights * bt_dtype_size(node->dtype));
    if (chunks > 0)
        bt_emit_conv2d_grad_weight(
            lo,
            (bt_emission){.dtype = node->dtype,
                          .binding = {bt_lower_value(lo, node->in[0]),
                                      bt_lower_value(lo, node->in[1]), partial},
                          .flops = conv_flops(args)},
            args);
    if (chunks != 1)
        bt_emit_reduce_sum(lo,
                           (bt_emission){.dtype = node->dtype,
                                         .binding = {partial, bt_lower_value(lo, id)},
                                         .flops = (double)chunks * weights},
                           &(bt_reduce_args){1, chunks, weights, 0});
}

BT_LOWER(im2col) {
    bt_emit_im2col(lo, bt_lower_emission(lo, id, 1), &bt_lower_node(lo, id)->attr.conv);
}

BT_LOWER(col2im) {
    bt_emit_col2im(lo, bt_lower_emission(lo, id, 1), &bt_lower_node(lo, id)->attr.conv);
}
