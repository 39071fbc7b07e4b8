// The CUDA device: opening and closing, errors, and the table of what it does.
#include "device/cuda/cuda_internal.h"

#include <stdio.h>
#include <stdlib.h>

// ---- Errors -----------------------------------------------------------------------------------

// After these nothing runs in the context any more.
static bool is_fatal(CUresult result) {
    switch (result) {
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_UNKNOWN: return true;
    default: return result >= CUDA_ERROR_HARDWARE_STACK_ERROR && result <= CUDA_ERROR_LAUNCH_FAILED;
    }
}

// The driver's own words, as in "CUDA_ERROR_ILLEGAL_ADDRESS, an illegal memory access ...".
static void describe(CUresult result, char text[160]) {
    const char *name = "unknown", *words = "no explanation";
    bt_cu.cuGetErrorName(result, &name);
    bt_cu.cuGetErrorString(result, &words);
    snprintf(text, 160, "%.50s, %.100s", name, words);
}

bt_status bt_cuda_check(bt_device *dev, CUresult result, const char *doing, bt_error *err) {
    char words[160];
    if (result == CUDA_SUCCESS) return BT_OK;
    describe(result, words);
    if (is_fatal(result)) {
        bt_fail(&dev->lost, BT_ERROR_DEVICE,
                "the device cuda:%d (%.60s) was lost while %s: %s; look at the kernel's log, and "
                "start again from the last checkpoint",
                dev->index, dev->chip.name, doing, words);
        return bt_fail(err, BT_ERROR_DEVICE, "%s", dev->lost.text);
    }
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        return bt_fail(err, BT_ERROR_MEMORY,
                       "out of memory on cuda:%d while %s: Bantam has %zu of its %zu MiB; try a "
                       "smaller batch or model, or end what else uses the GPU (nvidia-smi)",
                       dev->index, doing, dev->used_bytes >> 20, dev->chip.memory_bytes >> 20);
    return bt_fail(err, BT_ERROR_DEVICE, "cuda:%d failed while %s: %s", dev->index, doing, words);
}

bt_status bt_cuda_enter(bt_device *dev, bt_error *err) {
    if (dev->lost.status != BT_OK) return bt_fail(err, dev->lost.status, "%s", dev->lost.text);
    return bt_cuda_check(dev, bt_cu.cuCtxSetCurrent(dev->context), "entering its context", err);
}

// ---- Opening ----------------------------------------------------------------------------------

static bool cuda_probe(int index, bt_device_info *out) {
    bt_cuda_chip chip;
    *out = (bt_device_info){0};
    snprintf(out->name, sizeof out->name, "cuda:%d", index);
    out->available = bt_cuda_chip_at(index, &chip, out->reason);
    if (!out->available) return false;
    snprintf(out->description, sizeof out->description,
             "%.60s, compute capability %d.%d, driver for CUDA %d.%d", chip.name,
             chip.capability / 10, chip.capability % 10, chip.driver / 1000,
             chip.driver % 1000 / 10);
    out->memory_bytes = chip.memory_bytes;
    return true;
}

static bt_status open_parts(bt_device *dev, bt_error *err) {
    const char *doing = "opening it";
    enum { NON_BLOCKING = 1 }; // does not wait for what others do on the default stream
    BT_TRY(bt_cuda_check(dev, bt_cu.cuDevicePrimaryCtxRetain(&dev->context, dev->chip.handle),
                         doing, err));
    BT_TRY(bt_cuda_enter(dev, err));
    BT_TRY(bt_cuda_check(dev, bt_cu.cuStreamCreate(&dev->stream, NON_BLOCKING), doing, err));
    for (int i = 0; i < BT_CUDA_IN_FLIGHT; i++) {
        BT_TRY(bt_cuda_check(dev, bt_cu.cuEventCreate(&dev->slots[i].begin, 0), doing, err));
        BT_TRY(bt_cuda_check(dev, bt_cu.cuEventCreate(&dev->slots[i].end, 0), doing, err));
    }
    return bt_cuda_modules_open(dev, err);
}

static void close_parts(bt_device *dev) {
    if (dev->stream) (void)bt_cu.cuStreamSynchronize(dev->stream);
    for (int i = 0; i < BT_CUDA_IN_FLIGHT; i++) {
        if (dev->slots[i].begin) bt_cu.cuEventDestroy(dev->slots[i].begin);
        if (dev->slots[i].end) bt_cu.cuEventDestroy(dev->slots[i].end);
    }
    bt_cuda_scratch_close(dev);
    bt_cuda_modules_close(dev);
    if (dev->stream) bt_cu.cuStreamDestroy(dev->stream);
}

static void cuda_close(bt_device *dev) {
    if (!dev) return;
    if (dev->context) {
        bt_cu.cuCtxSetCurrent(dev->context);
        close_parts(dev);
        bt_cu.cuDevicePrimaryCtxRelease(dev->chip.handle);
    }
    free(dev);
}

static bt_status cuda_open(int index, const bt_context_desc *desc, bt_error *err, bt_device **out) {
    *out = NULL;
    char reason[BT_CUDA_REASON_BYTES];
    bt_device *dev = calloc(1, sizeof *dev);
    if (!dev) return bt_fail_memory(err, "the CUDA device", sizeof *dev);
    dev->index = index;
    if (desc) {
        dev->precision = desc->precision;
        dev->no_overrides = desc->no_overrides;
    }
    bt_status status =
        bt_cuda_chip_at(index, &dev->chip, reason)
            ? open_parts(dev, err)
            : bt_fail(err, BT_ERROR_DEVICE, "there is no device cuda:%d: %s", index, reason);
    // Tensor cores are used by kernels that are not portable, and written for this chip.
    if (dev->no_overrides || dev->chip.capability != 90) dev->precision = BT_PRECISION_FP32;
    if (status != BT_OK) {
        cuda_close(dev);
        return status;
    }
    *out = dev;
    return BT_OK;
}

static const bt_device_counters *cuda_counters(const bt_device *dev) {
    return &dev->counters;
}

static bt_precision cuda_precision(const bt_device *dev) {
    return dev->precision;
}

const bt_device_api bt_device_cuda = {
    .name = "cuda",
    .portable = true,
    .probe = cuda_probe,
    .open = cuda_open,
    .close = cuda_close,
    .buffer_init = bt_cuda_buffer_init,
    .buffer_done = bt_cuda_buffer_done,
    .write = bt_cuda_write,
    .read = bt_cuda_read,
    .program_init = bt_cuda_program_init,
    .program_done = bt_cuda_program_done,
    .run = bt_cuda_run,
    .wait = bt_cuda_wait,
    .times = bt_cuda_times,
    .log = bt_cuda_log,
    .counters = cuda_counters,
    .precision = cuda_precision,
    .note = bt_cuda_note,
    .kernel_swap = bt_cuda_kernel_swap,
    .language = "cuda",
};
