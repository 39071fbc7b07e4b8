// The table of options and what is made of it; see options.h.
#include "options.h"

#include "cli.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { TEXT, WHOLE, REAL, CHOICE, FLAG } kind;

struct option {
    const char *name;
    kind kind;
    const char *initial; // NULL: not set
    const char *shape;   // the choices, or what stands for the value in help
    double low, high;    // numbers
    unsigned commands;
    const char *help;
};

enum {
    WITH_DATA = CMD_TRAIN | CMD_EVAL | CMD_SANITY | CMD_PARITY | CMD_BENCH,
    WITH_DEVICE = WITH_DATA | CMD_PREDICT,
    KEPT = CMD_TRAIN | OPT_KEPT
};

// A name may come again for other commands. Numbers are exact up to 2^53.
static const option table[] = {
    {"data", TEXT, NULL, "NAME", 0, 0, WITH_DATA | OPT_KEPT, "data set, or a folder of IDX files"},
    {"data-dir", TEXT, NULL, "FOLDER", 0, 0, WITH_DATA | CMD_DATA | CMD_REPORT | OPT_KEPT,
     "holds one folder per data set; BANTAM_DATA in the environment"},
    {"from", TEXT, NULL, "FOLDER", 0, 0, CMD_DATA, "get: take the files from here"},
    {"device", TEXT, "cpu", "NAME", 0, 0, WITH_DEVICE | OPT_KEPT, "see `bantam devices`"},
    {"threads", WHOLE, "0", "N", 0, 1024, WITH_DEVICE | CMD_REPORT, "CPU threads; 0: one per core"},
    {"precision", CHOICE, "fp32", "fp32|tf32|bf16|fp64", 0, 0, KEPT | CMD_EVAL,
     "of products, where the device has units for tf32 and bf16; fp64: all, on the CPU"},
    {"precision", CHOICE, "fp32", "fp32|tf32|bf16", 0, 0, WITH_DEVICE & ~(CMD_TRAIN | CMD_EVAL),
     "of products, where the device has units for tf32 and bf16"},
    {"overrides", CHOICE, "on", "on|off", 0, 0, WITH_DEVICE | OPT_KEPT,
     "off: launch by launch, none done together; on GPUs the portable kernels alone"},
    {"ckpt", TEXT, NULL, "FILE", 0, 0, CMD_EVAL | CMD_PREDICT, "the checkpoint, as an option"},
    {"top", WHOLE, "3", "K", 1, 1000, CMD_PREDICT, "classes to show per picture"},
    {"invert", FLAG, NULL, "on|off", 0, 1, CMD_PREDICT, "for dark drawings on a light ground"},
    {"epochs", WHOLE, "10", "N", 1, 1e6, KEPT, "passes over the training data"},
    {"batch", WHOLE, "64", "N", 1, 1e6, KEPT, "samples per step"},
    {"batch", WHOLE, "0", "N", 0, 1e6, CMD_EVAL, "samples at a time; 0: chosen"},
    {"batch", WHOLE, "0", "N", 0, 1e6, CMD_BENCH, "one batch size; 0: 64, 256 and 500"},
    {"batch", WHOLE, "32", "N", 2, 4096, CMD_SANITY | CMD_PARITY, "samples per step"},
    {"classes", WHOLE, "10", "N", 2, 256, CMD_PARITY, "classes of the trained network"},
    {"lr", REAL, "0.1", "X", 0, 100, KEPT,
     "peak learning rate; adam and adamw: 0.003 if not given"},
    {"lr", REAL, "0.05", "X", 0, 100, CMD_SANITY, "learning rate"},
    {"steps", WHOLE, "300", "N", 1, 1e6, CMD_SANITY, "at most so many to overfit one batch"},
    {"opt", CHOICE, "momentum", "sgd|momentum|nesterov|adam|adamw", 0, 0, KEPT, "optimizer"},
    {"momentum", REAL, "0.9", "X", 0, 0.9999, KEPT, "of momentum and nesterov; adam's beta1"},
    {"wd", REAL, "0.0005", "X", 0, 10, KEPT,
     "weight decay; not given but --opt or --sched is: 0 (adamw: 0.01)"},
    {"clip", REAL, "0", "X", 0, 1e9, KEPT, "largest norm of the gradients; 0: no limit"},
    {"sched", CHOICE, "onecycle", "const|step|cosine|onecycle", 0, 0, KEPT,
     "course of the learning rate"},
    {"warmup", REAL, "0", "X", 0, 1e6, KEPT, "epochs in which it rises from 0"},
    {"init", CHOICE, "he", "he|xavier", 0, 0, KEPT, "initial weights"},
    {"init-from", TEXT, NULL, "FILE", 0, 0, CMD_TRAIN,
     "initial weights from a safetensors or .npz file"},
    {"seed", WHOLE, "0", "N", 0, 9007199254740991, WITH_DATA | OPT_KEPT,
     "of weights, order and split"},
    {"shuffle", CHOICE, "on", "on|off", 0, 0, KEPT, "off: keep file order"},
    {"val-split", REAL, "0.05", "X", 0, 0.9, KEPT, "fraction set aside for validation; 0: none"},
    {"limit", WHOLE, "0", "N", 0, 2147483647, KEPT | CMD_EVAL | CMD_BENCH,
     "the first N samples; 0: all"},
    {"target-acc", REAL, "0", "X", 0, 1, KEPT, "stop at this accuracy (a fraction); 0: never"},
    {"patience", WHOLE, "0", "N", 0, 1e6, KEPT, "stop after N epochs without a new best; 0: never"},
    {"max-time", REAL, "0", "S", 0, 1e9, CMD_TRAIN, "stop after S seconds of training; 0: never"},
    {"out", TEXT, NULL, "DIR", 0, 0, CMD_TRAIN, "run directory; else results/<date>-<model>"},
    {"out", TEXT, NULL, "FILE", 0, 0, CMD_REPORT,
     "the page; else report.html, in the directory of the run where it is one"},
    {"out", TEXT, NULL, "FILE", 0, 0, CMD_BENCH, "also write the table as CSV, for --compare"},
    {"to", CHOICE, NULL, "onnx|npz|c", 0, 0, CMD_EXPORT, "the format"},
    {"out", TEXT, NULL, "FILE", 0, 0, CMD_EXPORT, "else model.onnx, model.npz or model.c (and .h)"},
    {"compare", TEXT, NULL, "FILE", 0, 0, CMD_BENCH,
     "say what became slower or faster since this CSV of --out"},
    {"resume", TEXT, NULL, "RUN", 0, 0, CMD_TRAIN,
     "go on from a run directory or checkpoint, with its settings"},
    {"loss-log", TEXT, NULL, "FILE", 0, 0, CMD_TRAIN, "write the loss of every step"},
    {"doctor", FLAG, NULL, "on|off", 0, 1, CMD_TRAIN,
     "before and after training, look for what keeps it from learning"},
    {"profile", FLAG, NULL, "on|off", 0, 1, CMD_TRAIN,
     "time every operator; RUN/trace.json opens in Perfetto (also --profiling)"},
    {"serve", FLAG, NULL, "on|off", 0, 1, CMD_TRAIN,
     "show the run in a browser while it trains, and on until Ctrl-C"},
    {"port", WHOLE, "8028", "N", 0, 65535, CMD_TRAIN | CMD_SERVE,
     "of the live page on 127.0.0.1; 0: one that is free"},
    {"tensorboard", FLAG, NULL, "on|off", 0, 1, KEPT,
     "write TensorBoard's event files into the run directory"},
    {"watch-kernels", TEXT, NULL, "FOLDER", 0, 0, CMD_TRAIN,
     "after each epoch, run the .k files there that changed, if they pass parity (GPUs)"},
    {"lang", CHOICE, NULL, "glsl|cuda|msl|wgsl|c", 0, 0, CMD_KERNELS, "translate the kernel"},
    {"repeats", WHOLE, "5", "N", 1, 1000, CMD_BENCH, "of every measurement"},
    {"phase", CHOICE, "all", "all|training|inference", 0, 0, CMD_BENCH,
     "measure this alone; all: also the time of each operator"},
    {"phase", CHOICE, "all", "all|kernels|training", 0, 0, CMD_PARITY, "compare this alone"},
    {"config", TEXT, NULL, "FILE", 0, 0, CMD_ALL, "JSON object of option names and values"},
    {"print-config", FLAG, NULL, "on|off", 0, 1, CMD_ALL,
     "print the resolved options, for --config, and stop"},
    {"json", FLAG, NULL, "on|off", 0, 1, CMD_ALL, "print the result as one JSON object"},
    {"quiet", FLAG, NULL, "on|off", 0, 1, CMD_ALL, "no progress and no notes on stderr"},
};
enum { TABLE_COUNT = sizeof table / sizeof table[0] };
_Static_assert((int)TABLE_COUNT <= (int)OPTIONS_MAX, "settings.values is too small");

