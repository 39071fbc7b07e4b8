// The rows of `bantam parity` and how a case is computed; see parity.h.
#include "parity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 4 };

// One case on one context.
struct parity_work {
    bt_context *ctx;
    const parity_case *c;
    bt_dtype dtype;
    bt_tensor in[INPUTS]; // what give() made: gradients are taken of these
    int count;
    outcome *out;
};

// ---- Values ------------------------------------------------------------------------------------

// The same values in both precisions, exact in f32.
static void *values(bt_dtype dtype, size_t count, uint32_t seed, bool positive) {
    void *data = malloc(count * bt_dtype_size(dtype) + 1);
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < count && data; i++) {
        state = state * 1664525u + 1013904223u;
        float value = (float)(ldexp(state, positive ? -31 : -30) + (positive ? 0.5 : -2));
        if (dtype == BT_F64)
            ((double *)data)[i] = (double)value;
        else
            ((float *)data)[i] = value;
    }
    return data;
}

typedef bt_tensor (*maker)(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data);

static bt_tensor make(parity_work *w, maker how, bt_shape shape, uint32_t seed) {
    void *data = values(w->dtype, bt_shape_count(shape), seed, w->c->row->positive);
    bt_tensor t = data ? how(w->ctx, w->dtype, shape, data) : (bt_tensor){0};
    free(data);
    return t;
}

static bt_tensor give(parity_work *w, bt_shape shape) {
    bt_tensor t = make(w, bt_input, shape, (uint32_t)w->count + 1);
    w->in[w->count++] = t;
    return t;
}

static bt_tensor give_group(parity_work *w, int i) {
    return give(w, w->c->group[i]);
}

// A number of the case that stands alone between commas.
static int number(const parity_work *w, int group) {
    return w->c->group[group].dim[0];
}

// Labels below `classes`, each seventh of them absent.
static bt_tensor labels(parity_work *w, int rows, int classes) {
    int32_t *list = calloc((size_t)rows + 1, sizeof *list);
    for (int i = 0; i < rows && list; i++) list[i] = i % 7 == 3 ? -1 : (i * 31 + 4) % classes;
    bt_tensor t = list ? bt_from(w->ctx, BT_I32, BT_SHAPE(rows), list) : (bt_tensor){0};
    free(list);
    return t;
}

// Appends to tensor t of the outcome.
static bt_status keep(parity_work *w, int t, bt_dtype dtype, const void *raw, size_t count) {
    outcome *o = w->out;
    double *grown = realloc(o->values[t], (o->counts[t] + count + 1) * sizeof *grown);
    if (!grown) return BT_ERROR_MEMORY;
    o->values[t] = grown;
    for (size_t i = 0; i < count; i++)
        grown[o->counts[t]++] = dtype == BT_F64   ? ((const double *)raw)[i]
                                : dtype == BT_F32 ? (double)((const float *)raw)[i]
                                                  : ((const int32_t *)raw)[i];
    return BT_OK;
}

// Where a value is read from: an output or a moment of a program, or (program NULL) a tensor.
typedef struct source {
    bt_program *program;
    int output, moment; // moment -1: an output
    bt_tensor tensor;
} source;

static bt_status take(parity_work *w, int t, const source *from, bt_tensor like) {
    size_t count = bt_shape_count(bt_tensor_shape(w->ctx, like));
    bt_dtype dtype = bt_tensor_dtype(w->ctx, like);
    size_t bytes = count * bt_dtype_size(dtype);
    void *raw = malloc(bytes + 1);
    bt_status status = BT_ERROR_MEMORY;
    if (raw && !from->program)
        status = bt_read(w->ctx, like, raw, bytes);
    else if (raw && from->moment >= 0)
        status =
            bt_program_moment_read(w->ctx, from->program, from->output, from->moment, raw, bytes);
    else if (raw)
        status = bt_program_read(w->ctx, from->program, from->output, raw, bytes);
    if (status == BT_OK) status = keep(w, t, dtype, raw, count);
    free(raw);
    return status;
}

// Makes the program and notes its kernels.
static bt_status compile(parity_work *w, const bt_program_desc *desc, bt_program **program) {
    bt_status status = bt_program_make(w->ctx, desc, program);
    const char *name;
    for (int i = 0; status == BT_OK && w->out->kernels; i++) {
        if (!(name = bt_program_kernel(*program, i))) break;
        json_object_set_new(w->out->kernels, name, json_true());
    }
    return status;
}

// ---- Operators ---------------------------------------------------------------------------------

