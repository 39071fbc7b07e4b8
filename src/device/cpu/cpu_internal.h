// What the two halves of the CPU device share: devices and buffers (cpu.c), programs (program.c).
#ifndef BT_DEVICE_CPU_INTERNAL_H
#define BT_DEVICE_CPU_INTERNAL_H

#include "device/cpu/set.h"

struct bt_device {
    bt_pool *pool;
    const bt_cpu_set *set; // f32 kernels of the instruction set
    bool overrides; // launches are done as one, and zeros left out, where that is known to work
    bt_precision precision; // of f32 products
    uint64_t versions;      // of buffers: each is a number of its own
    bt_device_counters counters;
};

// In front of the memory of a buffer: what tells that it was written to.
typedef struct bt_cpu_header {
    uint64_t version;
    char unused[BT_BINDING_ALIGN - 8];
} bt_cpu_header;

static inline bt_cpu_header *bt_cpu_header_of(const bt_buffer *buffer) {
    return (bt_cpu_header *)buffer->handle - 1;
}

// Aligned to BT_BINDING_ALIGN at least; freed by free().
void *bt_cpu_aligned(size_t bytes);

// As in bt_device_api.
bt_status bt_cpu_program_init(bt_device *dev, const bt_launch *launches, int count,
                              const bt_program_use *use, bt_error *err, bt_device_program **out);
void bt_cpu_program_done(bt_device *dev, bt_device_program *program);
bt_status bt_cpu_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err);
void bt_cpu_times(bt_device *dev, const bt_device_program *program, double *seconds, double *total);
const struct bt_launch_log *bt_cpu_log(const bt_device_program *program);
const char *bt_cpu_merged(const bt_device_program *program, int launch, int *into, double *bytes);

#endif
