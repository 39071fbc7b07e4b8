// How products store: sums go through shared memory, so that a thread has a column of a tile and
// warps store whole lines; what happens to a sum is then written, and compiled, once.
#ifndef BT_CUDA_GEMM_STORE_CUH
#define BT_CUDA_GEMM_STORE_CUH

// A column of a tile in shared memory, and where it goes: the sum of row r is at[r * pitch], and
// its place y[r * step]. `rows` of them count.
struct sum_column {
    const float *at;
    unsigned pitch, rows;
    size_t step;
    const float *bias;      // of row 0; 0: none
    unsigned bias_step;     // from a row to the next
    const float *y_forward; // as y; 0: none
    float *y;
};

// Operators of a few instructions are applied to several sums at once. (The others need too many
// registers for that.)
static __device__ __forceinline__ bool is_simple(unsigned op) {
    return op == 0 /* MAP_COPY */ || op == MAP_RELU || op == MAP_RELU_GRAD || op == MAP_TANH_GRAD ||
           op == MAP_SIGMOID_GRAD;
}

static __device__ __forceinline__ float simple(unsigned op, float forward, float value) {
    return op == MAP_RELU_GRAD      ? apply(MAP_RELU_GRAD, forward, value)
           : op == MAP_TANH_GRAD    ? apply(MAP_TANH_GRAD, forward, value)
           : op == MAP_SIGMOID_GRAD ? apply(MAP_SIGMOID_GRAD, forward, value)
           : op == MAP_RELU         ? apply(MAP_RELU, value, value)
                                    : value;
}

// The sum of a row, with the bias.
static __device__ __forceinline__ float sum_of(const sum_column &c, unsigned r) {
    return c.at[r * c.pitch] + (c.bias ? __ldg(c.bias + r * c.bias_step) : 0.0f);
}

// y = op(sum + bias), or of that and y_forward.
static __device__ __forceinline__ void store_column(const sum_column &c, unsigned op) {
    enum { AT_ONCE = 8 };
    float *y = c.y;
    if (!is_simple(op)) {
#pragma unroll 1
        for (unsigned r = 0; r < c.rows; r++, y += c.step) {
            float value = sum_of(c, r);
            *y = apply(op, c.y_forward ? c.y_forward[r * c.step] : value, value);
        }
    } else if (!c.y_forward) {
#pragma unroll 4
        for (unsigned r = 0; r < c.rows; r++, y += c.step) {
            float value = sum_of(c, r);
            *y = op == MAP_RELU ? apply(MAP_RELU, value, value) : value;
        }
    } else {
#pragma unroll 1
        for (unsigned first = 0; first < c.rows; first += AT_ONCE) {
            float forward[AT_ONCE]; // all are on their way before the first is needed
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                if (first + i < c.rows) forward[i] = __ldg(c.y_forward + (first + i) * c.step);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++, y += c.step)
                if (first + i < c.rows) *y = simple(op, forward[i], sum_of(c, first + i));
        }
    }
}

// A column of a matrix product: to y[at], n apart.
template <typename ARGS>
static __device__ __forceinline__ void gemm_store(const ARGS &g, const float *sums, unsigned pitch,
                                                  unsigned rows, size_t at, unsigned column) {
    sum_column c = {sums, pitch, rows, g.n};
    c.bias = g.bias ? g.bias + column : 0;
    c.bias_step = 0;
    c.y_forward = g.y_forward ? g.y_forward + at : 0;
    c.y = g.y + at;
    store_column(c, g.epilogue);
}

// The rows from `row` on that a tile has of `end`.
static __device__ __forceinline__ unsigned rows_left(unsigned row, unsigned end, unsigned most) {
    return min(most, end - min(end, row));
}

#endif