static bt_tensor unary(parity_work *w) { // SHAPE
    return w->c->row->with.unary(w->ctx, give_group(w, 0));
}
static bt_tensor binary(parity_work *w) { // SHAPE,SHAPE
    bt_tensor a = give_group(w, 0);
    return w->c->row->with.binary(w->ctx, a, give_group(w, 1));
}
static bt_tensor scalar(parity_work *w) { // SHAPE
    return w->c->row->with.scalar(w->ctx, give_group(w, 0), 1.75);
}
static bt_tensor reduce(parity_work *w) { // SHAPE,AXES as bits
    return w->c->row->with.reduce(w->ctx, give_group(w, 0), (unsigned)number(w, 1), false);
}
static bt_tensor axis(parity_work *w) { // SHAPE,AXIS
    return w->c->row->with.axis(w->ctx, give_group(w, 0), number(w, 1));
}
static bt_tensor pool(parity_work *w) { // NxCxHxW,SIZE,STRIDE,PADDING
    bt_tensor x = give_group(w, 0);
    return w->c->row->with.pool(w->ctx, x, number(w, 1), number(w, 2), number(w, 3));
}
static bt_tensor random_values(parity_work *w) { // SHAPE
    return w->c->row->with.random(w->ctx, w->dtype, w->c->group[0], 20260101, -1, 2.5);
}
static double square(void *user, double x) {
    return (void)user, x * x;
}
static double twice(void *user, double x) {
    return (void)user, 2 * x;
}
static bt_tensor map(parity_work *w) { // SHAPE
    return bt_map(w->ctx, give_group(w, 0), square, twice, NULL);
}
static bt_tensor permute(parity_work *w) { // SHAPE,ORDER
    return bt_permute(w->ctx, give_group(w, 0), w->c->group[1].dim);
}
static bt_tensor shape_to(parity_work *w) { // SHAPE,SHAPE
    bt_tensor x = give_group(w, 0);
    return w->c->row->with.flags ? bt_broadcast(w->ctx, x, w->c->group[1])
                                 : bt_reshape(w->ctx, x, w->c->group[1]);
}
enum { TRANSPOSE_A = 1, TRANSPOSE_B = 2 };
// SHAPE,SHAPE; flags: what is stored transposed
static bt_tensor matmul_batches(parity_work *w) {
    unsigned flags = w->c->row->with.flags;
    bt_tensor in[2];
    for (int i = 0; i < 2; i++) {
        bt_shape s = w->c->group[i];
        int *last = &s.dim[s.rank - 1], rows = last[-1];
        if (flags >> i & 1) last[-1] = *last, *last = rows;
        in[i] = give(w, s);
    }
    return bt_matmul_ex(w->ctx, in[0], flags & TRANSPOSE_A, in[1], flags & TRANSPOSE_B);
}
static bt_tensor matmul(parity_work *w) { // MxKxN; flags: what is stored transposed
    bool ta = w->c->row->with.flags & TRANSPOSE_A, tb = w->c->row->with.flags & TRANSPOSE_B;
    const int *s = w->c->group[0].dim;
    bt_tensor a = give(w, ta ? BT_SHAPE(s[1], s[0]) : BT_SHAPE(s[0], s[1]));
    bt_tensor b = give(w, tb ? BT_SHAPE(s[2], s[1]) : BT_SHAPE(s[1], s[2]));
    return bt_matmul_ex(w->ctx, a, ta, b, tb);
}
// MxKxN: f(f(x w + b) w^T + c), so that bias, activation and the derivative of the activation are
// fused into the products. Scaled so that nothing saturates.
static bt_tensor dense(parity_work *w) {
    const int *s = w->c->group[0].dim;
    bt_context *ctx = w->ctx;
    bt_tensor x = bt_mul_scalar(ctx, give(w, BT_SHAPE(s[0], s[1])), 0.3 / sqrt(s[1]));
    bt_tensor weight = give(w, BT_SHAPE(s[1], s[2])), again;
    bt_tensor y = bt_add(ctx, bt_matmul(ctx, x, weight), give(w, BT_SHAPE(s[2])));
    again = bt_mul_scalar(ctx, weight, 0.3 / sqrt(s[2]));
    y = bt_matmul_ex(ctx, w->c->row->with.unary(ctx, y), false, again, true);
    return w->c->row->with.unary(ctx, bt_add(ctx, y, give(w, BT_SHAPE(s[1]))));
}
// NxCxHxW,OxKHxKW,STRIDE,PADDING; with.unary: that of the output, without a bias.
static bt_tensor conv(parity_work *w) {
    bt_shape x = w->c->group[0], k = w->c->group[1];
    bool plain = !w->c->row->with.unary;
    bt_tensor image = give(w, x),
              weight = give(w, BT_SHAPE(k.dim[0], x.dim[1], k.dim[1], k.dim[2]));
    bt_tensor bias = plain ? give(w, BT_SHAPE(k.dim[0])) : (bt_tensor){0};
    bt_tensor y = bt_conv2d(w->ctx, image, weight, bias, number(w, 2), number(w, 3));
    return plain ? y : w->c->row->with.unary(w->ctx, y);
}
static bt_tensor im2col(parity_work *w) { // NxCxHxW,KHxKW,STRIDE,PADDING
    const int *k = w->c->group[1].dim;
    return bt_im2col(w->ctx, give_group(w, 0), k[0], k[1], number(w, 2), number(w, 3));
}
static bt_tensor cross_entropy(parity_work *w) { // ROWSxCLASSES
    const int *s = w->c->group[0].dim;
    return bt_cross_entropy(w->ctx, give_group(w, 0), labels(w, s[0], s[1]));
}

