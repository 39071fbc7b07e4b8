// A run directory that is watched: its page, and its panels one by one as they change. A thread of
// its own reads the directory, renders, and stays out of a training's way: it is nice, and while
// the run trains it rests 200 times as long as it worked. All functions may be called by any
// thread.
#ifndef CLI_SERVE_LIVE_H
#define CLI_SERVE_LIVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct live live;

// A page or an event, which all who are sent it share. Who got one lets it go with text_drop.
typedef struct text {
    atomic_int users;
    size_t bytes;
    char *data; // with a 0 behind it
} text;
text *text_make(char *data); // takes it over; NULL: out of memory
void text_drop(text *t);     // may be NULL

// `tick` is called 4 times a second, and when something was rendered; it returns whether somebody
// follows the panels, without whom none is rendered. NULL: no memory, or no thread.
live *live_start(const char *folder, bool (*tick)(void *user), void *user);
// Ends the thread. No tick comes after it.
void live_stop(live *l);
void live_free(live *l);

// Asks for a page as it is from now on. live_page returns it once it is rendered, and NULL before,
// with *failed if it cannot be rendered.
uint64_t live_ask(live *l);
text *live_page(live *l, uint64_t ticket, bool *failed);

// The server-sent event of a panel that is newer than *seen, which counts on (0: all are). NULL:
// none.
text *live_event(live *l, uint64_t *seen);
// Somebody follows now: look at once.
void live_wake(live *l);

#endif
