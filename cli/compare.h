// Two tables of `bantam bench`, row by row: what became slower or faster, and how sure that is.
#ifndef CLI_COMPARE_H
#define CLI_COMPARE_H

#include "cli.h"
#include "csv.h"

// Mean and standard deviation of the natural logarithms of `count` times: ratios of times become
// differences, and what a busy machine adds to some of them weighs less.
typedef struct ln_times {
    int count;
    double mean, deviation;
} ln_times;

ln_times ln_times_of(const double *seconds, int count);

// By how much `now` differs from `old`, as ratios, and the interval that holds the true one with
// probability `confidence`: Welch's t (1947). low and high are NaN where one of them is a single
// time.
typedef struct ratio {
    double value, low, high;
} ratio;
ratio compare_times(ln_times old, ln_times now, double confidence);

// x that |T| stays below with probability p, for Student's T of `freedom` degrees.
double student_quantile(double p, double freedom);

// Opens a file of --out.
int compare_open(const char *path, csv *old);
// Whether there is something to compare, before it is measured; `keys`: model, data, device ...
int compare_check(const csv *old, const char *path, const json_t *keys);
// Compares rows of the table (bench.c) with those of the file, and appends what comes of it to
// `out`. The intervals hold all together with a probability of 95 %. Says how many rows the file
// does not have.
int compare_rows(const settings *s, const json_t *rows, const csv *old, const char *path,
                 json_t *out);
void compare_print(json_t *rows);

#endif
