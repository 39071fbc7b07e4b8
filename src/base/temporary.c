// Temporary files and folders; see temporary.h. A name that exists makes open and mkdir fail, so a
// process number and a counter are enough.
#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 100 }; // what other processes of that number left behind

// The next name; false: there is no room for it.
static bool next_name(const char *start, const char *end, char *name, size_t bytes) {
    static atomic_uint nonce;
    int n = snprintf(name, bytes, "%s%ld-%u%s", start, (long)getpid(), atomic_fetch_add(&nonce, 1),
                     end);
    if (n >= 0 && (size_t)n < bytes) return true;
    errno = ENAMETOOLONG;
    return false;
}

int bt_temporary_file(const char *path, char *name, size_t name_bytes) {
    char start[4096];
    snprintf(start, sizeof start, "%s.", path);
    for (int tries = 0; tries < TRIES; tries++) {
        if (!next_name(start, ".tmp", name, name_bytes)) return -1;
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

bool bt_temporary_folder(char *name, size_t name_bytes) {
    const char *base = getenv("TMPDIR");
    char start[4096];
    snprintf(start, sizeof start, "%s/bantam-", base && *base ? base : P_tmpdir);
    for (int tries = 0; tries < TRIES; tries++) {
        if (!next_name(start, "", name, name_bytes)) return false;
        if (mkdir(name, 0700) == 0) return true;
        if (errno != EEXIST) return false;
    }
    return false;
}
