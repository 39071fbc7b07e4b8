// Compiled kernels: images that the build put into the library, loaded when a program first needs
// one of their functions, and the portable kernels among them.
#include "device/cuda/cuda_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/kernels.h"

const bt_cuda_image *bt_cuda_image_named(const char *name) {
    for (const bt_cuda_image *at = bt_cuda_images; at->name; at++)
        if (!strcmp(at->name, name)) return at;
    return NULL;
}

bool bt_cuda_has_gemm(bt_device *dev) {
    if (dev->chip.capability != 90) return false;
    if (!bt_cuda_image_named("gemm_f32.cubin") && !dev->no_gemm[0])
        bt_cuda_compiler(dev->no_gemm, sizeof dev->no_gemm);
    return !dev->no_gemm[0];
}

// ---- Loading ----------------------------------------------------------------------------------

bt_status bt_cuda_load(bt_device *dev, const void *image, const char *name, CUmodule *out,
                       bt_error *err) {
    char log[256] = "", doing[96];
    int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    *out = NULL;
    CUresult result = bt_cu.cuModuleLoadDataEx(out, image, 2, options, values);
    if (result == CUDA_ERROR_NO_BINARY_FOR_GPU || result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
        return bt_fail(err, BT_ERROR_DEVICE,
                       "cuda:%d: the driver, for CUDA %d.%d, cannot load %s for compute capability "
                       "%d.%d; install a newer driver, or build Bantam with an older CUDA",
                       dev->index, dev->chip.driver / 1000, dev->chip.driver % 1000 / 10, name,
                       dev->chip.capability / 10, dev->chip.capability % 10);
    if (result != CUDA_SUCCESS && log[0])
        return bt_fail(err, BT_ERROR_DEVICE, "cuda:%d cannot load %.60s: %.250s", dev->index, name,
                       log);
    snprintf(doing, sizeof doing, "loading %.60s", name);
    return bt_cuda_check(dev, result, doing, err);
}

// What the build left to NVRTC: `name` is gemm_f32.cubin, the text gemm_f32.cu is in the library.
static bt_status load_now(bt_device *dev, const char *name, CUmodule *out, bt_error *err) {
    char text[96];
    size_t bytes = 0;
    snprintf(text, sizeof text, "#include \"%.*s.cu\"\n", (int)strcspn(name, "."), name);
    unsigned char *code =
        bt_cuda_cached(dev, text, name, &bytes, dev->no_gemm, sizeof dev->no_gemm);
    if (!code)
        return bt_fail(err, BT_ERROR_DEVICE, "cuda:%d: this build has no %.60s: %s", dev->index,
                       name, dev->no_gemm);
    bt_status status = bt_cuda_load(dev, code, name, out, err);
    if (status != BT_OK) bt_cuda_cache_forget(dev, text);
    free(code);
    return status;
}

static bt_status module_named(bt_device *dev, const char *name, CUmodule *out, bt_error *err) {
    for (bt_cuda_module *at = dev->modules; at; at = at->next)
        if (!strcmp(at->name, name)) {
            *out = at->handle;
            return BT_OK;
        }
    const bt_cuda_image *image = bt_cuda_image_named(name);
    bt_cuda_module *module = calloc(1, sizeof *module);
    if (!module) return bt_fail_memory(err, "a module", sizeof *module);
    snprintf(module->name, sizeof module->name, "%s", name);
    bt_status status = image ? bt_cuda_load(dev, image->begin, name, &module->handle, err)
                             : load_now(dev, name, &module->handle, err);
    if (status != BT_OK) {
        free(module);
        return status;
    }
    module->next = dev->modules;
    dev->modules = module;
    *out = module->handle;
    return BT_OK;
}

static bt_status function_of(bt_device *dev, CUmodule module, const char *entry, CUfunction *out,
                             bt_error *err) {
    char doing[96];
    snprintf(doing, sizeof doing, "finding kernel %.60s", entry);
    return bt_cuda_check(dev, bt_cu.cuModuleGetFunction(out, module, entry), doing, err);
}

bt_status bt_cuda_function(bt_device *dev, const char *name, const char *entry, CUfunction *out,
                           bt_error *err) {
    CUmodule module = NULL;
    BT_TRY(bt_cuda_enter(dev, err));
    BT_TRY(module_named(dev, name, &module, err));
    return function_of(dev, module, entry, out, err);
}

bt_status bt_cuda_allow(bt_device *dev, CUfunction function, size_t shared, unsigned cluster,
                        bt_error *err) {
    enum { SHARED_ALWAYS = 48 << 10, CLUSTER_ALWAYS = 8 };
    CUresult result = CUDA_SUCCESS;
    if (shared > SHARED_ALWAYS)
        result = bt_cu.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                          (int)shared);
    if (result == CUDA_SUCCESS && cluster > CLUSTER_ALWAYS)
        result = bt_cu.cuFuncSetAttribute(function,
                                          CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1);
    return bt_cuda_check(dev, result, "preparing a kernel", err);
}

