// Products with a batch of images that are zeros for the most part: the first layer of a network,
// forward and the gradient of its weights. What is multiplied by 0 is left out, and the rest is
// summed in the order of matmul_isa.c, so the bits are those of the dense product as long as the
// other operand is finite. Workers share the hidden units, so that the weights of a unit and their
// gradient are in the caches of the same core from step to step.
#include "device/cpu/kernels_isa.h"
#include "device/cpu/vec_map.h"

enum {
    VECTORS = LANES == 16 ? 4 : 8, // of units in a panel, at most: their sums stay in registers
    TILE = 64,                     // pixels, or samples, whose vectors stay in the nearest cache
    STRIDE = TILE * LANES,         // a tile is [vectors, TILE, LANES]
    SAMPLES = 256,                 // for which weights are transposed once
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

// ---- Transposing ----------------------------------------------------------------------------

// In every 128 bits: elements i, j, k, l, of a where below 4, else of b.
#define AT(n, quad)            ((n) + 4 * (quad) + ((n) < 4 ? 0 : LANES - 4))
#define QUAD(i, j, k, l, quad) AT(i, quad), AT(j, quad), AT(k, quad), AT(l, quad)
#if defined(__AVX512F__)
#define QUADS(a, b, i, j, k, l)                                                                  \
    __builtin_shufflevector(a, b, QUAD(i, j, k, l, 0), QUAD(i, j, k, l, 1), QUAD(i, j, k, l, 2), \
                            QUAD(i, j, k, l, 3))
#elif defined(__AVX2__)
#define QUADS(a, b, i, j, k, l) \
    __builtin_shufflevector(a, b, QUAD(i, j, k, l, 0), QUAD(i, j, k, l, 1))
#else
#define QUADS(a, b, i, j, k, l) __builtin_shufflevector(a, b, QUAD(i, j, k, l, 0))
#endif

// Four columns of LANES rows as four vectors.
VEC_INLINE void load_columns(const float *src, size_t down, vf out[4]) {
    // Elements 0 to 3 of rows i, i + 4, ... side by side.
    vf a = v_load_quarters(src, 4 * down), b = v_load_quarters(src + down, 4 * down);
    vf c = v_load_quarters(src + 2 * down, 4 * down), d = v_load_quarters(src + 3 * down, 4 * down);
    vf ab_low = QUADS(a, b, 0, 4, 1, 5), ab_high = QUADS(a, b, 2, 6, 3, 7);
    vf cd_low = QUADS(c, d, 0, 4, 1, 5), cd_high = QUADS(c, d, 2, 6, 3, 7);
    out[0] = QUADS(ab_low, cd_low, 0, 1, 4, 5);
    out[1] = QUADS(ab_low, cd_low, 2, 3, 6, 7);
    out[2] = QUADS(ab_high, cd_high, 0, 1, 4, 5);
    out[3] = QUADS(ab_high, cd_high, 2, 3, 6, 7);
}

// dst [count, LANES] = LANES rows of src transposed, but for columns that are not in `wanted`, four
// by four.
static VEC_ALONE void transpose_in(const float *src, size_t down, size_t count, uint64_t wanted,
                                   float *dst) {
    size_t j = 0;
    for (; j + 4 <= count; j += 4) {
        vf column[4];
        if ((wanted >> j & 15) == 0) continue;
        load_columns(src + j, down, column);
        VEC_UNROLL
        for (size_t i = 0; i < 4; i++) v_store(dst + (j + i) * LANES, column[i]);
    }
    for (; j < count; j++)
        for (size_t i = 0; i < LANES; i++) dst[j * LANES + i] = src[i * down + j];
}

// The same where fewer than LANES rows are left; zeros stand for the others.
static void transpose_rest(const float *src, size_t down, size_t rows, size_t count, float *dst) {
    memset(dst, 0, count * LANES * sizeof *dst);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < count; j++) dst[j * LANES + i] = src[i * down + j];
}

