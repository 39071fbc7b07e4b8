// Launches that the CPU does as one, so that what lies between them never reaches memory. A group
// is run where its first launch stands.
#ifndef BT_DEVICE_CPU_GROUP_H
#define BT_DEVICE_CPU_GROUP_H

#include "device/cpu/worker.h"

typedef enum bt_cpu_group_kind {
    BT_CPU_SINGLE,         // part 0
    BT_CPU_CONV_POOL,      // conv2d, max_pool
    BT_CPU_CONV_POOL_GRAD, // max_pool_grad, relu_grad, conv2d_grad_weight, reduce_sum (of the
                           // bias, over pixels), conv2d_grad_input
    BT_CPU_GROUP_KINDS,
} bt_cpu_group_kind;

enum {
    BT_CPU_PARTS_MAX = 5,
};

typedef struct bt_cpu_group {
    bt_cpu_group_kind kind;
    int part[BT_CPU_PARTS_MAX]; // launches; -1: absent
} bt_cpu_group;

// Can this convolution and the pooling after it be done as one, and their gradients too?
typedef bool (*bt_cpu_takes)(const bt_conv_args *conv, const bt_pool_args *pool);

// By kernel: how many launches after one of it may be in its group, for bt_device_api.joined.
extern const unsigned char bt_cpu_joined[BT_KERNEL_COUNT];

// Puts every launch into a group; returns how many groups there are. What is left out of memory is
// read by nobody else. takes NULL: nothing is fused.
int bt_cpu_group_launches(const bt_launch *launches, int count, const bt_program_use *use,
                          bt_cpu_takes takes, bt_cpu_group *groups);

// Is what launch `writer` writes to its binding `b` read by launch `reader`?
bool bt_cpu_read_by(const bt_launch *launches, int count, int writer, int b, int reader);

#endif
