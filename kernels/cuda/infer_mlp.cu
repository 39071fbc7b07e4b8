// Evaluates an MLP on whole batches in one launch. The first layer, nearly all of the work, is done
// in integers: a pixel is a byte already, and a weight becomes a whole number of 23 bits and a sign
// times a scale of its own output, written as DIGITS digits of 8 bits. So the tensor cores multiply
// bytes by bytes at twice the rate of f16, sums are exact, and nothing is converted on the way from
// the data set to the product.
//
// The blocks of a cluster share the hidden units, UNITS each, so that the digits of all weights
// stay in shared memory from the beginning of a launch to its end. Images never get there: a thread
// loads what the tensor core wants of them from the data set into its registers.
//
// A group of 4 warps takes 64 images, in each block of the cluster the same ones, and does for them
// 1. the first layer, of this block's units;
// 2. an exchange: the units of an image go to the block that owns it, 1 of CLUSTER images each;
// 3. the further layers, small, and loss, predictions, probabilities of the images it owns.
// The groups of a block need nothing of each other, so the tensor cores work for one while the
// others do 2 and 3.
//
// Needs besides infer_common.cuh's: CLUSTER (blocks of a cluster: 2, 4, 8 or 16), UNITS (64, 32
// or 16), GROUPS (of 4 warps in a block), FC_SHARED (whether the weights of the further layers are
// in shared memory), SHARED (bytes of a block).
#include "infer_common.cuh"

constexpr int IMAGES = 64, GROUP = 128; // images and threads of a group
constexpr int THREADS = GROUPS * GROUP;
constexpr int DIGITS = PRODUCTS == 3 ? 3 : 2;
constexpr int HIDDEN = net[0].o;
static_assert(HIDDEN <= CLUSTER * UNITS, "each unit has a block");

// The images of a group that a block owns; a product takes 8 at a time.
constexpr int OWNED = IMAGES / CLUSTER, ROWS = (OWNED + 7) / 8 * 8;
static_assert(OWNED <= 32, "one warp finishes them");

// ---- The order of the inputs -------------------------------------------------------------------

// A product takes 32 inputs: of each image, lane q of four has to have bytes 4 q to 4 q + 3 of
// either 16. Which inputs those are is ours to say, so we say what can be loaded at once: of a span
// of 64 inputs lane q has the 16 from 16 q, which are words 0 to 3; words 0 and 1 are of the halves
// of one product, 2 and 3 of the next. The last span may be shorter, with fewer words a lane.
constexpr int SPANS = (PIXELS + 63) / 64;
FORMULA int words_of(int span) {
    return least(PIXELS - 64 * span, 64) / 16;
}

// Digits in shared memory: for each half of a product a plane, in it for each digit and unit the 16
// bytes of four lanes. Planes are 16 bytes further apart than they are long, so that a warp that
// makes 128 digits in a row meets all banks.
constexpr int PLANE_BYTES = DIGITS * UNITS * 16 + 16;
constexpr int DIGITS_BYTES = round_up(PIXELS, 32) / 16 * PLANE_BYTES;

// ---- The rest of shared memory -----------------------------------------------------------------

FORMULA int fc_numbers(int l) {
    return l >= LAYERS ? 0 : net[l].o * row_stride(net[l].c) + fc_numbers(l + 1);
}
constexpr int FC_BYTES = FC_SHARED ? fc_numbers(1) * 4 : 0; // weights of the further layers

// Activations [ROWS, row_stride] of each group, in two places by turns: the hidden units in the
// first.
FORMULA int widest(int l, int parity) {
    return l >= LAYERS ? 0
                       : most(l % 2 == parity ? row_stride(net[l].o) : 0, widest(l + 1, parity));
}
constexpr int EVEN_BYTES = ROWS * widest(0, 0) * 4, ODD_BYTES = ROWS * widest(0, 1) * 4;
constexpr int SHARED_BYTES = DIGITS_BYTES + FC_BYTES + GROUPS * (EVEN_BYTES + ODD_BYTES);
static_assert(SHARED_BYTES == SHARED, "the plan counts other bytes");

// ---- Digits ------------------------------------------------------------------------------------

