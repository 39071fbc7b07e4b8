// Spans of the host; see trace.h.
#include "train/trace.h"

#include "base/threads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SPANS_MAX = 1 << 16 }; // a few hours of training, in 6 MB

static bool make_room(bt_trace *t, int more) {
    if (t->room - t->count >= more) return true;
    int room = 2 * t->room + more;
    bt_span *spans = reallocarray(t->spans, (size_t)room, sizeof *spans);
    if (!spans) return false;
    t->spans = spans;
    t->room = room;
    return true;
}

void bt_trace_add(bt_trace *t, double start, uint32_t step, uint32_t images, const char *name,
                  ...) {
    if (!t->wanted || t->count >= SPANS_MAX || !make_room(t, 1)) return;
    bt_span *span = &t->spans[t->count++];
    *span =
        (bt_span){.start = start, .seconds = bt_seconds() - start, .step = step, .images = images};
    va_list args;
    va_start(args, name);
    vsnprintf(span->name, sizeof span->name, name, args);
    va_end(args);
}

bt_status bt_trace_launches(bt_trace *t, const bt_program *program, bt_error *err) {
    int count = bt_program_trace(program, NULL, 0);
    if (!make_room(t, count))
        return bt_fail_memory(err, "the trace", (size_t)count * sizeof(bt_span));
    t->count += bt_program_trace(program, t->spans + t->count, count);
    return BT_OK;
}
