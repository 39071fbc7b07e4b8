// Profiles: what was kept launch by launch, the timeline of a training as Chrome trace events that
// nest, shares that sum to 100, and the measured roofline and its cache.
#include "base/launch_log.h"
#include "base/threads.h"
#include "profile.h"
#include "trace.h"
#include "train/trace.h" // (before cmocka, which makes `fail` a macro)

#include "nets.h"
#include "support.h"

#include <dirent.h>
#include <math.h>
#include <sys/stat.h>

// ---- What is kept -------------------------------------------------------------------------------

static void test_first_and_last_steps(void **state) {
    (void)state;
    enum { LAUNCHES = 3, STEPS = 133 };
    bt_error err = {0};
    bt_launch_log *log;
    check(bt_launch_log_make(LAUNCHES, &err, &log) == BT_OK, "%s", err.text);
    for (int s = 0; s < STEPS; s++) {
        check(bt_launch_log_kept(log) == (s < 40 ? s : 40), "%d steps are kept after %d",
              bt_launch_log_kept(log), s);
        for (int i = 0; i < LAUNCHES; i++) bt_launch_log_add(log, i, 10 * s + i, i + 1);
    }
    for (int i = 0; i < 40; i++) {
        uint64_t step, want = i < 20 ? (uint64_t)i : (uint64_t)(STEPS - 40 + i);
        const bt_launch_time *times = bt_launch_log_step(log, i, &step);
        check(step == want, "kept step %d is %llu", i, (unsigned long long)step);
        check(times[2].start == 10 * (double)want + 2, "its last launch began at %g",
              times[2].start);
    }
    check(log->seconds[1] == 2 * STEPS, "in all %g s", log->seconds[1]);
    bt_launch_log_free(log);
}

// Launches of a program on a device: in order, one after the other, within the run.
static void check_device(const char *device, const char *spec) {
    bt_context *ctx;
    if (bt_open(&(bt_context_desc){.device = device, .threads = 2}, &ctx) != BT_OK) {
        bt_close(ctx);
        skip_because("there is no such device");
    }
    trained net = net_make(ctx, &(net_desc){.spec = spec, .profile = true});
    ok(ctx, bt_program_run(ctx, net.program, 3));
    bt_program_stats stats;
    bt_program_describe(net.program, &stats);
    bt_span spans[256];
    int count = bt_program_trace(net.program, NULL, 0), each = count / 3;
    // What is done together with another launch has no span of its own.
    check(count == 3 * each && each > 5 && each <= stats.launches && count <= 256,
          "%s: %d spans of 3 steps of %d launches", device, count, stats.launches);
    check(bt_program_trace(net.program, spans, 256) == count, "another number of spans");
    double sum = 0, at = 0;
    for (int i = 0; i < count; i++) {
        check(spans[i].step == 1 + (uint32_t)(i / each), "%s: span %d is of step %u", device, i,
              spans[i].step);
        check(spans[i].kernel && spans[i].name[0], "%s: span %d has no name", device, i);
        check(spans[i].seconds >= 0 && spans[i].start >= at - 1e-6,
              "%s: %s begins at %.9f, but the one before ends at %.9f", device, spans[i].name,
              spans[i].start, at);
        at = spans[i].start + spans[i].seconds;
        sum += spans[i].seconds;
    }
    bt_profile_row rows[64];
    int row_count = bt_program_profile(net.program, rows, 64);
    for (int i = 0; i < row_count - 1; i++) sum -= rows[i].seconds;
    check(fabs(sum) < 1e-6, "%s: trace and profile differ by %g s", device, sum);
    bt_close(ctx);
}

static void test_devices(void **state) {
    (void)state;
    check_device("cpu", "lenet");
    check_device("check", "fc10");
    check_device("sim", "fc10");
}

static void test_vulkan(void **state) {
    (void)state;
    check_device("vulkan", "fc10");
}

// ---- The file -----------------------------------------------------------------------------------

typedef struct event {
    double begin, end; // microseconds
    const char *name;
} event;

static int by_begin(const void *a, const void *b) {
    const event *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end < y->end) - (x->end > y->end);
}

// Of the X events of a line: each is inside of the one that is open, or after it, in floating point
// as viewers add it up. Returns the deepest nesting.
static int check_nesting(json_t *events, int line) {
    size_t i, n = 0, open = 0, deepest = 0;
    json_t *e;
    event *list = allocate(sizeof *list * (json_array_size(events) + 1));
    event *stack = allocate(sizeof *stack * (json_array_size(events) + 1));
    json_array_foreach(events, i, e) {
        const char *kind = json_string_value(json_object_get(e, "ph"));
        if (strcmp(kind, "X") || json_integer_value(json_object_get(e, "tid")) != line) continue;
        double ts = json_real_value(json_object_get(e, "ts"));
        double duration = json_real_value(json_object_get(e, "dur"));
        check(ts >= 0 && duration >= 0, "event %zu: ts %g, dur %g", i, ts, duration);
        list[n++] = (event){ts, ts + duration, json_string_value(json_object_get(e, "name"))};
    }
    qsort(list, n, sizeof *list, by_begin);
    for (i = 0; i < n; i++) {
        while (open > 0 && stack[open - 1].end <= list[i].begin) open--;
        check(open == 0 || list[i].end <= stack[open - 1].end,
              "%s (%.3f to %.3f) overlaps %s (%.3f to %.3f)", list[i].name, list[i].begin,
              list[i].end, stack[open - 1].name, stack[open - 1].begin, stack[open - 1].end);
        stack[open++] = list[i];
        if (open > deepest) deepest = open;
    }
    free(list);
    free(stack);
    return (int)deepest;
}

