// The directory of one run: run.json, metrics_train.csv, op_timings.csv and the charts. The library
// adds a folder of checkpoints.
#ifndef CLI_RUNDIR_H
#define CLI_RUNDIR_H

#include "chart.h"
#include "cli.h"
#include "table.h"

typedef struct rundir {
    char path[PATH_BYTES];
    FILE *metrics, *loss_log;
    bool exact;     // losses with 17 digits
    json_t *record; // of run.json
    series losses[2], rates[1];
    double rate_seconds; // when the last point of `rates` ended
} rundir;

// The directory that a checkpoint of a run lies in ("<run>/checkpoints/x.safetensors"); false if
// it lies elsewhere.
bool rundir_of(const char *checkpoint, char out[PATH_BYTES]);

// Makes a new directory: `out`, or results/<date>-<model> when it is NULL.
int rundir_make(rundir *r, const char *out, const char *model);
// Removes it again if nothing was written.
void rundir_discard(const rundir *r);
// Opens the CSV files. Rows after `step` are cut off; the remaining ones go into the charts.
int rundir_begin(rundir *r, const char *loss_log, bool exact, uint32_t step);
// Writes run.json from r->record; the second prints nothing when it cannot.
int rundir_save(const rundir *r);
bool rundir_try_save(const rundir *r);
// Takes over what the trainer reports; 0, or the errno of a file that cannot be written. Prints
// nothing, because a progress bar may stand on the line.
int rundir_progress(rundir *r, const bt_progress *now, int batch);
int rundir_timings(const rundir *r, const json_t *profile_rows);
int rundir_charts(const rundir *r);
void rundir_close(rundir *r);

#endif
