// The charts of the command: well-formed whatever goes in, small however much of it, true to the
// numbers. What is checked is the text that is written: coordinates, titles, colours, pixels.
#include "asset.h"
#include "report/chart.h"
#include "support.h"

#include <locale.h>
#include <math.h>
#include <png.h>

// ---- What was written --------------------------------------------------------------------------

static char *text;
static size_t length;

// Runs a statement that writes to `out`, and leaves what it wrote in `text`.
#define DRAW(statement)                                    \
    do {                                                   \
        free(text);                                        \
        FILE *out = open_memstream(&text, &length);        \
        statement;                                         \
        check(out &&fclose(out) == 0, "no memory for it"); \
    } while (0)

static int release(void **state) {
    (void)state;
    free(text);
    text = NULL;
    return 0;
}

static int occurrences(const char *part) {
    int count = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part)) count++;
    return count;
}

// The number of attribute NAME (with its "='") behind `from`.
static double attribute(const char *from, const char *name) {
    const char *p = strstr(from, name);
    check(p, "%.60s... has no %s", from, name);
    return strtod(p + strlen(name), NULL);
}

// The attributes of a tag from `p` to its end: name='value' without < or a bare &.
static const char *check_tag(const char *p) {
    while (*p && !strchr(" />\n", *p)) p++;
    while (true) {
        p += strspn(p, " \n");
        if (*p == '>' || !strncmp(p, "/>", 2)) return p;
        size_t name = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-:");
        check(name && p[name] == '=' && p[name + 1] == '\'', "no attribute: %.40s", p);
        check(!(name == 2 && !strncmp(p, "id", 2)) && strncmp(p, "on", 2), "%.40s", p);
        const char *value = p + name + 2, *end = strchr(value, '\'');
        check(end, "an open attribute: %.40s", p);
        for (const char *v = value; v < end; v++)
            check(*v != '<' && strncmp(v, "nan", 3) && strncmp(v, "inf", 3), "attribute %.40s", p);
        p = end + 1;
    }
}

static void check_character(const char *p) {
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    if (*p == '&') {
        bool known = false;
        for (int i = 0; i < 5; i++) known |= !strncmp(p, entities[i], strlen(entities[i]));
        check(known, "a bare &: %.20s", p);
    }
    check((unsigned char)*p >= ' ' || *p == '\n' || *p == '\t', "control character %d", *p);
    check(*p != '>', "a bare >: %.20s", p);
}

// XML as far as charts go; also what every chart has, and has not.
static void check_svg(void) {
    const char *open[32];
    int depth = 0;
    for (const char *p = text; *p; p++) {
        if (*p != '<') {
            check_character(p);
            continue;
        }
        if (p[1] == '/') {
            size_t n = strcspn(p + 2, ">");
            check(depth > 0 && !strncmp(open[--depth], p + 2, n) && strchr(" >\n", open[depth][n]),
                  "%.20s closes another element", p);
            p += 2 + n;
        } else {
            check(depth < 32 && (depth > 0 || p == text), "too deep, or a second root");
            open[depth++] = p + 1;
            p = check_tag(p + 1);
            if (*p == '/') depth--, p++;
        }
    }
    check(depth == 0, "%d elements stay open", depth);
    check(!strncmp(text, "<svg xmlns='http://www.w3.org/2000/svg' class='chart' viewBox='0 ", 64),
          "begins with %.80s", text);
    check(strstr(text, " role='img'>\n<title>") && occurrences("<desc>") == 1,
          "nothing to read out");
    check(!strstr(text, "<desc></desc>"), "an empty description");
    check(!strstr(text, "<script") && !strstr(text, "url("), "it acts");
    size_t rest = mbstowcs(NULL, text, 0);
    check(rest != (size_t)-1, "no UTF-8");
}

// ---- Lines -------------------------------------------------------------------------------------

static void lines(const chart_line *line, int count, bool log_y) {
    chart_lines c = {{.title = "Loss"}, "step", "loss", log_y, false, line, count};
    DRAW(chart_write_lines(&c, out));
    check_svg();
}

