// Where the results of a convolution go: from positions of the planes to pixels of y, with the
// epilogue.
#ifndef BT_CUDA_CONV_STORE_CUH
#define BT_CUDA_CONV_STORE_CUH

#include "gemm_store.cuh"

// Stores sums at a position, if there is a pixel: those of `rows` rows from `row` on, `pitch`
// apart.
static __device__ __forceinline__ void conv_store(const bt_conv_result &g, const float *sums,
                                                  unsigned pitch, unsigned rows, unsigned row,
                                                  unsigned position) {
    unsigned sample = position / g.plane, within = position % g.plane;
    unsigned y = within / g.pitch, x = within % g.pitch;
    if (sample >= g.samples || y >= g.h || x >= g.w) return;
    sum_column c = {sums, pitch, rows, (size_t)g.h * g.w};
    c.bias = g.bias ? g.bias + row : 0;
    c.bias_step = 1;
    c.y_forward = 0;
    c.y = g.y + ((size_t)sample * g.rows + row) * c.step + y * g.w + x;
    store_column(c, g.epilogue);
}

#endif
