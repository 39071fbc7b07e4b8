// A run directory as the report and the live page read it. A run that was not finished, is being
// written, was profiled or not, or comes from another version: whatever can be read is read, and
// what is missing stays empty. Nothing here prints.
#ifndef CLI_REPORT_RUN_H
#define CLI_REPORT_RUN_H

#include "analysis.h"
#include "cli.h"
#include "csv.h"

typedef struct run {
    char path[PATH_BYTES];
    char name[128];        // the last part of the path
    json_t *record;        // of run.json; an object
    csv metrics, steps;    // metrics_train.csv (epochs) and metrics_steps.csv (finer)
    csv timings;           // op_timings.csv
    analysis *analysis;    // NULL: none was kept or made
    char no_analysis[512]; // and why not
} run;

// Takes over what is in the directory, a kept analysis too if it belongs to the checkpoint. BT_OK,
// or BT_ERROR_DATA and a sentence: not a run directory.
bt_status run_read(run *out, const char *path, char why[512]);
// Makes and keeps the analysis where there is none: of the checkpoint (last, else best) with the
// test set, on the CPU, in a context of its own. Takes as long as `bantam eval`. data_dir: where
// data sets are; NULL: where the run had them. threads 0: one per core.
void run_analyse(run *r, const char *data_dir, int threads);
void run_free(run *r);

// The run in `folder` that was changed last; false: there is none.
bool run_newest(const char *folder, char out[PATH_BYTES]);

// A member of run.json by its path, "device.name"; NULL, "" and NaN where it is not there.
const json_t *run_get(const run *r, const char *path);
const char *run_text(const run *r, const char *path);
double run_number(const run *r, const char *path);
// By its own word, and because a process holds the lock of its directory (rundir_lock).
bool run_is_running(const run *r);

#endif
