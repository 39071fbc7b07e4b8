// Convolution, ReLU and max pooling as one, and their gradients as one, against the plain loops in
// double precision, launch by launch, for every instruction set of this machine. Values are
// multiples of 1/4, so that sums are exact in any order and maxima are often equal: the results
// must be the same numbers.
#include "support.h"

#include <math.h>

#include "device/cpu/set.h"

// Those of this machine, without the plain loops, which come last.
static const bt_cpu_set *vectors_at(int index) {
    const bt_cpu_set *set = bt_cpu_set_at(index);
    return set && set->lanes ? set : NULL;
}

// ---- A case and its memory ---------------------------------------------------------------------

typedef struct shape {
    uint32_t n, c, h, w, o, kh, kw, padding;
    bool relu, bias;
} shape;

static const shape shapes[] = {
    {8, 1, 28, 28, 8, 5, 5, 0, true, true},   {9, 8, 12, 12, 16, 5, 5, 0, true, true},
    {3, 1, 28, 28, 6, 5, 5, 2, true, true},   {17, 6, 14, 14, 16, 5, 5, 0, true, true},
    {10, 1, 28, 28, 6, 3, 3, 0, true, true},  {8, 6, 13, 13, 12, 3, 3, 0, true, false},
    {2, 24, 12, 12, 32, 3, 3, 0, true, true}, {1, 1, 28, 28, 24, 5, 5, 0, false, true},
    {5, 2, 9, 6, 17, 3, 2, 1, true, true},    {3, 3, 8, 11, 9, 7, 7, 3, false, true},
    {2, 5, 6, 5, 33, 1, 1, 0, true, true},    {4, 4, 2, 2, 1, 1, 1, 0, false, false},
    {9, 1, 4, 6, 3, 2, 4, 0, true, true},     {1, 16, 5, 5, 5, 3, 4, 2, true, true},
    {2, 9, 20, 3, 4, 6, 2, 0, true, false},   {1, 12, 4, 40, 7, 3, 9, 4, false, true},
    {11, 1, 7, 7, 2, 1, 5, 5, true, true},    {1, 40, 6, 6, 3, 3, 3, 0, true, true},
    {2, 3, 32, 32, 8, 3, 3, 1, true, true},   {1, 1, 3, 3, 1, 2, 2, 0, true, true},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, GUARD = 64 };

static bt_conv_args conv_of(const shape *s) {
    uint32_t oh = s->h + 2 * s->padding - s->kh + 1, ow = s->w + 2 * s->padding - s->kw + 1;
    return (bt_conv_args){s->n,  s->c, s->h, s->w, s->o,       s->kh,
                          s->kw, oh,   ow,   1,    s->padding, s->relu ? BT_MAP_RELU : BT_MAP_COPY};
}

static bt_pool_args pool_of(const shape *s) {
    bt_conv_args c = conv_of(s);
    return (bt_pool_args){s->n * s->o, c.oh, c.ow, c.oh / 2, c.ow / 2, 2, 2, 0};
}

// The arrays of both directions, in float or double.
typedef enum array_id {
    X,
    WEIGHT,
    BIAS,
    Z,
    Y,
    POSITION,
    DY,
    DZ,
    DPOOL,
    PARTIAL,
    DBIAS,
    DX,
    ARRAYS
} array_id;

typedef struct memory {
    size_t count[ARRAYS], bytes[ARRAYS];
    char *block[ARRAYS]; // with a guard before and after
    bt_buffer buffer[ARRAYS];
} memory;

static void fill_counts(memory *m, const shape *s) {
    bt_conv_args c = conv_of(s);
    bt_pool_args p = pool_of(s);
    size_t taps = (size_t)s->c * s->kh * s->kw, chunks = (s->n + BT_CONV_CHUNK - 1) / BT_CONV_CHUNK;
    m->count[X] = m->count[DX] = (size_t)s->n * s->c * s->h * s->w;
    m->count[WEIGHT] = s->o * taps;
    m->count[BIAS] = s->o;
    m->count[Z] = m->count[DZ] = m->count[DPOOL] = (size_t)s->n * s->o * c.oh * c.ow;
    m->count[Y] = m->count[POSITION] = m->count[DY] = (size_t)p.planes * p.oh * p.ow;
    m->count[PARTIAL] = chunks * s->o * taps;
    m->count[DBIAS] = (size_t)s->n * s->o;
}

