// What every folder may know of a context: its error sentence and the list of what it owns.
#ifndef BT_BASE_OWNER_H
#define BT_BASE_OWNER_H

#include "base/status.h"

typedef void (*bt_free_fn)(bt_context *ctx, void *object);

typedef struct bt_owned {
    void *object;
    bt_free_fn free;
} bt_owned;

// The first member of every bt_context.
typedef struct bt_owner {
    bt_error error;
    bt_owned *items;
    int count, capacity;
} bt_owner;

static inline bt_owner *bt_owner_of(bt_context *ctx) {
    return (bt_owner *)ctx;
}
static inline bt_error *bt_error_of(bt_context *ctx) {
    return &bt_owner_of(ctx)->error;
}

// Hands `object` to the context, which calls `free` when it is closed or released past this
// point. On failure the object is freed at once.
bt_status bt_own(bt_context *ctx, void *object, bt_free_fn free) BT_MUST_CHECK;

// free(object), for objects that are one block of memory.
void bt_free_block(bt_context *ctx, void *object);

// Frees the newest objects until `count` are left.
void bt_owner_shrink(bt_context *ctx, int count);

#endif
