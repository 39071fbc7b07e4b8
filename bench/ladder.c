// The steps of docs/learn/cpu.md, from three loops to the kernel that trains: y = a b for square
// matrices in f32. Each step is a function that is as short as it can be with what the step is
// about; sizes that are no multiple of the tile are left to the real kernel. Prints Markdown tables
// of the best of several runs, since a shared machine disturbs. usage: ladder [SIZE]     a multiple
// of 48; 960 if not given
#include "bantam.h"
#include "peak.h"

#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum {
    LANES = 8, // of a vector
    ROWS = 6,  // of a tile: 6 x 2 sums in registers, 2 vectors of b and 1 number of a beside
    COLUMNS = 2 * LANES,
    DEPTH = 256,   // of a panel: 256 x 16 numbers of b, 16 KB, stay in the first-level cache
    BLOCK = 96,    // rows of a at a time: 96 x 256 numbers, 96 KB, stay in the second
    SAMPLES = 300, // elements that are checked
};

typedef float v8 __attribute__((vector_size(4 * LANES)));

#if defined(__x86_64__)
#define AVX2          __attribute__((target("avx2,fma")))
#define fma8(a, b, c) ((v8)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define spread8(x)    ((v8)_mm256_set1_ps(x))
#else
#define AVX2
#define fma8(a, b, c) ((a) * (b) + (c))
#define spread8(x)    ((v8){0} + (x))
#endif

// Rows `first` to `last` of the product of square matrices.
typedef struct product {
    const float *a, *b;
    float *y;
    size_t n, first, last;
    float *packed; // [DEPTH, n] of b, then [BLOCK, DEPTH] of a
} product;

typedef void (*step_fn)(const product *p);

// ---- 1, 2: loops
// ---------------------------------------------------------------------------------

// As it is defined. The additions of an element wait for each other, and walking down b takes a
// new cache line for every number.
static void three_loops(const product *p) {
    size_t n = p->n;
    for (size_t i = p->first; i < p->last; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0;
            for (size_t k = 0; k < n; k++) sum += p->a[i * n + k] * p->b[k * n + j];
            p->y[i * n + j] = sum;
        }
}

// The inner loop runs along rows of b and y: whole cache lines, and additions that do not depend on
// each other, which the compiler does four at a time.
static void rows_of_b(const product *p) {
    size_t n = p->n;
    for (size_t i = p->first; i < p->last; i++) {
        float *restrict y = p->y + i * n;
        memset(y, 0, n * sizeof *y);
        for (size_t k = 0; k < n; k++) {
            const float *restrict b = p->b + k * n;
            float a = p->a[i * n + k];
            for (size_t j = 0; j < n; j++) y[j] += a * b[j];
        }
    }
}

// ---- 3: vectors
// ----------------------------------------------------------------------------------

AVX2 static inline v8 load8(const float *p) {
    v8 v;
    memcpy(&v, p, sizeof v);
    return v;
}
AVX2 static inline void store8(float *p, v8 v) {
    memcpy(p, &v, sizeof v);
}

// The same with eight lanes and multiplication and addition in one instruction.
AVX2 static void vectors(const product *p) {
    size_t n = p->n;
    for (size_t i = p->first; i < p->last; i++) {
        float *y = p->y + i * n;
        memset(y, 0, n * sizeof *y);
        for (size_t k = 0; k < n; k++) {
            v8 a = spread8(p->a[i * n + k]);
            for (size_t j = 0; j < n; j += LANES)
                store8(y + j, fma8(a, load8(p->b + k * n + j), load8(y + j)));
        }
    }
}

// ---- 4: a tile in registers
// ----------------------------------------------------------------------

// sum [rows, 2] += a [rows, depth] b [depth, 2 vectors]; element (i, k) of a is at i a_row + k
// a_next.
AVX2 static inline __attribute__((always_inline)) void tile(v8 sum[ROWS][2], size_t rows,
                                                            const float *a, size_t a_row,
                                                            size_t a_next, const float *b,
                                                            size_t b_next, size_t depth) {
    for (size_t k = 0; k < depth; k++) {
        v8 left = load8(b + k * b_next), right = load8(b + k * b_next + LANES);
        PEAK_UNROLL
        for (size_t i = 0; i < rows; i++) {
            v8 x = spread8(a[i * a_row + k * a_next]);
            sum[i][0] = fma8(x, left, sum[i][0]);
            sum[i][1] = fma8(x, right, sum[i][1]);
        }
    }
}

