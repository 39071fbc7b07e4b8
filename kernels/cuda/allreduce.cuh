// The sum of some numbers over all blocks of a grid that is on the GPU at once: block b adds up a
// part of them for all, does something with the sums, and hands what it made of them to all blocks.
// The order of addition is fixed, so the bits are the same from run to run, which atomic additions
// would not give.
//
// There is no barrier of the grid. Numbers travel through L2 in packets of 16 bytes, three numbers
// and the number of the exchange (tag), written and read as one; a reader looks at the packet
// itself until the tag is the one it waits for (NCCL's LL protocol does that with eight bytes). So
// an exchange takes two ways through L2, where data, a counter and a barrier would take six.
//
// The packets of an exchange may lie where those of the one before lay: a block sends sums of
// exchange n + 1 when it has the results of n of all blocks, and they came after all sums of n had
// been read.
#ifndef BT_CUDA_ALLREDUCE
#define BT_CUDA_ALLREDUCE
#include "common.cuh"

DEVICE void grid_fence() {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

template <int BLOCKS, int NUMBERS, int THREADS> struct AllReduce {
    static constexpr int PACKETS = (NUMBERS + 3 * BLOCKS - 1) / (3 * BLOCKS); // of a block
    static constexpr int PART = 3 * PACKETS, ALL = BLOCKS * PART;             // ALL >= NUMBERS
    static constexpr int GROUPS = THREADS / PACKETS < BLOCKS ? THREADS / PACKETS : BLOCKS;
    static constexpr int SCRATCH_PACKETS = (BLOCKS + 1) * BLOCKS * PACKETS;
    static_assert(PACKETS <= THREADS, "more blocks are needed for so many numbers");

    // Packets begin .. end - 1 of the numbers [ALL] of this block to those who add them up: what is
    // ready early is sent early, and is on its way while the rest is computed.
    static DEVICE void send(packet *ring, const float *numbers, u32 tag, u32 begin, u32 end,
                            u32 thread) {
        for (u32 i = begin + thread; i < end; i += THREADS) {
            u32 owner = i / PACKETS, place = i % PACKETS;
            const float *v = numbers + 3 * i;
            send_packet(ring + (owner * BLOCKS + blockIdx.x) * PACKETS + place, v[0], v[1], v[2],
                        tag);
        }
    }

    // Adds up this block's part: partial [GROUPS, PART]; groups of threads take blocks in turn.
    static DEVICE void add(const packet *ring, float *partial, u32 tag, int thread) {
        constexpr int each = (BLOCKS + GROUPS - 1) / GROUPS;
        int group = thread / PACKETS, place = thread % PACKETS;
        if (group >= GROUPS) return;
        const packet *from = ring + (blockIdx.x * BLOCKS + group) * PACKETS + place;
        packet p[each];
        bool all;
        do {
            all = true;
#pragma unroll
            for (int i = 0; i < each; i++) {
                bool there = group + i * GROUPS < BLOCKS;
                p[i] = look_at_packet(from + (there ? i : 0) * GROUPS * PACKETS);
            }
#pragma unroll
            for (int i = 0; i < each; i++) all = all && p[i].ticket == tag;
        } while (!all);
        float sum[3] = {};
#pragma unroll
        for (int i = 0; i < each; i++) {
            if (group + i * GROUPS >= BLOCKS) continue;
#pragma unroll
            for (int j = 0; j < 3; j++) sum[j] += p[i].value[j];
        }
#pragma unroll
        for (int j = 0; j < 3; j++) partial[group * PART + 3 * place + j] = sum[j];
    }

    // Behind a barrier: the sum of number i of the part.
    static DEVICE float sum(const float *partial, int i) {
        float total = partial[i];
#pragma unroll
        for (int group = 1; group < GROUPS; group++) total += partial[group * PART + i];
        return total;
    }

    // What became of the part, [PART], to all blocks.
    static DEVICE void publish(packet *ring, const float *part, u32 tag, int thread) {
        packet *to = ring + BLOCKS * BLOCKS * PACKETS + blockIdx.x * PACKETS;
        const float *v = part + 3 * thread;
        if (thread < PACKETS) send_packet(to + thread, v[0], v[1], v[2], tag);
    }

    // All parts of all blocks, numbers [ALL].
    static DEVICE void receive(const packet *ring, float *numbers, u32 tag, int thread) {
        constexpr int packets = BLOCKS * PACKETS, each = (packets + THREADS - 1) / THREADS;
        const packet *from = ring + BLOCKS * packets;
        packet p[each];
        bool all;
        do {
            all = true;
#pragma unroll
            for (int i = 0; i < each; i++) {
                p[i] = look_at_packet(from + min(thread + i * THREADS, packets - 1));
            }
#pragma unroll
            for (int i = 0; i < each; i++) all = all && p[i].ticket == tag;
        } while (!all);
#pragma unroll
        for (int i = 0; i < each; i++) {
            int place = thread + i * THREADS;
            if (place >= packets) continue;
#pragma unroll
            for (int j = 0; j < 3; j++) numbers[3 * place + j] = p[i].value[j];
        }
    }
};

#endif
