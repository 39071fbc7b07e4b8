// Expressions: the grammar (that of WGSL, which wants parentheses where operators of different
// sorts meet), types, constants, and whether the value may differ between the threads of a group.
#include "kc/unit.h"

#include <string.h>

typedef enum kc_class { ARITHMETIC, BITS, SHIFT, COMPARE, LOGIC } kc_class;
enum { BOOL = 1 << KC_BOOL, INT = 1 << KC_INT, UINT = 1 << KC_UINT, FLOAT = 1 << KC_FLOAT };

typedef struct kc_operator {
    const char *text;
    kc_class class;
    int types, level; // level: * binds before +
    kc_rule_op rule;  // KC_RULE_END: not in a rule
} kc_operator;

static const kc_operator operators[] = {
    {"+", ARITHMETIC, INT | UINT | FLOAT, 1, KC_RULE_ADD},
    {"-", ARITHMETIC, INT | UINT | FLOAT, 1, KC_RULE_SUB},
    {"*", ARITHMETIC, INT | UINT | FLOAT, 2, KC_RULE_MUL},
    {"/", ARITHMETIC, INT | UINT | FLOAT, 2, KC_RULE_DIV},
    {"%", ARITHMETIC, INT | UINT, 2, KC_RULE_MOD},
    {"&", BITS, INT | UINT, 0, KC_RULE_END},
    {"|", BITS, INT | UINT, 0, KC_RULE_END},
    {"^", BITS, INT | UINT, 0, KC_RULE_END},
    {"<<", SHIFT, INT | UINT, 0, KC_RULE_END},
    {">>", SHIFT, INT | UINT, 0, KC_RULE_END},
    {"<", COMPARE, INT | UINT | FLOAT, 0, KC_RULE_LT},
    {"<=", COMPARE, INT | UINT | FLOAT, 0, KC_RULE_LE},
    {">", COMPARE, INT | UINT | FLOAT, 0, KC_RULE_GT},
    {">=", COMPARE, INT | UINT | FLOAT, 0, KC_RULE_GE},
    {"==", COMPARE, BOOL | INT | UINT | FLOAT, 0, KC_RULE_EQ},
    {"!=", COMPARE, BOOL | INT | UINT | FLOAT, 0, KC_RULE_NE},
    {"&&", LOGIC, BOOL, 0, KC_RULE_AND},
    {"||", LOGIC, BOOL, 0, KC_RULE_OR},
};

static const kc_operator *find_operator(const kc_token *t, size_t length) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        const char *text = operators[i].text;
        if (t->kind == KC_SYMBOL && strlen(text) == length && !memcmp(t->text, text, length))
            return &operators[i];
    }
    return NULL;
}
static const kc_operator *operator_at(const kc_parser *p) {
    return find_operator(p->t, p->t->length);
}

kc_token *kc_need(kc_parser *p, const char *symbol) {
    if (p->t->kind == KC_END)
        kc_bad(p, p->t, "'%s' is expected before the end of the file", symbol);
    if (!kc_is(p->t, symbol))
        kc_bad(p, p->t, "'%s' is expected before '%.*s'", symbol, KC_TEXT(p->t));
    return p->t++;
}

bool kc_take(kc_parser *p, const char *symbol) {
    bool is = kc_is(p->t, symbol);
    p->t += is;
    return is;
}

// ---- Constants -------------------------------------------------------------------------------

static float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static int64_t as_integer(kc_expr e) {
    return e.type == KC_INT ? (int64_t)(int32_t)e.bits : e.bits;
}

static uint32_t integer_bits(kc_parser *p, const kc_token *at, kc_type type, int64_t value) {
    int64_t low = type == KC_INT ? INT32_MIN : 0, high = type == KC_INT ? INT32_MAX : UINT32_MAX;
    if (value < low || value > high)
        kc_bad(p, at, "the constant %lld is no %s (%lld to %lld)", (long long)value,
               kc_type_names[type], (long long)low, (long long)high);
    return (uint32_t)value;
}

static uint32_t float_bits(kc_parser *p, const kc_token *at, double value) {
    if (!(value >= -3.4028234e38 && value <= 3.4028234e38))
        kc_bad(p, at, "the constant is not finite as a float");
    return as_bits((float)value);
}

