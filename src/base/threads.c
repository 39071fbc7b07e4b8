// See threads.h. Waiting spins for a few microseconds, since launches of a small network follow
// each other that closely, and then sleeps, so that an idle pool costs nothing.
#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

enum { SPINS = 4000, WORKERS_MAX = 256 };

struct bt_pool {
    atomic_int workers;
    int spins;
    pthread_t threads[WORKERS_MAX];
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    atomic_int core[WORKERS_MAX]; // where each worker was last seen; -1: it sleeps (but worker 0)
    bt_pool_fn fn;
    void *user;
    bool closing;
    _Alignas(64) atomic_uint generation; // counts the barriers passed
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int sleepers;
};

typedef struct thread_arg {
    bt_pool *pool;
    int worker;
} thread_arg;

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// ---- Cores ------------------------------------------------------------------------------------

#ifdef __linux__
static bool is_taken(const bt_pool *pool, int worker, int core) {
    for (int i = 0; i < pool->workers; i++)
        if (i != worker && atomic_load_explicit(&pool->core[i], memory_order_relaxed) == core)
            return true;
    return false;
}

// A core of the allowed ones where no other worker was seen, and which is now this worker's; -1:
// it may stay where it is.
static int other_core(bt_pool *pool, int worker, const cpu_set_t *allowed) {
    int to = -1;
    pthread_mutex_lock(&pool->mutex);
    int from = atomic_load(&pool->core[worker]);
    bool moves = is_taken(pool, worker, from);
    for (int i = 1; moves && i < CPU_SETSIZE && to < 0; i++) {
        int core = (from + i) % CPU_SETSIZE;
        if (CPU_ISSET(core, allowed) && !is_taken(pool, worker, core)) to = core;
    }
    if (to >= 0) atomic_store(&pool->core[worker], to);
    pthread_mutex_unlock(&pool->mutex);
    return to;
}

// A thread that is woken may find itself behind the one that woke it, although a core is idle: in
// a virtual machine, idle ones can look busy to the scheduler, which notices some milliseconds
// later. A thread of the pool that shares a core with another worker moves to one that has none,
// and may go anywhere again from there. Worker 0 is somebody else's thread and stays where it is.
static void take_core(bt_pool *pool, int worker) {
    cpu_set_t allowed, one;
    int core = sched_getcpu();
    if (pool->spins == 0 || core < 0) return; // there are more workers than cores
    atomic_store_explicit(&pool->core[worker], core, memory_order_relaxed);
    if (worker == 0 || !is_taken(pool, worker, core)) return;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    core = other_core(pool, worker, &allowed);
    if (core < 0) return;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
static void take_core(bt_pool *pool, int worker) {
    (void)pool;
    (void)worker;
}
#endif

// ---- Waiting ----------------------------------------------------------------------------------

// Has worker 0, which does not move, woken up where this worker was last seen?
static bool shares_core(const bt_pool *pool, int worker) {
    return atomic_load_explicit(&pool->core[0], memory_order_relaxed) ==
           atomic_load_explicit(&pool->core[worker], memory_order_relaxed);
}

static void sleep_until_changed(bt_pool *pool, unsigned generation) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->generation) == generation)
        pthread_cond_wait(&pool->changed, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

void bt_pool_barrier(bt_pool *pool, int worker) {
    if (pool->workers == 1) return;
    unsigned generation = atomic_load(&pool->generation);
    int before = atomic_fetch_add(&pool->arrived, 1);
    if (before == pool->workers - 1) { // read after arriving: bt_pool_open may shrink the pool
        atomic_store(&pool->arrived, 0);
        atomic_fetch_add(&pool->generation, 1);
        if (atomic_load(&pool->sleepers) > 0) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_broadcast(&pool->changed);
            pthread_mutex_unlock(&pool->mutex);
            sched_yield(); // to those that wait for this very core (see take_core)
        }
        return;
    }
    for (int i = 0; i < pool->spins; i++) {
        if (atomic_load_explicit(&pool->generation, memory_order_acquire) == generation) {
            cpu_relax();
            continue;
        }
        if (worker > 0 && shares_core(pool, worker)) take_core(pool, worker);
        return;
    }
    if (worker > 0) atomic_store(&pool->core[worker], -1); // left to others; worker 0 comes back
    sleep_until_changed(pool, generation);
    take_core(pool, worker);
}

static void *thread_main(void *user) {
    thread_arg arg = *(thread_arg *)user;
    free(user);
    for (;;) {
        bt_pool_barrier(arg.pool, arg.worker); // work is there
        if (arg.pool->closing) return NULL;
        take_core(arg.pool, arg.worker);
        arg.pool->fn(arg.pool->user, arg.worker, arg.pool->workers);
        bt_pool_barrier(arg.pool, arg.worker); // work is done
    }
}

static bt_status start_thread(bt_pool *pool, int worker, bt_error *err) {
    thread_arg *arg = malloc(sizeof *arg);
    if (!arg) return bt_fail_memory(err, "a thread", sizeof *arg);
    *arg = (thread_arg){pool, worker};
    if (pthread_create(&pool->threads[worker], NULL, thread_main, arg) == 0) return BT_OK;
    free(arg);
    return bt_fail(err, BT_ERROR_MEMORY, "cannot start thread %d of %d; try fewer with --threads",
                   worker + 1, pool->workers);
}

bt_status bt_pool_open(int workers, bt_error *err, bt_pool **out) {
    *out = NULL;
    if (workers < 0 || workers > WORKERS_MAX)
        return bt_fail(err, BT_ERROR_USAGE,
                       "threads is %d; it must be 1 to %d, or 0 for one per core", workers,
                       WORKERS_MAX);
    if (workers == 0) workers = bt_core_count();
    if (workers > WORKERS_MAX) workers = WORKERS_MAX; // of a machine with more cores
    bt_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool) return bt_fail_memory(err, "the thread pool", sizeof *pool);
    memset(pool, 0, sizeof *pool);
    atomic_init(&pool->workers, workers);
    for (int i = 0; i < workers; i++) atomic_init(&pool->core[i], -1);
    // Spinning helps only while every worker has a core of its own.
    pool->spins = workers <= bt_core_count() ? SPINS : 0;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->changed, NULL);
    for (int i = 1; i < workers; i++) {
        bt_status status = start_thread(pool, i, err);
        if (status != BT_OK) {
            // The threads that run wait for `workers` arrivals: let them see the smaller pool.
            pool->workers = i;
            bt_pool_close(pool);
            return status;
        }
    }
    *out = pool;
    return BT_OK;
}

void bt_pool_close(bt_pool *pool) {
    if (!pool) return;
    pool->closing = true;
    bt_pool_barrier(pool, 0);
    for (int i = 1; i < pool->workers; i++) pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

int bt_pool_workers(const bt_pool *pool) {
    return pool->workers;
}

void bt_pool_run(bt_pool *pool, bt_pool_fn fn, void *user) {
    pool->fn = fn;
    pool->user = user;
    take_core(pool, 0);
    bt_pool_barrier(pool, 0);
    fn(user, 0, pool->workers);
    bt_pool_barrier(pool, 0);
}

int bt_core_count(void) {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#elif defined(__APPLE__)
    // The fast ones of Apple silicon: at a barrier they would wait for the others.
    int fast = 0;
    size_t bytes = sizeof fast;
    if (!sysctlbyname("hw.perflevel0.logicalcpu", &fast, &bytes, NULL, 0) && fast > 0) return fast;
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

double bt_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
