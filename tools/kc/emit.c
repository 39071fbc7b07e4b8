// The five languages. A kernel's text is: what its language wants at the top, the constants and
// helpers that the kernel needs, its interface, its body. Bodies and helpers are the source's own
// tokens, blanks and comments, line by line, with #line where the language has it; only what
// differs is exchanged.
//
// Scalars are members of one struct (of the push constants in GLSL, of bt_p elsewhere). Which
// buffers are there: bit i of bt_present, a specialisation constant in GLSL, a function constant in
// MSL, an argument in CUDA, and in WGSL the last member of the struct, so that a device has one
// thing to set and WGSL knows it is uniform.
#include "kc/unit.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *const kc_lang_names[KC_LANG_COUNT] = {"glsl", "cuda", "msl", "wgsl", "c"};

typedef struct kc_writer {
    const kc_unit *unit;
    const kc_entry *k;
    const kc_file *file; // whose tokens are printed
    kc_lang lang;
    bool *used;    // constants and helpers, by their index
    bool umulhi;   // used, too
    uint64_t done; // files whose declarations are printed
    char *text;
    size_t length, capacity;
    bool failed;
} kc_writer;

static const char *const types[KC_LANG_COUNT][KC_TYPE_COUNT] = {
    [KC_GLSL] = {"bool", "int", "uint", "float"},      [KC_CUDA] = {"bool", "int", "uint", "float"},
    [KC_MSL] = {"bool", "int", "uint", "float"},       [KC_WGSL] = {"bool", "i32", "u32", "f32"},
    [KC_C] = {"bool", "int32_t", "uint32_t", "float"},
};

// The names of functions; # is the letter of the type. What follows | is for integers.
static const char *const functions[KC_BUILTIN_COUNT][KC_LANG_COUNT] = {
    [KC_EXP] = {"exp", "expf", "exp", "exp", "bt_sim_exp"},
    [KC_LOG] = {"log", "logf", "log", "log", "bt_sim_log"},
    [KC_SQRT] = {"sqrt", "sqrtf", "sqrt", "sqrt", "bt_sim_sqrt"},
    [KC_FLOOR] = {"floor", "floorf", "floor", "floor", "bt_sim_floor"},
    [KC_ABS] = {"abs", "fabsf|abs", "fabs|abs", "abs", "bt_sim_abs_#"},
    [KC_MIN] = {"min", "fminf|min", "min", "min", "bt_sim_min_#"},
    [KC_MAX] = {"max", "fmaxf|max", "max", "max", "bt_sim_max_#"},
    [KC_FMA] = {"fma", "fmaf", "fma", "fma", "bt_sim_fma"},
    [KC_AS_UINT] = {"floatBitsToUint", "__float_as_uint", "as_type<uint>", "bitcast<u32>",
                    "bt_sim_as_uint"},
    [KC_AS_FLOAT] = {"uintBitsToFloat", "__uint_as_float", "as_type<float>", "bitcast<f32>",
                     "bt_sim_as_float"},
    [KC_UMULHI] = {"bt_umulhi", "__umulhi", "mulhi", "bt_umulhi", "bt_sim_umulhi"},
    [KC_BARRIER] = {"barrier()", "__syncthreads()",
                    "threadgroup_barrier(mem_flags::mem_threadgroup)", "workgroupBarrier()",
                    "BT_SIM_BARRIER()"},
};

static const char *const umulhi[KC_LANG_COUNT] = {
    [KC_GLSL] = "\nuint bt_umulhi(uint a, uint b) {\n    uint high, low;\n"
                "    umulExtended(a, b, high, low);\n    return high;\n}\n",
    [KC_WGSL] = "\nfn bt_umulhi(a: u32, b: u32) -> u32 {\n"
                "    let low = (a & 0xffffu) * (b & 0xffffu);\n"
                "    let one = (a >> 16u) * (b & 0xffffu) + (low >> 16u);\n"
                "    let two = (a & 0xffffu) * (b >> 16u) + (one & 0xffffu);\n"
                "    return (a >> 16u) * (b >> 16u) + (one >> 16u) + (two >> 16u);\n}\n",
};