// 127 127 127 in base 256, and a little less, for the product that should give it is rounded.
constexpr float LARGEST = (DIGITS == 3 ? 127.0f * 65793.0f : 127.0f * 257.0f) - 2.0f;

// Of this block's units: what a sum of digits must be multiplied by, and the bias.
struct unit_numbers {
    float scale[UNITS], bias[UNITS];
};

// The bits of a magnitude are ordered as magnitudes are, then infinity, then NaN.
__device__ u32 magnitude(float x) {
    return __float_as_uint(x) & 0x7fffffff;
}

// The digits of a number as signed bytes, the lowest first: with 128 added to each of them they are
// the bytes of a sum, and in a byte adding 128 is the same as changing its upper bit.
__device__ u32 digits_of(float x) {
    constexpr u32 EACH_128 = 0x808080;
    return ((u32)__float2int_rn(x) + EACH_128) ^ EACH_128;
}

// From the digits of one input in a word to one digit of four inputs in a word.
__device__ void transpose(const u32 number[4], u32 digit[3]) {
    const u32 low01 = __byte_perm(number[0], number[1], 0x5140),
              low23 = __byte_perm(number[2], number[3], 0x5140),
              high01 = __byte_perm(number[0], number[1], 0x0062),
              high23 = __byte_perm(number[2], number[3], 0x0062);
    digit[0] = __byte_perm(low01, low23, 0x5410);
    digit[1] = __byte_perm(low01, low23, 0x7632);
    digit[2] = __byte_perm(high01, high23, 0x5410);
}

// The units have an order, too: of 16, those that one thread gets sums of are neighbours, 4 q to
// 4 q + 3. (A product gives it columns 2 q and 2 q + 1 of each 8.)
__device__ int row_of_unit(int unit) {
    return unit / 16 * 16 + unit % 4 / 2 * 8 + unit % 16 / 4 * 2 + unit % 2;
}

// Where inputs k to k + 3 of row `unit` of the first digit lie.
__device__ int place_of_digits(int unit, int k) {
    constexpr int WHOLE = PIXELS / 64, LAST = most(words_of(WHOLE), 1); // words, if there is a last
    const int span = k / 64, word = k % 64 / 4;
    const int plane = span < WHOLE ? word % 4 : word % LAST,
              lane = span < WHOLE ? word / 4 : word / LAST;
    return (4 * span + plane) * PLANE_BYTES + unit * 16 + lane * 4;
}

// A row of weights, a warp's: four inputs a lane at a time.
struct weight_row {
    float4 of[(PIXELS + 127) / 128];
};
constexpr int ROUNDS = sizeof(weight_row) / sizeof(float4);

__device__ void load_row(const float *row, weight_row &w) {
    static_assert(net[0].weight % 4 == 0, "rows of weights begin at 16 bytes");
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        const int k = 128 * i + 4 * (threadIdx.x % 32);
        w.of[i] =
            row && k < PIXELS ? __ldg((const float4 *)(row + k)) : float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
}

__device__ void make_digits(const weight_row &w, int unit, u8 *digits, unit_numbers *numbers) {
    u32 bits = 0;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        bits = max(bits, max(max(magnitude(w.of[i].x), magnitude(w.of[i].y)),
                             max(magnitude(w.of[i].z), magnitude(w.of[i].w))));
    bits = __reduce_max_sync(~0u, bits);
    const float largest = __uint_as_float(bits);
    // A row that is not finite gives NaN; a row of next to nothing gives 0.
    const float unscale = bits < 0x7f800000 ? largest / LARGEST : __uint_as_float(0x7fc00000);
    const float scale = largest > 1e-30f ? LARGEST / largest : 0.0f;
    if (threadIdx.x % 32 == 0) numbers->scale[unit] = unscale / 255.0f;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        const int k = 128 * i + 4 * (threadIdx.x % 32);
        const u32 number[4] = {digits_of(w.of[i].x * scale), digits_of(w.of[i].y * scale),
                               digits_of(w.of[i].z * scale), digits_of(w.of[i].w * scale)};
        u32 digit[3];
        transpose(number, digit);
        if (k < PIXELS)
            for (int d = 0; d < DIGITS; d++)
                *(u32 *)(digits + place_of_digits(d * UNITS + row_of_unit(unit), k)) = digit[d];
    }
}

