// The convolutions of a small CNN on images in shared memory, on tensor cores: forward with
// activation and pooling, the gradient of the input, the gradient of the weights.
//
// Numbers lie as fp16 in two halves (common.cuh), eight channels of a pixel side by side: one row
// of 16 bytes, as ldmatrix wants it. So any pixel can be any row of an operand, and nothing like
// im2col is ever written. Products of the forward way are exact to f32 (three of halves), because a
// difference of 1e-3 in an output moves the maximum of a pooling window to another pixel, and then
// a gradient is simply wrong; the backward way takes one product of fp16 numbers unless CNN_EXACT.
//
// The image alone lies differently: bytes as fp16 numbers, exact, in pairs of neighbours.
#ifndef BT_CUDA_CNN_CONV
#define BT_CUDA_CNN_CONV
#include "cnn_math.cuh"
#include "cnn_shapes.cuh"

namespace cnn {

// fp16 has few small numbers: gradients are multiplied by this before they are split.
constexpr float SLOPE_SCALE = 1024;
// For gradients as exact as f32 weights are, too: the low half of one below 1/8 is a small number.
constexpr float WEIGHT_SCALE = EXACT ? 256 : 1;

// Where the lane stands in an operand: ldmatrix takes rows from lanes in four groups of eight; mma
// gives lane (g, t) rows g and g + 8, columns 2t and 2t + 1 of the result.
struct Lane {
    int id, warp, matrix, row, g, t;
};

DEVICE Lane lane_of(int thread) {
    int id = thread % 32;
    return {id, thread / 32, id / 8, id % 8, id / 4, id % 4};
}

struct Halves {
    u32 high, low;
};

DEVICE Halves split(float first, float second) {
    Halves h;
    split_pair(first, second, h.high, h.low);
    return h;
}

// c += a b to the exactness of f32.
DEVICE void multiply(float (&c)[4], const u32 (&a_high)[4], const u32 (&a_low)[4], Halves b0,
                     Halves b1) {
    mma16(c, a_low, b0.high, b1.high);
    mma16(c, a_high, b0.low, b1.low);
    mma16(c, a_high, b0.high, b1.high);
}

DEVICE void add(float (&sum)[2][4], const float (&more)[2][4]) {
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i / 4][i % 4] += more[i / 4][i % 4];
}

// ---- Where numbers are -------------------------------------------------------------------------

// Pixel `position` of a block of eight channels, in bytes from the beginning of the high halves.
template <int L> DEVICE u32 input_at(int slot, int block, int position) {
    using S = ConvShape<L>;
    return ((slot * S::C8 + block) * S::IN_PIXELS + position) * 16;
}

template <int L> DEVICE u32 slope_at(int slot, int block, int position) {
    using S = ConvShape<L>;
    return ((slot * S::O8 + block) * S::OUT_PIXELS + position) * 16;
}

DEVICE float load_half_pair(const float *array, u32 low_bytes, u32 at) {
    u32 high = *(const u16 *)((const u8 *)array + at);
    u32 low = *(const u16 *)((const u8 *)array + low_bytes + at);
    return unpack_fp16(high).x + unpack_fp16(low).x;
}

// Output (channel, y, x) of convolution L behind activation and pooling: an input of the next.
template <int L> DEVICE u32 output_at(int slot, int channel, int y, int x) {
    using N = ConvShape<L + 1>;
    return input_at<L + 1>(slot, channel / 8, (y + N::PAD) * N::IN_ROW + x + N::PAD) +
           channel % 8 * 2;
}

template <int L>
DEVICE void store_output(float *shared, int slot, int image, int channel, int y, int x, float v) {
    using S = ConvShape<L>;
    if constexpr (L + 1 < CONVS) {
        Halves h = split(v, 0.f);
        u8 *to = (u8 *)(shared + AT.conv[L + 1].input) + output_at<L>(slot, channel, y, x);
        *(u16 *)to = (u16)h.high;
        *(u16 *)(to + ConvShape<L + 1>::IN_BYTES) = (u16)h.low;
    } else {
        shared[AT.fc[0].input + image * FC[0].in + (channel * S::PH + y) * S::PW + x] = v;
    }
}

