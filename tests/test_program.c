// Programs: errors stick to the graph, nothing is allocated while training, memory is shared,
// logs and predictions say what happened, and any step can be gone to.
#include "base/rng.h"
#include "nets.h"
#include "support.h"

#include <math.h>

// ---- Graphs -----------------------------------------------------------------------------------

static void test_first_sentence_sticks(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_tensor a = bt_zeros(ctx, BT_F32, BT_SHAPE(2, 3)), b = bt_zeros(ctx, BT_F32, BT_SHAPE(4, 5));
    bt_tensor bad = bt_matmul(ctx, a, b);
    check(bad.id == 0, "a product of 2x3 and 4x5 is made");
    bt_tensor worse = bt_add(ctx, bt_relu(ctx, bad), bt_zeros(ctx, BT_F32, BT_SHAPE(7)));
    check(worse.id == 0, "an operator on no tensor gives one");
    bt_add(ctx, bt_zeros(ctx, BT_F32, BT_SHAPE(11)), bt_zeros(ctx, BT_F32, BT_SHAPE(13)));
    check(strstr(bt_error_text(ctx), "3") && strstr(bt_error_text(ctx), "4") &&
              !strstr(bt_error_text(ctx), "13"),
          "the sentence is not the first: \"%s\"", bt_error_text(ctx));
    float out;
    refused(ctx, BT_ERROR_USAGE, "matmul", bt_read(ctx, worse, &out, sizeof out));
    check(!*bt_error_text(ctx), "the sentence stays after bt_error_reset");
    double value = 3;
    bt_tensor fine = bt_from(ctx, BT_F64, BT_SCALAR, &value);
    ok(ctx, bt_read(ctx, fine, &value, sizeof value));
    bt_close(ctx);
}

typedef bt_tensor (*bad_fn)(bt_context *ctx, bt_tensor a, bt_tensor b);
static bt_tensor bad_add(bt_context *ctx, bt_tensor a, bt_tensor b) {
    return bt_add(ctx, a, b);
}
static bt_tensor bad_dtypes(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_add(ctx, a, bt_zeros(ctx, BT_F64, BT_SHAPE(2, 3)));
}
static bt_tensor bad_integers(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_relu(ctx, bt_zeros(ctx, BT_I32, BT_SHAPE(3)));
}
static bt_tensor bad_reshape(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_reshape(ctx, a, BT_SHAPE(5));
}
static bt_tensor bad_two_free(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_reshape(ctx, a, BT_SHAPE(-1, -1));
}
static bt_tensor bad_order(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_permute(ctx, a, (int[]){0, 0, 2, 3});
}
static bt_tensor bad_axis(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_softmax(ctx, a, 2);
}
static bt_tensor bad_axes(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_sum(ctx, a, 8, false);
}
static bt_tensor bad_conv(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_conv2d(ctx, bt_zeros(ctx, BT_F32, BT_SHAPE(1, 2, 5, 5)),
                     bt_zeros(ctx, BT_F32, BT_SHAPE(4, 3, 3, 3)), (bt_tensor){0}, 1, 0);
}
static bt_tensor bad_kernel(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_conv2d(ctx, bt_zeros(ctx, BT_F32, BT_SHAPE(1, 2, 5, 5)),
                     bt_zeros(ctx, BT_F32, BT_SHAPE(4, 2, 6, 6)), (bt_tensor){0}, 1, 0);
}
static bt_tensor bad_pool(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_max_pool(ctx, bt_zeros(ctx, BT_F32, BT_SHAPE(1, 2, 5, 5)), 2, 2, 2);
}
static bt_tensor bad_labels(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_cross_entropy(ctx, a, bt_zeros(ctx, BT_I32, BT_SHAPE(5)));
}
static bt_tensor bad_size(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_zeros(ctx, BT_F32, BT_SHAPE(1 << 16, 1 << 16));
}
static bt_tensor bad_negative(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_zeros(ctx, BT_F32, BT_SHAPE(2, -3));
}
static bt_tensor bad_rank(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_zeros(ctx, BT_F32, (bt_shape){.rank = 5});
}

