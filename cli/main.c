// The `bantam` command: help and dispatch. It uses bantam.h alone, as any
// other program would.
#include "commands.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static void help_all(FILE *out) {
    fprintf(out, "Bantam %s trains small neural networks.\n\nUsage: bantam COMMAND ...\n\n",
            BT_VERSION_TEXT);
    for (int i = 0; i < command_count; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].args);
        fprintf(out, "  %-22s", left);
        if (strlen(left) > 21) fprintf(out, "\n%24s", "");
        fprintf(out, "%s\n", commands[i].summary);
    }
    fprintf(out, "  help [COMMAND]        options of a command\n\n%s\n%s", models_text, exits_text);
}

static void help_command(const command *c, FILE *out) {
    fprintf(out, "Usage: bantam %s%s%s [OPTION]...\n%s.\n", c->name, *c->args ? " " : "", c->args,
            c->summary);
    if (c->bit & (CMD_TRAIN | CMD_EVAL | CMD_SANITY | CMD_PARITY | CMD_BENCH))
        fprintf(out, "\n%s", models_text);
    settings_help(c->bit, out);
    fprintf(out, "\nExamples:\n");
    for (int i = 0; i < EXAMPLES_MAX && c->examples[i]; i++)
        fprintf(out, "  bantam %s\n", c->examples[i]);
}

static const command *find_command(const char *name) {
    enum { NAMES_MAX = 64 };
    const char *names[NAMES_MAX];
    int count = 0;
    for (int i = 0; i < command_count; i++)
        if (!strcmp(commands[i].name, name)) return &commands[i];
    for (; count < command_count && count < NAMES_MAX; count++) names[count] = commands[count].name;
    const char *guess = nearest(name, names, count);
    if (guess)
        fail(BT_ERROR_USAGE, "unknown command '%s'; did you mean '%s'?", name, guess);
    else
        fail(BT_ERROR_USAGE, "unknown command '%s'; `bantam help` lists them", name);
    return NULL;
}

static int print_config(const settings *s) {
    json_t *all = settings_json(s, false);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    putchar('\n');
    json_decref(all);
    return 0;
}

// `cpu-mlp DATA` is `train mlp DATA --device cpu`, where --device may still be given.
static int expand_shorthand(settings *s, const command *c) {
    if (!c->model) return 0;
    memmove(s->args + 1, s->args, sizeof *s->args * (size_t)s->arg_count++);
    s->args[0] = c->model;
    if (opt(s, "device")->from == FROM_COMMAND_LINE) return 0;
    return settings_set(s, "device", c->device, FROM_COMMAND_LINE);
}

static int run(const command *c, int argc, char **argv) {
    settings s;
    int code = settings_parse(&s, c->bit, c->name, argc, argv);
    if (!code && c->args_max >= 0 && s.arg_count > c->args_max)
        code = fail(BT_ERROR_USAGE, "unexpected argument '%s'; usage: bantam %s%s%s",
                    s.args[c->args_max], c->name, *c->args ? " " : "", c->args);
    if (!code) code = expand_shorthand(&s, c);
    if (!code) code = opt_flag(&s, "print-config") ? print_config(&s) : c->run(&s);
    settings_free(&s);
    return code;
}

static bool wants_help(int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    return false;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        help_all(stderr);
        return BT_ERROR_USAGE;
    }
    const char *name = argv[1];
    bool help = !strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h");
    if (!strcmp(name, "--version")) {
        printf("bantam %s\n", BT_VERSION_TEXT);
        return 0;
    }
    if (help && argc == 2) {
        help_all(stdout);
        return 0;
    }
    const command *c = find_command(help ? argv[2] : name);
    if (!c) return BT_ERROR_USAGE;
    if (!help && !wants_help(argc - 2, argv + 2)) return run(c, argc - 2, argv + 2);
    help_command(c, stdout);
    return 0;
}

// A result that did not reach its file is a failure; a reader who went away is not.
static int close_stdout(int code) {
    errno = 0;
    bool failed = fflush(stdout) || ferror(stdout);
    if (!failed || errno == EPIPE || code) return code;
    return fail(BT_ERROR_MEMORY, "standard output cannot be written: %s",
                errno ? strerror(errno) : "an earlier write failed");
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN); // a failing write says enough, and so it does
    signal(SIGXFSZ, SIG_IGN); // at a limit on file sizes
    return close_stdout(dispatch(argc, argv));
}
