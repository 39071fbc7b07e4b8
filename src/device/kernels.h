// Every kernel: its name, bindings, scalars and meaning. This is the contract between operators,
// which emit launches (src/tensor), and devices, which run them. `real` is float or double, by
// bt_launch.dtype. All arrays are dense and row-major unless strides are given. Index arithmetic
// is 32-bit. Reductions have a fixed order that depends on shapes alone.
//
// Kernels must accept any sizes, 0 included, and write every element of their outputs.
#ifndef BT_DEVICE_KERNELS_H
#define BT_DEVICE_KERNELS_H

#include <stdint.h>

// X(name, bindings, args): one letter per binding: r read, w written whole, u updated in place,
// lower case; upper case R W U: may be absent (binding.buffer NULL). In the order of the comment
// at the args struct.
#define BT_KERNELS(X)                          \
    X(map, "rRw", bt_map_args)                 \
    X(map_host, "rRw", bt_map_host_args)       \
    X(matmul, "rrRRw", bt_matmul_args)         \
    X(reduce_sum, "rw", bt_reduce_args)        \
    X(reduce_max, "rWW", bt_reduce_args)       \
    X(scatter_axis, "rrw", bt_reduce_args)     \
    X(softmax, "rw", bt_softmax_args)          \
    X(softmax_grad, "rrw", bt_softmax_args)    \
    X(xent, "rrwW", bt_xent_args)              \
    X(xent_mean, "rrw", bt_xent_args)          \
    X(conv2d, "rrRw", bt_conv_args)            \
    X(conv2d_grad_input, "rrw", bt_conv_args)  \
    X(conv2d_grad_weight, "rrw", bt_conv_args) \
    X(im2col, "rw", bt_conv_args)              \
    X(col2im, "rw", bt_conv_args)              \
    X(max_pool, "rwW", bt_pool_args)           \
    X(max_pool_grad, "rrw", bt_pool_args)      \
    X(avg_pool, "rw", bt_pool_args)            \
    X(avg_pool_grad, "rw", bt_pool_args)       \
    X(gather_batch, "rrrrwW", bt_gather_args)  \
    X(grad_sumsq, "rw", bt_sumsq_args)         \
    X(update, "urUUrrR", bt_update_args)       \
    X(step_end, "RRRuUU", bt_step_args)

typedef enum bt_kernel_id {
#define X(name, bindings, args) BT_KERNEL_##name,
    BT_KERNELS(X)
#undef X
        BT_KERNEL_COUNT
} bt_kernel_id;

// Elementwise operators. Unary ones read a; the _GRAD ones read (y or x, dy) as (a, b) and give
// the gradient of the input.
#define BT_MAPS(X)                                                             \
    X(COPY, copy, 1)                 /* a                                   */ \
    X(ADD, add, 2)                   /* a + b                               */ \
    X(SUB, sub, 2)                   /* a - b                               */ \
    X(MUL, mul, 2)                   /* a b                                 */ \
    X(DIV, div, 2)                   /* a / b                               */ \
    X(NEG, neg, 1)                   /* -a                                  */ \
    X(RELU, relu, 1)                 /* a > 0 ? a : 0, and NaN for NaN      */ \
    X(SIGMOID, sigmoid, 1)           /* 1 / (1 + exp(-a))                   */ \
    X(TANH, tanh, 1)                 /*                                     */ \
    X(GELU, gelu, 1)                 /* a (1 + erf(a / sqrt 2)) / 2         */ \
    X(EXP, exp, 1)                   /*                                     */ \
    X(LOG, log, 1)                   /*                                     */ \
    X(SQRT, sqrt, 1)                 /*                                     */ \
    X(RELU_GRAD, relu_grad, 2)       /* a = y: y > 0 ? dy : 0               */ \
    X(SIGMOID_GRAD, sigmoid_grad, 2) /* a = y: dy y (1 - y)                 */ \
    X(TANH_GRAD, tanh_grad, 2)       /* a = y: dy (1 - y^2)                 */ \
    X(GELU_GRAD, gelu_grad, 2)       /* a = x: dy (Phi(x) + x phi(x))       */ \
    X(SQRT_GRAD, sqrt_grad, 2)       /* a = y: dy / (2 y)                   */

