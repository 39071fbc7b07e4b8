// The progress bar and its plain twin; see progress.h.
#include "progress.h"

#include "cli.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const double REDRAW_SECONDS = 0.1, LINE_SECONDS = 30;

void progress_open(progress *p, bool quiet, int epochs) {
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    bool terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
    *p = (progress){.mode = quiet      ? SILENT
                            : terminal ? BAR
                                       : LINES,
                    .colour = terminal && !(no_colour && *no_colour),
                    .epochs = epochs};
}

void progress_clear(progress *p) {
    if (p->bar_shown) fprintf(stderr, "\r\033[K");
    p->bar_shown = false;
}

// Appends formatted text and returns the new end, never past `bytes`.
__attribute__((format(printf, 4, 5))) static int add(char *text, int bytes, int at,
                                                     const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text + at, (size_t)(bytes - at), format, args);
    va_end(args);
    return at + n < bytes ? at + n : bytes - 1;
}

static int add_figures(char *text, int bytes, int at, const bt_progress *now) {
    if (isfinite(now->train_loss)) at = add(text, bytes, at, "  loss %.4f", now->train_loss);
    if (isfinite(now->train_accuracy))
        at = add(text, bytes, at, "  acc %.2f %%", 100 * now->train_accuracy);
    if (isfinite(now->val_loss)) at = add(text, bytes, at, "  val %.4f", now->val_loss);
    if (isfinite(now->val_accuracy))
        at = add(text, bytes, at, " %.2f %%%s", 100 * now->val_accuracy, now->best ? "*" : "");
    return at;
}

static int add_rate(char *text, int bytes, int at, const bt_progress *now) {
    char rate[16];
    if (!(now->images_per_second > 0)) return at;
    return add(text, bytes, at, "  %s img/s", short_number(now->images_per_second, rate));
}

// Time left, from the steps of this process: "1:05 left".
static int add_time_left(char *text, int bytes, int at, const progress *p, const bt_progress *now) {
    uint32_t done = now->step - p->first_step;
    double each = (now_seconds() - p->started) / (done ? done : 1);
    double left = each * (now->steps > now->step ? now->steps - now->step : 0);
    if (!done || left > 1e7) return at;
    int seconds = (int)(left + 0.5);
    if (seconds < 3600) return add(text, bytes, at, "  %d:%02d left", seconds / 60, seconds % 60);
    return add(text, bytes, at, "  %d:%02d:%02d left", seconds / 3600, seconds / 60 % 60,
               seconds % 60);
}

static void show_line(const progress *p, const bt_progress *now, bool epoch_done) {
    char text[256];
    int at =
        add(text, sizeof text, 0, "epoch %*d/%d", p->epochs > 99 ? 3 : 2, now->epoch, p->epochs);
    if (!epoch_done) at = add(text, sizeof text, at, "  step %u/%u", now->step, now->steps);
    at = add_figures(text, sizeof text, at, now);
    at = add_rate(text, sizeof text, at, now);
    if (epoch_done)
        add(text, sizeof text, at, "  %.1f s", now->seconds);
    else
        add_time_left(text, sizeof text, at, p, now);
    fprintf(stderr, "%s\n", text);
}

static void show_bar(progress *p, const bt_progress *now) {
    enum { CELLS = 16 };
    static const char cells[] = "################";
    char text[256];
    struct winsize window;
    int width =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col ? window.ws_col : 80;
    double part = now->steps ? (double)now->step / now->steps : 0;
    int full = (int)(CELLS * part), at = 0;
    at = add(text, sizeof text, at, "epoch %d/%d %3.0f %%", now->epoch, p->epochs, 100 * part);
    at = add_figures(text, sizeof text, at, now);
    at = add_time_left(text, sizeof text, at, p, now);
    add_rate(text, sizeof text, at, now); // the first to go on a narrow terminal
    // A line that wraps cannot be redrawn, nor with the ^C that a terminal may add.
    int room = width - CELLS - 6;
    fprintf(stderr, "\r%s[%.*s%*s]%s %.*s\033[K", p->colour ? "\033[32m" : "", full, cells,
            CELLS - full, "", p->colour ? "\033[0m" : "", room > 0 ? room : 0, text);
    p->bar_shown = true;
}

void progress_show(progress *p, const bt_progress *now) {
    double time = now_seconds();
    if (now->event == BT_EVENT_START) p->started = p->drawn = time, p->first_step = now->step;
    if (p->mode == SILENT || now->event == BT_EVENT_START) return;
    if (now->event == BT_EVENT_EPOCH) {
        progress_clear(p);
        show_line(p, now, true);
    } else if (time - p->drawn >= (p->mode == BAR ? REDRAW_SECONDS : LINE_SECONDS)) {
        if (p->mode == BAR)
            show_bar(p, now);
        else
            show_line(p, now, false);
        p->drawn = time;
    }
}
