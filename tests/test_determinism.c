// Same bits: for any number of threads, for the same seed again, and after a resume at any step.
#include "data/safetensors.h"
#include "nets.h"
#include "support.h"

typedef struct outcome {
    void *state;
    size_t bytes;
    bt_log_entry log[24];
} outcome;

enum { STEPS = 12 };

static outcome train_steps(const net_desc *desc, int threads) {
    outcome out = {0};
    trained net = net_make(open_cpu(threads), desc);
    ok(net.ctx, bt_program_run(net.ctx, net.program, STEPS));
    ok(net.ctx, bt_program_log(net.ctx, net.program, 0, STEPS, out.log));
    out.state = net_state(&net, &out.bytes);
    bt_close(net.ctx);
    return out;
}

static void same(const outcome *a, const outcome *b, const char *what) {
    for (int i = 0; i < STEPS; i++) {
        check(!memcmp(&a->log[i], &b->log[i], sizeof a->log[i]),
              "%s: the loss of step %d is %.17g and not %.17g", what, i, b->log[i].loss,
              a->log[i].loss);
    }
    check(a->bytes == b->bytes && !memcmp(a->state, b->state, a->bytes),
          "%s: weights or moments differ", what);
}

static const net_desc nets[] = {
    {.spec = "mlp", .seed = 1, .limit = 500},
    {.spec = "lenet",
     .seed = 2,
     .batch = 50,
     .limit = 210,
     .optimizer = BT_ADAM,
     .hyper = {.lr = 1e-3, .momentum = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .clip = 0.5}},
    {.spec = "conv6x3,tanh,pool2,fc32,sigmoid,fc10",
     .seed = 3,
     .batch = 33,
     .limit = 150,
     .dtype = BT_F64},
};

static void test_threads(void **state) {
    (void)state;
    static const int threads[] = {2, 3, 8};
    for (size_t n = 0; n < sizeof nets / sizeof *nets; n++) {
        outcome one = train_steps(&nets[n], 1);
        for (int t = 0; t < 3; t++) {
            char text[64];
            snprintf(text, sizeof text, "%.20s, %d threads", nets[n].spec, threads[t]);
            outcome other = train_steps(&nets[n], threads[t]);
            same(&one, &other, text);
            free(other.state);
        }
        free(one.state);
    }
}

static void test_same_seed_twice(void **state) {
    (void)state;
    net_desc desc = nets[0];
    outcome first = train_steps(&desc, 2), again = train_steps(&desc, 2);
    same(&first, &again, "the same seed again");
    desc.seed = 99;
    outcome other = train_steps(&desc, 2);
    check(memcmp(first.state, other.state, first.bytes), "another seed gives the same weights");
    free(first.state), free(again.state), free(other.state);
}

// Runs in pieces equal one run: the host does not matter.
static void test_pieces(void **state) {
    (void)state;
    outcome whole = train_steps(&nets[0], 2), pieces = {0};
    trained net = net_make(open_cpu(2), &nets[0]);
    for (uint32_t i = 0, n = 1; i < STEPS; i += n, n++) {
        if (n > STEPS - i) n = STEPS - i;
        ok(net.ctx, bt_program_run(net.ctx, net.program, n));
    }
    ok(net.ctx, bt_program_log(net.ctx, net.program, 0, STEPS, pieces.log));
    pieces.state = net_state(&net, &pieces.bytes);
    bt_close(net.ctx);
    same(&whole, &pieces, "in pieces");
    free(whole.state), free(pieces.state);
}

// ---- Resume -----------------------------------------------------------------------------------

typedef struct stopper {
    uint32_t stop_at; // 0: never
    uint32_t stopped_at;
} stopper;

static bt_answer stop_there(void *user, const bt_progress *progress) {
    stopper *s = user;
    if (!s->stop_at || progress->step < s->stop_at || progress->event == BT_EVENT_START)
        return BT_CONTINUE;
    if (!s->stopped_at) s->stopped_at = progress->step;
    return BT_STOP;
}