// The numbers at the ticks of an axis: 'x' or 'y'.
static int ticks(char axis, double out[32]) {
    const char *class = axis == 'y' ? "'tick end'" : "'tick middle'";
    int count = 0;
    for (const char *p = text; (p = strstr(p, class)) && count < 32;) {
        char *end;
        p = strchr(p, '>') + 1;
        out[count] = strtod(p, &end);
        out[count++] *= *end == 'k' ? 1e3 : *end == 'M' ? 1e6 : 1;
        check(end > p, "tick %.20s", p);
    }
    return count;
}

static bool is_1_2_5(double v) {
    double mantissa = v / pow(10, floor(log10(v) + 1e-9));
    return fabs(mantissa - 1) < 1e-6 || fabs(mantissa - 2) < 1e-6 || fabs(mantissa - 5) < 1e-6;
}

static void linear_ticks_are_round(void **state) {
    (void)state;
    static const double ranges[][2] = {{0, 10},      {0.83, 0.99}, {-3, 7},          {1e-7, 3e-7},
                                       {5, 5},       {0, 0},       {52000, 53900},   {-2e6, -1e6},
                                       {1e20, 3e20}, {-0.1, 0.1},  {999.9, 1000.02}, {-7, -7}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        double x[] = {1, 2}, tick[32];
        lines(&(chart_line){.name = "a", .x = x, .y = ranges[i], .count = 2}, 1, false);
        int count = ticks('y', tick);
        check(count >= 3 && count <= 13, "%d ticks from %g to %g", count, ranges[i][0],
              ranges[i][1]);
        if (ranges[i][1] > 1e15 || ranges[i][0] == 999.9) continue; // more digits than are printed
        double step = tick[1] - tick[0];
        check(is_1_2_5(step), "steps of %g", step);
        for (int k = 1; k < count; k++)
            check(fabs(tick[k] - tick[k - 1] - step) < 1e-3 * step, "uneven: %g %g", tick[k - 1],
                  tick[k]);
        check(tick[0] <= ranges[i][0] + 1e-9 * step &&
                  tick[count - 1] >= ranges[i][1] - 1e-9 * step,
              "ticks from %g to %g for %g to %g", tick[0], tick[count - 1], ranges[i][0],
              ranges[i][1]);
    }
}

static void logarithmic_ticks_are_round(void **state) {
    (void)state;
    static const double ranges[][2] = {{0.03, 2.3}, {1e-9, 1e3}, {0.5, 0.5}, {1e-40, 1e40}, {3, 4}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        double x[] = {1, 2}, tick[32];
        lines(&(chart_line){.name = "a", .x = x, .y = ranges[i], .count = 2}, 1, true);
        int count = ticks('y', tick);
        check(count >= 2 && count <= 12, "%d ticks from %g to %g", count, ranges[i][0],
              ranges[i][1]);
        for (int k = 0; k < count; k++) check(is_1_2_5(tick[k]), "tick %g", tick[k]);
    }
}

static void epochs_are_whole_numbers(void **state) {
    (void)state;
    double x[] = {1, 2, 3}, y[] = {3, 2, 1}, tick[32];
    for (size_t count = 1; count <= 3; count++) {
        lines(&(chart_line){.name = "a", .x = x, .y = y, .count = count}, 1, false);
        int shown = ticks('x', tick);
        check(shown >= 1, "no tick of %zu epochs", count);
        for (int k = 0; k < shown; k++) check(tick[k] == floor(tick[k]), "epoch %g", tick[k]);
    }
}

