// Convolutions of many channels, with stride 1, as products on the tensor cores of Hopper.
//
// Images lie in planes whose rows have zeros at their ends, as many as a filter reaches beyond the
// image, sample after sample. Then the tap (ky, kx) of all pixels is the same plane, moved by
// ky pitch + kx: no columns are written, and no pixel is asked whether it exists. A tile of pixels
// is a tile of consecutive positions, which the copy engine fetches once for each tap at another
// place. The positions between the images are computed and not stored.
//
// The gradient of the input is the convolution of dy with the filters turned around. (That of the
// weights is in conv_f32.cu.)
#include "gemm_args.h"
#include "gemm_hopper.cuh"
#include "math.cuh"

#include "conv_store.cuh"

enum { TILE_N = 256, STAGES = 4 };

// The two warp groups share a tile of 128 rows by rows, one of 64 by columns.
template <int TILE_M> struct share {
    static constexpr int COLUMNS = TILE_M == 128 ? TILE_N : TILE_N / 2;
    static __device__ __forceinline__ unsigned row(unsigned half) {
        return TILE_M == 128 ? half * 64 : 0;
    }
    static __device__ __forceinline__ unsigned column(unsigned half) {
        return TILE_M == 128 ? 0 : half * (TILE_N / 2);
    }
};

// ---- y = f(weight * x + bias) -----------------------------------------------------------------

static __device__ __forceinline__ unsigned conv_tiles(const bt_conv_gemm_args &g, unsigned tile_m) {
    return (g.out.rows + tile_m - 1) / tile_m *
           ((g.out.samples * g.out.plane + TILE_N - 1) / TILE_N);
}

template <typename PRODUCTS, int TILE_M>
static __device__ __forceinline__ void conv_fetch(const bt_conv_gemm_args &g,
                                                  gemm_ring<TILE_M, TILE_N, STAGES> &ring) {
    ring_place<STAGES> at;
    unsigned tall = (g.out.rows + TILE_M - 1) / TILE_M;
    for (unsigned index = blockIdx.x; index < conv_tiles(g, TILE_M); index += gridDim.x) {
        unsigned row = index % tall * TILE_M, position = index / tall * TILE_N;
        for (unsigned tap = 0; tap < g.out.taps; tap++) {
            int place = (int)(position + tap / g.out.kw * g.out.pitch + tap % g.out.kw) + g.shift;
            for (unsigned step = 0; step < g.steps; step++, at.advance()) {
                u64 *full = &ring.full[at.stage];
                barrier_wait(&ring.empty[at.stage], at.parity ^ 1);
                barrier_expect(full, (TILE_M + TILE_N) * ROW_BYTES);
                fetch_tile(ring.a[at.stage], &g.a, full,
                           (tap * g.steps + step) * PRODUCTS::ELEMENTS, row, 0);
                fetch_tile(ring.b[at.stage], &g.b, full, step * PRODUCTS::ELEMENTS, place, 0);
            }
        }
    }
}

template <typename PRODUCTS, int TILE_M>
static __device__ __forceinline__ void conv_multiply(const bt_conv_gemm_args &g,
                                                     gemm_ring<TILE_M, TILE_N, STAGES> &ring,
                                                     store_room &room) {
    unsigned half = threadIdx.x / GROUP_THREADS - 1, thread = threadIdx.x % GROUP_THREADS;
    unsigned tall = (g.out.rows + TILE_M - 1) / TILE_M;
    unsigned top = share<TILE_M>::row(half), left = share<TILE_M>::column(half);
    ring_place<STAGES> at;
    float sum[share<TILE_M>::COLUMNS / 2];
    for (unsigned index = blockIdx.x; index < conv_tiles(g, TILE_M); index += gridDim.x) {
        multiply_stages<PRODUCTS>(sum, ring, at, g.out.taps * g.steps, top, left,
                                  [&](unsigned stage) {
                                      if (thread == 0) barrier_arrive(&ring.empty[stage]);
                                  });
        unsigned row = index % tall * TILE_M + top + thread / 32 * STORE_ROWS;
        unsigned rows = rows_left(row, g.out.rows, STORE_ROWS);
        each_column(sum, room, [&](unsigned column, const float *sums) {
            conv_store(g.out, sums, STORE_PITCH, rows, row, index / tall * TILE_N + left + column);
        });
    }
}

template <typename PRODUCTS, int TILE_M>
static __device__ __forceinline__ void conv(const bt_conv_gemm_args &g) {
    extern __shared__ __align__(1024) unsigned char conv_memory[];
    auto &ring = *(gemm_ring<TILE_M, TILE_N, STAGES> *)conv_memory;
    auto &room = *(store_room *)(conv_memory + sizeof ring);
    ring_begin(ring, 1);
    __syncthreads();
    if (threadIdx.x < GROUP_THREADS) {
        registers_less<40>();
        if (threadIdx.x == 0) conv_fetch<PRODUCTS>(g, ring);
    } else {
        registers_more<232>();
        conv_multiply<PRODUCTS>(g, ring, room);
    }
}

#define BT_CONV(name, products, tile_m)                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                       \
        name(const __grid_constant__ bt_conv_gemm_args g) {                                        \
        conv<products, tile_m>(g);                                                                 \
    }

BT_CONV(bt_conv_bf16_64, bf16_products, 64)
BT_CONV(bt_conv_bf16_128, bf16_products, 128)
BT_CONV(bt_conv_tf32_64, tf32_products, 64)
BT_CONV(bt_conv_tf32_128, tf32_products, 128)
