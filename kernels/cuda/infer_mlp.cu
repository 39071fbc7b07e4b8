// Evaluates an MLP on whole batches in one launch. The first layer, nearly all of the work, is done
// in integers: a pixel is a byte already, and a weight becomes a whole number of 23 bits and a sign
// times a scale of its own output, written as DIGITS digits of 8 bits. So the tensor cores multiply
// bytes by bytes at twice the rate of f16, sums are exact, and nothing is converted on the way from
// the data set to the product.
//
// 1. Each block makes digits of a few rows of weights, in scratch; meanwhile its images arrive.
// 2. All blocks meet: the digits are there.
// 3. Each block takes a tile of IMAGES images, which lie in shared memory whole. The digits of 32
//    inputs at a time pass through a ring of STAGES; the blocks of a cluster each fetch a share and
//    send it to all. Four groups of 4 warps have 64 hidden units and half of the images each; more
//    units come in further passes.
// 4. The further layers, small, from shared memory; then loss, predictions, probabilities.
//
// Needs besides infer_common.cuh's: CLUSTER (blocks of a cluster), STAGES, FC_SHARED (whether the
// weights of the further layers are in shared memory), SHARED (bytes of a block).
#include "infer_common.cuh"

constexpr int IMAGES = 96, COLUMNS = 48; // of a tile; of a product, as the instruction below says
constexpr int DIGITS = PRODUCTS == 3 ? 3 : 2;
constexpr int WARPS = 16, THREADS = 32 * WARPS;

constexpr int HIDDEN = net[0].o, PASSES = (HIDDEN + 127) / 128;
constexpr int CHUNKS = (PIXELS + 31) / 32; // the inputs of one product
constexpr int INPUTS = CHUNKS * 32;

// Operands of products lie as matrices of 8 rows x 16 bytes, first along the inputs.
constexpr int OPERAND_BYTES = 64 * 32; // 64 hidden units x 32 inputs, one digit
constexpr int CHUNK_BYTES = 2 * DIGITS * OPERAND_BYTES;
constexpr int SHARE_BYTES = CHUNK_BYTES / CLUSTER;
constexpr int IMAGE_BYTES = IMAGES * INPUTS;

// Weights of the further layers.
FORMULA int fc_numbers(int l) {
    return l >= LAYERS ? 0 : net[l].o * row_stride(net[l].c) + fc_numbers(l + 1);
}
constexpr int FC_BYTES = FC_SHARED ? fc_numbers(1) * 4 : 0;

// Activations [IMAGES, row_stride] in two places by turns.
FORMULA int widest(int l, int parity) {
    return l >= LAYERS ? 0
                       : most(l % 2 == parity ? row_stride(net[l].o) : 0, widest(l + 1, parity));
}
constexpr int EVEN_BYTES = IMAGES * widest(0, 0) * 4, ODD_BYTES = IMAGES * widest(0, 1) * 4;
// The odd place is that of the images, which are no longer needed then.
constexpr int FRONT_BYTES = most(IMAGE_BYTES, ODD_BYTES);
constexpr int SHARED_BYTES = FRONT_BYTES + STAGES * CHUNK_BYTES + FC_BYTES + EVEN_BYTES;
static_assert(SHARED_BYTES == SHARED, "the plan counts other bytes");

// And books after it.
struct scratch_layout {
    u32 arrived, pad[63];      // blocks whose digits are made
    float scale[PASSES * 128]; // of the digits of an output, / 255
    u8 digits[PASSES][CHUNKS][CHUNK_BYTES];
};

// ---- Barriers in shared memory -----------------------------------------------------------------

__device__ void barrier_init(u64 *barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals));
}
__device__ void barrier_expect(u64 *barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}
// Waits for the end of phase `parity` (0, 1, 0, 1 ...). This and the arrival order nothing but what
// the copy engine and the tensor cores do: wider orders (.release.cluster, .acquire.cluster) cost
// hundreds of cycles each.
__device__ void barrier_wait(u64 *barrier, u32 parity) {
    asm volatile("{\n.reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}
// Arrives at the barrier of that place in block `rank` of the cluster.
__device__ void barrier_arrive_at(u64 *barrier, u32 rank) {
    asm volatile(
        "{\n.reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
}
__device__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
__device__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
// To tell the others of nothing but barriers that were made.
__device__ void cluster_arrive_with_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;\n"
                 "barrier.cluster.arrive.relaxed.aligned;" ::
                     : "memory");
}
__device__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// What ordinary instructions wrote, before the copy engine or the tensor cores read it.
__device__ void publish_global() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}
__device__ void publish_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// `bytes` to the same place in every block of the cluster; counted at their barriers of that place.
__device__ void copy_to_cluster(void *shared, const void *global, u32 bytes, u64 *barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier)), "h"((u16)((1 << CLUSTER) - 1))
        : "memory");
}

