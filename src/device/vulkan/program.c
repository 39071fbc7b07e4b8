// Programs: a step is recorded in tapes of 1, 16 and 256 steps, which are sent again and again. A
// submission is as many tapes as the device runs in SUBMIT_SECONDS: few submissions, and none that
// a driver's watchdog kills.
#include "device/vulkan/vulkan_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/launch_log.h"
#include "base/threads.h"
#include "device/depend.h"
#include "device/kernels.h"

enum {
    LEVELS = 3,
    SUBMIT_STEPS = 4096,   // at most, however short they are
    SUBMIT_TAPES = 64,     // at most
    TAPE_LAUNCHES = 16384, // at most in a tape of several steps, to bound its memory
};
#define SUBMIT_SECONDS 0.25

static const uint32_t level_steps[LEVELS] = {1, 16, 256};

typedef struct vk_launch {
    VkPipeline pipeline;
    uint32_t grid[3];
} vk_launch;

struct bt_device_program {
    bt_launch *launches;
    vk_launch *resolved; // of each launch
    bool *barrier;       // before each launch
    int count;
    uint64_t generation; // of the kernels that were resolved
    VkCommandBuffer tapes[LEVELS];
    double step_seconds; // of the latest submission; 0: not known
    uint64_t last_end;   // time stamp
    double total;

    bt_launch_log *log; // NULL: not timed
    VkQueryPool queries;
    uint64_t *stamps;

    bt_device_program *next; // of the device
};

// A timed program has two queries for each launch of a tape, and so one tape in a submission; as
// that is for profiling, it has no long tapes.
static bool level_fits(const bt_device_program *program, int level) {
    return level == 0 || ((uint64_t)program->count * level_steps[level] <= TAPE_LAUNCHES &&
                          !(program->log && level > 1));
}

// ---- Collecting what has been run -------------------------------------------------------------

static double seconds_between(const bt_device *dev, uint64_t begin, uint64_t end) {
    return (double)((end - begin) & dev->gpu.timestamp_mask) *
           (double)dev->gpu.properties.limits.timestampPeriod * 1e-9;
}

static bt_status get_stamps(bt_device *dev, VkQueryPool pool, uint32_t first, uint32_t count,
                            uint64_t *out, bt_error *err) {
    VkResult result =
        bt_vk.GetQueryPoolResults(dev->handle, pool, first, count, count * sizeof *out, out,
                                  sizeof *out, VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT);
    return bt_vk_check(dev, result, "reading its clock", err);
}

// `begin`: the device's clock when the submission began.
static bt_status collect_launches(bt_device *dev, bt_device_program *program,
                                  const bt_vk_slot *slot, uint64_t begin, bt_error *err) {
    uint32_t count = (uint32_t)program->count, launches = slot->steps * count;
    BT_TRY(get_stamps(dev, program->queries, 0, 2 * launches, program->stamps, err));
    for (uint32_t i = 0; i < launches; i++)
        bt_launch_log_add(program->log, (int)(i % count),
                          slot->sent + seconds_between(dev, begin, program->stamps[2 * i]),
                          seconds_between(dev, program->stamps[2 * i], program->stamps[2 * i + 1]));
    return BT_OK;
}

// Waits for what was sent in the slot, if anything, and takes its times.
static bt_status collect(bt_device *dev, bt_vk_slot *slot, bt_error *err) {
    bt_device_program *program = slot->program;
    uint64_t stamps[2];
    if (!program) return BT_OK;
    BT_TRY(bt_vk_wait_for(dev, slot->value, err));
    slot->program = NULL;
    BT_TRY(get_stamps(dev, dev->clock, (uint32_t)(slot - dev->slots) * 2, 2, stamps, err));
    double busy = seconds_between(dev, stamps[0], stamps[1]);
    program->total += slot->first ? busy : seconds_between(dev, program->last_end, stamps[1]);
    program->last_end = stamps[1];
    program->step_seconds = busy > 0 ? busy / slot->steps : 1e-9; // known, however short
    return program->log ? collect_launches(dev, program, slot, stamps[0], err) : BT_OK;
}

bt_status bt_vk_wait(bt_device *dev, bt_error *err) {
    for (uint32_t i = 0; i < BT_VK_IN_FLIGHT; i++) // the oldest first
        BT_TRY(collect(dev, &dev->slots[(dev->next_slot + i) % BT_VK_IN_FLIGHT], err));
    return bt_vk_wait_for(dev, dev->submitted, err);
}

// ---- Recording --------------------------------------------------------------------------------