// 100 000 points fit into 100 KB, and a single spike among them is still drawn.
static void many_points_stay_small(void **state) {
    (void)state;
    enum { COUNT = 100000, SPIKE = 54321 };
    double *x = allocate(COUNT * sizeof *x), *y = allocate(COUNT * sizeof *y);
    for (int i = 0; i < COUNT; i++) x[i] = i, y[i] = 1 + 0.5 * sin(i);
    y[SPIKE] = 100;
    chart_lines c = {{.title = "Loss", .alone = true},
                     "step",
                     "loss",
                     false,
                     false,
                     &(chart_line){.name = "training", .x = x, .y = y, .count = COUNT},
                     1};
    DRAW(chart_write_lines(&c, out));
    check(length < 100000, "%zu bytes", length);
    const char *path = strstr(text, "class='line");
    check(path, "no line");
    path = strstr(path, "d='M") + 3;
    int points = 0;
    double highest = 1e9;
    for (const char *p = path; *p != '\''; points++) {
        char *end;
        check(*p == 'M' || *p == 'L', "command %.20s", p);
        strtod(p + 1, &end);
        highest = fmin(highest, strtod(end, &end));
        p = end;
    }
    check(points > 500 && points <= 2000, "%d points", points);
    // The axis ends at 100, so the spike reaches its upper end.
    check(fabs(highest - attribute(strstr(text, "class='strip'"), " y='")) < 1,
          "the spike ends at %g", highest);

    chart_line ten[10];
    for (int i = 0; i < 10; i++)
        ten[i] = (chart_line){.name = "run", .colour = i, .x = x, .y = y, .count = COUNT};
    lines(ten, 10, false);
    check(length < 200000, "%zu bytes for ten lines", length);
    free(x), free(y);
}

// Under the pointer stands what was given, at the place of the point.
static void values_are_told(void **state) {
    (void)state;
    double x[] = {1, 2, 3}, train[] = {0.5, 0.25, 0.125}, val[] = {0.6, NAN, 0.203125};
    chart_line line[] = {{.name = "training", .x = x, .y = train, .count = 3},
                         {.name = "validation",
                          .colour = 1,
                          .dashed = true,
                          .dots = true,
                          .x = x,
                          .y = val,
                          .count = 3,
                          .best = 3}};
    lines(line, 2, false);
    check(occurrences("class='strip'") == 3, "%d strips", occurrences("class='strip'"));
    check(strstr(text, "<title>step 1\ntraining: 0.5\nvalidation: 0.6</title>") &&
              strstr(text, "<title>step 2\ntraining: 0.25</title>") &&
              strstr(text, "<title>step 3\ntraining: 0.125\nvalidation: 0.203125</title>"),
          "values under the pointer: %s", strstr(text, "class='strip'"));
    // The best mark and the third mark of the line are at the same place.
    char place[64];
    const char *best = strstr(text, "class='best c1'");
    check(best, "no best point");
    snprintf(place, sizeof place, "M%.1f %.1fm", attribute(best, " cx='"),
             attribute(best, " cy='"));
    check(strstr(text, place), "the best point is not at %s", place);
    check(strstr(text, "best 0.2031"), "the best value is not said");
    check(occurrences("dashed") > 0 && strstr(text, "mark c1 hollow"),
          "told apart by colour alone");
    check(strstr(text, "validation from 0.6 to 0.2031"), "not described: %s",
          strstr(text, "<desc>"));
    // Half the loss is half as high: on a linear axis that begins at 0.
    char *end;
    const char *path = strstr(strstr(text, "class='line c0"), "d='M") + 4;
    double height[3], zero = attribute(strstr(text, "class='strip'"), " y='") +
                             attribute(strstr(text, "class='strip'"), " height='");
    for (int i = 0; i < 3; i++) {
        strtod(path, &end);
        height[i] = zero - strtod(end, &end), path = end + 1;
    }
    check(fabs(height[1] / height[0] - 0.5) < 0.01 && fabs(height[2] / height[0] - 0.25) < 0.01,
          "heights %g %g %g", height[0], height[1], height[2]);
}

// ---- Empty and hostile -------------------------------------------------------------------------

static void draw_empty(int which, const chart_head *head, FILE *out) {
    double bad[] = {NAN, INFINITY, -INFINITY, NAN}, x[] = {1, 2, 3, 4};
    chart_line line = {.name = "a", .x = x, .y = bad, .count = 4, .best = 2};
    chart_area area = {.label = "a", .value = NAN};
    chart_point point = {.label = "a", .flops_per_byte = NAN, .gflops = 1};
    uint32_t zeros[4] = {0};
    switch (which) {
    case 0:
        chart_write_lines(&(chart_lines){.head = *head, .lines = &line, .count = 1}, out);
        break;
    case 1: chart_write_lines(&(chart_lines){.head = *head}, out); break;
    case 2: chart_write_bars(&(chart_bars){.head = *head}, out); break;
    case 3: chart_write_confusion(&(chart_confusion){.head = *head}, out); break;
    case 4:
        chart_write_confusion(&(chart_confusion){.head = *head, .classes = 2, .counts = zeros},
                              out);
        break;
    case 5: chart_write_images(&(chart_images){.head = *head, .width = 3, .height = 3}, out); break;
    case 6: chart_write_treemap(&(chart_treemap){.head = *head}, out); break;
    case 7:
        chart_write_treemap(&(chart_treemap){.head = *head, .areas = &area, .count = 1}, out);
        break;
    case 8:
        chart_write_roofline(
            &(chart_roofline){
                .head = *head, .peak_gflops = 1, .peak_gbytes_s = 1, .points = &point, .count = 1},
            out);
        break;
    }
}

