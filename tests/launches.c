// See launches.h.
#include "launches.h"
#include "support.h"

#include <math.h>

enum { GUARD = BT_BINDING_ALIGN };

// ---- Random shapes and values -----------------------------------------------------------------

static uint32_t pick(uint64_t *state, uint32_t n) { // 0 .. n - 1
    return (uint32_t)test_random(state, 0, n);
}

static bool odds(uint64_t *state, uint32_t n) { // one in n
    return pick(state, n) == 0;
}

// Sizes are small, or near a multiple of a vector, seldom 0.
static uint32_t pick_size(uint64_t *state, uint32_t max) {
    uint32_t n = 1 + pick(state, 9);
    if (odds(state, 3)) n = 8 * (1 + pick(state, 8)) + pick(state, 3) - 1;
    if (odds(state, 8)) n = 1 + pick(state, max);
    if (odds(state, 40)) n = 0;
    return n < max ? n : max;
}

static operand *add(launch_case *c, char type, size_t count) {
    int i = c->launch.binding_count++;
    if (type) c->operand[i] = (operand){type, count, allocate(count * sizeof(double))};
    return &c->operand[i];
}

static void add_real(launch_case *c, uint64_t *state, size_t count, double low, double high) {
    operand *to = add(c, 'r', count);
    for (size_t i = 0; i < count; i++) to->v[i] = (float)test_random(state, low, high);
}

static void add_maybe(launch_case *c, uint64_t *state, bool present, size_t count) {
    if (present)
        add_real(c, state, count, -1, 1);
    else
        add(c, 0, 0);
}

// Integers from `low` to `high`.
static void add_ints(launch_case *c, uint64_t *state, char type, size_t count, int low, int high) {
    operand *to = add(c, type, count);
    for (size_t i = 0; i < to->count; i++)
        to->v[i] = low + (int)pick(state, (uint32_t)(high - low + 1));
}

#define SCALARS(c, args) memcpy((c)->launch.scalars, &(args), sizeof(args))
#define SAY(c, ...)      snprintf((c)->text, sizeof(c)->text, __VA_ARGS__)

// ---- One maker for each kernel ----------------------------------------------------------------

static const char *const map_names[] = {
#define X(id, name, inputs) #name,
    BT_MAPS(X)
#undef X
};
static const int map_inputs[] = {
#define X(id, name, inputs) inputs,
    BT_MAPS(X)
#undef X
};

// Strides of an operand with some dimensions repeated and, sometimes, the others in another order;
// returns how many elements it has.
static size_t make_strides(uint64_t *state, const uint32_t dim[4], uint32_t stride[4]) {
    int order[4] = {3, 2, 1, 0};
    for (int i = 0; i < 4 && odds(state, 3); i++) {
        int j = (int)pick(state, 4), last = order[3];
        order[3] = order[j];
        order[j] = last;
    }
    uint32_t count = 1;
    for (int i = 0; i < 4; i++) {
        bool repeats = odds(state, 5);
        stride[order[i]] = repeats || dim[order[i]] == 1 ? 0 : count;
        if (!repeats) count *= dim[order[i]];
    }
    return count;
}

static void make_map(launch_case *c, uint64_t *state) {
    bt_map_args args = {.op = pick(state, BT_MAP_COUNT)};
    for (int i = 0; i < 4; i++) args.dim[i] = pick_size(state, i == 3 ? 70 : 5);
    size_t a = make_strides(state, args.dim, args.a_stride);
    size_t b = make_strides(state, args.dim, args.b_stride);
    bool positive = args.op == BT_MAP_LOG || args.op == BT_MAP_SQRT || args.op == BT_MAP_SQRT_GRAD;
    add_real(c, state, a, positive ? 0.25 : -4, 4);
    if (map_inputs[args.op] == 2)
        add_real(c, state, b, args.op == BT_MAP_DIV ? 0.25 : -2, 2);
    else
        add(c, 0, 0);
    add(c, 'r', (size_t)args.dim[0] * args.dim[1] * args.dim[2] * args.dim[3]);
    SCALARS(c, args);
    SAY(c, "map %s [%u,%u,%u,%u] a (%u,%u,%u,%u) b (%u,%u,%u,%u)", map_names[args.op], args.dim[0],
        args.dim[1], args.dim[2], args.dim[3], args.a_stride[0], args.a_stride[1], args.a_stride[2],
        args.a_stride[3], args.b_stride[0], args.b_stride[1], args.b_stride[2], args.b_stride[3]);
}

