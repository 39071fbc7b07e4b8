// What the host did while it trained, for a timeline (bt_train_result.trace).
#ifndef BT_TRAIN_TRACE_H
#define BT_TRAIN_TRACE_H

#include "base/status.h"

typedef struct bt_trace {
    bool wanted;
    bt_span *spans; // to be freed
    int count, room;
} bt_trace;

// Something that began at `start` (bt_seconds) has ended now. After so many (see trace.c)
// or without memory only the longest are kept, or none.
void bt_trace_add(bt_trace *t, double start, uint32_t step, uint32_t images, const char *name, ...)
    __attribute__((format(printf, 5, 6)));

// Appends the launches of the program.
bt_status bt_trace_launches(bt_trace *t, const bt_program *program, bt_error *err) BT_MUST_CHECK;

#endif
