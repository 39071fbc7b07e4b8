// Nodes, leaves and shapes.
#include "tensor/graph.h"

#include "base/checked.h"
#include "base/rng.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

// ---- Shapes and dtypes -----------------------------------------------------------------------

static const struct {
    size_t size;
    const char *name;
} dtypes[] = {
    [BT_F32] = {4, "f32"}, [BT_F64] = {8, "f64"}, [BT_I32] = {4, "i32"}, [BT_U8] = {1, "u8"}};

size_t bt_dtype_size(bt_dtype dtype) {
    return dtypes[dtype].size;
}
const char *bt_dtype_name(bt_dtype dtype) {
    return dtypes[dtype].name;
}

size_t bt_shape_count(bt_shape shape) {
    size_t count = 1;
    for (int i = 0; i < shape.rank; i++) count *= (size_t)shape.dim[i];
    return count;
}

bool bt_shape_equal(bt_shape a, bt_shape b) {
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return true;
}

const char *bt_shape_text(bt_shape shape) {
    static _Thread_local char ring[4][64];
    static _Thread_local int next;
    char *text = ring[next++ % 4];
    int at = snprintf(text, 64, "[");
    for (int i = 0; i < shape.rank && i < BT_RANK_MAX; i++)
        at += snprintf(text + at, (size_t)(64 - at), "%s%d", i ? ", " : "", shape.dim[i]);
    snprintf(text + at, (size_t)(64 - at), "]");
    return text;
}

static bool shape_is_possible(bt_shape shape) {
    if (shape.rank < 0 || shape.rank > BT_RANK_MAX) return false;
    size_t count = 1;
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] < 0 || !bt_mul_ok(count, (size_t)shape.dim[i], &count)) return false;
    return count < (size_t)1 << 31;
}

// ---- Nodes -----------------------------------------------------------------------------------

bt_tensor bt_graph_fail(bt_context *ctx, const char *format, ...) {
    char text[384];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bt_fail(bt_error_of(ctx), BT_ERROR_USAGE, "%s%s%s", ctx->scope ? ctx->scope : "",
            ctx->scope ? ": " : "", text);
    return (bt_tensor){0};
}

bool bt_graph_has(bt_context *ctx, const char *op, bt_tensor t) {
    if (t.id != 0 && t.id < ctx->node_count) return true;
    // With {0} the cause was recorded when it was made; keep that sentence.
    bt_graph_fail(ctx, "%s: its operand is not a tensor of this context", op);
    return false;
}

bool bt_graph_has_reals(bt_context *ctx, const char *op, bt_tensor a, bt_tensor b) {
    if (!bt_graph_has(ctx, op, a) || !bt_graph_has(ctx, op, b)) return false;
    bt_dtype da = bt_node_of(ctx, a)->dtype, db = bt_node_of(ctx, b)->dtype;
    if (da == db && (da == BT_F32 || da == BT_F64)) return true;
    bt_graph_fail(ctx, "%s: operands are %s and %s; both must be f32, or both f64", op,
                  bt_dtype_name(da), bt_dtype_name(db));
    return false;
}

bt_tensor bt_node_add(bt_context *ctx, const bt_node *node) {
    if (!shape_is_possible(node->shape))
        return bt_graph_fail(ctx, "%s: the result %s has 2^31 elements or more",
                             bt_op_table[node->op].name, bt_shape_text(node->shape));
    bt_node copy = *node; // may be one of ctx->nodes, which moves
    if (ctx->node_count == ctx->node_capacity) {
        size_t bytes = 2 * (size_t)ctx->node_capacity * sizeof *ctx->nodes;
        bt_node *nodes = realloc(ctx->nodes, bytes);
        if (!nodes) return bt_fail_memory(bt_error_of(ctx), "the graph", bytes), (bt_tensor){0};
        ctx->nodes = nodes;
        ctx->node_capacity *= 2;
    }
    copy.varies = copy.writable || copy.op == BT_OP_GATHER;
    for (int i = 0; i < BT_INPUTS_MAX; i++)
        if (copy.in[i]) copy.varies |= ctx->nodes[copy.in[i]].varies;
    copy.scope = ctx->scope;
    copy.backward = ctx->backward;
    ctx->nodes[ctx->node_count] = copy;
    return (bt_tensor){ctx->node_count++};
}

