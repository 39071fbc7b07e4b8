// As much of CUDA as the portable kernels use: with it Debian's clang compiles their CUDA text to PTX
// without CUDA's toolkit. Functions are as exact as CUDA's own (an error of at most 2 units in the
// last place).
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define __forceinline__ inline __attribute__((always_inline))
#define BT_INLINE static __device__ inline

typedef unsigned int uint;

// Special registers, read as members: threadIdx.x.
#define BT_REGISTER(name, registers)                                          \
    struct name {                                                             \
        __declspec(property(get = get_x)) uint x;                             \
        __declspec(property(get = get_y)) uint y;                             \
        __declspec(property(get = get_z)) uint z;                             \
        __device__ uint get_x() const { return __nvvm_read_ptx_sreg_##registers##_x(); } \
        __device__ uint get_y() const { return __nvvm_read_ptx_sreg_##registers##_y(); } \
        __device__ uint get_z() const { return __nvvm_read_ptx_sreg_##registers##_z(); } \
    };
BT_REGISTER(bt_thread_index, tid)
BT_REGISTER(bt_block_index, ctaid)
BT_REGISTER(bt_grid_size, nctaid)
extern const __device__ bt_thread_index threadIdx;
extern const __device__ bt_block_index blockIdx;
extern const __device__ bt_grid_size gridDim;

BT_INLINE float __uint_as_float(uint bits) { return __builtin_bit_cast(float, bits); }
BT_INLINE uint __float_as_uint(float value) { return __builtin_bit_cast(uint, value); }
BT_INLINE uint __umulhi(uint a, uint b) { return (uint)((unsigned long long)a * b >> 32); }
BT_INLINE int abs(int a) { return a < 0 ? -a : a; }
BT_INLINE int min(int a, int b) { return a < b ? a : b; }
BT_INLINE int max(int a, int b) { return a > b ? a : b; }
BT_INLINE uint min(uint a, uint b) { return a < b ? a : b; }
BT_INLINE uint max(uint a, uint b) { return a > b ? a : b; }
BT_INLINE float fabsf(float a) { return __builtin_fabsf(a); }
BT_INLINE float floorf(float a) { return __builtin_floorf(a); }
BT_INLINE float fminf(float a, float b) { return __builtin_fminf(a, b); }
BT_INLINE float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
BT_INLINE float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

BT_INLINE float sqrtf(float a) {
    float root;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(root) : "f"(a));
    return root;
}

BT_INLINE float bt_exp2(float a) {
    float power;
    asm("ex2.approx.f32 %0, %1;" : "=f"(power) : "f"(a));
    return power;
}

// e^a = 2^n e^r with r = a - n ln 2, in two parts so that r is exact; 2^n in two factors, since the
// whole may be finite where 2^n is not.
BT_INLINE float expf(float a) {
    float x = fminf(fmaxf(a, -150.0f), 150.0f);
    float n = floorf(fmaf(x, 1.442695041f, 0.5f));
    float r = fmaf(n, -0.693359375f, x);
    r = fmaf(n, 2.12194440e-4f, r);
    float half = floorf(n * 0.5f);
    float power = bt_exp2(r * 1.442695041f) * bt_exp2(half) * bt_exp2(n - half);
    return a != a ? a : power;
}

// ln a = i ln 2 + ln(1 + f) with 1 + f in [2/3, 4/3), the latter as a polynomial.
BT_INLINE float logf(float a) {
    if (!(a > 0.0f) || a == __builtin_inff())
        return a == 0.0f ? -__builtin_inff() : a < 0.0f ? __builtin_nanf("") : a;
    float i = 0.0f;
    if (a < 1.175494351e-38f) a *= 8388608.0f, i = -23.0f;
    uint e = (__float_as_uint(a) - __float_as_uint(0.666666667f)) & 0xff800000u;
    float f = __uint_as_float(__float_as_uint(a) - e) - 1.0f, s = f * f;
    i = fmaf((float)(int)e, 1.19209290e-7f, i);
    float r = fmaf(-0.130187988f, f, 0.140889585f), t = fmaf(-0.121489584f, f, 0.139809534f);
    r = fmaf(r, s, t);
    r = fmaf(r, f, -0.166845024f);
    r = fmaf(r, f, 0.200121149f);
    r = fmaf(r, f, -0.249996364f);
    r = fmaf(r, f, 0.333331943f);
    r = fmaf(r, f, -0.5f);
    r = fmaf(r, s, f);
    return fmaf(i, 0.693147182f, r);
}
