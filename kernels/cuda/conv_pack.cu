// Images and filters as conv_gemm.cu and conv_f32.cu want them: planes with zeros between the
// images, rounded to bf16 or TF32 for the tensor cores.
#include "gemm_args.h"
#include "gemm_round.cuh"

enum { PACK_TILE = 64, PACK_THREADS = 256 };

// Channel 0 of the pixel at a position of the planes; 0 between the images.
static __device__ __forceinline__ const float *pixel_at(const bt_conv_pack_args &g,
                                                        int position) {
    const bt_conv_plane &p = g.from;
    unsigned sample = (unsigned)position / p.plane, within = (unsigned)position % p.plane;
    unsigned y = within / p.pitch, x = within % p.pitch;
    if (position < 0 || sample >= p.samples || y >= p.h || x >= p.w) return 0;
    return g.x + ((size_t)sample * p.channels * p.h + y) * p.w + x;
}

// to [positions, stride]: the channels of a position side by side. A block turns 64 x 64; all
// that a thread reads is on its way before it uses the first.
template <typename NUMBERS>
static __device__ __forceinline__ void pack_points(const bt_conv_pack_args &g) {
    enum { DOWN = PACK_THREADS / PACK_TILE, COUNT = PACK_TILE / DOWN };
    __shared__ float tile[PACK_TILE][PACK_TILE + 1];
    unsigned position0 = blockIdx.x * PACK_TILE, channel0 = blockIdx.y * PACK_TILE;
    unsigned lane = threadIdx.x % PACK_TILE, row = threadIdx.x / PACK_TILE;
    const float *pixel = pixel_at(g, g.first + (int)(position0 + lane));
    size_t image = (size_t)g.from.h * g.from.w;
    float x[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        unsigned channel = channel0 + row + i * DOWN;
        x[i] = pixel && channel < g.from.channels ? __ldcs(pixel + channel * image) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) tile[row + i * DOWN][lane] = x[i];
    __syncthreads();
    typename NUMBERS::four *to = (typename NUMBERS::four *)g.to;
    unsigned channel = threadIdx.x % 16 * 4;
#pragma unroll
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
    float x[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float *pixel = pixel_at(g, g.first + (int)(i + copy) + j);
        x[j] = pixel ? pixel[(size_t)channel * g.from.h * g.from.w] : 0.0f;
    }
    size_t row = (size_t)copy * g.from.channels + channel;
    ((typename NUMBERS::four *)g.to)[(row * g.stride + i) / 4] =
        NUMBERS::round(make_float4(x[0], x[1], x[2], x[3]));
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
