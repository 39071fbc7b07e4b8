// The panels of what a run was: summary, the doctor's findings, settings. Several runs stand side
// by side, a column each.
#include "chart.h"
#include "panels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- Summary -----------------------------------------------------------------------------------

// Each writes what goes into the cell of one run, escaped.
typedef void (*fact_writer)(FILE *out, const run *r);

static void write_member(FILE *out, const run *r, const char *path) {
    const char *text = run_text(r, path);
    chart_text(*text ? text : "-", out);
}

static double last_in(const csv *table, const char *column) {
    return table->rows ? csv_number(table, table->rows - 1, csv_column(table, column)) : NAN;
}

static double last_of(const run *r, const char *column) {
    return last_in(&r->metrics, column);
}

// What is left by the time that the epochs so far took.
static void write_left(FILE *out, const run *r) {
    double epoch = last_of(r, "epoch"), seconds = last_of(r, "time_s");
    double epochs = run_number(r, "settings.epochs.value");
    if (!(epoch > 0 && epochs >= epoch && seconds >= 0)) return;
    fprintf(out, ", epoch %.0f of %.0f done in %.1f s, about %.1f s left", epoch, epochs, seconds,
            seconds / epoch * (epochs - epoch));
}

static void write_status(FILE *out, const run *r) {
    const char *status = run_text(r, "status");
    bool failed = !strcmp(status, "failed"), done = !strcmp(status, "done");
    fprintf(out, "<span class=\"%s\">", failed ? "bad" : done ? "good" : "");
    bool running = run_is_running(r), killed = !running && !strcmp(status, "running");
    if (killed)
        fputs("ended without a word", out);
    else
        write_member(out, r, "status");
    fputs("</span>", out);
    if (running) write_left(out, r);
    if (failed) fputs(": ", out), write_member(out, r, "error");
    if (killed || !strcmp(status, "stopped")) {
        fputs("; go on with: <code>bantam train --resume ", out);
        chart_text(r->path, out);
        fputs("</code>", out);
    }
}

static void write_model(FILE *out, const run *r) {
    write_member(out, r, "model");
    double size = run_number(r, "params");
    if (isfinite(size)) fprintf(out, "<br>%.0f parameters", size);
}

static void write_device(FILE *out, const run *r) {
    write_member(out, r, "device.name");
    fputs(" in ", out);
    write_member(out, r, "device.precision");
    fputs("<br>", out);
    write_member(out, r, "device.description");
    if (!*run_text(r, "program")) return;
    fputs("<br>", out);
    write_member(out, r, "program");
}

static void write_data(FILE *out, const run *r) {
    write_member(out, r, "data.train.name");
    double train = run_number(r, "data.train.count"), test = run_number(r, "data.test.count");
    double validation = run_number(r, "data.validation.count");
    if (isfinite(train))
        fprintf(out, ": %.0f to train, %.0f to validate, %.0f to test", train,
                isfinite(validation) ? validation : 0, isfinite(test) ? test : 0);
}

static void write_test(FILE *out, const run *r) {
    double p = run_number(r, "result.test_acc"),
           error = run_number(r, "result.test_standard_error");
    double loss = run_number(r, "result.test_loss");
    if (!isfinite(p) && r->analysis) // of a run that was stopped, by `bantam report`
        p = r->analysis->accuracy, error = r->analysis->standard_error, loss = r->analysis->loss;
    if (!isfinite(p)) {
        fputs("not yet known", out);
        return;
    }
    fprintf(out, "<strong>%.2f %%</strong>", 100 * p);
    if (isfinite(error)) fprintf(out, " &plusmn; %.2f %%", 100 * error);
    if (isfinite(loss)) fprintf(out, ", loss %.4f", loss);
}

// From the CSV file, which runs that still go on have too.
static void write_validation(FILE *out, const run *r) {
    double best = -1, epoch = NAN;
    int accuracy = csv_column(&r->metrics, "val_acc"), epochs = csv_column(&r->metrics, "epoch");
    for (size_t i = 0; i < r->metrics.rows; i++) {
        double p = csv_number(&r->metrics, i, accuracy);
        if (p > best) best = p, epoch = csv_number(&r->metrics, i, epochs);
    }
    if (best < 0)
        fputs("none", out);
    else
        fprintf(out, "%.2f %% in epoch %.0f", 100 * best, epoch);
}

