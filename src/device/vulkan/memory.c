// Memory of a Vulkan device: a few large blocks, each one VkBuffer with an address; buffers are
// ranges of them. What the host cannot see goes through a ring of staging memory.
#include "device/vulkan/vulkan_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

enum { BLOCK_BYTES = 64 << 20, STAGE_BYTES = 4 << 20 };

// ---- Which memory -----------------------------------------------------------------------------

enum {
    LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    SEEN = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    CACHED = VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    ORDINARY = LOCAL | SEEN | CACHED, // other flags mean memory that not everybody may use
};

static VkResult create_buffer(bt_device *dev, size_t bytes, VkBuffer *out,
                              VkMemoryRequirements *needs) {
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = bytes,
        .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                 VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT,
    };
    VkResult result = bt_vk.CreateBuffer(dev->handle, &info, NULL, out);
    if (result == VK_SUCCESS) bt_vk.GetBufferMemoryRequirements(dev->handle, *out, needs);
    return result;
}

// The type of those in `bits` that has all of `flags`, in the largest heap; -1: none.
static int find_type(const VkPhysicalDeviceMemoryProperties *memory, uint32_t bits,
                     VkMemoryPropertyFlags flags) {
    int best = -1;
    VkDeviceSize best_size = 0;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        const VkMemoryType *type = &memory->memoryTypes[i];
        VkDeviceSize size = memory->memoryHeaps[type->heapIndex].size;
        if (!(bits >> i & 1) || (type->propertyFlags & flags) != flags ||
            type->propertyFlags & ~(VkFlags)ORDINARY || size <= best_size)
            continue;
        best = (int)i;
        best_size = size;
    }
    return best;
}

// Memory is used directly where the device's largest heap is also cached by the host: CPUs and
// unified memory. (What a discrete GPU shows of its memory is slow to read.)
bt_status bt_vk_memory_open(bt_device *dev, bt_error *err) {
    VkPhysicalDeviceMemoryProperties memory;
    VkMemoryRequirements needs; // the same types for all buffers of this usage
    VkBuffer buffer;
    BT_TRY(
        bt_vk_check(dev, create_buffer(dev, BT_BINDING_ALIGN, &buffer, &needs), "opening it", err));
    bt_vk.DestroyBuffer(dev->handle, buffer, NULL);
    bt_vk.GetPhysicalDeviceMemoryProperties(dev->gpu.handle, &memory);
    int local = find_type(&memory, needs.memoryTypeBits, LOCAL);
    int both = find_type(&memory, needs.memoryTypeBits, LOCAL | SEEN | CACHED);
    int stage = find_type(&memory, needs.memoryTypeBits, SEEN | CACHED);
    if (stage < 0) stage = find_type(&memory, needs.memoryTypeBits, SEEN);
    if (local < 0 || stage < 0)
        return bt_fail(err, BT_ERROR_DEVICE,
                       "vulkan:%d has no memory for buffers; try a newer driver", dev->index);
    const VkMemoryHeap *heap = &memory.memoryHeaps[memory.memoryTypes[local].heapIndex];
    dev->direct =
        both >= 0 && memory.memoryHeaps[memory.memoryTypes[both].heapIndex].size >= heap->size;
    dev->memory_type = (uint32_t)(dev->direct ? both : local);
    dev->stage_type = (uint32_t)stage;
    dev->heap_bytes = (size_t)heap->size;
    return BT_OK;
}

// ---- Blocks -----------------------------------------------------------------------------------

static void free_block(bt_device *dev, bt_vk_block *block) {
    if (!block) return;
    if (block->memory) dev->used_bytes -= block->bytes;
    bt_vk.DestroyBuffer(dev->handle, block->buffer, NULL);
    bt_vk.FreeMemory(dev->handle, block->memory, NULL);
    free(block);
}