// ---- What is not an operator -------------------------------------------------------------------

// COUNT,BATCH,CxHxW: images and labels of two epochs; flags: shuffled.
static bt_status gather(parity_work *w) {
    const bt_shape *g = w->c->group;
    int count = number(w, 0), batch = number(w, 1), steps = 2 * ((count + batch - 1) / batch);
    size_t pixels = bt_shape_count(g[2]) * (size_t)count;
    uint8_t *bytes = malloc(pixels + (size_t)count + 1);
    if (!bytes) return BT_ERROR_MEMORY;
    for (size_t i = 0; i < pixels + (size_t)count; i++) bytes[i] = (uint8_t)(i * 37 + i / 251);
    for (int i = 0; i < count; i++) bytes[pixels + (size_t)i] %= 10;
    bt_dataset *set;
    bt_status status = bt_dataset_make(w->ctx, bytes, bytes + pixels, count, g[2].dim[0],
                                       g[2].dim[1], g[2].dim[2], 10, &set);
    free(bytes);
    if (status != BT_OK) return status;
    bt_batch b = bt_dataset_batch(w->ctx, &(bt_batch_desc){.set = set,
                                                           .batch = batch,
                                                           .dtype = w->dtype,
                                                           .shuffle = w->c->row->with.flags,
                                                           .seed = 5});
    bt_tensor outputs[] = {b.images, b.labels};
    bt_program *program = NULL;
    status = compile(w, &(bt_program_desc){.outputs = outputs, .output_count = 2}, &program);
    for (int i = 0; i < steps && status == BT_OK; i++) {
        status = bt_program_run(w->ctx, program, 1);
        for (int t = 0; t < 2 && status == BT_OK; t++)
            status =
                take(w, t, &(source){.program = program, .output = t, .moment = -1}, outputs[t]);
    }
    return status;
}

enum { MOMENTUM = 8, CLIP = 16 }; // beside the bt_optimizer in the flags of update

// NUMBERS,NUMBERS: two parameters after four steps with gradients that are given, and their
// moments.
static bt_status update(parity_work *w) {
    unsigned flags = w->c->row->with.flags;
    bt_optimizer optimizer = (bt_optimizer)(flags % MOMENTUM);
    bt_hyper hyper[2];
    for (int i = 0; i < 2; i++)
        hyper[i] = (bt_hyper){.lr = 0.1 / (i + 1),
                              .momentum = optimizer || flags & MOMENTUM ? 0.9 : 0,
                              .beta2 = 0.999,
                              .epsilon = 1e-8,
                              .weight_decay = 0.01,
                              .clip = flags & CLIP ? 1.5 : 0};
    bt_tensor p[2], sum[2];
    for (int i = 0; i < 2; i++) {
        p[i] = make(w, bt_parameter, w->c->group[i], (uint32_t)i + 1);
        bt_tensor g = make(w, bt_input, w->c->group[i], (uint32_t)i + 3);
        sum[i] = bt_sum(w->ctx, bt_mul(w->ctx, p[i], g), 0, false);
    }
    bt_program *program = NULL;
    bt_status status = compile(w,
                               &(bt_program_desc){.loss = bt_add(w->ctx, sum[0], sum[1]),
                                                  .parameters = p,
                                                  .parameter_count = 2,
                                                  .optimizer = optimizer,
                                                  .hyper = hyper,
                                                  .hyper_count = 2},
                               &program);
    if (status == BT_OK) status = bt_program_run(w->ctx, program, 4);
    for (int i = 0; i < 2 && status == BT_OK; i++) {
        status = take(w, 0, &(source){0}, p[i]);
        for (int m = 0; status == BT_OK && m < bt_program_moment_count(program); m++)
            status = take(w, 1 + 2 * i + m, &(source){.program = program, .output = i, .moment = m},
                          p[i]);
    }
    return status;
}

