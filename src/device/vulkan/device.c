// The Vulkan device: opening and closing, the queue and its timeline, barriers, errors, and the
// table of what it does.
#include "device/vulkan/vulkan_internal.h"

#include <stdio.h>
#include <stdlib.h>

// ---- Errors -----------------------------------------------------------------------------------

bt_status bt_vk_alive(const bt_device *dev, bt_error *err) {
    if (dev->lost.status == BT_OK) return BT_OK;
    return bt_fail(err, dev->lost.status, "%s", dev->lost.text);
}

// VkResult as a status. A lost device stays lost.
bt_status bt_vk_check(bt_device *dev, VkResult result, const char *doing, bt_error *err) {
    if (result >= VK_SUCCESS) return BT_OK;
    if (result == VK_ERROR_DEVICE_LOST) {
        bt_fail(&dev->lost, BT_ERROR_DEVICE,
                "the device vulkan:%d (%.80s) was lost while %s: its driver crashed or was reset; "
                "look at "
                "the kernel's log, and start again from the last checkpoint",
                dev->index, dev->gpu.properties.deviceName, doing);
        return bt_vk_alive(dev, err);
    }
    if (result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_HOST_MEMORY)
        return bt_fail(err, BT_ERROR_MEMORY,
                       "out of %s memory on vulkan:%d while %s: %zu of %zu MiB are in use; try a "
                       "smaller batch or model",
                       result == VK_ERROR_OUT_OF_HOST_MEMORY ? "host" : "device", dev->index, doing,
                       dev->used_bytes >> 20, dev->heap_bytes >> 20);
    return bt_fail(err, BT_ERROR_DEVICE, "vulkan:%d failed while %s (VkResult %d)", dev->index,
                   doing, (int)result);
}

// ---- The queue --------------------------------------------------------------------------------

void bt_vk_barrier(VkCommandBuffer commands, bool edge) {
    const VkPipelineStageFlags kernels = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT;
    const VkPipelineStageFlags copies = edge ? VK_PIPELINE_STAGE_TRANSFER_BIT : 0;
    const VkPipelineStageFlags host = edge ? VK_PIPELINE_STAGE_HOST_BIT : 0;
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | (edge ? VK_ACCESS_TRANSFER_WRITE_BIT : 0),
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                         (edge ? VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT |
                                     VK_ACCESS_HOST_READ_BIT
                               : 0),
    };
    bt_vk.CmdPipelineBarrier(commands, kernels | copies, kernels | copies | host, 0, 1, &barrier, 0,
                             NULL, 0, NULL);
}

bt_status bt_vk_commands(bt_device *dev, VkCommandBuffer *out, bt_error *err) {
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = dev->commands,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    return bt_vk_check(dev, bt_vk.AllocateCommandBuffers(dev->handle, &info, out),
                       "making a command buffer", err);
}

bt_status bt_vk_submit(bt_device *dev, const VkCommandBuffer *commands, uint32_t count,
                       bt_error *err) {
    uint64_t value = dev->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &value,
    };
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .commandBufferCount = count,
        .pCommandBuffers = commands,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &dev->timeline,
    };
    BT_TRY(bt_vk_check(dev, bt_vk.QueueSubmit(dev->queue, 1, &info, VK_NULL_HANDLE), "sending work",
                       err));
    dev->submitted = value;
    dev->counters.submissions++;
    return BT_OK;
}

bt_status bt_vk_wait_for(bt_device *dev, uint64_t value, bt_error *err) {
    BT_TRY(bt_vk_alive(dev, err));
    VkSemaphoreWaitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
        .semaphoreCount = 1,
        .pSemaphores = &dev->timeline,
        .pValues = &value,
    };
    return bt_vk_check(dev, bt_vk.WaitSemaphores(dev->handle, &info, UINT64_MAX),
                       "waiting for work", err);
}

// ---- Opening ----------------------------------------------------------------------------------

static bool vk_probe(int index, bt_device_info *out) {
    bt_vk_gpu gpu;
    *out = (bt_device_info){0};
    snprintf(out->name, sizeof out->name, "vulkan:%d", index);
    out->available = bt_vk_gpu_at(index, &gpu, out->reason);
    if (!out->available) return false;
    out->software = gpu.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    uint32_t version = gpu.properties.apiVersion;
    snprintf(out->description, sizeof out->description, "%.50s, Vulkan %u.%u, driver %.36s%s",
             gpu.properties.deviceName, VK_API_VERSION_MAJOR(version),
             VK_API_VERSION_MINOR(version),
             gpu.driver.driverInfo[0] ? gpu.driver.driverInfo : gpu.driver.driverName,
             out->software ? ", software" : "");
    VkPhysicalDeviceMemoryProperties memory;
    bt_vk.GetPhysicalDeviceMemoryProperties(gpu.handle, &memory);
    for (uint32_t i = 0; i < memory.memoryHeapCount; i++)
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT &&
            memory.memoryHeaps[i].size > out->memory_bytes)
            out->memory_bytes = (size_t)memory.memoryHeaps[i].size;
    return true;
}

