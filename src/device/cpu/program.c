// Programs of the CPU: a list of launches that all workers walk together, step after step, meeting
// at barriers only where a launch needs what another worker wrote. Nobody returns to the host
// between launches. Some launches are done as one (group.h).
#include <stdlib.h>

#include "base/checked.h"
#include "base/launch_log.h"
#include "device/cpu/cpu_internal.h"
#include "device/depend.h"

// Launches below this cost (see cost_of) are not worth sharing: a barrier takes longer.
enum { SOLO_COST = 4096, SOLO_COST_PLAIN = 512 /* of plain loops */ };

// A launch, or several that are done as one.
typedef struct task {
    bt_launch part[BT_CPU_PARTS_MAX]; // absent ones have no bindings
    bt_cpu_group group;
    bt_cpu_fn fn;
    const char *name; // of what does it, where it is not the kernel of part 0
    void (*pack)(const bt_launch *launch, void *packed);
    void *packed;            // NULL: its weights change from step to step, or are used as they are
    uint64_t packed_version; // of the buffer of the weights
    bool solo;               // worker 0 runs it alone
    bool barrier;            // all meet before it
} task;

struct bt_device_program {
    bt_pool *pool;
    task *tasks;
    int count, launch_count;
    bool all_solo;
    bt_buffer **written; // by its launches, each once
    int written_count;
    uint32_t steps; // of the running bt_pool_run
    char *scratch;  // scratch_bytes for each worker
    size_t scratch_bytes;
    bt_cpu_nonzeros *nonzeros; // of the gathered batch; NULL: nobody asks
    bt_launch_log *log;        // NULL: not timed
    double total;
};

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

void bt_cpu_program_done(bt_device *dev, bt_device_program *program) {
    (void)dev;
    if (!program) return;
    for (int i = 0; i < program->count; i++) free(program->tasks[i].packed);
    free(program->tasks);
    free(program->written);
    free(program->scratch);
    bt_cpu_nonzeros_free(program->nonzeros);
    bt_launch_log_free(program->log);
    free(program);
}

static bool is_written(const bt_device_program *program, const bt_buffer *buffer) {
    for (int i = 0; i < program->written_count; i++)
        if (program->written[i] == buffer) return true;
    return false;
}

static bt_status list_written(bt_device_program *program, const bt_launch *launches, int count,
                              bt_error *err) {
    size_t max = (size_t)count * BT_BINDINGS_MAX + 1;
    program->written = calloc(max, sizeof(bt_buffer *));
    if (!program->written) return bt_fail_memory(err, "a program", max * sizeof(bt_buffer *));
    for (int i = 0; i < count; i++)
        for (int j = 0; j < launches[i].binding_count; j++) {
            bt_buffer *buffer = launches[i].binding[j].buffer;
            bool writes = strchr("wWuU", bt_kernel_table[launches[i].kernel].bindings[j]);
            if (buffer && writes && !is_written(program, buffer))
                program->written[program->written_count++] = buffer;
        }
    return BT_OK;
}

static const bt_launch *part_of(const task *t, int i) {
    return i == 0 || t->group.part[i] >= 0 ? &t->part[i] : NULL;
}

// The launch that gathers the batch which launch `i`, a product, reads as operand `b`; -1: none.
static int gathered_by(const bt_launch *launches, int count, int i, int b) {
    for (int g = 0; g < i; g++)
        if (launches[g].kernel == BT_KERNEL_gather_batch &&
            bt_cpu_read_by(launches, count, g, 4, i) &&
            launches[g].binding[4].buffer == launches[i].binding[b].buffer &&
            launches[g].binding[4].offset == launches[i].binding[b].offset &&
            launches[g].binding[4].bytes == launches[i].binding[b].bytes)
            return g;
    return -1;
}

// The kernel of a product that reads a batch as it was gathered, of which zeros may be left out.
static const bt_cpu_kernel *sparse_kernel(const bt_cpu_set *set, const bt_launch *launches,
                                          int count, int i, int *gather) {
    const bt_launch *l = &launches[i];
    bt_matmul_args a;
    if (l->kernel != BT_KERNEL_matmul || l->dtype != BT_F32 || !set->sparse_forward.run)
        return NULL;
    memcpy(&a, l->scalars, sizeof a);
    if (a.batch1 != 1 || a.batch2 != 1) return NULL;
    bool forward = !a.transpose_a && a.transpose_b, grad = a.transpose_a && !a.transpose_b;
    *gather = forward || grad ? gathered_by(launches, count, i, grad) : -1;
    if (*gather < 0) return NULL;
    bt_gather_args g;
    memcpy(&g, launches[*gather].scalars, sizeof g);
    if (g.batch != (forward ? a.m : a.k) || g.pixels != (forward ? a.k : a.n) ||
        !bt_cpu_nonzeros_fit(g.batch, g.pixels))
        return NULL;
    return forward ? &set->sparse_forward : &set->sparse_grad;
}

