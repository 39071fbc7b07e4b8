// The cases of cases.h: shapes with 0, 1, primes, and one less and more than a vector.
#include "cases.h"
#include "support.h"

#include <math.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

void case_text(const op_case *c, char *text, size_t bytes) {
    size_t at = (size_t)snprintf(text, bytes, "%s", c->name);
    for (int i = 0; i < c->inputs; i++) {
        at += (size_t)snprintf(text + at, bytes - at, " [");
        for (int d = 0; d < c->in[i].rank; d++) {
            at += (size_t)snprintf(text + at, bytes - at, d ? ",%d" : "%d", c->in[i].dim[d]);
        }
        at += (size_t)snprintf(text + at, bytes - at, "]");
    }
    snprintf(text + at, bytes - at, " (%d,%d,%d,%d)", c->p[0], c->p[1], c->p[2], c->p[3]);
}

array case_input(const op_case *c, int i) {
    array a = array_new(c->in[i]);
    uint64_t state = 977u * (uint64_t)(i + 1) + a.count;
    bool labels = c->labels && i == c->inputs - 1;
    for (size_t j = 0; j < a.count; j++) {
        a.v[j] = test_random(&state, c->low, c->high);
        // Every fifth row is left out.
        if (labels)
            a.v[j] = j % 5 == 4 ? -1 : (double)(state >> 33 & 0xffff) * c->in[0].dim[1] / 65536;
        if (labels) a.v[j] = floor(a.v[j]);
    }
    return a;
}

// ---- Elementwise ------------------------------------------------------------------------------

typedef struct unary_op {
    const char *name;
    bt_tensor (*build)(bt_context *, bt_tensor);
    double (*fn)(double);
    double low, high;
} unary_op;

static double negative(double x) {
    return -x;
}
static double cube(void *user, double x) {
    return *(double *)user * x * x * x;
}
static double cube_slope(void *user, double x) {
    return *(double *)user * 3 * x * x;
}
static double truth_cube(double x) {
    return 0.5 * x * x * x;
}
static bt_tensor build_cube(bt_context *ctx, bt_tensor a) {
    static double half = 0.5;
    return bt_map(ctx, a, cube, cube_slope, &half);
}

static const unary_op unary_ops[] = {
    {"neg", bt_neg, negative, -3, 3},
    {"relu", bt_relu, truth_relu, -3, 3},
    {"sigmoid", bt_sigmoid, truth_sigmoid, -9, 9},
    {"tanh", bt_tanh, tanh, -4, 4},
    {"gelu", bt_gelu, truth_gelu, -5, 5},
    {"exp", bt_exp, exp, -3, 3},
    {"log", bt_log, log, 0.1, 9},
    {"sqrt", bt_sqrt, sqrt, 0.1, 9},
    {"map", build_cube, truth_cube, -2, 2},
};

static const bt_shape shapes[] = {
    {0, {0}},          {1, {1}},           {1, {2}},      {1, {7}},    {1, {31}},
    {1, {32}},         {1, {33}},          {1, {0}},      {2, {3, 0}}, {3, {2, 3, 5}},
    {4, {1, 1, 1, 1}}, {4, {17, 1, 3, 2}}, {2, {13, 17}}, {1, {4099}}, {2, {129, 257}},
};

static bt_tensor build_unary(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return c->unary->build(ctx, in[0]);
}
static array truth_unary(const op_case *c, const array *in) {
    return truth_map(in[0], c->unary->fn);
}

void unary_cases(case_fn fn, void *user) {
    for (size_t o = 0; o < COUNT(unary_ops); o++) {
        for (size_t s = 0; s < COUNT(shapes); s++) {
            const unary_op *op = &unary_ops[o];
            fn(user, &(op_case){.name = op->name,
                                .inputs = 1,
                                .in = {shapes[s]},
                                .low = op->low,
                                .high = op->high,
                                .unary = op,
                                .build = build_unary,
                                .truth = truth_unary});
        }
    }
}

typedef struct binary_op {
    const char *name;
    bt_tensor (*build)(bt_context *, bt_tensor, bt_tensor);
    bt_tensor (*with_scalar)(bt_context *, bt_tensor, double);
    double (*fn)(double, double);
} binary_op;

