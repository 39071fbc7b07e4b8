// A kernel exchanged while the device is open: Metal compiles the new MSL.
#include "device/metal/metal_internal.h"

#include <stdlib.h>

// Copies the rules into the table of the device: the caller's may not live long.
static bt_status adopt(bt_device *dev, int portable, const bt_portable *rules, bt_error *err) {
    bt_portable_rules *room = calloc(1, sizeof *room);
    if (!room) return bt_fail_memory(err, "the rules of a kernel", sizeof *room);
    bt_status status = bt_portable_adopt(&dev->table[portable], rules, room, err);
    bt_portable_rules *unused = status == BT_OK ? dev->rules[portable] : room;
    if (status == BT_OK) dev->rules[portable] = room;
    free(unused);
    return status;
}

bt_status bt_metal_kernel_swap(bt_device *dev, int portable, const bt_portable *rules,
                               const char *text, bt_error *err) {
    BT_TRY(bt_metal_wait(dev, err));
    if (portable < 0 || portable >= bt_portable_count)
        return bt_fail(err, BT_ERROR_USAGE, "there is no kernel %d; there are %d", portable,
                       bt_portable_count);
    bt_portable kernel = *rules;
    kernel.name = dev->table[portable].name;
    bt_mtl pipeline;
    BT_TRY(bt_metal_compile(dev, &kernel, text, err, &pipeline));
    bt_status status = adopt(dev, portable, rules, err);
    if (status != BT_OK) {
        bt_mtl_release(pipeline);
        return status;
    }
    bt_mtl_release(dev->pipelines[portable]);
    dev->pipelines[portable] = pipeline;
    dev->generation++;
    return bt_metal_resolve_all(dev, err);
}
