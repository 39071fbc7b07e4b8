// `bantam bench`: images per second of training and inference at several batch sizes, how long a
// single call takes that the host waits for, each the median of several repeats, and where the time
// of a training step goes.
#include "compare.h"
#include "net.h"
#include "profile.h"
#include "replace.h"
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PROFILE_MAX = 256, PROFILE_STEPS = 50, REPEATS_MAX = 1000, CALLS_MAX = 2000, ROWS_MAX = 8 };
static const double REPEAT_SECONDS = 0.3, CALL_SECONDS = 0.06;

// What is measured in one row of the table.
typedef struct row {
    bool training;
    int batch;
    bt_program *program;
    uint32_t steps; // of a repeat
    double step_us[REPEATS_MAX], call_us[REPEATS_MAX];
} row;

typedef struct bench {
    settings *s;
    bt_context *ctx;
    bt_dataset *set;
    bt_dataset_info data;
    table table;
    csv old; // of --compare
    row rows[ROWS_MAX];
    int row_count;
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

// As many steps as fill REPEAT_SECONDS, found by running as many.
static int choose_steps(bench *b, row *r) {
    double spent = 0;
    for (r->steps = 1; spent < REPEAT_SECONDS && r->steps < 1u << 24; r->steps *= 2) {
        double start = now_seconds();
        CHECK(b->ctx, bt_program_run(b->ctx, r->program, r->steps));
        spent = now_seconds() - start;
    }
    r->steps /= 2;
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
// CALL_SECONDS.
static int measure_call(bench *b, bt_program *p, double *median) {
    double seconds[CALLS_MAX], begin = now_seconds();
    int calls = 0;
    do {
        double start = now_seconds();
        CHECK(b->ctx, bt_program_run(b->ctx, p, 1));
        seconds[calls++] = now_seconds() - start;
    } while (calls < CALLS_MAX && now_seconds() - begin < CALL_SECONDS);
    *median = median_of(seconds, calls);
    return 0;
}

static int measure(bench *b, row *r, int repeat) {
    double start = now_seconds();
    CHECK(b->ctx, bt_program_run(b->ctx, r->program, r->steps));
    r->step_us[repeat] = 1e6 * (now_seconds() - start) / r->steps;
    int code = measure_call(b, r->program, &r->call_us[repeat]);
    r->call_us[repeat] *= 1e6;
    return code;
}

static void add_row(bench *b, row *r) {
    bt_device_info device;
    bt_context_device(b->ctx, &device);
    int repeats = opt_int(b->s, "repeats"), per_epoch = (b->data.count + r->batch - 1) / r->batch;
    double images = 1e6 * b->data.count / per_epoch; // of 1e6 steps; the last batch may be short
    ln_times step = ln_times_of(r->step_us, repeats), call = ln_times_of(r->call_us, repeats);
    double median = median_of(r->step_us, repeats), call_median = median_of(r->call_us, repeats);
    table_add(&b->table,
              json_pack("{s:s,s:s,s:s,s:i,s:s,s:s,s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}",
                        "model", net_spec(b->s), "data", b->data.name, "device", device.name,
                        "threads", opt_int(b->s, "threads"), "precision",
                        precision_name(b->ctx, b->s), "phase",
                        r->training ? "training" : "inference", "batch", r->batch, "repeats",
                        repeats, "images_per_s", images / median, "low",
                        images / r->step_us[repeats - 1], "high", images / r->step_us[0], "step_us",
                        median, "call_us", call_median, "ln_step_us", step.mean, "ln_step_sd",
                        step.deviation, "ln_call_us", call.mean, "ln_call_sd", call.deviation));
}

static int bench_operators(bench *b, int batch, json_t **out) {
    bt_program *p;
    int code = make_program(b, batch, true, true, &p);
    if (code) return code;
    CHECK(b->ctx, bt_program_run(b->ctx, p, PROFILE_STEPS));
    bt_profile_row *rows = calloc(PROFILE_MAX, sizeof *rows);
    if (!rows) return fail_status(NULL, BT_ERROR_MEMORY);
    int count = bt_program_profile(p, rows, PROFILE_MAX);
    bt_roofline roofline;
    bt_status status = bt_roofline_find(b->ctx, BT_F32, &roofline);
    if (status == BT_OK)
        *out = profile_rows(rows, count < PROFILE_MAX ? count : PROFILE_MAX, &roofline);
    free(rows);
    CHECK(b->ctx, status);
    if (b->table.silent) return 0;
    printf("\n%d training steps at batch %d:\n", PROFILE_STEPS, batch);
    profile_print(*out, &roofline);
    return 0;
}

static int write_csv(const json_t *rows, const char *path) {
    replacement f;
    bool good = replace_begin(&f, "", path);
    if (good) csv_write(rows, f.file);
    if (good && replace_end(&f)) return 0;
    return fail(BT_ERROR_MEMORY, "%s cannot be written: %s", path, strerror(errno));
}

static bool wanted(const bench *b, bool training) {
    return opt_is(b->s, "phase", "all") ||
           opt_is(b->s, "phase", training ? "training" : "inference");
}

static int prepare(bench *b, bool training, int batch) {
    row *r = &b->rows[b->row_count++];
    *r = (row){.training = training, .batch = batch};
    int code = make_program(b, batch, training, false, &r->program);
    return code ? code : choose_steps(b, r);
}

// The rows take turns, so that a busy moment of the machine does not fall on the repeats of one.
static int bench_rows(bench *b) {
    int batches[] = {64, 256, 500}, count = 3, code = 0;
    if (opt_int(b->s, "batch")) batches[0] = opt_int(b->s, "batch"), count = 1;
    for (int i = 0; i < count && !code && wanted(b, true); i++) code = prepare(b, true, batches[i]);
    if (!code && wanted(b, false) && batches[0] > 1) code = prepare(b, false, 1);
    for (int i = 0; i < count && !code && wanted(b, false); i++)
        code = prepare(b, false, batches[i]);
    for (int repeat = 0; repeat < opt_int(b->s, "repeats"); repeat++)
        for (int i = 0; i < b->row_count && !code; i++) code = measure(b, &b->rows[i], repeat);
    for (int i = 0; i < b->row_count && !code; i++) add_row(b, &b->rows[i]);
    return code;
}

static int compare_with(bench *b, json_t *out) {
    const char *path = opt_text(b->s, "compare");
    int code = path ? compare_rows(b->s, b->table.rows, &b->old, path, out) : 0;
    if (code || !path || b->table.silent) return code;
    printf("\nsince %s (microseconds; all intervals together hold in 95 of 100 cases):\n", path);
    compare_print(out);
    return 0;
}

static int bench_all(bench *b, const bt_device_info *device) {
    json_t *operators = NULL, *comparison = opt_text(b->s, "compare") ? json_array() : NULL;
    int code = bench_rows(b);
    if (!code && opt_is(b->s, "phase", "all"))
        code = bench_operators(b, b->rows[0].batch, &operators);
    if (!code && opt_text(b->s, "out")) code = write_csv(b->table.rows, opt_text(b->s, "out"));
    if (!code) code = compare_with(b, comparison);
    if (!code && b->table.silent)
        print_json(json_pack("{s:s,s:s,s:s,s:s,s:i,s:O,s:O?,s:O*}", "model", net_spec(b->s),
                             "device", device->name, "description", device->description,
                             "precision", precision_name(b->ctx, b->s), "repeats",
                             opt_int(b->s, "repeats"), "rows", b->table.rows, "operators",
                             operators, "comparison", comparison));
    json_decref(operators);
    json_decref(comparison);
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
    bench *b = user;
    bt_device_info device;
    b->ctx = ctx;
    CHECK(ctx, open_data(ctx, b->s, false, opt_int(b->s, "limit"), &b->set));
    bt_dataset_describe(b->set, &b->data);
    bt_context_device(ctx, &device);
    if (!opt_flag(b->s, "json"))
        printf("%s on %s in %s (%s), median of %d\n", net_spec(b->s), device.name,
               precision_name(ctx, b->s), device.description, opt_int(b->s, "repeats"));
    json_t *keys = json_pack("{s:s,s:s,s:s,s:i,s:s}", "model", net_spec(b->s), "data", b->data.name,
                             "device", device.name, "threads", opt_int(b->s, "threads"),
                             "precision", precision_name(ctx, b->s));
    const char *old = opt_text(b->s, "compare");
    int code = old ? compare_check(&b->old, old, keys) : 0;
    json_decref(keys);
    if (code) return code;
    table_begin(&b->table, columns, 7, opt_flag(b->s, "json"));
    code = bench_all(b, &device);
    table_end(&b->table);
    return code;
}

int command_bench(settings *s) {
    bench *b = calloc(1, sizeof *b);
    if (!b) return fail_status(NULL, BT_ERROR_MEMORY);
    b->s = s;
    const char *old = opt_text(s, "compare"); // read now: --out may replace it
    int code = old ? compare_open(old, &b->old) : 0;
    if (!code) code = choose_data(s, 1);
    if (!code) code = with_device(s, bench_body, b);
    csv_free(&b->old);
    free(b);
    return code;
}
