// The panels of where the time of a profiled run went: time per operator, and how near each comes
// to what the device can do (the roofline: Williams, Waterman and Patterson, 2009).
#include "chart.h"
#include "panels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OPERATORS_MAX = 256 };

typedef struct operator_row {
    const char *name, *kernel;
    double calls, ms, us, percent, gflops, gbytes_s, of_roofline;
    int colour;
    char text[48]; // "12.3 ms (45.6 %)"
} operator_row;

// ---- Rows --------------------------------------------------------------------------------------

// Operators of a layer share a colour: "2.conv2d" is of layer 2. What belongs to none comes last.
static int colour_of(const char *name) {
    char *end;
    long layer = strtol(name, &end, 10);
    if (!strcmp(name, "launch gaps")) return CHART_GREY;
    return end == name || *end != '.' ? CHART_COLOURS - 1 : (int)(layer % (CHART_COLOURS - 1));
}

static operator_row read_row(const csv *t, size_t i) {
    operator_row r = {.name = csv_text(t, i, csv_column(t, "operator")),
                      .kernel = csv_text(t, i, csv_column(t, "kernel")),
                      .calls = csv_number(t, i, csv_column(t, "calls")),
                      .ms = csv_number(t, i, csv_column(t, "total_ms")),
                      .us = csv_number(t, i, csv_column(t, "mean_us")),
                      .percent = csv_number(t, i, csv_column(t, "percent")),
                      .gflops = csv_number(t, i, csv_column(t, "gflops")),
                      .gbytes_s = csv_number(t, i, csv_column(t, "gbytes_s")),
                      .of_roofline = csv_number(t, i, csv_column(t, "percent_of_roofline"))};
    r.colour = colour_of(r.name);
    bool long_time = r.ms >= 1000;
    snprintf(r.text, sizeof r.text, "%.3g %s (%.1f %%)", long_time ? r.ms / 1000 : r.ms,
             long_time ? "s" : "ms", r.percent);
    return r;
}

static int slower_first(const void *a, const void *b) {
    double x = ((const operator_row *)a)->ms, y = ((const operator_row *)b)->ms;
    return (x < y) - (x > y);
}

// The rows with a time, the longest first; NULL: none, or out of memory.
static operator_row *read_rows(const run *r, int *count) {
    operator_row *rows = calloc(OPERATORS_MAX, sizeof *rows);
    *count = 0;
    for (size_t i = 0; rows && i < r->timings.rows && *count < OPERATORS_MAX; i++) {
        rows[*count] = read_row(&r->timings, i);
        *count += rows[*count].ms >= 0 && isfinite(rows[*count].ms);
    }
    if (rows) qsort(rows, (size_t)*count, sizeof *rows, slower_first);
    if (*count) return rows;
    free(rows);
    return NULL;
}

// ---- Panels ------------------------------------------------------------------------------------

static void write_bars(FILE *out, const operator_row *rows, int count) {
    chart_bar bars[OPERATORS_MAX];
    for (int i = 0; i < count; i++)
        bars[i] = (chart_bar){rows[i].name, rows[i].ms, rows[i].text, rows[i].colour};
    chart_write_bars(
        &(chart_bars){.head = {.title = "Time of each operator"}, .bars = bars, .count = count},
        out);
}

static void write_treemap(FILE *out, const operator_row *rows, int count) {
    chart_area areas[OPERATORS_MAX];
    for (int i = 0; i < count; i++)
        areas[i] = (chart_area){rows[i].name, rows[i].ms, rows[i].text, rows[i].colour};
    chart_write_treemap(&(chart_treemap){.head = {.title = "All of the time, by area"},
                                         .areas = areas,
                                         .count = count},
                        out);
}

