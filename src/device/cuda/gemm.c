// Matrix products that are large enough to gain by kernels of their own: on the tensor cores where
// the precision allows it, else in f32. Operands that do not lie as the kernels want them are
// packed into scratch memory first.
#include "device/cuda/gemm.h"

#include <stdio.h>
#include <string.h>

enum {
    TILE_M = 128, // of y, that a block computes
    TILE_N = 256,
    TILE_NARROW = 128, // the same of the narrow kernels, and of the f32 kernel
    CLUSTER = 2,       // blocks, one above the other
    TENSOR_THREADS = 384,
    TENSOR_SHARED = 4 * ((TILE_M + TILE_N) * 128 + 16) + BT_GEMM_STORE_ROOM, // stages, barriers
    NARROW_SHARED = 6 * ((TILE_M + TILE_NARROW) * 128 + 16) + BT_GEMM_STORE_ROOM,
    F32_THREADS = 256,
    F32_ROOM = 1, // blocks that a multiprocessor takes without any becoming slower
    F32_SHARED = 3 * (TILE_M + TILE_NARROW) * 32 * 4, // three stages of 32 rows
    PACK_THREADS = 256,
    PACK_TILE = 64,
    GROUP_ROWS = 8, // of tiles, done together
    GRID_MAX = 65535,
};

// ---- Nodes ------------------------------------------------------------------------------------

bt_status bt_gemm_add(bt_gemm *gemm, const char *image, const char *entry,
                      const bt_cuda_node *shape, const void *args, size_t bytes, bt_error *err) {
    char name[64];
    bt_cuda_node *node = &gemm->nodes[gemm->count];
    *node = *shape;
    node->scratch = node->one = true;
    memcpy(node->args, args, bytes);
    node->args_bytes = bytes;
    snprintf(name, sizeof name, "%s.cubin", image);
    BT_TRY(bt_cuda_function(gemm->dev, name, entry, &node->function, err));
    gemm->count++;
    return bt_cuda_allow(gemm->dev, node->function, node->shared, node->cluster, err);
}

uint32_t bt_gemm_split(const bt_gemm *gemm, uint64_t tiles, uint32_t room, uint32_t depth) {
    enum { SPLIT_MAX = 8, AROUND = 100 }; // what a tile costs beside its depth, in rows of it
    uint64_t slots = (uint64_t)gemm->dev->chip.sms * room, best = UINT64_MAX;
    uint32_t split = 1;
    for (uint32_t n = 1; n <= SPLIT_MAX; n *= 2) {
        uint64_t rounds = (tiles * n + slots - 1) / slots;
        uint64_t time = rounds * (bt_gemm_blocks(depth, n) + AROUND);
        if (time < best) best = time, split = n;
    }
    return split;
}

bt_status bt_gemm_map(bt_gemm *gemm, const bt_gemm_matrix *matrix, uint32_t box, bt_tensor_map *out,
                      bt_error *err) {
    enum { FLOAT32 = 7, BFLOAT16 = 9, SWIZZLE_128B = 3, PROMOTE_L2_256B = 3 }; // of the driver
    uint32_t number = bt_gemm_number(gemm->kind);
    const uint32_t ones[3] = {1, 1, 1}, tile[3] = {128 / number, box, 1};
    const uint64_t dims[3] = {matrix->k, matrix->rows, matrix->matrices};
    uint64_t further = matrix->matrix ? matrix->matrix : matrix->stride * matrix->rows;
    const uint64_t steps[2] = {matrix->stride * number, further * number};
    CUtensorMap map;
    CUresult result =
        bt_cu.cuTensorMapEncodeTiled(&map, gemm->kind == BT_GEMM_BF16 ? BFLOAT16 : FLOAT32, 3,
                                     (void *)(uintptr_t)matrix->address, dims, steps, tile, ones, 0,
                                     SWIZZLE_128B, PROMOTE_L2_256B, 0);
    memcpy(out, &map, sizeof map);
    return bt_cuda_check(gemm->dev, result, "describing a matrix", err);
}

// ---- Which products ---------------------------------------------------------------------------