// Everything is NaN; what is read must be written first.
static memory make_memory(const shape *s, size_t size) {
    memory m;
    fill_counts(&m, s);
    for (int i = 0; i < ARRAYS; i++) {
        m.bytes[i] = m.count[i] * (i == POSITION ? sizeof(int32_t) : size);
        m.block[i] = allocate(m.bytes[i] + 2 * GUARD);
        memset(m.block[i], 0xff, m.bytes[i] + 2 * GUARD);
        m.buffer[i] = (bt_buffer){m.block[i] + GUARD, m.bytes[i]};
    }
    return m;
}

static void free_memory(memory *m) {
    for (int i = 0; i < ARRAYS; i++)
        for (size_t j = 0; j < GUARD; j++)
            check((m->block[i][j] & m->block[i][GUARD + m->bytes[i] + j] & 0xff) == 0xff,
                  "array %d was written beyond its ends", i);
    for (int i = 0; i < ARRAYS; i++) free(m->block[i]);
}

static float *floats(const memory *m, array_id i) {
    return m->buffer[i].handle;
}

static double *doubles(const memory *m, array_id i) {
    return m->buffer[i].handle;
}

static bt_launch launch_of(bt_kernel_id kernel, bt_dtype dtype, memory *m, const int *arrays,
                           int count, const void *args, size_t bytes) {
    bt_launch l = {.kernel = (uint16_t)kernel, .dtype = (uint8_t)dtype};
    l.binding_count = (uint8_t)count;
    for (int i = 0; i < count; i++)
        if (arrays[i] >= 0)
            l.binding[i] = (bt_binding){&m->buffer[arrays[i]], 0, m->bytes[arrays[i]]};
    memcpy(l.scalars, args, bytes);
    return l;
}
#define LAUNCH(name, dtype, m, args, ...)                             \
    launch_of(BT_KERNEL_##name, dtype, m, (const int[]){__VA_ARGS__}, \
              (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)), &(args), sizeof(args))

static void forward_parts(const shape *s, bt_dtype dtype, memory *m, bt_launch parts[2]) {
    bt_conv_args conv = conv_of(s);
    bt_pool_args pool = pool_of(s);
    parts[0] = LAUNCH(conv2d, dtype, m, conv, X, WEIGHT, s->bias ? (int)BIAS : -1, Z);
    parts[1] = LAUNCH(max_pool, dtype, m, pool, Z, Y, POSITION);
}

static void grad_parts(const shape *s, bt_dtype dtype, memory *m, bool dx, bt_launch parts[5]) {
    bt_conv_args conv = conv_of(s);
    bt_pool_args pool = pool_of(s);
    uint32_t count = (uint32_t)m->count[Z];
    bt_map_args map = {.op = BT_MAP_RELU_GRAD, .dim = {1, 1, 1, count}};
    map.a_stride[3] = map.b_stride[3] = 1;
    bt_reduce_args sum = {s->n * s->o, conv.oh * conv.ow, 1, 0};
    memset(parts, 0, 5 * sizeof *parts);
    parts[0] = LAUNCH(max_pool_grad, dtype, m, pool, DY, POSITION, s->relu ? DPOOL : DZ);
    if (s->relu) parts[1] = LAUNCH(map, dtype, m, map, Z, DPOOL, DZ);
    parts[2] = LAUNCH(conv2d_grad_weight, dtype, m, conv, DZ, X, PARTIAL);
    if (s->bias) parts[3] = LAUNCH(reduce_sum, dtype, m, sum, DZ, DBIAS);
    if (dx) parts[4] = LAUNCH(conv2d_grad_input, dtype, m, conv, DZ, WEIGHT, DX);
}

static float quarter(uint64_t *state) {
    return (float)((int)test_random(state, 0, 17) - 8) / 4;
}

// The same numbers in float and in double.
static void fill(memory *f, memory *d, array_id i, uint64_t *state) {
    for (size_t k = 0; k < f->count[i]; k++) doubles(d, i)[k] = floats(f, i)[k] = quarter(state);
}

// Most of x becomes 0, so that many windows see nothing else.
static void clear_some(memory *f, memory *d) {
    for (size_t k = 0; k < f->count[X]; k++)
        if (k / 97 % 4 || k % 13 > 3) doubles(d, X)[k] = floats(f, X)[k] = 0;
}

static void run_plain(const bt_launch *parts, int count) {
    const bt_cpu_worker alone = {.count = 1};
    for (int i = 0; i < count; i++)
        if (parts[i].binding_count > 0)
            bt_cpu_reference_f64[parts[i].kernel].run(&parts[i], &alone);
}

