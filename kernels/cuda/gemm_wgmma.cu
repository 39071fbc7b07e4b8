// Large products on the tensor cores of Hopper, in bf16 or TF32 with f32 sums.
//
// A block computes tiles of 128 x TILE_N of y. One warp group fetches: a thread of it keeps the
// copy engine STAGES tiles of k ahead, each 128 bytes wide. Two warp groups multiply, 64 rows each,
// and store. Two blocks, one above the other, are a cluster: they need the same rows of b, so each
// fetches half of these for both, which spares the L2 cache a third of the reading.
#include "gemm_args.h"
#include "gemm_hopper.cuh"
#include "math.cuh"

#include "gemm_store.cuh"

enum { TILE_M = 128, CLUSTER = 2 };

struct tile_place {
    unsigned row, column, matrix;
};

// Tile `index` of this block. Clusters run down `group` rows of tiles before they go one to the
// right, so that those at work at the same time share rows of both operands.
static __device__ __forceinline__ tile_place tile_at(const bt_gemm_args &g, unsigned index,
                                                     unsigned tile_n, unsigned rank) {
    unsigned rows = (g.m + CLUSTER * TILE_M - 1) / (CLUSTER * TILE_M);
    unsigned columns = (g.n + tile_n - 1) / tile_n;
    unsigned within = index % (rows * columns);
    unsigned first = within / (g.group * columns) * g.group;
    unsigned height = min(g.group, rows - first);
    unsigned rest = within - first * columns;
    tile_place place;
    place.row = ((first + rest % height) * CLUSTER + rank) * TILE_M;
    place.column = rest / height * tile_n;
    place.matrix = index / (rows * columns);
    return place;
}

static __device__ __forceinline__ unsigned tile_count(const bt_gemm_args &g, unsigned tile_n) {
    return (g.m + CLUSTER * TILE_M - 1) / (CLUSTER * TILE_M) * ((g.n + tile_n - 1) / tile_n) *
           g.batch;
}

// One thread: fetches all tiles that the block will need, as stages become empty.
template <typename PRODUCTS, int TILE_N, int STAGES>
static __device__ __forceinline__ void fetch_all(const bt_gemm_args &g,
                                                 gemm_ring<TILE_M, TILE_N, STAGES> &ring,
                                                 unsigned rank) {
    constexpr unsigned HALF = TILE_N / CLUSTER;
    ring_place<STAGES> at;
    unsigned steps = (g.k + PRODUCTS::ELEMENTS - 1) / PRODUCTS::ELEMENTS;
    for (unsigned index = blockIdx.x / CLUSTER; index < tile_count(g, TILE_N);
         index += gridDim.x / CLUSTER) {
        tile_place tile = tile_at(g, index, TILE_N, rank);
        for (unsigned step = 0; step < steps; step++, at.advance()) {
            u64 *full = &ring.full[at.stage];
            barrier_wait(&ring.empty[at.stage], at.parity ^ 1);
            barrier_expect(full, (TILE_M + TILE_N) * ROW_BYTES);
            fetch_tile(ring.a[at.stage], &g.a, full, step * PRODUCTS::ELEMENTS, tile.row,
                       g.a_batched ? tile.matrix : 0);
            fetch_tile_for(ring.b[at.stage] + rank * HALF * ROW_BYTES, &g.b, full,
                           step * PRODUCTS::ELEMENTS, tile.column + rank * HALF,
                           g.b_batched ? tile.matrix : 0, (1 << CLUSTER) - 1);
        }
    }
    // The other block may still be arriving here.
    for (int i = 0; i < STAGES; i++, at.advance())
        barrier_wait(&ring.empty[at.stage], at.parity ^ 1);
}

// ---- The kernel -------------------------------------------------------------------------------

// A warp group: multiplies its 64 rows of each tile and stores them.
template <typename PRODUCTS, int TILE_N, int STAGES>
static __device__ __forceinline__ void multiply_all(const bt_gemm_args &g,
                                                    gemm_ring<TILE_M, TILE_N, STAGES> &ring,
                                                    store_room &room, unsigned rank) {
    unsigned half = threadIdx.x / GROUP_THREADS - 1, thread = threadIdx.x % GROUP_THREADS;
    unsigned steps = (g.k + PRODUCTS::ELEMENTS - 1) / PRODUCTS::ELEMENTS;
    ring_place<STAGES> at;
    float sum[TILE_N / 2];
    for (unsigned index = blockIdx.x / CLUSTER; index < tile_count(g, TILE_N);
         index += gridDim.x / CLUSTER) {
        multiply_stages<PRODUCTS>(sum, ring, at, steps, half * 64, 0, [&](unsigned stage) {
            if (thread < CLUSTER) barrier_arrive_at(&ring.empty[stage], thread);
        });
        tile_place tile = tile_at(g, index, TILE_N, rank);
        unsigned row = tile.row + half * 64 + thread / 32 * STORE_ROWS;
        unsigned rows = rows_left(row, g.m, STORE_ROWS);
        each_column(sum, room, [&](unsigned column, const float *sums) {
            column += tile.column;
            if (column < g.n)
                gemm_store(g, sums, STORE_PITCH, rows,
                           ((size_t)tile.matrix * g.m + row) * g.n + column, column);
        });
    }
}

template <typename PRODUCTS, int TILE_N, int STAGES>
static __device__ __forceinline__ void gemm(const bt_gemm_args &g) {
    extern __shared__ __align__(1024) unsigned char gemm_memory[];
    auto &ring = *(gemm_ring<TILE_M, TILE_N, STAGES> *)gemm_memory;
    auto &room = *(store_room *)(gemm_memory + sizeof ring);
    unsigned rank = cluster_rank();
    ring_begin(ring, CLUSTER);
    cluster_sync();
    if (threadIdx.x < GROUP_THREADS) {
        registers_less<40>();
        if (threadIdx.x == 0) fetch_all<PRODUCTS>(g, ring, rank);
    } else {
        registers_more<232>();
        multiply_all<PRODUCTS>(g, ring, room, rank);
    }
}

#define BT_GEMM(name, products, tile_n, stages)                                                    \
    extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)       \
        name(const __grid_constant__ bt_gemm_args g) {                                             \
        gemm<products, tile_n, stages>(g);                                                         \
    }

BT_GEMM(bt_gemm_bf16, bf16_products, 256, 4)
BT_GEMM(bt_gemm_tf32, tf32_products, 256, 4)
BT_GEMM(bt_gemm_bf16_narrow, bf16_products, 128, 6)
BT_GEMM(bt_gemm_tf32_narrow, tf32_products, 128, 6)
