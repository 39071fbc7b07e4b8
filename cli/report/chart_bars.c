// Bars, confusion matrices and treemaps; see chart.h.
#include "report/chart_draw.h"

#include <math.h>
#include <stdlib.h>

// ---- Bars --------------------------------------------------------------------------------------

enum { BAR_ROW = 24, BAR_GAP = 10 };

static const char *bar_text(const chart_bar *bar, char number[24]) {
    return bar->text ? bar->text : chart_number(bar->value, number);
}

typedef struct bar_columns {
    double label, value, full;
} bar_columns;

// The width that labels and values take, and the value of a bar over the rest.
static bar_columns bars_measure(const chart_bars *c) {
    char number[24];
    bar_columns m = {20, 20, 0};
    for (int i = 0; i < c->count; i++) {
        m.label = fmax(m.label, chart_text_width(c->bars[i].label));
        m.value = fmax(m.value, chart_text_width(bar_text(&c->bars[i], number)));
        if (chart_finite(c->bars[i].value)) m.full = fmax(m.full, c->bars[i].value);
    }
    m.label = fmin(m.label, 280), m.value = fmin(m.value, 240);
    if (c->full > 0) m.full = c->full;
    return m;
}

static void draw_bar(const chart_bar *bar, const bar_columns *m, double y, FILE *out) {
    char colour[16], number[24];
    double left = 8 + m->label + BAR_GAP, room = CHART_WIDTH - 8 - m->value - BAR_GAP - left;
    bool drawn = chart_finite(bar->value) && bar->value > 0 && m->full > 0;
    double width = drawn ? fmin(bar->value / m->full, 1) * room : 0;
    fprintf(out, "<g><title>");
    chart_text(bar->label, out), fputs(": ", out), chart_text(bar_text(bar, number), out);
    fprintf(out, "</title><text class='end' x='%.0f' y='%.0f'>", left - BAR_GAP, y + 16);
    chart_text_fit(bar->label, m->label, out);
    fprintf(out,
            "</text><rect class='fill %s' x='%.0f' y='%.0f' width='%.1f' height='%d'/>"
            "<text x='%.1f' y='%.0f'>",
            chart_colour(bar->colour, colour), left, y + 3, width, BAR_ROW - 6,
            left + width + BAR_GAP / 2, y + 16);
    chart_text_fit(bar_text(bar, number), m->value, out);
    fputs("</text></g>\n", out);
}

void chart_write_bars(const chart_bars *c, FILE *out) {
    if (c->count <= 0) {
        chart_nothing(&c->head, out);
        return;
    }
    char number[24];
    bar_columns m = bars_measure(c);
    int height = CHART_TITLE + c->count * BAR_ROW + 8;
    chart_begin(&c->head, CHART_WIDTH, height, out);
    for (int i = 0; i < c->count && i < 20; i++) {
        fputs(i ? "; " : "", out), chart_text(c->bars[i].label, out);
        fputs(": ", out), chart_text(bar_text(&c->bars[i], number), out);
    }
    chart_body(&c->head, CHART_WIDTH, height, out);
    for (int i = 0; i < c->count; i++) draw_bar(&c->bars[i], &m, CHART_TITLE + i * BAR_ROW, out);
    chart_end(out);
}

// ---- Confusion matrix --------------------------------------------------------------------------

typedef struct matrix {
    const chart_confusion *chart;
    double cell, left, top;
    double worst; // the largest share of a row that is wrong
    FILE *out;
} matrix;

static const char *class_name(const chart_confusion *c, int k, char number[24]) {
    if (c->names) return c->names[k];
    snprintf(number, 24, "%d", k);
    return number;
}

static double opacity(double shade) {
    return 0.06 + 0.5 * shade;
}

static uint64_t row_sum(const chart_confusion *c, int row) {
    uint64_t sum = 0;
    for (int k = 0; k < c->classes; k++) sum += c->counts[row * c->classes + k];
    return sum;
}

static double share(const chart_confusion *c, int row, int column, uint64_t sum) {
    return sum ? (double)c->counts[row * c->classes + column] / (double)sum : 0;
}

// Names stand at the left, and above: slanted where a cell is too narrow for them.
static matrix matrix_measure(const chart_confusion *c, FILE *out) {
    char number[24];
    matrix m = {.chart = c, .out = out};
    double longest = 0;
    for (int k = 0; k < c->classes; k++) {
        uint64_t sum = row_sum(c, k);
        longest = fmax(longest, chart_text_width(class_name(c, k, number)));
        for (int j = 0; j < c->classes; j++)
            if (j != k) m.worst = fmax(m.worst, share(c, k, j, sum));
    }
    longest = fmin(longest, 140);
    m.cell = fmin(fmax(560.0 / c->classes, 5), 46);
    m.left = 30 + longest;
    m.top = CHART_TITLE + 26 + (longest > m.cell ? 0.75 * longest : 12);
    return m;
}

