// What the chart functions share: the frame of a picture, texts that fit, axes, marks.
#ifndef CLI_REPORT_CHART_DRAW_H
#define CLI_REPORT_CHART_DRAW_H

#include "report/chart.h"

enum { CHART_WIDTH = 720, CHART_TITLE = 34 }; // pixels; of them the title takes

// Opens the <svg>, its <title> and its <desc>, whose text the caller writes now.
void chart_begin(const chart_head *head, int width, int height, FILE *out);
// Closes <desc>; the style, the ground and the visible title.
void chart_body(const chart_head *head, int width, int height, FILE *out);
void chart_end(FILE *out);
// A whole picture with head->empty.
void chart_nothing(const chart_head *head, FILE *out);

// The class of a colour: "c3", "c3 again", "grey".
const char *chart_colour(int colour, char out[16]);

// Text of 12 pixels: a cautious guess of its width; escaped, and cut with an ellipsis at `width`.
double chart_text_width(const char *text);
void chart_text_fit(const char *text, double width, FILE *out);

// Finite, or positive, and not beyond what arithmetic on axes can take.
bool chart_finite(double value);
bool chart_positive(double value);

// Pairs of shape and colour tell series apart twice. The path of shape `colour` around 0, after an
// M.
const char *chart_shape(int colour);

typedef struct chart_axis {
    double low, high; // of what is drawn: logarithms on a logarithmic axis
    double from, to;  // pixels
    bool log;
    double step; // between ticks, on a linear axis
} chart_axis;

typedef enum chart_axis_kind {
    CHART_LINEAR,
    CHART_ROUND, // the ends are ticks
    CHART_WHOLE, // ticks are whole numbers: epochs
    CHART_LOG,
} chart_axis_kind;

// An axis for values from low to high.
chart_axis chart_axis_make(double low, double high, chart_axis_kind kind, double from, double to);
double chart_place(const chart_axis *a, double value);
// Grid, numbers, frame and labels of a plot.
void chart_axes(const chart_axis *x, const chart_axis *y, const char *x_label, const char *y_label,
                FILE *out);

#endif
