// Plans of the kernels that evaluate or predict: which of them does a network, and with what
// shapes. The formulas for shared memory are those of the kernels, which check them when they are
// compiled.
#include "device/cuda/whole.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// ---- Text --------------------------------------------------------------------------------------

static bool sorry(char why[BT_WHY_BYTES], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool sorry(char why[BT_WHY_BYTES], const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(why, BT_WHY_BYTES, format, list);
    va_end(list);
    return false;
}

static void define(bt_whole_plan *plan, const char *name, size_t value) {
    size_t used = strlen(plan->defines);
    snprintf(plan->defines + used, BT_DEFINES_BYTES - used, "#define %s %zu\n", name, value);
}

// What infer_common.cuh needs.
static void define_net(const bt_net *net, const bt_gpu *gpu, bt_whole_plan *plan) {
    size_t used = (size_t)snprintf(plan->defines, BT_DEFINES_BYTES, "#define NET_LAYERS");
    for (int i = 0; i < net->layers; i++) {
        const bt_net_layer *l = &net->layer[i];
        int activation = l->activation == BT_MAP_RELU      ? 1
                         : l->activation == BT_MAP_SIGMOID ? 2
                         : l->activation == BT_MAP_TANH    ? 3
                                                           : 0;
        used +=
            (size_t)snprintf(plan->defines + used, BT_DEFINES_BYTES - used,
                             "%s {%d, %u, %u, %u, %u, %u, %u, %u, %u, %d, %u, %uu, %uu}",
                             i ? "," : "", l->kind == BT_NET_CONV, l->c, l->h, l->w, l->o, l->oh,
                             l->ow, l->size, l->padding, activation, l->pool, l->weight, l->bias);
    }
    snprintf(plan->defines + used, BT_DEFINES_BYTES - used, "\n");
    define(plan, "CLASSES", net->classes);
    define(plan, "PRODUCTS", gpu->precision == BT_PRECISION_FP32 ? 3 : 1);
}

// ---- What all need -----------------------------------------------------------------------------

enum { BOOKS_BYTES_MAX = 64 << 20, CONVS_MAX = 3, CHANNELS_MAX = 64 };

static size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}
static size_t round_up(size_t n, size_t unit) {
    return ceil_div(n, unit) * unit;
}
static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static int conv_count(const bt_net *net) {
    int n = 0;
    while (n < net->layers && net->layer[n].kind == BT_NET_CONV) n++;
    return n;
}

static bool usable(const bt_net *net, const bt_gpu *gpu, char why[BT_WHY_BYTES]) {
    if (net->trains) return sorry(why, "it trains");
    if (gpu->capability != 90)
        return sorry(why, "compute capability %d.%d: the kernel is for 9.0", gpu->capability / 10,
                     gpu->capability % 10);
    if (net->gather.pixels % 16)
        return sorry(why, "%u pixels are no multiple of 16", net->gather.pixels);
    if (net->classes > 1024) return sorry(why, "%u classes are more than 1024", net->classes);
    return true;
}

// Bytes of struct books in infer_common.cuh.
static size_t books_bytes(const bt_net *net, size_t parts) {
    size_t log = net->step.log_steps;
    return 256 + 4 * round_up(log, 64) + 12 * log * parts;
}

// ---- Convolutional networks, many images -------------------------------------------------------

enum { CNN_WARPS = 8, CNN_IMAGES = 8, CNN_BLOCKS = 2 };

static size_t row_stride(size_t numbers) {
    return round_up(numbers, 16) + 8;
}

// Of convolution i: bytes of its input, of its weights as fragments.
static void conv_bytes(const bt_net_layer *l, int i, size_t *input, size_t *weights) {
    size_t cells_y = l->pool == 2 ? l->oh / 2 : (l->oh + 1) / 2;
    size_t cells_x = l->pool == 2 ? l->ow / 2 : (l->ow + 1) / 2;
    size_t rows = larger(l->h + 2 * l->padding, 2 * cells_y + l->size - 1);
    size_t pairs = larger((l->w + 2 * l->padding + 1) / 2, cells_x + l->size / 2);
    size_t blocks = ceil_div(l->c, 8);
    if (i == 0) {
        *input = round_up(l->c * rows * pairs * 4, 16);
        *weights = ceil_div(l->o, 8) * 2 * ceil_div(l->c * l->size * (l->size / 2 + 1), 8) * 512;
    } else {
        *input = 2 * blocks * 2 * rows * pairs * 16;
        *weights = ceil_div(l->o, 16) * blocks * l->size * l->size * 512;
    }
}