static const char *const tops[KC_LANG_COUNT] = {
    [KC_GLSL] = ("#version 450\n#extension GL_EXT_buffer_reference : require\n"
                 "#extension GL_GOOGLE_cpp_style_line_directive : enable\n"),
    [KC_CUDA] = ("typedef unsigned int uint;\n"
                 "// Where the GPU can do it, a kernel is launched while the one before it ends.\n"
                 "#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900\n"
                 "#define BT_WAIT asm volatile(\"griddepcontrol.wait;\" ::: \"memory\")\n"
                 "#else\n#define BT_WAIT\n#endif\n"
                 "// Who compiles it for known scalars defines what they are.\n"
                 "#ifndef BT_CONST\n#define BT_CONST(word, value) value\n#endif\n"),
    [KC_MSL] = "#include <metal_stdlib>\nusing namespace metal;\n",
};

// ---- Writing ---------------------------------------------------------------------------------

static void put_text(kc_writer *w, const char *text, size_t length) {
    if (w->capacity - w->length < length + 1) {
        size_t capacity = 2 * w->capacity + length + 4096;
        char *more = w->failed ? NULL : realloc(w->text, capacity);
        w->failed |= !more;
        if (w->failed) return;
        w->text = more;
        w->capacity = capacity;
    }
    memcpy(w->text + w->length, text, length);
    w->length += length;
    w->text[w->length] = 0;
}

