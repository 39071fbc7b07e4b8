// What the inference kernels share: how the network is described, products on tensor cores that are
// as exact as f32, and the books of an evaluation (loss, rows predicted right, predictions,
// probabilities, the step counter).
//
// The host writes before this text: NET_LAYERS (one `layer` after the other), CLASSES and PRODUCTS
// (3: as exact as f32, 1: operands rounded).

#include "common.cuh"

// ---- The network -------------------------------------------------------------------------------

enum { NO_ACTIVATION, RELU, SIGMOID, TANH };

// As bt_net_layer: y = pool(activation(x * weight + bias)); the first x is byte / 255.
struct layer {
    int conv;               // 0: fc, of c inputs and o outputs
    int c, h, w, o, oh, ow; // input; output before pooling
    int size, padding, activation, pool;
    u32 weight, bias; // where they begin in params
};

constexpr layer net[] = {NET_LAYERS};
constexpr int LAYERS = sizeof(net) / sizeof(net[0]);
constexpr int PIXELS = net[0].c * net[0].h * net[0].w;

// Computed by the compiler.
#define FORMULA __host__ __device__ constexpr

FORMULA int round_up(int n, int unit) {
    return (n + unit - 1) / unit * unit;
}
FORMULA int least(int a, int b) {
    return a < b ? a : b;
}
FORMULA int most(int a, int b) {
    return a > b ? a : b;
}

template <int ACTIVATION> __device__ float activate(float x) {
    if (ACTIVATION == RELU) return x < 0.0f ? 0.0f : x; // NaN stays
    if (ACTIVATION == SIGMOID) return 1.0f / (1.0f + expf(-x));
    if (ACTIVATION == TANH) return tanhf(x);
    return x;
}

// ---- Work and memory ---------------------------------------------------------------------------

// The work of a launch: steps of `parts` parts each, which the workers (blocks, clusters) take by
// turns.
struct work {
    u32 step, part, parts; // step: of this launch
};

__device__ work first_work(u32 worker, u32 parts) {
    return {worker / parts, worker % parts, parts};
}
__device__ void next_work(work &w, u32 workers) {
    w.part += workers;
    w.step += w.part / w.parts;
    w.part %= w.parts;
}