static bt_status create_device(bt_device *dev, bt_error *err) {
    const char *subset = "VK_KHR_portability_subset";
    VkPhysicalDeviceVulkan12Features features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .bufferDeviceAddress = VK_TRUE,
        .timelineSemaphore = VK_TRUE,
        .hostQueryReset = VK_TRUE,
    };
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = dev->gpu.family,
        .queueCount = 1,
        .pQueuePriorities = &(float){1},
    };
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &features,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = dev->gpu.subset,
        .ppEnabledExtensionNames = &subset,
    };
    VkResult result = bt_vk.CreateDevice(dev->gpu.handle, &info, NULL, &dev->handle);
    if (result != VK_SUCCESS) dev->handle = VK_NULL_HANDLE;
    BT_TRY(bt_vk_check(dev, result, "opening it", err));
    bt_vk.GetDeviceQueue(dev->handle, dev->gpu.family, 0, &dev->queue);
    return BT_OK;
}

static bt_status create_queue_objects(bt_device *dev, bt_error *err) {
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = dev->gpu.family,
    };
    VkSemaphoreTypeCreateInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
        .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE,
    };
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                       .pNext = &timeline};
    VkQueryPoolCreateInfo clock = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = 2 * BT_VK_IN_FLIGHT,
    };
    const char *doing = "opening it";
    BT_TRY(bt_vk_check(dev, bt_vk.CreateCommandPool(dev->handle, &pool, NULL, &dev->commands),
                       doing, err));
    BT_TRY(bt_vk_check(dev, bt_vk.CreateSemaphore(dev->handle, &semaphore, NULL, &dev->timeline),
                       doing, err));
    return bt_vk_check(dev, bt_vk.CreateQueryPool(dev->handle, &clock, NULL, &dev->clock), doing,
                       err);
}

// The command buffers that enclose a submission, recorded once.
static bt_status record_slots(bt_device *dev, bt_error *err) {
    const VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    for (uint32_t i = 0; i < 2 * BT_VK_IN_FLIGHT; i++) {
        bt_vk_slot *slot = &dev->slots[i / 2];
        VkCommandBuffer *at = i % 2 ? &slot->end : &slot->begin;
        BT_TRY(bt_vk_commands(dev, at, err));
        BT_TRY(bt_vk_check(dev, bt_vk.BeginCommandBuffer(*at, &begin), "recording", err));
        if (i % 2 == 0) bt_vk_barrier(*at, true);
        bt_vk.CmdWriteTimestamp(*at, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, dev->clock, i);
        if (i % 2 == 1) bt_vk_barrier(*at, true);
        BT_TRY(bt_vk_check(dev, bt_vk.EndCommandBuffer(*at), "recording", err));
    }
    return BT_OK;
}

static bt_status open_parts(bt_device *dev, bt_error *err) {
    BT_TRY(create_device(dev, err));
    BT_TRY(create_queue_objects(dev, err));
    BT_TRY(record_slots(dev, err));
    BT_TRY(bt_vk_memory_open(dev, err));
    return bt_vk_pipelines_open(dev, err);
}

static void vk_close(bt_device *dev) {
    if (!dev) return;
    if (dev->handle) {
        bt_vk.DeviceWaitIdle(dev->handle);
        bt_vk_pipelines_close(dev);
        bt_vk_memory_close(dev);
        bt_vk.DestroyQueryPool(dev->handle, dev->clock, NULL);
        bt_vk.DestroySemaphore(dev->handle, dev->timeline, NULL);
        bt_vk.DestroyCommandPool(dev->handle, dev->commands, NULL);
        bt_vk.DestroyDevice(dev->handle, NULL);
    }
    free(dev);
}

static bt_status vk_open(int index, const bt_context_desc *desc, bt_error *err, bt_device **out) {
    (void)desc;
    *out = NULL;
    char reason[BT_VK_REASON_BYTES];
    bt_device *dev = calloc(1, sizeof *dev);
    if (!dev) return bt_fail_memory(err, "the Vulkan device", sizeof *dev);
    dev->index = index;
    bt_status status =
        bt_vk_gpu_at(index, &dev->gpu, reason)
            ? open_parts(dev, err)
            : bt_fail(err, BT_ERROR_DEVICE, "there is no device vulkan:%d: %s", index, reason);
    if (status != BT_OK) {
        vk_close(dev);
        return status;
    }
    *out = dev;
    return BT_OK;
}

static const bt_device_counters *vk_counters(const bt_device *dev) {
    return &dev->counters;
}

const bt_device_api bt_device_vulkan = {
    .name = "vulkan",
    .portable = true,
    .probe = vk_probe,
    .open = vk_open,
    .close = vk_close,
    .buffer_init = bt_vk_buffer_init,
    .buffer_done = bt_vk_buffer_done,
    .write = bt_vk_write,
    .read = bt_vk_read,
    .program_init = bt_vk_program_init,
    .program_done = bt_vk_program_done,
    .run = bt_vk_run,
    .wait = bt_vk_wait,
    .times = bt_vk_times,
    .log = bt_vk_log,
    .counters = vk_counters,
    .kernel_swap = bt_vk_kernel_swap,
    .language = "glsl",
};
