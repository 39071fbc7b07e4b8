// Matrix product in single precision, after BLIS (Van Zee and van de Geijn, 2015): a tile of the
// result stays in registers while packed strips of both operands stream by; the strip of b stays
// in the first-level cache, the block of a in the second. Workers share the result as a grid of
// rectangles. Every element is summed over k in one order, whatever tile it is in, so the bits do
// not depend on the grid.
#include "device/cpu/matmul_isa.h"
#include "device/cpu/vec_map.h"

enum {
    BLOCK_ROWS = 24 * ROWS,          // with BT_CPU_DEPTH: half of a second-level cache of 512 KB
    BLOCK_COLUMNS = 128 * STRIP,     // a few megabytes of the third-level cache
    PACKED_COLUMNS = WIDEST * STRIP, // at once, at least
    GROUP_FLOATS = 6 * 1024,         // most of a first-level cache of 32 KB
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

// One product, or the rectangle of it that is a worker's.
typedef struct product {
    size_t m, n, k; // of the whole
    bt_operand a, b;
    bt_tile_end end; // of the whole's first element
    float *y;
    bt_product_share part;
    float *packed_a, *packed_b;
} product;

// A block of a rectangle for one range of k.
typedef struct block {
    size_t row, rows, column, columns, k, depth;
    size_t group; // columns that go by together
    bool packs_a;
} block;

// Piece i of n cut into `pieces` nearly equal ones.
static size_t cut(size_t n, size_t pieces, size_t i) {
    return n * i / pieces;
}

// The part of an operand that begins at i across and k down.
static bt_operand part_of(bt_operand whole, size_t i, size_t k) {
    whole.data += i * whole.across + k * whole.down;
    return whole;
}

// Packing pays when a strip is used again and again: most where it lies in a narrow band, at
// distances that fall on the same cache lines, or across these. The numbers were found by
// measurement on small and large shapes.
static bool pack_a_pays(const product *p, size_t columns) {
    if (p->a.across == 1) return columns >= 16 * STRIP;
    return columns > 32 * STRIP || (columns > 8 * STRIP && p->a.across % 256 == 0);
}
static bool pack_b_pays(const product *p, size_t width, size_t depth) {
    size_t rows = p->part.row_end - p->part.row;
    bool far = p->b.down % 256 == 0 || p->b.down > 1024;
    bool ragged = width % LANES != 0 && !BT_TILE_MASKS;
    return p->b.across != 1 || ragged || rows > 16 * ROWS ||
           (rows > 4 * ROWS && depth > 128 && far);
}

// Columns that go by together for each panel: strips of b that the first-level cache holds, or that
// a tile spans.
static size_t group_columns(size_t rows, size_t depth) {
    size_t fit = GROUP_FLOATS / (depth * STRIP), least = rows <= WIDE_ROWS ? WIDEST : 1;
    return (fit > least ? fit : least) * STRIP;
}

// The panels that the rows of a block are cut into, of nearly the same height.
typedef struct panels {
    size_t count, height, higher; // so many of the first ones have one row more
} panels;

static panels cut_rows(size_t rows) {
    size_t count = (rows + ROWS - 1) / ROWS;
    return (panels){count, rows / count, rows % count};
}

static void pack_panels(const product *p, const block *at) {
    panels all = cut_rows(at->rows);
    size_t higher = all.higher * (all.height + 1);
    VEC_NAME(bt_cpu_pack)
    (p->packed_a, all.height + 1, part_of(p->a, at->row, at->k), higher, at->depth);
    VEC_NAME(bt_cpu_pack)
    (p->packed_a + higher * at->depth, all.height, part_of(p->a, at->row + higher, at->k),
     at->rows - higher, at->depth);
}

// Rows `row`... of a by a group of columns, as many strips at once as a tile may span. `tile` has
// its rows of a and the first strip of b.
static void multiply_panel(const product *p, size_t row, size_t column, size_t width,
                           bt_tile tile) {
    size_t wide = tile.rows <= WIDE_ROWS ? bt_tile_strips(tile.rows) * STRIP : STRIP;
    tile.c = p->y + row * p->n + column;
    tile.end = p->end;
    if (p->end.forward) tile.end.forward += row * p->n + column;
    if (p->end.bias) tile.end.bias += p->end.bias_of_rows ? row : column;
    for (size_t left = width; left > 0; left -= tile.columns) {
        tile.columns = left >= wide ? wide : smaller(left, STRIP);
        VEC_NAME(bt_cpu_tile)(&tile);
        tile.b += tile.columns / STRIP * tile.b_strip;
        tile.c += tile.columns;
        if (tile.end.forward) tile.end.forward += tile.columns;
        if (tile.end.bias && !tile.end.bias_of_rows) tile.end.bias += tile.columns;
    }
}

// Fetches one of `parts` parts of the packed group of b after `b`, which lies in the third-level
// cache.
static void fetch_ahead(const float *b, size_t floats, size_t part, size_t parts) {
    size_t end = cut(floats, parts, part + 1);
    for (size_t i = cut(floats, parts, part); i < end; i += 16)
        __builtin_prefetch(b + floats + i, 0, 2);
}

// The rows of a block by a group of columns. `tile` has the first strip of b.
static void multiply_panels(const product *p, const block *at, size_t column, size_t width,
                            bt_tile tile) {
    panels all = cut_rows(at->rows);
    for (size_t i = 0, from = 0; i < all.count; i++) {
        tile.rows = all.height + (i < all.higher);
        tile.a = part_of(p->a, at->row + from, at->k);
        if (at->packs_a) tile.a = (bt_operand){p->packed_a + from * at->depth, 1, tile.rows};
        if (tile.b_down == STRIP && at->row > p->part.row)
            fetch_ahead(tile.b, width * at->depth, i, all.count);
        multiply_panel(p, at->row + from, column, width, tile);
        from += tile.rows;
    }
}

// The same for columns of b that are packed together, if that pays: by the first block of rows, to
// be kept for the others where there are any.
static void multiply_columns(const product *p, const block *at, size_t column, size_t width) {
    bool keeps = p->part.row_end - p->part.row > BLOCK_ROWS,
         packs = pack_b_pays(p, width, at->depth);
    float *packed = p->packed_b + (keeps ? (column - at->column) * at->depth : 0);
    bt_tile tile = {.depth = at->depth, .c_down = p->n, .add = at->k > 0};
    tile.last = at->k + at->depth == p->k;
    tile.b_down = packs ? STRIP : p->b.down;
    tile.b_strip = packs ? STRIP * at->depth : STRIP;
    if (packs && at->row == p->part.row)
        VEC_NAME(bt_cpu_pack)(packed, STRIP, part_of(p->b, column, at->k), width, at->depth);
    for (size_t j = 0; j < width; j += at->group) {
        tile.b = packs ? packed + j * at->depth : part_of(p->b, column + j, at->k).data;
        multiply_panels(p, at, column + j, smaller(width - j, at->group), tile);
    }
}

static void multiply(const product *p) {
    size_t cuts = bt_cpu_depth_cuts(p->k);
    block at;
    for (at.column = p->part.column; at.column < p->part.column_end; at.column += at.columns) {
        at.columns = smaller(p->part.column_end - at.column, BLOCK_COLUMNS);
        at.packs_a = pack_a_pays(p, at.columns);
        for (size_t part = 0; part < cuts; part++) {
            at.k = bt_cpu_depth_cut(p->k, part);
            at.depth = bt_cpu_depth_cut(p->k, part + 1) - at.k;
            at.group = group_columns(p->part.row_end - p->part.row, at.depth);
            size_t together = at.group > PACKED_COLUMNS ? at.group : PACKED_COLUMNS;
            for (at.row = p->part.row; at.row < p->part.row_end; at.row += at.rows) {
                at.rows = smaller(p->part.row_end - at.row, BLOCK_ROWS);
                if (at.packs_a) pack_panels(p, &at);
                for (size_t j = 0; j < at.columns; j += together)
                    multiply_columns(p, &at, at.column + j, smaller(at.columns - j, together));
            }
        }
    }
}

// One row by columns that lie along k.
static void multiply_row(product p) {
    size_t cuts = bt_cpu_depth_cuts(p.k), width = p.part.column_end - p.part.column;
    size_t whole = width - width % BT_ROW_COLUMNS;
    float *y = p.y + p.part.column;
    for (size_t part = 0; part < cuts; part++) {
        size_t k = bt_cpu_depth_cut(p.k, part), end = bt_cpu_depth_cut(p.k, part + 1);
        VEC_NAME(bt_cpu_row_product)
        (y, p.a.data + k, part_of(p.b, p.part.column, k), whole, end - k, part > 0);
    }
    if (p.end.bias) {
        const float *bias = p.end.bias + (p.end.bias_of_rows ? 0 : p.part.column);
        v_map_row(BT_MAP_ADD, (bt_cpu_row){y, bias, 1, !p.end.bias_of_rows, y}, whole);
    }
    if (p.end.forward)
        v_map_row(p.end.epilogue, (bt_cpu_row){p.end.forward + p.part.column, y, 1, 1, y}, whole);
    else if (p.end.epilogue != BT_MAP_COPY)
        v_map_row(p.end.epilogue, (bt_cpu_row){y, NULL, 1, 0, y}, whole);
    p.part.column += whole;
    multiply(&p);
}

// Product `batch` of several. With k = 0 there is nothing to multiply and the sums are 0, as those
// of a product of depth 1 with zeros.
static void multiply_batch(product p, const bt_matmul_args *args, size_t batch) {
    static const float zero[1];
    size_t b1 = batch / args->batch2, b2 = batch % args->batch2, at = batch * p.m * p.n;
    bool swapped = p.end.bias_of_rows;
    bt_operand *a = swapped ? &p.b : &p.a, *b = swapped ? &p.a : &p.b;
    a->data += b1 * args->a_step[0] + b2 * args->a_step[1];
    b->data += b1 * args->b_step[0] + b2 * args->b_step[1];
    p.y += at;
    if (p.end.forward) p.end.forward += at;
    if (p.k == 0) {
        p.k = 1;
        *a = *b = (bt_operand){zero, 0, 0};
    }
    // (Many rows at a time, which such distances would put into the same cache lines.)
    bool apart = p.b.across > 1 && p.b.across % 256 != 0;
    if (p.m == 1 && p.b.down == 1 && apart)
        multiply_row(p);
    else
        multiply(&p);
}

static size_t packed_a_floats(const bt_matmul_args *args) {
    size_t depth = smaller((size_t)args->k + 1, BT_CPU_DEPTH);
    return (smaller(args->m, BLOCK_ROWS) * depth + SLACK + 63) / 64 * 64;
}

size_t VEC_NAME(bt_cpu_matmul_scratch)(const bt_launch *launch) {
    BT_CPU_ARGS(bt_matmul_args);
    size_t n = args.n == 1 ? args.m : args.n, m = args.n == 1 ? 1 : args.m;
    size_t columns = smaller((n + STRIP - 1) / STRIP * STRIP, BLOCK_COLUMNS);
    size_t depth = smaller((size_t)args.k + 1, BT_CPU_DEPTH), floats = columns * depth;
    if (m <= BLOCK_ROWS) floats = smaller(floats, PACKED_COLUMNS * depth + GROUP_FLOATS);
    return (packed_a_floats(&args) + floats + SLACK) * sizeof(float);
}

// The cheapest way to cut the result into down x right rectangles, one a worker: arithmetic of
// the largest, and packing of its operands.
static void choose_grid(size_t m, size_t n, size_t workers, double packing, size_t *down,
                        size_t *right) {
    double best = 0;
    size_t strips = (n + STRIP - 1) / STRIP;
    for (size_t d = 1; d <= workers; d++) {
        size_t r = workers / d;
        double rows = (double)((m + d - 1) / d), columns = (double)((strips + r - 1) / r) * STRIP;
        double cycles = rows * columns / (2 * LANES) + (rows + columns) * packing;
        if (d > 1 && cycles >= best) continue;
        best = cycles;
        *down = d;
        *right = r;
    }
}

bool VEC_NAME(bt_cpu_product_share)(const bt_cpu_worker *me, size_t batches, size_t m, size_t n,
                                    double packing, bt_product_share *out) {
    size_t workers = (size_t)me->count, down = 1, right = 1, cell = 0;
    *out = (bt_product_share){.last = batches};
    if (m == 0 || n == 0) return false;
    if (batches >= workers)
        bt_cpu_share(me, batches, 1, &out->first, &out->last);
    else {
        choose_grid(m, n, workers, packing, &down, &right);
        cell = (size_t)me->index;
        if (cell >= down * right) return false;
    }
    size_t strips = (n + STRIP - 1) / STRIP, i = cell / right, j = cell % right;
    out->row = cut(m, down, i);
    out->row_end = cut(m, down, i + 1);
    out->column = cut(strips, right, j) * STRIP;
    out->column_end = smaller(cut(strips, right, j + 1) * STRIP, n);
    return true;
}

// Columns times one row: the same numbers as the row times the columns, which fills the vectors.
static void swap_operands(product *p) {
    bt_operand a = p->a;
    p->a = p->b;
    p->b = a;
    p->n = p->m;
    p->m = 1;
    p->end.bias_of_rows = !p->end.bias_of_rows;
}

void VEC_NAME(bt_cpu_matmul)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_matmul_args);
    size_t m = args.m, n = args.n, k = args.k, batches = (size_t)args.batch1 * args.batch2;
    float *packed_a = (float *)me->scratch;
    product p = {
        .m = m,
        .n = n,
        .k = k,
        .a = {bt_cpu_data(launch, 0), args.transpose_a ? 1 : k, args.transpose_a ? m : 1},
        .b = {bt_cpu_data(launch, 1), args.transpose_b ? k : 1, args.transpose_b ? 1 : n},
        .end = {args.epilogue, bt_cpu_data(launch, 2), bt_cpu_data(launch, 3), false},
        .y = bt_cpu_data(launch, 4),
        .packed_a = packed_a,
        .packed_b = packed_a + packed_a_floats(&args),
    };
    if (n == 1) swap_operands(&p);
    if (!VEC_NAME(bt_cpu_product_share)(me, batches, p.m, p.n, 0.5, &p.part)) return;
    for (size_t batch = p.part.first; batch < p.part.last; batch++) multiply_batch(p, &args, batch);
}
