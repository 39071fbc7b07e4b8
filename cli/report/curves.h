// Charts of curves over the steps of runs, for the page and for the *.svg of a run directory.
#ifndef CLI_REPORT_CURVES_H
#define CLI_REPORT_CURVES_H

#include "chart.h"
#include "run.h"

typedef struct curve_chart {
    const char *title, *y_label;
    const char *column;     // of training; in metrics_steps.csv, else in metrics_train.csv
    const char *validation; // in metrics_train.csv; NULL: none
    int best;               // its best value is the largest (1) or the smallest (-1)
    bool log_y, from_zero;
} curve_chart;

extern const curve_chart loss_chart, rate_chart;

// alone: a file of its own.
void curves_write(FILE *out, const curve_chart *spec, const run *runs, int count, bool alone);

#endif