static void draw_cell(const matrix *m, int row, int column, uint64_t sum) {
    const chart_confusion *c = m->chart;
    char number[24], other[24];
    uint32_t count = c->counts[row * c->classes + column];
    double part = share(c, row, column, sum), x = m->left + m->cell * column;
    double y = m->top + m->cell * row, shade = row == column ? part : sqrt(part / m->worst);
    if (!count) return;
    fprintf(m->out, "<g><title>true ");
    chart_text(class_name(c, row, number), m->out), fputs(", predicted ", m->out);
    chart_text(class_name(c, column, other), m->out);
    fprintf(m->out, ": %u (%.4g %% of %llu)</title>", count, 100 * part, (unsigned long long)sum);
    fprintf(m->out,
            "<rect class='fill %s' x='%.1f' y='%.1f' width='%.1f' height='%.1f' "
            "fill-opacity='%.3f'/>",
            row == column ? "c0" : "c1", x, y, m->cell - 1, m->cell - 1, opacity(shade));
    if (m->cell >= 30)
        fprintf(m->out, "<text class='middle' x='%.1f' y='%.1f'>%u</text>", x + m->cell / 2,
                y + m->cell / 2 + (m->cell >= 40 ? -1 : 4), count);
    if (m->cell >= 40)
        fprintf(m->out, "<text class='middle tiny' x='%.1f' y='%.1f'>%.*f %%</text>",
                x + m->cell / 2, y + m->cell / 2 + 13, part < 0.0995 ? 2 : 1, 100 * part);
    fputs("</g>\n", m->out);
}

static void draw_names(const matrix *m) {
    const chart_confusion *c = m->chart;
    char number[24];
    bool slanted = m->top > CHART_TITLE + 26 + 12;
    int every = m->cell < 12 ? (int)(12 / m->cell) + 1 : 1;
    for (int k = 0; k < c->classes; k += every) {
        double at = m->cell * (k + 0.5);
        fprintf(m->out, "<text class='end' x='%.1f' y='%.1f'>", m->left - 6, m->top + at + 4);
        chart_text_fit(class_name(c, k, number), m->left - 30, m->out);
        if (slanted)
            fprintf(m->out, "</text><text transform='translate(%.1f %.1f) rotate(-45)'>",
                    m->left + at, m->top - 5);
        else
            fprintf(m->out, "</text><text class='middle' x='%.1f' y='%.1f'>", m->left + at,
                    m->top - 6);
        chart_text_fit(class_name(c, k, number), m->left - 30, m->out);
        fputs("</text>\n", m->out);
    }
    fprintf(m->out,
            "<text class='middle muted' x='%.1f' y='%d'>predicted</text><text class='middle "
            "muted' transform='translate(15 %.1f) rotate(-90)'>true</text>\n",
            m->left + m->cell * c->classes / 2, CHART_TITLE + 14,
            m->top + m->cell * c->classes / 2);
}

// What the shades mean, below the matrix.
static void draw_shades(const matrix *m, double y) {
    for (int k = 0; k < (m->worst > 0 ? 2 : 1); k++) {
        double x = m->left + 280 * k;
        for (int i = 0; i <= 4; i++)
            fprintf(m->out,
                    "<rect class='fill c%d' x='%.1f' y='%.1f' width='14' height='12' "
                    "fill-opacity='%.3f'/>",
                    k, x + 14 * i, y, opacity(k ? sqrt(i / 4.0) : i / 4.0));
        fprintf(m->out, "<text class='muted' x='%.1f' y='%.1f'>", x + 78, y + 10);
        fprintf(m->out, "%s: 0 to %.3g %% of the row</text>\n", k ? "wrong" : "right",
                k ? 100 * m->worst : 100);
    }
}

static void confusion_describe(const chart_confusion *c, FILE *out) {
    uint64_t right = 0, sum = 0;
    uint32_t worst = 0;
    int row = 0, column = 0;
    char number[24], other[24];
    for (int i = 0; i < c->classes; i++) {
        right += c->counts[i * c->classes + i], sum += row_sum(c, i);
        for (int j = 0; j < c->classes; j++)
            if (i != j && c->counts[i * c->classes + j] > worst)
                worst = c->counts[i * c->classes + j], row = i, column = j;
    }
    fprintf(out, "%llu of %llu are right.", (unsigned long long)right, (unsigned long long)sum);
    if (!worst) return;
    fputs(" The most frequent error is ", out), chart_text(class_name(c, row, number), out);
    fputs(" taken for ", out), chart_text(class_name(c, column, other), out);
    fprintf(out, ", %u times.", worst);
}

void chart_write_confusion(const chart_confusion *c, FILE *out) {
    uint64_t sum = 0;
    for (int k = 0; k < c->classes; k++) sum += row_sum(c, k);
    if (!sum) {
        chart_nothing(&c->head, out);
        return;
    }
    matrix m = matrix_measure(c, out);
    int height = (int)(m.top + m.cell * c->classes + 32);
    chart_begin(&c->head, CHART_WIDTH, height, out);
    confusion_describe(c, out);
    chart_body(&c->head, CHART_WIDTH, height, out);
    draw_names(&m);
    fprintf(out, "<rect class='frame' x='%.1f' y='%.1f' width='%.1f' height='%.1f'/>\n", m.left - 1,
            m.top - 1, m.cell * c->classes + 1, m.cell * c->classes + 1);
    for (int i = 0; i < c->classes; i++) {
        uint64_t row = row_sum(c, i);
        for (int j = 0; j < c->classes; j++) draw_cell(&m, i, j, row);
    }
    draw_shades(&m, height - 20);
    chart_end(out);
}

