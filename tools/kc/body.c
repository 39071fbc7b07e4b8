// Statements, and which threads meet at a barrier: what varies between threads is found by reading
// a kernel's body again and again until nothing new turns up (a variable varies when it is ever
// given a varying value, or any value under a varying condition). Conservative, and stricter than
// WGSL.
#include "kc/unit.h"

static bool varying_flow(const kc_parser *p) {
    return p->flow || p->returned;
}

static void vary(kc_parser *p, kc_token *at) {
    p->changed |= !at->varying;
    at->varying = true;
}

static bool at_type(const kc_parser *p) {
    return kc_find_type(p->t) >= 0;
}

// ---- Declarations ----------------------------------------------------------------------------

static uint32_t read_dims(kc_parser *p, kc_symbol *s, uint32_t most) {
    uint32_t elements = 1;
    while (kc_is(p->t, "[")) {
        const kc_token *open = p->t++;
        if (s->dim_count == KC_DIMS_MAX) kc_bad(p, open, "more than %d dimensions", KC_DIMS_MAX);
        s->dims[s->dim_count] = kc_size(p, most, "a dimension");
        elements *= s->dims[s->dim_count++];
        kc_need(p, "]");
        if (elements > most)
            kc_bad(p, open, "an array of %u elements: at most %u", (unsigned)elements,
                   (unsigned)most);
    }
    return elements;
}

static kc_symbol *declarator(kc_parser *p, kc_symbol_kind kind, uint32_t most, uint32_t *elements) {
    kc_token *type = p->t++;
    kc_symbol *s = kc_declare(p, p->t, kind, (kc_type)kc_find_type(type));
    p->t++;
    *elements = read_dims(p, s, most);
    type->role = KC_DECLARE;
    type->symbol = s;
    type->mate = (uint32_t)(p->t - p->file->token);
    return s;
}

static void variable(kc_parser *p) {
    uint32_t elements = 0;
    kc_token *start = p->t;
    kc_symbol *s = declarator(p, KC_LOCAL, KC_ELEMENTS_MAX, &elements);
    if (s->dim_count) {
        if (!kc_is(p->t, ";")) kc_bad(p, p->t, "an array has no first value: ';' is expected");
        p->t->role = KC_SETTLE;
        p->t->symbol = s;
        return;
    }
    if (!kc_is(p->t, "=")) kc_bad(p, start, "a variable has a first value: '= ...' is expected");
    p->t++;
    p->scope_count--; // its own value does not see it
    kc_expr e = kc_expression_of(p, s->type, "the variable");
    p->scope[p->scope_count++] = s;
    if (e.varying || varying_flow(p)) vary(p, s->varying);
}

static void shared_array(kc_parser *p) {
    kc_token *start = p->t++;
    kc_entry *k = p->kernel;
    uint32_t elements = 0;
    if (!at_type(p) || kc_is(p->t, "bool"))
        kc_bad(p, p->t, "shared float, uint or int is expected");
    kc_symbol *s = declarator(p, KC_SHARED_ARRAY, KC_SHARED_BYTES_MAX / 4, &elements);
    if (!s->dim_count) kc_bad(p, start, "what is shared is an array: x[1]");
    if (k->shared_count == KC_SHARED_MAX)
        kc_bad(p, start, "more than %d shared arrays", KC_SHARED_MAX);
    k->shared[k->shared_count++] = s;
    k->public.shared_bytes += 4 * elements;
    if (k->public.shared_bytes > KC_SHARED_BYTES_MAX)
        kc_bad(p, start, "%u bytes of shared memory: at most %d", (unsigned)k->public.shared_bytes,
               KC_SHARED_BYTES_MAX);
    start->role = KC_SHARED;
    start->mate = (uint32_t)(p->t - p->file->token);
    kc_need(p, ";");
}

// ---- Assignments -----------------------------------------------------------------------------

static void check_target(kc_parser *p, const kc_symbol *s, const kc_token *at) {
    static const char *const why[] = {
        [KC_CONSTANT] = "a constant",       [KC_HELPER] = "a helper",
        [KC_SCALAR] = "a scalar",           [KC_PARAMETER] = "a parameter (copy it to a variable)",
        [KC_BUILT_IN] = "a built-in value", [KC_BUFFER] = "a buffer that is read (in)"};
    bool writable = s->kind == KC_LOCAL || s->kind == KC_SHARED_ARRAY ||
                    (s->kind == KC_BUFFER && s->mode != 'r');
    if (!writable) kc_bad(p, at, "'%.*s' cannot be assigned: it is %s", KC_TEXT(at), why[s->kind]);
}

static void assignment(kc_parser *p) {
    static const char *const forms[] = {
        "=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="};
    kc_expr place, value = {0};
    kc_token *start = p->t;
    kc_symbol *s = kc_place(p, &place);
    const kc_token *op = p->t++;
    check_target(p, s, start);
    if (kc_is(op, "++") || kc_is(op, "--")) {
        if (s->type != KC_UINT && s->type != KC_INT)
            kc_bad(p, op, "++ and -- are for uint and int");
    } else {
        bool known = false;
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) known |= kc_is(op, forms[i]);
        if (!known) kc_bad(p, op, "an assignment is expected: =, += ... ++ or --");
        value = kc_expression(p);
        if (op->length > 1) kc_binary(p, op, place, value);
        if (op->length == 1 && value.type != s->type)
            kc_bad(p, value.first, "'%.*s' is %s, not %s; convert it: %s(...)", KC_TEXT(start),
                   kc_type_names[s->type], kc_type_names[value.type], kc_type_names[s->type]);
    }
    bool varies = place.varying || value.varying || varying_flow(p);
    if (s->kind == KC_LOCAL && varies) vary(p, s->varying);
}

