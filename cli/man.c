// `bantam man`: the manual page as roff (man macros), from the tables of commands and options.
#include "commands.h"

#include <ctype.h>
#include <string.h>

// Text for roff: a backslash is an escape, a dash would be a hyphen, and a dot or a quote at the
// start of a line a request.
static void put(const char *text) {
    if (*text == '.' || *text == '\'') fputs("\\&", stdout);
    for (; *text; text++) switch (*text) {
        case '\\': fputs("\\e", stdout); break;
        case '-': fputs("\\-", stdout); break;
        case '~': fputs("\\(ti", stdout); break;
        case '^': fputs("\\(ha", stdout); break;
        case '`': fputs("\\(ga", stdout); break;
        case '\n':
            putchar('\n');
            if (text[1] == '.' || text[1] == '\'') fputs("\\&", stdout);
            break;
        default: putchar(*text);
        }
}

// The same as a filled paragraph, in lines of the length that sources of pages have.
static void fill(const char *text) {
    for (int column = 0; *text;) {
        char word[128];
        int length = (int)strcspn(text, " \n");
        if (column > 0) putchar(column + length > 72 ? '\n' : ' ');
        if (column + length > 72) column = 0;
        column += length + 1;
        snprintf(word, sizeof word, "%.*s", length, text);
        put(word);
        text += length + (text[length] != 0);
    }
}

static void section(const char *title) {
    printf(".SH %s\n", title);
}

static void put_commands(void) {
    section("COMMANDS");
    for (int i = 0; i < command_count; i++) {
        const command *c = &commands[i];
        printf(".TP\n.B ");
        put(c->name);
        putchar(*c->args ? ' ' : '\n');
        put(c->args);
        if (*c->args) putchar('\n');
        fill(c->summary);
        putchar('\n');
    }
    printf(".TP\n.B help \\fR[\\fICOMMAND\\fR]\nthe options of a command, with examples\n");
}

static void put_names(unsigned bits) {
    const char *comma = "";
    for (int i = 0; i < command_count; i++) {
        if (!(commands[i].bit & bits) || commands[i].model) continue;
        printf("%s", comma);
        put(commands[i].name);
        comma = ", ";
    }
}

static void put_options(void) {
    option_row o;
    section("OPTIONS");
    printf(
        "Written \\fB\\-\\-name VALUE\\fR or \\fB\\-\\-name=VALUE\\fR; a switch needs no value.\n");
    for (int i = 0; option_at(i, &o); i++) {
        printf(".TP\n.BI \\-\\-");
        put(o.name);
        if (!o.flag) {
            printf(" \" ");
            put(o.shape);
            putchar('"');
        }
        putchar('\n');
        fill(o.help);
        if (o.initial && strcmp(o.initial, "0")) {
            printf("\n(default ");
            put(o.initial);
            putchar(')');
        }
        printf(".\n(");
        if ((o.commands & CMD_ALL) == CMD_ALL)
            printf("every command");
        else
            put_names(o.commands & CMD_ALL);
        printf(")\n");
    }
}

static void put_examples(void) {
    section("EXAMPLES");
    printf(".nf\n");
    for (int i = 0; i < command_count; i++)
        for (int j = 0; j < EXAMPLES_MAX && commands[i].examples[j] && !commands[i].model; j++) {
            printf("bantam ");
            put(commands[i].examples[j]);
            putchar('\n');
        }
    printf(".fi\n");
}

static void put_rest(void) {
    section("ENVIRONMENT");
    printf("Every option also from a variable: \\fBBANTAM_VAL_SPLIT\\fR for \\-\\-val\\-split.\n"
           "\\fBBANTAM_DATA\\fR is the folder of data sets.\n");
    section("FILES");
    printf("A run directory holds \\fIrun.json\\fR (settings and results),\n"
           "\\fImetrics_train.csv\\fR,\ncharts and \\fIcheckpoints/last.safetensors\\fR and\n"
           "\\fIbest.safetensors\\fR;\nwith \\-\\-profile also \\fIop_timings.csv\\fR and "
           "\\fItrace.json\\fR.\n");
    section("EXIT STATUS");
    fill(exits_text);
}

int command_man(settings *s) {
    (void)s;
    printf(".TH BANTAM 1 \"\" \"Bantam %s\" \"User Commands\"\n", BT_VERSION_TEXT);
    section("NAME");
    printf("bantam \\- train small neural networks\n");
    section("SYNOPSIS");
    printf(".B bantam\n.I COMMAND\n[\\fIARGUMENT\\fR]...\n[\\fIOPTION\\fR]...\n");
    section("DESCRIPTION");
    printf(".nf\n");
    put(models_text);
    printf(".fi\n");
    put_commands();
    put_options();
    put_rest();
    put_examples();
    return 0;
}
