// Brings a known data set to the data folder, from a local folder or from its mirrors. The transfer
// is the `curl` program's business, so that Bantam holds no network code; whatever comes is
// trusted only after the SHA-256 of its unpacked bytes is right.
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/owner.h"
#include "data/file.h"
#include "data/sets.h"
#include "data/sha256.h"

extern char **environ;

enum {
    UNPACKED_MAX = 1 << 26, // no file of a known set is larger
    GZ_SPELLING = 2,        // the mirrors' names, see bt_set_file
    CURL_WRITE_ERROR = 23
};

typedef struct getter {
    const bt_set *set;
    int file;                   // of the set
    char folder[BT_PATH_BYTES]; // where it goes
    FILE *log;
} getter;

static void say(const getter *g, const char *what, const char *where) {
    if (g->log) fprintf(g->log, "%s: %s %s\n", g->set->name, what, where);
}

// ---- Checking and putting in place -----------------------------------------------------------

// SHA-256 of the unpacked bytes; of a part of them when there are more than UNPACKED_MAX.
static bt_status hash_unpacked(bt_bytes file, bt_error *err, char hex[65]) {
    uint8_t chunk[1 << 15];
    bt_unpacker in;
    SHA2_CTX sha;
    BT_TRY(bt_unpack_open(&in, file, err));
    SHA256Init(&sha);
    size_t n, total = 0;
    while (total < UNPACKED_MAX && (n = bt_unpack(&in, chunk, sizeof chunk)) > 0) {
        SHA256Update(&sha, chunk, n);
        total += n;
    }
    bt_unpack_close(&in);
    SHA256End(&sha, hex);
    return BT_OK;
}

static bt_status check_hash(const getter *g, const char *path, bt_bytes file, bt_error *err) {
    char have[65];
    const char *want = g->set->sha256[g->file];
    BT_TRY(hash_unpacked(file, err, have));
    if (strcmp(have, want) == 0) return BT_OK;
    return bt_fail(err, BT_ERROR_DATA,
                   "'%.200s' is not %s of %s: the SHA-256 of its unpacked bytes is %s, but it must "
                   "be %s",
                   path, bt_set_file(g->file, 0), g->set->name, have, want);
}

static bt_status check_file(const getter *g, const char *path, bt_error *err) {
    bt_bytes file;
    BT_TRY(bt_file_read(path, err, &file));
    bt_status status = check_hash(g, path, file, err);
    free(file.data);
    return status;
}

// Copies a file that is right to the folder, packed or not as it came.
static bt_status install(const getter *g, const char *path, bt_error *err) {
    char target[BT_PATH_BYTES];
    bt_bytes file;
    BT_TRY(bt_file_read(path, err, &file));
    bt_status status = check_hash(g, path, file, err);
    const char *name = bt_set_file(g->file, bt_is_gzip(file) ? GZ_SPELLING : 0);
    if (status == BT_OK &&
        snprintf(target, sizeof target, "%s/%s", g->folder, name) >= BT_PATH_BYTES)
        status =
            bt_fail(err, BT_ERROR_USAGE, "the path of the folder '%.200s' is too long", g->folder);
    if (status == BT_OK) status = bt_file_write(target, &file, 1, err);
    if (status == BT_OK) say(g, "verified", target);
    free(file.data);
    return status;
}

// ---- curl ------------------------------------------------------------------------------------

// A pipe that ends where another program starts.
static bool make_pipe(int ends[2]) {
#ifdef __APPLE__ // which has no pipe2
    if (pipe(ends) != 0) return false;
    for (int i = 0; i < 2; i++) fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    return true;
#else
    return pipe2(ends, O_CLOEXEC) == 0;
#endif
}

// Starts curl with its messages in a pipe, of which *fd is the reading end.
static int start_curl(const char *url, const char *part, pid_t *pid, int *fd) {
    char *argv[] = {"curl",
                    "--fail",
                    "--location",
                    "--silent",
                    "--show-error",
                    "--retry",
                    "2",
                    "--connect-timeout",
                    "20",
                    "--continue-at",
                    "-",
                    "--max-filesize",
                    "67108864",
                    "--output",
                    (char *)(uintptr_t)part,
                    (char *)(uintptr_t)url,
                    NULL};
    int ends[2];
    if (!make_pipe(ends)) return errno;
    posix_spawn_file_actions_t actions;
    int code = posix_spawn_file_actions_init(&actions);
    if (code == 0) {
        code = posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
        if (code == 0) code = posix_spawnp(pid, "curl", &actions, NULL, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (code != 0) close(ends[0]);
    *fd = ends[0];
    return code;
}

// Keeps the first line of what curl says, without its end of line.
static void hear(int fd, char *text, size_t room) {
    char chunk[256];
    size_t used = 0;
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR))
        for (ssize_t i = 0; i < n; i++)
            if (used + 1 < room) text[used++] = chunk[i];
    text[used] = 0;
    text[strcspn(text, "\r\n")] = 0;
    close(fd);
}

