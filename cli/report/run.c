// Reading run directories; see run.h.
#include "run.h"

#include "system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { RECORD_BYTES_MAX = 4 << 20 };

// ---- What is no run directory ------------------------------------------------------------------

static bool is_run(const char *path) {
    char name[PATH_BYTES + 16];
    struct stat info;
    snprintf(name, sizeof name, "%s/run.json", path);
    return stat(name, &info) == 0;
}

// The run in `folder` that was changed last.
bool run_newest(const char *folder, char out[PATH_BYTES]) {
    struct dirent *entry;
    struct stat info;
    struct timespec newest = {0};
    DIR *dir = opendir(folder);
    *out = 0;
    while (dir && (entry = readdir(dir))) {
        char path[PATH_BYTES];
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= PATH_BYTES) continue;
        if (*entry->d_name == '.' || !is_run(path) || stat(path, &info)) continue;
        const struct timespec *t = &info.st_mtim;
        if (t->tv_sec < newest.tv_sec ||
            (t->tv_sec == newest.tv_sec && t->tv_nsec <= newest.tv_nsec))
            continue;
        newest = *t;
        snprintf(out, PATH_BYTES, "%s", path);
    }
    if (dir) closedir(dir);
    return *out;
}

// The run in `folder` that is spelt most like `word`.
static bool nearest_in(const char *folder, const char *word, char out[PATH_BYTES]) {
    char path[PATH_BYTES], best[256] = "";
    struct dirent *entry;
    DIR *dir = opendir(folder);
    while (dir && (entry = readdir(dir))) {
        const char *names[] = {best, entry->d_name};
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= PATH_BYTES) continue;
        if (is_run(path) && nearest(word, names, 2) == entry->d_name)
            snprintf(best, sizeof best, "%s", entry->d_name);
    }
    if (dir) closedir(dir);
    return *best && snprintf(out, PATH_BYTES, "%s/%s", folder, best) < PATH_BYTES;
}

// Says what `path` is in place of a run directory, and names the nearest thing to it.
static bt_status explain(const char *path, char why[512]) {
    char guess[PATH_BYTES], folder[PATH_BYTES - 4];
    struct stat info;
    bool there = stat(path, &info) == 0;
    const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (there && S_ISDIR(info.st_mode)) {
        if (run_newest(path, guess))
            snprintf(why, 512, "%.160s is a folder of runs and not one; the newest is %.160s", path,
                     guess);
        else
            snprintf(why, 512,
                     "%.200s is not a run directory: it has no run.json; `bantam train` "
                     "makes one",
                     path);
    } else if (there) {
        snprintf(guess, sizeof guess, "%s/..", folder);
        bool inside = is_run(folder) || is_run(guess);
        snprintf(why, 512, "%.160s is a file%s%.160s", path,
                 inside ? "; the run directory is " : " and not a run directory",
                 !inside          ? ""
                 : is_run(folder) ? folder
                                  : guess);
    } else if (nearest_in(folder, last, guess)) {
        snprintf(why, 512, "%.160s is not there; did you mean %.160s?", path, guess);
    } else if (run_newest("results", guess)) {
        snprintf(why, 512, "%.160s is not there; the newest run in results/ is %.160s", path,
                 guess);
    } else {
        snprintf(why, 512, "%.200s is not there; `bantam train` makes run directories", path);
    }
    return BT_ERROR_DATA;
}

// ---- Reading -----------------------------------------------------------------------------------

static void take_path(run *r, const char *path) {
    char full[PATH_MAX];
    snprintf(r->path, sizeof r->path, "%s", path);
    for (size_t n = strlen(r->path); n > 1 && r->path[n - 1] == '/';) r->path[--n] = 0;
    const char *known = realpath(r->path, full) ? full : r->path, *slash = strrchr(known, '/');
    snprintf(r->name, sizeof r->name, "%.127s", slash && slash[1] ? slash + 1 : known);
}

