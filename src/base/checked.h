// Checked size arithmetic. Every size that comes from a file or a caller goes through these, so
// that an overflow is an error and not a small allocation (docs/design.md, "Input is hostile").
#ifndef BT_BASE_CHECKED_H
#define BT_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool bt_mul_ok(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool bt_add_ok(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}

// Rounds up to a multiple of `align`, a power of two.
static inline bool bt_align_ok(size_t a, size_t align, size_t *out) {
    size_t sum;
    if (!bt_add_ok(a, align - 1, &sum)) return false;
    *out = sum & ~(align - 1);
    return true;
}

#endif