static void without_data_a_chart_says_so(void **state) {
    (void)state;
    for (int i = 0; i < 9; i++) {
        DRAW(draw_empty(i, &(chart_head){.title = "Empty"}, out));
        check_svg();
        check(strstr(text, ">nothing to draw yet</text>"), "chart %d is silent", i);
        DRAW(draw_empty(i, &(chart_head){.title = "Empty", .empty = "no <b> run"}, out));
        check_svg();
        check(strstr(text, ">no &lt;b&gt; run</text>"), "chart %d says something else", i);
    }
}

static const double odd_numbers[] = {0,         -0.0,   1,    -1,        NAN,   INFINITY,
                                     -INFINITY, 1e-300, 1e99, -1e99,     1e300, -1e300,
                                     5e-324,    0.1,    1e15, 1e9 + 1e-7};
static const char *const odd_texts[] = {
    "",
    "plain",
    "<script>alert('1')</script>",
    "\"'&<>&amp;",
    "\x01\x02\x1b[31m\x7f",
    "cut \xe2\x82",
    "\xff\xfe\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80",
    "Zw\xc3\xb6lf \xf0\x9f\x90\x93 \xef\xbf\xbf",
    "a very long text that does not fit anywhere, and goes on and on and on, wherever it stands",
    "--><![CDATA[ ]]>",
};

static uint64_t seed = 1;

static size_t pick(size_t count) {
    return (size_t)test_random(&seed, 0, (double)count);
}

static double odd_number(void) {
    return pick(2) ? odd_numbers[pick(16)] : test_random(&seed, -2, 10);
}

static const char *odd_text(void) {
    return odd_texts[pick(10)];
}

static void draw_odd(size_t which, FILE *out) {
    enum { MOST = 12 };
    double x[MOST], y[MOST];
    float values[MOST];
    uint8_t grey[MOST] = {0};
    uint32_t counts[9];
    const char *names[MOST];
    chart_line line[MOST];
    chart_bar bar[MOST];
    chart_area area[MOST];
    chart_point point[MOST];
    chart_image image[MOST];
    int count = (int)pick(MOST + 1), sign = pick(2) ? -1 : 1;
    chart_head head = {odd_text(), odd_text(), pick(2), pick(2)};
    for (int i = 0; i < 9; i++) counts[i] = pick(2) ? 0 : (uint32_t)pick(4294967295u);
    for (int i = 0; i < MOST; i++) {
        int colour = (int)pick(20) - 1;
        x[i] = odd_number(), y[i] = odd_number(), values[i] = (float)odd_number();
        names[i] = odd_text();
        line[i] = (chart_line){odd_text(),     colour,   pick(2),
                               pick(2),        x,        y,
                               pick(MOST + 1), pick(14), pick(2) ? odd_text() : NULL};
        bar[i] = (chart_bar){odd_text(), odd_number(), pick(2) ? odd_text() : NULL, colour};
        area[i] = (chart_area){odd_text(), sign * odd_number(), NULL, colour};
        point[i] = (chart_point){odd_text(), odd_number(), odd_number(), odd_number(), colour};
        image[i] = (chart_image){
            .grey = pick(2) ? grey : NULL, .values = values, .caption = {odd_text(), odd_text()}};
    }
    switch (which) {
    case 0:
        chart_write_lines(
            &(chart_lines){head, odd_text(), odd_text(), pick(2), pick(2), line, count}, out);
        break;
    case 1: chart_write_bars(&(chart_bars){head, odd_number(), bar, count}, out); break;
    case 2:
        chart_write_confusion(&(chart_confusion){head, pick(2) ? names : NULL, 3, counts}, out);
        break;
    case 3:
        chart_write_images(
            &(chart_images){head, 3, 4, (int)pick(4), (int)pick(3), odd_number(), image, count},
            out);
        break;
    case 4: chart_write_treemap(&(chart_treemap){head, area, count}, out); break;
    case 5:
        chart_write_roofline(&(chart_roofline){head, odd_number(), odd_number(), point, count},
                             out);
        break;
    }
}

