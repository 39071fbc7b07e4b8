// The pipeline cache on disk: what a driver compiled once is not compiled again. A help and no
// more: whatever goes wrong with the file, kernels are compiled as if there were none.
#include "device/vulkan/vulkan_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { PATH_BYTES = 1024, FILE_MAX = 256 << 20 };

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

static bool make_folder(const char *path) {
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

// The file for this driver. make: its folder is made when it is missing.
static bool path_of(const bt_device *dev, bool make, char path[PATH_BYTES]) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool xdg = cache && *cache == '/'; // the standard: others are ignored
    if (!xdg && (!home || !*home)) return false;
    int n = snprintf(path, PATH_BYTES, "%s%s", xdg ? cache : home, xdg ? "" : "/.cache");
    if (n < 0 || n > PATH_BYTES - 128 || (make && !make_folder(path))) return false;
    n += snprintf(path + n, PATH_BYTES - (size_t)n, "/bantam");
    if (make && !make_folder(path)) return false;
    n += snprintf(path + n, PATH_BYTES - (size_t)n, "/vulkan-");
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        n += snprintf(path + n, PATH_BYTES - (size_t)n, "%02x",
                      dev->gpu.properties.pipelineCacheUUID[i]);
    snprintf(path + n, PATH_BYTES - (size_t)n, "-%08x", dev->gpu.properties.driverVersion);
    return true;
}

// The driver's bytes, to be freed; NULL: there are none that can be trusted.
static unsigned char *read_cache(bt_device *dev, size_t *bytes) {
    char path[PATH_BYTES];
    struct stat info;
    cache_header header;
    unsigned char *data = NULL;
    FILE *file = path_of(dev, false, path) ? fopen(path, "rb") : NULL;
    if (!file) return NULL;
    if (!fstat(fileno(file), &info) && info.st_size > (off_t)sizeof header &&
        info.st_size <= FILE_MAX && fread(&header, sizeof header, 1, file) == 1) {
        *bytes = (size_t)info.st_size - sizeof header;
        data = malloc(*bytes);
        bool whole = data && fread(data, *bytes, 1, file) == 1;
        cache_header want = whole ? header_of(dev, data, *bytes) : (cache_header){0};
        if (!whole || memcmp(&header, &want, sizeof want) != 0) {
            free(data);
            data = NULL;
        } else {
            dev->cache_checksum = header.checksum;
        }
    }
    fclose(file);
    return data;
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

// Writes to a temporary name, then renames: another process never sees half a file.
static void write_cache(const bt_device *dev, const unsigned char *data, size_t bytes) {
    char path[PATH_BYTES], temporary[PATH_BYTES + 8];
    cache_header header = header_of(dev, data, bytes);
    if (header.checksum == dev->cache_checksum || !path_of(dev, true, path)) return;
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    int descriptor = mkstemp(temporary);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "wb") : NULL;
    if (!file) {
        if (descriptor >= 0) close(descriptor);
        return;
    }
    bool written =
        fwrite(&header, sizeof header, 1, file) == 1 && fwrite(data, bytes, 1, file) == 1;
    if (fclose(file) != 0 || !written || rename(temporary, path) != 0) unlink(temporary);
}

void bt_vk_cache_save(bt_device *dev) {
    size_t bytes = 0;
    if (!dev->cache || dev->lost.status != BT_OK || !dev->pipelines ||
        bt_vk.GetPipelineCacheData(dev->handle, dev->cache, &bytes, NULL) != VK_SUCCESS ||
        bytes == 0 || bytes > FILE_MAX - sizeof(cache_header))
        return;
    unsigned char *data = malloc(bytes);
    if (data && bt_vk.GetPipelineCacheData(dev->handle, dev->cache, &bytes, data) == VK_SUCCESS)
        write_cache(dev, data, bytes);
    free(data);
}