// All of this block's; those that the layer has not are zeros. A warp loads some rows before it
// makes digits of the first.
__device__ void make_units(const bt_net_args &a, u32 rank, u8 *digits, unit_numbers *numbers) {
    constexpr int WARPS = THREADS / 32, TOGETHER = ROUNDS <= 8 ? 3 : 1;
#pragma unroll 1
    for (int first = threadIdx.x / 32; first < UNITS; first += TOGETHER * WARPS) {
        weight_row w[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const int unit = first + i * WARPS, o = rank * UNITS + unit;
            const float *row = a.params + net[0].weight + (size_t)o * PIXELS;
            load_row(unit < UNITS && o < HIDDEN ? row : nullptr, w[i]);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++)
            if (first + i * WARPS < UNITS) make_digits(w[i], first + i * WARPS, digits, numbers);
    }
    if (threadIdx.x < UNITS) {
        const int o = rank * UNITS + threadIdx.x;
        numbers->bias[threadIdx.x] = o < HIDDEN ? a.params[net[0].bias + o] : 0.0f;
    }
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

// ---- The product of 64 images x 32 inputs x UNITS hidden units ---------------------------------

// An operand in shared memory: its address, the bytes between its halves and between matrices of 8
// units.
__device__ u64 operand(u32 address) {
    return (u64)(address >> 4 & 0x3fff) | (u64)(PLANE_BYTES >> 4) << 16 | (u64)(128 >> 4) << 32;
}

#define FOUR(d, i)  "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])
#define EIGHT(d, i) FOUR(d, i), FOUR(d, i + 4)

// d += images digits^T. Begins only: d is there after products_wait, and until then the images must
// stay in their registers. They are one word each: of images g and g + 8 of a warp's 16 the first
// half, then the second half of both. Of d, numbers 4 i and 4 i + 1 are of image g and rows
// 8 i + 2 q and 8 i + 2 q + 1 of the digits, the next two of image g + 8.
__device__ void multiply(int (&d)[UNITS / 2], const u32 (&x)[4], u64 digits) {
#if UNITS == 64
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k32.s32.u8.s8 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, 1;"
                 : EIGHT(d, 0), EIGHT(d, 8), EIGHT(d, 16), EIGHT(d, 24)
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(digits));
#elif UNITS == 32
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k32.s32.u8.s8 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "{%16, %17, %18, %19}, %20, 1;"
                 : EIGHT(d, 0), EIGHT(d, 8)
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(digits));
#else
    asm volatile("wgmma.mma_async.sync.aligned.m64n16k32.s32.u8.s8 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, 1;"
                 : EIGHT(d, 0)
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(digits));
#endif
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

// ---- Images ------------------------------------------------------------------------------------

// What this thread loads: images g and g + 8 of its warp's 16; 0: none, whose bytes are zeros.
struct two_images {
    const u8 *at[2];
};
// Of one span: [word][image].
struct pixels {
    u32 word[4][2];
};

// Places for spans in a thread's registers: one is multiplied, the others are on their way.
constexpr int PLACES = most(2, least(SPANS, 4));

// Where the images of a tile, a part of the work, are.
__device__ two_images find_images(const bt_net_args &a, u32 first_step, work w) {
    two_images images = {{nullptr, nullptr}};
    if (w.step >= a.steps) return images;
    const batch_place place = place_of_step(a, first_step + w.step);
    const int row = w.part * IMAGES + threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 32 / 4;
    for (int i = 0; i < 2; i++) {
        const int sample = sample_of_row(a, place, row + 8 * i);
        if (sample >= 0) images.at[i] = a.bytes + (size_t)sample * PIXELS;
    }
    return images;
}