static VkResult fill_block(bt_device *dev, bt_vk_block *block, uint32_t type, bool map) {
    VkMemoryAllocateFlagsInfo flags = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
        .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
    };
    VkMemoryAllocateInfo memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &flags, .memoryTypeIndex = type};
    VkMemoryRequirements needs;
    VkResult result = create_buffer(dev, block->bytes, &block->buffer, &needs);
    if (result != VK_SUCCESS) return result;
    memory.allocationSize = needs.size;
    result = bt_vk.AllocateMemory(dev->handle, &memory, NULL, &block->memory);
    if (result != VK_SUCCESS) {
        block->memory = VK_NULL_HANDLE;
        return result;
    }
    dev->used_bytes += block->bytes;
    result = bt_vk.BindBufferMemory(dev->handle, block->buffer, block->memory, 0);
    if (result != VK_SUCCESS) return result;
    VkBufferDeviceAddressInfo address = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                         .buffer = block->buffer};
    block->address = bt_vk.GetBufferDeviceAddress(dev->handle, &address);
    if (!map) return VK_SUCCESS;
    return bt_vk.MapMemory(dev->handle, block->memory, 0, VK_WHOLE_SIZE, 0, (void **)&block->map);
}

static bool out_of_memory(VkResult result) {
    return result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY;
}

// A block of `bytes`, or, when the device is short of memory, of `least`.
static bt_status new_block(bt_device *dev, size_t bytes, size_t least, uint32_t type, bool map,
                           bt_error *err, bt_vk_block **out) {
    bt_vk_block *block = calloc(1, sizeof *block);
    if (!block) return bt_fail_memory(err, "a block of device memory", sizeof *block);
    block->bytes = bytes;
    VkResult result = bytes > dev->gpu.max_allocation ? VK_ERROR_OUT_OF_DEVICE_MEMORY
                                                      : fill_block(dev, block, type, map);
    if (result == VK_SUCCESS) {
        *out = block;
        return BT_OK;
    }
    free_block(dev, block);
    if (!out_of_memory(result)) return bt_vk_check(dev, result, "allocating memory", err);
    if (least < bytes) return new_block(dev, least, least, type, map, err, out);
    return bt_fail(
        err, BT_ERROR_MEMORY,
        "out of device memory on vulkan:%d: %zu bytes were asked for, %zu of %zu MiB are in "
        "use, and one piece may have %zu MiB; try a smaller batch or model",
        dev->index, bytes, dev->used_bytes >> 20, dev->heap_bytes >> 20,
        (size_t)(dev->gpu.max_allocation >> 20));
}

// ---- Buffers ----------------------------------------------------------------------------------

// Puts `range` into the first gap of the block that holds it.
static bool place(bt_vk_block *block, bt_vk_range *range) {
    size_t begin = 0;
    bt_vk_range **at = &block->ranges;
    for (; *at && (*at)->offset - begin < range->bytes; at = &(*at)->next)
        begin = (*at)->offset + (*at)->bytes;
    if (block->bytes - begin < range->bytes) return false;
    *range = (bt_vk_range){*at, block, begin, range->bytes};
    *at = range;
    return true;
}

bt_status bt_vk_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out) {
    *out = (bt_buffer){0};
    BT_TRY(bt_vk_alive(dev, err));
    bt_vk_range *range = calloc(1, sizeof *range);
    if (!range || !bt_align_ok(bytes, BT_BINDING_ALIGN, &range->bytes)) {
        free(range);
        return bt_fail_memory(err, "a buffer", bytes);
    }
    bt_vk_block *block = dev->blocks;
    while (block && !place(block, range)) block = block->next;
    if (!block) {
        size_t wanted = range->bytes > BLOCK_BYTES ? range->bytes : BLOCK_BYTES;
        bt_status status =
            new_block(dev, wanted, range->bytes, dev->memory_type, dev->direct, err, &block);
        if (status != BT_OK) {
            free(range);
            return status;
        }
        block->next = dev->blocks;
        dev->blocks = block;
        place(block, range);
    }
    *out = (bt_buffer){range, bytes};
    return BT_OK;
}

// A block that has become empty is given back.
static void release(bt_device *dev, bt_vk_range *range) {
    bt_vk_block *block = range->block;
    bt_vk_range **at = &block->ranges;
    while (*at != range) at = &(*at)->next;
    *at = range->next;
    free(range);
    if (block->ranges) return;
    bt_vk_block **link = &dev->blocks;
    while (*link != block) link = &(*link)->next;
    *link = block->next;
    free_block(dev, block);
}

void bt_vk_buffer_done(bt_device *dev, bt_buffer *buffer) {
    bt_error ignored = {0}; // a lost device uses nothing any more
    if (!buffer->handle) return;
    (void)bt_vk_wait_for(dev, dev->submitted, &ignored);
    release(dev, buffer->handle);
    *buffer = (bt_buffer){0};
}

// ---- Reading and writing ----------------------------------------------------------------------

