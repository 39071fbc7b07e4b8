// Files: their declarations, what they include, and the kernels of all of them put in order.
#include "kc/unit.h"

#include <stdlib.h>
#include <string.h>

static const char *copy_name(kc_unit *unit, const kc_token *t) {
    char *name = kc_alloc(unit, t->length + 1);
    return memcpy(name, t->text, t->length);
}

static kc_item *add_item(kc_parser *p, kc_item_kind kind, const kc_token *first, int index) {
    kc_item *item = &p->file->item[p->file->item_count++];
    *item = (kc_item){.kind = kind, .first = (uint32_t)(first - p->file->token), .index = index};
    item->end = (uint32_t)(p->t - p->file->token);
    return item;
}

// ---- Constants and helpers -------------------------------------------------------------------

static void constant(kc_parser *p, kc_token *first, bool exported) {
    kc_token *type = p->t++;
    int t = kc_find_type(type);
    if (t < 0) kc_bad(p, type, "const uint, int, float or bool is expected");
    kc_token *name = p->t++;
    kc_need(p, "=");
    kc_token *value = p->t;
    kc_expr e = kc_expression_of(p, (kc_type)t, "the constant");
    if (!e.constant) kc_bad(p, value, "the value is no constant");
    if (exported && (t != KC_UINT || e.bits > INT32_MAX))
        kc_bad(p, type, "an exported constant is a uint below 2^31");
    kc_need(p, ";");
    kc_symbol *s = kc_declare(p, name, KC_CONSTANT, (kc_type)t);
    s->value = e.bits;
    s->exported = exported;
    type->role = KC_DECLARE;
    type->symbol = s;
    type->mate = (uint32_t)(name + 1 - p->file->token);
    add_item(p, KC_ITEM_CONST, first, s->global);
}

static void enumeration(kc_parser *p, kc_token *first, bool exported) {
    int from = p->unit->global_count;
    kc_check_name(p, p->t++, true);
    kc_need(p, "{");
    do {
        if (p->t > first + 3 && kc_is(p->t, "}")) break;
        kc_symbol *s = kc_declare(p, p->t++, KC_CONSTANT, KC_UINT);
        s->value = (uint32_t)(p->unit->global_count - from - 1);
        s->exported = exported;
    } while (kc_take(p, ","));
    kc_need(p, "}");
    add_item(p, KC_ITEM_ENUM, first, from);
}

static void helper(kc_parser *p) {
    kc_token *first = p->t++;
    kc_symbol *s = kc_declare(p, p->t++, KC_HELPER, (kc_type)kc_find_type(first));
    s->unfinished = true;
    p->helper = s;
    kc_need(p, "(");
    while (!kc_is(p->t, ")")) {
        if (s->param_count) kc_need(p, ",");
        int type = kc_find_type(p->t);
        if (type < 0) kc_bad(p, p->t, "a parameter is expected: float x");
        if (s->param_count == KC_PARAMS_MAX)
            kc_bad(p, p->t, "more than %d parameters", KC_PARAMS_MAX);
        p->t++;
        kc_declare(p, p->t++, KC_PARAMETER, (kc_type)type);
        s->params[s->param_count++] = (uint8_t)type;
    }
    kc_need(p, ")");
    uint32_t body = (uint32_t)(p->t - p->file->token);
    kc_body(p, true);
    if (!p->returned) kc_bad(p, p->t - 1, "a helper ends with its return");
    p->scope_count = 0;
    p->helper = NULL;
    p->returned = false;
    s->unfinished = false;
    add_item(p, KC_ITEM_HELPER, first, s->global)->body = body;
}

// ---- Scalars ---------------------------------------------------------------------------------

static void field(kc_parser *p, kc_block *b) {
    kc_token *start = p->t;
    bool special = kc_take(p, "const");
    int type = kc_find_type(p->t);
    if (type <= KC_BOOL) kc_bad(p, p->t, "a field is uint, int or float");
    kc_token *name = ++p->t;
    kc_check_name(p, name, false);
    p->t++;
    for (int i = 0; i < b->count; i++) {
        if (kc_same(b->field[i].at, name)) kc_bad(p, name, "two fields of this name");
    }
    if (b->bytes >= KC_SCALAR_BYTES_MAX)
        kc_bad(p, start, "more than %d bytes", KC_SCALAR_BYTES_MAX);
    kc_symbol *s = &b->field[b->count++];
    *s = (kc_symbol){.at = name, .varying = name, .kind = KC_SCALAR, .type = (kc_type)type};
    s->file = p->file_index;
    s->global = -1;
    s->value = b->bytes / 4;
    s->special = special;
    if (kc_take(p, "[")) {
        s->dims[s->dim_count++] = kc_size(p, KC_SCALAR_BYTES_MAX / 4, "the size of a field");
        kc_need(p, "]");
        if (special) kc_bad(p, start, "an array cannot be compiled in: no const here");
    }
    b->bytes += 4 * (s->dim_count ? s->dims[0] : 1);
    if (b->bytes > KC_SCALAR_BYTES_MAX)
        kc_bad(p, start, "%u bytes of scalars: at most %d", (unsigned)b->bytes,
               KC_SCALAR_BYTES_MAX);
    kc_need(p, ";");
}

