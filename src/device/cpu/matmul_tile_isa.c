// The innermost loops of the matrix product: a tile of the result stays in registers while columns
// of a and rows of b stream by. One function for each number of rows and vectors, so that nothing
// is computed in vain and the compiler knows every register.
#include "device/cpu/matmul_isa.h"
#include "device/cpu/vec_map.h"

// A tile's form: constants wherever the functions below are used.
typedef struct form {
    int rows, vectors;
    bool ragged; // the last vector of each row has fewer than LANES columns
} form;

enum {
    SUMS = 28,
    TOGETHER = 2, // steps of k, as many as have addresses that fit in a byte
};

VEC_INLINE vf load(const float *p, bool part, size_t left) {
    return part ? v_load_part(p, left) : v_load(p);
}

// What belongs to sum i in an array laid out as c.
VEC_INLINE vf load_row(const form f, const bt_tile *t, size_t left, const float *from, int i) {
    int r = i / f.vectors, v = i % f.vectors;
    return load(from + (size_t)r * t->c_down + v * LANES, f.ragged && v == f.vectors - 1, left);
}

// Where the rows of a are: row r at third[r / 3] + r % 3 * across, so that no address is made from
// another and few are advanced.
typedef struct rows {
    const float *third[(ROWS + 2) / 3];
    size_t across;
} rows;

VEC_INLINE vf row_at(const rows *a, int r) {
    return v_set(a->third[r / 3][(size_t)(r % 3) * a->across]);
}

// One step of k: a row of b against an element of each row of a.
VEC_INLINE void step(const form f, const rows *a, const float *b, size_t left, vf sum[SUMS]) {
    vf columns[2];
    VEC_UNROLL
    for (int v = 0; v < f.vectors; v++)
        columns[v] = load(b + v * LANES, BT_TILE_MASKS && f.ragged && v == f.vectors - 1, left);
    VEC_UNROLL
    for (int r = 0; r < f.rows; r++) {
        vf row = row_at(a, r);
        VEC_UNROLL
        for (int v = 0; v < f.vectors; v++)
            sum[r * f.vectors + v] = v_fma(row, columns[v], sum[r * f.vectors + v]);
    }
}

// The same where both operands are packed, or lie as if they were, which leaves no addresses to
// compute. (What b has beyond a ragged width is finite, and not stored.)
VEC_INLINE void step_packed(const form f, const float *a, const float *b, vf sum[SUMS]) {
    vf first = v_load(b), second = v_load(b + LANES);
    VEC_UNROLL
    for (int r = 0; r < f.rows; r++) {
        vf row = v_set(a[r]);
        sum[2 * r] = v_fma(row, first, sum[2 * r]);
        sum[2 * r + 1] = v_fma(row, second, sum[2 * r + 1]);
    }
}

// The same where few rows stay in registers and not the many vectors of b.
VEC_INLINE void step_wide(const form f, const rows *a, const float *b, size_t b_strip,
                          vf sum[SUMS]) {
    vf row[WIDE_ROWS];
    VEC_UNROLL
    for (int r = 0; r < f.rows; r++) row[r] = row_at(a, r);
    VEC_UNROLL
    for (int v = 0; v < f.vectors; v++) {
        vf column = v_load(b + (size_t)(v / 2) * b_strip + v % 2 * LANES);
        VEC_UNROLL
        for (int r = 0; r < f.rows; r++)
            sum[r * f.vectors + v] = v_fma(row[r], column, sum[r * f.vectors + v]);
    }
}

VEC_INLINE void multiply(const form f, const bt_tile *t, size_t left, vf sum[SUMS]) {
    const size_t down = t->a.down, b_down = t->b_down, b_strip = t->b_strip;
    const float *b = t->b;
    size_t p = t->depth;
    rows a = {.across = t->a.across};
    VEC_UNROLL
    for (int r = 0; r < f.rows; r += 3) a.third[r / 3] = t->a.data + (size_t)r * a.across;
    VEC_UNROLL
    for (int i = 0; i < f.rows * f.vectors; i++) sum[i] = (vf){0};
    if (f.rows >= ROWS - 1 && f.vectors == 2 && down == (size_t)f.rows && b_down == STRIP) {
        const float *panel = t->a.data;
        for (; p >= TOGETHER; p -= TOGETHER) {
            VEC_UNROLL
            for (size_t q = 0; q < TOGETHER; q++)
                step_packed(f, panel + q * (size_t)f.rows, b + q * STRIP, sum);
            panel += TOGETHER * f.rows;
            b += TOGETHER * STRIP;
        }
        VEC_UNROLL
        for (int r = 0; r < f.rows; r += 3) a.third[r / 3] = panel + r;
    }
    for (; p > 0; p--) {
        if (f.vectors > 2)
            step_wide(f, &a, b, b_strip, sum);
        else
            step(f, &a, b, left, sum);
        VEC_UNROLL
        for (int r = 0; r < f.rows; r += 3) a.third[r / 3] += down;
        b += b_down;
    }
}

