// Packing for the matrix product: strips of an operand in the order in which tiles read them.
#include "device/cpu/matmul_isa.h"

// Transposes go through blocks of BLOCK elements across and 4 of k.
#if defined(__AVX2__)
enum { BLOCK = 8 };
typedef __m256 vb;
#define ZIP_LOW(a, b)    __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13)
#define ZIP_HIGH(a, b)   __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15)
#define PAIRS_LOW(a, b)  __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define PAIRS_HIGH(a, b) __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
VEC_INLINE vb load_pair(const float *row, const float *fourth) { // rows i and i + 4
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row)), _mm_loadu_ps(fourth), 1);
}
VEC_INLINE vb b_fma(float a, vb b, vb c) {
    return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c);
}
#else
enum { BLOCK = 4 };
typedef vf vb;
#define ZIP_LOW(a, b)    __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b)   __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define PAIRS_LOW(a, b)  __builtin_shufflevector(a, b, 0, 1, 4, 5)
#define PAIRS_HIGH(a, b) __builtin_shufflevector(a, b, 2, 3, 6, 7)
VEC_INLINE vb load_pair(const float *row, const float *fourth) {
    (void)fourth;
    return v_load(row);
}
VEC_INLINE vb b_fma(float a, vb b, vb c) {
    return v_fma(v_set(a), b, c);
}
#endif

// An address that the compiler makes no others from, since it would keep these in memory.
VEC_INLINE const float *pointer_keep(const float *p) {
    __asm__("" : "+r"(p));
    return p;
}

// out[j]: element p + j of the BLOCK rows; highs: the last four of them.
VEC_INLINE void transpose(const float *const lows[4], const float *const highs[4], size_t p,
                          vb out[4]) {
    vb row[4];
    VEC_UNROLL
    for (int i = 0; i < 4; i++) row[i] = load_pair(lows[i] + p, highs[i] + p);
    vb low = ZIP_LOW(row[0], row[1]), high = ZIP_HIGH(row[0], row[1]);
    vb low2 = ZIP_LOW(row[2], row[3]), high2 = ZIP_HIGH(row[2], row[3]);
    out[0] = PAIRS_LOW(low, low2), out[1] = PAIRS_HIGH(low, low2);
    out[2] = PAIRS_LOW(high, high2), out[3] = PAIRS_HIGH(high, high2);
}

// What begins at i across.
static bt_operand part_of(bt_operand whole, size_t i) {
    whole.data += i * whole.across;
    return whole;
}

// The rows of src lie along k. Past the width the last one is repeated; where the pitch leaves no
// room for that, it spills into elements that are written later: blocks go from right to left.
static void pack_transposed(float *dst, size_t pitch, bt_operand src, size_t width, size_t depth) {
    for (size_t i = (width + BLOCK - 1) / BLOCK * BLOCK; i > 0; i -= BLOCK) {
        const float *rows[BLOCK];
        float *to = dst + i - BLOCK;
        size_t p = 0, left = width - (i - BLOCK), whole = left < BLOCK ? left : BLOCK;
        for (size_t j = 0; j < BLOCK; j++)
            rows[j] = src.data + (i - BLOCK + (j < whole ? j : whole - 1)) * src.across;
        for (; p + 4 <= depth; p += 4) {
            vb out[4];
            transpose(rows, rows + BLOCK - 4, p, out);
            VEC_UNROLL
            for (size_t j = 0; j < 4; j++) memcpy(to + (p + j) * pitch, &out[j], sizeof out[j]);
        }
        for (; p < depth; p++)
            for (size_t j = 0; j < whole; j++) to[p * pitch + j] = rows[j][p];
    }
}

enum { AHEAD = 8 }; // rows that are fetched ahead, where no hardware would: each on its own page