static kc_block *find_block(const kc_parser *p, const kc_token *name, bool anywhere) {
    for (int i = 0; i < p->unit->block_count; i++) {
        kc_block *b = p->unit->block[i];
        if (kc_is(name, b->name) && (anywhere || (p->file->sees >> b->file & 1))) return b;
    }
    return NULL;
}

static void scalars(kc_parser *p) {
    kc_unit *unit = p->unit;
    kc_token *first = p->t++, *name = p->t++;
    kc_check_name(p, name, false);
    if (find_block(p, name, true)) kc_bad(p, name, "two blocks of scalars of this name");
    if (kc_is(name, "no")) kc_bad(p, name, "bt_no_args is what kernels without scalars have");
    if (unit->block_count == KC_KERNELS_MAX)
        kc_bad(p, name, "more than %d blocks of scalars", KC_KERNELS_MAX);
    kc_block *b = kc_alloc(unit, sizeof *b);
    b->name = copy_name(unit, name);
    b->file = p->file_index;
    kc_need(p, "{");
    while (!kc_take(p, "}")) field(p, b);
    if (!b->count) kc_bad(p, name, "a block of scalars has fields");
    unit->block[unit->block_count++] = b;
    add_item(p, KC_ITEM_SCALARS, first, unit->block_count - 1);
}

// ---- Kernels ---------------------------------------------------------------------------------

static void buffer(kc_parser *p, kc_entry *k) {
    static const char letters[] = "rRwWuU";
    int mode = kc_take(p, "in") ? 0 : kc_take(p, "out") ? 2 : 4;
    if (mode == 4) kc_need(p, "inout");
    bool optional = kc_take(p, "?");
    int type = kc_find_type(p->t);
    if (type <= KC_BOOL) kc_bad(p, p->t, "a buffer is of uint, int or float");
    if (k->buffer_count == KC_BUFFERS_MAX) kc_bad(p, p->t, "more than %d buffers", KC_BUFFERS_MAX);
    p->t++;
    kc_symbol *s = kc_declare(p, p->t++, KC_BUFFER, (kc_type)type);
    kc_need(p, "[");
    kc_need(p, "]");
    s->dim_count = 1;
    s->mode = letters[mode];
    s->optional = optional;
    s->value = (uint32_t)k->buffer_count;
    k->public.bindings[k->buffer_count] = letters[mode + optional];
    k->buffer[k->buffer_count++] = s;
}

static void use_block(kc_parser *p, kc_entry *k) {
    kc_token *name = p->t++;
    kc_block *b = name->kind == KC_NAME ? find_block(p, name, false) : NULL;
    if (!b) kc_bad(p, name, "a buffer (in, out, inout) or a block of scalars is expected");
    for (int i = 0; i < b->count; i++) {
        kc_symbol *s = &b->field[i];
        if (kc_find(p, s->at))
            kc_bad(p, name, "the scalar '%.*s' has the name of something else here",
                   KC_TEXT(s->at));
        if (s->special) k->public.special[k->public.special_count++] = s->value;
        p->scope[p->scope_count++] = s;
    }
    k->public.scalars = b->name;
    k->public.scalar_bytes = b->bytes;
    for (k->block = 0; p->unit->block[k->block] != b;) k->block++;
}

static void parameters(kc_parser *p, kc_entry *k) {
    kc_need(p, "(");
    do {
        if (kc_is(p->t, "in") || kc_is(p->t, "out") || kc_is(p->t, "inout")) {
            buffer(p, k);
            continue;
        }
        use_block(p, k);
        break;
    } while (kc_take(p, ","));
    if (!k->buffer_count) kc_bad(p, p->t, "a kernel has buffers");
    kc_need(p, ")");
}

static void read_rule(kc_parser *p, uint32_t *words) {
    p->rule = words;
    p->rule_count = p->rule_depth = 0;
    kc_expression(p);
    p->rule = NULL;
}

static void grid(kc_parser *p, kc_entry *k) {
    kc_need(p, "group");
    kc_need(p, "(");
    k->public.group = kc_size(p, KC_GROUP_MAX, "the number of threads of a group");
    kc_need(p, ")");
    kc_need(p, "grid");
    kc_need(p, "(");
    for (int i = 0; i < 3; i++) {
        read_rule(p, k->public.grid[i]);
        if (!kc_take(p, ",")) break;
    }
    kc_need(p, ")");
}