static bool compare(char first, char second, double a, double b) {
    bool or_equal = second == '=' && a == b;
    if (first == '=') return a == b;
    if (first == '!') return a != b;
    return or_equal || (first == '<' ? a < b : a > b);
}

static uint32_t shift(kc_parser *p, const kc_token *op, kc_expr a, uint32_t count) {
    if (*op->text == '>')
        return a.type == KC_INT ? (uint32_t)(as_integer(a) >> count) : a.bits >> count;
    return integer_bits(p, op, a.type, (int64_t)((uint64_t)as_integer(a) << count));
}

static uint32_t integer_constant(kc_parser *p, const kc_token *op, kc_expr a, kc_expr b) {
    int64_t x = as_integer(a), y = as_integer(b), r = 0;
    switch (*op->text) {
    case '+': r = x + y; break;
    case '-': r = x - y; break;
    case '*':
        if (__builtin_mul_overflow(x, y, &r)) kc_bad(p, op, "a constant product overflows");
        break;
    case '/': r = x / y; break;
    case '%': r = x % y; break;
    case '&': return a.bits & b.bits;
    case '|': return a.bits | b.bits;
    default: return a.bits ^ b.bits;
    }
    return integer_bits(p, op, a.type, r);
}

static uint32_t float_constant(kc_parser *p, const kc_token *op, double x, double y) {
    char c = *op->text;
    return float_bits(p, op, c == '+' ? x + y : c == '-' ? x - y : c == '*' ? x * y : x / y);
}

static uint32_t binary_constant(kc_parser *p, const kc_operator *o, const kc_token *op, kc_expr a,
                                kc_expr b) {
    bool real = a.type == KC_FLOAT;
    if (o->class == LOGIC) return *op->text == '&' ? a.bits && b.bits : a.bits || b.bits;
    if (o->class == COMPARE)
        return compare(op->text[0], op->length > 1 ? op->text[1] : 0,
                       real ? as_float(a.bits) : (double)as_integer(a),
                       real ? as_float(b.bits) : (double)as_integer(b));
    if (o->class == SHIFT) return shift(p, op, a, b.bits);
    return real ? float_constant(p, op, as_float(a.bits), as_float(b.bits))
                : integer_constant(p, op, a, b);
}

// ---- Rules -----------------------------------------------------------------------------------

// Appends to the condition or grid that is read, if it is one.
static void rule(kc_parser *p, const kc_token *at, kc_rule_op op, uint32_t operand, int grows) {
    if (!p->rule) return;
    bool two = op == KC_RULE_NUMBER || op == KC_RULE_WORD;
    if (op == KC_RULE_END)
        kc_bad(p, at,
               "a condition or grid has uint + - * / %% min max, comparisons, && || ! alone");
    if (p->rule_count + 1 + two >= KC_RULE_WORDS_MAX)
        kc_bad(p, at, "the condition or grid is too long: %d words", KC_RULE_WORDS_MAX);
    p->rule_depth += grows;
    if (p->rule_depth > KC_RULE_DEPTH)
        kc_bad(p, at, "the condition or grid is nested too deeply: %d values", KC_RULE_DEPTH);
    p->rule[p->rule_count++] = op;
    if (two) p->rule[p->rule_count++] = operand;
}

// ---- Operators -------------------------------------------------------------------------------

static void check_types(kc_parser *p, const kc_token *op, const kc_operator *o, kc_expr a,
                        kc_expr b) {
    if (p->rule) return; // all are uints
    if (!(o->types & 1 << a.type))
        kc_bad(p, op, "'%.*s' is not for %s", KC_TEXT(op), kc_type_names[a.type]);
    if (o->class == SHIFT) {
        if (b.type != KC_UINT)
            kc_bad(p, op, "'%.*s' shifts by a uint, not by %s", KC_TEXT(op), kc_type_names[b.type]);
    } else if (a.type != b.type) {
        kc_bad(p, op, "'%.*s' of %s and %s; convert one: %s(...)", KC_TEXT(op),
               kc_type_names[a.type], kc_type_names[b.type], kc_type_names[a.type]);
    }
}

