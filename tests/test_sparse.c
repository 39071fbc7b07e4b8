// Products that leave out the zeros of a gathered batch give the bits of the dense ones, for every
// instruction set of this machine, any number of workers and any shape.
#include "support.h"

#include "device/cpu/set.h"

// Those of this machine, without the plain loops, which come last.
static const bt_cpu_set *vectors_at(int index) {
    const bt_cpu_set *set = bt_cpu_set_at(index);
    return set && set->lanes ? set : NULL;
}

// ---- A case and its memory ------------------------------------------------------------------

enum { WORKERS_MAX = 5, GUARD = 64 };

// Samples are so many bytes of which `percent` are not 0; of the batch, `short_by` rows lie past
// the end of the epoch.
typedef struct shape {
    uint32_t rows, pixels, units, percent, short_by;
} shape;

static const shape shapes[] = {
    {64, 784, 128, 19, 0}, {1, 784, 128, 25, 0},  {2, 784, 10, 19, 0},   {500, 784, 17, 19, 3},
    {64, 784, 64, 0, 0},   {64, 784, 40, 100, 0}, {65, 64, 1, 30, 1},    {3, 65, 10, 40, 0},
    {513, 130, 33, 20, 0}, {7, 1000, 72, 5, 2},   {401, 67, 500, 10, 0}, {130, 401, 9, 1, 64},
    {900, 100, 65, 15, 0}, {64, 1203, 31, 49, 0}, {5, 127, 300, 20, 4},  {256, 784, 24, 90, 230},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct memory {
    bt_buffer bytes, labels, index, state, x, w, bias, y, dz, dw, scratch[WORKERS_MAX];
    bt_launch gather, forward, grad;
    bt_cpu_nonzeros *nonzeros;
    void *packed; // NULL: none
} memory;

static bt_buffer floats_of(size_t count, uint64_t *random, double low, double high) {
    bt_buffer b = {allocate(count * sizeof(float)), count * sizeof(float)};
    for (size_t i = 0; random && i < count; i++)
        ((float *)b.handle)[i] = (float)test_random(random, low, high);
    return b;
}

static bt_buffer samples_of(const shape *s, uint32_t count, uint64_t *random) {
    bt_buffer b = {allocate((size_t)count * s->pixels), (size_t)count * s->pixels};
    for (size_t i = 0; i < b.bytes; i++)
        if (test_random(random, 0, 100) < s->percent)
            ((uint8_t *)b.handle)[i] = (uint8_t)test_random(random, 1, 256);
    return b;
}

static bt_buffer integers_of(uint32_t count) {
    bt_buffer b = {allocate(count * sizeof(int32_t)), count * sizeof(int32_t)};
    for (uint32_t i = 0; i < count; i++) ((int32_t *)b.handle)[i] = (int32_t)i;
    return b;
}

static void bind(bt_launch *launch, int i, bt_buffer *buffer) {
    launch->binding[i] = (bt_binding){.buffer = buffer, .bytes = buffer->bytes};
}

static bt_launch product(bt_matmul_args args, bt_buffer *a, bt_buffer *b, bt_buffer *bias,
                         bt_buffer *y) {
    bt_launch l = {.kernel = BT_KERNEL_matmul, .dtype = BT_F32, .binding_count = 5};
    args.batch1 = args.batch2 = 1;
    memcpy(l.scalars, &args, sizeof args);
    bind(&l, 0, a);
    bind(&l, 1, b);
    if (bias) bind(&l, 2, bias);
    bind(&l, 4, y);
    return l;
}

static void make_launches(memory *m, const shape *s, uint32_t count) {
    bt_gather_args gather = {count, s->rows, s->pixels, 1, 11};
    m->gather = (bt_launch){.kernel = BT_KERNEL_gather_batch, .binding_count = 6};
    memcpy(m->gather.scalars, &gather, sizeof gather);
    bind(&m->gather, 0, &m->bytes);
    bind(&m->gather, 1, &m->labels);
    bind(&m->gather, 2, &m->index);
    bind(&m->gather, 3, &m->state);
    bind(&m->gather, 4, &m->x);
    m->forward = product((bt_matmul_args){.m = s->rows,
                                          .n = s->units,
                                          .k = s->pixels,
                                          .transpose_b = 1,
                                          .epilogue = s->units % 2 ? BT_MAP_COPY : BT_MAP_RELU},
                         &m->x, &m->w, s->units % 3 ? &m->bias : NULL, &m->y);
    m->grad =
        product((bt_matmul_args){.m = s->units, .n = s->pixels, .k = s->rows, .transpose_a = 1},
                &m->dz, &m->x, NULL, &m->dw);
}

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static memory *make(const bt_cpu_set *v, const shape *s) {
    uint64_t random = 5 + s->pixels;
    uint32_t count = s->rows - s->short_by;
    memory *m = allocate(sizeof *m);
    m->bytes = samples_of(s, count, &random);
    m->labels = integers_of(count);
    m->index = integers_of(count);
    m->state = (bt_buffer){allocate(sizeof(bt_step_state)), sizeof(bt_step_state)};
    m->x = floats_of((size_t)s->rows * s->pixels, NULL, 0, 0);
    m->w = floats_of((size_t)s->units * s->pixels, &random, -1, 1);
    m->bias = floats_of(s->units, &random, -1, 1);
    m->dz = floats_of((size_t)s->rows * s->units, &random, -1, 1);
    m->y = floats_of((size_t)s->rows * s->units, NULL, 0, 0);
    m->dw = floats_of((size_t)s->units * s->pixels, NULL, 0, 0);
    make_launches(m, s, count);
    m->nonzeros = bt_cpu_nonzeros_make(s->rows, s->pixels);
    check(m->nonzeros, "no memory for the nonzeros");
    size_t forward = v->sparse_forward.scratch(&m->forward),
           dense = v->kernels[BT_KERNEL_matmul].scratch(&m->forward);
    size_t grad = v->kernels[BT_KERNEL_matmul].scratch(&m->grad);
    size_t bytes = (larger(larger(forward, dense), grad) + 255) / 256 * 256;
    for (int i = 0; i < WORKERS_MAX; i++) {
        m->scratch[i] = (bt_buffer){aligned_alloc(256, bytes), bytes};
        check(m->scratch[i].handle, "no memory");
    }
    return m;
}

static void forget(memory *m) {
    bt_buffer *all[] = {&m->bytes, &m->labels, &m->index, &m->state, &m->x,
                        &m->w,     &m->bias,   &m->y,     &m->dz,    &m->dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->handle);
    for (int i = 0; i < WORKERS_MAX; i++) free(m->scratch[i].handle);
    bt_cpu_nonzeros_free(m->nonzeros);
    free(m->packed);
    free(m);
}

// Runs a kernel as `workers` workers, one after the other, on memory full of NaN.
static void run(memory *m, bt_cpu_fn fn, const bt_launch *launch, int workers) {
    for (int i = 0; i < workers; i++) {
        memset(m->scratch[i].handle, 0xff, m->scratch[i].bytes);
        const bt_cpu_worker me = {.index = i,
                                  .count = workers,
                                  .scratch = m->scratch[i].handle,
                                  .packed = m->packed,
                                  .nonzeros = m->nonzeros};
        fn(launch, &me);
    }
}

// ---- Tests ----------------------------------------------------------------------------------

static void bits_are_those_of_the_batch(const bt_cpu_set *v, const shape *s, memory *m) {
    const float *x = m->x.handle;
    const bt_cpu_nonzeros *z = m->nonzeros;
    for (size_t r = 0; r < s->rows; r++) {
        uint32_t count = 0;
        for (size_t c = 0; c < 64 * (size_t)z->words; c++) {
            bool bit = z->bits[r * z->words + c / 64] >> c % 64 & 1;
            count += bit;
            check(bit == (c < s->pixels && x[r * s->pixels + c] != 0),
                  "%s: row %zu, column %zu of %u x %u is wrong", v->name, r, c, s->rows, s->pixels);
        }
        check(count == z->count[r], "%s: row %zu has %u, not %u nonzeros", v->name, r, count,
              z->count[r]);
    }
}

// `fn` gives the same bits as the dense kernel.
static void same_as_dense(const bt_cpu_set *v, const shape *s, memory *m, const bt_launch *launch,
                          bt_cpu_fn fn, const char *what) {
    bt_buffer *y = launch->binding[4].buffer;
    void *packed = m->packed, *want = allocate(y->bytes);
    m->packed = NULL;
    run(m, v->kernels[BT_KERNEL_matmul].run, launch, 1);
    m->packed = packed;
    memcpy(want, y->handle, y->bytes);
    for (int workers = 1; workers <= WORKERS_MAX; workers++) {
        memset(y->handle, 0xff, y->bytes);
        run(m, fn, launch, workers);
        check(memcmp(want, y->handle, y->bytes) == 0,
              "%s: %s of %u x %u (%u %%) and %u units differs with %d workers", v->name, what,
              s->rows, s->pixels, s->percent, s->units, workers);
    }
    free(want);
}

static void test_shape(const bt_cpu_set *v, const shape *s) {
    memory *m = make(v, s);
    for (int workers = 3; workers > 0; workers -= 2) {
        memset(m->nonzeros->bits, 0x55,
               (s->pixels + 63) / 64 * sizeof(uint64_t)); // of an older one
        ((bt_step_state *)m->state.handle)->step++;
        run(m, v->kernels[BT_KERNEL_gather_batch].run, &m->gather, workers);
        bits_are_those_of_the_batch(v, s, m);
    }
    same_as_dense(v, s, m, &m->forward, v->sparse_forward.run, "the product");
    same_as_dense(v, s, m, &m->grad, v->sparse_grad.run, "the gradient");
    m->packed = allocate(v->sparse_forward.packed(&m->forward));
    v->sparse_forward.pack(&m->forward, m->packed);
    same_as_dense(v, s, m, &m->forward, v->sparse_forward.run, "the product with packed weights");
    forget(m);
}

static void zeros_are_left_out(void **state) {
    (void)state;
    for (int i = 0; vectors_at(i); i++)
        for (int j = 0; j < SHAPES; j++) test_shape(vectors_at(i), &shapes[j]);
}

// Where the other operand of a zero is infinite, so that the dense product is NaN, the zero is seen
// to be left out: else this file would test the dense kernel against itself.
static void zeros_are_not_multiplied(void **state) {
    const shape s = {64, 784, 128, 19, 0};
    (void)state;
    for (int i = 0; vectors_at(i); i++) {
        const bt_cpu_set *v = vectors_at(i);
        memory *m = make(v, &s);
        run(m, v->kernels[BT_KERNEL_gather_batch].run, &m->gather, 1);
        uint32_t column = 0;
        for (const float *x = m->x.handle; x[column] != 0;) column++;
        float *w = m->w.handle, *y = m->y.handle;
        for (uint32_t u = 0; u < s.units; u++) w[u * s.pixels + column] = INFINITY;
        run(m, v->sparse_forward.run, &m->forward, 2);
        for (uint32_t u = 0; u < s.units; u++) check(y[u] == y[u], "%s: unit %u", v->name, u);
        forget(m);
    }
}

static void only_shapes_of_use(void **state) {
    (void)state;
    assert_true(bt_cpu_nonzeros_fit(1, 784));
    assert_true(bt_cpu_nonzeros_fit(60000, 784));
    assert_false(bt_cpu_nonzeros_fit(64, 63));
    assert_false(bt_cpu_nonzeros_fit(0, 784));
    assert_false(bt_cpu_nonzeros_fit(1u << 31, 784));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros_are_left_out),
        cmocka_unit_test(zeros_are_not_multiplied),
        cmocka_unit_test(only_shapes_of_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
