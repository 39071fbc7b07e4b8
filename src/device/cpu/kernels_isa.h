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
    X(update, NULL)

#define X(name, scratch) \
    void VEC_NAME(bt_cpu_##name)(const bt_launch *launch, const bt_cpu_worker *me);
BT_CPU_VECTORISED(X)
#undef X
size_t VEC_NAME(bt_cpu_matmul_scratch)(const bt_launch *launch);
size_t VEC_NAME(bt_cpu_conv_scratch)(const bt_launch *launch);

#endif
