// A block of mlp.cu: where its things are, and the warp that fetches images for it.
#ifndef BT_CUDA_MLP_BLOCK
#define BT_CUDA_MLP_BLOCK
#include "mlp_parts.cuh"

namespace mlp {

struct block {
    const bt_net_args &args;
    u32 shared;        // its base
    u32 rank, cluster; // which block of the cluster, which cluster
    int warp, lane, g, t;
    u32 first_step;

    DEVICE u32 at(u32 place) const { return shared + place; }
    DEVICE float *floats(u32 place) const {
        extern __shared__ __align__(1024) unsigned char memory[];
        return (float *)(memory + place);
    }
    // The matrices of layer L, as mlp_shapes.cuh describes them.
    template <int L> DEVICE split_matrix values() const {
        return matrix<L, VALUES, ROWS, strips(L)>();
    }
    template <int L> DEVICE split_matrix weights() const {
        return matrix<L, WEIGHTS, outputs(L), strips(L - 1)>();
    }
    template <int L> DEVICE split_matrix slopes() const {
        return matrix<L, SLOPES, ROWS, strips(L)>();
    }
    template <int L> DEVICE auto all_slopes() const {
        if constexpr (L == LAYERS) {
            constexpr u32 place = place_of(L, ALL_SLOPES);
            return row_matrix{at(place)};
        } else {
            return matrix<L, ALL_SLOPES, ROWS, outputs(L) / 8>();
        }
    }
    template <int L, int REGION, u32 MATRIX_ROWS, u32 STRIPS> DEVICE split_matrix matrix() const {
        constexpr u32 place = place_of(L, REGION);
        return {at(place), MATRIX_ROWS, MATRIX_ROWS * STRIPS * 16};
    }
    template <int L> DEVICE float *bias() const {
        constexpr u32 place = place_of(L, BIAS);
        return floats(place);
    }
    template <int L> DEVICE u32 parts() const { // what blocks send: shared address
        constexpr u32 place = place_of(L, PARTS);
        return at(place);
    }
    template <int L> DEVICE const float *received_parts() const {
        constexpr u32 place = place_of(L, PARTS);
        return floats(place);
    }
    DEVICE mailbox mail() const {
        packet *boxes = (packet *)((scratch_head *)args.scratch + 1);
        const u32 size = PACKETS * 32;
        return {boxes + (rank * MAIL_WARPS + warp) * size, BLOCKS * (u32)MAIL_WARPS * size, cluster,
                (u32)lane};
    }
    DEVICE u32 image_stage(u32 stage) const { return at(IMAGES_AT) + stage * STAGE_BYTES; }
    DEVICE const int *labels(u32 stage) const {
        return (const int *)floats(stage * STAGE_BYTES + LABELS_AT);
    }
    // Rows of the batch: chunk `chunk` of this cluster in a step.
    DEVICE u32 first_row(int chunk) const { return (u32)(chunk * CLUSTERS + cluster) * ROWS; }
};

// ---- Fetching images -------------------------------------------------------------------------

// One warp fetches images and labels of the chunks that come next: those of the rows whose softmax
// this block computes. Every block needs all images, and gets them from all blocks: a copy writes
// to the whole cluster. So a stage may be overwritten when no block reads it any more
// (finish_stage_before).
DEVICE void fetch_images(const block &b) {
    const int row = b.rank * OWN_ROWS + b.lane;
    u32 stage = 0, round = 0;
    batch_place place = place_of_step(b.args, b.first_step);
    for (u32 step = 0; step < b.args.steps; step++) {
        if (step > 0) advance_place(b.args, place, b.first_step + step);
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            int sample = -1, label = -1;
            if (b.lane < OWN_ROWS) sample = sample_of_row(b.args, place, b.first_row(chunk) + row);
            if (sample >= 0) label = b.args.labels[sample];
            if (round > 0) mbarrier_wait(b.at(images_empty(stage)), (round - 1) & 1);
            const u32 to = b.image_stage(stage), full = b.at(images_full(stage));
            if (b.lane < OWN_ROWS) store_shared(to + LABELS_AT + 4 * b.lane, (u32)label);
            __syncwarp();
            if (b.lane == 0) mbarrier_expect(full, ROWS * PIXELS);
            if (b.lane < OWN_ROWS) {
                copy_to_blocks(to + row * IMAGE_STRIDE,
                               b.args.bytes + (size_t)max(sample, 0) * PIXELS, PIXELS, full,
                               (1u << BLOCKS) - 1u);
            }
            if (++stage == STAGES) stage = 0, round++;
        }
    }
}

// Called when the gradients by a chunk's logits have come: all blocks have sent their parts of
// those logits, and before that they were done with the images of the chunk before.
DEVICE void finish_stage_before(const block &b, u32 stage, bool first_chunk) {
    if (first_chunk || b.warp != 0 || b.lane != 0) return;
    mbarrier_arrive(b.at(images_empty(stage == 0 ? STAGES - 1 : stage - 1)));
}

} // namespace mlp
#endif
