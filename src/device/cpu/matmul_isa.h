// The parts of the matrix product of one instruction set: tiles of the result that stay in
// registers (matmul_tile_isa.c), packing of operands (matmul_pack_isa.c), and what cuts a product
// into both (matmul_isa.c).
#ifndef BT_DEVICE_CPU_MATMUL_ISA_H
#define BT_DEVICE_CPU_MATMUL_ISA_H

#include "device/cpu/kernels_isa.h"

enum {
    STRIP = 2 * LANES, // columns of a tile
    ROWS = LANES == 16  ? 14
           : LANES == 8 ? 6
                        : 4, // of a tile: as many as registers hold
    WIDE_ROWS = 3,           // tiles of at most so many rows may span several strips
    WIDEST = 4,              // strips
    SLACK = 16,              // floats that packing may write past its end
};

// An operand seen as strips: element (i across the strip, p along k) is at i across + p down.
typedef struct bt_operand {
    const float *data;
    size_t across, down;
} bt_operand;

// What becomes of finished sums: y = epilogue(sum + bias).
typedef struct bt_tile_end {
    uint32_t epilogue;
    const float *bias;    // of the tile's first column, or row where bias_of_rows; NULL: none
    const float *forward; // the epilogue's first operand, laid out as c; NULL: it has only one
    bool bias_of_rows;
} bt_tile_end;

// c [rows, columns] = (or, with add, +=) the product of `depth` columns of a and rows of b. The
// columns of b lie in strips, b_strip from each other.
typedef struct bt_tile {
    size_t depth, rows, columns;
    bt_operand a;
    const float *b;
    size_t b_down, b_strip;
    float *c;
    size_t c_down;
    bool add, last; // last: with `end`
    bt_tile_end end;
} bt_tile;

// Strips that a tile of so many rows may span.
static inline size_t bt_tile_strips(size_t rows) {
    return rows == 1 ? WIDEST : rows <= WIDE_ROWS ? WIDEST / 2 : 1;
}

// A worker's share of some products: which of them, and of each the rectangle of the result.
typedef struct bt_product_share {
    size_t first, last;
    size_t row, row_end, column, column_end; // columns by whole strips
} bt_product_share;

// packing: cycles that an element of an operand takes to be packed. false: it has none.
bool VEC_NAME(bt_cpu_product_share)(const bt_cpu_worker *me, size_t batches, size_t m, size_t n,
                                    double packing, bt_product_share *out);

// Columns are at most a strip, or exactly bt_tile_strips. Where the width is no multiple of LANES
// b is packed, or BT_TILE_MASKS.
enum { BT_TILE_MASKS = LANES > 4 }; // loads of part of a vector are cheap
void VEC_NAME(bt_cpu_tile)(const bt_tile *tile);

// Strips of `pitch` <= STRIP columns, each [depth, pitch], from `width` columns of src. What the
// last one has beyond the width is finite.
void VEC_NAME(bt_cpu_pack)(float *dst, size_t pitch, bt_operand src, size_t width, size_t depth);

// y [columns] = (or, with add, +=) a row of a by columns of b that lie along k.
enum { BT_ROW_COLUMNS = LANES == 4 ? 16 : 32 }; // `columns` is a multiple of it
void VEC_NAME(bt_cpu_row_product)(float *y, const float *a, bt_operand b, size_t columns,
                                  size_t depth, bool add);

#endif
