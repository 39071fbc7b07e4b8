// Times every CPU kernel of a training step by every instruction set of this machine, as dav1d's
// checkasm --bench does: the launches are those of the real program, run in order on one thread,
// each many times in a row. What the device does as one, or leaves zeros out of, has lines of its
// own below those of its parts. Prints a Markdown table: microseconds a call, the least of all
// rounds, and how many times as fast as the plain loops. usage: kernels [NET BATCH]...
#include "bantam.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/cpu/set.h"
#include "tensor/graph.h"
#include "training.h"

enum {
    LAUNCHES_MAX = 128,
    SETS_MAX = 4,
    ROUNDS = 15,
};
static const double ROUND_SECONDS = 40e-6; // of calls of one kernel, at least

// ---- The launches of a training step ----------------------------------------------------------

typedef struct step {
    bt_launch launch[LAUNCHES_MAX];
    int count;
    bt_program_use use;
} step;

static step seen;
static const bt_device_api *real;

// Takes the launches down as the program is made.
static bt_status spy(bt_device *dev, const bt_launch *launches, int count,
                     const bt_program_use *use, bt_error *err, bt_device_program **out) {
    if (count > LAUNCHES_MAX)
        return bt_fail(err, BT_ERROR_USAGE, "%d launches; at most %d are timed", count,
                       LAUNCHES_MAX);
    memcpy(seen.launch, launches, (size_t)count * sizeof *launches);
    seen.count = count;
    seen.use = *use;
    return real->program_init(dev, launches, count, use, err, out);
}

// Images like those of MNIST: one pixel in five is not 0, and these lie in runs.
static bt_status make_images(bt_context *ctx, int count, bt_dataset **out) {
    enum { SIDE = 28, BORDER = 4, RUN = 8 };
    uint8_t *images = calloc((size_t)count, SIDE * SIDE + 1), *labels = images;
    if (!images) return BT_ERROR_MEMORY;
    labels += (size_t)count * SIDE * SIDE;
    uint32_t state = 1;
    for (int i = 0; i < count; i++) {
        labels[i] = (uint8_t)(i % 10);
        for (int y = BORDER; y < SIDE - BORDER; y++) {
            state = state * 1664525u + 1013904223u;
            uint8_t *run = images + ((size_t)i * SIDE + (size_t)y) * SIDE + BORDER + (state >> 28);
            for (int x = 0; x < RUN; x++) run[x] = (uint8_t)(1 + (state >> (x + 8)) % 255);
        }
    }
    bt_status status = bt_dataset_make(ctx, images, labels, count, 1, SIDE, SIDE, 10, out);
    free(images);
    return status;
}

// (Updates that are repeated must not lead the weights away.)
static bt_status make_program(bt_context *ctx, const char *net, int batch) {
    bt_dataset *images;
    bt_program *program;
    bt_status status = make_images(ctx, 10 * batch, &images);
    return status == BT_OK ? training_make(ctx, net, images, batch, 1e-12, &program) : status;
}

// ---- Instruction sets -------------------------------------------------------------------------

// The plain loops first: all others are compared with them.
static int find_sets(const bt_cpu_set *sets[SETS_MAX]) {
    static const bt_cpu_set plain = {.name = "plain loops", .kernels = bt_cpu_reference_f32};
    int count = 0;
    sets[count++] = &plain;
    sets[count++] = &bt_cpu_set_base;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2) sets[count++] = &bt_cpu_set_avx2;
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        sets[count++] = &bt_cpu_set_avx512;
#endif
    return count;
}

// ---- Lines of the table -----------------------------------------------------------------------

// Some launches and a kernel that does them: one for each instruction set that has it.
typedef struct line {
    char text[160];
    int part[BT_CPU_PARTS_MAX]; // launches; -1: absent
    bool group, sparse;         // the launches are done as one; zeros of the batch are left out
    bt_cpu_kernel kernel[SETS_MAX];
    double best[SETS_MAX]; // seconds
} line;

typedef struct table {
    const bt_cpu_set *sets[SETS_MAX];
    int set_count, line_count;
    line line[2 * LAUNCHES_MAX];
    bt_cpu_nonzeros *nonzeros;
} table;

static void describe(const bt_launch *l, char *text, size_t bytes) {
    const char *name = bt_kernel_table[l->kernel].name;
    bt_matmul_args m;
    bt_conv_args c;
    bt_pool_args p;
    bt_map_args e;
    switch (l->kernel) {
    case BT_KERNEL_matmul:
        memcpy(&m, l->scalars, sizeof m);
        snprintf(text, bytes, "matmul %u x %u x %u%s%s", m.m, m.n, m.k, m.transpose_a ? " a^T" : "",
                 m.transpose_b ? " b^T" : "");
        break;
    case BT_KERNEL_conv2d:
    case BT_KERNEL_conv2d_grad_input:
    case BT_KERNEL_conv2d_grad_weight:
        memcpy(&c, l->scalars, sizeof c);
        snprintf(text, bytes, "%s %u -> %u, %u x %u on %u x %u", name, c.c, c.o, c.kh, c.kw, c.h,
                 c.w);
        break;
    case BT_KERNEL_max_pool:
    case BT_KERNEL_max_pool_grad:
        memcpy(&p, l->scalars, sizeof p);
        snprintf(text, bytes, "%s %u on %u planes %u x %u", name, p.size, p.planes, p.h, p.w);
        break;
    case BT_KERNEL_map:
        memcpy(&e, l->scalars, sizeof e);
        snprintf(text, bytes, "map %u on %u", e.op, e.dim[0] * e.dim[1] * e.dim[2] * e.dim[3]);
        break;
    default: snprintf(text, bytes, "%s", name);
    }
}