// What overflows an int before it is seen to be too large.
static bt_tensor bad_columns(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    bt_tensor x = bt_zeros(ctx, BT_F32, BT_SHAPE(1, 2, 1, 1));
    return bt_im2col(ctx, x, 65536, 32769, 65536, 65536);
}
static bt_tensor bad_empty_pool(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)a, (void)b;
    return bt_max_pool(ctx, bt_zeros(ctx, BT_F32, BT_SHAPE(1, 1, 0, 0)), 2, 0, 1);
}
static bt_tensor bad_broadcast(bt_context *ctx, bt_tensor a, bt_tensor b) {
    (void)b;
    return bt_broadcast(ctx, a, (bt_shape){.rank = 40});
}

static void test_impossible_operators(void **state) {
    (void)state;
    static const bad_fn all[] = {
        bad_add,  bad_dtypes,   bad_integers, bad_reshape, bad_two_free,   bad_order,
        bad_axis, bad_axes,     bad_conv,     bad_kernel,  bad_pool,       bad_labels,
        bad_size, bad_negative, bad_rank,     bad_columns, bad_empty_pool, bad_broadcast};
    bt_context *ctx = open_cpu(1);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bt_tensor a = bt_zeros(ctx, BT_F32, BT_SHAPE(2, 3)),
                  b = bt_zeros(ctx, BT_F32, BT_SHAPE(4, 3));
        check(all[i](ctx, a, b).id == 0, "impossible operator %zu is made", i);
        check(strlen(bt_error_text(ctx)) > 20, "operator %zu says only \"%s\"", i,
              bt_error_text(ctx));
        bt_error_reset(ctx);
    }
    bt_close(ctx);
}

static void test_read_checks_sizes(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    float v[6] = {1, 2, 3, 4, 5, 6};
    bt_tensor a = bt_input(ctx, BT_F32, BT_SHAPE(2, 3), v), twice = bt_mul_scalar(ctx, a, 2);
    refused(ctx, BT_ERROR_USAGE, NULL, bt_read(ctx, a, v, 20));
    refused(ctx, BT_ERROR_USAGE, NULL, bt_write(ctx, a, v, 28));
    refused(ctx, BT_ERROR_USAGE, NULL, bt_write(ctx, twice, v, 24));
    bt_close(ctx);
}

static void test_values_follow_inputs(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    float v[3] = {1, 2, 3}, got[3];
    bt_tensor a = bt_input(ctx, BT_F32, BT_SHAPE(3), v), y = bt_mul(ctx, a, a);
    for (int round = 0; round < 3; round++) {
        ok(ctx, bt_write(ctx, a, v, sizeof v));
        ok(ctx, bt_read(ctx, y, got, sizeof got));
        for (int i = 0; i < 3; i++) check(got[i] == v[i] * v[i], "round %d: %g", round, got[i]);
        for (int i = 0; i < 3; i++) v[i] += 5;
    }
    bt_close(ctx);
}

