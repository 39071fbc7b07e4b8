// Fully connected layers whose weights are too large for shared memory: they stay in L2. What
// counts is how many reads are under way, so a thread begins many before it uses the first.
//
// Their gradient W = sum of dy x^T over the batch would be large, too, and every block would have
// to send a part of it. The blocks send x and dy of their images instead, and the block that owns a
// part of W makes the products itself.
#ifndef BT_CUDA_CNN_FAR
#define BT_CUDA_CNN_FAR
#include "cnn_math.cuh"
#include "cnn_shapes.cuh"

namespace cnn {

DEVICE float4 far_read(const float *from) {
    return __ldcg((const float4 *)from);
}

DEVICE float dot(float4 a, float4 b) {
    return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

// W x: a warp has some outputs of all images at once; done(slot, output, sum).
template <int K, typename Done>
DEVICE void far_forward(const float *shared, const float *weights, int first, int thread,
                        Done done) {
    constexpr Fc f = FC[K];
    static_assert(f.in % 4 == 0, "rows of whole quads");
    constexpr int rows = 4, groups = (f.out + rows - 1) / rows;
    int lane = thread % 32;
    const float *x = shared + AT.fc[K].input + first * f.in;
    for (int group = thread / 32; group < groups; group += WARPS) {
        int begin = (group + blockIdx.x) % groups * rows; // not all blocks the same rows at once
        float sum[rows][AT_ONCE] = {};
        constexpr int quads = (f.in + 127) / 128, at_once = quads < 4 ? quads : 4; // of a lane
        for (int chunk = 0; chunk < quads; chunk += at_once) {
            float4 w[at_once][rows];
#pragma unroll
            for (int k = 0; k < at_once; k++) {
#pragma unroll
                for (int r = 0; r < rows; r++) {
                    int i = min(4 * lane + 128 * (chunk + k), f.in - 4),
                        j = min(begin + r, f.out - 1);
                    w[k][r] = far_read(weights + j * f.in + i);
                }
            }
#pragma unroll
            for (int k = 0; k < at_once; k++) {
                int i = 4 * lane + 128 * (chunk + k);
                if (i >= f.in) continue;
#pragma unroll
                for (int slot = 0; slot < AT_ONCE; slot++) {
                    float4 quad = *(const float4 *)(x + slot * f.in + i);
#pragma unroll
                    for (int r = 0; r < rows; r++) sum[r][slot] += dot(w[k][r], quad);
                }
            }
        }
#pragma unroll
        for (int r = 0; r < rows; r++) {
#pragma unroll
            for (int slot = 0; slot < AT_ONCE; slot++) {
                float total = warp_sum(sum[r][slot]);
                if (lane == 0 && begin + r < f.out) done(slot, begin + r, total);
            }
        }
    }
}

// W^T dy: a thread has four inputs and a part of the outputs; done(slot, input, sum).
template <int K, typename Done>
DEVICE void far_input_slope(float *shared, const float *weights, int first, int thread, Done done) {
    constexpr Fc f = FC[K];
    constexpr int quads = f.in / 4, room = 8 * THREADS / (AT_ONCE * f.in); // of AT.part
    constexpr int wide = THREADS / quads < room ? THREADS / quads : room;
    static_assert(wide > 0, "no room for a sum of each input");
    constexpr int parts = wide < 4 ? wide : 4, each = (f.out + parts - 1) / parts;
    const float *dy = shared + AT.fc[K].slope + first * f.out;
    int quad = thread % quads, part = thread / quads;
    if (part < parts) {
        float4 sum[AT_ONCE] = {};
#pragma unroll 15
        for (int j = part * each; j < min((part + 1) * each, f.out); j++) {
            float4 w = far_read(weights + j * f.in + 4 * quad);
#pragma unroll
            for (int slot = 0; slot < AT_ONCE; slot++) {
                float g = dy[slot * f.out + j];
                sum[slot].x += w.x * g, sum[slot].y += w.y * g;
                sum[slot].z += w.z * g, sum[slot].w += w.w * g;
            }
        }
#pragma unroll
        for (int slot = 0; slot < AT_ONCE; slot++) {
            *(float4 *)(shared + AT.partial + (part * AT_ONCE + slot) * f.in + 4 * quad) =
                sum[slot];
        }
    }
    __syncthreads();
    for (int item = thread; item < AT_ONCE * f.in; item += THREADS) {
        float sum = shared[AT.partial + item];
#pragma unroll
        for (int p = 1; p < parts; p++) sum += shared[AT.partial + p * AT_ONCE * f.in + item];
        done(item / f.in, item % f.in, sum);
    }
}

// In global memory every block has a slot: x of all its images, then dy, of each such layer.
__host__ __device__ constexpr int far_first(int layer) {
    int at = 0;
    for (int i = 0; i < layer; i++) {
        at += FC[i].on_chip ? 0 : IMAGES * (round_up(FC[i].in, 4) + round_up(FC[i].out, 4));
    }
    return at;
}

constexpr int SLOT_STRIDE = round_up(far_first(FCS), 32);
constexpr bool HAS_FAR = far_first(FCS) > 0;

template <int K = 0> DEVICE void far_send(const float *shared, float *slot, int thread) {
    constexpr Fc f = FC[K];
    if constexpr (!f.on_chip) {
        float *x = slot + far_first(K), *dy = x + IMAGES * f.in;
        for (int i = thread; i < IMAGES * f.in; i += THREADS) x[i] = shared[AT.fc[K].input + i];
        for (int j = thread; j < IMAGES * f.out; j += THREADS) dy[j] = shared[AT.fc[K].slope + j];
    }
    if constexpr (K + 1 < FCS) far_send<K + 1>(shared, slot, thread);
}

// A block owns a tile of W, some rows by some quads of columns, so that it needs a part of x and dy
// alone.
template <int K> struct FarTile {
    static constexpr int QUADS = FC[K].in / 4, ROWS = FC[K].out;
    static constexpr int ACROSS = QUADS >= 16 && BLOCKS >= 16 ? 4 : 1, DOWN = BLOCKS / ACROSS;
    static constexpr int WIDTH = (QUADS + ACROSS - 1) / ACROSS, HEIGHT = (ROWS + DOWN - 1) / DOWN;
};

// The gradient of the block's tile; done(where in params, four sums). Some threads share a quad,
// each with a part of the blocks.
template <int K, typename Done>
DEVICE void far_weight_slope(float *shared, const float *slots, int thread, Done done) {
    constexpr Fc f = FC[K];
    using T = FarTile<K>;
    constexpr int all = T::WIDTH * T::HEIGHT;
    constexpr int parts = THREADS / all < 1 ? 1 : THREADS / all > 4 ? 4 : THREADS / all;
    constexpr int width = THREADS / parts, each = (BLOCKS + parts - 1) / parts;
    constexpr int unroll = 16 / IMAGES > 0 ? 16 / IMAGES : 1;
    int part = thread / width;
    int left = blockIdx.x % T::ACROSS * T::WIDTH, top = blockIdx.x / T::ACROSS * T::HEIGHT;
    for (int group = 0; group < all; group += width) {
        int item = group + thread % width;
        int quad = left + item % T::WIDTH, j = top + item / T::WIDTH;
        bool owned = item < all && quad < T::QUADS && j < T::ROWS;
        float4 sum = make_float4(0, 0, 0, 0);
        if (owned && part < parts) {
#pragma unroll unroll
            for (int block = part * each; block < min((part + 1) * each, BLOCKS); block++) {
                const float *x = slots + (size_t)block * SLOT_STRIDE + far_first(K);
                const float *dy = x + IMAGES * f.in;
#pragma unroll
                for (int image = 0; image < IMAGES; image++) {
                    float4 v = far_read(x + image * f.in + 4 * quad);
                    float g = __ldcg(dy + image * f.out + j);
                    sum.x += v.x * g, sum.y += v.y * g, sum.z += v.z * g, sum.w += v.w * g;
                }
            }
        }
        float4 *partial = (float4 *)(shared + AT.partial);
        partial[thread] = sum;
        __syncthreads();
        if (part == 0 && owned) {
#pragma unroll
            for (int p = 1; p < parts; p++) {
                float4 more = partial[p * width + thread];
                sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
            }
            float g[4] = {sum.x, sum.y, sum.z, sum.w};
            done(f.weight + j * f.in + 4 * quad, g);
        }
        __syncthreads();
    }
}

} // namespace cnn
#endif