static line *add_line(table *t, int part) {
    line *to = &t->line[t->line_count++];
    memset(to, 0, sizeof *to);
    to->part[0] = part;
    for (int i = 1; i < BT_CPU_PARTS_MAX; i++) to->part[i] = -1;
    return to;
}

static void add_single(table *t, int part) {
    line *to = add_line(t, part);
    uint16_t kernel = seen.launch[part].kernel;
    describe(&seen.launch[part], to->text, sizeof to->text);
    for (int s = 0; s < t->set_count; s++) to->kernel[s] = t->sets[s]->kernels[kernel];
}

// Is binding b of launch i the batch as it was gathered?
static bool reads_batch(int i, int b) {
    for (int g = 0; g < i; g++) {
        const bt_binding *images = &seen.launch[g].binding[4], *at = &seen.launch[i].binding[b];
        if (seen.launch[g].kernel == BT_KERNEL_gather_batch && images->buffer == at->buffer &&
            images->offset == at->offset && images->bytes == at->bytes)
            return true;
    }
    return false;
}

// What a launch is done by where zeros of the batch are left out: {0}: it has nothing to do with
// it.
static bt_cpu_kernel sparse_kernel(const bt_cpu_set *set, int part) {
    const bt_launch *l = &seen.launch[part];
    bt_matmul_args m;
    if (l->kernel == BT_KERNEL_gather_batch && set->sparse_forward.run)
        return set->kernels[BT_KERNEL_gather_batch];
    if (l->kernel != BT_KERNEL_matmul) return (bt_cpu_kernel){0};
    memcpy(&m, l->scalars, sizeof m);
    if (!m.transpose_a && m.transpose_b && reads_batch(part, 0)) return set->sparse_forward;
    if (m.transpose_a && !m.transpose_b && reads_batch(part, 1)) return set->sparse_grad;
    return (bt_cpu_kernel){0};
}

static void add_sparse(table *t, int part) {
    line *to = NULL;
    for (int s = 0; s < t->set_count; s++) {
        bt_cpu_kernel kernel = sparse_kernel(t->sets[s], part);
        if (!kernel.run) continue;
        if (!to) to = add_line(t, part);
        to->kernel[s] = kernel;
        to->sparse = true;
        snprintf(to->text, sizeof to->text, "... %s",
                 seen.launch[part].kernel == BT_KERNEL_matmul ? "without zeros"
                                                              : "noting what is not zero");
    }
}

// The group that begins with this launch, where an instruction set has one.
static void add_group(table *t, int part) {
    line *to = NULL;
    for (int s = 0; s < t->set_count; s++) {
        bt_cpu_group groups[LAUNCHES_MAX];
        int count =
            bt_cpu_group_launches(seen.launch, seen.count, &seen.use, t->sets[s]->takes, groups);
        for (int g = 0; g < count; g++) {
            if (groups[g].kind == BT_CPU_SINGLE || groups[g].part[0] != part) continue;
            if (!to) to = add_line(t, part);
            to->group = true;
            memcpy(to->part, groups[g].part, sizeof to->part);
            to->kernel[s] = t->sets[s]->grouped[groups[g].kind];
        }
    }
    if (!to) return;
    snprintf(to->text, sizeof to->text, "... as one with");
    for (int i = 1; i < BT_CPU_PARTS_MAX; i++) {
        size_t end = strlen(to->text);
        if (to->part[i] >= 0)
            snprintf(to->text + end, sizeof to->text - end, " %s",
                     bt_kernel_table[seen.launch[to->part[i]].kernel].name);
    }
}

// ---- Timing -----------------------------------------------------------------------------------

// Calls a kernel for a while, or once where it is not timed; the seconds of one call.
static double time_calls(const bt_cpu_kernel *kernel, const bt_launch *parts,
                         const bt_cpu_worker *me, bool timed) {
    for (int calls = 1;; calls *= 2) {
        double start = bt_seconds();
        for (int i = 0; i < calls; i++) kernel->run(parts, me);
        double seconds = bt_seconds() - start;
        if (seconds >= ROUND_SECONDS || !timed) return seconds / calls;
    }
}