static void test_makers(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    double *eye = read_doubles(ctx, bt_eye(ctx, BT_F64, 5), NULL);
    double *full = read_doubles(ctx, bt_full(ctx, BT_F32, BT_SHAPE(3), 2.5), NULL);
    double *ones = read_doubles(ctx, bt_ones(ctx, BT_F64, BT_SHAPE(3)), NULL);
    for (int i = 0; i < 25; i++) check(eye[i] == (i % 6 == 0), "eye[%d] is %g", i, eye[i]);
    for (int i = 0; i < 3; i++) check(full[i] == 2.5 && ones[i] == 1, "%g, %g", full[i], ones[i]);
    free(eye), free(full), free(ones);
    enum { N = 10000 };
    for (bt_dtype d = BT_F32; d <= BT_F64; d++) {
        double *u = read_doubles(ctx, bt_random_uniform(ctx, d, BT_SHAPE(N), 5, -1, 3), NULL);
        double *n = read_doubles(ctx, bt_random_normal(ctx, d, BT_SHAPE(N), 5, 2, 3), NULL);
        double *again = read_doubles(ctx, bt_random_normal(ctx, d, BT_SHAPE(N), 5, 2, 3), NULL);
        double mean_u = 0, mean = 0, variance = 0;
        for (int i = 0; i < N; i++) {
            check(u[i] >= -1 && u[i] < 3, "uniform number %g", u[i]);
            check(n[i] == again[i] && isfinite(n[i]), "normal number %d is %g, then %g", i, n[i],
                  again[i]);
            mean_u += u[i] / N, mean += n[i] / N, variance += (n[i] - 2) * (n[i] - 2) / N;
        }
        check(fabs(mean_u - 1) < 0.05 && fabs(mean - 2) < 0.12 && fabs(sqrt(variance) - 3) < 0.1,
              "means %g and %g, deviation %g", mean_u, mean, sqrt(variance));
        free(u), free(n), free(again);
    }
    bt_close(ctx);
}

enum { DRAWN = 3001 };
static const uint64_t drawn_seed = 0x9876543210u;

// What a device draws in f32, against the f64 of the host: [0] uniform in [-1, 3), [1] normal.
static void check_drawn(bt_context *ctx, const char *device, double *const want[2]) {
    bt_shape shape = BT_SHAPE(DRAWN);
    bt_tensor t[] = {bt_random_uniform(ctx, BT_F32, shape, drawn_seed, -1, 3),
                     bt_random_normal(ctx, BT_F32, shape, drawn_seed, 2, 3),
                     bt_random_uniform(ctx, BT_F32, shape, drawn_seed, 0, 1),
                     bt_random_uniform(ctx, BT_F32, shape, drawn_seed + (1ull << 32), 0, 1),
                     {0}};
    double *got[5], alike = 0;
    t[4] = bt_add(ctx, bt_reshape(ctx, t[0], BT_SHAPE(1, DRAWN)), t[1]);
    for (int i = 5; i-- > 0;) got[i] = read_doubles(ctx, t[i], NULL);
    for (int i = 0; i < DRAWN; i++) {
        bt_random4 block = bt_philox(drawn_seed, BT_STREAM_USER, (uint64_t)i);
        check(fabs(got[0][i] - want[0][i]) < 1e-6 && fabs(got[1][i] - want[1][i]) < 4e-6,
              "%s: number %d is %.9g and %.9g, not %.9g and %.9g", device, i, got[0][i], got[1][i],
              want[0][i], want[1][i]);
        check(got[2][i] == (double)bt_uniform(block.v[0]), "%s: number %d is %.9g", device, i,
              got[2][i]);
        check(got[4][i] == (double)(float)(got[0][i] + got[1][i]),
              "%s: number %d is another when it is drawn again", device, i);
        alike += (got[2][i] - 0.5) * (got[3][i] - 0.5) * 12 / DRAWN;
    }
    check(fabs(alike) < 0.08, "%s: the numbers of two seeds go together: %g", device, alike);
    for (int i = 0; i < 5; i++) free(got[i]);
}

static void test_random_on_devices(void **state) {
    (void)state;
    const char *const devices[] = {"cpu", "check", "sim", "vulkan"};
    bt_context *host = open_cpu(1), *ctx;
    bt_shape shape = BT_SHAPE(DRAWN);
    double *want[2] = {
        read_doubles(host, bt_random_uniform(host, BT_F64, shape, drawn_seed, -1, 3), NULL),
        read_doubles(host, bt_random_normal(host, BT_F64, shape, drawn_seed, 2, 3), NULL)};
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        bt_status status = bt_open(&(bt_context_desc){.device = devices[i]}, &ctx);
        if (status == BT_OK) check_drawn(ctx, devices[i], want);
        check(status == BT_OK || !strcmp(devices[i], "vulkan"), "%s", bt_error_text(ctx));
        bt_close(ctx);
    }
    free(want[0]), free(want[1]);
    bt_close(host);
}

