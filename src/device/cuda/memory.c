// Memory of a CUDA device: a buffer is an allocation of the driver, and its handle the address.
// Copies go through the driver's own staging memory, in the order of the stream.
#include "device/cuda/cuda_internal.h"

#include <stdlib.h>

CUdeviceptr bt_cuda_address(const bt_binding *binding) {
    return binding->buffer ? (CUdeviceptr)(uintptr_t)binding->buffer->handle + binding->offset : 0;
}

static bt_status out_of_memory(bt_device *dev, size_t bytes, const char *what, bt_error *err) {
    size_t unused = 0, total = 0;
    bt_cu.cuMemGetInfo(&unused, &total);
    return bt_fail(err, BT_ERROR_MEMORY,
                   "out of memory on cuda:%d: %s needs %zu MiB; of its %zu MiB Bantam has %zu, and "
                   "%zu are free; try a smaller batch or model",
                   dev->index, what, (bytes >> 20) + 1, total >> 20, dev->used_bytes >> 20,
                   unused >> 20);
}

bt_status bt_cuda_alloc(bt_device *dev, size_t bytes, const char *what, CUdeviceptr *out,
                        bt_error *err) {
    *out = 0;
    BT_TRY(bt_cuda_enter(dev, err));
    CUresult result = bt_cu.cuMemAlloc(out, bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) return out_of_memory(dev, bytes, what, err);
    BT_TRY(bt_cuda_check(dev, result, "allocating memory", err));
    dev->used_bytes += bytes;
    return BT_OK;
}

// (The driver waits for whatever uses it.)
void bt_cuda_free(bt_device *dev, CUdeviceptr address, size_t bytes) {
    bt_error ignored = {0};
    if (!address) return;
    dev->used_bytes -= bytes;
    if (bt_cuda_enter(dev, &ignored) == BT_OK)
        (void)bt_cuda_check(dev, bt_cu.cuMemFree(address), "freeing memory", &ignored);
}

bt_status bt_cuda_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out) {
    CUdeviceptr address;
    *out = (bt_buffer){NULL, bytes};
    BT_TRY(bt_cuda_alloc(dev, bytes, "a buffer", &address, err));
    out->handle = (void *)(uintptr_t)address;
    return BT_OK;
}

void bt_cuda_buffer_done(bt_device *dev, bt_buffer *buffer) {
    bt_cuda_free(dev, (CUdeviceptr)(uintptr_t)buffer->handle, buffer->bytes);
    *buffer = (bt_buffer){0};
}

static bt_status find(bt_device *dev, const bt_buffer *buffer, size_t offset, size_t bytes,
                      CUdeviceptr *address, bt_error *err) {
    BT_TRY(bt_cuda_enter(dev, err));
    if (offset > buffer->bytes || bytes > buffer->bytes - offset)
        return bt_fail(err, BT_ERROR_INTERNAL,
                       "bytes %zu to %zu + %zu of a buffer of %zu were asked for", offset, offset,
                       bytes, buffer->bytes);
    *address = (CUdeviceptr)(uintptr_t)buffer->handle + offset;
    return BT_OK;
}

bt_status bt_cuda_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                        size_t bytes, bt_error *err) {
    CUdeviceptr to = 0;
    BT_TRY(find(dev, buffer, offset, bytes, &to, err));
    if (bytes == 0) return BT_OK;
    CUresult result = bt_cu.cuMemcpyHtoDAsync(to, data, bytes, dev->stream);
    // (The driver has copied pageable memory when that returns; pinned memory it still reads.)
    if (result == CUDA_SUCCESS) result = bt_cu.cuStreamSynchronize(dev->stream);
    BT_TRY(bt_cuda_check(dev, result, "copying to it", err));
    dev->counters.bytes_written += bytes;
    return BT_OK;
}

bt_status bt_cuda_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                       size_t bytes, bt_error *err) {
    CUdeviceptr from = 0;
    BT_TRY(find(dev, buffer, offset, bytes, &from, err));
    if (bytes == 0) return bt_cuda_wait(dev, err);
    CUresult result = bt_cu.cuMemcpyDtoHAsync(data, from, bytes, dev->stream);
    if (result == CUDA_SUCCESS) result = bt_cu.cuStreamSynchronize(dev->stream);
    BT_TRY(bt_cuda_check(dev, result, "copying from it", err));
    dev->counters.bytes_read += bytes;
    return BT_OK;
}

// ---- Scratch memory ---------------------------------------------------------------------------

bt_status bt_cuda_scratch_for(bt_device *dev, size_t bytes, CUdeviceptr *out, bt_error *err) {
    if (!dev->scratch || dev->scratch->bytes < bytes) {
        bt_cuda_scratch *scratch = calloc(1, sizeof *scratch);
        if (!scratch) return bt_fail_memory(err, "scratch memory", sizeof *scratch);
        bt_status status = bt_cuda_alloc(dev, bytes, "scratch memory", &scratch->address, err);
        if (status != BT_OK) {
            free(scratch);
            return status;
        }
        scratch->bytes = bytes;
        scratch->next = dev->scratch;
        dev->scratch = scratch;
    }
    *out = dev->scratch->address;
    return BT_OK;
}

void bt_cuda_scratch_close(bt_device *dev) {
    while (dev->scratch) {
        bt_cuda_scratch *scratch = dev->scratch;
        dev->scratch = scratch->next;
        bt_cuda_free(dev, scratch->address, scratch->bytes);
        free(scratch);
    }
}
