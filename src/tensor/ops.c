// The operator table: one line for each operator. A new operator is an entry in BT_OPS, two
// functions in the file of its family, and its line here.
#include "tensor/graph.h"

const bt_op_info bt_op_table[BT_OP_COUNT] = {
    [BT_OP_LEAF] = {"leaf", NULL, NULL},
    [BT_OP_SECOND] = {"second", NULL, NULL},
    [BT_OP_RESHAPE] = {"reshape", NULL, bt_grad_reshape},
    [BT_OP_RANDOM] = {"random", bt_lower_random, NULL},
    [BT_OP_PERMUTE] = {"permute", bt_lower_permute, bt_grad_permute},
    [BT_OP_BROADCAST] = {"broadcast", bt_lower_broadcast, bt_grad_broadcast},
    [BT_OP_MAP] = {"map", bt_lower_map, bt_grad_map},
    [BT_OP_MAP_HOST] = {"map_host", bt_lower_map_host, bt_grad_map_host},
    [BT_OP_MATMUL] = {"matmul", bt_lower_matmul, bt_grad_matmul},
    [BT_OP_REDUCE_SUM] = {"sum", bt_lower_reduce_sum, bt_grad_reduce_sum},
    [BT_OP_REDUCE_MAX] = {"max", bt_lower_reduce_max, bt_grad_reduce_max},
    [BT_OP_SCATTER_AXIS] = {"scatter_axis", bt_lower_scatter_axis, NULL},
    [BT_OP_SOFTMAX] = {"softmax", bt_lower_softmax, bt_grad_softmax},
    [BT_OP_SOFTMAX_GRAD] = {"softmax_grad", bt_lower_softmax_grad, NULL},
    [BT_OP_XENT] = {"cross_entropy", bt_lower_cross_entropy, bt_grad_cross_entropy},
    [BT_OP_CONV2D] = {"conv2d", bt_lower_conv2d, bt_grad_conv2d},
    [BT_OP_CONV2D_GRAD_INPUT] = {"conv2d_grad_input", bt_lower_conv2d_grad_input, NULL},
    [BT_OP_CONV2D_GRAD_WEIGHT] = {"conv2d_grad_weight", bt_lower_conv2d_grad_weight, NULL},
    [BT_OP_IM2COL] = {"im2col", bt_lower_im2col, bt_grad_im2col},
    [BT_OP_COL2IM] = {"col2im", bt_lower_col2im, NULL},
    [BT_OP_MAX_POOL] = {"max_pool", bt_lower_max_pool, bt_grad_max_pool},
    [BT_OP_MAX_POOL_GRAD] = {"max_pool_grad", bt_lower_max_pool_grad, NULL},
    [BT_OP_AVG_POOL] = {"avg_pool", bt_lower_avg_pool, bt_grad_avg_pool},
    [BT_OP_AVG_POOL_GRAD] = {"avg_pool_grad", bt_lower_avg_pool_grad, NULL},
    [BT_OP_GATHER] = {"gather", bt_lower_gather, NULL},
};