static void odd_input_gives_well_formed_charts(void **state) {
    (void)state;
    for (int i = 0; i < (quick() ? 1200 : 12000); i++) {
        DRAW(draw_odd((size_t)i % 6, out));
        // (A file of its own has CSS inside, which is not escaped and has no need to be.)
        char *style = strstr(text, "<style>"), *end = strstr(text, "</style>");
        if (style && end) memmove(style, end + 8, strlen(end + 8) + 1);
        check_svg();
    }
}

static void texts_are_escaped(void **state) {
    (void)state;
    DRAW(chart_text("a<b>&\"'\t\n\x01\x7f\xff\xc3\xa4\xed\xa0\x80", out));
    check(!strcmp(text, "a&lt;b&gt;&amp;&quot;&#39;\t\n\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xc3\xa4"
                        "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"),
          "%s", text);
    static const struct {
        double value;
        const char *text;
    } numbers[] = {{0, "0"},           {-0.0, "0"},      {0.012346, "0.01235"}, {999.9, "999.9"},
                   {1234.5, "1.234k"}, {-52000, "-52k"}, {999999, "1M"},        {2.5e12, "2.5T"},
                   {NAN, "-"},         {INFINITY, "-"},  {1e-7, "1e-07"}};
    char out[24];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        check(!strcmp(chart_number(numbers[i].value, out), numbers[i].text), "%g is %s, not %s",
              numbers[i].value, chart_number(numbers[i].value, out), numbers[i].text);
}

// ---- Areas -------------------------------------------------------------------------------------

static void bars_are_as_long_as_their_values(void **state) {
    (void)state;
    chart_bar bar[] = {{"a", 0.5, NULL, 0},
                       {"b", 0.25, "a quarter", 1},
                       {"c", -1, NULL, 2},
                       {"d", NAN, NULL, CHART_GREY}};
    DRAW(chart_write_bars(&(chart_bars){{.title = "Bars"}, 0, bar, 4}, out));
    check_svg();
    double a = attribute(strstr(text, "'fill c0'"), " width='");
    double b = attribute(strstr(text, "'fill c1'"), " width='");
    check(a > 100 && fabs(b - a / 2) < 0.11, "widths %g and %g", a, b);
    check(attribute(strstr(text, "'fill c2'"), " width='") == 0, "a negative bar");
    check(strstr(text, "a quarter</text>") && strstr(text, "<title>a: 0.5</title>"), "no values");
    DRAW(chart_write_bars(&(chart_bars){{.title = "Bars"}, 1, bar, 2}, out));
    double half = attribute(strstr(text, "'fill c0'"), " width='");
    check(half < 0.6 * a, "0.5 of 1 is as wide as the largest: %g", half);
}