// A program keeps the nonzeros of one batch.
static const bt_cpu_kernel *use_nonzeros(const bt_cpu_set *set, const bt_launch *launches,
                                         int count, int i, bt_device_program *program) {
    int gather;
    const bt_cpu_kernel *kernel = sparse_kernel(set, launches, count, i, &gather);
    for (int g = 0; kernel && g < count; g++)
        if (launches[g].kernel == BT_KERNEL_gather_batch && g != gather) return NULL;
    if (!kernel || program->nonzeros) return kernel;
    bt_gather_args a;
    memcpy(&a, launches[gather].scalars, sizeof a);
    program->nonzeros = bt_cpu_nonzeros_make(a.batch, a.pixels);
    return program->nonzeros ? kernel : NULL; // without memory: the dense product, to the same bits
}

// Would vectors be half empty at best? Forward a lane is a filter, backward a tap of a row and its
// channel.
static bool half_is_enough(const bt_cpu_set *set, const task *t) {
    bt_conv_args a;
    bool forward = t->group.kind == BT_CPU_CONV_POOL;
    if (t->group.kind == BT_CPU_SINGLE || !set->half) return false;
    memcpy(&a, t->part[forward ? 0 : 2].scalars, sizeof a);
    uint32_t lanes = (uint32_t)set->lanes, half = (uint32_t)set->half->lanes;
    return forward ? (a.o - 1) % lanes < half : a.c == 1 && a.kw <= half;
}

// Products of bfloat16 round their operands first, which costs a pass over them and, in small
// products, more precision than averages out.
static bool is_worth_rounding(const bt_launch *launch) {
    enum { LEAST = 32 };
    bt_matmul_args a;
    memcpy(&a, launch->scalars, sizeof a);
    return launch->kernel == BT_KERNEL_matmul && a.m >= LEAST && a.n >= LEAST && a.k >= LEAST;
}

static bt_cpu_kernel choose_kernel(const bt_device *dev, const bt_launch *launches, int count,
                                   task *t, bt_device_program *program) {
    static const char *const names[BT_CPU_GROUP_KINDS] = {NULL, "conv_pool", "conv_pool_grad"};
    const bt_launch *launch = &t->part[0];
    t->name = names[t->group.kind];
    if (t->group.kind != BT_CPU_SINGLE)
        return (half_is_enough(dev->set, t) ? dev->set->half : dev->set)->grouped[t->group.kind];
    if (launch->dtype == BT_F64) return bt_cpu_reference_f64[launch->kernel];
    const bt_cpu_kernel *sparse =
        dev->overrides ? use_nonzeros(dev->set, launches, count, t->group.part[0], program) : NULL;
    if (sparse) {
        t->name = "matmul_sparse";
        return *sparse;
    }
    if (dev->precision == BT_PRECISION_BF16 && is_worth_rounding(launch)) {
        t->name = "matmul_bf16";
        return dev->set->matmul_bf16;
    }
    const bt_cpu_kernel *kernel = &dev->set->kernels[launch->kernel];
    return kernel->run ? *kernel : bt_cpu_reference_f32[launch->kernel];
}

// What leaving out zeros saves of a first layer, roughly: drawn digits have few pixels.
enum { SPARSE_PART = 4 };

// Groups are shared by samples, backward by chunks of them: one share is for one worker.
static bool is_one_share(const task *t) {
    bt_conv_args a;
    if (t->group.kind == BT_CPU_SINGLE) return false;
    memcpy(&a, t->part[t->group.kind == BT_CPU_CONV_POOL ? 0 : 2].scalars, sizeof a);
    return a.n <= (t->group.kind == BT_CPU_CONV_POOL ? 1 : BT_CONV_CHUNK);
}