static size_t cnn_shared(const bt_net *net, size_t warps, size_t images) {
    size_t of_warp = 0, weights = 0, widest[2] = {0, 0}, sums = 0;
    int convs = conv_count(net);
    for (int i = 0; i < convs; i++) {
        size_t input, fragments;
        conv_bytes(&net->layer[i], i, &input, &fragments);
        of_warp += input;
        weights += fragments;
    }
    for (int i = convs; i < net->layers; i++) {
        const bt_net_layer *l = &net->layer[i];
        size_t *x = &widest[(i - convs) % 2], *y = &widest[(i - convs + 1) % 2];
        *x = larger(*x, row_stride(l->c));
        *y = larger(*y, row_stride(l->o));
        size_t parts = warps / ceil_div(l->o, 16);
        if (parts > l->c / 32) parts = l->c / 32;
        if (parts > 1) sums = larger(sums, parts * images * l->o * 4);
    }
    return weights + warps * of_warp + images * 4 * (widest[0] + widest[1]) + sums;
}

// Its arrays of a fixed size: the table of places, 4 bytes for each cell, and little else.
static size_t cnn_fixed(const bt_net *net) {
    size_t bytes = 2048;
    for (int i = 0; i < conv_count(net); i++) {
        const bt_net_layer *l = &net->layer[i];
        size_t cells_y = l->pool == 2 ? l->oh / 2 : (l->oh + 1) / 2;
        size_t cells_x = l->pool == 2 ? l->ow / 2 : (l->ow + 1) / 2;
        bytes += 4 * round_up(cells_y * cells_x, 16);
    }
    return bytes;
}

static bool plan_cnn(const bt_net *net, const bt_gpu *gpu, bt_whole_plan *out,
                     char why[BT_WHY_BYTES]) {
    if (!usable(net, gpu, why)) return false;
    int convs = conv_count(net);
    if (convs < 1 || convs > CONVS_MAX) return sorry(why, "it has %d convolutions", convs);
    for (int i = 0; i < convs; i++) {
        const bt_net_layer *l = &net->layer[i];
        if (l->pool > 2) return sorry(why, "pooling of %u after layer %d is not 2", l->pool, i);
        if (l->size < 2 || l->size > 7)
            return sorry(why, "filters of side %u in layer %d", l->size, i);
        if (l->c > CHANNELS_MAX || l->o > CHANNELS_MAX)
            return sorry(why, "more than %d channels in layer %d", CHANNELS_MAX, i);
    }
    size_t shared = cnn_shared(net, CNN_WARPS, CNN_IMAGES), fixed = cnn_fixed(net);
    if (shared + fixed > gpu->shared_max)
        return sorry(why, "it needs %zu bytes of shared memory, there are %zu", shared,
                     gpu->shared_max);
    size_t groups = ceil_div(net->gather.batch, CNN_IMAGES), books = books_bytes(net, groups);
    if (books > BOOKS_BYTES_MAX) return sorry(why, "its log has too many steps");
    unsigned blocks = (gpu->shared_max + 1024) / (shared + fixed) < CNN_BLOCKS ? 1 : CNN_BLOCKS;
    *out = (bt_whole_plan){.source = "infer_cnn.cu",
                           .entry = "infer_cnn",
                           .grid = (unsigned)gpu->sms * blocks,
                           .block = 32 * CNN_WARPS,
                           .cluster = 1,
                           .shared_bytes = shared,
                           .scratch_bytes = books};
    define_net(net, gpu, out);
    define(out, "BLOCK_WARPS", CNN_WARPS);
    define(out, "BLOCK_IMAGES", CNN_IMAGES);
    define(out, "BLOCKS", blocks);
    define(out, "SHARED", shared);
    snprintf(out->text, sizeof out->text, "whole network in one kernel, %d images a block",
             CNN_IMAGES);
    return true;
}

