// Watching a run directory; see live.h. Nothing here waits for a client: texts are made once, and
// who is slow gets the newest one when he comes.
#include "live.h"

#include "report/page.h"
#include "system.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_MS = 250, REST = 200 };

static const char *const watched[] = {"run.json",
                                      "metrics_train.csv",
                                      "metrics_steps.csv",
                                      "op_timings.csv",
                                      "analysis.json",
                                      "checkpoints/last.safetensors",
                                      "checkpoints/best.safetensors"};
enum { WATCHED = sizeof watched / sizeof watched[0], FIRST_CHECKPOINT = WATCHED - 2 };

typedef struct stamps {
    uint64_t of[WATCHED];
} stamps;

typedef struct shown {
    text *event;
    uint64_t version; // of all panels: the count of changes
} shown;

struct live {
    char path[PATH_BYTES];
    bool (*tick)(void *user);
    void *user;
    pthread_t thread;
    pthread_mutex_t lock; // of what follows, up to the empty line
    pthread_cond_t wake;
    bool stop, woken;
    uint64_t asked, answered; // tickets for pages
    text *page;               // that of `answered`; NULL: it failed
    shown *panels;
    uint64_t version;
    bool analysing, analysed; // on the way, and to be collected
    analysis *made;
    char not_made[512];

    run run; // of the thread alone, as all below
    bool known, dirty;
    bool outdated; // its analysis is missing, or that of an older checkpoint
    stamps seen;
    uint64_t tried[2]; // the checkpoints that the last analysis was asked for
    double due;        // when to render again
    pthread_t analyst;
};

// ---- Texts -------------------------------------------------------------------------------------

text *text_make(char *data) {
    text *t = data ? malloc(sizeof *t) : NULL;
    if (t)
        *t = (text){1, strlen(data), data};
    else
        free(data);
    return t;
}

static text *text_take(text *t) {
    if (t) atomic_fetch_add(&t->users, 1);
    return t;
}

void text_drop(text *t) {
    if (!t || atomic_fetch_sub(&t->users, 1) > 1) return;
    free(t->data);
    free(t);
}

static bool text_equal(const text *a, const text *b) {
    return a && b && a->bytes == b->bytes && !memcmp(a->data, b->data, a->bytes);
}

// ---- Analysis ----------------------------------------------------------------------------------

// In a thread of its own, so that curves go on while it computes.
static void *analyse(void *user) {
    live *l = user;
    run r;
    char why[512] = "";
    give_way("live page");
    bool known = run_read(&r, l->path, why) == BT_OK;
    if (known) run_analyse(&r, NULL, 0);
    pthread_mutex_lock(&l->lock);
    l->analysed = true;
    l->made = known ? r.analysis : NULL;
    snprintf(l->not_made, sizeof l->not_made, "%s", known ? r.no_analysis : why);
    if (known) r.analysis = NULL;
    pthread_mutex_unlock(&l->lock);
    if (known) run_free(&r);
    return NULL;
}

static void collect_analysis(live *l) {
    pthread_mutex_lock(&l->lock);
    bool done = l->analysing && l->analysed;
    analysis *made = done ? l->made : NULL;
    if (done) l->analysing = l->analysed = false, l->made = NULL;
    pthread_mutex_unlock(&l->lock);
    if (!done) return;
    pthread_join(l->analyst, NULL);
    l->dirty = true;
    if (!made) return;
    analysis_free(l->run.analysis);
    l->run.analysis = made;
}

// Where the checkpoint has none. Not while the run trains, which would have to wait for it.
static void want_analysis(live *l) {
    const uint64_t *files = l->seen.of + FIRST_CHECKPOINT;
    if (!l->outdated || l->analysing || run_is_running(&l->run) || !(files[0] | files[1]) ||
        !memcmp(files, l->tried, sizeof l->tried))
        return;
    memcpy(l->tried, files, sizeof l->tried);
    l->analysing = !pthread_create(&l->analyst, NULL, analyse, l);
}

// ---- Looking -----------------------------------------------------------------------------------

