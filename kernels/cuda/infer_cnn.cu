// Evaluates a small CNN on whole batches in one launch: convolutions (with activation and pooling),
// then fc layers. A warp takes an image from its bytes to its features without leaving shared
// memory; then all warps of the block do the fc layers of their IMAGES images together.
//
// Convolutions are products on tensor cores, in f16 but as exact as f32: a pixel is exact in f16
// (its byte, zero-extended, is the denormal byte * 2^-24), and every other number is the sum of two
// halves, high + low, after a scaling by a power of 2 that the weights choose.
//
// The outputs of a convolution are computed in cells of 2 x 2, which are the windows of the pooling
// where it has one. The 8 columns of a product are 8 cells, and each of the four places in a cell
// has its own accumulators, so pooling is a maximum of four registers.
//
// Needs besides infer_common.cuh's: BLOCK_WARPS, BLOCK_IMAGES (a multiple of 8 and of BLOCK_WARPS),
// BLOCKS (of a multiprocessor), SHARED (bytes of a block).
#include "infer_common.cuh"

constexpr int WARPS = BLOCK_WARPS, IMAGES = BLOCK_IMAGES;
static_assert(IMAGES <= 32, "one warp finishes the rows");

FORMULA bool is_conv(int l) {
    return l < LAYERS && net[l].conv;
}
constexpr int CONVS = is_conv(0) + is_conv(1) + is_conv(2); // 1 to 3, before all fc layers

// ---- Shapes ------------------------------------------------------------------------------------

FORMULA int cells_x(int l) {
    return net[l].pool == 2 ? net[l].ow / 2 : (net[l].ow + 1) / 2;
}
FORMULA int cells_y(int l) {
    return net[l].pool == 2 ? net[l].oh / 2 : (net[l].oh + 1) / 2;
}
FORMULA int cells(int l) {
    return cells_x(l) * cells_y(l);
}
FORMULA int tiles(int l) {
    return (cells(l) + 7) / 8;
}
FORMULA int out_w(int l) {
    return net[l].ow / net[l].pool;
}
FORMULA int out_h(int l) {
    return net[l].oh / net[l].pool;
}

// Padded input of a convolution: rows, and pairs of columns in a row. What cells read beyond the
// edge of an odd output goes into outputs that nobody stores.
FORMULA int pairs_in_filter(int l) {
    return net[l].size / 2 + 1;
}
FORMULA int in_rows(int l) {
    return most(net[l].h + 2 * net[l].padding, 2 * cells_y(l) + net[l].size - 1);
}
FORMULA int in_pairs(int l) {
    return most((net[l].w + 2 * net[l].padding + 1) / 2, cells_x(l) + pairs_in_filter(l) - 1);
}
// Bytes of it. The image: [c][row][pair of columns] two f16. Later: [high, low][block of 8
// channels] [parity of the column][row][pair of columns] 8 channels in f16.
FORMULA int column_plane(int l) {
    return in_rows(l) * in_pairs(l) * 16;
}
FORMULA int channel_blocks(int l) {
    return (net[l].c + 7) / 8;
}
FORMULA int half_bytes(int l) {
    return channel_blocks(l) * 2 * column_plane(l);
}
FORMULA int input_bytes(int l) {
    return l >= CONVS ? 0
           : l == 0   ? round_up(net[0].c * in_rows(0) * in_pairs(0) * 4, 16)
                      : 2 * half_bytes(l);
}
FORMULA int input_offset(int l) {
    return l == 0 ? 0 : input_offset(l - 1) + input_bytes(l - 1);
}
constexpr int WARP_BYTES = input_offset(CONVS);

// Weights, in the order in which the lanes of a warp need them: 16 bytes a lane.
FORMULA int steps_of_image() {
    return (net[0].c * net[0].size * pairs_in_filter(0) + 7) / 8;
}
FORMULA int weight_units(int l) {
    return l >= CONVS ? 0
           : l == 0   ? (net[0].o + 7) / 8 * 2 * steps_of_image()
                      : (net[l].o + 15) / 16 * channel_blocks(l) * net[l].size * net[l].size;
}
FORMULA int weight_offset(int l) {
    return l == 0 ? 0 : weight_offset(l - 1) + weight_units(l - 1) * 512;
}
constexpr int WEIGHT_BYTES = weight_offset(CONVS);

