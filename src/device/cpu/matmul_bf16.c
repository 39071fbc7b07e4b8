// Matrix product of f32 operands that are rounded to bfloat16, with sums in f32, for AVX512-BF16:
// an instruction multiplies 16 pairs of neighbours along k by another pair and adds both products
// to 16 sums. As in matmul_isa.c a tile of the result stays in registers, but both operands are
// always packed, since packing is what rounds them. Every element is summed over k in one order,
// whatever tile it is in, so the bits do not depend on how workers share the result.
#if defined(__AVX512BF16__)
#include "device/cpu/matmul_isa.h"
#include "device/cpu/set.h"
#include "device/cpu/vec_map.h"

enum {
    BLOCK_COLUMNS = 16 * STRIP, // with BT_CPU_DEPTH: 400 KB of the second-level cache
    SUMS = 2 * ROWS,
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

// Piece i of n cut into `pieces` nearly equal ones begins here.
static size_t cut(size_t n, size_t pieces, size_t i) {
    return n * i / pieces;
}

// ---- Packing -----------------------------------------------------------------------------------

// An operand is packed as strips of LANES elements across: for each pair of k a vector of the
// elements' two numbers, the first one in the lower half. An odd depth is filled up with a zero.

VEC_INLINE void store_pairs(int32_t *p, vi pairs) {
    memcpy(p, &pairs, sizeof pairs);
}

// To nearest, ties to even: the bits of low, then those of high. Denormal numbers become 0.
VEC_INLINE vi round_both(vf low, vf high) {
    return (vi)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

VEC_INLINE vi zip(vi halves) {
    typedef int16_t words __attribute__((vector_size(4 * LANES)));
    words w = (words)halves;
    return (vi)__builtin_shufflevector(w, w, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                       31);
}

// By swapping blocks of 1, 2, 4 and 8 on both sides of the diagonal.
VEC_INLINE void transpose(vi v[LANES]) {
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    VEC_UNROLL
    for (int stage = 0; stage < 4; stage++) {
        int block = 1 << stage;
        vi upper = (lane & block) != 0;
        vi low = lane + (upper & (LANES - block)), high = low + block; // of b from LANES on
        VEC_UNROLL
        for (int i = 0; i < LANES; i++) {
            if (i & block) continue;
            __m512i a = (__m512i)v[i], b = (__m512i)v[i + block];
            v[i] = (vi)_mm512_permutex2var_epi32(a, (__m512i)low, b);
            v[i + block] = (vi)_mm512_permutex2var_epi32(a, (__m512i)high, b);
        }
    }
}

// A strip whose elements lie next to each other.
static void pack_near(int32_t *dst, bt_operand src, size_t width, size_t depth) {
    for (size_t p = 0; p < depth; p += 2, dst += LANES) {
        const float *from = src.data + p * src.down;
        vf even = v_load_up_to(from, width), odd = {0};
        if (p + 1 < depth) odd = v_load_up_to(from + src.down, width);
        store_pairs(dst, zip(round_both(even, odd)));
    }
}

// A strip whose elements lie along k. Past the width the last one is repeated.
static void pack_far(int32_t *dst, bt_operand src, size_t width, size_t depth) {
    const float *row[LANES];
    for (size_t i = 0; i < LANES; i++) row[i] = src.data + (i < width ? i : width - 1) * src.across;
    for (size_t p = 0; p < depth; p += 2 * LANES) {
        vi block[LANES];
        size_t left = depth - p, pairs = smaller((left + 1) / 2, LANES);
        VEC_UNROLL
        for (int i = 0; i < LANES; i++) {
            vf low = v_load_up_to(row[i] + p, left), high = {0};
            if (left > LANES) high = v_load_up_to(row[i] + p + LANES, left - LANES);
            block[i] = round_both(low, high);
        }
        transpose(block);
        for (size_t i = 0; i < pairs; i++, dst += LANES) store_pairs(dst, block[i]);
    }
}

// The strips of `width` elements that begin at i across and k down.
static void pack(int32_t *dst, bt_operand src, size_t i, size_t width, size_t k, size_t depth) {
    src.data += i * src.across + k * src.down;
    for (size_t at = 0; at < width; at += LANES, dst += (depth + 1) / 2 * LANES) {
        if (src.across == 1)
            pack_near(dst, src, smaller(width - at, LANES), depth);
        else
            pack_far(dst, src, smaller(width - at, LANES), depth);
        src.data += LANES * src.across;
    }
}

// ---- Tiles -------------------------------------------------------------------------------------

// c = (or, with add, +=) the product of a strip of a, of which the first rows count, and one or two
// strips of b.
typedef struct tile {
    size_t pairs, columns;
    const int32_t *a, *b;
    float *c;
    size_t c_down;
    bool add;
} tile;

VEC_INLINE vf add_pairs(vf sum, int32_t a, vi b) {
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
}

VEC_INLINE void multiply_strips(int rows, int vectors, const tile *t, vf sum[SUMS]) {
    const int32_t *a = t->a, *b = t->b;
    const size_t strip = t->pairs * LANES;
    VEC_UNROLL
    for (int i = 0; i < rows * vectors; i++) sum[i] = (vf){0};
    for (size_t p = t->pairs; p > 0; p--, a += LANES, b += LANES) {
        vi column[2];
        VEC_UNROLL
        for (int v = 0; v < vectors; v++)
            memcpy(&column[v], b + (size_t)v * strip, sizeof column[v]);
        VEC_UNROLL
        for (int r = 0; r < rows; r++) {
            VEC_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[r * vectors + v] = add_pairs(sum[r * vectors + v], a[r], column[v]);
        }
    }
}

// c = (or, with add, +=) the sums; `part`: the last vector of each row has `left` < LANES columns.
VEC_INLINE void store(int rows, int vectors, const tile *t, bool part, size_t left, vf sum[SUMS]) {
    float *c = t->c;
    const size_t down = t->c_down;
    const bool add = t->add;
    VEC_UNROLL
    for (int i = 0; i < rows * vectors; i++) {
        int v = i % vectors;
        float *to = c + (size_t)(i / vectors) * down + v * LANES;
        size_t width = part && v == vectors - 1 ? left : LANES;
        if (add) sum[i] += v_load_up_to(to, width);
        v_store_up_to(to, sum[i], width);
    }
}

VEC_INLINE void compute(int rows, int vectors, const tile *t) {
    vf sum[SUMS];
    size_t left = t->columns - (size_t)(vectors - 1) * LANES;
    multiply_strips(rows, vectors, t, sum);
    if (left < LANES)
        store(rows, vectors, t, true, left, sum);
    else
        store(rows, vectors, t, false, LANES, sum);
}

// A function for each number of rows, and a table of them.
#define TO_14(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#define TILES(r)                         \
    static void one_##r(const tile *t) { \
        compute(r, 1, t);                \
    }                                    \
    static void two_##r(const tile *t) { \
        compute(r, 2, t);                \
    }
