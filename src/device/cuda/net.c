// Reads a network back from launches; see net.h. Every value that a launch writes gets a name (the
// output of layer 2, the gradient of its weights ...), known by where it lies. A launch is
// understood when the names of what it reads say which value it must be computing. At the end the
// update must find all gradients in their places, and nothing may be left over.
#include "device/cuda/net.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef enum meaning {
    NOTHING,
    IMAGES,  // the batch
    LABELS,  // of its rows
    Y,       // of a layer: activation(product + bias), before pooling
    X_NEXT,  // its output, after pooling
    MAXIMA,  // where the maxima of its windows were
    LOSSES,  // of each row
    LOSS,    // their mean
    DZ,      // gradient of its product
    DY,      // of Y, before the derivative of the activation
    DX_NEXT, // of its output
    DW_PART, // partial sums of DW
    DB_PART,
    DW, // of its weights
    DB, // of its bias
    PROBABILITIES,
    SQUARES, // partial sums of squares of the gradients
} meaning;

// Enough for what lives at a time: 5 values a layer and a few more.
enum { VALUES_MAX = 8 * BT_NET_LAYERS_MAX + 8 };

typedef struct value {
    meaning is;
    int layer;
    bt_binding at;
} value;

typedef struct reader {
    bt_net *net;
    char *why;
    value values[VALUES_MAX];
    int count;
    bool ended, has_loss, has_softmax, has_gradients;
    uint32_t batch;
} reader;