// dst [4, pitch] = (add: +=) four columns of src [count, down] as rows.
static VEC_ALONE void transpose_out(const float *src, size_t down, size_t count, float *dst,
                                    size_t pitch, bool add) {
    size_t j = 0;
    for (; j + LANES <= count; j += LANES, src += LANES * down) {
        vf row[4];
        load_columns(src, down, row);
        VEC_UNROLL
        for (size_t i = 0; i < 4; i++) {
            float *to = dst + i * pitch + j;
            v_store(to, add ? v_load(to) + row[i] : row[i]);
        }
    }
    for (; j < count; j++, src += down)
        for (size_t i = 0; i < 4; i++)
            dst[i * pitch + j] = add ? dst[i * pitch + j] + src[i] : src[i];
}

// The same for fewer columns.
static VEC_ALONE void transpose_few(const float *src, size_t columns, size_t down, size_t count,
                                    float *dst, size_t pitch, bool add) {
    for (size_t i = 0; i < columns; i++)
        for (size_t j = 0; j < count; j++)
            dst[i * pitch + j] = add ? dst[i * pitch + j] + src[j * down + i] : src[j * down + i];
}

// Row i of a 64 x 64 matrix of bits is at place swapped(i) while it is transposed.
VEC_INLINE size_t swapped(size_t i) {
    return i % 8 * 8 + i / 8;
}

// Swaps bit `bit` of the row's number with that of the column, where rows whose numbers differ in
// it are `distance` apart.
VEC_INLINE void swap_bits(uint64_t a[64], size_t distance, int bit, uint64_t mask) {
    for (size_t block = 0; block < 64; block += 2 * distance)
        for (size_t i = block; i < block + distance; i++) {
            uint64_t swap = (a[i] >> bit ^ a[i + distance]) & mask;
            a[i] ^= swap << bit;
            a[i + distance] ^= swap;
        }
}

// out[j] bit i = in[swapped(i)] bit j, with neighbours that never meet, so that it vectorises.
static void transpose_bits(uint64_t in[64], uint64_t out[64]) {
    swap_bits(in, 32, 4, 0x0f0f0f0f0f0f0f0f);
    swap_bits(in, 16, 2, 0x3333333333333333);
    swap_bits(in, 8, 1, 0x5555555555555555);
    for (size_t i = 0; i < 64; i++) out[i] = in[swapped(i)];
    swap_bits(out, 32, 32, 0x00000000ffffffff);
    swap_bits(out, 16, 16, 0x0000ffff0000ffff);
    swap_bits(out, 8, 8, 0x00ff00ff00ff00ff);
}

// ---- Sums -----------------------------------------------------------------------------------

// sums[i] += x[i across + j along] right[j] for every bit j of bits[i]; sums are rows of `vectors`
// vectors, right is a tile. Forward i is a sample and j a pixel, for the gradient it is the other
// way round.
typedef struct pass {
    const uint64_t *bits;
    size_t count; // of i
    const float *x;
    size_t across, along;
    const float *right;
    float *sums;
    bool fresh; // sums begin at 0
} pass;

// `along` is that of the pass.
VEC_INLINE void add_rows(const int vectors, const pass *p, size_t along) {
    const size_t count = p->count, across = p->across;
    const uint64_t *bits = p->bits;
    const float *x = p->x, *right = p->right;
    float *sums = p->sums;
    const bool fresh = p->fresh;
    for (size_t i = 0; i < count; i++, x += across, sums += vectors * LANES) {
        vf sum[VECTORS];
        VEC_UNROLL
        for (int n = 0; along == 1 && n < TILE; n += 16) __builtin_prefetch(x + 2 * across + n);
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) sum[v] = fresh ? (vf){0} : v_load(sums + v * LANES);
        for (uint64_t left = bits[i]; left; left &= left - 1) {
            size_t j = (size_t)__builtin_ctzll(left);
            vf factor = v_set(x[j * along]);
            VEC_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[v] = v_fma(factor, v_load(right + j * LANES + v * STRIDE), sum[v]);
        }
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) v_store(sums + v * LANES, sum[v]);
    }
}

static VEC_ALONE void run_pass(size_t vectors, const pass *p) {
#define CASE(n)                       \
    case n:                           \
        if (p->along == 1)            \
            add_rows(n, p, 1);        \
        else                          \
            add_rows(n, p, p->along); \
        break
    switch (vectors) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
#if !defined(__AVX512F__)
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
#endif
    }
