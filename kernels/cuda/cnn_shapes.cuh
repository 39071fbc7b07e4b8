// The shapes of a small CNN, its parameters, and where everything lies in shared memory: all known
// when the kernel is compiled, from the #defines that src/device/cuda/plan_cnn.c writes:
//
// CNN_CONVS: {c, h, w, o, size, padding, activation, pool, weight, bias}, ... one per convolution
// CNN_FCS: {in, out, activation, on_chip, weight, bias}, ... one per fully connected layer
// CNN_CONV_COUNT, CNN_FC_COUNT: how many of them
// CNN_BLOCKS, CNN_THREADS: blocks of the grid, and threads of each
// CNN_IMAGES, CNN_AT_ONCE: images of a batch that a block has; how many of them it does at once
// CNN_EXACT: 1: gradients as exact as f32; 0: one product of fp16 numbers, as exact as TF32
// CNN_OPTIMIZER: SGD, NESTEROV, ADAM or ADAMW
// CNN_SHARED_BYTES: what the plan reserved
#ifndef BT_CUDA_CNN_SHAPES
#define BT_CUDA_CNN_SHAPES
#include "allreduce.cuh"
#include "common.cuh"

namespace cnn {

enum { NONE, RELU, SIGMOID, TANH };
enum { SGD, NESTEROV, ADAM, ADAMW };

struct Conv {
    int c, h, w, o, size, padding, activation, pool;
    int weight, bias; // in params, in floats
};

struct Fc {
    int in, out, activation;
    int on_chip; // weights are copied to shared memory; otherwise they are read from L2
    int weight, bias;
};

constexpr int CONVS = CNN_CONV_COUNT, FCS = CNN_FC_COUNT;
constexpr int BLOCKS = CNN_BLOCKS, THREADS = CNN_THREADS, WARPS = THREADS / 32;
constexpr int IMAGES = CNN_IMAGES, AT_ONCE = CNN_AT_ONCE, ROUNDS = IMAGES / AT_ONCE;
constexpr Conv CONV[CONVS] = {CNN_CONVS};
constexpr Fc FC[FCS] = {CNN_FCS};
constexpr int CLASSES = FC[FCS - 1].out;
constexpr bool EXACT = CNN_EXACT; // the way back as exact as f32
constexpr int PIXELS = CONV[0].c * CONV[0].h * CONV[0].w;

static_assert(IMAGES % AT_ONCE == 0, "the images of a block are done in equal rounds");

__host__ __device__ constexpr int round_up(int n, int to) {
    return (n + to - 1) / to * to;
}

// ---- Convolutions ------------------------------------------------------------------------------

// Where weights and pixels lie is said in cnn_conv.cuh.
template <int L> struct ConvShape {
    static constexpr int C = CONV[L].c, H = CONV[L].h, W = CONV[L].w, O = CONV[L].o;
    static constexpr int SIZE = CONV[L].size, TAPS = SIZE * SIZE, PAD = CONV[L].padding;
    static constexpr int OH = H + 2 * PAD - SIZE + 1, OW = W + 2 * PAD - SIZE + 1;
    static constexpr int POOL = CONV[L].pool, PH = OH / POOL, PW = OW / POOL;
    static constexpr int WINDOWS = PH * PW; // pooled outputs of a channel; without pooling all
    static constexpr int ACTIVATION = CONV[L].activation;
    static constexpr int C8 = (C + 7) / 8, O8 = (O + 7) / 8; // blocks of eight channels
    // Warps that work on the same tiles, one for each block of outputs: a power of two.
    static constexpr int O_SHARE = O8 == 3 ? 4 : O8;
    // Are there no channels but real ones?
    static constexpr bool WHOLE_O = O == 8 * O_SHARE, WHOLE_C = C % 8 == 0;
    static constexpr int TILES_Y = POOL == 2 ? PH : (OH + 1) / 2;
    static constexpr int TILES_X = POOL == 2 ? PW : (OW + 1) / 2;
    static constexpr int TILES = TILES_Y * TILES_X, GROUPS = (TILES + 3) / 4;

    // The input with the padding around it, and a row and a pixel for tiles beyond the edge.
    static constexpr int IN_ROW = W + 2 * PAD, IN_PIXELS = (H + 2 * PAD + 1) * IN_ROW + 1;
    static constexpr int IN_BYTES = AT_ONCE * C8 * IN_PIXELS * 16; // of the high halves
    // The image: rows of an even length, as two copies, one of them a pixel further left, and eight
    // banks further on.
    static constexpr int ROW = round_up(IN_ROW, 2), PLANE = (H + 2 * PAD + 1) * ROW;
    static constexpr int IMAGE_WORDS = round_up((AT_ONCE * C * PLANE + ROW + 16) / 2, 32) + 8;
    // The gradient of the output before pooling, with as many zeros around it as the filters reach;
    // of the first convolution without them, but rows of whole runs of eight pixels, an even number
    // of runs. Rows follow each other as those of the input do, modulo 128 bytes, so that the
    // pixels that ldmatrix reads for eight neighbours of the input are in different banks, at the
    // end of a row too. The last pixel is always 0.
    static constexpr int REACH = L == 0 ? 0 : SIZE - 1 - PAD;
    static constexpr int OUT_ROW =
        L == 0 ? round_up(PW * POOL, PH *POOL % 2 ? 16 : 8) : W + round_up(OW + 2 * REACH - W, 8);
    static constexpr int OUT_PIXELS = (OH + 2 * REACH) * OUT_ROW + 1;
    static constexpr int OUT_BYTES = AT_ONCE * O8 * OUT_PIXELS * 16;
    static constexpr int PARAMS = O * C * TAPS + O;
};

// ---- Parameters in the order in which gradients are exchanged: weight, bias of each layer ------
// Weights that are not on the chip have no place in it (cnn_far.cuh).

__host__ __device__ constexpr int conv_first(int layer) {
    int at = 0;
    for (int i = 0; i < layer; i++) {
        at += CONV[i].o * CONV[i].c * CONV[i].size * CONV[i].size + CONV[i].o;
    }
    return at;
}

__host__ __device__ constexpr int fc_first(int layer) {
    int at = conv_first(CONVS);
    for (int i = 0; i < layer; i++) at += (FC[i].on_chip ? FC[i].in * FC[i].out : 0) + FC[i].out;
    return at;
}

constexpr int CONV_PARAMS = conv_first(CONVS), PARAMS = fc_first(FCS);
// After them go the loss and the number of images told right.
constexpr int LOSS_AT = PARAMS, RIGHT_AT = PARAMS + 1, SUMS = PARAMS + 2;
// How they are split over the blocks (allreduce.cuh).
using Exchange = AllReduce<BLOCKS, SUMS, THREADS>;

// Where parameter i of that order is in params.
template <int L = 0> DEVICE int conv_param(int i) {
    constexpr int weights = ConvShape<L>::PARAMS - ConvShape<L>::O;
    if constexpr (L + 1 < CONVS) {
        if (i >= conv_first(L + 1)) return conv_param<L + 1>(i);
    }
    int at = i - conv_first(L);
    return at < weights ? CONV[L].weight + at : CONV[L].bias + at - weights;
}

template <int K = 0> DEVICE int fc_param(int i) {
    constexpr int weights = FC[K].on_chip ? FC[K].in * FC[K].out : 0;
    if constexpr (K + 1 < FCS) {
        if (i >= fc_first(K + 1)) return fc_param<K + 1>(i);
    }
    int at = i - fc_first(K);
    return at < weights ? FC[K].weight + at : FC[K].bias + at - weights;
}

DEVICE int param_at(int i) {
    return i < CONV_PARAMS ? conv_param(i) : fc_param(i);
}

// ---- Shared memory -----------------------------------------------------------------------------

// Offsets in floats, every array at a multiple of 16 bytes. Of each convolution: its weights for
// the way back, its input (not of the first), where in its windows the maxima were, and the
// gradient of its output before pooling.
struct ConvMemory {
    int back_weights, input, route, slope;
};

// Of each fully connected layer: inputs and gradients of outputs of all images of the block.
struct FcMemory {
    int input, slope;
};

struct Memory {
    ConvMemory conv[CONVS];
    FcMemory fc[FCS];
    int params, gradient;          // in the order of the sums
    int part_params, part_moments; // of the parameters that this block updates
    int image, logits, partial, loss, right, labels, hyper, bytes, floats;
};

struct Cursor {
    int at = 0;
    __host__ __device__ constexpr int take(int floats) {
        int first = at;
        at += round_up(floats, 4);
        return first;
    }
};

template <int L> __host__ __device__ constexpr void lay_conv(Memory &m, Cursor &cursor) {
    using S = ConvShape<L>;
    constexpr int halves = EXACT ? 2 : 1;
    if (L > 0) {
        int steps = (S::SIZE * S::O8 + 1) / 2;
        m.conv[L].back_weights = cursor.take(S::C8 * S::SIZE * steps * 32 * 2 * halves);
        m.conv[L].input = cursor.take(2 * S::IN_BYTES / 4);
    }
    m.conv[L].route = cursor.take(S::POOL == 2 ? AT_ONCE * S::O * S::WINDOWS / 4 + 1 : 0);
    m.conv[L].slope = cursor.take(halves * S::OUT_BYTES / 4);
    if constexpr (L + 1 < CONVS) lay_conv<L + 1>(m, cursor);
}

constexpr int BYTES_STRIDE = round_up(PIXELS, 16); // of an image, in bytes

__host__ __device__ constexpr Memory lay_out() {
    Memory m = {};
    Cursor cursor;
    m.image = cursor.take(2 * ConvShape<0>::IMAGE_WORDS);
    lay_conv<0>(m, cursor);
    for (int k = 0; k < FCS; k++) {
        m.fc[k].input = cursor.take(IMAGES * FC[k].in);
        m.fc[k].slope = cursor.take(IMAGES * FC[k].out);
    }
    m.logits = cursor.take(AT_ONCE * CLASSES);
    m.partial = cursor.take(8 * THREADS); // sums on their way
    m.params = cursor.take(Exchange::ALL);
    m.gradient = cursor.take(Exchange::ALL);
    m.part_params = cursor.take(Exchange::PART);
    m.part_moments = cursor.take(2 * Exchange::PART);
    m.loss = cursor.take(IMAGES);
    m.right = cursor.take(IMAGES);
    m.labels = cursor.take(2 * IMAGES);
    m.hyper = cursor.take(2 * 8);
    m.bytes = cursor.take(2 * IMAGES * BYTES_STRIDE / 4);
    m.floats = cursor.at;
    return m;
}

constexpr Memory AT = lay_out();
template <int L> constexpr int CONV_BIAS = AT.params + conv_first(L + 1) - CONV[L].o;
template <int K> constexpr int FC_WEIGHTS = AT.params + fc_first(K);
template <int K> constexpr int FC_BIAS = AT.params + fc_first(K + 1) - FC[K].out;
static_assert(AT.floats * 4 == CNN_SHARED_BYTES, "plan_cnn.c counts shared memory differently");

} // namespace cnn
#endif
