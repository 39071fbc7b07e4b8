// Memory of a Metal device: each buffer an MTLBuffer of shared storage, which the host and the GPU
// both see at its place, so that nothing is staged.
#include "device/metal/metal_internal.h"

#include <string.h>

#include "base/checked.h"

enum { STORAGE_SHARED = 0 }; // MTLResourceStorageModeShared
#define MIB 0x1p20

static bt_mtl new_buffer(bt_device *dev, size_t bytes) {
    return BT_METAL(bt_mtl, bt_mtl_uint, bt_mtl_uint)(dev->gpu, bt_metal.new_buffer, bytes,
                                                      STORAGE_SHARED);
}

// Kernels read bytes as words, so that a buffer is whole bindings.
static bool rounded(size_t bytes, size_t *out) {
    return bt_align_ok(bytes, BT_BINDING_ALIGN, out);
}

bt_status bt_metal_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out) {
    size_t whole;
    *out = (bt_buffer){0};
    BT_TRY(bt_metal_alive(dev, err));
    if (!rounded(bytes, &whole)) return bt_fail_memory(err, "a buffer", bytes);
    bt_mtl buffer = NULL;
    if (whole <= dev->most_bytes) {
        void *pool = bt_metal.pool_push();
        buffer = new_buffer(dev, whole);
        bt_metal.pool_pop(pool);
    }
    if (!buffer)
        return bt_fail(err, BT_ERROR_MEMORY,
                       "out of memory on metal:%d: %zu bytes were asked for, %.1f of %.1f MiB are "
                       "in use, and one piece may have %.1f MiB; try a smaller batch or model",
                       dev->index, bytes, (double)dev->used_bytes / MIB,
                       (double)dev->working_set / MIB, (double)dev->most_bytes / MIB);
    dev->used_bytes += whole;
    *out = (bt_buffer){buffer, bytes};
    return BT_OK;
}

// (Programs that use it are gone, and nothing of them is under way.)
void bt_metal_buffer_done(bt_device *dev, bt_buffer *buffer) {
    size_t whole;
    if (!buffer->handle) return;
    bt_mtl_release(buffer->handle);
    if (rounded(buffer->bytes, &whole)) dev->used_bytes -= whole;
    *buffer = (bt_buffer){0};
}

// The bytes of a buffer, as no run touches them: what is under way is waited for.
static bt_status touch(bt_device *dev, const bt_buffer *buffer, size_t offset, size_t bytes,
                       char **out, bt_error *err) {
    BT_TRY(bt_metal_wait(dev, err));
    if (offset > buffer->bytes || bytes > buffer->bytes - offset)
        return bt_fail(err, BT_ERROR_INTERNAL,
                       "bytes %zu to %zu + %zu of a buffer of %zu were asked for", offset, offset,
                       bytes, buffer->bytes);
    char *first = BT_METAL(void *)(buffer->handle, bt_metal.contents);
    if (!first)
        return bt_fail(err, BT_ERROR_DEVICE, "metal:%d (%s) does not show what is in a buffer",
                       dev->index, dev->name);
    *out = first + offset;
    return BT_OK;
}

bt_status bt_metal_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                         size_t bytes, bt_error *err) {
    char *at;
    if (bytes == 0) return bt_metal_alive(dev, err);
    BT_TRY(touch(dev, buffer, offset, bytes, &at, err));
    memcpy(at, data, bytes);
    dev->counters.bytes_written += bytes;
    return BT_OK;
}

bt_status bt_metal_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                        size_t bytes, bt_error *err) {
    char *at;
    if (bytes == 0) return bt_metal_wait(dev, err);
    BT_TRY(touch(dev, buffer, offset, bytes, &at, err));
    memcpy(data, at, bytes);
    dev->counters.bytes_read += bytes;
    return BT_OK;
}

bt_status bt_metal_memory_open(bt_device *dev, bt_error *err) {
    dev->nothing = new_buffer(dev, BT_BINDING_ALIGN);
    if (dev->nothing) return BT_OK;
    return bt_fail(err, BT_ERROR_MEMORY,
                   "metal:%d (%s) has no memory for its first buffer; close other programs",
                   dev->index, dev->name);
}

void bt_metal_memory_close(bt_device *dev) {
    bt_mtl_release(dev->nothing);
}
