// Writing run directories; see rundir.h. Whole files go to a temporary name first and are renamed,
// rows are flushed one by one, so that whatever ends the process leaves files that can be read.
#include "rundir.h"

#include "csv.h"
#include "replace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char METRICS_HEADER[] =
    "epoch,step,time_s,train_loss,train_acc,val_loss,val_acc,lr,images_per_s\n";
static const char STEPS_HEADER[] = "step,time_s,train_loss,train_acc,lr,images_per_s\n";
static const char LOSS_HEADER[] = "step,loss\n";

static int cannot_write(const char *path) {
    return fail(BT_ERROR_MEMORY, "%s cannot be written: %s", path, strerror(errno));
}

// ---- Directories -------------------------------------------------------------------------------

bool rundir_of(const char *checkpoint, char out[PATH_BYTES]) {
    static const char folder[] = "/checkpoints";
    const char *slash = strrchr(checkpoint, '/');
    size_t length = slash ? (size_t)(slash - checkpoint) : 0, tail = sizeof folder - 1;
    if (length <= tail || strncmp(slash - tail, folder, tail)) return false;
    snprintf(out, PATH_BYTES, "%.*s", (int)(length - tail), checkpoint);
    return true;
}

// mkdir -p of everything before the last part.
static void make_parents(const char *path) {
    char part[PATH_BYTES];
    for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(p - path), path);
        mkdir(part, 0777); // what fails here fails again, with a message, at the last part
    }
}

static bool is_empty(const char *path) {
    DIR *dir = opendir(path);
    int entries = 0;
    while (dir && readdir(dir)) entries++;
    if (dir) closedir(dir);
    return dir && entries <= 2;
}

static int make_named(const char *path) {
    struct stat info;
    make_parents(path);
    if (mkdir(path, 0777) == 0) return 0;
    if (errno != EEXIST) return cannot_write(path);
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode) && is_empty(path)) return 0;
    return fail(BT_ERROR_USAGE,
                "--out %s: exists and is not an empty directory; name another, or "
                "go on with --resume %s",
                path, path);
}

// results/<date>-<model>, with a number where runs start in the same second.
static int make_dated(char path[PATH_BYTES], const char *model) {
    char date[32], name[48];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y%m%d-%H%M%S", localtime(&now));
    snprintf(name, sizeof name, "%s", model);
    for (char *p = name; *p; p++)
        if (strchr("/, ", *p)) *p = '-';
    if (mkdir("results", 0777) && errno != EEXIST) return cannot_write("results");
    for (int i = 1; i < 1000; i++) {
        snprintf(path, PATH_BYTES, i == 1 ? "results/%s-%s" : "results/%s-%s-%d", date, name, i);
        if (mkdir(path, 0777) == 0) return 0;
        if (errno != EEXIST) break;
    }
    return cannot_write(path);
}

int rundir_make(rundir *r, const char *out, const char *model) {
    if (out && strlen(out) >= PATH_BYTES)
        return fail(BT_ERROR_USAGE, "--out: the path is too long");
    if (out) snprintf(r->path, sizeof r->path, "%s", out);
    return out ? make_named(r->path) : make_dated(r->path, model);
}

int rundir_lock(rundir *r) {
    r->lock = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    // (Who asks whether a run is being trained holds the lock for a moment; see run_is_running.)
    for (int tries = 0; r->lock > 0 && flock(r->lock, LOCK_EX | LOCK_NB); tries++) {
        if (errno != EWOULDBLOCK) break; // a file system without locks
        if (tries == 10)
            return fail(BT_ERROR_USAGE,
                        "%s is being trained by another process; wait for its end, or stop it",
                        r->path);
        usleep(20000);
    }
    return 0;
}

void rundir_discard(const rundir *r) {
    char path[PATH_BYTES + 16];
    snprintf(path, sizeof path, "%s/checkpoints", r->path);
    rmdir(path);
    rmdir(r->path);
}

// ---- Whole files -------------------------------------------------------------------------------

