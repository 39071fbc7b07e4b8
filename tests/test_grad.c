// bt_grad against central differences in f64: every operator over the cases of cases.c, tensors
// used more than once, and whole nets. A probe moves a few elements of one tensor at a time.
#include "cases.h"
#include "support.h"

#include <math.h>

enum { INPUTS_MAX = 16 };

typedef struct net {
    bt_context *ctx;
    bt_tensor loss;
    bt_tensor in[INPUTS_MAX];
    double *value[INPUTS_MAX], *grad[INPUTS_MAX];
    size_t count[INPUTS_MAX];
    int inputs;
    const char *name;
} net;

static double loss_of(net *n) {
    double loss;
    ok(n->ctx, bt_read(n->ctx, n->loss, &loss, sizeof loss));
    return loss;
}

// f(x + t direction) for the sparse direction {at, by}.
static double loss_at(net *n, int input, const size_t *at, const double *by, double t) {
    double keep[4];
    for (int i = 0; i < 4; i++) keep[i] = n->value[input][at[i]];
    for (int i = 0; i < 4; i++) n->value[input][at[i]] += t * by[i];
    write_doubles(n->ctx, n->in[input], n->value[input], n->count[input]);
    double loss = loss_of(n);
    for (int i = 0; i < 4; i++) n->value[input][at[i]] = keep[i];
    return loss;
}

static void probe(net *n, int input, uint64_t *random) {
    const double h = 1e-4;
    size_t at[4];
    double by[4], got = 0;
    for (int i = 0; i < 4; i++) {
        at[i] = (size_t)test_random(random, 0, (double)n->count[input]);
        by[i] = test_random(random, -1, 1);
        for (int j = 0; j < i; j++) {
            if (at[j] == at[i]) by[i] = 0; // the same element twice counts once
        }
        got += by[i] * n->grad[input][at[i]];
    }
    // Four points: the error falls with h^4.
    double near = loss_at(n, input, at, by, h) - loss_at(n, input, at, by, -h);
    double far = loss_at(n, input, at, by, 2 * h) - loss_at(n, input, at, by, -2 * h);
    double want = (8 * near - far) / (12 * h);
    write_doubles(n->ctx, n->in[input], n->value[input], n->count[input]);
    // The loss itself is rounded, which the division by h magnifies.
    double noise = 8 * 0x1p-53 * fabs(loss_of(n)) / h;
    check(fabs(got - want) <= 1e-6 * fmax(fabs(want), 0.05) + noise,
          "%s: gradient of input %d along element %zu ... is %.12g, differences give %.12g",
          n->name, input, at[0], got, want);
}

// n->in and n->loss are set; compares the gradients of all inputs.
static void check_net(net *n, int probes) {
    bt_tensor grads[INPUTS_MAX];
    ok(n->ctx, bt_grad(n->ctx, n->loss, n->in, n->inputs, grads));
    for (int i = 0; i < n->inputs; i++) {
        bt_shape shape = bt_tensor_shape(n->ctx, n->in[i]), got = bt_tensor_shape(n->ctx, grads[i]);
        check(shape.rank == got.rank && bt_shape_count(shape) == bt_shape_count(got),
              "%s: the gradient of input %d has another shape", n->name, i);
        n->value[i] = read_doubles(n->ctx, n->in[i], &n->count[i]);
        n->grad[i] = read_doubles(n->ctx, grads[i], NULL);
    }
    uint64_t random = 5;
    for (int i = 0; i < n->inputs; i++) {
        for (int p = 0; p < probes && n->count[i]; p++) probe(n, i, &random);
    }
    for (int i = 0; i < n->inputs; i++) {
        free(n->value[i]);
        free(n->grad[i]);
    }
}

// A loss in which every element of y has its own weight.
static bt_tensor weighted(bt_context *ctx, bt_tensor y) {
    bt_tensor w = bt_random_uniform(ctx, BT_F64, bt_tensor_shape(ctx, y), 11, 0.2, 1);
    return bt_sum(ctx, bt_mul(ctx, y, w), 0, false);
}

