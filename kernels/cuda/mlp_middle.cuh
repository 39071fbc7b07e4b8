// What the warps that multiply do for the layers after the first: weights between hidden layers,
// and the exchange of sums and gradients with the other blocks of the cluster.
#ifndef BT_CUDA_MLP_MIDDLE
#define BT_CUDA_MLP_MIDDLE
#include "mlp_block.cuh"

namespace mlp {

// Weights [outputs, own units of the layer before] of a middle layer, tiles of 16 x 8 dealt out to
// the warps, as tensor cores give their gradient.
template <int LAYER> struct middle_weights {
    static constexpr int IN_STRIPS = strips(LAYER - 1), OUT_STRIPS = BLOCKS * strips(LAYER);
    static constexpr int TILES = divide_up(OUT_STRIPS / 2 * IN_STRIPS, WARPS);
    trained<4 * TILES> weights;
    float gradient[4 * TILES];

    DEVICE static bool has(const block &b, int tile) {
        return b.warp + WARPS * tile < OUT_STRIPS / 2 * IN_STRIPS;
    }
    DEVICE static int strip(const block &b, int tile) {
        return (b.warp + WARPS * tile) % IN_STRIPS;
    }
    DEVICE static int row(const block &b, int tile) {
        return (b.warp + WARPS * tile) / IN_STRIPS * 16;
    }
    DEVICE static int out(const block &b, int i) { return row(b, i / 4) + b.g + (i / 2 % 2) * 8; }
    DEVICE static int in(const block &b, int i) {
        return b.rank * units(LAYER - 1) + strip(b, i / 4) * 8 + 2 * b.t + i % 2;
    }
    DEVICE static bool present(const block &b, int i) {
        return has(b, i / 4) && out(b, i) < width(LAYER) && in(b, i) < width(LAYER - 1);
    }
    DEVICE static u32 place(const block &b, int i) {
        return weight_at(LAYER) + out(b, i) * width(LAYER - 1) + in(b, i);
    }

    DEVICE void load(const block &b) {
#pragma unroll
        for (int i = 0; i < 4 * TILES; i++) {
            weights.load(i, b.args, place(b, i), present(b, i));
            gradient[i] = 0.0f;
        }
        store_shared(b);
    }
    DEVICE void store_shared(const block &b) const {
        const split_matrix m = b.weights<LAYER>();
#pragma unroll
        for (int i = 0; i < 4 * TILES; i += 2) {
            if (has(b, i / 4)) {
                store_pair(m, strip(b, i / 4), out(b, i), 2 * b.t, WEIGHT_SCALE * weights.value[i],
                           WEIGHT_SCALE * weights.value[i + 1]);
            }
        }
    }
    DEVICE void add_chunk(const block &b) {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            if (!has(b, tile)) continue;
            split_sum sum = weight_product(b.all_slopes<LAYER>(), row(b, tile) / 8,
                                           b.values<LAYER - 1>(), strip(b, tile), b.lane);
#pragma unroll
            for (int j = 0; j < 4; j++) gradient[4 * tile + j] += sum[j];
        }
    }
    DEVICE void update(const block &b, const hyper &h) {
#pragma unroll
        for (int i = 0; i < 4 * TILES; i++) {
            weights.update(i, gradient[i] * (h.mean / GRADIENT_SCALE), h);
            gradient[i] = 0.0f;
        }
        store_shared(b);
    }
    DEVICE void finish(const block &b) const {
#pragma unroll
        for (int i = 0; i < 4 * TILES; i++) {
            if (present(b, i)) weights.store(i, b.args, place(b, i));
        }
    }
};

// From the values of the layer before: sums of all outputs over the own units. Each block gets
// those of its units, 16 rows and a strip at a time, as the lanes have them; it adds up all blocks'
// parts.
template <int LAYER> DEVICE void send_parts(const block &b) {
    constexpr int STRIPS = strips(LAYER), EACH = 4 * STRIPS * BLOCKS / WARPS;
    const int rows = b.warp % 4;
    const u32 own = b.parts<LAYER>() + ((b.rank * STRIPS * 4 + rows) * 32 + b.lane) * 16;
    const row_operand<strips(LAYER - 1)> values(b.values<LAYER - 1>(), 16 * rows, b.lane);
#pragma unroll 4
    for (int i = 0; i < EACH; i++) {
        const int strip = b.warp / 4 + WARPS / 4 * i;
        const u32 to = strip / STRIPS, place = own + strip % STRIPS * (4 * 32 * 16);
        const split_sum sum = values.times(b.weights<LAYER>(), 8 * strip, b.lane);
        const float part[4] = {sum[0], sum[1], sum[2], sum[3]};
        store_async(address_in_block(place, to), part,
                    address_in_block(b.at(parts_come(LAYER)), to));
    }
}

