// Convolutions of many channels, with stride 1, as products in f32 on the ordinary arithmetic
// units: the scheme of conv_gemm.cu with the arithmetic of gemm_f32.cuh. A copy of 16 bytes must
// begin at a multiple of 16, so planes, whose taps lie one number apart, are there once for each
// column of the filter; their pitch is a multiple of four.
// Runs on any GPU from compute capability 8.0 on.
#include "gemm_args.h"
#include "gemm_f32.cuh"
#include "math.cuh"

#include "conv_store.cuh"

// ---- y = f(weight * x + bias) -----------------------------------------------------------------

// Four neighbours of a row of positions: all of one row of an image, as the pitch is.
static __device__ __forceinline__ void conv_store_four(const bt_conv_f32_args &g, const pixel &here,
                                                       unsigned row, float4 v) {
    float bias = g.bias ? g.bias[row] : 0.0f;
    float value[4] = {v.x, v.y, v.z, v.w};
    float *to = g.y + here.at(g, row);
#pragma unroll
    for (int j = 0; j < 4; j++) value[j] = conv_epilogue(g, value[j] + bias);
    if (g.w % 4 == 0) {
        *(float4 *)to = make_float4(value[0], value[1], value[2], value[3]);
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (here.x + j < g.w) to[j] = value[j];
    }
}

template <typename TILE>
static __device__ __forceinline__ void conv_store(const bt_conv_f32_args &g, const TILE &tile,
                                                  unsigned row0, unsigned position0) {
    constexpr int ROWS = sizeof tile.sum / sizeof tile.sum[0];
    constexpr int COLUMNS = sizeof tile.sum[0] / sizeof(float);
#pragma unroll
    for (int j = 0; j < COLUMNS; j += 4) {
        unsigned position = position0 + tile.left + j * 4;
        pixel here(g, position);
        if (!here.is_in(g)) continue;
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            unsigned row = row0 + tile.top + i / 4 * 32 + i % 4;
            if (row >= g.rows) continue;
            conv_store_four(g, here, row,
                            make_float4(tile.sum[i][j], tile.sum[i][j + 1], tile.sum[i][j + 2],
                                        tile.sum[i][j + 3]));
        }
        if (!conv_unfinished(g)) continue;
        for (int i = 0; i < ROWS; i += 4)
            conv_finish(g, row0 + tile.top + i * 8, row0 + tile.top + i * 8 + 4, 1, position, 4);
    }
}

template <typename TILE>
static __device__ __forceinline__ void conv_f32(const bt_conv_f32_args &g) {
    extern __shared__ __align__(16) float tiles[];
    unsigned tall = (g.rows + TILE::M - 1) / TILE::M;
    unsigned row0 = blockIdx.x % tall * TILE::M, position0 = blockIdx.x / tall * TILE::N;
    unsigned depth = g.steps * STEP_K; // of a tap in a
    tile_copier<TILE::M, TILE::THREADS> a(g.a + row0 + a.across(), g.a_stride,
                                          row0 + a.across() < g.a_stride, g.a);
    TILE tile;
    multiply_tiles(tile, tiles, g.taps * depth, [&](float *stage, unsigned k) {
        unsigned tap = k / depth, channel = k % depth;
        int moved = ((int)(tap / g.kw) - (int)g.pad_y) * (int)g.pitch;
        size_t row = (size_t)(tap % g.kw * g.channels + channel) * g.b_stride;
        tile_copier<TILE::N, TILE::THREADS> b(g.b + row + (int)(position0 + b.across()) + moved,
                                              g.b_stride, tap < g.taps, g.b);
        a.copy(stage, k, g.taps * depth);
        b.copy(stage + STEP_K * TILE::M, channel, g.channels);
    });
    conv_store(g, tile, row0, position0);
}

typedef f32_tile<1, 4, 2, 2> tile_64x128;
typedef f32_tile<2, 4, 2, 2> tile_128x128;

extern "C" __global__ void __launch_bounds__(tile_64x128::THREADS, 3)
    bt_conv_f32_64(const __grid_constant__ bt_conv_f32_args g) {
    conv_f32<tile_64x128>(g);
}

extern "C" __global__ void __launch_bounds__(tile_128x128::THREADS, 2)
    bt_conv_f32_128(const __grid_constant__ bt_conv_f32_args g) {
    conv_f32<tile_128x128>(g);
}

// ---- The gradient of the weights --------------------------------------------------------------

// Columns are taps, and within a tap channels; four neighbours are of one tap, as c is a multiple
// of four. Positions below 0 are rows of zeros before b.
template <typename TILE>
static __device__ __forceinline__ void conv_weight_f32(const bt_conv_weight_f32_args &g) {
    extern __shared__ __align__(16) float tiles[];
    unsigned tall = (g.o + TILE::M - 1) / TILE::M;
    unsigned row0 = blockIdx.x % tall * TILE::M, column0 = blockIdx.x / tall * TILE::N;
    unsigned chunk = blockIdx.z;
    unsigned tap = (column0 + tile_copier<TILE::N, TILE::THREADS>::across()) / g.c;
    unsigned channel = (column0 + tile_copier<TILE::N, TILE::THREADS>::across()) % g.c;
    int moved = (int)(tap / g.kw * g.pitch + tap % g.kw) + g.shift;
    tile_copier<TILE::M, TILE::THREADS> a(
        g.a + (size_t)chunk * g.k * g.a_stride + row0 + a.across(), g.a_stride,
        row0 + a.across() < g.a_stride, g.a);
    tile_copier<TILE::N, TILE::THREADS> b(
        g.b + ((long long)chunk * g.k + moved) * g.b_stride + channel, g.b_stride, tap < g.taps,
        g.b);
    TILE tile;
    multiply_tiles(tile, tiles, g.k, [&](float *stage, unsigned k) {
        a.copy(stage, k, g.k);
        b.copy(stage + STEP_K * TILE::M, k, g.k);
    });
    constexpr int ROWS = sizeof tile.sum / sizeof tile.sum[0];
    constexpr int COLUMNS = sizeof tile.sum[0] / sizeof(float);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        unsigned r = row0 + tile.top + i / 4 * 32 + i % 4;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            unsigned c = column0 + tile.left + j / 4 * 16 + j % 4;
            if (r < g.o && c < g.c * g.taps)
                g.partial[((size_t)(chunk * g.o + r) * g.c + c % g.c) * g.taps + c / g.c] =
                    tile.sum[i][j];
        }
    }
}

extern "C" __global__ void __launch_bounds__(tile_64x128::THREADS, 3)
    bt_conv_weight_f32_64(const __grid_constant__ bt_conv_weight_f32_args g) {
    conv_weight_f32<tile_64x128>(g);
}

extern "C" __global__ void __launch_bounds__(tile_128x128::THREADS, 2)
    bt_conv_weight_f32_128(const __grid_constant__ bt_conv_weight_f32_args g) {
    conv_weight_f32<tile_128x128>(g);
}
