// The CPU as a device: memory is memory, and a set of kernels for the instruction set at hand.
// program.c runs them.
#include "device/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

#include "base/checked.h"
#include "device/cpu/cpu_internal.h"

const bt_cpu_set *bt_cpu_set_at(int index) {
    static const bt_cpu_set plain = {.name = "plain loops", .kernels = bt_cpu_reference_f32};
    const bt_cpu_set *found[4];
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found[count++] = &bt_cpu_set_avx512;
    if (avx2) found[count++] = &bt_cpu_set_avx2;
#endif
    found[count++] = &bt_cpu_set_base;
    found[count++] = &plain;
    return index < count ? found[index] : NULL;
}

bool bt_cpu_has_bf16(const bt_cpu_set *set) {
#if defined(__x86_64__)
    return set->matmul_bf16.run && __builtin_cpu_supports("avx512bf16");
#else
    (void)set;
    return false;
#endif
}

// The model name that the system knows, or "CPU".
#ifdef __APPLE__
static void read_model(char *out, size_t bytes) {
    if (sysctlbyname("machdep.cpu.brand_string", out, &bytes, NULL, 0)) strcpy(out, "CPU");
}
#else
static void read_model(char *out, size_t bytes) {
    snprintf(out, bytes, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon || colon[1] != ' ') continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, bytes, "%s", colon + 2);
        break;
    }
    fclose(file);
}
#endif

static bool cpu_probe(int index, bt_device_info *out) {
    const bt_cpu_set *set = bt_cpu_set_at(index);
    if (!set) return false;
    *out = (bt_device_info){.available = true};
    snprintf(out->name, sizeof out->name, "cpu:%d", index);
    char model[80];
    read_model(model, sizeof model);
    int cores = bt_core_count();
    snprintf(out->description, sizeof out->description, "%s, %d core%s, %s", model, cores,
             cores == 1 ? "" : "s", set->name);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0) out->memory_bytes = (size_t)pages * (size_t)page;
    return true;
}

static bt_status cpu_open(int index, const bt_context_desc *desc, bt_error *err, bt_device **out) {
    *out = NULL;
    const bt_cpu_set *set = bt_cpu_set_at(index);
    if (!set)
        return bt_fail(err, BT_ERROR_DEVICE, "there is no device cpu:%d; see `bantam devices`",
                       index);
    bt_device *dev = calloc(1, sizeof *dev);
    if (!dev) return bt_fail_memory(err, "the CPU device", sizeof *dev);
    dev->set = set;
    dev->overrides = !desc || !desc->no_overrides;
    if (desc && desc->precision == BT_PRECISION_BF16 && bt_cpu_has_bf16(set))
        dev->precision = BT_PRECISION_BF16;
    bt_status status = bt_pool_open(desc ? desc->threads : 0, err, &dev->pool);
    if (status != BT_OK) {
        free(dev);
        return status;
    }
    *out = dev;
    return BT_OK;
}

static void cpu_close(bt_device *dev) {
    if (!dev) return;
    bt_pool_close(dev->pool);
    free(dev);
}

// Memory is not touched here but by the worker that uses it first, whose node it then lies on.
// Large buffers ask for huge pages: a batch is picked from all over the data set, and looking up
// the address of a small page takes longer than reading an image.
void *bt_cpu_aligned(size_t bytes) {
    size_t huge = (size_t)1 << 21, align = bytes >= 2 * huge ? huge : BT_BINDING_ALIGN, rounded;
    void *memory = bt_align_ok(bytes, align, &rounded) ? aligned_alloc(align, rounded) : NULL;
#ifdef MADV_HUGEPAGE
    if (memory && align == huge) madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return memory;
}

static bt_status cpu_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out) {
    size_t all;
    bt_cpu_header *memory = bt_add_ok(bytes, sizeof *memory, &all) ? bt_cpu_aligned(all) : NULL;
    *out = (bt_buffer){0};
    if (!memory) return bt_fail_memory(err, "a buffer", bytes);
    memory->version = ++dev->versions;
    *out = (bt_buffer){memory + 1, bytes};
    return BT_OK;
}

static void cpu_buffer_done(bt_device *dev, bt_buffer *buffer) {
    (void)dev;
    if (buffer->handle) free(bt_cpu_header_of(buffer));
    *buffer = (bt_buffer){0};
}

static bt_status check_range(const bt_buffer *buffer, size_t offset, size_t bytes, bt_error *err) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return BT_OK;
    return bt_fail(err, BT_ERROR_INTERNAL,
                   "bytes %zu to %zu + %zu of a buffer of %zu were asked for", offset, offset,
                   bytes, buffer->bytes);
}

static bt_status cpu_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                           size_t bytes, bt_error *err) {
    BT_TRY(check_range(buffer, offset, bytes, err));
    dev->counters.bytes_written += bytes;
    bt_cpu_header_of(buffer)->version = ++dev->versions;
    if (bytes > 0) memcpy((char *)buffer->handle + offset, data, bytes);
    return BT_OK;
}

static bt_status cpu_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                          size_t bytes, bt_error *err) {
    BT_TRY(check_range(buffer, offset, bytes, err));
    dev->counters.bytes_read += bytes;
    if (bytes > 0) memcpy(data, (const char *)buffer->handle + offset, bytes);
    return BT_OK;
}

static bt_status cpu_wait(bt_device *dev, bt_error *err) { // cpu_run has waited already
    (void)dev, (void)err;
    return BT_OK;
}

static const bt_device_counters *cpu_counters(const bt_device *dev) {
    return &dev->counters;
}

static bt_precision cpu_precision(const bt_device *dev) {
    return dev->precision;
}

const bt_device_api bt_device_cpu = {
    .name = "cpu",
    .host = true,
    .joined = bt_cpu_joined,
    .probe = cpu_probe,
    .open = cpu_open,
    .close = cpu_close,
    .buffer_init = cpu_buffer_init,
    .buffer_done = cpu_buffer_done,
    .write = cpu_write,
    .read = cpu_read,
    .program_init = bt_cpu_program_init,
    .program_done = bt_cpu_program_done,
    .run = bt_cpu_run,
    .wait = cpu_wait,
    .times = bt_cpu_times,
    .log = bt_cpu_log,
    .merged = bt_cpu_merged,
    .counters = cpu_counters,
    .precision = cpu_precision,
};
