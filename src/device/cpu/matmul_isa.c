// Matrix product in single precision, after BLIS (Van Zee and van de Geijn, 2015): a tile of the
// result stays in registers while packed strips of both operands stream by; the strip of b stays
// in the first-level cache, the block of a in the second. Workers share the result as a grid of
// rectangles. Every element is summed over k in one order, whatever tile it is in, so the bits do
// not depend on the grid.
#include "device/cpu/kernels_isa.h"
#include "device/cpu/vec_map.h"

enum {
    STRIP = 2 * LANES, // columns of a tile
    ROWS = LANES == 16  ? 14
           : LANES == 8 ? 6
                        : 4, // of a tile: as many as registers hold
    DEPTH = 320,             // of k at a time, at most
    BLOCK_ROWS = 24 * ROWS,
    BLOCK_COLUMNS = 32 * STRIP,
    SLACK = 4, // packing may write so far past its end
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

// An operand seen as strips: element (i across the strip, p along k) is at i across + p down.
typedef struct operand {
    const float *data;
    size_t across, down;
} operand;

// One product, or the rectangle of it that is a worker's.
typedef struct product {
    const bt_matmul_args *args;
    operand a, b;
    const float *bias, *forward;
    float *y;
    size_t row, row_end, column, column_end;
} product;

// dst [depth, pitch] = 4 x 4 blocks of src [width, depth] transposed; k down, width across.
static void pack_transposed(float *dst, size_t pitch, operand src, size_t width, size_t depth) {
    for (size_t p = 0; p + 4 <= depth; p += 4)
        // From the right, since a block may spill into the first columns of the next row.
        for (size_t i = (width - 1) / 4 * 4 + 4; i >= 4; i -= 4) {
            const float *from = src.data + (i - 4) * src.across + p;
            size_t left = width - (i - 4);
            v4 r0, r1 = {0}, r2 = {0}, r3 = {0};
            memcpy(&r0, from, 16);
            if (left > 1) memcpy(&r1, from + src.across, 16);
            if (left > 2) memcpy(&r2, from + 2 * src.across, 16);
            if (left > 3) memcpy(&r3, from + 3 * src.across, 16);
            v4 a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
            v4 b = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
            v4 c = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
            v4 d = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
            v4 row[4] = {__builtin_shufflevector(a, c, 0, 1, 4, 5),
                         __builtin_shufflevector(a, c, 2, 3, 6, 7),
                         __builtin_shufflevector(b, d, 0, 1, 4, 5),
                         __builtin_shufflevector(b, d, 2, 3, 6, 7)};
            for (int j = 0; j < 4; j++) memcpy(dst + (p + (size_t)j) * pitch + i - 4, &row[j], 16);
        }
    for (size_t p = depth - depth % 4; p < depth; p++)
        for (size_t i = 0; i < width; i++) dst[p * pitch + i] = src.data[i * src.across + p];
}

// dst [depth, pitch]: the strip of `width` <= pitch, with zeros up to the pitch.
static void pack(float *dst, size_t pitch, operand src, size_t width, size_t depth) {
    if (src.down == 1 && src.across != 1) {
        pack_transposed(dst, pitch, src, width, depth);
    } else {
        for (size_t p = 0; p < depth; p++) {
            const float *from = src.data + p * src.down;
            float *to = dst + p * pitch;
            size_t i = 0;
            for (; i + LANES <= width; i += LANES) v_store(to + i, v_load(from + i));
            for (; i + 4 <= width; i += 4) memcpy(to + i, from + i, 16);
            for (; i < width; i++) to[i] = from[i];
        }
    }
    for (size_t p = 0; width < pitch && p < depth; p++)
        memset(dst + p * pitch + width, 0, (pitch - width) * sizeof *dst);
}

// c [rows, columns] = (or, with add, +=) the product of `depth` columns of a and rows of b.
VEC_INLINE void tile(const int rows, const int vectors, size_t depth, operand a, operand b,
                     float *c, size_t c_down, size_t columns, bool add) {
    vf sum[ROWS][2];
    VEC_UNROLL
    for (int r = 0; r < rows; r++) {
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) {
            sum[r][v] = (vf){0};
            __builtin_prefetch(c + (size_t)r * c_down + v * LANES, 1);
        }
    }
    for (size_t p = 0; p < depth; p++, a.data += a.down, b.data += b.down) {
        vf right[2];
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) right[v] = v_load(b.data + v * LANES);
        VEC_UNROLL
        for (int r = 0; r < rows; r++) {
            vf left = v_set(a.data[(size_t)r * a.across]);
            VEC_UNROLL
            for (int v = 0; v < vectors; v++) sum[r][v] = v_fma(left, right[v], sum[r][v]);
        }
    }
    VEC_UNROLL
    for (int r = 0; r < rows; r++) {
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) {
            float *to = c + (size_t)r * c_down + v * LANES;
            size_t n = columns - (size_t)v * LANES;
            if (add) sum[r][v] += v_load_up_to(to, n);
            v_store_up_to(to, sum[r][v], n);
        }
    }
}