// From the result; of a run that still goes on, or ended badly, from its finest rows.
static void write_work(FILE *out, const run *r) {
    char rate[24];
    const csv *finest = r->steps.rows ? &r->steps : &r->metrics;
    double seconds = run_number(r, "result.train_s"), steps = run_number(r, "result.steps");
    double epochs = last_of(r, "epoch"), images = run_number(r, "result.images_per_s");
    if (!isfinite(steps)) steps = last_in(finest, "step"), seconds = last_in(finest, "time_s");
    if (!isfinite(steps)) {
        fputs("no step is known of", out);
        return;
    }
    fprintf(out, "%.0f epoch%s, %.0f steps", isfinite(epochs) ? epochs : 0, epochs == 1 ? "" : "s",
            steps);
    if (isfinite(seconds)) fprintf(out, " in %.2f s", seconds);
    if (isfinite(images)) fprintf(out, ", %s images/s", chart_number(images, rate));
}

static void write_origin(FILE *out, const run *r) {
    write_member(out, r, "start");
    fputs(", Bantam ", out);
    write_member(out, r, "version");
    double step = run_number(r, "resumed_at_step");
    if (*run_text(r, "resumed_from") && isfinite(step))
        fprintf(out, ", resumed after step %.0f", step);
}

static void write_command(FILE *out, const run *r) {
    size_t i;
    json_t *word;
    fputs("<code>", out);
    json_array_foreach(run_get(r, "argv"), i, word) {
        if (i) fputc(' ', out);
        chart_text(json_is_string(word) ? json_string_value(word) : "?", out);
    }
    fputs("</code>", out);
}

static const struct {
    const char *title;
    fact_writer write;
} facts[] = {
    {"State", write_status},  {"Test accuracy", write_test}, {"Best validation", write_validation},
    {"Work", write_work},     {"Model", write_model},        {"Data", write_data},
    {"Device", write_device}, {"Started", write_origin},     {"Command", write_command}};

static void write_run_headings(FILE *out, const run *runs, int count) {
    for (int i = 0; i < count; i++) {
        fputs("<th scope=\"col\">", out);
        chart_text(runs[i].name, out);
        fputs("</th>", out);
    }
}

