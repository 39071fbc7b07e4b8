// Training: the gates that separate a network that learns from one that only runs (every
// parameter moves, one batch is learnt by heart, the first loss is that of guessing), optimizers
// against their formulas in double precision, schedules, the ways a run may end, models.
#include "data/safetensors.h"
#include "nets.h"
#include "support.h"

#include <math.h>
#include <unistd.h>

// ---- Gates ------------------------------------------------------------------------------------

static const char *presets[] = {"mlp", "lenet", "lenet5"};

static void test_every_parameter_moves(void **state) {
    (void)state;
    for (int m = 0; m < 3; m++) {
        bt_context *ctx = open_cpu(2);
        trained net = net_make(ctx, &(net_desc){.spec = presets[m], .seed = 1});
        size_t bytes;
        float *before = net_state(&net, &bytes);
        ok(ctx, bt_program_run(ctx, net.program, 1));
        float *after = net_state(&net, &bytes);
        size_t at = 0;
        for (int i = 0; i < bt_model_parameter_count(net.model); i++) {
            size_t n = bt_shape_count(bt_tensor_shape(ctx, bt_model_parameter(net.model, i))),
                   moved = 0;
            for (size_t j = 0; j < n; j++) moved += before[at + j] != after[at + j];
            // Borders of the images are black: their weights need not move.
            check(moved * 2 >= n, "%s: only %zu of %zu numbers of %s moved", presets[m], moved, n,
                  bt_model_parameter_name(net.model, i));
            at += n;
        }
        check(at == bt_model_size(net.model), "%s has %zu numbers, not %zu", presets[m], at,
              bt_model_size(net.model));
        free(before), free(after);
        bt_close(ctx);
    }
}

static void test_one_batch_by_heart(void **state) {
    (void)state;
    for (int m = 0; m < (quick() ? 1 : 3); m++) {
        bt_context *ctx = open_cpu(2);
        trained net =
            net_make(ctx, &(net_desc){.spec = presets[m],
                                      .seed = 1,
                                      .limit = 64,
                                      .hyper = {.lr = m == 2 ? 0.02 : 0.05, .momentum = 0.9}});
        ok(ctx, bt_program_run(ctx, net.program, 300));
        bt_log_entry last;
        ok(ctx, bt_program_log(ctx, net.program, 299, 1, &last));
        check(last.correct == 64 && last.loss < 0.05,
              "%s after 300 steps on one batch: %g of 64 right, loss %g", presets[m], last.correct,
              last.loss);
        bt_close(ctx);
    }
}

static void test_first_loss(void **state) {
    (void)state;
    for (int m = 0; m < 3; m++) {
        bt_context *ctx = open_cpu(2);
        trained net = net_make(ctx, &(net_desc){.spec = presets[m], .seed = 1});
        ok(ctx, bt_program_run(ctx, net.program, 1));
        double loss = net_loss(&net, 0);
        check(loss > log(10) - 0.5 && loss < log(10) + 1,
              "%s begins with a loss of %g; guessing gives %g", presets[m], loss, log(10));
        bt_close(ctx);
    }
}

static void test_init(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    for (int init = 0; init < 2; init++) {
        bt_model *model = NULL;
        bt_model_desc desc = {.spec = "fc500,relu,fc10",
                              .channels = 1,
                              .height = 20,
                              .width = 20,
                              .classes = 10,
                              .init = init ? BT_INIT_XAVIER : BT_INIT_HE,
                              .seed = 6};
        ok(ctx, bt_model_make(ctx, &desc, &model));
        size_t n;
        double *w = read_doubles(ctx, bt_model_parameter(model, 0), &n), variance = 0, largest = 0;
        for (size_t i = 0; i < n; i++)
            variance += w[i] * w[i] / (double)n, largest = fmax(largest, fabs(w[i]));
        double bound = sqrt(6.0 / 900), want = init ? bound * bound / 3 : 2.0 / 400;
        check(fabs(variance / want - 1) < 0.03, "variance %g and not %g", variance, want);
        check(!init || (largest <= bound && largest > 0.99 * bound),
              "Xavier reaches %g, its bound is %g", largest, bound);
        double *bias = read_doubles(ctx, bt_model_parameter(model, 1), &n);
        for (size_t i = 0; i < n; i++) check(bias[i] == 0, "bias %zu starts at %g", i, bias[i]);
        free(w), free(bias);
    }
    bt_close(ctx);
}

