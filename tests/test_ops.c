// Values of every operator against the double-precision loops of truth.c, in f32 and f64: one at
// a time, and many in one program, whose results lie next to each other in planned memory, so that
// a kernel that writes past its end is seen in its neighbour. Then special values.
#include "cases.h"
#include "support.h"

#include <math.h>
#include <string.h>

typedef struct run {
    bt_context *ctx;
    bt_dtype dtype;
    int cases;
} run;

// Inputs as dtype holds them, so that the truth starts from the same numbers.
static int make_inputs(const op_case *c, const run *r, array *in, bt_tensor *tensors) {
    for (int i = 0; i < c->inputs; i++) {
        in[i] = case_input(c, i);
        for (size_t j = 0; j < in[i].count && r->dtype == BT_F32; j++)
            in[i].v[j] = (float)in[i].v[j];
        bt_dtype dtype = c->labels && i == c->inputs - 1 ? BT_I32 : r->dtype;
        tensors[i] = from_doubles(r->ctx, dtype, in[i].shape, in[i].v, true);
    }
    return c->inputs;
}

static void compare(const op_case *c, const run *r, bt_shape shape, const double *got, array want) {
    char text[128];
    case_text(c, text, sizeof text);
    bool same = shape.rank == want.shape.rank;
    for (int i = 0; i < shape.rank && same; i++) same = shape.dim[i] == want.shape.dim[i];
    check(same, "%s: shape of rank %d [%d,%d,..] and not of rank %d [%d,%d,..]", text, shape.rank,
          shape.dim[0], shape.dim[1], want.shape.rank, want.shape.dim[0], want.shape.dim[1]);
    // A plain float loop without fused multiply-add may be off by depth * unit * sum |products|.
    double unit = r->dtype == BT_F64 ? 0x1p-53 : 0x1p-24;
    for (size_t i = 0; i < want.count; i++) {
        double tolerance = unit * (8 + c->depth / 2) * (1 + fabs(want.v[i]));
        bool fine = got[i] == want.v[i] || (isnan(got[i]) && isnan(want.v[i])) ||
                    fabs(got[i] - want.v[i]) <= tolerance;
        check(fine, "%s %s: element %zu is %.17g and not %.17g", text, bt_dtype_name(r->dtype), i,
              got[i], want.v[i]);
    }
}

static void check_case(void *user, const op_case *c) {
    run *r = user;
    uint32_t mark = bt_mark(r->ctx);
    array in[3];
    bt_tensor tensors[3];
    int inputs = make_inputs(c, r, in, tensors);
    bt_tensor y = c->build(r->ctx, c, tensors);
    double *got = read_doubles(r->ctx, y, NULL);
    array want = c->truth(c, in);
    compare(c, r, bt_tensor_shape(r->ctx, y), got, want);
    for (int i = 0; i < inputs; i++) array_free(&in[i]);
    array_free(&want);
    free(got);
    bt_release(r->ctx, mark);
    r->cases++;
}

static void check_family(void (*family)(case_fn, void *)) {
    for (int i = 0; i < 2; i++) {
        run r = {.ctx = open_cpu(2), .dtype = i ? BT_F64 : BT_F32};
        family(check_case, &r);
        check(r.cases > 5, "only %d cases ran", r.cases);
        check(!*bt_error_text(r.ctx), "%s", bt_error_text(r.ctx));
        bt_close(r.ctx);
    }
}

static void test_unary(void **state) {
    (void)state, check_family(unary_cases);
}
static void test_binary(void **state) {
    (void)state, check_family(binary_cases);
}
static void test_scalar(void **state) {
    (void)state, check_family(scalar_cases);
}
static void test_matmul(void **state) {
    (void)state, check_family(matmul_cases);
}
static void test_shapes(void **state) {
    (void)state, check_family(shape_cases);
}
static void test_reduce(void **state) {
    (void)state, check_family(reduce_cases);
}
static void test_softmax(void **state) {
    (void)state, check_family(softmax_cases);
}
static void test_conv(void **state) {
    (void)state, check_family(conv_cases);
}
static void test_pool(void **state) {
    (void)state, check_family(pool_cases);
}
static void test_loss(void **state) {
    (void)state, check_family(loss_cases);
}

// ---- Many in one program ----------------------------------------------------------------------

enum { TOGETHER = 48 };

