// Machine code on disk: what NVRTC compiled once is not compiled again. The key says all that the
// code depends on; the file is named by its hash.
#include "device/cuda/cuda_internal.h"

#include <sha256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/cache.h"

enum { NAME_BYTES = 96, CODE_MAX = 64 << 20 };

typedef struct cache_header {
    char magic[8];
    uint32_t checksum;
    uint32_t bytes;
} cache_header;

static cache_header header_of(const unsigned char *code, size_t bytes) {
    return (cache_header){.magic = "BTCUBIN",
                          .checksum = (uint32_t)crc32(0, code, (uInt)bytes),
                          .bytes = (uint32_t)bytes};
}

static void name_of(const char *key, char name[NAME_BYTES]) {
    char hex[SHA256_DIGEST_STRING_LENGTH];
    SHA256Data((const uint8_t *)key, strlen(key), hex);
    snprintf(name, NAME_BYTES, "cuda-%s.cubin", hex);
}

unsigned char *bt_cuda_cache_read(const char *key, size_t *bytes) {
    char name[NAME_BYTES];
    cache_header header;
    name_of(key, name);
    unsigned char *code = bt_cache_read(name, &header, sizeof header, CODE_MAX, bytes);
    cache_header want = code ? header_of(code, *bytes) : (cache_header){0};
    if (code && memcmp(&header, &want, sizeof want) == 0) return code;
    free(code);
    return NULL;
}

void bt_cuda_cache_write(const char *key, const unsigned char *code, size_t bytes) {
    char name[NAME_BYTES];
    cache_header header = header_of(code, bytes);
    name_of(key, name);
    if (bytes > 0 && bytes <= CODE_MAX) bt_cache_write(name, &header, sizeof header, code, bytes);
}

// All that the machine code depends on: the driver, the chip, the text and the files it may
// include. To be freed. (A newer NVRTC would make other code; what an older one made is as right.)
static char *key_of(const bt_device *dev, const char *text) {
    char *key = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&key, &bytes);
    if (!out) return NULL;
    fprintf(out, "%d %d\n%s", dev->chip.driver, dev->chip.capability, text);
    for (const bt_cuda_image *at = bt_cuda_images; at->name; at++) {
        const char *dot = strrchr(at->name, '.');
        if (dot && (!strcmp(dot, ".cu") || !strcmp(dot, ".cuh") || !strcmp(dot, ".h")))
            fprintf(out, "\n// %s\n%s", at->name, (const char *)at->begin);
    }
    if (fclose(out) == 0) return key;
    free(key);
    return NULL;
}

void bt_cuda_cache_forget(const bt_device *dev, const char *text) {
    char name[NAME_BYTES], path[BT_CACHE_PATH_BYTES];
    char *key = key_of(dev, text);
    if (!key) return;
    name_of(key, name);
    if (bt_cache_path(name, false, path)) unlink(path);
    free(key);
}

unsigned char *bt_cuda_cached(const bt_device *dev, const char *text, const char *name,
                              size_t *bytes, char *why, size_t why_bytes) {
    char *key = key_of(dev, text);
    unsigned char *code = key ? bt_cuda_cache_read(key, bytes) : NULL;
    if (!key) snprintf(why, why_bytes, "there is no memory for the text of %s", name);
    if (key && !code &&
        bt_cuda_compile(text, name, dev->chip.capability, &code, bytes, why, why_bytes))
        bt_cuda_cache_write(key, code, *bytes);
    free(key);
    return code;
}
