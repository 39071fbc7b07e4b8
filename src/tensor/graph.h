// The graph: tensors are nodes in the order in which they were made, so a node's inputs always
// have smaller ids. An operator is one entry of bt_op_table: how it lowers to launches, and how
// its gradient is built from other nodes. Nothing here computes.
#ifndef BT_TENSOR_GRAPH_H
#define BT_TENSOR_GRAPH_H

#include "base/owner.h"
#include "device/device.h"
#include "device/kernels.h"

// LEAF has values; SECOND is the second result of the node before it; RESHAPE shares storage.
#define BT_OPS(X)         \
    X(LEAF)               \
    X(SECOND)             \
    X(RESHAPE)            \
    X(RANDOM)             \
    X(PERMUTE)            \
    X(BROADCAST)          \
    X(MAP)                \
    X(MAP_HOST)           \
    X(MATMUL)             \
    X(REDUCE_SUM)         \
    X(REDUCE_MAX)         \
    X(SCATTER_AXIS)       \
    X(SOFTMAX)            \
    X(SOFTMAX_GRAD)       \
    X(XENT)               \
    X(CONV2D)             \
    X(CONV2D_GRAD_INPUT)  \
    X(CONV2D_GRAD_WEIGHT) \
    X(IM2COL)             \
    X(COL2IM)             \
    X(MAX_POOL)           \
    X(MAX_POOL_GRAD)      \
    X(AVG_POOL)           \
    X(AVG_POOL_GRAD)      \
    X(GATHER)

typedef enum bt_op {
#define X(id) BT_OP_##id,
    BT_OPS(X)
#undef X
        BT_OP_COUNT
} bt_op;

enum { BT_INPUTS_MAX = 3 };

typedef struct bt_node {
    bt_op op;
    bt_dtype dtype;
    bt_shape shape;
    uint32_t in[BT_INPUTS_MAX]; // node ids; 0: absent
    uint32_t second;            // id of the SECOND node that belongs to this one; 0: none
    bool varies;                // depends on an input, a parameter or the step counter
    bool writable;              // an input or parameter
    bool one;                   // a constant scalar 1, as the gradient of a loss starts
    bool owns_value;            // value.buffer was made for this node alone
    bool backward;              // built by bt_grad
    const char *scope;          // see bt_scope
    bt_binding value;           // buffer NULL: not computed yet
    union {
        bt_random_args random;
        bt_map_op map;
        int order[BT_RANK_MAX]; // PERMUTE
        bt_map_host_args host;
        struct {
            bool transpose_a, transpose_b;
        } matmul;
        bt_reduce_args reduce;
        bt_softmax_args softmax;
        bt_xent_args xent;
        bt_conv_args conv;
        bt_pool_args pool;
        bt_gather_args gather;
    } attr;
    bt_map_fn derivative; // MAP_HOST
} bt_node;

// Parameters lie side by side in chunks, so that one launch updates them all.
typedef struct bt_chunk {
    bt_buffer *buffer;
    size_t used;
} bt_chunk;

typedef struct bt_mark_point {
    uint32_t node_count;
    int owned_count, chunk_count;
    size_t chunk_used;
} bt_mark_point;

enum { BT_MARKS_MAX = 64, BT_CHUNKS_MAX = 64 };

struct bt_context {
    bt_owner owner; // first: see base/owner.h
    const bt_device_api *api;
    bt_device *device;
    int device_index;
    int threads;              // as asked for; 0: one per core
    struct bt_reload *reload; // the kernels that it was given; NULL: those of the build
    size_t device_bytes;
    uint64_t device_allocations;
    bt_node *nodes; // nodes[0] is unused
    uint32_t node_count, node_capacity;
    bt_chunk chunks[BT_CHUNKS_MAX];
    int chunk_count;
    bt_mark_point marks[BT_MARKS_MAX];
    int mark_count;
    const char *scope; // given by bt_scope; NULL: none
    bool backward;     // bt_grad is at work
};

static inline bt_node *bt_node_of(const bt_context *ctx, bt_tensor t) {
    return &ctx->nodes[t.id];
}

// ---- Making nodes ----------------------------------------------------------------------------

