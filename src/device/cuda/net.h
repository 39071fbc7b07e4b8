// A network read back from the launches of a program: what the whole-program kernels need to know.
// A program that does anything else than train, or evaluate, a chain of layers on batches of a data
// set is not understood, and then runs launch by launch.
#ifndef BT_DEVICE_CUDA_NET_H
#define BT_DEVICE_CUDA_NET_H

#include "device/device.h"
#include "device/kernels.h"

enum { BT_NET_LAYERS_MAX = 8, BT_WHY_BYTES = 160 };

typedef enum bt_net_kind { BT_NET_FC, BT_NET_CONV } bt_net_kind;

// y = pool(activation(x * weight + bias)); the input of the first layer is byte / 255.
typedef struct bt_net_layer {
    bt_net_kind kind;
    uint32_t c, h, w;       // input; of an fc layer c features and h = w = 1
    uint32_t o, oh, ow;     // output before pooling; of an fc layer oh = ow = 1
    uint32_t size, padding; // side of the filters and padding of a convolution, stride 1
    bt_map_op activation;   // BT_MAP_COPY: none; RELU, SIGMOID, TANH
    uint32_t pool;          // side and stride of the max pooling after it; 1: none
    uint32_t weight, bias;  // where they begin in params, in floats: [o, c, size, size], [o]
} bt_net_layer;

typedef struct bt_net {
    bt_binding bytes, labels, index, state;
    bt_gather_args gather;
    bt_net_layer layer[BT_NET_LAYERS_MAX];
    int layers;
    uint32_t classes;
    bt_binding params; // from the first to the last of all layers, gaps included
    // Training: absent (buffer NULL) moments are moments that the optimizer has not.
    bool trains, clips; // clips: gradients are clipped to a norm
    bt_binding moment[2], table;
    uint32_t optimizer, rows;    // as bt_update_args
    bt_binding log, predictions; // may be absent
    bt_step_args step;
    // Evaluation alone, of the last step: [batch, classes], may be absent.
    bt_binding logits, probabilities;
} bt_net;

// false: `why` gets the first thing that is not understood.
bool bt_net_read(const bt_launch *launches, int count, const bt_program_use *use, bt_net *net,
                 char why[BT_WHY_BYTES]);

#endif
