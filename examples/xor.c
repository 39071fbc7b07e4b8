// A network by hand: two layers learn exclusive or. Shows what bt_train does inside: parameters,
// a loss, a program that trains them, and bt_grad for whoever wants the gradients themselves.
//
//   cc xor.c $(pkg-config --cflags --libs bantam) -o xor
#include <bantam.h>

enum { HIDDEN = 8, STEPS = 500 };

typedef struct net {
    bt_tensor w1, b1, w2, b2;
} net;

static bt_tensor parameter(bt_context *ctx, int rows, int columns, uint64_t seed) {
    float start[2 * HIDDEN] = {0};
    bt_shape shape = BT_SHAPE(rows, columns);
    bt_tensor random = bt_random_normal(ctx, BT_F32, shape, seed, 0, 1);
    // A failure is reported by the first call that needs the result.
    (void)bt_read(ctx, random, start, bt_shape_count(shape) * sizeof *start);
    return bt_parameter(ctx, BT_F32, shape, start);
}

static bt_tensor forward(bt_context *ctx, net n, bt_tensor x) { // x [4, 2] -> [4, 1]
    bt_tensor hidden = bt_tanh(ctx, bt_add(ctx, bt_matmul(ctx, x, n.w1), n.b1));
    return bt_add(ctx, bt_matmul(ctx, hidden, n.w2), n.b2);
}

static bt_status learn(bt_context *ctx) {
    float inputs[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, targets[4] = {0, 1, 1, 0};
    bt_tensor x = bt_from(ctx, BT_F32, BT_SHAPE(4, 2), inputs);
    bt_tensor want = bt_from(ctx, BT_F32, BT_SHAPE(4, 1), targets);
    net n = {parameter(ctx, 2, HIDDEN, 1), bt_parameter(ctx, BT_F32, BT_SHAPE(HIDDEN), NULL),
             parameter(ctx, HIDDEN, 1, 2), bt_parameter(ctx, BT_F32, BT_SHAPE(1), NULL)};
    bt_tensor y = forward(ctx, n, x), loss = bt_mse(ctx, y, want);

    // The gradients as tensors: the size of the first layer's, before any training.
    bt_tensor all[4] = {n.w1, n.b1, n.w2, n.b2}, grads[4];
    float size, out[4];
    bt_status status = bt_grad(ctx, loss, all, 4, grads);
    if (status != BT_OK) return status;
    status =
        bt_read(ctx, bt_sum(ctx, bt_mul(ctx, grads[0], grads[0]), 0, false), &size, sizeof size);
    if (status != BT_OK) return status;
    printf("squared gradient of the first layer: %.4f\n", size);

    // One program is one step: forward, backward, update. It is compiled once and runs as often
    // as asked, without coming back here.
    bt_hyper hyper = {.lr = 0.05, .momentum = 0.9};
    bt_program_desc desc = {.loss = loss,
                            .parameters = all,
                            .parameter_count = 4,
                            .hyper = &hyper,
                            .hyper_count = 1,
                            .log_steps = STEPS};
    bt_program *program;
    bt_log_entry first, last;
    if ((status = bt_program_make(ctx, &desc, &program)) != BT_OK) return status;
    if ((status = bt_program_run(ctx, program, STEPS)) != BT_OK) return status;
    if ((status = bt_program_log(ctx, program, 0, 1, &first)) != BT_OK) return status;
    if ((status = bt_program_log(ctx, program, STEPS - 1, 1, &last)) != BT_OK) return status;
    printf("loss %.4f -> %.6f after %d steps\n", first.loss, last.loss, STEPS);

    if ((status = bt_read(ctx, y, out, sizeof out)) != BT_OK) return status;
    for (int i = 0; i < 4; i++) printf("%g xor %g = %.2f\n", inputs[i][0], inputs[i][1], out[i]);
    return BT_OK;
}

int main(void) {
    bt_context *ctx;
    bt_status status = bt_open(NULL, &ctx);
    if (status == BT_OK) status = learn(ctx);
    if (status != BT_OK) fprintf(stderr, "%s\n", ctx ? bt_error_text(ctx) : "out of memory");
    bt_close(ctx);
    return (int)status;
}