// Appends a node; {0} after a failure. `varies` and `scope` are filled in here.
bt_tensor bt_node_add(bt_context *ctx, const bt_node *node);
// Appends the SECOND result of `first`.
bt_tensor bt_node_add_second(bt_context *ctx, bt_tensor first, bt_dtype dtype, bt_shape shape);
// Sticky failure of an operator: records the sentence and returns {0}.
bt_tensor bt_graph_fail(bt_context *ctx, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
// True if t is a live tensor; records a sentence that names `op` if it never was one.
bool bt_graph_has(bt_context *ctx, const char *op, bt_tensor t);
// As bt_graph_has, and both are F32 or both F64.
bool bt_graph_has_reals(bt_context *ctx, const char *op, bt_tensor a, bt_tensor b);
// "[2, 3]" in one of a few static-per-thread buffers.
const char *bt_shape_text(bt_shape shape);
bool bt_shape_equal(bt_shape a, bt_shape b);

// "relu_grad"; for a MAP node the name of its map.
const char *bt_map_name(bt_map_op op);
// Elementwise node with broadcasting; the _GRAD maps included.
bt_tensor bt_map_node(bt_context *ctx, bt_map_op op, bt_tensor a, bt_tensor b);
// Sums dy over the dimensions along which `shape` was broadcast.
bt_tensor bt_unbroadcast(bt_context *ctx, bt_tensor dy, bt_shape shape);
// t * dy for a scalar dy; t itself where dy is the constant 1 that a gradient starts with.
bt_tensor bt_times_scalar_grad(bt_context *ctx, bt_tensor t, bt_tensor dy);

// ---- Device memory ---------------------------------------------------------------------------

bt_status bt_buffer_make(bt_context *ctx, size_t bytes, bt_buffer **out) BT_MUST_CHECK;
void bt_buffer_free(bt_context *ctx, bt_buffer *buffer); // NULL: nothing
bt_status bt_zero(bt_context *ctx, bt_binding range) BT_MUST_CHECK;
// Room for a parameter beside the ones made before it.
bt_status bt_parameter_place(bt_context *ctx, size_t bytes, bt_binding *out) BT_MUST_CHECK;

// ---- Lowering --------------------------------------------------------------------------------

// A value while a program is compiled: an index that becomes a binding once memory is planned.
typedef uint32_t bt_storage;
enum { BT_NO_STORAGE = 0 };

typedef struct bt_lowering bt_lowering; // program/lower.h

// What was fused into the node that is being lowered.
typedef struct bt_fusion {
    uint32_t out;       // whose storage takes the result
    bt_map_op epilogue; // COPY: none
    uint32_t bias;      // 0: none
    uint32_t y_forward; // first operand of an epilogue that is a gradient; 0: none
} bt_fusion;

const bt_node *bt_lower_node(const bt_lowering *lo, uint32_t id);
bt_fusion bt_lower_fusion(const bt_lowering *lo, uint32_t id);
bt_storage bt_lower_value(bt_lowering *lo, uint32_t id); // 0 gives BT_NO_STORAGE
// Storage of the second result, BT_NO_STORAGE where nobody needs it.
bt_storage bt_lower_second(bt_lowering *lo, uint32_t id);
bt_storage bt_lower_temporary(bt_lowering *lo, size_t bytes);
bt_storage bt_lower_state(bt_lowering *lo); // the program's bt_step_state
void bt_lower_fail(bt_lowering *lo, bt_status status, const char *sentence);

typedef struct bt_emission {
    bt_kernel_id kernel;
    bt_dtype dtype;
    bt_storage binding[BT_BINDINGS_MAX];
    double flops; // useful arithmetic
    double bytes; // moved; 0: each binding once
} bt_emission;

// What most operators emit: the first `inputs` operands, the result and its second.
bt_emission bt_lower_emission(bt_lowering *lo, uint32_t id, int inputs);

// Appends a launch. `args` is the kernel's struct; see bt_emit_* below for the typed form.
void bt_lower_emit(bt_lowering *lo, const bt_emission *emission, const void *args,
                   size_t args_bytes);

#define X(name, bindings, args)                                                        \
    static inline void bt_emit_##name(bt_lowering *lo, bt_emission e, const args *a) { \
        e.kernel = BT_KERNEL_##name;                                                   \
        bt_lower_emit(lo, &e, a, sizeof *a);                                           \
    }
BT_KERNELS(X)
#undef X

// ---- The operator table ----------------------------------------------------------------------

typedef struct bt_op_info {
    const char *name;
    // NULL for those that need no launch.
    void (*lower)(bt_lowering *lo, uint32_t id);
    // Given dy, the gradient of the node, sets dx[i] for the inputs that have one. NULL: none has.
    void (*grad)(bt_context *ctx, bt_tensor y, bt_tensor dy, bt_tensor dx[BT_INPUTS_MAX]);
} bt_op_info;

extern const bt_op_info bt_op_table[BT_OP_COUNT]; // ops.c

// One declaration for each operator family's functions; ops.c puts them into the table.
#define BT_LOWER(name) void bt_lower_##name(bt_lowering *lo, uint32_t id)
#define BT_GRAD(name) \
    void bt_grad_##name(bt_context *ctx, bt_tensor y, bt_tensor dy, bt_tensor dx[BT_INPUTS_MAX])
BT_LOWER(random);
BT_LOWER(permute);
BT_LOWER(broadcast);
BT_LOWER(map);
BT_LOWER(map_host);
BT_LOWER(matmul);
BT_LOWER(reduce_sum);
BT_LOWER(reduce_max);
BT_LOWER(scatter_axis);
BT_LOWER(softmax);
BT_LOWER(softmax_grad);
BT_LOWER(cross_entropy);
BT_LOWER(conv2d);
BT_LOWER(conv2d_grad_input);
BT_LOWER(conv2d_grad_weight);
BT_LOWER(im2col);
BT_LOWER(col2im);
BT_LOWER(max_pool);
BT_LOWER(max_pool_grad);
BT_LOWER(avg_pool);
BT_LOWER(avg_pool_grad);
BT_LOWER(gather);
BT_GRAD(reshape);
BT_GRAD(permute);
BT_GRAD(broadcast);
BT_GRAD(map);
BT_GRAD(map_host);
BT_GRAD(matmul);
BT_GRAD(reduce_sum);
BT_GRAD(reduce_max);
BT_GRAD(softmax);
BT_GRAD(cross_entropy);
BT_GRAD(conv2d);
BT_GRAD(im2col);
BT_GRAD(max_pool);
BT_GRAD(avg_pool);

// A batch of a data set; see bt_gather_args. Tensors: U8 [total, pixels], I32 [total],
// I32 [count]. Returns the images [batch, dims of `image`]; labels are its SECOND.
bt_tensor bt_gather_node(bt_context *ctx, bt_tensor bytes, bt_tensor labels, bt_tensor index,
                         bt_shape image, bt_dtype dtype, const bt_gather_args *args);

#endif
