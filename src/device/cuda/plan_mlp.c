// The plan of kernels/cuda/mlp.cu: a multi-layer perceptron trained by one launch, in the registers
// and the shared memory of one cluster of blocks, or of a few that share a batch. Here its shapes
// become #defines, and what it needs is counted as kernels/cuda/mlp_shapes.cuh lays it out (which
// compares the two when it is compiled).
#include "device/cuda/whole.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    LAYERS_MAX = 4, // with the last
    CLASSES_MAX = 16,
    PIXELS_MAX = 1024,
    STRIPS_MAX = 2, // of 8 units of a hidden layer in a block
    ROWS = 64,      // of a batch that a cluster works on at a time
    WARPS = 8,      // that multiply; two more have gradients to add up over clusters
    SERVICE_WARPS = 4,
    CLUSTERS_MAX = 4,
};

typedef struct shapes {
    const bt_net *net;
    uint32_t pixels, blocks, clusters;
    uint32_t stages;       // chunks of images that are there or being fetched
    uint32_t shared_parts; // of the first layer's weights, whose moments are in shared memory
    int moments;
} shapes;

static const char *const activation_names[] = {
    [BT_MAP_RELU] = "RELU",
    [BT_MAP_SIGMOID] = "SIGMOID",
    [BT_MAP_TANH] = "TANH",
};