#undef CASE
}

// One product: y [samples, units] = x [samples, pixels] w [units, pixels]^T, or
// dw [units, pixels] = dz [samples, units]^T x.
typedef struct product {
    const bt_matmul_args *args;
    const bt_cpu_nonzeros *nonzeros;
    size_t samples, units, pixels;
    const float *x, *w, *packed, *dz, *bias, *forward;
    float *y, *dw;
    float *tile, *sums; // a tile; as many as BT_CPU_DEPTH samples need
} product;

enum { SCRATCH_TILES = 1 + (BT_CPU_DEPTH + TILE - 1) / TILE };

// A part of it: some vectors of units, at most VECTORS, and samples (forward) or pixels.
typedef struct part {
    size_t first, vectors, begin, end;
} part;

// Bits [begin, begin + count) of a sample, 0 < count <= 64.
VEC_INLINE uint64_t bits_at(const product *p, size_t sample, size_t begin, size_t count) {
    const uint64_t *row = p->nonzeros->bits + sample * p->nonzeros->words + begin / 64;
    size_t shift = begin % 64;
    return (row[0] >> shift | row[1] << 1 << (63 - shift)) & (~(uint64_t)0 >> (64 - count));
}

// ---- Forward --------------------------------------------------------------------------------

// tile = the weights of some vectors of units for the pixels from `begin` on that are `wanted`.
static void transpose_weights(const product *p, size_t first, size_t vectors, size_t begin,
                              size_t count, uint64_t wanted, float *tile) {
    for (size_t v = 0; v < vectors; v++) {
        size_t unit = (first + v) * LANES, units = p->units - unit;
        const float *from = p->w + unit * p->pixels + begin;
        if (units >= LANES)
            transpose_in(from, p->pixels, count, wanted, tile + v * STRIDE);
        else
            transpose_rest(from, p->pixels, units, count, tile + v * STRIDE);
    }
}

// The sums of a part of k go into the result; after the last one, bias and epilogue follow.
static void store_forward(const product *p, const part *at, bool add, bool last) {
    size_t unit = at->first * LANES, units = smaller(at->vectors * LANES, p->units - unit);
    const float *sums = p->sums;
    for (size_t s = at->begin; s < at->end; s++, sums += at->vectors * LANES) {
        float *y = p->y + s * p->units + unit;
        for (size_t i = 0; i < units; i += LANES) {
            vf sum = v_load(sums + i);
            if (add) sum = v_load_up_to(y + i, units - i) + sum;
            if (last && p->bias) sum = sum + v_load_up_to(p->bias + unit + i, units - i);
            v_store_up_to(y + i, sum, units - i);
        }
        if (!last || p->args->epilogue == BT_MAP_COPY) continue;
        const float *forward = p->forward ? p->forward + s * p->units + unit : y;
        bt_cpu_row row = {forward, p->forward ? y : NULL, 1, p->forward ? 1 : 0, y};
        v_map_row(p->args->epilogue, row, units);
    }
}

static size_t vectors_of(const product *p) {
    return (p->units + LANES - 1) / LANES;
}

static void forward_part(const product *p, const part *at) {
    size_t k = p->pixels, cuts = bt_cpu_depth_cuts(k), samples = at->end - at->begin;
    const float *packed = p->packed ? p->packed + at->first * STRIDE : NULL;
    for (size_t i = 0; i < cuts; i++) {
        size_t begin = bt_cpu_depth_cut(k, i), end = bt_cpu_depth_cut(k, i + 1);
        for (size_t j = begin; j < end; j += TILE) {
            size_t count = smaller(end - j, TILE);
            uint64_t bits[SAMPLES], any = 0;
            for (size_t s = 0; s < samples; s++) {
                bits[s] = bits_at(p, at->begin + s, j, count);
                any |= bits[s];
            }
            if (!packed) transpose_weights(p, at->first, at->vectors, j, count, any, p->tile);
            run_pass(at->vectors, &(pass){.bits = bits,
                                          .count = samples,
                                          .x = p->x + at->begin * k + j,
                                          .across = k,
                                          .along = 1,
                                          .right = packed ? packed : p->tile,
                                          .sums = p->sums,
                                          .fresh = j == begin});
            if (packed) packed += vectors_of(p) * STRIDE;
        }
        store_forward(p, at, i > 0, i == cuts - 1);
    }
}