// The condition of a variant stands before the parameters, whose names it uses: passed over first.
static kc_token *skip_condition(kc_parser *p) {
    kc_token *start = p->t;
    int depth = 0;
    if (!kc_is(p->t, "(")) kc_need(p, "(");
    do {
        if (p->t->kind == KC_END) kc_need(p, ")");
        depth += kc_is(p->t, "(") - kc_is(p->t, ")");
        p->t++;
    } while (depth);
    return start;
}

static kc_entry *new_kernel(kc_parser *p) {
    kc_unit *unit = p->unit;
    kc_token *name = p->t++;
    kc_check_name(p, name, false);
    if (kc_find(p, name)) kc_bad(p, name, "a helper or constant has this name");
    for (int i = 0; i < unit->kernel_count; i++) {
        if (kc_same(unit->kernel[i]->name, name)) kc_bad(p, name, "two kernels of this name");
    }
    if (unit->kernel_count == KC_KERNELS_MAX)
        kc_bad(p, name, "more than %d kernels", KC_KERNELS_MAX);
    kc_entry *k = kc_alloc(unit, sizeof *k);
    *k = (kc_entry){.name = name, .of = name, .file = p->file_index, .block = -1};
    k->public.name = k->public.of = copy_name(unit, name);
    k->public.path = p->file->source->path;
    k->public.line = name->line;
    k->public.scalars = "";
    k->public.always = true;
    return k;
}

static void kernel(kc_parser *p) {
    kc_token *first = p->t++, *condition = NULL;
    kc_entry *k = new_kernel(p);
    if (kc_take(p, "of")) {
        k->of = p->t;
        kc_check_name(p, k->of, false);
        k->public.of = copy_name(p->unit, p->t++);
        kc_need(p, "when");
        condition = skip_condition(p);
        k->public.always = false;
    }
    parameters(p, k);
    p->kernel = k;
    kc_token *after = p->t;
    if (condition) {
        p->t = condition + 1;
        read_rule(p, k->public.when);
        kc_need(p, ")");
        p->t = after;
    }
    grid(p, k);
    uint32_t body = (uint32_t)(p->t - p->file->token);
    kc_kernel_body(p);
    p->kernel = NULL;
    p->check_barriers = false;
    p->scope_count = 0;
    k->item = p->file->item_count;
    p->unit->kernel[p->unit->kernel_count++] = k;
    add_item(p, KC_ITEM_KERNEL, first, 0)->body = body;
}

// ---- Files -----------------------------------------------------------------------------------

// No name of what is included newly may hide one that is visible already.
static void check_include(kc_parser *p, const kc_token *at, uint64_t more) {
    kc_unit *unit = p->unit;
    for (int i = 0; i < unit->global_count; i++) {
        const kc_symbol *s = unit->global[i], *other;
        if (!((more & ~p->file->sees) >> s->file & 1) || !(other = kc_find(p, s->at))) continue;
        kc_bad(p, at, "'%.*s' of %s is declared in %s, too", KC_TEXT(s->at),
               unit->file[s->file].name, unit->file[other->file].name);
    }
}

static void include(kc_parser *p) {
    kc_unit *unit = p->unit;
    kc_token *first = p->t++, *name = p->t++;
    int i = 0, length = (int)name->length - 2;
    if (name->kind != KC_STRING) kc_bad(p, name, "a file name is expected: include \"other.k\"");
    for (; i < unit->file_count; i++) {
        const char *other = unit->file[i].name;
        if ((int)strlen(other) == length && !memcmp(other, name->text + 1, (size_t)length)) break;
    }
    if (i == unit->file_count) kc_bad(p, name, "there is no file %.*s", KC_TEXT(name));
    if (unit->file[i].state == 1) kc_bad(p, name, "%.*s includes itself", KC_TEXT(name));
    kc_parse_file(unit, i);
    check_include(p, name, unit->file[i].sees);
    p->file->sees |= unit->file[i].sees;
    add_item(p, KC_ITEM_INCLUDE, first, i);
}

static void declaration(kc_parser *p) {
    kc_token *first = p->t;
    bool exported = kc_take(p, "export");
    if (kc_take(p, "const"))
        constant(p, first, exported);
    else if (kc_take(p, "enum"))
        enumeration(p, first, exported);
    else if (exported)
        kc_bad(p, p->t, "export const or export enum is expected");
    else if (kc_is(first, "include"))
        include(p);
    else if (kc_is(first, "scalars"))
        scalars(p);
    else if (kc_is(first, "kernel"))
        kernel(p);
    else if (kc_find_type(first) >= 0)
        helper(p);
    else
        kc_bad(p, first,
               "include, const, enum, scalars, kernel or a helper is expected before '%.*s'",
               KC_TEXT(first));
}