typedef enum bt_map_op {
#define X(id, name, inputs) BT_MAP_##id,
    BT_MAPS(X)
#undef X
        BT_MAP_COUNT
} bt_map_op;

// map: a, b (absent for unary operators) -> y.
// y [dim0..dim3] dense; element (i, j, k, l) of an input is at i s[0] + j s[1] + k s[2] + l s[3];
// stride 0 repeats. Strides and dims are collapsed as far as possible, dense data comes as
// dim = {1, 1, 1, n}.
typedef struct bt_map_args {
    uint32_t op;
    uint32_t dim[4];
    uint32_t a_stride[4], b_stride[4];
} bt_map_args;

// map_host: a, b (absent: none) -> y [n] = fn(user, a) or, with b, fn(user, a) b. CPU only.
typedef struct bt_map_host_args {
    double (*fn)(void *user, double value);
    void *user;
    uint32_t n;
} bt_map_host_args;

// matmul: a, b, bias, y_forward -> y, for batch1 x batch2 matrices.
// y [m, n] = f(op(a) op(b) + bias[n]); op transposes where asked: a is stored [m, k], or [k, m]
// when transpose_a; b [k, n], or [n, k]. a of batch (i, j) starts at i a_step[0] + j a_step[1].
// epilogue: a unary bt_map_op applied last (COPY: none), or RELU_GRAD, SIGMOID_GRAD or TANH_GRAD
// with y_forward [as y] as its first operand. k = 0 gives f(bias).
typedef struct bt_matmul_args {
    uint32_t m, n, k;
    uint32_t batch1, batch2;
    uint32_t a_step[2], b_step[2];
    uint32_t transpose_a, transpose_b;
    uint32_t epilogue;
} bt_matmul_args;

// x is seen as [outer, n, inner]:
// reduce_sum:   x -> y [outer, inner], the sum over n (divided by n when mean).
// reduce_max:   x -> y [outer, inner], index I32 (the first maximum; NaN counts as largest).
//               n = 0: -infinity and 0.
// scatter_axis: dy [outer, inner], index -> dx [outer, n, inner], dy where index says, else 0.
typedef struct bt_reduce_args {
    uint32_t outer, n, inner;
    uint32_t mean;
} bt_reduce_args;

// softmax:      x -> y over n of [outer, n, inner]; log-softmax when log.
// softmax_grad: y, dy -> dx. softmax: y (dy - sum(y dy)); log-softmax: dy - exp(y) sum(dy).
typedef struct bt_softmax_args {
    uint32_t outer, n, inner;
    uint32_t log;
} bt_softmax_args;

// xent: logits [rows, cols], labels I32 [rows] -> loss [rows], dlogits [rows, cols] (may be
//   absent). loss = log sum exp(logits - max) + max - logits[label]; dlogits = (softmax - onehot)
//   / valid, valid = number of labels >= 0. label < 0: both 0. label >= cols: both NaN.
// xent_mean: loss [rows], labels -> mean [1] over rows with label >= 0 (none: 0).
typedef struct bt_xent_args {
    uint32_t rows, cols;
} bt_xent_args;

// conv2d:             x [n, c, h, w], weight [o, c, kh, kw], bias [o] or absent -> y [n, o, oh,
// ow],
//                     then the unary bt_map_op `epilogue` (COPY: none).
// conv2d_grad_input:  dy [n, o, oh, ow], weight -> dx [n, c, h, w]. (epilogue unused)
// conv2d_grad_weight: dy, x -> partial [chunks, o, c, kh, kw]: chunk i sums samples i * chunk ..
//                     (i + 1) * chunk - 1 with chunk = BT_CONV_CHUNK; chunks = ceil(n / chunk). To
//                     be summed by reduce_sum.
// im2col:             x -> col [n, c kh kw, oh ow] (o, epilogue unused)
// col2im:             col -> x, the sum of all patches that touch each pixel.
enum { BT_CONV_CHUNK = 8 };
typedef struct bt_conv_args {
    uint32_t n, c, h, w;
    uint32_t o, kh, kw;
    uint32_t oh, ow;
    uint32_t stride, padding;
    uint32_t epilogue;
} bt_conv_args;