static double add(double a, double b) {
    return a + b;
}
static double sub(double a, double b) {
    return a - b;
}
static double mul(double a, double b) {
    return a * b;
}
static double divide(double a, double b) {
    return a / b;
}

static const binary_op binary_ops[] = {{"add", bt_add, bt_add_scalar, add},
                                       {"sub", bt_sub, bt_sub_scalar, sub},
                                       {"mul", bt_mul, bt_mul_scalar, mul},
                                       {"div", bt_div, bt_div_scalar, divide}};

static const bt_shape pairs[][2] = {
    {{1, {5}}, {1, {1}}},
    {{1, {1}}, {1, {5}}},
    {{2, {3, 1}}, {2, {1, 4}}},
    {{3, {2, 3, 4}}, {1, {4}}},
    {{3, {2, 3, 4}}, {2, {3, 1}}},
    {{0, {0}}, {1, {3}}},
    {{1, {3}}, {0, {0}}},
    {{4, {2, 1, 4, 1}}, {3, {3, 1, 5}}},
    {{1, {0}}, {1, {1}}},
    {{2, {2, 0}}, {2, {1, 1}}},
    {{2, {8, 33}}, {1, {33}}},
    {{2, {8, 33}}, {2, {8, 1}}},
    {{2, {1, 33}}, {2, {8, 1}}},
    {{2, {7, 31}}, {2, {7, 31}}},
    {{4, {2, 3, 5, 7}}, {4, {1, 3, 1, 7}}},
    {{1, {7}}, {4, {2, 3, 5, 7}}},
    {{2, {65, 130}}, {1, {130}}},
    {{4, {3, 1, 1, 2}}, {4, {1, 2, 3, 1}}},
};

static bt_tensor build_binary(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return c->binary->build(ctx, in[0], in[1]);
}
static array truth_of_binary(const op_case *c, const array *in) {
    return truth_binary(in[0], in[1], c->binary->fn);
}

void binary_cases(case_fn fn, void *user) {
    for (size_t o = 0; o < COUNT(binary_ops); o++) {
        op_case c = {.name = binary_ops[o].name,
                     .inputs = 2,
                     .low = 0.2,
                     .high = 3,
                     .binary = &binary_ops[o],
                     .build = build_binary,
                     .truth = truth_of_binary};
        for (size_t s = 0; s < COUNT(shapes); s++) {
            c.in[0] = c.in[1] = shapes[s];
            fn(user, &c);
        }
        for (size_t s = 0; s < COUNT(pairs); s++) {
            c.in[0] = pairs[s][0];
            c.in[1] = pairs[s][1];
            fn(user, &c);
        }
    }
}

static bt_tensor build_scalar(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return c->binary->with_scalar(ctx, in[0], c->scalar);
}
static array truth_scalar(const op_case *c, const array *in) {
    array b = {.count = 1, .v = &(double){c->scalar}};
    return truth_binary(in[0], b, c->binary->fn);
}

void scalar_cases(case_fn fn, void *user) {
    for (size_t o = 0; o < COUNT(binary_ops); o++) {
        for (size_t s = 0; s < COUNT(shapes); s++) {
            fn(user, &(op_case){.name = binary_ops[o].name,
                                .inputs = 1,
                                .in = {shapes[s]},
                                .low = -2,
                                .high = 2,
                                .scalar = -1.375,
                                .binary = &binary_ops[o],
                                .build = build_scalar,
                                .truth = truth_scalar});
        }
    }
}

// ---- Products ---------------------------------------------------------------------------------

static bt_tensor build_matmul(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    if (!c->p[0] && !c->p[1]) return bt_matmul(ctx, in[0], in[1]);
    return bt_matmul_ex(ctx, in[0], c->p[0], in[1], c->p[1]);
}
static array truth_of_matmul(const op_case *c, const array *in) {
    return truth_matmul(in[0], c->p[0], in[1], c->p[1]);
}