static void write_operator(FILE *out, const operator_row *o, bool roofline) {
    fputs("<tr><th scope=\"row\">", out);
    chart_text(o->name, out);
    fputs("</th>", out);
    write_cell(out, o->kernel, false);
    write_figure(out, "%.0f", o->calls);
    write_figure(out, "%.2f", o->ms);
    write_figure(out, "%.2f", o->us);
    write_figure(out, "%.2f", o->percent);
    // (What computes nothing, or moves nothing, has no rate.)
    write_figure(out, "%.2f", o->gflops > 0 ? o->gflops : NAN);
    write_figure(out, "%.2f", o->gbytes_s > 0 ? o->gbytes_s : NAN);
    if (roofline) write_figure(out, "%.1f", o->of_roofline > 0 ? o->of_roofline : NAN);
    fputs("</tr>\n", out);
}

static void write_operators(FILE *out, const run *r, const operator_row *rows, int count) {
    bool roofline = csv_column(&r->timings, "percent_of_roofline") >= 0;
    const char *headings[] = {"Operator",  "Kernel",   "#Calls",
                              "#Total ms", "#Mean us", "#Percent",
                              "#GFLOP/s",  "#GB/s",    roofline ? "#% of roofline" : NULL,
                              NULL};
    double ms = 0, percent = 0;
    write_table(out, "Figures of each operator", headings);
    for (int i = 0; i < count; i++) {
        write_operator(out, &rows[i], roofline);
        ms += rows[i].ms, percent += isfinite(rows[i].percent) ? rows[i].percent : 0;
    }
    fprintf(out,
            "</tbody>\n<tfoot><tr><th scope=\"row\">All</th><td></td><td></td><td "
            "class=\"number\">%.2f</td><td></td><td class=\"number\">%.2f</td><td></td><td></td>%s"
            "</tr></tfoot></table></div>\n",
            ms, percent, roofline ? "<td></td>" : "");
}

static void write_no_profile(FILE *out, const run *r) {
    write_note(out,
               run_is_running(r)
                   ? "Times of operators come at the end of a run with --profile."
                   : "This run was not profiled: `bantam train --profile` times every operator.");
}

void panel_operators(FILE *out, const run *runs, int count) {
    for (int i = 0; i < count; i++) {
        int found;
        operator_row *rows = read_rows(&runs[i], &found);
        write_run_name(out, &runs[i], count);
        if (!rows) {
            write_no_profile(out, &runs[i]);
            continue;
        }
        fputs("<div class=\"grid\">\n", out);
        write_bars(out, rows, found);
        write_treemap(out, rows, found);
        fputs("</div>\n", out);
        write_operators(out, &runs[i], rows, found);
        if (runs[i].timings.rows > OPERATORS_MAX)
            write_note(out, "These are the first %d of %zu operators.", OPERATORS_MAX,
                       runs[i].timings.rows);
        free(rows);
    }
}

static void write_roofline(FILE *out, const run *r, const operator_row *rows, int count) {
    chart_point points[OPERATORS_MAX];
    int used = 0;
    for (int i = 0; i < count; i++) {
        const operator_row *o = &rows[i];
        if (!(o->gflops > 0 && o->gbytes_s > 0)) continue;
        points[used++] =
            (chart_point){o->name, o->gflops / o->gbytes_s, o->gflops, o->percent / 100, o->colour};
    }
    double gflops = run_number(r, "roofline.gflops"), gbytes = run_number(r, "roofline.gbytes_s");
    bool known = gflops > 0 && gbytes > 0;
    chart_write_roofline(
        &(chart_roofline){.head = {.title = "Operators under the roofline of the device",
                                   .heading = true,
                                   .empty = "No operator with arithmetic"},
                          .peak_gflops = known ? gflops : 0,
                          .peak_gbytes_s = known ? gbytes : 0,
                          .points = points,
                          .count = used},
        out);
    if (!known) write_note(out, "The device's own roofline was not measured in this run.");
}

void panel_roofline(FILE *out, const run *runs, int count) {
    for (int i = 0; i < count; i++) {
        int found;
        operator_row *rows = read_rows(&runs[i], &found);
        write_run_name(out, &runs[i], count);
        if (rows)
            write_roofline(out, &runs[i], rows, found);
        else
            write_no_profile(out, &runs[i]);
        free(rows);
    }
}