bt_tensor bt_node_add_second(bt_context *ctx, bt_tensor first, bt_dtype dtype, bt_shape shape) {
    if (!first.id) return first;
    bt_tensor second = bt_node_add(
        ctx, &(bt_node){.op = BT_OP_SECOND, .dtype = dtype, .shape = shape, .in = {first.id}});
    bt_node_of(ctx, first)->second = second.id;
    return second;
}

bt_shape bt_tensor_shape(const bt_context *ctx, bt_tensor t) {
    return t.id && t.id < ctx->node_count ? ctx->nodes[t.id].shape : BT_SCALAR;
}

bt_dtype bt_tensor_dtype(const bt_context *ctx, bt_tensor t) {
    return t.id && t.id < ctx->node_count ? ctx->nodes[t.id].dtype : BT_F32;
}

// ---- Leaves ----------------------------------------------------------------------------------

static bt_tensor leaf(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data,
                      bool writable, bool parameter) {
    if (!shape_is_possible(shape))
        return bt_graph_fail(ctx,
                             "shape %s of rank %d: ranks are 0 to %d, dimensions not negative, "
                             "and there are fewer than 2^31 elements",
                             bt_shape_text(shape), shape.rank, BT_RANK_MAX);
    bt_node node = {.op = BT_OP_LEAF, .dtype = dtype, .shape = shape, .writable = writable};
    size_t bytes = bt_shape_count(shape) * bt_dtype_size(dtype);
    bt_status status;
    if (parameter) {
        status = bt_parameter_place(ctx, bytes, &node.value);
    } else {
        bt_buffer *buffer;
        status = bt_buffer_make(ctx, bytes, &buffer);
        node.value = (bt_binding){buffer, 0, bytes};
        node.owns_value = true;
    }
    if (status != BT_OK) return (bt_tensor){0};
    bt_tensor t = bt_node_add(ctx, &node);
    if (!t.id && node.owns_value) bt_buffer_free(ctx, node.value.buffer);
    if (!t.id) return t;
    if (data && bytes)
        status = ctx->api->write(ctx->device, node.value.buffer, node.value.offset, data, bytes,
                                 bt_error_of(ctx));
    else
        status = bt_zero(ctx, node.value);
    return status == BT_OK ? t : (bt_tensor){0};
}

bt_tensor bt_from(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data) {
    return leaf(ctx, dtype, shape, data, false, false);
}

bt_tensor bt_zeros(bt_context *ctx, bt_dtype dtype, bt_shape shape) {
    return leaf(ctx, dtype, shape, NULL, false, false);
}

bt_tensor bt_input(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data) {
    return leaf(ctx, dtype, shape, data, true, false);
}

bt_tensor bt_parameter(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data) {
    if (dtype != BT_F32 && dtype != BT_F64)
        return bt_graph_fail(ctx, "a parameter is f32 or f64, not %s", bt_dtype_name(dtype));
    return leaf(ctx, dtype, shape, data, true, true);
}

// Element i of a leaf that is computed on the host.
typedef double (*element_fn)(const void *user, size_t i);

static void store(void *data, bt_dtype dtype, size_t i, double value) {
    switch (dtype) {
    case BT_F32: ((float *)data)[i] = (float)value; break;
    case BT_F64: ((double *)data)[i] = value; break;
    case BT_I32: ((int32_t *)data)[i] = (int32_t)value; break;
    case BT_U8: ((uint8_t *)data)[i] = (uint8_t)value; break;
    }
}

