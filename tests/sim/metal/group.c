// Runs the groups of a dispatch one after the other, the threads of a group as fibers that a
// barrier stops. What a kernel must not do ends the dispatch where it is.
//
// What a SIMD-group does together stops each of its threads until all have come. Meanwhile they
// have handed out what the others need, in slots that take turns: who writes into one again has met
// the others in between, so that they have read it.
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device/sim/fiber.h"

enum { STACK_BYTES = 64 << 10 };

typedef enum progress { NEW, READY, AT_BARRIER, IN_SIMD, DONE } progress;

typedef struct state {
    sim_thread thread;
    bt_fiber fiber;
    progress at;
    const char *file; // where it waits
    int line;
    sim_operation operation;    // that it waits in
    unsigned operations, trace; // it has taken part in: how many, and a hash of which
} state;

static struct {
    const sim_kernel *kernel;
    const sim_binding *bindings;
    unsigned count, now;
    unsigned started; // stacks in use
    bool failed;
    bool backward; // the last thread first
    state states[METAL_THREADS];
    bt_fiber home;
    char *stacks;
    unsigned slots[METAL_THREADS / METAL_SIMD][2][SIM_SLOT_WORDS];
} run;

// A sentence about the thread that runs.
static void broken(const char *file, int line, const char *what) {
    const sim_thread *t = &run.states[run.now].thread;
    char place[300] = "";
    if (file) snprintf(place, sizeof place, "%.256s:%d: ", file, line);
    metal_finding("%skernel %s, group (%u,%u,%u), thread %u: %s.", place, run.kernel->name,
                  t->group[0], t->group[1], t->group[2], t->index, what);
    run.failed = true;
}

// Leaves the thread, for good where `at` is DONE or something was found.
static void leave(progress at) {
    run.states[run.now].at = at;
    bt_fiber_switch(&run.states[run.now].fiber, &run.home);
}

// Metal Shading Language Specification, "Device Address Space": accesses beyond what is bound
// are undefined.
// (There is nothing sensible that such an access could give, so the thread goes no further.)
static void rule_inside_buffer(int index, unsigned long long at, unsigned long long count) {
    char what[200];
    const char *name = NULL;
    for (int i = 0; i < run.kernel->count; i++)
        if (run.kernel->arguments[i].index == index) name = run.kernel->arguments[i].name;
    if (name)
        snprintf(what, sizeof what, "element %lld of \"%s\", buffer %d, which has %llu, is touched",
                 (long long)at, name, index, count);
    else
        snprintf(what, sizeof what,
                 "element %lld of an array of the program, which has %llu, is "
                 "touched",
                 (long long)at, count);
    broken(NULL, 0, what);
    leave(DONE);
}

// The same, "Threadgroup Address Space" and "Thread Address Space": arrays of a group or a
// thread.
static void rule_inside_array(const char *file, unsigned line, unsigned long long at) {
    char what[100];
    snprintf(what, sizeof what, "index %lld is outside of an array", (long long)at);
    broken(file, (int)line, what);
    leave(DONE);
}

// What an operation of a SIMD-group says of itself.
static void misused(const char *file, int line, const char *what) {
    broken(file, line, what);
    leave(DONE);
}

// Metal Shading Language Specification, "Creating, Loading, and Storing Matrix Elements": from and
// to threadgroup memory, which ends somewhere.
static void rule_inside_group(const void *at, unsigned long long bytes, const char *file,
                              int line) {
    const char *first = at;
    if (first >= run.kernel->shared && first + bytes <= run.kernel->shared_end) return;
    misused(file, line, "reaches with a SIMD-group matrix outside of threadgroup memory");
}

static void wait_at(const char *file, int line, progress at) {
    run.states[run.now].file = file;
    run.states[run.now].line = line;
    leave(at);
}

static void barrier(const char *file, int line) {
    wait_at(file, line, AT_BARRIER);
}

// The SIMD-group that a thread belongs to, whose last one may be cut short.
static unsigned simd_begin(unsigned thread) {
    return thread / METAL_SIMD * METAL_SIMD;
}
static unsigned simd_end(unsigned thread) {
    unsigned end = simd_begin(thread) + METAL_SIMD;
    return end < run.count ? end : run.count;
}