template <int L>
DEVICE float load_output(const float *shared, int slot, int image, int channel, int y, int x) {
    using S = ConvShape<L>;
    if constexpr (L + 1 < CONVS) {
        return load_half_pair(shared + AT.conv[L + 1].input, ConvShape<L + 1>::IN_BYTES,
                              output_at<L>(slot, channel, y, x));
    } else {
        return shared[AT.fc[0].input + image * FC[0].in + (channel * S::PH + y) * S::PW + x];
    }
}

// ---- Forward -----------------------------------------------------------------------------------

// Products are made for 2x2 tiles of outputs, pooling windows where there is pooling. The sixteen
// rows of a product are four tiles side by side: their eight upper pixels, then their eight lower
// ones, so that eight rows are neighbours in memory and ldmatrix reads them without bank conflicts.
// Of a tile, two neighbouring rows g then have two pixels each of two channels; they trade, and
// each gets a channel whole.

// Groups of four tiles: which image, and the first tile. (Divisions cost, so there is none where a
// block does one image at once.)
template <int L> DEVICE int slot_of(int group) {
    return AT_ONCE > 1 ? group / ConvShape<L>::GROUPS : 0;
}

template <int L> DEVICE int tile_of(int group) {
    return 4 * (group - slot_of<L>(group) * ConvShape<L>::GROUPS);
}

// The first of the largest of four.
DEVICE int largest(const float (&v)[4], float &most) {
    int where = v[1] > v[0], other = v[3] > v[2] ? 3 : 2;
    most = where ? v[1] : v[0];
    float rest = v[3] > v[2] ? v[3] : v[2];
    if (rest > most) most = rest, where = other;
    return where;
}

// The end of it for the four tiles from `tile` on and channels o and o + 1: bias, pooling,
// activation. sum: upper o, upper o + 1, lower o, lower o + 1 of the pixel that is row g.
template <int L>
DEVICE void finish_tiles(float *shared, int first, int slot, int tile, int o, const float *sum,
                         float scale, const Lane &lane) {
    using S = ConvShape<L>;
    bool odd = lane.g % 2; // the right pixel: this lane finishes channel o + 1
    float upper = __shfl_xor_sync(~0u, odd ? sum[0] : sum[1], 4);
    float lower = __shfl_xor_sync(~0u, odd ? sum[2] : sum[3], 4);
    float v[4] = {odd ? upper : sum[0], odd ? sum[1] : upper, odd ? lower : sum[2],
                  odd ? sum[3] : lower};
    tile += lane.g / 2;
    o += odd;
    if ((S::TILES % 4 != 0 && tile >= S::TILES) || (!S::WHOLE_O && o >= S::O)) return;
    int ty = tile / S::TILES_X, tx = tile % S::TILES_X;
    float bias = shared[CONV_BIAS<L> + o];
    if constexpr (S::POOL == 2) { // an activation never falls: the maximum is found before it
        float most;
        u8 *route = (u8 *)(shared + AT.conv[L].route) + (slot * S::O + o) * S::WINDOWS + tile;
        *route = (u8)largest(v, most);
        store_output<L>(shared, slot, first + slot, o, ty, tx,
                        activate<S::ACTIVATION>(most * scale + bias));
    } else {
#pragma unroll
        for (int q = 0; q < 4; q++) {
            int y = 2 * ty + q / 2, x = 2 * tx + q % 2;
            if (y < S::OH && x < S::OW) {
                store_output<L>(shared, slot, first + slot, o, y, x,
                                activate<S::ACTIVATION>(v[q] * scale + bias));
            }
        }
    }
}

// A weight of convolution L as it is split, 0 outside.
template <int L> DEVICE float weight(const float *shared, int o, int c, int tap) {
    using S = ConvShape<L>;
    bool inside = (S::WHOLE_O || o < S::O) && (S::WHOLE_C || c < S::C) && tap < S::TAPS;
    int at = (o * S::C + c) * S::TAPS + tap;
    return inside ? shared[AT.params + conv_first(L) + at] * WEIGHT_SCALE : 0.f;
}

// The first convolution: the inner dimension of the product is pairs of neighbouring pixels of the
// filter's rows; a filter of odd size has a 0 at the end of each row.
struct ImagePairs {
    using S = ConvShape<0>;
    static constexpr int OF_ROW = (S::SIZE + 1) / 2, ALL = S::C * S::SIZE * OF_ROW;
    static constexpr int STEPS = (ALL + 7) / 8;