// ---- Treemap -----------------------------------------------------------------------------------

enum { TREE_HEIGHT = 300 };

typedef struct tile {
    const chart_area *area;
    double x, y, width, height;
} tile;

static int by_value(const void *a, const void *b) {
    double left = ((const tile *)a)->area->value, right = ((const tile *)b)->area->value;
    return (left < right) - (left > right);
}

// The worst ratio of sides in a row along `side` of tiles from `least` to `most`, together `sum`
// (all of them areas in pixels).
static double worst_ratio(double least, double most, double sum, double side) {
    double s2 = sum * sum, l2 = side * side;
    return fmax(l2 * most / s2, s2 / (l2 * least));
}

// Puts tiles along the shorter side of what is left as long as that makes them squarer.
static void squarify(tile *tiles, int count, double scale) {
    double x = 0, y = 0, width = CHART_WIDTH, height = TREE_HEIGHT;
    for (int i = 0; i < count;) {
        double side = fmin(width, height), most = tiles[i].area->value * scale, sum = most, at = 0;
        double ratio = worst_ratio(most, most, sum, side);
        int end = i + 1;
        for (; end < count; end++) {
            double next = tiles[end].area->value * scale;
            double other = worst_ratio(next, most, sum + next, side);
            if (other > ratio) break;
            ratio = other, sum += next;
        }
        double depth = sum / side;
        for (; i < end; i++) {
            double length = tiles[i].area->value * scale / depth;
            tile *t = &tiles[i];
            if (width >= height)
                t->x = x, t->y = y + at, t->width = depth, t->height = length;
            else
                t->x = x + at, t->y = y, t->width = length, t->height = depth;
            at += length;
        }
        if (width >= height)
            x += depth, width -= depth;
        else
            y += depth, height -= depth;
        width = fmax(width, 1e-6), height = fmax(height, 1e-6); // what rounding left
    }
}

static void draw_tile(const tile *t, double total, FILE *out) {
    char colour[16], number[24], text[16];
    double part = 100 * t->area->value / total, y = t->y + CHART_TITLE;
    snprintf(text, sizeof text, part < 10 ? "%.2f %%" : "%.1f %%", part);
    fprintf(out, "<g><title>");
    chart_text(t->area->label, out);
    fprintf(out, ": %s, ", text);
    chart_text(t->area->text ? t->area->text : chart_number(t->area->value, number), out);
    fprintf(out, "</title><rect class='tile %s' x='%.2f' y='%.2f' width='%.2f' height='%.2f'/>",
            chart_colour(t->area->colour, colour), t->x, y, t->width, t->height);
    bool label = t->height >= 20 && t->width >= fmin(chart_text_width(t->area->label), 60) + 12;
    if (label) {
        fprintf(out, "<text x='%.1f' y='%.1f'>", t->x + 7, y + 17);
        chart_text_fit(t->area->label, t->width - 12, out);
        fputs("</text>", out);
    }
    if (label && t->height >= 38 && t->width >= chart_text_width(text) + 10)
        fprintf(out, "<text class='muted' x='%.1f' y='%.1f'>%s</text>", t->x + 7, y + 33, text);
    fputs("</g>\n", out);
}

void chart_write_treemap(const chart_treemap *c, FILE *out) {
    tile *tiles = c->count > 0 ? calloc((size_t)c->count, sizeof *tiles) : NULL;
    int count = 0;
    double total = 0;
    for (int i = 0; i < c->count && tiles; i++)
        if (chart_positive(c->areas[i].value)) total += c->areas[i].value;
    for (int i = 0; i < c->count && tiles; i++) // (nobody sees less, and arithmetic ends somewhere)
        if (chart_positive(c->areas[i].value) && c->areas[i].value > 1e-9 * total)
            tiles[count++].area = &c->areas[i];
    if (!count) {
        free(tiles);
        chart_nothing(&c->head, out);
        return;
    }
    qsort(tiles, (size_t)count, sizeof *tiles, by_value);
    squarify(tiles, count, (double)CHART_WIDTH * TREE_HEIGHT / total);
    chart_begin(&c->head, CHART_WIDTH, CHART_TITLE + TREE_HEIGHT, out);
    for (int i = 0; i < count && i < 12; i++) {
        fputs(i ? "; " : "", out), chart_text(tiles[i].area->label, out);
        fprintf(out, " %.1f %%", 100 * tiles[i].area->value / total);
    }
    chart_body(&c->head, CHART_WIDTH, CHART_TITLE + TREE_HEIGHT, out);
    for (int i = 0; i < count; i++) draw_tile(&tiles[i], total, out);
    chart_end(out);
    free(tiles);
}
