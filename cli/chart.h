// A small line chart as SVG, and the series of points it draws.
#ifndef CLI_CHART_H
#define CLI_CHART_H

#include <stdbool.h>
#include <stdio.h>

enum { SERIES_POINTS = 512 };

// Points in order of x. When it is full, neighbours are averaged and later points in groups as
// large, so that any number of points fits.
typedef struct series {
    const char *name;
    bool dots; // draw every point as a dot too
    double x[SERIES_POINTS], y[SERIES_POINTS];
    int count;
    int group, pending; // points averaged into one; points in the sums
    double sum_x, sum_y;
} series;

void series_add(series *s, double x, double y);

typedef struct chart {
    const char *title, *x_label, *y_label;
    bool log_y;
    const series *series;
    int count;
} chart;

// Points that are not finite (or not positive on a logarithmic axis) are left out.
void chart_write(const chart *c, FILE *out);

#endif