bool option_at(int i, option_row *out) {
    if (i < 0 || i >= TABLE_COUNT) return false;
    const option *o = &table[i];
    *out = (option_row){o->name,     o->shape,        o->help,          o->initial,
                        o->commands, o->kind == FLAG, o->kind == CHOICE};
    return true;
}

static const char *const origin_names[] = {[FROM_DEFAULT] = "default",
                                           [FROM_CHECKPOINT] = "checkpoint",
                                           [FROM_CONFIG] = "config file",
                                           [FROM_ENVIRONMENT] = "environment",
                                           [FROM_COMMAND_LINE] = "command line"};

// ---- Spelling ----------------------------------------------------------------------------------

// Levenshtein distance, with words longer than the table cut off.
static int distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    int row[LONGEST + 1], rows = (int)strnlen(a, LONGEST), columns = (int)strnlen(b, LONGEST);
    for (int j = 0; j <= columns; j++) row[j] = j;
    for (int i = 1; i <= rows; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= columns; j++) {
            int change =
                diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            diagonal = row[j];
            int least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < least ? change : least;
        }
    }
    return row[columns];
}

const char *nearest(const char *word, const char *const *candidates, int count) {
    const char *best = NULL;
    int least = 1 + (int)strnlen(word, 63) / 2;
    for (int i = 0; i < count; i++) {
        int d = distance(word, candidates[i]);
        if (d < least) least = d, best = candidates[i];
    }
    return best;
}

