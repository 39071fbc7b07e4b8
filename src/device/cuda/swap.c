// A kernel exchanged while the device is open: NVRTC compiles its new text. Every program then runs
// launch by launch, since a whole-program kernel would not show the change.
#include "device/cuda/cuda_internal.h"

#include <stdlib.h>

static bt_status compile(bt_device *dev, const char *name, const char *text, CUmodule *out,
                         bt_error *err) {
    char why[400];
    unsigned char *code = NULL;
    size_t bytes = 0;
    if (!bt_cuda_compile(text, name, dev->chip.capability, &code, &bytes, why, sizeof why))
        return bt_fail(err, BT_ERROR_DATA, "kernel %.40s does not compile: %.400s", name, why);
    bt_status status = bt_cuda_load(dev, code, name, out, err);
    free(code);
    return status;
}

bt_status bt_cuda_kernel_swap(bt_device *dev, int portable, const bt_portable *rules,
                              const char *text, bt_error *err) {
    CUmodule module = NULL;
    if (portable < 0 || portable >= bt_portable_count)
        return bt_fail(err, BT_ERROR_USAGE, "there is no kernel %d; there are %d", portable,
                       bt_portable_count);
    BT_TRY(bt_cuda_wait(dev, err));
    BT_TRY(compile(dev, dev->table[portable].name, text, &module, err));
    bt_status status = bt_portable_adopt(&dev->table[portable], rules, &dev->rules[portable], err);
    if (status != BT_OK) {
        bt_cu.cuModuleUnload(module);
        return status;
    }
    CUmodule old = dev->swapped[portable];
    dev->swapped[portable] = module;
    dev->functions[portable] = NULL;
    dev->swaps++;
    status = bt_cuda_resolve_all(dev, err); // no program has the old one after this
    if (old) bt_cu.cuModuleUnload(old);
    return status;
}