// ---- Optimizers -------------------------------------------------------------------------------

enum { P = 37, ROUNDS = 25 };

// Loss sum c (p - t)^2 / 2, whose gradient is c (p - t).
static void reference_step(bt_optimizer o, const bt_hyper *h, int step, double *p, double *m,
                           double *v, const double *c, const double *t) {
    double g[P], norm = 0;
    for (int i = 0; i < P; i++) g[i] = c[i] * (p[i] - t[i]), norm += g[i] * g[i];
    norm = sqrt(norm);
    for (int i = 0; i < P; i++) {
        if (h->clip > 0 && norm > h->clip) g[i] *= h->clip / norm;
        if (o == BT_ADAMW)
            p[i] -= h->lr * h->weight_decay * p[i];
        else
            g[i] += h->weight_decay * p[i];
        if (o == BT_SGD || o == BT_NESTEROV) {
            v[i] = h->momentum * v[i] + g[i];
            p[i] -= h->lr * (o == BT_SGD ? v[i] : g[i] + h->momentum * v[i]);
        } else {
            m[i] = h->momentum * m[i] + (1 - h->momentum) * g[i];
            v[i] = h->beta2 * v[i] + (1 - h->beta2) * g[i] * g[i];
            double mh = m[i] / (1 - pow(h->momentum, step + 1)),
                   vh = v[i] / (1 - pow(h->beta2, step + 1));
            p[i] -= h->lr * mh / (sqrt(vh) + h->epsilon);
        }
    }
}

static void check_optimizer(bt_optimizer o, bt_hyper base, bt_dtype dtype) {
    bt_context *ctx = open_cpu(2);
    double p[P], m[P] = {0}, v[P] = {0}, c[P], t[P];
    uint64_t random = 3;
    for (int i = 0; i < P; i++) {
        p[i] = (float)test_random(&random, -1, 1), t[i] = (float)test_random(&random, -1, 1);
        c[i] = (float)test_random(&random, 0.1, 2);
    }
    // In two parts, so that clipping must see all gradients.
    double *starts[2] = {p, p + 20};
    bt_tensor part[2], loss = {0};
    for (int i = 0; i < 2; i++) {
        bt_shape shape = BT_SHAPE(i ? P - 20 : 20);
        part[i] = bt_parameter(ctx, dtype, shape, NULL);
        write_doubles(ctx, part[i], starts[i], bt_shape_count(shape));
        bt_tensor d = bt_sub(ctx, part[i], from_doubles(ctx, dtype, shape, t + 20 * i, false));
        bt_tensor cost =
            bt_mul(ctx, bt_mul(ctx, d, d), from_doubles(ctx, dtype, shape, c + 20 * i, false));
        cost = bt_mul_scalar(ctx, bt_sum(ctx, cost, 0, false), 0.5);
        loss = i ? bt_add(ctx, loss, cost) : cost;
    }
    bt_hyper table[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        table[i] = base;
        table[i].lr *= 1 + 0.1 * i; // every step has its own rate
        reference_step(o, &table[i], i, p, m, v, c, t);
    }
    bt_program *program = NULL;
    ok(ctx, bt_program_make(ctx,
                            &(bt_program_desc){.loss = loss,
                                               .parameters = part,
                                               .parameter_count = 2,
                                               .optimizer = o,
                                               .hyper = table,
                                               .hyper_count = ROUNDS},
                            &program));
    ok(ctx, bt_program_run(ctx, program, ROUNDS));
    for (int i = 0, at = 0; i < 2; i++) {
        size_t n;
        double *got = read_doubles(ctx, part[i], &n);
        for (size_t j = 0; j < n; j++, at++) {
            double tolerance = dtype == BT_F64 ? 1e-12 : 2e-5;
            check(fabs(got[j] - p[at]) <= tolerance,
                  "optimizer %d %s: parameter %d is %.15g and not %.15g", o, bt_dtype_name(dtype),
                  at, got[j], p[at]);
        }
        free(got);
    }
    bt_close(ctx);
}

