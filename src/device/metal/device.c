// The Metal device: what there is, opening and closing, and the table of what it does.
#include "device/metal/metal_internal.h"

#include <stdio.h>
#include <stdlib.h>

bt_status bt_metal_alive(const bt_device *dev, bt_error *err) {
    if (dev->lost.status == BT_OK) return BT_OK;
    return bt_fail(err, dev->lost.status, "%s", dev->lost.text);
}

// ---- What there is ------------------------------------------------------------------------------

// The number of the newest generation of Apple's GPUs that it belongs to; 0: it is of another make.
static int apple_family(bt_mtl gpu) {
    enum { APPLE = 1000, NEWEST = 15 }; // MTLGPUFamilyApple1 is 1001
    int family = NEWEST;
    while (family > 0 && !BT_METAL(bool, long)(gpu, bt_metal.supports_family, (long)APPLE + family))
        family--;
    return family;
}

static void describe(bt_mtl gpu, bt_device_info *out) {
    void *pool = bt_metal.pool_push();
    char family[24] = "";
    int number = apple_family(gpu);
    if (number > 0) snprintf(family, sizeof family, ", family Apple %d", number);
    out->software = bt_metal_simulated();
    snprintf(out->description, sizeof out->description, "%.60s, Metal%s%s%s",
             bt_mtl_text(bt_mtl_object(gpu, bt_metal.name)), family,
             BT_METAL(bool)(gpu, bt_metal.has_unified) ? ", unified memory" : "",
             out->software ? ", software" : "");
    out->memory_bytes = (size_t)BT_METAL(uint64_t)(gpu, bt_metal.working_set);
    bt_metal.pool_pop(pool);
}

// There is one: what macOS prefers. Without a name nobody is told of it (registry.c).
static bool metal_probe(int index, bt_device_info *out) {
    *out = (bt_device_info){0};
    bool possible;
    bt_mtl gpu = bt_metal_gpu(out->reason, &possible);
    if (possible) snprintf(out->name, sizeof out->name, "metal:%d", index);
    if (!gpu) return false;
    if (index > 0) {
        snprintf(out->reason, sizeof out->reason, "the last Metal device is metal:0");
        bt_mtl_release(gpu);
        return false;
    }
    out->available = true;
    describe(gpu, out);
    bt_mtl_release(gpu);
    return true;
}

// ---- Opening ------------------------------------------------------------------------------------

static bt_status open_parts(bt_device *dev, bt_error *err) {
    size_t shared = bt_mtl_number(dev->gpu, bt_metal.max_shared);
    snprintf(dev->name, sizeof dev->name, "%s",
             bt_mtl_text(bt_mtl_object(dev->gpu, bt_metal.name)));
    dev->most_bytes = bt_mtl_number(dev->gpu, bt_metal.max_buffer);
    dev->working_set = (size_t)BT_METAL(uint64_t)(dev->gpu, bt_metal.working_set);
    dev->family = apple_family(dev->gpu);
    dev->concurrent = BT_METAL(bool)(dev->gpu, bt_metal.has_unified);
    if (shared < BT_GROUP_SHARED_BYTES_MAX)
        return bt_fail(err, BT_ERROR_DEVICE,
                       "metal:%d (%s) has %zu bytes of threadgroup memory, and Bantam's kernels "
                       "need %d; train on the CPU here",
                       dev->index, dev->name, shared, BT_GROUP_SHARED_BYTES_MAX);
    dev->queue = bt_mtl_object(dev->gpu, bt_metal.new_queue);
    if (!dev->queue)
        return bt_fail(err, BT_ERROR_DEVICE,
                       "metal:%d (%s) gives no command queue; close other programs that use the "
                       "GPU, or start the Mac again",
                       dev->index, dev->name);
    BT_TRY(bt_metal_memory_open(dev, err));
    return bt_metal_pipelines_open(dev, err);
}

static void metal_close(bt_device *dev) {
    if (!dev) return;
    if (dev->gpu) {
        bt_error ignored = {0};
        (void)bt_metal_wait(dev, &ignored);
        void *pool = bt_metal.pool_push();
        bt_metal_pipelines_close(dev);
        bt_metal_memory_close(dev);
        bt_mtl_release(dev->queue);
        bt_mtl_release(dev->gpu);
        bt_metal.pool_pop(pool);
    }
    free(dev);
}

static bt_status metal_open(int index, const bt_context_desc *desc, bt_error *err,
                            bt_device **out) {
    *out = NULL;
    char reason[BT_METAL_REASON_BYTES];
    bool possible;
    bt_device *dev = calloc(1, sizeof *dev);
    if (!dev) return bt_fail_memory(err, "the Metal device", sizeof *dev);
    dev->index = index;
    dev->no_overrides = desc && desc->no_overrides;
    dev->gpu = bt_metal_gpu(reason, &possible);
    bt_status status = BT_OK;
    if (dev->gpu) {
        void *pool = bt_metal.pool_push();
        status = open_parts(dev, err);
        bt_metal.pool_pop(pool);
    } else {
        status = bt_fail(err, BT_ERROR_DEVICE, "there is no device metal:%d: %s", index, reason);
    }
    if (status != BT_OK) {
        metal_close(dev);
        return status;
    }
    *out = dev;
    return BT_OK;
}

static const bt_device_counters *metal_counters(const bt_device *dev) {
    return &dev->counters;
}

const bt_device_api bt_device_metal = {
    .name = "metal",
    .portable = true,
    .probe = metal_probe,
    .open = metal_open,
    .close = metal_close,
    .buffer_init = bt_metal_buffer_init,
    .buffer_done = bt_metal_buffer_done,
    .write = bt_metal_write,
    .read = bt_metal_read,
    .program_init = bt_metal_program_init,
    .program_done = bt_metal_program_done,
    .run = bt_metal_run,
    .wait = bt_metal_wait,
    .times = bt_metal_times,
    .merged = bt_metal_merged,
    .log = bt_metal_log,
    .counters = metal_counters,
    .kernel_swap = bt_metal_kernel_swap,
    .language = "msl",
};