// Trains in `folder` and returns the bytes of the last checkpoint's data.
static bt_status train_in(const char *folder, const char *resume, stopper *stop,
                          bt_optimizer optimizer) {
    bt_context *ctx = open_cpu(2);
    bt_dataset *all = digits(ctx, 600, false), *train = NULL, *validation = NULL;
    ok(ctx, bt_dataset_split(ctx, all, 0.2, 4, &train, &validation));
    bt_model *model = NULL;
    bt_model_desc desc = {.spec = "conv4x5,relu,pool2,fc10",
                          .channels = 1,
                          .height = 28,
                          .width = 28,
                          .classes = 10,
                          .seed = 4};
    ok(ctx, bt_model_make(ctx, &desc, &model));
    bt_train_desc t = {.model = model,
                       .train = train,
                       .validation = validation,
                       .epochs = 3,
                       .batch = 32,
                       .optimizer = optimizer,
                       .schedule = BT_SCHEDULE_ONECYCLE,
                       .seed = 4,
                       .hyper = {.lr = optimizer == BT_SGD ? 0.05 : 2e-3,
                                 .momentum = 0.9,
                                 .beta2 = 0.999,
                                 .epsilon = 1e-8,
                                 .weight_decay = 1e-4,
                                 .clip = 1},
                       .folder = folder,
                       .resume = resume,
                       .callback = stop_there,
                       .user = stop};
    bt_train_result result;
    bt_status status = bt_train(ctx, &t, &result);
    if (status != BT_STOPPED) test_ok(ctx, status, "bt_train", __FILE__, __LINE__);
    bt_close(ctx);
    return status;
}

// Every tensor and every number of the metadata but the time it took, and so the hash of the whole.
static void same_checkpoint(const char *folder, const char *other, uint32_t stopped_at) {
    char path[2][600];
    bt_st_file file[2] = {0};
    for (int i = 0; i < 2; i++) {
        bt_error err = {0};
        snprintf(path[i], sizeof path[i], "%s/last.safetensors", i ? other : folder);
        check(bt_st_open(path[i], &err, &file[i]) == BT_OK, "%s", err.text);
    }
    check(file[0].tensor_count == file[1].tensor_count && file[0].tensor_count >= 8,
          "%d and %d tensors", file[0].tensor_count, file[1].tensor_count);
    for (int i = 0; i < file[0].tensor_count; i++) {
        const bt_st_tensor *want = &file[0].tensors[i], *got = bt_st_find(&file[1], want->name);
        check(got && got->bytes == want->bytes && !memcmp(got->data, want->data, want->bytes),
              "stopped after step %u and resumed: %s differs", stopped_at, want->name);
    }
    for (int i = 0; i < file[0].metadata_count; i++) {
        const bt_st_pair *want = &file[0].metadata[i];
        const char *got = bt_st_metadata(&file[1], want->key);
        bool varies = !strcmp(want->key, "seconds") || !strcmp(want->key, "sha256");
        check(got && (varies || !strcmp(got, want->value)),
              "stopped after step %u and resumed: %s is %s and not %s", stopped_at, want->key,
              got ? got : "missing", want->value);
    }
    bt_st_close(&file[0]);
    bt_st_close(&file[1]);
}

static void test_resume(void **state) {
    (void)state;
    static const bt_optimizer optimizers[] = {BT_SGD, BT_ADAMW};
    for (int o = 0; o < (quick() ? 1 : 2); o++) {
        stopper never = {0};
        const char *whole = in_scratch(o ? "whole-adam" : "whole");
        check(train_in(whole, NULL, &never, optimizers[o]) == BT_OK, "the unbroken run stops");
        // In the first epoch, at its end, in the middle and near the end.
        static const uint32_t stops[] = {1, 7, 15, 16, 29, 44};
        for (int i = 0; i < (quick() ? 2 : 6); i++) {
            char name[64], path[600];
            snprintf(name, sizeof name, "broken-%d-%d", o, i);
            const char *broken = in_scratch(name);
            stopper stop = {.stop_at = stops[i]};
            check(train_in(broken, NULL, &stop, optimizers[o]) == BT_STOPPED,
                  "asked to stop at %u, it went on", stops[i]);
            snprintf(path, sizeof path, "%s/last.safetensors", broken);
            check(train_in(broken, path, &never, optimizers[o]) == BT_OK, "the resumed run stops");
            same_checkpoint(whole, broken, stop.stopped_at);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_same_seed_twice),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_resume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
