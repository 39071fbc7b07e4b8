// Writing whole files; see replace.h.
#include "replace.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

bool replace_begin(replacement *f, const char *folder, const char *name) {
    struct stat info;
    snprintf(f->path, sizeof f->path, "%s%s%s", folder, *folder ? "/" : "", name);
    snprintf(f->temporary, sizeof f->temporary, "%s.%ld", f->path, (long)getpid());
    f->direct = lstat(f->path, &info) == 0 && !S_ISREG(info.st_mode);
    f->file = fopen(f->direct ? f->path : f->temporary, "w");
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