// y [rows, 2 vectors] = sum, or += sum.
AVX2 static inline __attribute__((always_inline)) void put(float *y, size_t n, v8 sum[ROWS][2],
                                                           size_t rows, bool add) {
    PEAK_UNROLL
    for (size_t i = 0; i < 2 * rows; i++) {
        float *to = y + i / 2 * n + i % 2 * LANES;
        store8(to, add ? load8(to) + sum[i / 2][i % 2] : sum[i / 2][i % 2]);
    }
}

AVX2 static inline __attribute__((always_inline)) void tiles_of(const product *p, size_t rows) {
    size_t n = p->n;
    for (size_t i = p->first; i < p->last; i += rows)
        for (size_t j = 0; j < n; j += COLUMNS) {
            v8 sum[ROWS][2] = {{{0}}};
            tile(sum, rows, p->a + i * n, n, 1, p->b + j, n, n);
            put(p->y + i * n + j, n, sum, rows, false);
        }
}

// One row: two sums. A multiply-add takes four cycles and two can begin in each, so that two sums
// in turn use a quarter of the units; and for each multiply-add something is loaded.
AVX2 static void tiles_of_one(const product *p) {
    tiles_of(p, 1);
}
// Twelve sums: enough to hide the latency, and 12 multiply-adds for 8 loads.
AVX2 static void tiles_of_six(const product *p) {
    tiles_of(p, ROWS);
}

// ---- 5: packing and cache blocks
// -----------------------------------------------------------------

// Panels of `width` columns of b, each [depth, width] without gaps: a tile reads them in order.
static void pack_b(float *to, const float *b, size_t n, size_t depth) {
    for (size_t j = 0; j < n; j += COLUMNS)
        for (size_t k = 0; k < depth; k++, to += COLUMNS)
            memcpy(to, b + k * n + j, COLUMNS * sizeof *to);
}

// Strips of ROWS rows of a, each [depth, ROWS].
static void pack_a(float *to, const float *a, size_t n, size_t rows, size_t depth) {
    for (size_t i = 0; i < rows; i += ROWS)
        for (size_t k = 0; k < depth; k++)
            for (size_t r = 0; r < ROWS; r++) *to++ = a[(i + r) * n + k];
}

// The block of a, packed, stays in the second-level cache; a panel of b in the first, while all
// strips of a pass by.
AVX2 static void multiply_block(const product *p, const float *a, size_t row, size_t rows,
                                size_t depth, bool add) {
    for (size_t j = 0; j < p->n; j += COLUMNS)
        for (size_t i = 0; i < rows; i += ROWS) {
            v8 sum[ROWS][2] = {{{0}}};
            tile(sum, ROWS, a + i * depth, 1, ROWS, p->packed + j * depth, COLUMNS, depth);
            put(p->y + (row + i) * p->n + j, p->n, sum, ROWS, add);
        }
}

static void blocks(const product *p) {
    size_t n = p->n;
    float *a = p->packed + n * DEPTH;
    for (size_t k = 0; k < n; k += DEPTH) {
        size_t depth = n - k < DEPTH ? n - k : DEPTH;
        pack_b(p->packed, p->b + k * n, n, depth);
        for (size_t i = p->first; i < p->last; i += BLOCK) {
            size_t rows = p->last - i < BLOCK ? p->last - i : BLOCK;
            pack_a(a, p->a + i * n + k, n, rows, depth);
            multiply_block(p, a, i, rows, depth, k > 0);
        }
    }
}

// ---- How many sums at once
// -----------------------------------------------------------------------

