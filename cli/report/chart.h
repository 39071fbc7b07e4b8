// The one chart renderer: each function writes one <svg> without scripts or ids, for a page that
// has the style of web/chart.css, or as a file of its own that brings it along (head.alone). It has
// a <title> and a <desc> for who listens, and titles that show the values under the pointer.
//
// Texts may hold anything: they are escaped. Values that are not finite are left out (where the
// axis is logarithmic, also those that are not positive), and a chart without any says so.
#ifndef CLI_REPORT_CHART_H
#define CLI_REPORT_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// Colours 0 to CHART_COLOURS - 1 are told apart by colour-blind readers, too; further ones begin
// anew, as other dashes. CHART_GREY is for the rest: launch gaps, say.
enum { CHART_COLOURS = 8, CHART_GREY = -1 };

typedef struct chart_head {
    const char *title; // above the picture, and its name
    const char *empty; // said where there is nothing to draw; NULL: "nothing to draw yet"
    bool alone;        // a file of its own
    bool heading;      // the page has a heading that says it: the title is not drawn
} chart_head;

// ---- Lines -----------------------------------------------------------------------------------

typedef struct chart_line {
    const char *name; // in the legend; NULL: not there
    int colour;
    bool dashed; // as validation is
    bool dots;   // each point has a mark
    const double *x, *y;
    size_t count;     // of any size: what is drawn is at most 2000 points, the extremes among them
    size_t best;      // 1 + index of the point that is marked as the best; 0: none
    const char *note; // said of that point: "best epoch"; NULL: "best"
} chart_line;

typedef struct chart_lines {
    chart_head head;
    const char *x_label, *y_label;
    bool log_y;
    bool from_zero; // the y axis begins at 0, which it does otherwise where the data come near
    const chart_line *lines;
    int count;
} chart_lines;

void chart_write_lines(const chart_lines *c, FILE *out);

// ---- Bars ------------------------------------------------------------------------------------

typedef struct chart_bar {
    const char *label;
    double value;
    const char *text; // beside the bar; NULL: the value
    int colour;
} chart_bar;

// Horizontal, one below the other.
typedef struct chart_bars {
    chart_head head;
    double full; // what a bar over the whole width means: 1 for probabilities; 0: the largest value
    const chart_bar *bars;
    int count;
} chart_bars;

void chart_write_bars(const chart_bars *c, FILE *out);

// ---- Confusion matrix --------------------------------------------------------------------------

// counts[true * classes + predicted]. The right ones are blue by their share of the row; the wrong
// ones orange on a scale of their own, by which a few in a thousand can still be seen.
typedef struct chart_confusion {
    chart_head head;
    const char *const *names; // NULL: 0, 1, 2 ...
    int classes;
    const uint32_t *counts;
} chart_confusion;

void chart_write_confusion(const chart_confusion *c, FILE *out);

// ---- Images ----------------------------------------------------------------------------------

typedef struct chart_image {
    const uint8_t *grey;    // height * width, 255 is white; or NULL and
    const float *values;    // as many, of which blue are negative, white 0, orange positive
    const char *caption[3]; // lines below it; NULL: no more
    const char *title;      // under the pointer; NULL: the caption
} chart_image;

typedef struct chart_images {
    chart_head head;
    int height, width;
    int columns; // 0: as many as fit
    int scale;   // pixels of the page to one of the image; 0: a good size
    double full; // the value of full colour; 0: the largest of all images
    const chart_image *images;
    int count;
} chart_images;

void chart_write_images(const chart_images *c, FILE *out);

// ---- Treemap -----------------------------------------------------------------------------------

typedef struct chart_area {
    const char *label;
    double value;
    const char *text; // under the pointer with the label and the share: "12.3 ms"; NULL: the value
    int colour;
} chart_area;

// Areas in proportion to the values, which together fill the rectangle (squarified: Bruls, Huizing
// and van Wijk, 2000). Labels that do not fit are left out, and show under the pointer.
typedef struct chart_treemap {
    chart_head head;
    const chart_area *areas;
    int count;
} chart_treemap;

void chart_write_treemap(const chart_treemap *c, FILE *out);

// ---- Roofline ----------------------------------------------------------------------------------

typedef struct chart_point {
    const char *label;
    double flops_per_byte, gflops;
    double share; // of the time, 0 to 1: the size of the mark
    int colour;
} chart_point;

// Both axes logarithmic, with the device's roof where both of its numbers are known (> 0).
typedef struct chart_roofline {
    chart_head head;
    double peak_gflops, peak_gbytes_s;
    const chart_point *points;
    int count;
} chart_roofline;

void chart_write_roofline(const chart_roofline *c, FILE *out);

// ---- Texts -------------------------------------------------------------------------------------

// Escapes for HTML and XML, in text and in quoted attributes; what is no UTF-8, or no character
// that XML allows, becomes U+FFFD.
void chart_text(const char *text, FILE *out);

// Four digits, with k, M, G or T behind large ones: "0.01234", "1.235k"; "-" for what is not
// finite.
const char *chart_number(double value, char out[24]);

#endif