static void make_matmul(launch_case *c, uint64_t *state) {
    static const uint8_t epilogues[] = {BT_MAP_COPY,         BT_MAP_RELU,      BT_MAP_SIGMOID,
                                        BT_MAP_TANH,         BT_MAP_GELU,      BT_MAP_RELU_GRAD,
                                        BT_MAP_SIGMOID_GRAD, BT_MAP_TANH_GRAD, BT_MAP_GELU_GRAD};
    bt_matmul_args args = {.m = pick_size(state, 70), .n = pick_size(state, 140)};
    args.k = pick_size(state, odds(state, 6) ? 1300 : 70);
    if (args.k > 400) args.m = args.m % 20 + 1;
    args.batch1 = odds(state, 6) ? pick_size(state, 3) : 1;
    args.batch2 = odds(state, 6) ? pick_size(state, 4) : 1;
    args.transpose_a = pick(state, 2);
    args.transpose_b = pick(state, 2);
    args.epilogue = odds(state, 2) ? BT_MAP_COPY : epilogues[pick(state, sizeof epilogues)];
    uint32_t a = args.m * args.k, b = args.k * args.n;
    bool a1 = odds(state, 3), a2 = odds(state, 3), b1 = odds(state, 3), b2 = odds(state, 3);
    args.a_step[1] = a2 ? 0 : a;
    args.a_step[0] = a1 ? 0 : a2 ? a : a * args.batch2;
    args.b_step[1] = b2 ? 0 : b;
    args.b_step[0] = b1 ? 0 : b2 ? b : b * args.batch2;
    size_t rows = (size_t)args.batch1 * args.batch2 * args.m;
    add_real(c, state, (size_t)a * (a1 ? 1 : args.batch1) * (a2 ? 1 : args.batch2), -1, 1);
    add_real(c, state, (size_t)b * (b1 ? 1 : args.batch1) * (b2 ? 1 : args.batch2), -1, 1);
    add_maybe(c, state, odds(state, 2), args.n);
    add_maybe(c, state, map_inputs[args.epilogue] == 2, rows * args.n);
    add(c, 'r', rows * args.n);
    c->depth = args.k;
    c->linear = true;
    c->slope = args.epilogue == BT_MAP_COPY ? 1 : 2;
    SCALARS(c, args);
    SAY(c, "matmul %u x %u x %u%s%s, batches %u x %u, bias %d, %s", args.m, args.n, args.k,
        args.transpose_a ? " a^T" : "", args.transpose_b ? " b^T" : "", args.batch1, args.batch2,
        c->operand[2].type != 0, map_names[args.epilogue]);
}