static uint64_t stamp_of(const char *folder, const char *name) {
    char path[PATH_BYTES + 64];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (stat(path, &info)) return 0;
    uint64_t seconds = (uint64_t)info.st_mtim.tv_sec, part = (uint64_t)info.st_mtim.tv_nsec;
    return ((seconds * 1000000007u + part) * 1000000007u + (uint64_t)info.st_size) | 1;
}

static void look_for_changes(live *l) {
    stamps now;
    for (int i = 0; i < WATCHED; i++) now.of[i] = stamp_of(l->path, watched[i]);
    if (!memcmp(&now, &l->seen, sizeof now)) return;
    if (now.of[0] != l->seen.of[0]) l->due = 0; // run.json: it began or ended
    l->seen = now;
    l->dirty = true;
}

// What was found out about an older checkpoint stays until there is something newer.
static void read_run(live *l) {
    run next;
    char why[512];
    if (run_read(&next, l->path, why) != BT_OK) return; // as it was
    l->outdated = !next.analysis;
    if (!next.analysis && l->known) {
        next.analysis = l->run.analysis;
        l->run.analysis = NULL;
    }
    pthread_mutex_lock(&l->lock);
    if (!next.analysis && *l->not_made)
        snprintf(next.no_analysis, sizeof next.no_analysis, "%s", l->not_made);
    pthread_mutex_unlock(&l->lock);
    if (l->known) run_free(&l->run);
    l->run = next;
    l->known = true;
}

// ---- Rendering ---------------------------------------------------------------------------------

static text *make_event(const char *name, const char *html) {
    char id[80], *event = NULL;
    snprintf(id, sizeof id, "panel-%s", name);
    json_t *object = json_pack("{s:s,s:s}", "id", id, "html", html);
    char *data = object ? json_dumps(object, JSON_COMPACT) : NULL; // no line break inside
    if (data && asprintf(&event, "event: panel\ndata: %s\n\n", data) < 0) event = NULL;
    free(data);
    json_decref(object);
    return text_make(event);
}

static char *panel_html(const live *l, const panel *p) {
    char *html = NULL;
    size_t bytes;
    FILE *out = open_memstream(&html, &bytes);
    if (!out) return NULL;
    panel_write(p, out, &l->run, 1);
    if (!fclose(out)) return html;
    free(html);
    return NULL;
}

static void render_panel(live *l, int i) {
    char *html = panel_html(l, &panels[i]);
    text *event = html ? make_event(panels[i].name, html) : NULL;
    shown *s = &l->panels[i];
    free(html);
    if (!event || text_equal(event, s->event)) {
        text_drop(event);
        return;
    }
    pthread_mutex_lock(&l->lock);
    text_drop(s->event);
    *s = (shown){event, ++l->version};
    pthread_mutex_unlock(&l->lock);
}

// How the page becomes live: a script, and a canvas that is no panel, because it must not be
// replaced while somebody draws on it.
static const char head[] = "<link rel=\"icon\" href=\"data:,\">\n"
                           "<script src=\"live.js\" defer></script>\n";
static const char draw[] =
    "<p id=\"link-state\" class=\"live note\" role=\"status\">connecting</p>\n"
    "<section id=\"panel-draw\" class=\"live\">\n<h2>Draw a digit</h2>\n"
    "<div id=\"draw\">\n<div>\n<div id=\"draw-area\">"
    "<canvas id=\"draw-canvas\" width=\"196\" height=\"196\" tabindex=\"0\" role=\"application\" "
    "aria-label=\"Drawing area\" aria-describedby=\"draw-help\"></canvas>"
    "<span id=\"draw-cursor\"></span></div>\n"
    "<p><button id=\"draw-clear\" type=\"button\">Clear</button></p>\n"
    "<p id=\"draw-help\" class=\"note\">Draw with mouse, finger or pen. With the keyboard: arrows "
    "move, space lowers and lifts the pen, Delete clears.</p>\n</div>\n"
    "<div id=\"draw-result\"></div>\n</div>\n"
    "<p id=\"draw-said\" class=\"note\" aria-live=\"polite\"></p>\n</section>\n";

