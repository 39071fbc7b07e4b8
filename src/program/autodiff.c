// Reverse-mode differentiation: walks the graph backwards from a scalar and extends it with the
// nodes that compute gradients, so that they are lowered, fused and planned like any others.
// Griewank and Walther, "Evaluating Derivatives", 2008, section 3.2.
#include "tensor/graph.h"

#include <stdlib.h>

typedef struct tape {
    bool *depends; // by node id: on something in wrt, differentiably
    bt_tensor *adjoint;
} tape;

static bool is_real(bt_dtype dtype) {
    return dtype == BT_F32 || dtype == BT_F64;
}

static void mark_dependent(bt_context *ctx, tape *t, bt_tensor loss, const bt_tensor *wrt,
                           int count) {
    for (int i = 0; i < count; i++)
        if (wrt[i].id <= loss.id) t->depends[wrt[i].id] = true;
    for (uint32_t id = 1; id <= loss.id; id++) {
        const bt_node *node = &ctx->nodes[id];
        for (int i = 0; i < BT_INPUTS_MAX; i++)
            if (node->in[i] && t->depends[node->in[i]] && is_real(node->dtype))
                t->depends[id] = true;
    }
}

static void differentiate(bt_context *ctx, tape *t, uint32_t id) {
    const bt_node node = ctx->nodes[id];
    bt_tensor dx[BT_INPUTS_MAX] = {{0}};
    bool passes = false; // nothing to do where the walk ends: at a leaf, or at what was asked for
    for (int i = 0; i < BT_INPUTS_MAX; i++) passes |= node.in[i] && t->depends[node.in[i]];
    if (!passes) return;
    if (!bt_op_table[node.op].grad) {
        bt_graph_fail(ctx, "%s has no gradient", bt_op_table[node.op].name);
        return;
    }
    ctx->scope = node.scope;
    bt_op_table[node.op].grad(ctx, (bt_tensor){id}, t->adjoint[id], dx);
    for (int i = 0; i < BT_INPUTS_MAX; i++) {
        bt_tensor *sum = &t->adjoint[node.in[i]];
        if (!node.in[i] || !t->depends[node.in[i]] || !dx[i].id) continue;
        *sum = sum->id ? bt_add(ctx, *sum, dx[i]) : dx[i];
    }
}

static bt_status walk(bt_context *ctx, tape *t, bt_tensor loss, const bt_tensor *wrt, int count,
                      bt_tensor *grads) {
    const char *scope = ctx->scope;
    mark_dependent(ctx, t, loss, wrt, count);
    bt_tensor one = bt_ones(ctx, bt_node_of(ctx, loss)->dtype, bt_node_of(ctx, loss)->shape);
    if (!one.id) return bt_error_of(ctx)->status;
    bt_node_of(ctx, one)->one = true;
    t->adjoint[loss.id] = one;
    ctx->backward = true;
    for (uint32_t id = loss.id; id > 0 && bt_error_of(ctx)->status == BT_OK; id--)
        if (t->adjoint[id].id && t->depends[id]) differentiate(ctx, t, id);
    ctx->backward = false;
    ctx->scope = scope;
    for (int i = 0; i < count; i++) {
        bt_node node = *bt_node_of(ctx, wrt[i]);
        grads[i] = wrt[i].id <= loss.id ? t->adjoint[wrt[i].id] : (bt_tensor){0};
        if (!grads[i].id) grads[i] = bt_zeros(ctx, node.dtype, node.shape);
    }
    return bt_error_of(ctx)->status;
}

bt_status bt_grad(bt_context *ctx, bt_tensor loss, const bt_tensor *wrt, int count,
                  bt_tensor *grads) {
    if (!bt_graph_has_reals(ctx, "bt_grad", loss, loss)) return bt_error_of(ctx)->status;
    for (int i = 0; i < count; i++)
        if (!bt_graph_has_reals(ctx, "bt_grad", wrt[i], wrt[i])) return bt_error_of(ctx)->status;
    if (bt_shape_count(bt_node_of(ctx, loss)->shape) != 1)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_grad: the loss has shape %s; it must be one number, such as a mean",
                       bt_shape_text(bt_node_of(ctx, loss)->shape));
    tape t = {.depends = calloc(loss.id + 1, sizeof *t.depends),
              .adjoint = calloc(loss.id + 1, sizeof *t.adjoint)};
    bt_status status = t.depends && t.adjoint
                           ? walk(ctx, &t, loss, wrt, count, grads)
                           : bt_fail_memory(bt_error_of(ctx), "bt_grad", loss.id);
    free(t.depends);
    free(t.adjoint);
    return status;
}