static const char *const operation_names[SIM_OPERATIONS] = {[SIM_LOAD] = "simdgroup_load",
                                                            [SIM_STORE] = "simdgroup_store",
                                                            [SIM_MULTIPLY] = "simdgroup_multiply",
                                                            [SIM_BARRIER] = "simdgroup_barrier",
                                                            [SIM_SUM] = "simd_sum",
                                                            [SIM_MAX] = "simd_max",
                                                            [SIM_SHUFFLE_XOR] = "simd_shuffle_xor",
                                                            [SIM_BROADCAST] = "simd_broadcast"};

// Metal Shading Language Specification, "SIMD-group Matrix Data Types": "Operations on SIMD-group
// matrices are executed cooperatively by threads in the SIMD-group", so that all 32 must be there.
static void rule_simd_whole(sim_operation operation, unsigned lanes, const char *file, int line) {
    char what[120];
    if (operation > SIM_MULTIPLY || lanes == METAL_SIMD) return;
    snprintf(what, sizeof what, "calls %s in a SIMD-group of %u threads, not %d",
             operation_names[operation], lanes, METAL_SIMD);
    misused(file, line, what);
}

static sim_simd simd(sim_operation operation, const char *file, int line) {
    state *s = &run.states[run.now];
    unsigned begin = simd_begin(run.now), lanes = simd_end(run.now) - begin;
    rule_simd_whole(operation, lanes, file, line);
    s->file = file;
    s->line = line;
    s->operation = operation;
    s->trace = (s->trace * 31 + (unsigned)line) * 31 + (unsigned)operation;
    return (sim_simd){run.now - begin, lanes, run.slots[begin / METAL_SIMD][s->operations & 1]};
}

static void meet(void) {
    run.states[run.now].operations++;
    leave(IN_SIMD);
}

const sim_hooks metal_hooks = {
    barrier, rule_inside_buffer, rule_inside_array, simd, meet, rule_inside_group, misused};

static void entry(void) {
    run.kernel->run(&run.states[run.now].thread, run.bindings);
    for (;;) leave(DONE);
}

// Metal Shading Language Specification, "Threadgroup and SIMD-group Synchronization
// Functions": all threads of a group must reach the same barrier. (On Apple silicon one that has
// ended does not; on other GPUs it does.)
static void rule_barrier_met(void) {
    const state *first = &run.states[0];
    for (unsigned i = 1; i < run.count && !run.failed; i++) {
        const state *s = &run.states[i];
        if (s->at == first->at && (s->at == DONE || s->line == first->line)) continue;
        char what[200];
        run.now = s->at == AT_BARRIER ? i : 0;
        unsigned other = s->at == AT_BARRIER ? 0 : i;
        if (run.states[other].at == AT_BARRIER)
            snprintf(what, sizeof what, "waits at a barrier while thread %u waits at line %d",
                     other, run.states[other].line);
        else
            snprintf(what, sizeof what, "waits at a barrier that thread %u ended without", other);
        broken(run.states[run.now].file, run.states[run.now].line, what);
    }
}

// The thread that runs is in an operation, and `other` of its SIMD-group is not.
static void found_apart(unsigned other) {
    const state *s = &run.states[run.now], *o = &run.states[other];
    char what[200];
    const char *name = operation_names[s->operation];
    if (o->at == DONE)
        snprintf(what, sizeof what, "is in %s that thread %u ended without", name, other);
    else if (o->at == AT_BARRIER)
        snprintf(what, sizeof what, "is in %s while thread %u waits at a barrier, line %d", name,
                 other, o->line);
    else if (o->operation != s->operation || o->line != s->line)
        snprintf(what, sizeof what, "is in %s while thread %u is in %s, line %d", name, other,
                 operation_names[o->operation], o->line);
    else
        snprintf(what, sizeof what, "is in %s after other SIMD-group operations than thread %u",
                 name, other);
    broken(s->file, s->line, what);
}

