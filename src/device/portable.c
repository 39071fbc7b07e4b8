// See portable.h: rules are run on a small stack, with nothing believed about them.
#include "device/portable.h"

#include <stdlib.h>
#include <string.h>

#include "device/kernels.h"

typedef struct rule_stack {
    uint32_t value[BT_RULE_DEPTH];
    int count;
} rule_stack;

static bool push(rule_stack *s, uint32_t value) {
    if (s->count == BT_RULE_DEPTH) return false;
    s->value[s->count++] = value;
    return true;
}

static bool word_at(const unsigned char *scalars, uint32_t word, uint32_t *value) {
    if (word >= BT_SCALAR_BYTES_MAX / 4) return false;
    memcpy(value, scalars + (size_t)word * 4, 4);
    return true;
}

// b is not 0 for DIV and MOD. false: no such operation, or an overflow.
static bool combine(uint32_t op, uint32_t a, uint32_t b, uint32_t *out) {
    switch (op) {
    case BT_RULE_ADD: return !__builtin_add_overflow(a, b, out);
    case BT_RULE_SUB: return !__builtin_sub_overflow(a, b, out);
    case BT_RULE_MUL: return !__builtin_mul_overflow(a, b, out);
    case BT_RULE_DIV: *out = a / b; return true;
    case BT_RULE_MOD: *out = a % b; return true;
    case BT_RULE_MIN: *out = a < b ? a : b; return true;
    case BT_RULE_MAX: *out = a > b ? a : b; return true;
    case BT_RULE_LT: *out = a < b; return true;
    case BT_RULE_LE: *out = a <= b; return true;
    case BT_RULE_GT: *out = a > b; return true;
    case BT_RULE_GE: *out = a >= b; return true;
    case BT_RULE_EQ: *out = a == b; return true;
    case BT_RULE_NE: *out = a != b; return true;
    case BT_RULE_AND: *out = a && b; return true;
    case BT_RULE_OR: *out = a || b; return true;
    default: return false;
    }
}

static bool apply(rule_stack *s, uint32_t op) {
    if (op == BT_RULE_NOT) {
        if (s->count < 1) return false;
        s->value[s->count - 1] = !s->value[s->count - 1];
        return true;
    }
    if (s->count < 2) return false;
    uint32_t b = s->value[--s->count], *a = &s->value[s->count - 1];
    if ((op == BT_RULE_DIV || op == BT_RULE_MOD) && b == 0) return false;
    return combine(op, *a, b, a);
}

bool bt_rule_value(const uint32_t *rule, const unsigned char *scalars, uint32_t *value) {
    *value = 1;
    if (!rule) return true;
    rule_stack stack = {.count = 0};
    for (int at = 0; at < BT_RULE_WORDS_MAX; at++) {
        uint32_t op = rule[at], operand = 0;
        if (op == BT_RULE_END) {
            *value = stack.value[0];
            return stack.count == 1;
        }
        bool ok;
        if (op == BT_RULE_NUMBER || op == BT_RULE_WORD) {
            if (++at == BT_RULE_WORDS_MAX) return false;
            operand = rule[at];
            ok = (op == BT_RULE_NUMBER || word_at(scalars, operand, &operand)) &&
                 push(&stack, operand);
        } else {
            ok = apply(&stack, op);
        }
        if (!ok) return false;
    }
    return false;
}

static bt_status grid_of(const bt_portable *k, const bt_launch *launch, uint32_t grid[3],
                         bt_error *err) {
    for (int i = 0; i < 3; i++) {
        if (!bt_rule_value(k->grid[i], launch->scalars, &grid[i]))
            return bt_fail(err, BT_ERROR_USAGE,
                           "kernel %s (%s:%d): its number of work groups along %c does not fit 32 "
                           "bits; try a smaller batch",
                           k->name, k->file, k->line, "xyz"[i]);
        if (grid[i] == 0) grid[i] = 1;
        if (grid[i] > BT_GROUPS_MAX)
            return bt_fail(err, BT_ERROR_USAGE,
                           "kernel %s (%s:%d) needs %u work groups along %c; at most %d; try a "
                           "smaller batch",
                           k->name, k->file, k->line, grid[i], "xyz"[i], BT_GROUPS_MAX);
    }
    return BT_OK;
}

bt_status bt_portable_pick(const bt_portable *table, int count, const bt_launch *launch,
                           uint32_t grid[3], bt_error *err, int *index) {
    const char *name = bt_kernel_table[launch->kernel].name;
    if (launch->dtype != BT_F32)
        return bt_fail(err, BT_ERROR_DEVICE, "%s in %s: GPUs compute in f32; use the cpu device",
                       name, bt_dtype_name((bt_dtype)launch->dtype));
    for (int i = 0; i < count; i++) {
        uint32_t holds;
        // A condition that cannot be evaluated does not hold: the kernel itself is always right.
        if (table[i].kernel != launch->kernel ||
            !bt_rule_value(table[i].when, launch->scalars, &holds) || !holds)
            continue;
        *index = i;
        return grid_of(&table[i], launch, grid, err);
    }
    return bt_fail(err, BT_ERROR_DEVICE, "kernel %s runs on the CPU alone; use the cpu device",
                   name);
}

uint32_t bt_portable_present(const bt_launch *launch) {
    uint32_t present = 0;
    for (uint32_t i = 0; i < launch->binding_count; i++)
        if (launch->binding[i].buffer) present |= 1u << i;
    return present;
}

void bt_portable_constants(const bt_portable *kernel, const bt_launch *launch,
                           uint32_t out[1 + BT_SPECIAL_MAX]) {
    memset(out, 0, (1 + BT_SPECIAL_MAX) * sizeof *out);
    out[0] = bt_portable_present(launch);
    for (int i = 0; i < kernel->special_count; i++)
        memcpy(&out[1 + i], launch->scalars + 4 * kernel->special[i], 4);
}

static size_t rule_words(const uint32_t *rule) {
    size_t at = 0;
    while (at < BT_RULE_WORDS_MAX && rule[at] != BT_RULE_END)
        at += rule[at] == BT_RULE_NUMBER || rule[at] == BT_RULE_WORD ? 2 : 1;
    return at + 1;
}

bt_status bt_portable_adopt(bt_portable *entry, const bt_portable *from, bt_portable_rules **kept,
                            bt_error *err) {
    const uint32_t *rules[4] = {from->when, from->grid[0], from->grid[1], from->grid[2]};
    const uint32_t **to[4] = {&entry->when, &entry->grid[0], &entry->grid[1], &entry->grid[2]};
    for (int i = 0; i < 4; i++)
        if (rules[i] && rule_words(rules[i]) > BT_RULE_WORDS_MAX)
            return bt_fail(err, BT_ERROR_DATA, "a rule of kernel %.40s has more than %d words",
                           entry->name, BT_RULE_WORDS_MAX);
    bt_portable_rules *room = calloc(1, sizeof *room);
    if (!room) return bt_fail_memory(err, "the rules of a kernel", sizeof *room);
    entry->group = from->group;
    entry->shared_bytes = from->shared_bytes;
    entry->special_count = from->special_count;
    memcpy(entry->special, from->special, sizeof entry->special);
    for (int i = 0; i < 4; i++) {
        *to[i] = rules[i] ? room->words[i] : NULL;
        if (rules[i]) memcpy(room->words[i], rules[i], rule_words(rules[i]) * sizeof(uint32_t));
    }
    free(*kept);
    *kept = room;
    return BT_OK;
}
