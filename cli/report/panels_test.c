// The panels of what a trained network makes of its test set, and of what is in its layers.
#include "chart.h"
#include "panels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Calls `write` for each run that has an analysis; for others it says why there is none.
static void each(FILE *out, const run *runs, int count,
                 void (*write)(FILE *out, const analysis *a)) {
    for (int i = 0; i < count; i++) {
        const run *r = &runs[i];
        write_run_name(out, r, count);
        if (r->analysis)
            write(out, r->analysis);
        else
            write_note(out, "%s%s", r->no_analysis,
                       run_is_running(r) ? ""
                                         : " `bantam report` of this run tries it, where the "
                                           "data set is.");
    }
}

// ---- Classes -----------------------------------------------------------------------------------

static void write_confusion(FILE *out, const analysis *a) {
    write_note(out,
               "%s after step %u: %d of the %d test images of %s are right, %.2f \u00b1 %.2f %%; "
               "loss %.4f.",
               a->checkpoint, a->step, a->correct, a->count, a->data, 100 * a->accuracy,
               100 * a->standard_error, a->loss);
    chart_write_confusion(&(chart_confusion){.head = {.title = "Confusion matrix", .heading = true},
                                             .classes = a->classes,
                                             .counts = a->confusion},
                          out);
}

void panel_confusion(FILE *out, const run *runs, int count) {
    each(out, runs, count, write_confusion);
}

static void write_class(FILE *out, const char *name, double count, double precision, double recall,
                        double f1) {
    fprintf(out, "<tr><th scope=\"row\">%s</th>", name);
    write_figure(out, "%.0f", count);
    write_figure(out, "%.4f", precision);
    write_figure(out, "%.4f", recall);
    write_figure(out, "%.4f", f1);
    fputs("</tr>\n", out);
}

static void write_classes(FILE *out, const analysis *a) {
    static const char *const headings[] = {"Class",   "#Images", "#Precision",
                                           "#Recall", "#F1",     NULL};
    double all = 0, precisions = 0, recalls = 0, scores = 0;
    write_table(out, "Precision, recall and F1 of each class", headings);
    for (int c = 0; c < a->classes; c++) {
        char name[16];
        class_scores s = scores_of_class(a->confusion, a->classes, c);
        snprintf(name, sizeof name, "%d", c);
        write_class(out, name, s.count, s.precision, s.recall, s.f1);
        all += s.count, precisions += s.precision, recalls += s.recall, scores += s.f1;
    }
    fputs("</tbody><tfoot>", out);
    write_class(out, "All, mean", all, precisions / a->classes, recalls / a->classes,
                scores / a->classes);
    fputs("</tfoot></table></div>\n", out);
}

void panel_classes(FILE *out, const run *runs, int count) {
    each(out, runs, count, write_classes);
}

// ---- Mistakes ----------------------------------------------------------------------------------

static void write_mistakes(FILE *out, const analysis *a) {
    chart_image images[MISTAKES_MAX];
    char texts[MISTAKES_MAX][4][64];
    int wrong = a->count - a->correct;
    for (int i = 0; i < a->mistake_count; i++) {
        const mistake *m = &a->mistakes[i];
        snprintf(texts[i][0], sizeof texts[i][0], "%d \u2192 %d", m->label, m->predicted);
        snprintf(texts[i][1], sizeof texts[i][1], "%d: %.2g %%", m->label, 100 * m->p_label);
        snprintf(texts[i][2], sizeof texts[i][2], "%d: %.1f %%", m->predicted,
                 100 * m->p_predicted);
        snprintf(texts[i][3], sizeof texts[i][3], "Test image %d", m->index);
        images[i] = (chart_image){.grey = m->grey,
                                  .caption = {texts[i][0], texts[i][1], texts[i][2]},
                                  .title = texts[i][3]};
    }
    if (a->mistake_count)
        write_note(out, "The %d of %d misclassified whose true class got the least probability.",
                   a->mistake_count, wrong);
    chart_write_images(&(chart_images){.head = {.title = "Misclassified test images",
                                                .heading = true,
                                                .empty = "all test images are right"},
                                       .height = a->height,
                                       .width = a->width,
                                       .columns = 5,
                                       .scale = a->width <= 28 ? 4 : 0,
                                       .images = images,
                                       .count = a->mistake_count},
                       out);
}

