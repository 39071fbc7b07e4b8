// The devices and the kernels that this build knows: the one place that names them.
#include "device/cpu/cpu.h"
#include "device/device.h"
#include "device/kernels.h"

#include <stdlib.h>
#include <string.h>

const bt_kernel_info bt_kernel_table[BT_KERNEL_COUNT] = {
#define X(name, bindings, args) {#name, bindings, sizeof(args)},
    BT_KERNELS(X)
#undef X
};

const bt_device_api *const bt_device_kinds[] = {&bt_device_cpu, NULL};

int bt_devices(bt_device_info *out, int max) {
    int count = 0;
    for (int kind = 0; bt_device_kinds[kind]; kind++)
        for (int index = 0;; index++) {
            bt_device_info info;
            memset(&info, 0, sizeof info);
            bool found = bt_device_kinds[kind]->probe(index, &info);
            if (!found && index > 0) break;
            if (count < max) out[count] = info;
            count++;
            if (!found) break;
        }
    return count;
}

static bt_status no_device(const char *name, bt_error *err) {
    bool gpu = strncmp(name, "gpu", 3) == 0;
    char known[256] = "";
    for (int kind = 0; bt_device_kinds[kind]; kind++) {
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", kind ? ", " : "",
                 bt_device_kinds[kind]->name);
    }
    return bt_fail(err, BT_ERROR_DEVICE,
                   "no device \"%s\"%s; this build has: %s (`bantam devices` says more)", name,
                   gpu ? ": this build drives no GPU" : "", known);
}

// "kind" or "kind:index"; "gpu" is the first kind that is not the CPU and is there.
bt_status bt_device_open(const bt_context_desc *desc, bt_error *err, const bt_device_api **api,
                         int *index, bt_device **out) {
    const char *name = desc->device ? desc->device : "cpu";
    size_t length = strcspn(name, ":");
    char *end = NULL;
    long wanted = name[length] ? strtol(name + length + 1, &end, 10) : 0;
    if (end && (*end || end == name + length + 1 || wanted < 0 || wanted > 255))
        return bt_fail(err, BT_ERROR_USAGE,
                       "device \"%s\": expected a kind and a number, such as cpu:0", name);
    bool any_gpu = length == 3 && !strncmp(name, "gpu", 3);
    for (int kind = 0; bt_device_kinds[kind]; kind++) {
        const bt_device_api *candidate = bt_device_kinds[kind];
        bt_device_info info;
        memset(&info, 0, sizeof info);
        bool named = strlen(candidate->name) == length && !strncmp(candidate->name, name, length);
        if (!named && !(any_gpu && strcmp(candidate->name, "cpu") != 0)) continue;
        if (!candidate->probe((int)wanted, &info)) {
            if (any_gpu) continue;
            return bt_fail(err, BT_ERROR_DEVICE, "device \"%s\" is not there%s%s", name,
                           info.reason[0] ? ": " : "", info.reason);
        }
        *api = candidate;
        *index = (int)wanted;
        return candidate->open((int)wanted, desc, err, out);
    }
    return no_device(name, err);
}
