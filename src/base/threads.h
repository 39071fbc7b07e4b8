// A fixed pool of threads. Work is split by (worker, workers) alone, so results never depend on
// scheduling; callers split reductions by shape and not by the number of workers.
#ifndef BT_BASE_THREADS_H
#define BT_BASE_THREADS_H

#include "base/status.h"

typedef struct bt_pool bt_pool;
typedef void (*bt_pool_fn)(void *user, int worker, int workers);

// Starts `workers` - 1 threads (0: one worker per core this process may use); the caller of
// bt_pool_run is worker 0. Returns the pool through `out`, to be freed with bt_pool_close.
bt_status bt_pool_open(int workers, bt_error *err, bt_pool **out);
void bt_pool_close(bt_pool *pool);
int bt_pool_workers(const bt_pool *pool);

// Calls fn(user, worker, workers) on every worker and returns when all have returned.
void bt_pool_run(bt_pool *pool, bt_pool_fn fn, void *user);

// Inside fn, of this worker: waits until every worker of the pool has come here.
void bt_pool_barrier(bt_pool *pool, int worker);

// Cores that this process may use (its affinity mask; on Apple silicon the fast ones), >= 1.
int bt_core_count(void);

// Monotonic seconds.
double bt_seconds(void);

// [begin, end) of worker's share of n items, in blocks of `block` items.
static inline void bt_share(size_t n, size_t block, int worker, int workers, size_t *begin,
                            size_t *end) {
    size_t blocks = (n + block - 1) / block;
    *begin = blocks * (size_t)worker / (size_t)workers * block;
    *end = blocks * ((size_t)worker + 1) / (size_t)workers * block;
    if (*end > n) *end = n;
}

#endif
