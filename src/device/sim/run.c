// See run.h. What a thread reads and writes is told apart without its help: the first touch of a
// word after a barrier notes the old value, and when the thread stops, at the next barrier or at
// its end, a word that changed was written, and the others were read. So a race is found even
// though the threads run one after the other; a write of the value that was there already is taken
// for a read.
#include "device/sim/run.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "device/sim/fiber.h"

enum { STACK_BYTES = 64 << 10, SHARED_WORDS = BT_GROUP_SHARED_BYTES_MAX / 4 };

static const uint32_t unwritten_out = 0xfff8dead; // a NaN that nothing computes

// A word that the running thread touched since its last barrier.
typedef struct touch {
    bt_sim_mark *mark;
    const void *word;
    const char *file;
    uint32_t old;
    int line, binding; // -1: shared memory
} touch;

struct bt_sim {
    bt_sim_group group;
    bt_sim_thread threads[BT_GROUP_THREADS_MAX];
    bt_fiber fibers[BT_GROUP_THREADS_MAX], home;
    int waits_at[BT_GROUP_THREADS_MAX]; // line of a barrier; 0: the thread is done
    uint32_t thread_count, now;         // the thread that runs
    const bt_sim_kernel *kernel;
    const bt_portable *portable;
    bt_error *err;
    char *stacks; // NULL until a kernel has a barrier
    touch *touches;
    size_t touch_count, touch_capacity;
    bt_sim_mark *marks; // of all written bindings
    size_t mark_capacity;
    bt_sim_mark shared_marks[SHARED_WORDS];
    _Alignas(64) unsigned char shared[BT_GROUP_SHARED_BYTES_MAX];
    _Alignas(16) unsigned char nowhere[16]; // what a wrong index reads and writes
};

static _Thread_local bt_sim *running;

// ---- Reports ---------------------------------------------------------------------------------

