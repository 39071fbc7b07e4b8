// When a timed program ran which launch: sums over all steps, and the first and the last steps
// launch by launch, whatever their number, for a trace.
#ifndef BT_BASE_LAUNCH_LOG_H
#define BT_BASE_LAUNCH_LOG_H

#include "base/status.h"

enum { BT_LOG_STEPS = 20 }; // kept of the first ones, and as many of the last ones

typedef struct bt_launch_time {
    double start, seconds; // by bt_seconds
} bt_launch_time;

typedef struct bt_launch_log {
    int count;            // launches of a step
    double *seconds;      // of each launch, in all
    bt_launch_time *kept; // [2 * BT_LOG_STEPS][count]: the first steps, then a ring of later ones
    uint64_t steps;       // whole ones so far
} bt_launch_log;

bt_status bt_launch_log_make(int count, bt_error *err, bt_launch_log **out) BT_MUST_CHECK;
void bt_launch_log_free(bt_launch_log *log);

// Launches of a step are added in order; the last one ends the step.
void bt_launch_log_add(bt_launch_log *log, int launch, double start, double seconds);

// How many steps were kept, and the i-th of them: its number, and the times of its launches.
int bt_launch_log_kept(const bt_launch_log *log);
const bt_launch_time *bt_launch_log_step(const bt_launch_log *log, int i, uint64_t *step);

#endif