// Activations of the fc layers: [IMAGES, row_stride], in two places by turns.
constexpr int FEATURES = net[CONVS].c;
FORMULA int widest(int l, int parity) {
    return l > LAYERS
               ? 0
               : most((l - CONVS) % 2 == parity ? row_stride(l == LAYERS ? net[l - 1].o : net[l].c)
                                                : 0,
                      widest(l + 1, parity));
}
constexpr int FC_BYTES[2] = {IMAGES * widest(CONVS, 0) * 4, IMAGES *widest(CONVS, 1) * 4};

FORMULA int strips(int l) {
    return (net[l].o + 15) / 16;
}
FORMULA int parts_of(int l) {
    return most(1, least(WARPS / strips(l), net[l].c / 32));
}
FORMULA int sums_bytes(int l) {
    return l >= LAYERS
               ? 0
               : most(parts_of(l) > 1 ? parts_of(l) * IMAGES * net[l].o * 4 : 0, sums_bytes(l + 1));
}
constexpr int SHARED_BYTES =
    WEIGHT_BYTES + WARPS * WARP_BYTES + FC_BYTES[0] + FC_BYTES[1] + sums_bytes(CONVS);
static_assert(SHARED_BYTES == SHARED, "the plan counts other bytes");

// ---- Places ------------------------------------------------------------------------------------

// Of each cell: where its window begins in the input, and where its output goes after pooling,
// without the channel; in units of one pair of columns. Made once, for divisions cost more than a
// look-up.
struct place {
    u16 from, to;
};
FORMULA int places_of(int l) { // whole tiles, two at a time
    return l >= CONVS ? 0 : round_up(cells(l), 16);
}
FORMULA int places_at(int l) {
    return l == 0 ? 0 : places_at(l - 1) + places_of(l - 1);
}
constexpr int PLACES = places_at(CONVS);

// Output (y, x) of layer L: features are in order, the input of a convolution is as above.
template <int L> __device__ int place_of_output(int y, int x) {
    constexpr int N = L + 1 < CONVS ? L + 1 : L; // the next convolution
    if (L + 1 == CONVS) return y * out_w(L) + x;
    y += net[N].padding, x += net[N].padding;
    return x % 2 * (column_plane(N) / 16) + y * in_pairs(N) + x / 2;
}

template <int L> __device__ void make_places(place *places) {
    if constexpr (L < CONVS) {
        for (int i = threadIdx.x; i < places_of(L); i += 32 * WARPS) {
            const int cell = least(i, cells(L) - 1), y = cell / cells_x(L), x = cell % cells_x(L);
            places[places_at(L) + i].from = (u16)(2 * y * in_pairs(L) + x);
            places[places_at(L) + i].to = (u16)place_of_output<L>(y, x);
        }
        make_places<L + 1>(places);
    }
}

// ---- Scales ------------------------------------------------------------------------------------

struct scales {
    float weight[CONVS], input[CONVS]; // powers of 2, but for the image's
    float output[CONVS];               // 1 / (weight input): what a sum must be multiplied by
};

// 2^n such that 2^14 <= largest 2^n < 2^15, where there is one.
__device__ float scale_of(float largest) {
    const u32 exponent = __float_as_uint(largest) >> 23;
    return __uint_as_float((268 - (exponent > 14 ? exponent : 14)) << 23);
}

// The largest magnitude of `count` numbers, by the whole block.
__device__ float largest_of(const float *numbers, int count) {
    __shared__ float of_warp[WARPS];
    float largest = 0.0f;
#pragma unroll 8
    for (int i = threadIdx.x; i < count; i += 32 * WARPS)
        largest = fmaxf(largest, fabsf(numbers[i]));
#pragma unroll
    for (int width = 16; width > 0; width /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, width));
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
    __syncthreads();
    for (int i = 0; i < WARPS; i++) largest = fmaxf(largest, of_warp[i]);
    return largest;
}

// `bound`: what no number of the input exceeds. It is generous, which costs nothing: two halves
// have their 22 bits over a range of 2^28.
template <int L> __device__ void find_scales(const float *params, scales *s, float bound) {
    if constexpr (L < CONVS) {
        constexpr int K = net[L].c * net[L].size * net[L].size;
        const float weight = largest_of(params + net[L].weight, net[L].o * K);
        const float bias = largest_of(params + net[L].bias, net[L].o);
        if (threadIdx.x == 0) {
            s->weight[L] = scale_of(weight);
            s->input[L] = L == 0 ? 255.0f * 5.9604645e-8f : scale_of(bound); // a byte as f16: 2^-24
            s->output[L] = 1.0f / s->weight[L] / s->input[L];
        }
        find_scales<L + 1>(params, s,
                           net[L].activation >= SIGMOID ? 1.0f : K * weight * bound + bias);
    }
}

