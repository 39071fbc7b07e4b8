// Brings the images of a step to shared memory, a step ahead of their use: a side job of one warp.
// The order of samples is that of kernels/batch.k, number for number.
#ifndef BT_CUDA_CNN_BATCH
#define BT_CUDA_CNN_BATCH
#include "cnn_shapes.cuh"

namespace cnn {

// What is the same for all images of a step. Divisions are slow, so they are done for the first
// step alone and the others counted on.
struct Step {
    u32 number, epoch, in_epoch, in_list; // in_list: which part of the predictions
    u32 rows;                             // of its batch; the last of an epoch may be short
    float share;                          // 1 / rows: the loss is a mean
};

DEVICE void set_rows(const bt_net_args &args, Step &step) {
    step.rows = min(args.batch, args.count - step.in_epoch * args.batch);
    step.share = 1.f / (float)step.rows;
}

DEVICE u32 steps_of_epoch(const bt_net_args &args) {
    return (args.count - 1) / args.batch + 1;
}

DEVICE Step first_step(const bt_net_args &args, u32 number) {
    u32 steps = steps_of_epoch(args);
    Step step = {number, number / steps, number % steps, number % max(args.epoch_steps, 1u), 0, 0};
    set_rows(args, step);
    return step;
}

DEVICE Step next_step(const bt_net_args &args, u32 steps, Step step) {
    step.number++;
    if (++step.in_epoch == steps) step.in_epoch = 0, step.epoch++;
    if (++step.in_list >= args.epoch_steps) step.in_list = 0;
    set_rows(args, step);
    return step;
}

// The row of the batch that is image `image` of this block.
DEVICE u32 row_of(int image) {
    return image * BLOCKS + blockIdx.x;
}

// 16 or 4 bytes of global memory to shared memory, in the background.
template <int BYTES> DEVICE void copy_async(void *to, const void *from) {
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)),
                     "l"(from)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
                     : "memory");
    }
}

// What is known of the step after the next: which samples the block's images are, one a lane (-1:
// none). They are looked up a step before they are fetched, so that nobody waits for memory.
struct Ahead {
    u32 step;
    int sample;
};

DEVICE Ahead look_up(const bt_net_args &args, const Step &step, int lane) {
    static_assert(IMAGES <= 32, "a lane for each image");
    batch_place place = {step.in_epoch * args.batch, step.rows, epoch_key(args.seed, step.epoch)};
    int sample = -1;
    if (lane < IMAGES) sample = sample_of_row(args, place, row_of(lane));
    return {step.number, sample};
}

// Begins to copy bytes, labels (-1: no image) and hyper-parameters to their half of the buffers.
DEVICE void fetch(float *shared, const bt_net_args &args, const Ahead &ahead, int lane) {
    u32 half = ahead.step % 2;
    u8 *bytes = (u8 *)(shared + AT.bytes) + half * (IMAGES * BYTES_STRIDE);
    int *labels = (int *)(shared + AT.labels) + half * IMAGES;
    if (lane < 8) {
        copy_async<4>(shared + AT.hyper + half * 8 + lane,
                      args.table + min(ahead.step, args.rows - 1) * 8 + lane);
    }
    if (ahead.sample >= 0) {
        copy_async<4>(labels + lane, args.labels + ahead.sample);
    } else if (lane < IMAGES) {
        labels[lane] = -1;
    }
#pragma unroll 1
    for (int image = 0; image < IMAGES; image++) {
        int sample = __shfl_sync(~0u, ahead.sample, image);
        if (sample < 0) continue;
        constexpr int piece = PIXELS % 16 == 0 ? 16 : 4;
        for (int at = lane * piece; at < PIXELS; at += 32 * piece) {
            copy_async<piece>(bytes + image * BYTES_STRIDE + at,
                              args.bytes + (size_t)sample * PIXELS + at);
        }
    }
}

// Before the barrier behind which they are used.
DEVICE void finish_fetch() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// Bytes to the padded planes that the first convolution reads: as fp16 numbers byte / 2^24, which
// they are as they stand, once as they are and once a pixel further left, so that any two
// neighbours are a word of the one or the other. Four pixels at a time where rows allow it.
DEVICE void load_images(float *shared, u32 step, int first, int thread) {
    using S = ConvShape<0>;
    constexpr bool quads = S::W % 4 == 0 && S::PAD % 2 == 0;
    constexpr u32 each = quads ? 4 : 1, items = AT_ONCE * PIXELS / each;
    const u8 *bytes = (const u8 *)(shared + AT.bytes) + (step % 2 * IMAGES + first) * BYTES_STRIDE;
    u16 *even = (u16 *)(shared + AT.image), *odd = (u16 *)(shared + AT.image + S::IMAGE_WORDS);
#pragma unroll(items <= THREADS ? 1 : 2)
    for (u32 item = thread; item < items; item += THREADS) {
        u32 slot = item / (PIXELS / each), at = item % (PIXELS / each) * each;
        u32 c = at / (S::H * S::W), y = at / S::W % S::H, x = at % S::W;
        u32 to = (slot * S::C + c) * S::PLANE + (y + S::PAD) * S::ROW + x + S::PAD;
        const u8 *from = bytes + slot * BYTES_STRIDE + at;
        if constexpr (quads) {
            u32 word = *(const u32 *)from, next = x + 4 < S::W ? from[4] : 0;
            *(u32 *)(even + to) = __byte_perm(word, 0, 0x4140);
            *(u32 *)(even + to + 2) = __byte_perm(word, 0, 0x4342);
            *(u32 *)(odd + to) = __byte_perm(word, 0, 0x4241);
            *(u32 *)(odd + to + 2) = word >> 24 | next << 16;
            if (S::PAD > 0 && x == 0) odd[to - 1] = (u16)(word & 255);
        } else {
            even[to] = *from;
            if (to > 0) odd[to - 1] = *from;
        }
    }
}

} // namespace cnn
#endif
