// MSL to C++ for shim/metal_stdlib, line by line, so that messages name the lines of the MSL. What
// C++ has no word for is put in other ones: pointers of the device and constant address spaces know
// their buffers, threadgroup variables lie in a section for each kernel, and a function constant is
// a variable that each dispatch sets. After the text come, for each kernel, its table and a
// function that fills its arguments in.
#include "internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMETERS_MAX = 64, FUNCTIONS_MAX = 512 };

typedef struct slice {
    const char *at, *end;
} slice;
#define TEXT(s) (int)((s).end - (s).at), (s).at

// The words in front of a type, in any order, and the type.
typedef struct qualified {
    bool device, constant, threadgroup, is_const;
    slice type;
} qualified;

// One parameter of a kernel: TYPE [*&] NAME [[ATTRIBUTE]].
typedef struct parameter {
    qualified of;
    slice name, attribute;
    char pointer; // '*', '&' or 0
    int index;    // of its buffer; -1: none
} parameter;

typedef struct function {
    slice name, whole; // from the name to the end of the body
    bool kernel, shared;
    unsigned threads;   // that a group may have at most; 0: not said
    uint64_t constants; // that it uses
} function;

typedef struct function_constant {
    slice name, type, whole; // from `constant` to the ;
    unsigned index;
} function_constant;

typedef struct source {
    const char *text;
    function functions[FUNCTIONS_MAX];
    function_constant constants[SIM_CONSTANTS_MAX];
    int function_count, constant_count;
} source;

// ---- Words ------------------------------------------------------------------------------------

static bool in_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

static slice trim(slice s) {
    while (s.at < s.end && isspace((unsigned char)*s.at)) s.at++;
    while (s.end > s.at && isspace((unsigned char)s.end[-1])) s.end--;
    return s;
}

static bool same(slice s, const char *word) {
    return (size_t)(s.end - s.at) == strlen(word) && !strncmp(s.at, word, strlen(word));
}

static bool same_slice(slice a, slice b) {
    return a.end - a.at == b.end - b.at && !strncmp(a.at, b.at, (size_t)(a.end - a.at));
}

static const char *end_of(const char *at, const char *what) { // and behind it
    const char *end = strstr(at, what);
    return end ? end + strlen(what) : at + strlen(at);
}

// Behind a comment, a string or a line of the preprocessor, or where it was.
static const char *skip(const char *text, const char *at) {
    if (at[0] == '/' && at[1] == '*') return end_of(at + 2, "*/");
    if ((at[0] == '/' && at[1] == '/') || (at[0] == '#' && (at == text || at[-1] == '\n')))
        return at + strcspn(at, "\n");
    return at[0] == '"' ? end_of(at + 1, "\"") : at;
}

// The next word or number in text[at, end), or an empty slice at the end; *depth counts { and }.
static slice next_word(const source *s, const char *at, const char *end, int *depth) {
    while (at < end) {
        const char *behind = skip(s->text, at);
        if (behind != at) {
            at = behind;
        } else if (in_word(*at)) {
            slice word = {at, at};
            while (word.end < end && in_word(*word.end)) word.end++;
            return word;
        } else {
            *depth += (*at == '{') - (*at == '}');
            at++;
        }
    }
    return (slice){end, end};
}

static const char *space(const char *at) { // behind it
    while (isspace((unsigned char)*at)) at++;
    return at;
}

// Behind the bracket that closes the one at `at`.
static const char *closed(const source *s, const char *at) {
    static const char open[] = "([{", close[] = ")]}";
    int inside = 0;
    while (*at) {
        const char *behind = skip(s->text, at);
        if (behind != at) {
            at = behind;
            continue;
        }
        inside += (strchr(open, *at) != NULL) - (strchr(close, *at) != NULL);
        at++;
        if (inside == 0) break;
    }
    return at;
}

// ---- What the program has ---------------------------------------------------------------------

