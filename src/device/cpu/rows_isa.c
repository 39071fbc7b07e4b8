// Kernels that sum over rows: reductions, softmax, cross-entropy. Sums are kept in vectors and in
// blocks, which is faster and loses less than one long chain of additions.
#include <math.h>

#include "device/cpu/kernels_isa.h"
#include "device/cpu/vec_map.h"

enum {
    WIDTH = 4,               // vectors that are summed side by side
    BLOCK = 256,             // additions in a chain
    COLUMNS = WIDTH * LANES, // of a column block
};

// The sum of n numbers in a row.
static float sum_row(const float *x, size_t n) {
    float total = 0;
    for (size_t first = 0; first < n; first += (size_t)BLOCK * COLUMNS) {
        size_t end = n - first < (size_t)BLOCK * COLUMNS ? n : first + (size_t)BLOCK * COLUMNS;
        vf sum[WIDTH] = {0};
        size_t i = first;
        for (; i + COLUMNS <= end; i += COLUMNS) {
            VEC_UNROLL
            for (int v = 0; v < WIDTH; v++) sum[v] += v_load(x + i + v * LANES);
        }
        for (; i < end; i += LANES) sum[0] += v_load_up_to(x + i, end - i);
        total += v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
    return total;
}

// Sums columns of x [n, pitch], for `columns` <= COLUMNS of them.
VEC_INLINE void sum_columns(const float *x, size_t n, size_t pitch, const int vectors,
                            size_t columns, float divisor, float *y) {
    vf total[WIDTH] = {0};
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t end = n - first < BLOCK ? n : first + BLOCK;
        vf sum[WIDTH] = {0};
        for (size_t i = first; i < end; i++) {
            VEC_UNROLL
            for (int v = 0; v < vectors; v++)
                sum[v] += v_load_up_to(x + i * pitch + v * LANES, columns - (size_t)v * LANES);
        }
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) total[v] += sum[v];
    }
    VEC_UNROLL
    for (int v = 0; v < vectors; v++)
        v_store_up_to(y + v * LANES, total[v] / v_set(divisor), columns - (size_t)v * LANES);
}

void VEC_NAME(bt_cpu_reduce_sum)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_reduce_args);
    const float *x = bt_cpu_data(launch, 0);
    float *y = bt_cpu_data(launch, 1), divisor = args.mean ? (float)args.n : 1;
    size_t n = args.n, inner = args.inner, blocks = (inner + COLUMNS - 1) / COLUMNS, begin, end;
    bt_cpu_share(me, args.outer * blocks, 1, &begin, &end);
    for (size_t item = begin; item < end; item++) {
        size_t outer = item / blocks, column = item % blocks * COLUMNS, left = inner - column;
        const float *from = x + outer * n * inner + column;
        float *to = y + outer * inner + column;
        if (inner == 1)
            *to = sum_row(from, n) / divisor;
        else if (left >= COLUMNS)
            sum_columns(from, n, inner, WIDTH, COLUMNS, divisor, to);
        else
            for (size_t i = 0; i < left; i += LANES)
                sum_columns(from + i, n, inner, 1, left - i < LANES ? left - i : LANES, divisor,
                            to + i);
    }
}

// The row's maximum.
static float max_row(const float *x, size_t n) {
    vf top = v_set(-INFINITY);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) top = v_max(top, v_load(x + i));
    if (i < n) top = v_max(top, v_select(v_below(n - i), v_load_part(x + i, n - i), top));
    return v_top(top);
}

// y = exp(x - max), not stored where y is NULL; returns the sum.
static float exp_row(const float *x, size_t n, float max, float *y) {
    vf sum = {0};
    for (size_t i = 0; i < n; i += LANES) {
        vf e = v_exp(v_load_up_to(x + i, n - i) - v_set(max));
        if (i + LANES > n) e = (vf)((vi)e & v_below(n - i));
        if (y) v_store_up_to(y + i, e, n - i);
        sum += e;
    }
    return v_sum(sum);
}

void VEC_NAME(bt_cpu_softmax)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_softmax_args);
    const float *x = bt_cpu_data(launch, 0);
    float *y = bt_cpu_data(launch, 1);
    size_t n = args.n, begin, end;
    if (args.inner != 1) {
        bt_cpu_reference_f32[BT_KERNEL_softmax].run(launch, me);
        return;
    }
    bt_cpu_share(me, args.outer, 1, &begin, &end);
    for (size_t r = begin; r < end && n > 0; r++) {
        const float *from = x + r * n;
        float *to = y + r * n, max = max_row(from, n);
        float sum = exp_row(from, n, max, args.log_form ? NULL : to), log_sum = logf(sum);
        for (size_t i = 0; i < n; i += LANES) {
            vf result = args.log_form ? v_load_up_to(from + i, n - i) - v_set(max) - v_set(log_sum)
                                      : v_load_up_to(to + i, n - i) / v_set(sum);
            v_store_up_to(to + i, result, n - i);
        }
    }
}