static void matmul_case(case_fn fn, void *user, bt_shape a, bt_shape b, int flip) {
    op_case c = {.name = "matmul",
                 .inputs = 2,
                 .in = {a, b},
                 .low = -1,
                 .high = 1,
                 .depth = a.dim[a.rank - 1],
                 .p = {flip & 1, flip >> 1},
                 .build = build_matmul,
                 .truth = truth_of_matmul};
    for (int i = 0; i < 2; i++) {
        if (!c.p[i]) continue;
        int *dim = &c.in[i].dim[c.in[i].rank - 2], swap = dim[0];
        dim[0] = dim[1];
        dim[1] = swap;
    }
    fn(user, &c);
}

void matmul_cases(case_fn fn, void *user) {
    static const int mkn[][3] = {
        {1, 1, 1},     {2, 3, 5},    {3, 7, 1},     {1, 31, 33},  {5, 1, 7},
        {16, 16, 16},  {31, 32, 33}, {33, 31, 32},  {17, 64, 65}, {0, 3, 4},
        {3, 0, 4},     {3, 4, 0},    {64, 100, 10}, {1, 257, 1},  {129, 67, 131},
        {65, 300, 70}, {4, 5, 100},  {100, 5, 4},   {7, 1031, 9},
    };
    static const bt_shape batched[][2] = {
        {{3, {3, 4, 5}}, {3, {3, 5, 6}}},       {{3, {3, 4, 5}}, {2, {5, 6}}},
        {{2, {4, 5}}, {3, {3, 5, 6}}},          {{4, {2, 3, 4, 5}}, {4, {2, 3, 5, 7}}},
        {{4, {2, 1, 4, 5}}, {4, {1, 3, 5, 7}}}, {{4, {2, 3, 9, 1}}, {3, {3, 1, 9}}},
        {{3, {0, 4, 5}}, {3, {0, 5, 6}}},       {{3, {7, 33, 17}}, {3, {1, 17, 31}}},
    };
    for (int flip = 0; flip < 4; flip++) {
        for (size_t i = 0; i < COUNT(mkn); i++) {
            const int *s = mkn[i];
            matmul_case(fn, user, BT_SHAPE(s[0], s[1]), BT_SHAPE(s[1], s[2]), flip);
        }
        for (size_t i = 0; i < COUNT(batched); i++) {
            matmul_case(fn, user, batched[i][0], batched[i][1], flip);
        }
    }
}

// ---- Shapes -----------------------------------------------------------------------------------

static bt_tensor build_permute(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return bt_permute(ctx, in[0], c->p);
}
static array truth_of_permute(const op_case *c, const array *in) {
    return truth_permute(in[0], c->p);
}
static bt_tensor build_transpose(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    (void)c;
    return bt_transpose(ctx, in[0]);
}
static bt_shape shape_of(const int *p) { // p = {rank, dims}
    bt_shape shape = {.rank = p[0]};
    for (int i = 0; i < p[0]; i++) shape.dim[i] = p[1 + i];
    return shape;
}
static bt_tensor build_reshape(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    bt_shape shape = shape_of(c->p);
    if (shape.rank > 1 && in[0].id % 2 && c->in[0].dim[0]) shape.dim[1] = -1;
    return bt_reshape(ctx, in[0], shape);
}
static array truth_reshape(const op_case *c, const array *in) {
    array y = truth_broadcast(in[0], in[0].shape);
    y.shape = shape_of(c->p);
    return y;
}
static bt_tensor build_broadcast(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return bt_broadcast(ctx, in[0], shape_of(c->p));
}
static array truth_of_broadcast(const op_case *c, const array *in) {
    return truth_broadcast(in[0], shape_of(c->p));
}

