// What a CPU kernel is: a C function called by every worker of the pool with the same launch. It
// ignores the grid and takes its share of the work, and it never splits a sum by the number of
// workers, so that the bits are the same for any number of threads.
#ifndef BT_DEVICE_CPU_WORKER_H
#define BT_DEVICE_CPU_WORKER_H

#include <string.h>

#include "base/rng.h"
#include "base/threads.h"
#include "device/cpu/nonzeros.h"
#include "device/device.h"
#include "device/kernels.h"

typedef struct bt_cpu_worker {
    int index, count;
    char *scratch;      // this worker's own, as many bytes as the kernel asked for, aligned to 256
    const void *packed; // what `pack` made; NULL: the weights change from step to step
    bt_cpu_nonzeros *nonzeros; // of the batch that the program gathers; NULL: nobody asks for them
} bt_cpu_worker;

typedef void (*bt_cpu_fn)(const bt_launch *launch, const bt_cpu_worker *me);

typedef struct bt_cpu_kernel {
    bt_cpu_fn run;
    size_t (*scratch)(const bt_launch *launch); // bytes for each worker; NULL: none
    // Weights (binding 1) in another layout, kept as long as nobody writes to them; NULL: none.
    size_t (*packed)(const bt_launch *launch); // bytes, aligned to 256
    void (*pack)(const bt_launch *launch, void *packed);
} bt_cpu_kernel;

// Plain loops, complete: the f64 ones are the reference of all other kernels.
extern const bt_cpu_kernel bt_cpu_reference_f32[BT_KERNEL_COUNT];
extern const bt_cpu_kernel bt_cpu_reference_f64[BT_KERNEL_COUNT];

static inline void *bt_cpu_data(const bt_launch *launch, int i) {
    const bt_binding *b = &launch->binding[i];
    return b->buffer ? (char *)b->buffer->handle + b->offset : NULL;
}

// Declares `args`, the scalars of the launch.
#define BT_CPU_ARGS(type) \
    type args;            \
    memcpy(&args, launch->scalars, sizeof args)

// [begin, end) of this worker's share of n items, in blocks.
static inline void bt_cpu_share(const bt_cpu_worker *me, size_t n, size_t block, size_t *begin,
                                size_t *end) {
    bt_share(n, block, me->index, me->count, begin, end);
}

// The sample in row r of the batch of `step`, -1 past the end of the epoch.
static inline int64_t bt_cpu_batch_sample(const bt_gather_args *args, const int32_t *index,
                                          uint32_t step, size_t r) {
    if (args->count == 0) return -1;
    uint32_t steps = (uint32_t)(((uint64_t)args->count + args->batch - 1) / args->batch);
    uint64_t p = (uint64_t)(step % steps) * args->batch + r;
    if (p >= args->count) return -1;
    if (!args->shuffle) return index[p];
    uint32_t key = bt_epoch_key(args->seed, step / steps);
    return index[bt_permute_index((uint32_t)p, args->count, key)];
}

#endif