// The same to this block alone.
__device__ void copy_here(void *shared, const void *global, u32 bytes, u64 *barrier) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(shared_address(shared)),
        "l"(global), "r"(bytes), "r"(shared_address(barrier))
        : "memory");
}

// ---- The product of 64 hidden units x 32 inputs x 48 images ------------------------------------

// An operand: its address, the bytes between matrices along the inputs and along the rows.
__device__ u64 operand(u32 address, u32 along_inputs, u32 along_rows) {
    return (u64)(address >> 4 & 0x3fff) | (u64)(along_inputs >> 4) << 16 |
           (u64)(along_rows >> 4) << 32;
}

#define EIGHT(d, i)                                                                             \
    "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3]), "+r"(d[i + 4]), "+r"(d[i + 5]), \
        "+r"(d[i + 6]), "+r"(d[i + 7])

// d += weights images^T. Begins only: d is there after products_wait. Of a warp's 16 units, number
// 4 i + j of d is that of unit g + j / 2 * 8 and image 8 i + 2 q + j % 2.
__device__ void multiply(int d[24], u64 weights, u64 images) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n48k32.s32.s8.u8 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "
                 "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23}, %24, %25, 1;"
                 : EIGHT(d, 0), EIGHT(d, 8), EIGHT(d, 16)
                 : "l"(weights), "l"(images));
}
__device__ void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ void products_end() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until at most PENDING groups are under way.
template <int PENDING> __device__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// ---- Digits ------------------------------------------------------------------------------------

// 127 127 127 in base 256, and a little less, for the product that should give it is rounded.
constexpr float LARGEST = (DIGITS == 3 ? 127.0f * 65793.0f : 127.0f * 257.0f) - 2.0f;

// Where (unit, input) of a digit lies in a chunk.
__device__ u32 place_in_chunk(u32 unit, u32 input, u32 digit) {
    return (unit / 64 % 2 * DIGITS + digit) * OPERAND_BYTES + unit % 64 / 8 * 256 +
           input % 32 / 16 * 128 + unit % 8 * 16 + input % 16;
}

// The bits of a magnitude are ordered as magnitudes are, then infinity, then NaN.
__device__ u32 magnitude(float x) {
    return __float_as_uint(x) & 0x7fffffff;
}

// Row `unit` of the weights, by the whole block: four inputs a thread.
__device__ void make_digits(const bt_net_args &a, scratch_layout *s, u32 unit) {
    static_assert(net[0].weight % 4 == 0, "rows of weights begin at 16 bytes");
    __shared__ u32 largest_of[WARPS];
    const float *row = a.params + net[0].weight + (size_t)unit * PIXELS;
    u32 bits = 0;
    for (int k = 4 * threadIdx.x; k < PIXELS; k += 4 * THREADS) {
        const float4 w = *(const float4 *)(row + k);
        bits = max(bits,
                   max(max(magnitude(w.x), magnitude(w.y)), max(magnitude(w.z), magnitude(w.w))));
    }
    bits = __reduce_max_sync(~0u, bits);
    __syncthreads(); // of the row before
    if (threadIdx.x % 32 == 0) largest_of[threadIdx.x / 32] = bits;
    __syncthreads();
    for (int i = 0; i < WARPS; i++) bits = max(bits, largest_of[i]);
    const float largest = __uint_as_float(bits);
    // A row that is not finite gives NaN; a row of next to nothing gives 0.
    const float unscale = bits < 0x7f800000 ? largest / LARGEST : __uint_as_float(0x7fc00000);
    const float scale = largest > 1e-30f ? LARGEST / largest : 0.0f;
    if (threadIdx.x == 0) s->scale[unit] = unscale / 255.0f;
    for (int k = 4 * threadIdx.x; k < PIXELS; k += 4 * THREADS) {
        const float4 w = *(const float4 *)(row + k);
        const float weight[4] = {w.x, w.y, w.z, w.w};
        u32 four[DIGITS] = {};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int number = __float2int_rn(weight[i] * scale);
#pragma unroll
            for (int digit = 0; digit < DIGITS; digit++) { // the lowest first
                const int low = (int)(signed char)number;
                four[digit] |= (u32)(low & 255) << 8 * i;
                number = (number - low) >> 8;
            }
        }
        for (int digit = 0; digit < DIGITS; digit++)
            *(u32 *)&s->digits[unit / 128][k / 32][place_in_chunk(unit, k, digit)] = four[digit];
    }
}