typedef struct together {
    run run;
    op_case cases[TOGETHER];
    array want[TOGETHER];
    bt_tensor outputs[TOGETHER];
    int count;
    uint32_t mark;
} together;

static void run_together(together *t) {
    bt_context *ctx = t->run.ctx;
    bt_program *program = NULL;
    ok(ctx,
       bt_program_make(ctx, &(bt_program_desc){.outputs = t->outputs, .output_count = t->count},
                       &program));
    ok(ctx, bt_program_run(ctx, program, 2));
    for (int i = 0; i < t->count; i++) {
        size_t size = bt_dtype_size(bt_tensor_dtype(ctx, t->outputs[i])), n = t->want[i].count;
        double *got = allocate(n * sizeof *got);
        void *raw = allocate(n * size);
        ok(ctx, bt_program_read(ctx, program, i, raw, n * size));
        for (size_t j = 0; j < n; j++) {
            bool is_int = bt_tensor_dtype(ctx, t->outputs[i]) == BT_I32;
            got[j] = is_int      ? ((int32_t *)raw)[j]
                     : size == 8 ? ((double *)raw)[j]
                                 : ((float *)raw)[j];
        }
        compare(&t->cases[i], &t->run, bt_tensor_shape(ctx, t->outputs[i]), got, t->want[i]);
        free(got);
        free(raw);
        array_free(&t->want[i]);
    }
    bt_release(ctx, t->mark);
    t->count = 0;
}

static void add_together(void *user, const op_case *c) {
    together *t = user;
    if (!t->count) t->mark = bt_mark(t->run.ctx);
    array in[3];
    bt_tensor tensors[3];
    int inputs = make_inputs(c, &t->run, in, tensors);
    t->cases[t->count] = *c;
    t->want[t->count] = c->truth(c, in);
    t->outputs[t->count++] = c->build(t->run.ctx, c, tensors);
    for (int i = 0; i < inputs; i++) array_free(&in[i]);
    if (t->count == TOGETHER) run_together(t);
}

static void test_neighbours(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        together *t = allocate(sizeof *t);
        t->run = (run){.ctx = open_cpu(2), .dtype = i ? BT_F64 : BT_F32};
        unary_cases(add_together, t);
        binary_cases(add_together, t);
        matmul_cases(add_together, t);
        shape_cases(add_together, t);
        reduce_cases(add_together, t);
        softmax_cases(add_together, t);
        conv_cases(add_together, t);
        pool_cases(add_together, t);
        loss_cases(add_together, t);
        if (t->count) run_together(t);
        bt_close(t->run.ctx);
        free(t);
    }
}

// ---- Special values ---------------------------------------------------------------------------

typedef struct special {
    const char *name;
    bt_tensor (*build)(bt_context *, bt_tensor);
    double in, want;
} special;

static void check_special(bt_context *ctx, bt_dtype dtype, const special *s) {
    // 37 copies, so that vector and remainder loops both see the value.
    double in[37];
    for (int i = 0; i < 37; i++) in[i] = s->in;
    size_t n;
    bt_tensor y = s->build(ctx, from_doubles(ctx, dtype, BT_SHAPE(37), in, true));
    double *got = read_doubles(ctx, y, &n);
    for (size_t i = 0; i < n; i++) {
        bool fine = isnan(s->want) ? isnan(got[i])
                                   : got[i] == s->want && signbit(got[i]) == signbit(s->want);
        check(fine, "%s(%g) %s: element %zu is %g and not %g", s->name, s->in, bt_dtype_name(dtype),
              i, got[i], s->want);
    }
    free(got);
}

