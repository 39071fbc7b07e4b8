// The page of `bantam report` and `bantam serve`; see page.h. Plain HTML with the style inside: it
// needs neither scripts nor a network.
#include "asset.h"
#include "chart.h"
#include "panels.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

enum { ALWAYS = 1, OVERLAID = 2, NEVER = 1000 };

const panel panels[] = {
    {"summary", "Summary", panel_summary, ALWAYS},
    {"findings", "Training doctor", panel_findings, ALWAYS},
    {"loss", "Loss", panel_loss, NEVER},
    {"accuracy", "Accuracy", panel_accuracy, NEVER},
    {"rate", "Speed", panel_rate, NEVER},
    {"lr", "Learning rate", panel_lr, NEVER},
    {"confusion", "Confusion matrix", panel_confusion, NEVER},
    {"classes", "Scores of each class", panel_classes, NEVER},
    {"mistakes", "Worst mistakes", panel_mistakes, NEVER},
    {"filters", "Weights of the first layer", panel_filters, NEVER},
    {"layers", "Layers", panel_layers, ALWAYS},
    {"operators", "Time per operator", panel_operators, ALWAYS},
    {"roofline", "Roofline", panel_roofline, NEVER},
    {"settings", "Settings", panel_settings, OVERLAID},
    {NULL, NULL, NULL, 0},
};

// ---- Parts of panels ---------------------------------------------------------------------------

void write_note(FILE *out, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    bool code = false;
    fputs("<p class=\"note\">", out);
    for (char *part = text, *next; part; part = next, code = !code) {
        next = strchr(part, '`');
        if (next) *next++ = 0;
        if (code) fputs("<code>", out);
        chart_text(part, out);
        if (code) fputs("</code>", out);
    }
    fputs("</p>\n", out);
}

void write_cell(FILE *out, const char *text, bool figure) {
    fputs(figure ? "<td class=\"number\">" : "<td>", out);
    chart_text(text, out);
    fputs("</td>", out);
}

void write_figure(FILE *out, const char *format, double value) {
    char text[64] = "-";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (isfinite(value)) snprintf(text, sizeof text, format, value);
#pragma GCC diagnostic pop
    write_cell(out, text, true);
}

void write_table(FILE *out, const char *caption, const char *const *headings) {
    fputs("<div class=\"scroll\"><table><caption>", out);
    chart_text(caption, out);
    fputs("</caption>\n<thead><tr>", out);
    for (; *headings; headings++) {
        bool figure = **headings == '#';
        fputs(figure ? "<th scope=\"col\" class=\"number\">" : "<th scope=\"col\">", out);
        chart_text(*headings + figure, out);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
}

void write_run_name(FILE *out, const run *r, int count) {
    if (count < 2) return;
    fputs("<h3>", out);
    chart_text(r->name, out);
    fputs("</h3>\n", out);
}

// ---- The page ----------------------------------------------------------------------------------

void panel_write(const panel *p, FILE *out, const run *runs, int count) {
    fprintf(out,
            "<section id=\"panel-%s\"%s aria-labelledby=\"title-%s\">\n<h2 "
            "id=\"title-%s\">%s</h2>\n",
            p->name, count >= p->wide_from ? " class=\"wide\"" : "", p->name, p->name, p->title);
    p->write(out, runs, count);
    fputs("</section>\n", out);
}

static void write_title(FILE *out, const run *runs, int count) {
    if (count > 1)
        fprintf(out, "%d runs", count);
    else
        chart_text(runs[0].name, out);
}

static void write_contents(FILE *out) {
    fputs("<nav aria-label=\"Panels\"><ul>\n", out);
    for (const panel *p = panels; p->name; p++)
        fprintf(out, "<li><a href=\"#panel-%s\">%s</a></li>\n", p->name, p->title);
    fputs("</ul></nav>\n", out);
}

void page_write(FILE *out, const run *runs, int count, const char *head, const char *before) {
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          out);
    write_title(out, runs, count);
    fprintf(out, " - Bantam</title>\n<style>\n%s%s</style>\n%s</head>\n<body>\n<header><h1>",
            asset_text("chart.css"), asset_text("page.css"), head ? head : "");
    write_title(out, runs, count);
    fputs("</h1>\n", out);
    write_contents(out);
    fprintf(out, "</header>\n<main>\n%s", before ? before : "");
    for (const panel *p = panels; p->name; p++) panel_write(p, out, runs, count);
    fputs("</main>\n<footer><p>Written by Bantam " BT_VERSION_TEXT ".</p></footer>\n"
          "</body>\n</html>\n",
          out);
}
