// The C side of the kernels: the contract (which kernels there are, their scalars, exported
// constants) and the tables that devices choose from.
#include "kc/unit.h"

#include <string.h>

static const char *const rule_names[] = {"END", "NUMBER", "WORD", "ADD", "SUB", "MUL", "DIV",
                                         "MOD", "MIN",    "MAX",  "LT",  "LE",  "GT",  "GE",
                                         "EQ",  "NE",     "AND",  "OR",  "NOT"};

static void upper(char *to, const kc_token *t) {
    for (uint32_t i = 0; i < t->length; i++)
        to[i] = (char)(t->text[i] >= 'a' && t->text[i] <= 'z' ? t->text[i] - 32 : t->text[i]);
    to[t->length] = 0;
}

static const char *scalars_of(const kc_kernel *k) {
    return *k->scalars ? k->scalars : "no";
}

static void write_block(const kc_block *b, FILE *out) {
    static const char *const types[KC_TYPE_COUNT] = {"", "int32_t", "uint32_t", "float"};
    fprintf(out, "\ntypedef struct bt_%s_args {\n", b->name);
    for (int i = 0; i < b->count; i++) {
        const kc_symbol *s = &b->field[i];
        fprintf(out, "    %s %.*s", types[s->type], KC_TEXT(s->at));
        if (s->dim_count) fprintf(out, "[%u]", (unsigned)s->dims[0]);
        fprintf(out, ";\n");
    }
    fprintf(out, "} bt_%s_args;\n", b->name);
}

static void write_exports(const kc_unit *unit, FILE *out) {
    bool any = false;
    for (int i = 0; i < unit->global_count; i++) {
        const kc_symbol *s = unit->global[i];
        char name[64];
        if (!s->exported) continue;
        upper(name, s->at);
        fprintf(out, "%s    BT_%s = %u,\n", any ? "" : "\nenum {\n", name, (unsigned)s->value);
        any = true;
    }
    if (any) fprintf(out, "};\n");
}

bool kc_write_header(const kc_unit *unit, FILE *out) {
    bool none = false;
    fprintf(
        out,
        "// The kernels that every device runs, their scalars and constants. Made by kc from the\n"
        "// .k files, where the kernels are described.\n"
        "#ifndef BT_KERNELS_GEN_H\n#define BT_KERNELS_GEN_H\n\n#include <stdint.h>\n\n"
        "// X(name, bindings, args): as BT_KERNELS in device/kernels.h.\n"
        "#define BT_PORTABLE_KERNELS(X)");
    for (int i = 0; i < unit->kernel_count; i++) {
        const kc_kernel *k = &unit->kernel[i]->public;
        if (k->always)
            fprintf(out, " \\\n    X(%s, \"%s\", bt_%s_args)", k->name, k->bindings, scalars_of(k));
        none |= !*k->scalars;
    }
    fprintf(out, "\n");
    if (none) fprintf(out, "\ntypedef struct bt_no_args {\n    uint32_t unused;\n} bt_no_args;\n");
    for (int i = 0; i < unit->block_count; i++) write_block(unit->block[i], out);
    write_exports(unit, out);
    fprintf(out, "\n#endif\n");
    return !ferror(out);
}

static void write_rule(const char *kind, int index, const uint32_t *rule, FILE *out) {
    if (!*rule) return;
    fprintf(out, "static const uint32_t %s_%d[] = {", kind, index);
    for (int i = 0; rule[i]; i++) {
        fprintf(out, "%sBT_RULE_%s", i ? ", " : "", rule_names[rule[i]]);
        if (rule[i] <= KC_RULE_WORD) fprintf(out, ", %uu", (unsigned)rule[i + 1]);
        if (rule[i] <= KC_RULE_WORD) i++;
    }
    fprintf(out, ", BT_RULE_END};\n");
}

static void write_rule_name(const char *kind, int index, const uint32_t *rule, FILE *out) {
    if (*rule)
        fprintf(out, "%s_%d", kind, index);
    else
        fprintf(out, "NULL");
}

static const char *const axes[3] = {"x", "y", "z"};

static void write_entry(const kc_unit *unit, int index, FILE *out) {
    const kc_kernel *k = &unit->kernel[index]->public;
    fprintf(out, "    {\"%s\", \"%s\", %d, BT_KERNEL_%s, %u, %u, %u, {", k->name, k->path, k->line,
            k->of, (unsigned)k->group, (unsigned)k->shared_bytes, (unsigned)k->special_count);
    for (uint32_t i = 0; i < k->special_count; i++)
        fprintf(out, "%s%u", i ? ", " : "", (unsigned)k->special[i]);
    fprintf(out, "%s}, ", k->special_count ? "" : "0");
    write_rule_name("when", index, k->when, out);
    for (int i = 0; i < 3; i++) {
        fprintf(out, "%s", i ? ", " : ", {");
        write_rule_name(axes[i], index, k->grid[i], out);
    }
    fprintf(out, "}},\n");
}

// A string a line. C wants " escaped, and ? for its trigraphs; files have no \.
static void write_text(const kc_source *source, FILE *out) {
    fprintf(out, "    {\"%s\",", source->path);
    for (size_t i = 0; i < source->length; i++) {
        char c = source->text[i];
        if (!i || source->text[i - 1] == '\n') fprintf(out, "\n     \"");
        if (c == '\n')
            fprintf(out, "\\n\"");
        else
            fprintf(out, "%s%c", c == '"' || c == '?' ? "\\" : "", c);
    }
    bool ends = source->length && source->text[source->length - 1] == '\n';
    fprintf(out, "%s},\n", ends ? "" : source->length ? "\"" : "\"\"");
}

bool kc_write_tables(const kc_unit *unit, FILE *out) {
    fprintf(out, "// The portable kernels as tables. Made by kc from the .k files.\n"
                 "#include \"device/kernels.h\"\n#include \"device/portable.h\"\n\n");
    for (int i = 0; i < unit->kernel_count; i++) {
        const kc_kernel *k = &unit->kernel[i]->public;
        write_rule("when", i, k->when, out);
        for (int j = 0; j < 3; j++) write_rule(axes[j], i, k->grid[j], out);
    }
    fprintf(out, "\nconst bt_portable bt_portable_table[] = {\n");
    for (int i = 0; i < unit->kernel_count; i++) write_entry(unit, i, out);
    fprintf(out, "};\nconst int bt_portable_count = %d;\n", unit->kernel_count);
    fprintf(out, "\nconst bt_portable_source bt_portable_sources[] = {\n");
    for (int i = 0; i < unit->file_count; i++) write_text(unit->file[i].source, out);
    fprintf(out, "    {NULL, NULL},\n};\n");
    return !ferror(out);
}
