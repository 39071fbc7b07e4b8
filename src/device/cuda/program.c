// Programs: one whole-program kernel where there is one for the network, and otherwise the launches
// as graphs of 1, 8 and 64 steps, which are launched again and again.
#include "device/cuda/cuda_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/launch_log.h"
#include "base/threads.h"
#include "device/kernels.h"

enum {
    LEVELS = 3,
    TAPE_LAUNCHES = 4096, // at most in a graph of several steps, to bound its memory
};
static const uint32_t level_steps[LEVELS] = {1, 8, 64};

struct bt_device_program {
    bt_launch *launches;
    int count;
    bt_cuda_whole *whole; // NULL: the launches are run
    bt_cuda_node *nodes;
    int *first;      // node of each launch; first[count]: how many there are
    CUmodule module; // its portable kernels, compiled for it; NULL: those of the build
    CUgraphExec tapes[LEVELS];
    double total;

    bt_launch_log *log; // NULL: not timed
    CUevent *events;    // before and after each launch
    double sent;        // bt_seconds when the run began: where a trace puts its first event

    char note[512];
    bt_device_program *next; // of the device
};

// ---- Collecting what has been run -------------------------------------------------------------

static bt_status seconds_between(bt_device *dev, CUevent begin, CUevent end, double *seconds,
                                 bt_error *err) {
    float ms = 0;
    BT_TRY(bt_cuda_check(dev, bt_cu.cuEventSynchronize(end), "running kernels", err));
    BT_TRY(bt_cuda_check(dev, bt_cu.cuEventElapsedTime(&ms, begin, end), "reading its clock", err));
    *seconds += (double)ms * 1e-3;
    return BT_OK;
}

// Waits for the run of the slot, if there is one, and takes its time.
static bt_status collect(bt_device *dev, bt_cuda_slot *slot, bt_error *err) {
    bt_device_program *program = slot->program;
    slot->program = NULL;
    return program ? seconds_between(dev, slot->begin, slot->end, &program->total, err) : BT_OK;
}

bt_status bt_cuda_wait(bt_device *dev, bt_error *err) {
    BT_TRY(bt_cuda_enter(dev, err));
    for (int i = 0; i < BT_CUDA_IN_FLIGHT; i++) BT_TRY(collect(dev, &dev->slots[i], err));
    return bt_cuda_check(dev, bt_cu.cuStreamSynchronize(dev->stream), "running kernels", err);
}

// Of one step in the run that began with `begin`.
static bt_status collect_launches(bt_device *dev, bt_device_program *program, CUevent begin,
                                  bt_error *err) {
    for (int i = 0; i < program->count; i++) {
        double start = program->sent, seconds = 0;
        CUevent *events = &program->events[2 * i];
        BT_TRY(seconds_between(dev, begin, events[0], &start, err));
        BT_TRY(seconds_between(dev, events[0], events[1], &seconds, err));
        bt_launch_log_add(program->log, i, start, seconds);
    }
    return BT_OK;
}

// ---- Recording --------------------------------------------------------------------------------

static void drop_tapes(bt_device_program *program) {
    for (int i = 0; i < LEVELS; i++) {
        if (program->tapes[i]) bt_cu.cuGraphExecDestroy(program->tapes[i]);
        program->tapes[i] = NULL;
    }
}

static bool is_plain(const bt_device *dev) {
    return dev->no_overrides || dev->swaps > 0;
}

// Appends the nodes of a launch; there is room for BT_CUDA_NODES_MAX.
static bt_status resolve_launch(bt_device *dev, const bt_launch *launch, CUfunction special,
                                bt_cuda_node *nodes, int *count, bt_error *err) {
    *count = 1;
    if (!is_plain(dev)) {
        if (bt_cuda_gemm_expand(dev, launch, nodes, count, err)) return BT_OK;
        if (err->status != BT_OK) return err->status;
        *count = 1;
    }
    return bt_cuda_portable_node(dev, launch, special, nodes, err);
}

static bt_status resolve_launches(bt_device *dev, bt_device_program *program,
                                  const CUfunction *special, bt_error *err) {
    size_t room = 0;
    int used = 0, count;
    for (int i = 0; i < program->count; i++, used += count) {
        if (room < (size_t)used + BT_CUDA_NODES_MAX) {
            room = 2 * room + 4 * BT_CUDA_NODES_MAX;
            bt_cuda_node *more = reallocarray(program->nodes, room, sizeof *more);
            if (!more) return bt_fail_memory(err, "the kernels of a program", room * sizeof *more);
            program->nodes = more;
        }
        program->first[i] = used;
        BT_TRY(resolve_launch(dev, &program->launches[i], special[i], &program->nodes[used], &count,
                              err));
    }
    program->first[program->count] = used;
    return BT_OK;
}

