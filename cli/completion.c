// `bantam completion SHELL`: completion of commands, options, their choices, networks, data sets
// and file names, from the tables of commands and options.
#include "commands.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { SETS_MAX = 32, WORDS_BYTES = 1024 };

static void add_word(char words[WORDS_BYTES], const char *word, int length) {
    size_t used = strlen(words);
    snprintf(words + used, WORDS_BYTES - used, "%s%.*s", used ? " " : "", length, word);
}

static void add_sets(char words[WORDS_BYTES]) {
    bt_dataset_entry *sets = calloc(SETS_MAX, sizeof *sets);
    int count = sets ? bt_dataset_list(NULL, sets, SETS_MAX) : 0;
    for (int i = 0; i < count && i < SETS_MAX; i++)
        add_word(words, sets[i].name, (int)strlen(sets[i].name));
    free(sets);
}

// What may stand in place of `shape`, "MODEL [DATA]" or "list | get NAME": words in lower case as
// they are, and those that a word in capitals means. *files: names of files may, too.
static void find_words(const char *shape, char words[WORDS_BYTES], bool *files) {
    static const char *const with_files[] = {"FILE", "FOLDER", "DIR", "RUN", "CKPT", "DATA"};
    *words = 0, *files = false;
    for (const char *p = shape; *p;) {
        int length =
            (int)strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
        if (length > 0 && islower((unsigned char)*p)) add_word(words, p, length);
        if (length == 5 && !strncmp(p, "MODEL", 5)) add_word(words, "mlp lenet lenet5", 16);
        if (length == 4 && !strncmp(p, "DATA", 4)) add_sets(words);
        for (size_t i = 0; i < sizeof with_files / sizeof *with_files; i++)
            *files = *files || (length == (int)strlen(with_files[i]) &&
                                !strncmp(p, with_files[i], (size_t)length));
        p += length ? length : 1;
    }
}

// The same of an option's value.
static void find_values(const option_row *o, char words[WORDS_BYTES], bool *files) {
    find_words(!strcmp(o->name, "data") ? "DATA" : o->shape, words, files);
    if (strcmp(o->name, "device")) return;
    add_word(words, "cpu gpu cuda metal vulkan sim check", 35);
}

// Prints `text` where `special` characters get a backslash, and quotes of the shell are closed and
// opened around a quote.
static void put(const char *text, const char *special) {
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            printf("%s%c", strchr(special, *text) ? "\\" : "", *text);
}

static void put_command_names(void) {
    for (int i = 0; i < command_count; i++) printf("%s ", commands[i].name);
    printf("help");
}

// ---- bash --------------------------------------------------------------------------------------

static void bash_reply(const char *words, bool files) {
    printf("_bantam_reply < <(");
    if (*words) printf("compgen -W '%s' -- \"$cur\"%s", words, files ? "; " : "");
    if (files) printf("compgen -f -- \"$cur\"");
    printf(")");
}

static void bash_command(const command *c) {
    char words[WORDS_BYTES];
    bool files;
    option_row o;
    printf("    %s)\n        case $prev in\n", c->name);
    for (int i = 0; option_at(i, &o); i++) {
        if (!(o.commands & c->bit) || o.flag) continue;
        find_values(&o, words, &files);
        printf("        --%s) ", o.name);
        bash_reply(words, files);
        printf("; return ;;\n");
    }
    if (!strcmp(c->name, "data")) {
        *words = 0;
        add_sets(words);
        printf("        get|info) ");
        bash_reply(words, false);
        printf("; return ;;\n");
    }
    printf("        esac\n        options='--help");
    for (int i = 0; option_at(i, &o); i++)
        if (o.commands & c->bit) printf(" --%s", o.name);
    find_words(c->args, words, &files);
    printf("'\n        ");
    bash_reply(words, files);
    printf(" ;;\n");
}