static void test_optimizers(void **state) {
    (void)state;
    static const bt_hyper sgd[] = {{.lr = 0.05},
                                   {.lr = 0.05, .momentum = 0.9},
                                   {.lr = 0.05, .momentum = 0.9, .weight_decay = 0.1},
                                   {.lr = 0.05, .momentum = 0.5, .clip = 0.7}};
    static const bt_hyper adam[] = {
        {.lr = 0.01, .momentum = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
        {.lr = 0.02, .momentum = 0.8, .beta2 = 0.99, .epsilon = 1e-4, .weight_decay = 0.1},
        {.lr = 0.02, .momentum = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .clip = 0.5}};
    for (bt_dtype d = BT_F32; d <= BT_F64; d++) {
        for (int i = 0; i < 4; i++)
            check_optimizer(BT_SGD, sgd[i], d), check_optimizer(BT_NESTEROV, sgd[i], d);
        for (int i = 0; i < 3; i++)
            check_optimizer(BT_ADAM, adam[i], d), check_optimizer(BT_ADAMW, adam[i], d);
    }
}

// ---- Schedules --------------------------------------------------------------------------------

static double rate(bt_schedule schedule, double warmup, uint32_t step) {
    bt_train_desc desc = {
        .schedule = schedule, .warmup = warmup, .hyper = {.lr = 2, .momentum = 0.9}};
    bt_hyper hyper = bt_schedule_at(&desc, step, 300, 30);
    check(hyper.momentum == 0.9, "a schedule changes the momentum");
    return hyper.lr;
}

static void test_schedules(void **state) {
    (void)state;
    static const struct {
        bt_schedule schedule;
        double warmup;
        uint32_t step;
        double want;
    } all[] = {
        {BT_SCHEDULE_CONST, 0, 0, 2},      {BT_SCHEDULE_CONST, 0, 299, 2},
        {BT_SCHEDULE_STEP, 0, 99, 2},      {BT_SCHEDULE_STEP, 0, 100, 0.2},
        {BT_SCHEDULE_STEP, 0, 200, 0.02},  {BT_SCHEDULE_STEP, 0, 299, 0.02},
        {BT_SCHEDULE_COSINE, 0, 0, 2},     {BT_SCHEDULE_COSINE, 0, 150, 1},
        {BT_SCHEDULE_COSINE, 0, 100, 1.5}, {BT_SCHEDULE_COSINE, 0, 300, 0},
        {BT_SCHEDULE_ONECYCLE, 0, 90, 2},  {BT_SCHEDULE_ONECYCLE, 0, 300, 0},
        {BT_SCHEDULE_ONECYCLE, 0, 195, 1}, {BT_SCHEDULE_CONST, 2, 60, 2},
        {BT_SCHEDULE_CONST, 2, 29, 1},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        double got = rate(all[i].schedule, all[i].warmup, all[i].step);
        check(fabs(got - all[i].want) < 0.005, "schedule %d, warm-up %g, step %u: %g and not %g",
              all[i].schedule, all[i].warmup, all[i].step, got, all[i].want);
    }
    for (uint32_t s = 0; s < 89; s++) {
        check(rate(BT_SCHEDULE_ONECYCLE, 0, s) < rate(BT_SCHEDULE_ONECYCLE, 0, s + 1),
              "one-cycle does not rise at %u", s);
        check(s > 58 || rate(BT_SCHEDULE_CONST, 2, s) < rate(BT_SCHEDULE_CONST, 2, s + 1),
              "warm-up does not rise at %u", s);
    }
}

// ---- Ways to end ------------------------------------------------------------------------------

typedef struct watch {
    int starts, epochs;
    uint32_t logged;
    double last_loss;
} watch;

static bt_answer watch_progress(void *user, const bt_progress *p) {
    watch *w = user;
    w->starts += p->event == BT_EVENT_START;
    w->epochs += p->event == BT_EVENT_EPOCH;
    if (p->log_count) {
        check(p->log_first == w->logged, "the log goes on at step %u after %u", p->log_first,
              w->logged);
        w->logged += p->log_count;
        w->last_loss = p->log[p->log_count - 1].loss;
    }
    return BT_CONTINUE;
}

static char train_error[512]; // of the last train_small

static bt_status train_small(bt_train_desc *desc, bt_train_result *result, watch *w) {
    bt_context *ctx = open_cpu(2);
    bt_dataset *all = digits(ctx, 500, false);
    ok(ctx, bt_dataset_split(ctx, all, 0.2, 1, &desc->train, &desc->validation));
    bt_model_desc model = {.spec = "fc16,relu,fc10",
                           .channels = 1,
                           .height = 28,
                           .width = 28,
                           .classes = 10,
                           .seed = 1};
    ok(ctx, bt_model_make(ctx, &model, &desc->model));
    *w = (watch){0};
    desc->batch = 32;
    desc->callback = watch_progress;
    desc->user = w;
    bt_status status = bt_train(ctx, desc, result);
    snprintf(train_error, sizeof train_error, "%s", bt_error_text(ctx));
    check(status == BT_OK || strlen(train_error) > 20, "%s without a sentence",
          bt_status_name(status));
    bt_close(ctx);
    return status;
}

static void test_ends(void **state) {
    (void)state;
    bt_hyper learns = {.lr = 0.05, .momentum = 0.9}, stuck = {.lr = 1e-30};
    struct {
        bt_train_desc desc;
        const char *stop;
        int epochs;
    } all[] = {
        {{.epochs = 3, .hyper = learns}, "epochs", 3},
        {{.epochs = 9, .hyper = stuck, .patience = 2}, "patience", 3},
        {{.epochs = 9, .hyper = learns, .target_accuracy = 0.01}, "target", 1},
        {{.epochs = 900000, .hyper = learns, .seconds_max = 0.05}, "time", -1},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bt_train_result result;
        watch w;
        check(train_small(&all[i].desc, &result, &w) == BT_OK, "case %zu: %s", i, train_error);
        check(!strcmp(result.stop, all[i].stop), "case %zu ends by %s and not %s", i, result.stop,
              all[i].stop);
        check(all[i].epochs < 0 || result.epochs == all[i].epochs, "%s: after %d epochs",
              result.stop, result.epochs);
        check(w.starts == 1 && w.epochs >= result.epochs, "%s: %d starts, %d epochs seen",
              result.stop, w.starts, w.epochs);
        check(w.logged == result.steps, "%s: %u of %u steps were logged", result.stop, w.logged,
              result.steps);
        check(result.seconds > 0 && result.images_per_second > 0, "%s: %g s", result.stop,
              result.seconds);
    }
}

static void test_learns(void **state) {
    (void)state;
    bt_train_desc desc = {.epochs = 30, .hyper = {.lr = 0.05, .momentum = 0.9}};
    bt_train_result result;
    watch w;
    check(train_small(&desc, &result, &w) == BT_OK, "%s", train_error);
    check(result.train_accuracy > 0.9 && result.train_loss < 0.5 && w.last_loss < 0.7,
          "accuracy %g, loss %g after 30 epochs of 400 digits", result.train_accuracy,
          result.train_loss);
    check(result.best_accuracy >= result.val_accuracy && result.best_epoch >= 1,
          "best %g in epoch %d", result.best_accuracy, result.best_epoch);
}

static void test_nan_stops(void **state) {
    (void)state;
    bt_train_desc desc = {.epochs = 5, .hyper = {.lr = 1e3, .weight_decay = 1e3}};
    bt_train_result result;
    watch w;
    bt_status status = train_small(&desc, &result, &w);
    check(status == BT_ERROR_NUMERIC, "exploding weights give %s: %s", bt_status_name(status),
          train_error);
}

// ---- Models and their files -------------------------------------------------------------------

static void test_specs(void **state) {
    (void)state;
    static const char *bad[] = {"",
                                "fc",
                                "fc0",
                                "fc10,,fc10",
                                "fc10,",
                                ",fc10",
                                "foo10",
                                "fc10,rleu,fc10",
                                "conv8",
                                "conv8x",
                                "conv8x40,fc10",
                                "pool2,pool2,pool2,pool2,pool2,fc10",
                                "fc12",
                                "fc10,relu,conv3x3",
                                "fc99999999999",
                                "fc-3",
                                "mlpp",
                                "fc10 relu"};
    bt_context *ctx = open_cpu(1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bt_model *model = NULL;
        bt_model_desc desc = {
            .spec = bad[i], .channels = 1, .height = 28, .width = 28, .classes = 10};
        bt_status status = bt_model_make(ctx, &desc, &model);
        check(status == BT_ERROR_USAGE, "the model \"%s\" gives %s", bad[i],
              bt_status_name(status));
        check(strlen(bt_error_text(ctx)) > 20, "\"%s\": the sentence is \"%s\"", bad[i],
              bt_error_text(ctx));
        bt_error_reset(ctx);
    }
    static const struct {
        const char *spec;
        size_t numbers;
        int tensors;
    } good[] = {
        {"mlp", 784 * 128 + 128 + 1280 + 10, 4},
        {"lenet", 8 * 25 + 8 + 16 * 8 * 25 + 16 + 256 * 10 + 10, 6},
        {"lenet5", 6 * 25 + 6 + 16 * 6 * 25 + 16 + 400 * 120 + 120 + 120 * 84 + 84 + 840 + 10, 10},
        {"fc10", 7850, 2}};
    for (int i = 0; i < 4; i++) {
        bt_model *model = NULL;
        bt_model_desc desc = {
            .spec = good[i].spec, .channels = 1, .height = 28, .width = 28, .classes = 10};
        ok(ctx, bt_model_make(ctx, &desc, &model));
        check(bt_model_size(model) == good[i].numbers &&
                  bt_model_parameter_count(model) == good[i].tensors,
              "%s has %zu numbers in %d tensors", good[i].spec, bt_model_size(model),
              bt_model_parameter_count(model));
        check(!strcmp(bt_model_parameter_name(model, 1), "0.bias"), "the second tensor is %s",
              bt_model_parameter_name(model, 1));
    }
    bt_close(ctx);
}

static bt_model *make_model(bt_context *ctx, const char *spec, uint64_t seed) {
    bt_model *model = NULL;
    bt_model_desc desc = {
        .spec = spec, .channels = 1, .height = 28, .width = 28, .classes = 10, .seed = seed};
    ok(ctx, bt_model_make(ctx, &desc, &model));
    return model;
}

static void same_weights(bt_context *ctx, bt_model *a, bt_model *b) {
    for (int i = 0; i < bt_model_parameter_count(a); i++) {
        size_t n;
        double *x = read_doubles(ctx, bt_model_parameter(a, i), &n),
               *y = read_doubles(ctx, bt_model_parameter(b, i), NULL);
        check(!memcmp(x, y, n * sizeof *x), "%s differs", bt_model_parameter_name(a, i));
        free(x), free(y);
    }
}

static void test_save_and_import(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    const char *path = in_scratch("weights.safetensors");
    bt_model *a = make_model(ctx, "lenet", 1), *b = make_model(ctx, "lenet", 2),
             *c = make_model(ctx, "mlp", 3);
    ok(ctx, bt_model_save(ctx, a, path));
    char how[256] = "";
    ok(ctx, bt_model_import(ctx, b, path, how, sizeof how));
    same_weights(ctx, a, b);
    check(strlen(how) > 10, "the import says \"%s\"", how);
    refused(ctx, BT_ERROR_DATA, "weights.safetensors", bt_model_import(ctx, c, path, NULL, 0));
    // Names of the layers as PyTorch's nn.Sequential gives them.
    bt_error err = {0};
    bt_st_file file = {0};
    check(bt_st_open(path, &err, &file) == BT_OK, "%s", err.text);
    static const char *names[] = {"0.weight", "0.bias", "3.weight", "3.bias"};
    for (int i = 0; i < 4; i++) check(bt_st_find(&file, names[i]), "there is no %s", names[i]);
    // The same tensors under other names are matched in order.
    bt_st_tensor renamed[6];
    char other[6][32];
    check(file.tensor_count == 6, "%d tensors", file.tensor_count);
    for (int i = 0; i < 6; i++) {
        renamed[i] = *bt_st_find(&file, bt_model_parameter_name(a, i));
        snprintf(other[i], sizeof other[i], "layer%d", i);
        renamed[i].name = other[i];
    }
    check(bt_st_write(path, renamed, 6, NULL, 0, &err) == BT_OK, "%s", err.text);
    bt_st_close(&file);
    b = make_model(ctx, "lenet", 4);
    ok(ctx, bt_model_import(ctx, b, path, how, sizeof how));
    same_weights(ctx, a, b);
    bt_close(ctx);
}

static void test_checkpoint(void **state) {
    (void)state;
    bt_train_desc desc = {.epochs = 2,
                          .hyper = {.lr = 0.05, .momentum = 0.9},
                          .folder = in_scratch("run"),
                          .settings = "{\"why\": \"test\"}"};
    bt_train_result result;
    watch w;
    check(train_small(&desc, &result, &w) == BT_OK, "%s", train_error);
    bt_context *ctx = open_cpu(2);
    const char *last = in_scratch("run/last.safetensors"),
               *best = in_scratch("run/best.safetensors");
    bt_model *model = NULL;
    ok(ctx, bt_model_load(ctx, best, BT_F32, &model));
    ok(ctx, bt_model_load(ctx, last, BT_F32, &model));
    check(strstr(bt_model_spec(model), "fc16,relu,fc10"), "the model is %s", bt_model_spec(model));
    bt_dataset *all = digits(ctx, 500, false), *train = NULL, *validation = NULL;
    ok(ctx, bt_dataset_split(ctx, all, 0.2, 1, &train, &validation));
    bt_evaluation e;
    int32_t predictions[100];
    ok(ctx, bt_evaluate(ctx, model, validation, 0, &e, predictions));
    check(e.accuracy == result.val_accuracy && e.count == 100,
          "the loaded model has %g, the trained one had %g", e.accuracy, result.val_accuracy);
    check(fabs(e.standard_error - sqrt(e.accuracy * (1 - e.accuracy) / 100)) < 1e-12,
          "standard error %g", e.standard_error);
    const char *settings = NULL;
    uint32_t step = 0;
    ok(ctx, bt_checkpoint_settings(ctx, last, &settings, &step));
    check(!strcmp(settings, desc.settings) && step == result.steps, "settings \"%s\" at step %u",
          settings, step);
    // Probabilities of the same images lead to the same predictions.
    uint8_t *images = allocate(100 * 784);
    float *p = allocate(1000 * sizeof *p);
    for (int i = 0; i < 100; i++) memcpy(images + i * 784, bt_dataset_image(validation, i), 784);
    ok(ctx, bt_predict(ctx, model, images, 100, p));
    for (int i = 0; i < 100; i++) {
        int top = 0;
        double sum = 0;
        for (int c = 0; c < 10; c++) {
            sum += p[10 * i + c];
            if (p[10 * i + c] > p[10 * i + top]) top = c;
        }
        check(top == predictions[i] && fabs(sum - 1) < 1e-5,
              "image %d: class %d and not %d, sum %g", i, top, predictions[i], sum);
    }
    free(images), free(p);
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    ok(ctx, bt_inspect(ctx, last, false, out));
    fclose(out);
    check(strstr(text, "0.weight") && strstr(text, "16"), "inspect says \"%.200s\"", text);
    free(text);
    bt_close(ctx);
}

static void test_bad_checkpoints(void **state) {
    (void)state;
    bt_train_desc desc = {.epochs = 1, .hyper = {.lr = 0.05}, .folder = in_scratch("bad-run")};
    bt_train_result result;
    watch w;
    check(train_small(&desc, &result, &w) == BT_OK, "%s", train_error);
    const char *path = in_scratch("bad-run/last.safetensors"),
               *bad = in_scratch("broken.safetensors");
    size_t size;
    uint8_t *bytes = read_file(path, &size);
    bt_context *ctx = open_cpu(1);
    bt_model *model = NULL;
    static const double cuts[] = {0, 0.0001, 0.01, 0.5, 0.999999};
    for (int i = 0; i < 5; i++) {
        write_file(bad, bytes, (size_t)((double)size * cuts[i]));
        refused(ctx, BT_ERROR_DATA, "broken.safetensors", bt_model_load(ctx, bad, BT_F32, &model));
    }
    for (size_t i = 0; i < size; i += size / 50) {
        bytes[i] ^= 16;
        write_file(bad, bytes, size);
        bt_status status = bt_model_load(ctx, bad, BT_F32, &model);
        check(status == BT_ERROR_DATA, "byte %zu of %zu changed gives %s", i, size,
              bt_status_name(status));
        bt_error_reset(ctx);
        bytes[i] ^= 16;
    }
    free(bytes);
    refused(ctx, BT_ERROR_DATA, "nowhere",
            bt_model_load(ctx, in_scratch("nowhere.safetensors"), BT_F32, &model));
    // A few bytes cannot make the reader compute gigabytes of initial weights.
    static const bt_st_pair huge[] = {
        {"bantam", "1"}, {"spec", "fc100000,fc9000"}, {"channels", "1"}, {"height", "10"},
        {"width", "10"}, {"classes", "9000"},         {"init", "he"},    {"init_seed", "0"}};
    bt_error err = {0};
    check(bt_st_write(bad, NULL, 0, huge, 8, &err) == BT_OK, "%s", err.text);
    refused(ctx, BT_ERROR_DATA, "numbers", bt_model_load(ctx, bad, BT_F32, &model));
    // Weights alone are no checkpoint.
    ok(ctx, bt_model_save(ctx, make_model(ctx, "fc10", 1), bad));
    desc.resume = bad;
    desc.folder = NULL;
    check(train_small(&desc, &result, &w) == BT_ERROR_DATA, "weights alone are resumed");
    bt_close(ctx);
}

static void test_unwritable_folder(void **state) {
    (void)state;
    write_file(in_scratch("a-file"), "x", 1);
    bt_train_desc desc = {.epochs = 1, .hyper = {.lr = 0.05}, .folder = in_scratch("a-file/run")};
    bt_train_result result;
    watch w;
    bt_status status = train_small(&desc, &result, &w);
    check(status == BT_ERROR_MEMORY, "a folder below a file gives %s: %s", bt_status_name(status),
          train_error);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_parameter_moves),
        cmocka_unit_test(test_one_batch_by_heart),
        cmocka_unit_test(test_first_loss),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_optimizers),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_nan_stops),
        cmocka_unit_test(test_specs),
        cmocka_unit_test(test_save_and_import),
        cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_bad_checkpoints),
        cmocka_unit_test(test_unwritable_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
