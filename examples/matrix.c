// Matrices with Bantam: making them, arithmetic, products, a function of your own, printing.
// Operators only describe a computation; it happens when a result is printed or read.
//
//   cc matrix.c $(pkg-config --cflags --libs bantam) -o matrix
#include <bantam.h>
#include <math.h>

static double square_root_or_zero(void *user, double value) {
    (void)user;
    return value > 0 ? sqrt(value) : 0;
}

static void show(bt_context *ctx, const char *name, bt_tensor t) {
    printf("%s = ", name);
    // Impossible operations end here, with the sentence of the first mistake.
    if (bt_print(ctx, t, stdout) != BT_OK) printf("error: %s\n", bt_error_text(ctx));
}

int main(void) {
    bt_context *ctx;
    if (bt_open(NULL, &ctx) != BT_OK) {
        fprintf(stderr, "%s\n", ctx ? bt_error_text(ctx) : "out of memory");
        bt_close(ctx);
        return 1;
    }

    // Made from values, and with known contents.
    bt_tensor a = bt_from(ctx, BT_F64, BT_SHAPE(2, 3), (double[]){1, 2, 3, 4, 5, 6});
    bt_tensor ones = bt_ones(ctx, BT_F64, BT_SHAPE(2, 3));
    show(ctx, "a", a);
    show(ctx, "zeros", bt_zeros(ctx, BT_F64, BT_SHAPE(2, 2)));
    show(ctx, "identity", bt_eye(ctx, BT_F64, 3));
    show(ctx, "random", bt_random_uniform(ctx, BT_F64, BT_SHAPE(2, 3), 42, 0, 1));

    // Element by element; a row, a column or a number is repeated as needed.
    bt_tensor row = bt_from(ctx, BT_F64, BT_SHAPE(3), (double[]){10, 20, 30});
    show(ctx, "a + ones", bt_add(ctx, a, ones));
    show(ctx, "a - row", bt_sub(ctx, a, row));
    show(ctx, "a * a", bt_mul(ctx, a, a));
    show(ctx, "row / a", bt_div(ctx, row, a));
    show(ctx, "2 a", bt_mul_scalar(ctx, a, 2));
    show(ctx, "map(a - 3)", bt_map(ctx, bt_sub_scalar(ctx, a, 3), square_root_or_zero, NULL, NULL));

    // Products and transposes; sums along a dimension.
    bt_tensor at = bt_transpose(ctx, a);
    show(ctx, "transpose(a)", at);
    show(ctx, "a transpose(a)", bt_matmul(ctx, a, at));
    show(ctx, "column sums", bt_sum(ctx, a, 1 << 0, false));

    // Numbers come back with bt_read.
    double total;
    bool fine = bt_read(ctx, bt_sum(ctx, a, 0, false), &total, sizeof total) == BT_OK;
    if (fine) printf("sum of all = %g\n", total);
    bt_close(ctx);
    return fine ? 0 : 1;
}