// A launch as matrices: y [matrices, m, n] = op(a) op(b).
typedef struct product {
    bt_matmul_args args;
    uint32_t matrices;
    CUdeviceptr a, b, bias, y_forward, y;
} product;

// BT_GEMM_NONE: the chip is not a Hopper, or nothing compiles for it.
static bt_gemm_kind kind_of(bt_device *dev) {
    if (!bt_cuda_has_gemm(dev)) return BT_GEMM_NONE;
    switch (dev->precision) {
    case BT_PRECISION_TF32: return BT_GEMM_TF32;
    case BT_PRECISION_BF16: return BT_GEMM_BF16;
    default: return BT_GEMM_F32;
    }
}

static product product_of(const bt_launch *launch) {
    product p = {.a = bt_cuda_address(&launch->binding[0]),
                 .b = bt_cuda_address(&launch->binding[1]),
                 .bias = bt_cuda_address(&launch->binding[2]),
                 .y_forward = bt_cuda_address(&launch->binding[3]),
                 .y = bt_cuda_address(&launch->binding[4])};
    memcpy(&p.args, launch->scalars, sizeof p.args);
    p.matrices = p.args.batch1 * p.args.batch2;
    return p;
}

// Is it faster than the portable kernel, packing included? (bench/matmul.c)
static bool is_worth_it(bt_gemm_kind kind, const product *p) {
    uint64_t m = p->args.m, n = p->args.n, k = p->args.k;
    if (m < 64 || n < 64 || k < 32 || p->matrices == 0 || p->matrices > GRID_MAX) return false;
    // Blocks that pack are counted in 31 bits.
    if ((double)(m + PACK_TILE + n) * (double)(k + PACK_TILE) * p->matrices >= 0x1p42) return false;
    uint64_t tiles =
        (uint64_t)bt_gemm_blocks(m, TILE_M) * bt_gemm_blocks(n, TILE_NARROW) * p->matrices;
    double multiplications = (double)m * (double)n * (double)k * p->matrices;
    if (kind == BT_GEMM_F32) return tiles >= 16 && multiplications >= 0x1p29;
    return tiles >= 16 && multiplications >= 0x1p28;
}

// ---- Operands ---------------------------------------------------------------------------------

// One operand of a product, as `rows` rows (of y; columns, for b) of k numbers.
typedef struct operand {
    CUdeviceptr address;
    uint32_t rows, k, step[2];
    bool transposed;       // it lies [k, rows]
    uint32_t matrices;     // distinct ones: 1 when all products share it
    bool packs;            // it must be
    uint32_t across, down; // as the kernel wants it: numbers in a row, rows
    uint32_t stride;
    uint64_t bytes; // packed
} operand;

// The tensor cores want [rows, k], the f32 kernel [k, rows].
static operand operand_of(bt_gemm_kind kind, CUdeviceptr address, uint32_t rows, uint32_t k,
                          const uint32_t step[2], bool transposed, uint32_t matrices) {
    bool tensor = kind != BT_GEMM_F32;
    uint32_t number = bt_gemm_number(kind), align = 16 / number;
    operand at = {.address = address,
                  .rows = rows,
                  .k = k,
                  .step = {step[0], step[1]},
                  .transposed = transposed,
                  .matrices = step[0] || step[1] ? matrices : 1,
                  .across = tensor ? k : rows,
                  .down = tensor ? rows : k};
    at.stride = bt_gemm_blocks(at.across, align) * align;
    at.packs = tensor || !transposed || rows % 4 || step[0] % 4 || step[1] % 4;
    if (at.packs) at.bytes = (uint64_t)at.stride * at.down * at.matrices * number;
    at.bytes = (at.bytes + 255) & ~(uint64_t)255;
    return at;
}

static uint32_t pack_blocks(const bt_pack_args *args) {
    return bt_gemm_blocks(args->k, PACK_TILE) * bt_gemm_blocks(args->rows, PACK_TILE) *
           args->matrices;
}

