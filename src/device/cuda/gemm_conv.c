// Convolutions of many channels as products (kernels/cuda/conv_gemm.cu on the tensor cores, else
// conv_f32.cu): which ones, how their images and filters are packed, and the launches.
#include "device/cuda/gemm.h"

#include <string.h>

enum {
    TILE_N = 256,
    STAGES = 4,
    THREADS = 384,
    F32_TILE_N = 128,
    F32_STEP_K = 32,
    F32_STAGES = 3,
    PACK_THREADS = 256,
    PACK_TILE = 64,
    CHANNELS_MIN = 16, // with fewer, most of a tile of 128 bytes would be zeros
    GRID_MAX = 65535,
};

static uint32_t round_up(uint32_t count, uint32_t to) {
    return bt_gemm_blocks(count, to) * to;
}

static uint64_t aligned(uint64_t bytes) {
    return (bytes + 255) & ~(uint64_t)255;
}

static uint32_t elements_of(bt_gemm_kind kind) { // of 128 bytes
    return 128 / bt_gemm_number(kind);
}

static const float *floats(CUdeviceptr address) {
    return (const float *)(uintptr_t)address;
}

static void *memory(CUdeviceptr address) {
    return (void *)(uintptr_t)address;
}

// ---- Images and filters -----------------------------------------------------------------------

// Images for filters that reach `pad` pixels beyond them: rows of w + pad_x and, for what is copied
// by 16 bytes, a multiple of `align`. Rows share the zeros between them, and so do samples.
static bt_conv_plane plane_of(uint32_t align, uint32_t samples, uint32_t channels,
                              const uint32_t size[2], const uint32_t pad[2]) {
    bt_conv_plane plane = {.samples = samples, .channels = channels, .h = size[0], .w = size[1]};
    plane.pitch = round_up(size[1] + pad[1], align);
    plane.plane = plane.pitch * (size[0] + pad[0]);
    return plane;
}

static const char *entry_of(bt_gemm_kind kind, const char *const entry[3]) {
    return entry[kind - BT_GEMM_F32];
}

static bt_status add_points(bt_gemm *gemm, const bt_conv_pack_args *args, bt_error *err) {
    bt_cuda_node shape = {.grid = {bt_gemm_blocks(args->positions, PACK_TILE),
                                   bt_gemm_blocks(args->stride, PACK_TILE), 1},
                          .block = PACK_THREADS};
    static const char *const entry[3] = {"bt_conv_points_f32", "bt_conv_points_tf32",
                                         "bt_conv_points_bf16"};
    return bt_gemm_add(gemm, "conv_pack", entry_of(gemm->kind, entry), &shape, args, sizeof *args,
                       err);
}

// (Of f32 alone.)
static bt_status add_planes(bt_gemm *gemm, const bt_conv_pack_args *args, uint32_t copies,
                            bt_error *err) {
    bt_cuda_node shape = {
        .grid = {bt_gemm_blocks(args->positions, 4 * PACK_THREADS), args->from.channels, copies},
        .block = PACK_THREADS};
    return bt_gemm_add(gemm, "conv_pack", "bt_conv_planes_f32", &shape, args, sizeof *args, err);
}

static bt_status add_weights(bt_gemm *gemm, const bt_conv_weights_args *args, bt_error *err) {
    uint64_t rows = args->flipped ? args->c : args->o;
    uint64_t count = (gemm->kind == BT_GEMM_F32 ? args->depth : rows) * args->taps * args->stride;
    bt_cuda_node shape = {.grid = {bt_gemm_blocks(count, PACK_THREADS), 1, 1},
                          .block = PACK_THREADS};
    static const char *const entry[3] = {"bt_conv_weights_f32", "bt_conv_weights_tf32",
                                         "bt_conv_weights_bf16"};
    return bt_gemm_add(gemm, "conv_pack", entry_of(gemm->kind, entry), &shape, args, sizeof *args,
                       err);
}

// A kernel of conv_gemm.cu, of tiles of 64 or 128 rows, on as many blocks as there are tiles.
static bt_status add_kernel(bt_gemm *gemm, const char *const entry[2][2], uint32_t rows,
                            uint64_t tiles, const void *args, size_t bytes, bt_error *err) {
    uint32_t tile_m = rows > 64 ? 128 : 64;
    bt_cuda_node shape = {.grid = {(uint32_t)tiles, 1, 1},
                          .block = THREADS,
                          .shared = STAGES * ((tile_m + TILE_N) * 128 + 16) + BT_GEMM_STORE_ROOM};
    return bt_gemm_add(gemm, "conv_gemm", entry[gemm->kind == BT_GEMM_BF16][rows > 64], &shape,
                       args, bytes, err);
}

