// Speed and error of single-precision matrix products on the CPU beside OpenBLAS's sgemm and
// oneDNN's (where they are installed), on one and two threads, as a Markdown table.
// usage: sgemm [DEVICE [SIZE...]]     DEVICE: cpu, or cpu:N for another instruction set of it
//        SIZE: MxNxK, and nn, nt, tn or tt after it: a (b) is stored transposed
// Ours goes through the public interface, as a program of that product alone run many times. The
// rounds of all alternate in this process; figures are medians. Between them everybody's threads
// get time to stop spinning, which would slow the next one. The error is that of 200 elements
// against sums in f64, relative to the root of k; operands are uniform in [-1, 1].
#include "bantam.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "peak.h"

enum { ROUNDS = 9, SAMPLES = 200, THREADS = 2 };
// A round's time at least, and how long OpenBLAS's threads spin (2^26 ticks) or libgomp's.
static const double ROUND_SECONDS = 1e-3, REST_SECONDS = 40e-3;

static const char *const SIZES[] = {
    // Layers of 784-128-10 forward and their gradients, at batch 64 and 1.
    "64x128x784nt", "128x784x64tn", "64x784x128nn", "64x10x128nt", "10x128x64tn", "64x128x10nn",
    "1x128x784nt", "1x10x128nt", "256x128x784nt", "500x10x500nt",
    // Matrix by vector.
    "1x1024x1024nn", "1x1024x1024nt", "1000x1x1000nn", "4x1024x1024nt",
    // Filters of 5x5 on one and eight channels.
    "8x576x25nn", "16x64x200nn", "1024x1024x25nn",
    // Small, odd and skinny.
    "3x5x7nn", "17x33x65nn", "17x33x65tt", "32x32x32nn", "127x127x127nn", "127x127x127tt",
    "128x128x128nn", "6x200x4096nn", "1000x10x1000nn", "2000x16x500tn", "1000x100x1000nt",
    "128x1024x1024tn", "1000x1000x64nt",
    // Large.
    "512x512x512nn", "1024x1024x1024nn", "1024x1024x1024nt", "1024x1024x1024tn", "1024x1024x1024tt",
    "2048x2048x2048nn"};

typedef struct product {
    int m, n, k;
    bool ta, tb;
    float *a, *b, *y;
} product;

// The libraries that we are measured beside; members are NULL where one is missing.
typedef void cblas_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef int dnnl_fn(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                    int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);
typedef void threads_fn(int threads);
static cblas_fn *cblas_sgemm;
static dnnl_fn *dnnl_sgemm;
static threads_fn *blas_threads, *omp_threads;

typedef enum side { OURS, OPENBLAS, ONEDNN, SIDES } side;

typedef struct bench {
    bt_context *ctx[THREADS];
    double peak[THREADS]; // GFLOP/s
} bench;

// What is measured of one product.
typedef struct result {
    double seconds[SIDES][THREADS];
    double error[SIDES];
} result;

static void rest(double seconds) {
    struct timespec t = {0, (long)(1e9 * seconds)};
    nanosleep(&t, NULL);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, by_size);
    return values[count / 2];
}

// ---- Products ---------------------------------------------------------------------------------

static void find_libraries(void) {
    void *blas = dlopen("libopenblas.so.0", RTLD_NOW), *dnnl = dlopen("libdnnl.so.2", RTLD_NOW);
    if (blas) {
        cblas_sgemm = (cblas_fn *)dlsym(blas, "cblas_sgemm");
        blas_threads = (threads_fn *)dlsym(blas, "openblas_set_num_threads");
    }
    if (dnnl) {
        dnnl_sgemm = (dnnl_fn *)dlsym(dnnl, "dnnl_sgemm");
        omp_threads = (threads_fn *)dlsym(dnnl, "omp_set_num_threads");
    }
    if (!blas_threads) cblas_sgemm = NULL, printf("OpenBLAS is not installed.\n");
    if (!dnnl_sgemm) printf("oneDNN is not installed.\n");
}

static void run_openblas(const product *p) {
    enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };
    cblas_sgemm(ROW_MAJOR, p->ta ? TRANSPOSED : AS_IT_IS, p->tb ? TRANSPOSED : AS_IT_IS, p->m, p->n,
                p->k, 1, p->a, p->ta ? p->m : p->k, p->b, p->tb ? p->k : p->n, 0, p->y, p->n);
}

static void run_dnnl(const product *p) {
    dnnl_sgemm(p->ta ? 'T' : 'N', p->tb ? 'T' : 'N', p->m, p->n, p->k, 1, p->a, p->ta ? p->m : p->k,
               p->b, p->tb ? p->k : p->n, 0, p->y, p->n);
}

static void fill(float *to, size_t count, uint32_t state) {
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = (float)(state >> 8) * 0x1p-23f - 1;
    }
}