    // Where the pair lies behind the upper left pixel, in words of two pixels.
    static DEVICE int offset(int pair) {
        if (pair >= ALL) return 0;
        int c = pair / (S::SIZE * OF_ROW), y = pair / OF_ROW % S::SIZE;
        return (c * S::PLANE + y * S::ROW) / 2 + pair % OF_ROW;
    }

    static DEVICE Halves weights(const float *shared, int o, int pair) {
        if (pair >= ALL) return {0, 0};
        int c = pair / (S::SIZE * OF_ROW), y = pair / OF_ROW % S::SIZE, x = pair % OF_ROW * 2;
        float second = x + 1 < S::SIZE ? weight<0>(shared, o, c, y * S::SIZE + x + 1) : 0.f;
        return split(weight<0>(shared, o, c, y * S::SIZE + x), second);
    }
};

DEVICE void image_forward(float *shared, int first, int thread) {
    using S = ConvShape<0>;
    using P = ImagePairs;
    constexpr int stride = WARPS / S::O_SHARE;
    Lane lane = lane_of(thread);
    int block = lane.warp % S::O_SHARE;
    Halves b[P::STEPS][2];
    int offset[P::STEPS][2];
#pragma unroll
    for (int k = 0; k < 2 * P::STEPS; k++) {
        b[k / 2][k % 2] = P::weights(shared, 8 * block + lane.g, 4 * k + lane.t);
        offset[k / 2][k % 2] = P::offset(4 * k + lane.t);
    }
    // Left pixels are in the one copy of the image, right ones in the other.
    const u32 *image = (const u32 *)(shared + AT.image) + lane.g % 2 * S::IMAGE_WORDS;
    __syncthreads(); // the images are there
    // A warp does a few groups at once, as many as make the rounds of all warps equal.
    constexpr int groups = S::GROUPS * AT_ONCE, most = P::STEPS <= 2 ? 4 : 1;
    constexpr int rounds = (groups + stride * most - 1) / (stride * most);
    constexpr int each = (groups + stride * rounds - 1) / (stride * rounds);
    for (int item = lane.warp / S::O_SHARE * each; item < groups && block < S::O8;
         item += stride * each) {
        float sum[each][4] = {}, low[each][4] = {};
        u32 a[each][P::STEPS][4];
#pragma unroll
        for (int i = 0; i < each; i++) {
            int group = min(item + i, groups - 1), slot = slot_of<0>(group);
            int tile = min(tile_of<0>(group) + lane.g / 2, S::TILES - 1);
            const u32 *here =
                image + slot * S::C * S::PLANE / 2 + tile / S::TILES_X * S::ROW + tile % S::TILES_X;
#pragma unroll
            for (int k = 0; k < P::STEPS; k++) {
                a[i][k][0] = here[offset[k][0]], a[i][k][1] = here[offset[k][0] + S::ROW / 2];
                a[i][k][2] = here[offset[k][1]], a[i][k][3] = here[offset[k][1] + S::ROW / 2];
            }
        }
#pragma unroll
        for (int k = 0; k < P::STEPS; k++) {
#pragma unroll
            for (int i = 0; i < each; i++) {
                mma16(low[i], a[i][k], b[k][0].low, b[k][1].low);
                mma16(sum[i], a[i][k], b[k][0].high, b[k][1].high);
            }
        }
#pragma unroll
        for (int i = 0; i < each; i++) {
            if (item + i >= groups) continue;
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i][j] += low[i][j];
            finish_tiles<0>(shared, first, slot_of<0>(item + i), tile_of<0>(item + i),
                            8 * block + 2 * lane.t, sum[i],
                            BYTE_UNIT / (255 * WEIGHT_SCALE), lane);
        }
    }
}