// Blocks of conv_f32.cu: tiles of 64 or 128 rows.
static bt_cuda_node f32_shape(uint32_t tile_m) {
    return (bt_cuda_node){.grid = {1, 1, 1},
                          .block = tile_m == 64 ? 128 : 256,
                          .shared = F32_STAGES * F32_STEP_K * (tile_m + F32_TILE_N) * 4};
}

// ---- y = f(weight * x + bias), and the gradient of x -------------------------------------------

// Both are the same: of the gradient, dy is what is convolved.
typedef struct conv {
    uint32_t samples, channels, size[2], pad[2]; // of what is convolved
    uint32_t rows, out[2];                       // of the result
    bool flipped;
    CUdeviceptr x, weight, bias, y;
} conv;

static conv conv_of(const bt_launch *launch, const bt_conv_args *a) {
    conv c = {.samples = a->n,
              .x = bt_cuda_address(&launch->binding[0]),
              .weight = bt_cuda_address(&launch->binding[1])};
    c.flipped = launch->kernel == BT_KERNEL_conv2d_grad_input;
    if (c.flipped) {
        c.channels = a->o, c.rows = a->c;
        c.size[0] = a->oh, c.size[1] = a->ow, c.out[0] = a->h, c.out[1] = a->w;
        c.pad[0] = a->kh - 1 - a->padding, c.pad[1] = a->kw - 1 - a->padding;
        c.y = bt_cuda_address(&launch->binding[2]);
    } else {
        c.channels = a->c, c.rows = a->o;
        c.size[0] = a->h, c.size[1] = a->w, c.out[0] = a->oh, c.out[1] = a->ow;
        c.pad[0] = c.pad[1] = a->padding;
        c.bias = bt_cuda_address(&launch->binding[2]);
        c.y = bt_cuda_address(&launch->binding[3]);
    }
    return c;
}

static bt_conv_result result_of(const conv *c, const bt_conv_plane *plane, const bt_conv_args *a) {
    return (bt_conv_result){
        .rows = c->rows,
        .samples = c->samples,
        .h = c->out[0],
        .w = c->out[1],
        .pitch = plane->pitch,
        .plane = plane->plane,
        .taps = a->kh * a->kw,
        .kw = a->kw,
        .epilogue = c->flipped ? BT_MAP_COPY : a->epilogue,
        .bias = floats(c->bias),
        .y = memory(c->y),
    };
}

static bt_status add_conv(bt_gemm *gemm, const bt_launch *launch, const bt_conv_args *a,
                          bt_error *err) {
    static const char *const entry[2][2] = {{"bt_conv_tf32_64", "bt_conv_tf32_128"},
                                            {"bt_conv_bf16_64", "bt_conv_bf16_128"}};
    conv c = conv_of(launch, a);
    uint32_t number = bt_gemm_number(gemm->kind), taps = a->kh * a->kw;
    bt_conv_plane plane = plane_of(1, c.samples, c.channels, c.size, c.pad);
    uint32_t positions = c.samples * plane.plane, stride = round_up(c.channels, 16 / number);
    uint32_t depth = round_up(c.channels, elements_of(gemm->kind)); // of a tap of a filter
    uint64_t points = aligned((uint64_t)positions * stride * number);
    uint64_t filters = aligned((uint64_t)c.rows * taps * depth * number);
    CUdeviceptr room;
    BT_TRY(bt_cuda_scratch_for(gemm->dev, points + filters, &room, err));
    bt_conv_pack_args pack = {.from = plane,
                              .positions = positions,
                              .stride = stride,
                              .x = floats(c.x),
                              .to = memory(room)};
    bt_conv_weights_args weights = {
        a->o, a->c, taps, depth, c.flipped, depth, floats(c.weight), memory(room + points)};
    BT_TRY(add_points(gemm, &pack, err));
    BT_TRY(add_weights(gemm, &weights, err));

    const bt_gemm_matrix a_is = {room + points, 1, c.rows, taps * depth, taps * depth, 0};
    const bt_gemm_matrix b_is = {room, 1, positions, c.channels, stride, 0};
    bt_conv_gemm_args args = {
        .out = result_of(&c, &plane, a),
        .steps = depth / elements_of(gemm->kind),
        .shift = -(int)(c.pad[0] * plane.pitch + c.pad[1]),
    };
    BT_TRY(bt_gemm_map(gemm, &a_is, c.rows > 64 ? 128 : 64, &args.a, err));
    BT_TRY(bt_gemm_map(gemm, &b_is, TILE_N, &args.b, err));
    uint64_t tiles = (uint64_t)bt_gemm_blocks(c.rows, c.rows > 64 ? 128 : 64) *
                     bt_gemm_blocks(positions, TILE_N);
    return add_kernel(gemm, entry, c.rows, tiles, &args, sizeof args, err);
}