static bool no(char why[BT_WHY_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool no(char why[BT_WHY_BYTES], const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(why, BT_WHY_BYTES, format, list);
    va_end(list);
    return false;
}

static uint32_t divide_up(uint32_t n, uint32_t unit) {
    return (n + unit - 1) / unit;
}

// ---- Can it be done? -------------------------------------------------------------------------

static bool check_layer(const bt_net *net, int i, char why[BT_WHY_BYTES]) {
    const bt_net_layer *l = &net->layer[i];
    bool last = i == net->layers - 1;
    if (l->kind != BT_NET_FC) return no(why, "layer %d is a convolution", i + 1);
    if (last) return l->activation == BT_MAP_COPY || no(why, "the last layer has an activation");
    if (l->activation > BT_MAP_TANH || !activation_names[l->activation])
        return no(why, "layer %d: the MLP kernel has relu, sigmoid and tanh", i + 1);
    return true;
}

static bool check(const bt_net *net, char why[BT_WHY_BYTES]) {
    if (!net->trains) return no(why, "the MLP kernel trains, this program does not");
    if (net->clips) return no(why, "gradients are clipped, which needs one more exchange");
    if (net->layers < 2 || net->layers > LAYERS_MAX)
        return no(why, "%d layers, the MLP kernel has 1 to %d hidden ones", net->layers,
                  LAYERS_MAX - 1);
    for (int i = 0; i < net->layers; i++) {
        if (!check_layer(net, i, why)) return false;
    }
    if (net->classes > CLASSES_MAX)
        return no(why, "%u classes, the MLP kernel has at most %d", net->classes, CLASSES_MAX);
    uint32_t pixels = net->gather.pixels;
    if (pixels % 16 != 0 || pixels > PIXELS_MAX)
        return no(why, "images of %u bytes, the MLP kernel takes multiples of 16 up to %d", pixels,
                  PIXELS_MAX);
    return true;
}

// ---- How it is spread, and what it needs: as mlp_shapes.cuh
// ---------------------------------------

static int layers(const shapes *s) {
    return s->net->layers;
}

static uint32_t width(const shapes *s, int layer) {
    return layer == 0 ? s->pixels : s->net->layer[layer - 1].o;
}

static uint32_t strips(const shapes *s, int layer) {
    return divide_up(width(s, layer), 8 * s->blocks);
}

static uint32_t outputs(const shapes *s, int layer) {
    return layer == layers(s) ? CLASSES_MAX : 8 * s->blocks * strips(s, layer);
}

static size_t split_bytes(uint32_t rows, uint32_t columns) {
    return (size_t)4 * rows * columns;
}

static size_t layer_bytes(const shapes *s, int layer) {
    bool last = layer == layers(s);
    size_t bytes = 4 * (last ? CLASSES_MAX : (size_t)8 * strips(s, layer));
    if (layer > 1) bytes += split_bytes(outputs(s, layer), 8 * strips(s, layer - 1));
    if (!last) bytes += 2 * split_bytes(ROWS, 8 * strips(s, layer));
    if (layer > 1) bytes += split_bytes(ROWS, outputs(s, layer));
    if (layer > 1)
        bytes += last ? (size_t)ROWS * CLASSES_MAX * 4 : (size_t)4 * ROWS * outputs(s, layer);
    return bytes;
}

// Weights of a lane for 16 pixels, and how many times 16 pixels a warp has.
static uint32_t part_weights(const shapes *s) {
    return 4 * strips(s, 1);
}

static uint32_t parts(const shapes *s) {
    return divide_up(s->pixels / 16, WARPS);
}

static size_t shared_bytes(const shapes *s) {
    size_t stride = s->pixels + (s->pixels / 16 % 2 == 0 ? 16 : 0);
    size_t partial = (size_t)WARPS * ROWS * 8 * strips(s, 1) * 4;
    if (layers(s) > 2 && split_bytes(ROWS, outputs(s, 2)) >= partial) partial = 0; // shares
    size_t bytes = s->stages * ROWS * (stride + 4) + partial;
    bytes += (size_t)s->shared_parts * part_weights(s) * (size_t)s->moments * 32 * WARPS * 4;
    for (int layer = 1; layer <= layers(s); layer++) bytes += layer_bytes(s, layer);
    bytes += (size_t)ROWS / s->blocks * CLASSES_MAX * 4 + ROWS * 8;
    return bytes + 8 * (2 * (size_t)s->stages + 2 * ((size_t)layers(s) + 1));
}

// Packets of three numbers that a lane of a warp has to add up over clusters, at least 12.
static size_t packets(const shapes *s) {
    uint32_t n = divide_up(parts(s) * part_weights(s), 3);
    for (int layer = 2; layer < layers(s); layer++) {
        n += divide_up(4 * divide_up(outputs(s, layer) / 16 * strips(s, layer - 1), WARPS), 3);
    }
    return n > 12 ? n : 12;
}

// A head of 128 bytes, and packets of 16 bytes for 32 lanes of each warp, for odd and even steps.
static size_t scratch_bytes(const shapes *s) {
    return 128 + 2 * (size_t)s->clusters * s->blocks * (WARPS + 2) * packets(s) * 512;
}

static uint32_t widest(const shapes *s) {
    uint32_t most = 0;
    for (int layer = 1; layer < layers(s); layer++) {
        if (width(s, layer) > most) most = width(s, layer);
    }
    return most;
}

// Chunks of a batch are dealt out to as many clusters as have the same number of them, if the GPU
// has twice the multiprocessors: clusters are placed as its groups of multiprocessors allow.
static void choose_clusters(shapes *s, const bt_gpu *gpu) {
    uint32_t most = (uint32_t)gpu->sms / (2 * s->blocks);
    if (most > CLUSTERS_MAX) most = CLUSTERS_MAX;
    if (most < 1) most = 1;
    uint32_t chunks = divide_up(s->net->gather.batch, ROWS);
    s->clusters = divide_up(chunks, divide_up(chunks, most));
}

// Registers that a thread needs for parameters, moments and gradients.
static uint32_t registers(const shapes *s) {
    uint32_t moments = (uint32_t)s->moments, all = parts(s) * part_weights(s);
    uint32_t n = all + moments * (all - s->shared_parts * part_weights(s)) + 8 * parts(s);
    for (int layer = 2; layer < layers(s); layer++) {
        uint32_t tiles = divide_up(outputs(s, layer) / 16 * strips(s, layer - 1), WARPS);
        n += 4 * tiles * (2 + moments);
    }
    return n;
}

// Layers of up to 64 units fill half a cluster. Others may have to do with it: the memory for what
// blocks exchange is that of whole strips. Moments go to shared memory until registers suffice or
// it is full; a third stage of images is for what is left.
static void spread(shapes *s, const bt_gpu *gpu) {
    enum { REGISTERS = 160 };
    s->stages = 2;
    s->blocks = 16;
    if (widest(s) <= 64 || (widest(s) <= 128 && shared_bytes(s) > gpu->shared_max)) s->blocks = 8;
    while (s->moments > 0 && s->shared_parts < parts(s) && registers(s) > REGISTERS) {
        s->shared_parts++;
    }
    while (s->shared_parts > 0 && shared_bytes(s) > gpu->shared_max) s->shared_parts--;
    s->stages = 3;
    if (shared_bytes(s) > gpu->shared_max) s->stages = 2;
    choose_clusters(s, gpu);
}

static bool fit(const shapes *s, const bt_gpu *gpu, char why[BT_WHY_BYTES]) {
    if (gpu->capability / 10 != 9)
        return no(why, "compute capability %d.%d, the MLP kernel needs 9.0", gpu->capability / 10,
                  gpu->capability % 10);
    for (int layer = 1; layer < layers(s); layer++) {
        if (strips(s, layer) > STRIPS_MAX)
            return no(why, "a layer of %u units, the MLP kernel has at most %u", width(s, layer),
                      8 * STRIPS_MAX * s->blocks);
    }
    if (shared_bytes(s) > gpu->shared_max)
        return no(why, "the MLP kernel needs %zu bytes of shared memory, %zu are there",
                  shared_bytes(s), gpu->shared_max);
    return true;
}

// ---- The defines -----------------------------------------------------------------------------

typedef struct text {
    char *bytes;
    size_t used, size;
} text;

static void add(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(text *t, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int n = vsnprintf(t->bytes + t->used, t->size - t->used, format, list);
    va_end(list);
    t->used += (size_t)n;
    if (t->used >= t->size) t->used = t->size - 1;
}

static void write_defines(text *t, const shapes *s) {
    static const char *const optimizers[] = {"SGD", "NESTEROV", "ADAM", "ADAMW"};
    const bt_net_layer *l = s->net->layer;
    int n = layers(s);
    add(t, "#define WIDTHS %u", s->pixels);
    for (int i = 0; i < n; i++) add(t, ", %u", l[i].o);
    add(t, "\n#define ACTIVATIONS ");
    for (int i = 0; i < n - 1; i++)
        add(t, "%s%s", i ? ", " : "", activation_names[l[i].activation]);
    add(t, "\n#define WEIGHTS_AT ");
    for (int i = 0; i < n; i++) add(t, "%s%u", i ? ", " : "", l[i].weight);
    add(t, "\n#define BIASES_AT ");
    for (int i = 0; i < n; i++) add(t, "%s%u", i ? ", " : "", l[i].bias);
    add(t, "\n#define BATCH %u\n#define OPTIMIZER %s\n#define MOMENTS %d\n", s->net->gather.batch,
        optimizers[s->net->optimizer], s->moments);
    add(t, "#define BLOCKS %u\n#define CLUSTERS %u\n", s->blocks, s->clusters);
    add(t, "#define PLANNED_STAGES %u\n#define PLANNED_SHARED_PARTS %u\n", s->stages,
        s->shared_parts);
    add(t, "#define PLANNED_SHARED_BYTES %zu\n#define PLANNED_SCRATCH_BYTES %zu\n", shared_bytes(s),
        scratch_bytes(s));
}

static bool plan(const bt_net *net, const bt_gpu *gpu, bt_whole_plan *out, char why[BT_WHY_BYTES]) {
    if (!check(net, why)) return false;
    shapes s = {.net = net, .pixels = net->gather.pixels};
    s.moments = (net->moment[0].buffer ? 1 : 0) + (net->moment[1].buffer ? 1 : 0);
    spread(&s, gpu);
    if (!fit(&s, gpu, why)) return false;
    *out = (bt_whole_plan){.source = "mlp.cu",
                           .entry = "mlp_train",
                           .grid = s.blocks * s.clusters,
                           .block = 32 * (WARPS + SERVICE_WARPS),
                           .cluster = s.blocks,
                           .shared_bytes = shared_bytes(&s),
                           .scratch_bytes = scratch_bytes(&s),
                           .resident = true};
    text t = {out->defines, 0, sizeof out->defines};
    write_defines(&t, &s);
    snprintf(out->text, sizeof out->text,
             "persistent MLP, %u cluster%s of %u blocks, %s, weights up to 255", s.clusters,
             s.clusters > 1 ? "s" : "", s.blocks,
             gpu->precision == BT_PRECISION_FP32 ? "fp32"
                                                 : "fp32 all the same: less is not faster");
    return true;
}

const bt_whole bt_whole_mlp = {"persistent-mlp", plan};
