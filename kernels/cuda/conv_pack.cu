// Images and filters as conv_gemm.cu and conv_f32.cu want them: planes with zeros between the
// images, rounded to bf16 or TF32 for the tensor cores.
// Runs on any GPU.
#include "gemm_args.h"
#include "gemm_round.cuh"

enum { PACK_TILE = 64, PACK_THREADS = 256 };

// The number of channel `channel` at a position of the planes; 0 between the images.
static __device__ __forceinline__ float number_at(const bt_conv_pack_args &g, unsigned channel,
                                                  int signed_position) {
    const bt_conv_plane &p = g.from;
    if (signed_position < 0) return 0.0f;
    unsigned position = (unsigned)signed_position;
    unsigned sample = position / p.plane, within = position % p.plane;
    unsigned y = within / p.pitch, x = within % p.pitch;
    if (sample >= p.samples || channel >= p.channels || y >= p.h || x >= p.w) return 0.0f;
    return g.x[(((size_t)sample * p.channels + channel) * p.h + y) * p.w + x];
}

// to [positions, stride]: the channels of a position side by side. A block turns 64 x 64.
template <typename NUMBERS>
static __device__ __forceinline__ void pack_points(const bt_conv_pack_args &g) {
    __shared__ float tile[PACK_TILE][PACK_TILE + 1];
    unsigned position0 = blockIdx.x * PACK_TILE, channel0 = blockIdx.y * PACK_TILE;
    unsigned lane = threadIdx.x % PACK_TILE, row = threadIdx.x / PACK_TILE;
#pragma unroll
    for (unsigned i = 0; i < PACK_TILE; i += PACK_THREADS / PACK_TILE)
        tile[row + i][lane] = number_at(g, channel0 + row + i, g.first + (int)(position0 + lane));
    __syncthreads();
    typename NUMBERS::four *to = (typename NUMBERS::four *)g.to;
    unsigned channel = threadIdx.x % 16 * 4;
    for (unsigned i = threadIdx.x / 16; i < PACK_TILE; i += PACK_THREADS / 16) {
        if (position0 + i >= g.positions || channel0 + channel >= g.stride) continue;
        to[((size_t)(position0 + i) * g.stride + channel0 + channel) / 4] =
            NUMBERS::round(make_float4(tile[channel][i], tile[channel + 1][i], tile[channel + 2][i],
                                       tile[channel + 3][i]));
    }
}

// to [copies, channels, stride]: the positions of a channel side by side, four for each thread.
template <typename NUMBERS>
static __device__ __forceinline__ void pack_planes(const bt_conv_pack_args &g) {
    unsigned i = (blockIdx.x * PACK_THREADS + threadIdx.x) * 4, channel = blockIdx.y;
    unsigned copy = blockIdx.z;
    if (i >= g.positions) return;
    int at = g.first + (int)(i + copy);
    float4 x = make_float4(number_at(g, channel, at), number_at(g, channel, at + 1),
                           number_at(g, channel, at + 2), number_at(g, channel, at + 3));
    size_t row = (size_t)copy * g.from.channels + channel;
    ((typename NUMBERS::four *)g.to)[(row * g.stride + i) / 4] = NUMBERS::round(x);
}

static __device__ __forceinline__ float weight_at(const bt_conv_weights_args &g, unsigned row,
                                                  unsigned tap, unsigned channel) {
    if (row >= (g.flipped ? g.c : g.o) || channel >= (g.flipped ? g.o : g.c)) return 0.0f;
    return g.flipped ? g.weight[((size_t)channel * g.c + row) * g.taps + g.taps - 1 - tap]
                     : g.weight[((size_t)row * g.c + channel) * g.taps + tap];
}

// One thread for each number of the result.
template <typename NUMBERS>
static __device__ __forceinline__ void pack_weights(const bt_conv_weights_args &g) {
    unsigned rows = g.flipped ? g.c : g.o;
    size_t at = (size_t)blockIdx.x * PACK_THREADS + threadIdx.x;
    if (at >= (size_t)rows * g.taps * g.stride) return;
    unsigned channel = (unsigned)(at % g.stride), tap = (unsigned)(at / g.stride % g.taps);
    unsigned row = (unsigned)(at / g.stride / g.taps);
    ((typename NUMBERS::one *)g.to)[at] = NUMBERS::round(weight_at(g, row, tap, channel));
}

extern "C" __global__ void __launch_bounds__(PACK_THREADS)
    bt_conv_weights_f32(const bt_conv_weights_args g) {
    size_t at = (size_t)blockIdx.x * PACK_THREADS + threadIdx.x;
    if (at >= (size_t)g.taps * g.depth * g.stride) return;
    unsigned row = (unsigned)(at % g.stride), channel = (unsigned)(at / g.stride % g.depth);
    ((float *)g.to)[at] = weight_at(g, row, (unsigned)(at / g.stride / g.depth), channel);
}

#define BT_CONV_PACK(kernel, args, name, numbers)                                                  \
    extern "C" __global__ void __launch_bounds__(PACK_THREADS) name(const args g) {                \
        kernel<numbers>(g);                                                                        \
    }

BT_CONV_PACK(pack_points, bt_conv_pack_args, bt_conv_points_bf16, bf16_numbers)
BT_CONV_PACK(pack_points, bt_conv_pack_args, bt_conv_points_tf32, tf32_numbers)
BT_CONV_PACK(pack_weights, bt_conv_weights_args, bt_conv_weights_bf16, bf16_numbers)
BT_CONV_PACK(pack_weights, bt_conv_weights_args, bt_conv_weights_tf32, tf32_numbers)
BT_CONV_PACK(pack_points, bt_conv_pack_args, bt_conv_points_f32, f32_numbers)
BT_CONV_PACK(pack_planes, bt_conv_pack_args, bt_conv_planes_f32, f32_numbers)