// The tile functions are unrolled for each number of rows, so that no row is computed in vain.
static VEC_ALONE void any_tile(int rows, size_t depth, operand a, operand b, float *c,
                               size_t c_down, size_t columns, bool add) {
    const operand close = {a.data, 1, a.down}; // with the distance known to the compiler
#define CASE(r)                                                   \
    case r:                                                       \
        if (columns > LANES && a.across == 1)                     \
            tile(r, 2, depth, close, b, c, c_down, columns, add); \
        else if (columns > LANES)                                 \
            tile(r, 2, depth, a, b, c, c_down, columns, add);     \
        else                                                      \
            tile(r, 1, depth, a, b, c, c_down, columns, add);     \
        break
    switch (rows) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
#if defined(__AVX2__)
        CASE(5);
        CASE(6);
#endif
#if defined(__AVX512F__)
        CASE(7);
        CASE(8);
        CASE(9);
        CASE(10);
        CASE(11);
        CASE(12);
        CASE(13);
        CASE(14);
#endif
    }
#undef CASE
}

// Adds the bias to rows of the finished result and applies the epilogue.
static void finish(const product *p, size_t row, size_t rows, size_t column, size_t columns) {
    size_t n = p->args->n;
    for (size_t r = row; r < row + rows; r++) {
        float *y = p->y + r * n + column;
        if (p->bias) v_map_row(BT_MAP_ADD, (bt_cpu_row){y, p->bias + column, 1, 1, y}, columns);
        if (p->forward)
            v_map_row(p->args->epilogue, (bt_cpu_row){p->forward + r * n + column, y, 1, 1, y},
                      columns);
        else if (p->args->epilogue != BT_MAP_COPY)
            v_map_row(p->args->epilogue, (bt_cpu_row){y, NULL, 1, 0, y}, columns);
    }
}

// Piece i of n cut into `pieces` nearly equal ones.
static size_t cut(size_t n, size_t pieces, size_t i) {
    return n * i / pieces;
}

// The part of an operand that begins at i across and k down.
static operand part_of(operand whole, size_t i, size_t k) {
    whole.data += i * whole.across + k * whole.down;
    return whole;
}

// Packing pays when a strip is used again and again, and would not fit the first-level cache as
// it lies: deep and narrow, or with rows at distances that fall on the same cache lines. The
// numbers were found by measurement on small and large shapes.
static bool pack_a_pays(const product *p, size_t columns, size_t depth) {
    return columns > 8 * STRIP && (p->a.across == 1 ? depth > 128 : p->a.across % 256 == 0);
}
static bool pack_b_pays(const product *p, size_t width, size_t depth) {
    bool deep = p->row_end - p->row > 4 * ROWS && depth > 128;
    bool far = p->b.down % 256 == 0 || p->b.down > 1024;
    return p->b.across != 1 || width % LANES != 0 || (deep && far);
}

// A rectangle of the result for one range of k. b: packed strips, or the rows of b in place.
typedef struct block {
    size_t row, rows, column, columns, k, depth;
    float *packed_a, *packed_b;
} block;

static void multiply_rows(const product *p, const block *at) {
    size_t n = p->args->n, depth = at->depth, panels = (at->rows + ROWS - 1) / ROWS;
    bool packs = pack_a_pays(p, at->columns, depth);
    for (size_t i = 0; packs && i < panels; i++) {
        size_t from = cut(at->rows, panels, i), height = cut(at->rows, panels, i + 1) - from;
        pack(at->packed_a + from * depth, height, part_of(p->a, at->row + from, at->k), height,
             depth);
    }
    for (size_t j = 0; j < at->columns; j += STRIP) {
        size_t width = smaller(at->columns - j, STRIP);
        operand b = {at->packed_b + j * depth, 1, STRIP};
        if (!pack_b_pays(p, width, depth)) b = part_of(p->b, at->column + j, at->k);
        for (size_t i = 0; i < panels; i++) {
            size_t from = cut(at->rows, panels, i), height = cut(at->rows, panels, i + 1) - from;
            operand a = {at->packed_a + from * depth, 1, height};
            if (!packs) a = part_of(p->a, at->row + from, at->k);
            any_tile((int)height, depth, a, b, p->y + (at->row + from) * n + at->column + j, n,
                     width, at->k > 0);
        }
    }
    if (at->k + depth == p->args->k) finish(p, at->row, at->rows, at->column, at->columns);
}