// ---- Gradient -------------------------------------------------------------------------------

// tiles = dz of the samples from `begin` on.
static void gather_tiles(const product *p, const part *at, size_t begin, size_t samples) {
    size_t unit = at->first * LANES;
    for (size_t s = 0; s < samples; s++)
        for (size_t v = 0; v < at->vectors; v++) {
            size_t i = unit + v * LANES;
            float *to = p->sums + (s / TILE * at->vectors + v) * STRIDE + s % TILE * LANES;
            v_store(to, v_load_up_to(p->dz + (begin + s) * p->units + i, p->units - i));
        }
}

// Bits of at most 64 samples for each of `count` pixels.
static void load_bits(const product *p, size_t sample, size_t samples, size_t begin, size_t count,
                      uint64_t bits[64]) {
    uint64_t of_sample[64] = {0};
    for (size_t i = 0; i < samples; i++)
        of_sample[swapped(i)] = bits_at(p, sample + i, begin, count);
    transpose_bits(of_sample, bits);
}

// dw = (add: +=) sums [count, vectors * LANES] transposed.
static void store_grad(const product *p, const part *at, const float *sums, size_t begin,
                       size_t count, bool add) {
    size_t pitch = at->vectors * LANES, unit = at->first * LANES, u = 0;
    size_t units = smaller(pitch, p->units - unit);
    float *to = p->dw + unit * p->pixels + begin;
    for (; u + 4 <= units; u += 4)
        transpose_out(sums + u, pitch, count, to + u * p->pixels, p->pixels, add);
    if (u < units)
        transpose_few(sums + u, units - u, pitch, count, to + u * p->pixels, p->pixels, add);
}

static void grad_part(const product *p, const part *at) {
    size_t cuts = bt_cpu_depth_cuts(p->samples);
    for (size_t i = 0; i < cuts; i++) {
        size_t begin = bt_cpu_depth_cut(p->samples, i);
        size_t samples = bt_cpu_depth_cut(p->samples, i + 1) - begin;
        gather_tiles(p, at, begin, samples);
        for (size_t j = at->begin; j < at->end; j += TILE) {
            size_t count = smaller(at->end - j, TILE);
            for (size_t s = 0; s < samples; s += TILE) {
                uint64_t bits[64];
                load_bits(p, begin + s, smaller(samples - s, TILE), j, count, bits);
                run_pass(at->vectors, &(pass){.bits = bits,
                                              .count = count,
                                              .x = p->x + (begin + s) * p->pixels + j,
                                              .across = 1,
                                              .along = p->pixels,
                                              .right = p->sums + s * at->vectors * LANES,
                                              .sums = p->tile,
                                              .fresh = s == 0});
            }
            store_grad(p, at, p->tile, j, count, i > 0);
        }
    }
}

// ---- Kernels --------------------------------------------------------------------------------

// Is the dense kernel the faster one? The gradient of few samples is written more than it is
// summed.
static bool is_dense(const bt_cpu_nonzeros *nonzeros, size_t units, bool grad) {
    uint64_t count = 0;
    for (uint32_t r = 0; r < nonzeros->rows; r++) count += nonzeros->count[r];
    return units <= 2 * LANES || (grad && nonzeros->rows < 8) ||
           2 * count > (uint64_t)nonzeros->rows * nonzeros->columns;
}

static void run_dense(const bt_launch *launch, const bt_cpu_worker *me) {
    bt_cpu_worker other = *me;
    other.packed = NULL; // not in the order of that kernel
    VEC_NAME(bt_cpu_matmul)(launch, &other);
}