// Of bytes that the launch does not change; L2 gets the 256 around them, where the next spans are.
__device__ uint4 load_16_bytes(const u8 *from) {
    uint4 v;
    asm volatile("ld.global.nc.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

// Begins to load a span.
__device__ void load_span(const two_images &images, int span, pixels &p) {
    const int words = words_of(span), first = 64 * span + threadIdx.x % 4 * 4 * words;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint4 v = {0, 0, 0, 0};
        if (images.at[i] && words == 4)
            v = load_16_bytes(images.at[i] + first);
        else if (images.at[i])
            for (int word = 0; word < words; word++)
                (&v.x)[word] = __ldg((const u32 *)(images.at[i] + first) + word);
        p.word[0][i] = v.x, p.word[1][i] = v.y, p.word[2][i] = v.z, p.word[3][i] = v.w;
    }
}

// The products of a span, begun.
__device__ void multiply_span(int (&d)[DIGITS][UNITS / 2], const pixels &p, int span, u32 digits) {
    products_begin();
#pragma unroll
    for (int half = 0; half < (words_of(span) + 1) / 2; half++) {
        // (What lies where a last half is missing is multiplied by zeros.)
        const u32 x[4] = {p.word[2 * half][0], p.word[2 * half][1], p.word[2 * half + 1][0],
                          p.word[2 * half + 1][1]};
#pragma unroll
        for (int digit = 0; digit < DIGITS; digit++)
            multiply(d[digit], x,
                     operand(digits + (4 * span + 2 * half) * PLANE_BYTES + digit * UNITS * 16));
    }
    products_end();
}

// ---- A group -----------------------------------------------------------------------------------

struct group_barriers {
    u64 full, empty; // the hidden units of the owned images: are there, are no longer needed
};

// A group's things in shared memory, and how many tiles it has done.
struct workplace {
    float *hidden, *other;
    u32 full, empty; // addresses of its barriers
    u32 tiles;
};

__device__ u32 group_of_thread() {
    return threadIdx.x / GROUP;
}
__device__ void group_sync() {
    barrier_sync(1 + group_of_thread(), GROUP);
}

// Arrives at a barrier of any block of the cluster (address_in_block).
__device__ void mbarrier_arrive_at(u32 barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The sums of digits, as hidden units to the blocks that own their images.
__device__ void send_hidden(const workplace &place, u32 rank, const unit_numbers &numbers,
                            const int (&d)[DIGITS][UNITS / 2]) {
    const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int image = threadIdx.x % GROUP / 32 * 16 + half * 8 + g, owner = image / OWNED;
        const u32 row = address_in_block(
            shared_address(place.hidden + image % OWNED * row_stride(HIDDEN) + rank * UNITS),
            owner);
        const u32 barrier = address_in_block(place.full, owner);
#pragma unroll
        for (int i = 0; i < UNITS / 16; i++) {
            const int unit = 16 * i + 4 * q;
            if (rank * UNITS + unit >= HIDDEN) continue;
            float y[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int at = 8 * i + j / 2 * 4 + 2 * half + j % 2;
                float sum = (float)d[DIGITS - 1][at];
#pragma unroll
                for (int digit = DIGITS - 2; digit >= 0; digit--)
                    sum = fmaf(sum, 256.0f, (float)d[digit][at]);
                y[j] = activate<net[0].activation>(
                    fmaf(sum, numbers.scale[unit + j], numbers.bias[unit + j]));
            }
            store_async(row + 4 * unit, y, barrier);
        }
    }
}
constexpr u32 HIDDEN_BYTES = OWNED * round_up(HIDDEN, 4) * 4; // that come to an owner

// The further layers, of the owned images.
template <int L>
__device__ const float *fc_layers(const bt_net_args &a, const float *weights, float *x, float *y) {
    if constexpr (L == LAYERS) {
        return x;
    } else {
        constexpr int STRIDE = FC_SHARED ? row_stride(net[L].c) : net[L].c;
        fully_connected<L, ROWS, 1, 1, GROUP / 32, STRIDE>(
            FC_SHARED ? weights : a.params + net[L].weight, a.params + net[L].bias, x, y, nullptr);
        group_sync();
        return fc_layers<L + 1>(a, weights + net[L].o * row_stride(net[L].c), y, x);
    }
}

// Loss, predictions, probabilities of the owned images, by a warp.
__device__ void finish_tile(const bt_net_args &a, const books &b, u32 first_step, work w, u32 rank,
                            const float *logits) {
    const int lane = threadIdx.x % 32;
    const batch_place place = place_of_step(a, first_step + w.step);
    const u32 row = w.part * IMAGES + rank * OWNED + lane;
    row_result mine = {0.0f, 0.0f, 0.0f};
    if (lane < OWNED) {
        const int sample = sample_of_row(a, place, row),
                  label = sample < 0 || !(a.log || a.predictions) ? -1 : a.labels[sample];
        mine = finish_row(a, logits + lane * row_stride(CLASSES), label, row, place.first,
                          is_last_of_ring(a, w.step, a.epoch_steps), w.step + 1 == a.steps);
    }
    if (is_logged(a, w.step))
        finish_part(a, b, first_step + w.step, w.part * CLUSTER + rank, w.parts * CLUSTER, mine);
}

// One tile after its products: exchange, further layers, results.
__device__ void finish_images(const bt_net_args &a, const books &b, u32 first_step, work w,
                              u32 rank, const unit_numbers &numbers, const float *fc_weights,
                              workplace &place, const int (&d)[DIGITS][UNITS / 2]) {
    const u32 thread = threadIdx.x % GROUP, phase = place.tiles & 1;
    if (thread == 0) mbarrier_expect(place.full, HIDDEN_BYTES);
    mbarrier_wait_cluster(place.empty, phase ^ 1); // the first time nobody is waited for
    send_hidden(place, rank, numbers, d);
    mbarrier_wait_cluster(place.full, phase);
    const float *logits = fc_layers<1>(a, fc_weights, place.hidden, place.other);
    if (thread < 32) finish_tile(a, b, first_step, w, rank, logits);
    group_sync();
    if (thread < CLUSTER) mbarrier_arrive_at(address_in_block(place.empty, thread));
    place.tiles++;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) infer_mlp(bt_net_args a) {
    extern __shared__ __align__(128) u8 digits[];
    __shared__ group_barriers barriers[GROUPS];
    __shared__ __align__(16) unit_numbers numbers;
    float *fc_weights = (float *)(digits + DIGITS_BYTES);
    float *activations = fc_weights + FC_BYTES / 4;
    const u32 rank = cluster_rank(), group = group_of_thread();
    const books b = books_at(a, a.scratch);
    const u32 first_step = a.state[0];

    workplace place = {activations + group * (EVEN_BYTES / 4),
                       activations + GROUPS * (EVEN_BYTES / 4) + group * (ODD_BYTES / 4),
                       shared_address(&barriers[group].full),
                       shared_address(&barriers[group].empty), 0};
    if (threadIdx.x % GROUP == 0) {
        mbarrier_init(place.full, 1);
        mbarrier_init(place.empty, CLUSTER);
        mbarrier_init_fence();
    }
    __syncwarp();
    cluster_arrive();

    if (FC_SHARED) fetch_fc_weights<1>(a, fc_weights);
    make_units(a, rank, digits, &numbers); // the step, which says where images are, comes meanwhile

    // Every cluster has one tile before any has two.
    const u32 clusters = gridDim.x / CLUSTER, tiles = (a.batch + IMAGES - 1) / IMAGES;
    work w = first_work(group * clusters + blockIdx.x / CLUSTER, tiles);
    two_images images = find_images(a, first_step, w);
    pixels ring[PLACES];
#pragma unroll
    for (int span = 0; span < PLACES - 1; span++) load_span(images, span, ring[span]);
    copies_wait();
    async_fence(); // the tensor cores read what was just written
    cluster_wait();
    __syncthreads();

    while (w.step < a.steps) {
        work next = w;
        next_work(next, clusters * GROUPS);
        const two_images next_images = find_images(a, first_step, next);
        int d[DIGITS][UNITS / 2] = {};
#pragma unroll
        for (int span = 0; span < SPANS; span++) {
            multiply_span(d, ring[span % PLACES], span, shared_address(digits));
            products_wait<1>(); // the span before is done with
            if (span + PLACES - 1 < SPANS)
                load_span(images, span + PLACES - 1, ring[(span + PLACES - 1) % PLACES]);
        }
        products_wait<0>();
        images = next_images;
#pragma unroll
        for (int span = 0; span < PLACES - 1; span++) load_span(images, span, ring[span]);
        finish_images(a, b, first_step, w, rank, numbers, fc_weights, place, d);
        w = next;
    }
    cluster_arrive(); // nobody sends to a block that has gone
    cluster_wait();
    finish_launch(a, b.blocks_done, first_step, gridDim.x);
}