static int count_events(json_t *events, const char *kind, const char *part) {
    size_t i;
    json_t *e;
    int count = 0;
    json_array_foreach(events, i, e) count +=
        !strcmp(json_string_value(json_object_get(e, "ph")), kind) &&
        strstr(json_string_value(json_object_get(e, "name")), part);
    return count;
}

static json_t *parse_trace(const bt_span *spans, int count) {
    json_error_t error;
    FILE *file = fopen(in_scratch("trace.json"), "w+");
    check(trace_print(spans, count, file) == 0, "trace_print failed");
    rewind(file);
    json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    check(root, "line %d: %s", error.line, error.text);
    fclose(file);
    return root;
}

static void test_training(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(2);
    bt_dataset *digits, *train, *validation;
    bt_model *model;
    bt_train_result result;
    ok(ctx, bt_dataset_open(ctx, &(bt_dataset_desc){.name = "digits", .limit = 3000}, &digits));
    ok(ctx, bt_dataset_split(ctx, digits, 0.1, 1, &train, &validation));
    ok(ctx,
       bt_model_make(
           ctx,
           &(bt_model_desc){
               .spec = "fc32,relu,fc10", .channels = 1, .height = 28, .width = 28, .classes = 10},
           &model));
    ok(ctx, bt_train(ctx,
                     &(bt_train_desc){.model = model,
                                      .train = train,
                                      .validation = validation,
                                      .epochs = 3,
                                      .hyper = {.lr = 0.1},
                                      .folder = in_scratch("checkpoints"),
                                      .profile = true},
                     &result));
    int launches = result.profile_count - 1;
    json_t *root = parse_trace(result.trace, result.trace_count);
    json_t *events = json_object_get(root, "traceEvents");
    check(count_events(events, "X", "epoch ") == 3, "%d epochs",
          count_events(events, "X", "epoch "));
    check(count_events(events, "X", "validation") == 3, "%d validations",
          count_events(events, "X", "validation"));
    check(count_events(events, "X", "checkpoint last") >= 2, "no checkpoint");
    check(count_events(events, "X", "step ") == 40, "%d steps of the device",
          count_events(events, "X", "step "));
    check(count_events(events, "X", "update") == 40, "%d updates",
          count_events(events, "X", "update"));
    check(count_events(events, "X", "") == result.trace_count + 40, "%d events of %d spans",
          count_events(events, "X", ""), result.trace_count);
    check(count_events(events, "C", "images/s") > 0, "no counter of images/s");
    check(count_events(events, "M", "thread_name") == 2, "the lines have no names");
    check(check_nesting(events, 1) >= 3, "training, epochs and steps do not nest");
    check(check_nesting(events, 2) == 2, "launches are not inside of steps");
    check(result.trace[result.trace_count - 1].step == result.steps,
          "the last launch is of step %u", result.trace[result.trace_count - 1].step);
    check(launches > 5, "%d launches", launches);
    json_decref(root);
    bt_close(ctx);
}

// A device's clock that was placed early, and spans of no length.
static void test_awkward_times(void **state) {
    (void)state;
    const bt_span spans[] = {{"outer \"quoted\"", NULL, 5, 1, 1, 0}, // ends later than the next
                             {"a", "k", 5.2, 0.3, 1, 0},
                             {"b", "k", 5.4, 0.05, 1, 0},
                             {"c", "k", 5.3, 0, 2, 0},
                             {"d", "k", 5.1, 0.6, 2, 0}};
    json_t *root = parse_trace(spans, 5), *events = json_object_get(root, "traceEvents");
    check(check_nesting(events, 2) >= 2, "launches are not inside of steps");
    check(count_events(events, "X", "\"quoted\"") == 1, "the name was changed");
    json_decref(root);
    root = parse_trace(spans, 0);
    check(count_events(json_object_get(root, "traceEvents"), "X", "") == 0,
          "events out of nothing");
    json_decref(root);
}

