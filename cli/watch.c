// See watch.h. What is on disk is not believed: it is translated and compiled by a second context
// on the same device, where every case about the kernels that changed must agree with the CPU.
#include "watch.h"

#include "parity.h"
#include "system.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_BYTES = 2048, SENTENCE_BYTES = 1200 };

// ---- Files -------------------------------------------------------------------------------------

static int is_source(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return length > 2 && length < sizeof((watched){0}).name &&
           !strcmp(entry->d_name + length - 2, ".k");
}

static uint64_t stamp_of(const char *folder, const char *name) {
    char path[PATH_BYTES];
    struct stat info;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= PATH_BYTES || stat(path, &info))
        return 0;
    uint64_t seconds = (uint64_t)info.st_mtim.tv_sec, part = (uint64_t)info.st_mtim.tv_nsec;
    return (seconds * 1000000007u + part) * 1000000007u + (uint64_t)info.st_size;
}

// Puts the first name that is new, gone or changed in `changed`; false: none is.
static bool look(watch *w, char *changed, size_t bytes) {
    struct dirent **entries = NULL;
    int count = scandir(w->folder, &entries, is_source, alphasort), kept = 0;
    bool found = false;
    for (int i = 0; i < count; i++) {
        watched now = {.stamp = stamp_of(w->folder, entries[i]->d_name)};
        memcpy(now.name, entries[i]->d_name, strlen(entries[i]->d_name));
        free(entries[i]);
        if (kept == WATCHED_MAX) continue;
        bool same = kept < w->count && !strcmp(w->files[kept].name, now.name) &&
                    w->files[kept].stamp == now.stamp;
        if (!same && !found) snprintf(changed, bytes, "%s/%s", w->folder, now.name);
        found |= !same;
        w->files[kept++] = now;
    }
    free(entries);
    if (!found && kept < w->count) snprintf(changed, bytes, "%s", w->folder);
    found |= kept < w->count;
    w->count = kept;
    return found;
}

// ---- Kernels -----------------------------------------------------------------------------------

// The kernels that the named ones are variants of; those are what parity rows know.
static void base_names(const char *names, char *out, size_t bytes) {
    int count = bt_kernels(NULL, 0);
    bt_kernel_desc *kernels = calloc((size_t)count + 1, sizeof *kernels);
    size_t used = 0;
    *out = 0;
    if (kernels) bt_kernels(kernels, count);
    for (int i = 0; i < count && kernels; i++)
        if (has_word(names, kernels[i].name) && !has_word(out, kernels[i].of) && used < bytes)
            used += (size_t)snprintf(out + used, bytes - used, "%s ", kernels[i].of);
    free(kernels);
}

// Loads the folder into a context of its own on the same device and checks it there. *device stays
// open: it holds what was checked, whatever happens to the folder meanwhile. Not BT_OK: `sentence`
// says why not.
static bt_status check_kernels(const watch *w, bt_context **device, int *cases, char *sentence) {
    bt_context *reference = NULL;
    bt_context_desc same = describe_context(w->s);
    char swapped[NAMES_BYTES] = "", names[NAMES_BYTES];
    bt_status status = bt_open(&same, device);
    if (status == BT_OK) status = bt_kernels_load(*device, w->folder, swapped, sizeof swapped);
    if (status != BT_OK) snprintf(sentence, SENTENCE_BYTES, "%s", bt_error_text(*device));
    base_names(swapped, names, sizeof names);
    *cases = 0;
    if (status == BT_OK && *names) {
        status = bt_open(NULL, &reference);
        if (status != BT_OK) snprintf(sentence, SENTENCE_BYTES, "%s", bt_error_text(reference));
    }
    if (status == BT_OK && *names)
        status = parity_quick(*device, reference, names, cases, sentence, SENTENCE_BYTES);
    bt_close(reference);
    return status;
}

// Gives the training the kernels of the folder if they are right.
static bool adopt(watch *w, const char *changed, char *sentence) {
    char swapped[NAMES_BYTES];
    int cases;
    bt_context *checked = NULL;
    bt_status status = check_kernels(w, &checked, &cases, sentence);
    if (status == BT_OK) {
        status = bt_kernels_copy(w->ctx, checked, swapped, sizeof swapped);
        if (status != BT_OK) {
            snprintf(sentence, SENTENCE_BYTES, "%s", bt_error_text(w->ctx));
            bt_error_reset(w->ctx);
        }
    }
    bt_close(checked);
    if (status != BT_OK) return false;
    if (*swapped)
        note(w->s, "%s changed: swapped in %s(%d cases passed)", changed, swapped, cases);
    else if (strcmp(changed, w->folder) != 0)
        note(w->s, "%s: nothing to swap, it is what runs", changed);
    return true;
}

int watch_begin(watch *w, const settings *s, bt_context *ctx) {
    char changed[PATH_BYTES], sentence[SENTENCE_BYTES];
    *w = (watch){.s = s, .ctx = ctx, .folder = opt_text(s, "watch-kernels")};
    if (!w->folder) return 0;
    look(w, changed, sizeof changed);
    return adopt(w, w->folder, sentence) ? 0
                                         : fail(BT_ERROR_USAGE, "--watch-kernels: %s", sentence);
}

void watch_look(watch *w) {
    char changed[PATH_BYTES], sentence[SENTENCE_BYTES];
    if (!w->folder || !look(w, changed, sizeof changed)) return;
    note(w->s,
         "%s changed: trying it (one that never ends, or writes anywhere, takes the run along)",
         changed);
    if (!adopt(w, changed, sentence))
        note(w->s, "%s changed; the kernels stay as they were: %s", changed, sentence);
}