static void treemap_areas_sum_to_the_whole(void **state) {
    (void)state;
    enum { COUNT = 40 };
    chart_area area[COUNT];
    uint64_t random = 7;
    double total = 0, whole = 0, rect[COUNT][4];
    for (int i = 0; i < COUNT; i++) {
        area[i] = (chart_area){"op", pow(10, test_random(&random, -4, 2)), NULL, i};
        if (i == 5) area[i].value = -3;
        if (i == 6) area[i].value = NAN;
        if (area[i].value > 0) total += area[i].value;
    }
    DRAW(chart_write_treemap(&(chart_treemap){{.title = "Time"}, area, COUNT}, out));
    check_svg();
    check(occurrences("class='tile") == COUNT - 2, "%d areas", occurrences("class='tile"));
    int count = 0;
    double least = 1e9, most = 0, left = 1e9, right = 0, top = 1e9, bottom = 0, worst = 0;
    for (const char *p = text; (p = strstr(p, "class='tile")); p++, count++) {
        double *r = rect[count];
        r[0] = attribute(p, " x='"), r[1] = attribute(p, " y='");
        r[2] = attribute(p, " width='"), r[3] = attribute(p, " height='");
        whole += r[2] * r[3];
        left = fmin(left, r[0]), right = fmax(right, r[0] + r[2]);
        top = fmin(top, r[1]), bottom = fmax(bottom, r[1] + r[3]);
        least = fmin(least, r[2] * r[3]), most = fmax(most, r[2] * r[3]);
        if (r[2] * r[3] > 100) worst = fmax(worst, fmax(r[2] / r[3], r[3] / r[2]));
        for (int i = 0; i < count; i++)
            check(fmin(r[0] + r[2], rect[i][0] + rect[i][2]) - fmax(r[0], rect[i][0]) < 0.02 ||
                      fmin(r[1] + r[3], rect[i][1] + rect[i][3]) - fmax(r[1], rect[i][1]) < 0.02,
                  "areas %d and %d overlap", i, count);
    }
    double plot = (right - left) * (bottom - top), percent = 100 * whole / plot;
    check(fabs(percent - 100) < 0.1, "the areas are %g %% of the whole", percent);
    // Largest first: its share of the picture is its share of the values.
    double largest = 0;
    for (int i = 0; i < COUNT; i++)
        if (i != 6) largest = fmax(largest, area[i].value);
    check(fabs(rect[0][2] * rect[0][3] / plot - largest / total) < 1e-3, "the largest has %g of %g",
          rect[0][2] * rect[0][3] / plot, largest / total);
    check(worst < 5, "a strip of 1 : %g", worst);
}

static void confusion_tells_counts_and_shares(void **state) {
    (void)state;
    static const char *const names[] = {"cat", "dog <&>", "T-shirt/top"};
    const uint32_t counts[] = {90, 10, 0, 5, 195, 0, 1, 0, 399};
    DRAW(chart_write_confusion(&(chart_confusion){{.title = "Confusion"}, names, 3, counts}, out));
    check_svg();
    check(strstr(text, "<title>true cat, predicted dog &lt;&amp;&gt;: 10 (10 % of 100)</title>") &&
              strstr(text, "<title>true T-shirt/top, predicted cat: 1 (0.25 % of 400)</title>"),
          "cells: %s", text);
    check(strstr(text, "684 of 700 are right. The most frequent error is cat taken for dog"),
          "described as %s", strstr(text, "<desc>"));
    check(occurrences("<g><title>true ") == 6, "%d cells", occurrences("<g><title>true "));
    // The same count is a larger share of a smaller row, and looks it.
    double ten = attribute(strstr(text, ": 10 (10"), "fill-opacity='");
    double five = attribute(strstr(text, ": 5 (2.5"), "fill-opacity='");
    double one = attribute(strstr(text, ": 1 (0.25"), "fill-opacity='");
    check(ten > five && five > one && one > 0.05, "shades %g %g %g", ten, five, one);
    enum { MANY = 100 };
    uint32_t *large = allocate(MANY * MANY * sizeof *large);
    for (int i = 0; i < MANY; i++) large[i * MANY + i] = 7;
    DRAW(chart_write_confusion(&(chart_confusion){{.title = "Confusion"}, NULL, MANY, large}, out));
    check_svg();
    check(length < 60000, "%zu bytes for %d classes", length, MANY);
    free(large);
}

static void operators_stand_below_the_roof(void **state) {
    (void)state;
    chart_point point[] = {
        {"matmul", 20, 50, 0.7, 0}, {"relu", 0.125, 1.25, 0.2, 1}, {"copy", 0, 0, 0.1, 2}};
    chart_roofline c = {{.title = "Roofline"}, 100, 20, point, 3};
    DRAW(chart_write_roofline(&c, out));
    check_svg();
    check(strstr(text, "matmul: 50 GFLOP/s at 20 flop/byte, 50 % of the roof, 70 % of the time") &&
              strstr(text, "relu: 1.25 GFLOP/s at 0.125 flop/byte, 50 % of the roof"),
          "%s", text);
    check(occurrences("<g><title>") == 2, "%d points", occurrences("<g><title>"));
    check(occurrences("class='line roof'") == 1, "no roof");
    check(strstr(text, ">matmul</text>") && strstr(text, ">relu</text>"), "no labels");
    double tick[32];
    for (int i = 0, count = ticks('y', tick); i < count; i++)
        check(is_1_2_5(tick[i]), "tick %g", tick[i]);
    c.peak_gflops = 0;
    DRAW(chart_write_roofline(&c, out));
    check_svg();
    check(!strstr(text, "roof'") && !strstr(text, "% of the roof"), "a roof that nobody knows");
}

