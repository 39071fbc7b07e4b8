// Between the steps of an epoch the host does nothing: what a whole epoch of training sends to the
// device and gets back, counted, on every kind of device that is here.
#include "nets.h"
#include "support.h"

#include "base/threads.h"

enum { SAMPLES = 1200, BATCH = 8, STEPS = SAMPLES / BATCH, EPOCHS = 3 };

static void check_epoch(const bt_counters *before, const bt_counters *after, double seconds,
                        int epoch) {
    unsigned long long submissions = after->submissions - before->submissions;
    unsigned long long launches = after->launches - before->launches;
    unsigned long long written = after->bytes_written - before->bytes_written;
    unsigned long long back = after->bytes_read - before->bytes_read;
    // One at best; a driver that is slow gets pieces of a quarter of a second, and on a busy
    // machine the guess of how many steps these are is off.
    check(submissions <= STEPS / 10 + 8 * seconds,
          "epoch %d: %llu submissions for %d steps in %g s", epoch, submissions, STEPS, seconds);
    check(launches >= 5 * STEPS, "epoch %d: %llu launches for %d steps", epoch, launches, STEPS);
    check(written == 0, "epoch %d: %llu bytes went to the device", epoch, written);
    check(back == 8 * STEPS, "epoch %d: %llu bytes came back; loss and number right are %d", epoch,
          back, 8 * STEPS);
}

static void train_on(const char *device) {
    bt_context *ctx;
    bt_context_desc desc = {.device = device};
    if (bt_open(&desc, &ctx) != BT_OK) {
        char why[256];
        snprintf(why, sizeof why, "%s", bt_error_text(ctx));
        bt_close(ctx);
        skip_because(why);
    }
    trained net = net_make(ctx, &(net_desc){.spec = "fc10", .limit = SAMPLES, .batch = BATCH});
    bt_log_entry log[STEPS];
    double correct = 0;
    ok(ctx, bt_program_run(ctx, net.program, STEPS)); // uploads, learns how long a step takes
    for (int epoch = 2; epoch <= EPOCHS; epoch++) {
        bt_counters before, after;
        bt_context_counters(ctx, &before);
        double start = bt_seconds();
        ok(ctx, bt_program_run(ctx, net.program, STEPS));
        ok(ctx, bt_program_log(ctx, net.program, (uint32_t)(epoch - 1) * STEPS, STEPS, log));
        bt_context_counters(ctx, &after);
        check_epoch(&before, &after, bt_seconds() - start, epoch);
    }
    for (int i = 0; i < STEPS; i++) correct += log[i].correct;
    check(correct > 0.5 * SAMPLES, "only %g of %d are right in the end", correct, SAMPLES);
    bt_close(ctx);
}

static void test_cpu(void **state) {
    (void)state;
    train_on("cpu");
}

static void test_simulated(void **state) {
    (void)state;
    train_on("sim");
}

static void test_vulkan(void **state) {
    (void)state;
    train_on("vulkan");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu),
        cmocka_unit_test(test_simulated),
        cmocka_unit_test(test_vulkan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
