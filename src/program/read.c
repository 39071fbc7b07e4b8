// Reading a tensor: compiles what it needs, runs it once, and keeps what cannot change.
#include "program/program.h"

#include <math.h>
#include <stdlib.h>

// A one-step program whose only output is t. It is not owned by the context.
static bt_status compute(bt_context *ctx, bt_tensor t, bt_program *p, bt_buffer *value) {
    bt_lowering lo;
    BT_TRY(bt_lowering_open(&lo, ctx));
    bt_lowering_want(&lo, t, true);
    bt_lowering_fuse(&lo);
    uint32_t root = bt_lowering_root(&lo, t.id);
    const bt_node *node = &ctx->nodes[root];
    size_t bytes = bt_shape_count(node->shape) * bt_dtype_size(node->dtype);
    lo.state = bt_lowering_fix(&lo, (bt_binding){p->state, 0, p->state->bytes});
    lo.nodes[root].storage = bt_lowering_fix(&lo, (bt_binding){value, 0, bytes});
    bt_status status = bt_lowering_emit_all(&lo);
    if (status == BT_OK)
        status = bt_lowering_finish(&lo, p, &(bt_program_desc){.outputs = &t, .output_count = 1});
    bt_lowering_close(&lo);
    return status == BT_OK ? bt_program_run(ctx, p, 1) : status;
}

static bt_status compute_into(bt_context *ctx, bt_tensor t, bt_buffer *value) {
    bt_program *p = calloc(1, sizeof *p);
    if (!p) return bt_fail_memory(bt_error_of(ctx), "a program", sizeof *p);
    bt_status status = bt_buffer_make(ctx, sizeof(bt_step_state), &p->state);
    if (status == BT_OK) status = bt_zero(ctx, (bt_binding){p->state, 0, p->state->bytes});
    if (status == BT_OK) status = compute(ctx, t, p, value);
    bt_program_free(ctx, p);
    return status;
}

static bt_status read_root(bt_context *ctx, uint32_t root, void *out, size_t bytes) {
    bt_buffer *value;
    BT_TRY(bt_buffer_make(ctx, bytes, &value));
    bt_status status = compute_into(ctx, (bt_tensor){root}, value);
    if (status == BT_OK)
        status = ctx->api->read(ctx->device, value, 0, out, bytes, bt_error_of(ctx));
    bt_node *node = &ctx->nodes[root];
    // A node with a second result is run again whenever that one is wanted, so it is not kept.
    if (status != BT_OK || node->varies || node->second) {
        bt_buffer_free(ctx, value);
        return status;
    }
    node->value = (bt_binding){value, 0, bytes};
    node->owns_value = true;
    return BT_OK;
}

bt_status bt_read(bt_context *ctx, bt_tensor t, void *out, size_t bytes) {
    if (t.id == 0 && bt_error_of(ctx)->status != BT_OK) return bt_error_of(ctx)->status;
    if (!bt_graph_has(ctx, "bt_read", t)) return bt_error_of(ctx)->status;
    const bt_node *node = bt_node_of(ctx, t);
    size_t needed = bt_shape_count(node->shape) * bt_dtype_size(node->dtype);
    if (bytes != needed)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_read: room for %zu bytes given for %s %s, which has %zu", bytes,
                       bt_dtype_name(node->dtype), bt_shape_text(node->shape), needed);
    if (bytes == 0) return BT_OK;
    uint32_t root = t.id;
    while (ctx->nodes[root].op == BT_OP_RESHAPE) root = ctx->nodes[root].in[0];
    const bt_binding *value = &ctx->nodes[root].value;
    if (!value->buffer) return read_root(ctx, root, out, bytes);
    return ctx->api->read(ctx->device, value->buffer, value->offset, out, bytes, bt_error_of(ctx));
}

// ---- Printing --------------------------------------------------------------------------------

enum { EDGE = 4 }; // values shown at each end of a long row

static double element(const void *data, bt_dtype dtype, size_t i) {
    switch (dtype) {
    case BT_F32: return (double)((const float *)data)[i];
    case BT_F64: return ((const double *)data)[i];
    case BT_I32: return ((const int32_t *)data)[i];
    case BT_U8: return ((const uint8_t *)data)[i];
    }
    return NAN;
}

static void print_level(FILE *out, const bt_node *node, const void *data, int axis, size_t offset) {
    if (axis == node->shape.rank) {
        bool real = node->dtype == BT_F32 || node->dtype == BT_F64;
        fprintf(out, real ? "%.5g" : "%.10g", element(data, node->dtype, offset));
        return;
    }
    int n = node->shape.dim[axis];
    size_t inner = 1;
    for (int i = axis + 1; i < node->shape.rank; i++) inner *= (size_t)node->shape.dim[i];
    bool last_axis = axis == node->shape.rank - 1;
    fputc('[', out);
    for (int i = 0; i < n; i++) {
        if (i > 0) fputs(last_axis ? ", " : ",\n", out);
        for (int s = 0; i > 0 && !last_axis && s <= axis; s++) fputc(' ', out);
        if (n > 2 * EDGE + 1 && i == EDGE) {
            fputs("...", out);
            i = n - EDGE - 1;
            continue;
        }
        print_level(out, node, data, axis + 1, offset + (size_t)i * inner);
    }
    fputc(']', out);
}

bt_status bt_print(bt_context *ctx, bt_tensor t, FILE *out) {
    if (!bt_graph_has(ctx, "bt_print", t)) return bt_error_of(ctx)->status;
    const bt_node node = *bt_node_of(ctx, t);
    size_t bytes = bt_shape_count(node.shape) * bt_dtype_size(node.dtype);
    void *data = malloc(bytes ? bytes : 1);
    if (!data) return bt_fail_memory(bt_error_of(ctx), "bt_print", bytes);
    bt_status status = bt_read(ctx, t, data, bytes);
    if (status == BT_OK) {
        fprintf(out, "%s %s\n", bt_dtype_name(node.dtype), bt_shape_text(node.shape));
        print_level(out, &node, data, 0, 0);
        fputc('\n', out);
    }
    free(data);
    return status;
}
