// Times of launches; see launch_log.h.
#include "base/launch_log.h"

#include <stdlib.h>

bt_status bt_launch_log_make(int count, bt_error *err, bt_launch_log **out) {
    size_t slots = 2 * BT_LOG_STEPS * (size_t)count + 1;
    bt_launch_log *log = *out = calloc(1, sizeof *log);
    if (!log) return bt_fail_memory(err, "the times of a program", sizeof *log);
    log->count = count;
    log->seconds = calloc((size_t)count + 1, sizeof *log->seconds);
    log->kept = calloc(slots, sizeof *log->kept);
    if (log->seconds && log->kept) return BT_OK;
    bt_launch_log_free(log);
    *out = NULL;
    return bt_fail_memory(err, "the times of a program", slots * sizeof *log->kept);
}

void bt_launch_log_free(bt_launch_log *log) {
    if (!log) return;
    free(log->seconds);
    free(log->kept);
    free(log);
}

static bt_launch_time *slot_of(const bt_launch_log *log, uint64_t step) {
    uint64_t row = step < BT_LOG_STEPS ? step : BT_LOG_STEPS + step % BT_LOG_STEPS;
    return log->kept + row * (uint64_t)log->count;
}

void bt_launch_log_add(bt_launch_log *log, int launch, double start, double seconds) {
    log->seconds[launch] += seconds;
    slot_of(log, log->steps)[launch] = (bt_launch_time){start, seconds};
    log->steps += launch == log->count - 1;
}

int bt_launch_log_kept(const bt_launch_log *log) {
    return log->steps < 2 * BT_LOG_STEPS ? (int)log->steps : 2 * BT_LOG_STEPS;
}

const bt_launch_time *bt_launch_log_step(const bt_launch_log *log, int i, uint64_t *step) {
    *step = i < BT_LOG_STEPS ? (uint64_t)i : log->steps - (uint64_t)(bt_launch_log_kept(log) - i);
    return slot_of(log, *step);
}