static bt_status read_record(run *r, char why[512]) {
    char name[PATH_BYTES + 16];
    json_error_t error;
    struct stat info;
    snprintf(name, sizeof name, "%s/run.json", r->path);
    if (stat(name, &info)) return explain(r->path, why);
    r->record = json_of_file(name, RECORD_BYTES_MAX);
    if (json_is_object(r->record)) return BT_OK;
    if (info.st_size > RECORD_BYTES_MAX || !S_ISREG(info.st_mode))
        snprintf(why, 512, "%.300s is no file of at most %d bytes", name, RECORD_BYTES_MAX);
    else if (r->record)
        snprintf(why, 512, "%.300s holds no JSON object, and so is not from `bantam train`", name);
    else if (json_decref(json_load_file(name, 0, &error)), error.line > 0)
        snprintf(why, 512, "%.300s is damaged: line %d: %.120s", name, error.line, error.text);
    else
        snprintf(why, 512, "%.400s", error.text);
    return BT_ERROR_DATA;
}

static void read_table(const run *r, const char *file, csv *out) {
    char name[PATH_BYTES + 32];
    snprintf(name, sizeof name, "%s/%s", r->path, file);
    csv_read(out, name);
}

// The checkpoint that an analysis is of: the last one, as `bantam eval` takes it.
static const char *checkpoint_of(const run *r) {
    static const char *const names[] = {"last.safetensors", "best.safetensors"};
    for (int i = 0; i < 2; i++)
        if (checkpoint_bytes(r->path, names[i]) >= 0) return names[i];
    return NULL;
}

static void read_kept(run *r, bt_context *ctx, const char *checkpoint) {
    char path[PATH_BYTES + 64];
    const char *kept;
    uint32_t step;
    snprintf(path, sizeof path, "%s/checkpoints/%s", r->path, checkpoint);
    if (bt_checkpoint_settings(ctx, path, &kept, &step) == BT_OK)
        r->analysis =
            analysis_read(r->path, checkpoint, step, checkpoint_bytes(r->path, checkpoint));
}

static void read_analysis(run *r) {
    char path[PATH_BYTES + 32];
    struct stat info;
    bt_context *ctx;
    const char *checkpoint = checkpoint_of(r);
    snprintf(path, sizeof path, "%s/analysis.json", r->path);
    snprintf(r->no_analysis, sizeof r->no_analysis,
             checkpoint ? "The network has not been tried on its test set since it was saved."
                        : "There is no checkpoint yet, so there is no network to look into.");
    if (!checkpoint || stat(path, &info)) return;
    if (bt_open(&(bt_context_desc){.threads = 1}, &ctx) == BT_OK) read_kept(r, ctx, checkpoint);
    if (ctx) bt_close(ctx);
}

bt_status run_read(run *out, const char *path, char why[512]) {
    memset(out, 0, sizeof *out);
    *why = 0;
    if (strlen(path) >= PATH_BYTES)
        return snprintf(why, 512, "a path of %zu bytes is too long", strlen(path)), BT_ERROR_DATA;
    take_path(out, path);
    bt_status status = read_record(out, why);
    if (status != BT_OK) return run_free(out), status;
    read_table(out, "metrics_train.csv", &out->metrics);
    read_table(out, "metrics_steps.csv", &out->steps);
    read_table(out, "op_timings.csv", &out->timings);
    read_analysis(out);
    return BT_OK;
}

void run_free(run *r) {
    json_decref(r->record);
    csv_free(&r->metrics);
    csv_free(&r->steps);
    csv_free(&r->timings);
    analysis_free(r->analysis);
    memset(r, 0, sizeof *r);
}

// ---- Analysing ---------------------------------------------------------------------------------

// The data folder of the run if it is still there; NULL: as the environment says.
static const char *data_folder(const run *r, const char *data_dir) {
    struct stat info;
    const char *kept = run_text(r, "settings.data-dir.value");
    if (data_dir) return data_dir;
    return *kept && stat(kept, &info) == 0 ? kept : NULL;
}

