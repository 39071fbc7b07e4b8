// Writing whole files; see replace.h.
#include "replace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// A path that the user named may be a device, or a link to the file that he means, which then is
// what is replaced. What lies in a folder may be someone else's: no link there leads out of it.
static void follow(replacement *f) {
    struct stat info;
    f->direct = !strncmp(f->path, "/dev/std", 8) || !strncmp(f->path, "/dev/fd/", 8) ||
                (stat(f->path, &info) == 0 && !S_ISREG(info.st_mode));
    char *real = f->direct ? NULL : realpath(f->path, NULL);
    if (real && strlen(real) < sizeof f->path) memcpy(f->path, real, strlen(real) + 1);
    free(real);
}

static int open_temporary(replacement *f) {
    int fd = -1;
    for (int nonce = 0; fd < 0 && nonce < 100; nonce++) { // whatever lies there stays
        snprintf(f->temporary, sizeof f->temporary, "%s.%ld-%d.tmp", f->path, (long)getpid(),
                 nonce);
        fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) break;
    }
    return fd;
}

bool replace_begin(replacement *f, const char *folder, const char *name) {
    *f = (replacement){0};
    snprintf(f->path, sizeof f->path, "%s%s%s", folder, *folder ? "/" : "", name);
    if (!*folder) follow(f);
    int fd = f->direct ? open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)
                       : open_temporary(f);
    f->file = fd < 0 ? NULL : fdopen(fd, "w");
    if (fd >= 0 && !f->file) close(fd);
    return f->file;
}

bool replace_end(replacement *f) {
    bool good =
        fflush(f->file) == 0 && !ferror(f->file) && (f->direct || fsync(fileno(f->file)) == 0);
    int error = errno;
    if (fclose(f->file) && good) good = false, error = errno;
    if (good && (f->direct || rename(f->temporary, f->path) == 0)) return true;
    if (good) error = errno;
    if (!f->direct) unlink(f->temporary);
    errno = error;
    return false;
}