static void test_print(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    float v[6] = {1, 2, 3, 4, 5.5f, -6};
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    ok(ctx, bt_print(ctx, bt_from(ctx, BT_F32, BT_SHAPE(2, 3), v), out));
    fclose(out);
    check(strstr(text, "5.5") && strstr(text, "-6") && strstr(text, "[[") && strstr(text, "f32"),
          "prints \"%s\"", text);
    free(text);
    bt_close(ctx);
}

static void test_release_gives_back(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    float v[64] = {0};
    bt_tensor a = bt_input(ctx, BT_F32, BT_SHAPE(8, 8), v);
    size_t before = 0;
    for (int round = 0; round < 50; round++) {
        uint32_t mark = bt_mark(ctx);
        float out[64];
        bt_tensor y = bt_matmul(ctx, a, bt_relu(ctx, a));
        ok(ctx, bt_read(ctx, y, out, sizeof out));
        bt_release(ctx, mark);
        if (round == 0) before = bt_device_bytes(ctx);
        check(bt_device_bytes(ctx) == before, "round %d keeps %zu bytes, not %zu", round,
              bt_device_bytes(ctx), before);
    }
    ok(ctx, bt_read(ctx, a, v, sizeof v));
    bt_close(ctx);
}

static void test_bad_grad(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_tensor a = bt_input(ctx, BT_F32, BT_SHAPE(3), NULL), grad;
    refused(ctx, BT_ERROR_USAGE, NULL, bt_grad(ctx, a, &a, 1, &grad));
    bt_close(ctx);
}

static void test_bad_program(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_program *p;
    bt_tensor loss = bt_input(ctx, BT_F64, BT_SCALAR, NULL),
              logits = bt_input(ctx, BT_F32, BT_SHAPE(4, 3), NULL),
              labels = bt_input(ctx, BT_I32, BT_SHAPE(4), NULL);
    bt_program_desc mixed = {.loss = loss, .logits = logits, .labels = labels};
    bt_program_desc many = {.loss = logits};
    refused(ctx, BT_ERROR_USAGE, "f32", bt_program_make(ctx, &mixed, &p));
    refused(ctx, BT_ERROR_USAGE, "one number", bt_program_make(ctx, &many, &p));
    bt_close(ctx);
}

// A layout of 4 10^9 numbers, which no vectorised kernel makes.
static void test_wide_padding(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_tensor x = bt_ones(ctx, BT_F32, BT_SHAPE(1, 1000, 1, 1)),
              y = bt_conv2d(ctx, x, x, (bt_tensor){0}, 1000, 1000);
    size_t count;
    double *v = read_doubles(ctx, y, &count);
    check(count == 9 && v[4] == 1000 && v[0] == 0, "%zu results, %g in the middle", count, v[4]);
    free(v);
    bt_close(ctx);
}

static void test_no_device(void **state) {
    (void)state;
    bt_context *ctx = NULL;
    bt_status status = bt_open(&(bt_context_desc){.device = "abacus"}, &ctx);
    check(status == BT_ERROR_DEVICE || status == BT_ERROR_USAGE, "\"abacus\" gives %s",
          bt_status_name(status));
    check(ctx && strstr(bt_error_text(ctx), "abacus"), "the sentence does not name it");
    bt_error_reset(ctx); // a context without a device refuses, and does not crash
    refused(ctx, BT_ERROR_DEVICE, "bt_open",
            bt_program_make(ctx, &(bt_program_desc){0}, &(bt_program *){NULL}));
    bt_close(ctx);
    check(bt_devices(NULL, 0) >= 1, "no device at all");
    bt_device_info info[8];
    bt_devices(info, 8);
    check(!strncmp(info[0].name, "cpu", 3) && info[0].available, "the first device is %s",
          info[0].name);
}

// ---- Training programs ------------------------------------------------------------------------

