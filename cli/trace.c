// Chrome trace events; see trace.h. Viewers refuse events of a line that overlap without one being
// inside the other, and add start and length in numbers of their own. So ends are rounded to
// nanoseconds, not lengths, and two ends of the device's line are never the same.
#include "trace.h"

#include "replace.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HOST = 1, DEVICE = 2 }; // lines of the timeline

typedef struct writer {
    FILE *out;
    bool failed, any;
    double origin; // seconds that are 0 in the file
} writer;

static void put(writer *w, json_t *event) {
    fputs(w->any ? ",\n" : "\n", w->out);
    w->any = true;
    w->failed =
        !event || json_dumpf(event, w->out, JSON_COMPACT | JSON_REAL_PRECISION(15)) || w->failed;
    json_decref(event);
}

static long long nanoseconds(const writer *w, double seconds) {
    return llround(1e9 * (seconds - w->origin));
}

static void put_name(writer *w, const char *what, int line, const char *name) {
    put(w, json_pack("{s:s,s:s,s:i,s:i,s:{s:s}}", "ph", "M", "name", what, "pid", 1, "tid", line,
                     "args", "name", name));
}

static void put_event(writer *w, int line, const char *name, long long begin, long long end,
                      json_t *args) {
    put(w,
        json_pack("{s:s,s:s,s:i,s:i,s:f,s:f,s:o*}", "ph", "X", "name", name, "pid", 1, "tid", line,
                  "ts", (double)begin / 1e3, "dur", (double)(end - begin) / 1e3, "args", args));
}

static void put_rate(writer *w, const bt_span *s) {
    put(w, json_pack("{s:s,s:s,s:i,s:f,s:{s:f}}", "ph", "C", "name", "images/s", "pid", 1, "ts",
                     (double)nanoseconds(w, s->start) / 1e3, "args", "images/s",
                     s->images / s->seconds));
}

// When a launch ran on a queue that is busy at `at`: a device's clock may have been placed a little
// early.
static long long place(const writer *w, const bt_span *s, long long at, long long *end) {
    long long begin = nanoseconds(w, s->start);
    if (begin <= at) begin = at + 1;
    *end = nanoseconds(w, s->start + s->seconds);
    if (*end < begin) *end = begin;
    return begin;
}

// The launches of one step, inside of an event for the step. *busy_until: of the queue.
static void put_step(writer *w, const bt_span *spans, int count, long long *busy_until) {
    char name[32];
    long long end, step_begin = place(w, &spans[0], *busy_until, &end), at = step_begin;
    for (int i = 0; i < count; i++, at = end) place(w, &spans[i], at, &end);
    snprintf(name, sizeof name, "step %u", spans[0].step);
    put_event(w, DEVICE, name, step_begin, at + 1, NULL);
    *busy_until = at + 1, at = step_begin;
    for (int i = 0; i < count; i++, at = end) {
        long long begin = place(w, &spans[i], at, &end);
        put_event(
            w, DEVICE, spans[i].name, begin, end,
            json_pack("{s:s,s:I}", "kernel", spans[i].kernel, "step", (json_int_t)spans[i].step));
    }
}

static void put_device(writer *w, const bt_span *spans, int count) {
    long long busy_until = -1;
    for (int first = 0, i = 0; i < count; i++) {
        bool over = i + 1 == count || !spans[i + 1].kernel || spans[i + 1].step != spans[i].step;
        if (!spans[i].kernel) {
            first = i + 1;
        } else if (over) {
            put_step(w, spans + first, i + 1 - first, &busy_until);
            first = i + 1;
        }
    }
}

// By start; of two that start together the outer one, which ended later and so stands later, first.
static int by_start(const void *a, const void *b) {
    const bt_span *x = *(const bt_span *const *)a, *y = *(const bt_span *const *)b;
    if (x->start != y->start) return x->start < y->start ? -1 : 1;
    return (x < y) - (x > y);
}

static void put_host(writer *w, const bt_span *const *sorted, int count) {
    for (int i = 0; i < count; i++) {
        const bt_span *s = sorted[i];
        if (s->kernel) continue;
        put_event(w, HOST, s->name, nanoseconds(w, s->start), nanoseconds(w, s->start + s->seconds),
                  json_pack("{s:I}", "step", (json_int_t)s->step));
        if (s->images && s->seconds > 0) put_rate(w, s);
    }
}

int trace_print(const bt_span *spans, int count, FILE *out) {
    writer w = {.out = out};
    const bt_span **sorted = calloc((size_t)count + 1, sizeof *sorted);
    if (!sorted) return fail(BT_ERROR_MEMORY, "out of memory for the trace");
    for (int i = 0; i < count; i++) sorted[i] = &spans[i];
    qsort(sorted, (size_t)count, sizeof *sorted, by_start);
    if (count) w.origin = sorted[0]->start;
    fprintf(out, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
    put_name(&w, "process_name", HOST, "bantam " BT_VERSION_TEXT);
    put_name(&w, "thread_name", HOST, "host");
    put_name(&w, "thread_name", DEVICE, "device");
    put_host(&w, sorted, count);
    put_device(&w, spans, count);
    fprintf(out, "\n]}\n");
    free(sorted);
    return w.failed ? fail(BT_ERROR_MEMORY, "out of memory for the trace") : 0;
}

int trace_write(const bt_span *spans, int count, const char *folder) {
    replacement f;
    bool good = replace_begin(&f, folder, "trace.json");
    int code = good ? trace_print(spans, count, f.file) : 0;
    if (good && replace_end(&f)) return code;
    return fail(BT_ERROR_MEMORY, "%s cannot be written: %s", f.path, strerror(errno));
}
