// Packed operands as they are stored: `one` number, and `four` neighbours, rounded.
#ifndef BT_CUDA_GEMM_ROUND_CUH
#define BT_CUDA_GEMM_ROUND_CUH

// Rounded to nearest. The tensor cores themselves would cut off the bits that TF32 has not, which
// errs twice as much and always towards 0.
static __device__ __forceinline__ unsigned tf32_of(float x) {
    unsigned bits = __float_as_uint(x);
    // (A NaN or infinity stays what it is.)
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

static __device__ __forceinline__ unsigned bf16_of(float x) {
    unsigned bits = __float_as_uint(x);
    unsigned even = bits + 0x7fffu + (bits >> 16 & 1); // to nearest, ties to even
    return ((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : even) >> 16;
}

// x in the lower half.
static __device__ __forceinline__ unsigned bf16_pair_of(float x, float y) {
    return bf16_of(x) | bf16_of(y) << 16;
}

struct bf16_numbers {
    typedef unsigned short one;
    typedef uint2 four;
    static __device__ one round(float x) { return (one)bf16_pair_of(x, 0.0f); }
    static __device__ four round(float4 x) {
        return make_uint2(bf16_pair_of(x.x, x.y), bf16_pair_of(x.z, x.w));
    }
};

struct tf32_numbers {
    typedef unsigned one;
    typedef uint4 four;
    static __device__ one round(float x) { return tf32_of(x); }
    static __device__ four round(float4 x) {
        return make_uint4(tf32_of(x.x), tf32_of(x.y), tf32_of(x.z), tf32_of(x.w));
    }
};

struct f32_numbers {
    typedef float one;
    typedef float4 four;
    static __device__ one round(float x) { return x; }
    static __device__ four round(float4 x) { return x; }
};

#endif
