// `bantam kernels`: the table of kernels, and one of them in any of the languages it is translated
// to.
#include "cli.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

static void add_row(table *t, const bt_kernel_desc *k) {
    char place[160];
    bool variant = strcmp(k->name, k->of) != 0;
    snprintf(place, sizeof place, "%s:%d", k->file, k->line);
    table_add(t, json_pack("{s:s,s:s?,s:s,s:s,s:i,s:i,s:s}", "kernel", k->name, "variant_of",
                           variant ? k->of : NULL, "place", place, "buffers", k->bindings,
                           "threads", k->group, "shared_bytes", k->shared_bytes, "when", k->when));
}

static int list(const settings *s, const bt_kernel_desc *kernels, int count) {
    static const column columns[] = {
        {"kernel", "kernel", "%-24s"},       {"variant_of", "variant of", "%-19s"},
        {"place", "written at", "%-21s"},    {"threads", "threads", "%7lld"},
        {"shared_bytes", "shared", "%6lld"}, {"when", "used when", "%-9s"}};
    table t;
    int code = 0;
    table_begin(&t, columns, 6, opt_flag(s, "json"));
    for (int i = 0; i < count; i++) add_row(&t, &kernels[i]);
    if (t.silent) code = print_json(json_pack("{s:O}", "kernels", t.rows));
    table_end(&t);
    return code;
}

static int unknown(const char *name, const bt_kernel_desc *kernels, int count) {
    const char **names = calloc((size_t)count + 1, sizeof *names);
    for (int i = 0; i < count && names; i++) names[i] = kernels[i].name;
    const char *guess = names ? nearest(name, names, count) : NULL;
    free(names);
    return guess ? fail(BT_ERROR_USAGE, "unknown kernel '%s'; did you mean '%s'?", name, guess)
                 : fail(BT_ERROR_USAGE, "unknown kernel '%s'; `bantam kernels` lists them", name);
}

// Prints args[0] in --lang.
static int show(bt_context *ctx, void *user) {
    const settings *s = user;
    const char *language = opt_text(s, "lang");
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return fail(BT_ERROR_MEMORY, "out of memory for the kernel");
    bt_status status = bt_kernel_print(ctx, s->args[0], language, out);
    int code = fclose(out) ? fail(BT_ERROR_MEMORY, "out of memory for the kernel")
               : status    ? fail_status(ctx, status)
                           : 0;
    if (!code && opt_flag(s, "json"))
        code = print_json(json_pack("{s:s,s:s,s:s}", "kernel", s->args[0], "language",
                                    language ? language : "k", "text", text));
    else if (!code)
        fputs(text, stdout);
    free(text);
    return code;
}

int command_kernels(settings *s) {
    int count = bt_kernels(NULL, 0), found = -1, code;
    bt_kernel_desc *kernels = calloc((size_t)count + 1, sizeof *kernels);
    if (!kernels) return fail(BT_ERROR_MEMORY, "out of memory for the list of kernels");
    bt_kernels(kernels, count);
    for (int i = 0; i < count && s->arg_count; i++)
        if (!strcmp(kernels[i].name, s->args[0])) found = i;
    if (!s->arg_count)
        code = opt_text(s, "lang")
                   ? fail(BT_ERROR_USAGE, "--lang prints a kernel: bantam kernels NAME --lang %s",
                          opt_text(s, "lang"))
                   : list(s, kernels, count);
    else
        code = found < 0 ? unknown(s->args[0], kernels, count) : with_reader(show, s);
    free(kernels);
    return code;
}
