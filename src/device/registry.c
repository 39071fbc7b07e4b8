// The devices and the kernels that this build knows: the one place that names them.
#include "device/check/check.h"
#include "device/cpu/cpu.h"
#include "device/device.h"
#include "device/kernels.h"
#include "device/metal/metal.h"
#include "device/sim/run.h"
#ifdef BT_HAVE_CUDA
#include "device/cuda/cuda.h"
#endif
#ifdef BT_HAVE_VULKAN
#include "device/vulkan/vulkan.h"
#endif

#include <stdlib.h>
#include <string.h>

const bt_kernel_info bt_kernel_table[BT_KERNEL_COUNT] = {
#define X(name, bindings, args) {#name, bindings, sizeof(args)},
    BT_KERNELS(X)
#undef X
};

// What stands for a kind of device that this build has not.
#ifndef BT_HAVE_CUDA
static bool no_cuda(int index, bt_device_info *out) {
    (void)index;
    *out =
        (bt_device_info){.name = "cuda",
                         .reason = "this build has no CUDA: install clang (or CUDA's nvcc), then "
                                   "make again"};
    return false;
}
static const bt_device_api bt_device_cuda = {.name = "cuda", .probe = no_cuda};
#endif
#ifndef BT_HAVE_VULKAN
static bool no_vulkan(int index, bt_device_info *out) {
    (void)index;
    *out = (bt_device_info){.name = "vulkan",
                            .reason = "this build has no Vulkan: install glslc and libvulkan-dev, "
                                      "then make again"};
    return false;
}
static const bt_device_api bt_device_vulkan = {.name = "vulkan", .probe = no_vulkan};
#endif

const bt_device_api *const bt_device_kinds[] = {
    &bt_device_cpu,
    &bt_device_cuda,
    &bt_device_metal,
    &bt_device_vulkan,
    &bt_device_sim, // these two play one on the CPU
    &bt_device_check,
    NULL, // the end
};

int bt_devices(bt_device_info *out, int max) {
    int count = 0;
    for (int kind = 0; bt_device_kinds[kind]; kind++)
        for (int index = 0;; index++) {
            bt_device_info info;
            memset(&info, 0, sizeof info);
            bool found = bt_device_kinds[kind]->probe(index, &info);
            if (!found && (index > 0 || !info.name[0])) break;
            if (count < max) out[count] = info;
            count++;
            if (!found) break;
        }
    return count;
}

static bt_status no_device(const char *name, bt_error *err) {
    char known[256] = "";
    for (int kind = 0; bt_device_kinds[kind]; kind++) {
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", kind ? ", " : "",
                 bt_device_kinds[kind]->name);
    }
    return bt_fail(err, BT_ERROR_DEVICE,
                   "no device \"%s\"; this build has: %s (`bantam devices` says more)", name,
                   known);
}

// Why there is no GPU: each kind of device that could have been one tells.
static bt_status no_gpu(const char *name, bt_error *err) {
    char reasons[420] = "";
    int kind = 1; // 0 is the CPU
    bt_device_info info = {0};
    for (; bt_device_kinds[kind]; kind++) {
        info = (bt_device_info){0};
        if (bt_device_kinds[kind]->probe(0, &info)) break;
        if (!info.name[0]) continue;
        size_t used = strlen(reasons);
        snprintf(reasons + used, sizeof reasons - used, "%s%s: %s", used ? "; " : "",
                 bt_device_kinds[kind]->name, info.reason);
    }
    if (bt_device_kinds[kind] == &bt_device_sim)
        return bt_fail(err, BT_ERROR_DEVICE, "no device \"%s\": %s", name, reasons);
    return bt_fail(
        err, BT_ERROR_DEVICE,
        "no device \"%s\": no GPU is there, and what only plays one, such as %s, is used "
        "when it is named (`bantam devices` lists all)",
        name, info.name);
}

// The GPU number `wanted`: what is there, is not the CPU and does not play a GPU on it.
static bool find_gpu(long wanted, const bt_device_api **api, int *index) {
    for (int kind = 0; bt_device_kinds[kind]; kind++)
        for (int i = 0; bt_device_kinds[kind] != &bt_device_cpu; i++) {
            bt_device_info info;
            memset(&info, 0, sizeof info);
            if (!bt_device_kinds[kind]->probe(i, &info)) break;
            if (!info.available || info.software || wanted-- > 0) continue;
            *api = bt_device_kinds[kind];
            *index = i;
            return true;
        }
    return false;
}

// "kind", "kind:index", "gpu" or "gpu:index".
bt_status bt_device_open(const bt_context_desc *desc, bt_error *err, const bt_device_api **api,
                         int *index, bt_device **out) {
    const char *name = desc->device ? desc->device : "cpu";
    size_t length = strcspn(name, ":");
    char *end = NULL;
    long wanted = name[length] ? strtol(name + length + 1, &end, 10) : 0;
    if (end && (*end || end == name + length + 1 || wanted < 0 || wanted > 255))
        return bt_fail(err, BT_ERROR_USAGE,
                       "device \"%s\": expected a kind and a number, such as cpu:0", name);
    if (length == 3 && !strncmp(name, "gpu", 3)) {
        if (!find_gpu(wanted, api, index)) return no_gpu(name, err);
        return (*api)->open(*index, desc, err, out);
    }
    for (int kind = 0; bt_device_kinds[kind]; kind++) {
        const bt_device_api *candidate = bt_device_kinds[kind];
        if (strlen(candidate->name) != length || strncmp(candidate->name, name, length) != 0)
            continue;
        bt_device_info info;
        memset(&info, 0, sizeof info);
        if (!candidate->probe((int)wanted, &info))
            return bt_fail(err, BT_ERROR_DEVICE, "device \"%s\" is not there%s%s", name,
                           info.reason[0] ? ": " : "; see `bantam devices`", info.reason);
        *api = candidate;
        *index = (int)wanted;
        return candidate->open((int)wanted, desc, err, out);
    }
    return no_device(name, err);
}
