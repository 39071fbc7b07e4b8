// What the files of the Vulkan device share, and its tests see. One bt_device belongs to one
// context and is used by one thread at a time; only what loader.c keeps is shared by the process.
#ifndef BT_DEVICE_VULKAN_INTERNAL_H
#define BT_DEVICE_VULKAN_INTERNAL_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

#include "device/portable.h"
#include "device/vulkan/vulkan.h"

// ---- loader.c: the loader, the instance, the GPUs ---------------------------------------------

// clang-format off
#define BT_VK_GLOBAL(X) \
    X(EnumerateInstanceVersion) X(EnumerateInstanceExtensionProperties) X(CreateInstance)
#define BT_VK_INSTANCE(X) \
    X(AllocateCommandBuffers) X(AllocateMemory) X(BeginCommandBuffer) X(BindBufferMemory) \
    X(CmdBindPipeline) X(CmdCopyBuffer) X(CmdDispatch) X(CmdPipelineBarrier) X(CmdPushConstants) \
    X(CmdWriteTimestamp) X(CreateBuffer) X(CreateCommandPool) X(CreateComputePipelines) \
    X(CreateDevice) X(CreatePipelineCache) X(CreatePipelineLayout) X(CreateQueryPool) \
    X(CreateSemaphore) X(CreateShaderModule) X(DestroyBuffer) X(DestroyCommandPool) \
    X(DestroyDevice) X(DestroyPipeline) X(DestroyPipelineCache) X(DestroyPipelineLayout) \
    X(DestroyQueryPool) X(DestroySemaphore) X(DestroyShaderModule) X(DeviceWaitIdle) \
    X(EndCommandBuffer) X(EnumerateDeviceExtensionProperties) X(EnumeratePhysicalDevices) \
    X(FreeCommandBuffers) X(FreeMemory) X(GetBufferDeviceAddress) X(GetBufferMemoryRequirements) \
    X(GetDeviceQueue) X(GetPhysicalDeviceFeatures2) X(GetPhysicalDeviceMemoryProperties) \
    X(GetPhysicalDeviceProperties2) X(GetPhysicalDeviceQueueFamilyProperties) \
    X(GetPipelineCacheData) X(GetQueryPoolResults) X(MapMemory) X(QueueSubmit) X(ResetQueryPool) \
    X(WaitSemaphores)
// clang-format on

// Every function of Vulkan that Bantam calls. Tests put failing ones in their place.
typedef struct bt_vk_functions {
#define X(name) PFN_vk##name name;
    BT_VK_GLOBAL(X)
    BT_VK_INSTANCE(X)
#undef X
} bt_vk_functions;
extern bt_vk_functions bt_vk;

typedef struct bt_vk_gpu {
    VkPhysicalDevice handle;
    VkPhysicalDeviceProperties properties;
    VkPhysicalDeviceDriverProperties driver;
    VkDeviceSize max_allocation;
    uint32_t family;         // of its queue
    uint64_t timestamp_mask; // bits of a timestamp that count
    bool subset;             // MoltenVK: VK_KHR_portability_subset must be enabled
} bt_vk_gpu;

enum { BT_VK_REASON_BYTES = 192 };

// GPU `index` of those that can run Bantam, real ones first. false: there is none, and why.
bool bt_vk_gpu_at(int index, bt_vk_gpu *out, char reason[BT_VK_REASON_BYTES]);

// Messages of the validation layers so far; -1: BANTAM_VULKAN_VALIDATION=1 is not set, or they are
// not installed. *first: the first one.
int bt_vulkan_validation_messages(const char **first);

// ---- The device -------------------------------------------------------------------------------

// Memory comes in blocks; a buffer is a range of one.
typedef struct bt_vk_range {
    struct bt_vk_range *next; // by offset
    struct bt_vk_block *block;
    size_t offset, bytes;
} bt_vk_range;

typedef struct bt_vk_block {
    struct bt_vk_block *next;
    VkDeviceMemory memory;
    VkBuffer buffer; // all of it
    VkDeviceAddress address;
    char *map; // NULL: the host cannot see it
    size_t bytes;
    bt_vk_range *ranges; // in use
} bt_vk_block;

typedef struct bt_vk_pipeline {
    struct bt_vk_pipeline *next;
    int portable;
    uint32_t constants[1 + BT_SPECIAL_MAX]; // which bindings are there, then the special words
    VkPipeline handle;
} bt_vk_pipeline;

