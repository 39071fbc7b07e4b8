// Comparing tables of `bantam bench`; see compare.h.
#include "compare.h"

#include "table.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- Statistics --------------------------------------------------------------------------------

ln_times ln_times_of(const double *seconds, int count) {
    ln_times t = {.count = count};
    double squares = 0;
    for (int i = 0; i < count; i++) t.mean += log(seconds[i]) / count;
    for (int i = 0; i < count; i++) squares += pow(log(seconds[i]) - t.mean, 2);
    t.deviation = count > 1 ? sqrt(squares / (count - 1)) : 0;
    return t;
}

// P(|T| < x), by Simpson's rule over x = sqrt(freedom) tan(a), where the density is
// cos^(freedom-1).
static double student_probability(double x, double freedom) {
    enum { HALVES = 64 };
    double end = atan(x / sqrt(freedom)), sum = 0;
    for (int i = 0; i <= 2 * HALVES; i++) {
        double weight = i == 0 || i == 2 * HALVES ? 1 : i % 2 ? 4 : 2;
        sum += weight * pow(cos(end * i / (2 * HALVES)), freedom - 1);
    }
    double scale = exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / sqrt(acos(-1));
    return 2 * scale * sum * end / (6 * HALVES);
}

double student_quantile(double p, double freedom) {
    double low = 0, high = 1;
    while (high < 1e6 && student_probability(high, freedom) < p) high *= 2;
    for (int i = 0; i < 40; i++) {
        double middle = (low + high) / 2;
        if (student_probability(middle, freedom) < p)
            low = middle;
        else
            high = middle;
    }
    return high;
}

ratio compare_times(ln_times old, ln_times now, double confidence) {
    double difference = now.mean - old.mean;
    if (old.count < 2 || now.count < 2) return (ratio){exp(difference), NAN, NAN};
    double a = old.deviation * old.deviation / old.count;
    double b = now.deviation * now.deviation / now.count;
    double freedom = (a + b) * (a + b) / (a * a / (old.count - 1) + b * b / (now.count - 1));
    double reach = a + b > 0 ? student_quantile(confidence, freedom) * sqrt(a + b) : 0;
    return (ratio){exp(difference), exp(difference - reach), exp(difference + reach)};
}

// ---- Tables ------------------------------------------------------------------------------------

static const char *const key_columns[] = {"model",     "data",  "device", "threads",
                                          "precision", "phase", "batch"};
enum { KEYS = sizeof key_columns / sizeof *key_columns };

// What is compared of a row, each with its columns.
static const struct {
    const char *name, *mean, *deviation;
} times[] = {{"step", "ln_step_us", "ln_step_sd"}, {"call", "ln_call_us", "ln_call_sd"}};
enum { TIMES = sizeof times / sizeof *times };

// A cell of `row` as it stands in a CSV file: commas of a model are spaces there.
static bool same_cell(const json_t *cell, const char *text) {
    if (json_is_integer(cell)) return (double)json_integer_value(cell) == strtod(text, NULL);
    const char *own = json_string_value(cell);
    size_t i = 0;
    for (; own && own[i] && (own[i] == text[i] || (own[i] == ',' && text[i] == ' ')); i++) {
    }
    return own && !own[i] && !text[i];
}

// The row of the file with the same keys, as far as `row` has them; -1: there is none.
static long find_row(const csv *old, const json_t *row) {
    for (size_t r = 0; r < old->rows; r++) {
        bool same = true;
        for (int k = 0; k < KEYS; k++) {
            const json_t *cell = json_object_get(row, key_columns[k]);
            same &= !cell || same_cell(cell, csv_text(old, r, csv_column(old, key_columns[k])));
        }
        if (same) return (long)r;
    }
    return -1;
}

int compare_check(const csv *old, const char *path, const json_t *keys) {
    if (find_row(old, keys) >= 0) return 0;
    return fail(BT_ERROR_DATA,
                "%s has no row of this model, data, device, threads, precision, phase and batch; "
                "compare what was measured with the same options",
                path);
}