// What takes its batches from a data set, and does something with them, is run many times.
static bool runs_often(const bt_device_program *program) {
    enum { FEW = 3 };
    for (int i = 0; i < program->count && program->count > FEW; i++)
        if (program->launches[i].kernel == BT_KERNEL_gather_batch) return true;
    return false;
}

static void drop_module(bt_device_program *program) {
    if (program->module) bt_cu.cuModuleUnload(program->module);
    program->module = NULL;
}

// Finds the kernels of the launches, when they are to run one by one.
static bt_status resolve(bt_device *dev, bt_device_program *program, bt_error *err) {
    char why[BT_WHY_BYTES] = "";
    BT_TRY(bt_cuda_wait(dev, err));
    drop_tapes(program);
    drop_module(program);
    CUfunction *special = calloc((size_t)program->count + 1, sizeof *special);
    if (!special) return bt_fail_memory(err, "the kernels of a program", sizeof *special);
    bt_status status = BT_OK;
    if (runs_often(program) && !dev->swaps)
        status = bt_cuda_special_make(dev, program->launches, program->count, &program->module,
                                      special, why, err);
    if (status == BT_OK) status = resolve_launches(dev, program, special, err);
    free(special);
    size_t used = strlen(program->note);
    if (why[0] && !strstr(program->note, why))
        snprintf(program->note + used, sizeof program->note - used,
                 "; shapes are read at run time: %s", why);
    used = strlen(program->note);
    if (dev->no_gemm[0] && !strstr(program->note, dev->no_gemm))
        snprintf(program->note + used, sizeof program->note - used,
                 "; large products by portable kernels: %s", dev->no_gemm);
    return status;
}

static bt_status record(bt_device *dev, bt_device_program *program, int level, bt_error *err) {
    bt_cuda_tape tape = {.nodes = program->nodes,
                         .first = program->first,
                         .launches = program->launches,
                         .count = program->count,
                         .events = program->events};
    return bt_cuda_record(dev, &tape, level_steps[level], &program->tapes[level], err);
}

// ---- Running ----------------------------------------------------------------------------------

static bool level_fits(const bt_device_program *program, int level) {
    return level == 0 ||
           (!program->log && (uint64_t)program->count * level_steps[level] <= TAPE_LAUNCHES);
}

static bt_status run_launches(bt_device *dev, bt_device_program *program, CUevent begin,
                              uint32_t steps, bt_error *err) {
    while (steps > 0) {
        int level = LEVELS - 1;
        while (level_steps[level] > steps || !level_fits(program, level)) level--;
        if (!program->tapes[level]) BT_TRY(record(dev, program, level, err));
        BT_TRY(bt_cuda_check(dev, bt_cu.cuGraphLaunch(program->tapes[level], dev->stream),
                             "launching a graph", err));
        if (program->log) BT_TRY(collect_launches(dev, program, begin, err));
        dev->counters.submissions++;
        dev->counters.launches += (uint64_t)level_steps[level] * (uint32_t)program->count;
        steps -= level_steps[level];
    }
    return BT_OK;
}

bt_status bt_cuda_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err) {
    BT_TRY(bt_cuda_enter(dev, err));
    if (program->count == 0 || steps == 0) return BT_OK;
    bt_cuda_slot *slot = &dev->slots[dev->next_slot++ % BT_CUDA_IN_FLIGHT];
    BT_TRY(collect(dev, slot, err));
    BT_TRY(bt_cuda_check(dev, bt_cu.cuEventRecord(slot->begin, dev->stream), "sending work", err));
    program->sent = bt_seconds();
    BT_TRY(program->whole ? bt_cuda_whole_run(dev, program->whole, steps, err)
                          : run_launches(dev, program, slot->begin, steps, err));
    BT_TRY(bt_cuda_check(dev, bt_cu.cuEventRecord(slot->end, dev->stream), "sending work", err));
    slot->program = program;
    return BT_OK;
}

void bt_cuda_times(bt_device *dev, const bt_device_program *program, double *seconds,
                   double *total) {
    bt_error ignored = {0}; // what a lost device did not tell is not counted
    (void)bt_cuda_wait(dev, &ignored);
    for (int i = 0; i < program->count; i++)
        seconds[i] = program->log ? program->log->seconds[i] : 0;
    *total = program->total;
}

const bt_launch_log *bt_cuda_log(const bt_device_program *program) {
    return program->log;
}