// The option name nearest to `word` among those of the command.
static const char *nearest_option(const char *word, unsigned commands) {
    const char *names[TABLE_COUNT];
    int count = 0;
    for (int i = 0; i < TABLE_COUNT; i++)
        if (table[i].commands & commands) names[count++] = table[i].name;
    return nearest(word, names, count);
}

static int unknown_name(const char *where, const char *dashes, const char *name,
                        unsigned commands) {
    const char *guess = nearest_option(name, commands);
    if (guess)
        return fail(BT_ERROR_USAGE, "%s: unknown option %s%s; did you mean %s%s?", where, dashes,
                    name, dashes, guess);
    return fail(BT_ERROR_USAGE, "%s: unknown option %s%s; `bantam help` lists them", where, dashes,
                name);
}

// ---- Values ------------------------------------------------------------------------------------

static setting *find(const settings *s, const char *name) {
    if (!strcmp(name, "profiling")) name = "profile";
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->values[i].option->name, name)) return (setting *)&s->values[i];
    return NULL;
}

static bool known_anywhere(const char *name) {
    for (int i = 0; i < TABLE_COUNT; i++)
        if (!strcmp(table[i].name, name)) return true;
    return false;
}

static int bad_number(const option *o, const char *where, const char *text) {
    return fail(BT_ERROR_USAGE, "%s: '%s' is not a %s from %.16g to %.16g", where, text,
                o->kind == WHOLE ? "whole number" : "number", o->low, o->high);
}

