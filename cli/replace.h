// Files that are written whole: under a temporary name beside their own, synced and renamed, so
// that a crash or a full disk leaves the old file.
#ifndef CLI_REPLACE_H
#define CLI_REPLACE_H

#include "cli.h"

typedef struct replacement {
    FILE *file;
    bool direct; // written to as it is
    char path[PATH_BYTES + 64], temporary[PATH_BYTES + 96];
} replacement;

// folder "": `name` is a path that the user named. Then what is no regular file, such as
// /dev/stdout, is written to, and of a link the file that it leads to is replaced; in a folder,
// which may be hostile, the link itself is. Both leave errno when they return false; then nothing
// is left to do.
bool replace_begin(replacement *f, const char *folder, const char *name);
bool replace_end(replacement *f);

#endif
