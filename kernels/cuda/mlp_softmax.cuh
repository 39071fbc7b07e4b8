// The two softmax warps of a block of mlp.cu share out what is small. Both compute the softmax of
// this block's rows, 16 lanes a row; then the first trains the weights from this block's units to
// the logits, the second all biases (those of the logits in every block, with the same result) and
// writes the log.
#ifndef BT_CUDA_MLP_SOFTMAX
#define BT_CUDA_MLP_SOFTMAX
#include "mlp_block.cuh"

namespace mlp {

struct softmax_rows {
    static constexpr int PASSES = OWN_ROWS / 4;
    static constexpr int TARGETS = BLOCKS / 4;
    int own_row;       // of the first pass; 4 more in each further one
    int column;        // of 16 lanes
    u32 away[TARGETS]; // how far off the shared memory of blocks column / 4, + 4, + 8 ... is

    DEVICE softmax_rows(const block &b, int warp) {
        own_row = 2 * warp + b.lane / 16;
        column = b.lane % 16;
#pragma unroll
        for (int i = 0; i < TARGETS; i++) {
            away[i] = address_in_block(b.shared, (column / 4 + 4 * i) % BLOCKS) - b.shared;
        }
    }

    // The logit of this lane's class: bias and the parts of all blocks, in their order.
    DEVICE float logit(const block &b, int own) const {
        const int c = min(column, CLASSES - 1);
        const float *parts = b.received_parts<LAYERS>() + own * CLASSES_MAX + c;
        float sum[4] = {b.bias<LAYERS>()[c], 0, 0, 0};
#pragma unroll
        for (int from = 0; from < BLOCKS; from++) {
            sum[from % 4] += parts[from * OWN_ROWS * CLASSES_MAX];
        }
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }

    // Sends the gradients of a row's loss by the logits: four lanes send the four pieces of 16
    // bytes to a block, the 16 lanes to four blocks at a time.
    DEVICE void send(const block &b, int own, int row, float slope) const {
        const int half = column % 2, strip = column / 2 % 2;
        const u32 record = b.at(SLOPES_TO_SEND_AT) + own * 64; // halves of 16 numbers
        u32 high, low;
        split_pair(slope, 0.0f, high, low);
        store_shared_16(record + 2 * column, high);
        store_shared_16(record + 32 + 2 * column, low);
        __syncwarp();
        const uint4 piece = load_shared_16_bytes(record + 32 * half + 16 * strip);
        const u32 place = b.all_slopes<LAYERS>().at(half, strip, row);
        const u32 barrier = b.at(slopes_come(LAYERS));
#pragma unroll
        for (int i = 0; i < TARGETS; i++) {
            store_async(place + away[i], piece.x, piece.y, piece.z, piece.w, barrier + away[i]);
        }
    }

    // Of the 16 lanes of a row. The whole warp asks twice: if each half asked for itself, they
    // would go on one after the other.
    DEVICE static u32 largest_of_row(u32 x, int lane) {
        const u32 first = __reduce_max_sync(~0u, lane < 16 ? x : 0u);
        const u32 second = __reduce_max_sync(~0u, lane < 16 ? 0u : x);
        return lane < 16 ? first : second;
    }

    // Of this lane's rows; read while the logits are still on their way.
    struct row_labels {
        int y[PASSES];
    };
    DEVICE row_labels labels_of(const block &b, u32 stage) const {
        row_labels labels;
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            labels.y[pass] = b.labels(stage)[own_row + 4 * pass];
        }
        return labels;
    }

