// Evaluates a network on few images, each as soon as possible: a cluster of blocks shares one
// image. Every layer but the last is divided by outputs (units, channels) over the blocks; each
// block sends what it computed to the shared memory of all, where a barrier counts the bytes that
// have come. The last layer is done by the first block. A block's share of all weights lies in its
// shared memory before the image is known. Plain f32 arithmetic, for nothing here is long enough to
// be worth a tensor core.
//
// Needs besides infer_common.cuh's: CLUSTER (blocks of a cluster), BLOCK_WARPS, SHARED (bytes of a
// block).
#include "infer_common.cuh"

constexpr int WARPS = BLOCK_WARPS, THREADS = 32 * WARPS;

// ---- Shapes ------------------------------------------------------------------------------------

// Outputs of a layer that one block computes.
FORMULA int share(int l) {
    return l == LAYERS - 1 ? net[l].o : (net[l].o + CLUSTER - 1) / CLUSTER;
}
FORMULA int inputs_of_output(int l) {
    return net[l].c * net[l].size * net[l].size;
}

// The input of layer l: of a convolution [c, h + 2 padding, w + 2 padding],
// else flat.
FORMULA int padded(int l) {
    return net[l].conv
               ? net[l].c * (net[l].h + 2 * net[l].padding) * (net[l].w + 2 * net[l].padding)
               : net[l].c;
}

// Numbers in shared memory: weights and biases of the share of each layer, then all inputs and the
// logits.
FORMULA int weights_at(int l) {
    return l == 0 ? 0
                  : weights_at(l - 1) + round_up(share(l - 1) * (inputs_of_output(l - 1) + 1), 4);
}
FORMULA int input_at(int l) {
    return l == 0 ? weights_at(LAYERS) : input_at(l - 1) + round_up(padded(l - 1), 4);
}
constexpr int LOGITS_AT = input_at(LAYERS - 1) + round_up(padded(LAYERS - 1), 4);
static_assert(4 * (LOGITS_AT + round_up(CLASSES, 4)) == SHARED, "the plan counts other bytes");

// ---- The cluster -------------------------------------------------------------------------------

// To the same place in block `rank`, whose barrier counts the bytes.
__device__ void send(float *place, u64 *barrier, u32 rank, float value) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
                     address_in_block(shared_address(place), rank)),
                 "f"(value), "r"(address_in_block(shared_address(barrier), rank))
                 : "memory");
}

// ---- Layers ------------------------------------------------------------------------------------

// Begins to fetch this block's share of the weights.
template <int L> __device__ void fetch_weights(const bt_net_args &a, float *shared, u32 rank) {
    if constexpr (L < LAYERS) {
        constexpr int K = inputs_of_output(L), O = net[L].o;
        const int first = L == LAYERS - 1 ? 0 : rank * share(L), count = least(share(L), O - first);
        const float *weight = a.params + net[L].weight + first * K,
                    *bias = a.params + net[L].bias + first;
        float *to = shared + weights_at(L);
        if (L < LAYERS - 1 || rank == 0) {
            constexpr bool WIDE = K % 4 == 0 && net[L].weight % 4 == 0;
            if (WIDE)
                for (int i = 4 * threadIdx.x; i < count * K; i += 4 * THREADS)
                    copy_16_async(to + i, weight + i);
            else
                for (int i = threadIdx.x; i < count * K; i += THREADS)
                    copy_4_async(to + i, weight + i);
            for (int i = threadIdx.x; i < count; i += THREADS)
                copy_4_async(to + share(L) * K + i, bias + i);
        }
        fetch_weights<L + 1>(a, shared, rank);
    }
}

// The blocks that need the outputs of a layer: for the last one the first alone.
FORMULA int receivers(int l) {
    return l == LAYERS - 2 ? 1 : CLUSTER;
}
FORMULA int output_bytes(int l) {
    return 4 * net[l].o * (net[l].oh / net[l].pool) * (net[l].ow / net[l].pool);
}

