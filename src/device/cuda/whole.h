// Whole-program kernels: one kernel of kernels/cuda that does what all launches of a program do,
// for any number of steps. The source is compiled for the network: its shapes are #defines.
#ifndef BT_DEVICE_CUDA_WHOLE_H
#define BT_DEVICE_CUDA_WHOLE_H

#include "device/cuda/net.h"

typedef struct bt_gpu {
    int capability;    // 90: Hopper
    int sms;           // multiprocessors
    size_t shared_max; // bytes of shared memory that a block can have
    bt_precision precision;
} bt_gpu;

enum { BT_DEFINES_BYTES = 2048 };

typedef struct bt_whole_plan {
    const char *source;             // "mlp.cu" of kernels/cuda
    const char *entry;              // its kernel: extern "C" __global__ void entry(bt_net_args)
    char defines[BT_DEFINES_BYTES]; // "#define ..." lines that stand before the source
    unsigned grid, block, cluster;  // blocks, threads of each, blocks of a cluster (1: none)
    size_t shared_bytes;            // dynamic shared memory of a block
    size_t scratch_bytes;
    bool resident;           // its blocks wait for each other: all must be on the GPU at once
    char text[BT_WHY_BYTES]; // what the log says: "persistent mlp, one cluster of 16 blocks"
} bt_whole_plan;

typedef struct bt_whole {
    const char *name; // "persistent-mlp"
    // Can this network be done on this GPU? Then the plan; otherwise why not.
    bool (*plan)(const bt_net *net, const bt_gpu *gpu, bt_whole_plan *out, char why[BT_WHY_BYTES]);
} bt_whole;

// In order of preference; NULL at the end (whole.c).
extern const bt_whole *const bt_wholes[];

#endif