__device__ void copy_16_async(void *shared, const void *global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
                 "l"(global)
                 : "memory");
}
__device__ void copy_4_async(void *shared, const void *global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(shared)),
                 "l"(global)
                 : "memory");
}
__device__ void copies_wait() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// Clusters: what the threads of one wrote before they arrive is seen by all that have waited.
__device__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Adds to a counter of the whole grid: what this thread wrote before is seen by whoever reads the
// new count and then (through its own barrier) by the other threads of that block.
__device__ u32 count_up(u32 *counter) {
    u32 before;
    asm volatile("atom.add.acq_rel.gpu.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}

// ---- Products ----------------------------------------------------------------------------------
// In all fragments below: g = lane / 4, q = lane % 4.

// x = high + low: the upper 11 bits of the number, exactly, and the rest, of which the tensor core
// takes the upper 11.
__device__ void split_tf32(float x, u32 &high, u32 &low) {
    high = (__float_as_uint(x) + (PRODUCTS == 1 ? 0x1000u : 0u)) & 0xffffe000u; // alone: rounded
    low = __float_as_uint(x - __uint_as_float(high));
}

// d [16, 8] += a [16, 8] b [8, 8]: d (g, 2q) (g, 2q + 1) (g + 8, ..); a (g, q) (g + 8, q) (g, q +
// 4) (g + 8, q + 4); b (q, g) (q + 4, g).
__device__ void mma_tf32(float d[4], const u32 a[4], const u32 b[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- Fully connected layers --------------------------------------------------------------------

// Numbers between two rows of activations in shared memory: 8 beyond a multiple of 16, so that a
// warp that reads pairs from 8 rows meets each bank once.
FORMULA int row_stride(int numbers) {
    return round_up(numbers, 16) + 8;
}

// y [N, O] = activation(x [N, K] weight^T + bias), all by the WARPS warps of a block, or of a group
// of them if PARTS is 1. x and y lie
// in shared memory, the weights anywhere, WS numbers from one output to the next. A warp takes 16
// outputs x 8 TILES rows; where that is less work than there are warps, PARTS warps share the
// inputs and `sums` [PARTS, N, O] holds their shares.
template <int L, int N, int TILES, int PARTS, int WARPS, int WS>
__device__ void fully_connected(const float *weight, const float *bias, const float *x, float *y,
                                float *sums) {
    constexpr int K = net[L].c, O = net[L].o, XS = row_stride(K), YS = row_stride(O);
    constexpr int STRIPS = (O + 15) / 16, BANDS = (N + 8 * TILES - 1) / (8 * TILES);
    constexpr int STEPS = (K + 7) / 8, PER_PART = (STEPS + PARTS - 1) / PARTS;
    const int warp = threadIdx.x / 32 % WARPS, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    for (int unit = warp; unit < STRIPS * BANDS * PARTS; unit += WARPS) {
        const int part = unit % PARTS, band = unit / PARTS % BANDS * TILES;
        const int row0 = unit / PARTS / BANDS * 16 + g, row1 = row0 + 8;
        float d[3][TILES][4] = {}; // high high, high low, low high
        const int stop = least(STEPS, (part + 1) * PER_PART);
#pragma unroll 8
        for (int step = part * PER_PART; step < stop; step++) {
            const int k = step * 8 + 2 * q; // this thread's two of the eight, the same in a and b
            u32 high[4], low[4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int row = i ? row1 : row0;
                float2 w = {0.0f, 0.0f};
                if (row < O && WS % 2 == 0 && K % 8 == 0 && net[L].weight % 2 == 0)
                    w = *(const float2 *)&weight[row * WS + k];
                else if (row < O)
                    w = {k < K ? weight[row * WS + k] : 0.0f,
                         k + 1 < K ? weight[row * WS + k + 1] : 0.0f};
                split_tf32(w.x, high[i], low[i]);
                split_tf32(w.y, high[i + 2], low[i + 2]);
            }
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                if ((band + t) * 8 >= N) break;
                float2 pair = *(const float2 *)&x[((band + t) * 8 + g) * XS + k];
                if (K % 8 && k >= K) pair.x = 0.0f; // what lies there is of another layer
                if (K % 8 && k + 1 >= K) pair.y = 0.0f;
                u32 x_high[2], x_low[2];
                split_tf32(pair.x, x_high[0], x_low[0]);
                split_tf32(pair.y, x_high[1], x_low[1]);
                mma_tf32(d[0][t], high, x_high);
                if (PRODUCTS > 1) mma_tf32(d[1][t], high, x_low);
                if (PRODUCTS > 1) mma_tf32(d[2][t], low, x_high);
            }
        }
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            if ((band + t) * 8 >= N) break;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int n = (band + t) * 8 + 2 * q + i % 2, o = i / 2 ? row1 : row0;
                float sum = d[0][t][i] + (d[1][t][i] + d[2][t][i]);
                if (o >= O) continue;
                if (PARTS > 1)
                    sums[(part * N + n) * O + o] = sum;
                else
                    y[n * YS + o] = activate<net[L].activation>(sum + bias[o]);
            }
        }
    }
    if (PARTS == 1) return;
    __syncthreads();
    for (int i = threadIdx.x; i < N * O; i += 32 * WARPS) {
        float sum = 0.0f;
        for (int part = 0; part < PARTS; part++) sum += sums[part * N * O + i];
        y[i / O * YS + i % O] = activate<net[L].activation>(sum + bias[i % O]);
    }
}

// ---- The books of an evaluation ----------------------------------------------------------------

struct row_result {
    float loss, counts, right;
};

// a > b, where NaN is larger than all numbers (order_of of kernels/math.k).
__device__ bool is_larger(float a, float b) {
    return a > b || (a != a && b == b);
}

// Softmax, loss and prediction of one row of logits and its label (-1: it does not count), as far
// as somebody wants them, by one thread. `first`: position of row 0 in the epoch;
// `last`: of the steps of the launch, whose logits and probabilities are kept.
__device__ row_result finish_row(const bt_net_args &a, const float *logits, int label, u32 row,
                                 u32 first, bool predicts, bool last) {
    constexpr int UNROLL = CLASSES <= 32 ? CLASSES : 4;
    if (a.logits && last && row < a.batch)
#pragma unroll UNROLL
        for (int j = 0; j < CLASSES; j++) a.logits[row * CLASSES + j] = logits[j];
    if (!a.log && !a.predictions && !(a.probabilities && last)) return {0.0f, 0.0f, 0.0f};
    float largest = logits[0], sum = 0.0f;
    int best = 0;
#pragma unroll UNROLL
    for (int j = 1; j < CLASSES; j++)
        if (is_larger(logits[j], largest)) largest = logits[j], best = j;
#pragma unroll UNROLL
    for (int j = 0; j < CLASSES; j++) sum += expf(logits[j] - largest);
    if (a.probabilities && last && row < a.batch) {
        const float scale = 1.0f / sum;
#pragma unroll UNROLL
        for (int j = 0; j < CLASSES; j++)
            a.probabilities[row * CLASSES + j] = expf(logits[j] - largest) * scale;
    }
    if (label < 0) return {0.0f, 0.0f, 0.0f};
    if (predicts && a.predictions && first + row < a.prediction_count)
        a.predictions[first + row] = best;
    float loss =
        label < CLASSES ? logf(sum) + (largest - logits[label]) : __int_as_float(0x7fc00000);
    return {loss, 1.0f, label == best ? 1.0f : 0.0f};
}

// In scratch, which is zeros before the first launch: counters, then the sums of the parts of
// steps. Where a launch has more steps than the log, only the last of those that share an entry is
// written, so that entries need no order.
struct books {
    u32 *blocks_done, *parts_done; // [1], [log_steps]
    row_result *sums;              // [log_steps, parts]
};

__device__ books books_at(const bt_net_args &a, void *scratch) {
    u32 *counters = (u32 *)scratch;
    return {counters, counters + 64, (row_result *)(counters + 64 + (a.log_steps + 63) / 64 * 64)};
}

// Adds up what the lanes of a warp hand over, in a fixed order.
__device__ row_result warp_sum(row_result mine) {
#pragma unroll
    for (int width = 16; width > 0; width /= 2) {
        mine.loss += __shfl_xor_sync(~0u, mine.loss, width);
        mine.counts += __shfl_xor_sync(~0u, mine.counts, width);
        mine.right += __shfl_xor_sync(~0u, mine.right, width);
    }
    return mine;
}

// A whole warp hands in a part of a step, each lane its row; the last part writes the log.
__device__ void finish_part(const bt_net_args &a, const books &b, u32 step, u32 part, u32 parts,
                            row_result mine) {
    const u32 slot = step % a.log_steps, lane = threadIdx.x % 32;
    row_result sum = warp_sum(mine), *sums = b.sums + (size_t)slot * parts;
    if (parts > 1) {
        u32 before = 0;
        if (lane == 0) {
            sums[part] = sum;
            before = count_up(&b.parts_done[slot]);
        }
        __syncwarp(); // what lane 0 acquired is now everybody's
        if (__shfl_sync(~0u, before, 0) != parts - 1) return;
        sum = {0.0f, 0.0f, 0.0f};
#pragma unroll 4
        for (u32 i = lane; i < parts; i += 32) {
            const float *from = &sums[i].loss; // not through L1, which may hold an older one
            sum.loss += __ldcg(from), sum.counts += __ldcg(from + 1), sum.right += __ldcg(from + 2);
        }
        sum = warp_sum(sum);
    }
    if (lane > 0) return;
    b.parts_done[slot] = 0;
    a.log[2 * slot] = sum.counts > 0.0f ? sum.loss / sum.counts : 0.0f;
    a.log[2 * slot + 1] = sum.right;
}

// Whether step `i` of this launch is the last that writes to its entry in a ring of `ring` entries.
__device__ bool is_last_of_ring(const bt_net_args &a, u32 i, u32 ring) {
    return a.steps - i <= ring;
}
__device__ bool is_logged(const bt_net_args &a, u32 i) {
    return a.log && is_last_of_ring(a, i, a.log_steps);
}

// By `blocks` blocks when they are done: the last one moves the step on. True for one thread of
// that.
__device__ bool finish_launch(const bt_net_args &a, u32 *blocks_done, u32 first_step, u32 blocks) {
    if (blocks > 1) {
        __syncthreads();
        if (threadIdx.x > 0 || count_up(blocks_done) != blocks - 1) return false;
        *blocks_done = 0;
    }
    if (threadIdx.x > 0) return false;
    a.state[0] = first_step + a.steps;
    return true;
}