// Where output (o, y, x) of layer L is an input of the next one.
template <int L> __device__ float *place_of_output(float *shared, int o, int y, int x) {
    if constexpr (L == LAYERS - 1) {
        return shared + LOGITS_AT + o;
    } else {
        constexpr int NEXT = L + 1, P = net[NEXT].conv ? net[NEXT].padding : 0;
        constexpr int H = net[L].oh / net[L].pool + 2 * P, W = net[L].ow / net[L].pool + 2 * P;
        return shared + input_at(NEXT) + (o * H + y + P) * W + x + P;
    }
}

// Sum over groups of `lanes` lanes.
template <int LANES> __device__ float sum_lanes(float x) {
#pragma unroll
    for (int width = LANES / 2; width > 0; width /= 2) x += __shfl_xor_sync(~0u, x, width);
    return x;
}

// An output per warp; its lanes share the inputs.
template <int L> __device__ void fc(float *shared, u64 *come, u32 rank) {
    constexpr int K = net[L].c, LAST = L == LAYERS - 1;
    const int lane = threadIdx.x % 32;
    const float *x = shared + input_at(L), *weights = shared + weights_at(L);
    const int first = LAST ? 0 : rank * share(L), count = least(share(L), net[L].o - first);
    for (int i = threadIdx.x / 32; i < count; i += WARPS) {
        const float *row = weights + i * K;
        float sum = 0.0f;
        if (K % 4 == 0) {
            float4 s = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
            for (int k = 4 * lane; k < K; k += 128) {
                float4 u = *(const float4 *)(x + k), w = *(const float4 *)(row + k);
                s = {fmaf(u.x, w.x, s.x), fmaf(u.y, w.y, s.y), fmaf(u.z, w.z, s.z),
                     fmaf(u.w, w.w, s.w)};
            }
            sum = (s.x + s.y) + (s.z + s.w);
        } else {
            for (int k = lane; k < K; k += 32) sum = fmaf(x[k], row[k], sum);
        }
        sum = activate<net[L].activation>(sum_lanes<32>(sum) + weights[share(L) * K + i]);
        float *to = place_of_output<L>(shared, first + i, 0, 0);
        if (LAST && lane == 0) *to = sum;
        if (!LAST && lane < receivers(L)) send(to, &come[L], lane, sum);
    }
}

// How many lanes share the input channels of one output.
FORMULA int lanes_of_conv(int l, int lanes) {
    return 2 * lanes <= net[l].c && 2 * lanes <= 32 &&
                   2 * lanes * share(l) * (net[l].oh / net[l].pool) * (net[l].ow / net[l].pool) <=
                       THREADS
               ? lanes_of_conv(l, 2 * lanes)
               : lanes;
}