static void bash(void) {
    printf("# bash completion for bantam\n"
           "# A reply a line: names of files may hold blanks and asterisks.\n"
           "_bantam_reply() {\n"
           "    local word\n"
           "    COMPREPLY=()\n"
           "    while IFS= read -r word; do COMPREPLY+=(\"$word\"); done\n"
           "}\n"
           "_bantam() {\n"
           "    local IFS=$' \\t\\n' options=\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    COMPREPLY=()\n"
           "    # Bash takes --name=value apart at the equals sign.\n"
           "    if [ \"$cur\" = = ]; then cur=; elif [ \"$prev\" = = ]; then "
           "prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ] || [ \"${COMP_WORDS[1]}\" = help ]; then\n"
           "        COMPREPLY=($(compgen -W '");
    put_command_names();
    printf(" --help --version' -- \"$cur\"))\n        return\n    fi\n"
           "    case ${COMP_WORDS[1]} in\n");
    for (int i = 0; i < command_count; i++) bash_command(&commands[i]);
    printf("    esac\n"
           "    case $cur in -*) COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")) ;; esac\n"
           "}\n"
           "complete -o filenames -F _bantam bantam\n");
}

// ---- zsh ---------------------------------------------------------------------------------------

static void zsh_values(const char *words, bool files) {
    if (*words && files)
        printf("{ compadd %s; _files }", words);
    else if (files)
        printf("_files");
    else
        printf("(%s)", words);
}

static void zsh_command(const command *c) {
    char words[WORDS_BYTES];
    bool files;
    option_row o;
    printf(
        "    %s)\n        _arguments -s : \\\n            '--help[options of this command]' \\\n",
        c->name);
    for (int i = 0; option_at(i, &o); i++) {
        if (!(o.commands & c->bit)) continue;
        printf("            '--%s%s[", o.name, o.flag ? "" : "=");
        put(o.help, "[]\\");
        printf("]");
        if (!o.flag) {
            find_values(&o, words, &files);
            printf(":%s:", o.choice ? "value" : o.shape);
            zsh_values(words, files);
        }
        printf("' \\\n");
    }
    find_words(c->args, words, &files);
    printf("            '*:");
    put(*c->args ? c->args : "nothing", "[]:\\");
    printf(":");
    zsh_values(words, files);
    printf("' ;;\n");
}

static void zsh(void) {
    printf("#compdef bantam\n"
           "_bantam() {\n"
           "    local -a commands\n"
           "    commands=(\n");
    for (int i = 0; i < command_count; i++) {
        printf("        '%s:", commands[i].name);
        put(commands[i].summary, ":\\");
        printf("'\n");
    }
    printf("        'help:options of a command'\n    )\n"
           "    if (( CURRENT == 2 )) || [[ ${words[2]} == help ]]; then\n"
           "        _describe command commands\n        return\n    fi\n"
           "    local command=${words[2]}\n"
           "    shift words\n    (( CURRENT-- ))\n"
           "    case $command in\n");
    for (int i = 0; i < command_count; i++) zsh_command(&commands[i]);
    printf("    esac\n}\n"
           "if [[ ${funcstack[1]} == _bantam ]]; then _bantam \"$@\"; else compdef _bantam bantam; "
           "fi\n");
}

// ---- fish --------------------------------------------------------------------------------------

static void fish_command(const command *c) {
    char words[WORDS_BYTES];
    bool files;
    option_row o;
    printf("complete -c bantam -n '__fish_use_subcommand' -f -a %s -d '", c->name);
    put(c->summary, "\\");
    printf("'\n");
    find_words(c->args, words, &files);
    printf("complete -c bantam -n '__fish_seen_subcommand_from %s' %s -a '%s'\n", c->name,
           files ? "-F" : "-f", words);
    for (int i = 0; option_at(i, &o); i++) {
        if (!(o.commands & c->bit)) continue;
        printf("complete -c bantam -n '__fish_seen_subcommand_from %s' -l %s", c->name, o.name);
        find_values(&o, words, &files);
        if (!o.flag) printf(" -r%s -a '%s'", files ? "F" : "f", words);
        printf(" -d '");
        put(o.help, "\\");
        printf("'\n");
    }
}

static void fish(void) {
    printf("# fish completion for bantam\n");
    for (int i = 0; i < command_count; i++) fish_command(&commands[i]);
    printf("complete -c bantam -n '__fish_use_subcommand' -f -a help -d 'options of a command'\n"
           "complete -c bantam -n '__fish_seen_subcommand_from help' -f -a '");
    put_command_names();
    printf("'\n");
}

int command_completion(settings *s) {
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    const char *shell = s->arg_count ? s->args[0] : "";
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
        if (!strcmp(shell, shells[i].name)) {
            shells[i].print();
            return 0;
        }
    return fail(BT_ERROR_USAGE, "completion needs the name of the shell: bash, zsh or fish");
}
