// See file.h. The order of the steps in bt_file_write is what makes it survive a crash
// (docs/formats.md, "Saving").
#include "data/file.h"

#include "base/temporary.h"
#include "data/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 16, PATH_BYTES = 4096 };

// ---- Reading ---------------------------------------------------------------------------------

// Room for one byte more than the file should have, to see that it did not grow.
static bt_status first_room(int fd, const char *name, bt_error *err, size_t *out) {
    struct stat st;
    if (fstat(fd, &st) != 0)
        return bt_fail(err, BT_ERROR_DATA, "cannot read '%s': %s", name, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return bt_fail(err, BT_ERROR_DATA, "cannot read '%s': it is a folder, not a file", name);
    if (st.st_size > BT_FILE_MAX)
        return bt_fail(err, BT_ERROR_DATA, "'%s' has %lld bytes; more than %d are never read", name,
                       (long long)st.st_size, BT_FILE_MAX);
    *out = st.st_size > 0 ? (size_t)st.st_size + 1 : CHUNK;
    return BT_OK;
}

static bt_status grow(bt_bytes *out, size_t room, const char *name, bt_error *err) {
    uint8_t *data = realloc(out->data, room);
    if (!data) return bt_fail_memory(err, name, room);
    out->data = data;
    return BT_OK;
}

static bt_status read_all(int fd, const char *name, bt_error *err, bt_bytes *out) {
    size_t room = 0;
    BT_TRY(first_room(fd, name, err, &room));
    BT_TRY(grow(out, room, name, err));
    for (;;) {
        ssize_t n = read(fd, out->data + out->size, room - out->size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return bt_fail(err, BT_ERROR_DATA, "cannot read '%s': %s", name, strerror(errno));
        if (n == 0) return BT_OK;
        out->size += (size_t)n;
        if (out->size > BT_FILE_MAX)
            return bt_fail(err, BT_ERROR_DATA,
                           "'%s' has more than %d bytes; so many are never read", name,
                           BT_FILE_MAX);
        if (out->size == room) {
            room *= 2;
            BT_TRY(grow(out, room, name, err));
        }
    }
}

bt_status bt_file_read_open(int fd, const char *name, bt_error *err, bt_bytes *out) {
    *out = (bt_bytes){0};
    bt_status status = read_all(fd, name, err, out);
    if (status != BT_OK) {
        free(out->data);
        *out = (bt_bytes){0};
    }
    return status;
}

bt_status bt_file_read(const char *path, bt_error *err, bt_bytes *out) {
    *out = (bt_bytes){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return bt_fail(err, BT_ERROR_DATA, "cannot open '%s': %s", path, strerror(errno));
    bt_status status = bt_file_read_open(fd, path, err, out);
    close(fd);
    return status;
}

// ---- Writing ---------------------------------------------------------------------------------

// "Out of disk" and "cannot be written" are one kind of failure to a caller.
static bt_status fail_write(bt_error *err, const char *path, int code) {
    return bt_fail(err, BT_ERROR_MEMORY, "cannot write '%s': %s", path, strerror(code));
}

bool bt_write_all(int fd, const uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

// Reserves the disk space, so that a full disk is found before half a file is written; an error
// number.
static int reserve(int fd, size_t bytes) {
#ifdef __APPLE__ // has no such call for this; there it is found by a write
    (void)fd, (void)bytes;
    return 0;
#else
    return bytes > 0 ? posix_fallocate(fd, 0, (off_t)bytes) : 0;
#endif
}

// Never tried again: after a failure the kernel has dropped the pages.
static bool sync_file(int fd) {
#ifdef __APPLE__ // where fsync leaves bytes in the disk's cache; not every file system has more
    if (fcntl(fd, F_FULLFSYNC) == 0) return true;
#endif
    return fsync(fd) == 0;
}

static bool write_parts(int fd, const bt_bytes *parts, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].size;
    int code = reserve(fd, total);
    if (code == ENOSPC || code == EFBIG || code == EDQUOT) {
        errno = code;
        return false;
    }
    for (int i = 0; i < count; i++)
        if (!bt_write_all(fd, parts[i].data, parts[i].size)) return false;
    return sync_file(fd);
}

static bool same_bytes(int fd, const uint8_t *data, size_t size) {
    uint8_t chunk[CHUNK];
    while (size > 0) {
        ssize_t n = read(fd, chunk, size < CHUNK ? size : CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0 || memcmp(chunk, data, (size_t)n) != 0) return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

static bool reads_back(const char *path, const bt_bytes *parts, int count) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool same = fd >= 0;
    for (int i = 0; i < count && same; i++) same = same_bytes(fd, parts[i].data, parts[i].size);
    if (fd >= 0) close(fd);
    if (!same) errno = EIO;
    return same;
}

static bool sync_folder_of(const char *path) {
    char folder[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    int length = slash == path ? 1 : slash ? (int)(slash - path) : 1;
    snprintf(folder, sizeof folder, "%.*s", length, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return false;
    // EINVAL: a file system that cannot sync folders has nothing to lose there.
    bool ok = sync_file(fd) || errno == EINVAL;
    return close(fd) == 0 && ok;
}

bt_status bt_file_write(const char *path, const bt_bytes *parts, int count, bt_error *err) {
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return bt_fail(err, BT_ERROR_MEMORY, "cannot write '%s': it is there and not a plain file",
                       path);
    char name[PATH_BYTES];
    int fd = bt_temporary_file(path, name, sizeof name);
    if (fd < 0) return fail_write(err, path, errno);
    bool ok = write_parts(fd, parts, count);
    int code = errno;
    if (close(fd) != 0 && ok) { // network file systems report a failed write only here
        ok = false;
        code = errno;
    }
    if (ok && !(reads_back(name, parts, count) && rename(name, path) == 0)) {
        ok = false;
        code = errno;
    }
    if (!ok) {
        unlink(name);
        return fail_write(err, path, code);
    }
    return sync_folder_of(path) ? BT_OK : fail_write(err, path, errno);
}

// ---- Folders ---------------------------------------------------------------------------------

bool bt_folder_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bt_status bt_folder_make(const char *path, bt_error *err) {
    char part[PATH_BYTES];
    size_t length = strlen(path);
    if (length >= sizeof part) return fail_write(err, path, ENAMETOOLONG);
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        part[i] = 0;
        if (mkdir(part, 0777) != 0 && !bt_folder_exists(part))
            return bt_fail(err, BT_ERROR_MEMORY, "cannot make the folder '%s': %s", part,
                           strerror(errno));
        part[i] = path[i];
    }
    return BT_OK;
}

// ---- Hashing and unpacking -------------------------------------------------------------------

void bt_sha256(const bt_bytes *parts, int count, char hex[65]) {
    SHA2_CTX sha;
    SHA256Init(&sha);
    for (int i = 0; i < count; i++) SHA256Update(&sha, parts[i].data, parts[i].size);
    SHA256End(&sha, hex);
}

bool bt_is_gzip(bt_bytes bytes) {
    return bytes.size >= 2 && bytes.data[0] == 0x1f && bytes.data[1] == 0x8b;
}

bt_status bt_unpack_open(bt_unpacker *in, bt_bytes bytes, bt_error *err) {
    *in = (bt_unpacker){.gzipped = bt_is_gzip(bytes)};
    in->z.next_in = bytes.data;
    in->z.avail_in = (uInt)bytes.size; // at most BT_FILE_MAX
    if (in->gzipped && inflateInit2(&in->z, 16 + MAX_WBITS) != Z_OK)
        return bt_fail_memory(err, "zlib", sizeof in->z);
    return BT_OK;
}

static size_t take_plain(bt_unpacker *in, void *out, size_t size) {
    if (size > in->z.avail_in) size = in->z.avail_in;
    if (size > 0) memcpy(out, in->z.next_in, size);
    in->z.next_in += size;
    in->z.avail_in -= (uInt)size;
    return size;
}

size_t bt_unpack(bt_unpacker *in, void *out, size_t size) {
    if (!in->gzipped) return take_plain(in, out, size);
    in->z.next_out = out;
    in->z.avail_out = (uInt)size;
    while (in->z.avail_out > 0 && !in->ended) {
        int code = inflate(&in->z, Z_NO_FLUSH);
        if (code == Z_STREAM_END)
            in->ended = true;
        else if (code != Z_OK)
            break;
    }
    return size - in->z.avail_out;
}

bool bt_unpack_finished(bt_unpacker *in) {
    uint8_t extra;
    return bt_unpack(in, &extra, 1) == 0 && in->z.avail_in == 0 && (in->ended || !in->gzipped);
}

size_t bt_unpack_bound(const bt_unpacker *in) {
    // Deflate turns one byte into at most 1032; what zlib holds inside is less than its window.
    size_t left = in->z.avail_in;
    return in->gzipped ? left * 1032 + (1u << MAX_WBITS) + 258 : left;
}

void bt_unpack_close(bt_unpacker *in) {
    if (in->gzipped) inflateEnd(&in->z);
}