// The others: the inner dimension is made of units of eight channels of a tap, two a step. Where
// there are more warps than work, some share a tile and each does a part of the steps.
template <int L> DEVICE void conv_forward(float *shared, int first, int thread) {
    using S = ConvShape<L>;
    constexpr int units = S::TAPS * S::C8, steps = (units + 1) / 2;
    constexpr int items = (S::GROUPS * AT_ONCE + 1) / 2;
    constexpr int rest = WARPS / S::O_SHARE;
    constexpr int parts = items * 4 <= rest ? 4 : items * 2 <= rest ? 2 : 1;
    constexpr int each = (steps + parts - 1) / parts;
    Lane lane = lane_of(thread);
    int block = lane.warp % S::O_SHARE, part = lane.warp / S::O_SHARE % parts;
    Halves b[each][2];
    u32 offset[each]; // of the unit that this lane's row is for
#pragma unroll
    for (int k = 0; k < each; k++) {
        int unit = 2 * (part * each + k) + lane.matrix / 2;
        int tap = unit < units ? unit / S::C8 : 0;
        offset[k] = input_at<L>(0, unit < units ? unit % S::C8 : 0,
                                tap / S::SIZE * S::IN_ROW + tap % S::SIZE);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int other = 2 * (part * each + k) + h, c = other % S::C8 * 8 + 2 * lane.t;
            int o = 8 * block + lane.g;
            b[k][h] = split(weight<L>(shared, o, c, other / S::C8),
                            weight<L>(shared, o, c + 1, other / S::C8));
        }
    }
    u32 input = shared_address(shared + AT.conv[L].input);
    float4 *partial = (float4 *)(shared + AT.partial);
    __syncthreads(); // the input is there
    for (int item = lane.warp / (S::O_SHARE * parts); item < items; item += rest / parts) {
        u32 at[2]; // two groups of tiles at once
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int group = min(2 * item + i, S::GROUPS * AT_ONCE - 1), slot = slot_of<L>(group);
            int tile = min(tile_of<L>(group) + lane.row / 2, S::TILES - 1);
            int y = tile / S::TILES_X * 2 + lane.matrix % 2,
                x = tile % S::TILES_X * 2 + lane.row % 2;
            at[i] = input + input_at<L>(slot, 0, y * S::IN_ROW + x);
        }
        float sum[2][4] = {}, rest[2][4] = {}, more[2][4] = {}; // short chains of products
        u32 high[2][2][4], low[2][2][4];                        // of this step and the next
        auto read = [&](int k) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                load_matrices(high[k % 2][i], at[i] + offset[k]);
                load_matrices(low[k % 2][i], at[i] + offset[k] + S::IN_BYTES);
            }
        };
        read(0);
#pragma unroll
        for (int k = 0; k < each; k++) {
            if (k + 1 < each) read(k + 1);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                mma16(more[i], high[k % 2][i], b[k][0].low, b[k][1].low);
                mma16(sum[i], high[k % 2][i], b[k][0].high, b[k][1].high);
                mma16(rest[i], low[k % 2][i], b[k][0].high, b[k][1].high);
            }
        }
        add(rest, more);
        add(sum, rest);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int group = 2 * item + i;
            if (parts > 1) {
                partial[((group * S::O_SHARE + block) * parts + part) * 32 + lane.id] =
                    make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
            } else if (group < S::GROUPS * AT_ONCE) {
                finish_tiles<L>(shared, first, slot_of<L>(group), tile_of<L>(group),
                                8 * block + 2 * lane.t, sum[i], 1 / WEIGHT_SCALE, lane);
            }
        }
    }
    if constexpr (parts > 1) {
        __syncthreads();
        for (int unit = lane.warp; unit < S::GROUPS * AT_ONCE * S::O_SHARE; unit += WARPS) {
            const float4 *from = partial + unit * parts * 32 + lane.id;
            float sum[4] = {};
#pragma unroll
            for (int p = 0; p < parts; p++) {
                float4 more = from[p * 32];
                sum[0] += more.x, sum[1] += more.y, sum[2] += more.z, sum[3] += more.w;
            }
            int block = unit % S::O_SHARE, group = unit / S::O_SHARE;
            finish_tiles<L>(shared, first, slot_of<L>(group), tile_of<L>(group),
                            8 * block + 2 * lane.t, sum, 1 / WEIGHT_SCALE, lane);
        }
    }
}

// ---- Back --------------------------------------------------------------------------------------