// The values of own units from the parts of all blocks.
template <int LAYER> DEVICE void add_parts(const block &b, u32 phase) {
    constexpr int STRIPS = strips(LAYER);
    mbarrier_wait_cluster(b.at(parts_come(LAYER)), phase);
    for (int tile = b.warp; tile < 4 * STRIPS; tile += WARPS) {
        const int rows = tile % 4, strip = tile / 4;
        const float4 *parts =
            (const float4 *)b.received_parts<LAYER>() + (strip * 4 + rows) * 32 + b.lane;
        float sum[4] = {0, 0, 0, 0};
#pragma unroll
        for (int from = 0; from < BLOCKS; from++) {
            const float4 part = parts[from * STRIPS * 4 * 32];
            sum[0] += part.x, sum[1] += part.y, sum[2] += part.z, sum[3] += part.w;
        }
        const float *bias = b.bias<LAYER>() + 8 * strip + 2 * b.t;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int unit = b.rank * units(LAYER) + 8 * strip + 2 * b.t + i % 2;
            const float x =
                activate<activation(LAYER)>(sum[i] * (1.0f / WEIGHT_SCALE) + bias[i % 2]);
            sum[i] = unit < width(LAYER) ? x : 0.0f;
        }
        store_pair(b.values<LAYER>(), strip, 16 * rows + b.g, 2 * b.t, sum[0], sum[1]);
        store_pair(b.values<LAYER>(), strip, 16 * rows + b.g + 8, 2 * b.t, sum[2], sum[3]);
    }
}

// The parts of the logits, to the blocks that compute the softmax of the rows.
DEVICE void send_logits(const block &b) {
    for (int tile = b.warp; tile < 4 * CLASS_STRIPS; tile += WARPS) {
        const int rows = tile % 4, strip = tile / 4;
        const row_operand<LAST_STRIPS> values(b.values<LAYERS - 1>(), 16 * rows, b.lane);
        const split_sum sum = values.times(b.weights<LAYERS>(), 8 * strip, b.lane);
        const int c = 8 * strip + 2 * b.t;
        if (c >= CLASSES) continue;
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const int row = 16 * rows + b.g + 4 * i;
            const u32 to = row / OWN_ROWS;
            const u32 place =
                b.parts<LAYERS>() + ((b.rank * OWN_ROWS + row % OWN_ROWS) * CLASSES_MAX + c) * 4;
            store_async(address_in_block(place, to), sum[i] * (1.0f / WEIGHT_SCALE),
                        sum[i + 1] * (1.0f / WEIGHT_SCALE),
                        address_in_block(b.at(parts_come(LAYERS)), to));
        }
    }
}

// For the gradient by this block's units of the layer before LAYER, before their activation: what a
// warp can fetch before the gradients come that it waits for. It has a tile of 16 rows and a strip.
template <int LAYER> struct back_operands {
    static constexpr int TO = LAYER - 1, TILES = 4 * strips(TO), STEPS = outputs(LAYER) / 16;
    static_assert(TILES <= WARPS, "a tile for a warp");
    u32 weights[STEPS][4];
    float slope[4]; // of the activation
    DEVICE back_operands(const block &b) {
        if (b.warp >= TILES) return;
        const int rows = b.warp % 4, strip = b.warp / 4;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            load_b_straight(weights[s], b.weights<LAYER>(), 16 * s, strip, b.lane);
        }
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const float2 y = load_pair(b.values<TO>(), strip, 16 * rows + b.g + 4 * i, 2 * b.t);
            slope[i] = (1.0f / WEIGHT_SCALE) * derivative<activation(TO)>(y.x);
            slope[i + 1] = (1.0f / WEIGHT_SCALE) * derivative<activation(TO)>(y.y);
        }
    }
};

template <int LAYER> DEVICE void back_through(const block &b, const back_operands<LAYER> &with) {
    constexpr int TO = LAYER - 1;
    if (b.warp < with.TILES) {
        const int rows = b.warp % 4, strip = b.warp / 4;
        const split_sum sum = back_product(b.all_slopes<LAYER>(), 16 * rows, with.weights, b.lane);
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const int row = 16 * rows + b.g + 4 * i;
            const float x0 = sum[i] * with.slope[i], x1 = sum[i + 1] * with.slope[i + 1];
            store_pair(b.slopes<TO>(), strip, row, 2 * b.t, x0, x1);
            if constexpr (TO > 1) { // the copy engine does not copy to its own block
                store_pair(b.all_slopes<TO>(), b.rank * strips(TO) + strip, row, 2 * b.t, x0, x1);
            }
        }
    }
    if (TO > 1) async_fence(); // the copy engine sends what was stored
}

// Sends the gradient by this block's units of a middle layer to the other blocks.
template <int LAYER> DEVICE void share_slopes(const block &b) {
    const split_matrix own = b.slopes<LAYER>(), all = b.all_slopes<LAYER>();
    for (int piece = b.warp; piece < 2 * strips(LAYER); piece += WARPS) {
        const int half = piece % 2, strip = piece / 2;
        if (b.lane < BLOCKS - 1) {
            const u32 to = (b.lane + 1 + b.rank) % BLOCKS; // not all to the same block at once
            copy_to_block(address_in_block(all.at(half, b.rank * strips(LAYER) + strip, 0), to),
                          own.at(half, strip, 0), STRIP_BYTES,
                          address_in_block(b.at(slopes_come(LAYER)), to));
        }
    }
}

} // namespace mlp
#endif
