// Progress of a training on stderr: on a terminal one bar that is redrawn and a line per epoch,
// elsewhere plain lines, one per epoch and one per half a minute; nothing with --quiet.
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "bantam.h"

typedef struct progress {
    enum { SILENT, LINES, BAR } mode;
    bool colour, bar_shown;
    int epochs;
    double drawn, started; // clock readings
    uint32_t first_step;   // where this process began
} progress;

void progress_open(progress *p, bool quiet, int epochs);
void progress_show(progress *p, const bt_progress *now);
// Takes the bar away, so that other text may follow.
void progress_clear(progress *p);

#endif