    DEVICE void compute(const block &b, u32 step, int chunk, const row_labels &labels) const {
#pragma unroll
        for (int pass = 0; pass < PASSES; pass++) {
            const int own = own_row + 4 * pass, row = b.rank * OWN_ROWS + own, y = labels.y[pass];
            const float x = logit(b, own);
            const u32 order = column < CLASSES ? order_of(x) : 0u;
            const u32 most = largest_of_row(order, b.lane);
            const float largest = of_order(most);
            const float e = column < CLASSES ? __expf(x - largest) : 0.0f;
            float sum = e;
#pragma unroll
            for (int width = 8; width > 0; width /= 2) sum += __shfl_xor_sync(~0u, sum, width);
            if (y >= CLASSES) sum = __uint_as_float(0x7fc00000u); // no such class
            const float share = y >= 0 ? __fdividef(GRADIENT_SCALE, sum) : 0.0f;
            send(b, own, row, e * share - (column == y ? GRADIENT_SCALE : 0.0f));

            const u32 bests = __ballot_sync(~0u, order == most) >> (b.lane & 16) & 0xffffu;
            if (column == min(max(y, 0), CLASSES - 1)) {
                log_row(b, step, chunk, row, y, __ffs(bests) - 1, __logf(sum) + (largest - x));
            }
        }
    }

    // Block 0 gets the loss of each row and whether it was right; predictions go to memory.
    DEVICE static void log_row(const block &b, u32 step, int chunk, int row, int y, int best,
                               float loss) {
        store_async(address_in_block(b.at(ROW_LOGS_AT) + 8 * row, 0), y >= 0 ? loss : 0.0f,
                    y == best ? 1.0f : 0.0f, address_in_block(b.at(slopes_come(LAYERS)), 0));
        if (b.args.predictions && y >= 0) {
            const u32 at =
                step % max(b.args.epoch_steps, 1u) * b.args.batch + b.first_row(chunk) + row;
            if (at < b.args.prediction_count) b.args.predictions[at] = best;
        }
    }
};

// Every lane gets the sum of a chunk's losses and the number of rows that were right.
DEVICE float2 sum_row_logs(const block &b) {
    const float2 *rows = (const float2 *)b.floats(ROW_LOGS_AT);
    float2 a = rows[b.lane], c = rows[b.lane + 32];
    float loss = a.x + c.x, right = a.y + c.y;
#pragma unroll
    for (int width = 16; width > 0; width /= 2) {
        loss += __shfl_xor_sync(~0u, loss, width);
        right += __shfl_xor_sync(~0u, right, width);
    }
    return make_float2(loss, right);
}

// Weights [CLASSES_MAX, own units] from the last hidden layer to the logits.
struct last_weights {
    static constexpr int COUNT = 4 * LAST_STRIPS;
    trained<COUNT> weights;
    float gradient[COUNT];

    DEVICE static int row(const block &b, int i) { return b.g + (i / 2 % 2) * 8; }
    DEVICE static int unit(const block &b, int i) {
        return b.rank * units(LAYERS - 1) + i / 4 * 8 + 2 * b.t + i % 2;
    }
    DEVICE static bool present(const block &b, int i) {
        return row(b, i) < CLASSES && unit(b, i) < width(LAYERS - 1);
    }
    DEVICE static u32 place(const block &b, int i) {
        return weight_at(LAYERS) + row(b, i) * width(LAYERS - 1) + unit(b, i);
    }

    DEVICE void load(const block &b) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            weights.load(i, b.args, place(b, i), present(b, i));
            gradient[i] = 0.0f;
        }
        store_shared(b);
    }
    DEVICE void store_shared(const block &b) const {
        const split_matrix m = b.weights<LAYERS>();
#pragma unroll
        for (int i = 0; i < COUNT; i += 2) {
            store_pair(m, i / 4, row(b, i), 2 * b.t, WEIGHT_SCALE * weights.value[i],
                       WEIGHT_SCALE * weights.value[i + 1]);
        }
    }
    DEVICE void add_chunk(const block &b) {
#pragma unroll
        for (int s = 0; s < LAST_STRIPS; s++) {
            split_sum sum =
                weight_product(b.all_slopes<LAYERS>(), 0, b.values<LAYERS - 1>(), s, b.lane);
#pragma unroll
            for (int j = 0; j < 4; j++) gradient[4 * s + j] += sum[j];
        }
    }
    DEVICE void give(float *all) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) all[i] = gradient[i];
    }
    DEVICE void take(const float *all) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) gradient[i] = all[i];
    }
    DEVICE void update(const block &b, u32, const hyper &h) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            weights.update(i, gradient[i] * (h.mean / GRADIENT_SCALE), h);
            gradient[i] = 0.0f;
        }
        store_shared(b);
    }
    DEVICE void finish(const block &b) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            if (present(b, i)) weights.store(i, b.args, place(b, i));
        }
    }
};