// Metal Shading Language Specification, "Function Constants": at program scope, in the constant
// address space, [[function_constant(index)]].
static const char *read_constant(source *s, slice word) {
    const char *end = word.at + strcspn(word.at, ";={");
    const char *attribute = strstr(word.at, "[[function_constant(");
    if (*end != ';' || !attribute || attribute > end || s->constant_count == SIM_CONSTANTS_MAX)
        return word.end;
    slice left = trim((slice){word.end, attribute}), name = {left.end, left.end};
    while (name.at > left.at && in_word(name.at[-1])) name.at--;
    s->constants[s->constant_count++] =
        (function_constant){.name = name,
                            .type = trim((slice){left.at, name.at}),
                            .whole = {word.at, end + 1},
                            .index = (unsigned)strtoul(strchr(attribute, '(') + 1, NULL, 10)};
    return end + 1;
}

static const char *read_function(source *s, slice name, bool kernel) {
    const char *open = space(name.end);
    if (*open != '(') return name.end;
    const char *body = space(closed(s, open));
    if (*body != '{' || s->function_count == FUNCTIONS_MAX) return name.end;
    function *f = &s->functions[s->function_count++];
    *f = (function){.name = name, .whole = {name.at, closed(s, body)}, .kernel = kernel};
    return f->whole.end;
}

static bool mentions(const source *s, slice where, slice name) {
    int depth = 0;
    for (slice word = {where.at, where.at};;) {
        word = next_word(s, word.end, where.end, &depth);
        if (word.at == word.end) return false;
        if (same_slice(word, name) && word.at[-1] != '.') return true; // (a field has the dot)
    }
}

// Which constants a function uses, by itself or through those it calls.
static void find_uses(source *s) {
    for (int i = 0; i < s->function_count; i++)
        for (int j = 0; j < s->constant_count; j++)
            if (mentions(s, s->functions[i].whole, s->constants[j].name))
                s->functions[i].constants |= 1ull << j;
    for (bool more = s->constant_count > 0; more;) {
        more = false;
        for (int i = 0; i < s->function_count; i++)
            for (int j = 0; j < s->function_count; j++) {
                function *f = &s->functions[i], *of = &s->functions[j];
                if ((f->constants | of->constants) == f->constants ||
                    !mentions(s, f->whole, of->name))
                    continue;
                f->constants |= of->constants;
                more = true;
            }
    }
}

// Metal Shading Language Specification, "Kernel Functions": the most threads of a group.
static const char most_threads[] = "max_total_threads_per_threadgroup";

static void read_program(source *s) {
    int depth = 0;
    bool kernel = false;
    unsigned threads = 0;
    const char *end = s->text + strlen(s->text);
    for (slice word = {s->text, s->text};;) {
        word = next_word(s, word.end, end, &depth);
        if (word.at == word.end) break;
        if (depth > 0) continue;
        int count = s->function_count;
        if (same(word, "kernel")) kernel = true;
        if (same(word, most_threads))
            threads = (unsigned)strtoul(word.end + 1, NULL, 10);
        else if (same(word, "constant"))
            word.end = read_constant(s, word);
        else
            word.end = read_function(s, word, kernel);
        if (s->function_count == count) continue;
        s->functions[count].threads = threads;
        kernel = false;
        threads = 0;
    }
    find_uses(s);
}

// ---- Parameters of kernels --------------------------------------------------------------------

// Takes a word off the front.
static bool take(slice *s, const char *word) {
    size_t n = strlen(word);
    *s = trim(*s);
    if ((size_t)(s->end - s->at) <= n || strncmp(s->at, word, n) != 0 || in_word(s->at[n]))
        return false;
    s->at += n;
    *s = trim(*s);
    return true;
}

static qualified read_type(slice type) {
    qualified q = {0};
    bool more = true;
    while (more) {
        bool device = take(&type, "device"), constant = take(&type, "constant");
        bool threadgroup = take(&type, "threadgroup"), is_const = take(&type, "const");
        q.device |= device;
        q.constant |= constant;
        q.threadgroup |= threadgroup;
        q.is_const |= is_const;
        more = device || constant || threadgroup || is_const;
    }
    q.type = trim(type);
    return q;
}

