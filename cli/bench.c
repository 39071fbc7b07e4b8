// `bantam bench`: images per second of training and inference at several batch sizes, how long a
// single call takes that the host waits for, each the median of several repeats, and where the time
// of a training step goes.
#include "net.h"
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PROFILE_MAX = 256, PROFILE_STEPS = 50, REPEATS_MAX = 1000, CALLS_MAX = 2000 };
static const double REPEAT_SECONDS = 0.3;

typedef struct bench {
    settings *s;
    bt_context *ctx;
    bt_dataset *set;
    bt_dataset_info data;
    table table;
} bench;

static int make_program(bench *b, int batch, bool training, bool profile, bt_program **out) {
    net n;
    bt_batch_desc order = {.set = b->set, .batch = batch, .shuffle = training};
    int code = net_make(b->ctx, b->s, &b->data, bt_dataset_batch(b->ctx, &order), &n);
    if (code) return code;
    if (training) return net_program(b->ctx, &n, 0.01, 1, profile, out);
    bt_program_desc forward = {.outputs = &n.logits, .output_count = 1};
    CHECK(b->ctx, bt_program_make(b->ctx, &forward, out));
    return 0;
}

// Seconds of each repeat of as many steps as fill REPEAT_SECONDS, after as long a warm-up.
static int measure(bench *b, bt_program *p, double *seconds, uint32_t *steps) {
    double spent = 0;
    for (*steps = 1; spent < REPEAT_SECONDS && *steps < 1u << 24; *steps *= 2) {
        double start = now_seconds();
        CHECK(b->ctx, bt_program_run(b->ctx, p, *steps));
        spent = now_seconds() - start;
    }
    *steps /= 2;
    for (int i = 0; i < opt_int(b->s, "repeats"); i++) {
        double start = now_seconds();
        CHECK(b->ctx, bt_program_run(b->ctx, p, *steps));
        seconds[i] = now_seconds() - start;
    }
    return 0;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *sorted, int count) {
    qsort(sorted, (size_t)count, sizeof *sorted, compare_doubles);
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

// Seconds of a call for one step, from the host and back: the median of as many as fill
// REPEAT_SECONDS.
static int measure_call(bench *b, bt_program *p, double *median) {
    double seconds[CALLS_MAX], begin = now_seconds();
    int calls = 0;
    do {
        double start = now_seconds();
        CHECK(b->ctx, bt_program_run(b->ctx, p, 1));
        seconds[calls++] = now_seconds() - start;
    } while (calls < CALLS_MAX && now_seconds() - begin < REPEAT_SECONDS);
    *median = median_of(seconds, calls);
    return 0;
}

static int bench_one(bench *b, int batch, bool training) {
    double seconds[REPEATS_MAX], call = 0;
    bt_program *p;
    uint32_t steps = 0, mark = bt_mark(b->ctx);
    int code = make_program(b, batch, training, false, &p);
    if (!code) code = measure(b, p, seconds, &steps);
    if (!code) code = measure_call(b, p, &call);
    if (code) return code;
    int repeats = opt_int(b->s, "repeats"), per_epoch = (b->data.count + batch - 1) / batch;
    double images = (double)steps * b->data.count / per_epoch; // the last batch may be short
    double median = median_of(seconds, repeats);
    table_add(&b->table, json_pack("{s:s,s:i,s:f,s:f,s:f,s:f,s:f}", "phase",
                                   training ? "training" : "inference", "batch", batch,
                                   "images_per_s", images / median, "low",
                                   images / seconds[repeats - 1], "high", images / seconds[0],
                                   "step_us", 1e6 * median / steps, "call_us", 1e6 * call));
    bt_release(b->ctx, mark);
    return 0;
}

static int bench_operators(bench *b, int batch, json_t **out) {
    bt_program *p;
    int code = make_program(b, batch, true, true, &p);
    if (code) return code;
    CHECK(b->ctx, bt_program_run(b->ctx, p, PROFILE_STEPS));
    bt_profile_row *rows = calloc(PROFILE_MAX, sizeof *rows);
    if (!rows) return fail_status(NULL, BT_ERROR_MEMORY);
    int count = bt_program_profile(p, rows, PROFILE_MAX);
    *out = profile_rows(rows, count < PROFILE_MAX ? count : PROFILE_MAX);
    free(rows);
    if (b->table.silent) return 0;
    printf("\n%d training steps at batch %d:\n", PROFILE_STEPS, batch);
    profile_print(*out);
    return 0;
}

static int write_csv(const json_t *rows, const char *path) {
    FILE *out = fopen(path, "w");
    if (out) csv_write(rows, out);
    bool failed = !out || fflush(out) || ferror(out);
    int error = errno;
    if (out) fclose(out);
    return failed ? fail(BT_ERROR_MEMORY, "%s cannot be written: %s", path, strerror(error)) : 0;
}

static bool wanted(const bench *b, bool training) {
    return opt_is(b->s, "phase", "all") ||
           opt_is(b->s, "phase", training ? "training" : "inference");
}

static int bench_all(bench *b, const bt_device_info *device) {
    int batches[] = {64, 256, 500}, count = 3, code = 0;
    json_t *operators = NULL;
    if (opt_int(b->s, "batch")) batches[0] = opt_int(b->s, "batch"), count = 1;
    for (int i = 0; i < count && !code && wanted(b, true); i++)
        code = bench_one(b, batches[i], true);
    if (!code && wanted(b, false) && batches[0] > 1) code = bench_one(b, 1, false);
    for (int i = 0; i < count && !code && wanted(b, false); i++)
        code = bench_one(b, batches[i], false);
    if (!code && opt_is(b->s, "phase", "all")) code = bench_operators(b, batches[0], &operators);
    if (!code && opt_text(b->s, "out")) code = write_csv(b->table.rows, opt_text(b->s, "out"));
    if (!code && b->table.silent)
        print_json(json_pack("{s:s,s:s,s:s,s:s,s:i,s:O,s:O?}", "model", net_spec(b->s), "device",
                             device->name, "description", device->description, "precision",
                             precision_name(b->ctx, b->s), "repeats", opt_int(b->s, "repeats"),
                             "rows", b->table.rows, "operators", operators));
    json_decref(operators);
    return code;
}

static int bench_body(bt_context *ctx, void *user) {
    static const column columns[] = {{"phase", "phase", "%-9s"},
                                     {"batch", "batch", "%6lld"},
                                     {"images_per_s", "images/s", "%11.0f"},
                                     {"low", "lowest", "%11.0f"},
                                     {"high", "highest", "%11.0f"},
                                     {"step_us", "us/step", "%10.2f"},
                                     {"call_us", "us/call", "%10.2f"}};
    bench b = {.s = user, .ctx = ctx};
    bt_device_info device;
    CHECK(ctx, open_data(ctx, b.s, false, opt_int(b.s, "limit"), &b.set));
    bt_dataset_describe(b.set, &b.data);
    bt_context_device(ctx, &device);
    if (!opt_flag(b.s, "json"))
        printf("%s on %s in %s (%s), median of %d\n", net_spec(b.s), device.name,
               precision_name(ctx, b.s), device.description, opt_int(b.s, "repeats"));
    table_begin(&b.table, columns, 7, opt_flag(b.s, "json"));
    int code = bench_all(&b, &device);
    table_end(&b.table);
    return code;
}

int command_bench(settings *s) {
    int code = choose_data(s, 1);
    return code ? code : with_device(s, bench_body, s);
}