static void put(kc_writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(kc_writer *w, const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    w->failed |= length < 0 || length >= (int)sizeof line;
    if (!w->failed) put_text(w, line, (size_t)length);
}

static void put_line(kc_writer *w, int line) {
    if (w->lang != KC_WGSL) put(w, "#line %d \"%.300s\"\n", line, w->file->source->path);
}

static const char *type_of(const kc_writer *w, const kc_symbol *s) {
    return types[w->lang][s->type];
}

// The C text of all kernels is one file, so names get the kernel's in front; and `t` is the thread.
static void put_name(kc_writer *w, const kc_symbol *s) {
    if (w->lang == KC_C && s->global >= 0) put(w, "%s__", w->k->public.name);
    put_text(w, s->at->text, s->at->length);
    bool thread = s->kind != KC_SCALAR && s->at->length == 1 && *s->at->text == 't';
    if (w->lang == KC_C && thread && s->global < 0) put(w, "_");
}

// name[4][5], or array<array<f32, 5>, 4>.
static void put_array(kc_writer *w, const kc_symbol *s) {
    if (w->lang != KC_WGSL) {
        put_name(w, s);
        for (int i = 0; i < s->dim_count; i++) put(w, "[%u]", (unsigned)s->dims[i]);
        return;
    }
    put_name(w, s);
    put(w, ": ");
    for (int i = 0; i < s->dim_count; i++) put(w, "array<");
    put(w, "%s", type_of(w, s));
    for (int i = s->dim_count; i-- > 0;) put(w, ", %u>", (unsigned)s->dims[i]);
}

// ---- Tokens ----------------------------------------------------------------------------------

static void walk(kc_writer *w, uint32_t from, uint32_t to, bool tight);

// Of a declaration that stands elsewhere, the comment above it and its lines.
static void keep_lines(kc_writer *w, const kc_token *t, const char *end) {
    uint32_t length = t->spaces;
    while (length && t->space[length - 1] != '\n') length--;
    put_text(w, t->space, length);
    for (const char *s = t->text; s < end; s++) {
        if (*s == '\n') put(w, "\n");
    }
}

// (Their types must be told to Metal, and are not known to the device: so all are uint.)
static bool is_function_constant(const kc_writer *w, const kc_symbol *s) {
    return w->lang == KC_MSL && s->special && s->type == KC_UINT;
}

static uint32_t put_use(kc_writer *w, uint32_t i) {
    const kc_token *t = &w->file->token[i];
    const kc_symbol *s = t->symbol;
    bool flat = s->kind == KC_SCALAR && s->dim_count && w->lang == KC_WGSL;
    bool local = w->lang == KC_CUDA ? s->special : is_function_constant(w, s);
    bool member = w->lang != KC_GLSL && !local;
    if (s->kind == KC_SCALAR && member) put(w, w->lang == KC_C ? "bt_p->" : "bt_p.");
    if (s->kind == KC_SHARED_ARRAY && w->lang == KC_C) put(w, "BT_SIM_SHARED(bt_sh->");
    if (flat) {
        put(w, "bt_%.*s_%u", KC_TEXT(t), (unsigned)t[1].mate);
        return i + 4;
    }
    if (s->kind == KC_BUFFER && w->lang == KC_C) {
        put(w, "%s(%s, %u, ", s->mode == 'r' ? "BT_SIM_IN" : "BT_SIM_AT", type_of(w, s),
            (unsigned)s->value);
    } else if (s->kind == KC_BUILT_IN) {
        put_text(w, t->text, t->length);
    } else {
        put_name(w, s);
        if (s->kind == KC_BUFFER && w->lang == KC_GLSL) put(w, ".v");
    }
    return i + 1;
}

static void put_index(kc_writer *w, const kc_token *t) {
    const kc_symbol *s = t->symbol;
    bool opens = *t->text == '[';
    if (w->lang != KC_C || s->kind == KC_SCALAR)
        put(w, opens ? "[" : "]");
    else if (s->kind == KC_BUFFER)
        put(w, opens ? "" : ")");
    else if (opens)
        put(w, "[BT_SIM_INDEX(");
    else
        put(w, ", %uu)]%s", (unsigned)t->number, s->kind == KC_SHARED_ARRAY && t->mate ? ")" : "");
}

static void put_conversion(kc_writer *w, const kc_token *t) {
    bool checked = t->type == KC_FLOAT && t->to != KC_FLOAT;
    if (w->lang != KC_C)
        put(w, "%s", types[w->lang][t->to]);
    else if (checked)
        put(w, "bt_sim_to_%s_f", kc_type_names[t->to]);
    else
        put(w, "(%s)", types[KC_C][t->to]);
}

static void put_function(kc_writer *w, const kc_token *t) {
    for (const char *s = functions[t->number][w->lang], *bar = strchr(s, '|'); *s; s++) {
        if (bar && t->type != KC_FLOAT && s < bar) s = bar + 1;
        if (*s == '|') break;
        if (*s == '#')
            put(w, "%c", kc_type_names[t->type][0]);
        else
            put_text(w, s, 1);
    }
}

// c ? a : b, or select(b, a, c).
static void put_pick(kc_writer *w, uint32_t i) {
    const kc_token *t = w->file->token;
    uint32_t comma[2] = {0}, end = t[i].mate;
    int depth = 0, found = 0;
    for (uint32_t j = i + 2; j < end && found < 2; j++) {
        if (t[j].kind != KC_SYMBOL) continue;
        depth +=
            (*t[j].text == '(' || *t[j].text == '[') - (*t[j].text == ')' || *t[j].text == ']');
        if (*t[j].text == ',' && !depth) comma[found++] = j;
    }
    uint32_t from[3] = {i + 2, comma[0] + 1, comma[1] + 1}, to[3] = {comma[0], comma[1], end};
    static const char *const glue[2][3] = {{"(", " ? ", " : "}, {"select(", ", ", ", "}};
    bool turned = w->lang == KC_WGSL;
    for (int j = 0; j < 3; j++) {
        int part = turned ? 2 - j : j;
        bool wrap = !turned && to[part] - from[part] > 1;
        put(w, "%s%s", glue[turned][j], wrap ? "(" : "");
        walk(w, from[part], to[part], true);
        put(w, "%s", wrap ? ")" : "");
    }
    put(w, ")");
}

static uint32_t put_call(kc_writer *w, uint32_t i) {
    const kc_token *t = &w->file->token[i];
    bool member = w->lang == KC_WGSL;
    if (t->number == KC_PICK) {
        put_pick(w, i);
    } else if (t->number == KC_HAS && w->lang == KC_C) {
        put(w, "BT_SIM_HAS(%u)", (unsigned)t->symbol->value);
    } else if (t->number == KC_HAS) {
        put(w, "((%sbt_present & %uu) != 0u)", member ? "bt_p." : "", 1u << t->symbol->value);
    } else {
        put_function(w, t);
        if (t->number != KC_BARRIER) return i + 1;
    }
    return t->mate + 1;
}

static uint32_t put_declaration(kc_writer *w, uint32_t i) {
    const kc_token *t = &w->file->token[i];
    put(w, "%s", w->lang == KC_WGSL ? "var " : type_of(w, t->symbol));
    if (w->lang != KC_WGSL) return i + 1;
    put_array(w, t->symbol);
    return t->mate;
}

// Prints token i and gives the next one.
static uint32_t put_token(kc_writer *w, uint32_t i) {
    const kc_token *t = &w->file->token[i];
    switch ((kc_role)t->role) {
    case KC_USE: return put_use(w, i);
    case KC_CALL: return put_call(w, i);
    case KC_DECLARE: return put_declaration(w, i);
    case KC_INDEX: put_index(w, t); return i + 1;
    case KC_CONVERT: put_conversion(w, t); return i + 1;
    case KC_SHARED: put(w, w->lang == KC_CUDA ? "__shared__" : "threadgroup"); return i + 1;
    case KC_LITERAL:
        put_text(w, t->text, t->length);
        if (t->type == KC_FLOAT && w->lang != KC_GLSL) put(w, "f");
        if (t->type == KC_INT && w->lang == KC_WGSL) put(w, "i");
        return i + 1;
    case KC_SETTLE:
        put(w, ";");
        if (w->lang != KC_C) return i + 1;
        put(w, " BT_SIM_POISON(");
        put_name(w, t->symbol);
        put(w, ");");
        return i + 1;
    default: put_text(w, t->text, t->length); return i + 1;
    }
}

// Prints tokens from .. to - 1; tight: the first one without its blanks, if they are on one line.
static void walk(kc_writer *w, uint32_t from, uint32_t to, bool tight) {
    bool hoists = w->lang != KC_CUDA && w->lang != KC_MSL;
    for (uint32_t i = from; i < to;) {
        const kc_token *t = &w->file->token[i];
        if (t->role == KC_SHARED && hoists) {
            i = t->mate + 1;
            keep_lines(w, t, w->file->token[i].space);
            continue;
        }
        if (!tight || i > from || memchr(t->space, '\n', t->spaces))
            put_text(w, t->space, t->spaces);
        if (t->open && w->lang == KC_WGSL) put(w, "(");
        i = put_token(w, i);
        if (w->file->token[i - 1].shut && w->lang == KC_WGSL) put(w, ")");
    }
}

// ---- Declarations ----------------------------------------------------------------------------

static void mark(kc_writer *w, const kc_file *file, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; i++) {
        const kc_token *t = &file->token[i];
        w->umulhi |= t->role == KC_CALL && t->number == KC_UMULHI;
        const kc_symbol *s = t->role == KC_USE ? t->symbol : NULL;
        if (!s || s->global < 0 || w->used[s->global]) continue;
        w->used[s->global] = true;
        const kc_file *home = &w->unit->file[s->file];
        const kc_item *item = &home->item[s->item];
        if (item->kind != KC_ITEM_ENUM) mark(w, home, item->first, item->end);
    }
}