static void make_conv(launch_case *c, uint64_t *state) {
    static const uint8_t epilogues[] = {BT_MAP_COPY, BT_MAP_RELU, BT_MAP_TANH, BT_MAP_GELU};
    bt_kernel_id kernel = c->launch.kernel;
    bt_conv_args args = {.n = pick(state, 19), .c = 1 + pick(state, 5), .o = 1 + pick(state, 18)};
    args.stride = odds(state, 4) ? 2 + pick(state, 2) : 1;
    args.padding = odds(state, 3) ? 1 + pick(state, 2) : 0;
    args.kh = 1 + pick(state, 5);
    args.kw = odds(state, 3) ? 1 + pick(state, 5) : args.kh;
    do args.h = 1 + pick(state, 14);
    while (args.h + 2 * args.padding < args.kh);
    do args.w = odds(state, 4) ? 1 + pick(state, 40) : args.h;
    while (args.w + 2 * args.padding < args.kw);
    args.oh = (args.h + 2 * args.padding - args.kh) / args.stride + 1;
    args.ow = (args.w + 2 * args.padding - args.kw) / args.stride + 1;
    size_t x = (size_t)args.n * args.c * args.h * args.w, taps = args.c * args.kh * args.kw;
    size_t y = (size_t)args.n * args.o * args.oh * args.ow;
    while (args.n > 1 && y * taps > 100000) { // not for long
        x = x / args.n * (args.n - 1);
        y = y / args.n * (args.n - 1);
        args.n--;
    }
    if (kernel == BT_KERNEL_conv2d) {
        args.epilogue = odds(state, 2) ? BT_MAP_COPY : epilogues[pick(state, sizeof epilogues)];
        add_real(c, state, x, -1, 1);
        add_real(c, state, args.o * taps, -1, 1);
        add_maybe(c, state, odds(state, 2), args.o);
        add(c, 'r', y);
    } else if (kernel == BT_KERNEL_conv2d_grad_input) {
        add_real(c, state, y, -1, 1);
        add_real(c, state, args.o * taps, -1, 1);
        add(c, 'r', x);
    } else {
        add_real(c, state, y, -1, 1);
        add_real(c, state, x, -1, 1);
        add(c, 'r', ((size_t)args.n + BT_CONV_CHUNK - 1) / BT_CONV_CHUNK * args.o * taps);
    }
    c->depth = kernel == BT_KERNEL_conv2d              ? (double)taps
               : kernel == BT_KERNEL_conv2d_grad_input ? args.o * args.kh * args.kw
                                                       : BT_CONV_CHUNK * args.oh * args.ow;
    c->linear = true;
    c->slope = args.epilogue == BT_MAP_COPY ? 1 : 2;
    SCALARS(c, args);
    SAY(c, "%s x [%u,%u,%u,%u] o %u filter %u x %u stride %u padding %u %s",
        bt_kernel_table[kernel].name, args.n, args.c, args.h, args.w, args.o, args.kh, args.kw,
        args.stride, args.padding, map_names[args.epilogue]);
}

// The last position of a window along one axis, and the first one.
static uint32_t window_end(const bt_pool_args *args, uint32_t out, uint32_t limit) {
    uint32_t end = out * args->stride + args->size - args->padding;
    return (end < limit ? end : limit) - 1;
}
static uint32_t window_begin(const bt_pool_args *args, uint32_t out) {
    uint32_t begin = out * args->stride;
    return begin < args->padding ? 0 : begin - args->padding;
}

static void add_positions(launch_case *c, uint64_t *state, const bt_pool_args *args) {
    operand *to = add(c, 'i', (size_t)args->planes * args->oh * args->ow);
    for (uint32_t i = 0; i < to->count; i++) {
        uint32_t oy = i / args->ow % args->oh, ox = i % args->ow;
        uint32_t y = window_begin(args, oy), x = window_begin(args, ox);
        y += pick(state, window_end(args, oy, args->h) - y + 1);
        x += pick(state, window_end(args, ox, args->w) - x + 1);
        to->v[i] = y * args->w + x;
    }
}

