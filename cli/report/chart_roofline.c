// The roofline of a device and where operators stand below it (Williams, Waterman and Patterson,
// 2009); see chart.h.
#include "report/chart_draw.h"

#include <math.h>

enum { HEIGHT = 400, LEFT = 68, RIGHT = CHART_WIDTH - 16, TOP = CHART_TITLE + 12, BOTTOM = 48 };
enum { LABELS = 24 }; // more would only cover each other

typedef struct box {
    double x, y, width;
} box;

typedef struct roof {
    const chart_roofline *chart;
    chart_axis x, y;
    bool known;
    box taken[2 * LABELS];
    int count;
    FILE *out;
} roof;

static bool drawable(const chart_point *p) {
    return chart_positive(p->flops_per_byte) && chart_positive(p->gflops);
}

// What the device could do at so many operations per byte.
static double limit(const roof *r, double flops_per_byte) {
    return fmin(r->chart->peak_gflops, flops_per_byte * r->chart->peak_gbytes_s);
}

static bool measure(roof *r) {
    const chart_roofline *c = r->chart;
    double left = HUGE_VAL, right = 0, low = HUGE_VAL, high = 0;
    r->known = chart_positive(c->peak_gflops) && chart_positive(c->peak_gbytes_s);
    for (int i = 0; i < c->count; i++) {
        if (!drawable(&c->points[i])) continue;
        left = fmin(left, c->points[i].flops_per_byte);
        right = fmax(right, c->points[i].flops_per_byte);
        low = fmin(low, c->points[i].gflops), high = fmax(high, c->points[i].gflops);
    }
    if (left > right) return false;
    if (r->known) {
        double ridge = c->peak_gflops / c->peak_gbytes_s;
        left = fmin(left, ridge), right = fmax(right, ridge), high = fmax(high, c->peak_gflops);
    }
    r->x = chart_axis_make(left / 2, right * 3, CHART_LOG, LEFT, RIGHT);
    r->y = chart_axis_make(low / 2, high * 2, CHART_LOG, HEIGHT - BOTTOM, TOP);
    return true;
}

static void draw_roof(const roof *r) {
    const chart_roofline *c = r->chart;
    char flops[24], bytes[24];
    double ridge = c->peak_gflops / c->peak_gbytes_s, start = pow(10, r->x.low);
    start = fmax(start, pow(10, r->y.low) / c->peak_gbytes_s); // where it enters the picture
    fprintf(r->out, "<path class='line roof' d='M%.1f %.1fL%.1f %.1fH%d'/>\n",
            chart_place(&r->x, start), chart_place(&r->y, limit(r, start)),
            chart_place(&r->x, ridge), chart_place(&r->y, c->peak_gflops), RIGHT);
    fprintf(r->out, "<text class='end muted' x='%d' y='%.1f'>%s GFLOP/s, %s GB/s</text>\n",
            RIGHT - 4, chart_place(&r->y, c->peak_gflops) - 6, chart_number(c->peak_gflops, flops),
            chart_number(c->peak_gbytes_s, bytes));
}

static bool is_free(const roof *r, const box *b) {
    if (b->x < LEFT || b->x + b->width > RIGHT || b->y < TOP || b->y > HEIGHT - BOTTOM - 4)
        return false;
    for (int i = 0; i < r->count; i++)
        if (fabs(b->y - r->taken[i].y) < 13 && b->x < r->taken[i].x + r->taken[i].width &&
            r->taken[i].x < b->x + b->width)
            return false;
    return true;
}

// At the right, at the left, above or below, where there is room; else nowhere.
static void draw_label(roof *r, const chart_point *p, double x, double y, double size) {
    double width = chart_text_width(p->label);
    const box places[] = {{x + size + 4, y + 4, width},
                          {x - size - 4 - width, y + 4, width},
                          {x - width / 2, y - size - 5, width},
                          {x - width / 2, y + size + 14, width}};
    for (int i = 0; i < 4 && r->count < 2 * LABELS; i++) {
        if (!is_free(r, &places[i])) continue;
        r->taken[r->count++] = places[i];
        // (The guess of the width is a cautious one: an end at the mark stays there.)
        fprintf(r->out, "<text class='halo %s' x='%.1f' y='%.1f'>",
                i == 0   ? "start"
                : i == 1 ? "end"
                         : "middle",
                places[i].x + (i == 1  ? width
                               : i > 1 ? width / 2
                                       : 0),
                places[i].y);
        chart_text(p->label, r->out);
        fputs("</text>\n", r->out);
        return;
    }
}

static double mark_size(const chart_point *p) { // of its radius, in pixels
    double part = chart_finite(p->share) ? fmin(fmax(p->share, 0), 1) : 0;
    return 4 + 12 * sqrt(part);
}

static void draw_point(const roof *r, const chart_point *p) {
    char colour[16], flops[24], intensity[24];
    fprintf(r->out, "<g><title>");
    chart_text(p->label, r->out);
    fprintf(r->out, ": %s GFLOP/s at %s flop/byte", chart_number(p->gflops, flops),
            chart_number(p->flops_per_byte, intensity));
    if (r->known)
        fprintf(r->out, ", %.3g %% of the roof", 100 * p->gflops / limit(r, p->flops_per_byte));
    if (chart_finite(p->share) && p->share > 0)
        fprintf(r->out, ", %.3g %% of the time", 100 * p->share);
    fprintf(r->out,
            "</title><path class='mark %s' transform='translate(%.1f %.1f) scale(%.2f)' "
            "d='M0 0%s'/></g>\n",
            chart_colour(p->colour, colour), chart_place(&r->x, p->flops_per_byte),
            chart_place(&r->y, p->gflops), mark_size(p) / 3.5, chart_shape(p->colour));
}

void chart_write_roofline(const chart_roofline *c, FILE *out) {
    roof r = {.chart = c, .out = out};
    if (!measure(&r)) {
        chart_nothing(&c->head, out);
        return;
    }
    chart_begin(&c->head, CHART_WIDTH, HEIGHT, out);
    int shown = 0;
    char flops[24];
    for (int i = 0; i < c->count; i++)
        if (drawable(&c->points[i]) && shown < 12) {
            fputs(shown++ ? "; " : "", out), chart_text(c->points[i].label, out);
            fprintf(out, " %s GFLOP/s", chart_number(c->points[i].gflops, flops));
        }
    chart_body(&c->head, CHART_WIDTH, HEIGHT, out);
    chart_axes(&r.x, &r.y, "floating-point operations per byte moved", "GFLOP/s", out);
    if (r.known) draw_roof(&r);
    for (int i = 0; i < c->count; i++) {
        const chart_point *p = &c->points[i];
        if (!drawable(p) || r.count >= LABELS) continue;
        double size = mark_size(p); // labels keep off the marks
        r.taken[r.count++] = (box){chart_place(&r.x, p->flops_per_byte) - size,
                                   chart_place(&r.y, p->gflops) + 4, 2 * size};
    }
    for (int i = 0; i < c->count; i++)
        if (drawable(&c->points[i])) draw_point(&r, &c->points[i]);
    for (int i = 0; i < c->count; i++)
        if (drawable(&c->points[i]))
            draw_label(&r, &c->points[i], chart_place(&r.x, c->points[i].flops_per_byte),
                       chart_place(&r.y, c->points[i].gflops), mark_size(&c->points[i]));
    chart_end(out);
}