// Metal Shading Language Specification, "SIMD-group Matrix Data Types": "all operations must be
// executed only under uniform control-flow within the SIMD-group"; "Threadgroup and SIMD-group
// Synchronization Functions": so must simdgroup_barrier. (The functions of "SIMD-group Functions"
// do with the active threads; nobody should count on which these are.) True: all are in one.
static bool rule_simd_together(unsigned begin, unsigned end) {
    unsigned in = end;
    for (unsigned i = end; i-- > begin;)
        if (run.states[i].at == IN_SIMD) in = i;
    const state *first = &run.states[in < end ? in : begin];
    for (unsigned i = begin; i < end; i++) {
        if (run.states[i].trace == first->trace && (in == end || run.states[i].at == IN_SIMD))
            continue;
        // Loads and stores do not wait: a barrier or the end may follow them.
        run.now = in < end || first->trace ? (unsigned)(first - run.states) : i;
        if (in < end)
            found_apart(i);
        else
            broken(run.states[run.now].file, run.states[run.now].line,
                   "took part in other SIMD-group operations than the others of its SIMD-group");
        return false;
    }
    return in < end;
}

static void begin_group(const unsigned at[3], const unsigned groups[3], const unsigned size[3]) {
    const uint32_t undefined = 0x7fc0dead; // threadgroup memory is, at first: a NaN, and far away
    for (char *c = run.kernel->shared; run.kernel->shared_end - c >= 4; c += 4)
        memcpy(c, &undefined, 4);
    run.started = 0;
    for (unsigned i = 0; i < run.count; i++)
        run.states[i] =
            (state){.thread = {.index = i,
                               .group = {at[0], at[1], at[2]},
                               .groups = {groups[0], groups[1], groups[2]},
                               .local = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]},
                               .size = {size[0], size[1], size[2]}}};
}

// Until it waits or ends. A thread that ends at once leaves its stack to the next one.
static void run_thread(void) {
    state *s = &run.states[run.now];
    bool is_new = s->at == NEW;
    if (is_new)
        bt_fiber_make(&s->fiber, run.stacks + (size_t)run.started * STACK_BYTES, STACK_BYTES,
                      entry);
    bt_fiber_switch(&run.home, &s->fiber);
    run.started += is_new && s->at != DONE;
}

// Until all its threads wait at a barrier or have ended.
static void run_simd(unsigned begin) {
    unsigned end = simd_end(begin);
    do {
        for (unsigned i = begin; i < end && !run.failed; i++) {
            run.now = run.backward ? begin + end - 1 - i : i;
            progress at = run.states[run.now].at;
            if (at == NEW || at == READY || at == IN_SIMD) run_thread();
        }
    } while (!run.failed && rule_simd_together(begin, end));
}

static void run_group(void) {
    unsigned last = simd_begin(run.count - 1);
    do {
        for (unsigned at = 0; at < run.count && !run.failed; at += METAL_SIMD)
            run_simd(run.backward ? last - at : at);
        if (!run.failed) rule_barrier_met();
        for (unsigned i = 0; i < run.count; i++)
            if (run.states[i].at == AT_BARRIER) run.states[i].at = READY;
    } while (!run.failed && run.states[0].at != DONE);
}

bool metal_run(const sim_kernel *kernel, const sim_binding *bindings, const unsigned groups[3],
               const unsigned threads[3]) {
    METAL_LOCKED;
    if (!run.stacks) {
        run.stacks = mmap(NULL, (size_t)METAL_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (run.stacks == MAP_FAILED) abort();
    }
    run.kernel = kernel;
    run.bindings = bindings;
    run.count = threads[0] * threads[1] * threads[2];
    run.failed = run.backward = false;
    unsigned at[3];
    for (at[2] = 0; at[2] < groups[2]; at[2]++)
        for (at[1] = 0; at[1] < groups[1]; at[1]++)
            for (at[0] = 0; at[0] < groups[0] && !run.failed; at[0]++) {
                begin_group(at, groups, threads);
                run_group();
                run.backward = !run.backward; // so that no order of threads can be counted on
            }
    return !run.failed;
}
