// Line charts; see chart.h. What is written stays small however many points come in: of each bucket
// of neighbours the lowest and the highest are drawn, so that no spike is lost.
#include "report/chart_draw.h"

#include <math.h>
#include <stdlib.h>

enum {
    HEIGHT = 340, // with one row of legend
    LEFT = 68,
    RIGHT = CHART_WIDTH - 16,
    BOTTOM = 48,
    LEGEND_ROW = 20,
    POINTS = 2000,     // of a line, and
    ALL_POINTS = 6000, // of all of them
    STRIPS = 120,      // places that show their values under the pointer
};

typedef struct plot {
    const chart_lines *chart;
    chart_axis x, y;
    int points; // a line may have
    int height;
    FILE *out;
} plot;

static bool drawable(const chart_lines *c, const chart_line *line, size_t i) {
    return chart_finite(line->x[i]) && (c->log_y ? chart_positive : chart_finite)(line->y[i]);
}

// False when there is no point.
static bool measure(plot *p) {
    const chart_lines *c = p->chart;
    double low_x = HUGE_VAL, high_x = -HUGE_VAL, low = HUGE_VAL, high = -HUGE_VAL;
    bool whole = true;
    for (int i = 0; i < c->count; i++)
        for (size_t j = 0; j < c->lines[i].count; j++) {
            if (!drawable(c, &c->lines[i], j)) continue;
            double x = c->lines[i].x[j], y = c->lines[i].y[j];
            low_x = fmin(low_x, x), high_x = fmax(high_x, x);
            low = fmin(low, y), high = fmax(high, y);
            whole &= x == floor(x);
        }
    if (low > high) return false;
    if (low_x > 0 && low_x < high_x / 2) low_x = 0;
    if (!c->log_y && low > 0 && (c->from_zero || low < high / 2)) low = 0;
    p->x = chart_axis_make(low_x, high_x, whole ? CHART_WHOLE : CHART_LINEAR, LEFT, RIGHT);
    p->y = chart_axis_make(low, high, c->log_y ? CHART_LOG : CHART_ROUND, p->height - BOTTOM,
                           p->height - HEIGHT + CHART_TITLE + LEGEND_ROW + 6);
    return true;
}

// ---- Lines -------------------------------------------------------------------------------------

static void point(const plot *p, const chart_line *line, size_t i, char command) {
    fprintf(p->out, "%c%.1f %.1f", command, chart_place(&p->x, line->x[i]),
            chart_place(&p->y, line->y[i]));
}

// The lowest and the highest drawable point of [from, to), the earlier first; false without any.
static bool extremes(const plot *p, const chart_line *line, size_t from, size_t to,
                     size_t found[2]) {
    size_t low = SIZE_MAX, high = SIZE_MAX;
    for (size_t i = from; i < to; i++) {
        if (!drawable(p->chart, line, i)) continue;
        if (low == SIZE_MAX || line->y[i] < line->y[low]) low = i;
        if (high == SIZE_MAX || line->y[i] > line->y[high]) high = i;
    }
    found[0] = low < high ? low : high;
    found[1] = low < high ? high : low;
    return low != SIZE_MAX;
}

// A line that goes up and down so much that it is rather a band: pale, and behind the others.
static bool is_dense(const plot *p, const chart_line *line) {
    double travel = 0, last = 0;
    for (size_t i = 0, seen = 0; i < line->count; i++) {
        if (!drawable(p->chart, line, i)) continue;
        double y = chart_place(&p->y, line->y[i]);
        if (seen++) travel += fabs(y - last);
        last = y;
    }
    return travel > 6 * HEIGHT;
}

static void draw_path(const plot *p, const chart_line *line, bool dense) {
    char colour[16], command = 'M';
    size_t most = (size_t)p->points / 2,
           group = line->count > 2 * most ? line->count / most + 1 : 1;
    fprintf(p->out, "<path class='line %s%s%s' d='", chart_colour(line->colour, colour),
            line->dashed ? " dashed" : "", dense ? " dense" : "");
    for (size_t i = 0; i < line->count; i += group) {
        size_t found[2], end = line->count - i < group ? line->count : i + group;
        if (!extremes(p, line, i, end, found)) continue;
        point(p, line, found[0], command), command = 'L';
        if (found[1] != found[0]) point(p, line, found[1], command);
    }
    fputs("'/>\n", p->out);
}