// ---- Images ------------------------------------------------------------------------------------

static uint8_t digit_of(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    check(at, "no digit of base64: %c", c);
    return (uint8_t)(at - digits);
}

// The pixels of the data URI number `index`, as RGB.
static uint8_t *pixels_of(int index, uint32_t width, uint32_t height) {
    const char *p = text;
    for (int i = 0; i <= index; i++) {
        p = strstr(p, "data:image/png;base64,");
        check(p, "no image %d", i);
        p += 22;
    }
    size_t digits = strcspn(p, "'="), count = 0;
    uint8_t *file = allocate(digits);
    for (size_t i = 0; i < digits; i++) {
        uint8_t d = digit_of(p[i]);
        if (i % 4 == 0) file[count] = (uint8_t)(d << 2);
        if (i % 4 == 1) file[count++] |= d >> 4, file[count] = (uint8_t)(d << 4);
        if (i % 4 == 2) file[count++] |= d >> 2, file[count] = (uint8_t)(d << 6);
        if (i % 4 == 3) file[count++] |= d;
    }
    png_image image = {.version = PNG_IMAGE_VERSION};
    check(png_image_begin_read_from_memory(&image, file, count), "no PNG: %s", image.message);
    check(image.width == width && image.height == height, "%u x %u", image.width, image.height);
    image.format = PNG_FORMAT_RGB;
    uint8_t *pixels = allocate(PNG_IMAGE_SIZE(image));
    check(png_image_finish_read(&image, NULL, pixels, 0, NULL), "%s", image.message);
    free(file);
    return pixels;
}

static void images_keep_their_pixels(void **state) {
    (void)state;
    uint8_t grey[2][35];
    for (int i = 0; i < 70; i++) grey[i / 35][i % 35] = (uint8_t)(i * 37);
    chart_image image[] = {{.grey = grey[0], .caption = {"true 4", "predicted <9>"}},
                           {.grey = grey[1], .title = "second"}};
    DRAW(chart_write_images(&(chart_images){{.title = "Images"}, 5, 7, 0, 0, 0, image, 2}, out));
    check_svg();
    check(strstr(text, "<title>true 4, predicted &lt;9&gt;</title>") && strstr(text, ">second<"),
          "captions");
    for (int k = 0; k < 2; k++) {
        uint8_t *pixels = pixels_of(k, 7, 5);
        for (int i = 0; i < 35; i++)
            check(pixels[3 * i] == grey[k][i] && pixels[3 * i + 2] == grey[k][i],
                  "pixel %d of image %d is %d, not %d", i, k, pixels[3 * i], grey[k][i]);
        free(pixels);
    }
    check(!strstr(text, "width='160'"), "a scale of colours for grey images");
}

static void values_are_blue_white_orange(void **state) {
    (void)state;
    float values[] = {-0.5f, -0.25f, 0, 0.25f, 0.5f, NAN};
    chart_image image = {.values = values};
    DRAW(chart_write_images(&(chart_images){{.title = "Filters"}, 1, 6, 0, 0, 0, &image, 1}, out));
    check_svg();
    uint8_t *p = pixels_of(0, 6, 1);
    check(p[2] > p[0] + 100 && p[5] > p[3] && p[3] > p[0], "negative: %d %d %d", p[0], p[1], p[2]);
    check(p[6] == 255 && p[7] == 255 && p[8] == 255, "zero: %d %d %d", p[6], p[7], p[8]);
    check(p[12] > p[14] + 100 && p[9] > p[11] && p[11] > p[14], "positive: %d %d %d", p[12], p[13],
          p[14]);
    check(p[15] == 255 && p[16] == 255, "not a number: %d %d", p[15], p[16]);
    check(strstr(text, ">-0.5<") && strstr(text, ">0.5<"), "the colours are not explained");
    free(p);
}

