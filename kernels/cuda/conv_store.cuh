// Where the results of a convolution go: from positions of the planes to pixels of y, with the
// epilogue. ARGS: samples, rows, h, w of y, pitch and plane of the positions, epilogue, y.
#ifndef BT_CUDA_CONV_STORE_CUH
#define BT_CUDA_CONV_STORE_CUH

// The pixel at a position, and from there the pixel some positions on.
struct pixel {
    unsigned sample, y, x;
    template <typename ARGS>
    __device__ __forceinline__ pixel(const ARGS &g, unsigned position) {
        sample = position / g.plane;
        y = position % g.plane / g.pitch;
        x = position % g.plane % g.pitch;
    }
    template <typename ARGS>
    __device__ __forceinline__ void move(const ARGS &g, unsigned count) {
        for (x += count; x >= g.pitch; x -= g.pitch)
            if (++y * g.pitch == g.plane) {
                y = 0;
                sample++;
            }
    }
    template <typename ARGS>
    __device__ __forceinline__ bool is_in(const ARGS &g) const {
        return sample < g.samples && y < g.h && x < g.w;
    }
    template <typename ARGS>
    __device__ __forceinline__ size_t at(const ARGS &g, unsigned row) const {
        return (((size_t)sample * g.rows + row) * g.h + y) * g.w + x;
    }
};

template <typename ARGS>
static __device__ __forceinline__ float conv_epilogue(const ARGS &g, float value) {
    return g.epilogue == MAP_RELU ? apply(MAP_RELU, value, value) : value;
}

// The other operators need many registers: a thread applies them to what it has stored.
template <typename ARGS> static __device__ __forceinline__ bool conv_unfinished(const ARGS &g) {
    return g.epilogue != 0 /* MAP_COPY */ && g.epilogue != MAP_RELU;
}

// Rows row, row + step ... below `end`, at `count` positions.
template <typename ARGS>
static __device__ __noinline__ void conv_finish(const ARGS &g, unsigned row, unsigned end,
                                                unsigned step, unsigned position, unsigned count) {
    for (unsigned j = 0; j < count; j++) {
        pixel here(g, position + j);
        if (!here.is_in(g)) continue;
        for (unsigned r = row; r < end && r < g.rows; r += step) {
            float value = g.y[here.at(g, r)];
            g.y[here.at(g, r)] = apply(g.epilogue, value, value);
        }
    }
}

#endif