AVX2 static inline __attribute__((always_inline)) float chains(int count, int rounds) {
    v8 sum[PEAK_CHAINS], half = spread8(0.5f);
    for (int i = 0; i < count; i++) sum[i] = spread8((float)(i + 2)); // (1 would stay 1)
    for (int round = 0; round < rounds; round++) {
        PEAK_UNROLL
        for (int i = 0; i < 4 * count; i++) sum[i % count] = fma8(sum[i % count], half, half);
    }
    for (int i = 1; i < count; i++) sum[0] += sum[i];
    return sum[0][0];
}

AVX2 static void chains_work(void *user, int thread) {
    float sum = 0;
    (void)thread;
    switch (*(const int *)user) {
    case 1: sum = chains(1, PEAK_ROUNDS); break;
    case 2: sum = chains(2, PEAK_ROUNDS); break;
    case 4: sum = chains(4, PEAK_ROUNDS); break;
    case 6: sum = chains(6, PEAK_ROUNDS); break;
    case 8: sum = chains(8, PEAK_ROUNDS); break;
    case 10: sum = chains(10, PEAK_ROUNDS); break;
    default: sum = chains(12, PEAK_ROUNDS); break;
    }
    __asm__ volatile("" ::"m"(sum)); // as if somebody read it
}

static void chains_table(void) {
    int counts[] = {1, 2, 4, 6, 8, 10, 12};
    printf("| sums at once |");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) printf(" %d |", counts[i]);
    printf("\n|---|---|---|---|---|---|---|---|\n| GFLOP/s |");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        double seconds = peak_time(1, 0.2, chains_work, &counts[i]);
        printf(" %.1f |", 8e-9 * LANES * PEAK_ROUNDS * counts[i] / seconds);
    }
    printf("\n\n");
}

// ---- Measuring
// -----------------------------------------------------------------------------------

typedef struct job {
    step_fn step;
    product parts[PEAK_THREADS]; // of each thread
} job;

static void job_work(void *user, int thread) {
    job *j = user;
    j->step(&j->parts[thread]);
}

// The largest error of some elements, relative to the root of n.
static double error_of(const product *p) {
    double worst = 0;
    for (size_t s = 0, n = p->n; s < SAMPLES; s++) {
        size_t i = s * 7907 % n, j = (s * 104723 + n - 1) % n;
        double sum = 0;
        for (size_t k = 0; k < n; k++) sum += (double)p->a[i * n + k] * (double)p->b[k * n + j];
        double error = fabs(sum - (double)p->y[i * n + j]);
        if (!(error <= worst)) worst = error; // NaN too
    }
    return worst / sqrt((double)p->n);
}

static void line(const char *name, int threads, const product *p, double seconds) {
    static double peak[PEAK_THREADS + 1];
    if (peak[threads] <= 0) peak[threads] = peak_gflops(threads);
    double rate = 2e-9 * (double)p->n * (double)p->n * (double)p->n / seconds, error = error_of(p);
    printf("| %s | %d | %.2f ms | %.2f | %.1f %% |\n", name, threads, 1e3 * seconds, rate,
           100 * rate / peak[threads]);
    fflush(stdout);
    if (error < 1e-5) return;
    fprintf(stderr, "ladder: %s is wrong by %g\n", name, error);
    exit(1);
}

static void *memory(size_t count) {
    void *p = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    if (p) return p;
    fprintf(stderr, "ladder: no memory for %zu numbers\n", count);
    exit(1);
}

static void measure(const char *name, step_fn step, int threads, const product *p) {
    job j = {.step = step};
    size_t tiles = p->n / ROWS, count = (size_t)threads;
    for (size_t i = 0; i < count; i++) {
        j.parts[i] = *p;
        j.parts[i].first = tiles * i / count * ROWS;
        j.parts[i].last = tiles * (i + 1) / count * ROWS;
        j.parts[i].packed = memory((p->n + BLOCK) * DEPTH);
    }
    line(name, threads, p, peak_time(threads, 1, job_work, &j));
    for (size_t i = 0; i < count; i++) free(j.parts[i].packed);
}