static void prepare_task(const bt_device *dev, const bt_launch *launches, int count, task *t,
                         bt_device_program *program) {
    double cost = 0;
    for (int i = 0; i < BT_CPU_PARTS_MAX; i++) {
        if (t->group.part[i] < 0) continue;
        t->part[i] = launches[t->group.part[i]];
        cost += cost_of(&t->part[i]);
    }
    bt_cpu_kernel kernel = choose_kernel(dev, launches, count, t, program);
    if (kernel.run == dev->set->sparse_forward.run) cost /= SPARSE_PART;
    size_t scratch = kernel.scratch ? kernel.scratch(t->part) : 0;
    if (scratch > program->scratch_bytes) program->scratch_bytes = scratch;
    bool plain = kernel.run == bt_cpu_reference_f64[t->part[0].kernel].run ||
                 kernel.run == bt_cpu_reference_f32[t->part[0].kernel].run;
    t->fn = kernel.run;
    if (kernel.pack && !is_written(program, t->part[0].binding[1].buffer)) {
        t->pack = kernel.pack; // without memory it packs in each step
        t->packed = bt_cpu_aligned(kernel.packed(t->part));
    }
    t->solo = cost < (plain ? SOLO_COST_PLAIN : SOLO_COST) || is_one_share(t);
}

// Worker 0 runs the solo tasks in order. Unless there is nothing else, steps are kept apart.
static bt_status place_barriers(bt_device_program *program, bt_error *err) {
    size_t count = (size_t)program->launch_count + 1, at = 0;
    bt_launch *launches = calloc(count, sizeof *launches);
    int *group = calloc(count, sizeof *group);
    bool *solo = calloc(2 * count, sizeof *solo), *barrier = solo + count;
    program->all_solo = true;
    for (int t = 0; launches && group && solo && t < program->count; t++) {
        program->all_solo &= program->tasks[t].solo;
        for (int i = 0; i < BT_CPU_PARTS_MAX; i++) {
            const bt_launch *part = part_of(&program->tasks[t], i);
            if (!part) continue;
            launches[at] = *part;
            group[at] = t;
            solo[at++] = program->tasks[t].solo;
        }
    }
    bool memory = launches && group && solo;
    if (memory) bt_place_barriers(launches, (int)at, solo, group, barrier);
    for (size_t i = at; memory && i-- > 0;) program->tasks[group[i]].barrier = barrier[i];
    if (program->count > 0) program->tasks[0].barrier = !program->all_solo;
    free(launches);
    free(group);
    free(solo);
    return memory ? BT_OK : bt_fail_memory(err, "a program", count * sizeof *launches);
}

static bt_status allocate_scratch(bt_device_program *program, size_t workers, bt_error *err) {
    size_t each, total;
    if (!bt_align_ok(program->scratch_bytes, BT_BINDING_ALIGN, &each) ||
        !bt_mul_ok(each, workers, &total) || !(program->scratch = bt_cpu_aligned(total)))
        return bt_fail_memory(err, "working memory of the kernels", program->scratch_bytes);
    program->scratch_bytes = each;
    return BT_OK;
}

// Groups are chosen where they stay what the program asks for: values that nobody reads are gone.
static bt_status make_tasks(const bt_device *dev, const bt_launch *launches, int count,
                            const bt_program_use *use, bt_device_program *program, bt_error *err) {
    size_t n = (size_t)count + 1;
    bt_cpu_group *groups = calloc(n, sizeof *groups);
    program->tasks = calloc(n, sizeof *program->tasks);
    program->launch_count = count;
    if (groups && program->tasks)
        program->count = bt_cpu_group_launches(launches, count, use,
                                               dev->overrides ? dev->set->takes : NULL, groups);
    for (int t = 0; t < program->count; t++) {
        program->tasks[t].group = groups[t];
        prepare_task(dev, launches, count, &program->tasks[t], program);
    }
    bool memory = groups && program->tasks;
    free(groups);
    return memory ? BT_OK : bt_fail_memory(err, "a program", n * sizeof *program->tasks);
}

bt_status bt_cpu_program_init(bt_device *dev, const bt_launch *launches, int count,
                              const bt_program_use *use, bt_error *err, bt_device_program **out) {
    *out = NULL;
    bt_device_program *program = calloc(1, sizeof *program);
    if (!program) return bt_fail_memory(err, "a program", sizeof *program);
    program->pool = dev->pool;
    program->scratch_bytes = BT_BINDING_ALIGN;
    bt_status status = list_written(program, launches, count, err);
    if (status == BT_OK) status = make_tasks(dev, launches, count, use, program, err);
    if (status == BT_OK && use->timed) status = bt_launch_log_make(count, err, &program->log);
    if (status == BT_OK) status = place_barriers(program, err);
    if (status == BT_OK)
        status = allocate_scratch(program, (size_t)bt_pool_workers(dev->pool), err);
    if (status != BT_OK) {
        bt_cpu_program_done(dev, program);
        return status;
    }
    *out = program;
    return BT_OK;
}