static void make_pool(launch_case *c, uint64_t *state) {
    bool quads = odds(state, 2);
    bt_pool_args args = {.planes = pick_size(state, 40), .size = 1 + pick(state, 4)};
    if (quads) args.size = 2;
    args.stride = quads ? 2 : 1 + pick(state, 4);
    args.padding = quads ? 0 : pick(state, args.size / 2 + 1);
    args.h = quads ? 2 * (1 + pick(state, 7)) : args.size + pick(state, 12);
    args.w = quads ? 8 * (1 + pick(state, 4)) : args.size + pick(state, 20);
    args.oh = (args.h + 2 * args.padding - args.size) / args.stride + 1;
    args.ow = (args.w + 2 * args.padding - args.size) / args.stride + 1;
    size_t x = (size_t)args.planes * args.h * args.w, y = (size_t)args.planes * args.oh * args.ow;
    if (c->launch.kernel == BT_KERNEL_max_pool) {
        add_ints(c, state, 'r', x, -3, 3); // many are equal
        for (size_t i = 0; i < x; i++)
            if (odds(state, 50)) c->operand[0].v[i] = NAN;
        add(c, 'r', y);
        add(c, odds(state, 4) ? 0 : 'i', y);
        c->exact = true;
    } else {
        add_real(c, state, y, -1, 1);
        add_positions(c, state, &args);
        add(c, 'r', x);
    }
    c->depth = args.size * args.size;
    SCALARS(c, args);
    SAY(c, "%s of %u planes %u x %u, size %u stride %u padding %u",
        bt_kernel_table[c->launch.kernel].name, args.planes, args.h, args.w, args.size, args.stride,
        args.padding);
}

static void make_gather(launch_case *c, uint64_t *state) {
    uint32_t samples = 1 + pick(state, 30);
    bt_gather_args args = {.count = pick_size(state, 40), .batch = 1 + pick(state, 40)};
    args.pixels = pick_size(state, 900);
    args.shuffle = pick(state, 2);
    args.seed = pick(state, 1000);
    add_ints(c, state, 'b', (size_t)samples * args.pixels, 0, 255);
    add_ints(c, state, 'i', samples, 0, 9);
    add_ints(c, state, 'i', args.count, 0, (int)samples - 1);
    add_ints(c, state, 'i', sizeof(bt_step_state) / 4, 0, 50);
    add(c, 'r', (size_t)args.batch * args.pixels);
    add(c, odds(state, 4) ? 0 : 'i', args.batch);
    c->exact = true;
    SCALARS(c, args);
    SAY(c, "gather_batch of %u from %u, %u pixels, step %g", args.batch, args.count, args.pixels,
        c->operand[3].v[0]);
}

static void make_reduce_sum(launch_case *c, uint64_t *state) {
    bt_reduce_args args = {.outer = pick_size(state, 40), .inner = pick_size(state, 90)};
    if (odds(state, 2)) args.inner = 1;
    args.n = pick_size(state, odds(state, 4) ? 3000 : 70);
    if (args.n > 300 && args.inner > 1) args.outer = 1;
    args.mean = pick(state, 2);
    add_real(c, state, (size_t)args.outer * args.n * args.inner, -1, 1);
    add(c, 'r', (size_t)args.outer * args.inner);
    c->depth = args.n;
    c->linear = true;
    SCALARS(c, args);
    SAY(c, "reduce_sum [%u, %u, %u]%s", args.outer, args.n, args.inner, args.mean ? " mean" : "");
}

static void make_softmax(launch_case *c, uint64_t *state) {
    bt_softmax_args args = {.outer = pick_size(state, 40), .inner = 1, .log_form = pick(state, 2)};
    if (odds(state, 4)) args.inner = pick_size(state, 20);
    args.n = pick_size(state, 1000);
    size_t count = (size_t)args.outer * args.n * args.inner;
    add_real(c, state, count, -10, 10);
    add(c, 'r', count);
    c->depth = args.n;
    SCALARS(c, args);
    SAY(c, "softmax [%u, %u, %u]%s", args.outer, args.n, args.inner, args.log_form ? " log" : "");
}

static void make_xent(launch_case *c, uint64_t *state) {
    bt_xent_args args = {.rows = pick_size(state, 130), .cols = 1 + pick(state, 40)};
    add_real(c, state, (size_t)args.rows * args.cols, -10, 10);
    add_ints(c, state, 'i', args.rows, -1, (int)args.cols - 1);
    if (odds(state, 4) && args.rows > 0) c->operand[1].v[0] = args.cols; // no such class
    add(c, 'r', args.rows);
    add(c, odds(state, 3) ? 0 : 'r', (size_t)args.rows * args.cols);
    c->depth = args.cols;
    SCALARS(c, args);
    SAY(c, "xent [%u, %u]", args.rows, args.cols);
}