// Takes the gradient of output (channel, y, x) of convolution L, behind activation and pooling, to
// the pixels before both.
template <int L>
DEVICE void conv_take_slope(float *shared, int slot, int image, int channel, int y, int x,
                            float slope) {
    using S = ConvShape<L>;
    slope *= derivative<S::ACTIVATION>(load_output<L>(shared, slot, image, channel, y, x));
    int window = ((slot * S::O + channel) * S::PH + y) * S::PW + x;
    int where = S::POOL == 2 ? ((const u8 *)(shared + AT.conv[L].route))[window] : 0;
    Halves h = split(slope, 0.f);
    u8 *pixel = (u8 *)(shared + AT.conv[L].slope) + channel % 8 * 2 +
                slope_at<L>(slot, channel / 8,
                            (y * S::POOL + S::REACH) * S::OUT_ROW + x * S::POOL + S::REACH);
#pragma unroll
    for (int q = 0; q < S::POOL * S::POOL; q++) {
        u8 *to = pixel + (q / 2 * S::OUT_ROW + q % 2) * 16;
        *(u16 *)to = q == where ? (u16)h.high : (u16)0;
        if (EXACT) *(u16 *)(to + S::OUT_BYTES) = q == where ? (u16)h.low : (u16)0;
    }
}

// The same for two channels at once, the first of them even.
template <int L>
DEVICE void conv_take_slopes(float *shared, int slot, int channel, int y, int x, float first,
                             float second) {
    using S = ConvShape<L>;
    constexpr u32 low_half = 0x0000ffff, high_half = 0xffff0000;
    const u8 *output =
        (const u8 *)(shared + AT.conv[L + 1].input) + output_at<L>(slot, channel, y, x);
    float2 high = unpack_fp16(*(const u32 *)output);
    float2 low = unpack_fp16(*(const u32 *)(output + ConvShape<L + 1>::IN_BYTES));
    Halves h = split(first * derivative<S::ACTIVATION>(high.x + low.x),
                     second * derivative<S::ACTIVATION>(high.y + low.y));
    const u8 *route =
        (const u8 *)(shared + AT.conv[L].route) + ((slot * S::O + channel) * S::PH + y) * S::PW + x;
    bool both = S::O % 2 == 0 || channel + 1 < S::O;
    int where = S::POOL == 2 ? route[0] : 0, where_second = 0;
    if (S::POOL == 2 && both) where_second = route[S::WINDOWS];
    u8 *pixel = (u8 *)(shared + AT.conv[L].slope) + channel % 8 * 2 +
                slope_at<L>(slot, channel / 8,
                            (y * S::POOL + S::REACH) * S::OUT_ROW + x * S::POOL + S::REACH);
#pragma unroll
    for (int q = 0; q < S::POOL * S::POOL; q++) {
        u8 *to = pixel + (q / 2 * S::OUT_ROW + q % 2) * 16;
        u32 mask = (q == where ? low_half : 0) | (both && q == where_second ? high_half : 0);
        *(u32 *)to = h.high & mask;
        if (EXACT) *(u32 *)(to + S::OUT_BYTES) = h.low & mask;
    }
}

// Gradients of the rounds of a step add up.
DEVICE void take_gradient(float *to, float g) {
    *to = ROUNDS > 1 ? *to + g : g;
}

// c += a b for the way back; `low` is not read unless EXACT.
DEVICE void multiply_back(float (&c)[4], const u32 (&a_high)[4], const u32 (&a_low)[4], Halves b0,
                          Halves b1) {
    if (EXACT) {
        multiply(c, a_high, a_low, b0, b1);
    } else {
        mma16(c, a_high, b0.high, b1.high);
    }
}

// The gradient of the input: the filters turned round over the gradient of the output. Inner units
// are eight output channels of a tap, rows of taps padded to whole steps; the weights lie ready as
// lanes want them.
template <int L> struct Back {
    using S = ConvShape<L>;
    static constexpr int UNITS = S::SIZE * S::O8, STEPS = (UNITS + 1) / 2; // of a row of taps
    static constexpr int FRAGMENTS = S::C8 * S::SIZE * STEPS * 32;
    static constexpr int TILES = (S::H * S::W + 15) / 16; // of 16 pixels

    static DEVICE Halves weights(const float *shared, int row, int unit, int c, int lane_t) {
        if (unit >= UNITS) return {0, 0};
        int tap = (S::SIZE - 1 - row) * S::SIZE + S::SIZE - 1 - unit / S::O8;
        int o = unit % S::O8 * 8 + 2 * lane_t;
        return split(weight<L>(shared, o, c, tap), weight<L>(shared, o + 1, c, tap));
    }
};