// ROWSxCLASSES,STEPS,PREDICTIONS: log, right answers and predictions of one step more than the log
// holds.
static bt_status step_end(parity_work *w) {
    const int *s = w->c->group[0].dim;
    int steps = number(w, 1), predicted = number(w, 2);
    bt_tensor logits = give_group(w, 0), wanted = labels(w, s[0], s[1]);
    bt_program *program = NULL;
    bt_log_entry *log = calloc((size_t)steps, sizeof *log);
    int32_t *classes = calloc((size_t)predicted + 1, sizeof *classes);
    bt_status status = log && classes ? BT_OK : BT_ERROR_MEMORY;
    if (status == BT_OK)
        status = compile(w,
                         &(bt_program_desc){.loss = bt_cross_entropy(w->ctx, logits, wanted),
                                            .logits = logits,
                                            .labels = wanted,
                                            .log_steps = steps,
                                            .prediction_count = predicted},
                         &program);
    if (status == BT_OK) status = bt_program_run(w->ctx, program, (uint32_t)steps + 1);
    if (status == BT_OK) status = bt_program_log(w->ctx, program, 0, (uint32_t)steps, log);
    if (status == BT_OK)
        status = bt_program_predictions(w->ctx, program, classes, (size_t)predicted);
    for (int i = 0; i < steps && status == BT_OK; i++) {
        status = keep(w, 0, BT_F64, &log[i].loss, 1);
        if (status == BT_OK) status = keep(w, 1, BT_F64, &log[i].correct, 1);
    }
    if (status == BT_OK) status = keep(w, 2, BT_I32, classes, (size_t)predicted);
    free(log), free(classes);
    return status;
}

// ---- The table ---------------------------------------------------------------------------------

// Every list has what its kernels may trip over: 0, 1, odd and prime numbers, one below and above
// the sizes of groups and tiles, long reductions, and what `mlp` and `lenet` use at batch 64.
static const char flat[] =
    "1 2 3 5 7 31 63 64 65 127 255 256 257 511 1023 1025 4099 65537 3x31 13x17x19 2x3x5x7 1x1x1x1 "
    "64x128 64x8x24x24 0 5x0x3";
static const char pairs[] =
    "1,1 7,7 257,257 4099,4099 3x37,3x37 13x17x19,13x17x19 2x3x5x7,2x3x5x7 64x128,128 64x10,10 "
    "3x1x5,7x1 5x13,13 3x11,3x1 1,300 300,1 1x1x1x1,2x3x5x7 2x1x5x1,1x3x1x7 5x1,1x5 2x3x1x7,3x5x1 "
    "129x65,1x65 129x65,129x1 31x2x3,31x1x1 1x257,64x1 0,1 3x0,1x0 64x128,64x128";
static const char equals[] =
    "1,1 2,2 3,3 5,5 7,7 31,31 63,63 64,64 65,65 127,127 255,255 256,256 257,257 1023,1023 "
    "1025,1025 4099,4099 3x31,3x31 13x17x19,13x17x19 2x3x5x7,2x3x5x7 64x10,64x10 64x128,64x128";
static const char orders[] =
    "2x3x5x7,2x0x3x1 2x3x5x7,0x1x2x3 2x3x5x7,3x2x1x0 2x3x5x7,0x2x1x3 2x3x5x7,1x0x3x2 "
    "7x1x5x3,0x3x2x1 "
    "1x1x1x1,3x1x0x2 5x3x1x1,2x3x1x0 17x1x19x1,2x1x0x3 16x8x4x4,1x0x2x3 3x3x3x3,1x2x3x0 "
    "64x8x6x6,0x2x3x1 4x9x25x1,2x1x3x0 2x0x5x3,3x2x1x0 31x2x2x37,3x1x2x0 1x1x65x257,0x1x3x2 "
    "33x65x1x1,1x0x2x3 2x2x2x2,1x3x0x2 5x7x11x2,3x0x1x2 3x64x3x5,2x0x1x3";
static const char matrices[] = "1x1 1x7 7x1 2x3 3x2 5x7 16x16 17x16 31x33 32x32 63x65 64x64 128x10 "
                               "784x16 257x3 3x257 2x5x7 3x31x33 "
                               "2x3x5x7 4x1x17x9 1x300 0x3";
static const char reshapes[] =
    "1,1 6,2x3 2x3,6 3x5x7,5x21 3x5x7,105 105,3x5x7 64x8x4x4,64x128 2x3x5x7,7x30 2x3x5x7,210 "
    "1x1x1x9,9 9,1x9x1x1 257x3,3x257 31x33,33x31 0x3,3x0 128,2x4x4x4 16x16,256 17x19,323 4x1x5,5x4 "
    "1025,41x25 13x8,8x13";