static double error_of(const product *p) {
    double worst = 0;
    size_t m = (size_t)p->m, n = (size_t)p->n, depth = (size_t)p->k;
    for (size_t s = 0; s < SAMPLES; s++) {
        size_t i = s * 7907 % m, j = s * 104723 % n;
        double sum = 0;
        for (size_t k = 0; k < depth; k++)
            sum += (double)p->a[p->ta ? k * m + i : i * depth + k] *
                   (double)p->b[p->tb ? j * depth + k : k * n + j];
        worst = fmax(worst, fabs(sum - (double)p->y[i * n + j]));
    }
    return worst / sqrt((double)p->k);
}

static bt_status make_program(bt_context *ctx, const product *p, bt_program **out) {
    bt_shape a_shape = p->ta ? BT_SHAPE(p->k, p->m) : BT_SHAPE(p->m, p->k);
    bt_shape b_shape = p->tb ? BT_SHAPE(p->n, p->k) : BT_SHAPE(p->k, p->n);
    bt_tensor a = bt_input(ctx, BT_F32, a_shape, p->a), b = bt_input(ctx, BT_F32, b_shape, p->b);
    bt_tensor y = bt_matmul_ex(ctx, a, p->ta, b, p->tb);
    return bt_program_make(ctx, &(bt_program_desc){.outputs = &y, .output_count = 1}, out);
}

// Seconds of `steps` products.
static double run(side who, const product *p, bt_context *ctx, bt_program *program, int steps) {
    double start = peak_now();
    if (who == OURS)
        bt_program_run(ctx, program, (uint32_t)steps);
    else
        for (int i = 0; i < steps; i++)
            if (who == OPENBLAS)
                run_openblas(p);
            else
                run_dnnl(p);
    return peak_now() - start;
}

static bool is_there(side who) {
    return who == OURS || (who == OPENBLAS ? cblas_sgemm != NULL : dnnl_sgemm != NULL);
}

static void set_threads(side who, int threads) {
    if (who == OPENBLAS) blas_threads(threads);
    if (who == ONEDNN && omp_threads) omp_threads(threads);
}

// One round of all sides, to be appended to what earlier rounds took; steps 0: to be found.
static void round_of(const bench *b, const product *p, bt_program *const *programs,
                     int steps[SIDES][THREADS], double seconds[SIDES][THREADS]) {
    for (int who = OURS; who < SIDES; who++) {
        if (!is_there((side)who)) continue;
        for (int t = 0; t < THREADS; t++) {
            set_threads((side)who, t + 1);
            int count = steps[who][t] ? steps[who][t] : 1;
            run((side)who, p, b->ctx[t], programs[t], count); // wakes threads, fills caches
            double spent = run((side)who, p, b->ctx[t], programs[t], count);
            for (; !steps[who][t] && spent < ROUND_SECONDS; count *= 2)
                spent = run((side)who, p, b->ctx[t], programs[t], 2 * count);
            steps[who][t] = count;
            seconds[who][t] = spent / count;
            if (who == OURS) rest(1e-3);
        }
        if (who != OURS) rest(REST_SECONDS);
    }
}

static bt_status measure(const bench *b, const product *p, result *out) {
    bt_program *programs[THREADS];
    int steps[SIDES][THREADS] = {{0}};
    double all[SIDES][THREADS][ROUNDS], seconds[SIDES][THREADS];
    size_t bytes = (size_t)p->m * (size_t)p->n * sizeof *p->y;
    for (int t = 0; t < THREADS; t++) {
        bt_status status = make_program(b->ctx[t], p, &programs[t]);
        if (status != BT_OK) return status;
    }
    for (int i = -1; i < ROUNDS; i++) { // the first finds the numbers of steps
        round_of(b, p, programs, steps, seconds);
        for (int who = OURS; who < SIDES && i >= 0; who++)
            for (int t = 0; t < THREADS; t++) all[who][t][i] = seconds[who][t];
    }
    for (int who = OURS; who < SIDES; who++) {
        if (!is_there((side)who)) continue;
        for (int t = 0; t < THREADS; t++) out->seconds[who][t] = median(all[who][t], ROUNDS);
        run((side)who, p, b->ctx[0], programs[0], 1);
        if (who == OURS) {
            bt_status status = bt_program_read(b->ctx[0], programs[0], 0, p->y, bytes);
            if (status != BT_OK) return status;
        }
        out->error[who] = error_of(p);
    }
    return BT_OK;
}

// ---- The table --------------------------------------------------------------------------------

