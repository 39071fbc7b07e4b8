// The network that mlp.cu is compiled for, how it is spread over the blocks of a cluster, and where
// everything lies in shared memory. plan_mlp.c writes before this, as #defines:
//     WIDTHS       pixels, width of each hidden layer, classes
//     ACTIVATIONS  of each hidden layer: RELU, SIGMOID or TANH
//     WEIGHTS_AT, BIASES_AT   where the layers begin in params
//     BATCH, OPTIMIZER (SGD, NESTEROV, ADAM, ADAMW), MOMENTS (0, 1, 2)
//     BLOCKS, CLUSTERS        blocks of a cluster; clusters, which share the batch
//     PLANNED_STAGES, PLANNED_SHARED_PARTS   how shared memory is used, see below
//     PLANNED_..._BYTES       what it has counted, as this file does
//
// Layers are numbered from 1 to LAYERS, the last gives the logits; layer 0 is the image. A block
// has some `units` of each hidden layer: their values, their gradients and the weights that lead to
// the first, and from each to the next layer. So what a block computes from its own units is a part
// of every sum of the next layer, and the blocks exchange parts of sums, never weights.
#ifndef BT_CUDA_MLP_SHAPES
#define BT_CUDA_MLP_SHAPES
#include "common.cuh"

namespace mlp {

enum { RELU, SIGMOID, TANH };        // ACTIVATIONS
enum { SGD, NESTEROV, ADAM, ADAMW }; // OPTIMIZER

constexpr int all_widths[] = {WIDTHS};
constexpr int LAYERS = sizeof(all_widths) / sizeof(int) - 1;

__device__ constexpr int width(int layer) {
    constexpr int widths[] = {WIDTHS};
    return widths[layer];
}

__device__ constexpr int activation(int layer) {
    constexpr int activations[] = {ACTIVATIONS};
    return activations[layer - 1];
}

__device__ constexpr u32 weight_at(int layer) {
    constexpr u32 at[] = {WEIGHTS_AT};
    return at[layer - 1];
}

__device__ constexpr u32 bias_at(int layer) {
    constexpr u32 at[] = {BIASES_AT};
    return at[layer - 1];
}

__device__ constexpr int divide_up(int n, int unit) {
    return (n + unit - 1) / unit;
}

constexpr int PIXELS = width(0), CLASSES = width(LAYERS);
constexpr int ROWS = 64; // of the batch that a cluster works on at a time: a chunk
constexpr int CHUNKS = divide_up(divide_up(BATCH, ROWS), CLUSTERS); // of each cluster in a step
constexpr int OWN_ROWS = ROWS / BLOCKS; // rows whose softmax a block computes

// Units are counted in strips of 8, as matrices are stored. Where a layer has fewer units than the
// blocks have room for, the rest are dead: their values, and so all their gradients, are 0.
__device__ constexpr int strips(int layer) {
    return divide_up(width(layer), 8 * BLOCKS);
}
__device__ constexpr int units(int layer) {
    return 8 * strips(layer);
}
constexpr int CLASS_STRIPS = 2, CLASSES_MAX = 16;
__device__ constexpr int outputs(int layer) { // with the dead ones, of all blocks
    return layer == LAYERS ? CLASSES_MAX : BLOCKS * units(layer);
}
constexpr int FIRST_STRIPS = strips(1), LAST_STRIPS = strips(LAYERS - 1);
static_assert(LAYERS >= 2 && LAYERS <= 4 && CLASSES <= CLASSES_MAX && FIRST_STRIPS <= 2, "plan");
static_assert(PIXELS % 16 == 0 && ROWS % BLOCKS == 0 && OWN_ROWS % 4 == 0, "plan");

// ---- Warps -----------------------------------------------------------------------------------

// The first eight multiply. Two compute the softmax, the last layer's weights and all biases; one
// fetches images; one is there because setmaxnreg gives registers to groups of four warps.
constexpr int WARPS = 8, SERVICE_WARPS = 4, MATH_THREADS = 32 * WARPS;
constexpr int THREADS = MATH_THREADS + 32 * SERVICE_WARPS;

// Registers of a thread: at the start each has 168, then those that multiply take from the others.
constexpr int MATH_REGISTERS = FIRST_STRIPS == 1 ? 200 : 208;
constexpr int SERVICE_REGISTERS = 3 * 168 - 2 * MATH_REGISTERS;

// The pixels, 16 at a time, are dealt out to the warps.
constexpr int PIXEL_BLOCKS = PIXELS / 16, WARP_BLOCKS = divide_up(PIXEL_BLOCKS, WARPS);
constexpr int FULL_BLOCKS = PIXEL_BLOCKS / WARPS; // that every warp has; some have one more

// ---- Scales: what keeps numbers in the range of fp16 -----------------------------------------

constexpr float WEIGHT_SCALE = 256.0f;   // weights up to 255
constexpr float GRADIENT_SCALE = 256.0f; // gradients of a sample's loss up to 255
constexpr float IMAGE_SCALE = BYTE_UNIT / 255.0f;

// ---- Shared memory ---------------------------------------------------------------------------

// Rows of bytes begin 16 bytes times an odd number apart, so that no two of eight share banks.
constexpr int IMAGE_STRIDE = PIXELS + (PIXELS / 16 % 2 == 0 ? 16 : 0);
constexpr u32 STAGE_BYTES = ROWS * IMAGE_STRIDE + ROWS * 4; // and labels of the own rows
constexpr int STAGES = PLANNED_STAGES; // of images: this chunk and the next, or next two
constexpr int STRIP_BYTES = ROWS * 16; // a strip of a chunk, in one half

__device__ constexpr u32 split_bytes(int rows, int strips) {
    return 2 * rows * strips * 16;
}

// What lies in shared memory, in this order; PER_LAYER of them for each layer.
enum region { VALUES, WEIGHTS, SLOPES, ALL_SLOPES, PARTS, BIAS, PER_LAYER };

// VALUES of the own units; WEIGHTS from the units of the layer before; SLOPES, the gradient by the
// own units before the activation; ALL_SLOPES, those of all blocks; PARTS, what the blocks send of
// the sums of the own units; BIAS of the own units.
__device__ constexpr u32 layer_bytes(int layer, int what) {
    bool last = layer == LAYERS, hidden = !last, middle = hidden && layer > 1;
    return what == VALUES       ? (hidden ? split_bytes(ROWS, strips(layer)) : 0)
           : what == WEIGHTS    ? (layer > 1 ? split_bytes(outputs(layer), strips(layer - 1)) : 0)
           : what == SLOPES     ? (hidden ? split_bytes(ROWS, strips(layer)) : 0)
           : what == ALL_SLOPES ? (last     ? split_bytes(ROWS, CLASS_STRIPS)
                                   : middle ? split_bytes(ROWS, BLOCKS * strips(layer))
                                            : 0)
           : what == PARTS      ? (last     ? BLOCKS * OWN_ROWS * CLASSES_MAX * 4
                                   : middle ? BLOCKS * ROWS * units(layer) * 4
                                            : 0)
                                : 4 * (last ? CLASSES_MAX : units(layer));
}

constexpr u32 IMAGES_AT = 0, LABELS_AT = ROWS * IMAGE_STRIDE; // of each stage

// Moments of some of the first layer's weights: where all in registers are too many. SHARED_PARTS
// of the WARP_BLOCKS blocks of pixels of each warp, the last ones.
constexpr int SHARED_PARTS = PLANNED_SHARED_PARTS, PART_WEIGHTS = FIRST_STRIPS * 4;
constexpr u32 MOMENTS_AT = STAGES * STAGE_BYTES;
constexpr u32 MOMENT_BYTES = SHARED_PARTS * PART_WEIGHTS * MOMENTS * MATH_THREADS * 4;

// Sums of the first layer, of each warp. They are needed when no gradients of the second layer are,
// and then lie in the place of those.
constexpr u32 PARTIAL_BYTES = WARPS * ROWS * units(1) * 4;
constexpr bool PARTIAL_SHARES = LAYERS > 2 && layer_bytes(2, ALL_SLOPES) >= PARTIAL_BYTES;
constexpr u32 LAYERS_AT = MOMENTS_AT + MOMENT_BYTES + (PARTIAL_SHARES ? 0 : PARTIAL_BYTES);

__device__ constexpr u32 place_of(int layer, int what) {
    u32 at = LAYERS_AT;
    for (int l = 1; l <= LAYERS; l++) {
        for (int w = 0; w < PER_LAYER; w++) {
            if (l == layer && w == what) return at;
            at += layer_bytes(l, w);
        }
    }
    return at;
}

constexpr u32 PARTIAL_AT = PARTIAL_SHARES ? place_of(2, ALL_SLOPES) : MOMENTS_AT + MOMENT_BYTES;

// Of the rows whose softmax this block computes; of all, in block 0: loss and verdict.
constexpr u32 SLOPES_TO_SEND_AT = place_of(LAYERS, PER_LAYER);
constexpr u32 ROW_LOGS_AT = SLOPES_TO_SEND_AT + OWN_ROWS * CLASSES_MAX * 4;
constexpr u32 BARRIERS_AT = ROW_LOGS_AT + ROWS * 8;

// mbarriers: images there and used; parts of sums and gradients come from other blocks.
__device__ constexpr u32 images_full(int stage) {
    return BARRIERS_AT + 8 * stage;
}
__device__ constexpr u32 images_empty(int stage) {
    return BARRIERS_AT + 8 * (STAGES + stage);
}
__device__ constexpr u32 parts_come(int layer) {
    return BARRIERS_AT + 8 * (2 * STAGES + layer);
}
__device__ constexpr u32 slopes_come(int layer) {
    return BARRIERS_AT + 8 * (2 * STAGES + LAYERS + 1 + layer);
}
constexpr u32 SHARED_BYTES = slopes_come(LAYERS) + 8;

// ---- Global memory ---------------------------------------------------------------------------

// Packets of three numbers in which a lane of a warp that multiplies sends its gradients to the
// other clusters; the softmax warps have fewer.
__device__ constexpr int middle_tiles(int layer) {
    return divide_up(outputs(layer) / 16 * strips(layer - 1), WARPS);
}
__device__ constexpr int packets_before(int layer) { // those of a middle layer
    int n = divide_up(WARP_BLOCKS * FIRST_STRIPS * 4, 3);
    for (int l = 2; l < layer; l++) n += divide_up(4 * middle_tiles(l), 3);
    return n;
}
constexpr int PACKETS = packets_before(LAYERS) > 12 ? packets_before(LAYERS) : 12;
constexpr u64 MAIL_WARPS = WARPS + 2;

// A head, and the packets of each warp and cluster for odd and even steps.
constexpr u64 SCRATCH_BYTES = 128 + 2 * CLUSTERS * BLOCKS * MAIL_WARPS * PACKETS * 512;

static_assert(SHARED_BYTES == PLANNED_SHARED_BYTES && SCRATCH_BYTES == PLANNED_SCRATCH_BYTES,
              "plan_mlp.c counts as this file does");

// Bytes that those wait for.
__device__ constexpr u32 part_bytes(int layer) {
    return layer == LAYERS ? ROWS * ((CLASSES + 1) / 2) * 8 : layer_bytes(layer, PARTS);
}

// A block has its own units' gradients already; block 0 also gets the log.
__device__ constexpr u32 slope_bytes(int layer, bool first_block) {
    return layer == LAYERS ? layer_bytes(layer, ALL_SLOPES) + (first_block ? ROWS * 8 : 0)
                           : layer_bytes(layer, ALL_SLOPES) / BLOCKS * (BLOCKS - 1);
}

// ---- Barriers of warps -----------------------------------------------------------------------

enum {
    EVERYBODY,    // __syncthreads
    MATH_BARRIER, // the warps that multiply
    READY,        // the softmax warps have the new weights of the last layer and the biases stored
    SOFTMAX,      // the softmax warps
    SLOPES_READY, // + layer: its gradient is in SLOPES
};
constexpr u32 WITH_SOFTMAX = MATH_THREADS + 64;

DEVICE void math_barrier() {
    barrier_sync(MATH_BARRIER, MATH_THREADS);
}

} // namespace mlp
#endif
