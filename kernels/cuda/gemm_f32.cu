// Large products in f32, on the ordinary arithmetic units (gemm_f32.cuh says how).
// Runs on any GPU from compute capability 8.0 on.
#include "gemm_args.h"
#include "gemm_f32.cuh"
#include "math.cuh"

// ---- Storing ----------------------------------------------------------------------------------

// Four neighbours of a row of y.
static __device__ __forceinline__ void store_four(const bt_gemm_f32_args &g, float *y,
                                                  unsigned column, float4 v) {
    float value[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (g.bias && column + j < g.n) value[j] += g.bias[column + j];
        if (g.epilogue == MAP_RELU) value[j] = apply(MAP_RELU, value[j], value[j]);
    }
    if (g.n % 4 == 0 && (size_t)y % 16 == 0 && column < g.n) {
        *(float4 *)(y + column) = make_float4(value[0], value[1], value[2], value[3]);
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (column + j < g.n) y[column + j] = value[j];
    }
}

// The other operators need many registers: a thread applies them to what it has stored.
static __device__ __noinline__ void finish_four(const bt_gemm_f32_args &g, size_t row_at,
                                                unsigned column) {
    for (unsigned c = column; c < column + 4 && c < g.n; c++) {
        float value = g.y[row_at + c];
        g.y[row_at + c] =
            apply(g.epilogue, g.y_forward ? g.y_forward[row_at + c] : value, value);
    }
}

template <typename TILE>
static __device__ __forceinline__ void store_tile(const bt_gemm_f32_args &g, const TILE &tile,
                                                  unsigned row0, unsigned column0) {
    constexpr int ROWS = sizeof tile.sum / sizeof tile.sum[0];
    constexpr int COLUMNS = sizeof tile.sum[0] / sizeof(float);
    bool finish = g.epilogue != NO_OPERATOR && g.epilogue != MAP_RELU;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        unsigned row = row0 + tile.top + i / 4 * 32 + i % 4;
        if (row >= g.m) continue;
        size_t row_at = ((size_t)blockIdx.z * g.m + row) * g.n;
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 4)
            store_four(g, g.y + row_at, column0 + tile.left + j * 4,
                       make_float4(tile.sum[i][j], tile.sum[i][j + 1], tile.sum[i][j + 2],
                                   tile.sum[i][j + 3]));
        if (!finish) continue;
        for (int j = 0; j < COLUMNS; j += 4) finish_four(g, row_at, column0 + tile.left + j * 4);
    }
}

// ---- The kernel -------------------------------------------------------------------------------

template <typename TILE>
static __device__ __forceinline__ void gemm_f32(const bt_gemm_f32_args &g) {
    extern __shared__ __align__(16) float tiles[];
    // Blocks go down `group` rows of tiles before they go one to the right.
    unsigned rows = (g.m + TILE::M - 1) / TILE::M, columns = (g.n + TILE::N - 1) / TILE::N;
    unsigned first = blockIdx.x / (g.group * columns) * g.group;
    unsigned height = min(g.group, rows - first), rest = blockIdx.x - first * columns;
    unsigned row0 = (first + rest % height) * TILE::M, column0 = rest / height * TILE::N;
    unsigned i1 = blockIdx.z / g.batch2, i2 = blockIdx.z % g.batch2;
    tile_copier<TILE::M, TILE::THREADS> a(
        g.a + (size_t)i1 * g.a_step[0] + (size_t)i2 * g.a_step[1] + row0 + a.across(), g.a_stride,
        row0 + a.across() < g.m, g.a);
    tile_copier<TILE::N, TILE::THREADS> b(
        g.b + (size_t)i1 * g.b_step[0] + (size_t)i2 * g.b_step[1] + column0 + b.across(),
        g.b_stride, column0 + b.across() < g.n, g.b);
    TILE tile;
    multiply_tiles(tile, tiles, g.k, [&](float *stage, unsigned k) {
        a.copy(stage, k, g.k);
        b.copy(stage + STEP_K * TILE::M, k, g.k);
    });
    store_tile(g, tile, row0, column0);
}

typedef f32_tile<2, 4, 2, 2> tile_128x128;

extern "C" __global__ void __launch_bounds__(tile_128x128::THREADS, 2)
    bt_gemm_f32(const __grid_constant__ bt_gemm_f32_args g) {
    gemm_f32<tile_128x128>(g);
}