static const char broadcasts[] = "1,1 1,7 1,257 1,65x33 5,3x5 3x1,3x5 3x1x5,2x3x4x5 1x1,9x11 "
                                 "7x1x1,7x5x3 1x5x1,7x5x3 1x1x3,7x5x3 "
                                 "2x3x5x7,2x3x5x7 2x1x5x1,2x3x5x7 1x3x1x7,2x3x5x7 10,64x10 "
                                 "128,64x128 1x8x1x1,64x8x6x6 257,5x257 "
                                 "257x1,257x5 1,0 1x1x1x1,3x5x7x9";
static const char products[] = "1x1x1 1x1x7 7x1x1 1x7x1 2x3x5 3x1000x2 16x16x16 17x29x13 31x33x32 "
                               "5x64x3 65x1x65 33x512x17 3x5x200 "
                               "200x5x3 64x784x128 64x128x10 10x64x128 129x127x130 128x128x128 "
                               "1x257x300 300x255x1 0x4x3 4x3x0 "
                               "5x0x3 67x999x2";
static const char batches[] =
    "3x5x7,7x3 3x5x7,3x7x3 1x5x7,3x7x3 3x5x7,1x7x3 2x3x5x7,2x3x7x4 2x1x5x7,1x3x7x4 2x3x5x7,7x4 "
    "5x7,3x7x4 1x1x1x1,1x1x1x1 4x1x9,4x9x1 4x1x1,4x1x1 7x16x16,7x16x16 2x33x65,2x65x17 "
    "3x2x17x1,3x2x1x19 5x3x100,5x100x2 2x2x31x33,1x2x33x5 1x3x2x500,3x500x2 9x4x4,4x4 0x3x5,5x2 "
    "2x65x3,2x3x65 2x5x0,2x0x3 "
    "70x65x3,70x3x67 66x100x19,66x19x127 270x5x7,270x7x3 34x129x17,34x17x130 135x65x1,135x1x67";
#define LAYERS                                                                  \
    "1x1x1 1x5x3 5x1x3 3x5x1 2x3x5 7x11x13 16x16x16 17x33x9 31x32x33 33x31x17 " \
    "65x7x3 3x65x7 7x3x65 64x128x10 64x20x128 128x5x17 1x100x10 2x257x3 63x64x65 5x130x31"
static const char layers[] = LAYERS, wide[] = LAYERS " 2100x2x500 4250x3x500";
// Sizes at which kernels tuned by hand take over.
static const char large_products[] = "1029x1021x1037 68x4100x4000",
                  large_layers[] = "1100x1000x1030",
                  large_images[] = "128x32x16x16,40x3x3,1,1 9x64x31x33,24x3x3,1,0";
static const char sums[] =
    "1,1 7,1 31,1 64,1 255,1 256,1 257,1 1025,1 4099,1 70001,1 5x7x11,5 5x7x11,2 5x7x11,0 "
    "2x3x5x7,10 "
    "2x3x5x7,5 64x10,1 64x128,1 784x64,1 3x1031,2 1031x3,1 300x300,1 300x300,2 8x2000,1 17x1x5,2 "
    "64x8x24x24,13 1x1x1x1,15 3x0,1 64x4,2";
static const char maxima[] = "1,1 7,1 31,1 64,1 257,1 4099,1 5x7x3,2 5x7x3,1 5x7x3,4 5x7x11,7 "
                             "2x3x5x7,10 64x10,2 64x128,1 784x64,1 "
                             "3x1031,2 1031x3,1 300x30,1 30x300,2 8x2000,1 17x1x5,2 3x257x2,2";
static const char axes[] =
    "1,0 2,0 7,0 64,0 257,0 1031,0 64x10,1 64x10,0 3x1000,1 1000x3,0 5x7x3,0 5x7x3,1 5x7x3,2 "
    "2x3x5x7,0 "
    "2x3x5x7,1 2x3x5x7,2 2x3x5x7,3 31x33,1 300x2,1 2x300,0 17x1x5,1 3x257x2,1 129x65,1";