// ---- Weights into fragments --------------------------------------------------------------------

// The two halves of a number.
__device__ void split_f16(float x, u16 &high, u16 &low) {
    u32 pair = pack_fp16(x, 0.0f);
    high = (u16)pair;
    low = (u16)pack_fp16(x - unpack_fp16(pair).x, 0.0f);
}

// The image's. Its k are pairs of neighbouring columns, (c, dy, pair), 8 pairs to a product; the
// pairs begin at even columns, so the places of a cell with odd column have filters that begin one
// later. Rows 0 to 7 of a product are the high halves of 8 channels, rows 8 to 15 the low halves.
__device__ u32 image_weight(const float *params, float scale, int o, int odd, int pair,
                            bool low_half) {
    constexpr int S = net[0].size, PAIRS = pairs_in_filter(0);
    float w[2] = {0.0f, 0.0f};
    const int c = pair / PAIRS / S, dy = pair / PAIRS % S;
    for (int i = 0; i < 2; i++) {
        const int dx = pair % PAIRS * 2 + i - odd;
        if (o < net[0].o && c < net[0].c && dx >= 0 && dx < S)
            w[i] = scale * params[net[0].weight + ((o * net[0].c + c) * S + dy) * S + dx];
    }
    u32 high, low;
    split_pair(w[0], w[1], high, low);
    return low_half ? low : high;
}

__device__ void load_image_weights(const float *params, float scale, uint4 *out) {
    for (int i = threadIdx.x; i < weight_units(0) * 32; i += blockDim.x) {
        const int step = i / 32 % steps_of_image(), odd = i / 32 / steps_of_image() % 2;
        const int o = i / 32 / steps_of_image() / 2 * 8 + i % 32 / 4, pair = step * 8 + i % 4;
        out[i] = {image_weight(params, scale, o, odd, pair, false),
                  image_weight(params, scale, o, odd, pair, true),
                  image_weight(params, scale, o, odd, pair + 4, false),
                  image_weight(params, scale, o, odd, pair + 4, true)};
    }
}

// Of a later layer: unit (strip of 16 channels, block of 8 input channels, dy, dx), and in it high
// (g, 2q), high (g + 8, 2q), low (g, 2q), low (g + 8, 2q).
template <int L> __device__ void load_weights(const float *params, float scale, uint4 *out) {
    constexpr int TAPS = net[L].size * net[L].size, C = net[L].c;
#pragma unroll 2
    for (int i = threadIdx.x; i < weight_units(L) * 32; i += blockDim.x) {
        const int tap = i / 32 % TAPS, c = i / 32 / TAPS % channel_blocks(L) * 8 + i % 4 * 2;
        const int o = i / 32 / TAPS / channel_blocks(L) * 16 + i % 32 / 4;
        float w[2][2];
        for (int row = 0; row < 2; row++)
            for (int column = 0; column < 2; column++)
                w[row][column] =
                    o + 8 * row < net[L].o && c + column < C
                        ? scale *
                              params[net[L].weight + ((o + 8 * row) * C + c + column) * TAPS + tap]
                        : 0.0f;
        split_pair(w[0][0], w[0][1], out[i].x, out[i].z);
        split_pair(w[1][0], w[1][1], out[i].y, out[i].w);
    }
}

// ---- Convolutions, by one warp -----------------------------------------------------------------

// What a warp works with.
struct workplace {
    char *mine;      // inputs of its convolutions
    float *features; // of its image
    const place *places;
    const scales *s;
};

// One output of layer L, to where the next layer reads it; `to` from place_of_output.
template <int L> __device__ void store_output(const workplace &w, int o, int to, float value) {
    if constexpr (L + 1 == CONVS) {
        w.features[o * out_h(L) * out_w(L) + to] = value;
    } else {
        constexpr int NEXT = L + 1;
        char *at =
            w.mine + input_offset(NEXT) + o / 8 * 2 * column_plane(NEXT) + o % 8 * 2 + to * 16;
        u16 high, low;
        split_f16(value * w.s->input[NEXT], high, low);
        *(u16 *)at = high;
        *(u16 *)(at + half_bytes(NEXT)) = low;
    }
}