const char *bt_cuda_note(const bt_device_program *program) {
    return program->note;
}

const bt_whole_plan *bt_cuda_plan(const bt_device_program *program) {
    return program->whole ? &program->whole->plan : NULL;
}

// ---- Making -----------------------------------------------------------------------------------

void bt_cuda_program_done(bt_device *dev, bt_device_program *program) {
    bt_error ignored = {0};
    if (!program) return;
    (void)bt_cuda_wait(dev, &ignored);
    for (int i = 0; i < BT_CUDA_IN_FLIGHT; i++) // on a lost device nothing was collected
        if (dev->slots[i].program == program) dev->slots[i].program = NULL;
    for (bt_device_program **at = &dev->programs; *at; at = &(*at)->next)
        if (*at == program) {
            *at = program->next;
            break;
        }
    drop_tapes(program);
    drop_module(program);
    bt_cuda_whole_free(dev, program->whole);
    for (int i = 0; program->events && i < 2 * program->count; i++)
        if (program->events[i]) bt_cu.cuEventDestroy(program->events[i]);
    free(program->launches);
    free(program->nodes);
    free(program->first);
    bt_launch_log_free(program->log);
    free(program->events);
    free(program);
}

static bt_status make_timed(bt_device *dev, bt_device_program *program, bt_error *err) {
    size_t count = (size_t)program->count;
    BT_TRY(bt_launch_log_make(program->count, err, &program->log));
    program->events = calloc(2 * count + 1, sizeof(CUevent));
    if (!program->events)
        return bt_fail_memory(err, "the times of a program", 2 * count * sizeof(CUevent));
    for (size_t i = 0; i < 2 * count; i++)
        BT_TRY(bt_cuda_check(dev, bt_cu.cuEventCreate(&program->events[i], 0), "making an event",
                             err));
    return BT_OK;
}

// Chooses how to run it: by one kernel, or launch by launch.
static bt_status choose(bt_device *dev, bt_device_program *program, const bt_program_use *use,
                        bt_error *err) {
    char why[BT_WHY_BYTES] = "";
    if (is_plain(dev))
        snprintf(why, sizeof why,
                 dev->no_overrides ? "portable kernels were asked for" : "kernels were exchanged");
    else if (use->timed)
        snprintf(why, sizeof why, "every launch is timed");
    else
        BT_TRY(bt_cuda_whole_make(dev, program->launches, program->count, use, &program->whole, why,
                                  err));
    if (program->whole) {
        snprintf(program->note, sizeof program->note, "%s%s", program->whole->plan.text,
                 program->whole->ahead ? ", compiled ahead" : "");
        return BT_OK;
    }
    snprintf(program->note, sizeof program->note,
             "%d launches as a graph; no whole-program kernel: %s", program->count, why);
    return resolve(dev, program, err);
}

static bt_status make(bt_device *dev, bt_device_program *program, const bt_launch *launches,
                      const bt_program_use *use, bt_error *err) {
    size_t count = (size_t)program->count;
    program->launches = calloc(count + 1, sizeof *program->launches);
    program->first = calloc(count + 1, sizeof *program->first);
    if (!program->launches || !program->first)
        return bt_fail_memory(err, "a program", count * sizeof *launches);
    if (count > 0) memcpy(program->launches, launches, count * sizeof *launches);
    BT_TRY(bt_cuda_enter(dev, err));
    if (use->timed) BT_TRY(make_timed(dev, program, err));
    return choose(dev, program, use, err);
}

bt_status bt_cuda_program_init(bt_device *dev, const bt_launch *launches, int count,
                               const bt_program_use *use, bt_error *err, bt_device_program **out) {
    *out = NULL;
    bt_device_program *program = calloc(1, sizeof *program);
    if (!program) return bt_fail_memory(err, "a program", sizeof *program);
    program->count = count;
    bt_status status = make(dev, program, launches, use, err);
    if (status != BT_OK) {
        bt_cuda_program_done(dev, program);
        return status;
    }
    program->next = dev->programs;
    dev->programs = program;
    *out = program;
    return BT_OK;
}

// After a swap every program runs launch by launch: a whole-program kernel would not show it.
bt_status bt_cuda_resolve_all(bt_device *dev, bt_error *err) {
    for (bt_device_program *at = dev->programs; at; at = at->next) {
        snprintf(at->note, sizeof at->note, "%d launches as a graph: kernels were exchanged",
                 at->count);
        BT_TRY(resolve(dev, at, err));
        bt_cuda_whole_free(dev, at->whole);
        at->whole = NULL;
    }
    return BT_OK;
}