// ---- The parts of the kernel -------------------------------------------------------------------

struct tile_rows {
    int sample[IMAGES], label[IMAGES];
};

// Of a tile; one beyond the end of the launch has no images.
__device__ void find_rows(const bt_net_args &a, u32 first_step, work w, tile_rows *rows) {
    const batch_place place = place_of(a, first_step + w.step);
    const u32 tile = w.step < a.steps ? w.part : w.parts;

    const int i = (int)threadIdx.x - THREADS / 2; // not those that make digits at the same time
    if (i >= 0 && i < IMAGES) {
        const int sample = sample_of(a, place, tile * IMAGES + i);
        rows->sample[i] = sample;
        rows->label[i] = sample < 0 || !(a.log || a.predictions) ? -1 : a.labels[sample];
    }
}

// Begins the copies. A warp takes half of the pieces (16 bytes) of 8 images, 4 pieces of each at a
// time, which are four whole matrices.
__device__ void fetch_images(const bt_net_args &a, const tile_rows *rows, u8 *images) {
    constexpr int PIECES = PIXELS / 16, ROUNDS = (PIECES + 7) / 8;
    const int lane = threadIdx.x % 32;
    // (Warp 0 feeds the ring.)
    for (int unit = (int)threadIdx.x / 32 - 1; unit >= 0 && unit < IMAGES / 8 * 2;
         unit += WARPS - 1) {
        const int first = unit % 2 * ROUNDS * 4 + lane / 8,
                  sample = rows->sample[unit / 2 * 8 + lane % 8];
        const u8 *from = a.bytes + (size_t)most(sample, 0) * PIXELS + first * 16;
        u8 *to = images + (unit / 2 * (INPUTS / 16) + first) * 128 + lane % 8 * 16;
#pragma unroll
        for (int i = 0; i < ROUNDS; i++) {
            if (first + 4 * i >= PIECES) break;
            if (sample >= 0)
                copy_16_async(to + i * 512, from + i * 64);
            else
                *(uint4 *)(to + i * 512) = {0, 0, 0, 0};
        }
    }
}

// Of what the products read, the inputs beyond the last pixel.
__device__ void clear_beyond(u8 *images) {
    for (int i = threadIdx.x; i < IMAGES; i += THREADS)
        for (int piece = PIXELS / 16; piece < INPUTS / 16; piece++)
            *(uint4 *)(images + ((i / 8 * (INPUTS / 16) + piece) * 8 + i % 8) * 16) = {0, 0, 0, 0};
}

template <int L> __device__ void fetch_fc_weights(const bt_net_args &a, float *to) {
    if constexpr (L < LAYERS) {
        constexpr int K = net[L].c, STRIDE = row_stride(K);
        const float *from = a.params + net[L].weight;
        if (K % 4 == 0 && net[L].weight % 4 == 0)
            for (int i = 4 * threadIdx.x; i < net[L].o * K; i += 4 * THREADS)
                copy_16_async(to + i / K * STRIDE + i % K, from + i);
        else
            for (int i = threadIdx.x; i < net[L].o * K; i += THREADS)
                copy_4_async(to + i / K * STRIDE + i % K, from + i);
        fetch_fc_weights<L + 1>(a, to + net[L].o * STRIDE);
    }
}

// Chunks of digits on their way through shared memory; they are counted over all tiles of a block.
struct ring {
    u64 full[STAGES], empty[STAGES], scales;
};

