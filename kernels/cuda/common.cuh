// What the whole-program kernels share: names for the PTX instructions that CUDA C++ has no words
// for, products of numbers split into two halves, and which sample a row of a batch is.
#ifndef BT_CUDA_COMMON
#define BT_CUDA_COMMON

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__

// ---- Shared memory and its barriers ----------------------------------------------------------

// Shared memory is named by 32-bit addresses: that is what the instructions below take.
DEVICE u32 shared_address(const void *pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

// Where `address` of this block lies in block `rank` of the cluster.
DEVICE u32 address_in_block(u32 address, u32 rank) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

// An mbarrier completes a phase when `arrivals` have arrived and all bytes announced have come.
DEVICE void mbarrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

// Other blocks, and copies, see the initialised barriers after this and a barrier of the cluster.
DEVICE void mbarrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
}

DEVICE void mbarrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and the phase also waits for `bytes` that copies or other blocks bring.
DEVICE void mbarrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Waits for the end of a phase; phases are numbered 0, 1, 0, 1 ...
DEVICE void mbarrier_wait(u32 barrier, u32 phase) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(phase)
                 : "memory");
}

// The same for what other blocks of the cluster wrote.
DEVICE void mbarrier_wait_cluster(u32 barrier, u32 phase) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(phase)
                 : "memory");
}

// bar.sync and bar.arrive: barriers of some of the warps of a block. Those who need not wait for
// the others only arrive.
DEVICE void barrier_sync(u32 id, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

DEVICE void barrier_arrive(u32 id, u32 threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

DEVICE void cluster_sync() {
    asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

// threadIdx.x, read once. The compiler reads it anew wherever it needs it, to save a register; that
// takes tens of clocks, often just when the warp has waited for something.
DEVICE u32 thread_number() {
    u32 number;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
    return number;
}

DEVICE u32 cluster_rank() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// ---- Moving data -----------------------------------------------------------------------------

// Stores to another block of the cluster (address_in_block), counted by a barrier there.
DEVICE void store_async(u32 to, float x, float y, u32 barrier) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 "
                 "[%0], {%1, %2}, [%3];" ::"r"(to),
                 "f"(x), "f"(y), "r"(barrier)
                 : "memory");
}

DEVICE void store_async(u32 to, const float (&v)[4], u32 barrier) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 "
                 "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]), "r"(barrier)
                 : "memory");
}

DEVICE void store_async(u32 to, u32 a, u32 b, u32 c, u32 d, u32 barrier) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 "
                 "[%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "r"(a), "r"(b), "r"(c), "r"(d), "r"(barrier)
                 : "memory");
}

// The copy engine takes `bytes` of shared memory to another block. What ordinary stores wrote must
// have been made visible to it (async_fence) by those who wrote.
DEVICE void copy_to_block(u32 to, u32 from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];" ::"r"(to),
                 "r"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

// `bytes` of global memory to the same place in all blocks of the cluster that `blocks` has a bit
// for, counted by the barrier there. Addresses and size are multiples of 16.
DEVICE void copy_to_blocks(u32 to, const void *from, u32 bytes, u32 barrier, u32 blocks) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier), "h"((u16)blocks)
                 : "memory");
}

DEVICE void async_fence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

DEVICE void store_shared(u32 to, u32 value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}

DEVICE void store_shared_16(u32 to, u32 value) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"((u16)value) : "memory");
}

DEVICE u32 load_shared(u32 from) {
    u32 value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
    return value;
}

DEVICE uint4 load_shared_16_bytes(u32 from) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

// ---- Blocks that do not share a cluster meet in global memory --------------------------------

// A packet says itself that it has come: 16 bytes are written and read as one, and the last four
// are a ticket that nobody used before. So there is no flag to wait for, and no fence.
struct packet {
    float value[3];
    u32 ticket;
};

DEVICE void send_packet(packet *to, float x, float y, float z, u32 ticket) {
    asm volatile("{\n"
                 ".reg .b64 low, high;\n"
                 ".reg .b128 whole;\n"
                 "mov.b64 low, {%1, %2};\n"
                 "mov.b64 high, {%3, %4};\n"
                 "mov.b128 whole, {low, high};\n"
                 "st.relaxed.gpu.global.b128 [%0], whole;\n"
                 "}" ::"l"(to),
                 "f"(x), "f"(y), "f"(z), "r"(ticket)
                 : "memory");
}

DEVICE packet look_at_packet(const packet *from) {
    packet p;
    asm volatile("{\n"
                 ".reg .b64 low, high;\n"
                 ".reg .b128 whole;\n"
                 "ld.relaxed.gpu.global.b128 whole, [%4];\n"
                 "mov.b128 {low, high}, whole;\n"
                 "mov.b64 {%0, %1}, low;\n"
                 "mov.b64 {%2, %3}, high;\n"
                 "}"
                 : "=f"(p.value[0]), "=f"(p.value[1]), "=f"(p.value[2]), "=r"(p.ticket)
                 : "l"(from));
    return p;
}

// ---- Tensor cores ----------------------------------------------------------------------------
//
// mma.sync: c [16, 8] += a [16, k] b [k, 8], fp16 operands, f32 sums; a warp does it together. Lane
// (g, t) = (lane / 4, lane % 4) has of c rows g and g + 8, columns 2t and 2t + 1, in this order; of
// a the same rows, two neighbours of k in each register; of b column g.