static void multiply(const product *p, float *packed_a, float *packed_b) {
    size_t k_all = p->args->k, cuts = (k_all + DEPTH - 1) / DEPTH;
    block at = {.packed_a = packed_a, .packed_b = packed_b};
    for (at.column = p->column; at.column < p->column_end; at.column += BLOCK_COLUMNS) {
        at.columns = smaller(p->column_end - at.column, BLOCK_COLUMNS);
        for (size_t part = 0; part < cuts; part++) {
            at.k = cut(k_all, cuts, part);
            at.depth = cut(k_all, cuts, part + 1) - at.k;
            for (size_t j = 0; j < at.columns; j += STRIP) {
                size_t width = smaller(at.columns - j, STRIP);
                if (pack_b_pays(p, width, at.depth))
                    pack(packed_b + j * at.depth, STRIP, part_of(p->b, at.column + j, at.k), width,
                         at.depth);
            }
            for (at.row = p->row; at.row < p->row_end; at.row += BLOCK_ROWS) {
                at.rows = smaller(p->row_end - at.row, BLOCK_ROWS);
                multiply_rows(p, &at);
            }
        }
    }
}

// k = 0: there is nothing to multiply, the sums are 0.
static void multiply_nothing(const product *p) {
    for (size_t r = p->row; r < p->row_end; r++)
        memset(p->y + r * p->args->n + p->column, 0, (p->column_end - p->column) * sizeof *p->y);
    if (p->row < p->row_end)
        finish(p, p->row, p->row_end - p->row, p->column, p->column_end - p->column);
}

static size_t packed_a_floats(const bt_matmul_args *args) {
    return (smaller(args->m, BLOCK_ROWS) * smaller(args->k, DEPTH) + SLACK + 63) / 64 * 64;
}

size_t VEC_NAME(bt_cpu_matmul_scratch)(const bt_launch *launch) {
    BT_CPU_ARGS(bt_matmul_args);
    size_t columns = smaller(((size_t)args.n + STRIP - 1) / STRIP * STRIP, BLOCK_COLUMNS);
    return (packed_a_floats(&args) + columns * smaller(args.k, DEPTH) + SLACK) * sizeof(float);
}

// The cheapest way to cut the result into down x right rectangles, one a worker: arithmetic of
// the largest, and packing of its operands at two elements a cycle.
static void choose_grid(size_t m, size_t n, size_t workers, size_t *down, size_t *right) {
    double best = 0;
    size_t strips = (n + STRIP - 1) / STRIP;
    for (size_t d = 1; d <= workers; d++) {
        size_t r = workers / d;
        double rows = (double)((m + d - 1) / d), columns = (double)((strips + r - 1) / r) * STRIP;
        double cycles = rows * columns / (2 * LANES) + (rows + columns) / 2;
        if (d > 1 && cycles >= best) continue;
        best = cycles;
        *down = d;
        *right = r;
    }
}

void VEC_NAME(bt_cpu_matmul)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_matmul_args);
    const float *a = bt_cpu_data(launch, 0), *b = bt_cpu_data(launch, 1);
    const float *forward = bt_cpu_data(launch, 3);
    float *y = bt_cpu_data(launch, 4), *packed_a = (float *)me->scratch;
    size_t m = args.m, n = args.n, batches = (size_t)args.batch1 * args.batch2;
    size_t workers = (size_t)me->count, down = 1, right = 1, first = 0, last = batches, cell = 0;
    float *packed_b = packed_a + packed_a_floats(&args);
    if (m == 0 || n == 0) return;
    if (batches >= workers)
        bt_cpu_share(me, batches, 1, &first, &last);
    else {
        choose_grid(m, n, workers, &down, &right);
        cell = (size_t)me->index;
        if (cell >= down * right) return;
    }
    size_t i = cell / right, j = cell % right, strips = (n + STRIP - 1) / STRIP;
    size_t column_end = cut(strips, right, j + 1) * STRIP;
    for (size_t batch = first; batch < last; batch++) {
        size_t b1 = batch / args.batch2, b2 = batch % args.batch2;
        product p = {
            .args = &args,
            .a = {a + b1 * args.a_step[0] + b2 * args.a_step[1], args.transpose_a ? 1 : args.k,
                  args.transpose_a ? m : 1},
            .b = {b + b1 * args.b_step[0] + b2 * args.b_step[1], args.transpose_b ? args.k : 1,
                  args.transpose_b ? 1 : n},
            .bias = bt_cpu_data(launch, 2),
            .forward = forward ? forward + batch * m * n : NULL,
            .y = y + batch * m * n,
            .row = cut(m, down, i),
            .row_end = cut(m, down, i + 1),
            .column = cut(strips, right, j) * STRIP,
            .column_end = column_end < n ? column_end : n,
        };
        if (args.k == 0)
            multiply_nothing(&p);
        else
            multiply(&p, packed_a, packed_b);
    }
}
