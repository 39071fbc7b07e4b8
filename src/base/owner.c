// See owner.h.
#include "base/owner.h"

#include <stdlib.h>

bt_status bt_own(bt_context *ctx, void *object, bt_free_fn free_object) {
    bt_owner *owner = bt_owner_of(ctx);
    if (owner->count == owner->capacity) {
        int capacity = owner->capacity ? 2 * owner->capacity : 16;
        bt_owned *items = realloc(owner->items, (size_t)capacity * sizeof *items);
        if (!items) {
            free_object(ctx, object);
            return bt_fail_memory(&owner->error, "the context", (size_t)capacity * sizeof *items);
        }
        owner->items = items;
        owner->capacity = capacity;
    }
    owner->items[owner->count++] = (bt_owned){object, free_object};
    return BT_OK;
}

void bt_free_block(bt_context *ctx, void *object) {
    (void)ctx;
    free(object);
}

void bt_owner_shrink(bt_context *ctx, int count) {
    bt_owner *owner = bt_owner_of(ctx);
    while (owner->count > count) {
        bt_owned last = owner->items[--owner->count];
        last.free(ctx, last.object);
    }
}
