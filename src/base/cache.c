// Files in the user's cache folder; see cache.h.
#include "base/cache.h"
#include "base/temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool make_folder(const char *path) {
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

bool bt_cache_path(const char *name, bool make, char path[BT_CACHE_PATH_BYTES]) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool xdg = cache && *cache == '/'; // the standard: others are ignored
    if (!xdg && (!home || !*home)) return false;
    int n = snprintf(path, BT_CACHE_PATH_BYTES, "%s%s", xdg ? cache : home, xdg ? "" : "/.cache");
    if (n < 0 || n > BT_CACHE_PATH_BYTES - 256 || (make && !make_folder(path))) return false;
    n += snprintf(path + n, BT_CACHE_PATH_BYTES - (size_t)n, "/bantam");
    if (make && !make_folder(path)) return false;
    n += snprintf(path + n, BT_CACHE_PATH_BYTES - (size_t)n, "/%s", name);
    return n < BT_CACHE_PATH_BYTES;
}

unsigned char *bt_cache_read(const char *name, void *head, size_t head_bytes, size_t bytes_max,
                             size_t *bytes) {
    char path[BT_CACHE_PATH_BYTES];
    struct stat info;
    unsigned char *data = NULL;
    if (!bt_cache_path(name, false, path)) return NULL;
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); // a pipe must not stop us
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "rb") : NULL;
    if (!file) {
        if (descriptor >= 0) close(descriptor);
        return NULL;
    }
    if (!fstat(descriptor, &info) && S_ISREG(info.st_mode) && info.st_size > (off_t)head_bytes &&
        (size_t)info.st_size - head_bytes <= bytes_max &&
        fread(head, 1, head_bytes, file) == head_bytes) {
        *bytes = (size_t)info.st_size - head_bytes;
        data = malloc(*bytes);
        if (data && fread(data, *bytes, 1, file) != 1) {
            free(data);
            data = NULL;
        }
    }
    fclose(file);
    return data;
}

void bt_cache_write(const char *name, const void *head, size_t head_bytes, const void *data,
                    size_t bytes) {
    char path[BT_CACHE_PATH_BYTES], temporary[BT_CACHE_PATH_BYTES + 40];
    if (!bt_cache_path(name, true, path)) return;
    int descriptor = bt_temporary_file(path, temporary, sizeof temporary);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "wb") : NULL;
    if (!file) {
        if (descriptor >= 0) close(descriptor);
        return;
    }
    bool written =
        fwrite(head, 1, head_bytes, file) == head_bytes && fwrite(data, bytes, 1, file) == 1;
    if (fclose(file) != 0 || !written || rename(temporary, path) != 0) unlink(temporary);
}