static parameter read_parameter(slice whole) {
    parameter p = {.index = -1};
    slice left = whole = trim(whole);
    for (const char *c = whole.at; c + 1 < whole.end; c++)
        if (c[0] == '[' && c[1] == '[') {
            p.attribute = trim((slice){c + 2, whole.end - 2});
            left.end = c;
            break;
        }
    left = trim(left);
    p.name = (slice){left.end, left.end};
    while (p.name.at > left.at && in_word(p.name.at[-1])) p.name.at--;
    slice type = trim((slice){left.at, p.name.at});
    if (type.end > type.at && strchr("*&", type.end[-1])) p.pointer = *--type.end;
    p.of = read_type(type);
    if (p.attribute.at && !strncmp(p.attribute.at, "buffer", 6))
        p.index = atoi(p.attribute.at + strcspn(p.attribute.at, "(") + 1);
    return p;
}

// The parameters between the ( at `at` and the ) that closes it.
static int read_parameters(const source *s, const char *at, parameter *out) {
    const char *close = closed(s, at) - 1, *from = at + 1;
    int count = 0, inside = 0;
    for (const char *p = from; p <= close; p++) {
        if (inside == 0 && (*p == ',' || p == close)) {
            if (count < PARAMETERS_MAX && trim((slice){from, p}).at < p)
                out[count++] = read_parameter((slice){from, p});
            from = p + 1;
        }
        inside += (*p == '(' || *p == '[') - (*p == ')' || *p == ']');
    }
    return count;
}