// ---- Control flow ----------------------------------------------------------------------------

static void if_statement(kc_parser *p) {
    bool flow = p->flow;
    p->t++;
    kc_need(p, "(");
    p->flow |= kc_expression_of(p, KC_BOOL, "a condition").varying;
    kc_need(p, ")");
    kc_body(p, false);
    if (kc_take(p, "else")) {
        if (++p->depth > KC_DEPTH_MAX)
            kc_bad(p, p->t, "more than %d levels of else if", KC_DEPTH_MAX);
        if (kc_is(p->t, "if"))
            if_statement(p);
        else
            kc_body(p, false);
        p->depth--;
    }
    p->flow = flow;
}

// for (init; condition; step) and while (condition)
static void loop_statement(kc_parser *p) {
    kc_token *start = p->t++;
    bool flow = p->flow, counts = kc_is(start, "for");
    int scope = p->scope_count;
    if (p->loops == KC_DEPTH_MAX) kc_bad(p, start, "more than %d nested loops", KC_DEPTH_MAX);
    kc_need(p, "(");
    if (counts) {
        if (at_type(p))
            variable(p);
        else
            assignment(p);
        kc_need(p, ";");
    }
    p->loop[p->loops++] = start;
    p->flow |= start->varying;
    p->flow |= kc_expression_of(p, KC_BOOL, "a condition").varying;
    if (counts) {
        kc_need(p, ";");
        assignment(p);
    }
    kc_need(p, ")");
    kc_body(p, false);
    p->loops--;
    p->scope_count = scope;
    p->flow = flow;
}

// Threads that leave early make the rest vary: of the loop, or of the kernel and all loops around.
static void leave(kc_parser *p) {
    const kc_token *t = p->t++;
    bool returns = kc_is(t, "return");
    if (!returns && !p->loops) kc_bad(p, t, "'%.*s' stands in a loop", KC_TEXT(t));
    if (!varying_flow(p)) return;
    for (int i = returns ? 0 : p->loops - 1; i < p->loops; i++) vary(p, p->loop[i]);
    p->returned |= returns;
}

static void return_value(kc_parser *p, bool top) {
    const kc_token *t = p->t++;
    if (!top) kc_bad(p, t, "a helper returns at its end alone");
    kc_expression_of(p, p->helper->type, "what the helper returns");
    kc_need(p, ";");
    p->returned = true;
    if (!kc_is(p->t, "}")) kc_bad(p, p->t, "a helper ends with its return");
}

static void barrier(kc_parser *p) {
    kc_token *t = p->t++;
    if (!p->kernel) kc_bad(p, t, "barrier() stands in kernels alone");
    kc_need(p, "(");
    t->role = KC_CALL;
    t->number = KC_BARRIER;
    t->mate = (uint32_t)(kc_need(p, ")") - p->file->token);
    p->kernel->public.has_barrier = true;
    if (p->check_barriers && varying_flow(p))
        kc_bad(p, t,
               "not all threads may come to this barrier: a condition, loop, break, continue or "
               "return before it depends on lid, shared memory or a written buffer");
}

// True: the statement has its end.
static bool statement(kc_parser *p, bool top) {
    kc_token *t = p->t;
    if (kc_is(t, "if")) return if_statement(p), true;
    if (kc_is(t, "for") || kc_is(t, "while")) return loop_statement(p), true;
    if (kc_is(t, "return") && p->helper) return return_value(p, top), true;
    if (kc_is(t, "shared") && p->kernel) {
        if (!top) kc_bad(p, t, "shared arrays stand at the top level of the kernel");
        return shared_array(p), true;
    }
    if (kc_is(t, "return") || kc_is(t, "break") || kc_is(t, "continue"))
        leave(p);
    else if (kc_is(t, "barrier"))
        barrier(p);
    else if (kc_find_builtin(t) >= 0)
        kc_bad(p, t, "a call is no statement, but barrier()");
    else if (kc_is(t, "const"))
        kc_bad(p, t, "constants stand outside of kernels and helpers");
    else if (at_type(p) && t[1].kind == KC_NAME)
        variable(p);
    else if (t->kind == KC_NAME && !at_type(p))
        assignment(p);
    else
        kc_bad(p, t, "a statement is expected before '%.*s'", KC_TEXT(t));
    return false;
}

void kc_body(kc_parser *p, bool top) {
    int scope = p->scope_count;
    if (++p->depth > KC_DEPTH_MAX)
        kc_bad(p, p->t, "nested too deeply: at most %d levels", KC_DEPTH_MAX);
    kc_need(p, "{");
    while (!kc_is(p->t, "}")) {
        if (p->t->kind == KC_END) kc_need(p, "}");
        if (!statement(p, top)) kc_need(p, ";");
    }
    p->t++;
    p->depth--;
    p->scope_count = scope;
}

static void pass(kc_parser *p) {
    kc_kernel *k = &p->kernel->public;
    k->shared_bytes = 0;
    k->has_barrier = p->changed = p->flow = p->returned = false;
    p->kernel->shared_count = 0;
    p->kernel->values = 0;
    kc_body(p, true);
}

void kc_kernel_body(kc_parser *p) {
    kc_token *start = p->t;
    int passes = 0;
    do {
        p->t = start;
        p->all_varying = passes++ >= KC_PASSES_MAX;
        pass(p);
    } while (p->changed && p->kernel->public.has_barrier); // marks only grow, so this ends
    if (p->kernel->public.has_barrier) {
        p->check_barriers = true;
        p->t = start;
        pass(p);
    }
}
