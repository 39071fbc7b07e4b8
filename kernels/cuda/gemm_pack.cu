// Operands as the kernels of products want them: transposed where they must be, rows beginning at
// multiples of 16 bytes, rounded to bf16 or TF32 for the tensor cores. A pass over n^2 numbers
// against n^3 products.
#include "gemm_args.h"
#include "gemm_round.cuh"

enum { PACK_TILE = 64, PACK_THREADS = 256 };

// Reads four neighbours, those beyond `count` as 0; `whole`: four at once, or none. (They are read
// once: the cache is for what is packed.)
static __device__ __forceinline__ float4 read_four(const float *from, unsigned count, bool whole) {
    float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (count == 0) return x;
    if (whole) return __ldcs((const float4 *)from);
    x.x = from[0];
    if (count > 1) x.y = from[1];
    if (count > 2) x.z = from[2];
    if (count > 3) x.w = from[3];
    return x;
}

static __device__ __forceinline__ unsigned pack_tiles(unsigned count) {
    return (count + PACK_TILE - 1) / PACK_TILE;
}

// Block `index` of an operand: 64 rows of 64 k, along k first, then along rows, then matrices. All
// that a thread reads is on its way before it uses the first.
template <typename NUMBERS>
static __device__ __forceinline__ void pack(const bt_pack_args &g, unsigned index) {
    enum { AHEAD = PACK_TILE * 16 / PACK_THREADS, DOWN = PACK_THREADS / 16 };
    __shared__ float tile[PACK_TILE][PACK_TILE + 1];
    unsigned wide = pack_tiles(g.k), high = pack_tiles(g.rows), matrix = index / (wide * high);
    unsigned k0 = index % wide * PACK_TILE, row0 = index / wide % high * PACK_TILE;
    const float *from =
        g.from + (size_t)(matrix / g.batch2) * g.step[0] + (size_t)(matrix % g.batch2) * g.step[1];
    unsigned across = threadIdx.x % 16 * 4, down = threadIdx.x / 16;
    // As the matrix lies in memory:
    unsigned width = g.transposed ? g.rows : g.k, height = g.transposed ? g.k : g.rows;
    unsigned line = (g.transposed ? k0 : row0) + down, at = (g.transposed ? row0 : k0) + across;
    unsigned left = width - min(width, at);
    bool whole = left >= 4 && width % 4 == 0 && (size_t)from % 16 == 0;
    float4 x[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        x[i] = read_four(from + (size_t)(line + i * DOWN) * width + at,
                         line + i * DOWN < height ? left : 0, whole);
    if (g.transposed) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            unsigned k = down + i * DOWN;
            tile[across][k] = x[i].x;
            tile[across + 1][k] = x[i].y;
            tile[across + 2][k] = x[i].z;
            tile[across + 3][k] = x[i].w;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const float *row = &tile[down + i * DOWN][across];
            x[i] = make_float4(row[0], row[1], row[2], row[3]);
        }
    }
    typename NUMBERS::one *to = (typename NUMBERS::one *)g.to + (size_t)matrix * g.rows * g.stride;
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
        unsigned row = row0 + down + i * DOWN;
        // The rows have room up to a multiple of four.
        if (row < g.rows && k0 + across < g.k)
            *(typename NUMBERS::four *)(to + (size_t)row * g.stride + k0 + across) =
                NUMBERS::round(x[i]);
    }
}

#define BT_PACK(name, numbers)                                                                     \
    extern "C" __global__ void __launch_bounds__(PACK_THREADS)                                     \
        name(const __grid_constant__ bt_pack_both_args g) {                                        \
        const bt_pack_args &first = g.operand[0];                                                  \
        unsigned blocks = pack_tiles(first.k) * pack_tiles(first.rows) * first.matrices;           \
        bool second = blockIdx.x >= blocks;                                                        \
        pack<numbers>(g.operand[second], blockIdx.x - (second ? blocks : 0));                      \
    }

BT_PACK(bt_pack_bf16, bf16_numbers)
BT_PACK(bt_pack_tf32, tf32_numbers)
BT_PACK(bt_pack_f32, f32_numbers)
