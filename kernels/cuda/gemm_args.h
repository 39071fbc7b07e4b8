// What the kernels of large matrix products and convolutions get: read by the host (C) and put
// before kernels/cuda/gemm_*.cu and conv_gemm.cu.
#ifndef BT_CUDA_GEMM_ARGS_H
#define BT_CUDA_GEMM_ARGS_H

// A TMA tensor map (CUtensorMap of the driver): opaque, 128 bytes, and at a multiple of 64. So
// parameters that hold one do not begin where parameters begin, and only the driver knows where: a
// kernel gets all that it needs as one struct (bt_cuda_node.one).
typedef struct bt_tensor_map {
#ifdef __CUDACC__
    alignas(64)
#else
    _Alignas(64)
#endif
        unsigned long long words[16];
} bt_tensor_map;

// y [batch, m, n] = f(a b^T + bias), of operands that the tensor maps describe: a [matrices, m, k]
// and b [matrices, n, k], both with k contiguous. An operand that all products share is one matrix.
typedef struct bt_gemm_args {
    bt_tensor_map a, b;
    unsigned m, n, k, batch;
    unsigned a_batched, b_batched; // 0: one matrix for all products
    unsigned epilogue;             // the operator of math.k
    unsigned group;                // rows of tiles that are done together, for the L2 cache
    const float *bias;             // [n]; 0: none
    const float *y_forward;        // as y; 0: none
    float *y;
} bt_gemm_args;

// y [batch1, batch2, m, n] = f(a^T b + bias), of a [k, a_stride] and b [k, b_stride], whose first m
// and n columns count. Matrix (i, j) of a begins at i a_step[0] + j a_step[1], of b likewise; all
// rows begin at multiples of 16 bytes. The blocks of a cluster share k.
typedef struct bt_gemm_f32_args {
    unsigned m, n, k, batch2;
    unsigned a_step[2], b_step[2];
    unsigned a_stride, b_stride;
    unsigned epilogue;
    unsigned group; // as in bt_gemm_args
    const float *a, *b;
    const float *bias, *y_forward;
    float *y;
} bt_gemm_f32_args;

// to [matrices, rows, stride] = from, whose matrix (i, j) begins at i step[0] + j step[1] and is
// [rows, k], or [k, rows] when transposed; rounded to bf16 or TF32. Beyond k nothing is written.
typedef struct bt_pack_args {
    unsigned rows, k, stride, matrices, batch2;
    unsigned step[2];
    unsigned transposed;
    const float *from;
    void *to;
} bt_pack_args;

// Both operands of a product, or one, the other having no matrices.
typedef struct bt_pack_both_args {
    bt_pack_args operand[2];
} bt_pack_both_args;

// How an image lies for a convolution (conv_gemm.cu): h x w pixels in a plane of rows that are
// `pitch` apart, with zeros right of and below them: `plane` numbers, sample after sample.
typedef struct bt_conv_plane {
    unsigned samples, channels, h, w; // as in x or dy: [samples, channels, h, w]
    unsigned pitch, plane;
} bt_conv_plane;

// The result of a convolution, y [samples, rows, h, w] = f(bias + the sum over taps and channels),
// from positions of planes.
typedef struct bt_conv_result {
    unsigned rows, samples, h, w;
    unsigned pitch, plane;
    unsigned taps, kw;
    unsigned epilogue;
    unsigned unused;
    const float *bias; // [rows]; 0: none
    float *y;
} bt_conv_result;

// a: the weights [rows, taps, channels padded to `steps` tiles], b: the planes with the channels of
// a position side by side.
typedef struct bt_conv_gemm_args {
    bt_tensor_map a, b;
    bt_conv_result out;
    unsigned steps;
    int shift; // from a position to that of its first tap
} bt_conv_gemm_args;

// The same in f32 (conv_f32.cu). a: the weights [taps, channels padded to `steps` tiles, a_stride];
// b: a copy of the planes [channels, b_stride] for each column kx of the filter, moved by it.
typedef struct bt_conv_f32_args {
    bt_conv_result out;
    unsigned steps, channels;
    unsigned a_stride, b_stride;
    unsigned pad_y;
    unsigned unused;
    const float *a, *b; // b: position 0 of the first copy
} bt_conv_f32_args;

// partial [chunks, o, c, taps]. a: dy [chunks, k, a_stride], b: x [all, b_stride], the channels of
// a position side by side.
typedef struct bt_conv_weight_args {
    unsigned o, c, chunks, k;
    unsigned pitch, taps, kw;
    int shift; // from a position to that of its first tap
    unsigned a_stride, b_stride;
    const float *a, *b; // b: position 0
    float *partial;
} bt_conv_weight_args;

// Planes as the kernels want them. `stride`: numbers from a position to the next (channels side by
// side), or from a channel to the next. Where there are several copies, copy i begins i further.
typedef struct bt_conv_pack_args {
    bt_conv_plane from;
    unsigned positions; // to write; those that no sample has are 0
    unsigned stride;
    int first; // the position that is written first; may be below 0
    unsigned unused;
    const float *x;
    void *to;
} bt_conv_pack_args;

// Weights: to [rows, taps, stride] = from [o, c, taps], whose rows are o, or, `flipped` for the
// gradient of the input, c, with the taps in reverse. Zeros beyond the channels. In f32: to [taps,
// depth, stride], with the rows side by side, and zeros beyond them.
typedef struct bt_conv_weights_args {
    unsigned o, c, taps, stride;
    unsigned flipped, depth;
    const float *weight;
    void *to;
} bt_conv_weights_args;

#endif