static void check_case(void *user, const op_case *c) {
    bt_context *ctx = user;
    if (c->no_gradient) return;
    char text[128];
    case_text(c, text, sizeof text);
    uint32_t mark = bt_mark(ctx);
    net n = {.ctx = ctx, .inputs = c->inputs - c->labels, .name = text};
    bt_tensor in[3];
    for (int i = 0; i < c->inputs; i++) {
        array a = case_input(c, i);
        bt_dtype dtype = i < n.inputs ? BT_F64 : BT_I32;
        in[i] = from_doubles(ctx, dtype, a.shape, a.v, true);
        n.in[i] = in[i];
        array_free(&a);
    }
    n.loss = weighted(ctx, c->build(ctx, c, in));
    check_net(&n, quick() ? 2 : 6);
    bt_release(ctx, mark);
}

static void check_family(void (*family)(case_fn, void *)) {
    bt_context *ctx = open_cpu(1);
    family(check_case, ctx);
    check(!*bt_error_text(ctx), "%s", bt_error_text(ctx));
    bt_close(ctx);
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

static bt_tensor random_input(bt_context *ctx, bt_shape shape, uint64_t seed) {
    array a = array_new(shape);
    for (size_t i = 0; i < a.count; i++) a.v[i] = test_random(&seed, -1, 1);
    bt_tensor t = from_doubles(ctx, BT_F64, shape, a.v, true);
    array_free(&a);
    return t;
}

// Each tensor is used several times, broadcast and not, so that gradients must be added up.
static void test_used_twice(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    net n = {.ctx = ctx, .inputs = 3, .name = "chain"};
    bt_tensor a = n.in[0] = random_input(ctx, BT_SHAPE(3, 4), 1);
    bt_tensor b = n.in[1] = random_input(ctx, BT_SHAPE(4), 2);
    bt_tensor c = n.in[2] = random_input(ctx, BT_SHAPE(3, 1), 3);
    bt_tensor x = bt_add(ctx, bt_mul(ctx, a, a), bt_mul(ctx, a, b));
    x = bt_tanh(ctx, bt_add(ctx, x, bt_mul(ctx, c, bt_exp(ctx, b))));
    x = bt_add(ctx, x, bt_sub(ctx, a, a));
    x = bt_matmul_ex(ctx, x, false, x, true); // both operands
    x = bt_add(ctx, x, bt_mul(ctx, c, bt_transpose(ctx, c)));
    bt_tensor sum = bt_sum(ctx, x, 1, true);
    n.loss = bt_mean(ctx, bt_mul(ctx, bt_add(ctx, x, sum), x), 0, false);
    check_net(&n, 12);
    bt_close(ctx);
}

// Reading a constant's maximum keeps no half of a node: its position is still there for the
// gradient.
static void test_read_before_gradient(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    const double values[] = {1, 7, 3, 2}, want[] = {0, 1, 0, 0};
    bt_tensor x = bt_from(ctx, BT_F64, BT_SHAPE(1, 1, 2, 2), values), grad;
    bt_tensor y = bt_max_pool(ctx, x, 2, 0, 0);
    double top;
    ok(ctx, bt_read(ctx, y, &top, sizeof top));
    ok(ctx, bt_grad(ctx, bt_sum(ctx, y, 0, false), &x, 1, &grad));
    double *g = read_doubles(ctx, grad, NULL);
    for (int i = 0; i < 4; i++) check(g[i] == want[i], "element %d is %g", i, g[i]);
    free(g);
    bt_close(ctx);
}

static void test_independent_is_zero(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_tensor wrt[2] = {random_input(ctx, BT_SHAPE(3), 1), random_input(ctx, BT_SHAPE(2, 2), 2)},
              grads[2];
    ok(ctx, bt_grad(ctx, bt_sum(ctx, wrt[0], 0, false), wrt, 2, grads));
    double *g = read_doubles(ctx, grads[1], NULL);
    for (int i = 0; i < 4; i++)
        check(g[i] == 0, "element %d of an independent gradient is %g", i, g[i]);
    free(g);
    bt_close(ctx);
}

// The walk ends at what was asked for: what made it needs no gradient.
static void test_of_a_result(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    const uint8_t images[2] = {51, 255}, labels[2] = {0, 1};
    bt_dataset *set;
    ok(ctx, bt_dataset_make(ctx, images, labels, 2, 1, 1, 1, 2, &set));
    bt_tensor x = bt_dataset_batch(ctx, &(bt_batch_desc){.set = set, .batch = 2}).images, grad;
    ok(ctx, bt_grad(ctx, bt_sum(ctx, bt_mul(ctx, x, x), 0, false), &x, 1, &grad));
    double *g = read_doubles(ctx, grad, NULL);
    check(g[1] == 2, "the gradient of a picture is %g", g[1]);
    free(g);
    bt_close(ctx);
}

static void test_relu_at_zero(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    double zeros[35] = {0};
    bt_tensor x = from_doubles(ctx, BT_F64, BT_SHAPE(35), zeros, true), grad;
    ok(ctx, bt_grad(ctx, bt_sum(ctx, bt_relu(ctx, x), 0, false), &x, 1, &grad));
    double *g = read_doubles(ctx, grad, NULL);
    for (int i = 0; i < 35; i++) check(g[i] == 0, "relu's gradient at 0 is %g", g[i]);
    free(g);
    bt_close(ctx);
}

// The gradient of a maximum goes to its first position only.
static void test_max_ties(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    double ties[] = {1, 2, 2, 0, 2, 1, 2, 2};
    bt_tensor x = from_doubles(ctx, BT_F64, BT_SHAPE(1, 1, 2, 4), ties, true), grads[2];
    double want[2][8] = {{0, 1, 0, 0, 0, 0, 0, 0}, {0, 1, 1, 0, 0, 0, 0, 0}};
    ok(ctx, bt_grad(ctx, bt_max(ctx, x, 0, false), &x, 1, &grads[0]));
    ok(ctx, bt_grad(ctx, bt_sum(ctx, bt_max_pool(ctx, x, 2, 0, 0), 0, false), &x, 1, &grads[1]));
    for (int g = 0; g < 2; g++) {
        double *got = read_doubles(ctx, grads[g], NULL);
        for (int i = 0; i < 8; i++) {
            check(got[i] == want[g][i], "%s: element %d is %g", g ? "max_pool" : "max", i, got[i]);
        }
        free(got);
    }
    bt_close(ctx);
}

static void check_model(const char *spec, int side) {
    bt_context *ctx = open_cpu(2);
    bt_model *model = NULL;
    bt_model_desc desc = {.spec = spec,
                          .channels = 1,
                          .height = side,
                          .width = side,
                          .classes = 4,
                          .seed = 3,
                          .dtype = BT_F64};
    ok(ctx, bt_model_make(ctx, &desc, &model));
    net n = {.ctx = ctx, .name = spec};
    int32_t labels[5] = {0, 3, 1, -1, 2};
    bt_tensor images = random_input(ctx, BT_SHAPE(5, 1, side, side), 9);
    bt_tensor logits = bt_model_forward(ctx, model, images);
    n.loss = bt_cross_entropy(ctx, logits, bt_from(ctx, BT_I32, BT_SHAPE(5), labels));
    n.inputs = bt_model_parameter_count(model);
    for (int i = 0; i < n.inputs; i++) n.in[i] = bt_model_parameter(model, i);
    n.in[n.inputs++] = images;
    check_net(&n, 20);
    bt_close(ctx);
}

static void test_nets(void **state) {
    (void)state;
    check_model("fc9,relu,fc4", 6);
    check_model("fc7,sigmoid,fc5,tanh,fc4", 5);
    check_model("conv3x3,relu,pool2,conv4x3,relu,pool2,fc4", 14);
    check_model("conv6x3,tanh,pool2,fc8,sigmoid,fc4", 8);
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
        cmocka_unit_test(test_used_twice),
        cmocka_unit_test(test_independent_is_zero),
        cmocka_unit_test(test_read_before_gradient),
        cmocka_unit_test(test_of_a_result),
        cmocka_unit_test(test_relu_at_zero),
        cmocka_unit_test(test_max_ties),
        cmocka_unit_test(test_nets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