static int bad_choice(const option *o, const char *where, const char *text) {
    char copy[128];
    const char *names[16];
    int count = 0;
    snprintf(copy, sizeof copy, "%s", o->shape);
    for (char *p = strtok(copy, "|"); p && count < 16; p = strtok(NULL, "|")) names[count++] = p;
    const char *guess = nearest(text, names, count);
    return fail(BT_ERROR_USAGE, "%s: '%s' is none of %s%s%s%s", where, text, o->shape,
                guess ? "; did you mean " : "", guess ? guess : "", guess ? "?" : "");
}

// Is `text` one of the words in `words`, which are separated by bars?
static bool among(const char *text, const char *words) {
    size_t length = strlen(text);
    for (const char *p = words; length && p; p = strchr(p, '|'), p += p != NULL)
        if (!strncmp(p, text, length) && (p[length] == '|' || p[length] == 0)) return true;
    return false;
}

// Text goes into JSON files, which are UTF-8.
static int check_text(const char *where, const char *text) {
    json_t *copy = json_string(text);
    json_decref(copy);
    if (!copy) return fail(BT_ERROR_USAGE, "%s: the value is not UTF-8 text", where);
    return *text ? 0 : fail(BT_ERROR_USAGE, "%s: the value is empty", where);
}

// Checks `text` and finds the number that it means.
static int convert(const option *o, const char *where, const char *text, double *number) {
    if (o->kind == CHOICE) return among(text, o->shape) ? 0 : bad_choice(o, where, text);
    if (o->kind == TEXT) return check_text(where, text);
    if (o->kind == FLAG) {
        *number = among(text, "on|true|yes|1");
        return *number || among(text, "off|false|no|0") ? 0 : bad_choice(o, where, text);
    }
    char *end;
    errno = 0;
    *number = strtod(text, &end);
    bool whole = o->kind != WHOLE || *number == (double)(long long)*number;
    bool plain = !isspace((unsigned char)*text) && !strpbrk(text, "xXnN"); // no hex, inf, nan
    if (end == text || *end || !plain || !(*number >= o->low && *number <= o->high) || !whole)
        return bad_number(o, where, text);
    return 0;
}

static int assign(setting *v, const char *text, origin from, const char *where) {
    double number = 0;
    int code = convert(v->option, where, text, &number);
    if (code || from < v->from) return code;
    char *copy = strdup(text);
    if (!copy) return fail(BT_ERROR_MEMORY, "out of memory for the options");
    free(v->text);
    *v = (setting){v->option, copy, number, from};
    return 0;
}

int settings_set(settings *s, const char *name, const char *text, origin from) {
    return assign(find(s, name), text, from, name);
}

// ---- Sources -----------------------------------------------------------------------------------

static int set_defaults(settings *s) {
    for (int i = 0; i < TABLE_COUNT; i++) {
        if (!(table[i].commands & s->command)) continue;
        setting *v = &s->values[s->count++];
        v->option = &table[i];
        if (!table[i].initial) continue;
        int code = assign(v, table[i].initial, FROM_DEFAULT, table[i].name);
        if (code) return code;
    }
    return 0;
}

// Takes argv[*i] = "--name[=value]" and, where one is needed, the value after it.
static int take_option(settings *s, int argc, char **argv, int *i) {
    char name[64], where[80];
    const char *word = argv[*i] + 2, *equals = strchr(word, '=');
    snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - word) : 63, word);
    setting *v = find(s, name);
    if (!v && known_anywhere(name))
        return fail(BT_ERROR_USAGE, "`bantam %s` has no option --%s; see `bantam help %s`",
                    s->title, name, s->title);
    if (!v) return unknown_name(s->title, "--", name, s->command);
    snprintf(where, sizeof where, "--%s", name);
    if (equals) return assign(v, equals + 1, FROM_COMMAND_LINE, where);
    if (v->option->kind == FLAG) return assign(v, "on", FROM_COMMAND_LINE, where);
    if (*i + 1 >= argc || !strncmp(argv[*i + 1], "--", 2))
        return fail(BT_ERROR_USAGE, "--%s needs a value: --%s %s", name, name, v->option->shape);
    return assign(v, argv[++*i], FROM_COMMAND_LINE, where);
}