// In f32: a copy of the planes for each column of the filter, which begins that much further.
// Before position 0 and behind the last are zeros, as far as a tap reaches.
static bt_status add_conv_f32(bt_gemm *gemm, const bt_launch *launch, const bt_conv_args *a,
                              bt_error *err) {
    conv c = conv_of(launch, a);
    uint32_t taps = a->kh * a->kw, tile_m = c.rows > 64 ? 128 : 64;
    bt_conv_plane plane = plane_of(4, c.samples, c.channels, c.size, c.pad);
    uint32_t positions = c.samples * plane.plane, before = c.pad[0] * plane.pitch;
    uint32_t stride = before + round_up(positions, F32_TILE_N) + a->kh * plane.pitch;
    uint32_t depth = round_up(c.channels, F32_STEP_K), rows = round_up(c.rows, 4);
    uint64_t planes = aligned((uint64_t)a->kw * c.channels * stride * 4);
    CUdeviceptr room;
    BT_TRY(bt_cuda_scratch_for(gemm->dev, planes + (uint64_t)taps * depth * rows * 4, &room, err));
    bt_conv_pack_args pack = {.from = plane,
                              .positions = stride,
                              .stride = stride,
                              .first = -(int)(before + c.pad[1]),
                              .x = floats(c.x),
                              .to = memory(room)};
    bt_conv_weights_args weights = {
        a->o, a->c, taps, rows, c.flipped, depth, floats(c.weight), memory(room + planes)};
    BT_TRY(add_planes(gemm, &pack, a->kw, err));
    BT_TRY(add_weights(gemm, &weights, err));

    bt_conv_f32_args args = {
        .out = result_of(&c, &plane, a),
        .steps = depth / F32_STEP_K,
        .channels = c.channels,
        .a_stride = rows,
        .b_stride = stride,
        .pad_y = c.pad[0],
        .a = floats(room + planes),
        .b = floats(room) + before,
    };
    bt_cuda_node shape = f32_shape(tile_m);
    shape.grid[0] = bt_gemm_blocks(c.rows, tile_m) * bt_gemm_blocks(positions, F32_TILE_N);
    return bt_gemm_add(gemm, "conv_f32", tile_m == 64 ? "bt_conv_f32_64" : "bt_conv_f32_128",
                       &shape, &args, sizeof args, err);
}

// ---- The gradient of the weights --------------------------------------------------------------