// The four sums of a cell: scaled, pooled or not, and stored.
template <int L>
__device__ void finish_cell(const workplace &w, float scale, float bias, int o, int cell,
                            const float sum[4]) {
    if (o >= net[L].o || cell >= cells(L)) return;
    if constexpr (net[L].pool == 2) {
        float largest =
            fmaxf(fmaxf(sum[0], sum[1]), fmaxf(sum[2], sum[3])); // activations are monotone
        store_output<L>(w, o, w.places[places_at(L) + cell].to,
                        activate<net[L].activation>(fmaf(largest, scale, bias)));
    } else {
        const int y = cell / cells_x(L) * 2, x = cell % cells_x(L) * 2;
        for (int i = 0; i < 4; i++)
            if (y + i / 2 < net[L].oh && x + i % 2 < net[L].ow)
                store_output<L>(w, o, place_of_output<L>(y + i / 2, x + i % 2),
                                activate<net[L].activation>(fmaf(sum[i], scale, bias)));
    }
}

// Bytes to halves: f16 whose bits are the byte.
__device__ void store_image(char *mine, int piece, uint4 bytes) {
    constexpr int W = net[0].w, P = net[0].padding;
    const u32 word[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
    u16 *image = (u16 *)mine;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int pixel = piece * 16 + i * 4;
        u16 *at =
            image +
            ((pixel / W / net[0].h * in_rows(0) + pixel / W % net[0].h + P) * in_pairs(0) * 2) +
            pixel % W + P;
        if (W % 4 == 0 && P % 2 == 0) {
            ((u32 *)at)[0] = __byte_perm(word[i], 0, 0x4140);
            ((u32 *)at)[1] = __byte_perm(word[i], 0, 0x4342);
        } else {
            for (int j = 0; j < 4; j++) {
                const int p = pixel + j;
                image[(p / W / net[0].h * in_rows(0) + p / W % net[0].h + P) * in_pairs(0) * 2 +
                      p % W + P] = word[i] >> 8 * j & 255;
            }
        }
    }
}

// The first layer.
__device__ void image_conv(const bt_net_args &a, const workplace &work, const uint4 *weights) {
    constexpr int STEPS = steps_of_image(), S = net[0].size, PAIRS = pairs_in_filter(0);
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    const u32 *image = (const u32 *)work.mine;
    const float scale = work.s->output[0];
    int place[STEPS][2]; // of this lane's pairs, from the first of the filter
#pragma unroll
    for (int i = 0; i < 2 * STEPS; i++) {
        const int pair = least(i * 4 + q, net[0].c * S * PAIRS - 1); // weights beyond are 0
        place[i / 2][i % 2] =
            (pair / PAIRS / S * in_rows(0) + pair / PAIRS % S) * in_pairs(0) + pair % PAIRS;
    }
#pragma unroll 1
    for (int o = g; o < round_up(net[0].o, 8); o += 8) {
        uint4 w[2][STEPS];
#pragma unroll
        for (int i = 0; i < 2 * STEPS; i++)
            w[i / STEPS][i % STEPS] = weights[(o / 8 * 2 * STEPS + i) * 32 + lane];
        const float bias = o < net[0].o ? a.params[net[0].bias + o] : 0.0f;
#pragma unroll 2
        for (int tile = 0; tile < tiles(0); tile++) {
            const u32 *at = image + work.places[tile * 8 + g].from;
            float d[4][4] = {};
#pragma unroll
            for (int y = 0; y < 2; y++)
#pragma unroll
                for (int step = 0; step < STEPS; step++) {
                    const u32 b0 = at[place[step][0] + y * in_pairs(0)],
                              b1 = at[place[step][1] + y * in_pairs(0)];
#pragma unroll
                    for (int x = 0; x < 2; x++)
                        mma16(d[2 * y + x],
                              {w[x][step].x, w[x][step].y, w[x][step].z, w[x][step].w}, b0, b1);
                }
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float sum[4] = {d[0][i] + d[0][i + 2], d[1][i] + d[1][i + 2],
                                      d[2][i] + d[2][i + 2], d[3][i] + d[3][i + 2]};
                finish_cell<0>(work, scale, bias, o, tile * 8 + 2 * q + i, sum);
            }
        }
    }
}