#define LINE(r) [r] = {one_##r, two_##r},
TO_14(TILES)

static void multiply_tile(size_t rows, const tile *t) {
    typedef void (*tile_fn)(const tile *t);
    static const tile_fn functions[ROWS + 1][2] = {TO_14(LINE)};
    functions[rows][t->columns > LANES](t);
}

// ---- Products ----------------------------------------------------------------------------------

// One product, or the rectangle of it that is a worker's.
typedef struct product {
    size_t m, n, k; // of the whole
    bt_operand a, b;
    bt_tile_end end; // of the whole's first element
    float *y;
    bt_product_share part;
    int32_t *packed_a, *packed_b;
} product;

// Columns of b, packed, for one range of k.
typedef struct block {
    size_t column, columns, k, depth;
} block;

// y = epilogue(sum + bias), for what is in the caches still.
static void finish_row(const product *p, size_t row, size_t column, size_t width) {
    const bt_tile_end *end = &p->end;
    size_t at = row * p->n + column;
    float *y = p->y + at;
    if (end->bias) {
        const float *bias = end->bias + (end->bias_of_rows ? row : column);
        v_map_row(BT_MAP_ADD, (bt_cpu_row){y, bias, 1, !end->bias_of_rows, y}, width);
    }
    if (end->forward)
        v_map_row(end->epilogue, (bt_cpu_row){end->forward + at, y, 1, 1, y}, width);
    else if (end->epilogue != BT_MAP_COPY)
        v_map_row(end->epilogue, (bt_cpu_row){y, NULL, 1, 0, y}, width);
}