// An output after pooling per group of lanes, which share the input channels.
template <int L> __device__ void conv(float *shared, u64 *come, u32 rank) {
    constexpr int S = net[L].size, POOL = net[L].pool, C = net[L].c;
    constexpr int H = net[L].h + 2 * net[L].padding, W = net[L].w + 2 * net[L].padding;
    constexpr int OH = net[L].oh / POOL, OW = net[L].ow / POOL, LANES = lanes_of_conv(L, 1);
    const float *x = shared + input_at(L), *weights = shared + weights_at(L);
    const int first = rank * share(L), count = least(share(L), net[L].o - first);
    const int part = threadIdx.x % LANES;
    // (Warps stay whole: shuffles are inside.)
    for (int base = 0; base < count * OH * OW; base += THREADS / LANES) {
        const int at = base + threadIdx.x / LANES, unit = least(at, count * OH * OW - 1);
        const int o = unit / (OH * OW), py = unit / OW % OH, px = unit % OW;
        float sum[POOL][POOL] = {};
        for (int c = part; c < C; c += LANES) {
            const float *from = x + (c * H + py * POOL) * W + px * POOL,
                        *w = weights + (o * C + c) * S * S;
#pragma unroll
            for (int row = 0; row < S + POOL - 1; row++) {
                float v[S + POOL - 1];
#pragma unroll
                for (int i = 0; i < S + POOL - 1; i++) v[i] = from[row * W + i];
#pragma unroll
                for (int y = 0; y < POOL; y++)
#pragma unroll
                    for (int i = 0; i < S * POOL; i++)
                        if (row >= y && row - y < S)
                            sum[y][i / S] =
                                fmaf(v[i / S + i % S], w[(row - y) * S + i % S], sum[y][i / S]);
            }
        }
        float largest = sum_lanes<LANES>(sum[0][0]);
#pragma unroll
        for (int i = 1; i < POOL * POOL; i++)
            largest = fmaxf(largest, sum_lanes<LANES>(sum[i / POOL][i % POOL]));
        if (at >= count * OH * OW) continue;
        largest = activate<net[L].activation>(largest + weights[share(L) * C * S * S + o]);
        float *to = place_of_output<L>(shared, first + o, py, px);
        for (int i = part; i < receivers(L); i += LANES) send(to, &come[L], i, largest);
    }
}

// All layers; the logits are then in block 0. `come`: barriers, one for the outputs of each layer.
template <int L> __device__ void layers(float *shared, u64 *come, u32 rank, u32 parity) {
    if constexpr (L < LAYERS) {
        if (L == LAYERS - 1 && rank > 0) return;
        if (L > 0) mbarrier_wait_cluster(shared_address(&come[L > 0 ? L - 1 : 0]), parity);
        if constexpr (net[L].conv)
            conv<L>(shared, come, rank);
        else
            fc<L>(shared, come, rank);
        layers<L + 1>(shared, come, rank, parity);
    }
}

// Before an image: what this block will be sent.
template <int L> __device__ void expect(u64 *come, u32 rank) {
    if constexpr (L < LAYERS - 1) {
        if (rank < receivers(L)) mbarrier_expect(shared_address(&come[L]), output_bytes(L));
        expect<L + 1>(come, rank);
    }
}

// The first of the largest of LANES numbers; NaN is larger than all.
template <int LANES> __device__ void find_largest(float &largest, int &at) {
#pragma unroll
    for (int width = LANES / 2; width > 0; width /= 2) {
        const float other = __shfl_xor_sync(~0u, largest, width);
        const int there = __shfl_xor_sync(~0u, at, width);
        if (is_larger(other, largest) || (!is_larger(largest, other) && there < at))
            largest = other, at = there;
    }
}

// finish_row by a whole warp, which is sooner done with one row; the result is lane 0's.
__device__ row_result finish_row_together(const bt_net_args &a, const float *logits, int label,
                                          u32 row, u32 first, bool predicts, bool last) {
    constexpr int LANES = CLASSES > 16 ? 32 : 16; // more lanes repeat what the first ones do
    const int lane = threadIdx.x % LANES;
    float largest = logits[least(lane, CLASSES - 1)];
    int best = least(lane, CLASSES - 1);
    for (int j = lane + LANES; j < CLASSES; j += LANES)
        if (is_larger(logits[j], largest)) largest = logits[j], best = j;
    find_largest<LANES>(largest, best);
    float mine = 0.0f;
    for (int j = lane; j < CLASSES; j += LANES) mine += expf(logits[j] - largest);
    const float sum = sum_lanes<LANES>(mine);
    for (int j = lane; j < CLASSES; j += LANES) {
        if (a.logits && last) a.logits[row * CLASSES + j] = logits[j];
        if (a.probabilities && last)
            a.probabilities[row * CLASSES + j] =
                (CLASSES <= LANES ? mine : expf(logits[j] - largest)) / sum;
    }
    if (label < 0 || threadIdx.x > 0) return {0.0f, 0.0f, 0.0f};
    if (predicts && a.predictions && first + row < a.prediction_count)
        a.predictions[first + row] = best;
    const float loss =
        label < CLASSES ? logf(sum) + (largest - logits[label]) : __int_as_float(0x7fc00000);
    return {loss, 1.0f, label == best ? 1.0f : 0.0f};
}

