// The `bantam` command: the table of commands, help, and dispatch. It uses bantam.h alone, as any
// other program would.
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct command {
    const char *name;
    unsigned bit;
    int args_max; // positional arguments; -1: any number
    int (*run)(settings *s);
    const char *args, *summary;
    const char *device, *model; // what a shorthand stands for
} command;

static const command commands[] = {
    {"train", CMD_TRAIN, 2, command_train, "MODEL [DATA]", "train a network", NULL, NULL},
    {"eval", CMD_EVAL, 2, command_eval, "CKPT [DATA]",
     "loss, accuracy, confusion matrix and scores per class on the test part", NULL, NULL},
    {"predict", CMD_PREDICT, -1, command_predict, "CKPT FILE...",
     "classes of PNG, PGM or IDX pictures (-: standard input)", NULL, NULL},
    {"sanity", CMD_SANITY, 1, command_sanity, "[MODEL]",
     "can it learn? gradients, updates, overfitting one batch, initial loss", NULL, NULL},
    {"parity", CMD_PARITY, 1, command_parity, "[MODEL]",
     "every kernel on many shapes and 50 training steps against the f64 reference", NULL, NULL},
    {"bench", CMD_BENCH, 1, command_bench, "[MODEL]",
     "images/s of training and inference, time per operator", NULL, NULL},
    {"kernels", CMD_KERNELS, 1, command_kernels, "[NAME]",
     "the kernels that GPUs run, or the text of one in any of their languages", NULL, NULL},
    {"devices", CMD_DEVICES, 0, command_devices, "", "what was found, what is missing and why",
     NULL, NULL},
    {"data", CMD_DATA, 2, command_data, "list | get NAME | info [NAME]",
     "data sets: known ones, bringing one here, what is in one", NULL, NULL},
    {"inspect", CMD_INSPECT, 1, command_inspect, "FILE",
     "header of a checkpoint, data or picture file; checksums verified", NULL, NULL},
    {"cpu-mlp", CMD_TRAIN, 1, command_train, "[DATA]", "train mlp --device cpu", "cpu", "mlp"},
    {"gpu-mlp", CMD_TRAIN, 1, command_train, "[DATA]", "train mlp --device gpu", "gpu", "mlp"},
    {"gpu-cnn", CMD_TRAIN, 1, command_train, "[DATA]", "train lenet --device gpu", "gpu", "lenet"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static const char models[] =
    "MODEL is a preset or a list of layers:\n"
    "  mlp      fc128,relu,fc10\n"
    "  lenet    conv8x5,relu,pool2,conv16x5,relu,pool2,fc10\n"
    "  lenet5   the classic 6/16/120/84/10\n"
    "DATA is mnist, fashion-mnist, digits (built in) or a folder of IDX files; without it, mnist\n"
    "where it is found, else digits.\n";

static const char exits[] =
    "Exit: 0 ok, 1 internal error, 2 usage, 3 bad data or model file, 4 no such device, 5 numeric\n"
    "failure, 6 out of memory or disk, 75 stopped by SIGTERM, 130 by Ctrl-C (both with a\n"
    "checkpoint).\n";

static void help_all(FILE *out) {
    fprintf(out, "Bantam %s trains small neural networks.\n\nUsage: bantam COMMAND ...\n\n",
            BT_VERSION_TEXT);
    for (int i = 0; i < COMMAND_COUNT; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].args);
        fprintf(out, "  %-22s", left);
        if (strlen(left) > 21) fprintf(out, "\n%24s", "");
        fprintf(out, "%s\n", commands[i].summary);
    }
    fprintf(out, "  help [COMMAND]        options of a command\n\n%s\n%s", models, exits);
}

static void help_command(const command *c, FILE *out) {
    fprintf(out, "Usage: bantam %s%s%s [OPTION]...\n%s.\n", c->name, *c->args ? " " : "", c->args,
            c->summary);
    if (c->bit & (CMD_TRAIN | CMD_EVAL | CMD_SANITY | CMD_PARITY | CMD_BENCH))
        fprintf(out, "\n%s", models);
    settings_help(c->bit, out);
}

static const command *find_command(const char *name) {
    for (int i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(commands[i].name, name)) return &commands[i];
    const char *names[COMMAND_COUNT];
    for (int i = 0; i < COMMAND_COUNT; i++) names[i] = commands[i].name;
    const char *guess = nearest(name, names, COMMAND_COUNT);
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
        code = fail(BT_ERROR_USAGE, "unexpected argument '%s'; usage: bantam %s %s",
                    s.args[c->args_max], c->name, c->args);
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