void panel_mistakes(FILE *out, const run *runs, int count) {
    each(out, runs, count, write_mistakes);
}

// ---- Layers ------------------------------------------------------------------------------------

static void draw_filters(FILE *out, const analysis *a, const float *values) {
    chart_image images[FILTERS_MAX];
    char names[FILTERS_MAX][16];
    size_t pixels = (size_t)a->filter_height * (size_t)a->filter_width;
    for (int i = 0; i < a->filter_count; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        images[i] = (chart_image){.values = values + (size_t)i * pixels, .caption = {names[i]}};
    }
    chart_write_images(
        &(chart_images){.head = {.title = "Weights of the first layer", .heading = true},
                        .height = a->filter_height,
                        .width = a->filter_width,
                        .columns = 8,
                        .scale = 72 / a->filter_width,
                        .full = a->filter_full,
                        .images = images,
                        .count = a->filter_count},
        out);
}

static void write_filters(FILE *out, const analysis *a) {
    if (!*a->filter_name) {
        write_note(out, "The first layer with weights does not see whole images, so its weights "
                        "are no pictures.");
        return;
    }
    size_t numbers = (size_t)a->filter_count * (size_t)a->filter_height * (size_t)a->filter_width;
    float *values = calloc(numbers, sizeof *values);
    for (size_t i = 0; values && i < numbers; i++)
        values[i] = (float)(a->filter_full * (a->filters[i] - 128) / 127);
    write_note(out, "%s: %d of %d, each %d x %d; full colour is %.3g.", a->filter_name,
               a->filter_count, a->filter_all, a->filter_height, a->filter_width, a->filter_full);
    if (values) draw_filters(out, a, values);
    free(values);
}

void panel_filters(FILE *out, const run *runs, int count) {
    each(out, runs, count, write_filters);
}

static void write_norms(FILE *out, const analysis *a) {
    chart_bar weights[LAYERS_MAX], gradients[LAYERS_MAX];
    int count = 0;
    for (int i = 0; i < a->layer_count; i++) {
        const bt_layer_stats *l = &a->layers[i];
        if (!isfinite(l->weight_norm)) continue;
        weights[count] = (chart_bar){l->name, l->weight_norm, NULL, 0};
        gradients[count++] = (chart_bar){l->name, l->gradient_norm, NULL, 1};
    }
    fputs("<div class=\"grid\">\n", out);
    chart_write_bars(
        &(chart_bars){.head = {.title = "Norm of weights"}, .bars = weights, .count = count}, out);
    chart_write_bars(
        &(chart_bars){.head = {.title = "Norm of gradients"}, .bars = gradients, .count = count},
        out);
    fputs("</div>\n", out);
}

static void write_layers(FILE *out, const analysis *a) {
    static const char *const headings[] = {"Layer",
                                           "#Units",
                                           "#Weight norm",
                                           "#Gradient norm",
                                           "#Gradient / weight",
                                           "#Activation mean",
                                           "#Activation deviation",
                                           "#Dead units",
                                           NULL};
    write_norms(out, a);
    write_table(out, "What each layer does with test images", headings);
    for (int i = 0; i < a->layer_count; i++) {
        const bt_layer_stats *l = &a->layers[i];
        fputs("<tr><th scope=\"row\"><code>", out);
        chart_text(l->name, out);
        fputs("</code></th>", out);
        write_figure(out, "%.0f", l->units);
        write_figure(out, "%.4g", l->weight_norm);
        write_figure(out, "%.3g", l->gradient_norm);
        write_figure(out, "%.2g", l->weight_norm > 0 ? l->gradient_norm / l->weight_norm : NAN);
        write_figure(out, "%.4g", l->activation_mean);
        write_figure(out, "%.4g", l->activation_deviation);
        write_figure(out, "%.1f %%", 100 * l->dead);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    write_note(out, "Gradients are of the mean loss over test images, after training. A dead unit "
                    "passes no gradient for any of them.");
}

void panel_layers(FILE *out, const run *runs, int count) {
    each(out, runs, count, write_layers);
}