void shape_cases(case_fn fn, void *user) {
    static const int orders[][4] = {
        {0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {0, 2, 3, 1}, {2, 0, 1, 3}};
    static const bt_shape fours[] = {{4, {2, 3, 4, 5}}, {4, {1, 33, 1, 7}}, {4, {3, 0, 2, 1}}};
    op_case c = {.inputs = 1, .low = -2, .high = 2};
    c.name = "permute", c.build = build_permute, c.truth = truth_of_permute;
    for (size_t o = 0; o < COUNT(orders); o++) {
        memcpy(c.p, orders[o], sizeof orders[o]);
        for (size_t s = 0; s < COUNT(fours); s++) {
            c.in[0] = fours[s];
            fn(user, &c);
        }
    }
    static const bt_shape flips[] = {{2, {3, 5}}, {2, {33, 31}}, {3, {2, 3, 4}},
                                     {2, {1, 7}}, {2, {0, 3}},   {2, {130, 67}}};
    c.name = "transpose", c.build = build_transpose;
    for (size_t s = 0; s < COUNT(flips); s++) {
        int r = flips[s].rank;
        c.in[0] = flips[s];
        memcpy(c.p, r == 2 ? (int[]){1, 0, 2, 3} : (int[]){0, 2, 1, 3}, 4 * sizeof(int));
        fn(user, &c);
    }
    static const bt_shape from[] = {
        {2, {6, 4}}, {4, {2, 3, 4, 1}}, {0, {0}}, {1, {0}}, {3, {5, 1, 7}}};
    static const int to[][5] = {{3, 2, 3, 4}, {1, 24}, {2, 1, 1}, {2, 0, 4}, {2, 7, 5}};
    c.name = "reshape", c.build = build_reshape, c.truth = truth_reshape;
    for (size_t s = 0; s < COUNT(from); s++) {
        c.in[0] = from[s];
        memcpy(c.p, to[s], sizeof to[s]);
        fn(user, &c);
    }
    static const bt_shape small[] = {{0, {0}}, {1, {1}}, {2, {3, 1}}, {1, {33}}, {3, {2, 1, 5}}};
    static const int large[][5] = {{2, 3, 4}, {1, 0}, {3, 2, 3, 7}, {2, 4, 33}, {4, 3, 2, 4, 5}};
    c.name = "broadcast", c.build = build_broadcast, c.truth = truth_of_broadcast;
    for (size_t s = 0; s < COUNT(small); s++) {
        c.in[0] = small[s];
        memcpy(c.p, large[s], sizeof large[s]);
        fn(user, &c);
    }
}

// ---- Reductions -------------------------------------------------------------------------------

typedef bt_tensor (*reduce_fn)(bt_context *, bt_tensor, unsigned, bool);

static bt_tensor build_reduce(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    reduce_fn fn = c->p[0] == 's' ? bt_sum : c->p[0] == 'm' ? bt_mean : bt_max;
    return fn(ctx, in[0], (unsigned)c->p[1], c->p[2]);
}
static array truth_of_reduce(const op_case *c, const array *in) {
    return truth_reduce(in[0], (char)c->p[0], (unsigned)c->p[1], c->p[2]);
}
static bt_tensor build_argmax(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return bt_argmax(ctx, in[0], c->p[0]);
}
static array truth_of_argmax(const op_case *c, const array *in) {
    return truth_argmax(in[0], c->p[0]);
}

void reduce_cases(case_fn fn, void *user) {
    static const bt_shape ins[] = {{1, {1}},       {1, {33}},   {1, {5000}},     {2, {7, 31}},
                                   {2, {0, 3}},    {2, {3, 0}}, {3, {2, 33, 3}}, {4, {2, 3, 5, 7}},
                                   {2, {300, 17}}, {0, {0}},    {3, {4, 1, 6}}};
    static const char ops[] = "smx";
    op_case c = {
        .inputs = 1, .low = -2, .high = 2, .build = build_reduce, .truth = truth_of_reduce};
    for (size_t s = 0; s < COUNT(ins); s++) {
        c.in[0] = ins[s];
        c.depth = 5000;
        for (unsigned axes = 0; axes < 1u << ins[s].rank; axes++) {
            for (int o = 0; o < 6; o++) {
                c.name = (const char *[]){"sum", "mean", "max"}[o % 3];
                c.p[0] = ops[o % 3], c.p[1] = (int)axes, c.p[2] = o / 3;
                fn(user, &c);
            }
        }
    }
    op_case a = {.name = "argmax",
                 .inputs = 1,
                 .low = -2,
                 .high = 2,
                 .no_gradient = true,
                 .build = build_argmax,
                 .truth = truth_of_argmax};
    for (size_t s = 0; s < COUNT(ins); s++) {
        a.in[0] = ins[s];
        for (a.p[0] = 0; a.p[0] < ins[s].rank; a.p[0]++) {
            if (ins[s].dim[a.p[0]]) fn(user, &a);
        }
    }
}

static bt_tensor build_softmax(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return (c->p[1] ? bt_log_softmax : bt_softmax)(ctx, in[0], c->p[0]);
}
static array truth_of_softmax(const op_case *c, const array *in) {
    return truth_softmax(in[0], c->p[0], c->p[1]);
}

void softmax_cases(case_fn fn, void *user) {
    static const bt_shape ins[] = {{1, {1}},    {1, {33}},      {2, {7, 10}},      {2, {31, 3}},
                                   {2, {0, 5}}, {3, {2, 5, 3}}, {4, {2, 3, 2, 5}}, {2, {3, 1000}}};
    for (size_t s = 0; s < COUNT(ins); s++) {
        for (int i = 0; i < 2 * ins[s].rank; i++) {
            fn(user, &(op_case){.name = i % 2 ? "log_softmax" : "softmax",
                                .inputs = 1,
                                .in = {ins[s]},
                                .low = -4,
                                .high = 4,
                                .p = {i / 2, i % 2},
                                .depth = ins[s].dim[i / 2],
                                .build = build_softmax,
                                .truth = truth_of_softmax});
        }
    }
}

// ---- Images -----------------------------------------------------------------------------------

static bt_tensor build_conv(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return bt_conv2d(ctx, in[0], in[1], c->inputs == 3 ? in[2] : (bt_tensor){0}, c->p[0], c->p[1]);
}
static array truth_conv(const op_case *c, const array *in) {
    return truth_conv2d(in[0], in[1], c->inputs == 3 ? &in[2] : NULL, c->p[0] ? c->p[0] : 1,
                        c->p[1]);
}
static bt_tensor build_im2col(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return bt_im2col(ctx, in[0], c->p[2], c->p[3], c->p[0], c->p[1]);
}
static array truth_of_im2col(const op_case *c, const array *in) {
    return truth_im2col(in[0], c->p[2], c->p[3], c->p[0] ? c->p[0] : 1, c->p[1]);
}

void conv_cases(case_fn fn, void *user) {
    static const int cases[][9] = {
        // n, c, h, w, o, kh, kw, stride, padding
        {1, 1, 1, 1, 1, 1, 1, 0, 0},    {2, 1, 28, 28, 8, 5, 5, 1, 0},
        {3, 8, 12, 12, 16, 5, 5, 1, 0}, {2, 3, 7, 9, 4, 3, 3, 2, 1},
        {1, 2, 5, 5, 3, 5, 5, 1, 2},    {2, 1, 13, 11, 5, 3, 3, 3, 0},
        {1, 3, 6, 6, 2, 1, 1, 1, 0},    {0, 1, 5, 5, 2, 3, 3, 1, 0},
        {9, 2, 6, 5, 3, 2, 2, 1, 1},    {17, 1, 8, 8, 33, 3, 3, 1, 1},
        {2, 2, 6, 7, 3, 2, 3, 1, 0},    {1, 1, 3, 35, 2, 3, 1, 1, 0},
        {2, 5, 4, 4, 7, 4, 4, 1, 0},    {8, 1, 5, 6, 1, 2, 2, 4, 2},
        {1, 17, 3, 3, 1, 3, 3, 1, 1},   {3, 2, 10, 10, 6, 3, 3, 1, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const int *s = cases[i];
        op_case c = {.name = "conv2d",
                     .low = -1,
                     .high = 1,
                     .depth = s[1] * s[5] * s[6],
                     .p = {s[7], s[8], s[5], s[6]},
                     .in = {BT_SHAPE(s[0], s[1], s[2], s[3]), BT_SHAPE(s[4], s[1], s[5], s[6]),
                            BT_SHAPE(s[4])}};
        c.build = build_conv, c.truth = truth_conv;
        for (c.inputs = 2; c.inputs <= 3; c.inputs++) fn(user, &c);
        c.name = "im2col", c.inputs = 1, c.build = build_im2col, c.truth = truth_of_im2col;
        fn(user, &c);
    }
}

static bt_tensor build_pool(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    return (c->p[3] ? bt_max_pool : bt_avg_pool)(ctx, in[0], c->p[0], c->p[1], c->p[2]);
}
static array truth_of_pool(const op_case *c, const array *in) {
    return truth_pool(in[0], c->p[3], c->p[0], c->p[1] ? c->p[1] : c->p[0], c->p[2]);
}
static bt_tensor build_bias(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    (void)c;
    return bt_bias(ctx, in[0], in[1]);
}
static array truth_of_bias(const op_case *c, const array *in) {
    (void)c;
    return truth_bias(in[0], in[1]);
}

void pool_cases(case_fn fn, void *user) {
    static const int cases[][7] = {
        // n, c, h, w, size, stride, padding
        {1, 1, 2, 2, 2, 0, 0}, {2, 3, 24, 24, 2, 0, 0}, {1, 2, 7, 7, 3, 2, 1},
        {1, 1, 5, 5, 2, 1, 0}, {2, 2, 8, 6, 3, 0, 0},   {1, 3, 9, 9, 3, 1, 1},
        {3, 1, 5, 7, 2, 2, 1}, {0, 2, 4, 4, 2, 0, 0},   {1, 1, 33, 31, 4, 3, 2},
        {2, 5, 3, 3, 1, 1, 0}, {1, 7, 7, 7, 7, 0, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        const int *s = cases[i];
        for (int max = 0; max < 2; max++) {
            fn(user, &(op_case){.name = max ? "max_pool" : "avg_pool",
                                .inputs = 1,
                                .in = {BT_SHAPE(s[0], s[1], s[2], s[3])},
                                .low = -2,
                                .high = 2,
                                .p = {s[4], s[5], s[6], max},
                                .build = build_pool,
                                .truth = truth_of_pool});
        }
    }
    static const bt_shape biased[] = {
        {2, {3, 5}}, {3, {2, 3, 7}}, {4, {2, 33, 3, 5}}, {4, {0, 2, 3, 3}}, {2, {7, 1}}};
    for (size_t i = 0; i < COUNT(biased); i++) {
        fn(user, &(op_case){.name = "bias",
                            .inputs = 2,
                            .low = -2,
                            .high = 2,
                            .in = {biased[i], BT_SHAPE(biased[i].dim[1])},
                            .build = build_bias,
                            .truth = truth_of_bias});
    }
}

// ---- Losses -----------------------------------------------------------------------------------

static bt_tensor build_cross_entropy(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    (void)c;
    return bt_cross_entropy(ctx, in[0], in[1]);
}
static array truth_of_cross_entropy(const op_case *c, const array *in) {
    (void)c;
    return truth_cross_entropy(in[0], in[1]);
}
static bt_tensor build_mse(bt_context *ctx, const op_case *c, const bt_tensor *in) {
    (void)c;
    return bt_mse(ctx, in[0], in[1]);
}
static array truth_of_mse(const op_case *c, const array *in) {
    (void)c;
    return truth_mse(in[0], in[1]);
}

void loss_cases(case_fn fn, void *user) {
    static const int sizes[][2] = {{1, 1},   {1, 10},   {5, 3},   {33, 10},
                                   {64, 31}, {7, 1000}, {300, 10}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        int rows = sizes[i][0], cols = sizes[i][1];
        fn(user, &(op_case){.name = "cross_entropy",
                            .inputs = 2,
                            .labels = true,
                            .low = -4,
                            .high = 4,
                            .depth = rows + cols,
                            .in = {BT_SHAPE(rows, cols), BT_SHAPE(rows)},
                            .build = build_cross_entropy,
                            .truth = truth_of_cross_entropy});
        fn(user, &(op_case){.name = "mse",
                            .inputs = 2,
                            .low = -2,
                            .high = 2,
                            .depth = rows * cols,
                            .in = {BT_SHAPE(rows, cols), BT_SHAPE(rows, cols)},
                            .build = build_mse,
                            .truth = truth_of_mse});
    }
}