// By `threads` threads, at any time before the way back.
template <int L = 1> DEVICE void conv_lay_weights(float *shared, int thread, int threads) {
    if constexpr (L < CONVS) {
        using S = ConvShape<L>;
        using B = Back<L>;
        for (int i = thread; i < B::FRAGMENTS; i += threads) {
            int lane = i % 32, step = i / 32 % B::STEPS, row = i / (32 * B::STEPS) % S::SIZE;
            int c = i / (32 * B::STEPS * S::SIZE) * 8 + lane / 4;
            Halves b0 = B::weights(shared, row, 2 * step, c, lane % 4);
            Halves b1 = B::weights(shared, row, 2 * step + 1, c, lane % 4);
            u32 *to = (u32 *)(shared + AT.conv[L].back_weights);
            ((uint2 *)to)[i] = make_uint2(b0.high, b1.high);
            if (EXACT) ((uint2 *)to)[B::FRAGMENTS + i] = make_uint2(b0.low, b1.low);
        }
        conv_lay_weights<L + 1>(shared, thread, threads);
    }
}

template <int L>
DEVICE void input_slope(float *shared, int slot, int tile, int block, const Lane &lane) {
    using S = ConvShape<L>;
    using B = Back<L>;
    const uint2 *weights = (const uint2 *)(shared + AT.conv[L].back_weights) +
                           block * S::SIZE * B::STEPS * 32 + lane.id;
    int pixel = min(16 * tile + lane.matrix % 2 * 8 + lane.row, S::H * S::W - 1);
    u32 at = shared_address(shared + AT.conv[L].slope) +
             slope_at<L>(slot, 0, pixel / S::W * S::OUT_ROW + pixel % S::W);
    // Rows of taps that meet nothing but the zeros around the gradient are left out.
    int top = 16 * tile / S::W, bottom = min(16 * tile + 15, S::H * S::W - 1) / S::W;
    int begin = max(0, S::REACH - bottom), end = min(S::SIZE, S::OH + S::REACH - top);
    u32 offset[B::STEPS];
#pragma unroll
    for (int step = 0; step < B::STEPS; step++) {
        int unit = min(2 * step + lane.matrix / 2, B::UNITS - 1);
        offset[step] = slope_at<L>(0, unit % S::O8, unit / S::O8);
    }
    // Operands of the next row of taps are read while the products of this one are made, where
    // there are registers for both.
    u32 high[B::STEPS][4], low[B::STEPS][4] = {};
    uint2 b_high[B::STEPS], b_low[B::STEPS] = {};
    auto read = [&](int row, int step) {
        u32 here = at + offset[step] + row * S::OUT_ROW * 16;
        load_matrices(high[step], here);
        if (EXACT) load_matrices(low[step], here + S::OUT_BYTES);
        b_high[step] = weights[(row * B::STEPS + step) * 32];
        if (EXACT) b_low[step] = weights[B::FRAGMENTS + (row * B::STEPS + step) * 32];
    };
#pragma unroll
    for (int step = 0; step < B::STEPS && !EXACT; step++) read(begin, step);
    float sum[2][4] = {};
#pragma unroll 1
    for (int row = begin; row < end; row++) {
        int next = min(row + 1, end - 1);
#pragma unroll
        for (int step = 0; step < B::STEPS; step++) {
            if (EXACT) read(row, step);
            multiply_back(sum[step % 2], high[step], low[step], {b_high[step].x, b_low[step].x},
                          {b_high[step].y, b_low[step].y});
            if (!EXACT) read(next, step);
        }
    }
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        int p = 16 * tile + lane.g + 4 * j, c = 8 * block + 2 * lane.t;
        if (p < S::H * S::W && c < S::C) {
            conv_take_slopes<L - 1>(shared, slot, c, p / S::W, p % S::W,
                                    (sum[0][j] + sum[1][j]) * (1 / WEIGHT_SCALE),
                                    (sum[0][j + 1] + sum[1][j + 1]) * (1 / WEIGHT_SCALE));
        }
    }
}

// The gradient of the weights: outputs x inputs, the inner dimension is the pixels of the output. A
// warp does a few taps of 16 output and 8 input channels. Behind the last tap comes the bias.
enum { TAPS_OF_WARP = 4 };