static void make_sumsq(launch_case *c, uint64_t *state) {
    bt_sumsq_args args = {pick_size(state, 20000)};
    add_real(c, state, args.n, -1, 1);
    add(c, 'r', ((size_t)args.n + BT_SUMSQ_CHUNK - 1) / BT_SUMSQ_CHUNK);
    c->depth = BT_SUMSQ_CHUNK;
    c->linear = true;
    SCALARS(c, args);
    SAY(c, "grad_sumsq of %u", args.n);
}

static void make_update(launch_case *c, uint64_t *state) {
    bt_update_args args = {.n = pick_size(state, 3000), .rows = 1 + pick(state, 4)};
    args.optimizer = pick(state, 4);
    bool adam = args.optimizer == BT_ADAM || args.optimizer == BT_ADAMW;
    add_real(c, state, args.n, -1, 1);
    add_real(c, state, args.n, -1, 1);
    add_maybe(c, state, adam || odds(state, 2), args.n);
    if (adam)
        add_real(c, state, args.n, 0, 1); // squares
    else
        add(c, 0, 0);
    operand *table = add(c, 'r', (size_t)args.rows * BT_HYPER_COLUMNS);
    for (uint32_t row = 0; row < args.rows; row++) {
        const double hyper[BT_HYPER_COLUMNS] = {
            [BT_HYPER_LR] = test_random(state, 1e-3, 0.1),
            [BT_HYPER_MOMENTUM] = test_random(state, 0, 1),
            [BT_HYPER_BETA2] = test_random(state, 0.9, 1),
            [BT_HYPER_EPSILON] = 1e-3,
            [BT_HYPER_DECAY] = odds(state, 2) ? 0 : test_random(state, 0, 0.1),
            [BT_HYPER_CLIP] = odds(state, 2) ? 0 : 1,
            [BT_HYPER_CORRECTION1] = test_random(state, 1, 2),
            [BT_HYPER_CORRECTION2] = test_random(state, 1, 2),
        };
        for (int i = 0; i < BT_HYPER_COLUMNS; i++)
            table->v[row * BT_HYPER_COLUMNS + (uint32_t)i] = (float)hyper[i];
    }
    add_ints(c, state, 'i', sizeof(bt_step_state) / 4, 0, 5);
    args.chunks = odds(state, 2) ? 0 : 1 + pick(state, 5);
    if (args.chunks > 0)
        add_real(c, state, args.chunks, 0, 2);
    else
        add(c, 0, 0);
    SCALARS(c, args);
    SAY(c, "update of %u by optimizer %u%s, %u parts of the norm", args.n, args.optimizer,
        c->operand[2].type ? " with moments" : "", args.chunks);
}

static void make_step_end(launch_case *c, uint64_t *state) {
    bt_step_args args = {.rows = pick_size(state, 130), .cols = 1 + pick(state, 40)};
    args.log_steps = pick(state, 4);
    args.epoch_steps = 1 + pick(state, 3);
    args.prediction_count = pick(state, 3 * args.rows + 1);
    add_maybe(c, state, !odds(state, 4), 1);
    bool logits = !odds(state, 6);
    add_ints(c, state, logits ? 'r' : 0, (size_t)args.rows * args.cols, -9, 9); // many are equal
    for (size_t i = 0; i < c->operand[1].count; i++)
        if (odds(state, 100)) c->operand[1].v[i] = NAN;
    add_ints(c, state, logits ? 'i' : 0, args.rows, -1, (int)args.cols - 1);
    add_ints(c, state, 'i', sizeof(bt_step_state) / 4, 0, 50);
    add_maybe(c, state, !odds(state, 4), 2 * (size_t)args.log_steps);
    add_ints(c, state, odds(state, 2) ? 0 : 'i', args.prediction_count, -5, -1);
    c->exact = true;
    SCALARS(c, args);
    SAY(c, "step_end of [%u, %u], %u steps logged, %u predictions", args.rows, args.cols,
        args.log_steps, args.prediction_count);
}