static const char images[] =
    "1x1x1x1,1x1x1,1,0 1x1x3x3,1x3x3,1,0 3x2x11x9,5x3x5,1,0 2x3x9x11,7x3x3,2,1 "
    "64x1x28x28,8x5x5,1,0 "
    "64x8x12x12,16x5x5,1,0 2x3x7x5,4x1x1,1,0 2x3x7x5,4x1x1,2,0 1x5x13x13,3x3x3,1,1 "
    "1x2x17x3,2x5x1,1,2 "
    "1x2x3x17,2x1x5,1,0 9x1x5x5,1x2x2,1,0 8x1x6x6,3x3x3,3,0 17x2x5x5,33x3x3,1,1 1x33x6x7,5x3x3,1,1 "
    "1x64x5x5,65x1x1,1,0 2x1x31x37,3x7x7,3,3 3x4x8x8,4x4x4,2,1 1x16x10x10,32x3x3,1,1 "
    "5x3x4x4,2x4x4,1,0 "
    "1x1x40x2,1x9x2,4,0 2x2x2x2,2x3x3,1,1 25x1x4x4,1x3x3,1,0";
static const char columns[] =
    "1x1x1x1,1x1,1,0 1x1x3x3,3x3,1,0 2x3x7x5,3x2,2,1 3x2x11x9,3x5,1,0 2x3x9x11,3x3,2,1 "
    "64x1x12x12,5x5,1,0 "
    "4x8x12x12,5x5,1,0 2x3x7x5,1x1,1,0 2x3x7x5,1x1,2,0 1x5x13x13,3x3,1,1 1x2x17x3,5x1,1,2 "
    "1x2x3x17,1x5,1,0 9x1x5x5,2x2,1,0 8x1x6x6,3x3,3,0 17x2x5x5,3x3,1,1 2x1x31x37,7x7,3,3 "
    "3x4x8x8,4x4,2,1 "
    "5x3x4x4,4x4,1,0 1x1x40x2,9x2,4,0 2x2x2x2,3x3,1,1";
static const char windows[] =
    "1x1x1x1,1,1,0 1x1x2x2,2,2,0 2x3x10x8,2,2,0 2x3x9x7,3,2,1 64x8x24x24,2,2,0 64x16x8x8,2,2,0 "
    "1x1x3x3,3,1,1 2x3x5x7,2,1,0 2x3x5x7,3,1,1 3x1x7x7,3,3,0 3x1x7x7,3,3,1 1x5x11x13,4,2,1 "
    "1x5x11x13,5,2,2 2x2x6x6,6,6,0 7x1x4x9,2,3,0 1x1x40x3,3,2,1 1x1x3x40,3,2,1 33x1x4x4,2,2,0 "
    "5x13x3x3,2,1,1 1x2x15x15,7,4,3 3x3x2x2,2,2,1";
static const char channels[] =
    "1x1,1 3x5,5 64x10,10 7x1,1 3x5x4,5 1x7x9,7 5x3x257,3 3x5x4x3,5 1x1x1x1,1 2x8x24x24,8 "
    "64x16x4x4,16 "
    "2x33x3x3,33 9x1x5x5,1 1x65x1x1,65 7x2x13x1,2 2x3x1x31,3 31x2x2x2,2 5x17x3,17 0x3x2,3 129x2,2";
static const char rows[] =
    "1x1 1x2 1x10 2x10 7x5 63x10 64x10 65x10 1x1000 3x257 256x3 257x3 31x33 32x32 100x1 500x10 5x2 "
    "16x128 17x129 1031x2 300x47";
static const char epochs[] =
    "1,1,1x1x1 7,3,1x2x2 7,7,1x3x3 7,9,1x3x3 64,64,1x28x28 130,64,1x28x28 65,64,1x5x7 10,1,1x3x5 "
    "31,8,3x4x5 32,8,3x4x4 33,8,1x1x1 100,7,1x1x3 257,256,1x2x3 300,100,1x4x4 5,2,1x17x19 "
    "12,5,3x1x7 "
    "3,64,1x9x9 17,16,2x2x2 1000,500,1x1x2 9,4,1x31x1";
static const char counts[] = "1,1 1,2 2,3 3,5 7,7 31,64 63,65 64,10 127,129 255,1 256,256 257,3 "
                             "1000,1 1023,1025 4095,1 4096,1 "
                             "4097,1 10007,13 70001,1 784x128,128 8x5x5,8 1,4097";
static const char steps[] = "1x1,1,1 1x10,1,1 2x10,3,6 7x5,2,14 7x5,2,10 63x10,4,250 64x10,3,192 "
                            "64x10,3,0 65x10,1,65 256x3,2,512 "
                            "257x3,2,514 1x1000,2,2 31x33,5,155 500x10,2,1000 1031x2,1,1031 "
                            "5x2,7,35 100x1,2,200 300x47,1,0 "
                            "17x129,2,20 32x32,9,288 3x257,2,6";

// (In f32, 1 - beta2 has few digits.)
#define UPDATE(name, kernels, bits) \
    { "update, " name, kernels, counts, .run = update, .with.flags = bits, .product = true }

