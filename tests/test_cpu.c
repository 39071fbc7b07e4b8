// What the CPU does with a program beside running its launches: which of them it does as one, with
// which results, and how long packed weights live. The kernels themselves: test_isa.c,
// test_fused.c, test_sparse.c.
#include "nets.h"
#include "support.h"

enum { IMAGES = 40, SIDE = 12 };

static int count_kernels(const bt_program *program, const char *name) {
    const char *kernel;
    int count = 0;
    for (int i = 0; (kernel = bt_program_kernel(program, i)); i++) count += !strcmp(kernel, name);
    return count;
}

// Launches that training does as one, and products that leave out zeros, by network.
static void test_groups(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        int forward, backward, sparse;
    } all[] = {
        {"mlp", 0, 0, 2},
        {"fc32,relu,fc16,tanh,fc10", 0, 0, 2},
        {"lenet", 4, 5 + 4, 0},
        {"lenet5", 4, 5 + 4, 0},
        {"conv4x3,pool2,fc10", 2, 3, 0}, // without an activation there is no derivative
        {"conv4x3,relu,pool2,conv6x3,relu,fc10", 2, 4, 0},
        {"conv4x3,relu,fc10", 0, 0, 0},
        {"conv4x3,tanh,pool2,fc10", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bt_context *ctx = open_cpu(2);
        trained net = net_make(ctx, &(net_desc){.spec = all[i].spec});
        int forward = count_kernels(net.program, "conv_pool");
        int backward = count_kernels(net.program, "conv_pool_grad");
        int sparse = count_kernels(net.program, "matmul_sparse");
        check(forward == all[i].forward && backward == all[i].backward && sparse == all[i].sparse,
              "%s: %d launches in conv_pool, %d in conv_pool_grad, %d sparse", all[i].spec, forward,
              backward, sparse);
        bt_close(ctx);
    }
}

typedef struct layer {
    bt_tensor x, w, b, y, pooled;
} layer;

static layer make_layer(bt_context *ctx, bool trains) {
    static float x[IMAGES * SIDE * SIDE], w[4 * 9], b[4];
    uint64_t random = 5;
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)test_random(&random, -1, 1);
    for (size_t i = 0; i < sizeof w / sizeof *w; i++) w[i] = (float)test_random(&random, -1, 1);
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) b[i] = (float)test_random(&random, -1, 1);
    bt_tensor (*make)(bt_context *, bt_dtype, bt_shape, const void *) =
        trains ? bt_parameter : bt_input;
    layer l = {.x = bt_input(ctx, BT_F32, BT_SHAPE(IMAGES, 1, SIDE, SIDE), x),
               .w = make(ctx, BT_F32, BT_SHAPE(4, 1, 3, 3), w),
               .b = make(ctx, BT_F32, BT_SHAPE(4), b)};
    l.y = bt_relu(ctx, bt_conv2d(ctx, l.x, l.w, l.b, 1, 0));
    l.pooled = bt_max_pool(ctx, l.y, 2, 2, 0);
    return l;
}

// What somebody reads is in memory, though it could have been left out.
static void test_outputs_stay(void **state) {
    (void)state;
    enum { OUT = SIDE - 2, NUMBERS = IMAGES * 4 * OUT * OUT };
    static float y[NUMBERS], pooled[NUMBERS / 4], fused[NUMBERS / 4];
    bt_context *ctx = open_cpu(2);
    layer l = make_layer(ctx, false);
    bt_program *program;
    const bt_tensor both[] = {l.y, l.pooled};
    ok(ctx, bt_program_make(ctx, &(bt_program_desc){.outputs = both, .output_count = 2}, &program));
    check(count_kernels(program, "conv_pool") == 0, "the output of the convolution is left out");
    ok(ctx, bt_program_run(ctx, program, 1));
    ok(ctx, bt_program_read(ctx, program, 0, y, sizeof y));
    ok(ctx, bt_program_read(ctx, program, 1, pooled, sizeof pooled));
    for (int p = 0; p < IMAGES * 4; p++)
        for (int i = 0; i < OUT * OUT / 4; i++) {
            const float *at = y + p * OUT * OUT + i / (OUT / 2) * 2 * OUT + i % (OUT / 2) * 2;
            float top = at[0] > at[1] ? at[0] : at[1],
                  low = at[OUT] > at[OUT + 1] ? at[OUT] : at[OUT + 1];
            check(pooled[p * OUT * OUT / 4 + i] == (top > low ? top : low),
                  "maximum %d of plane %d", i, p);
        }
    ok(ctx,
       bt_program_make(ctx, &(bt_program_desc){.outputs = &l.pooled, .output_count = 1}, &program));
    check(count_kernels(program, "conv_pool") == 2, "nothing is fused");
    ok(ctx, bt_program_run(ctx, program, 1));
    ok(ctx, bt_program_read(ctx, program, 0, fused, sizeof fused));
    check(!memcmp(fused, pooled, sizeof fused), "fused and alone differ in bits");
    bt_close(ctx);
}