// ---- Fully connected networks, many images -----------------------------------------------------

enum {
    MLP_IMAGES = 64, // of a group of warps
    MLP_GROUPS = 3,
    MLP_CLUSTER_MAX = 16,
    MLP_PIXELS_MAX = 4096,   // a warp holds a row of weights in registers
    MLP_FC_BYTES_MAX = 16384 // of weights of further layers in shared memory
};

// The layers after the first: numbers of their weights in shared memory.
static size_t fc_numbers(const bt_net *net) {
    size_t n = 0;
    for (int i = 1; i < net->layers; i++) n += net->layer[i].o * row_stride(net->layer[i].c);
    return n;
}

typedef struct mlp_shape {
    unsigned units, cluster, groups; // units of a block, blocks of a cluster, groups of a block
    size_t fc, shared;               // bytes
} mlp_shape;

// Bytes of shared memory with these units, cluster and groups.
static void mlp_shared(const bt_net *net, const bt_gpu *gpu, mlp_shape *s) {
    size_t digits = gpu->precision == BT_PRECISION_FP32 ? 3 : 2, widest[2] = {0, 0};
    for (int i = 0; i < net->layers; i++)
        widest[i % 2] = larger(widest[i % 2], row_stride(net->layer[i].o));
    size_t rows = round_up(MLP_IMAGES / s->cluster, 8);
    s->shared = round_up(net->gather.pixels, 32) / 16 * (digits * s->units * 16 + 16) + s->fc +
                s->groups * rows * 4 * (widest[0] + widest[1]);
}

// As many units in a block as have room, for they cost the images' bytes only once; then as many
// groups, for one waits while others compute; then the further layers' weights.
static bool mlp_fits(const bt_net *net, const bt_gpu *gpu, mlp_shape *s) {
    enum { FIXED = 2048 }; // bytes of what is not an array of the shapes
    unsigned most = 64;
    while (most > 16 && most >= net->layer[0].o) most /= 2; // two blocks have work
    for (s->units = most; s->units >= 16; s->units /= 2) {
        s->cluster = 2;
        while (s->cluster * s->units < net->layer[0].o) s->cluster *= 2;
        if (s->cluster > MLP_CLUSTER_MAX) return false;
        for (s->groups = MLP_GROUPS; s->groups > 0; s->groups--)
            for (int in_shared = 1; in_shared >= 0; in_shared--) {
                s->fc = in_shared ? 4 * fc_numbers(net) : 0;
                mlp_shared(net, gpu, s);
                if (s->fc <= MLP_FC_BYTES_MAX && s->shared + FIXED <= gpu->shared_max) return true;
            }
    }
    return false;
}

// Clusters that a GPU's parts have room for: parts of 16 or 18 multiprocessors.
static unsigned clusters_of(const bt_gpu *gpu, unsigned cluster) {
    unsigned n = (unsigned)gpu->sms / cluster;
    return cluster < 4 ? n : cluster == 4 ? n - n / 32 : n - n / 8;
}