kc_expr kc_binary(kc_parser *p, const kc_token *op, kc_expr a, kc_expr b) {
    // An assignment += has the operator +.
    bool assigns = op->text[op->length - 1] == '=' && !find_operator(op, op->length);
    const kc_operator *o = find_operator(op, op->length - assigns);
    check_types(p, op, o, a, b);
    bool divides = *op->text == '/' || *op->text == '%';
    if (b.constant && divides && !(b.type == KC_FLOAT ? b.bits << 1 : b.bits))
        kc_bad(p, op, "division by 0");
    if (o->class == SHIFT && b.constant && b.bits > 31)
        kc_bad(p, op, "a shift by %u bits: at most 31", (unsigned)b.bits);
    rule(p, op, o->rule, 0, -1);
    kc_expr e = {.type = o->class < COMPARE || p->rule ? a.type : KC_BOOL, .first = a.first};
    e.varying = a.varying || b.varying;
    e.constant = a.constant && b.constant;
    if (e.constant) e.bits = binary_constant(p, o, op, a, b);
    return e;
}

static kc_expr unary(kc_parser *p);

static void enter(kc_parser *p) {
    if (++p->depth > KC_DEPTH_MAX)
        kc_bad(p, p->t, "nested too deeply: at most %d levels", KC_DEPTH_MAX);
}

static kc_expr unary_operator(kc_parser *p) {
    const kc_token *op = p->t++;
    char c = *op->text;
    int types = c == '!' ? BOOL : c == '~' ? INT | UINT : INT | FLOAT;
    enter(p);
    kc_expr e = unary(p);
    p->depth--;
    if (!(types & 1 << e.type) && !p->rule)
        kc_bad(p, op, "'%c' is not for %s", c, kc_type_names[e.type]);
    rule(p, op, c == '!' ? KC_RULE_NOT : KC_RULE_END, 0, 0);
    e.first = (kc_token *)op;
    if (!e.constant) return e;
    if (c == '-' && e.type == KC_FLOAT)
        e.bits ^= 0x80000000;
    else if (c == '-')
        e.bits = integer_bits(p, op, e.type, -as_integer(e));
    else
        e.bits = c == '!' ? !e.bits : ~e.bits;
    return e;
}

// ---- Literals --------------------------------------------------------------------------------

static double ten_to(int exponent) {
    double value = 1;
    for (; exponent > 0; exponent--) value *= 10;
    for (; exponent < 0; exponent++) value /= 10;
    return value;
}

// Digits, perhaps a point and digits, perhaps an exponent. The value serves checks alone, the text
// is printed as it is. False: no float.
static bool scan_float(const char *s, const char *end, double *value) {
    int exponent = 0, written = 0, digits = 0;
    bool point = false, negative = false, fraction = true;
    for (*value = 0; s < end && *s != 'e'; s++) {
        if (*s == '.' && !point && digits) {
            point = true;
            fraction = false;
        } else if (*s >= '0' && *s <= '9') {
            *value = *value * 10 + (*s - '0');
            exponent -= point;
            digits = 1;
            fraction = true;
        } else {
            return false;
        }
    }
    if (!digits || !fraction || (!point && s == end)) return false;
    if (s == end) return *value *= ten_to(exponent), true;
    s++;
    if (s < end && (*s == '-' || *s == '+')) negative = *s++ == '-';
    if (s == end || end - s > 3) return false;
    for (; s < end; s++) {
        if (*s < '0' || *s > '9') return false;
        written = written * 10 + (*s - '0');
    }
    *value *= ten_to(exponent + (negative ? -written : written));
    return true;
}

// 12, 12u, 0x1fu. False: neither int nor uint.
static bool scan_integer(const char *s, const char *end, kc_type *type, uint64_t *value) {
    bool is_uint = end[-1] == 'u', hex = end - s > 2 && s[0] == '0' && s[1] == 'x';
    *type = is_uint ? KC_UINT : KC_INT;
    end -= is_uint;
    s += hex ? 2 : 0;
    if (s == end || (hex && !is_uint) || (!hex && *s == '0' && end - s > 1)) return false;
    for (*value = 0; s < end; s++) {
        static const char digits[] = "0123456789abcdefABCDEF";
        const char *digit = strchr(digits, *s);
        int n = !digit ? 99 : (int)(digit - digits);
        n -= n > 15 && n < 99 ? 6 : 0;
        if (n >= (hex ? 16 : 10)) return false;
        *value = *value * (hex ? 16 : 10) + (uint64_t)n;
        if (*value > UINT32_MAX) *value = (uint64_t)UINT32_MAX + 1;
    }
    return true;
}

