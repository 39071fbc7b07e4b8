// Large products and convolutions on kernels of their own (kernels/cuda/gemm_*.cu, conv_gemm.cu):
// what the files share that choose and describe these launches.
#ifndef BT_DEVICE_CUDA_GEMM_H
#define BT_DEVICE_CUDA_GEMM_H

#include "cuda/gemm_args.h"
#include "device/cuda/cuda_internal.h"
#include "device/kernels.h"

// What operands are rounded to, as far as the chip can.
typedef enum bt_gemm_kind { BT_GEMM_NONE, BT_GEMM_F32, BT_GEMM_TF32, BT_GEMM_BF16 } bt_gemm_kind;

static inline uint32_t bt_gemm_blocks(uint64_t count, uint32_t size) {
    return (uint32_t)((count + size - 1) / size);
}

// Bytes of one number of a packed operand.
static inline uint32_t bt_gemm_number(bt_gemm_kind kind) {
    return kind == BT_GEMM_BF16 ? 2 : 4;
}

// Shared memory behind the stages of the tensor kernels, through which sums are stored (store_room
// of gemm_hopper.cuh).
enum { BT_GEMM_STORE_ROOM = 8 * 16 * 40 * 4 };

// Nodes under construction: they are appended to `nodes`.
typedef struct bt_gemm {
    bt_device *dev;
    bt_gemm_kind kind;
    bt_cuda_node *nodes;
    int count;
} bt_gemm;

// Adds a kernel of the image `image` (without its ending), whose one parameter is `args`.
bt_status bt_gemm_add(bt_gemm *gemm, const char *image, const char *entry,
                      const bt_cuda_node *shape, const void *args, size_t bytes, bt_error *err);

// Blocks that share the depth of a tile (as a cluster), for the shortest time: `tiles` tiles,
// `room` of their blocks on a multiprocessor without any becoming slower.
uint32_t bt_gemm_split(const bt_gemm *gemm, uint64_t tiles, uint32_t room, uint32_t depth);

// [matrices, rows, k] numbers of the kind; `stride` from a row to the next, `matrix` from a matrix
// to the next (0: there is one).
typedef struct bt_gemm_matrix {
    CUdeviceptr address;
    uint32_t matrices, rows, k;
    uint64_t stride, matrix;
} bt_gemm_matrix;

// Describes it to the copy engine, in tiles of `box` rows of 128 bytes.
bt_status bt_gemm_map(bt_gemm *gemm, const bt_gemm_matrix *matrix, uint32_t box, bt_tensor_map *out,
                      bt_error *err);

// Adds the nodes of a convolution (gemm_conv.c). *taken: whether it is one that gains by them.
bt_status bt_gemm_conv(bt_gemm *gemm, const bt_launch *launch, bool *taken, bt_error *err);

#endif
