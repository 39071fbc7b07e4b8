// Small things that the parts of the CNN kernel share.
#ifndef BT_CUDA_CNN_MATH
#define BT_CUDA_CNN_MATH
#include "cnn_shapes.cuh"

namespace cnn {

// As load_transposed of common.cuh, two matrices.
DEVICE void load_transposed_2(u32 (&v)[2], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(v[0]), "=r"(v[1])
                 : "r"(row)
                 : "memory");
}

template <int ACTIVATION> DEVICE float activate(float x) {
    if constexpr (ACTIVATION == RELU) return x <= 0.f ? 0.f : x; // NaN stays
    if constexpr (ACTIVATION == SIGMOID) return 1.f / (1.f + expf(-x));
    if constexpr (ACTIVATION == TANH) return tanhf(x);
    return x;
}

// The derivative, from what the activation gave.
template <int ACTIVATION> DEVICE float derivative(float y) {
    if constexpr (ACTIVATION == RELU) return y > 0.f ? 1.f : 0.f;
    if constexpr (ACTIVATION == SIGMOID) return y * (1.f - y);
    if constexpr (ACTIVATION == TANH) return 1.f - y * y;
    return 1.f;
}

// The sum over a warp, in the same order for every lane.
DEVICE float warp_sum(float v) {
#pragma unroll
    for (int width = 16; width > 0; width /= 2) v += __shfl_xor_sync(~0u, v, width);
    return v;
}

} // namespace cnn
#endif
