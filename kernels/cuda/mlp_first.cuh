// What the warps that multiply do for the first layer, whose weights are most of the network: they
// stay in registers.
#ifndef BT_CUDA_MLP_FIRST
#define BT_CUDA_MLP_FIRST
#include "mlp_block.cuh"

namespace mlp {

// Weights from all pixels to this block's units. A warp has blocks of 16 pixels, lane (g, t) of
// each pixels 4t .. 4t + 3 and unit g (and 8 + g where there are two strips), so: the operand a of
// the products forward, and also what tensor cores give as the gradient: weights never move.
//
// With one strip, a has the high halves of 8 units in rows 0-7 and the low halves in rows 8-15.
// With two, high and low halves of 16 units are multiplied one after the other.
struct first_weights {
    static constexpr int N = WARP_BLOCKS * FIRST_STRIPS * 4;
    trained<N> weights;
    float gradient[N]; // of the step, when it is complete

    DEVICE static int index(int block, int strip, int pixel) {
        return (block * FIRST_STRIPS + strip) * 4 + pixel;
    }
    DEVICE static int pixel_block(const block &b, int i) { return b.warp + WARPS * i; }
    DEVICE static bool has(const block &b, int i) {
        return (i + 1) * WARPS <= PIXEL_BLOCKS || pixel_block(b, i) < PIXEL_BLOCKS;
    }

    template <class F> DEVICE static void each(const block &b, F f) { // of index, place in params
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int part = i / 4 / FIRST_STRIPS, strip = i / 4 % FIRST_STRIPS;
            const int unit = b.rank * units(1) + 8 * strip + b.g;
            const bool present = has(b, part) && unit < width(1);
            const int pixel = 16 * pixel_block(b, part) + 4 * b.t + i % 4;
            f(i, weight_at(1) + unit * PIXELS + pixel, present);
        }
    }
    // The moments of a block of pixels that lie in shared memory, to registers and back.
    template <bool STORE> DEVICE void move_moments(const block &b, int part) {
        constexpr int EACH = MOMENTS > 0 ? MOMENTS : 1;
        if (part < WARP_BLOCKS - SHARED_PARTS || MOMENTS == 0) return;
        float *moments = b.floats(MOMENTS_AT) + 32 * b.warp + b.lane;
#pragma unroll
        for (int i = 0; i < PART_WEIGHTS * MOMENTS; i++) {
            const int at = part * PART_WEIGHTS + i / EACH;
            float &moment = i % EACH == 0 ? weights.moment1[MOMENTS > 0 ? at : 0]
                                          : weights.moment2[MOMENTS > 1 ? at : 0];
            float &place =
                moments[((part - (WARP_BLOCKS - SHARED_PARTS)) * PART_WEIGHTS * MOMENTS + i) *
                        MATH_THREADS];
            if (STORE) {
                place = moment;
            } else {
                moment = place;
            }
        }
    }
    DEVICE void load(const block &b) {
        each(b, [&](int i, u32 at, bool present) {
            weights.load(i, b.args, at, present);
            gradient[i] = 0.0f;
        });
#pragma unroll
        for (int part = 0; part < WARP_BLOCKS; part++) move_moments<true>(b, part);
    }
    DEVICE void finish(const block &b) {
#pragma unroll
        for (int part = 0; part < WARP_BLOCKS; part++) move_moments<false>(b, part);
        each(b, [&](int i, u32 at, bool present) {
            if (present) weights.store(i, b.args, at);
        });
    }
    DEVICE void update_block(const block &b, int part, const hyper &h) {
        move_moments<false>(b, part);
        const float scale = h.mean * (IMAGE_SCALE / GRADIENT_SCALE);
#pragma unroll
        for (int i = 4 * FIRST_STRIPS * part; i < 4 * FIRST_STRIPS * (part + 1); i++) {
            weights.update(i, gradient[i] * scale, h);
        }
        move_moments<true>(b, part);
    }
    // The operand a of a block of pixels: its even pixels are the first 8 of k, the odd ones
    // follow.
    DEVICE void operand(int part, u32 (&high)[4], u32 (&low)[4]) const {
#pragma unroll
        for (int s = 0; s < FIRST_STRIPS; s++) {
            const float *w = &weights.value[index(part, s, 0)];
            split_pair(WEIGHT_SCALE * w[0], WEIGHT_SCALE * w[2], high[s], low[s]);
            split_pair(WEIGHT_SCALE * w[1], WEIGHT_SCALE * w[3], high[2 + s], low[2 + s]);
        }
        if (FIRST_STRIPS == 1) high[1] = low[0], high[3] = low[2];
    }
};