// The biases of layers LAYER .. LAYERS. Each lane has those of columns 2t and 2t + 1 of each strip:
// of this block's units, or of all classes.
template <int LAYER> struct biases {
    static constexpr int STRIPS = LAYER == LAYERS ? CLASS_STRIPS : strips(LAYER);
    static constexpr int N = 2 * STRIPS;
    static constexpr int REST = biases<LAYER + 1>::COUNT, COUNT = N + REST;
    trained<N> bias;
    float gradient[N];
    biases<LAYER + 1> rest;

    DEVICE static int unit(const block &b, int i) {
        return (LAYER == LAYERS ? 0 : b.rank * units(LAYER)) + i / 2 * 8 + 2 * b.t + i % 2;
    }
    DEVICE void load(const block &b) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            bias.load(i, b.args, bias_at(LAYER) + unit(b, i), unit(b, i) < width(LAYER));
        }
#pragma unroll
        for (int i = 0; i < N; i++) gradient[i] = 0.0f;
        store_shared(b);
        rest.load(b);
    }
    DEVICE void store_shared(const block &b) const {
        if (b.g != 0) return; // the other lanes have the same
#pragma unroll
        for (int i = 0; i < N; i++) {
            b.bias<LAYER>()[i / 2 * 8 + 2 * b.t + i % 2] = bias.value[i];
        }
    }
    DEVICE void add_chunk(const block &b) {
#pragma unroll
        for (int s = 0; s < STRIPS; s++) {
            float2 sum;
            if constexpr (LAYER == LAYERS) {
                sum = column_sums(b.all_slopes<LAYERS>(), s, b.lane);
            } else {
                sum = column_sums(b.slopes<LAYER>(), s, b.lane);
            }
            gradient[2 * s] += sum.x;
            gradient[2 * s + 1] += sum.y;
        }
    }
    template <int WHICH> DEVICE void add_chunk_of(const block &b) {
        if constexpr (WHICH == LAYER) {
            add_chunk(b);
        } else {
            rest.template add_chunk_of<WHICH>(b);
        }
    }
    // All gradients, for the other clusters, and their sums.
    DEVICE void give(float *all) const {
#pragma unroll
        for (int i = 0; i < N; i++) all[REST + i] = gradient[i];
        rest.give(all);
    }
    DEVICE void take(const float *all) {
#pragma unroll
        for (int i = 0; i < N; i++) gradient[i] = all[REST + i];
        rest.take(all);
    }
    DEVICE void update(const block &b, u32 step, const hyper &h) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            bias.update(i, gradient[i] * (h.mean / GRADIENT_SCALE), h);
            gradient[i] = 0.0f;
        }
        store_shared(b);
        rest.update(b, step, h);
    }
    DEVICE void finish(const block &b) const {
        const bool ours = b.g == 0 && (LAYER < LAYERS || b.rank == 0);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int u = unit(b, i);
            if (ours && u < width(LAYER)) bias.store(i, b.args, bias_at(LAYER) + u);
        }
        rest.finish(b);
    }
};