// A gradient that reads the convolution's output in another way keeps it in memory.
static void test_other_readers(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    layer l = make_layer(ctx, true);
    bt_tensor loss = bt_add(ctx, bt_mean(ctx, bt_mul(ctx, l.pooled, l.pooled), 15, false),
                            bt_mean(ctx, bt_mul(ctx, l.y, l.y), 15, false));
    bt_tensor grads[2];
    const bt_tensor wrt[] = {l.w, l.b};
    ok(ctx, bt_grad(ctx, loss, wrt, 2, grads));
    bt_program *program;
    ok(ctx,
       bt_program_make(ctx, &(bt_program_desc){.outputs = grads, .output_count = 2}, &program));
    check(count_kernels(program, "conv_pool") + count_kernels(program, "conv_pool_grad") == 0,
          "what has another reader is fused");
    ok(ctx, bt_program_run(ctx, program, 1));
    bt_close(ctx);
}

// The batch as the second factor, of parameters that lie in their buffer where it lies in its own:
// their zeros are not its zeros.
static void test_other_operand(void **state) {
    (void)state;
    enum { N = 20, PIXELS = 100 };
    static uint8_t images[N * PIXELS], labels[N];
    static float factor[N * PIXELS], with[N * N], without[N * N];
    uint64_t random = 1;
    for (int i = 0; i < N * PIXELS; i++) {
        images[i] = test_random(&random, 0, 5) < 1 ? 200 : 0;
        factor[i] = (float)test_random(&random, 1, 2);
    }
    for (int plain = 0; plain < 2; plain++) {
        bt_context *ctx;
        bt_context_desc desc = {.device = "cpu", .threads = 2, .no_overrides = plain};
        check(bt_open(&desc, &ctx) == BT_OK, "the CPU does not open");
        bt_dataset *set;
        bt_program *program;
        ok(ctx, bt_dataset_make(ctx, images, labels, N, 1, 10, 10, 1, &set));
        bt_batch batch = bt_dataset_batch(ctx, &(bt_batch_desc){.set = set, .batch = N});
        bt_tensor p = bt_parameter(ctx, BT_F32, BT_SHAPE(N, PIXELS), factor);
        bt_tensor x = bt_reshape(ctx, batch.images, BT_SHAPE(N, PIXELS));
        bt_tensor y = bt_matmul_ex(ctx, p, false, x, true);
        ok(ctx,
           bt_program_make(ctx, &(bt_program_desc){.outputs = &y, .output_count = 1}, &program));
        ok(ctx, bt_program_run(ctx, program, 1));
        ok(ctx, bt_program_read(ctx, program, 0, plain ? without : with, sizeof with));
        bt_close(ctx);
    }
    check(!memcmp(with, without, sizeof with), "the zeros of the batch were left out of the other");
}

// Weights that a program keeps in another layout are those that the model has when it runs:
// written by the host, or trained by another program.
static void test_weights_are_current(void **state) {
    (void)state;
    static const char *const specs[] = {"mlp", "lenet"};
    for (int i = 0; i < 2; i++) {
        bt_context *ctx = open_cpu(2);
        trained net = net_make(ctx, &(net_desc){.spec = specs[i]});
        bt_tensor logits = bt_model_forward(ctx, net.model, net.batch.images);
        bt_program *program;
        float first[64 * 10], other[64 * 10], again[64 * 10];
        bt_tensor w = bt_model_parameter(net.model, 0);
        size_t bytes = bt_shape_count(bt_tensor_shape(ctx, w)) * sizeof(float);
        float *old = allocate(bytes), *zeros = allocate(bytes);
        ok(ctx, bt_program_make(ctx, &(bt_program_desc){.outputs = &logits, .output_count = 1},
                                &program));
        ok(ctx, bt_read(ctx, w, old, bytes));
        for (int turn = 0; turn < 4; turn++) {
            if (turn) ok(ctx, bt_write(ctx, w, turn == 1 ? zeros : old, bytes));
            if (turn == 3) ok(ctx, bt_program_run(ctx, net.program, 1));
            ok(ctx, bt_program_seek(ctx, program, 0));
            ok(ctx, bt_program_run(ctx, program, 1));
            float *to = turn == 0 ? first : turn == 1 || turn == 3 ? other : again;
            ok(ctx, bt_program_read(ctx, program, 0, to, sizeof first));
            bool changed = turn && memcmp(first, to, sizeof first);
            check(turn == 0 || changed == (turn != 2), "%s: weights of %s are in use", specs[i],
                  turn == 1   ? "before the host wrote zeros"
                  : turn == 2 ? "the host's zeros"
                              : "before the training");
        }
        free(old);
        free(zeros);
        bt_close(ctx);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_outputs_stay),
        cmocka_unit_test(test_other_readers),
        cmocka_unit_test(test_other_operand),
        cmocka_unit_test(test_weights_are_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
