// Shader modules and pipelines: made when a program first needs them, kept by the device. A
// pipeline is a kernel with its constants compiled in: which bindings are there, and the `const`
// scalars.
#include "device/vulkan/vulkan_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Generated: the SPIR-V of each kernel of bt_portable_table.
extern const uint32_t *const bt_spirv_code[];
extern const size_t bt_spirv_bytes[];

bt_status bt_vk_pipelines_open(bt_device *dev, bt_error *err) {
    size_t count = (size_t)bt_portable_count;
    dev->table = calloc(count, sizeof *dev->table);
    dev->modules = calloc(count, sizeof *dev->modules);
    dev->rules = calloc(count, sizeof *dev->rules);
    if (!dev->table || !dev->modules || !dev->rules)
        return bt_fail_memory(err, "the table of kernels", count * sizeof *dev->table);
    memcpy(dev->table, bt_portable_table, count * sizeof *dev->table);
    bt_vk_cache_load(dev);
    VkPushConstantRange range = {
        .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT,
        .size = BT_BINDINGS_MAX * sizeof(VkDeviceAddress) + BT_SCALAR_BYTES_MAX,
    };
    VkPipelineLayoutCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &range,
    };
    return bt_vk_check(dev, bt_vk.CreatePipelineLayout(dev->handle, &info, NULL, &dev->layout),
                       "opening it", err);
}

void bt_vk_pipelines_drop(bt_device *dev, int portable) {
    for (bt_vk_pipeline **at = &dev->pipelines; *at;) {
        bt_vk_pipeline *pipeline = *at;
        if (portable >= 0 && pipeline->portable != portable) {
            at = &pipeline->next;
            continue;
        }
        *at = pipeline->next;
        bt_vk.DestroyPipeline(dev->handle, pipeline->handle, NULL);
        free(pipeline);
    }
}

void bt_vk_pipelines_close(bt_device *dev) {
    bt_vk_cache_save(dev);
    bt_vk_pipelines_drop(dev, -1);
    for (int i = 0; i < bt_portable_count; i++) {
        if (dev->modules) bt_vk.DestroyShaderModule(dev->handle, dev->modules[i], NULL);
        if (dev->rules) free(dev->rules[i]);
    }
    free(dev->modules);
    free(dev->rules);
    free(dev->table);
    bt_vk.DestroyPipelineLayout(dev->handle, dev->layout, NULL);
    bt_vk.DestroyPipelineCache(dev->handle, dev->cache, NULL);
}

bt_status bt_vk_module(bt_device *dev, const uint32_t *code, size_t bytes, VkShaderModule *out,
                       bt_error *err) {
    VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = bytes, .pCode = code};
    return bt_vk_check(dev, bt_vk.CreateShaderModule(dev->handle, &info, NULL, out),
                       "loading a kernel", err);
}

static bt_status create(bt_device *dev, bt_vk_pipeline *pipeline, uint32_t constants,
                        bt_error *err) {
    const bt_portable *kernel = &dev->table[pipeline->portable];
    VkShaderModule *module = &dev->modules[pipeline->portable];
    if (!*module)
        BT_TRY(bt_vk_module(dev, bt_spirv_code[pipeline->portable],
                            bt_spirv_bytes[pipeline->portable], module, err));
    VkSpecializationMapEntry entries[1 + BT_SPECIAL_MAX];
    for (uint32_t i = 0; i < constants; i++)
        entries[i] = (VkSpecializationMapEntry){i, 4 * i, sizeof(uint32_t)};
    VkSpecializationInfo special = {constants, entries, constants * sizeof(uint32_t),
                                    pipeline->constants};
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = *module,
                  .pName = "main",
                  .pSpecializationInfo = &special},
        .layout = dev->layout,
    };
    char doing[96];
    snprintf(doing, sizeof doing, "compiling kernel %.40s (%.30s)", kernel->name, kernel->file);
    return bt_vk_check(
        dev,
        bt_vk.CreateComputePipelines(dev->handle, dev->cache, 1, &info, NULL, &pipeline->handle),
        doing, err);
}

bt_status bt_vk_pipeline_for(bt_device *dev, const bt_launch *launch, int portable, VkPipeline *out,
                             bt_error *err) {
    const bt_portable *kernel = &dev->table[portable];
    bt_vk_pipeline wanted = {.portable = portable};
    bt_portable_constants(kernel, launch, wanted.constants);
    for (bt_vk_pipeline *at = dev->pipelines; at; at = at->next)
        if (at->portable == portable &&
            !memcmp(at->constants, wanted.constants, sizeof wanted.constants)) {
            *out = at->handle;
            return BT_OK;
        }
    bt_vk_pipeline *made = malloc(sizeof *made);
    if (!made) return bt_fail_memory(err, "a pipeline", sizeof *made);
    *made = wanted;
    bt_status status = create(dev, made, 1u + kernel->special_count, err);
    if (status != BT_OK) {
        free(made);
        return status;
    }
    made->next = dev->pipelines;
    dev->pipelines = made;
    *out = made->handle;
    return BT_OK;
}