static void run_line(table *t, line *l, int s, bool timed) {
    bt_launch parts[BT_CPU_PARTS_MAX] = {0};
    for (int i = 0; i < BT_CPU_PARTS_MAX; i++)
        if (l->part[i] >= 0) parts[i] = seen.launch[l->part[i]];
    bt_cpu_kernel kernel = l->kernel[s];
    if (!kernel.run) kernel = bt_cpu_reference_f32[parts[0].kernel];
    size_t bytes = kernel.scratch ? kernel.scratch(parts) : 0;
    bt_cpu_worker me = {.count = 1, .nonzeros = l->sparse ? t->nonzeros : NULL};
    me.scratch = aligned_alloc(BT_BINDING_ALIGN, (bytes / BT_BINDING_ALIGN + 1) * BT_BINDING_ALIGN);
    if (!me.scratch) return;
    double seconds = time_calls(&kernel, parts, &me, timed);
    if (timed && (l->best[s] == 0 || seconds < l->best[s])) l->best[s] = seconds;
    free(me.scratch);
}

// Is a launch among those that instruction set s does as one?
static bool is_grouped(const table *t, int launch, int s) {
    for (int i = 0; i < t->line_count; i++)
        for (int j = 0; j < BT_CPU_PARTS_MAX; j++)
            if (t->line[i].group && t->line[i].kernel[s].run && t->line[i].part[j] == launch)
                return true;
    return false;
}

// A whole step by one instruction set, so that each kernel finds what the ones before it wrote:
// launch by launch, or with its groups, which then are what is timed.
static void walk(table *t, int s, bool groups) {
    for (int i = 0; i < t->line_count; i++) {
        line *l = &t->line[i];
        if (l->group ? !groups || !l->kernel[s].run : groups && is_grouped(t, l->part[0], s))
            continue;
        if (l->sparse && !l->kernel[s].run) continue;
        run_line(t, l, s, l->group == groups);
    }
}

static bool fill_table(table *t) {
    t->set_count = find_sets(t->sets);
    for (int i = 0; i < seen.count; i++) {
        add_single(t, i);
        add_sparse(t, i);
        add_group(t, i);
    }
    for (int i = 0; i < seen.count && !t->nonzeros; i++) {
        bt_gather_args args;
        memcpy(&args, seen.launch[i].scalars, sizeof args);
        if (seen.launch[i].kernel == BT_KERNEL_gather_batch)
            t->nonzeros = bt_cpu_nonzeros_make(args.batch, args.pixels);
    }
    return t->nonzeros != NULL;
}

static void print_table(const table *t, const char *net, int batch) {
    printf("\n%s, batch %d\n\n| kernel |", net, batch);
    for (int s = 0; s < t->set_count; s++) printf(" %s |", t->sets[s]->name);
    printf("\n|---|");
    for (int s = 0; s < t->set_count; s++) printf("--:|");
    for (int i = 0; i < t->line_count; i++) {
        const line *l = &t->line[i];
        double plain = 0; // of all parts
        for (int j = 0; j < t->line_count; j++)
            for (int k = 0; k < BT_CPU_PARTS_MAX; k++)
                if (!t->line[j].group && !t->line[j].sparse && t->line[j].part[0] == l->part[k])
                    plain += t->line[j].best[0];
        printf("\n| %s |", l->text);
        for (int s = 0; s < t->set_count; s++) {
            bool has = l->kernel[s].run && l->best[s] > 0;
            if (has) printf(" %.2f us", 1e6 * l->best[s]);
            if (has && s > 0) printf(" (%.1fx)", plain / l->best[s]);
            printf(" |");
        }
    }
    printf("\n");
}

static bt_status run_net(const char *net, int batch) {
    bt_context *ctx;
    static table t;
    memset(&t, 0, sizeof t);
    bt_status status = bt_open(&(bt_context_desc){.device = "cpu", .threads = 1}, &ctx);
    if (status == BT_OK) {
        bt_device_api api = *ctx->api;
        real = ctx->api;
        api.program_init = spy;
        ctx->api = &api;
        status = make_program(ctx, net, batch);
        ctx->api = real;
    }
    if (status == BT_OK && !fill_table(&t)) status = BT_ERROR_MEMORY;
    for (int round = 0; status == BT_OK && round < ROUNDS; round++)
        for (int s = 0; s < t.set_count; s++) {
            walk(&t, s, false);
            walk(&t, s, true);
        }
    if (status == BT_OK)
        print_table(&t, net, batch);
    else
        fprintf(stderr, "kernels: %s\n", ctx ? bt_error_text(ctx) : "no memory");
    bt_cpu_nonzeros_free(t.nonzeros);
    bt_close(ctx);
    return status;
}

int main(int argc, char **argv) {
    bt_status status = BT_OK;
    if (argc == 1) {
        status = run_net("mlp", 64);
        if (status == BT_OK) status = run_net("lenet", 64);
    }
    for (int i = 1; i + 1 < argc && status == BT_OK; i += 2)
        status = run_net(argv[i], atoi(argv[i + 1]));
    return (int)status;
}