// A declaration's first token with the comment right above it, and where that stands.
static void put_above(kc_writer *w, const kc_token *t) {
    const char *start = t->space, *from = t->text;
    int line = t->line;
    while (from > start && from[-1] != '\n') from--;
    // What stands in the line where the last declaration ended belongs to that one.
    const char *first = start == w->file->source->text ? start : memchr(start, '\n', t->spaces);
    while (first && from > first + 1) {
        const char *above = from - 1;
        while (above > start && above[-1] != '\n') above--;
        if (*above != '/' || above < first) break;
        from = above;
        line--;
    }
    put(w, "\n");
    put_line(w, line);
    put_text(w, from, (size_t)(t->text - from));
}

static void put_constant_name(kc_writer *w, const kc_symbol *s) {
    static const char *const before[] = {"const", "static constexpr", "constant", "const",
                                         "#define"};
    put(w, "%s ", before[w->lang]);
    if (w->lang != KC_WGSL && w->lang != KC_C) put(w, "%s ", type_of(w, s));
    put_name(w, s);
    if (w->lang == KC_WGSL) put(w, ": %s", type_of(w, s));
}

static void put_constant(kc_writer *w, const kc_item *item) {
    const kc_symbol *s = w->unit->global[item->index];
    float value;
    memcpy(&value, &s->value, sizeof value);
    put_above(w, &w->file->token[item->first]);
    put_constant_name(w, s);
    if (w->lang != KC_C)
        walk(w, (uint32_t)(s->at - w->file->token) + 1, item->end, false);
    else if (s->type == KC_FLOAT)
        put(w, " (%af)", (double)value);
    else
        put(w, s->type == KC_UINT ? " %uu" : " ((int32_t)%uu)", (unsigned)s->value);
    put(w, "\n");
}