static void test_nothing_is_allocated(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    trained net = net_make(ctx, &(net_desc){.spec = "lenet"});
    ok(ctx, bt_program_run(ctx, net.program, 1));
    uint64_t allocations = bt_device_allocations(ctx);
    size_t bytes = bt_device_bytes(ctx);
    check(allocations > 0, "no allocation was counted");
    ok(ctx, bt_program_run(ctx, net.program, 9));
    bt_log_entry log[10];
    ok(ctx, bt_program_log(ctx, net.program, 0, 10, log));
    check(bt_device_allocations(ctx) == allocations && bt_device_bytes(ctx) == bytes,
          "%llu allocations while training",
          (unsigned long long)(bt_device_allocations(ctx) - allocations));
    bt_close(ctx);
}

static void test_fusion_and_plan(void **state) {
    (void)state;
    static const struct {
        const char *spec;
        int launches_max;
        double share_max; // of the unplanned memory; the mlp's images live through the whole step
    } all[] = {{"mlp", 13, 0.9999}, {"lenet", 26, 0.9}};
    for (int i = 0; i < 2; i++) {
        bt_context *ctx = open_cpu(1);
        trained net = net_make(ctx, &(net_desc){.spec = all[i].spec});
        bt_program_stats stats;
        bt_program_describe(net.program, &stats);
        check(stats.launches > 5 && stats.launches <= all[i].launches_max,
              "%s: %d launches a step, at most %d wanted", all[i].spec, stats.launches,
              all[i].launches_max);
        check(stats.temporary_bytes > 0 &&
                  (double)stats.temporary_bytes < all[i].share_max * (double)stats.unplanned_bytes,
              "%s: %zu temporary bytes, %zu unplanned", all[i].spec, stats.temporary_bytes,
              stats.unplanned_bytes);
        check(stats.flops > 64 * 2 * 3e4, "%s: %g flops", all[i].spec, stats.flops);
        bt_close(ctx);
    }
}

// A sum of two products has the shape of a bias where there is one row: one of them may take it for
// its own, not both.
static void test_sum_of_products(void **state) {
    (void)state;
    static const float x[] = {1, 2}, identity[] = {1, 0, 0, 1};
    for (int relu = 0; relu < 2; relu++) {
        bt_context *ctx = open_cpu(1);
        bt_tensor a = bt_input(ctx, BT_F32, BT_SHAPE(1, 2), x);
        bt_tensor p = bt_input(ctx, BT_F32, BT_SHAPE(2, 2), identity);
        bt_tensor q = bt_input(ctx, BT_F32, BT_SHAPE(2, 2), identity);
        bt_tensor sum = bt_add(ctx, bt_matmul(ctx, a, p), bt_matmul(ctx, a, q));
        if (relu) sum = bt_relu(ctx, sum);
        float y[2];
        ok(ctx, bt_read(ctx, sum, y, sizeof y));
        check(y[0] == 2 && y[1] == 4, "%g %g in place of 2 4", y[0], y[1]);
        bt_close(ctx);
    }
}

static void test_log_and_predictions(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    // 100 samples in batches of 64: the second batch has 36 rows.
    trained net = net_make(
        ctx, &(net_desc){.spec = "fc10", .limit = 100, .file_order = true, .hyper = {.lr = 1e-30}});
    check(net.epoch_steps == 2, "%u steps", net.epoch_steps);
    ok(ctx, bt_program_run(ctx, net.program, 4));
    bt_log_entry log[4];
    int32_t predictions[100];
    ok(ctx, bt_program_log(ctx, net.program, 0, 4, log));
    ok(ctx, bt_program_predictions(ctx, net.program, predictions, 100));
    int right[2] = {0};
    for (int i = 0; i < 100; i++) right[i / 64] += predictions[i] == bt_dataset_label(net.set, i);
    check(log[0].correct == right[0] && log[1].correct == right[1],
          "the log counts %g and %g right, the predictions %d and %d", log[0].correct,
          log[1].correct, right[0], right[1]);
    check(log[0].loss == log[2].loss && log[1].loss == log[3].loss && log[0].loss != log[1].loss,
          "losses %g %g %g %g", log[0].loss, log[1].loss, log[2].loss, log[3].loss);
    // The log's loss of a short batch is the mean over its rows alone.
    bt_evaluation whole;
    ok(ctx, bt_evaluate(ctx, net.model, net.set, 7, &whole, NULL));
    check(fabs((log[0].loss * 64 + log[1].loss * 36) / 100 - whole.loss) < 1e-5,
          "evaluation says %g", whole.loss);
    check(whole.correct == right[0] + right[1] && whole.count == 100, "evaluation counts %d of %d",
          whole.correct, whole.count);
    bt_close(ctx);
}