const parity_row parity_rows[] = {
    {"add", "map reduce_sum", pairs, .build = binary, .with.binary = bt_add},
    {"sub", "map reduce_sum", pairs, .build = binary, .with.binary = bt_sub},
    {"mul", "map reduce_sum", pairs, .build = binary, .with.binary = bt_mul},
    {"div", "map reduce_sum", pairs, .build = binary, .with.binary = bt_div, .positive = true},
    {"add_scalar", "map", flat, .build = scalar, .with.scalar = bt_add_scalar},
    {"sub_scalar", "map", flat, .build = scalar, .with.scalar = bt_sub_scalar},
    {"mul_scalar", "map", flat, .build = scalar, .with.scalar = bt_mul_scalar},
    {"div_scalar", "map", flat, .build = scalar, .with.scalar = bt_div_scalar},
    {"neg", "map", flat, .build = unary, .with.unary = bt_neg},
    {"relu", "map", flat, .build = unary, .with.unary = bt_relu},
    {"sigmoid", "map", flat, .build = unary, .with.unary = bt_sigmoid},
    {"tanh", "map", flat, .build = unary, .with.unary = bt_tanh},
    {"gelu", "map", flat, .build = unary, .with.unary = bt_gelu},
    {"exp", "map", flat, .build = unary, .with.unary = bt_exp},
    {"log", "map", flat, .build = unary, .with.unary = bt_log, .positive = true},
    {"sqrt", "map", flat, .build = unary, .with.unary = bt_sqrt, .positive = true},
    {"map (CPU only)", "map_host", flat, .build = map, .cpu_only = true},
    {"permute", "map", orders, .build = permute},
    {"transpose", "map", matrices, .build = unary, .with.unary = bt_transpose},
    {"reshape", "map", reshapes, .build = shape_to},
    {"broadcast", "map reduce_sum", broadcasts, .build = shape_to, .with.flags = 1},
    {"bias", "map reduce_sum", channels, .build = binary, .with.binary = bt_bias},
    {"mse", "map reduce_sum", equals, .build = binary, .with.binary = bt_mse},
    {"sum", "reduce_sum", sums, .build = reduce, .with.reduce = bt_sum},
    {"mean", "reduce_sum", maxima, .build = reduce, .with.reduce = bt_mean},
    {"max", "reduce_max scatter_axis", maxima, .build = reduce, .with.reduce = bt_max},
    {"argmax", "reduce_max", axes, .build = axis, .with.axis = bt_argmax, .no_gradient = true},
    {"softmax", "softmax softmax_grad", axes, .build = axis, .with.axis = bt_softmax},
    {"log_softmax", "softmax softmax_grad", axes, .build = axis, .with.axis = bt_log_softmax},
    {"cross_entropy", "xent xent_mean", rows, .build = cross_entropy},
    {"cross_entropy, no grad", "xent xent_mean", rows, .build = cross_entropy, .no_gradient = true},
    {"matmul", "matmul", products, .build = matmul, .product = true},
    {"matmul, a^T", "matmul", products, .build = matmul, .with.flags = TRANSPOSE_A,
     .product = true},
    {"matmul, b^T", "matmul", products, .build = matmul, .with.flags = TRANSPOSE_B,
     .product = true},
    {"matmul, a^T b^T", "matmul", products, .build = matmul,
     .with.flags = TRANSPOSE_A | TRANSPOSE_B, .product = true},
    {"matmul, batches", "matmul", batches, .build = matmul_batches, .product = true},
    {"matmul, batches, a^T b^T", "matmul", batches, .build = matmul_batches,
     .with.flags = TRANSPOSE_A | TRANSPOSE_B, .product = true},
    {"dense, relu", "matmul", wide, .build = dense, .with.unary = bt_relu, .product = true},
    {"dense, sigmoid", "matmul", layers, .build = dense, .with.unary = bt_sigmoid, .product = true},
    {"dense, tanh", "matmul", layers, .build = dense, .with.unary = bt_tanh, .product = true},
    {"dense, gelu", "matmul", layers, .build = dense, .with.unary = bt_gelu, .product = true},
    {"matmul, large", "matmul", large_products, .build = matmul, .product = true, .large = true},
    {"matmul, large, a^T b^T", "matmul", large_products, .build = matmul,
     .with.flags = TRANSPOSE_A | TRANSPOSE_B, .product = true, .large = true},
    {"dense, large, relu", "matmul", large_layers, .build = dense, .with.unary = bt_relu,
     .product = true, .large = true},
    {"dense, large, gelu", "matmul", large_layers, .build = dense, .with.unary = bt_gelu,
     .product = true, .large = true},
    {"conv2d", "conv2d conv2d_grad_input conv2d_grad_weight", images, .build = conv,
     .product = true},
    {"conv2d, relu", "conv2d", images, .build = conv, .with.unary = bt_relu, .product = true},
    {"conv2d, large", "conv2d conv2d_grad_input conv2d_grad_weight", large_images, .build = conv,
     .product = true, .large = true},
    {"im2col", "im2col col2im", columns, .build = im2col},
    {"max_pool", "max_pool max_pool_grad", windows, .build = pool, .with.pool = bt_max_pool},
    {"max_pool, no grad", "max_pool", windows, .build = pool, .with.pool = bt_max_pool,
     .no_gradient = true},
    {"avg_pool", "avg_pool avg_pool_grad", windows, .build = pool, .with.pool = bt_avg_pool},
    {"random_uniform", "random", flat, .build = random_values, .with.random = bt_random_uniform,
     .no_gradient = true},
    {"random_normal", "random", flat, .build = random_values, .with.random = bt_random_normal,
     .no_gradient = true},
    {"gather_batch", "gather_batch", epochs, .run = gather, .exact = true},
    {"gather_batch, shuffled", "gather_batch", epochs, .run = gather, .with.flags = 1,
     .exact = true},
    UPDATE("sgd", "update", BT_SGD),
    UPDATE("sgd, clip", "update grad_sumsq", BT_SGD | CLIP),
    UPDATE("momentum", "update", BT_SGD | MOMENTUM),
    UPDATE("momentum, clip", "update grad_sumsq", BT_SGD | MOMENTUM | CLIP),
    UPDATE("nesterov", "update", BT_NESTEROV),
    UPDATE("nesterov, clip", "update grad_sumsq", BT_NESTEROV | CLIP),
    UPDATE("adam", "update", BT_ADAM),
    UPDATE("adam, clip", "update grad_sumsq", BT_ADAM | CLIP),
    UPDATE("adamw", "update", BT_ADAMW),
    UPDATE("adamw, clip", "update grad_sumsq", BT_ADAMW | CLIP),
    {"step_end", "step_end", steps, .run = step_end},
};
const int parity_row_count = sizeof parity_rows / sizeof parity_rows[0];