static void test_special_unary(void **state) {
    (void)state;
    static const special cases[] = {
        {"relu", bt_relu, NAN, NAN},
        {"relu", bt_relu, -INFINITY, 0},
        {"relu", bt_relu, INFINITY, INFINITY},
        {"neg", bt_neg, 0.0, -0.0},
        {"neg", bt_neg, -0.0, 0.0},
        {"neg", bt_neg, NAN, NAN},
        {"sigmoid", bt_sigmoid, -1e4, 0},
        {"sigmoid", bt_sigmoid, 1e4, 1},
        {"sigmoid", bt_sigmoid, -INFINITY, 0},
        {"sigmoid", bt_sigmoid, INFINITY, 1},
        {"sigmoid", bt_sigmoid, NAN, NAN},
        {"sigmoid", bt_sigmoid, 0, 0.5},
        {"tanh", bt_tanh, 1e4, 1},
        {"tanh", bt_tanh, -1e4, -1},
        {"tanh", bt_tanh, INFINITY, 1},
        {"tanh", bt_tanh, -INFINITY, -1},
        {"tanh", bt_tanh, NAN, NAN},
        {"tanh", bt_tanh, 0, 0},
        {"exp", bt_exp, -INFINITY, 0},
        {"exp", bt_exp, INFINITY, INFINITY},
        {"exp", bt_exp, 1e4, INFINITY},
        {"exp", bt_exp, -1e4, 0},
        {"exp", bt_exp, NAN, NAN},
        {"exp", bt_exp, 0, 1},
        {"log", bt_log, 0, -INFINITY},
        {"log", bt_log, -1, NAN},
        {"log", bt_log, INFINITY, INFINITY},
        {"log", bt_log, NAN, NAN},
        {"log", bt_log, 1, 0},
        {"sqrt", bt_sqrt, -1, NAN},
        {"sqrt", bt_sqrt, INFINITY, INFINITY},
        {"sqrt", bt_sqrt, 0, 0},
        {"gelu", bt_gelu, NAN, NAN},
        {"gelu", bt_gelu, INFINITY, INFINITY},
        {"gelu", bt_gelu, 0, 0},
        {"gelu", bt_gelu, 100, 100},
    };
    bt_context *ctx = open_cpu(2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_special(ctx, BT_F32, &cases[i]);
        check_special(ctx, BT_F64, &cases[i]);
    }
    bt_close(ctx);
}

static double scalar_of(bt_context *ctx, bt_tensor t) {
    size_t n;
    double *v = read_doubles(ctx, t, &n), value = v[0];
    check(n == 1, "%zu elements and not one", n);
    free(v);
    return value;
}

static bt_tensor row(bt_context *ctx, bt_dtype dtype, int n, const double *values) {
    return from_doubles(ctx, dtype, BT_SHAPE(1, n), values, true);
}

static void test_special_reduce(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    for (bt_dtype d = BT_F32; d <= BT_F64; d++) {
        double nan_in[] = {1, NAN, 3}, low[] = {-INFINITY, -INFINITY}, ties[] = {0, 5, 5, 1, 5};
        check(isnan(scalar_of(ctx, bt_max(ctx, row(ctx, d, 3, nan_in), 0, false))),
              "max forgets NaN");
        check(scalar_of(ctx, bt_max(ctx, row(ctx, d, 2, low), 0, false)) == -INFINITY,
              "max of -inf");
        check(scalar_of(ctx, bt_argmax(ctx, row(ctx, d, 5, ties), 1)) == 1,
              "argmax: not the first");
        bt_tensor none = bt_zeros(ctx, d, BT_SHAPE(0));
        check(scalar_of(ctx, bt_sum(ctx, none, 0, false)) == 0, "empty sum is not 0");
        check(isnan(scalar_of(ctx, bt_mean(ctx, none, 0, false))), "empty mean is not NaN");
        check(scalar_of(ctx, bt_max(ctx, none, 0, false)) == -INFINITY, "empty maximum");
    }
    bt_close(ctx);
}

static void test_special_softmax(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    double huge[] = {3e4, 3e4, -3e4, -INFINITY}, want[] = {0.5, 0.5, 0, 0};
    for (bt_dtype d = BT_F32; d <= BT_F64; d++) {
        double *y = read_doubles(ctx, bt_softmax(ctx, row(ctx, d, 4, huge), 1), NULL);
        for (int i = 0; i < 4; i++) check(y[i] == want[i], "softmax[%d] is %g", i, y[i]);
        free(y);
        double confident[] = {0, 1e4};
        int32_t wrong = 0, outside = 2, left_out = -1;
        bt_tensor logits = row(ctx, d, 2, confident);
        double loss = scalar_of(
            ctx, bt_cross_entropy(ctx, logits, bt_from(ctx, BT_I32, BT_SHAPE(1), &wrong)));
        check(loss == 1e4, "cross-entropy of a sure mistake is %g and not 10000", loss);
        loss = scalar_of(
            ctx, bt_cross_entropy(ctx, logits, bt_from(ctx, BT_I32, BT_SHAPE(1), &outside)));
        check(isnan(loss), "a label outside the classes gives %g and not NaN", loss);
        loss = scalar_of(
            ctx, bt_cross_entropy(ctx, logits, bt_from(ctx, BT_I32, BT_SHAPE(1), &left_out)));
        check(loss == 0, "no labelled row gives %g and not 0", loss);
    }
    bt_close(ctx);
}