static void test_short_batch(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_dataset *set = digits(ctx, 10, false);
    bt_batch batch =
        bt_dataset_batch(ctx, &(bt_batch_desc){.set = set, .batch = 8, .dtype = BT_F64});
    bt_program *program = NULL;
    bt_tensor outputs[2] = {batch.images, batch.labels};
    ok(ctx,
       bt_program_make(ctx, &(bt_program_desc){.outputs = outputs, .output_count = 2}, &program));
    static double images[8][784];
    int32_t labels[8];
    for (int step = 0; step < 3; step++) {
        ok(ctx, bt_program_run(ctx, program, 1));
        ok(ctx, bt_program_read(ctx, program, 0, images, sizeof images));
        ok(ctx, bt_program_read(ctx, program, 1, labels, sizeof labels));
        for (int r = 0; r < 8; r++) {
            int sample = step % 2 * 8 + r;
            bool there = sample < 10;
            check(labels[r] == (there ? bt_dataset_label(set, sample) : -1),
                  "step %d: label %d is %d", step, r, labels[r]);
            for (int p = 0; p < 784; p++) {
                double want = there ? bt_dataset_image(set, sample)[p] / 255.0 : 0;
                check(images[r][p] == want, "step %d: pixel %d of row %d is %g and not %g", step, p,
                      r, images[r][p], want);
            }
        }
    }
    bt_close(ctx);
}

// Every byte becomes exactly byte / 255 as dtype divides, in rows that no vector divides evenly.
static void test_bytes_to_numbers(void **state) {
    (void)state;
    enum { N = 3, SIDE = 17, PIXELS = SIDE * SIDE };
    uint8_t images[N][PIXELS], labels[N] = {0, 1, 2};
    for (int i = 0; i < N * PIXELS; i++) images[i / PIXELS][i % PIXELS] = (uint8_t)(i * 7);
    for (bt_dtype d = BT_F32; d <= BT_F64; d++) {
        bt_context *ctx = open_cpu(2);
        bt_dataset *set = NULL;
        ok(ctx, bt_dataset_make(ctx, images[0], labels, N, 1, SIDE, SIDE, N, &set));
        bt_batch batch =
            bt_dataset_batch(ctx, &(bt_batch_desc){.set = set, .batch = N, .dtype = d});
        double *got = read_doubles(ctx, batch.images, NULL);
        for (int i = 0; i < N * PIXELS; i++) {
            int byte = images[i / PIXELS][i % PIXELS];
            double want = d == BT_F32 ? (double)((float)byte / 255.0f) : byte / 255.0;
            check(got[i] == want, "byte %d becomes %.9g and not %.9g in %s", byte, got[i], want,
                  bt_dtype_name(d));
        }
        free(got);
        bt_close(ctx);
    }
}

