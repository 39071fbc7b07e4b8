// The table of the vectorised f32 kernels of one instruction set.
#include "device/cpu/kernels_isa.h"

const bt_cpu_kernel VEC_NAME(bt_cpu_kernels)[BT_KERNEL_COUNT] = {
#define X(name, scratch) [BT_KERNEL_##name] = {VEC_NAME(bt_cpu_##name), scratch},
    BT_CPU_VECTORISED(X)
#undef X
};
