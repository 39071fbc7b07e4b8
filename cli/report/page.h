// The page of one run or several: `bantam report` writes it to a file, `bantam serve` sends it and
// then its panels again as they change.
#ifndef CLI_REPORT_PAGE_H
#define CLI_REPORT_PAGE_H

#include "run.h"

// Writes <section id="panel-NAME">, always: where there is nothing to show it says what is missing
// and how to get it.
typedef struct panel {
    const char *name;  // "loss"
    const char *title; // "Loss"
    void (*write)(FILE *out, const run *runs, int count);
    int wide_from; // this many runs: it takes the whole width
} panel;

extern const panel panels[]; // the last has no name

void panel_write(const panel *p, FILE *out, const run *runs, int count);

// A whole page. `head` goes to the end of <head> and `before` to the beginning of <main>; both are
// HTML or NULL.
void page_write(FILE *out, const run *runs, int count, const char *head, const char *before);

#endif