// Rows of a, which stay in the first-level cache, by a block of columns.
static void multiply_rows(const product *p, const block *at, size_t row, size_t rows) {
    tile t = {.pairs = (at->depth + 1) / 2, .a = p->packed_a, .b = p->packed_b};
    t.c_down = p->n, t.add = at->k > 0;
    pack(p->packed_a, p->a, row, rows, at->k, at->depth);
    for (size_t j = 0; j < at->columns; j += STRIP, t.b += STRIP * t.pairs) {
        t.columns = smaller(at->columns - j, STRIP);
        t.c = p->y + row * p->n + at->column + j;
        multiply_tile(rows, &t);
    }
    if (at->k + at->depth < p->k) return;
    for (size_t i = row; i < row + rows; i++) finish_row(p, i, at->column, at->columns);
}

static void multiply_block(const product *p, const block *at) {
    size_t rows = p->part.row_end - p->part.row, panels = (rows + ROWS - 1) / ROWS;
    pack(p->packed_b, p->b, at->column, at->columns, at->k, at->depth);
    for (size_t i = 0; i < panels; i++) {
        size_t from = cut(rows, panels, i);
        multiply_rows(p, at, p->part.row + from, cut(rows, panels, i + 1) - from);
    }
}

static void multiply(const product *p) {
    size_t cuts = bt_cpu_depth_cuts(p->k);
    block at;
    for (at.column = p->part.column; at.column < p->part.column_end; at.column += at.columns) {
        at.columns = smaller(p->part.column_end - at.column, BLOCK_COLUMNS);
        for (size_t part = 0; part < cuts; part++) {
            at.k = bt_cpu_depth_cut(p->k, part);
            at.depth = bt_cpu_depth_cut(p->k, part + 1) - at.k;
            multiply_block(p, &at);
        }
    }
}

// Product `batch` of several. With k = 0 there is nothing to multiply and the sums are 0, as those
// of a product of depth 1 with zeros.
static void multiply_batch(product p, const bt_matmul_args *args, size_t batch, bool swapped) {
    static const float zero[1];
    size_t b1 = batch / args->batch2, b2 = batch % args->batch2, at = batch * p.m * p.n;
    bt_operand *a = swapped ? &p.b : &p.a, *b = swapped ? &p.a : &p.b;
    a->data += b1 * args->a_step[0] + b2 * args->a_step[1];
    b->data += b1 * args->b_step[0] + b2 * args->b_step[1];
    p.y += at;
    if (p.end.forward) p.end.forward += at;
    if (p.k == 0) {
        p.k = 1;
        p.a = p.b = (bt_operand){zero, 0, 0};
    }
    multiply(&p);
}

// Bytes of a strip of the greatest depth.
static size_t strip_bytes(uint32_t k) {
    return (smaller(k, BT_CPU_DEPTH) / 2 + 1) * LANES * sizeof(int32_t);
}

size_t bt_cpu_matmul_bf16_scratch(const bt_launch *launch) {
    BT_CPU_ARGS(bt_matmul_args);
    size_t columns = smaller(args.n == 1 ? args.m : args.n, BLOCK_COLUMNS);
    return (1 + (columns + LANES - 1) / LANES) * strip_bytes(args.k);
}

// The product as the launch has it, or, of a single column, with the operands swapped: the same
// numbers as a single row, which fills the vectors.
static product product_of(const bt_launch *launch, const bt_matmul_args *args, bool swapped) {
    size_t m = args->m, n = args->n, k = args->k;
    bt_operand a = {bt_cpu_data(launch, 0), args->transpose_a ? 1 : k, args->transpose_a ? m : 1};
    bt_operand b = {bt_cpu_data(launch, 1), args->transpose_b ? k : 1, args->transpose_b ? 1 : n};
    return (product){
        .m = swapped ? n : m,
        .n = swapped ? m : n,
        .k = k,
        .a = swapped ? b : a,
        .b = swapped ? a : b,
        .end = {args->epilogue, bt_cpu_data(launch, 2), bt_cpu_data(launch, 3), swapped},
        .y = bt_cpu_data(launch, 4),
    };
}

void bt_cpu_matmul_bf16(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_matmul_args);
    size_t batches = (size_t)args.batch1 * args.batch2;
    bool swapped = args.n == 1;
    product p = product_of(launch, &args, swapped);
    if (!VEC_NAME(bt_cpu_product_share)(me, batches, p.m, p.n, 0.25, &p.part)) return;
    p.packed_a = (int32_t *)me->scratch;
    p.packed_b = (int32_t *)(me->scratch + strip_bytes(args.k));
    for (size_t batch = p.part.first; batch < p.part.last; batch++)
        multiply_batch(p, &args, batch, swapped);
}

#endif
