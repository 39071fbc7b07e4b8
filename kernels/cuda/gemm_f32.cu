// Large products in f32, on the ordinary arithmetic units (gemm_f32.cuh says how).
#include "gemm_args.h"
#include "gemm_f32.cuh"
#include "math.cuh"

#include "gemm_store.cuh"

template <typename TILE>
static __device__ __forceinline__ void gemm_f32(const bt_gemm_f32_args &g) {
    extern __shared__ __align__(16) float tiles[];
    depth_part part(g.k);
    unsigned index = blockIdx.x / cluster_blocks();
    // Clusters go down `group` rows of tiles before they go one to the right.
    unsigned rows = (g.m + TILE::M - 1) / TILE::M, columns = (g.n + TILE::N - 1) / TILE::N;
    unsigned first = index / (g.group * columns) * g.group;
    unsigned height = min(g.group, rows - first), rest = index - first * columns;
    unsigned row0 = (first + rest % height) * TILE::M, column0 = rest / height * TILE::N;
    unsigned i1 = blockIdx.z / g.batch2, i2 = blockIdx.z % g.batch2;
    tile_copier<TILE::M, TILE::THREADS, 0> a(
        g.a + (size_t)i1 * g.a_step[0] + (size_t)i2 * g.a_step[1] +
            (size_t)part.first * g.a_stride + row0 + a.across(),
        g.a_stride, row0 + a.across() < g.m, g.a);
    tile_copier<TILE::N, TILE::THREADS, 0> b(
        g.b + (size_t)i1 * g.b_step[0] + (size_t)i2 * g.b_step[1] +
            (size_t)part.first * g.b_stride + column0 + b.across(),
        g.b_stride, column0 + b.across() < g.n, g.b);
    TILE tile;
    multiply_tiles(tile, tiles, part.count, [&](float *stage, unsigned k) {
        a.copy(stage, k, part.count);
        b.copy(stage + STEP_K * TILE::M, k, part.count);
    });
    each_column(tile, tiles, [&](unsigned column, unsigned row, const float *sums, unsigned count) {
        column += column0, row += row0;
        if (column < g.n)
            gemm_store(g, sums, TILE::PITCH, rows_left(row, g.m, count),
                       ((size_t)blockIdx.z * g.m + row) * g.n + column, column);
    });
}

typedef f32_tile<2, 4, 2, 2, 16> tile_128x128;

extern "C" __global__ void __launch_bounds__(tile_128x128::THREADS, 2)
    bt_gemm_f32(const __grid_constant__ bt_gemm_f32_args g) {
    gemm_f32<tile_128x128>(g);
}