// Bias and the common epilogues are applied to the registers, the others to what was stored.
VEC_INLINE void add_bias(const form f, const bt_tile *t, size_t left, vf sum[SUMS]) {
    VEC_UNROLL
    for (int r = 0; r < f.rows; r++) {
        VEC_UNROLL
        for (int v = 0; v < f.vectors; v++) {
            bool part = f.ragged && v == f.vectors - 1;
            sum[r * f.vectors + v] += t->end.bias_of_rows
                                          ? v_set(t->end.bias[r])
                                          : load(t->end.bias + v * LANES, part, left);
        }
    }
}

static void map_rows(const bt_tile *t) {
    for (size_t r = 0; r < t->rows; r++) {
        float *y = t->c + r * t->c_down;
        bt_cpu_row row = {y, NULL, 1, 0, y};
        if (t->end.forward) row = (bt_cpu_row){t->end.forward + r * t->c_down, y, 1, 1, y};
        v_map_row(t->end.epilogue, row, t->columns);
    }
}

VEC_INLINE void store(const form f, const bt_tile *t, size_t left, const vf sum[SUMS]) {
    VEC_UNROLL
    for (int r = 0; r < f.rows; r++) {
        VEC_UNROLL
        for (int v = 0; v < f.vectors; v++) {
            float *to = t->c + (size_t)r * t->c_down + v * LANES;
            if (f.ragged && v == f.vectors - 1)
                v_store_part(to, sum[r * f.vectors + v], left);
            else
                v_store(to, sum[r * f.vectors + v]);
        }
    }
}

VEC_INLINE void compute(const form f, const bt_tile *t) {
    vf sum[SUMS];
    size_t left = t->columns - (size_t)(f.vectors - 1) * LANES;
    VEC_UNROLL
    for (int r = 0; r < f.rows; r++)
        __builtin_prefetch(t->c + (size_t)r * t->c_down + t->columns - 1, 1);
    multiply(f, t, left, sum);
    if (t->add) {
        VEC_UNROLL
        for (int i = 0; i < f.rows * f.vectors; i++) sum[i] += load_row(f, t, left, t->c, i);
    }
    uint32_t epilogue = t->last ? t->end.epilogue : BT_MAP_COPY;
    if (t->last && t->end.bias) add_bias(f, t, left, sum);
    if (epilogue == BT_MAP_RELU) {
        VEC_UNROLL
        for (int i = 0; i < f.rows * f.vectors; i++) sum[i] = v_map(BT_MAP_RELU, sum[i], sum[i]);
    } else if (epilogue == BT_MAP_RELU_GRAD) {
        VEC_UNROLL
        for (int i = 0; i < f.rows * f.vectors; i++)
            sum[i] = v_map(BT_MAP_RELU_GRAD, load_row(f, t, left, t->end.forward, i), sum[i]);
    }
    store(f, t, left, sum);
    if (epilogue != BT_MAP_COPY && epilogue != BT_MAP_RELU && epilogue != BT_MAP_RELU_GRAD)
        map_rows(t);
}

// The functions, and a table of them by rows.
#define ROWS_TO_4(X)  X(1) X(2) X(3) X(4)
#define ROWS_TO_6(X)  ROWS_TO_4(X) X(5) X(6)
#define ROWS_TO_14(X) ROWS_TO_6(X) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#define TILE(name, r, v, ragged)               \
    static void name##_##r(const bt_tile *t) { \
        compute((form){r, v, ragged}, t);      \
    }
#if defined(__AVX512F__) // where a mask costs nothing, and half of so many functions is enough
#define TILES(r) TILE(one_ragged, r, 1, true) TILE(two_ragged, r, 2, true)
#define LINE(r)  [r] = {{one_ragged_##r, one_ragged_##r}, {two_ragged_##r, two_ragged_##r}},
#else
#define TILES(r)                 \
    TILE(one, r, 1, false)       \
    TILE(one_ragged, r, 1, true) \
    TILE(two, r, 2, false)       \
    TILE(two_ragged, r, 2, true)
#define LINE(r) [r] = {{one_##r, one_ragged_##r}, {two_##r, two_ragged_##r}},
#endif

#if defined(__AVX512F__)
#define ALL_ROWS ROWS_TO_14
#elif defined(__AVX2__)
#define ALL_ROWS ROWS_TO_6
#else
#define ALL_ROWS ROWS_TO_4
#endif

ALL_ROWS(TILES)
TILE(wide, 1, 8, false)
TILE(wide, 2, 4, false)
TILE(wide, 3, 4, false)

void VEC_NAME(bt_cpu_tile)(const bt_tile *tile) {
    typedef void (*tile_fn)(const bt_tile *t);
    static const tile_fn narrow[ROWS + 1][2][2] = {ALL_ROWS(LINE)};
    static const tile_fn wide[WIDE_ROWS + 1] = {NULL, wide_1, wide_2, wide_3};
    if (tile->columns > STRIP)
        wide[tile->rows](tile);
    else
        narrow[tile->rows][tile->columns > LANES][tile->columns % LANES != 0](tile);
}