static text *render_page(const live *l) {
    char *html = NULL;
    size_t bytes;
    FILE *out = l->known ? open_memstream(&html, &bytes) : NULL;
    if (!out) return NULL;
    page_write(out, &l->run, 1, head, draw);
    if (!fclose(out)) return text_make(html);
    free(html);
    return NULL;
}

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void render_panels(live *l, double now) {
    double start = thread_seconds();
    if (l->dirty) read_run(l);
    l->dirty = false;
    if (!l->known) return;
    for (int i = 0; panels[i].name; i++) render_panel(l, i);
    l->due = run_is_running(&l->run) ? now + REST * (thread_seconds() - start) : 0;
}

static void answer_page(live *l, uint64_t ticket) {
    if (l->dirty || !l->known) read_run(l); // (still dirty: the panels are to follow)
    text *page = render_page(l);
    pthread_mutex_lock(&l->lock);
    bool same = text_equal(page, l->page); // then all who load it slowly share one
    text_drop(same ? page : l->page);
    if (!same) l->page = page;
    l->answered = ticket;
    pthread_mutex_unlock(&l->lock);
}

// ---- The thread --------------------------------------------------------------------------------

// Waits for the next look; false: it is the end. Sets the newest ticket.
static bool rest(live *l, uint64_t *ticket) {
    pthread_mutex_lock(&l->lock);
    while (!l->stop && !l->woken && l->asked == l->answered)
        if (!condition_wait(&l->wake, &l->lock, LOOK_MS)) break;
    l->woken = false;
    *ticket = l->asked;
    bool go_on = !l->stop;
    pthread_mutex_unlock(&l->lock);
    return go_on;
}

static void *work(void *user) {
    live *l = user;
    uint64_t ticket;
    give_way("live page"); // (bench/serve.sh looks for it)
    while (rest(l, &ticket)) {
        double now = now_seconds();
        look_for_changes(l);
        collect_analysis(l);
        if (ticket != l->answered) answer_page(l, ticket); // (written by this thread alone)
        bool followed = l->tick(l->user);
        if (!followed) continue;
        if (l->dirty && now >= l->due) {
            render_panels(l, now);
            l->tick(l->user);
        }
        if (l->known) want_analysis(l);
    }
    if (l->analysing) pthread_join(l->analyst, NULL);
    return NULL;
}

// ---- For the server ----------------------------------------------------------------------------

live *live_start(const char *folder, bool (*tick)(void *user), void *user) {
    live *l = calloc(1, sizeof *l);
    int count = 0;
    while (panels[count].name) count++;
    if (!l || !(l->panels = calloc((size_t)count + 1, sizeof *l->panels))) {
        free(l);
        return NULL;
    }
    snprintf(l->path, sizeof l->path, "%s", folder);
    l->tick = tick, l->user = user;
    pthread_mutex_init(&l->lock, NULL);
    condition_make(&l->wake);
    if (!pthread_create(&l->thread, NULL, work, l)) return l;
    live_free(l);
    return NULL;
}

void live_stop(live *l) {
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
}

void live_free(live *l) {
    if (!l) return;
    for (int i = 0; panels[i].name; i++) text_drop(l->panels[i].event);
    if (l->known) run_free(&l->run);
    analysis_free(l->made);
    free(l->panels);
    text_drop(l->page);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

void live_wake(live *l) {
    pthread_mutex_lock(&l->lock);
    l->woken = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
}

uint64_t live_ask(live *l) {
    pthread_mutex_lock(&l->lock);
    uint64_t ticket = ++l->asked;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    return ticket;
}

text *live_page(live *l, uint64_t ticket, bool *failed) {
    pthread_mutex_lock(&l->lock);
    bool ready = l->answered >= ticket;
    text *page = ready ? text_take(l->page) : NULL;
    pthread_mutex_unlock(&l->lock);
    *failed = ready && !page;
    return page;
}

text *live_event(live *l, uint64_t *seen) {
    const shown *next = NULL;
    pthread_mutex_lock(&l->lock);
    for (int i = 0; panels[i].name; i++)
        if (l->panels[i].version > *seen && (!next || l->panels[i].version < next->version))
            next = &l->panels[i];
    text *event = next ? text_take(next->event) : NULL;
    if (event) *seen = next->version;
    pthread_mutex_unlock(&l->lock);
    return event;
}