template <int L>
DEVICE void weight_slope(float *shared, int outputs, int block, int taps, const Lane &lane) {
    using S = ConvShape<L>;
    constexpr int width = S::PW * S::POOL, pixels = S::PH * S::POOL * width;
    u32 slope = shared_address(shared + AT.conv[L].slope);
    u32 input = shared_address(shared + AT.conv[L].input);
    int o8 = min(2 * outputs + lane.matrix % 2, S::O8 - 1);
    float sum[TAPS_OF_WARP][4] = {};
    for (int item = 0; item < AT_ONCE * ((pixels + 31) / 32); item++) {
        int slot = item % AT_ONCE, begin = item / AT_ONCE * 32;
        u32 high[2][4], low[2][4] = {};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int p = begin + half * 16 + lane.matrix / 2 * 8 + lane.row;
            int at = (p / width + S::REACH) * S::OUT_ROW + p % width + S::REACH;
            u32 here = slope + slope_at<L>(slot, o8, p < pixels ? at : S::OUT_PIXELS - 1); // 0
            load_transposed(high[half], here);
            if (EXACT) load_transposed(low[half], here + S::OUT_BYTES);
        }
        int p = min(begin + lane.matrix * 8 + lane.row, pixels - 1);
        u32 here = input + input_at<L>(slot, block, p / width * S::IN_ROW + p % width);
        u32 b_high[TAPS_OF_WARP][4], b_low[TAPS_OF_WARP][4] = {};
#pragma unroll
        for (int i = 0; i < TAPS_OF_WARP;
             i++) { // behind the last tap reads something, and forgets it
            int tap = min(TAPS_OF_WARP * taps + i, S::TAPS - 1);
            u32 from = here + (tap / S::SIZE * S::IN_ROW + tap % S::SIZE) * 16;
            load_transposed(b_high[i], from);
            if (EXACT) load_transposed(b_low[i], from + S::IN_BYTES);
        }
#pragma unroll
        for (int i = 0; i < TAPS_OF_WARP; i++) {
            bool bias = TAPS_OF_WARP * taps + i >= S::TAPS;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (bias) b_high[i][j] = 0x3c003c00, b_low[i][j] = 0; // ones
            }
            multiply_back(sum[i], high[0], low[0], {b_high[i][0], b_low[i][0]},
                          {b_high[i][1], b_low[i][1]});
            multiply_back(sum[i], high[1], low[1], {b_high[i][2], b_low[i][2]},
                          {b_high[i][3], b_low[i][3]});
        }
    }
    float *gradient = shared + AT.gradient + conv_first(L);
#pragma unroll
    for (int i = 0; i < TAPS_OF_WARP * 4; i++) {
        int tap = TAPS_OF_WARP * taps + i / 4, j = i % 4;
        int o = 16 * outputs + lane.g + j / 2 * 8, c = 8 * block + 2 * lane.t + j % 2;
        float g = sum[i / 4][j] * (1 / SLOPE_SCALE);
        if (o >= S::O || c >= S::C) continue;
        if (tap < S::TAPS) take_gradient(gradient + (o * S::C + c) * S::TAPS + tap, g);
        if (tap == S::TAPS && c == 0) take_gradient(gradient + S::O * S::C * S::TAPS + o, g);
    }
}

// Both for convolution L > 0: the warps take taps of the one, which last longer, then tiles of the
// other.
template <int L> DEVICE void conv_back(float *shared, int thread) {
    using S = ConvShape<L>;
    constexpr int tiles = Back<L>::TILES, inputs = AT_ONCE * tiles * S::C8;
    constexpr int taps = (S::TAPS + TAPS_OF_WARP) / TAPS_OF_WARP, outputs = (S::O + 15) / 16;
    constexpr int weights = taps * outputs * S::C8;
    Lane lane = lane_of(thread);
    for (int item = lane.warp; item < weights + inputs; item += WARPS) {
        if (item < weights) {
            weight_slope<L>(shared, item / taps % outputs, item / (taps * outputs), item % taps,
                            lane);
        } else {
            int rest = item - weights;
            input_slope<L>(shared, rest / (tiles * S::C8), rest % tiles, rest / tiles % S::C8,
                           lane);
        }
    }
}