// What packs an operand into `room`; then its address and steps are those of what was packed.
static bt_pack_args pack(const bt_gemm *gemm, operand *at, CUdeviceptr *room, uint32_t batch2) {
    bt_pack_args args = {.rows = at->down,
                         .k = at->across,
                         .stride = at->stride,
                         .matrices = at->packs ? at->matrices : 0,
                         .batch2 = batch2,
                         .step = {at->step[0], at->step[1]},
                         .transposed = at->transposed == (gemm->kind != BT_GEMM_F32),
                         .from = (const float *)(uintptr_t)at->address,
                         .to = (void *)(uintptr_t)*room};
    if (!at->packs) return args;
    at->address = *room;
    *room += at->bytes;
    at->step[1] = at->matrices > 1 ? at->stride * at->down : 0;
    at->step[0] = at->step[1] * batch2;
    return args;
}

// Packs, in one launch, what must be.
static bt_status add_packs(bt_gemm *gemm, operand *a, operand *b, uint32_t batch2, bt_error *err) {
    static const char *const entry[] = {[BT_GEMM_F32] = "bt_pack_f32",
                                        [BT_GEMM_TF32] = "bt_pack_tf32",
                                        [BT_GEMM_BF16] = "bt_pack_bf16"};
    CUdeviceptr room = 0;
    if (a->bytes + b->bytes == 0) return BT_OK;
    BT_TRY(bt_cuda_scratch_for(gemm->dev, a->bytes + b->bytes, &room, err));
    bt_pack_both_args args;
    args.operand[0] = pack(gemm, a, &room, batch2);
    args.operand[1] = pack(gemm, b, &room, batch2);
    bt_cuda_node shape = {
        .grid = {pack_blocks(&args.operand[0]) + pack_blocks(&args.operand[1]), 1, 1},
        .block = PACK_THREADS};
    return bt_gemm_add(gemm, "gemm_pack", entry[gemm->kind], &shape, &args, sizeof args, err);
}

// ---- The products -----------------------------------------------------------------------------

static bt_status add_f32(bt_gemm *gemm, const product *p, const operand *a, const operand *b,
                         bt_error *err) {
    bt_gemm_f32_args args = {.m = p->args.m,
                             .n = p->args.n,
                             .k = p->args.k,
                             .batch2 = p->args.batch2,
                             .a_step = {a->step[0], a->step[1]},
                             .b_step = {b->step[0], b->step[1]},
                             .a_stride = a->stride,
                             .b_stride = b->stride,
                             .epilogue = p->args.epilogue,
                             .group = GROUP_ROWS,
                             .a = (const float *)(uintptr_t)a->address,
                             .b = (const float *)(uintptr_t)b->address,
                             .bias = (const float *)(uintptr_t)p->bias,
                             .y_forward = (const float *)(uintptr_t)p->y_forward,
                             .y = (float *)(uintptr_t)p->y};
    uint32_t tiles = bt_gemm_blocks(args.m, TILE_M) * bt_gemm_blocks(args.n, TILE_NARROW);
    uint32_t split = bt_gemm_split(gemm, (uint64_t)tiles * p->matrices, F32_ROOM, args.k);
    bt_cuda_node shape = {.grid = {tiles * split, 1, p->matrices},
                          .block = F32_THREADS,
                          .cluster = split,
                          .shared = F32_SHARED};
    return bt_gemm_add(gemm, "gemm_f32", "bt_gemm_f32", &shape, &args, sizeof args, err);
}

// Rounds in which all clusters of the chip have a tile.
static uint64_t rounds(const bt_device *dev, const product *p, uint32_t tile_n) {
    uint64_t tiles = (uint64_t)bt_gemm_blocks(p->args.m, CLUSTER * TILE_M) *
                     bt_gemm_blocks(p->args.n, tile_n) * p->matrices;
    uint32_t clusters = (uint32_t)dev->chip.sms / CLUSTER;
    return (tiles + clusters - 1) / clusters;
}

// The narrow kernel takes 0.6 of the time for half of the tile: for it, the wide one must leave
// clusters idle.
static bool is_narrow(const bt_device *dev, const product *p) {
    return 0.6 * (double)rounds(dev, p, TILE_NARROW) < (double)rounds(dev, p, TILE_N);
}

