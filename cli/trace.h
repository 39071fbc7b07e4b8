// RUN/trace.json: what happened when, as Chrome trace events, for Perfetto
// (https://ui.perfetto.dev) or chrome://tracing.
#ifndef CLI_TRACE_H
#define CLI_TRACE_H

#include "cli.h"

// Writes the spans to `out`: the host's and the device's each on a line of its own, where events
// nest without overlap.
int trace_print(const bt_span *spans, int count, FILE *out);
// The same to folder/trace.json.
int trace_write(const bt_span *spans, int count, const char *folder);

#endif