static bool sorry(reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool sorry(reader *r, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(r->why, BT_WHY_BYTES, format, list);
    va_end(list);
    return false;
}

// ---- Values ------------------------------------------------------------------------------------

static bool same(const bt_binding *a, const bt_binding *b) {
    return a->buffer == b->buffer && a->offset == b->offset && a->bytes == b->bytes;
}

static bool overlap(const bt_binding *a, const bt_binding *b) {
    return a->buffer == b->buffer && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

static value find(const reader *r, const bt_binding *at) {
    for (int i = 0; at->buffer && i < r->count; i++)
        if (same(&r->values[i].at, at)) return r->values[i];
    return (value){0};
}

static bool holds(const reader *r, const bt_binding *at, meaning is, int layer) {
    value v = find(r, at);
    return v.is == is && v.layer == layer;
}

// What is written takes the place of what was there.
static bool put(reader *r, meaning is, int layer, const bt_binding *at) {
    int kept = 0;
    for (int i = 0; i < r->count; i++)
        if (!overlap(&r->values[i].at, at)) r->values[kept++] = r->values[i];
    r->count = kept;
    if (kept == VALUES_MAX) return sorry(r, "it has too many values");
    r->values[r->count++] = (value){is, layer, *at};
    return true;
}

static uint32_t outputs_of(const bt_net_layer *l) {
    return l->o * (l->oh / l->pool) * (l->ow / l->pool);
}

// What layer `layer` reads.
static bool holds_input(const reader *r, const bt_binding *at, int layer) {
    if (layer == 0) return holds(r, at, IMAGES, 0);
    const bt_net_layer *before = &r->net->layer[layer - 1];
    return holds(r, at, before->pool > 1 ? X_NEXT : Y, layer - 1);
}

static bool is_last(const reader *r, int layer) {
    return layer == r->net->layers - 1;
}

// A layer whose weights are read here; -1: none.
static int layer_of_weight(const reader *r, const bt_binding *at) {
    for (int l = 0; l < r->net->layers; l++) {
        const bt_net_layer *layer = &r->net->layer[l];
        uint64_t numbers = (uint64_t)layer->o * layer->c * layer->size * layer->size;
        if (layer->kind == BT_NET_FC) numbers *= (uint64_t)layer->h * layer->w;
        if (at->buffer == r->net->params.buffer && at->offset == 4 * (uint64_t)layer->weight &&
            at->bytes == 4 * numbers)
            return l;
    }
    return -1;
}

// ---- Forward -----------------------------------------------------------------------------------

static bool read_gather(reader *r, const bt_launch *l) {
    bt_net *net = r->net;
    if (net->bytes.buffer) return sorry(r, "it gathers two batches");
    memcpy(&net->gather, l->scalars, sizeof net->gather);
    net->bytes = l->binding[0];
    net->labels = l->binding[1];
    net->index = l->binding[2];
    net->state = l->binding[3];
    r->batch = net->gather.batch;
    if (l->binding[5].buffer && !put(r, LABELS, 0, &l->binding[5])) return false;
    return put(r, IMAGES, 0, &l->binding[4]);
}

static bool plain_activation(uint32_t op) {
    return op == BT_MAP_COPY || op == BT_MAP_RELU || op == BT_MAP_SIGMOID || op == BT_MAP_TANH;
}

// Offsets are absolute in the buffer here, and made relative to params at the end.
static bool add_layer(reader *r, bt_net_layer layer, const bt_binding *x, const bt_binding *weight,
                      const bt_binding *bias, const bt_binding *y) {
    bt_net *net = r->net;
    if (r->has_loss || r->has_softmax) return sorry(r, "layers follow its loss");
    if (net->layers == BT_NET_LAYERS_MAX)
        return sorry(r, "it has more than %d layers", net->layers);
    if (!plain_activation(layer.activation))
        return sorry(r, "it has an activation of another kind");
    if (!bias->buffer) return sorry(r, "layer %d has no bias", net->layers);
    if (!net->layers) net->params.buffer = weight->buffer;
    if (weight->buffer != net->params.buffer || bias->buffer != net->params.buffer)
        return sorry(r, "its parameters lie in several buffers");
    if (!holds_input(r, x, net->layers)) return sorry(r, "its layers are not a chain");
    layer.pool = 1;
    layer.weight = (uint32_t)(weight->offset / 4);
    layer.bias = (uint32_t)(bias->offset / 4);
    net->layer[net->layers++] = layer;
    return put(r, Y, net->layers - 1, y);
}

static bool read_fc(reader *r, const bt_launch *l, const bt_matmul_args *a) {
    if (a->m != r->batch || a->batch1 != 1 || a->batch2 != 1 || a->transpose_a)
        return sorry(r, "it has a product that is no fc layer");
    bt_net_layer layer = {.kind = BT_NET_FC,
                          .c = a->k,
                          .h = 1,
                          .w = 1,
                          .o = a->n,
                          .oh = 1,
                          .ow = 1,
                          .size = 1,
                          .activation = a->epilogue};
    return add_layer(r, layer, &l->binding[0], &l->binding[1], &l->binding[2], &l->binding[4]);
}

static bool read_conv(reader *r, const bt_launch *l) {
    bt_conv_args a;
    memcpy(&a, l->scalars, sizeof a);
    if (a.n != r->batch || a.kh != a.kw || a.stride != 1)
        return sorry(r, "layer %d is a convolution with a stride, or not square", r->net->layers);
    bt_net_layer layer = {.kind = BT_NET_CONV,
                          .c = a.c,
                          .h = a.h,
                          .w = a.w,
                          .o = a.o,
                          .oh = a.oh,
                          .ow = a.ow,
                          .size = a.kh,
                          .padding = a.padding,
                          .activation = a.epilogue};
    return add_layer(r, layer, &l->binding[0], &l->binding[1], &l->binding[2], &l->binding[3]);
}

static bool read_pool(reader *r, const bt_launch *l) {
    bt_pool_args a;
    memcpy(&a, l->scalars, sizeof a);
    value x = find(r, &l->binding[0]);
    if (x.is != Y || x.layer != r->net->layers - 1) return sorry(r, "it pools something odd");
    bt_net_layer *layer = &r->net->layer[x.layer];
    if (a.size != a.stride || a.padding || a.size < 2 || layer->kind != BT_NET_CONV ||
        a.planes != r->batch * layer->o || a.h != layer->oh || a.w != layer->ow)
        return sorry(r, "its pooling after layer %d overlaps or pads", x.layer);
    layer->pool = a.size;
    if (l->binding[2].buffer && !put(r, MAXIMA, x.layer, &l->binding[2])) return false;
    return put(r, X_NEXT, x.layer, &l->binding[1]);
}

static bool read_xent(reader *r, const bt_launch *l) {
    int last = r->net->layers - 1;
    if (last < 0 || !holds(r, &l->binding[0], Y, last) || !holds(r, &l->binding[1], LABELS, 0))
        return sorry(r, "its loss is of something odd");
    if (r->has_loss) return sorry(r, "it has two losses");
    r->has_loss = true;
    if (l->binding[3].buffer && !put(r, DZ, last, &l->binding[3])) return false;
    r->has_gradients = l->binding[3].buffer != NULL;
    return put(r, LOSSES, 0, &l->binding[2]);
}

static bool read_softmax(reader *r, const bt_launch *l) {
    bt_softmax_args a;
    memcpy(&a, l->scalars, sizeof a);
    int last = r->net->layers - 1;
    if (last < 0 || !holds(r, &l->binding[0], Y, last) || a.inner != 1 || a.log_form ||
        a.n != r->net->layer[last].o || a.outer != r->batch)
        return sorry(r, "it has a softmax inside");
    r->has_softmax = true;
    return put(r, PROBABILITIES, 0, &l->binding[1]);
}

// ---- Backward ----------------------------------------------------------------------------------

static bool is_derivative_of(uint32_t op, bt_map_op activation) {
    return (activation == BT_MAP_RELU && op == BT_MAP_RELU_GRAD) ||
           (activation == BT_MAP_SIGMOID && op == BT_MAP_SIGMOID_GRAD) ||
           (activation == BT_MAP_TANH && op == BT_MAP_TANH_GRAD);
}

// The gradient of the output of layer `layer` has been computed (with the derivative of its
// activation when `op` is one and `y` its output).
static bool put_dx(reader *r, int layer, uint32_t op, const bt_binding *y, const bt_binding *at) {
    if (layer < 0) return sorry(r, "it needs the gradient of the images");
    const bt_net_layer *l = &r->net->layer[layer];
    if (op == BT_MAP_COPY)
        return put(r, l->pool > 1 ? DX_NEXT : l->activation == BT_MAP_COPY ? DZ : DY, layer, at);
    if (l->pool > 1 || !is_derivative_of(op, l->activation) || !holds(r, y, Y, layer))
        return sorry(r, "the derivative at layer %d is odd", layer);
    return put(r, DZ, layer, at);
}

static bool read_matmul(reader *r, const bt_launch *l) {
    bt_matmul_args a;
    memcpy(&a, l->scalars, sizeof a);
    value first = find(r, &l->binding[0]);
    if (first.is != DZ && a.transpose_b && !l->binding[3].buffer) return read_fc(r, l, &a);
    const bt_net_layer *layer = &r->net->layer[first.layer];
    if (first.is != DZ || layer->kind != BT_NET_FC || l->binding[2].buffer || a.batch1 != 1 ||
        a.batch2 != 1 || a.transpose_b)
        return sorry(r, "it has a product that belongs to no layer");
    if (a.transpose_a) {
        if (!holds_input(r, &l->binding[1], first.layer) || l->binding[3].buffer ||
            a.epilogue != BT_MAP_COPY || a.k != r->batch)
            return sorry(r, "the gradient of weights %d is odd", first.layer);
        return put(r, DW, first.layer, &l->binding[4]);
    }
    if (layer_of_weight(r, &l->binding[1]) != first.layer)
        return sorry(r, "the gradient of the input of layer %d is odd", first.layer);
    return put_dx(r, first.layer - 1, a.epilogue, &l->binding[3], &l->binding[4]);
}

static bool read_conv_grad_input(reader *r, const bt_launch *l) {
    value dz = find(r, &l->binding[0]);
    if (dz.is != DZ || layer_of_weight(r, &l->binding[1]) != dz.layer)
        return sorry(r, "it has a gradient of a convolution that belongs to no layer");
    return put_dx(r, dz.layer - 1, BT_MAP_COPY, NULL, &l->binding[2]);
}

static bool read_conv_grad_weight(reader *r, const bt_launch *l) {
    value dz = find(r, &l->binding[0]);
    const bt_net_layer *layer = &r->net->layer[dz.layer];
    if (dz.is != DZ || !holds_input(r, &l->binding[1], dz.layer))
        return sorry(r, "the gradient of weights %d is odd", dz.layer);
    bool whole = l->binding[2].bytes == 4ull * layer->o * layer->c * layer->size * layer->size;
    return put(r, whole ? DW : DW_PART, dz.layer, &l->binding[2]);
}

static bool read_reduce(reader *r, const bt_launch *l) {
    bt_reduce_args a;
    memcpy(&a, l->scalars, sizeof a);
    value from = find(r, &l->binding[0]);
    const bt_net_layer *layer = &r->net->layer[from.layer];
    if (a.mean) return sorry(r, "it takes a mean");
    bool columns = a.outer == 1;
    if (from.is == DW_PART && columns) return put(r, DW, from.layer, &l->binding[1]);
    if (from.is == DB_PART && columns && a.inner == layer->o && a.n == r->batch)
        return put(r, DB, from.layer, &l->binding[1]);
    if (from.is == DZ && layer->oh * layer->ow == 1 && columns && a.inner == layer->o &&
        a.n == r->batch)
        return put(r, DB, from.layer, &l->binding[1]);
    if (from.is == DZ && a.inner == 1 && a.n == layer->oh * layer->ow &&
        a.outer == r->batch * layer->o)
        return put(r, DB_PART, from.layer, &l->binding[1]);
    return sorry(r, "it has a sum that belongs to no bias");
}

static bool read_pool_grad(reader *r, const bt_launch *l) {
    value dx = find(r, &l->binding[0]);
    if (dx.is != DX_NEXT || !holds(r, &l->binding[1], MAXIMA, dx.layer))
        return sorry(r, "it has a gradient of pooling that belongs to no layer");
    bool linear = r->net->layer[dx.layer].activation == BT_MAP_COPY;
    return put(r, linear ? DZ : DY, dx.layer, &l->binding[2]);
}

static bool read_map(reader *r, const bt_launch *l) {
    bt_map_args a;
    memcpy(&a, l->scalars, sizeof a);
    value dy = find(r, &l->binding[1]);
    if (dy.is != DY || !holds(r, &l->binding[0], Y, dy.layer) ||
        !is_derivative_of(a.op, r->net->layer[dy.layer].activation) ||
        l->binding[0].bytes != l->binding[2].bytes || l->binding[1].bytes != l->binding[2].bytes)
        return sorry(r, "it has an elementwise step that belongs to no layer");
    return put(r, DZ, dy.layer, &l->binding[2]);
}

// ---- The end of a step -------------------------------------------------------------------------

static bool gradient_there(const reader *r, meaning is, int layer, uint32_t offset,
                           const bt_binding *params, const bt_binding *grads) {
    for (int i = 0; i < r->count; i++) {
        const value *v = &r->values[i];
        if (v->is == is && v->layer == layer && v->at.buffer == grads->buffer &&
            v->at.offset - grads->offset == 4ull * offset - params->offset)
            return true;
    }
    return false;
}

static bool read_update(reader *r, const bt_launch *l) {
    bt_net *net = r->net;
    bt_update_args a;
    memcpy(&a, l->scalars, sizeof a);
    if (net->trains) return sorry(r, "its parameters lie in several runs");
    net->trains = true;
    for (int i = 0; i < net->layers; i++)
        if (l->binding[0].buffer != net->params.buffer ||
            !gradient_there(r, DW, i, net->layer[i].weight, &l->binding[0], &l->binding[1]) ||
            !gradient_there(r, DB, i, net->layer[i].bias, &l->binding[0], &l->binding[1]))
            return sorry(r, "layer %d is not trained, or not by one update", i);
    if (!same(&l->binding[5], &net->state)) return sorry(r, "its update has another step");
    net->params = l->binding[0];
    net->moment[0] = l->binding[2];
    net->moment[1] = l->binding[3];
    net->table = l->binding[4];
    net->clips = l->binding[6].buffer != NULL;
    net->optimizer = a.optimizer;
    net->rows = a.rows;
    return true;
}

static bool read_step_end(reader *r, const bt_launch *l) {
    bt_net *net = r->net;
    memcpy(&net->step, l->scalars, sizeof net->step);
    int last = net->layers - 1;
    const bt_binding *b = l->binding;
    if (last < 0 || !is_last(r, last) || !same(&b[3], &net->state) ||
        (b[0].buffer && !holds(r, &b[0], LOSS, 0)) || (b[1].buffer && !holds(r, &b[1], Y, last)) ||
        (b[2].buffer && !holds(r, &b[2], LABELS, 0)) || r->has_loss != (b[0].buffer != NULL) ||
        (b[0].buffer != NULL) != (b[1].buffer != NULL))
        return sorry(r, "its log is of something odd");
    net->log = b[4];
    net->predictions = b[5];
    r->ended = true;
    return true;
}

static bool read_launch(reader *r, const bt_launch *l) {
    if (l->dtype != BT_F32) return sorry(r, "it is not in f32");
    if (r->ended || (!r->net->bytes.buffer && l->kernel != BT_KERNEL_gather_batch))
        return sorry(r, "it does not train on batches of a data set");
    switch (l->kernel) {
    case BT_KERNEL_gather_batch: return read_gather(r, l);
    case BT_KERNEL_conv2d: return read_conv(r, l);
    case BT_KERNEL_max_pool: return read_pool(r, l);
    case BT_KERNEL_matmul: return read_matmul(r, l);
    case BT_KERNEL_softmax: return read_softmax(r, l);
    case BT_KERNEL_xent: return read_xent(r, l);
    case BT_KERNEL_xent_mean:
        return holds(r, &l->binding[0], LOSSES, 0) ? put(r, LOSS, 0, &l->binding[2])
                                                   : sorry(r, "its loss is odd");
    case BT_KERNEL_conv2d_grad_input: return read_conv_grad_input(r, l);
    case BT_KERNEL_conv2d_grad_weight: return read_conv_grad_weight(r, l);
    case BT_KERNEL_reduce_sum: return read_reduce(r, l);
    case BT_KERNEL_max_pool_grad: return read_pool_grad(r, l);
    case BT_KERNEL_map: return read_map(r, l);
    case BT_KERNEL_grad_sumsq: return put(r, SQUARES, 0, &l->binding[1]);
    case BT_KERNEL_update: return read_update(r, l);
    case BT_KERNEL_step_end: return read_step_end(r, l);
    default: return sorry(r, "it uses kernel %s", bt_kernel_table[l->kernel].name);
    }
}

// Of a program that does not update: the parameters are those from the first to the last.
static void span_params(bt_net *net) {
    uint64_t first = UINT64_MAX, end = 0;
    for (int i = 0; i < net->layers; i++) {
        const bt_net_layer *l = &net->layer[i];
        uint64_t weights = (uint64_t)l->o * l->c * l->size * l->size;
        first = l->weight < first ? l->weight : first;
        first = l->bias < first ? l->bias : first;
        end = l->weight + weights > end ? l->weight + weights : end;
        end = l->bias + (uint64_t)l->o > end ? l->bias + (uint64_t)l->o : end;
    }
    net->params.offset = 4 * first;
    net->params.bytes = 4 * (end - first);
}

// Does layer `next` see the output of `l` in its shape? (A reshape is no launch.)
static bool follows(const bt_net_layer *next, const bt_net_layer *l) {
    if (next->kind == BT_NET_FC) return next->c == outputs_of(l);
    return l->kind == BT_NET_CONV && next->c == l->o && next->h == l->oh / l->pool &&
           next->w == l->ow / l->pool;
}

static bool finish(reader *r, const bt_program_use *use) {
    bt_net *net = r->net;
    if (!r->ended) return sorry(r, "it has no end of a step");
    if (r->has_gradients != net->trains) return sorry(r, "its gradients are not used");
    if (net->layers && net->layer[net->layers - 1].kind != BT_NET_FC)
        return sorry(r, "its last layer is no fc layer");
    if (net->layer[net->layers - 1].activation != BT_MAP_COPY)
        return sorry(r, "its logits pass an activation");
    for (int i = 1; i < net->layers; i++)
        if (!follows(&net->layer[i], &net->layer[i - 1]))
            return sorry(r, "layer %d does not read layer %d as it was written", i, i - 1);
    for (int i = 0; i < use->output_count; i++) {
        const bt_binding *at = &use->outputs[i];
        bool logits = holds(r, at, Y, net->layers - 1);
        if (net->trains || (!logits && !holds(r, at, PROBABILITIES, 0)))
            return sorry(r, "its values are read from outside");
        *(logits ? &net->logits : &net->probabilities) = *at;
    }
    net->classes = net->layer[net->layers - 1].o;
    if (!net->trains) span_params(net);
    for (int i = 0; i < net->layers; i++) {
        net->layer[i].weight -= (uint32_t)(net->params.offset / 4);
        net->layer[i].bias -= (uint32_t)(net->params.offset / 4);
    }
    return true;
}

bool bt_net_read(const bt_launch *launches, int count, const bt_program_use *use, bt_net *net,
                 char why[BT_WHY_BYTES]) {
    *net = (bt_net){0};
    why[0] = 0;
    reader r = {.net = net, .why = why};
    for (int i = 0; i < count; i++)
        if (!read_launch(&r, &launches[i])) return false;
    return finish(&r, use);
}