void panel_summary(FILE *out, const run *runs, int count) {
    fputs("<div class=\"scroll\"><table>\n", out);
    if (count > 1) {
        fputs("<thead><tr><td></td>", out);
        write_run_headings(out, runs, count);
        fputs("</tr></thead>\n", out);
    }
    fputs("<tbody>\n", out);
    for (size_t f = 0; f < sizeof facts / sizeof facts[0]; f++) {
        fprintf(out, "<tr><th scope=\"row\">%s</th>", facts[f].title);
        for (int i = 0; i < count; i++) {
            fputs("<td>", out);
            facts[f].write(out, &runs[i]);
            fputs("</td>", out);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    for (int i = 0; i < count; i++)
        if (runs[i].metrics.damaged)
            write_note(out, "%s: %zu lines of metrics_train.csv are damaged and left out.",
                       runs[i].name, runs[i].metrics.damaged);
}

// ---- Findings ----------------------------------------------------------------------------------

static const char *member_text(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static void write_finding(FILE *out, const json_t *finding) {
    bool problem = !strcmp(member_text(finding, "severity"), "problem");
    const char *layer = member_text(finding, "layer");
    fprintf(out, "<li><strong class=\"%s\">%s</strong>", problem ? "bad" : "warn",
            problem ? "Problem" : "Warning");
    if (*layer) {
        fputs(" in <code>", out);
        chart_text(layer, out);
        fputs("</code>", out);
    }
    fputs(": ", out);
    chart_text(member_text(finding, "text"), out);
    fputs("<br>", out);
    chart_text(member_text(finding, "hint"), out);
    fputs("</li>\n", out);
}

static void write_rates(FILE *out, const run *r) {
    char low_text[24], high_text[24];
    double low = run_number(r, "doctor.lr_low"), high = run_number(r, "doctor.lr_high");
    if (!isfinite(low) || !isfinite(high)) return;
    write_note(out, "Learning rates that a short range test found useful: %s to %s.",
               chart_number(low, low_text), chart_number(high, high_text));
}

void panel_findings(FILE *out, const run *runs, int count) {
    for (int i = 0; i < count; i++) {
        const json_t *list = run_get(&runs[i], "findings");
        write_run_name(out, &runs[i], count);
        if (!json_is_array(list)) {
            write_note(out, "The doctor was not asked: `bantam train --doctor` looks for what is "
                            "wrong with a training.");
            continue;
        }
        size_t k, found = json_array_size(list);
        json_t *finding;
        if (found) fputs("<ul class=\"findings\">\n", out);
        json_array_foreach(list, k, finding) write_finding(out, finding);
        if (found) fputs("</ul>\n", out);
        if (strcmp(run_text(&runs[i], "status"), "done"))
            write_note(out,
                       "%s before the training; the doctor looks again when it has ended well.",
                       found ? "Found" : "Nothing was found");
        else if (!found)
            fputs("<p class=\"good\">All is well.</p>\n", out);
        const char *looked = run_text(&runs[i], "doctor.looked_at");
        if (*looked) write_note(out, "%s", looked);
        write_rates(out, &runs[i]);
    }
}

// ---- Settings ----------------------------------------------------------------------------------

static const json_t *setting_of(const run *r, const char *name, const char *member) {
    return json_object_get(json_object_get(run_get(r, "settings"), name), member);
}

static void write_value(FILE *out, const json_t *value) {
    char number[32] = "";
    if (json_is_string(value)) return chart_text(json_string_value(value), out);
    if (json_is_number(value)) snprintf(number, sizeof number, "%.9g", json_number_value(value));
    if (json_is_boolean(value)) snprintf(number, sizeof number, json_is_true(value) ? "on" : "off");
    fputs(*number ? number : "-", out);
}

// Where it came from, unless that is the default.
static void write_setting(FILE *out, const run *r, const char *name) {
    const char *from = json_string_value(setting_of(r, name, "origin"));
    fputs("<td>", out);
    write_value(out, setting_of(r, name, "value"));
    fputs("</td><td class=\"muted\">", out);
    chart_text(from ? from : "-", out);
    fputs("</td>", out);
}

static bool differs(const run *runs, int count, const char *name) {
    for (int i = 1; i < count; i++) {
        const json_t *a = setting_of(&runs[0], name, "value"),
                     *b = setting_of(&runs[i], name, "value");
        if (a != b && !json_equal(a, b)) return true;
    }
    return false;
}

static void write_settings(FILE *out, const run *runs, int count, bool differing,
                           const json_t *names) {
    const char *name;
    json_t *unused;
    fprintf(out,
            "<div class=\"scroll\"><table><caption>%s</caption>\n<thead><tr><th "
            "scope=\"col\">Setting</th>",
            differing ? "Settings that differ" : "All settings, and where each came from");
    for (int i = 0; i < count; i++) {
        fputs("<th scope=\"col\">", out);
        chart_text(count > 1 ? runs[i].name : "Value", out);
        fputs("</th><th scope=\"col\">From</th>", out);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    json_object_foreach((json_t *)(uintptr_t)names, name, unused) {
        if (differing && !differs(runs, count, name)) continue;
        fputs("<tr><th scope=\"row\"><code>", out);
        chart_text(name, out);
        fputs("</code></th>", out);
        for (int i = 0; i < count; i++) write_setting(out, &runs[i], name);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

void panel_settings(FILE *out, const run *runs, int count) {
    json_t *names = json_object(); // of all runs, in the order of the first
    const char *name;
    json_t *unused;
    int differing = 0;
    for (int i = 0; i < count; i++)
        json_object_foreach((json_t *)(uintptr_t)run_get(&runs[i], "settings"), name, unused)
            json_object_set_new(names, name, json_null());
    json_object_foreach(names, name, unused) differing += differs(runs, count, name);
    if (json_object_size(names) == 0) write_note(out, "run.json says nothing of the settings.");
    if (differing) write_settings(out, runs, count, true, names);
    if (count > 1 && !differing) write_note(out, "All settings are the same.");
    if (count > 1) fputs("<details><summary>All settings</summary>\n", out);
    if (json_object_size(names)) write_settings(out, runs, count, false, names);
    if (count > 1) fputs("</details>\n", out);
    json_decref(names);
}