// As so many workers, the last one first, with working memory full of NaN.
static void run_fused(void (*run)(const bt_launch *, const bt_cpu_worker *), size_t bytes,
                      const bt_launch *parts, const void *packed, int workers) {
    size_t all = (bytes / BT_BINDING_ALIGN + 2) * BT_BINDING_ALIGN;
    unsigned char *scratch = aligned_alloc(BT_BINDING_ALIGN, all);
    assert_non_null(scratch);
    for (int i = workers - 1; i >= 0; i--) {
        memset(scratch, 0xff, all);
        const bt_cpu_worker me = {
            .index = i, .count = workers, .scratch = (char *)scratch, .packed = packed};
        run(parts, &me);
        for (size_t k = bytes; k < all; k++)
            check(scratch[k] == 0xff, "wrote past its working memory");
    }
    free(scratch);
}

static bool same(double a, double b) {
    return a == b || (isnan(a) && isnan(b));
}

static void check_array(const char *name, const shape *s, const memory *got, const memory *want,
                        array_id id, const char *what) {
    for (size_t i = 0; i < got->count[id]; i++)
        check(same(floats(got, id)[i], doubles(want, id)[i]),
              "%s, %u x [%u,%u,%u], %u filters %ux%u, padding %u: %s[%zu] is %g and not %g", name,
              s->n, s->c, s->h, s->w, s->o, s->kh, s->kw, s->padding, what, i,
              (double)floats(got, id)[i], doubles(want, id)[i]);
}

// ---- Tests -------------------------------------------------------------------------------------

static void run_shape(const bt_cpu_set *v, const shape *s, int workers) {
    uint64_t state = s->n * 1000 + s->o;
    memory f = make_memory(s, sizeof(float)), d = make_memory(s, sizeof(double));
    bt_launch parts[5], plain[5];
    const array_id inputs[] = {X, WEIGHT, BIAS, DY};
    for (int i = 0; i < 4; i++) fill(&f, &d, inputs[i], &state);
    if (workers % 2 == 0) clear_some(&f, &d);
    forward_parts(s, BT_F32, &f, parts);
    forward_parts(s, BT_F64, &d, plain);
    bt_conv_args conv = conv_of(s);
    bt_pool_args pool = pool_of(s);
    check(v->takes(&conv, &pool), "%s does not take %u x [%u,%u,%u]", v->name, s->n, s->c, s->h,
          s->w);
    run_plain(plain, 2);
    run_fused(v->grouped[BT_CPU_CONV_POOL].run, v->grouped[BT_CPU_CONV_POOL].scratch(parts), parts,
              NULL, workers);
    check_array(v->name, s, &f, &d, Y, "y");
    for (int dx = 0; dx < 2; dx++) {
        grad_parts(s, BT_F32, &f, dx, parts);
        grad_parts(s, BT_F64, &d, dx, plain);
        run_plain(plain, 5);
        run_fused(v->grouped[BT_CPU_CONV_POOL_GRAD].run,
                  v->grouped[BT_CPU_CONV_POOL_GRAD].scratch(parts), parts, NULL, workers);
        check_array(v->name, s, &f, &d, PARTIAL, "dweight");
        check_array(v->name, s, &f, &d, DBIAS, "dbias");
        check_array(v->name, s, &f, &d, DX, "dx");
        memset(f.buffer[PARTIAL].handle, 0xff, f.bytes[PARTIAL]);
    }
    free_memory(&f);
    free_memory(&d);
}

static void same_as_plain_loops(void **state) {
    (void)state;
    const bt_cpu_set *v;
    for (int i = 0; (v = vectors_at(i)); i++)
        for (int j = 0; j < SHAPES; j++)
            for (int workers = 1; workers <= 4; workers++) run_shape(v, &shapes[j], workers);
}