// The time of a group counts to its first launch; the others took none.
static void log_task(bt_launch_log *log, const task *t, double start) {
    double end = bt_seconds();
    bt_launch_log_add(log, t->group.part[0], start, end - start);
    for (int i = 1; i < BT_CPU_PARTS_MAX; i++)
        if (t->group.part[i] >= 0) bt_launch_log_add(log, t->group.part[i], end, 0);
}

// Every worker walks the whole list, `steps` times.
static void walk(void *user, int worker, int workers) {
    bt_device_program *program = user;
    bt_cpu_worker me = {.scratch = program->scratch + (size_t)worker * program->scratch_bytes,
                        .nonzeros = program->nonzeros};
    bt_launch_log *log = worker == 0 ? program->log : NULL;
    for (uint32_t step = 0; step < program->steps; step++)
        for (int i = 0; i < program->count; i++) {
            const task *at = &program->tasks[i];
            if (at->barrier && step + (uint32_t)i > 0) bt_pool_barrier(program->pool, worker);
            if (at->solo && worker > 0) continue;
            double start = log ? bt_seconds() : 0;
            me.index = worker;
            me.count = at->solo ? 1 : workers;
            me.packed = at->packed;
            at->fn(at->part, &me);
            if (log) log_task(log, at, start);
        }
}

// Packs weights that were written to since they were packed.
static void pack_weights(bt_device_program *program) {
    for (int i = 0; i < program->count; i++) {
        task *t = &program->tasks[i];
        if (!t->packed) continue;
        uint64_t version = bt_cpu_header_of(t->part[0].binding[1].buffer)->version;
        if (version != t->packed_version) t->pack(t->part, t->packed);
        t->packed_version = version;
    }
}

bt_status bt_cpu_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err) {
    (void)err;
    double start = bt_seconds();
    program->steps = steps;
    pack_weights(program);
    for (int i = 0; i < program->written_count; i++)
        bt_cpu_header_of(program->written[i])->version = ++dev->versions;
    if (program->all_solo) // nobody is woken for it
        walk(program, 0, 1);
    else
        bt_pool_run(dev->pool, walk, program);
    program->total += bt_seconds() - start;
    dev->counters.submissions++;
    dev->counters.launches += (uint64_t)program->launch_count * steps;
    return BT_OK;
}

// What a part of a group still reads and writes: not the values between the parts.
static double moved_bytes(const bt_launch *part) {
    static const unsigned char left_out[BT_KERNEL_COUNT] = {
        [BT_KERNEL_conv2d] = 1 << 3,
        [BT_KERNEL_max_pool] = 1 << 0,
        [BT_KERNEL_max_pool_grad] = 1 << 2,
        [BT_KERNEL_map] = 1 << 0 | 1 << 1 | 1 << 2,
        [BT_KERNEL_conv2d_grad_weight] = 1 << 0,
        [BT_KERNEL_conv2d_grad_input] = 1 << 0,
        [BT_KERNEL_reduce_sum] = 1 << 0,
    };
    double bytes = 0;
    for (int i = 0; i < part->binding_count; i++)
        if (!(left_out[part->kernel] >> i & 1) && part->binding[i].buffer)
            bytes += (double)part->binding[i].bytes;
    return bytes;
}

const char *bt_cpu_merged(const bt_device_program *program, int launch, int *into, double *bytes) {
    for (int t = 0; t < program->count; t++) {
        const task *at = &program->tasks[t];
        for (int i = 0; i < BT_CPU_PARTS_MAX; i++) {
            if (at->group.part[i] != launch) continue;
            *into = at->group.part[0];
            if (at->group.kind != BT_CPU_SINGLE) *bytes = moved_bytes(&at->part[i]);
            return at->name;
        }
    }
    return NULL;
}

void bt_cpu_times(bt_device *dev, const bt_device_program *program, double *seconds,
                  double *total) {
    (void)dev;
    for (int i = 0; i < program->launch_count; i++)
        seconds[i] = program->log ? program->log->seconds[i] : 0;
    *total = program->total;
}

const bt_launch_log *bt_cpu_log(const bt_device_program *program) {
    return program->log;
}
