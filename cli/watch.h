// Kernels that are edited while a network trains: `bantam train --watch-kernels FOLDER`.
#ifndef CLI_WATCH_H
#define CLI_WATCH_H

#include "cli.h"

enum { WATCHED_MAX = 64 };

typedef struct watched {
    char name[64];
    uint64_t stamp; // of its size and time
} watched;

typedef struct watch {
    const settings *s;
    bt_context *ctx;    // that trains
    const char *folder; // NULL: nothing is watched
    watched files[WATCHED_MAX];
    int count; // when last looked at
} watch;

// Looks for the first time; a folder that cannot be used is an error here.
int watch_begin(watch *w, const settings *s, bt_context *ctx);
// When a file has changed: checks the kernels against the f64 reference in a context of their own,
// and swaps them in when they pass. Says what it did; never fails.
void watch_look(watch *w);

#endif