static bt_shape parse_group(const char **at) {
    bt_shape g = {0};
    char *end = (char *)*at;
    for (; g.rank < BT_RANK_MAX; end++) {
        g.dim[g.rank++] = (int)strtol(end, &end, 10);
        if (*end != 'x') break;
    }
    *at = *end == ',' ? end + 1 : end;
    return g;
}

bool parity_next(const parity_row *row, const char **at, parity_case *out) {
    *out = (parity_case){.row = row};
    const char *p = *at + strspn(*at, " ");
    if (!*p) return false;
    snprintf(out->text, sizeof out->text, "%.*s", (int)strcspn(p, " "), p);
    for (int i = 0; i < PARITY_GROUPS && *p && *p != ' '; i++) out->group[i] = parse_group(&p);
    *at = p;
    return true;
}

// ---- Computing ---------------------------------------------------------------------------------

// The output, and the gradients of the sum of the outputs, each times a number of its own.
static bt_status compute_operator(parity_work *w) {
    bt_tensor outputs[INPUTS + 1] = {w->c->row->build(w)};
    int count = w->c->row->no_gradient ? 0 : w->count;
    bt_status status = BT_OK;
    if (count) {
        bt_tensor weights = make(w, bt_input, bt_tensor_shape(w->ctx, outputs[0]), 9);
        bt_tensor total = bt_sum(w->ctx, bt_mul(w->ctx, outputs[0], weights), 0, false);
        status = bt_grad(w->ctx, total, w->in, count, outputs + 1);
    }
    bt_program *program = NULL;
    bt_program_desc desc = {.outputs = outputs, .output_count = count + 1};
    if (status == BT_OK) status = compile(w, &desc, &program);
    if (status == BT_OK) status = bt_program_run(w->ctx, program, 1);
    for (int i = 0; i <= count && status == BT_OK; i++)
        status = take(w, i, &(source){.program = program, .output = i, .moment = -1}, outputs[i]);
    return status;
}

bt_status parity_compute(bt_context *ctx, const parity_case *c, bt_dtype dtype, outcome *out) {
    parity_work w = {.ctx = ctx, .c = c, .dtype = dtype, .out = out};
    uint32_t mark = bt_mark(ctx);
    bt_status status = c->row->run ? c->row->run(&w) : compute_operator(&w);
    bt_release(ctx, mark);
    return status;
}

void outcome_free(outcome *o) {
    for (int t = 0; t < PARITY_TENSORS; t++) free(o->values[t]);
    json_decref(o->kernels);
    *o = (outcome){0};
}