static void (*const makers[BT_KERNEL_COUNT])(launch_case *, uint64_t *) = {
    [BT_KERNEL_map] = make_map,
    [BT_KERNEL_matmul] = make_matmul,
    [BT_KERNEL_conv2d] = make_conv,
    [BT_KERNEL_conv2d_grad_input] = make_conv,
    [BT_KERNEL_conv2d_grad_weight] = make_conv,
    [BT_KERNEL_max_pool] = make_pool,
    [BT_KERNEL_max_pool_grad] = make_pool,
    [BT_KERNEL_gather_batch] = make_gather,
    [BT_KERNEL_reduce_sum] = make_reduce_sum,
    [BT_KERNEL_softmax] = make_softmax,
    [BT_KERNEL_xent] = make_xent,
    [BT_KERNEL_grad_sumsq] = make_sumsq,
    [BT_KERNEL_update] = make_update,
    [BT_KERNEL_step_end] = make_step_end,
};

bool has_cases(bt_kernel_id kernel) {
    return makers[kernel] != NULL;
}

launch_case make_case(bt_kernel_id kernel, uint64_t seed) {
    uint64_t state = (seed + 1) * 0x9e3779b97f4a7c15u + kernel;
    launch_case c = {.launch.kernel = (uint16_t)kernel, .slope = 1, .depth = 1};
    makers[kernel](&c, &state);
    return c;
}

void free_case(launch_case *c) {
    for (int i = 0; i < BT_BINDINGS_MAX; i++) free(c->operand[i].v);
}

launch_case absolute_case(const launch_case *c) {
    launch_case out = *c;
    bt_matmul_args matmul;
    for (int i = 0; i < out.launch.binding_count; i++) {
        const operand *from = &c->operand[i];
        if (!from->type) continue;
        out.operand[i].v = allocate(from->count * sizeof(double));
        for (size_t j = 0; j < from->count; j++) out.operand[i].v[j] = fabs(from->v[j]);
    }
    if (c->launch.kernel == BT_KERNEL_matmul) {
        memcpy(&matmul, c->launch.scalars, sizeof matmul);
        matmul.epilogue = BT_MAP_COPY;
        SCALARS(&out, matmul);
        free(out.operand[3].v);
        out.operand[3] = (operand){0};
    } else if (c->launch.kernel == BT_KERNEL_conv2d) {
        bt_conv_args conv;
        memcpy(&conv, c->launch.scalars, sizeof conv);
        conv.epilogue = BT_MAP_COPY;
        SCALARS(&out, conv);
    }
    return out;
}

// ---- Running ----------------------------------------------------------------------------------

bool is_written(const launch_case *c, int b) {
    char letter = bt_kernel_table[c->launch.kernel].bindings[b];
    return c->operand[b].type && strchr("wWuU", letter);
}

static size_t element_bytes(char type, bt_dtype dtype) {
    return type == 'b' ? 1 : type == 'r' && dtype == BT_F64 ? 8 : 4;
}

// Converts count doubles to what a kernel reads.
static void put(char *to, char type, bt_dtype dtype, const double *from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (type == 'b')
            ((uint8_t *)to)[i] = (uint8_t)from[i];
        else if (type == 'i')
            ((int32_t *)to)[i] = (int32_t)from[i];
        else if (dtype == BT_F32)
            ((float *)to)[i] = (float)from[i];
        else
            ((double *)to)[i] = from[i];
    }
}

double element_of(const launch_case *c, const outcome *out, bt_dtype dtype, int b, size_t i) {
    char type = c->operand[b].type;
    const char *at = out->block + out->at[b] + i * element_bytes(type, dtype);
    float f;
    double d;
    int32_t n;
    if (type == 'i') return memcpy(&n, at, 4), n;
    if (dtype == BT_F64) return memcpy(&d, at, 8), d;
    return memcpy(&f, at, 4), f;
}