// 32 rows of a block of 16 pixels as lanes of load_matrices name them.
DEVICE u32 image_address(const block &b, u32 stage, int half, int pixel_block) {
    return b.image_stage(stage) + (32 * half + b.lane) * IMAGE_STRIDE + 16 * pixel_block;
}

// Pixels of the block `part` of this warp, for all rows of a chunk: four pixels of a row in a
// register.
struct pixels {
    u32 x[2][4];
    DEVICE void load(const block &b, u32 stage, int part) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            load_matrices(x[half],
                          image_address(b, stage, half, first_weights::pixel_block(b, part)));
        }
    }
};

// Sums over this warp's pixels; rows 8 i .. of the batch are the columns of sum[i].
struct first_sums {
    float sum[8][4];
    DEVICE first_sums() {
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
    }
    DEVICE void add(const u32 (&high)[4], const u32 (&low)[4], const pixels &p) {
        u32 even[8], odd[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            even[i] = even_bytes(p.x[i / 4][i % 4]);
            odd[i] = odd_bytes(p.x[i / 4][i % 4]);
            mma16(sum[i], high, even[i], odd[i]);
        }
#pragma unroll
        for (int i = 0; i < 8; i++) { // not sooner: a product waits for the sum of the one before
            if (FIRST_STRIPS == 2) mma16(sum[i], low, even[i], odd[i]);
        }
    }
    DEVICE void store(const block &b) const {
        float2 *partial = (float2 *)b.floats(PARTIAL_AT) + b.warp * FIRST_STRIPS * 8 * 32 + b.lane;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (FIRST_STRIPS == 1) {
                partial[i * 32] = make_float2(sum[i][0] + sum[i][2], sum[i][1] + sum[i][3]);
            } else {
                partial[i * 32] = make_float2(sum[i][0], sum[i][1]);
                partial[(8 + i) * 32] = make_float2(sum[i][2], sum[i][3]);
            }
        }
    }
};

// The values of the first layer's units. UPDATE: the weights are updated on the way, so that the
// arithmetic of the update of a block runs beside the products of the block before.
template <bool UPDATE>
DEVICE void first_forward(const block &b, first_weights &first, u32 stage, const hyper &h) {
    first_sums sums;
    pixels p[2]; // of this block and the next
    u32 high[2][4], low[2][4];
    if (FULL_BLOCKS > 0) {
        p[0].load(b, stage, 0);
        if (UPDATE) first.update_block(b, 0, h);
        first.operand(0, high[0], low[0]);
    }
#pragma unroll
    for (int part = 0; part < FULL_BLOCKS; part++) {
        const int now = part % 2, next = 1 - now;
        if (part + 1 < FULL_BLOCKS) {
            p[next].load(b, stage, part + 1);
            if (UPDATE) first.update_block(b, part + 1, h);
            first.operand(part + 1, high[next], low[next]);
        }
        sums.add(high[now], low[now], p[now]);
    }
    if (FULL_BLOCKS < WARP_BLOCKS && first_weights::has(b, WARP_BLOCKS - 1)) {
        p[0].load(b, stage, WARP_BLOCKS - 1);
        if (UPDATE) first.update_block(b, WARP_BLOCKS - 1, h);
        first.operand(WARP_BLOCKS - 1, high[0], low[0]);
        sums.add(high[0], low[0], p[0]);
    }
    if (PARTIAL_SHARES) math_barrier(); // nobody reads the gradients there any more
    sums.store(b);
}

