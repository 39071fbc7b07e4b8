// A classifier in one call: trains a small convolutional network on the built-in digits, then
// shows a few test images beside what it takes them for.
//
//   cc classify.c $(pkg-config --cflags --libs bantam) -o classify
#include <bantam.h>

static void draw(const uint8_t *image) {
    for (int y = 0; y < 28; y += 2) { // two rows of pixels are one line of text
        for (int x = 0; x < 28; x++) {
            int light = image[28 * y + x] + image[28 * y + 28 + x];
            putchar(" .:oO@"[light * 5 / 510]);
        }
        putchar('\n');
    }
}

static bt_status classify(bt_context *ctx) {
    bt_dataset *train, *test;
    bt_model *model;
    bt_train_result result;
    bt_evaluation score;
    float p[3 * 10];
    bt_status status;

    bt_dataset_desc data = {.name = "digits", .limit = 6000};
    if ((status = bt_dataset_open(ctx, &data, &train)) != BT_OK) return status;
    data.test = true, data.limit = 1000;
    if ((status = bt_dataset_open(ctx, &data, &test)) != BT_OK) return status;

    bt_model_desc shape = {
        .spec = "conv8x5,relu,pool2,fc10", .channels = 1, .height = 28, .width = 28, .classes = 10};
    if ((status = bt_model_make(ctx, &shape, &model)) != BT_OK) return status;
    bt_train_desc how = {
        .model = model, .train = train, .epochs = 3, .hyper = {.lr = 0.05, .momentum = 0.9}};
    if ((status = bt_train(ctx, &how, &result)) != BT_OK) return status;
    if ((status = bt_evaluate(ctx, model, test, 0, &score, NULL)) != BT_OK) return status;
    printf("%u steps in %.2f s; %.1f %% of %d test digits are right\n", result.steps,
           result.seconds, 100 * score.accuracy, score.count);

    // The first three test images lie one after the other.
    if ((status = bt_predict(ctx, model, bt_dataset_image(test, 0), 3, p)) != BT_OK) return status;
    for (int i = 0; i < 3; i++) {
        int best = 0;
        for (int c = 1; c < 10; c++) best = p[10 * i + c] > p[10 * i + best] ? c : best;
        draw(bt_dataset_image(test, i));
        printf("a %d, %.0f %% sure (it is a %d)\n", best, 100 * p[10 * i + best],
               bt_dataset_label(test, i));
    }
    return BT_OK;
}

int main(void) {
    bt_context *ctx;
    bt_status status = bt_open(NULL, &ctx);
    if (status == BT_OK) status = classify(ctx);
    if (status != BT_OK) fprintf(stderr, "%s\n", ctx ? bt_error_text(ctx) : "out of memory");
    bt_close(ctx);
    return (int)status;
}
