// Elementwise operators on rows that are dense or repeat one element; other strides go to the
// plain loops.
#include "device/cpu/vec_map.h"

#include "device/cpu/kernels_isa.h"

VEC_INLINE vf operand(const float *x, int step, vf repeated, size_t i, size_t n) {
    return step ? v_load_up_to(x + i, n - i) : repeated;
}

VEC_INLINE void map_all(uint32_t op, bt_cpu_row row, size_t n) {
    vf a0 = row.a_step ? (vf){0} : v_set(*row.a);
    vf b0 = row.b_step || !row.b ? (vf){0} : v_set(*row.b);
    int b_step = row.b ? row.b_step : 0;
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        v_store(row.y + i, v_map(op, operand(row.a, row.a_step, a0, i, whole),
                                 operand(row.b, b_step, b0, i, whole)));
    if (whole < n)
        v_store_part(row.y + whole,
                     v_map(op, operand(row.a, row.a_step, a0, whole, n),
                           operand(row.b, b_step, b0, whole, n)),
                     n - whole);
}

void VEC_NAME(bt_cpu_map_row)(uint32_t op, bt_cpu_row row, size_t n) {
    if (n == 0) return;
    switch (op) {
#define X(name, ...) \
    case BT_MAP_##name: map_all(BT_MAP_##name, row, n); break;
        BT_MAPS(X)
#undef X
    }
}

// Where row r of the result, [dim0, dim1, dim2] in order, begins in an operand.
static size_t row_start(const bt_map_args *args, const uint32_t *stride, size_t r) {
    size_t k = r % args->dim[2], rest = r / args->dim[2];
    return k * stride[2] + rest % args->dim[1] * stride[1] + rest / args->dim[1] * stride[0];
}

void VEC_NAME(bt_cpu_map)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_map_args);
    const float *a = bt_cpu_data(launch, 0), *b = bt_cpu_data(launch, 1);
    float *y = bt_cpu_data(launch, 2);
    if (args.a_stride[3] > 1 || (b && args.b_stride[3] > 1)) {
        bt_cpu_reference_f32[BT_KERNEL_map].run(launch, me);
        return;
    }
    size_t length = args.dim[3], begin, end;
    bt_cpu_share(me, (size_t)args.dim[0] * args.dim[1] * args.dim[2] * length, LANES, &begin, &end);
    while (begin < end) { // the part of a row that is this worker's
        size_t r = begin / length, column = begin % length;
        size_t stop = end - begin < length - column ? end : begin + length - column;
        const float *from_a = a + row_start(&args, args.a_stride, r) + column * args.a_stride[3];
        const float *from_b =
            b ? b + row_start(&args, args.b_stride, r) + column * args.b_stride[3] : NULL;
        bt_cpu_row row = {from_a, from_b, (int)args.a_stride[3], (int)args.b_stride[3], y + begin};
        v_map_row(args.op, row, stop - begin);
        begin = stop;
    }
}