// ---- Portable kernels -------------------------------------------------------------------------

bt_status bt_cuda_modules_open(bt_device *dev, bt_error *err) {
    size_t count = (size_t)bt_portable_count;
    dev->table = calloc(count, sizeof *dev->table);
    dev->functions = calloc(count, sizeof *dev->functions);
    dev->swapped = calloc(count, sizeof *dev->swapped);
    dev->rules = calloc(count, sizeof *dev->rules);
    if (!dev->table || !dev->functions || !dev->swapped || !dev->rules)
        return bt_fail_memory(err, "the table of kernels", count * sizeof *dev->table);
    memcpy(dev->table, bt_portable_table, count * sizeof *dev->table);
    return BT_OK;
}

void bt_cuda_modules_close(bt_device *dev) {
    while (dev->modules) {
        bt_cuda_module *module = dev->modules;
        dev->modules = module->next;
        bt_cu.cuModuleUnload(module->handle);
        free(module);
    }
    for (int i = 0; i < bt_portable_count; i++) {
        if (dev->swapped && dev->swapped[i]) bt_cu.cuModuleUnload(dev->swapped[i]);
        if (dev->rules) free(dev->rules[i]);
    }
    free(dev->table);
    free(dev->functions);
    free(dev->swapped);
    free(dev->rules);
}

// Is the portable kernel compiled for this very chip? Then it waits by griddepcontrol.wait.
static bool is_for_chip(const bt_device *dev, int portable) {
    return dev->swapped[portable]
               ? dev->chip.capability >= 90
               : dev->chip.capability == 90 && bt_cuda_image_named("portable.cubin");
}

static bt_status portable_function(bt_device *dev, int portable, bt_error *err) {
    char entry[80];
    CUfunction *function = &dev->functions[portable];
    if (*function) return BT_OK;
    snprintf(entry, sizeof entry, "bt_%s", dev->table[portable].name);
    if (dev->swapped[portable])
        return function_of(dev, dev->swapped[portable], entry, function, err);
    return bt_cuda_function(dev, is_for_chip(dev, portable) ? "portable.cubin" : "portable.ptx",
                            entry, function, err);
}

// Parameters of a portable kernel: the addresses of its bindings, its scalars, and which bindings
// are there.
bt_status bt_cuda_portable_node(bt_device *dev, const bt_launch *launch, CUfunction special,
                                bt_cuda_node *node, bt_error *err) {
    uint32_t grid[3], present = bt_portable_present(launch);
    uint32_t scalars = bt_kernel_table[launch->kernel].scalar_bytes;
    int portable;
    BT_TRY(bt_portable_pick(dev->table, bt_portable_count, launch, grid, err, &portable));
    if (!special) BT_TRY(portable_function(dev, portable, err));
    *node =
        (bt_cuda_node){.function = special ? special : dev->functions[portable],
                       .grid = {grid[0], grid[1], grid[2]},
                       .block = dev->table[portable].group,
                       .early = special ? dev->chip.capability >= 90 : is_for_chip(dev, portable)};
    for (int i = 0; i < launch->binding_count; i++) {
        CUdeviceptr address = bt_cuda_address(&launch->binding[i]);
        memcpy(node->args + node->args_bytes, &address, sizeof address);
        node->args_bytes += sizeof address;
    }
    memcpy(node->args + node->args_bytes, launch->scalars, scalars);
    node->args_bytes += scalars;
    memcpy(node->args + node->args_bytes, &present, sizeof present);
    node->args_bytes += sizeof present;
    return BT_OK;
}
