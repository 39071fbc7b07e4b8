// A kernel exchanged while the device is open: Metal compiles the new MSL.
#include "device/metal/metal_internal.h"

bt_status bt_metal_kernel_swap(bt_device *dev, int portable, const bt_portable *rules,
                               const char *text, bt_error *err) {
    BT_TRY(bt_metal_wait(dev, err));
    if (portable < 0 || portable >= bt_portable_count)
        return bt_fail(err, BT_ERROR_USAGE, "there is no kernel %d; there are %d", portable,
                       bt_portable_count);
    bt_portable *kernel = &dev->table[portable];
    bt_mtl library;
    BT_TRY(bt_metal_compile(dev, kernel, false, text, err, &library));
    bt_status status = bt_portable_adopt(kernel, rules, &dev->rules[portable], err);
    if (status != BT_OK) {
        bt_mtl_release(library);
        return status;
    }
    bt_metal_pipelines_drop(dev, portable);
    bt_mtl_release(dev->libraries[portable]);
    dev->libraries[portable] = library;
    dev->generation++;
    return bt_metal_resolve_all(dev, err);
}
