// The live page beside something else: `bantam train --serve`.
#ifndef CLI_SERVE_SERVE_H
#define CLI_SERVE_SERVE_H

#include "server.h"

// Starts the server for a run directory at --port. 0, or an exit code after printing why not.
int serve_begin(const settings *s, const char *folder, server **out);

#endif
