// Comparing tables of `bantam bench`: the statistics against known values and by simulation, and
// files of --out, good and hostile.
#include "compare.h" // (before cmocka, which makes `fail` a macro)

#include "support.h"

#include <math.h>

static void test_quantiles(void **state) {
    (void)state;
    // Of a table of Student's t, two-sided.
    const struct {
        double p, freedom, x;
    } known[] = {{0.95, 1, 12.7062}, {0.95, 4, 2.77645},  {0.95, 7, 2.36462},   {0.95, 30, 2.04227},
                 {0.99, 4, 4.60409}, {0.995, 8, 3.83252}, {0.95, 1000, 1.96234}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double x = student_quantile(known[i].p, known[i].freedom);
        check(fabs(x / known[i].x - 1) < 2e-5, "t(%g, %g) is %.6g and not %.6g", known[i].p,
              known[i].freedom, x, known[i].x);
    }
}

static double normal(uint64_t *state) {
    double u = test_random(state, 1e-12, 1), v = test_random(state, 0, 1);
    return sqrt(-2 * log(u)) * cos(2 * acos(-1) * v);
}

static ratio simulate(uint64_t *state, double slower, double spread) {
    double old[5], now[5];
    for (int i = 0; i < 5; i++) {
        old[i] = exp(spread * normal(state));
        now[i] = slower * exp(spread * normal(state));
    }
    return compare_times(ln_times_of(old, 5), ln_times_of(now, 5), 0.95);
}

// The intervals hold the truth in 95 of 100 cases, and what is clearly slower is seen.
static void test_coverage(void **state) {
    (void)state;
    enum { TRIALS = 2000 };
    uint64_t random = 7;
    int held = 0, seen = 0;
    for (int i = 0; i < TRIALS; i++) {
        ratio r = simulate(&random, 1.1, 0.02);
        held += r.low <= 1.1 && r.high >= 1.1;
        seen += r.low > 1;
        check(r.low <= r.value && r.value <= r.high, "%g is not from %g to %g", r.value, r.low,
              r.high);
    }
    check(held > 0.94 * TRIALS && held < 0.965 * TRIALS, "%d of %d intervals hold", held, TRIALS);
    check(seen > 0.99 * TRIALS, "10 %% slower was seen in %d of %d", seen, TRIALS);
}

static void test_few_times(void **state) {
    (void)state;
    const double same[] = {2, 2}, one[] = {3};
    ratio r = compare_times(ln_times_of(same, 2), ln_times_of(one, 1), 0.95);
    check(fabs(r.value - 1.5) < 1e-12 && isnan(r.low) && isnan(r.high),
          "an interval from a single time: %g to %g", r.low, r.high);
    r = compare_times(ln_times_of(same, 2), ln_times_of(same, 2), 0.95);
    check(r.value == 1 && r.low == 1 && r.high == 1, "of equal times %g, %g to %g", r.value, r.low,
          r.high);
}

// ---- Files --------------------------------------------------------------------------------------

#define HEADER                                                                                     \
    "model,data,device,threads,precision,phase,batch,repeats,ln_step_us,ln_step_sd,ln_call_us,ln_" \
    "call_sd\n"

static json_t *rows_of_now(void) {
    json_t *rows = json_array();
    const int batches[] = {64, 256};
    for (int i = 0; i < 2; i++)
        json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:i,s:s,s:s,s:i,s:i,s:f,s:f,s:f,s:f}",
                                              "model", "fc64,relu,fc10", "data", "digits", "device",
                                              "cpu:0", "threads", 2, "precision", "fp32", "phase",
                                              "training", "batch", batches[i], "repeats", 5,
                                              "ln_step_us", log(220), "ln_step_sd", 0.01,
                                              "ln_call_us", log(50), "ln_call_sd", 0.01));
    return rows;
}

static int compare_text(const char *text, json_t *out) {
    settings s;
    char *argv[] = {(char *)(uintptr_t) "--quiet"};
    const char *path = in_scratch("old.csv");
    json_t *rows = rows_of_now();
    csv old;
    check(settings_parse(&s, CMD_BENCH, "bench", 1, argv) == 0, "no settings");
    write_file(path, text, strlen(text));
    int code = compare_open(path, &old);
    if (!code) code = compare_rows(&s, rows, &old, path, out);
    csv_free(&old);
    settings_free(&s);
    json_decref(rows);
    return code;
}

static void test_verdicts(void **state) {
    (void)state;
    char text[1024];
    // Steps took 200 us and take 220; calls took 60 and take 50. The other batch size is not there.
    snprintf(text, sizeof text,
             HEADER "mlp,digits,cpu:0,2,fp32,training,64,5,1,0.01,1,0.01\n"
                    "fc64 relu fc10,mnist,cpu:0,2,fp32,training,64,5,1,0.01,1,0.01\n"
                    "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,5,%.9g,0.01,%.9g,0.01\n",
             log(200), log(60));
    json_t *out = json_array(), *step, *call;
    check(compare_text(text, out) == 0, "not compared");
    check(json_array_size(out) == 2, "%zu rows", json_array_size(out));
    step = json_array_get(out, 0), call = json_array_get(out, 1);
    double change = json_real_value(json_object_get(step, "change_percent"));
    check(!strcmp(json_string_value(json_object_get(step, "verdict")), "slower") &&
              fabs(change - 10) < 1e-6,
          "10 %% more: %g %% %s", change, json_string_value(json_object_get(step, "verdict")));
    check(!strcmp(json_string_value(json_object_get(call, "verdict")), "faster"), "50 of 60: %s",
          json_string_value(json_object_get(call, "verdict")));
    json_decref(out);
    // With ten times the spread nothing can be said.
    snprintf(text, sizeof text,
             HEADER "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,5,%.9g,0.1,%.9g,0.2\n",
             log(200), log(60));
    out = json_array();
    check(compare_text(text, out) == 0, "not compared");
    for (size_t i = 0; i < 2; i++)
        check(!strcmp(json_string_value(json_object_get(json_array_get(out, i), "verdict")), "-"),
              "row %zu is %s", i,
              json_string_value(json_object_get(json_array_get(out, i), "verdict")));
    json_decref(out);
}

static void test_hostile_files(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "\n\n\n",
        "phase,batch,images_per_s\ntraining,64,1000\n",
        HEADER "mlp,digits,cpu:0,2,fp32,training,64,5,1,1,1,1\n",
        HEADER "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,5,nan,0.1,1,1\n",
        HEADER "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,5,1,-0.1,1,1\n",
        HEADER "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,0,1,0.1,1,1\n",
        HEADER "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,1e300,1,0.1,1,1\n",
        HEADER "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,5,1e300,0.1,1,1\n",
        HEADER "fc64 relu fc10,digits,cpu:0,2,fp32,training,64,5,,,,\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *out = json_array();
        int code = compare_text(bad[i], out);
        check(code == BT_ERROR_DATA, "file %zu gives %d", i, code);
        json_decref(out);
    }
    csv old;
    check(compare_open(in_scratch("absent.csv"), &old) == BT_ERROR_DATA,
          "a file that is not there");
    csv_free(&old);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles),     cmocka_unit_test(test_coverage),
        cmocka_unit_test(test_few_times),     cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_hostile_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