static bool plan_mlp(const bt_net *net, const bt_gpu *gpu, bt_whole_plan *out,
                     char why[BT_WHY_BYTES]) {
    mlp_shape s;
    if (!usable(net, gpu, why)) return false;
    if (conv_count(net)) return sorry(why, "it has convolutions");
    if (net->layers < 2) return sorry(why, "its first layer is the only one");
    if (net->layer[0].weight % 4)
        return sorry(why, "the weights of its first layer begin at number %u",
                     net->layer[0].weight);
    if (net->gather.pixels > MLP_PIXELS_MAX)
        return sorry(why, "%u pixels are more than %d", net->gather.pixels, MLP_PIXELS_MAX);
    if (!mlp_fits(net, gpu, &s))
        return sorry(why, "%u outputs of %u pixels do not fit into the shared memory of %d blocks",
                     net->layer[0].o, net->gather.pixels, MLP_CLUSTER_MAX);
    size_t books = books_bytes(net, ceil_div(net->gather.batch, MLP_IMAGES) * s.cluster);
    if (books > BOOKS_BYTES_MAX) return sorry(why, "its log has too many steps");
    *out = (bt_whole_plan){.source = "infer_mlp.cu",
                           .entry = "infer_mlp",
                           .grid = clusters_of(gpu, s.cluster) * s.cluster,
                           .block = 128 * s.groups,
                           .cluster = s.cluster,
                           .shared_bytes = s.shared,
                           .scratch_bytes = books};
    define_net(net, gpu, out);
    define(out, "CLUSTER", s.cluster);
    define(out, "UNITS", s.units);
    define(out, "GROUPS", s.groups);
    define(out, "FC_SHARED", s.fc > 0);
    define(out, "SHARED", out->shared_bytes);
    snprintf(out->text, sizeof out->text,
             "whole network in one kernel, %u groups of %d images in clusters of %u", s.groups,
             MLP_IMAGES, s.cluster);
    return true;
}

// ---- Any network, few images -------------------------------------------------------------------

enum { ONE_BATCH_MAX = 32, ONE_WARPS = 8 };

static size_t padded_input(const bt_net_layer *l) {
    return l->kind == BT_NET_CONV ? l->c * (l->h + 2 * l->padding) * (l->w + 2 * l->padding) : l->c;
}

static size_t one_shared(const bt_net *net, unsigned cluster) {
    size_t numbers = 0;
    for (int i = 0; i < net->layers; i++) {
        const bt_net_layer *l = &net->layer[i];
        size_t share = i == net->layers - 1 ? l->o : ceil_div(l->o, cluster);
        numbers += round_up(share * (l->c * l->size * l->size + 1), 4);
        numbers += round_up(padded_input(l), 4);
    }
    return 4 * (numbers + round_up(net->classes, 4));
}

static bool plan_one(const bt_net *net, const bt_gpu *gpu, bt_whole_plan *out,
                     char why[BT_WHY_BYTES]) {
    if (!usable(net, gpu, why)) return false;
    unsigned batch = net->gather.batch;
    if (batch > ONE_BATCH_MAX)
        return sorry(why, "%u images at once are more than %d", batch, ONE_BATCH_MAX);
    // Channels are fewer than hidden units; a smaller cluster meets sooner.
    unsigned cluster = conv_count(net) ? 8 : 16;
    for (int i = 0; i < net->layers; i++)
        if (net->layer[i].pool > 4 || net->layer[i].size > 11)
            return sorry(why, "filters or pooling of layer %d are large", i);
    size_t shared = one_shared(net, cluster);
    if (shared + 1024 > gpu->shared_max)
        return sorry(why, "a share of it needs %zu bytes of shared memory, there are %zu", shared,
                     gpu->shared_max);
    if (books_bytes(net, batch) > BOOKS_BYTES_MAX) return sorry(why, "its log has too many steps");
    // As many clusters as have images, and as a GPU's parts have room for.
    size_t images = (net->log.buffer ? net->step.log_steps : 1) * (size_t)batch;
    unsigned clusters = clusters_of(gpu, cluster);
    if (images < clusters) clusters = (unsigned)images;
    *out = (bt_whole_plan){.source = "infer_one.cu",
                           .entry = "infer_one",
                           .grid = cluster * clusters,
                           .block = 32 * ONE_WARPS,
                           .cluster = cluster,
                           .shared_bytes = shared,
                           .scratch_bytes = books_bytes(net, batch)};
    define_net(net, gpu, out);
    define(out, "CLUSTER", cluster);
    define(out, "BLOCK_WARPS", ONE_WARPS);
    define(out, "SHARED", shared);
    snprintf(out->text, sizeof out->text, "whole network in one kernel, an image in %u blocks",
             cluster);
    return true;
}

const bt_whole bt_whole_infer_cnn = {"infer-cnn", plan_cnn};
const bt_whole bt_whole_infer_mlp = {"infer-mlp", plan_mlp};
const bt_whole bt_whole_infer_one = {"infer-one", plan_one};
