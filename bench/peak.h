// How fast the processor multiplies and adds when nothing else holds it up: chains of fused
// multiply-adds that never leave the registers, in the widest vectors that it has. For programs
// that say what share of that they reach. A shared machine disturbs, so the best of many short runs
// counts.
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__clang__)
#define PEAK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PEAK_UNROLL _Pragma("GCC unroll 64")
#endif

enum {
    PEAK_CHAINS = 12, // independent sums: more than latency x throughput of any processor here
    PEAK_UNROLLED = 4 * PEAK_CHAINS, // of a round, so that the loop itself costs nothing
    PEAK_ROUNDS = 5000, // of a run: some hundredths of a millisecond, so that most are undisturbed
    PEAK_THREADS = 64,
};

// Runs `rounds` rounds of PEAK_UNROLLED vectors; the sum keeps it from being left out.
typedef float (*peak_fn)(int rounds);

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static inline float peak_avx512(int rounds) {
    __m512 sum[PEAK_CHAINS], factor = _mm512_set1_ps(0.5f);
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum[i] = _mm512_set1_ps((float)(i + 2)); // (1 would stay 1)
    for (int round = 0; round < rounds; round++) {
        PEAK_UNROLL
        for (int i = 0; i < PEAK_UNROLLED; i++)
            sum[i % PEAK_CHAINS] = _mm512_fmadd_ps(sum[i % PEAK_CHAINS], factor, factor);
    }
    for (int i = 1; i < PEAK_CHAINS; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    return _mm512_reduce_add_ps(sum[0]);
}

__attribute__((target("avx2,fma"))) static inline float peak_avx2(int rounds) {
    __m256 sum[PEAK_CHAINS], factor = _mm256_set1_ps(0.5f);
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum[i] = _mm256_set1_ps((float)(i + 2)); // (1 would stay 1)
    for (int round = 0; round < rounds; round++) {
        PEAK_UNROLL
        for (int i = 0; i < PEAK_UNROLLED; i++)
            sum[i % PEAK_CHAINS] = _mm256_fmadd_ps(sum[i % PEAK_CHAINS], factor, factor);
    }
    for (int i = 1; i < PEAK_CHAINS; i++) sum[0] = _mm256_add_ps(sum[0], sum[i]);
    return _mm256_cvtss_f32(sum[0]);
}
#endif

// What every processor of its kind has: a multiplication and an addition on x86-64.
static inline float peak_base(int rounds) {
    typedef float v4 __attribute__((vector_size(16)));
    v4 sum[PEAK_CHAINS], factor = {0.5f, 0.5f, 0.5f, 0.5f};
    for (int i = 0; i < PEAK_CHAINS; i++) sum[i] = factor * (float)(i + 3); // (1 would stay 1)
    for (int round = 0; round < rounds; round++) {
        PEAK_UNROLL
        for (int i = 0; i < PEAK_UNROLLED; i++)
#if defined(__aarch64__)
            sum[i % PEAK_CHAINS] = (v4)vfmaq_f32(
                (float32x4_t)factor, (float32x4_t)sum[i % PEAK_CHAINS], (float32x4_t)factor);
#else
            sum[i % PEAK_CHAINS] = sum[i % PEAK_CHAINS] * factor + factor;
#endif
    }
    for (int i = 1; i < PEAK_CHAINS; i++) sum[0] += sum[i];
    return sum[0][0];
}

typedef struct peak_isa {
    const char *name;
    int lanes;
    peak_fn run;
} peak_isa;

// The best instruction set of this machine.
static inline peak_isa peak_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return (peak_isa){"AVX-512", 16, peak_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (peak_isa){"AVX2 with FMA", 8, peak_avx2};
#endif
    return (peak_isa){"128-bit vectors", 4, peak_base};
}

static inline double peak_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#ifdef __linux__
// Threads to measure with, beside one: one for each core that the process may use.
static inline int peak_threads(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    return CPU_COUNT(&set) < PEAK_THREADS ? CPU_COUNT(&set) : PEAK_THREADS;
}

// The calling thread stays on core number `index` of those that the process may use, since two that
// wait for each other on one core measure nothing.
static inline void peak_pin(int index) {
    cpu_set_t set, one;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set) || index-- > 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one); // best effort
        return;
    }
}
#else // no thread can be told where to stay
static inline int peak_threads(void) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores < PEAK_THREADS ? (int)cores : PEAK_THREADS;
}

static inline void peak_pin(int index) {
    (void)index;
}
#endif

// ---- Threads that do something at the same time ------------------------------------------------

typedef struct peak_job {
    void (*work)(void *user, int thread); // of one run
    void *user;
    int threads;
    double seconds;     // to repeat it for
    atomic_int arrived; // counts up; all have arrived at meeting n when it is n * threads
    bool over;          // said by thread 0 before it comes to a meeting
    double best;        // seconds of a run, from the start of all to the end of the last
} peak_job;

typedef struct peak_thread {
    peak_job *job;
    int index;
    pthread_t id;
} peak_thread;

static inline void peak_meet(peak_job *job, int meeting) {
    atomic_fetch_add(&job->arrived, 1);
    while (atomic_load_explicit(&job->arrived, memory_order_acquire) < meeting * job->threads)
        continue;
}

static inline void *peak_main(void *user) {
    const peak_thread *me = user;
    peak_job *job = me->job;
    peak_pin(me->index);
    double begin = peak_now();
    for (int meeting = 1;; meeting += 2) {
        if (me->index == 0) job->over = meeting > 1 && peak_now() - begin > job->seconds;
        peak_meet(job, meeting);
        if (job->over) return NULL;
        double start = peak_now();
        job->work(job->user, me->index);
        peak_meet(job, meeting + 1);
        double spent = peak_now() - start;
        if (me->index == 0 && (meeting == 1 || spent < job->best)) job->best = spent;
    }
}

// The least seconds that a run of `work` takes on each of `threads` threads at once, of as many as
// fill so many seconds.
static inline double peak_time(int threads, double seconds, void (*work)(void *user, int thread),
                               void *user) {
    peak_job job = {.work = work, .user = user, .threads = threads, .seconds = seconds};
    peak_thread all[PEAK_THREADS];
    for (int i = 0; i < threads; i++) {
        all[i] = (peak_thread){&job, i, 0};
        if (pthread_create(&all[i].id, NULL, peak_main, &all[i]) == 0) continue;
        fprintf(stderr, "no thread %d of %d\n", i + 1, threads);
        exit(1);
    }
    for (int i = 0; i < threads; i++) pthread_join(all[i].id, NULL);
    return job.best;
}

static inline void peak_work(void *user, int thread) {
    float sum = ((const peak_isa *)user)->run(PEAK_ROUNDS);
    (void)thread;
    __asm__ volatile("" ::"m"(sum)); // as if somebody read it
}

// GFLOP/s of `threads` threads at once.
static inline double peak_gflops(int threads) {
    peak_isa isa = peak_best();
    double seconds = peak_time(threads, 0.3, peak_work, &isa);
    return 2e-9 * isa.lanes * PEAK_UNROLLED * PEAK_ROUNDS * threads / seconds;
}

#endif
