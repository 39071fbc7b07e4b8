// Runs the groups of a dispatch one after the other, the threads of a group as fibers that a
// barrier stops. What a kernel must not do ends the dispatch where it is.
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device/sim/fiber.h"

enum { STACK_BYTES = 64 << 10 };

static struct {
    const sim_kernel *kernel;
    const metal_program *program;
    const sim_binding *bindings;
    unsigned count, now;
    bool failed;
    sim_thread threads[METAL_THREADS];
    const char *file[METAL_THREADS]; // of the barrier where a thread waits
    int line[METAL_THREADS];         // 0: the thread is done
    bt_fiber fibers[METAL_THREADS], home;
    char *stacks;
} run;

// A sentence about the thread that runs.
static void broken(const char *file, int line, const char *what) {
    const sim_thread *t = &run.threads[run.now];
    char place[300] = "";
    if (file) snprintf(place, sizeof place, "%.256s:%d: ", file, line);
    metal_finding("%skernel %s, group (%u,%u,%u), thread %u: %s.", place, run.kernel->name,
                  t->group[0], t->group[1], t->group[2], t->index, what);
    run.failed = true;
}

// Leaves the thread for good: nobody goes on with it.
static void give_up(void) {
    bt_fiber_switch(&run.fibers[run.now], &run.home);
}

// Metal Shading Language Specification, "Device Address Space": accesses beyond what is bound
// are undefined.
// (There is nothing sensible that such an access could give, so the thread goes no further.)
static void rule_inside_buffer(int index, unsigned long long at, unsigned long long count) {
    char what[200];
    const char *name = "?";
    for (int i = 0; i < run.kernel->count; i++)
        if (run.kernel->arguments[i].index == index) name = run.kernel->arguments[i].name;
    snprintf(what, sizeof what, "element %lld of \"%s\", buffer %d, which has %llu, is touched",
             (long long)at, name, index, count);
    broken(NULL, 0, what);
    give_up();
}

// The same, "Threadgroup Address Space" and "Thread Address Space": arrays of a group or a
// thread.
static void rule_inside_array(const char *file, unsigned line, unsigned long long at) {
    char what[100];
    snprintf(what, sizeof what, "index %lld is outside of an array", (long long)at);
    broken(file, (int)line, what);
    give_up();
}

static void barrier(const char *file, int line) {
    run.file[run.now] = file;
    run.line[run.now] = line;
    bt_fiber_switch(&run.fibers[run.now], &run.home);
}

const sim_hooks metal_hooks = {barrier, rule_inside_buffer, rule_inside_array};

static void entry(void) {
    run.line[run.now] = 0;
    run.kernel->run(&run.threads[run.now], run.bindings);
    run.line[run.now] = 0;
    for (;;) give_up();
}

// Metal Shading Language Specification, "Threadgroup and SIMD-group Synchronization
// Functions": all threads of a group must reach the same barrier.
static void rule_barrier_met(void) {
    for (unsigned i = 1; i < run.count && !run.failed; i++) {
        if (run.line[i] == run.line[0]) continue;
        char what[200];
        run.now = run.line[i] ? i : 0;
        unsigned other = run.line[i] ? 0 : i;
        if (run.line[other])
            snprintf(what, sizeof what, "waits at a barrier while thread %u waits at line %d",
                     other, run.line[other]);
        else
            snprintf(what, sizeof what, "waits at a barrier that thread %u ended without", other);
        broken(run.file[run.now], run.line[run.now], what);
    }
}

static void begin_group(const unsigned at[3], const unsigned groups[3], const unsigned size[3]) {
    const uint32_t undefined = 0x7fc0dead; // threadgroup memory is, at first: a NaN, and far away
    for (size_t i = 0; i + 4 <= run.program->shared_bytes; i += 4)
        memcpy(run.program->shared + i, &undefined, 4);
    for (unsigned i = 0; i < run.count; i++)
        run.threads[i] =
            (sim_thread){.index = i,
                         .group = {at[0], at[1], at[2]},
                         .groups = {groups[0], groups[1], groups[2]},
                         .local = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]},
                         .size = {size[0], size[1], size[2]}};
}

// A thread that ends without a barrier leaves its stack to the next one.
static void run_group(void) {
    unsigned waiting = 0;
    for (run.now = 0; run.now < run.count && !run.failed; run.now++) {
        bt_fiber_make(&run.fibers[run.now], run.stacks + (size_t)waiting * STACK_BYTES, STACK_BYTES,
                      entry);
        bt_fiber_switch(&run.home, &run.fibers[run.now]);
        waiting += run.line[run.now] != 0;
    }
    if (!run.failed) rule_barrier_met();
    while (!run.failed && run.line[0]) {
        for (run.now = 0; run.now < run.count && !run.failed; run.now++)
            bt_fiber_switch(&run.home, &run.fibers[run.now]);
        if (!run.failed) rule_barrier_met();
    }
}

bool metal_run(const sim_kernel *kernel, const metal_program *program, const sim_binding *bindings,
               const unsigned groups[3], const unsigned threads[3]) {
    METAL_LOCKED;
    if (!run.stacks) {
        run.stacks = mmap(NULL, (size_t)METAL_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (run.stacks == MAP_FAILED) abort();
    }
    run.kernel = kernel;
    run.program = program;
    run.bindings = bindings;
    run.count = threads[0] * threads[1] * threads[2];
    run.failed = false;
    unsigned at[3];
    for (at[2] = 0; at[2] < groups[2]; at[2]++)
        for (at[1] = 0; at[1] < groups[1]; at[1]++)
            for (at[0] = 0; at[0] < groups[0] && !run.failed; at[0]++) {
                begin_group(at, groups, threads);
                run_group();
            }
    return !run.failed;
}