// The loss of a row is log(*sum) + *rest, for whole vectors of rows to take the logarithm of; its
// gradient goes to dx, where that is not NULL.
static void xent_row(const float *x, size_t cols, int32_t label, float valid, float *dx, float *sum,
                     float *rest) {
    *sum = 1;
    if (label < 0 || (size_t)label >= cols) {
        *rest = label < 0 ? 0 : NAN;
        for (size_t j = 0; dx && j < cols; j++) dx[j] = *rest;
        return;
    }
    float max = max_row(x, cols);
    *sum = exp_row(x, cols, max, dx);
    *rest = max - x[label];
    if (!dx) return;
    float scale = 1 / (*sum * valid);
    for (size_t j = 0; j < cols; j += LANES)
        v_store_up_to(dx + j, v_load_up_to(dx + j, cols - j) * v_set(scale), cols - j);
    dx[label] -= 1 / valid;
}

void VEC_NAME(bt_cpu_xent)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_xent_args);
    const float *logits = bt_cpu_data(launch, 0);
    const int32_t *labels = bt_cpu_data(launch, 1);
    float *loss = bt_cpu_data(launch, 2), *dlogits = bt_cpu_data(launch, 3);
    uint32_t valid = 0;
    for (uint32_t r = 0; r < args.rows; r++) valid += labels[r] >= 0;
    size_t cols = args.cols, begin, end;
    bt_cpu_share(me, args.rows, 1, &begin, &end);
    for (size_t first = begin; first < end; first += LANES) {
        size_t rows = end - first < LANES ? end - first : LANES;
        float sum[LANES], rest[LANES];
        for (size_t i = rows; i < LANES; i++) sum[i] = 1, rest[i] = 0;
        for (size_t i = 0, r = first; i < rows; i++, r++)
            xent_row(logits + r * cols, cols, labels[r], (float)valid,
                     dlogits ? dlogits + r * cols : NULL, &sum[i], &rest[i]);
        v_store_up_to(loss + first, v_log(v_load(sum)) + v_load(rest), rows);
    }
}

// The first largest number of a row of n >= 1, NaN being the largest.
static int32_t first_max(const float *x, size_t n) {
    static const float lanes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vi odd = {0};
    for (size_t i = 0; i < n; i += LANES) {
        vf v = v_load_up_to(x + i, n - i);
        odd |= v != v;
    }
    if (v_any(odd)) {
        int32_t at = 0;
        while (x[at] == x[at]) at++;
        return at;
    }
    float top = max_row(x, n);
    size_t begin = 0; // of the vector that has it
    vi found = {0};
    for (;; begin += LANES) {
        found = (v_load_up_to(x + begin, n - begin) == v_set(top)) & v_below(n - begin);
        if (v_any(found)) break;
    }
    vf at = v_select(found, v_load(lanes), v_set(LANES));
    return (int32_t)begin + (int32_t)-v_top(-at);
}

// How many rows are classified right, and the class of each, in a batch.
static uint32_t count_correct(const bt_step_args *args, const float *logits, const int32_t *labels,
                              int32_t *predictions, size_t first) {
    uint32_t correct = 0;
    for (size_t r = 0; r < args->rows; r++) {
        if (labels[r] < 0) continue;
        int32_t class = first_max(logits + r * args->cols, args->cols);
        correct += class == labels[r];
        if (predictions && first + r < args->prediction_count) predictions[first + r] = class;
    }
    return correct;
}

void VEC_NAME(bt_cpu_step_end)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_step_args);
    const float *loss = bt_cpu_data(launch, 0), *logits = bt_cpu_data(launch, 1);
    const int32_t *labels = bt_cpu_data(launch, 2);
    bt_step_state *state = bt_cpu_data(launch, 3);
    float *log = bt_cpu_data(launch, 4);
    int32_t *predictions = bt_cpu_data(launch, 5);
    if (me->index > 0) return;
    uint32_t correct = 0;
    size_t first = predictions ? (size_t)(state->step % args.epoch_steps) * args.rows : 0;
    if (logits && labels && args.cols > 0)
        correct = count_correct(&args, logits, labels, predictions, first);
    if (log && args.log_steps > 0) {
        float *entry = log + (size_t)(state->step % args.log_steps) * 2;
        entry[0] = loss ? *loss : 0;
        entry[1] = (float)correct;
    }
    state->step++;
}
