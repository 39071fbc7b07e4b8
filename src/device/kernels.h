// The contract between operators, which emit launches (src/tensor), and devices, which run them:
// the bindings and scalars of every kernel. It is written where the kernels are, in kernels/*.k;
// tools/kc makes kernels_gen.h of it: BT_PORTABLE_KERNELS, the structs of scalars (bt_map_args ...)
// and the exported constants. What each kernel computes is said at the kernel.
//
// `real` is float or double, by bt_launch.dtype; the portable kernels are of float. All arrays are
// dense and row-major unless strides are given. Index arithmetic is 32-bit. Reductions have a
// fixed order that depends on shapes alone. Kernels accept any sizes, 0 included, and write every
// element of their outputs.
#ifndef BT_DEVICE_KERNELS_H
#define BT_DEVICE_KERNELS_H

#include <stdint.h>

#include "kernels_gen.h"

// map_host: a, b (absent: none) -> y [n] = fn(user, a) or, with b, fn(user, a) b. CPU only.
typedef struct bt_map_host_args {
    double (*fn)(void *user, double value);
    void *user;
    uint32_t n;
} bt_map_host_args;

// X(name, bindings, args): one letter per binding: r read, w written whole, u updated in place,
// lower case; upper case R W U: may be absent (binding.buffer NULL).
#define BT_KERNELS(X)      \
    BT_PORTABLE_KERNELS(X) \
    X(map_host, "rRw", bt_map_host_args)

typedef enum bt_kernel_id {
#define X(name, bindings, args) BT_KERNEL_##name,
    BT_KERNELS(X)
#undef X
        BT_KERNEL_COUNT
} bt_kernel_id;

// Elementwise operators of kernels/math.k. Unary ones read a; the _GRAD ones read (y or x, dy) as
// (a, b) and give the gradient of the input. X(id, name, inputs).
#define BT_MAPS(X)                   \
    X(COPY, copy, 1)                 \
    X(ADD, add, 2)                   \
    X(SUB, sub, 2)                   \
    X(MUL, mul, 2)                   \
    X(DIV, div, 2)                   \
    X(NEG, neg, 1)                   \
    X(RELU, relu, 1)                 \
    X(SIGMOID, sigmoid, 1)           \
    X(TANH, tanh, 1)                 \
    X(GELU, gelu, 1)                 \
    X(EXP, exp, 1)                   \
    X(LOG, log, 1)                   \
    X(SQRT, sqrt, 1)                 \
    X(RELU_GRAD, relu_grad, 2)       \
    X(SIGMOID_GRAD, sigmoid_grad, 2) \
    X(TANH_GRAD, tanh_grad, 2)       \
    X(GELU_GRAD, gelu_grad, 2)       \
    X(SQRT_GRAD, sqrt_grad, 2)

enum {
#define X(id, name, inputs) BT_MAP_ORDER_##id,
    BT_MAPS(X)
#undef X
        BT_MAP_COUNT
};
#define X(id, name, inputs) \
    _Static_assert((int)BT_MAP_##id == (int)BT_MAP_ORDER_##id, "BT_MAPS and kernels/math.k differ");
BT_MAPS(X)
#undef X
typedef uint32_t bt_map_op; // BT_MAP_...

// The step counter and what else changes from step to step without the host.
typedef struct bt_step_state {
    uint32_t step;
    uint32_t unused[63]; // one binding's alignment
} bt_step_state;

#define X(name, bindings, args)                                 \
    _Static_assert(sizeof(args) <= 64 && sizeof(bindings) <= 9, \
                   #name " exceeds the portable limits");
BT_KERNELS(X)
#undef X

typedef struct bt_kernel_info {
    const char *name, *bindings;
    uint32_t scalar_bytes;
} bt_kernel_info;
extern const bt_kernel_info bt_kernel_table[BT_KERNEL_COUNT]; // registry.c

#endif