// Metal Shading Language Specification, "Kernel Function Input Attributes".
static const char *value_of(slice attribute) {
    static const char *const values[][2] = {
        {"thread_index_in_threadgroup", "t->index"},
        {"threadgroup_position_in_grid", "sim_triple{t->group}"},
        {"threadgroups_per_grid", "sim_triple{t->groups}"},
        {"thread_position_in_threadgroup", "sim_triple{t->local}"},
        {"threads_per_threadgroup", "sim_triple{t->size}"},
        {"thread_index_in_simdgroup", "t->index % 32u"},
        {"simdgroup_index_in_threadgroup", "t->index / 32u"},
        {"threads_per_simdgroup", "32u"},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (same(attribute, values[i][0])) return values[i][1];
    return NULL;
}

static void put_pointer(FILE *out, const qualified *of) {
    fprintf(out, "sim_device<%s%.*s> ", of->constant || of->is_const ? "const " : "",
            TEXT(of->type));
}

static void put_parameters(FILE *out, const parameter *p, int count) {
    for (int i = 0; i < count; i++) {
        fprintf(out, i ? ", " : "");
        if (p[i].pointer == '*' && p[i].index >= 0)
            put_pointer(out, &p[i].of);
        else
            fprintf(out, "%s%.*s %c", p[i].of.constant || p[i].of.is_const ? "const " : "",
                    TEXT(p[i].of.type), p[i].pointer ? p[i].pointer : ' ');
        fprintf(out, "%.*s", TEXT(p[i].name));
    }
}

// ---- Behind the text --------------------------------------------------------------------------

static void put_caller(FILE *out, slice name, const parameter *p, int count) {
    fprintf(out,
            "\nstatic void sim_run_%.*s(const sim_thread *t, const sim_binding *b) {\n"
            "    (void)t, (void)b;\n    %.*s(",
            TEXT(name), TEXT(name));
    for (int i = 0; i < count; i++) {
        const char *value = value_of(p[i].attribute);
        fprintf(out, i ? ",\n        " : "");
        if (p[i].index >= 0 && p[i].pointer == '*')
            fprintf(out, "{b, %d}", p[i].index);
        else if (p[i].index >= 0)
            fprintf(out, "*(const %.*s *)b[%d].data", TEXT(p[i].of.type), p[i].index);
        else if (value)
            fprintf(out, "%s", value);
        else
            fprintf(out, "\n#error the simulated Metal knows no argument [[%.*s]]\n",
                    TEXT(p[i].attribute));
    }
    fprintf(out, ");\n}\n");
}

static int put_arguments(FILE *out, slice name, const parameter *p, int count) {
    int bound = 0;
    fprintf(out, "static const sim_argument sim_arguments_%.*s[] = {\n", TEXT(name));
    for (int i = 0; i < count; i++) {
        if (p[i].index < 0) continue;
        bound++;
        slice type = p[i].of.type;
        fprintf(out, "    {\"%.*s\", %d, %d, sizeof(%.*s), alignof(%.*s)},\n", TEXT(p[i].name),
                p[i].index, p[i].of.constant, TEXT(type), TEXT(type));
    }
    fprintf(out, "    {nullptr, 0, 0, 0, 0}};\n");
    return bound;
}

static void put_kernel(FILE *out, const source *s, const function *f) {
    parameter p[PARAMETERS_MAX];
    int count = read_parameters(s, space(f->name.end), p);
    put_caller(out, f->name, p, count);
    int bound = put_arguments(out, f->name, p, count);
    char shared[600] = "nullptr, nullptr";
    if (f->shared) {
        const char *ends[] = {"__start_", "__stop_"};
        for (int i = 0; i < 2; i++)
            fprintf(out,
                    "extern \"C\" __attribute__((visibility(\"hidden\"))) char "
                    "%ssim_shared_%.*s[];\n",
                    ends[i], TEXT(f->name));
        snprintf(shared, sizeof shared, "__start_sim_shared_%.*s, __stop_sim_shared_%.*s",
                 TEXT(f->name), TEXT(f->name));
    }
    fprintf(out,
            "extern \"C\" const sim_kernel sim_kernel_%.*s;\nconst sim_kernel sim_kernel_%.*s = "
            "{\"%.*s\", sim_run_%.*s, sim_arguments_%.*s, %d, %u, %lluull, %s};\n",
            TEXT(f->name), TEXT(f->name), TEXT(f->name), TEXT(f->name), TEXT(f->name), bound,
            f->threads, (unsigned long long)f->constants, shared);
}

// MTLDataType of a scalar; 0: none that a constant may have here.
static unsigned data_type(slice type) {
    return same(type, "uint")    ? METAL_UINT
           : same(type, "int")   ? METAL_INT
           : same(type, "float") ? METAL_FLOAT
           : same(type, "bool")  ? METAL_BOOL
                                 : 0;
}

// A program that initializes a variable with a constant would need it before it has a value.
static bool used_outside(const source *s, slice name) {
    int depth = 0;
    const char *end = s->text + strlen(s->text);
    for (slice word = {s->text, s->text};;) {
        word = next_word(s, word.end, end, &depth);
        if (word.at == word.end) return false;
        const char *behind = word.end;
        for (int i = 0; i < s->function_count; i++)
            if (word.at == s->functions[i].name.at) behind = s->functions[i].whole.end;
        for (int i = 0; i < s->constant_count; i++)
            if (word.at == s->constants[i].whole.at) behind = s->constants[i].whole.end;
        if (behind == word.end && depth == 0 && same_slice(word, name))
            return true; // (else a field)
        word.end = behind;
    }
}

static void put_constants(FILE *out, const source *s) {
    fprintf(out, "extern \"C\" const sim_constant sim_constants[];\n"
                 "const sim_constant sim_constants[] = {\n");
    for (int i = 0; i < s->constant_count; i++) {
        const function_constant *c = &s->constants[i];
        if (!data_type(c->type) || used_outside(s, c->name))
            fprintf(out, "#error the simulated Metal has no function constant like %.*s\n",
                    TEXT(c->name));
        fprintf(out, "    {\"%.*s\", %u, %u, sizeof(%.*s), &sim_value_%.*s},\n", TEXT(c->name),
                c->index, data_type(c->type), TEXT(c->type), TEXT(c->name));
    }
    fprintf(out, "    {nullptr, 0, 0, 0, nullptr}};\n");
}

// ---- The text ---------------------------------------------------------------------------------

static void put_lines(FILE *out, const char *from, const char *to) { // so that they keep numbers
    for (; from < to; from++)
        if (*from == '\n') fputc('\n', out);
}

static function *function_at(source *s, const char *at) {
    for (int i = 0; i < s->function_count; i++)
        if (at >= s->functions[i].whole.at && at < s->functions[i].whole.end)
            return &s->functions[i];
    return NULL;
}

// A declaration whose type begins at `word`: gives where to go on.
static const char *put_declaration(FILE *out, source *s, slice word) {
    const char *stop = word.at + strcspn(word.at, "*&;,=()[{}");
    qualified q = read_type((slice){word.at, stop});
    bool pointer = *stop == '*' || *stop == '&' ||
                   (*stop == '(' && strchr("*&", *space(stop + 1)) && *space(stop + 1));
    function *f = function_at(s, word.at);
    if (*stop == '*' && (q.device || q.constant)) {
        put_pointer(out, &q);
        put_lines(out, word.at, q.type.at);
        return stop + 1;
    }
    if (same(word, "threadgroup") && !pointer && f) {
        f->shared = true;
        fprintf(out, "sim_group(%.*s)", TEXT(f->name));
    } else if (!same(word, "threadgroup") && !same(word, "device")) {
        fprintf(out, "%.*s", TEXT(word));
    }
    return word.end;
}

static const char *put_constant(FILE *out, const function_constant *c) {
    fprintf(
        out,
        "static %.*s sim_value_%.*s; [[maybe_unused]] static const %.*s &%.*s = sim_value_%.*s;",
        TEXT(c->type), TEXT(c->name), TEXT(c->type), TEXT(c->name), TEXT(c->name));
    put_lines(out, c->whole.at, c->whole.end);
    return c->whole.end;
}

// Puts a word, or what becomes of it and of what follows.
static const char *put_word(FILE *out, source *s, slice word) {
    for (int i = 0; i < s->constant_count; i++)
        if (s->constants[i].whole.at == word.at) return put_constant(out, &s->constants[i]);
    for (int i = 0; i < s->function_count; i++) {
        const function *f = &s->functions[i];
        if (!f->kernel || f->name.at != word.at) continue;
        parameter p[PARAMETERS_MAX];
        const char *open = space(f->name.end), *end = closed(s, open);
        fprintf(out, "%.*s(", TEXT(word));
        put_parameters(out, p, read_parameters(s, open, p));
        fputc(')', out);
        put_lines(out, open, end);
        return end;
    }
    if (same(word, most_threads)) { // an attribute that C++ does not know
        fprintf(out, "maybe_unused");
        return closed(s, word.end);
    }
    static const char *const qualifiers[] = {"device", "constant", "threadgroup", "const"};
    for (int i = 0; i < 4; i++)
        if (same(word, qualifiers[i])) return put_declaration(out, s, word);
    fprintf(out, "%.*s", TEXT(word));
    return word.end;
}

void metal_text_put(FILE *out, const char *text) {
    source *s = calloc(1, sizeof *s);
    if (!s) abort();
    s->text = text;
    read_program(s);
    fprintf(out, "#line 1 \"program_source\"\n");
    const char *end = text + strlen(text);
    for (const char *at = text; at < end;) {
        int depth = 0;
        slice word = next_word(s, at, end, &depth);
        fprintf(out, "%.*s", (int)(word.at - at), at);
        at = word.at < word.end ? put_word(out, s, word) : end;
    }
    fprintf(out, "\n");
    put_constants(out, s);
    for (int i = 0; i < s->function_count; i++)
        if (s->functions[i].kernel) put_kernel(out, s, &s->functions[i]);
    free(s);
}

// Metal Feature Set Tables, "SIMD-scoped permute operations", "SIMD-scoped reduction operations"
// and "SIMD-scoped matrix multiply operations".
const char *metal_text_beyond(const char *text, int family) {
    static const struct {
        const char *begins;
        int family;
    } needs[] = {{"simd_shuffle", 6},  {"simd_broadcast", 6},   {"simd_sum", 7},
                 {"simd_max", 7},      {"simdgroup_matrix", 7}, {"simdgroup_float8x8", 7},
                 {"simdgroup_load", 7}};
    source s = {.text = text};
    int depth = 0;
    const char *end = text + strlen(text);
    for (slice word = {text, text};;) {
        word = next_word(&s, word.end, end, &depth);
        if (word.at == word.end) return NULL;
        for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
            if (family < needs[i].family &&
                !strncmp(word.at, needs[i].begins, strlen(needs[i].begins)))
                return needs[i].begins;
    }
}