static int read_command_line(settings *s, int argc, char **argv) {
    s->args = calloc((size_t)argc + 1, sizeof *s->args);
    if (!s->args) return fail(BT_ERROR_MEMORY, "out of memory for the arguments");
    bool options = true;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (options && !strcmp(word, "--")) {
            options = false;
        } else if (options && !strncmp(word, "--", 2)) {
            int code = take_option(s, argc, argv, &i);
            if (code) return code;
        } else if (options && word[0] == '-' && word[1]) {
            return fail(BT_ERROR_USAGE, "unknown option %s; options are written --name", word);
        } else {
            int code = check_text("argument", word);
            if (code) return code;
            s->args[s->arg_count++] = word;
        }
    }
    return 0;
}

// BANTAM_VAL_SPLIT for val-split. BANTAM_DATA is the folder of data sets and not --data.
static bool environment_name(const option *o, char *out, size_t bytes) {
    const char *name = !strcmp(o->name, "data-dir") ? "data" : o->name;
    snprintf(out, bytes, "BANTAM_%s", name);
    for (char *p = out; *p; p++) *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    return strcmp(o->name, "data") != 0;
}

static int read_environment(settings *s) {
    for (int i = 0; i < s->count; i++) {
        char name[80];
        if (!environment_name(s->values[i].option, name, sizeof name)) continue;
        const char *text = getenv(name);
        int code = text && *text ? assign(&s->values[i], text, FROM_ENVIRONMENT, name) : 0;
        if (code) return code;
    }
    return 0;
}

// A variable that is one slip away from a name of ours is a mistake worth an error.
static int check_variable(const char *name) {
    const char *guess = NULL;
    for (int i = 0; i < TABLE_COUNT; i++) {
        char own[80];
        bool read = environment_name(&table[i], own, sizeof own);
        if (!strcmp(own, name)) return 0;
        if (read && !guess && strlen(name) > 10 && distance(name, own) == 1) guess = table[i].name;
    }
    if (!guess) return 0;
    return fail(BT_ERROR_USAGE, "unknown environment variable %s; did you mean that of --%s?", name,
                guess);
}

static int check_environment(void) {
    extern char **environ;
    int code = 0;
    for (char **entry = environ; *entry && !code; entry++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*entry, "="), *entry);
        if (!strncmp(name, "BANTAM_", 7)) code = check_variable(name);
    }
    return code;
}

// The text that a JSON value stands for; NULL for what no option takes.
static const char *json_text(const json_t *json, char *out, size_t bytes) {
    if (json_is_string(json)) return json_string_value(json);
    if (json_is_boolean(json)) return json_is_true(json) ? "on" : "off";
    if (json_is_integer(json))
        snprintf(out, bytes, "%lld", (long long)json_integer_value(json));
    else if (json_is_real(json))
        snprintf(out, bytes, "%.17g", json_real_value(json));
    else
        return NULL;
    return out;
}

int settings_merge(settings *s, const json_t *object, origin from, const char *where) {
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)object, name, member) {
        char buffer[64], place[400];
        if (json_is_object(member)) member = json_object_get(member, "value");
        setting *v = find(s, name);
        if (!v && !known_anywhere(name)) return unknown_name(where, "", name, CMD_ALL);
        if (!v || !member || json_is_null(member)) continue;
        snprintf(place, sizeof place, "%s: %s", where, name);
        const char *text = json_text(member, buffer, sizeof buffer);
        if (!text) return fail(BT_ERROR_USAGE, "%s: neither text, number nor true/false", place);
        int code = assign(v, text, from, place);
        if (code) return code;
    }
    return 0;
}

