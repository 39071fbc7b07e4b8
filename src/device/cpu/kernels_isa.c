// The tables of the vectorised f32 kernels of one instruction set.
#include "device/cpu/kernels_isa.h"

#include "device/cpu/set.h"

static const bt_cpu_kernel kernels[BT_KERNEL_COUNT] = {
#define X(name, memory) [BT_KERNEL_##name] = {.run = VEC_NAME(bt_cpu_##name), .scratch = memory},
    BT_CPU_VECTORISED(X)
#undef X
};

const bt_cpu_set VEC_NAME(bt_cpu_set) = {
#if defined(__AVX512F__)
    .name = "AVX-512",
#elif defined(__AVX2__)
    .name = "AVX2",
#elif defined(__x86_64__)
    .name = "SSE2",
#elif defined(__aarch64__)
    .name = "NEON",
#else
    .name = "128-bit vectors",
#endif
    .kernels = kernels,
#if defined(__AVX512F__)
    .half = &bt_cpu_set_avx2,
    .matmul_bf16 = {.run = bt_cpu_matmul_bf16, .scratch = bt_cpu_matmul_bf16_scratch},
#endif
    .lanes = LANES,
    .takes = VEC_NAME(bt_cpu_conv_pool_takes),
    .grouped = {[BT_CPU_CONV_POOL] = {.run = VEC_NAME(bt_cpu_conv_pool),
                                      .scratch = VEC_NAME(bt_cpu_conv_pool_scratch),
                                      .packed = VEC_NAME(bt_cpu_conv_pool_packed),
                                      .pack = VEC_NAME(bt_cpu_conv_pool_pack)},
                [BT_CPU_CONV_POOL_GRAD] = {.run = VEC_NAME(bt_cpu_conv_pool_grad),
                                           .scratch = VEC_NAME(bt_cpu_conv_pool_grad_scratch)}},
    .sparse_forward = {.run = VEC_NAME(bt_cpu_sparse_forward),
                       .scratch = VEC_NAME(bt_cpu_sparse_scratch),
                       .packed = VEC_NAME(bt_cpu_sparse_packed),
                       .pack = VEC_NAME(bt_cpu_sparse_pack)},
    .sparse_grad = {.run = VEC_NAME(bt_cpu_sparse_grad),
                    .scratch = VEC_NAME(bt_cpu_sparse_scratch)},
};