// A place in the ring, and how often (0 or 1) the ring has been gone round.
struct ring_place {
    u32 stage, parity;
};
__device__ void advance(ring_place &at) {
    if (++at.stage < STAGES) return;
    at.stage = 0;
    at.parity ^= 1;
}

// What thread 0 remembers as it fills the ring: where, with which chunk, and how many so far.
struct feeder {
    ring_place at;
    u32 chunk, fed;
};

// By thread 0: fetches one chunk, once its place is free.
__device__ void feed(const scratch_layout *s, u8 *stages, ring *r, feeder &f) {
    const u32 share = cluster_rank() * SHARE_BYTES;
    barrier_wait(&r->empty[f.at.stage], f.at.parity ^ 1);
    barrier_expect(&r->full[f.at.stage], CHUNK_BYTES);
    copy_to_cluster(stages + f.at.stage * CHUNK_BYTES + share,
                    (const u8 *)s->digits + f.chunk * CHUNK_BYTES + share, SHARE_BYTES,
                    &r->full[f.at.stage]);
    advance(f.at);
    f.chunk = f.chunk + 1 < PASSES * CHUNKS ? f.chunk + 1 : 0;
    f.fed++;
}

// This group of 4 warps no longer needs a chunk: told to all blocks of the cluster, which send it.
__device__ void release(ring *r, u32 stage) {
    if (threadIdx.x % 128 < CLUSTER) barrier_arrive_at(&r->empty[stage], threadIdx.x % 128);
}

// Where the multiplying warps are: the place in the ring, and the number of chunks so far.
struct reader {
    ring_place at;
    u32 chunks;
};

// 128 hidden units of all images, by 4 groups of 4 warps.
__device__ void hidden_units(const bt_net_args &a, const scratch_layout *s, const float *scales,
                             const u8 *images, u8 *stages, ring *r, reader &here, feeder &f,
                             u32 last, int pass, float *hidden) {
    const u32 half = threadIdx.x / 256,
              column = threadIdx.x / 128 % 2 * COLUMNS; // of units, images
    const u32 g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
    const int first = pass * 128 + half * 64 + threadIdx.x % 128 / 32 * 16 + g; // and first + 8
    float bias[2];
    for (int i = 0; i < 2; i++)
        bias[i] = first + 8 * i < HIDDEN ? a.params[net[0].bias + first + 8 * i] : 0.0f;
    int d[DIGITS][COLUMNS / 2] = {};
    const u32 weights = shared_address(stages) + half * DIGITS * OPERAND_BYTES;
    const u32 x = shared_address(images) + column * INPUTS;
    u32 before = 0; // the place of the chunk before
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        const u32 stage = here.at.stage;
        barrier_wait(&r->full[stage], here.at.parity);
        products_begin();
#pragma unroll
        for (int digit = 0; digit < DIGITS; digit++)
            multiply(d[digit],
                     operand(weights + stage * CHUNK_BYTES + digit * OPERAND_BYTES, 128, 256),
                     operand(x + chunk * 256, 128, INPUTS / 16 * 128));
        products_end();
        advance(here.at);
        products_wait<1>();
        if (chunk > 0) release(r, before);
        before = stage;
        // Into the place of the chunk before the last, which the others no longer need either.
        if (threadIdx.x == 0 && f.fed < here.chunks + STAGES - 1 && f.fed < last)
            feed(s, stages, r, f);
        __syncwarp();
        here.chunks++;
    }
    products_wait<0>();
    release(r, before);
    barrier_wait(&r->scales, 0);
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const int unit = first + 8 * row;
        if (unit >= HIDDEN) continue;
        const float scale = scales[unit];
#pragma unroll
        for (int i = 0; i < COLUMNS / 4; i++) {
            const int at = i / 2 * 4 + 2 * row + i % 2, image = column + i / 2 * 8 + 2 * q + i % 2;
            float sum = (float)d[DIGITS - 1][at];
#pragma unroll
            for (int digit = DIGITS - 2; digit >= 0; digit--)
                sum = fmaf(sum, 256.0f, (float)d[digit][at]);
            hidden[image * row_stride(HIDDEN) + unit] =
                activate<net[0].activation>(fmaf(sum, scale, bias[row]));
        }
    }
}