// The gradient of the first weights: taps x outputs, the inner dimension is pixels again, in runs
// of eight of a row. Behind the last tap comes the bias: a row of ones. Every warp does some of the
// runs for two tiles of 16 taps; then the warps' sums are added.
DEVICE void image_weight_slope(float *shared, int thread) {
    using S = ConvShape<0>;
    constexpr int taps = S::C * S::TAPS, passes = (taps + 1 + 31) / 32;
    constexpr u32 rows = S::PH * S::POOL, runs_of_row = S::OUT_ROW / 8;
    constexpr u32 steps = AT_ONCE * rows * runs_of_row / 2;
    Lane lane = lane_of(thread);
    const u32 *image = (const u32 *)(shared + AT.image);
    u32 slope = shared_address(shared + AT.conv[0].slope);
    for (int pass = 0; pass < passes * S::O8; pass++) {
        int block = pass / passes, first = pass % passes * 32;
        int offset[4]; // of the taps of this lane, in words of two pixels
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int tap = min(first + lane.g + 8 * i, taps - 1), x = tap % S::SIZE;
            offset[i] = x % 2 * S::IMAGE_WORDS + x / 2 + lane.t +
                        (tap / S::TAPS * S::PLANE + tap / S::SIZE % S::SIZE * S::ROW) / 2;
        }
        float sum[2][4] = {};
#pragma unroll(steps <= 4 * WARPS ? 4 : 1)
        for (u32 step = lane.warp; step < steps; step += WARPS) {
            u32 at[2], b_high[2], b_low[2] = {}; // of the two runs
#pragma unroll
            for (u32 h = 0; h < 2; h++) {
                u32 run = 2 * step + h, slot = AT_ONCE > 1 ? run / (rows * runs_of_row) : 0;
                u32 y = (run - slot * (rows * runs_of_row)) / runs_of_row,
                    x = run % runs_of_row * 8;
                at[h] = (slot * S::C * S::PLANE + y * S::ROW + x) / 2;
            }
            u32 run = 2 * step + lane.matrix % 2,
                slot = AT_ONCE > 1 ? run / (rows * runs_of_row) : 0;
            u32 pixel = (run - slot * (rows * runs_of_row)) * 8 + lane.row;
            u32 here = slope + slope_at<0>(slot, block, pixel);
            load_transposed_2(b_high, here);
            if (EXACT) load_transposed_2(b_low, here + S::OUT_BYTES);
#pragma unroll
            for (int tile = 0; tile < 2; tile++) {
                u32 a[4];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int eight = first / 8 + 2 * tile + j % 2; // which eight taps
                    a[j] = image[at[j / 2] + offset[2 * tile + j % 2]];
                    if (eight == taps / 8 && lane.g == taps % 8) {
                        a[j] = 0x00010001; // the smallest fp16 number, as a pixel of 1
                    }
                }
                if (EXACT) mma16(sum[tile], a, b_low[0], b_low[1]);
                mma16(sum[tile], a, b_high[0], b_high[1]);
            }
        }
        float4 *partial = (float4 *)(shared + AT.partial);
#pragma unroll
        for (int tile = 0; tile < 2; tile++) {
            partial[(lane.warp * 2 + tile) * 32 + lane.id] =
                make_float4(sum[tile][0], sum[tile][1], sum[tile][2], sum[tile][3]);
        }
        __syncthreads();
        for (int i = thread; i < 256; i += THREADS) {
            float total = 0;
#pragma unroll
            for (int warp = 0; warp < WARPS; warp++) total += shared[AT.partial + warp * 256 + i];
            int from = i / 4 % 32, j = i % 4;
            int tap = first + i / 128 * 16 + from / 4 + j / 2 * 8,
                o = 8 * block + from % 4 * 2 + j % 2;
            float *gradient = shared + AT.gradient;
            if (o < S::O && tap < taps) {
                take_gradient(gradient + o * taps + tap, total * (BYTE_UNIT / (255 * SLOPE_SCALE)));
            }
            if (o < S::O && tap == taps) {
                take_gradient(gradient + S::O * taps + o, total * (BYTE_UNIT / SLOPE_SCALE));
            }
        }
        if (passes * S::O8 > 1) __syncthreads();
    }
}

} // namespace cnn
#endif
