// The plan of kernels/cuda/cnn.cu: a small CNN trained by one launch, weights in the shared memory
// of every block, the images of a batch split over the blocks. Here its shapes become #defines.
#include "device/cuda/whole.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    THREADS = 512,
    THREADS_FEW = 384, // measured better where images follow each other, or L2 feeds a layer
    CONVS_MAX = 3,
    FCS_MAX = 3,
    CHANNELS_MAX = 32,
    IMAGES_MAX = 32,
    BLOCKS_MIN = 32,
    FAR_INPUTS_MAX = 1024
};

// What is chosen for a network.
typedef struct shapes {
    const bt_net *net;
    int convs, fcs;
    uint32_t images, at_once; // images of a block, of which so many at once
    uint32_t blocks, threads;
    bool exact;            // gradients as exact as f32
    bool on_chip[FCS_MAX]; // the weights of a fully connected layer are in shared memory
} shapes;

static const char *const activation_names[] = {
    [BT_MAP_COPY] = "NONE",
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

// ---- Can it be done? ---------------------------------------------------------------------------

static bool check_conv(const bt_net_layer *l, int number, char why[BT_WHY_BYTES]) {
    if (l->size % 2 == 0 || l->size > 5)
        return no(why, "layer %d: filters of %ux%u, the CNN kernel has 1x1, 3x3 and 5x5", number,
                  l->size, l->size);
    if (l->padding >= l->size)
        return no(why, "layer %d: padding of %u, at most %u for filters of %ux%u", number,
                  l->padding, l->size - 1, l->size, l->size);
    if (l->o > CHANNELS_MAX || l->c > CHANNELS_MAX)
        return no(why, "layer %d: %u to %u channels, the CNN kernel has at most %d", number, l->c,
                  l->o, CHANNELS_MAX);
    if (l->pool > 2) return no(why, "layer %d: pooling of %u, at most 2", number, l->pool);
    if (l->oh < l->pool || l->ow < l->pool)
        return no(why, "layer %d: an output of %ux%u", number, l->oh, l->ow);
    return true;
}

static bool check(const bt_net *net, shapes *s, char why[BT_WHY_BYTES]) {
    *s = (shapes){.net = net};
    if (!net->trains) return no(why, "the CNN kernel trains, this program does not");
    if (net->clips) return no(why, "gradients are clipped, which needs one more exchange");
    for (int i = 0; i < net->layers; i++) {
        const bt_net_layer *l = &net->layer[i];
        if (l->activation > BT_MAP_TANH || !activation_names[l->activation])
            return no(why, "layer %d: its activation is not in the CNN kernel", i + 1);
        if (l->kind == BT_NET_CONV) {
            if (s->fcs) return no(why, "layer %d: a convolution behind fc", i + 1);
            if (!check_conv(l, i + 1, why)) return false;
            s->convs++;
        } else {
            s->fcs++;
        }
    }
    if (s->convs < 1 || s->convs > CONVS_MAX || s->fcs < 1 || s->fcs > FCS_MAX)
        return no(why,
                  "%d convolutions and %d fc layers, the CNN kernel takes 1 to %d "
                  "and 1 to %d",
                  s->convs, s->fcs, CONVS_MAX, FCS_MAX);
    const bt_net_layer *last = &net->layer[net->layers - 1];
    if (last->activation != BT_MAP_COPY) return no(why, "the last layer has an activation");
    if (net->gather.pixels % 4 != 0)
        return no(why, "images of %u bytes, the CNN kernel copies 4 at a time", net->gather.pixels);
    return true;
}

// ---- Shared memory, counted as cnn_shapes.cuh lays it out --------------------------------------

static size_t up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

static size_t conv_floats(const shapes *s, int layer) {
    const bt_net_layer *l = &s->net->layer[layer];
    size_t n = s->at_once, c8 = (l->c + 7) / 8, o8 = (l->o + 7) / 8, floats = 0;
    size_t ph = l->oh / l->pool, pw = l->ow / l->pool;
    size_t rows = l->h + 2 * l->padding + 1, row = l->w + 2 * l->padding;
    size_t reach = layer ? l->size - 1 - l->padding : 0;
    size_t out_row = layer ? l->w + up(l->ow + 2 * reach - l->w, 8)
                           : up(pw * l->pool, ph * l->pool % 2 ? 16 : 8);
    if (layer == 0) {
        size_t even = up(row, 2);
        floats += 2 * (up((n * l->c * rows * even + even + 16) / 2, 32) + 8);
    } else {
        floats += c8 * l->size * ((l->size * o8 + 1) / 2) * 32 * (s->exact ? 4 : 2);
        floats += 2 * n * c8 * (rows * row + 1) * 4;
    }
    if (l->pool == 2) floats += up(n * l->o * ph * pw / 4 + 1, 4);
    floats += (s->exact ? 2 : 1) * n * o8 * ((l->oh + 2 * reach) * out_row + 1) * 4;
    return floats;
}

static size_t conv_params(const bt_net_layer *l) {
    return (size_t)l->o * l->c * l->size * l->size + l->o;
}

// The numbers that blocks exchange, a multiple of three for each block (allreduce.cuh): gradients
// of what is on the chip, the loss, how many images were told right.
static size_t part_of_block(const shapes *s) {
    size_t n = 2;
    for (int i = 0; i < s->convs; i++) n += conv_params(&s->net->layer[i]);
    for (int k = 0; k < s->fcs; k++) {
        const bt_net_layer *l = &s->net->layer[s->convs + k];
        n += (s->on_chip[k] ? (size_t)l->c * l->o : 0) + l->o;
    }
    return (n + 3 * s->blocks - 1) / (3 * s->blocks) * 3;
}

static size_t shared_bytes(const shapes *s) {
    const bt_net *net = s->net;
    size_t n = s->images, part = part_of_block(s), floats = 2 * up(part * s->blocks, 4);
    floats += up(part, 4) + up(2 * part, 4);
    for (int i = 0; i < s->convs; i++) floats += conv_floats(s, i);
    for (int k = 0; k < s->fcs; k++) {
        const bt_net_layer *l = &net->layer[s->convs + k];
        floats += up(n * l->c, 4) + up(n * l->o, 4);
    }
    floats += up((size_t)s->at_once * net->classes, 4) + 8 * (size_t)s->threads;
    floats += 2 * up(n, 4) + up(2 * n, 4) + 16 + 2 * n * up(net->gather.pixels, 16) / 4;
    return 4 * floats;
}

// 256 bytes of counters; a packet of 16 bytes for three numbers of a block for another, and of its
// results for all; and a slot of every block for inputs and gradients of the layers that are not on
// the chip.
static size_t scratch_bytes(const shapes *s) {
    size_t packets = (s->blocks + 1) * s->blocks * part_of_block(s) / 3, far = 0;
    for (int k = 0; k < s->fcs; k++) {
        const bt_net_layer *l = &s->net->layer[s->convs + k];
        far += s->on_chip[k] ? 0 : s->images * (up(l->c, 4) + up(l->o, 4));
    }
    return 256 + 16 * packets + 4 * s->blocks * up(far, 32);
}

// The largest fully connected layer on the chip leaves it, if cnn_far.cuh can do it.
static bool move_one_off(shapes *s) {
    int most = -1;
    size_t size = 0;
    for (int k = 0; k < s->fcs; k++) {
        const bt_net_layer *l = &s->net->layer[s->convs + k];
        bool can = s->on_chip[k] && l->c % 4 == 0 && l->c <= FAR_INPUTS_MAX && l->weight % 4 == 0;
        if (can && (size_t)l->c * l->o > size) size = (size_t)l->c * l->o, most = k;
    }
    if (most >= 0) s->on_chip[most] = false;
    return most >= 0;
}

// As many images at once as fit, up to 4.
static bool fit_images(shapes *s, const bt_gpu *gpu) {
    for (s->at_once = 4; s->at_once > 0; s->at_once--) {
        if (s->images % s->at_once == 0 && shared_bytes(s) <= gpu->shared_max &&
            part_of_block(s) <= 3 * s->threads)
            return true;
    }
    s->at_once = 1;
    return false;
}

// Weights that do not fit stay in L2.
static bool fit(shapes *s, const bt_gpu *gpu, char why[BT_WHY_BYTES]) {
    uint32_t batch = s->net->gather.batch, sms = (uint32_t)gpu->sms;
    s->images = (batch + sms - 1) / sms;
    if (s->images > IMAGES_MAX)
        return no(why, "a batch of %u, the CNN kernel has at most %u on %d multiprocessors", batch,
                  IMAGES_MAX * sms, gpu->sms);
    s->blocks = (batch + s->images - 1) / s->images;
    if (s->blocks < BLOCKS_MIN) s->blocks = BLOCKS_MIN; // they share the update
    if (s->blocks > sms)
        return no(why, "%u blocks at once, the GPU has %u multiprocessors", s->blocks, sms);
    bool near = true; // all weights are on the chip
    for (int k = 0; k < s->fcs; k++) s->on_chip[k] = true;
    do {
        s->threads = THREADS;
        if (!fit_images(s, gpu)) continue;
        if ((s->images >= 4 || !near) && part_of_block(s) <= 3 * THREADS_FEW)
            s->threads = THREADS_FEW;
        return true;
    } while ((near = false, move_one_off(s)));
    return no(why, "the CNN kernel needs %zu bytes of shared memory, %zu are there",
              shared_bytes(s), gpu->shared_max);
}

// ---- The defines -------------------------------------------------------------------------------

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

static void write_layers(text *t, const shapes *s) {
    add(t, "#define CNN_CONV_COUNT %d\n#define CNN_CONVS", s->convs);
    for (int i = 0; i < s->convs; i++) {
        const bt_net_layer *l = &s->net->layer[i];
        add(t, "%s {%u, %u, %u, %u, %u, %u, %s, %u, %u, %u}", i ? "," : "", l->c, l->h, l->w, l->o,
            l->size, l->padding, activation_names[l->activation], l->pool, l->weight, l->bias);
    }
    add(t, "\n#define CNN_FC_COUNT %d\n#define CNN_FCS", s->fcs);
    for (int k = 0; k < s->fcs; k++) {
        const bt_net_layer *l = &s->net->layer[s->convs + k];
        add(t, "%s {%u, %u, %s, %d, %u, %u}", k ? "," : "", l->c, l->o,
            activation_names[l->activation], s->on_chip[k], l->weight, l->bias);
    }
    add(t, "\n");
}

static bool plan(const bt_net *net, const bt_gpu *gpu, bt_whole_plan *out, char why[BT_WHY_BYTES]) {
    static const char *const optimizers[] = {"SGD", "NESTEROV", "ADAM", "ADAMW"};
    shapes s;
    if (!check(net, &s, why)) return false;
    if (gpu->capability != 90)
        return no(why, "compute capability %d.%d, the CNN kernel is for 9.0", gpu->capability / 10,
                  gpu->capability % 10);
    s.exact = gpu->precision == BT_PRECISION_FP32;
    if (!fit(&s, gpu, why)) return false;
    *out = (bt_whole_plan){.source = "cnn.cu",
                           .entry = "cnn_train",
                           .grid = s.blocks,
                           .block = s.threads,
                           .cluster = 1,
                           .shared_bytes = shared_bytes(&s),
                           .scratch_bytes = scratch_bytes(&s),
                           .resident = true};
    text t = {out->defines, 0, sizeof out->defines};
    write_layers(&t, &s);
    add(&t, "#define CNN_BLOCKS %u\n#define CNN_THREADS %u\n", s.blocks, s.threads);
    add(&t, "#define CNN_IMAGES %u\n#define CNN_AT_ONCE %u\n", s.images, s.at_once);
    add(&t, "#define CNN_EXACT %d\n", s.exact);
    add(&t, "#define CNN_OPTIMIZER %s\n", optimizers[net->optimizer]);
    add(&t, "#define CNN_SHARED_BYTES %zu\n", out->shared_bytes);
    snprintf(out->text, sizeof out->text,
             "persistent CNN, %u blocks of %u image%s, %s, weights up to %d", s.blocks, s.images,
             s.images > 1 ? "s" : "",
             s.exact ? "fp32" : "fp16 forward as exact as f32, back as tf32",
             s.exact ? 255 : 65504);
    return true;
}

const bt_whole bt_whole_cnn = {"persistent-cnn", plan};
