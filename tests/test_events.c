// TensorBoard's event files, read back by tests/export/check_events.py: what a run and its
// continuation write, and values that are easily written wrong.
#include "support.h"

#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH = 600, OUTPUT = 2000 };

static void run(const char *arguments) {
    const char *build = getenv("BUILD");
    char out[OUTPUT];
    int code = shell(out, sizeof out, "%s/bantam %s", build ? build : "build", arguments);
    check(code == 0, "bantam %s: %s", arguments, out);
}

static void read_back(const char *folder) {
    char out[OUTPUT];
    if (shell(out, sizeof out, "python3 --version") != 0) skip_because("no python3 here");
    int code = shell(out, sizeof out, "python3 tests/export/check_events.py %s", folder);
    check(code == 0, "%s", out);
    printf("%s\n", out);
}

static int count_files(const char *path) {
    int count = 0;
    DIR *folder = opendir(path);
    for (struct dirent *e; folder && (e = readdir(folder));)
        count += strstr(e->d_name, "tfevents") != NULL;
    if (folder) closedir(folder);
    return count;
}

// Two epochs, and one more after resuming, which makes a file of its own.
static void test_run(void **state) {
    (void)state;
    char words[4 * PATH];
    static const char sizes[] = "{\"0.weight\": 62720, \"0.bias\": 80, \"2.weight\": 800, "
                                "\"2.bias\": 10}";
    snprintf(words, sizeof words,
             "train flatten,fc80,relu,fc10 digits --limit 500 --epochs 2 --tensorboard --quiet "
             "--out %s",
             in_scratch("run"));
    run(words);
    snprintf(words, sizeof words, "train --resume %s --epochs 3 --quiet", in_scratch("run"));
    run(words);
    check(count_files(in_scratch("run")) == 2, "%d files", count_files(in_scratch("run")));
    write_file(in_scratch("run/sizes.json"), sizes, sizeof sizes - 1);
    read_back(in_scratch("run"));
}

static const char expected[] =
    "{\"scalars\": {\"a/b\": [[0, 0.5], [4294967295, -2.0], [7, NaN], [8, Infinity]]},"
    " \"images\": {\"grey\": [[3, [2, 3, 1], [0, 1, 127, 128, 254, 255]]],"
    "  \"colours\": [[3, [1, 2, 3], [1, 3, 5, 2, 4, 6]]]},"
    " \"histograms\": {\"floats\": [[1, -2.0, 3.0, 4.0, 2.0, 14.0]],"
    "  \"doubles\": [[1, 0.25, 0.25, 3.0, 0.75, 0.1875]],"
    "  \"nothing finite\": [[1, 0.0, 0.0, 0.0, 0.0, 0.0]],"
    "  \"thin\": [[1, 0.0, 1e-307, 2.0, 1e-307, 0.0]],"
    "  \"wide\": [[1, -1.7014118346046923e+38, 1.7014118346046923e+38, 2.0, 0.0, "
    "5.78960446186581e+76]]}}";

static void test_values(void **state) {
    (void)state;
    static const uint8_t pixels[] = {0, 1, 127, 128, 254, 255}, colours[] = {1, 2, 3, 4, 5, 6};
    static const float floats[] = {1, -2, NAN, 3, 0, INFINITY}, wide[] = {-0x1p127F, 0x1p127F};
    static const double doubles[] = {0.25, 0.25, 0.25}, thin[] = {0, 1e-307};
    static const int32_t whole[] = {1, 2};
    bt_context *ctx = open_cpu(1);
    bt_events *e;
    mkdir(in_scratch("values"), 0777);
    ok(ctx, bt_events_open(ctx, in_scratch("values"), 0, &e));
    check(count_files(in_scratch("values")) == 0, "a file before there is a record");
    ok(ctx, bt_events_scalar(ctx, e, "a/b", 0, 0.5));
    ok(ctx, bt_events_scalar(ctx, e, "a/b", 0xffffffff, -2));
    ok(ctx, bt_events_scalar(ctx, e, "a/b", 7, NAN));
    ok(ctx, bt_events_scalar(ctx, e, "a/b", 8, INFINITY));
    ok(ctx, bt_events_image(ctx, e, "grey", 3, pixels, 1, 2, 3));
    ok(ctx, bt_events_image(ctx, e, "colours", 3, colours, 3, 1, 2));
    ok(ctx, bt_events_histogram(ctx, e, "floats", 1, bt_from(ctx, BT_F32, BT_SHAPE(2, 3), floats)));
    ok(ctx, bt_events_histogram(ctx, e, "doubles", 1, bt_from(ctx, BT_F64, BT_SHAPE(3), doubles)));
    ok(ctx, bt_events_histogram(ctx, e, "nothing finite", 1,
                                bt_from(ctx, BT_F32, BT_SHAPE(1), &floats[2])));
    ok(ctx, bt_events_histogram(ctx, e, "thin", 1, bt_from(ctx, BT_F64, BT_SHAPE(2), thin)));
    ok(ctx, bt_events_histogram(ctx, e, "wide", 1, bt_from(ctx, BT_F32, BT_SHAPE(2), wide)));
    refused(ctx, BT_ERROR_USAGE, "not of i32",
            bt_events_histogram(ctx, e, "x", 1, bt_from(ctx, BT_I32, BT_SHAPE(2), whole)));
    refused(ctx, BT_ERROR_USAGE, "2 channels", bt_events_image(ctx, e, "x", 1, pixels, 2, 1, 3));
    refused(ctx, BT_ERROR_USAGE, "sides", bt_events_image(ctx, e, "x", 1, pixels, 1, 0, 3));
    ok(ctx, bt_events_close(ctx, e));
    refused(ctx, BT_ERROR_USAGE, "closed", bt_events_scalar(ctx, e, "a/b", 9, 1));
    ok(ctx, bt_events_close(ctx, e));
    bt_close(ctx);
    write_file(in_scratch("values/expected.json"), expected, sizeof expected - 1);
    read_back(in_scratch("values"));
}

// A folder that is not there is found by the first record, which makes the file.
static void test_nowhere(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_events *e;
    ok(ctx, bt_events_open(ctx, in_scratch("nowhere"), 0, &e));
    refused(ctx, BT_ERROR_MEMORY, "nowhere", bt_events_scalar(ctx, e, "a", 0, 1));
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_run), cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_nowhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