// The rows of src lie across, each with a row of all strips. What is stored past a strip's width is
// within its pitch, or is written over by the next row, but for the last one.
static void pack_rows(float *dst, size_t pitch, bt_operand src, size_t strips, size_t width,
                      size_t depth) {
    bool two = width > LANES;
    size_t at = two ? LANES : 0, left = width - at;
    for (size_t p = 0; p < depth; p++, src.data += src.down, dst += pitch) {
        const float *from = src.data;
        float *to = dst;
        for (size_t i = 0; i < strips; i++, from += pitch, to += pitch * depth) {
            __builtin_prefetch(from + AHEAD * src.down);
            if (two) v_store(to, v_load(from));
            vf end = v_load_up_to(from + at, left);
            if (p + 1 < depth)
                v_store(to + at, end);
            else
                v_store_up_to(to + at, end, left);
        }
    }
}

void VEC_NAME(bt_cpu_pack)(float *dst, size_t pitch, bt_operand src, size_t width, size_t depth) {
    size_t strips = width / pitch, left = width % pitch;
    if (src.across == 1) {
        pack_rows(dst, pitch, src, strips, pitch, depth);
    } else {
        for (size_t i = 0; i < strips; i++)
            pack_transposed(dst + i * pitch * depth, pitch, part_of(src, i * pitch), pitch, depth);
    }
    if (left == 0) return;
    dst += strips * pitch * depth;
    if (src.across == 1)
        pack_rows(dst, pitch, part_of(src, strips * pitch), 1, left, depth);
    else
        pack_transposed(dst, pitch, part_of(src, strips * pitch), left, depth);
}

// Transposes on the way, so that sums have the order of all other products. The chains of several
// blocks overlap; a pointer to every fourth row is as many as registers hold.
enum { FOURTHS = BT_ROW_COLUMNS / 4, BLOCKS = BT_ROW_COLUMNS / BLOCK };

static VEC_ALONE void sum_columns(float *y, const float *a, bt_operand b, size_t steps) {
    const float *fourth[FOURTHS];
    vb sum[BLOCKS];
    const size_t across = b.across, third = 3 * across;
    VEC_UNROLL
    for (int i = 0; i < FOURTHS; i++) fourth[i] = b.data + (size_t)i * 4 * across;
    VEC_UNROLL
    for (int i = 0; i < BLOCKS; i++) sum[i] = (vb){0};
    for (; steps > 0; steps--, a += 4) {
        VEC_UNROLL
        for (int i = 0; i < BLOCKS; i++) {
            const float *low = fourth[i * BLOCK / 4], *high = fourth[(i + 1) * BLOCK / 4 - 1];
            const float *lows[4] = {low, low + across, low + 2 * across, low + third};
            const float *highs[4] = {high, high + across, high + 2 * across, high + third};
            vb out[4];
            transpose(lows, highs, 0, out);
            VEC_UNROLL
            for (int j = 0; j < 4; j++) sum[i] = b_fma(a[j], out[j], sum[i]);
        }
        VEC_UNROLL
        for (int i = 0; i < FOURTHS; i++) fourth[i] = pointer_keep(fourth[i] + 4);
    }
    VEC_UNROLL
    for (int i = 0; i < BLOCKS; i++) memcpy(y + i * BLOCK, &sum[i], sizeof sum[i]);
}

static void sum_rest(float *y, const float *a, bt_operand b, size_t from, size_t depth) {
    for (size_t i = 0; i < BT_ROW_COLUMNS; i += BLOCK) {
        vb sum, next;
        float column[BLOCK];
        memcpy(&sum, y + i, sizeof sum);
        for (size_t p = from; p < depth; p++) {
            for (size_t j = 0; j < BLOCK; j++) column[j] = b.data[(i + j) * b.across + p];
            memcpy(&next, column, sizeof next);
            sum = b_fma(a[p], next, sum);
        }
        memcpy(y + i, &sum, sizeof sum);
    }
}

void VEC_NAME(bt_cpu_row_product)(float *y, const float *a, bt_operand b, size_t columns,
                                  size_t depth, bool add) {
    for (size_t i = 0; i < columns; i += BT_ROW_COLUMNS) {
        float sum[BT_ROW_COLUMNS];
        sum_columns(sum, a, b, depth / 4);
        sum_rest(sum, a, b, depth / 4 * 4, depth);
        for (size_t j = 0; j < BT_ROW_COLUMNS; j++) y[i + j] = add ? y[i + j] + sum[j] : sum[j];
        b.data += BT_ROW_COLUMNS * b.across;
    }
}