static void put_enum(kc_writer *w, const kc_item *item) {
    bool first = true;
    for (uint32_t i = item->first; i < item->end; i++) {
        const kc_symbol *s = w->file->token[i].symbol;
        if (!s || !w->used[s->global]) continue;
        if (first) put(w, "\n");
        put_constant_name(w, s);
        put(w, w->lang == KC_C ? " %uu\n" : " = %uu;\n", (unsigned)s->value);
        first = false;
    }
}

static void put_helper(kc_writer *w, const kc_item *item) {
    static const char *const before[] = {"", "static __device__ ", "static ", "fn ",
                                         "static inline "};
    const kc_symbol *s = w->unit->global[item->index];
    const kc_token *t = &w->file->token[item->first];
    put_above(w, t);
    put(w, "%s", before[w->lang]);
    if (w->lang != KC_WGSL) put(w, "%s ", type_of(w, s));
    put_name(w, s);
    put(w, "(");
    t += 4; // type name ( type NAME
    for (int i = 0; i < s->param_count; i++, t += 3) {
        put(w, "%s", i ? ", " : "");
        if (w->lang != KC_WGSL) put(w, "%s ", type_of(w, t->symbol));
        put_name(w, t->symbol);
        if (w->lang == KC_WGSL) put(w, ": %s", type_of(w, t->symbol));
    }
    put(w, !s->param_count && w->lang == KC_C ? "void)" : ")");
    if (w->lang == KC_WGSL) put(w, " -> %s", type_of(w, s));
    walk(w, item->body, item->end, false);
    put(w, "\n");
}

static void put_file(kc_writer *w, int index) {
    const kc_file *file = &w->unit->file[index];
    if (w->done >> index & 1) return;
    w->done |= 1ull << index;
    for (int i = 0; i < file->item_count; i++) {
        const kc_item *item = &file->item[i];
        bool named = item->kind == KC_ITEM_CONST || item->kind == KC_ITEM_HELPER;
        if (item->kind == KC_ITEM_INCLUDE) put_file(w, item->index);
        if (named && !w->used[item->index]) continue;
        w->file = file;
        if (item->kind == KC_ITEM_CONST) put_constant(w, item);
        if (item->kind == KC_ITEM_ENUM) put_enum(w, item);
        if (item->kind == KC_ITEM_HELPER) put_helper(w, item);
    }
}

// ---- The interface of a kernel ---------------------------------------------------------------

static const kc_block *block_of(const kc_writer *w) {
    return w->k->block < 0 ? NULL : w->unit->block[w->k->block];
}

// The fields of the block of scalars, one a line. Those of GLSL that are compiled in keep their
// place under another name.
static void put_fields(kc_writer *w) {
    const kc_block *b = block_of(w);
    for (int i = 0; b && i < b->count; i++) {
        const kc_symbol *s = &b->field[i];
        bool hidden = w->lang == KC_GLSL && s->special, flat = w->lang == KC_WGSL;
        if (!flat) {
            put(w, "    %s %s", type_of(w, s), hidden ? "bt_" : "");
            put_array(w, s);
            put(w, hidden ? "_;\n" : ";\n");
        } else if (!s->dim_count) {
            put(w, "    %.*s: %s,\n", KC_TEXT(s->at), type_of(w, s));
        }
        for (unsigned j = 0; flat && s->dim_count && j < s->dims[0]; j++)
            put(w, "    bt_%.*s_%u: %s,\n", KC_TEXT(s->at), j, type_of(w, s));
    }
}

static void put_hoisted(kc_writer *w, const char *before, const char *after) {
    for (int i = 0; i < w->k->shared_count; i++) {
        const kc_symbol *s = w->k->shared[i];
        put(w, "%s", before);
        if (w->lang != KC_WGSL) put(w, "%s ", type_of(w, s));
        put_array(w, s);
        put(w, "%s", after);
    }
}

// Names what the kernel uses of lid, gx, gy, gz, ngx.
static void put_values(kc_writer *w, const char *const from[5]) {
    static const char *const names[5] = {"lid", "gx", "gy", "gz", "ngx"};
    const char *declares = w->lang == KC_WGSL ? "let"
                           : w->lang == KC_C  ? "const uint32_t"
                                              : "const uint";
    for (int i = 0; i < 5; i++) {
        if (from[i] && w->k->values >> i & 1)
            put(w, "    %s %s = %s;\n", declares, names[i], from[i]);
    }
}