// Marks on all points, or on a few of them where lines must be told apart, or on the only one.
static void draw_marks(const plot *p, int index) {
    const chart_line *line = &p->chart->lines[index];
    char colour[16];
    size_t most = line->dots ? 150 : p->chart->count > 1 ? 7 : 0;
    if (line->count == 1) most = 1;
    if (!most) return;
    size_t every = line->count / most + (line->count % most != 0);
    if (!every) return;
    fprintf(p->out, "<path class='mark %s%s' d='", chart_colour(line->colour, colour),
            line->dashed ? " hollow" : "");
    for (size_t i = line->dots ? 0 : every / 2; i < line->count; i += every)
        if (drawable(p->chart, line, i))
            point(p, line, i, 'M'), fputs(chart_shape(line->colour), p->out);
    fputs("'/>\n", p->out);
}

// Said below a minimum and above a maximum, where the axis leaves room.
static void draw_best(const plot *p, const chart_line *line, bool said) {
    char colour[16], number[24];
    if (!line->best || line->best > line->count || !drawable(p->chart, line, line->best - 1))
        return;
    double x = chart_place(&p->x, line->x[line->best - 1]);
    double y = chart_place(&p->y, line->y[line->best - 1]);
    bool left = x > (LEFT + RIGHT) / 2, below = true;
    for (size_t i = 0; i < line->count && below; i++)
        below = !drawable(p->chart, line, i) || line->y[i] >= line->y[line->best - 1];
    below = below ? y + 30 < p->y.from : y - 20 < p->y.to;
    fprintf(p->out, "<circle class='best %s' cx='%.1f' cy='%.1f' r='7'/>\n",
            chart_colour(line->colour, colour), x, y);
    if (!said) return;
    fprintf(p->out, "<text class='halo %s' x='%.1f' y='%.1f'>", left ? "end" : "start",
            x + (left ? 4 : -4), y + (below ? 23 : -13));
    chart_text_fit(line->note ? line->note : "best", 200, p->out);
    fprintf(p->out, " %s</text>\n", chart_number(line->y[line->best - 1], number));
}

// ---- Legend ------------------------------------------------------------------------------------

// Places the entries in rows, drawing them where `draw` says so; the rows.
static int legend(const plot *p, bool draw) {
    int rows = 1;
    double at = LEFT;
    for (int i = 0; i < p->chart->count; i++) {
        const chart_line *line = &p->chart->lines[i];
        if (!line->name) continue;
        double width = fmin(chart_text_width(line->name), 400);
        if (at > LEFT && at + 36 + width > RIGHT) at = LEFT, rows++;
        double y = CHART_TITLE + LEGEND_ROW * (rows - 1) + 6;
        char colour[16];
        const char *class = chart_colour(line->colour, colour),
                   *dashed = line->dashed ? " dashed" : "";
        if (draw) {
            fprintf(p->out, "<path class='line %s%s' d='M%.0f %.0fh26'/>", class, dashed, at, y);
            if (p->chart->count > 1 || line->dots)
                fprintf(p->out, "<path class='mark %s%s' d='M%.0f %.0f%s'/>", class,
                        line->dashed ? " hollow" : "", at + 13, y, chart_shape(line->colour));
            fprintf(p->out, "<text x='%.0f' y='%.0f'>", at + 32, y + 4);
            chart_text_fit(line->name, width, p->out);
            fputs("</text>\n", p->out);
        }
        at += 32 + width + 18;
    }
    return rows;
}

// ---- Values under the pointer ------------------------------------------------------------------

typedef struct strips {
    double centre[STRIPS];
    int count, most;
} strips;

// Puts the x of a point in its place; false when there are too many different ones.
static bool strip_add(strips *s, double x) {
    int at = s->count;
    while (at > 0 && s->centre[at - 1] > x) at--;
    if (at > 0 && s->centre[at - 1] == x) return true;
    if (s->count == s->most) return false;
    for (int i = s->count++; i > at; i--) s->centre[i] = s->centre[i - 1];
    s->centre[at] = x;
    return true;
}

// A strip for each x that occurs or, where these are many, strips of the same width.
static void strips_make(const plot *p, strips *s) {
    const chart_lines *c = p->chart;
    s->count = 0, s->most = c->count > 4 ? (int)fmax(STRIPS * 4 / c->count, 12) : STRIPS;
    bool fits = true;
    for (int i = 0; i < c->count && fits; i++)
        for (size_t j = 0; j < c->lines[i].count && fits; j++)
            if (drawable(c, &c->lines[i], j)) fits = strip_add(s, c->lines[i].x[j]);
    if (fits) return;
    s->count = s->most;
    for (int i = 0; i < s->count; i++)
        s->centre[i] = p->x.low + (i + 0.5) / s->count * (p->x.high - p->x.low);
}