static bool old_times(const csv *old, size_t row, int t, ln_times *out) {
    double count = csv_number(old, row, csv_column(old, "repeats"));
    out->mean = csv_number(old, row, csv_column(old, times[t].mean));
    out->deviation = csv_number(old, row, csv_column(old, times[t].deviation));
    if (!(count >= 1 && count <= 1e6 && fabs(out->mean) < 100 && out->deviation >= 0 &&
          out->deviation < 100))
        return false;
    out->count = (int)count;
    return true;
}

static ln_times new_times(const json_t *row, int t) {
    return (ln_times){.count = (int)json_integer_value(json_object_get(row, "repeats")),
                      .mean = json_real_value(json_object_get(row, times[t].mean)),
                      .deviation = json_real_value(json_object_get(row, times[t].deviation))};
}

static json_t *describe(const json_t *row, int t, ln_times old, ln_times now, double confidence) {
    ratio r = compare_times(old, now, confidence);
    // Of two or three repeats an interval can be so wide that it says nothing.
    if (!(r.high < 10 && r.low > 0.1)) r.low = r.high = NAN;
    const char *verdict = isnan(r.low) ? "not known"
                          : r.low > 1  ? "slower"
                          : r.high < 1 ? "faster"
                                       : "-";
    return json_pack("{s:O,s:O,s:s,s:f,s:f,s:f,s:o,s:o,s:s}", "phase",
                     json_object_get(row, "phase"), "batch", json_object_get(row, "batch"), "what",
                     times[t].name, "old_us", exp(old.mean), "new_us", exp(now.mean),
                     "change_percent", 100 * (r.value - 1), "low_percent",
                     real_or_null(100 * (r.low - 1)), "high_percent",
                     real_or_null(100 * (r.high - 1)), "verdict", verdict);
}

int compare_rows(const settings *s, const json_t *rows, const csv *old, const char *path,
                 json_t *out) {
    size_t i, found = 0;
    json_t *row;
    json_array_foreach(rows, i, row) found += find_row(old, row) >= 0;
    json_array_foreach(rows, i, row) {
        long r = find_row(old, row);
        for (int t = 0; t < TIMES && r >= 0; t++) {
            ln_times before;
            if (!old_times(old, (size_t)r, t, &before))
                return fail(BT_ERROR_DATA,
                            "%s: row %ld has no number that can be in repeats, %s "
                            "and %s",
                            path, r + 1, times[t].mean, times[t].deviation);
            // Bonferroni: each errs in so few cases that all are right together in 95 of 100.
            double confidence = 1 - 0.05 / (double)(TIMES * found);
            json_array_append_new(out, describe(row, t, before, new_times(row, t), confidence));
        }
    }
    if (!found) return compare_check(old, path, json_array_get(rows, 0));
    if (found < json_array_size(rows))
        note(s, "%zu of %zu rows are not in %s", json_array_size(rows) - found,
             json_array_size(rows), path);
    return 0;
}

int compare_open(const char *path, csv *old) {
    if (!csv_read(old, path)) return fail(BT_ERROR_DATA, "--compare %s: %s", path, strerror(errno));
    for (int t = 0; t < TIMES; t++)
        if (csv_column(old, times[t].mean) < 0 || csv_column(old, times[t].deviation) < 0)
            return fail(BT_ERROR_DATA,
                        "--compare %s: no column %s; it must be a file of `bantam bench --out`",
                        path, times[t].mean);
    return 0;
}

void compare_print(json_t *rows) {
    static const column columns[] = {{"phase", "phase", "%-9s"},
                                     {"batch", "batch", "%6lld"},
                                     {"what", "what", "%-4s"},
                                     {"old_us", "old us", "%10.2f"},
                                     {"new_us", "new us", "%10.2f"},
                                     {"change_percent", "change %", "%+8.1f"},
                                     {"low_percent", "from %", "%+7.1f"},
                                     {"high_percent", "to %", "%+7.1f"},
                                     {"verdict", "", "%s"}};
    table_print(columns, sizeof columns / sizeof *columns, rows);
}