static void glsl_kernel(kc_writer *w) {
    static const char *const values[5] = {"gl_LocalInvocationIndex", "gl_WorkGroupID.x",
                                          "gl_WorkGroupID.y", "gl_WorkGroupID.z",
                                          "gl_NumWorkGroups.x"};
    const kc_block *b = block_of(w);
    for (int i = 0; i < w->k->buffer_count; i++) {
        const kc_symbol *s = w->k->buffer[i];
        put(w,
            "layout(buffer_reference, std430, buffer_reference_align = 16) %sbuffer bt_%.*s_ { %s "
            "v[]; };\n",
            s->mode == 'r' ? "readonly " : "", KC_TEXT(s->at), type_of(w, s));
    }
    put(w, "layout(push_constant) uniform bt_args {\n");
    for (int i = 0; i < w->k->buffer_count; i++) {
        const kc_token *t = w->k->buffer[i]->at;
        put(w, "    bt_%.*s_ %.*s;\n", KC_TEXT(t), KC_TEXT(t));
    }
    put_fields(w);
    put(w, "};\nlayout(constant_id = 0) const uint bt_present = 0u;\n");
    for (int i = 0, id = 1; b && i < b->count; i++) {
        const kc_symbol *s = &b->field[i];
        if (!s->special) continue;
        put(w, "layout(constant_id = %d) const %s %.*s = %s;\n", id++, type_of(w, s),
            KC_TEXT(s->at),
            s->type == KC_FLOAT ? "0.0"
            : s->type == KC_INT ? "0"
                                : "0u");
    }
    put_hoisted(w, "shared ", ";\n");
    put(w, "layout(local_size_x = %u) in;\n\nvoid main() {\n", (unsigned)w->k->public.group);
    put_values(w, values);
}

static void cuda_kernel(kc_writer *w) {
    static const char *const values[5] = {"threadIdx.x", "blockIdx.x", "blockIdx.y", "blockIdx.z",
                                          "gridDim.x"};
    const char *name = w->k->public.scalars;
    const kc_block *b = block_of(w);
    if (*name) {
        put(w, "struct bt_%s_args {\n", name);
        put_fields(w);
        put(w, "};\n\n");
    }
    put(w, "extern \"C\" __global__ void __launch_bounds__(%u) bt_%s(",
        (unsigned)w->k->public.group, w->k->public.name);
    for (int i = 0; i < w->k->buffer_count; i++) {
        const kc_symbol *s = w->k->buffer[i];
        put(w, "%s%s *%.*s, ", s->mode == 'r' ? "const " : "", type_of(w, s), KC_TEXT(s->at));
    }
    if (*name) put(w, "const bt_%s_args bt_p, ", name);
    put(w, "const uint bt_bindings) {\n    BT_WAIT;\n");
    put(w, "    const uint bt_present = BT_CONST(present, bt_bindings);\n");
    for (int i = 0; b && i < b->count; i++) {
        const kc_symbol *s = &b->field[i];
        if (!s->special) continue;
        put(w, "    const %s %.*s = ", type_of(w, s), KC_TEXT(s->at));
        if (s->type != KC_FLOAT) put(w, "BT_CONST(%u, ", (unsigned)s->value); // words are integers
        put(w, "bt_p.%.*s%s;\n", KC_TEXT(s->at), s->type != KC_FLOAT ? ")" : "");
    }
    put_values(w, values);
}

// lid is a parameter there.
static const char *const parameter_values[5] = {NULL, "bt_group.x", "bt_group.y", "bt_group.z",
                                                "bt_groups.x"};