static bt_status run_curl(const char *url, const char *part, bt_error *err) {
    pid_t pid;
    int fd = -1, ended = 0;
    char said[200];
    int code = start_curl(url, part, &pid, &fd);
    if (code == ENOENT)
        return bt_fail(
            err, BT_ERROR_DATA,
            "the program curl, which downloads '%.200s', is not installed; install it, or "
            "bring the files in a folder and name it with --from",
            url);
    if (code != 0)
        return bt_fail(err, BT_ERROR_MEMORY, "cannot start the program curl: %s", strerror(code));
    hear(fd, said, sizeof said);
    while (waitpid(pid, &ended, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return BT_OK;
    bool full = WIFEXITED(ended) && WEXITSTATUS(ended) == CURL_WRITE_ERROR;
    return bt_fail(err, full ? BT_ERROR_MEMORY : BT_ERROR_DATA,
                   "cannot download '%.200s': %.180s; what has come is kept, try again to go on",
                   url, *said ? said : "curl was stopped");
}

// One mirror, after a partial file of an earlier time if there is one. A mirror may pack the same
// bytes differently, so a continued file that is wrong gets a second, fresh try.
static bt_status download(const getter *g, const char *mirror, const char *part, bt_error *err) {
    char url[BT_PATH_BYTES];
    snprintf(url, sizeof url, "%s%s", mirror, bt_set_file(g->file, GZ_SPELLING));
    for (;;) {
        bool continued = access(part, F_OK) == 0;
        bt_error attempt = {0};
        say(g, continued ? "continuing" : "downloading", url);
        BT_TRY(run_curl(url, part, err));
        bt_status status = install(g, part, &attempt);
        if (status == BT_OK || status == BT_ERROR_DATA) unlink(part);
        if (status == BT_OK) return BT_OK;
        if (status != BT_ERROR_DATA || !continued)
            return bt_fail(err, status, "%s (from %.100s)", attempt.text, mirror);
    }
}

static bt_status download_any(const getter *g, bt_error *err) {
    char part[BT_PATH_BYTES + 64];
    bt_error attempt = {0};
    snprintf(part, sizeof part, "%s/%s.part", g->folder, bt_set_file(g->file, GZ_SPELLING));
    if (access(part, F_OK) == 0 && install(g, part, &attempt) == BT_OK) {
        unlink(part); // it was complete, but not yet put in place when the process ended
        return BT_OK;
    }
    for (int i = 0; i < BT_SET_MIRRORS && g->set->mirrors[i]; i++) {
        bt_error_clear(&attempt);
        bt_status status = download(g, g->set->mirrors[i], part, &attempt);
        if (status != BT_ERROR_DATA) break;
        say(g, "failed:", attempt.text);
    }
    return attempt.status == BT_OK ? BT_OK : bt_fail(err, attempt.status, "%s", attempt.text);
}

// ---- The set ---------------------------------------------------------------------------------

// Whether the file is there and right. A wrong one is moved aside, or its spelling could win over
// that of the right one.
static bool is_here(const getter *g) {
    char path[BT_PATH_BYTES], aside[BT_PATH_BYTES + 4];
    bt_error ignored = {0};
    while (bt_set_locate(g->folder, g->file, path)) {
        bool right = check_file(g, path, &ignored) == BT_OK;
        say(g, right ? "already here:" : "wrong, renamed to .bad:", path);
        if (right) return true;
        snprintf(aside, sizeof aside, "%s.bad", path);
        if (rename(path, aside) != 0) return false;
    }
    return false;
}

static bt_status get_file(const getter *g, const char *from, bt_error *err) {
    char path[BT_PATH_BYTES];
    if (is_here(g)) return BT_OK;
    if (!from) return download_any(g, err);
    if (bt_set_locate(from, g->file, path)) return install(g, path, err);
    return bt_fail(err, BT_ERROR_DATA, "the folder '%.300s' has no file '%s' (nor with .gz)", from,
                   bt_set_file(g->file, 0));
}

bt_status bt_dataset_get(bt_context *ctx, const char *name, const char *folder, const char *from,
                         FILE *log) {
    bt_error *err = bt_error_of(ctx);
    getter g = {.set = bt_set_find(name), .log = log};
    if (!g.set) return bt_set_unknown(name, err);
    if (!g.set->sha256[0]) {
        say(&g, "built in;", "there is nothing to get");
        return BT_OK;
    }
    if (!bt_set_folder(folder, name, 0, g.folder))
        return bt_fail(err, BT_ERROR_USAGE, "the path of the data folder is too long");
    BT_TRY(bt_folder_make(g.folder, err));
    for (g.file = 0; g.file < BT_SET_FILES; g.file++) BT_TRY(get_file(&g, from, err));
    return BT_OK;
}