static void push_constants(const bt_device *dev, VkCommandBuffer commands,
                           const bt_launch *launch) {
    struct {
        VkDeviceAddress address[BT_BINDINGS_MAX];
        unsigned char room[BT_SCALAR_BYTES_MAX];
    } push = {0};
    uint32_t scalars = bt_kernel_table[launch->kernel].scalar_bytes;
    uint32_t head = launch->binding_count * (uint32_t)sizeof *push.address;
    for (int i = 0; i < launch->binding_count; i++) {
        const bt_binding *binding = &launch->binding[i];
        if (!binding->buffer) continue;
        const bt_vk_range *range = binding->buffer->handle;
        push.address[i] = range->block->address + range->offset + binding->offset;
    }
    memcpy((unsigned char *)&push + head, launch->scalars, scalars);
    bt_vk.CmdPushConstants(commands, dev->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, head + scalars,
                           &push);
}

// Two barriers enclose a launch that is timed, so that it runs alone.
static void record_step(const bt_device *dev, const bt_device_program *program,
                        VkCommandBuffer commands, uint32_t query) {
    const VkPipelineStageFlagBits done = VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT;
    bool timed = program->log;
    for (int i = 0; i < program->count; i++, query += 2) {
        const vk_launch *at = &program->resolved[i];
        if (timed || program->barrier[i]) bt_vk_barrier(commands, false);
        if (timed) bt_vk.CmdWriteTimestamp(commands, done, program->queries, query);
        if (i == 0 || at->pipeline != at[-1].pipeline)
            bt_vk.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, at->pipeline);
        push_constants(dev, commands, &program->launches[i]);
        bt_vk.CmdDispatch(commands, at->grid[0], at->grid[1], at->grid[2]);
        if (timed) bt_vk.CmdWriteTimestamp(commands, done, program->queries, query + 1);
    }
}

static bt_status record(bt_device *dev, bt_device_program *program, int level, bt_error *err) {
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    VkCommandBuffer tape;
    BT_TRY(bt_vk_commands(dev, &tape, err));
    bt_status status = bt_vk_check(dev, bt_vk.BeginCommandBuffer(tape, &begin), "recording", err);
    if (status == BT_OK) {
        for (uint32_t i = 0; i < level_steps[level]; i++)
            record_step(dev, program, tape, i * 2 * (uint32_t)program->count);
        status = bt_vk_check(dev, bt_vk.EndCommandBuffer(tape), "recording", err);
    }
    if (status != BT_OK) {
        bt_vk.FreeCommandBuffers(dev->handle, dev->commands, 1, &tape);
        return status;
    }
    program->tapes[level] = tape;
    return BT_OK;
}

static void drop_tapes(bt_device *dev, bt_device_program *program) {
    for (int i = 0; i < LEVELS; i++) {
        if (!program->tapes[i]) continue;
        bt_vk.FreeCommandBuffers(dev->handle, dev->commands, 1, &program->tapes[i]);
        program->tapes[i] = VK_NULL_HANDLE;
    }
}

// Finds the kernels of the launches, now and after each swap of a kernel.
static bt_status resolve(bt_device *dev, bt_device_program *program, bt_error *err) {
    BT_TRY(bt_vk_wait(dev, err));
    drop_tapes(dev, program);
    for (int i = 0; i < program->count; i++) {
        vk_launch *at = &program->resolved[i];
        int portable;
        BT_TRY(bt_portable_pick(dev->table, bt_portable_count, &program->launches[i], at->grid, err,
                                &portable));
        BT_TRY(bt_vk_pipeline_for(dev, &program->launches[i], portable, &at->pipeline, err));
    }
    program->step_seconds = 0;
    program->generation = dev->generation;
    return BT_OK;
}

bt_status bt_vk_resolve_all(bt_device *dev, bt_error *err) {
    for (bt_device_program *at = dev->programs; at; at = at->next) BT_TRY(resolve(dev, at, err));
    return BT_OK;
}

// ---- Running ----------------------------------------------------------------------------------

// Fills a submission with tapes of at most `steps` steps; returns how many these are, through
// *chosen.
static bt_status choose_tapes(bt_device *dev, bt_device_program *program, uint32_t steps,
                              VkCommandBuffer *commands, uint32_t *count, uint32_t *chosen,
                              bt_error *err) {
    double limit = program->step_seconds > 0 ? SUBMIT_SECONDS / program->step_seconds : 1;
    if (limit > SUBMIT_STEPS) limit = SUBMIT_STEPS;
    if (steps > limit) steps = limit < 1 ? 1 : (uint32_t)limit;
    uint32_t room = program->log ? 1 : SUBMIT_TAPES;
    for (*chosen = 0; *chosen < steps && room > 0; room--) {
        int level = LEVELS - 1;
        while (level_steps[level] > steps - *chosen || !level_fits(program, level)) level--;
        if (!program->tapes[level]) BT_TRY(record(dev, program, level, err));
        commands[(*count)++] = program->tapes[level];
        *chosen += level_steps[level];
    }
    return BT_OK;
}