static kc_expr literal(kc_parser *p) {
    kc_token *t = p->t++;
    kc_expr e = {.constant = true, .first = t};
    uint64_t integer = 0;
    double real = 0;
    if (t->length > 40) kc_bad(p, t, "a number of %u characters: at most 40", (unsigned)t->length);
    if (scan_integer(t->text, t->text + t->length, &e.type, &integer)) {
        e.bits = integer_bits(p, t, e.type, (int64_t)integer);
    } else if (scan_float(t->text, t->text + t->length, &real)) {
        e.type = KC_FLOAT;
        e.bits = float_bits(p, t, real);
        if (real > 0 && real < 1.17549436e-38) kc_bad(p, t, "too small for a float");
    } else {
        kc_bad(p, t, "'%.*s' is no number; write 1, 1u, 0x1fu, 1.0 or 1e-3", KC_TEXT(t));
    }
    t->role = KC_LITERAL;
    t->type = (uint8_t)e.type;
    if (p->rule && e.type != KC_UINT) kc_bad(p, t, "a condition or grid is of uints: write 1u");
    rule(p, t, KC_RULE_NUMBER, e.bits, 1);
    return e;
}

// ---- Calls -----------------------------------------------------------------------------------

// An argument; WGSL takes `f(a < b, c > (d))` for a template, so a bool of several tokens is
// marked.
static kc_expr argument(kc_parser *p) {
    kc_token *first = p->t;
    kc_expr e = kc_expression(p);
    if (e.type == KC_BOOL && p->t - first > 1) {
        first->open = true;
        p->t[-1].shut = true;
    }
    return e;
}

static uint32_t convert_bits(kc_parser *p, const kc_token *at, kc_expr e, kc_type to) {
    if (to == e.type) return e.bits;
    if (to == KC_FLOAT) return as_bits((float)as_integer(e));
    if (e.type != KC_FLOAT) return e.bits;
    double value = as_float(e.bits);
    if (!(value > -2147483649.0 && value < 4294967296.0))
        kc_bad(p, at, "the constant %g is no %s", value, kc_type_names[to]);
    return integer_bits(p, at, to, (int64_t)value);
}

static kc_expr conversion(kc_parser *p, kc_type to) {
    kc_token *t = p->t++;
    kc_need(p, "(");
    kc_expr e = kc_expression(p);
    kc_need(p, ")");
    if (p->rule) kc_bad(p, t, "a condition or grid has no conversions");
    if (to == KC_BOOL || e.type == KC_BOOL)
        kc_bad(p, t, "no conversion from %s to %s; compare, or pick(c, a, b)",
               kc_type_names[e.type], kc_type_names[to]);
    if (e.constant) e.bits = convert_bits(p, t, e, to);
    t->role = KC_CONVERT;
    t->type = (uint8_t)e.type;
    t->to = (uint8_t)to;
    e.type = to;
    e.first = t;
    return e;
}

static const struct {
    uint8_t count, types; // of the arguments
    int8_t result;        // -1: as the arguments
    bool folds;           // has a value for constants
} signatures[KC_BUILTIN_COUNT] = {
    [KC_EXP] = {1, FLOAT, -1, false},
    [KC_LOG] = {1, FLOAT, -1, false},
    [KC_SQRT] = {1, FLOAT, -1, false},
    [KC_FLOOR] = {1, FLOAT, -1, false},
    [KC_ABS] = {1, FLOAT | INT, -1, true},
    [KC_MIN] = {2, FLOAT | INT | UINT, -1, true},
    [KC_MAX] = {2, FLOAT | INT | UINT, -1, true},
    [KC_FMA] = {3, FLOAT, -1, true},
    [KC_PICK] = {3, BOOL | FLOAT | INT | UINT, -1, true},
    [KC_AS_UINT] = {1, FLOAT, KC_UINT, true},
    [KC_AS_FLOAT] = {1, UINT, KC_FLOAT, true},
    [KC_UMULHI] = {2, UINT, -1, true},
};

