// The foundations: checked arithmetic, random numbers against published vectors, permutations,
// the thread pool.
#include "base/checked.h"
#include "base/rng.h"
#include "base/threads.h"
#include "support.h"

#include <sched.h>
#include <stdatomic.h>

static void test_checked(void **state) {
    (void)state;
    size_t out;
    check(bt_mul_ok(3, 5, &out) && out == 15, "3 x 5 is %zu", out);
    check(!bt_mul_ok(SIZE_MAX / 2, 3, &out), "an overflowing product passes");
    check(bt_mul_ok(SIZE_MAX, 0, &out) && out == 0, "SIZE_MAX x 0 is %zu", out);
    check(bt_add_ok(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX, "SIZE_MAX - 1 + 1 is %zu", out);
    check(!bt_add_ok(SIZE_MAX, 1, &out), "an overflowing sum passes");
    check(bt_align_ok(257, 256, &out) && out == 512, "257 aligned is %zu", out);
    check(bt_align_ok(256, 256, &out) && out == 256, "256 aligned is %zu", out);
    check(!bt_align_ok(SIZE_MAX - 3, 256, &out), "an overflowing alignment passes");
}

static void test_first_error_is_kept(void **state) {
    (void)state;
    bt_error err = {0};
    check(bt_fail(&err, BT_ERROR_DATA, "first %d", 1) == BT_ERROR_DATA,
          "bt_fail changes the status");
    check(bt_fail(&err, BT_ERROR_USAGE, "second") == BT_ERROR_DATA, "the second failure wins");
    check(!strcmp(err.text, "first 1"), "the sentence is \"%s\"", err.text);
    bt_error_clear(&err);
    check(bt_fail_memory(&err, "a thing", 7) == BT_ERROR_MEMORY, "out of memory is another status");
    check(strstr(err.text, "a thing") && strstr(err.text, "7"), "the sentence is \"%s\"", err.text);
}

// Philox4x32-10 of all four counter words, to be checked against the vectors of Random123
// (kat_vectors), then to check bt_philox, whose last word is always 0.
static void philox(const uint32_t in[4], uint32_t k0, uint32_t k1, uint32_t c[4]) {
    memcpy(c, in, 16);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, next, 16);
        k0 += 0x9E3779B9;
        k1 += 0xBB67AE85;
    }
}

static void test_philox(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    uint32_t got[4];
    for (int i = 0; i < 3; i++) {
        philox(vectors[i].counter, vectors[i].key[0], vectors[i].key[1], got);
        check(!memcmp(got, vectors[i].want, 16), "vector %d gives %08x ...", i, got[0]);
    }
    check(!memcmp(bt_philox(0, 0, 0).v, vectors[0].want, 16), "bt_philox(0, 0, 0) is wrong");
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t c[4] = {i * 77777, i * 333, i % 7, 0};
        philox(c, i * 12345, ~i, got);
        bt_random4 r =
            bt_philox((uint64_t)~i << 32 | i * 12345u, c[2], (uint64_t)c[1] << 32 | c[0]);
        check(!memcmp(r.v, got, 16), "bt_philox differs at %u", i);
    }
}

static void test_uniform(void **state) {
    (void)state;
    check(bt_uniform(0) == 0 && bt_uniform(~0u) < 1, "uniform numbers leave [0, 1)");
    double sum = 0;
    for (uint32_t i = 0; i < 40000; i++) sum += bt_uniform(bt_philox(7, 1, i).v[i % 4]);
    check(sum > 19800 && sum < 20200, "the mean of 40 000 is %g", sum / 40000);
}

static void test_permutation(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1,  2,  3,  4,   5,   7,   15,   16,   17,
                                     63, 64, 65, 255, 256, 257, 1000, 4097, 60000};
    uint8_t *seen = allocate(60000);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (uint32_t key = 0; key < 3; key++) {
            uint32_t n = sizes[s], moved = 0;
            memset(seen, 0, n);
            for (uint32_t i = 0; i < n; i++) {
                uint32_t p = bt_permute_index(i, n, bt_epoch_key(1, key));
                check(p < n && !seen[p], "position %u of %u is %u, outside or taken", i, n, p);
                seen[p] = 1;
                moved += p != i;
            }
            check(n < 63 || moved > n * 9 / 10, "only %u of %u positions move", moved, n);
        }
    }
    free(seen);
    check(bt_epoch_key(1, 0) != bt_epoch_key(1, 1) && bt_epoch_key(1, 0) != bt_epoch_key(2, 0),
          "epochs or seeds share an order");
}