static void *aligned(size_t bytes) { // full of bytes that are NaN as floats
    size_t rounded = (bytes + GUARD - 1) / GUARD * GUARD;
    char *memory = aligned_alloc(GUARD, rounded + GUARD);
    if (!memory) test_fail(__FILE__, __LINE__, "no memory for %zu bytes", bytes);
    memset(memory, 0xff, rounded + GUARD);
    return memory;
}

// Lays all bindings out and fills in what is read.
static outcome lay_out(const launch_case *c, bt_dtype dtype) {
    outcome out = {.bytes = GUARD};
    for (int b = 0; b < c->launch.binding_count; b++) {
        size_t bytes = c->operand[b].count * element_bytes(c->operand[b].type, dtype);
        out.at[b] = out.bytes;
        out.bytes += (bytes + GUARD - 1) / GUARD * GUARD + GUARD;
    }
    out.block = aligned(out.bytes);
    for (int b = 0; b < c->launch.binding_count; b++) {
        const operand *from = &c->operand[b];
        if (strchr("rRuU", bt_kernel_table[c->launch.kernel].bindings[b]))
            put(out.block + out.at[b], from->type, dtype, from->v, from->count);
    }
    return out;
}

// Nothing but the results has changed.
static void check_guards(const char *by, const launch_case *c, bt_dtype dtype, const outcome *out) {
    outcome clean = lay_out(c, dtype);
    for (int b = 0; b < c->launch.binding_count; b++) {
        size_t bytes = c->operand[b].count * element_bytes(c->operand[b].type, dtype);
        if (is_written(c, b)) memcpy(clean.block + clean.at[b], out->block + out->at[b], bytes);
    }
    bool same = !memcmp(out->block, clean.block, out->bytes);
    for (size_t i = 0; !same && i < out->bytes; i++) {
        if (out->block[i] == clean.block[i]) continue;
        int b = 0;
        while (b + 1 < c->launch.binding_count && i >= out->at[b + 1]) b++;
        test_fail(__FILE__, __LINE__, "%s, %s: byte %td of binding %d, which has %zu, is written",
                  by, c->text, (ptrdiff_t)i - (ptrdiff_t)out->at[b], b,
                  c->operand[b].count * element_bytes(c->operand[b].type, dtype));
    }
    free(clean.block);
}

static void run_worker(const char *by, const launch_case *c, const bt_cpu_kernel *kernel,
                       const bt_launch *launch, bt_cpu_worker me) {
    size_t bytes = kernel->scratch ? kernel->scratch(launch) : 0;
    size_t rounded = (bytes + GUARD - 1) / GUARD * GUARD;
    me.scratch = aligned(bytes);
    kernel->run(launch, &me);
    for (size_t i = rounded; i < rounded + GUARD; i++)
        if ((unsigned char)me.scratch[i] != 0xff)
            test_fail(__FILE__, __LINE__, "%s, %s: working memory of %zu bytes is written at %zu",
                      by, c->text, bytes, i);
    free(me.scratch);
}

outcome run_case(const char *by, const launch_case *c, const bt_cpu_kernel *kernel, bt_dtype dtype,
                 int workers) {
    outcome out = lay_out(c, dtype);
    bt_buffer buffer = {out.block, out.bytes};
    bt_launch launch = c->launch;
    launch.dtype = (uint8_t)dtype;
    for (int b = 0; b < launch.binding_count; b++) {
        if (!c->operand[b].type) continue;
        size_t bytes = c->operand[b].count * element_bytes(c->operand[b].type, dtype);
        launch.binding[b] = (bt_binding){&buffer, out.at[b], bytes};
    }
    for (int i = workers - 1; i >= 0; i--)
        run_worker(by, c, kernel, &launch, (bt_cpu_worker){.index = i, .count = workers});
    check_guards(by, c, dtype, &out);
    return out;
}