// The test set of the run; NULL with BT_OK: it is another one now, as no_analysis says.
static bt_status open_test(run *r, bt_context *ctx, const char *data_dir, bt_dataset **out) {
    bt_dataset_info info;
    bt_dataset_desc desc = {.name = run_text(r, "settings.data.value"),
                            .folder = data_folder(r, data_dir),
                            .test = true};
    bt_status status = bt_dataset_open(ctx, &desc, out);
    if (status != BT_OK) return status;
    bt_dataset_describe(*out, &info);
    const char *hash = run_text(r, "data.test.sha256");
    if (!*hash || !strcmp(hash, info.sha256)) return BT_OK;
    snprintf(r->no_analysis, sizeof r->no_analysis,
             "The test set %s is another one now than when the network was trained (SHA-256 "
             "%.12s... and %.12s...).",
             info.name, info.sha256, hash);
    *out = NULL;
    return BT_OK;
}

static bt_status make_analysis(run *r, bt_context *ctx, bt_model *model, bt_dataset *test) {
    bt_dataset_info info;
    bt_evaluation e;
    bt_dataset_describe(test, &info);
    int32_t *predictions = calloc((size_t)info.count + 1, sizeof *predictions);
    bt_status status =
        predictions ? bt_evaluate(ctx, model, test, 0, &e, predictions) : BT_ERROR_MEMORY;
    if (status == BT_OK) r->analysis = analysis_make(ctx, model, test, &e, predictions);
    free(predictions);
    return r->analysis ? BT_OK : BT_ERROR_MEMORY;
}

static bt_status analyse(run *r, bt_context *ctx, const char *data_dir, const char *checkpoint) {
    char path[PATH_BYTES + 64];
    const char *kept;
    bt_model *model;
    bt_dataset *test;
    uint32_t step;
    snprintf(path, sizeof path, "%s/checkpoints/%s", r->path, checkpoint);
    bt_status status = bt_checkpoint_settings(ctx, path, &kept, &step);
    if (status == BT_OK) status = bt_model_load(ctx, path, BT_F32, &model);
    if (status == BT_OK) status = open_test(r, ctx, data_dir, &test);
    if (status != BT_OK || !test) return status;
    status = make_analysis(r, ctx, model, test);
    // (Where it cannot be kept, in a folder of somebody else say, it is made again next time.)
    if (r->analysis) analysis_write(r->analysis, r->path, checkpoint, step);
    return status;
}

void run_analyse(run *r, const char *data_dir, int threads) {
    bt_context *ctx;
    const char *checkpoint = checkpoint_of(r);
    if (r->analysis || !checkpoint) return;
    bt_status status = bt_open(&(bt_context_desc){.threads = threads}, &ctx);
    if (status == BT_OK) status = analyse(r, ctx, data_dir, checkpoint);
    const char *text = ctx ? bt_error_text(ctx) : "";
    if (status != BT_OK)
        snprintf(r->no_analysis, sizeof r->no_analysis, "The network was not tried: %.400s.",
                 *text ? text : bt_status_name(status));
    if (ctx) bt_close(ctx);
}

// ---- The record --------------------------------------------------------------------------------

const json_t *run_get(const run *r, const char *path) {
    const json_t *at = r->record;
    while (at && *path) {
        char part[64];
        size_t length = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)length, path);
        at = json_object_get(at, part);
        path += length + (path[length] == '.');
    }
    return at;
}

const char *run_text(const run *r, const char *path) {
    const char *text = json_string_value(run_get(r, path));
    return text ? text : "";
}

double run_number(const run *r, const char *path) {
    const json_t *at = run_get(r, path);
    return json_is_number(at) ? json_number_value(at) : NAN;
}

bool run_is_running(const run *r) {
    if (strcmp(run_text(r, "status"), "running")) return false;
    int folder = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool locked = folder >= 0 && flock(folder, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (folder >= 0) close(folder);
    return locked;
}