static void test_share(void **state) {
    (void)state;
    static const size_t counts[] = {0, 1, 2, 7, 8, 9, 64, 1000};
    for (size_t c = 0; c < 8; c++) {
        for (size_t block = 1; block < 20; block += 3) {
            for (int workers = 1; workers < 9; workers++) {
                size_t next = 0, begin, end;
                for (int w = 0; w < workers; w++) {
                    bt_share(counts[c], block, w, workers, &begin, &end);
                    // An empty share may lie past the end.
                    check(begin >= end || begin == next, "worker %d begins at %zu, not %zu", w,
                          begin, next);
                    check(begin % block == 0, "worker %d begins inside a block", w);
                    if (begin < end) next = end;
                }
                check(next == counts[c], "%zu of %zu items shared", next, counts[c]);
            }
        }
    }
}

typedef struct rounds {
    bt_pool *pool;
    atomic_int entered;
    int slot[8];
    bool wrong;
} rounds;

static void work(void *user, int worker, int workers) {
    rounds *r = user;
    atomic_fetch_add(&r->entered, 1);
    for (int i = 0; i < 50; i++) {
        r->slot[worker]++;
        bt_pool_barrier(r->pool, worker);
        for (int w = 0; w < workers; w++) {
            if (r->slot[w] != r->slot[worker]) r->wrong = true;
        }
        bt_pool_barrier(r->pool, worker);
    }
}

static void test_pool(void **state) {
    (void)state;
    for (int workers = 1; workers <= 8; workers++) {
        bt_error err = {0};
        rounds r = {0};
        check(bt_pool_open(workers, &err, &r.pool) == BT_OK, "%s", err.text);
        check(bt_pool_workers(r.pool) == workers, "the pool has %d workers",
              bt_pool_workers(r.pool));
        for (int i = 0; i < 20; i++) bt_pool_run(r.pool, work, &r);
        check(atomic_load(&r.entered) == 20 * workers, "%d calls", atomic_load(&r.entered));
        check(!r.wrong && r.slot[workers - 1] == 1000, "the barrier let somebody through");
        bt_pool_close(r.pool);
    }
}

#ifdef __linux__
typedef struct seats {
    cpu_set_t all, caller; // cores that the pool may use, and the one that the caller sits on
    int seen;              // core of worker 1
    bool allowed;          // it may still go anywhere
} seats;

static void sit_down_with_caller(void *user, int worker, int workers) {
    seats *s = user;
    (void)workers;
    if (worker == 0) return;
    sched_setaffinity(0, sizeof s->caller, &s->caller);
    sched_setaffinity(0, sizeof s->all, &s->all);
}

static void look_around(void *user, int worker, int workers) {
    seats *s = user;
    cpu_set_t mine;
    (void)workers;
    if (worker == 0) return;
    s->seen = sched_getcpu();
    sched_getaffinity(0, sizeof mine, &mine);
    s->allowed = CPU_EQUAL(&mine, &s->all);
}
#endif

// A worker on the caller's core moves to another; the caller, whose thread is not ours, does not,
// and both keep the cores they are allowed. (The scheduler may undo a move on a busy machine.)
static void workers_move_apart(void **state) {
    (void)state;
#ifdef __linux__
    enum { ROUNDS = 40 };
    seats s;
    bt_error err = {0};
    bt_pool *pool;
    int core = sched_getcpu(), together = 0;
    cpu_set_t now;
    sched_getaffinity(0, sizeof s.all, &s.all);
    if (CPU_COUNT(&s.all) < 2) skip_because("this process may use one core alone");
    check(bt_pool_open(2, &err, &pool) == BT_OK, "%s", err.text);
    CPU_ZERO(&s.caller);
    CPU_SET(core, &s.caller);
    if (sched_setaffinity(0, sizeof s.caller, &s.caller) != 0)
        skip_because("threads may not choose their cores here");
    for (int i = 0; i < ROUNDS; i++) {
        bt_pool_run(pool, sit_down_with_caller, &s);
        bt_pool_run(pool, look_around, &s);
        together += s.seen == core;
        check(s.allowed, "worker 1 may not go everywhere in round %d", i);
    }
    sched_getaffinity(0, sizeof now, &now);
    sched_setaffinity(0, sizeof s.all, &s.all);
    bt_pool_close(pool);
    check(CPU_EQUAL(&now, &s.caller), "the caller's cores are others");
    check(together < ROUNDS / 4, "worker 1 shared the caller's core in %d of %d rounds", together,
          ROUNDS);
#else
    skip_because("threads are not moved on this system");
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checked),     cmocka_unit_test(test_first_error_is_kept),
        cmocka_unit_test(test_philox),      cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_permutation), cmocka_unit_test(test_share),
        cmocka_unit_test(test_pool),        cmocka_unit_test(workers_move_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
