// What all charts are made of: texts, frames and axes; see chart.h and chart_draw.h.
#include "report/chart.h"
#include "asset.h"
#include "report/chart_draw.h"

#include <math.h>
#include <string.h>

// ---- Texts -------------------------------------------------------------------------------------

// One character that XML allows: its bytes, or 0 where there is none.
static int character(const unsigned char *s) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (*s < 0x80) return (*s >= 0x20 && *s < 0x7f) || *s == '\t' || *s == '\n';
    int bytes = *s >= 0xf0 ? 4 : *s >= 0xe0 ? 3 : 2;
    uint32_t code = *s & (0x7fu >> bytes);
    if (*s < 0xc2 || *s > 0xf4) return 0;
    for (int i = 1; i < bytes; i++) { // (a text that ends here has a 0, which is none of these)
        if ((s[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    bool wrong = code < least[bytes] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ||
                 (code >= 0x7f && code < 0xa0) || code == 0xfffe || code == 0xffff;
    return wrong ? 0 : bytes;
}

// At most `limit` characters.
static const char *escape(const char *text, size_t limit, FILE *out) {
    for (; *text && limit; limit--) {
        int bytes = character((const unsigned char *)text);
        switch (*text) {
        case '&': fputs("&amp;", out); break;
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\'': fputs("&#39;", out); break;
        default:
            if (bytes)
                fwrite(text, 1, (size_t)bytes, out);
            else
                fputs("\xef\xbf\xbd", out);
        }
        text += bytes ? bytes : 1;
    }
    return text;
}

void chart_text(const char *text, FILE *out) {
    if (text) escape(text, SIZE_MAX, out);
}

static size_t characters(const char *text) {
    size_t count = 0;
    for (; text && *text; count++) {
        int bytes = character((const unsigned char *)text);
        text += bytes ? bytes : 1;
    }
    return count;
}

static const double CHARACTER = 6.5; // pixels; sans-serif of 12 has 6 and a little on average

double chart_text_width(const char *text) {
    return CHARACTER * (double)characters(text);
}

void chart_text_fit(const char *text, double width, FILE *out) {
    size_t limit = width > CHARACTER ? (size_t)(width / CHARACTER) : 1;
    bool fits = characters(text) <= limit;
    escape(text ? text : "", fits ? limit : limit - 1, out);
    if (!fits) fputs("\xe2\x80\xa6", out);
}

const char *chart_number(double value, char out[24]) {
    static const char prefixes[] = " kMGT";
    int p = 0;
    if (!isfinite(value)) return "-";
    if (fabs(value) < 1e15)
        while (fabs(value) >= 999.95 && p < 4) value /= 1000, p++;
    snprintf(out, 24, "%.4g%.*s", value == 0 ? 0 : value, p > 0, &prefixes[p]); // (-0 is 0)
    return out;
}

// ---- Frames ------------------------------------------------------------------------------------

void chart_begin(const chart_head *head, int width, int height, FILE *out) {
    int top = head->heading ? CHART_TITLE - 8 : 0; // cut off
    fprintf(out,
            "<svg xmlns='http://www.w3.org/2000/svg' class='chart' viewBox='0 %d %d %d' "
            "width='%d' height='%d' role='img'>\n<title>",
            top, width, height - top, width, height - top);
    chart_text(head->title, out);
    fputs("</title>\n<desc>", out);
}

void chart_body(const chart_head *head, int width, int height, FILE *out) {
    fputs("</desc>\n", out);
    if (head->alone) fprintf(out, "<style>\n%s</style>\n", asset_text("chart.css"));
    fprintf(out, "<rect class='ground' width='%d' height='%d'/>\n", width, height);
    if (head->heading) return;
    fputs("<text class='title' x='8' y='20'>", out);
    chart_text(head->title, out);
    fputs("</text>\n", out);
}

void chart_end(FILE *out) {
    fputs("</svg>\n", out);
}

void chart_nothing(const chart_head *head, FILE *out) {
    const char *empty = head->empty && *head->empty ? head->empty : "nothing to draw yet";
    chart_begin(head, CHART_WIDTH, 120, out);
    chart_text(empty, out);
    chart_body(head, CHART_WIDTH, 120, out);
    fprintf(out, "<text class='empty' x='%d' y='74'>", CHART_WIDTH / 2);
    chart_text_fit(empty, CHART_WIDTH - 16, out);
    fputs("</text>\n", out);
    chart_end(out);
}

const char *chart_colour(int colour, char out[16]) {
    if (colour < 0) return "grey";
    snprintf(out, 16, "c%d%s", colour % CHART_COLOURS, colour < CHART_COLOURS ? "" : " again");
    return out;
}

const char *chart_shape(int colour) {
    static const char *const shapes[CHART_COLOURS] = {
        "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",              // circle
        "m-3-3h6v6h-6z",                                             // square
        "m0-4.2l4 7h-8z",                                            // triangle
        "m0-4.4l4 4.4l-4 4.4l-4-4.4z",                               // diamond
        "m0 4.2l4-7h-8z",                                            // triangle on its tip
        "m-1.3-4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z", // plus
        "m-4.2-1.8h8.4v3.6h-8.4z",                                   // bar
        ("m-2.8-3.9l2.8 2.8l2.8-2.8l1.1 1.1l-2.8 2.8l2.8 2.8l-1.1 1.1l-2.8-2.8" // cross
         "l-2.8 2.8l-1.1-1.1l2.8-2.8l-2.8-2.8z"),
    };
    return shapes[colour < 0 ? 0 : colour % CHART_COLOURS];
}

// ---- Axes --------------------------------------------------------------------------------------

bool chart_finite(double value) {
    return isfinite(value) && fabs(value) < 1e100;
}

bool chart_positive(double value) {
    return value > 1e-100 && value < 1e100;
}

// About six ticks at 1, 2 or 5 times a power of ten.
static double tick_step(double span) {
    double unit = pow(10, floor(log10(span / 6))), ratio = span / 6 / unit;
    return unit * (ratio < 1.5 ? 1 : ratio < 3.5 ? 2 : ratio < 7.5 ? 5 : 10);
}

chart_axis chart_axis_make(double low, double high, chart_axis_kind kind, double from, double to) {
    chart_axis a = {.low = low, .high = high, .from = from, .to = to, .log = kind == CHART_LOG};
    if (a.log) {
        a.low = log10(low), a.high = log10(high);
        double lack = 0.8 - (a.high - a.low); // two ticks at least
        if (lack > 0) a.low -= lack / 2, a.high += lack / 2;
        return a;
    }
    double size = fmax(fabs(low), fabs(high));
    if (high - low <= 1e-9 * size || size < 1e-100) { // one value
        double margin = size > 1e-100 ? size / 10 : 1;
        a.low = low >= 0 ? fmax(low - margin, 0) : low - margin;
        a.high = high + margin;
    }
    a.step = tick_step(a.high - a.low);
    if (kind == CHART_WHOLE) a.step = fmax(a.step, 1);
    if (kind != CHART_ROUND) return a;
    a.low = a.step * floor(a.low / a.step + 1e-9);
    a.high = a.step * ceil(a.high / a.step - 1e-9);
    return a;
}

double chart_place(const chart_axis *a, double value) {
    double t = ((a->log ? log10(value) : value) - a->low) / (a->high - a->low);
    return a->from + t * (a->to - a->from);
}

static void tick(const chart_axis *a, const chart_axis *other, bool is_y, double value, FILE *out) {
    char text[24];
    double at = chart_place(a, value);
    const char *number = chart_number(value, text);
    if (is_y)
        fprintf(out,
                "<path class='grid' d='M%.0f %.1fH%.0f'/><text class='tick end' x='%.0f' y='%.1f'>"
                "%s</text>\n",
                other->from, at, other->to, other->from - 8, at + 4, number);
    else
        fprintf(out,
                "<path class='grid' d='M%.1f %.0fv5'/><text class='tick middle' x='%.1f' y='%.0f'>"
                "%s</text>\n",
                at, other->from, at, other->from + 19, number);
}

// On a logarithmic axis 1, 2 and 5 of every decade, or 1 of some.
static void ticks(const chart_axis *a, const chart_axis *other, bool is_y, FILE *out) {
    double span = a->high - a->low;
    if (!a->log) {
        double first = ceil(a->low / a->step - 1e-9);
        for (int k = 0; k < 20 && (first + k) * a->step <= a->high + 1e-9 * span; k++)
            tick(a, other, is_y, (first + k) * a->step, out);
        return;
    }
    int every = 1 + (int)(span / 8);
    for (int decade = (int)floor(a->low); decade <= (int)ceil(a->high); decade += every)
        for (int m = 1; m <= (span < 3 ? 5 : 1); m += m == 1 ? 1 : 3) {
            double l = decade + log10(m);
            if (l >= a->low - 1e-9 && l <= a->high + 1e-9)
                tick(a, other, is_y, m * pow(10, decade), out);
        }
}

void chart_axes(const chart_axis *x, const chart_axis *y, const char *x_label, const char *y_label,
                FILE *out) {
    ticks(x, y, false, out);
    ticks(y, x, true, out);
    fprintf(out,
            "<path class='frame' d='M%.0f %.0fV%.0fH%.0f'/>\n<text class='middle' x='%.0f' "
            "y='%.0f'>",
            x->from, y->to, y->from, x->to, (x->from + x->to) / 2, y->from + 38);
    chart_text_fit(x_label, x->to - x->from, out);
    fprintf(out, "</text>\n<text class='middle' transform='translate(15 %.0f) rotate(-90)'>",
            (y->from + y->to) / 2);
    chart_text_fit(y_label, y->from - y->to + 40, out);
    fputs("</text>\n", out);
}