// ---- Colours -----------------------------------------------------------------------------------

static double channel(const char *hex, int digits) {
    char part[3] = {hex[0], digits == 2 ? hex[1] : hex[0], 0};
    double v = (double)strtol(part, NULL, 16) / 255;
    return v <= 0.04045 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4);
}

// The luminance of a property in the part of the sheet that begins with `from` (WCAG 2).
static double luminance(const char *from, const char *name) {
    char property[32];
    snprintf(property, sizeof property, "--%s: #", name);
    const char *p = strstr(from, property), *end = strchr(from, '}');
    check(p && p < end, "no colour %s", name);
    p += strlen(property);
    int digits = strspn(p, "0123456789abcdef") == 6 ? 2 : 1;
    return 0.2126 * channel(p, digits) + 0.7152 * channel(p + digits, digits) +
           0.0722 * channel(p + 2 * digits, digits);
}

static void both_schemes_can_be_read(void **state) {
    (void)state;
    const char *sheet = asset_text("chart.css"), *light = strstr(sheet, ":root");
    const char *dark = strstr(sheet, "@media screen and (prefers-color-scheme: dark)");
    check(light && dark && light < dark, "no two schemes");
    const struct {
        const char *name;
        double contrast;
    } colours[] = {{"c0", 3},      {"c1", 3},     {"c2", 3},   {"c3", 3},   {"c4", 3},
                   {"c5", 3},      {"c6", 3},     {"c7", 3},   {"grey", 3}, {"ink", 7},
                   {"muted", 4.5}, {"good", 4.5}, {"bad", 4.5}};
    for (int scheme = 0; scheme < 2; scheme++) {
        const char *from = strstr(scheme ? dark : light, ":root");
        double ground = luminance(from, "ground");
        check(scheme ? ground < 0.05 : ground == 1, "ground %g", ground);
        for (size_t i = 0; i < sizeof colours / sizeof colours[0]; i++) {
            double v = luminance(from, colours[i].name);
            double contrast = (fmax(v, ground) + 0.05) / (fmin(v, ground) + 0.05);
            check(contrast >= colours[i].contrast, "%s has a contrast of %.2f on %s",
                  colours[i].name, contrast, scheme ? "dark" : "light");
        }
    }
    chart_bars c = {{.title = "Bars", .alone = true}, 0, &(chart_bar){"a", 1, NULL, 0}, 1};
    DRAW(chart_write_bars(&c, out));
    check(strstr(text, "<style>") && strstr(text, "prefers-color-scheme"), "no style of its own");
    check(!strpbrk(sheet, "<&"), "the sheet cannot stand in SVG as it is");
    c.head.alone = false;
    DRAW(chart_write_bars(&c, out));
    check(!strstr(text, "<style>") && strstr(text, "class='title'"), "no style, but a title");
    c.head.heading = true;
    DRAW(chart_write_bars(&c, out));
    check_svg();
    check(!strstr(text, "class='title'") && strstr(text, "<title>Bars</title>"), "a drawn title");
}

int main(void) {
    if (!setlocale(LC_CTYPE, "C.UTF-8")) setlocale(LC_CTYPE, "en_US.UTF-8"); // macOS
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_ticks_are_round),
        cmocka_unit_test(logarithmic_ticks_are_round),
        cmocka_unit_test(epochs_are_whole_numbers),
        cmocka_unit_test(many_points_stay_small),
        cmocka_unit_test(values_are_told),
        cmocka_unit_test(without_data_a_chart_says_so),
        cmocka_unit_test(odd_input_gives_well_formed_charts),
        cmocka_unit_test(texts_are_escaped),
        cmocka_unit_test(bars_are_as_long_as_their_values),
        cmocka_unit_test(treemap_areas_sum_to_the_whole),
        cmocka_unit_test(confusion_tells_counts_and_shares),
        cmocka_unit_test(operators_stand_below_the_roof),
        cmocka_unit_test(images_keep_their_pixels),
        cmocka_unit_test(values_are_blue_white_orange),
        cmocka_unit_test(both_schemes_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, release);
}
