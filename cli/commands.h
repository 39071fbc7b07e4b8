// The table of commands: what `bantam help`, dispatch, shell completion and the manual page share.
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli.h"

enum { EXAMPLES_MAX = 3 };

typedef struct command {
    const char *name;
    unsigned bit;
    int args_max; // positional arguments; -1: any number
    int (*run)(settings *s);
    const char *args,
        *summary; // completion reads args: MODEL, DATA, FILE ... and words as they are
    const char *examples[EXAMPLES_MAX]; // what follows "bantam "; NULL: no more
    const char *device, *model;         // what a shorthand stands for
} command;

extern const command commands[];
extern const int command_count;

extern const char models_text[], exits_text[]; // paragraphs of help

#endif
