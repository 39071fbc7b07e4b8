// The options of every command, from one table: parsing, help, config keys, environment names and
// the record of a run all come from it. Later sources override earlier ones: defaults, the
// checkpoint that a run is resumed from, --config FILE, the environment, the command line.
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

// Which commands an option belongs to.
enum {
    CMD_TRAIN = 1,
    CMD_EVAL = 2,
    CMD_PREDICT = 4,
    CMD_SANITY = 8,
    CMD_PARITY = 16,
    CMD_BENCH = 32,
    CMD_DEVICES = 64,
    CMD_DATA = 128,
    CMD_INSPECT = 256,
    CMD_KERNELS = 512,
    CMD_COMPLETION = 1024,
    CMD_MAN = 2048,
    CMD_REPORT = 4096,
    CMD_SERVE = 8192,
    CMD_EXPORT = 16384,
    CMD_ALL = 65535,
    OPT_KEPT = 65536 // a setting that a resumed run takes over from its checkpoint
};

typedef enum origin {
    FROM_DEFAULT,
    FROM_CHECKPOINT,
    FROM_CONFIG,
    FROM_ENVIRONMENT,
    FROM_COMMAND_LINE
} origin;

typedef struct option option;

typedef struct setting {
    const option *option;
    char *text;    // owned; NULL: not set
    double number; // of numbers; 1 or 0 of flags
    origin from;
} setting;

enum { OPTIONS_MAX = 96 };

typedef struct settings {
    unsigned command;            // its bit
    const char *title;           // its name, for messages
    setting values[OPTIONS_MAX]; // in table order, only those of the command
    int count;
    const char **args; // positional arguments
    int arg_count;
    int argc; // all words after the command
    char **argv;
} settings;

// Reads all sources but the checkpoint. Returns 0, or 2 after printing what is wrong.
int settings_parse(settings *s, unsigned command, const char *title, int argc, char **argv);
void settings_free(settings *s);

// Overrides what came from weaker sources with the members of a JSON object; a member is a value
// or an object with a member "value". Unknown names are errors that name `where`.
int settings_merge(settings *s, const json_t *object, origin from, const char *where);
// Sets one option as if `text` had been read from `from`.
int settings_set(settings *s, const char *name, const char *text, origin from);

// {"epochs": {"value": 10, "origin": "default"}, ...}; with `only_kept`, {"epochs": 10, ...}.
json_t *settings_json(const settings *s, bool only_kept);
void settings_help(unsigned command, FILE *out);

// Row `i` of the table, for what is made of it elsewhere; false: there are no more. A name may come
// again for other commands.
typedef struct option_row {
    const char *name, *shape, *help;
    const char *initial; // NULL: not set
    unsigned commands;
    bool flag, choice; // shape is then "on|off", or the choices
} option_row;
bool option_at(int i, option_row *out);

// An option by its name, which must belong to the command.
const setting *opt(const settings *s, const char *name);
const char *opt_text(const settings *s, const char *name);
double opt_number(const settings *s, const char *name);
int opt_int(const settings *s, const char *name);
bool opt_flag(const settings *s, const char *name);
bool opt_is(const settings *s, const char *name, const char *choice);

// The candidate that is spelt most like `word`, or NULL when none is near.
const char *nearest(const char *word, const char *const *candidates, int count);

#endif