static int read_config(settings *s) {
    const char *path = opt_text(s, "config");
    if (!path) return 0;
    json_error_t error;
    json_t *object = json_load_file(path, 0, &error);
    if (!object && error.line > 0)
        return fail(BT_ERROR_USAGE, "--config %s: line %d: %s", path, error.line, error.text);
    if (!object) return fail(BT_ERROR_USAGE, "--config: %s", error.text);
    int code = json_is_object(object)
                   ? settings_merge(s, object, FROM_CONFIG, path)
                   : fail(BT_ERROR_USAGE, "--config %s: not a JSON object", path);
    json_decref(object);
    return code;
}

int settings_parse(settings *s, unsigned command, const char *title, int argc, char **argv) {
    *s = (settings){.command = command, .title = title, .argc = argc, .argv = argv};
    int code = set_defaults(s);
    if (!code) code = read_command_line(s, argc, argv);
    if (!code) code = check_environment();
    if (!code) code = read_environment(s);
    return code ? code : read_config(s);
}

void settings_free(settings *s) {
    for (int i = 0; i < s->count; i++) free(s->values[i].text);
    free(s->args);
}

// ---- Uses --------------------------------------------------------------------------------------

const setting *opt(const settings *s, const char *name) {
    const setting *v = find(s, name);
    if (!v) abort(); // a command that asks for an option it does not have
    return v;
}

const char *opt_text(const settings *s, const char *name) {
    return opt(s, name)->text;
}
double opt_number(const settings *s, const char *name) {
    return opt(s, name)->number;
}
int opt_int(const settings *s, const char *name) {
    return (int)opt(s, name)->number;
}
bool opt_flag(const settings *s, const char *name) {
    return opt(s, name)->number != 0;
}
bool opt_is(const settings *s, const char *name, const char *choice) {
    return !strcmp(opt_text(s, name), choice);
}

static json_t *value_json(const setting *v) {
    if (v->option->kind == FLAG) return json_boolean(v->number != 0);
    if (!v->text) return json_null();
    if (v->option->kind == WHOLE) return json_integer((json_int_t)v->number);
    return v->option->kind == REAL ? json_real(v->number) : json_string(v->text);
}

json_t *settings_json(const settings *s, bool only_kept) {
    json_t *all = json_object();
    for (int i = 0; i < s->count; i++) {
        const setting *v = &s->values[i];
        const char *name = v->option->name;
        if (!strcmp(name, "config") || !strcmp(name, "print-config")) continue;
        if (only_kept && !(v->option->commands & OPT_KEPT)) continue;
        json_object_set_new(all, name,
                            only_kept ? value_json(v)
                                      : json_pack("{s:o,s:s}", "value", value_json(v), "origin",
                                                  origin_names[v->from]));
    }
    return all;
}

// Prints `text` from column `indent` on, wrapped at 80.
static void print_wrapped(const char *text, int indent, FILE *out) {
    int column = indent;
    while (*text) {
        int length = (int)strcspn(text, " ");
        bool fits = column + length < 79;
        if (column > indent) fprintf(out, "%s%*s", fits ? "" : "\n", fits ? 1 : indent, "");
        column = (fits ? column + 1 : indent) + length;
        fprintf(out, "%.*s", length, text);
        text += length + (text[length] == ' ');
    }
    fputc('\n', out);
}

void settings_help(unsigned command, FILE *out) {
    fprintf(out,
            "\nOptions (--name VALUE or --name=VALUE; also BANTAM_NAME in the environment, and "
            "keys\nof a --config file):\n");
    for (int i = 0; i < TABLE_COUNT; i++) {
        const option *o = &table[i];
        char left[96], right[256];
        if (!(o->commands & command)) continue;
        snprintf(left, sizeof left, "--%s %s", o->name, o->kind == FLAG ? "" : o->shape);
        int used = snprintf(right, sizeof right, "%s", o->help);
        if (o->initial && strcmp(o->initial, "0"))
            snprintf(right + used, sizeof right - (size_t)used, " (default %s)", o->initial);
        fprintf(out, "  %-22s", left);
        if (strlen(left) > 21) fprintf(out, "\n%24s", "");
        print_wrapped(right, 24, out);
    }
}