static int nearest_strip(const strips *s, double x) {
    int low = 0, high = s->count - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (x > (s->centre[middle] + s->centre[middle + 1]) / 2)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// 1 + index of the point of each line that is the nearest to the centre of each strip.
static size_t *strip_points(const plot *p, const strips *s) {
    const chart_lines *c = p->chart;
    size_t *near = calloc((size_t)c->count * STRIPS, sizeof *near);
    for (int i = 0; i < c->count && near; i++)
        for (size_t j = 0; j < c->lines[i].count; j++) {
            if (!drawable(c, &c->lines[i], j)) continue;
            int strip = nearest_strip(s, c->lines[i].x[j]);
            size_t *best = &near[i * STRIPS + strip];
            double there = *best ? fabs(c->lines[i].x[*best - 1] - s->centre[strip]) : HUGE_VAL;
            if (fabs(c->lines[i].x[j] - s->centre[strip]) <= there) *best = j + 1;
        }
    return near;
}

static void draw_strip(const plot *p, const strips *s, const size_t *near, int k) {
    const chart_lines *c = p->chart;
    double middle = chart_place(&p->x, s->centre[k]), from = LEFT, to = RIGHT;
    if (k > 0) from = (middle + chart_place(&p->x, s->centre[k - 1])) / 2;
    if (k + 1 < s->count) to = (middle + chart_place(&p->x, s->centre[k + 1])) / 2;
    fprintf(p->out, "<rect class='strip' x='%.1f' y='%.0f' width='%.1f' height='%.0f'><title>",
            from, p->y.to, fmax(to - from, 0), p->y.from - p->y.to);
    bool first = true;
    for (int i = 0; i < c->count; i++) {
        const size_t at = near[i * STRIPS + k];
        if (!at) continue;
        if (first) {
            chart_text(c->x_label, p->out);
            fprintf(p->out, " %.9g", c->lines[i].x[at - 1]);
        }
        first = false;
        fputs("\n", p->out);
        chart_text_fit(c->lines[i].name, 280, p->out);
        fprintf(p->out, ": %.6g", c->lines[i].y[at - 1]);
    }
    fputs("</title></rect>\n", p->out);
}

static void draw_strips(const plot *p) {
    strips s;
    strips_make(p, &s);
    size_t *near = strip_points(p, &s); // without memory the chart goes without
    for (int k = 0; k < s.count && near; k++) draw_strip(p, &s, near, k);
    free(near);
}

// ---- The chart ---------------------------------------------------------------------------------

static void describe(const plot *p) {
    const chart_lines *c = p->chart;
    char first[24], last[24];
    chart_text(c->y_label, p->out), fputs(" over ", p->out), chart_text(c->x_label, p->out);
    for (int i = 0; i < c->count && i < 12; i++) {
        size_t found[2], from = 0, to = c->lines[i].count;
        if (!extremes(p, &c->lines[i], 0, to, found)) continue;
        while (!drawable(c, &c->lines[i], from)) from++;
        while (!drawable(c, &c->lines[i], to - 1)) to--;
        fputs(i ? "; " : ": ", p->out);
        chart_text(c->lines[i].name, p->out);
        fprintf(p->out, " from %s to %s", chart_number(c->lines[i].y[from], first),
                chart_number(c->lines[i].y[to - 1], last));
    }
    fputs(".", p->out);
}

void chart_write_lines(const chart_lines *c, FILE *out) {
    plot p = {.chart = c, .out = out};
    int said = 0;
    p.height = HEIGHT + LEGEND_ROW * (legend(&p, false) - 1);
    if (!measure(&p)) {
        chart_nothing(&c->head, out);
        return;
    }
    p.points = c->count * POINTS > ALL_POINTS ? ALL_POINTS / c->count : POINTS;
    p.points = p.points < 100 ? 100 : p.points;
    for (int i = 0; i < c->count; i++) said += c->lines[i].best > 0;
    chart_begin(&c->head, CHART_WIDTH, p.height, out);
    describe(&p);
    chart_body(&c->head, CHART_WIDTH, p.height, out);
    chart_axes(&p.x, &p.y, c->x_label, c->y_label, out);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < c->count; i++) {
            bool dense = is_dense(&p, &c->lines[i]);
            if (dense == (pass == 0)) draw_path(&p, &c->lines[i], dense), draw_marks(&p, i);
        }
    for (int i = 0; i < c->count; i++) draw_best(&p, &c->lines[i], said == 1);
    legend(&p, true);
    draw_strips(&p);
    chart_end(out);
}
