// Operands as the kernels of products want them: transposed where they must be, rows beginning at
// multiples of 16 bytes, rounded to bf16 or TF32 for the tensor cores. A pass over n^2 numbers
// against n^3 products.
// Runs on any GPU.
#include "gemm_args.h"
#include "gemm_round.cuh"

enum { PACK_TILE = 64, PACK_THREADS = 256 };

// Reads four neighbours, those beyond `count` as 0.
static __device__ __forceinline__ float4 read_four(const float *from, unsigned count, bool whole) {
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (whole) return *(const float4 *)from;
    if (count > 0) x.x = from[0];
    if (count > 1) x.y = from[1];
    if (count > 2) x.z = from[2];
    if (count > 3) x.w = from[3];
    return x;
}

// A block: 64 rows of 64 k. Blocks of a grid: x along k, y along rows, z matrices.
template <typename NUMBERS> static __device__ __forceinline__ void pack(const bt_pack_args &g) {
    __shared__ float tile[PACK_TILE][PACK_TILE + 1];
    const float *from = g.from + (size_t)(blockIdx.z / g.batch2) * g.step[0] +
                        (size_t)(blockIdx.z % g.batch2) * g.step[1];
    typename NUMBERS::one *to =
        (typename NUMBERS::one *)g.to + (size_t)blockIdx.z * g.rows * g.stride;
    unsigned row0 = blockIdx.y * PACK_TILE, k0 = blockIdx.x * PACK_TILE;
    unsigned across = threadIdx.x % 16 * 4, down = threadIdx.x / 16;
    unsigned width = g.transposed ? g.rows : g.k; // of the matrix as it lies in memory
    bool aligned = width % 4 == 0 && (size_t)from % 16 == 0;
    if (g.transposed) {
        for (unsigned i = down; i < PACK_TILE && k0 + i < g.k; i += PACK_THREADS / 16) {
            unsigned row = row0 + across, left = g.rows - min(g.rows, row);
            const float *line = from + (size_t)(k0 + i) * g.rows + row;
            float4 x = read_four(line, left, aligned && left >= 4);
            tile[across][i] = x.x;
            tile[across + 1][i] = x.y;
            tile[across + 2][i] = x.z;
            tile[across + 3][i] = x.w;
        }
        __syncthreads();
    }
    for (unsigned i = down; i < PACK_TILE && row0 + i < g.rows; i += PACK_THREADS / 16) {
        unsigned k = k0 + across, left = g.k - min(g.k, k);
        const float *line = from + (size_t)(row0 + i) * g.k + k;
        float4 x = g.transposed ? make_float4(tile[i][across], tile[i][across + 1],
                                              tile[i][across + 2], tile[i][across + 3])
                                : read_four(line, left, aligned && left >= 4);
        // The rows have room up to a multiple of four.
        if (left > 0) *(typename NUMBERS::four *)(to + (size_t)(row0 + i) * g.stride + k) =
            NUMBERS::round(x);
    }
}

extern "C" __global__ void __launch_bounds__(PACK_THREADS) bt_pack_bf16(const bt_pack_args g) {
    pack<bf16_numbers>(g);
}

extern "C" __global__ void __launch_bounds__(PACK_THREADS) bt_pack_tf32(const bt_pack_args g) {
    pack<tf32_numbers>(g);
}

extern "C" __global__ void __launch_bounds__(PACK_THREADS) bt_pack_f32(const bt_pack_args g) {
    pack<f32_numbers>(g);
}