static void test_bounded(void **state) {
    (void)state;
    enum { SPANS = 20000 };
    bt_trace trace = {.wanted = true};
    for (int i = 0; i < SPANS; i++) bt_trace_add(&trace, bt_seconds(), 1, 1, "steps");
    int kept = trace.count;
    for (int i = 0; i < SPANS; i++) bt_trace_add(&trace, bt_seconds(), 1, 1, "epoch %d", i);
    check(kept < SPANS / 2 && trace.count > kept && trace.count < SPANS, "%d, then %d spans", kept,
          trace.count);
    bt_trace_add(&trace, bt_seconds(), 1, 1, "training");
    check(!strcmp(trace.spans[trace.count - 1].name, "training"), "no training but %s",
          trace.spans[trace.count - 1].name);
    free(trace.spans);
}

// ---- Shares and the roofline --------------------------------------------------------------------

static void test_rows(void **state) {
    (void)state;
    const bt_roofline roofline = {.gflops = 100, .gbytes_s = 10};
    const bt_profile_row in[] = {{"0.conv", "conv2d", 10, 0.5, 25e9, 1e9},
                                 {"1.relu", "map", 10, 0.25, 1e6, 1.25e9},
                                 {"launch gaps", "", 0, 0.25, 0, 0}};
    json_t *rows = profile_rows(in, 3, &roofline), *row;
    double sum = 0, want[] = {50, 50, 0};
    size_t i;
    json_array_foreach(rows, i, row) {
        double roof = json_real_value(json_object_get(row, "percent_of_roofline"));
        sum += json_real_value(json_object_get(row, "percent"));
        check(fabs(roof - want[i]) < 1e-9, "row %zu is at %g %% of the roofline", i, roof);
    }
    check(fabs(sum - 100) < 1e-9, "the shares sum to %g", sum);
    json_decref(rows);
}

// What a step moves does not depend on how long the training is.
static void test_bytes_of_a_step(void **state) {
    (void)state;
    double update[2], end[2];
    for (int k = 0; k < 2; k++) {
        bt_context *ctx = open_cpu(1);
        bt_model *model;
        bt_train_result result;
        ok(ctx, bt_model_make(
                    ctx,
                    &(bt_model_desc){
                        .spec = "fc10", .channels = 1, .height = 28, .width = 28, .classes = 10},
                    &model));
        ok(ctx, bt_train(ctx,
                         &(bt_train_desc){.model = model,
                                          .train = digits(ctx, 64, false),
                                          .epochs = k ? 500 : 1,
                                          .profile = true,
                                          .hyper = {.lr = 0.01, .momentum = 0.9}},
                         &result));
        for (int i = 0; i < result.profile_count; i++) {
            const bt_profile_row *row = &result.profile[i];
            double each = row->bytes / (double)(row->calls ? row->calls : 1);
            if (!strcmp(row->op, "update")) update[k] = each;
            if (!strcmp(row->op, "step_end")) end[k] = each;
        }
        // Parameters and moments are read and written, gradients are read.
        check(update[k] >= 20.0 * 7850 && update[k] < 21.0 * 7850, "update moves %g bytes",
              update[k]);
        bt_close(ctx);
    }
    check(update[0] == update[1] && end[0] == end[1], "update %g, %g; step_end %g, %g bytes",
          update[0], update[1], end[0], end[1]);
}

static void test_roofline(void **state) {
    (void)state;
    setenv("XDG_CACHE_HOME", scratch(), 1);
    bt_roofline first = {0}, again = {0}, doubles = {0}, mended = {0};
    bt_context *ctx = open_cpu(2);
    ok(ctx, bt_roofline_find(ctx, BT_F32, &first));
    check(first.gflops > 0.01 && first.gflops < 1e7, "%g GFLOP/s", first.gflops);
    check(first.gbytes_s > 0.01 && first.gbytes_s < 1e6, "%g GB/s", first.gbytes_s);
    ok(ctx, bt_roofline_find(ctx, BT_F32, &again));
    check(!memcmp(&first, &again, sizeof first), "it was measured again");
    ok(ctx, bt_roofline_find(ctx, BT_F64, &doubles));
    check(memcmp(&first, &doubles, sizeof first), "f64 has the roofline of f32");
    bt_context *one = open_cpu(1);
    ok(one, bt_roofline_find(one, BT_F32, &again));
    check(memcmp(&first, &again, sizeof first), "one thread has the roofline of two");
    bt_close(one);
    // Whatever lies in the cache instead is not believed.
    DIR *folder = opendir(in_scratch("bantam"));
    check(folder, "no cache folder");
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", in_scratch("bantam"), entry->d_name);
        if (strncmp(entry->d_name, "roofline-", 9)) continue;
        size_t size;
        uint8_t *bytes = read_file(path, &size);
        memset(bytes + size - sizeof first, 0xff, sizeof first);
        write_file(path, bytes, size);
        free(bytes);
    }
    closedir(folder);
    ok(ctx, bt_roofline_find(ctx, BT_F32, &mended));
    check(mended.gflops > 0.01 && mended.gflops < 1e7, "%g GFLOP/s from a damaged file",
          mended.gflops);
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_and_last_steps),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_vulkan),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_awkward_times),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_bytes_of_a_step),
        cmocka_unit_test(test_roofline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