// After the last layer comes what the log wants of a step: block 0 adds up losses and right rows.
template <> struct biases<LAYERS + 1> {
    static constexpr int COUNT = 2;
    float sums[COUNT];

    DEVICE void load(const block &) { clear(); }
    DEVICE void clear() { sums[0] = sums[1] = 0.0f; }
    template <int> DEVICE void add_chunk_of(const block &b) {
        if (b.rank != 0) return;
        const float2 chunk = sum_row_logs(b);
        sums[0] += chunk.x;
        sums[1] += chunk.y;
    }
    DEVICE void give(float *all) const { all[0] = sums[0], all[1] = sums[1]; }
    DEVICE void take(const float *all) { sums[0] = all[0], sums[1] = all[1]; }
    DEVICE void update(const block &b, u32 step, const hyper &h) {
        if (b.rank == 0 && b.cluster == 0 && b.lane == 0 && b.args.log && b.args.log_steps > 0) {
            ((float2 *)b.args.log)[step % b.args.log_steps] =
                make_float2(sums[0] * h.mean, sums[1]);
        }
        clear();
    }
    DEVICE void finish(const block &) const {}
};

// The biases of hidden layers, from the last to the first, as gradients become ready. The first
// warp waits at the same place, because NVIDIA's synccheck wants to see all who wait at one.
template <int LAYER> DEVICE void add_hidden_biases(const block &b, biases<1> &all, bool mine) {
    if constexpr (LAYER > 0) {
        barrier_sync(SLOPES_READY + LAYER, WITH_SOFTMAX);
        if (mine) all.add_chunk_of<LAYER>(b);
        add_hidden_biases<LAYER - 1>(b, all, mine);
    }
}

// At the end of a step.
template <class PARAMETERS>
DEVICE void train(const block &b, PARAMETERS &own, u32 step, u32 ticket, const hyper &h) {
    if (CLUSTERS > 1) {
        const mailbox mail = b.mail();
        float all[PARAMETERS::COUNT];
        own.give(all);
        mail.post(all, 0, ticket);
        mail.add(all, 0, ticket);
        own.take(all);
    }
    own.update(b, step, h);
}

DEVICE void softmax_warp(const block &b, int warp) {
    last_weights weights;
    biases<1> all_biases;
    if (warp == 0) weights.load(b);
    if (warp == 1) all_biases.load(b);
    const u32 tickets = ((scratch_head *)b.args.scratch)->steps + 1;
    cluster_sync(); // the end of set_up
    barrier_arrive(READY, WITH_SOFTMAX);
    const softmax_rows rows(b, warp);
    batch_place place = place_of_step(b.args, b.first_step);
    u32 phase = 0, stage = 0, round = 0;
    for (u32 step = 0; step < b.args.steps; step++) {
        const u32 now = b.first_step + step;
        if (step > 0) advance_place(b.args, place, now);
        const hyper h = hyper_of_step(b.args, now, place.valid);
        for (int chunk = 0; chunk < CHUNKS; chunk++, phase ^= 1) {
            const bool last = chunk == CHUNKS - 1, end = last && step == b.args.steps - 1;
            mbarrier_wait(b.at(images_full(stage)), round & 1); // labels come with them
            const softmax_rows::row_labels labels = rows.labels_of(b, stage);
            mbarrier_wait_cluster(b.at(parts_come(LAYERS)), phase);
            rows.compute(b, now, chunk, labels);
            if (warp == 0 && b.lane == 0) {
                mbarrier_expect(b.at(parts_come(LAYERS)), part_bytes(LAYERS));
            }
            if (++stage == STAGES) stage = 0, round++;

            mbarrier_wait_cluster(b.at(slopes_come(LAYERS)), phase);
            if (warp == 0) {
                weights.add_chunk(b);
            } else {
                all_biases.add_chunk_of<LAYERS>(b);
                all_biases.add_chunk_of<LAYERS + 1>(b); // the log
            }
            add_hidden_biases<LAYERS - 1>(b, all_biases, warp == 1);
            if (last && warp == 0) train(b, weights, now, tickets + step, h);
            if (last && warp == 1) train(b, all_biases, now, tickets + step, h);
            barrier_sync(SOFTMAX, 64); // the first reads biases that the second stores
            if (!end) barrier_arrive(READY, WITH_SOFTMAX);
        }
    }
    if (b.cluster == 0 && warp == 0) weights.finish(b);
    if (b.cluster == 0 && warp == 1) all_biases.finish(b);
}

} // namespace mlp
#endif