static bt_tensor computed_leaf(bt_context *ctx, bt_dtype dtype, bt_shape shape, element_fn fn,
                               const void *user) {
    if (!shape_is_possible(shape)) return leaf(ctx, dtype, shape, NULL, false, false);
    size_t count = bt_shape_count(shape), bytes = count * bt_dtype_size(dtype);
    void *data = malloc(bytes ? bytes : 1);
    if (!data) return bt_fail_memory(bt_error_of(ctx), "a tensor", bytes), (bt_tensor){0};
    for (size_t i = 0; i < count; i++) store(data, dtype, i, fn(user, i));
    bt_tensor t = leaf(ctx, dtype, shape, data, false, false);
    free(data);
    return t;
}

static double constant_element(const void *user, size_t i) {
    (void)i;
    return *(const double *)user;
}

bt_tensor bt_full(bt_context *ctx, bt_dtype dtype, bt_shape shape, double value) {
    return computed_leaf(ctx, dtype, shape, constant_element, &value);
}

bt_tensor bt_ones(bt_context *ctx, bt_dtype dtype, bt_shape shape) {
    return bt_full(ctx, dtype, shape, 1.0);
}

static double eye_element(const void *user, size_t i) {
    return i % (size_t)(*(const int *)user + 1) == 0;
}

bt_tensor bt_eye(bt_context *ctx, bt_dtype dtype, int n) {
    return computed_leaf(ctx, dtype, BT_SHAPE(n, n), eye_element, &n);
}

typedef struct random_desc {
    uint64_t seed;
    bool normal;
    double a, b;
} random_desc;

static double random_element(const void *user, size_t i) {
    const random_desc *d = user;
    return bt_random_real(bt_philox(d->seed, BT_STREAM_USER, i), d->normal, d->a, d->b);
}

// In f32 a node, so that no number crosses to the device; the other types come from the host.
static bt_tensor random_tensor(bt_context *ctx, bt_dtype dtype, bt_shape shape,
                               const random_desc *d) {
    if (dtype != BT_F32 || !ctx->device || !shape_is_possible(shape))
        return computed_leaf(ctx, dtype, shape, random_element, d);
    return bt_node_add(ctx, &(bt_node){.op = BT_OP_RANDOM,
                                       .dtype = dtype,
                                       .shape = shape,
                                       .attr.random = {.n = (uint32_t)bt_shape_count(shape),
                                                       .seed_low = (uint32_t)d->seed,
                                                       .seed_high = (uint32_t)(d->seed >> 32),
                                                       .stream = BT_STREAM_USER,
                                                       .normal = d->normal,
                                                       .a = (float)d->a,
                                                       .b = (float)d->b}});
}

bt_tensor bt_random_uniform(bt_context *ctx, bt_dtype dtype, bt_shape shape, uint64_t seed,
                            double low, double high) {
    return random_tensor(ctx, dtype, shape, &(random_desc){seed, false, low, high});
}

bt_tensor bt_random_normal(bt_context *ctx, bt_dtype dtype, bt_shape shape, uint64_t seed,
                           double mean, double deviation) {
    return random_tensor(ctx, dtype, shape, &(random_desc){seed, true, mean, deviation});
}

BT_LOWER(random) {
    bt_emit_random(lo, bt_lower_emission(lo, id, 0), &bt_lower_node(lo, id)->attr.random);
}

bt_status bt_write(bt_context *ctx, bt_tensor t, const void *data, size_t bytes) {
    if (!bt_graph_has(ctx, "bt_write", t)) return bt_error_of(ctx)->status;
    const bt_node *node = bt_node_of(ctx, t);
    if (!node->writable)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_write: only inputs and parameters can be written");
    if (bytes != node->value.bytes)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_write: %zu bytes given for %s %s, which has %zu", bytes,
                       bt_dtype_name(node->dtype), bt_shape_text(node->shape), node->value.bytes);
    if (bytes == 0) return BT_OK;
    return ctx->api->write(ctx->device, node->value.buffer, node->value.offset, data, bytes,
                           bt_error_of(ctx));
}