// What is compiled in are function constants, numbered as on Vulkan. (A struct without a field is
// no buffer that could be bound.)
static void msl_kernel(kc_writer *w) {
    const kc_block *b = block_of(w);
    put(w, "struct bt_args {\n");
    put_fields(w);
    put(w, "%s};\nconstant uint bt_present [[function_constant(0)]];\n",
        b ? "" : "    uint bt_unused;\n");
    for (int i = 0, id = 1; b && i < b->count; i++) {
        const kc_symbol *s = &b->field[i];
        if (is_function_constant(w, s))
            put(w, "constant uint %.*s [[function_constant(%d)]];\n", KC_TEXT(s->at), id);
        id += s->special;
    }
    put(w, "\n[[max_total_threads_per_threadgroup(%u)]] kernel void %s(",
        (unsigned)w->k->public.group, w->k->public.name);
    for (int i = 0; i < w->k->buffer_count; i++) {
        const kc_symbol *s = w->k->buffer[i];
        put(w, "device %s%s *%.*s [[buffer(%d)]],\n    ", s->mode == 'r' ? "const " : "",
            type_of(w, s), KC_TEXT(s->at), i);
    }
    put(w,
        "constant bt_args &bt_p [[buffer(%d)]], uint lid [[thread_index_in_threadgroup]],\n"
        "    uint3 bt_group [[threadgroup_position_in_grid]], uint3 bt_groups "
        "[[threadgroups_per_grid]]) {\n",
        w->k->buffer_count);
    put_values(w, parameter_values);
}

static void wgsl_kernel(kc_writer *w) {
    put(w, "struct bt_args {\n");
    put_fields(w);
    put(w, "    bt_present: u32,\n}\n");
    for (int i = 0; i < w->k->buffer_count; i++) {
        const kc_symbol *s = w->k->buffer[i];
        put(w, "@group(0) @binding(%d) var<storage, %s> %.*s: array<%s>;\n", i,
            s->mode == 'r' ? "read" : "read_write", KC_TEXT(s->at), type_of(w, s));
    }
    put(w, "@group(0) @binding(%d) var<uniform> bt_p: bt_args;\n", w->k->buffer_count);
    put_hoisted(w, "var<workgroup> ", ";\n");
    put(w,
        "\n@compute @workgroup_size(%u)\nfn main(@builtin(local_invocation_index) lid: u32,\n"
        "    @builtin(workgroup_id) bt_group: vec3<u32>, @builtin(num_workgroups) bt_groups: "
        "vec3<u32>) {\n",
        (unsigned)w->k->public.group);
    put_values(w, parameter_values);
}

static void c_kernel(kc_writer *w) {
    static const char *const values[5] = {"t->lid", "t->gx", "t->gy", "t->gz", "t->ngx"};
    const char *name = w->k->public.name;
    if (w->k->shared_count) {
        put(w, "typedef struct %s_shared {\n", name);
        put_hoisted(w, "    ", ";\n");
        put(w, "} %s_shared;\n\n", name);
    }
    put(w, "static void %s_thread(bt_sim_thread *t) {\n", name);
    put_values(w, values);
    if (*w->k->public.scalars)
        put(w, "    const bt_%s_args *bt_p = t->group->scalars;\n    (void)bt_p;\n",
            w->k->public.scalars);
    if (w->k->shared_count)
        put(w, "    %s_shared *bt_sh = t->group->shared;\n    (void)bt_sh;\n", name);
}

static void put_kernel(kc_writer *w) {
    static void (*const interfaces[KC_LANG_COUNT])(kc_writer *) = {
        glsl_kernel, cuda_kernel, msl_kernel, wgsl_kernel, c_kernel};
    const kc_item *item = &w->unit->file[w->k->file].item[w->k->item];
    put(w, "// Kernel %s, line %d of %.300s, translated by kc.\n", w->k->public.name,
        w->k->public.line, w->k->public.path);
    put(w, "%s", tops[w->lang] ? tops[w->lang] : "");
    if (w->umulhi && umulhi[w->lang]) put(w, "%s", umulhi[w->lang]);
    put_file(w, w->k->file);
    w->file = &w->unit->file[w->k->file];
    put(w, "\n");
    interfaces[w->lang](w);
    put_line(w, w->file->token[item->body].line);
    walk(w, item->body + 1, item->end, false);
    put(w, "\n");
}

char *kc_emit(const kc_unit *unit, int kernel, kc_lang lang) {
    kc_writer w = {.unit = unit, .k = unit->kernel[kernel], .lang = lang};
    w.file = &unit->file[w.k->file];
    const kc_item *item = &w.file->item[w.k->item];
    w.used = calloc((size_t)unit->global_count + 1, sizeof *w.used);
    w.failed = !w.used;
    if (!w.failed) {
        mark(&w, w.file, item->body, item->end);
        put_kernel(&w);
    }
    free(w.used);
    if (!w.failed) return w.text;
    free(w.text);
    return NULL;
}
