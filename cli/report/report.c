// `bantam report`: one HTML file of one run or several.
#include "report.h"

#include "curves.h"
#include "page.h"
#include "replace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// The file may not ask for anything from anywhere, whatever is in the texts of a run.
static const char policy[] =
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "style-src 'unsafe-inline'; img-src data:\">\n";

static int cannot_write(const char *path) {
    return fail(BT_ERROR_MEMORY, "%s cannot be written: %s", path, strerror(errno));
}

static int write_page(const char *folder, const char *name, const run *runs, int count) {
    replacement f;
    bool good = replace_begin(&f, folder, name);
    if (good) page_write(f.file, runs, count, policy, NULL);
    return good && replace_end(&f) ? 0 : cannot_write(f.path);
}

static int write_charts(const run *r) {
    static const struct {
        const char *file;
        const curve_chart *chart;
    } charts[] = {{"loss.svg", &loss_chart}, {"throughput.svg", &rate_chart}};
    for (int i = 0; i < 2; i++) {
        replacement f;
        bool good = replace_begin(&f, r->path, charts[i].file);
        if (good) curves_write(f.file, charts[i].chart, r, 1, true);
        if (!good || !replace_end(&f)) return cannot_write(f.path);
    }
    return 0;
}

static int write_beside(const run *r) {
    int code = write_charts(r);
    return code ? code : write_page(r->path, "report.html", r, 1);
}

int report_run(const char *path) {
    char why[512];
    run r;
    bt_status status = run_read(&r, path, why);
    if (status != BT_OK) return fail((int)status, "%s", why);
    int code = write_beside(&r);
    run_free(&r);
    return code;
}

// ---- The command -------------------------------------------------------------------------------

static int read_runs(const settings *s, run *runs) {
    for (int i = 0; i < s->arg_count; i++) {
        char why[512];
        bt_status status = run_read(&runs[i], s->args[i], why);
        if (status != BT_OK) return fail((int)status, "%s", why);
        run_analyse(&runs[i], opt_text(s, "data-dir"), opt_int(s, "threads"));
        if (!runs[i].analysis) note(s, "%s: %s", runs[i].path, runs[i].no_analysis);
    }
    return 0;
}

static int tell(const settings *s, const char *path, const run *runs) {
    if (!opt_flag(s, "json")) return puts(path), 0;
    json_t *list = json_array();
    for (int i = 0; i < s->arg_count; i++) json_array_append_new(list, json_string(runs[i].path));
    return print_json(json_pack("{s:s,s:o}", "report", path, "runs", list));
}

int command_report(settings *s) {
    enum { RUNS_MAX = 32 };
    char path[PATH_BYTES + 32];
    if (s->arg_count == 0 || s->arg_count > RUNS_MAX)
        return fail(BT_ERROR_USAGE,
                    "report needs one RUN to %d: directories that `bantam train` made", RUNS_MAX);
    run *runs = calloc((size_t)s->arg_count, sizeof *runs);
    if (!runs) return fail(BT_ERROR_MEMORY, "out of memory for the runs");
    int code = read_runs(s, runs);
    const char *out = opt_text(s, "out");
    bool own = !out && s->arg_count == 1; // beside what it is of
    snprintf(path, sizeof path, "%s%sreport.html", own ? runs[0].path : "", own ? "/" : "");
    if (!code)
        code = own ? write_beside(&runs[0]) : write_page("", out ? out : path, runs, s->arg_count);
    if (!code) code = tell(s, out ? out : path, runs);
    for (int i = 0; i < s->arg_count; i++) run_free(&runs[i]);
    free(runs);
    return code;
}