void kc_parse_file(kc_unit *unit, int index) {
    kc_file *file = &unit->file[index];
    if (file->state) return;
    kc_lex(unit, file);
    // A declaration has at least three tokens.
    file->item = kc_alloc(unit, (file->token_count / 3 + 1) * sizeof *file->item);
    file->state = 1;
    file->sees = 1ull << index;
    kc_parser p = {.unit = unit, .file = file, .file_index = index, .t = file->token};
    while (p.t->kind != KC_END) declaration(&p);
    file->state = 2;
}

// ---- The unit --------------------------------------------------------------------------------

static int by_place(const void *a, const void *b) {
    const kc_entry *x = *(kc_entry *const *)a, *y = *(kc_entry *const *)b;
    return x->file != y->file ? (x->file > y->file) - (x->file < y->file)
                              : (x->item > y->item) - (x->item < y->item);
}

static bool same_interface(const kc_entry *a, const kc_entry *b) {
    if (strcmp(a->public.bindings, b->public.bindings) || a->block != b->block) return false;
    for (int i = 0; i < a->buffer_count; i++) {
        if (a->buffer[i]->type != b->buffer[i]->type) return false;
    }
    return true;
}

static void check_variant(kc_unit *unit, const kc_entry *k) {
    const kc_file *file = &unit->file[k->file];
    for (int i = 0; i < unit->kernel_count; i++) {
        const kc_entry *base = unit->kernel[i];
        if (!kc_same(base->name, k->of)) continue;
        if (base->file != k->file || !base->public.always)
            kc_fail(unit, file, k->of, "a variant is of a kernel (no variant) in the same file");
        if (!same_interface(base, k))
            kc_fail(unit, file, k->name, "a variant has the buffers and scalars of its kernel");
        return;
    }
    kc_fail(unit, file, k->of, "there is no kernel '%s'", k->public.of);
}

// Variants come before their kernel.
static void order_kernels(kc_unit *unit) {
    kc_entry *sorted[KC_KERNELS_MAX];
    int count = 0;
    if (unit->kernel_count)
        qsort(unit->kernel, (size_t)unit->kernel_count, sizeof *unit->kernel, by_place);
    for (int i = 0; i < unit->kernel_count; i++) {
        if (!unit->kernel[i]->public.always) check_variant(unit, unit->kernel[i]);
    }
    for (int i = 0; i < unit->kernel_count; i++) {
        const kc_entry *base = unit->kernel[i];
        for (int j = 0; j < unit->kernel_count && base->public.always; j++) {
            kc_entry *k = unit->kernel[j];
            if (!k->public.always && kc_same(k->of, base->name)) sorted[count++] = k;
        }
        if (base->public.always) sorted[count++] = unit->kernel[i];
    }
    memcpy(unit->kernel, sorted, (size_t)count * sizeof *sorted);
}

static void check_exports(kc_unit *unit) {
    for (int i = 0; i < unit->global_count; i++) {
        const kc_symbol *a = unit->global[i];
        for (int j = 0; a->exported && j < i; j++) {
            const kc_symbol *b = unit->global[j];
            if (b->exported && kc_same(a->at, b->at))
                kc_fail(unit, &unit->file[a->file], a->at, "%s exports this name, too",
                        unit->file[b->file].name);
        }
    }
}

static void parse_all(kc_unit *unit, const kc_source *sources, int count) {
    if (count > KC_FILES_MAX)
        kc_fail(unit, NULL, NULL, "%d files: at most %d", count, KC_FILES_MAX);
    for (int i = 0; i < count; i++) {
        const char *slash = strrchr(sources[i].path, '/');
        unit->file[i].source =
            memcpy(kc_alloc(unit, sizeof *sources), &sources[i], sizeof *sources);
        unit->file[i].name = slash ? slash + 1 : sources[i].path;
    }
    unit->file_count = count;
    for (int i = 0; i < count; i++) kc_parse_file(unit, i);
    check_exports(unit);
    order_kernels(unit);
}

kc_unit *kc_parse(const kc_source *sources, int count, kc_error *error) {
    jmp_buf fail;
    kc_unit *volatile unit = calloc(1, sizeof *unit);
    if (!unit) {
        snprintf(error->text, sizeof error->text, "kernels: error: out of memory");
        return NULL;
    }
    unit->error = error;
    unit->fail = &fail;
    if (setjmp(fail)) {
        kc_free(unit);
        return NULL;
    }
    parse_all(unit, sources, count);
    return unit;
}

int kc_kernel_count(const kc_unit *unit) {
    return unit->kernel_count;
}
const kc_kernel *kc_kernel_at(const kc_unit *unit, int index) {
    return &unit->kernel[index]->public;
}

int kc_kernel_find(const kc_unit *unit, const char *name) {
    for (int i = 0; i < unit->kernel_count; i++) {
        if (!strcmp(unit->kernel[i]->public.name, name)) return i;
    }
    return -1;
}