template <int L>
__device__ const float *fc_layers(const bt_net_args &a, const float *weights, float *x, float *y) {
    if constexpr (L == LAYERS) {
        return x;
    } else {
        constexpr int STRIDE = FC_SHARED ? row_stride(net[L].c) : net[L].c,
                      STRIPS = (net[L].o + 15) / 16;
        fully_connected<L, IMAGES, STRIPS == 1 ? 1 : 3, 1, WARPS, STRIDE>(
            FC_SHARED ? weights : a.params + net[L].weight, a.params + net[L].bias, x, y, nullptr);
        __syncthreads();
        return fc_layers<L + 1>(a, weights + net[L].o * row_stride(net[L].c), y, x);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) infer_mlp(bt_net_args a) {
    extern __shared__ __align__(128) u8 shared[];
    __shared__ ring r;
    __shared__ tile_rows rows;
    __shared__ __align__(16) float scales[PASSES * 128];
    u8 *images = shared, *stages = images + FRONT_BYTES;
    float *fc_weights = (float *)(stages + STAGES * CHUNK_BYTES);
    float *even = fc_weights + FC_BYTES / 4, *odd = (float *)images;
    scratch_layout *s = (scratch_layout *)a.scratch;
    const books b = books_at(a, s + 1);
    const u32 first_step = a.state[0];

    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++)
            barrier_init(&r.full[i], 1), barrier_init(&r.empty[i], 4 * CLUSTER);
        barrier_init(&r.scales, 1);
    }
    __syncwarp();
    cluster_arrive_with_barriers();
    const u32 tiles = (a.batch + IMAGES - 1) / IMAGES;
    work w = first_work(blockIdx.x, tiles), leader = first_work(blockIdx.x - cluster_rank(), tiles);
    find_rows(a, first_step, w, &rows);
    for (u32 unit = blockIdx.x; unit < HIDDEN; unit += gridDim.x) make_digits(a, s, unit);
    publish_global();
    __syncthreads();
    if (threadIdx.x == 0) count_up(&s->arrived); // the digits of this block are made
    fetch_images(a, &rows, images);
    clear_beyond(images);
    if (FC_SHARED) fetch_fc_weights<1>(a, fc_weights);
    cluster_wait();
    feeder f = {};
    reader here = {};
    if (threadIdx.x == 0 && leader.step < a.steps) {
        while (read_acquire(&s->arrived) < gridDim.x)
            ; // until all digits are made
        publish_global();
        barrier_expect(&r.scales, sizeof scales);
        copy_here(scales, s->scale, sizeof scales, &r.scales);
        while (f.fed < least(PASSES * CHUNKS, STAGES)) feed(s, stages, &r, f);
    }
    __syncwarp();
    // All blocks of a cluster go on while its first one has work, for they feed each other.
    while (leader.step < a.steps) {
        next_work(leader, gridDim.x);
        // Chunks that are known to be needed.
        const u32 last = here.chunks + (leader.step < a.steps ? 2 : 1) * PASSES * CHUNKS;
        copies_wait();
        publish_shared();
        __syncthreads();
        for (int pass = 0; pass < PASSES; pass++)
            hidden_units(a, s, scales, images, stages, &r, here, f, last, pass, even);
        __syncthreads();
        if (w.step < a.steps) {
            const float *logits =
                fc_layers<1>(a, fc_weights, even, odd) + threadIdx.x * row_stride(CLASSES);
            row_result sum = {0.0f, 0.0f, 0.0f};
            if (threadIdx.x < IMAGES)
                sum = finish_row(a, logits, rows.label[threadIdx.x], w.part * IMAGES + threadIdx.x,
                                 place_of(a, first_step + w.step).first,
                                 is_last_of_ring(a, w.step, a.epoch_steps), w.step + 1 == a.steps);
            if (is_logged(a, w.step))
                finish_part<WARPS>(a, b, first_step + w.step, w.part, tiles, sum);
        }
        __syncthreads();
        next_work(w, gridDim.x);
        if (leader.step >= a.steps) break;
        find_rows(a, first_step, w, &rows);
        __syncthreads();
        fetch_images(a, &rows, images);
        clear_beyond(images);
    }
    cluster_arrive(); // nobody sends to a block that has gone
    cluster_wait();
    if (finish_launch(a, b.blocks_done, first_step, gridDim.x)) s->arrived = 0;
}