static uint32_t call_constant(kc_parser *p, kc_token *t, const kc_expr *a) {
    kc_type type = a[0].type;
    bool real = type == KC_FLOAT, less;
    switch ((kc_builtin)t->number) {
    case KC_ABS:
        return real ? a[0].bits & 0x7fffffff
                    : integer_bits(p, t, type,
                                   as_integer(a[0]) < 0 ? -as_integer(a[0]) : as_integer(a[0]));
    case KC_MIN:
    case KC_MAX:
        less =
            real ? as_float(a[0].bits) < as_float(a[1].bits) : as_integer(a[0]) < as_integer(a[1]);
        return less == (t->number == KC_MIN) ? a[0].bits : a[1].bits;
    case KC_FMA:
        return float_bits(p, t,
                          (double)as_float(a[0].bits) * as_float(a[1].bits) + as_float(a[2].bits));
    case KC_PICK: return a[0].bits ? a[1].bits : a[2].bits;
    case KC_AS_FLOAT: return float_bits(p, t, as_float(a[0].bits)), a[0].bits;
    case KC_UMULHI: return (uint32_t)((uint64_t)a[0].bits * a[1].bits >> 32);
    default: return a[0].bits;
    }
}

static void check_arguments(kc_parser *p, kc_token *t, const kc_expr *a) {
    int count = signatures[t->number].count, from = t->number == KC_PICK;
    if (from && a[0].type != KC_BOOL)
        kc_bad(p, a[0].first, "pick(c, a, b) picks by a bool, not by %s", kc_type_names[a[0].type]);
    for (int i = from; i < count; i++) {
        if (!(signatures[t->number].types & 1 << a[i].type))
            kc_bad(p, a[i].first, "%.*s is not for %s", KC_TEXT(t), kc_type_names[a[i].type]);
        if (a[i].type != a[from].type)
            kc_bad(p, a[i].first, "%.*s of %s and %s; convert one", KC_TEXT(t),
                   kc_type_names[a[from].type], kc_type_names[a[i].type]);
    }
}

static kc_expr builtin_call(kc_parser *p, kc_token *t) {
    kc_expr a[3] = {0}, e = {.constant = true, .first = t};
    int count = signatures[t->number].count;
    kc_need(p, "(");
    for (int i = 0; i < count; i++) {
        if (i) kc_need(p, ",");
        a[i] = argument(p);
        e.varying |= a[i].varying;
        e.constant &= a[i].constant;
    }
    t->mate = (uint32_t)(kc_need(p, ")") - p->file->token);
    check_arguments(p, t, a);
    t->role = KC_CALL;
    t->type = (uint8_t)a[t->number == KC_PICK].type;
    e.type = signatures[t->number].result < 0 ? t->type : (kc_type)signatures[t->number].result;
    rule(p, t,
         t->number == KC_MIN   ? KC_RULE_MIN
         : t->number == KC_MAX ? KC_RULE_MAX
                               : KC_RULE_END,
         0, -1);
    if (e.constant && !signatures[t->number].folds)
        kc_bad(p, t, "%.*s of a constant: write the number", KC_TEXT(t));
    if (e.constant) e.bits = call_constant(p, t, a);
    return e;
}

static kc_expr has_call(kc_parser *p, kc_token *t) {
    kc_need(p, "(");
    kc_symbol *s = p->t->kind == KC_NAME ? kc_find(p, p->t) : NULL;
    if (!s || s->kind != KC_BUFFER) kc_bad(p, p->t, "has(...) asks for a buffer of the kernel");
    if (!s->optional)
        kc_bad(p, p->t, "this buffer is always there (in? out? inout? may be absent)");
    if (p->rule) kc_bad(p, t, "a condition or grid has scalars and constants alone");
    p->t++;
    t->role = KC_CALL;
    t->symbol = s;
    t->mate = (uint32_t)(kc_need(p, ")") - p->file->token);
    return (kc_expr){.type = KC_BOOL, .first = t};
}

