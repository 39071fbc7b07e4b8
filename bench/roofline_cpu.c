// The limits of this machine's processor: how fast it multiplies and adds on registers, and how
// fast it reads and writes what lies in each level of its caches and in memory. The best of many
// short runs, since a shared machine disturbs. Prints a Markdown table. usage: roofline_cpu
#include "peak.h"

#include <stdint.h>
#include <string.h>

enum { RUN_BYTES = 4 << 20 }; // that a run reads at least

// Sums and sources of one thread.
typedef struct arrays {
    uint32_t *data;
    size_t count; // numbers that are gone through, `passes` times a run
    int passes;
    uint32_t sum;
} arrays;

#if defined(__x86_64__)
#define WITH(set) __attribute__((target(set)))
#endif
#define INSIDE static inline __attribute__((always_inline))

// Four streams, so that the loads do not wait for one sum.
INSIDE uint32_t add_up(const uint32_t *p, size_t count) {
    uint32_t a = 0, b = 0, c = 0, d = 0;
    size_t part = count / 4;
    for (size_t i = 0; i < part; i++) {
        a += p[i];
        b += p[part + i];
        c += p[2 * part + i];
        d += p[3 * part + i];
    }
    return a + b + c + d;
}

INSIDE void read_all(arrays *a) {
    uint32_t sum = 0; // (a->sum shares its cache line with those of other threads.)
    for (int pass = 0; pass < a->passes; pass++) sum += add_up(a->data, a->count);
    a->sum = sum;
}

// y = x + s z over thirds of the data, as in McCalpin's STREAM.
INSIDE void triad_all(arrays *a) {
    size_t third = a->count / 3;
    float *restrict y = (float *)a->data;
    const float *restrict x = y + third, *restrict z = x + third;
    for (size_t i = 0; i < third; i++) y[i] = x[i] + 0.5f * z[i];
}

// Compiled for what the machine has, like the kernels that are compared with it.
#if defined(__x86_64__)
WITH("avx512f") static void read_avx512(arrays *a) {
    read_all(a);
}
WITH("avx512f") static void triad_avx512(arrays *a) {
    triad_all(a);
}
WITH("avx2") static void read_avx2(arrays *a) {
    read_all(a);
}
WITH("avx2") static void triad_avx2(arrays *a) {
    triad_all(a);
}
#endif
static void read_base(arrays *a) {
    read_all(a);
}
static void triad_base(arrays *a) {
    triad_all(a);
}

static void read_work(void *user, int thread) {
    arrays *a = (arrays *)user + thread;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return read_avx512(a);
    if (__builtin_cpu_supports("avx2")) return read_avx2(a);
#endif
    read_base(a);
}

static void triad_work(void *user, int thread) {
    arrays *a = (arrays *)user + thread;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return triad_avx512(a);
    if (__builtin_cpu_supports("avx2")) return triad_avx2(a);
#endif
    triad_base(a);
}

// GB/s of all threads together, each on `bytes` of its own.
static double gbytes(int threads, size_t bytes, bool triad) {
    arrays all[PEAK_THREADS] = {{0}};
    size_t passes = triad ? 1 : (RUN_BYTES - 1) / bytes + 1;
    for (int i = 0; i < threads; i++) {
        all[i] = (arrays){aligned_alloc(4096, bytes), bytes / 4, (int)passes, 0};
        if (!all[i].data) {
            fprintf(stderr, "no memory for %zu bytes\n", bytes);
            exit(1);
        }
        memset(all[i].data, 1, bytes);
    }
    double seconds = peak_time(threads, 0.5, triad ? triad_work : read_work, all);
    for (int i = 0; i < threads; i++) free(all[i].data);
    return 1e-9 * (double)(bytes * passes) * threads / seconds;
}

static void line(const char *what, int threads, size_t bytes, bool triad) {
    printf("| %s | %.1f GB/s | %.1f GB/s |\n", what, gbytes(1, bytes, triad),
           gbytes(threads, bytes, triad));
    fflush(stdout);
}

int main(void) {
    int threads = peak_threads();
    printf("| at most | 1 thread | %d threads |\n|---|---|---|\n", threads);
    printf("| multiply and add in f32, %s | %.1f GFLOP/s | %.1f GFLOP/s |\n", peak_best().name,
           peak_gflops(1), peak_gflops(threads));
    line("read 16 KB a thread, over and over", threads, 16 << 10, false);
    line("read 256 KB a thread", threads, 256 << 10, false);
    line("read 4 MB a thread", threads, 4 << 20, false);
    line("read 192 MB a thread", threads, 192 << 20, false);
    line("y = x + s z, 192 MB a thread", threads, 192 << 20, true);
    return 0;
}
