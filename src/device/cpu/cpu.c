// The CPU as a device: memory is memory, and a program is a list of launches that all workers
// walk together, step after step, meeting at barriers only where a launch needs what another
// worker wrote. Nobody returns to the host between launches.
#include "device/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/launch_log.h"
#include "device/cpu/worker.h"
#include "device/depend.h"

// Launches below this cost (see cost_of) are not worth sharing: a barrier takes longer.
enum { SOLO_COST = 4096, SOLO_COST_PLAIN = 512 /* of plain loops */ };

struct bt_device {
    bt_pool *pool;
    const bt_cpu_kernel *fast; // f32 kernels of the instruction set
    bt_device_counters counters;
};

typedef struct cpu_launch {
    bt_launch launch;
    bt_cpu_fn fn;
    bool solo;    // worker 0 runs it alone
    bool barrier; // all meet before it
} cpu_launch;

struct bt_device_program {
    bt_pool *pool;
    cpu_launch *launches;
    int count;
    uint32_t steps; // of the running bt_pool_run
    char *scratch;  // scratch_bytes for each worker
    size_t scratch_bytes;
    bt_launch_log *log; // NULL: not timed
    double total;
};

typedef struct isa {
    const char *name;
    const bt_cpu_kernel *kernels;
} isa;

// Instruction set `index` of this machine, the best first: each is a device of its own, so that any
// of them can be tested and compared. The plain loops come last. kernels NULL: no more.
static isa isa_at(int index) {
    isa found[5];
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found[count++] = (isa){"AVX-512", bt_cpu_kernels_avx512};
    if (avx2) found[count++] = (isa){"AVX2", bt_cpu_kernels_avx2};
    found[count++] = (isa){"SSE2", bt_cpu_kernels_base};
#else
    found[count++] = (isa){"128-bit vectors", bt_cpu_kernels_base};
#endif
    found[count++] = (isa){"plain loops", bt_cpu_reference_f32};
    return index < count ? found[index] : (isa){NULL, NULL};
}

// The model name that Linux knows, or "CPU".
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

static bool cpu_probe(int index, bt_device_info *out) {
    const char *set = isa_at(index).name;
    if (!set) return false;
    *out = (bt_device_info){.available = true};
    snprintf(out->name, sizeof out->name, "cpu:%d", index);
    char model[80];
    read_model(model, sizeof model);
    int cores = bt_core_count();
    snprintf(out->description, sizeof out->description, "%s, %d core%s, %s", model, cores,
             cores == 1 ? "" : "s", set);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0) out->memory_bytes = (size_t)pages * (size_t)page;
    return true;
}

static bt_status cpu_open(int index, const bt_context_desc *desc, bt_error *err, bt_device **out) {
    *out = NULL;
    const bt_cpu_kernel *kernels = isa_at(index).kernels;
    if (!kernels)
        return bt_fail(err, BT_ERROR_DEVICE, "there is no device cpu:%d; see `bantam devices`",
                       index);
    bt_device *dev = calloc(1, sizeof *dev);
    if (!dev) return bt_fail_memory(err, "the CPU device", sizeof *dev);
    dev->fast = kernels;
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

static void *aligned(size_t bytes) {
    size_t rounded;
    return bt_align_ok(bytes, BT_BINDING_ALIGN, &rounded) ? aligned_alloc(BT_BINDING_ALIGN, rounded)
                                                          : NULL;
}

static bt_status cpu_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out) {
    (void)dev;
    *out = (bt_buffer){aligned(bytes), bytes};
    return out->handle ? BT_OK : bt_fail_memory(err, "a buffer", bytes);
}

