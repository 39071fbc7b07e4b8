// The contract of every launch, checked once for all devices when a program is made.
#include "program/lower.h"

#include <ctype.h>

static bool overlap(const bt_binding *a, const bt_binding *b) {
    return a->buffer == b->buffer && a->offset < b->offset + b->bytes &&
           b->offset < a->offset + a->bytes;
}

static bt_status bad(bt_error *err, const bt_launch *launch, const char *label, int binding,
                     const char *what) {
    return bt_fail(err, BT_ERROR_INTERNAL, "launch \"%s\" (kernel %s), binding %d: %s", label,
                   bt_kernel_table[launch->kernel].name, binding, what);
}

static bt_status check_binding(const bt_launch *launch, const char *label, int i, bt_error *err) {
    const char *modes = bt_kernel_table[launch->kernel].bindings;
    const bt_binding *b = &launch->binding[i];
    if (!b->buffer)
        return isupper((unsigned char)modes[i]) ? BT_OK : bad(err, launch, label, i, "is missing");
    if (b->offset % BT_BINDING_ALIGN) return bad(err, launch, label, i, "is not aligned");
    if (b->offset > b->buffer->bytes || b->bytes > b->buffer->bytes - b->offset)
        return bad(err, launch, label, i, "reaches past its buffer");
    for (int j = 0; j < launch->binding_count; j++) {
        bool both_read =
            tolower((unsigned char)modes[i]) == 'r' && tolower((unsigned char)modes[j]) == 'r';
        if (j != i && launch->binding[j].buffer && !both_read && overlap(b, &launch->binding[j]))
            return bad(err, launch, label, i, "overlaps another binding that is written");
    }
    return BT_OK;
}

bt_status bt_launch_validate(const bt_launch *launch, const char *label, bt_error *err) {
    if (launch->kernel >= BT_KERNEL_COUNT)
        return bt_fail(err, BT_ERROR_INTERNAL, "launch \"%s\": no kernel %u", label,
                       launch->kernel);
    if (launch->dtype != BT_F32 && launch->dtype != BT_F64)
        return bad(err, launch, label, 0, "the launch is neither f32 nor f64");
    for (int i = 0; i < launch->binding_count; i++) BT_TRY(check_binding(launch, label, i, err));
    return BT_OK;
}