// Over `planes` = n c planes of [h, w] -> [oh, ow].
// max_pool:      x -> y, index I32 (position in the plane of the first maximum; may be absent)
// max_pool_grad: dy, index -> dx
// avg_pool:      x -> y (divides by size^2; padding counts as 0)
// avg_pool_grad: dy -> dx
typedef struct bt_pool_args {
    uint32_t planes, h, w, oh, ow;
    uint32_t size, stride, padding;
} bt_pool_args;

// The step counter and what else changes from step to step without the host.
typedef struct bt_step_state {
    uint32_t step;
    uint32_t unused[63]; // one binding's alignment
} bt_step_state;

// gather_batch: bytes U8 [total, pixels], labels I32 [total], index I32 [count], state
//   -> images [batch, pixels], out_labels I32 [batch] (may be absent).
// Epoch e = step / steps, steps = ceil(count / batch); row r is position p = (step % steps) batch
// + r of the epoch; sample index[p], or index[bt_permute_index(p, count, bt_epoch_key(seed, e))]
// when shuffle. images = byte / 255, divided as `real`. Rows with p >= count: zeros, label -1.
typedef struct bt_gather_args {
    uint32_t count, batch, pixels;
    uint32_t shuffle, seed;
} bt_gather_args;

// grad_sumsq: grads [n] -> partial [chunks]: chunk i sums the squares of elements i * 4096 ...
enum { BT_SUMSQ_CHUNK = 4096 };
typedef struct bt_sumsq_args {
    uint32_t n;
} bt_sumsq_args;

// One row of the table of hyper-parameters, as `real` numbers; row min(step, rows - 1) is used.
enum {
    BT_HYPER_LR,
    BT_HYPER_MOMENTUM,
    BT_HYPER_BETA2,
    BT_HYPER_EPSILON,
    BT_HYPER_DECAY,
    BT_HYPER_CLIP,        // 0: none
    BT_HYPER_CORRECTION1, // 1 / (1 - beta1^(step + 1)), Adam
    BT_HYPER_CORRECTION2, // 1 / (1 - beta2^(step + 1)), Adam
    BT_HYPER_COLUMNS
};

// update: params [n], grads [n], moment1 [n], moment2 [n] (absent where the optimizer has none),
//   table [rows, BT_HYPER_COLUMNS], state, partial [chunks] (of grad_sumsq over all gradients;
//   absent: no clipping). optimizer: bt_optimizer; formulas at bt_hyper in bantam.h. Clipping
//   multiplies g by clip / max(norm, clip) first, norm = sqrt(sum of partial).
typedef struct bt_update_args {
    uint32_t n, rows, chunks;
    uint32_t optimizer;
} bt_update_args;

// step_end: loss [1], logits [rows, cols], labels I32 [rows] -> state, log [log_steps, 2],
//   predictions I32 [prediction_count]. Only the state is always there; without loss or without
//   logits and labels the log gets 0 in that column.
// Writes {loss, number of rows whose first largest logit is the label} to log[step % log_steps],
// the predicted class of valid rows r to predictions[(step % epoch_steps) rows + r], and last of
// all adds 1 to the step.
typedef struct bt_step_args {
    uint32_t rows, cols;
    uint32_t log_steps, epoch_steps, prediction_count;
} bt_step_args;

#define X(name, bindings, args)                                 \
    _Static_assert(sizeof(args) <= 64 && sizeof(bindings) <= 9, \
                   #name " exceeds the portable limits");
BT_KERNELS(X)
#undef X

typedef struct bt_kernel_info {
    const char *name, *bindings;
    uint32_t scalar_bytes;
} bt_kernel_info;
extern const bt_kernel_info bt_kernel_table[BT_KERNEL_COUNT]; // registry.c

#endif
