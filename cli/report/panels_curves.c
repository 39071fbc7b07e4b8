// The panels of curves: loss, accuracy, speed and learning rate over the steps. One run has a
// colour for training and one for validation; several have a colour each, and validation is dashed.
#include "curves.h"
#include "panels.h"

#include <math.h>
#include <stdlib.h>

typedef struct curves {
    chart_line *lines;
    char (*names)[192]; // of the lines
    int count;
    bool failed; // out of memory
} curves;

static double *numbers(const csv *table, const char *name) {
    double *out = malloc((table->rows + 1) * sizeof *out);
    int column = csv_column(table, name);
    for (size_t i = 0; out && i < table->rows; i++) out[i] = csv_number(table, i, column);
    return out;
}

static bool any_finite(const double *y, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (isfinite(y[i])) return true;
    return false;
}

// 1 + the position of the largest value (sign 1) or the smallest (-1).
static size_t best_of(const double *y, size_t count, int sign) {
    size_t best = 0;
    for (size_t i = 0; i < count; i++)
        if (isfinite(y[i]) && (!best || sign * y[i] > sign * y[best - 1])) best = i + 1;
    return best;
}

// Adds a column as a line, if anything is in it; NULL: not.
static chart_line *add(curves *c, const csv *table, const char *column, const char *run_name,
                       bool validation) {
    chart_line *line = &c->lines[c->count];
    double *x = numbers(table, "step"), *y = numbers(table, column);
    c->failed |= !x || !y;
    if (!x || !y || !any_finite(y, table->rows)) return free(x), free(y), NULL;
    snprintf(c->names[c->count], sizeof *c->names, "%s%s%s", run_name ? run_name : "",
             run_name ? ", " : "", validation ? "validation" : "training");
    *line = (chart_line){.name = c->names[c->count++],
                         .dashed = validation,
                         .dots = validation || table->rows < 20,
                         .x = x,
                         .y = y,
                         .count = table->rows};
    return line;
}

// Training as finely as the run kept it, or by epochs.
static void add_run(curves *c, const curve_chart *spec, const run *r, int colour, bool alone) {
    const char *name = alone ? NULL : r->name;
    chart_line *line = add(c, &r->steps, spec->column, name, false);
    if (!line) line = add(c, &r->metrics, spec->column, name, false);
    if (line) line->colour = colour;
    line = spec->validation ? add(c, &r->metrics, spec->validation, name, true) : NULL;
    if (!line) return;
    line->colour = alone ? 1 : colour;
    line->best = best_of(line->y, line->count, spec->best);
    line->note = "best epoch";
}

void curves_write(FILE *out, const curve_chart *spec, const run *runs, int count, bool alone) {
    curves c = {calloc(2 * (size_t)count, sizeof *c.lines),
                calloc(2 * (size_t)count, sizeof *c.names), 0, false};
    c.failed = !c.lines || !c.names;
    for (int i = 0; i < count && !c.failed; i++) add_run(&c, spec, &runs[i], i, count == 1);
    chart_lines chart = {.head = {.title = spec->title,
                                  .empty = c.failed ? "out of memory" : "no epoch is done yet",
                                  .alone = alone,
                                  .heading = !alone},
                         .x_label = "step",
                         .y_label = spec->y_label,
                         .log_y = spec->log_y,
                         .from_zero = spec->from_zero,
                         .lines = c.lines,
                         .count = c.failed ? 0 : c.count};
    chart_write_lines(&chart, out);
    for (int i = 0; i < c.count; i++)
        free((double *)(uintptr_t)c.lines[i].x), free((double *)(uintptr_t)c.lines[i].y);
    free(c.lines);
    free(c.names);
}

// ---- Panels ------------------------------------------------------------------------------------

const curve_chart loss_chart = {.title = "Loss",
                                .y_label = "loss (logarithmic)",
                                .column = "train_loss",
                                .validation = "val_loss",
                                .best = -1,
                                .log_y = true};
const curve_chart rate_chart = {.title = "Training throughput",
                                .y_label = "images/s",
                                .column = "images_per_s",
                                .from_zero = true};

void panel_loss(FILE *out, const run *runs, int count) {
    curves_write(out, &loss_chart, runs, count, false);
}

void panel_accuracy(FILE *out, const run *runs, int count) {
    static const curve_chart accuracy = {.title = "Accuracy",
                                         .y_label = "share that is right",
                                         .column = "train_acc",
                                         .validation = "val_acc",
                                         .best = 1};
    curves_write(out, &accuracy, runs, count, false);
}

void panel_rate(FILE *out, const run *runs, int count) {
    curves_write(out, &rate_chart, runs, count, false);
}

void panel_lr(FILE *out, const run *runs, int count) {
    static const curve_chart lr = {
        .title = "Learning rate", .y_label = "learning rate", .column = "lr", .from_zero = true};
    curves_write(out, &lr, runs, count, false);
}