static void cpu_buffer_done(bt_device *dev, bt_buffer *buffer) {
    (void)dev;
    free(buffer->handle);
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

// Roughly how many vector operations a launch takes: its products / 8, or what it touches / 8.
static double cost_of(const bt_launch *launch) {
    bt_matmul_args mm;
    bt_conv_args conv;
    switch (launch->kernel) {
    case BT_KERNEL_matmul:
        memcpy(&mm, launch->scalars, sizeof mm);
        return (double)mm.batch1 * mm.batch2 * mm.m * mm.n * mm.k / 8;
    case BT_KERNEL_conv2d:
    case BT_KERNEL_conv2d_grad_input:
    case BT_KERNEL_conv2d_grad_weight:
        memcpy(&conv, launch->scalars, sizeof conv);
        return (double)conv.n * conv.o * conv.oh * conv.ow * conv.c * conv.kh * conv.kw / 8;
    case BT_KERNEL_xent_mean:
    case BT_KERNEL_step_end: return 0;   // one worker by nature
    case BT_KERNEL_map_host: return 1e9; // who knows what it does
    default: break;
    }
    size_t bytes = 0;
    int first = launch->kernel == BT_KERNEL_gather_batch ? 4 : 0; // the data set is not walked
    for (int i = first; i < launch->binding_count; i++)
        if (launch->binding[i].buffer) bytes += launch->binding[i].bytes;
    return (double)bytes / 32;
}

static void cpu_program_done(bt_device *dev, bt_device_program *program) {
    (void)dev;
    if (!program) return;
    free(program->launches);
    free(program->scratch);
    bt_launch_log_free(program->log);
    free(program);
}

static void prepare_launch(const bt_device *dev, const bt_launch *launch,
                           bt_device_program *program, cpu_launch *out) {
    const bt_cpu_kernel *kernel = &dev->fast[launch->kernel];
    bool plain = launch->dtype == BT_F64 || !kernel->run;
    if (launch->dtype == BT_F64)
        kernel = &bt_cpu_reference_f64[launch->kernel];
    else if (plain)
        kernel = &bt_cpu_reference_f32[launch->kernel];
    size_t scratch = kernel->scratch ? kernel->scratch(launch) : 0;
    if (scratch > program->scratch_bytes) program->scratch_bytes = scratch;
    bool solo = cost_of(launch) < (plain ? SOLO_COST_PLAIN : SOLO_COST);
    *out = (cpu_launch){.launch = *launch, .fn = kernel->run, .solo = solo};
}

// Worker 0 runs the solo launches in order. Unless there is nothing else, steps are kept apart.
static bt_status place_barriers(bt_device_program *program, const bt_launch *launches,
                                bt_error *err) {
    size_t count = (size_t)program->count;
    bool *solo = calloc(2 * count + 1, sizeof *solo), *barrier = solo + count, all_solo = true;
    if (!solo) return bt_fail_memory(err, "a program", 2 * count);
    for (size_t i = 0; i < count; i++) {
        solo[i] = program->launches[i].solo;
        all_solo = all_solo && solo[i];
    }
    bt_place_barriers(launches, program->count, solo, barrier);
    for (size_t i = 0; i < count; i++) program->launches[i].barrier = barrier[i];
    if (count > 0) program->launches[0].barrier = !all_solo;
    free(solo);
    return BT_OK;
}

static bt_status allocate_scratch(bt_device_program *program, size_t workers, bt_error *err) {
    size_t each, total;
    if (!bt_align_ok(program->scratch_bytes, BT_BINDING_ALIGN, &each) ||
        !bt_mul_ok(each, workers, &total) || !(program->scratch = aligned(total)))
        return bt_fail_memory(err, "working memory of the kernels", program->scratch_bytes);
    program->scratch_bytes = each;
    return BT_OK;
}

static bt_status cpu_program_init(bt_device *dev, const bt_launch *launches, int count,
                                  const bt_program_use *use, bt_error *err,
                                  bt_device_program **out) {
    *out = NULL;
    size_t bytes = (size_t)count * sizeof(cpu_launch);
    bt_device_program *program = calloc(1, sizeof *program);
    if (!program) return bt_fail_memory(err, "a program", sizeof *program);
    program->pool = dev->pool;
    program->count = count;
    program->scratch_bytes = BT_BINDING_ALIGN;
    program->launches = aligned(bytes);
    bt_status status = program->launches ? BT_OK : bt_fail_memory(err, "a program", bytes);
    if (status == BT_OK && use->timed) status = bt_launch_log_make(count, err, &program->log);
    for (int i = 0; i < count && status == BT_OK; i++)
        prepare_launch(dev, &launches[i], program, &program->launches[i]);
    if (status == BT_OK) status = place_barriers(program, launches, err);
    if (status == BT_OK)
        status = allocate_scratch(program, (size_t)bt_pool_workers(dev->pool), err);
    if (status != BT_OK) {
        cpu_program_done(dev, program);
        return status;
    }
    *out = program;
    return BT_OK;
}

// Every worker walks the whole list, `steps` times.
static void walk(void *user, int worker, int workers) {
    bt_device_program *program = user;
    char *scratch = program->scratch + (size_t)worker * program->scratch_bytes;
    const bt_cpu_worker shared = {worker, workers, scratch}, alone = {0, 1, scratch};
    bt_launch_log *log = worker == 0 ? program->log : NULL;
    for (uint32_t step = 0; step < program->steps; step++)
        for (int i = 0; i < program->count; i++) {
            const cpu_launch *at = &program->launches[i];
            if (at->barrier && step + (uint32_t)i > 0) bt_pool_barrier(program->pool);
            if (at->solo && worker > 0) continue;
            double start = log ? bt_seconds() : 0;
            at->fn(&at->launch, at->solo ? &alone : &shared);
            if (log) bt_launch_log_add(log, i, start, bt_seconds() - start);
        }
}

static bt_status cpu_run(bt_device *dev, bt_device_program *program, uint32_t steps,
                         bt_error *err) {
    (void)err;
    double start = bt_seconds();
    program->steps = steps;
    bt_pool_run(dev->pool, walk, program);
    program->total += bt_seconds() - start;
    dev->counters.submissions++;
    dev->counters.launches += (uint64_t)program->count * steps;
    return BT_OK;
}

static bt_status cpu_wait(bt_device *dev, bt_error *err) { // cpu_run has waited already
    (void)dev, (void)err;
    return BT_OK;
}

static void cpu_times(bt_device *dev, const bt_device_program *program, double *seconds,
                      double *total) {
    (void)dev;
    for (int i = 0; i < program->count; i++)
        seconds[i] = program->log ? program->log->seconds[i] : 0;
    *total = program->total;
}

static const bt_launch_log *cpu_log(const bt_device_program *program) {
    return program->log;
}

static const bt_device_counters *cpu_counters(const bt_device *dev) {
    return &dev->counters;
}

const bt_device_api bt_device_cpu = {
    .name = "cpu",
    .host = true,
    .probe = cpu_probe,
    .open = cpu_open,
    .close = cpu_close,
    .buffer_init = cpu_buffer_init,
    .buffer_done = cpu_buffer_done,
    .write = cpu_write,
    .read = cpu_read,
    .program_init = cpu_program_init,
    .program_done = cpu_program_done,
    .run = cpu_run,
    .wait = cpu_wait,
    .times = cpu_times,
    .log = cpu_log,
    .counters = cpu_counters,
};