// In f32, or else in TF32: what is summed over are positions, which bf16 would need side by side.
// The channels of a position lie side by side, with zeros before and behind as above.
static bt_status add_conv_weight(bt_gemm *gemm, const bt_launch *launch, const bt_conv_args *a,
                                 bt_error *err) {
    static const char *const entry[2][2] = {{"bt_conv_weight_f32_64", "bt_conv_weight_f32_128"},
                                            {"bt_conv_weight_tf32_64", "bt_conv_weight_tf32_128"}};
    const uint32_t size[2] = {a->h, a->w}, pad[2] = {a->padding, a->padding};
    if (gemm->kind == BT_GEMM_BF16) gemm->kind = BT_GEMM_TF32;
    uint32_t taps = a->kh * a->kw, tile_m = a->o > 64 ? 128 : 64;
    uint32_t chunks = bt_gemm_blocks(a->n, BT_CONV_CHUNK);
    bt_conv_plane of_x = plane_of(1, a->n, a->c, size, pad), of_dy = of_x;
    of_dy.channels = a->o, of_dy.h = a->oh, of_dy.w = a->ow;
    uint32_t k = BT_CONV_CHUNK * of_x.plane, before = a->padding * (of_x.pitch + 1);
    uint32_t positions = before + chunks * k + a->kh * of_x.pitch;
    uint64_t dy_bytes = aligned((uint64_t)chunks * k * a->o * 4);
    CUdeviceptr room;
    BT_TRY(bt_cuda_scratch_for(gemm->dev, dy_bytes + (uint64_t)positions * a->c * 4, &room, err));
    bt_conv_pack_args pack_dy = {.from = of_dy,
                                 .positions = chunks * k,
                                 .stride = a->o,
                                 .x = floats(bt_cuda_address(&launch->binding[0])),
                                 .to = memory(room)};
    bt_conv_pack_args pack_x = {.from = of_x,
                                .positions = positions,
                                .stride = a->c,
                                .first = -(int)before,
                                .x = floats(bt_cuda_address(&launch->binding[1])),
                                .to = memory(room + dy_bytes)};
    BT_TRY(add_points(gemm, &pack_dy, err));
    BT_TRY(add_points(gemm, &pack_x, err));

    bt_conv_weight_args args = {
        .o = a->o,
        .c = a->c,
        .chunks = chunks,
        .k = k,
        .pitch = of_x.pitch,
        .taps = taps,
        .kw = a->kw,
        .shift = -(int)before,
        .a_stride = a->o,
        .b_stride = a->c,
        .a = floats(room),
        .b = floats(room + dy_bytes) + (size_t)before * a->c,
        .partial = memory(bt_cuda_address(&launch->binding[2])),
    };
    uint32_t tiles = bt_gemm_blocks(a->o, tile_m) * bt_gemm_blocks(a->c * taps, F32_TILE_N);
    bt_cuda_node shape = f32_shape(tile_m);
    shape.cluster = bt_gemm_split(gemm, (uint64_t)tiles * chunks, tile_m == 64 ? 3 : 2, k);
    shape.grid[0] = tiles * shape.cluster;
    shape.grid[2] = chunks;
    return bt_gemm_add(gemm, "conv_f32", entry[gemm->kind == BT_GEMM_TF32][tile_m > 64], &shape,
                       &args, sizeof args, err);
}

// ---- Which convolutions -----------------------------------------------------------------------

// Stride 1, many channels on both sides, enough arithmetic to pay for packing, and sizes that the
// 32-bit arithmetic of the kernels can count.
static bool is_worth_it(bt_gemm_kind kind, uint16_t kernel, const bt_conv_args *a) {
    if (a->stride != 1 || a->padding >= a->kh || a->padding >= a->kw) return false;
    if (a->c < CHANNELS_MIN || a->o < CHANNELS_MIN || a->c % 8 || a->o % 8) return false;
    // In f32, tiles half of zeros are slower than the portable convolution.
    if (kind == BT_GEMM_F32 && kernel == BT_KERNEL_conv2d && a->c < F32_STEP_K) return false;
    if (a->c > GRID_MAX || a->o > GRID_MAX || a->n == 0 || a->oh == 0 || a->ow == 0) return false;
    if (a->n / BT_CONV_CHUNK >= GRID_MAX) return false;
    double taps = (double)a->kh * a->kw;
    double positions = (a->n + BT_CONV_CHUNK) * (double)(a->h + a->kh) * (double)(a->w + a->kw + 1);
    if (positions >= 0x1p30 || taps * a->c >= 0x1p24 || taps * a->o >= 0x1p24) return false;
    double multiplications = (double)a->n * a->oh * a->ow * taps * a->c * a->o;
    return multiplications >= (kind == BT_GEMM_F32 ? 0x1p28 : 0x1p26);
}

bt_status bt_gemm_conv(bt_gemm *gemm, const bt_launch *launch, bool *taken, bt_error *err) {
    bt_conv_args args;
    memcpy(&args, launch->scalars, sizeof args);
    *taken = is_worth_it(gemm->kind, launch->kernel, &args);
    if (!*taken) return BT_OK;
    if (launch->kernel == BT_KERNEL_conv2d_grad_weight)
        return add_conv_weight(gemm, launch, &args, err);
    return gemm->kind == BT_GEMM_F32 ? add_conv_f32(gemm, launch, &args, err)
                                     : add_conv(gemm, launch, &args, err);
}
