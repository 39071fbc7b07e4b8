// The directory of one run while it is written: run.json, metrics_train.csv (a row for each epoch),
// metrics_steps.csv (at most 500 rows of each training, for curves), op_timings.csv. The library
// adds a folder of checkpoints, report/ the page and the charts.
#ifndef CLI_RUNDIR_H
#define CLI_RUNDIR_H

#include "cli.h"
#include "table.h"

// Steps that become one row of metrics_steps.csv.
typedef struct rundir_steps {
    double loss, correct, rows; // sums
    double since, end;          // when they began and ended
    double lr;                  // of the last of them
    uint32_t step;
} rundir_steps;

typedef struct rundir {
    char path[PATH_BYTES];
    int lock; // of the directory; 0: none
    FILE *metrics, *steps, *loss_log;
    bool exact;                // losses with 17 digits
    json_t *record;            // of run.json
    const bt_train_desc *desc; // borrowed
    int samples;               // of an epoch
    double seconds;            // at the last report
    rundir_steps sum;
} rundir;

// The directory that a checkpoint of a run lies in ("<run>/checkpoints/x.safetensors"); false if
// it lies elsewhere.
bool rundir_of(const char *checkpoint, char out[PATH_BYTES]);

// Makes a new directory: `out`, or results/<date>-<model> when it is NULL.
int rundir_make(rundir *r, const char *out, const char *model);
// Nobody else may train into it until rundir_close or the end of the process.
int rundir_lock(rundir *r);
// Removes it again if nothing was written.
void rundir_discard(const rundir *r);
// Opens the CSV files. Rows after `step` are cut off.
int rundir_begin(rundir *r, const char *loss_log, bool exact, const bt_train_desc *desc,
                 uint32_t step);
// Writes run.json from r->record; the second prints nothing when it cannot.
int rundir_save(const rundir *r);
bool rundir_try_save(const rundir *r);
// Takes over what the trainer reports; 0, or the errno of a file that cannot be written. Prints
// nothing, because a progress bar may stand on the line.
int rundir_progress(rundir *r, const bt_progress *now);
// The training has ended: the steps that wait for a row of metrics_steps.csv get one.
void rundir_end(rundir *r);
int rundir_timings(const rundir *r, const json_t *profile_rows);
void rundir_close(rundir *r);

#endif
