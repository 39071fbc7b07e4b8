// Files that are written whole: under a temporary name beside their own, synced and renamed, so
// that a crash or a full disk leaves the old file. What is no regular file, such as /dev/stdout, is
// written to.
#ifndef CLI_REPLACE_H
#define CLI_REPLACE_H

#include "cli.h"

typedef struct replacement {
    FILE *file;
    bool direct; // no regular file
    char path[PATH_BYTES + 64], temporary[PATH_BYTES + 80];
} replacement;

// folder "": `name` is the path. Both leave errno when they return false; then nothing is left to
// do.
bool replace_begin(replacement *f, const char *folder, const char *name);
bool replace_end(replacement *f);

#endif
