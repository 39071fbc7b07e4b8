// What a run's network makes of a drawing. The network lives in a context of its own on the CPU,
// and is read again when its checkpoint has changed.
#ifndef CLI_SERVE_CLASSIFY_H
#define CLI_SERVE_CLASSIFY_H

#include "cli.h"

typedef struct classifier classifier;

classifier *classifier_make(const char *run); // NULL: out of memory
void classifier_free(classifier *c);

// `grey` is a square of `bytes` pixels, light on dark; one that has the size of the network's input
// is taken as it is, any other is centred and scaled. On success *json (to be freed) holds
// {"class", "probability", "probabilities", "html"}, or {"class": null, "html": "", "note"} where
// nothing is drawn or no network is there. Otherwise BT_ERROR_USAGE (no square) or what failed, and
// why.
bt_status classify(classifier *c, const uint8_t *grey, size_t bytes, char **json, char why[512]);

#endif