// Adds what the warps have of each sum: this warp for rows 8 warp .. 8 warp + 7.
DEVICE void add_first(const block &b) {
#pragma unroll
    for (int s = 0; s < FIRST_STRIPS; s++) {
        const float2 *partial =
            (const float2 *)b.floats(PARTIAL_AT) + (s * 8 + b.warp) * 32 + b.lane;
        float2 half[2] = {make_float2(0, 0), make_float2(0, 0)};
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float2 part = partial[w * FIRST_STRIPS * 8 * 32];
            half[w % 2].x += part.x, half[w % 2].y += part.y;
        }
        const float2 sum = make_float2(half[0].x + half[1].x, half[0].y + half[1].y);
        const float scale = IMAGE_SCALE / WEIGHT_SCALE;
        const float bias = b.bias<1>()[8 * s + b.g];
        const bool alive = b.rank * units(1) + 8 * s + b.g < width(1);
        float x = activate<activation(1)>(sum.x * scale + bias);
        float y = activate<activation(1)>(sum.y * scale + bias);
        u32 high, low; // of two rows: neighbours in a column, not in memory
        split_pair(alive ? x : 0.0f, alive ? y : 0.0f, high, low);
        const split_matrix values = b.values<1>();
        const int row = 8 * b.warp + 2 * b.t;
        store_shared_16(values.at(0, s, row) + 2 * b.g, high);
        store_shared_16(values.at(0, s, row + 1) + 2 * b.g, high >> 16);
        store_shared_16(values.at(1, s, row) + 2 * b.g, low);
        store_shared_16(values.at(1, s, row + 1) + 2 * b.g, low >> 16);
    }
    if (PARTIAL_SHARES) async_fence(); // copies write there next
}

// The gradient by the first layer's weights: sums of even pixels in sum[.][0], odd in sum[.][1].
struct first_gradient {
    float sum[WARP_BLOCKS][2][4];

    DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < WARP_BLOCKS * 8; i++) sum[i / 8][i / 4 % 2][i % 4] = 0.0f;
    }
    // Operand a for 16 rows of the chunk: units by rows, the slopes transposed.
    DEVICE static void operand(const block &b, int row, u32 (&high)[4], u32 (&low)[4]) {
        const split_matrix slopes = b.slopes<1>();
        if (FIRST_STRIPS == 1) {
            load_transposed(high,
                            slopes.at(b.lane >> 3 & 1, 0, row + (b.lane >> 4) * 8 + (b.lane & 7)));
        } else {
            load_a_transposed(high, slopes, 0, 0, row, b.lane);
            load_a_transposed(low, slopes, 1, 0, row, b.lane);
        }
    }
    // Pairs of pixels of two rows in a register, of 32 rows and COUNT blocks of pixels.
    template <int COUNT> struct transposed_pixels {
        u32 x[COUNT][4];
        DEVICE void load(const block &b, u32 stage, int half, int part) {
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                load_transposed(
                    x[i], image_address(b, stage, half, first_weights::pixel_block(b, part + i)));
            }
        }
    };
    // Products on the same sum are kept apart, because one waits for the other.
    template <int COUNT>
    DEVICE void add_blocks(int part, const u32 (&a)[4], const transposed_pixels<COUNT> &p, int q) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const u32 x0 = p.x[i][2 * q], x1 = p.x[i][2 * q + 1];
            mma16(sum[part + i][0], a, even_bytes(x0), even_bytes(x1));
            mma16(sum[part + i][1], a, odd_bytes(x0), odd_bytes(x1));
        }
    }
    template <int COUNT>
    DEVICE void add_rows(int part, const u32 (&high)[2][4], const u32 (&low)[2][4],
                         const transposed_pixels<COUNT> &p) {
#pragma unroll
        for (int q = 0; q < 2; q++) { // 16 rows
            add_blocks(part, high[q], p, q);
            if (FIRST_STRIPS == 2) add_blocks(part, low[q], p, q);
        }
    }
    // One strip: block after block of pixels, all rows of each.
    DEVICE void add_by_pixels(const block &b, u32 stage) {
        u32 high[2][2][4], low[2][2][4]; // of each half of the rows, 16 rows each
#pragma unroll
        for (int q = 0; q < 4; q++) operand(b, 16 * q, high[q / 2][q % 2], low[q / 2][q % 2]);
        transposed_pixels<1> p[2][2]; // now and next; of each half of the rows
        if (FULL_BLOCKS > 0) {
            p[0][0].load(b, stage, 0, 0);
            p[0][1].load(b, stage, 1, 0);
        }
#pragma unroll
        for (int part = 0; part < FULL_BLOCKS; part++) {
            const int now = part % 2, next = 1 - now;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (part + 1 < FULL_BLOCKS) p[next][half].load(b, stage, half, part + 1);
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                add_rows(part, high[half], low[half], p[now][half]);
            }
        }
        if (FULL_BLOCKS < WARP_BLOCKS && first_weights::has(b, WARP_BLOCKS - 1)) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                p[0][half].load(b, stage, half, WARP_BLOCKS - 1);
                add_rows(WARP_BLOCKS - 1, high[half], low[half], p[0][half]);
            }
        }
    }
    // Two strips: one half of the rows after the other, blocks of pixels in pairs. Their products
    // are twice as many, and the operands of all rows would not fit beside them in registers.
    DEVICE void add_by_rows(const block &b, u32 stage) {
#pragma unroll
        for (int half = 0; half < 2; half++) { // of the rows
            u32 high[2][4], low[2][4];
            operand(b, 32 * half, high[0], low[0]);
            operand(b, 32 * half + 16, high[1], low[1]);
            transposed_pixels<2> p[2]; // now and next
            if (FULL_BLOCKS > 1) p[0].load(b, stage, half, 0);
#pragma unroll
            for (int part = 0; part + 1 < FULL_BLOCKS; part += 2) {
                if (part + 3 < FULL_BLOCKS) p[(part / 2 + 1) % 2].load(b, stage, half, part + 2);
                add_rows(part, high, low, p[part / 2 % 2]);
            }
            transposed_pixels<1> rest;
            if (FULL_BLOCKS % 2 == 1) {
                rest.load(b, stage, half, FULL_BLOCKS - 1);
                add_rows(FULL_BLOCKS - 1, high, low, rest);
            }
            if (FULL_BLOCKS < WARP_BLOCKS && first_weights::has(b, WARP_BLOCKS - 1)) {
                rest.load(b, stage, half, WARP_BLOCKS - 1);
                add_rows(WARP_BLOCKS - 1, high, low, rest);
            }
        }
    }
    DEVICE void add_chunk(const block &b, u32 stage) {
        if constexpr (FIRST_STRIPS == 1) {
            add_by_pixels(b, stage);
        } else {
            add_by_rows(b, stage);
        }
    }
    // The gradient in the order of the weights: pixel 4t + i. `more`: than other chunks gave.
    DEVICE void give(float (&gradient)[first_weights::N], bool more) const {
#pragma unroll
        for (int part = 0; part < WARP_BLOCKS; part++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *s = sum[part][i % 2];
                float *first = &gradient[first_weights::index(part, 0, i)];
                float *second = &gradient[first_weights::index(part, FIRST_STRIPS - 1, i)];
                if (FIRST_STRIPS == 1) {
                    *first = (more ? *first : 0.0f) + (s[i / 2] + s[i / 2 + 2]);
                } else {
                    *first = (more ? *first : 0.0f) + s[i / 2];
                    *second = (more ? *second : 0.0f) + s[i / 2 + 2];
                }
            }
        }
    }
};

} // namespace mlp
#endif