static kc_expr helper_call(kc_parser *p, kc_token *t, const kc_symbol *s) {
    kc_expr e = {.type = s->type, .first = t};
    if (s->unfinished) kc_bad(p, t, "a helper cannot call itself");
    if (p->rule) kc_bad(p, t, "a condition or grid calls min and max alone");
    kc_need(p, "(");
    for (int i = 0; i < s->param_count; i++) {
        if (i) kc_need(p, ",");
        kc_expr a = argument(p);
        if (a.type != s->params[i])
            kc_bad(p, a.first, "argument %d of %.*s is %s, not %s", i + 1, KC_TEXT(t),
                   kc_type_names[s->params[i]], kc_type_names[a.type]);
        e.varying |= a.varying;
    }
    kc_need(p, ")");
    return e;
}

// ---- Names and elements ----------------------------------------------------------------------

static void read_index(kc_parser *p, kc_symbol *s, int dim, kc_expr *place) {
    uint32_t *outer = p->rule, size = s->kind == KC_BUFFER ? 0 : s->dims[dim];
    kc_token *open = kc_need(p, "["), *first = p->t;
    p->rule = NULL;
    kc_expr i = kc_expression(p);
    p->rule = outer;
    kc_token *shut = kc_need(p, "]");
    if (i.type != KC_UINT && !(i.type == KC_INT && i.constant))
        kc_bad(p, first, "an index is a uint, not %s", kc_type_names[i.type]);
    if (i.constant && as_integer(i) < 0) kc_bad(p, first, "a negative index");
    if (i.constant && !size && i.bits > INT32_MAX) kc_bad(p, first, "an index beyond 2^31");
    if (i.constant && size && i.bits >= size)
        kc_bad(p, first, "index %u of %u elements", (unsigned)i.bits, (unsigned)size);
    if (s->kind == KC_SCALAR && (shut - first != 1 || first->kind != KC_NUMBER))
        kc_bad(p, first, "an array of scalars is indexed by a literal: dim[0]");
    open->role = shut->role = KC_INDEX;
    open->symbol = shut->symbol = s;
    open->number = shut->number = size;
    open->mate = i.bits;                  // of a scalar: which
    shut->mate = dim == s->dim_count - 1; // the last one
    place->varying |= i.varying;
}

static void read_scalar(kc_parser *p, kc_token *t, kc_symbol *s, uint32_t offset) {
    if (p->rule && s->type != KC_UINT)
        kc_bad(p, t, "a condition or grid is of uints, not of %s", kc_type_names[s->type]);
    rule(p, t, KC_RULE_WORD, s->value + offset, 1);
}

kc_symbol *kc_place(kc_parser *p, kc_expr *e) {
    kc_token *t = p->t;
    if (t->kind != KC_NAME) kc_bad(p, t, "a value is expected before '%.*s'", KC_TEXT(t));
    kc_symbol *s = kc_find(p, t);
    if (!s || (s->kind == KC_BUILT_IN && !p->kernel))
        kc_bad(p, t, "'%.*s' is not declared%s", KC_TEXT(t),
               p->helper ? " (a helper sees constants, helpers above it and its parameters)" : "");
    if (p->rule && s->kind != KC_SCALAR && s->kind != KC_CONSTANT)
        kc_bad(p, t, "'%.*s': a condition or grid has scalars and constants alone", KC_TEXT(t));
    p->t++;
    t->role = KC_USE;
    t->symbol = s;
    *e = (kc_expr){
        .type = s->type, .first = t, .constant = s->kind == KC_CONSTANT, .bits = s->value};
    e->varying = s->kind == KC_BUILT_IN
                     ? s->value == 0
                     : s->kind == KC_SHARED_ARRAY || (s->kind == KC_BUFFER && s->mode != 'r') ||
                           (s->kind == KC_LOCAL && (s->varying->varying || p->all_varying));
    if (s->kind == KC_BUILT_IN && !p->rule) p->kernel->values |= 1u << s->value;
    if (s->kind == KC_HELPER) return s;
    if (s->kind == KC_CONSTANT) rule(p, t, KC_RULE_NUMBER, s->value, 1);
    for (int i = 0; i < s->dim_count; i++) read_index(p, s, i, e);
    if (s->kind == KC_SCALAR) read_scalar(p, t, s, s->dim_count ? t[1].mate : 0);
    if (p->rule && s->type != KC_UINT) kc_bad(p, t, "a condition or grid is of uints");
    return s;
}

