// What there is for one instruction set: kernels for launches, for groups of them, and for products
// with a batch that is mostly zeros.
#ifndef BT_DEVICE_CPU_SET_H
#define BT_DEVICE_CPU_SET_H

#include "device/cpu/group.h"

typedef struct bt_cpu_set {
    const char *name;
    const bt_cpu_kernel *kernels;  // [BT_KERNEL_COUNT]; run is NULL where the plain loop does
    int lanes;                     // of its vectors; 0: plain loops, and the rest is absent
    const struct bt_cpu_set *half; // of half the lanes, where a vector would be half empty; or NULL
    bt_cpu_takes takes;
    bt_cpu_kernel grouped[BT_CPU_GROUP_KINDS];
    bt_cpu_kernel sparse_forward, sparse_grad; // matmul that reads gathered images as a, or as b
    bt_cpu_kernel matmul_bf16; // run is NULL where the instruction set has no such products
} bt_cpu_set;

// matmul of f32 operands rounded to bfloat16, where bt_cpu_has_bf16 (matmul_bf16.c).
void bt_cpu_matmul_bf16(const bt_launch *launch, const bt_cpu_worker *me);
size_t bt_cpu_matmul_bf16_scratch(const bt_launch *launch);

extern const bt_cpu_set bt_cpu_set_base, bt_cpu_set_avx2, bt_cpu_set_avx512;

// Instruction set `index` of this machine, the best first: each is a device of its own, so that any
// of them can be tested and compared. The plain loops come last. NULL: no more.
const bt_cpu_set *bt_cpu_set_at(int index);

// Can this machine run matmul_bf16 of the set? Not every processor with AVX-512 has AVX512-BF16.
bool bt_cpu_has_bf16(const bt_cpu_set *set);

#endif
