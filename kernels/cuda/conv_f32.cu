// Convolutions of many channels, with stride 1, as products in f32 on the ordinary arithmetic
// units, and the gradient of their weights also in TF32: the scheme of conv_gemm.cu with the
// arithmetic of gemm_f32.cuh. A copy of 16 bytes must
// begin at a multiple of 16, so planes, whose taps lie one number apart, are there once for each
// column of the filter; their pitch is a multiple of four.
#include "gemm_args.h"
#include "gemm_f32.cuh"
#include "math.cuh"

#include "conv_store.cuh"

// ---- y = f(weight * x + bias) -----------------------------------------------------------------

template <typename TILE>
static __device__ __forceinline__ void conv_f32(const bt_conv_f32_args &g) {
    extern __shared__ __align__(16) float tiles[];
    unsigned tall = (g.out.rows + TILE::M - 1) / TILE::M;
    unsigned row0 = blockIdx.x % tall * TILE::M, position0 = blockIdx.x / tall * TILE::N;
    unsigned depth = g.steps * STEP_K; // of a tap in a
    tile_copier<TILE::M, TILE::THREADS, TILE::SWIZZLE> a(g.a + row0 + a.across(), g.a_stride,
                                                         row0 + a.across() < g.a_stride, g.a);
    TILE tile;
    multiply_tiles(tile, tiles, g.out.taps * depth, [&](float *stage, unsigned k) {
        unsigned tap = k / depth, channel = k % depth;
        int moved = ((int)(tap / g.out.kw) - (int)g.pad_y) * (int)g.out.pitch;
        size_t row = (size_t)(tap % g.out.kw * g.channels + channel) * g.b_stride;
        tile_copier<TILE::N, TILE::THREADS, TILE::SWIZZLE> b(
            g.b + row + (int)(position0 + b.across()) + moved, g.b_stride, tap < g.out.taps, g.b);
        a.copy(stage, k, g.out.taps * depth);
        b.copy(stage + STEP_K * TILE::M, channel, g.channels);
    });
    each_column(tile, tiles, [&](unsigned column, unsigned row, const float *sums, unsigned count) {
        row += row0;
        conv_store(g.out, sums, TILE::PITCH, rows_left(row, g.out.rows, count), row,
                   position0 + column);
    });
}

typedef f32_tile<1, 4, 2, 2, 8> tile_64x128;
typedef f32_tile<2, 4, 2, 2, 8> tile_128x128;

extern "C" __global__ void __launch_bounds__(tile_64x128::THREADS, 3)
    bt_conv_f32_64(const __grid_constant__ bt_conv_f32_args g) {
    conv_f32<tile_64x128>(g);
}

extern "C" __global__ void __launch_bounds__(tile_128x128::THREADS, 2)
    bt_conv_f32_128(const __grid_constant__ bt_conv_f32_args g) {
    conv_f32<tile_128x128>(g);
}

// ---- The gradient of the weights --------------------------------------------------------------

// Sums over positions, so both operands lie as they are read: the channels of a position side by
// side. Columns are taps, and within a tap channels; four neighbours are of one tap, as c is a
// multiple of four. Positions below 0 are rows of zeros before b.
template <typename TILE>
static __device__ __forceinline__ void conv_weight(const bt_conv_weight_args &g) {
    typedef tile_copier<TILE::M, TILE::THREADS, TILE::SWIZZLE> copier_a;
    typedef tile_copier<TILE::N, TILE::THREADS, TILE::SWIZZLE> copier_b;
    extern __shared__ __align__(16) float tiles[];
    depth_part part(g.k);
    unsigned tall = (g.o + TILE::M - 1) / TILE::M, index = blockIdx.x / cluster_blocks();
    unsigned row0 = index % tall * TILE::M, column0 = index / tall * TILE::N;
    unsigned chunk = blockIdx.z, first = chunk * g.k + part.first;
    unsigned tap = (column0 + copier_b::across()) / g.c;
    unsigned channel = (column0 + copier_b::across()) % g.c;
    int moved = (int)(tap / g.kw * g.pitch + tap % g.kw) + g.shift;
    copier_a a(g.a + (size_t)first * g.a_stride + row0 + a.across(), g.a_stride,
               row0 + a.across() < g.a_stride, g.a);
    copier_b b(g.b + ((long long)first + moved) * g.b_stride + channel, g.b_stride, tap < g.taps,
               g.b);
    TILE tile;
    multiply_tiles(tile, tiles, part.count, [&](float *stage, unsigned k) {
        a.copy(stage, k, part.count);
        b.copy(stage + STEP_K * TILE::M, k, part.count);
    });
    each_column(tile, tiles, [&](unsigned column, unsigned row, const float *sums, unsigned count) {
        column += column0, row += row0;
        if (column >= g.c * g.taps) return;
        size_t at = ((size_t)(chunk * g.o + row) * g.c + column % g.c) * g.taps + column / g.c;
        unsigned rows = rows_left(row, g.o, count);
#pragma unroll 4
        for (unsigned r = 0; r < rows; r++)
            g.partial[at + (size_t)r * g.c * g.taps] = sums[r * TILE::PITCH];
    });
}

#define BT_CONV_WEIGHT(name, blocks, ...)                                                          \
    extern "C" __global__ void __launch_bounds__(__VA_ARGS__::THREADS, blocks)                     \
        name(const __grid_constant__ bt_conv_weight_args g) {                                      \
        conv_weight<__VA_ARGS__>(g);                                                               \
    }

BT_CONV_WEIGHT(bt_conv_weight_f32_64, 3, tile_64x128)
BT_CONV_WEIGHT(bt_conv_weight_f32_128, 2, tile_128x128)
BT_CONV_WEIGHT(bt_conv_weight_tf32_64, 3, tf32_tile<1, 4>)
BT_CONV_WEIGHT(bt_conv_weight_tf32_128, 2, tf32_tile<2, 4>)