static void print_result(const bench *b, const product *p, const char *name, const result *r) {
    double flops = 2.0 * p->m * p->n * p->k;
    printf("| %s |", name);
    for (int t = 0; t < THREADS; t++) {
        for (int who = OURS; who < SIDES; who++)
            if (is_there((side)who)) printf(" %.1f |", 1e-9 * flops / r->seconds[who][t]);
        for (int who = OPENBLAS; who < SIDES; who++)
            if (is_there((side)who)) printf(" %.2f |", r->seconds[who][t] / r->seconds[OURS][t]);
        printf(" %.0f %% |", 1e-7 * flops / r->seconds[OURS][t] / b->peak[t]);
    }
    for (int who = OURS; who < SIDES; who++)
        if (is_there((side)who)) printf(" %.1e |", r->error[who]);
    printf("\n");
    fflush(stdout);
}

static void print_head(void) {
    static const char *const names[] = {"Bantam", "OpenBLAS", "oneDNN"};
    int columns = 1;
    printf("| size |");
    for (int t = 0; t < THREADS; t++) {
        const char *threads = t ? "2 threads" : "1 thread";
        for (int who = OURS; who < SIDES; who++)
            if (is_there((side)who)) printf(" %s, %s |", names[who], threads), columns++;
        for (int who = OPENBLAS; who < SIDES; who++)
            if (is_there((side)who)) printf(" of %s |", names[who]), columns++;
        printf(" of the peak |");
        columns++;
    }
    for (int who = OURS; who < SIDES; who++)
        if (is_there((side)who)) printf(" error, %s |", names[who]), columns++;
    printf("\n|");
    for (int i = 0; i < columns; i++) printf("---|");
    printf("\n");
}

static bool read_size(const char *text, product *p) {
    char a = 0, b = 0, rest = 0;
    int read = sscanf(text, "%5dx%5dx%5d%c%c%c", &p->m, &p->n, &p->k, &a, &b, &rest);
    p->ta = a == 't';
    p->tb = b == 't';
    return (read == 3 || (read == 5 && (p->ta || a == 'n') && (p->tb || b == 'n'))) && p->m > 0 &&
           p->n > 0 && p->k > 0;
}

static bt_status line(const bench *b, const char *text) {
    product p = {0};
    result r = {0};
    if (!read_size(text, &p)) {
        fprintf(stderr, "sgemm: %s is no size; give MxNxK, and nn, nt, tn or tt after it\n", text);
        return BT_ERROR_USAGE;
    }
    size_t m = (size_t)p.m, n = (size_t)p.n, k = (size_t)p.k;
    p.a = malloc((m * k + k * n + m * n) * sizeof *p.a);
    if (!p.a) {
        fprintf(stderr, "sgemm: no memory for %s\n", text);
        return BT_ERROR_MEMORY;
    }
    p.b = p.a + m * k;
    p.y = p.b + k * n;
    fill(p.a, m * k, 1);
    fill(p.b, k * n, 2);
    uint32_t marks[THREADS];
    for (int t = 0; t < THREADS; t++) marks[t] = bt_mark(b->ctx[t]);
    bt_status status = measure(b, &p, &r);
    if (status == BT_OK) print_result(b, &p, text, &r);
    for (int t = 0; t < THREADS; t++) {
        if (*bt_error_text(b->ctx[t])) fprintf(stderr, "sgemm: %s\n", bt_error_text(b->ctx[t]));
        bt_release(b->ctx[t], marks[t]);
    }
    free(p.a);
    return status;
}

static bt_status open_bench(bench *b, const char *device) {
    bt_device_info info;
    for (int t = 0; t < THREADS; t++) {
        bt_context_desc desc = {.device = device, .threads = t + 1};
        bt_status status = bt_open(&desc, &b->ctx[t]);
        if (status != BT_OK) {
            fprintf(stderr, "sgemm: %s\n", b->ctx[t] ? bt_error_text(b->ctx[t]) : "no memory");
            return status;
        }
    }
    find_libraries();
    bt_context_device(b->ctx[0], &info);
    for (int t = 0; t < THREADS; t++) b->peak[t] = peak_gflops(t + 1);
    printf("%s\n\nPeak of multiply-adds in registers, %s: %.1f GFLOP/s on one thread, %.1f on two. "
           "Speeds are GFLOP/s.\n\n",
           info.description, peak_best().name, b->peak[0], b->peak[1]);
    return BT_OK;
}

int main(int argc, char **argv) {
    bench b = {0};
    bt_status status = open_bench(&b, argc > 1 ? argv[1] : "cpu");
    if (status == BT_OK) print_head();
    int given = argc > 2 ? argc - 2 : (int)(sizeof SIZES / sizeof *SIZES);
    for (int i = 0; i < given && status == BT_OK; i++)
        status = line(&b, argc > 2 ? argv[i + 2] : SIZES[i]);
    for (int t = 0; t < THREADS; t++) bt_close(b.ctx[t]);
    return (int)status;
}