// Every sample once an epoch, in a new order each epoch.
static void test_shuffle(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    enum { N = 103, BATCH = 16, STEPS = 7 };
    uint8_t *images = allocate(N * 4), *labels = allocate(N);
    for (int i = 0; i < N; i++) images[4 * i] = labels[i] = (uint8_t)i;
    bt_dataset *set = NULL;
    ok(ctx, bt_dataset_make(ctx, images, labels, N, 1, 2, 2, N, &set));
    bt_batch batch = bt_dataset_batch(
        ctx, &(bt_batch_desc){.set = set, .batch = BATCH, .shuffle = true, .seed = 3});
    bt_program *program = NULL;
    ok(ctx, bt_program_make(ctx, &(bt_program_desc){.outputs = &batch.labels, .output_count = 1},
                            &program));
    int32_t order[3][STEPS * BATCH];
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[N] = {false};
        for (int step = 0; step < STEPS; step++) {
            ok(ctx, bt_program_run(ctx, program, 1));
            ok(ctx, bt_program_read(ctx, program, 0, &order[epoch][step * BATCH], BATCH * 4));
        }
        for (int i = 0; i < STEPS * BATCH; i++) {
            int32_t label = order[epoch][i];
            check(i < N ? label >= 0 && label < N && !seen[label] : label == -1,
                  "epoch %d, position %d: %d", epoch, i, label);
            if (i < N) seen[label] = true;
        }
    }
    check(memcmp(order[0], order[1], sizeof order[0]) &&
              memcmp(order[1], order[2], sizeof order[0]),
          "epochs share an order");
    free(images), free(labels);
    bt_close(ctx);
}

static void test_seek(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    trained net = net_make(ctx, &(net_desc){.spec = "fc10", .hyper = {.lr = 1e-30}});
    ok(ctx, bt_program_run(ctx, net.program, 12));
    check(bt_program_step(net.program) == 12, "after 12 steps the counter is %u",
          bt_program_step(net.program));
    double at_7 = net_loss(&net, 7);
    ok(ctx, bt_program_seek(ctx, net.program, 7));
    check(bt_program_step(net.program) == 7, "the counter is %u", bt_program_step(net.program));
    ok(ctx, bt_program_run(ctx, net.program, 1));
    check(net_loss(&net, 7) == at_7, "step 7 again: %.9g and not %.9g", net_loss(&net, 7), at_7);
    bt_close(ctx);
}

static void test_profile(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    trained net = net_make(ctx, &(net_desc){.spec = "lenet", .profile = true});
    ok(ctx, bt_program_run(ctx, net.program, 3));
    bt_program_stats stats;
    bt_program_describe(net.program, &stats);
    bt_profile_row rows[64];
    int count = bt_program_profile(net.program, rows, 64);
    check(count == stats.launches + 1, "%d rows for %d launches", count, stats.launches);
    check(!strcmp(rows[count - 1].op, "launch gaps"), "the last row is %s", rows[count - 1].op);
    bool conv = false;
    for (int i = 0; i < count; i++) {
        check(rows[i].seconds >= 0, "%s takes %g s", rows[i].op, rows[i].seconds);
        check(i == count - 1 || rows[i].calls == 3, "%s: %llu calls", rows[i].op,
              (unsigned long long)rows[i].calls);
        conv = conv || (strstr(rows[i].op, "conv") && rows[i].flops > 0 && rows[i].bytes > 0);
    }
    check(conv, "no convolution among the rows");
    bt_close(ctx);
}

static void test_numbers_of_labels(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    uint8_t images[8] = {0}, labels[2] = {0, 9};
    bt_dataset *set = NULL;
    refused(ctx, BT_ERROR_DATA, NULL, bt_dataset_make(ctx, images, labels, 2, 1, 2, 2, 9, &set));
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_sentence_sticks),
        cmocka_unit_test(test_impossible_operators),
        cmocka_unit_test(test_read_checks_sizes),
        cmocka_unit_test(test_values_follow_inputs),
        cmocka_unit_test(test_makers),
        cmocka_unit_test(test_random_on_devices),
        cmocka_unit_test(test_print),
        cmocka_unit_test(test_release_gives_back),
        cmocka_unit_test(test_bad_grad),
        cmocka_unit_test(test_bad_program),
        cmocka_unit_test(test_wide_padding),
        cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_nothing_is_allocated),
        cmocka_unit_test(test_fusion_and_plan),
        cmocka_unit_test(test_sum_of_products),
        cmocka_unit_test(test_log_and_predictions),
        cmocka_unit_test(test_short_batch),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_bytes_to_numbers),
        cmocka_unit_test(test_seek),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_numbers_of_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
