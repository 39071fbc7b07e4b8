// The vectorised f32 kernels of one instruction set, gathered into a table by kernels_isa.c.
#ifndef BT_DEVICE_CPU_KERNELS_ISA_H
#define BT_DEVICE_CPU_KERNELS_ISA_H

#include "device/cpu/vec.h"

// X(kernel, its working memory or NULL)
#define BT_CPU_VECTORISED(X)                             \
    X(map, NULL)                                         \
    X(matmul, VEC_NAME(bt_cpu_matmul_scratch))           \
    X(conv2d, VEC_NAME(bt_cpu_conv_scratch))             \
    X(conv2d_grad_input, VEC_NAME(bt_cpu_conv_scratch))  \
    X(conv2d_grad_weight, VEC_NAME(bt_cpu_conv_scratch)) \
    X(reduce_sum, NULL)                                  \
    X(softmax, NULL)                                     \
    X(xent, NULL)                                        \
    X(max_pool, NULL)                                    \
    X(max_pool_grad, NULL)                               \
    X(gather_batch, NULL)                                \
    X(grad_sumsq, NULL)                                  \
    X(update, NULL)                                      \
    X(step_end, NULL)

#define X(name, scratch) \
    void VEC_NAME(bt_cpu_##name)(const bt_launch *launch, const bt_cpu_worker *me);
BT_CPU_VECTORISED(X)
#undef X
size_t VEC_NAME(bt_cpu_matmul_scratch)(const bt_launch *launch);
size_t VEC_NAME(bt_cpu_conv_scratch)(const bt_launch *launch);

// Sums over k are made in parts of at most BT_CPU_DEPTH, which packed operands fit the caches with:
// each part is one chain of fused multiply-adds from 0 in order of k, and the parts are added in
// order. Part i begins at bt_cpu_depth_cut(k, i), a multiple of 16; the last one ends at k.
// Whatever kernel makes a product gives the same bits so.
enum { BT_CPU_DEPTH = 400 };
static inline size_t bt_cpu_depth_cuts(size_t k) {
    return (k + BT_CPU_DEPTH - 1) / BT_CPU_DEPTH;
}
static inline size_t bt_cpu_depth_cut(size_t k, size_t i) {
    size_t cuts = bt_cpu_depth_cuts(k), units = (k + 15) / 16;
    return i == cuts ? k : units * i / cuts * 16;
}

// A convolution with the max pooling after it, and the gradients of both (see group.h for the
// parts).
bool VEC_NAME(bt_cpu_conv_pool_takes)(const bt_conv_args *conv, const bt_pool_args *pool);
size_t VEC_NAME(bt_cpu_conv_pool_scratch)(const bt_launch *parts);
size_t VEC_NAME(bt_cpu_conv_pool_packed)(const bt_launch *parts);
void VEC_NAME(bt_cpu_conv_pool_pack)(const bt_launch *parts, void *packed);
void VEC_NAME(bt_cpu_conv_pool)(const bt_launch *parts, const bt_cpu_worker *me);
size_t VEC_NAME(bt_cpu_conv_pool_grad_scratch)(const bt_launch *parts);
void VEC_NAME(bt_cpu_conv_pool_grad)(const bt_launch *parts, const bt_cpu_worker *me);

// matmul where a (forward, with b transposed) or b (the gradient, with a transposed) is the batch
// of me->nonzeros: to the same bits, as long as the other operand is finite.
void VEC_NAME(bt_cpu_sparse_forward)(const bt_launch *launch, const bt_cpu_worker *me);
void VEC_NAME(bt_cpu_sparse_grad)(const bt_launch *launch, const bt_cpu_worker *me);
size_t VEC_NAME(bt_cpu_sparse_scratch)(const bt_launch *launch);
size_t VEC_NAME(bt_cpu_sparse_packed)(const bt_launch *launch); // for bt_cpu_sparse_forward
void VEC_NAME(bt_cpu_sparse_pack)(const bt_launch *launch, void *packed);

#endif