// Any numbers: y has the bits of a convolution and a pooling one after the other, and everything
// the same bits whatever the number of workers.
static void same_bits(void **state) {
    (void)state;
    const bt_cpu_set *v;
    for (int i = 0; (v = vectors_at(i)); i++)
        for (int j = 0; j < SHAPES; j++) {
            const shape *s = &shapes[j];
            uint64_t random = 77;
            memory one = make_memory(s, sizeof(float)), many = make_memory(s, sizeof(float));
            memory *const both[] = {&one, &many};
            const array_id inputs[] = {X, WEIGHT, BIAS, DY}, outputs[] = {Y, PARTIAL, DBIAS, DX};
            for (int k = 0; k < 4; k++)
                for (size_t e = 0; e < one.count[inputs[k]]; e++)
                    floats(&one, inputs[k])[e] = floats(&many, inputs[k])[e] =
                        (float)test_random(&random, -1, 1);
            for (int k = 0; k < 2; k++) {
                bt_launch parts[5];
                forward_parts(s, BT_F32, both[k], parts);
                run_fused(v->grouped[BT_CPU_CONV_POOL].run,
                          v->grouped[BT_CPU_CONV_POOL].scratch(parts), parts, NULL, k ? 3 : 1);
                grad_parts(s, BT_F32, both[k], true, parts);
                run_fused(v->grouped[BT_CPU_CONV_POOL_GRAD].run,
                          v->grouped[BT_CPU_CONV_POOL_GRAD].scratch(parts), parts, NULL, k ? 3 : 1);
            }
            for (int k = 0; k < 4; k++)
                assert_memory_equal(one.buffer[outputs[k]].handle, many.buffer[outputs[k]].handle,
                                    one.bytes[outputs[k]]);
            bt_launch parts[2];
            const bt_cpu_worker alone = {.count = 1, .scratch = allocate(16 << 20)};
            forward_parts(s, BT_F32, &one, parts);
            v->kernels[BT_KERNEL_conv2d].run(&parts[0], &alone);
            bt_cpu_reference_f32[BT_KERNEL_max_pool].run(&parts[1], &alone);
            assert_memory_equal(one.buffer[Y].handle, many.buffer[Y].handle, one.bytes[Y]);
            free(alone.scratch);
            free_memory(&one);
            free_memory(&many);
        }
}

// NaN is the largest number. Inference: nobody wants positions, and weights have been packed.
static void not_a_number(void **state) {
    (void)state;
    const bt_cpu_set *v;
    for (int i = 0; (v = vectors_at(i)); i++)
        for (int j = 0; j < SHAPES; j++) {
            const shape *s = &shapes[j];
            uint64_t random = 5;
            memory f = make_memory(s, sizeof(float)), d = make_memory(s, sizeof(double));
            bt_launch parts[2], plain[2];
            fill(&f, &d, X, &random);
            fill(&f, &d, WEIGHT, &random);
            fill(&f, &d, BIAS, &random);
            doubles(&d, X)[d.count[X] / 3] = floats(&f, X)[d.count[X] / 3] = NAN;
            doubles(&d, WEIGHT)[0] = floats(&f, WEIGHT)[0] = s->padding ? 1 : (float)INFINITY;
            forward_parts(s, BT_F32, &f, parts);
            forward_parts(s, BT_F64, &d, plain);
            parts[1].binding[2] = (bt_binding){0};
            run_plain(plain, 2);
            char *packed = allocate(v->grouped[BT_CPU_CONV_POOL].packed(parts) + GUARD);
            memset(packed, 0xff, v->grouped[BT_CPU_CONV_POOL].packed(parts) + GUARD);
            v->grouped[BT_CPU_CONV_POOL].pack(parts, packed);
            run_fused(v->grouped[BT_CPU_CONV_POOL].run, v->grouped[BT_CPU_CONV_POOL].scratch(parts),
                      parts, packed, 2);
            check((packed[v->grouped[BT_CPU_CONV_POOL].packed(parts)] & 0xff) == 0xff,
                  "packing goes too far");
            free(packed);
            check_array(v->name, s, &f, &d, Y, "y");
            free_memory(&f);
            free_memory(&d);
        }
}

static void not_for_all(void **state) {
    (void)state;
    const bt_cpu_set *v;
    for (int i = 0; (v = vectors_at(i)); i++) {
        const bt_conv_args conv = conv_of(&shapes[0]);
        const bt_pool_args pool = pool_of(&shapes[0]);
        bt_conv_args c = conv;
        bt_pool_args p = pool;
        assert_true(v->takes(&c, &p));
        c.stride = 2;
        assert_false(v->takes(&c, &p));
        c = conv, c.epilogue = BT_MAP_TANH;
        assert_false(v->takes(&c, &p));
        c = conv, c.oh = 1;
        assert_false(v->takes(&c, &p));
        c = conv, c.c = 4000, c.o = 4000;
        assert_false(v->takes(&c, &p));
        c = conv, c.h = c.w = 1u << 30;
        assert_false(v->takes(&c, &p));
        p.size = 3;
        assert_false(v->takes(&conv, &p));
        p = pool, p.stride = 1;
        assert_false(v->takes(&conv, &p));
        p = pool, p.padding = 1;
        assert_false(v->takes(&conv, &p));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_plain_loops),
        cmocka_unit_test(same_bits),
        cmocka_unit_test(not_a_number),
        cmocka_unit_test(not_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