// Sends one submission of at most `steps` steps; *sent: of how many.
static bt_status send(bt_device *dev, bt_device_program *program, uint32_t steps, bool first,
                      uint32_t *sent, bt_error *err) {
    uint32_t index = dev->next_slot % BT_VK_IN_FLIGHT, count = 0;
    bt_vk_slot *slot = &dev->slots[index];
    VkCommandBuffer commands[SUBMIT_TAPES + 2];
    BT_TRY(collect(dev, slot, err));
    commands[count++] = slot->begin;
    BT_TRY(choose_tapes(dev, program, steps, commands, &count, sent, err));
    commands[count++] = slot->end;
    bt_vk.ResetQueryPool(dev->handle, dev->clock, 2 * index, 2);
    if (program->log)
        bt_vk.ResetQueryPool(dev->handle, program->queries, 0,
                             2 * *sent * (uint32_t)program->count);
    slot->sent = bt_seconds();
    BT_TRY(bt_vk_submit(dev, commands, count, err));
    slot->program = program;
    slot->value = dev->submitted;
    slot->steps = *sent;
    slot->first = first;
    dev->next_slot++;
    dev->counters.launches += (uint64_t)*sent * (uint32_t)program->count;
    // The next submission needs to know how long a step takes, or the queries of a timed program.
    bool wait = program->step_seconds <= 0 || program->log;
    return wait ? collect(dev, slot, err) : BT_OK;
}

bt_status bt_vk_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err) {
    BT_TRY(bt_vk_alive(dev, err));
    if (program->count == 0) return BT_OK;
    if (program->generation != dev->generation) BT_TRY(resolve(dev, program, err));
    for (uint32_t sent, done = 0; done < steps; done += sent)
        BT_TRY(send(dev, program, steps - done, done == 0, &sent, err));
    return BT_OK;
}

void bt_vk_times(bt_device *dev, const bt_device_program *program, double *seconds, double *total) {
    bt_error ignored = {0}; // what a lost device did not tell is not counted
    (void)bt_vk_wait(dev, &ignored);
    for (int i = 0; i < program->count; i++)
        seconds[i] = program->log ? program->log->seconds[i] : 0;
    *total = program->total;
}

const bt_launch_log *bt_vk_log(const bt_device_program *program) {
    return program->log;
}

// ---- Making -----------------------------------------------------------------------------------

void bt_vk_program_done(bt_device *dev, bt_device_program *program) {
    bt_error ignored = {0};
    if (!program) return;
    (void)bt_vk_wait(dev, &ignored);
    for (int i = 0; i < BT_VK_IN_FLIGHT; i++) // on a lost device nothing was collected
        if (dev->slots[i].program == program) dev->slots[i].program = NULL;
    for (bt_device_program **at = &dev->programs; *at; at = &(*at)->next)
        if (*at == program) {
            *at = program->next;
            break;
        }
    drop_tapes(dev, program);
    bt_vk.DestroyQueryPool(dev->handle, program->queries, NULL);
    free(program->launches);
    free(program->resolved);
    free(program->barrier);
    bt_launch_log_free(program->log);
    free(program->stamps);
    free(program);
}

static bt_status make_timed(bt_device *dev, bt_device_program *program, bt_error *err) {
    size_t count = (size_t)program->count;
    BT_TRY(bt_launch_log_make(program->count, err, &program->log));
    size_t queries = 2 * count * level_steps[level_fits(program, 1)];
    program->stamps = calloc(queries + 1, sizeof *program->stamps);
    if (!program->stamps) return bt_fail_memory(err, "the times of a program", queries);
    VkQueryPoolCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
        .queryType = VK_QUERY_TYPE_TIMESTAMP,
        .queryCount = (uint32_t)queries + 1,
    };
    return bt_vk_check(dev, bt_vk.CreateQueryPool(dev->handle, &info, NULL, &program->queries),
                       "making a query pool", err);
}

static bt_status make(bt_device *dev, bt_device_program *program, const bt_launch *launches,
                      bool timed, bt_error *err) {
    size_t count = (size_t)program->count;
    program->launches = calloc(count + 1, sizeof *program->launches);
    program->resolved = calloc(count + 1, sizeof *program->resolved);
    program->barrier = calloc(count + 1, sizeof *program->barrier);
    if (!program->launches || !program->resolved || !program->barrier)
        return bt_fail_memory(err, "a program", count * sizeof *launches);
    if (count > 0) memcpy(program->launches, launches, count * sizeof *launches);
    bt_place_barriers(program->launches, program->count, NULL, NULL, program->barrier);
    if (timed) BT_TRY(make_timed(dev, program, err));
    return resolve(dev, program, err);
}

bt_status bt_vk_program_init(bt_device *dev, const bt_launch *launches, int count,
                             const bt_program_use *use, bt_error *err, bt_device_program **out) {
    *out = NULL;
    bt_device_program *program = calloc(1, sizeof *program);
    if (!program) return bt_fail_memory(err, "a program", sizeof *program);
    program->count = count;
    bt_status status = make(dev, program, launches, use->timed, err);
    if (status != BT_OK) {
        bt_vk_program_done(dev, program);
        return status;
    }
    program->next = dev->programs;
    dev->programs = program;
    *out = program;
    return BT_OK;
}