static void test_special_propagates(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    for (bt_dtype d = BT_F32; d <= BT_F64; d++) {
        double a[] = {0, 1, 0}, b[] = {NAN, 1, INFINITY};
        bt_tensor product = bt_matmul_ex(ctx, row(ctx, d, 3, a), false, row(ctx, d, 3, b), true);
        check(isnan(scalar_of(ctx, product)), "a product skips 0 x NaN");
        double zero[] = {1, -1, 0, -0.0}, want[] = {INFINITY, -INFINITY, NAN, NAN};
        double *y = read_doubles(
            ctx, bt_div(ctx, row(ctx, d, 4, zero), bt_zeros(ctx, d, BT_SHAPE(4))), NULL);
        for (int i = 0; i < 4; i++) {
            check(y[i] == want[i] || (isnan(want[i]) && isnan(y[i])), "%g / 0 is %g", zero[i],
                  y[i]);
        }
        free(y);
        double window[] = {1, NAN, 3, 4};
        bt_tensor image = from_doubles(ctx, d, BT_SHAPE(1, 1, 2, 2), window, true);
        check(isnan(scalar_of(ctx, bt_max_pool(ctx, image, 2, 0, 0))), "max_pool forgets NaN");
        check(isnan(scalar_of(ctx, bt_avg_pool(ctx, image, 2, 0, 0))), "avg_pool forgets NaN");
    }
    bt_close(ctx);
}

// exp, tanh, sigmoid, gelu and log over their whole range, relative to their size.
static void test_ranges(void **state) {
    (void)state;
    enum { N = 20001 };
    static const struct {
        const char *name;
        bt_tensor (*build)(bt_context *, bt_tensor);
        double (*fn)(double);
        double low, high, absolute;
    } all[] = {{"exp", bt_exp, exp, -87, 88, 0},
               {"tanh", bt_tanh, tanh, -12, 12, 0},
               {"sigmoid", bt_sigmoid, truth_sigmoid, -87, 20, 0},
               {"log", bt_log, log, 1e-6, 1e3, 1},
               {"gelu", bt_gelu, truth_gelu, -10, 10, 0.2},
               {"sqrt", bt_sqrt, sqrt, 0, 1e6, 0}};
    bt_context *ctx = open_cpu(2);
    double *x = allocate(N * sizeof *x);
    for (size_t f = 0; f < 2 * sizeof all / sizeof *all; f++) {
        size_t i = f / 2;
        bt_dtype dtype = f % 2 ? BT_F64 : BT_F32;
        for (int j = 0; j < N; j++) {
            x[j] = all[i].low + (all[i].high - all[i].low) * j / (N - 1);
            if (dtype == BT_F32) x[j] = (float)x[j];
        }
        double *y = read_doubles(
            ctx, all[i].build(ctx, from_doubles(ctx, dtype, BT_SHAPE(N), x, true)), NULL);
        for (int j = 0; j < N; j++) {
            double want = all[i].fn(x[j]), unit = dtype == BT_F64 ? 0x1p-53 : 0x1p-24;
            check(fabs(y[j] - want) <= 8 * unit * (fabs(want) + all[i].absolute) + 1e-45,
                  "%s(%.9g) %s is %.17g and not %.17g", all[i].name, x[j], bt_dtype_name(dtype),
                  y[j], want);
        }
        free(y);
    }
    free(x);
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_scalar),
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_reduce),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_special_unary),
        cmocka_unit_test(test_special_reduce),
        cmocka_unit_test(test_special_softmax),
        cmocka_unit_test(test_special_propagates),
        cmocka_unit_test(test_ranges),
    };
    // Every instruction set of this machine is a device of its own.
    bt_device_info devices[16];
    int count = bt_devices(devices, 16), failed = 0;
    for (int i = 0; i < count && i < 16; i++) {
        if (strncmp(devices[i].name, "cpu:", 4) != 0) continue;
        test_device = devices[i].name;
        failed += cmocka_run_group_tests_name(devices[i].description, tests, NULL, NULL);
    }
    return failed;
}