enum { BT_VK_IN_FLIGHT = 4, BT_VK_STAGES = 4 };

// A submission of a program that may be under way. Its first and last command buffer note the time,
// as queries 2i and 2i + 1 of dev->clock.
typedef struct bt_vk_slot {
    VkCommandBuffer begin, end;
    bt_device_program *program; // NULL: nothing is under way
    uint64_t value;             // of the timeline when it is done
    uint32_t steps;
    bool first;  // of its run
    double sent; // bt_seconds then: where a trace puts its begin
} bt_vk_slot;

// A part of the staging ring.
typedef struct bt_vk_stage {
    VkCommandBuffer commands;
    uint64_t value;
} bt_vk_stage;

struct bt_device {
    bt_device_counters counters;
    int index;
    bt_error lost; // once the device is lost every call fails with this
    bt_vk_gpu gpu;
    VkDevice handle;
    VkQueue queue;
    VkCommandPool commands;
    VkSemaphore timeline;
    uint64_t submitted; // value of the timeline when all work is done
    VkQueryPool clock;
    bt_vk_slot slots[BT_VK_IN_FLIGHT];
    uint32_t next_slot;

    uint32_t memory_type, stage_type;
    bool direct; // the host sees the memory of the device
    size_t heap_bytes, used_bytes;
    bt_vk_block *blocks, *staging;
    bt_vk_stage stages[BT_VK_STAGES];
    uint32_t next_stage;

    VkPipelineLayout layout;
    VkPipelineCache cache;
    uint32_t cache_checksum; // of what is on disk
    bt_vk_pipeline *pipelines;
    bt_portable *table; // bt_portable_table, with kernels swapped
    VkShaderModule *modules;
    bt_portable_rules **rules;   // of those that were swapped
    uint64_t generation;         // counts swaps
    bt_device_program *programs; // those that are alive
};

// device.c
bt_status bt_vk_check(bt_device *dev, VkResult result, const char *doing, bt_error *err);
bt_status bt_vk_alive(const bt_device *dev, bt_error *err);
// All barriers are made here. edge: at the beginning or the end of what is submitted, where copies
// and the host meet the kernels.
void bt_vk_barrier(VkCommandBuffer commands, bool edge);
bt_status bt_vk_commands(bt_device *dev, VkCommandBuffer *out, bt_error *err);
bt_status bt_vk_submit(bt_device *dev, const VkCommandBuffer *commands, uint32_t count,
                       bt_error *err);
// Finds the kernels of all programs anew, so that a swap that does not fit one fails now
// (program.c).
bt_status bt_vk_resolve_all(bt_device *dev, bt_error *err);
bt_status bt_vk_wait_for(bt_device *dev, uint64_t value, bt_error *err);

// memory.c
bt_status bt_vk_memory_open(bt_device *dev, bt_error *err);
void bt_vk_memory_close(bt_device *dev);
bt_status bt_vk_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out);
void bt_vk_buffer_done(bt_device *dev, bt_buffer *buffer);
bt_status bt_vk_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                      size_t bytes, bt_error *err);
bt_status bt_vk_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                     size_t bytes, bt_error *err);

// pipeline.c
bt_status bt_vk_pipelines_open(bt_device *dev, bt_error *err);
void bt_vk_pipelines_close(bt_device *dev);
bt_status bt_vk_module(bt_device *dev, const uint32_t *code, size_t bytes, VkShaderModule *out,
                       bt_error *err);
bt_status bt_vk_pipeline_for(bt_device *dev, const bt_launch *launch, int portable, VkPipeline *out,
                             bt_error *err);
void bt_vk_pipelines_drop(bt_device *dev, int portable); // portable < 0: all

// cache.c: the pipeline cache on disk.
void bt_vk_cache_load(bt_device *dev);
void bt_vk_cache_save(bt_device *dev);

// swap.c
bt_status bt_vk_kernel_swap(bt_device *dev, int portable, const bt_portable *rules,
                            const char *glsl, bt_error *err);

// program.c
bt_status bt_vk_program_init(bt_device *dev, const bt_launch *launches, int count,
                             const bt_program_use *use, bt_error *err, bt_device_program **out);
void bt_vk_program_done(bt_device *dev, bt_device_program *program);
bt_status bt_vk_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err);
bt_status bt_vk_wait(bt_device *dev, bt_error *err);
void bt_vk_times(bt_device *dev, const bt_device_program *program, double *seconds, double *total);
const struct bt_launch_log *bt_vk_log(const bt_device_program *program);

#endif