// Workers share the vectors of units as long as each has half a panel at least, and then `n`
// samples or pixels, `step` of them in a part.
static void run_parts(const product *p, const bt_cpu_worker *me,
                      void (*run)(const product *p, const part *at), size_t n, size_t block,
                      size_t step) {
    size_t vectors = vectors_of(p), workers = (size_t)me->count, first, last, begin, end;
    size_t right = smaller(workers, vectors < VECTORS ? 1 : vectors / (VECTORS / 2));
    size_t down = workers / right, cell = (size_t)me->index;
    if (cell >= right * down) return;
    bt_share(vectors, 1, (int)(cell % right), (int)right, &first, &last);
    bt_share(n, block, (int)(cell / right), (int)down, &begin, &end);
    size_t panels = (last - first + VECTORS - 1) / VECTORS;
    for (size_t i = 0; i < panels; i++)
        for (size_t at = begin; at < end; at += step) {
            size_t from = first + (last - first) * i / panels;
            size_t to = first + (last - first) * (i + 1) / panels;
            run(p, &(part){from, to - from, at, smaller(at + step, end)});
        }
}

size_t VEC_NAME(bt_cpu_sparse_scratch)(const bt_launch *launch) {
    size_t dense = VEC_NAME(bt_cpu_matmul_scratch)(launch);
    size_t sparse = SCRATCH_TILES * VECTORS * STRIDE * sizeof(float);
    return dense > sparse ? dense : sparse;
}

void VEC_NAME(bt_cpu_sparse_forward)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_matmul_args);
    if (is_dense(me->nonzeros, args.n, false)) {
        run_dense(launch, me);
        return;
    }
    product p = {.args = &args,
                 .nonzeros = me->nonzeros,
                 .samples = args.m,
                 .units = args.n,
                 .pixels = args.k,
                 .x = bt_cpu_data(launch, 0),
                 .w = bt_cpu_data(launch, 1),
                 .packed = me->packed,
                 .bias = bt_cpu_data(launch, 2),
                 .forward = bt_cpu_data(launch, 3),
                 .y = bt_cpu_data(launch, 4),
                 .tile = (float *)me->scratch,
                 .sums = (float *)me->scratch + VECTORS * STRIDE};
    run_parts(&p, me, forward_part, p.samples, 1, p.packed ? TILE : SAMPLES);
}

void VEC_NAME(bt_cpu_sparse_grad)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_matmul_args);
    bool plain = args.epilogue == BT_MAP_COPY && !bt_cpu_data(launch, 2); // as a gradient is
    if (!plain || is_dense(me->nonzeros, args.m, true)) {
        run_dense(launch, me);
        return;
    }
    product p = {.args = &args,
                 .nonzeros = me->nonzeros,
                 .samples = args.k,
                 .units = args.m,
                 .pixels = args.n,
                 .dz = bt_cpu_data(launch, 0),
                 .x = bt_cpu_data(launch, 1),
                 .dw = bt_cpu_data(launch, 4),
                 .tile = (float *)me->scratch,
                 .sums = (float *)me->scratch + VECTORS * STRIDE};
    run_parts(&p, me, grad_part, p.pixels, TILE, p.pixels);
}

// The weights of the forward product as tiles: [parts of k, tiles, vectors, TILE, LANES].
static size_t tiles_of(size_t k) {
    size_t tiles = 0;
    for (size_t i = 0; i < bt_cpu_depth_cuts(k); i++)
        tiles += (bt_cpu_depth_cut(k, i + 1) - bt_cpu_depth_cut(k, i) + TILE - 1) / TILE;
    return tiles;
}

size_t VEC_NAME(bt_cpu_sparse_packed)(const bt_launch *launch) {
    BT_CPU_ARGS(bt_matmul_args);
    product p = {.units = args.n};
    return tiles_of(args.k) * vectors_of(&p) * STRIDE * sizeof(float);
}

void VEC_NAME(bt_cpu_sparse_pack)(const bt_launch *launch, void *packed) {
    BT_CPU_ARGS(bt_matmul_args);
    product p = {.units = args.n, .pixels = args.k, .w = bt_cpu_data(launch, 1)};
    float *tile = packed;
    for (size_t i = 0; i < bt_cpu_depth_cuts(args.k); i++) {
        size_t end = bt_cpu_depth_cut(args.k, i + 1);
        for (size_t j = bt_cpu_depth_cut(args.k, i); j < end; j += TILE) {
            transpose_weights(&p, 0, vectors_of(&p), j, smaller(end - j, TILE), ~(uint64_t)0, tile);
            tile += vectors_of(&p) * STRIDE;
        }
    }
}
