// What the panels of the page share. A panel writes what follows its heading.
#ifndef CLI_REPORT_PANELS_H
#define CLI_REPORT_PANELS_H

#include "page.h"

// What a run did, by its files.
void panel_summary(FILE *out, const run *runs, int count);
void panel_findings(FILE *out, const run *runs, int count);
void panel_settings(FILE *out, const run *runs, int count);

// How it learned, over its steps.
void panel_loss(FILE *out, const run *runs, int count);
void panel_accuracy(FILE *out, const run *runs, int count);
void panel_rate(FILE *out, const run *runs, int count);
void panel_lr(FILE *out, const run *runs, int count);

// Where the time of a profiled run went.
void panel_operators(FILE *out, const run *runs, int count);
void panel_roofline(FILE *out, const run *runs, int count);

// What the trained network makes of its test set.
void panel_confusion(FILE *out, const run *runs, int count);
void panel_classes(FILE *out, const run *runs, int count);
void panel_mistakes(FILE *out, const run *runs, int count);
void panel_filters(FILE *out, const run *runs, int count);
void panel_layers(FILE *out, const run *runs, int count);

// <p class="note">: a sentence, whose text is escaped; `commands` become <code>.
void write_note(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
// <td>, with the class "number" for figures.
void write_cell(FILE *out, const char *text, bool figure);
void write_figure(FILE *out, const char *format, double value); // "-" for what is not finite
// Begins a table: caption, and a row of headings that ends with NULL; a leading '#' is left out and
// means a column of figures.
void write_table(FILE *out, const char *caption, const char *const *headings);
// With several runs, the name of the one that comes.
void write_run_name(FILE *out, const run *r, int count);

#endif
