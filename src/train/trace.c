// Spans of the host; see trace.h.
#include "train/trace.h"

#include "base/threads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// However long a training is, its file stays below 2 MB: after so many spans epochs alone are
// added, after twice as many only the training itself.
enum { SPANS_MAX = 4096 };

static bool has_room(const bt_trace *t, const char *name) {
    if (!strcmp(name, "training")) return true;
    return t->count < (strncmp(name, "epoch", 5) ? SPANS_MAX : 2 * SPANS_MAX);
}

static bool make_room(bt_trace *t, int more) {
    if (t->room - t->count >= more) return true;
    int room = 2 * t->room + more;
    bt_span *spans = realloc(t->spans, (size_t)room * sizeof *spans);
    if (!spans) return false;
    t->spans = spans;
    t->room = room;
    return true;
}

void bt_trace_add(bt_trace *t, double start, uint32_t step, uint32_t images, const char *name,
                  ...) {
    if (!t->wanted || !has_room(t, name) || !make_room(t, 1)) return;
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