static void measure_bantam(int threads, const product *p) {
    bt_context *ctx;
    bt_program *program;
    bt_shape shape = BT_SHAPE((int)p->n, (int)p->n);
    double best = INFINITY;
    bt_status status = bt_open(&(bt_context_desc){.device = "cpu", .threads = threads}, &ctx);
    if (status == BT_OK) {
        bt_tensor y =
            bt_matmul(ctx, bt_input(ctx, BT_F32, shape, p->a), bt_input(ctx, BT_F32, shape, p->b));
        bt_program_desc desc = {.outputs = &y, .output_count = 1};
        status = bt_program_make(ctx, &desc, &program);
    }
    for (double begin = peak_now(); status == BT_OK && peak_now() < begin + 1;) {
        double start = peak_now();
        status = bt_program_run(ctx, program, 1);
        best = fmin(best, peak_now() - start);
    }
    if (status == BT_OK)
        status = bt_program_read(ctx, program, 0, p->y, p->n * p->n * sizeof *p->y);
    if (status == BT_OK)
        line("Bantam", threads, p, best);
    else
        fprintf(stderr, "ladder: %s\n", ctx ? bt_error_text(ctx) : "no memory");
    bt_close(ctx);
    if (status != BT_OK) exit(1);
}

// cblas_sgemm, with order and transposition as numbers: row by row, none.
typedef void (*sgemm_fn)(int order, int transpose_a, int transpose_b, int m, int n, int k,
                         float alpha, const float *a, int lda, const float *b, int ldb, float beta,
                         float *y, int ldy);
typedef void (*threads_fn)(int threads);

static void measure_openblas(int threads, const product *p) {
    enum { ROW_MAJOR = 101, AS_IT_IS = 111 };
    void *library = dlopen("libopenblas.so.0", RTLD_NOW);
    sgemm_fn sgemm = library ? (sgemm_fn)dlsym(library, "cblas_sgemm") : NULL;
    threads_fn set_threads =
        library ? (threads_fn)dlsym(library, "openblas_set_num_threads") : NULL;
    if (!sgemm || !set_threads) {
        fprintf(stderr, "ladder: OpenBLAS (libopenblas.so.0) is not here\n");
        return;
    }
    set_threads(threads);
    double best = INFINITY;
    for (double begin = peak_now(); peak_now() < begin + 1;) {
        double start = peak_now();
        int n = (int)p->n;
        sgemm(ROW_MAJOR, AS_IT_IS, AS_IT_IS, n, n, n, 1, p->a, n, p->b, n, 0, p->y, n);
        best = fmin(best, peak_now() - start);
    }
    line("OpenBLAS", threads, p, best);
}

static void ladder(const product *p) {
    int threads = peak_threads();
    printf("| %zu x %zu x %zu | threads | time | GFLOP/s | of the peak |\n|---|---|---|---|---|\n",
           p->n, p->n, p->n);
    measure("1: three loops", three_loops, 1, p);
    measure("2: along the rows of b", rows_of_b, 1, p);
    measure("3: vectors of eight, fused multiply-add", vectors, 1, p);
    measure("4a: tile of 1 x 16 in registers", tiles_of_one, 1, p);
    measure("4b: tile of 6 x 16", tiles_of_six, 1, p);
    measure("5: packed, in blocks for the caches", blocks, 1, p);
    measure_bantam(1, p);
    measure_openblas(1, p);
    if (threads == 1) return;
    measure("6: rows shared by threads", blocks, threads, p);
    measure_bantam(threads, p);
    measure_openblas(threads, p);
}

int main(int argc, char **argv) {
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 960;
    if (n == 0 || n % 48 != 0 || n > 9600) {
        fprintf(stderr, "ladder: the size must be a multiple of 48, at most 9600\n");
        return 2;
    }
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        fprintf(stderr, "ladder: its steps need AVX2 and FMA\n");
        return 1;
    }
#endif
    float *a = memory(3 * n * n);
    for (size_t i = 0; i < 2 * n * n; i++)
        a[i] = (float)((uint32_t)i * 2654435761u >> 8) * 0x1p-23f - 1;
    product p = {.a = a, .b = a + n * n, .y = a + 2 * n * n, .n = n};
    chains_table();
    ladder(&p);
    free(a);
    return 0;
}
