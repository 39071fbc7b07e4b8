// The pipeline cache on disk: what a driver compiled once is not compiled again. A help and no
// more: whatever goes wrong with the file, kernels are compiled as if there were none.
#include "device/vulkan/vulkan_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/cache.h"

enum { NAME_BYTES = 128, DATA_MAX = 255 << 20 };

// In front of the driver's bytes: drivers check little of what they are given.
typedef struct cache_header {
    char magic[8];
    uint32_t vendor, device, driver;
    uint32_t checksum;
    uint8_t uuid[VK_UUID_SIZE];
    uint64_t bytes;
} cache_header;

static cache_header header_of(const bt_device *dev, const unsigned char *data, size_t bytes) {
    const VkPhysicalDeviceProperties *gpu = &dev->gpu.properties;
    cache_header header = {
        .magic = "BTVKPC1",
        .vendor = gpu->vendorID,
        .device = gpu->deviceID,
        .driver = gpu->driverVersion,
        .checksum = (uint32_t)crc32(0, data, (uInt)bytes),
        .bytes = bytes,
    };
    memcpy(header.uuid, gpu->pipelineCacheUUID, VK_UUID_SIZE);
    return header;
}

// The file for this driver.
static void name_of(const bt_device *dev, char name[NAME_BYTES]) {
    int n = snprintf(name, NAME_BYTES, "vulkan-");
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        n += snprintf(name + n, NAME_BYTES - (size_t)n, "%02x",
                      dev->gpu.properties.pipelineCacheUUID[i]);
    snprintf(name + n, NAME_BYTES - (size_t)n, "-%08x", dev->gpu.properties.driverVersion);
}

// The driver's bytes, to be freed; NULL: there are none that can be trusted.
static unsigned char *read_cache(bt_device *dev, size_t *bytes) {
    char name[NAME_BYTES];
    cache_header header;
    name_of(dev, name);
    unsigned char *data = bt_cache_read(name, &header, sizeof header, DATA_MAX, bytes);
    cache_header want = data ? header_of(dev, data, *bytes) : (cache_header){0};
    if (data && memcmp(&header, &want, sizeof want) == 0) {
        dev->cache_checksum = header.checksum;
        return data;
    }
    free(data);
    return NULL;
}

void bt_vk_cache_load(bt_device *dev) {
    size_t bytes = 0;
    unsigned char *data = read_cache(dev, &bytes);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                      .initialDataSize = data ? bytes : 0,
                                      .pInitialData = data};
    if (bt_vk.CreatePipelineCache(dev->handle, &info, NULL, &dev->cache) != VK_SUCCESS)
        dev->cache = VK_NULL_HANDLE;
    free(data);
}

static void write_cache(const bt_device *dev, const unsigned char *data, size_t bytes) {
    char name[NAME_BYTES];
    cache_header header = header_of(dev, data, bytes);
    name_of(dev, name);
    if (header.checksum != dev->cache_checksum)
        bt_cache_write(name, &header, sizeof header, data, bytes);
}

void bt_vk_cache_save(bt_device *dev) {
    size_t bytes = 0;
    if (!dev->cache || dev->lost.status != BT_OK || !dev->pipelines ||
        bt_vk.GetPipelineCacheData(dev->handle, dev->cache, &bytes, NULL) != VK_SUCCESS ||
        bytes == 0 || bytes > DATA_MAX)
        return;
    unsigned char *data = malloc(bytes);
    if (data && bt_vk.GetPipelineCacheData(dev->handle, dev->cache, &bytes, data) == VK_SUCCESS)
        write_cache(dev, data, bytes);
    free(data);
}