// As many clusters as the chip has room for; each takes every so many tiles.
static bt_status add_tensor(bt_gemm *gemm, const product *p, const operand *a, const operand *b,
                            bt_error *err) {
    static const char *const entry[2][2] = {{"bt_gemm_tf32", "bt_gemm_tf32_narrow"},
                                            {"bt_gemm_bf16", "bt_gemm_bf16_narrow"}};
    bt_gemm_args args = {.m = p->args.m,
                         .n = p->args.n,
                         .k = p->args.k,
                         .batch = p->matrices,
                         .a_batched = a->matrices > 1,
                         .b_batched = b->matrices > 1,
                         .epilogue = p->args.epilogue,
                         .group = GROUP_ROWS,
                         .bias = (const float *)(uintptr_t)p->bias,
                         .y_forward = (const float *)(uintptr_t)p->y_forward,
                         .y = (float *)(uintptr_t)p->y};
    bool narrow = is_narrow(gemm->dev, p);
    uint32_t tile_n = narrow ? TILE_NARROW : TILE_N;
    const bt_gemm_matrix of_a = {a->address, a->matrices, a->rows, a->k, a->stride, 0};
    const bt_gemm_matrix of_b = {b->address, b->matrices, b->rows, b->k, b->stride, 0};
    BT_TRY(bt_gemm_map(gemm, &of_a, TILE_M, &args.a, err));
    BT_TRY(bt_gemm_map(gemm, &of_b, tile_n / CLUSTER, &args.b, err));
    uint64_t clusters = (uint64_t)bt_gemm_blocks(args.m, CLUSTER * TILE_M) *
                        bt_gemm_blocks(args.n, tile_n) * p->matrices;
    uint32_t most = (uint32_t)gemm->dev->chip.sms / CLUSTER;
    bt_cuda_node shape = {.grid = {CLUSTER * (clusters < most ? (uint32_t)clusters : most), 1, 1},
                          .block = TENSOR_THREADS,
                          .cluster = CLUSTER,
                          .shared = narrow ? NARROW_SHARED : TENSOR_SHARED};
    return bt_gemm_add(gemm, "gemm_wgmma", entry[gemm->kind == BT_GEMM_BF16][narrow], &shape, &args,
                       sizeof args, err);
}

static bt_status add_product(bt_gemm *gemm, const product *p, bt_error *err) {
    operand a = operand_of(gemm->kind, p->a, p->args.m, p->args.k, p->args.a_step,
                           p->args.transpose_a, p->matrices);
    operand b = operand_of(gemm->kind, p->b, p->args.n, p->args.k, p->args.b_step,
                           !p->args.transpose_b, p->matrices);
    BT_TRY(add_packs(gemm, &a, &b, p->args.batch2, err));
    return gemm->kind == BT_GEMM_F32 ? add_f32(gemm, p, &a, &b, err)
                                     : add_tensor(gemm, p, &a, &b, err);
}

static bt_status add_matmul(bt_gemm *gemm, const bt_launch *launch, bool *taken, bt_error *err) {
    product p = product_of(launch);
    *taken = is_worth_it(gemm->kind, &p);
    return *taken ? add_product(gemm, &p, err) : BT_OK;
}

bool bt_cuda_gemm_expand(bt_device *dev, const bt_launch *launch, bt_cuda_node *nodes, int *count,
                         bt_error *err) {
    bt_gemm gemm = {.dev = dev, .kind = kind_of(dev), .nodes = nodes};
    bt_status status = BT_OK;
    bool taken = false;
    if (gemm.kind == BT_GEMM_NONE || launch->dtype != BT_F32) return false;
    switch (launch->kernel) {
    case BT_KERNEL_matmul: status = add_matmul(&gemm, launch, &taken, err); break;
    case BT_KERNEL_conv2d:
    case BT_KERNEL_conv2d_grad_input:
    case BT_KERNEL_conv2d_grad_weight: status = bt_gemm_conv(&gemm, launch, &taken, err); break;
    default: break;
    }
    *count = gemm.count;
    if (status != BT_OK && dev->no_gemm[0]) *err = (bt_error){0}; // NVRTC could not compile them
    return taken && status == BT_OK;
}