// Products of one filter row with the places (y, 0) and (y, 1) of TILES x 8 cells. `column` is the
// input of the cells' columns 0 to SIZE: high and low halves.
template <int S, int TILES>
__device__ void multiply_row(float d[TILES][4][4], int y, const uint4 w[S],
                             const u32 column[TILES][S + 2][2]) {
#pragma unroll
    for (int dx = 0; dx < S; dx += 2)
#pragma unroll
        for (int product = 0; product < PRODUCTS; product++) { // high high, high low, low high
            const int low = product == 1;
            const uint4 w0 = w[dx], w1 = w[dx + 1 < S ? dx + 1 : dx];
#pragma unroll
            for (int x = 0; x < 2; x++)
#pragma unroll
                for (int t = 0; t < TILES; t++) {
                    float(&sum)[4] = d[t][2 * y + x];
                    const u32 b0 = column[t][x + dx][low], b1 = column[t][x + dx + 1][low];
                    if (dx + 1 == S)
                        mma8(sum, product < 2 ? w0.x : w0.z, product < 2 ? w0.y : w0.w, b0);
                    else if (product < 2)
                        mma16(sum, {w0.x, w0.y, w1.x, w1.y}, b0, b1);
                    else
                        mma16(sum, {w0.z, w0.w, w1.z, w1.w}, b0, b1);
                }
        }
}

// A later convolution, 16 channels x 8 TILES cells at a time.
template <int L>
__device__ void conv(const bt_net_args &a, const workplace &work, const uint4 *weights) {
    constexpr int S = net[L].size, TILES = least(tiles(L), 2);
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
#pragma unroll 1
    for (int strip = 0; strip < strips(L); strip++)
#pragma unroll 1
        for (int tile = 0; tile < tiles(L); tile += TILES) {
            float d[TILES][4][4] = {};
            // This lane's row of the matrices: high, low, and those of the next column.
            u32 from[TILES];
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const int cell = work.places[places_at(L) + (tile + t) * 8 + lane % 8].from;
                from[t] = shared_address(work.mine + input_offset(L)) +
                          lane / 8 % 2 * half_bytes(L) + lane / 16 * column_plane(L) + cell * 16;
            }
#pragma unroll 1
            for (int block = 0; block < channel_blocks(L); block++) {
                const uint4 *unit =
                    weights + (strip * channel_blocks(L) + block) * S * S * 32 + lane;
                uint4 before[S], now[S];
#pragma unroll
                for (int row = 0; row <= S; row++) {
                    u32 column[TILES][S + 2][2];
#pragma unroll
                    for (int t = 0; t < TILES; t++)
#pragma unroll
                        for (int x = 0; x <= S; x += 2) {
                            u32 two[4]; // high and low halves of a column, then of the next
                            load_matrices(two, from[t] + block * 2 * column_plane(L) +
                                                   (row * in_pairs(L) + x / 2) * 16);
                            for (int i = 0; i < 4; i++) column[t][x + i / 2][i % 2] = two[i];
                        }
#pragma unroll
                    for (int x = 0; x < S && row < S; x++) now[x] = unit[(row * S + x) * 32];
                    if (row < S) multiply_row<S, TILES>(d, 0, now, column);
                    if (row > 0) multiply_row<S, TILES>(d, 1, before, column);
#pragma unroll
                    for (int x = 0; x < S; x++) before[x] = now[x];
                }
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int o = strip * 16 + half * 8 + g;
                const float bias = o < net[L].o ? a.params[net[L].bias + o] : 0.0f;
#pragma unroll
                for (int t = 0; t < TILES; t++)
#pragma unroll
                    for (int i = 2 * half; i < 2 * half + 2; i++) {
                        const float sum[4] = {d[t][0][i], d[t][1][i], d[t][2][i], d[t][3][i]};
                        finish_cell<L>(work, work.s->output[L], bias, o,
                                       (tile + t) * 8 + 2 * q + i % 2, sum);
                    }
            }
        }
}

// ---- Layers in turn ----------------------------------------------------------------------------