// byte / 255, correctly rounded, as unit_of_byte of kernels/batch.k.
__device__ float unit_of_byte(u32 byte) {
    return ((float)(byte * 0x010101u) + (float)byte * 0.0039215087890625f) * 5.9604644775390625e-8f;
}

__device__ void load_image(const bt_net_args &a, float *shared, int sample) {
    constexpr int P = net[0].conv ? net[0].padding : 0, HEIGHT = net[0].conv ? net[0].h : 1;
    constexpr int WIDTH = net[0].conv ? net[0].w : PIXELS;
    float *x = shared + input_at(0);
    for (int i = threadIdx.x; i < PIXELS / 4; i += THREADS) {
        const u32 four = sample < 0 ? 0 : ((const u32 *)(a.bytes + (size_t)sample * PIXELS))[i];
        for (int j = 0; j < 4; j++) {
            const int at = 4 * i + j, row = at / WIDTH;
            x[(row / HEIGHT * (HEIGHT + 2 * P) + row % HEIGHT + P) * (WIDTH + 2 * P) + at % WIDTH +
              P] = unit_of_byte(four >> 8 * j & 255);
        }
    }
}

FORMULA bool padded_from(int l) {
    return l < LAYERS && ((net[l].conv && net[l].padding) || padded_from(l + 1));
}
constexpr bool PADDED = padded_from(0);

extern "C" __global__ void __launch_bounds__(THREADS) infer_one(bt_net_args a) {
    extern __shared__ __align__(16) float numbers[];
    __shared__ u64 come[LAYERS];
    const u32 rank = cluster_rank(), cluster = blockIdx.x / CLUSTER, clusters = gridDim.x / CLUSTER;
    const books b = books_at(a, a.scratch);
    const u32 first_step = a.state[0];
    fetch_weights<0>(a, numbers, rank);
    if (PADDED) {
        for (int i = input_at(0) + threadIdx.x; i < LOGITS_AT; i += THREADS) numbers[i] = 0.0f;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        for (int i = 0; i < LAYERS; i++) mbarrier_init(shared_address(&come[i]), 1);
    // (Not mbarrier_init_fence: nothing but threads uses these barriers, and its fence for the copy
    // engine takes 0.1 us.)
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    cluster_arrive();
    u32 images = 0; // so far
    for (work w = first_work(cluster, a.batch); w.step < a.steps; next_work(w, clusters)) {
        const u32 row = w.part;
        const batch_place place = place_of_step(a, first_step + w.step);
        const int sample = sample_of_row(a, place, row),
                  label = sample < 0 || !(a.log || a.predictions) ? -1 : a.labels[sample];
        if (images > 0) { // nobody needs the activations of the image before any more
            cluster_arrive();
            cluster_wait();
        }
        if (threadIdx.x == 0) expect<0>(come, rank);
        load_image(a, numbers, sample);
        copies_wait();
        if (images == 0) cluster_wait(); // all blocks are there
        __syncthreads();
        layers<0>(numbers, come, rank, images++ & 1);
        if (rank > 0) continue;
        __syncthreads(); // for the logits
        if (threadIdx.x >= 32) continue;
        const row_result r =
            finish_row_together(a, numbers + LOGITS_AT, label, row, place.first,
                                is_last_of_ring(a, w.step, a.epoch_steps), w.step + 1 == a.steps);
        if (is_logged(a, w.step)) finish_part(a, b, first_step + w.step, w.part, w.parts, r);
    }
    if (images == 0) cluster_wait();
    if (rank == 0) finish_launch(a, b.blocks_done, first_step, clusters);
}