static bt_status record_copy(bt_device *dev, bt_vk_stage *stage, const VkBuffer from_to[2],
                             const VkBufferCopy *region, bt_error *err) {
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    if (!stage->commands) BT_TRY(bt_vk_commands(dev, &stage->commands, err));
    BT_TRY(bt_vk_check(dev, bt_vk.BeginCommandBuffer(stage->commands, &begin), "copying", err));
    bt_vk_barrier(stage->commands, true);
    bt_vk.CmdCopyBuffer(stage->commands, from_to[0], from_to[1], 1, region);
    bt_vk_barrier(stage->commands, true);
    return bt_vk_check(dev, bt_vk.EndCommandBuffer(stage->commands), "copying", err);
}

// Copies at most STAGE_BYTES by the next part of the staging ring. `in` is written to the buffer,
// or `out` read.
static bt_status copy_part(bt_device *dev, const bt_vk_range *range, size_t offset, const void *in,
                           void *out, size_t bytes, bt_error *err) {
    uint32_t index = dev->next_stage++ % BT_VK_STAGES;
    bt_vk_stage *stage = &dev->stages[index];
    size_t at = (size_t)index * STAGE_BYTES;
    char *host = dev->staging->map + at;
    BT_TRY(bt_vk_wait_for(dev, stage->value, err)); // until its last use is over
    if (in) memcpy(host, in, bytes);
    VkBuffer device = range->block->buffer, ring = dev->staging->buffer;
    VkBufferCopy region = {at, range->offset + offset, bytes};
    if (out) region = (VkBufferCopy){range->offset + offset, at, bytes};
    const VkBuffer from_to[2] = {in ? ring : device, in ? device : ring};
    BT_TRY(record_copy(dev, stage, from_to, &region, err));
    BT_TRY(bt_vk_submit(dev, &stage->commands, 1, err));
    stage->value = dev->submitted;
    if (!out) return BT_OK;
    BT_TRY(bt_vk_wait_for(dev, stage->value, err));
    memcpy(out, host, bytes);
    return BT_OK;
}

static bt_status copy(bt_device *dev, const bt_buffer *buffer, size_t offset, const char *in,
                      char *out, size_t bytes, bt_error *err) {
    BT_TRY(bt_vk_alive(dev, err));
    if (offset > buffer->bytes || bytes > buffer->bytes - offset)
        return bt_fail(err, BT_ERROR_INTERNAL,
                       "bytes %zu to %zu + %zu of a buffer of %zu were asked for", offset, offset,
                       bytes, buffer->bytes);
    const bt_vk_range *range = buffer->handle;
    if (dev->direct) {
        char *host = range->block->map + range->offset + offset;
        BT_TRY(bt_vk_wait_for(dev, dev->submitted, err));
        if (bytes > 0) memcpy(in ? host : out, in ? in : host, bytes);
        return BT_OK;
    }
    if (bytes > 0 && !dev->staging)
        BT_TRY(new_block(dev, BT_VK_STAGES * STAGE_BYTES, BT_VK_STAGES * STAGE_BYTES,
                         dev->stage_type, true, err, &dev->staging));
    for (size_t done = 0; done < bytes;) {
        size_t part = bytes - done < STAGE_BYTES ? bytes - done : STAGE_BYTES;
        BT_TRY(copy_part(dev, range, offset + done, in ? in + done : NULL, out ? out + done : NULL,
                         part, err));
        done += part;
    }
    return BT_OK;
}

bt_status bt_vk_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                      size_t bytes, bt_error *err) {
    if (bytes == 0) return bt_vk_alive(dev, err);
    BT_TRY(copy(dev, buffer, offset, data, NULL, bytes, err));
    dev->counters.bytes_written += bytes;
    return BT_OK;
}

bt_status bt_vk_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                     size_t bytes, bt_error *err) {
    if (bytes == 0) return bt_vk_wait(dev, err);
    BT_TRY(copy(dev, buffer, offset, NULL, data, bytes, err));
    dev->counters.bytes_read += bytes;
    return BT_OK;
}

void bt_vk_memory_close(bt_device *dev) {
    while (dev->blocks) { // what nobody gave back
        while (dev->blocks->ranges->next) release(dev, dev->blocks->ranges->next);
        release(dev, dev->blocks->ranges);
    }
    free_block(dev, dev->staging);
    dev->staging = NULL;
}