template <int L> struct convolutions {
    static __device__ void load(const float *params, const scales *s, char *weights) {
        if (L == 0)
            load_image_weights(params, s->weight[0], (uint4 *)weights);
        else
            load_weights<L>(params, s->weight[L], (uint4 *)(weights + weight_offset(L)));
        convolutions<L + 1>::load(params, s, weights);
    }
    static __device__ void run(const bt_net_args &a, const workplace &w, const char *weights) {
        if constexpr (L == 0)
            image_conv(a, w, (const uint4 *)weights);
        else
            conv<L>(a, w, (const uint4 *)(weights + weight_offset(L)));
        __syncwarp();
        convolutions<L + 1>::run(a, w, weights);
    }
};
template <> struct convolutions<CONVS> {
    static __device__ void load(const float *, const scales *, char *) {}
    static __device__ void run(const bt_net_args &, const workplace &, const char *) {}
};

template <int L>
__device__ const float *fc_layers(const bt_net_args &a, const float *x, float *y, float *sums) {
    if constexpr (L == LAYERS) {
        return x;
    } else {
        fully_connected<L, IMAGES, least(IMAGES / 8, 2), parts_of(L), WARPS, net[L].c>(
            a.params + net[L].weight, a.params + net[L].bias, x, y, sums);
        __syncthreads();
        return fc_layers<L + 1>(a, y, (float *)x, sums);
    }
}

// ---- The kernel --------------------------------------------------------------------------------

// Zeros where padding is, and in activations that no channel writes; they stay.
__device__ void clear_shared(char *shared) {
    for (int i = threadIdx.x; i < SHARED_BYTES / 16; i += blockDim.x)
        ((uint4 *)shared)[i] = {0, 0, 0, 0};
}

__device__ void load_image(const bt_net_args &a, int sample, char *mine) {
    constexpr int PIECES = PIXELS / 16;
    const uint4 *from = (const uint4 *)(a.bytes + (size_t)most(sample, 0) * PIXELS);
    for (int piece = threadIdx.x % 32; piece < PIECES; piece += 32) {
        uint4 bytes = sample < 0 ? uint4{0, 0, 0, 0} : from[piece];
        store_image(mine, piece, bytes);
    }
    __syncwarp();
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS) infer_cnn(bt_net_args a) {
    extern __shared__ __align__(16) char shared[];
    __shared__ scales s;
    __shared__ place places[PLACES];
    char *weights = shared;
    char *mine = shared + WEIGHT_BYTES + threadIdx.x / 32 * WARP_BYTES;
    float *features = (float *)(shared + WEIGHT_BYTES + WARPS * WARP_BYTES);
    float *other = features + FC_BYTES[0] / 4, *sums = other + FC_BYTES[1] / 4;
    const books b = books_at(a, a.scratch);
    const u32 first_step = a.state[0];
    clear_shared(shared);
    make_places<0>(places);
    find_scales<0>(a.params, &s, 1.0f);
    __syncthreads();
    convolutions<0>::load(a.params, &s, weights);
    __syncthreads();
    for (work w = first_work(blockIdx.x, (a.batch + IMAGES - 1) / IMAGES); w.step < a.steps;
         next_work(w, gridDim.x)) {
        const u32 first_row = w.part * IMAGES;
        const batch_place place = place_of_step(a, first_step + w.step);
        for (int i = threadIdx.x / 32; i < IMAGES; i += WARPS) {
            load_image(a, sample_of_row(a, place, first_row + i), mine);
            convolutions<0>::run(a, {mine, features + i * row_stride(FEATURES), places, &s},
                                 weights);
        }
        __syncthreads();
        const float *logits = fc_layers<CONVS>(a, features, other, sums);
        if (threadIdx.x < 32) {
            const u32 i = least(threadIdx.x, IMAGES - 1), row = first_row + i;
            const int sample = sample_of_row(a, place, row),
                      label = sample < 0 || !(a.log || a.predictions) ? -1 : a.labels[sample];
            row_result mine = {0.0f, 0.0f, 0.0f};
            if (threadIdx.x < IMAGES)
                mine = finish_row(a, logits + i * row_stride(CLASSES), label, row, place.first,
                                  is_last_of_ring(a, w.step, a.epoch_steps), w.step + 1 == a.steps);
            if (is_logged(a, w.step)) finish_part(a, b, first_step + w.step, w.part, w.parts, mine);
        }
        __syncthreads();
    }
    finish_launch(a, b.blocks_done, first_step, gridDim.x);
}