static void report(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void report(const char *file, int line, const char *format, ...) {
    char what[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const bt_sim_thread *t = &running->threads[running->now];
    (void)bt_fail(running->err, BT_ERROR_INTERNAL,
                  "%s:%d: kernel %s, group (%u,%u,%u), thread %u: %s", file, line,
                  running->portable->name, t->gx, t->gy, t->gz, t->lid, what);
}

uint32_t bt_sim_bad_index(uint32_t index, uint32_t size, const char *file, int line) {
    report(file, line, "index %u of an array of %u", index, size);
    return 0;
}

void *bt_sim_bad_place(int binding, uint32_t index, const char *file, int line) {
    report(file, line, "index %u of binding %d (%u elements)", index, binding,
           running->group.binding[binding].count);
    memset(running->nowhere, 0, sizeof running->nowhere);
    return running->nowhere;
}

// ---- Races -----------------------------------------------------------------------------------

static uint32_t word_value(const void *word) {
    uint32_t value;
    memcpy(&value, word, 4);
    return value;
}

void bt_sim_touch(bt_sim_mark *mark, int binding, void *word, const char *file, int line) {
    bt_sim *sim = running;
    if (sim->touch_count == sim->touch_capacity) {
        size_t capacity = sim->touch_capacity ? 2 * sim->touch_capacity : 1024, bytes;
        touch *grown =
            bt_mul_ok(capacity, sizeof *grown, &bytes) ? realloc(sim->touches, bytes) : NULL;
        if (!grown) {
            (void)bt_fail_memory(sim->err, "the list of what a thread touched", capacity);
            return;
        }
        sim->touches = grown;
        sim->touch_capacity = capacity;
    }
    mark->toucher = sim->threads[sim->now].moment;
    sim->touches[sim->touch_count++] = (touch){mark, word, file, word_value(word), line, binding};
}

static uint64_t group_of(uint64_t moment) {
    return moment >> 32;
}

static uint32_t thread_of(uint64_t moment) {
    return moment & 255;
}

static bool same_epoch(uint64_t a, uint64_t b) {
    return a >> 8 == b >> 8;
}

static bool same_thread(uint64_t a, uint64_t b) {
    return group_of(a) == group_of(b) && thread_of(a) == thread_of(b);
}

// Is what was done at moment `before` not ordered before what happens at `now`? A barrier orders
// the shared memory of its group, and execution, so that a read is over before a later write; but
// what one thread writes to a buffer no other sees before the next launch.
static bool races(uint64_t before, uint64_t now, bool shared, bool was_write) {
    if (!before || same_thread(before, now)) return false;
    if (shared) return same_epoch(before, now);
    return was_write || group_of(before) != group_of(now) || same_epoch(before, now);
}

static void report_race(const touch *at, uint64_t before, bool writes, bool wrote) {
    char place[64] = "a word of shared memory", where[64] = "";
    if (at->binding >= 0) {
        const bt_sim_binding *b = &running->group.binding[at->binding];
        snprintf(place, sizeof place, "element %zu of binding %d",
                 (size_t)((const unsigned char *)at->word - b->data) / 4, at->binding);
        uint64_t mine = running->threads[running->now].moment;
        if (group_of(before) != group_of(mine))
            snprintf(where, sizeof where, " of group number %u", (unsigned)group_of(before));
    }
    report(at->file, at->line, "%s %s that thread %u%s %s%s", writes ? "writes" : "reads", place,
           thread_of(before), where, wrote ? "wrote" : "read",
           at->binding < 0 ? " since the last barrier" : " in the same launch");
}

static void settle_write(const touch *at, uint64_t now) {
    bt_sim_mark *mark = at->mark;
    bool shared = at->binding < 0;
    if (races(mark->writer, now, shared, true))
        report_race(at, mark->writer, true, true);
    else if (races(mark->reader, now, shared, false))
        report_race(at, mark->reader, true, false);
    else if (races(mark->other, now, shared, false))
        report_race(at, mark->other, true, false);
    mark->writer = now;
}

static void settle_read(const touch *at, uint64_t now) {
    bt_sim_mark *mark = at->mark;
    if (races(mark->writer, now, at->binding < 0, true))
        report_race(at, mark->writer, false, true);
    else if (at->binding < 0
                 ? at->old == BT_SIM_UNWRITTEN
                 : at->old == unwritten_out && running->group.binding[at->binding].mode == 'w')
        report(at->file, at->line, "reads what no thread wrote");
    if (!same_thread(mark->reader, now)) mark->other = mark->reader;
    mark->reader = now;
}

// The running thread has come to a barrier or to its end.
static void settle(bt_sim *sim) {
    uint64_t now = sim->threads[sim->now].moment;
    for (size_t i = 0; i < sim->touch_count; i++) {
        const touch *at = &sim->touches[i];
        if (word_value(at->word) != at->old)
            settle_write(at, now);
        else
            settle_read(at, now);
    }
    sim->touch_count = 0;
}

// ---- Groups ----------------------------------------------------------------------------------

static void thread_begin(void) {
    bt_sim *sim = running;
    uint32_t me = sim->now;
    sim->kernel->thread(&sim->threads[me]);
    sim->waits_at[me] = 0;
    bt_fiber_switch(&sim->fibers[me], &sim->home);
}

void bt_sim_barrier(const char *file, int line) {
    (void)file;
    bt_sim *sim = running;
    sim->waits_at[sim->now] = line;
    bt_fiber_switch(&sim->fibers[sim->now], &sim->home);
}

// After every thread has stopped: have all come to the same place?
static void check_meeting(bt_sim *sim) {
    int first = sim->waits_at[0];
    for (uint32_t i = 1; i < sim->thread_count; i++) {
        int line = sim->waits_at[i];
        if (line == first) continue;
        sim->now = i;
        if (line && first)
            report(sim->portable->file, line,
                   "waits at this barrier, while thread 0 waits at that of line %d", first);
        else
            report(sim->portable->file, line + first, "%s, while thread 0 %s",
                   line ? "waits at this barrier" : "has ended",
                   line ? "has ended" : "waits at this barrier");
        return;
    }
}

static void run_with_barriers(bt_sim *sim, uint64_t group) {
    for (uint32_t i = 0; i < sim->thread_count; i++)
        bt_fiber_make(&sim->fibers[i], sim->stacks + (size_t)i * STACK_BYTES, STACK_BYTES,
                      thread_begin);
    uint64_t epoch = 0;
    do {
        epoch++;
        for (uint32_t i = 0; i < sim->thread_count && sim->err->status == BT_OK; i++) {
            sim->now = i;
            sim->threads[i].moment = group << 32 | (epoch & 0xffffff) << 8 | i;
            bt_fiber_switch(&sim->home, &sim->fibers[i]);
            settle(sim);
        }
        if (sim->err->status == BT_OK) check_meeting(sim);
    } while (sim->err->status == BT_OK && sim->waits_at[0]);
}

static void run_group(bt_sim *sim, uint64_t number, const uint32_t at[3], uint32_t ngx) {
    bt_sim_poison(sim->shared, sim->kernel->shared_bytes);
    for (uint32_t i = 0; i < sim->thread_count; i++)
        sim->threads[i] =
            (bt_sim_thread){&sim->group, i, at[0], at[1], at[2], ngx, number << 32 | 1 << 8 | i};
    if (sim->kernel->has_barrier) {
        run_with_barriers(sim, number);
        return;
    }
    for (sim->now = 0; sim->now < sim->thread_count; sim->now++) {
        sim->kernel->thread(&sim->threads[sim->now]);
        settle(sim);
        if (sim->err->status != BT_OK) return;
    }
}

// ---- A launch --------------------------------------------------------------------------------

static char mode_of(const bt_launch *launch, int i) {
    return (char)(bt_kernel_table[launch->kernel].bindings[i] | 0x20); // lower case
}

// Bytes past the last whole word are there, since buffers are whole words.
static uint32_t words_of(const bt_binding *b) {
    return b->buffer ? (uint32_t)((b->bytes + 3) / 4) : 0;
}

static bt_status make_marks(bt_sim *sim, const bt_launch *launch, bt_error *err) {
    size_t total = 0;
    for (int i = 0; i < launch->binding_count; i++)
        if (mode_of(launch, i) != 'r') total += words_of(&launch->binding[i]);
    if (total > sim->mark_capacity) {
        free(sim->marks);
        sim->marks = calloc(total, sizeof *sim->marks);
        sim->mark_capacity = sim->marks ? total : 0;
        if (!sim->marks)
            return bt_fail_memory(err, "the marks of a launch", total * sizeof(bt_sim_mark));
    } else if (total > 0) {
        memset(sim->marks, 0, total * sizeof *sim->marks);
    }
    return BT_OK;
}

static bt_status bind(bt_sim *sim, const bt_launch *launch, bt_error *err) {
    BT_TRY(make_marks(sim, launch, err));
    bt_sim_mark *marks = sim->marks;
    memset(&sim->group, 0, sizeof sim->group);
    sim->group.scalars = launch->scalars;
    sim->group.shared = sim->shared;
    sim->group.shared_marks = sim->shared_marks;
    sim->group.present = bt_portable_present(launch);
    for (int i = 0; i < launch->binding_count; i++) {
        const bt_binding *from = &launch->binding[i];
        bt_sim_binding *to = &sim->group.binding[i];
        if (!from->buffer) continue;
        to->data = (unsigned char *)from->buffer->handle + from->offset;
        to->count = words_of(from);
        to->mode = mode_of(launch, i);
        if (to->mode == 'r') continue;
        to->marks = marks;
        marks += to->count;
        for (uint32_t j = 0; to->mode == 'w' && j < to->count; j++)
            memcpy(to->data + (size_t)j * 4, &unwritten_out, 4);
    }
    return BT_OK;
}

static void check_written(const bt_sim *sim) {
    for (int i = 0; i < BT_BINDINGS_MAX; i++) {
        const bt_sim_binding *b = &sim->group.binding[i];
        for (uint32_t j = 0; b->mode == 'w' && j < b->count; j++) {
            if (word_value(b->data + (size_t)j * 4) != unwritten_out) continue;
            (void)bt_fail(
                sim->err, BT_ERROR_INTERNAL,
                "%s:%d: kernel %s leaves element %u of binding %d (%u elements) unwritten",
                sim->portable->file, sim->portable->line, sim->portable->name, j, i, b->count);
            return;
        }
    }
}

static bt_status prepare(bt_sim *sim, bt_error *err) {
    const bt_sim_kernel *k = sim->kernel;
    if (sim->thread_count < 1 || sim->thread_count > BT_GROUP_THREADS_MAX ||
        k->shared_bytes > BT_GROUP_SHARED_BYTES_MAX)
        return bt_fail(err, BT_ERROR_INTERNAL,
                       "kernel %s asks for groups of %u threads and %zu bytes of shared memory; at "
                       "most %d and %d",
                       k->name, sim->thread_count, k->shared_bytes, BT_GROUP_THREADS_MAX,
                       BT_GROUP_SHARED_BYTES_MAX);
    memset(sim->shared_marks, 0, k->shared_bytes / 4 * sizeof *sim->shared_marks);
    if (!k->has_barrier || sim->stacks) return BT_OK;
    size_t bytes = (size_t)BT_GROUP_THREADS_MAX * STACK_BYTES;
    void *stacks = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stacks == MAP_FAILED) return bt_fail_memory(err, "the stacks of a work group", bytes);
    sim->stacks = stacks;
    return BT_OK;
}

static void run_groups(bt_sim *sim, const uint32_t grid[3]) {
    uint64_t number = 0;
    uint32_t at[3];
    for (at[2] = 0; at[2] < grid[2]; at[2]++)
        for (at[1] = 0; at[1] < grid[1]; at[1]++)
            for (at[0] = 0; at[0] < grid[0] && sim->err->status == BT_OK; at[0]++)
                run_group(sim, number++, at, grid[0]);
    if (sim->err->status == BT_OK) check_written(sim);
}

bt_status bt_sim_run(bt_sim *sim, const bt_sim_kernel *kernel, const bt_portable *portable,
                     const uint32_t grid[3], const bt_launch *launch, bt_error *err) {
    bt_error mine = {0}; // `err` may hold an earlier failure
    sim->kernel = kernel;
    sim->portable = portable;
    sim->thread_count = portable->group;
    sim->err = &mine;
    sim->touch_count = 0;
    running = sim;
    if (prepare(sim, &mine) == BT_OK && bind(sim, launch, &mine) == BT_OK) run_groups(sim, grid);
    running = NULL;
    return mine.status == BT_OK ? BT_OK : bt_fail(err, mine.status, "%s", mine.text);
}

bt_status bt_sim_open(bt_error *err, bt_sim **out) {
    *out = aligned_alloc(64, (sizeof(bt_sim) + 63) / 64 * 64);
    if (!*out) return bt_fail_memory(err, "the simulated GPU", sizeof(bt_sim));
    memset(*out, 0, sizeof(bt_sim));
    return BT_OK;
}

void bt_sim_close(bt_sim *sim) {
    if (!sim) return;
    if (sim->stacks) munmap(sim->stacks, (size_t)BT_GROUP_THREADS_MAX * STACK_BYTES);
    free(sim->touches);
    free(sim->marks);
    free(sim);
}