static kc_expr named(kc_parser *p) {
    kc_expr e = {0};
    const kc_symbol *s = kc_place(p, &e);
    if (s->kind == KC_HELPER) return helper_call(p, e.first, s);
    if (kc_is(p->t, "(")) kc_bad(p, e.first, "'%.*s' is no function", KC_TEXT(e.first));
    return e;
}

static kc_expr primary(kc_parser *p) {
    kc_token *t = p->t;
    if (t->kind == KC_NUMBER) return literal(p);
    if (kc_take(p, "(")) {
        kc_expr e = kc_expression(p);
        kc_need(p, ")");
        e.first = t;
        return e;
    }
    if (kc_is(t, "true") || kc_is(t, "false")) {
        if (p->rule) kc_bad(p, t, "a condition or grid is of uints");
        p->t++;
        return (kc_expr){.type = KC_BOOL, .constant = true, .bits = kc_is(t, "true"), .first = t};
    }
    int type = kc_find_type(t), builtin = kc_find_builtin(t);
    if (type >= 0) return conversion(p, (kc_type)type);
    if (builtin < 0) return named(p);
    p->t++;
    t->number = (uint32_t)builtin;
    if (builtin == KC_BARRIER) kc_bad(p, t, "barrier() is a statement");
    return builtin == KC_HAS ? has_call(p, t) : builtin_call(p, t);
}

// ---- The grammar -----------------------------------------------------------------------------

static kc_expr unary(kc_parser *p) {
    if (kc_is(p->t, "-") || kc_is(p->t, "!") || kc_is(p->t, "~")) return unary_operator(p);
    enter(p);
    kc_expr e = primary(p);
    p->depth--;
    return e;
}

static kc_expr arithmetic(kc_parser *p, kc_expr a, int level) {
    for (const kc_operator *o;
         (o = operator_at(p)) && o->class == ARITHMETIC && o->level >= level;) {
        const kc_token *op = p->t++;
        kc_expr b = unary(p);
        if (o->level == 1) b = arithmetic(p, b, 2);
        a = kc_binary(p, op, a, b);
    }
    return a;
}

// After an operator of one sort, another sort must stand in parentheses.
static kc_expr alone(kc_parser *p, kc_expr e) {
    const kc_operator *o = operator_at(p);
    if (o && o->class != LOGIC)
        kc_bad(p, p->t, "put parentheses around '%s' or the operator before it", o->text);
    return e;
}

static kc_expr comparison(kc_parser *p) {
    kc_expr a = unary(p);
    const kc_operator *o = operator_at(p);
    if (o && (o->class == BITS || o->class == SHIFT)) {
        const kc_token *op = p->t;
        do {
            p->t++;
            a = kc_binary(p, op, a, unary(p));
        } while (o->class == BITS && kc_same(p->t, op));
        return alone(p, a);
    }
    a = arithmetic(p, a, 1);
    o = operator_at(p);
    if (!o || o->class != COMPARE) return alone(p, a);
    const kc_token *op = p->t++;
    kc_expr b = unary(p);
    return alone(p, kc_binary(p, op, a, arithmetic(p, b, 1)));
}

kc_expr kc_expression(kc_parser *p) {
    enter(p);
    kc_expr a = comparison(p);
    const kc_operator *o = operator_at(p);
    for (const kc_token *first = p->t; o && o->class == LOGIC; o = operator_at(p)) {
        const kc_token *op = p->t++;
        if (!kc_same(op, first)) kc_bad(p, op, "&& and || mix only with parentheses");
        a = kc_binary(p, op, a, comparison(p));
    }
    p->depth--;
    return a;
}

kc_expr kc_expression_of(kc_parser *p, kc_type type, const char *what) {
    kc_token *first = p->t;
    kc_expr e = kc_expression(p);
    if (e.type != type)
        kc_bad(p, first, "%s is %s, not %s", what, kc_type_names[type], kc_type_names[e.type]);
    return e;
}

uint32_t kc_size(kc_parser *p, uint32_t most, const char *what) {
    kc_token *first = p->t;
    kc_expr e = kc_expression(p);
    if (!e.constant || (e.type != KC_INT && e.type != KC_UINT) || as_integer(e) < 1 ||
        e.bits > most)
        kc_bad(p, first, "%s is a constant from 1 to %u", what, (unsigned)most);
    return e.bits;
}