bool rundir_try_save(const rundir *r) {
    replacement f;
    if (!replace_begin(&f, r->path, "run.json")) return false;
    json_dumpf(r->record, f.file, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    fputc('\n', f.file);
    return replace_end(&f);
}

int rundir_save(const rundir *r) {
    return rundir_try_save(r) ? 0 : cannot_write(r->path);
}

int rundir_timings(const rundir *r, const json_t *rows) {
    replacement f;
    bool good = replace_begin(&f, r->path, "op_timings.csv");
    if (good) csv_write(rows, f.file);
    return good && replace_end(&f) ? 0 : cannot_write(f.path);
}

// ---- Rows --------------------------------------------------------------------------------------

static double field(const char *row, int index) {
    for (; index > 0 && row; index--) row = strchr(row, ','), row += row != NULL;
    char *end = NULL;
    double number = row ? strtod(row, &end) : NAN;
    return end == row ? NAN : number;
}

// Keeps the header and the whole rows whose field `step_at` is at most `step`.
static int cut_rows(const char *folder, const char *name, const char *path, const char *header,
                    int step_at, uint32_t step) {
    char row[512];
    replacement f;
    FILE *old = csv_open(path);
    if (!old && errno != ENOENT) return cannot_write(path);
    bool good = replace_begin(&f, folder, name);
    if (good) fputs(header, f.file);
    while (good && old && fgets(row, sizeof row, old)) {
        if (strchr(row, '\n') && field(row, step_at) <= step) fputs(row, f.file);
    }
    if (old) fclose(old);
    return good && replace_end(&f) ? 0 : cannot_write(path);
}

// folder "": `name` is a path that the user named, which may be a device.
static int open_rows(const char *folder, const char *name, const char *header, int step_at,
                     uint32_t step, FILE **out) {
    char path[PATH_BYTES + 64];
    struct stat info;
    snprintf(path, sizeof path, "%s%s%s", folder, *folder ? "/" : "", name);
    bool device = !*folder && stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    int code = step && !device ? cut_rows(folder, name, path, header, step_at, step) : 0;
    if (code) return code;
    *out = fopen(path, step && !device ? "a" : "w");
    if (!*out) return cannot_write(path);
    if (!step || device) fputs(header, *out);
    return fflush(*out) == 0 ? 0 : cannot_write(path);
}

int rundir_begin(rundir *r, const char *loss_log, bool exact, const bt_train_desc *desc,
                 uint32_t step) {
    bt_dataset_info info;
    bt_dataset_describe(desc->train, &info);
    r->exact = exact, r->desc = desc, r->samples = info.count;
    int code = open_rows(r->path, "metrics_train.csv", METRICS_HEADER, 1, step, &r->metrics);
    if (!code) code = open_rows(r->path, "metrics_steps.csv", STEPS_HEADER, 0, step, &r->steps);
    if (code || !loss_log) return code;
    return open_rows("", loss_log, LOSS_HEADER, 0, step, &r->loss_log);
}

// A number, or nothing where it is not known.
static void print_field(double number, const char *end, FILE *out) {
    if (isfinite(number)) fprintf(out, "%.9g", number);
    fputs(end, out);
}

static void write_row(const bt_progress *now, FILE *out) {
    fprintf(out, "%d,%u,", now->epoch, now->step);
    print_field(now->seconds, ",", out);
    print_field(now->train_loss, ",", out);
    print_field(now->train_accuracy, ",", out);
    print_field(now->val_loss, ",", out);
    print_field(now->val_accuracy, ",", out);
    print_field(now->lr, ",", out);
    print_field(now->images_per_second, "\n", out);
}

void rundir_end(rundir *r) {
    rundir_steps *sum = &r->sum;
    if (!sum->rows) return;
    fprintf(r->steps, "%u,", sum->step);
    print_field(sum->end, ",", r->steps);
    print_field(sum->loss / sum->rows, ",", r->steps);
    print_field(sum->correct / sum->rows, ",", r->steps);
    print_field(sum->lr, ",", r->steps);
    print_field(sum->rows / (sum->end - sum->since), "\n", r->steps);
    fflush(r->steps);
    *sum = (rundir_steps){.since = sum->end};
}

// Adds step `step` (the first is 1), which ended at about `seconds`.
static void add_step(rundir *r, const bt_progress *now, const bt_log_entry *entry, uint32_t step,
                     double seconds) {
    enum { ROWS = 500 }; // at most, of a run
    int64_t left = r->samples - (int64_t)((step - 1) % now->epoch_steps) * r->desc->batch;
    double rows = (double)(left < r->desc->batch ? left : r->desc->batch);
    r->sum.loss += entry->loss * rows;
    r->sum.correct += entry->correct;
    r->sum.rows += rows;
    r->sum.step = step, r->sum.end = seconds;
    r->sum.lr = bt_schedule_at(r->desc, step - 1, now->steps, now->epoch_steps).lr;
    if (step % ((now->steps - 1) / ROWS + 1) == 0) rundir_end(r);
}

int rundir_progress(rundir *r, const bt_progress *now) {
    double start = r->seconds,
           each = (now->seconds - start) / (now->log_count ? now->log_count : 1);
    if (now->event == BT_EVENT_START) r->sum.since = now->seconds;
    for (uint32_t i = 0; i < now->log_count; i++) {
        uint32_t step = now->log_first + i + 1;
        add_step(r, now, &now->log[i], step, start + (i + 1) * each);
        if (r->loss_log)
            fprintf(r->loss_log, r->exact ? "%u,%.17g\n" : "%u,%.9g\n", step,
                    isnan(now->log[i].loss) ? NAN : now->log[i].loss); // (without its sign)
    }
    r->seconds = now->seconds;
    if (now->event == BT_EVENT_EPOCH) write_row(now, r->metrics);
    bool failed = fflush(r->metrics) || fflush(r->steps) || (r->loss_log && fflush(r->loss_log));
    return failed ? errno : 0;
}

void rundir_close(rundir *r) {
    if (r->metrics) fclose(r->metrics);
    if (r->steps) fclose(r->steps);
    if (r->loss_log) fclose(r->loss_log);
    if (r->lock > 0) close(r->lock);
    json_decref(r->record);
}
