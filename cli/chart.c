// The SVG line chart of a run directory; see chart.h. Colours follow the reader's light or dark
// mode and stay apart for colour-blind readers (Okabe and Ito, 2008).
#include "chart.h"

#include <math.h>

enum { WIDTH = 720, HEIGHT = 400, LEFT = 64, RIGHT = 16, TOP = 52, BOTTOM = 46 };

typedef struct axis {
    double low, high; // of what is drawn: logarithms on a logarithmic axis
    double from, to;  // pixels
    bool log;
} axis;

void series_add(series *s, double x, double y) {
    if (!isfinite(y)) return;
    if (s->group == 0) s->group = 1;
    s->sum_x += x, s->sum_y += y;
    if (++s->pending < s->group) return;
    if (s->count == SERIES_POINTS) {
        s->count /= 2, s->group *= 2;
        for (int i = 0; i < s->count; i++) {
            s->x[i] = (s->x[2 * i] + s->x[2 * i + 1]) / 2;
            s->y[i] = (s->y[2 * i] + s->y[2 * i + 1]) / 2;
        }
        return; // half of a group of the new size is pending now
    }
    s->x[s->count] = s->sum_x / s->pending;
    s->y[s->count++] = s->sum_y / s->pending;
    s->sum_x = s->sum_y = 0, s->pending = 0;
}

static bool drawable(const chart *c, double y) {
    return isfinite(y) && (!c->log_y || y > 0);
}

static double place(const axis *a, double v) {
    double t = ((a->log ? log10(v) : v) - a->low) / (a->high - a->low);
    return a->from + t * (a->to - a->from);
}

// The extent of all points; linear axes start at 0.
static void measure(const chart *c, axis *x, axis *y) {
    *x = (axis){0, -HUGE_VAL, LEFT, WIDTH - RIGHT, false};
    *y = (axis){HUGE_VAL, -HUGE_VAL, HEIGHT - BOTTOM, TOP, c->log_y};
    for (int i = 0; i < c->count; i++)
        for (int j = 0; j < c->series[i].count; j++) {
            double px = c->series[i].x[j], py = c->series[i].y[j];
            if (!drawable(c, py)) continue;
            py = c->log_y ? log10(py) : py;
            x->high = fmax(x->high, px);
            y->low = fmin(y->low, py), y->high = fmax(y->high, py);
        }
    if (x->low > x->high) x->high = 1, y->low = 0, y->high = 1; // no points
    if (!c->log_y) y->low = 0, y->high *= 1.05;
    if (c->log_y) y->low = fmin(y->low, y->high - 0.8); // has at least two ticks
    if (y->high <= y->low) y->high = y->low + 1;
}

static void tick(const axis *a, double v, FILE *out) {
    char text[24];
    double at = place(a, v), unit = v >= 1e6 ? 1e6 : v >= 1e3 ? 1e3 : 1;
    snprintf(text, sizeof text, "%.6g%s", v / unit, unit == 1e6 ? "M" : unit == 1e3 ? "k" : "");
    if (a->from == LEFT)
        fprintf(out, "<text x='%.1f' y='%d' text-anchor='middle'>%s</text>\n", at,
                HEIGHT - BOTTOM + 18, text);
    else
        fprintf(out,
                "<path class='grid' d='M%d %.1fH%d'/><text x='%d' y='%.1f' "
                "text-anchor='end'>%s</text>\n",
                LEFT, at, WIDTH - RIGHT, LEFT - 8, at + 4, text);
}

// About six round numbers; on a logarithmic axis 1, 2 and 5 of every decade, or 1 if many.
static void ticks(const axis *a, FILE *out) {
    double span = a->high - a->low;
    if (a->log) {
        for (int decade = (int)floor(a->low); decade <= (int)ceil(a->high); decade++)
            for (int m = 1; m <= 5; m += m == 1 ? 1 : 3) {
                double v = m * pow(10, decade), l = log10(v);
                if (l >= a->low && l <= a->high && (m == 1 || span < 3)) tick(a, v, out);
            }
        return;
    }
    double unit = pow(10, floor(log10(span / 6))), ratio = span / 6 / unit;
    double step = unit * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
    for (double k = 0; k * step <= a->high + 1e-9 * span; k++) tick(a, k * step, out);
}

static void draw_series(const chart *c, int i, const axis *x, const axis *y, FILE *out) {
    const series *s = &c->series[i];
    const char *command = "M";
    fprintf(out, "<path class='line s%d' d='", i);
    for (int j = 0; j < s->count; j++) {
        if (!drawable(c, s->y[j])) continue;
        fprintf(out, "%s%.1f %.1f", command, place(x, s->x[j]), place(y, s->y[j]));
        command = "L";
    }
    fprintf(out, "'/>\n");
    for (int j = 0; j < s->count; j++)
        if (drawable(c, s->y[j]) && (s->dots || s->count == 1))
            fprintf(out, "<circle class='dot s%d' cx='%.1f' cy='%.1f' r='3'/>\n", i,
                    place(x, s->x[j]), place(y, s->y[j]));
}

static void draw_legend(const chart *c, FILE *out) {
    for (int i = 0, at = LEFT; i < c->count; i++, at += 150)
        fprintf(out, "<path class='line s%d' d='M%d 36h22'/><text x='%d' y='40'>%s</text>\n", i, at,
                at + 28, c->series[i].name);
}

static const char style[] =
    "<style>text{font:12px sans-serif;fill:#333}.title{font-size:15px;font-weight:600}"
    ".ground{fill:#fff}.grid{stroke:#ddd;fill:none}.frame{stroke:#888;fill:none}"
    ".line{fill:none;stroke-width:1.6;stroke-linejoin:round}.s0{stroke:#0072b2}.s1{stroke:#d55e00}"
    ".dot{stroke:none}.dot.s0{fill:#0072b2}.dot.s1{fill:#d55e00}"
    "@media (prefers-color-scheme:dark){text{fill:#ddd}.ground{fill:#16181d}.grid{stroke:#333}"
    ".s0{stroke:#56b4e9}.s1{stroke:#f0a050}.dot.s0{fill:#56b4e9}.dot.s1{fill:#f0a050}}</style>\n";

void chart_write(const chart *c, FILE *out) {
    axis x, y;
    measure(c, &x, &y);
    fprintf(out,
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' "
            "role='img' aria-label='%s'>\n%s<rect class='ground' width='%d' height='%d'/>\n"
            "<text class='title' x='%d' y='22'>%s</text>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, c->title, style, WIDTH, HEIGHT, LEFT, c->title);
    ticks(&x, out);
    ticks(&y, out);
    fprintf(out,
            "<path class='frame' d='M%d %dV%dH%d'/>\n<text x='%d' y='%d' text-anchor='middle'>%s"
            "</text>\n<text transform='translate(14 %d) rotate(-90)' text-anchor='middle'>%s"
            "</text>\n",
            LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8,
            c->x_label, (TOP + HEIGHT - BOTTOM) / 2, c->y_label);
    for (int i = 0; i < c->count; i++) draw_series(c, i, &x, &y, out);
    draw_legend(c, out);
    fprintf(out, "</svg>\n");
}