DEVICE void mma16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEVICE void mma8(float (&c)[4], u32 a0, u32 a1, u32 b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(b0));
}

// ldmatrix: matrices of 8 rows of 16 bytes, each row where one lane says: lanes 0-7 those of the
// first matrix, and so on. Lane (g, t) gets the pair t of 16-bit words of row g; transposed, of
// column g the words of rows 2t and 2t + 1. (Volatile: they stay between the barriers.)
DEVICE void load_matrices(u32 (&v)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(row));
}

DEVICE void load_transposed(u32 (&v)[4], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(row));
}

DEVICE void load_matrices(u32 (&v)[2], u32 row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(v[0]), "=r"(v[1])
                 : "r"(row));
}

// ---- Numbers in two halves -------------------------------------------------------------------

// x = high + low, two fp16 numbers: 22 bits of it, if |x| is below 65504 and well above 2^-14
// (below, what is lost is 2^-25). Three products, high high + high low + low high, of such numbers
// with f32 sums are as exact as f32.

DEVICE u32 pack_fp16(float first, float second) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

DEVICE float2 unpack_fp16(u32 pair) {
    float2 v;
    asm("{\n"
        ".reg .b16 first, second;\n"
        "mov.b32 {first, second}, %2;\n"
        "cvt.f32.f16 %0, first;\n"
        "cvt.f32.f16 %1, second;\n"
        "}"
        : "=f"(v.x), "=f"(v.y)
        : "r"(pair));
    return v;
}

DEVICE void split_pair(float first, float second, u32 &high, u32 &low) {
    high = pack_fp16(first, second);
    float2 rounded = unpack_fp16(high);
    low = pack_fp16(first - rounded.x, second - rounded.y);
}

// Bytes 0 and 2, or 1 and 3, of a word as fp16 numbers without any rounding: a byte with a zero
// byte above it is the subnormal number byte / 2^24, and tensor cores take those at full speed.
DEVICE u32 even_bytes(u32 word) {
    return word & 0x00ff00ffu;
}
DEVICE u32 odd_bytes(u32 word) {
    return __byte_perm(word, 0u, 0x4341);
}
constexpr float BYTE_UNIT = 16777216.0f; // 2^24

// ---- Which sample a row is: as gather_batch of kernels/batch.k -------------------------------

DEVICE u32 mix32(u32 x) {
    u32 y = (x ^ (x >> 16)) * 0x7feb352du;
    y = (y ^ (y >> 15)) * 0x846ca68bu;
    return y ^ (y >> 16);
}

DEVICE u32 epoch_key(u32 seed, u32 epoch) {
    return mix32(seed ^ mix32(epoch + 0x51ed270bu));
}

DEVICE u32 feistel(u32 i, u32 bits, u32 key) {
    u32 mask = (1u << bits) - 1u, left = i >> bits, right = i & mask;
#pragma unroll
    for (u32 round = 0; round < 4; round++) {
        u32 next = left ^ (mix32(right + key + round * 0x9e3779b9u) & mask);
        left = right;
        right = next;
    }
    return left << bits | right;
}

DEVICE u32 permute(u32 i, u32 n, u32 key) {
    u32 bits = 1;
    while (bits < 16 && (n - 1) >> (2 * bits) > 0) bits++;
    u32 y = feistel(i, bits, key);
    while (y >= n) y = feistel(y, bits, key);
    return y;
}

// The batch of a step: positions first .. first + valid - 1 of an epoch.
struct batch_place {
    u32 first, valid, key;
};

DEVICE batch_place place_of_step(const bt_net_args &args, u32 step) {
    u32 batch = max(args.batch, 1u);
    u32 steps = (max(args.count, 1u) - 1u) / batch + 1u;
    batch_place place;
    place.first = step % steps * args.batch;
    place.valid = min(args.batch, args.count - min(place.first, args.count));
    place.key = args.shuffle == 1u ? epoch_key(args.seed, step / steps) : 0u;
    return place;
}

// From the place of step - 1 to that of `step`, mostly without a division.
DEVICE void advance_place(const bt_net_args &args, batch_place &place, u32 step) {
    const u32 first = place.first + args.batch;
    if (first >= args.count) {
        place = place_of_step(args, step);
    } else {
        place.first = first;
        place.valid = min(args.batch, args.count - first);
    }
}

// The sample in `row` of the batch; -1: none.
DEVICE int sample_of_row(const bt_net_args &args, const batch_place &place, u32 row) {
    if (row >= place.valid) return -1;
    u32 position = place.first + row;
    if (args.shuffle == 1u) position = permute(position, args.count, place.key);
    return args.index[position];
}

// Orders floats as kernels/math.k does: -0 equals 0, and NaN is the largest.
DEVICE u32 order_of(float x) {
    const u32 bits = __float_as_uint(x + 0.0f); // -0 + 0 is 0
    const u32 order = bits ^ ((u32)((int)bits >> 31) | 0x80000000u);
    return x != x ? 0xffffffffu : order;
}

// The number that order_of gives `order` for.
DEVICE float of_order(u32 order) {
    return __uint_as_float(order >> 31 == 1u ? order ^ 0x80000000u : ~order);
}

#endif
