// The page of a run: what it says agrees with the files that it is made of, it has every panel
// whatever is missing or damaged, and nothing that is in a run directory becomes markup.
#include "csv.h"
#include "replace.h"
#include "report/curves.h"
#include "report/page.h"
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- Help --------------------------------------------------------------------------------------

static char trained[600]; // a run of mlp on digits, profiled; of two epochs with 8 steps

static int bantam(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int bantam(const char *format, ...) {
    char command[3000];
    const char *build = getenv("BUILD");
    int used = snprintf(command, sizeof command, "%s/bantam ", build ? build : "build");
    va_list args;
    va_start(args, format);
    vsnprintf(command + used, sizeof command - (size_t)used, format, args);
    va_end(args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void write_text(const char *path, const char *text) {
    write_file(path, text, strlen(text));
}

// A new directory in the scratch folder.
static const char *folder(const char *name) {
    const char *path = in_scratch(name);
    check(!mkdir(path, 0777), "%s cannot be made", path);
    return path;
}

static const char *in_folder(const char *path, const char *name) {
    static char out[4][700];
    static int next;
    next = (next + 1) % 4;
    snprintf(out[next], sizeof out[next], "%s/%s", path, name);
    return out[next];
}

static run open_run(const char *path) {
    run r;
    char why[512];
    check(run_read(&r, path, why) == BT_OK, "%s", why);
    return r;
}

// The page, to be freed.
static char *page_of(const run *runs, int count) {
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    page_write(out, runs, count, NULL, NULL);
    fclose(out);
    return text;
}

static int times(const char *text, const char *part) {
    int count = 0;
    for (const char *p = text; (p = strstr(p, part)); p += strlen(part)) count++;
    return count;
}

// Alone, not within the base64 of an image.
static bool has_word(const char *text, const char *word) {
    static const char inside[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";
    for (const char *p = text; (p = strstr(p, word)); p++) {
        char before = p > text ? p[-1] : ' ', after = p[strlen(word)];
        if (!strchr(inside, before) && (!after || !strchr(inside, after))) return true;
    }
    return false;
}

// Every panel is there once, tags are balanced, and nothing is fetched or run.
static void check_page(const char *text) {
    for (const panel *p = panels; p->name; p++) {
        char id[64];
        snprintf(id, sizeof id, "<section id=\"panel-%s\"", p->name);
        check(times(text, id) == 1, "%s: %d times", id, times(text, id));
    }
    static const char *const tags[] = {"section", "table", "tr", "td", "th", "p",
                                       "div",     "svg",   "g",  "li", "h2", "details"};
    for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++) {
        char open[32], bare[32], close[32];
        snprintf(open, sizeof open, "<%s ", tags[i]), snprintf(bare, sizeof bare, "<%s>", tags[i]);
        snprintf(close, sizeof close, "</%s>", tags[i]);
        check(times(text, open) + times(text, bare) == times(text, close), "<%s> and %s: %d and %d",
              tags[i], close, times(text, open) + times(text, bare), times(text, close));
    }
    check(!strstr(text, "<script"), "the page has a script");
    check(!strstr(text, "src=") && !strstr(text, "url(") && !strstr(text, "@import"),
          "the page fetches something");
    for (const char *p = text; (p = strstr(p, "href=")); p++)
        check(p[6] == '#' || !strncmp(p + 6, "data:image/png", 14), "a link leads away: %.40s", p);
    check(!has_word(text, "nan") && !has_word(text, "inf"), "a number is none");
}

static void check_run(const char *path) {
    run r = open_run(path);
    char *text = page_of(&r, 1);
    check_page(text);
    free(text);
    run_free(&r);
}

static int train_once(void **state) {
    (void)state;
    snprintf(trained, sizeof trained, "%s", in_scratch("trained"));
    return bantam("train mlp digits --limit 270 --val-split 0.0519 --batch 32 --epochs 2 --profile "
                  "--out %s --quiet >/dev/null",
                  trained);
}

// ---- CSV ---------------------------------------------------------------------------------------

static void test_csv(void **state) {
    (void)state;
    csv c;
    const char *path = in_scratch("t.csv");
    write_text(path, "a,b\n1,2\r\n3\n4,five\n6,7,8\n,9\n10,1");
    check(csv_read(&c, path), "not read");
    check(c.columns == 2 && c.rows == 3 && c.damaged == 2, "%d columns, %zu rows, %zu damaged",
          c.columns, c.rows, c.damaged);
    int b = csv_column(&c, "b");
    check(csv_number(&c, 0, b) == 2 && isnan(csv_number(&c, 1, b)), "numbers of b");
    check(!strcmp(csv_text(&c, 1, b), "five"), "text of b");
    check(isnan(csv_number(&c, 2, 0)) && csv_number(&c, 2, b) == 9, "an empty field");
    check(csv_column(&c, "c") == -1 && isnan(csv_number(&c, 0, -1)), "an unknown column");
    check(isnan(csv_number(&c, 3, 0)) && !*csv_text(&c, 99, 0), "a row that is not there");
    csv_free(&c);
    static const char *const odd[] = {"", "\n", "a", "a\n", "\n\n\n", ",,\n,,\n", "a,b\n1,2"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        write_text(path, odd[i]);
        check(csv_read(&c, path), "'%s' not read", odd[i]);
        check(c.rows == (i == 4 ? 2u : i == 5), "'%s' has %zu rows", odd[i], c.rows);
        csv_free(&c);
    }
    check(!csv_read(&c, in_scratch("absent.csv")) && c.rows == 0, "an absent file is read");
    check(!csv_read(&c, scratch()) && c.rows == 0, "a folder is read");
}

// ---- What a run leaves -------------------------------------------------------------------------

static void test_steps(void **state) {
    (void)state;
    run r = open_run(trained);
    int loss = csv_column(&r.steps, "train_loss"), step = csv_column(&r.steps, "step");
    check(r.metrics.rows == 2 && r.steps.rows == 16, "%zu epochs and %zu rows of steps",
          r.metrics.rows, r.steps.rows);
    for (int epoch = 0; epoch < 2; epoch++) { // all batches are as large
        double sum = 0,
               want = csv_number(&r.metrics, (size_t)epoch, csv_column(&r.metrics, "train_loss"));
        for (size_t i = 0; i < 8; i++) {
            check(csv_number(&r.steps, (size_t)epoch * 8 + i, step) == 8 * epoch + (int)i + 1,
                  "step of row %zu", i);
            sum += csv_number(&r.steps, (size_t)epoch * 8 + i, loss);
        }
        check(fabs(sum / 8 - want) < 1e-6 * want, "epoch %d: mean %g of steps, %g of the epoch",
              epoch + 1, sum / 8, want);
    }
    run_free(&r);
}

static void move_and_link(const char *path, const char *to) {
    check(!rename(path, to) && !symlink(to, path), "%s cannot be a link", path);
}

static void test_resumed(void **state) {
    (void)state;
    const char *out = in_scratch("resumed"), *log = in_scratch("loss.csv");
    check(!bantam("train mlp digits --limit 2000 --epochs 2 --batch 2 --out %s --loss-log %s "
                  "--quiet >/dev/null",
                  out, log),
          "training failed");
    // Moved away, and a link left behind: the rows are still read.
    move_and_link(in_folder(out, "metrics_train.csv"), in_scratch("moved.csv"));
    move_and_link(log, in_scratch("moved-loss.csv"));
    check(!bantam("train --resume %s --epochs 3 --loss-log %s --quiet >/dev/null", out, log),
          "going on failed");
    run r = open_run(out);
    double last = 0;
    for (size_t i = 0; i < r.steps.rows; i++) {
        double now = csv_number(&r.steps, i, csv_column(&r.steps, "step"));
        check(now > last, "step %g after %g", now, last);
        last = now;
    }
    // Every 4th of 1900 steps, then every 6th of 950.
    check(last == 2850 && r.steps.rows == 475 + 159 && r.metrics.rows == 3,
          "%zu rows end at step %g", r.steps.rows, last);
    csv losses;
    check(csv_read(&losses, in_scratch("moved-loss.csv")) && losses.rows == 2850,
          "%zu rows of losses", losses.rows);
    csv_free(&losses);
    run_free(&r);
    check_run(out);
}

// All steps are in the rows, also of a training that ended long before the last one.
static void test_ended_early(void **state) {
    (void)state;
    const char *out = in_scratch("early");
    check(!bantam("train fc10 digits --limit 640 --epochs 9999 --max-time 0.2 --out %s --quiet "
                  ">/dev/null",
                  out),
          "training failed");
    run r = open_run(out);
    double steps = run_number(&r, "result.steps");
    double last = csv_number(&r.steps, r.steps.rows - 1, csv_column(&r.steps, "step"));
    check(r.steps.rows && last == steps, "%zu rows end at step %g of %g", r.steps.rows, last,
          steps);
    run_free(&r);
}

static bool page_has(const char *run_path, const char *text) {
    check(!bantam("report %s >/dev/null", run_path), "no page");
    size_t bytes;
    char *page = (char *)read_file(in_folder(run_path, "report.html"), &bytes);
    bool has = page && strstr(page, text);
    free(page);
    return has;
}

// Two processes do not write one run; who looks at it knows a killed one from one at work.
static void test_locked(void **state) {
    (void)state;
    const char *out = folder("locked");
    check(!bantam("train fc10 digits --limit 200 --epochs 1 --out %s --quiet >/dev/null", out),
          "training failed");
    json_t *record = json_load_file(in_folder(out, "run.json"), 0, NULL);
    json_object_set_new(record, "status", json_string("running"));
    json_dump_file(record, in_folder(out, "run.json"), 0);
    json_decref(record);
    int fd = open(out, O_RDONLY | O_DIRECTORY);
    check(fd >= 0 && !flock(fd, LOCK_EX), "no lock");
    check(bantam("train --resume %s --epochs 2 --quiet 2>/dev/null >/dev/null", out) ==
              BT_ERROR_USAGE,
          "two train one run");
    check(page_has(out, ">running<"), "a run at work");
    close(fd);
    check(page_has(out, ">ended without a word<"), "a run that was killed");
    check(!bantam("train --resume %s --epochs 2 --quiet >/dev/null", out), "it does not go on");
}

// A page says how its run ended, and nothing about a network that was.
static void test_failed(void **state) {
    (void)state;
    const char *out = in_scratch("failed");
    check(!bantam("train fc64,fc64,fc10 digits --limit 500 --epochs 1 --doctor --out %s --quiet "
                  ">/dev/null",
                  out),
          "training failed");
    check(!access(in_folder(out, "analysis.json"), R_OK), "no analysis");
    check(bantam("train --resume %s --epochs 9 --lr 20 --momentum 0.99 --sched const --quiet "
                 "2>/dev/null "
                 ">/dev/null",
                 out) == BT_ERROR_NUMERIC,
          "the loss is still finite");
    check(access(in_folder(out, "analysis.json"), R_OK), "the analysis of an older network");
    size_t bytes;
    char *page = (char *)read_file(in_folder(out, "report.html"), &bytes);
    check(page && strstr(page, ">failed<") && !strstr(page, "All is well"), "the page");
    run r = open_run(out); // how it failed is told, and what the doctor had found is kept
    int loss = csv_column(&r.steps, "train_loss");
    double most = 0;
    for (size_t i = 0; i < r.steps.rows; i++) most = fmax(most, csv_number(&r.steps, i, loss));
    check(most > 100, "a loss of at most %g", most);
    check(json_is_array(json_object_get(r.record, "findings")), "no findings");
    run_free(&r);
    free(page);
}

static void test_analysis(void **state) {
    (void)state;
    run r = open_run(trained);
    const analysis *a = r.analysis;
    check(a, "train kept no analysis: %s", r.no_analysis);
    uint32_t all = 0, right = 0;
    for (int i = 0; i < 100; i++) all += a->confusion[i], right += i % 11 ? 0 : a->confusion[i];
    check(all == 10000 && (int)all == a->count && (int)right == a->correct, "%u, %u right", all,
          right);
    check(fabs(a->accuracy - run_number(&r, "result.test_acc")) < 1e-9, "accuracy %g of %g",
          a->accuracy, run_number(&r, "result.test_acc"));
    check(a->mistake_count == MISTAKES_MAX, "%d mistakes", a->mistake_count);
    for (int i = 0; i < a->mistake_count; i++) {
        const mistake *m = &a->mistakes[i];
        check(m->label != m->predicted && m->p_predicted >= m->p_label, "mistake %d is none", i);
        check(i == 0 || m->p_label >= a->mistakes[i - 1].p_label, "mistake %d is out of order", i);
    }
    check(a->filter_count == FILTERS_MAX && a->filter_all == 128 && a->filter_width == 28,
          "%d filters of %d", a->filter_count, a->filter_all);
    check(a->layer_count == 3 && a->layers[0].weight_norm > 0 && isnan(a->layers[1].weight_norm),
          "layers");
    run_free(&r);
}

// What the command computes is what train kept.
static void test_made_again(void **state) {
    (void)state;
    size_t n, m;
    char kept[700];
    snprintf(kept, sizeof kept, "%s/analysis.json", trained);
    uint8_t *before = read_file(kept, &n);
    check(before && !unlink(kept), "no analysis was kept");
    check(!bantam("report %s >/dev/null", trained), "report failed");
    uint8_t *after = read_file(kept, &m);
    check(after && n == m && !memcmp(before, after, n), "the analyses differ");
    free(before);
    free(after);
}

static void test_scores(void **state) {
    (void)state;
    static const uint32_t matrix[] = {6, 2, 0, 1, 3, 0, 0, 0, 0};
    class_scores s = scores_of_class(matrix, 3, 0);
    check(s.count == 8 && s.recall == 0.75 && fabs(s.precision - 6 / 7.0) < 1e-15, "class 0");
    check(fabs(s.f1 - 0.8) < 1e-15, "F1 is %g", s.f1);
    s = scores_of_class(matrix, 3, 2);
    check(s.count == 0 && s.recall == 0 && s.precision == 0 && s.f1 == 0, "an absent class");
}

// ---- The page ----------------------------------------------------------------------------------

static void test_page(void **state) {
    (void)state;
    run r = open_run(trained);
    char *text = page_of(&r, 1), accuracy[32];
    check_page(text);
    snprintf(accuracy, sizeof accuracy, "<strong>%.2f %%</strong>", 100 * r.analysis->accuracy);
    check(strstr(text, accuracy), "no %s", accuracy);
    check(strstr(text, "launch gaps") && strstr(text, "command line"), "operators or settings");
    check(times(text, "Test image ") == MISTAKES_MAX, "%d images", times(text, "Test image "));
    free(text);
    run_free(&r);
}

static void test_several(void **state) {
    (void)state;
    const char *other = in_scratch("other");
    check(!bantam("train fc10 digits --limit 300 --lr 0.05 --epochs 1 --out %s --quiet >/dev/null",
                  other),
          "training failed");
    const char *out = in_scratch("both.html");
    check(!bantam("report %s %s --out %s >/dev/null", trained, other, out), "report failed");
    size_t n;
    char *text = (char *)read_file(out, &n);
    text[n - 1] = 0;
    check_page(text);
    const char *table = strstr(text, "Settings that differ");
    check(table && strstr(table, "<code>lr</code>") && strstr(table, "0.05"), "no lr that differs");
    const char *end = strstr(table, "</table>"), *seed = strstr(table, "<code>seed</code>");
    check(seed > end, "the seed does not differ");
    check(strstr(text, "other, validation") && strstr(text, "trained, training"), "no legend");
    free(text);
}

// Texts of a run directory never become markup, whatever their type.
static void test_hostile_texts(void **state) {
    (void)state;
    static const char evil[] = "<script>alert('1')</script>\\\"&";
    char record[6000];
    const char *path = folder("evil");
    snprintf(
        record, sizeof record,
        "{\"status\":\"failed\",\"error\":\"%s\",\"model\":\"%s\",\"argv\":[\"%s\",7],"
        "\"device\":{\"name\":\"%s\",\"precision\":[]},\"data\":{\"train\":{\"name\":\"%s\"}},"
        "\"settings\":{\"%s\":{\"value\":\"%s\",\"origin\":\"%s\"},\"b\":7,\"c\":{\"value\":{}}},"
        "\"findings\":[{\"severity\":\"%s\",\"layer\":\"%s\",\"text\":\"%s\",\"hint\":\"%s\"},3],"
        "\"doctor\":{\"looked_at\":\"%s\",\"lr_low\":\"x\"},\"program\":\"%s\","
        "\"result\":{\"test_acc\":\"%s\"},\"version\":\"%s\",\"start\":\"%s\"}",
        evil, evil, evil, evil, evil, evil, evil, evil, evil, evil, evil, evil, evil, evil, evil,
        evil, evil);
    write_text(in_folder(path, "run.json"), record);
    write_text(in_folder(path, "metrics_train.csv"),
               "epoch,step,time_s,train_loss\n1,<script>,nan,inf\n2,1e999,-1,-5\n");
    write_text(in_folder(path, "op_timings.csv"),
               "operator,kernel,calls,total_ms,percent,gflops,gbytes_s\n<script>x,\"><script>,nan,"
               "5,1e308,nan,0\n\"',&,1,-3,0,0,0\n");
    check_run(path);
}

static void test_missing_parts(void **state) {
    (void)state;
    static const char *const records[] = {
        "{}", "{\"status\":\"running\",\"settings\":{\"epochs\":{\"value\":3}}}",
        "{\"status\":\"stopped\",\"settings\":[],\"findings\":{},\"argv\":{}}"};
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "part%zu", i);
        const char *path = folder(name);
        write_text(in_folder(path, "run.json"), records[i]);
        check_run(path);
        write_text(in_folder(path, "metrics_train.csv"),
                   "epoch,step,time_s,train_loss,train_acc,val_loss,val_acc,lr,images_per_s\n"
                   "1,10,0.5,2.3,0.1,,,0.1,50\nhalf a li");
        check_run(path);
    }
}

static void check_text(const char *path, const char *want) {
    size_t n;
    char *text = (char *)read_file(path, &n);
    check(text && n == strlen(want) && !memcmp(text, want, n), "%s holds: %.100s", path,
          text ? text : "");
    free(text);
}

// Links that a run directory came with lead nowhere, and neither do those in the place of the
// temporary file; nothing waits for a FIFO.
static void test_hostile_links(void **state) {
    (void)state;
    static const char *const written[] = {"report.html", "loss.svg", "throughput.svg"};
    const char *path = folder("links"), *victim = in_scratch("victim");
    char temporary[64];
    write_text(victim, "precious");
    write_text(in_folder(path, "run.json"), "{}");
    for (int i = 0; i < 3; i++)
        check(!symlink(victim, in_folder(path, written[i])), "no link %s", written[i]);
    check(!mkfifo(in_folder(path, "metrics_train.csv"), 0600), "no FIFO");
    csv c;
    alarm(10); // ends the test, should it wait
    check(!csv_read(&c, in_folder(path, "metrics_train.csv")), "a FIFO is read");
    alarm(0);
    check(!bantam("report %s >/dev/null", path), "no report");
    check_text(victim, "precious");
    replacement f;
    snprintf(temporary, sizeof temporary, "own.txt.%ld-0.tmp", (long)getpid());
    check(!symlink(victim, in_folder(path, temporary)), "no link");
    check(replace_begin(&f, path, "own.txt") && fputs("mine", f.file) >= 0 && replace_end(&f),
          "own.txt: %s", strerror(errno));
    check_text(victim, "precious");
    check_text(in_folder(path, "own.txt"), "mine");
    // But a link that the user names means the file.
    check(!symlink(in_folder(path, "own.txt"), in_folder(path, "named")), "no link");
    check(replace_begin(&f, "", in_folder(path, "named")) && fputs("new", f.file) >= 0 &&
              replace_end(&f),
          "named: %s", strerror(errno));
    check_text(in_folder(path, "own.txt"), "new");
}

static void test_damaged_checkpoint(void **state) {
    (void)state;
    const char *path = folder("broken");
    check(!mkdir(in_folder(path, "checkpoints"), 0777), "no folder");
    write_text(in_folder(path, "run.json"), "{\"settings\":{\"data\":{\"value\":\"digits\"}}}");
    write_text(in_folder(path, "checkpoints/last.safetensors"), "nothing of the kind");
    write_text(in_folder(path, "analysis.json"), "{\"format\":1}");
    check(!bantam("report %s >/dev/null 2>&1", path), "the report ended");
    run r = open_run(path);
    run_analyse(&r, NULL, 1);
    check(!r.analysis && strstr(r.no_analysis, "last.safetensors"), "%s", r.no_analysis);
    run_free(&r);
}

// ---- What is no run ----------------------------------------------------------------------------

static void check_refused(const char *path, const char *part) {
    run r;
    char why[512];
    check(run_read(&r, path, why) == BT_ERROR_DATA, "%s was read", path);
    check(strstr(why, part), "%s: '%s' says nothing of '%s'", path, why, part);
}

static void test_no_run(void **state) {
    (void)state;
    check_refused(in_scratch("traned"), "did you mean");
    check_refused(in_scratch("nothing at all like it"), "is not there");
    check_refused(scratch(), "folder of runs");
    check_refused(in_folder(trained, "run.json"), "the run directory is");
    check_refused(in_folder(trained, "checkpoints/last.safetensors"), "the run directory is");
    const char *path = folder("bare");
    check_refused(path, "no run.json");
    write_text(in_folder(path, "run.json"), "{\"status\":");
    check_refused(path, "line 1");
    write_text(in_folder(path, "run.json"), "[]");
    check_refused(path, "no JSON object");
    size_t large = 5 << 20;
    char *spaces = allocate(large);
    memset(spaces, ' ', large);
    write_file(in_folder(path, "run.json"), spaces, large);
    check_refused(path, "at most");
    free(spaces);
}

static void test_command(void **state) {
    (void)state;
    check(bantam("report 2>/dev/null") == BT_ERROR_USAGE, "no argument");
    check(bantam("report %s/nowhere 2>/dev/null", scratch()) == BT_ERROR_DATA, "no such run");
    check(bantam("report %s --out %s/no/such/place.html 2>/dev/null", trained, scratch()) ==
              BT_ERROR_MEMORY,
          "an output that cannot be written");
    // A device stays one.
    struct stat info;
    check(bantam("report %s --out /dev/full 2>/dev/null", trained) == BT_ERROR_MEMORY, "/dev/full");
    check(stat("/dev/full", &info) || S_ISCHR(info.st_mode), "/dev/full was replaced");
    const char *piped = in_scratch("piped.html");
    check(!bantam("report %s --out /dev/stdout | cat >%s", trained, piped), "/dev/stdout");
    size_t bytes;
    uint8_t *page = read_file(piped, &bytes);
    check(page && bytes > 10000 && !memcmp(page, "<!DOCTYPE", 9), "no page came to /dev/stdout");
    free(page);
    const char *out = in_scratch("said.json");
    check(!bantam("report %s/ --json >%s", trained, out), "--json");
    json_t *said = json_load_file(out, 0, NULL);
    const char *report = json_string_value(json_object_get(said, "report"));
    check(report && !access(report, R_OK), "no report where it says");
    json_decref(said);
    check(!access(in_folder(trained, "loss.svg"), R_OK), "no loss.svg");
}

// ---- Hostile analyses --------------------------------------------------------------------------

// An analysis with some bytes changed is refused or makes a page.
static void test_hostile_analysis(void **state) {
    (void)state;
    run r = open_run(trained);
    const analysis *a = r.analysis;
    const char *path = folder("mutated");
    size_t n;
    uint8_t *good = read_file(in_folder(trained, "analysis.json"), &n), *bad = allocate(n);
    uint64_t random = 5;
    int taken = 0;
    for (int i = 0; i < (quick() ? 50 : 400); i++) {
        memcpy(bad, good, n);
        for (int k = 0; k < 2; k++) { // (most of the file are pixels, in the middle)
            size_t at = (size_t)test_random(&random, 0, (double)n);
            if (i % 2) at = i % 4 == 1 ? at % 600 : n - 1 - at % 600;
            bad[at] = (uint8_t) "0123456789-.,:\"[]{}enul"[(int)test_random(&random, 0, 23)];
        }
        write_file(in_folder(path, "analysis.json"), bad, n - (i % 7 == 6 ? n / 2 : 0));
        analysis *b = analysis_read(path, a->checkpoint, a->step, a->bytes);
        if (!b) continue;
        run copy = r;
        copy.analysis = b;
        free(page_of(&copy, 1));
        analysis_free(b);
        taken++;
    }
    check(taken > 0, "all were refused");
    write_file(in_folder(path, "analysis.json"), good, n);
    analysis *same = analysis_read(path, a->checkpoint, a->step, a->bytes);
    check(same && same->filter_full == a->filter_full, "the good one was refused");
    check(!analysis_read(path, a->checkpoint, a->step + 1, a->bytes), "of another step");
    check(!analysis_read(path, a->checkpoint, a->step, a->bytes + 1), "of another size");
    check(!analysis_read(path, "best.safetensors", a->step, a->bytes), "of another checkpoint");
    analysis_free(same);
    free(good);
    free(bad);
    run_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_csv),
                                       cmocka_unit_test(test_scores),
                                       cmocka_unit_test(test_steps),
                                       cmocka_unit_test(test_analysis),
                                       cmocka_unit_test(test_made_again),
                                       cmocka_unit_test(test_page),
                                       cmocka_unit_test(test_several),
                                       cmocka_unit_test(test_resumed),
                                       cmocka_unit_test(test_failed),
                                       cmocka_unit_test(test_ended_early),
                                       cmocka_unit_test(test_locked),
                                       cmocka_unit_test(test_hostile_texts),
                                       cmocka_unit_test(test_missing_parts),
                                       cmocka_unit_test(test_hostile_links),
                                       cmocka_unit_test(test_damaged_checkpoint),
                                       cmocka_unit_test(test_no_run),
                                       cmocka_unit_test(test_command),
                                       cmocka_unit_test(test_hostile_analysis)};
    return cmocka_run_group_tests(tests, train_once, NULL);
}
