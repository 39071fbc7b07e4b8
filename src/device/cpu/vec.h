// Vectors of LANES floats for the instruction set this file is compiled for: AVX-512, AVX2 with
// FMA, or 4 lanes that work anywhere. Arithmetic and comparisons are the C operators on the
// compilers' vector types (a comparison gives all ones or zeros per lane); here is the rest.
// Included by the *_isa.c files alone, which are compiled once per instruction set, with BT_ISA
// as the suffix of their symbols.
#ifndef BT_DEVICE_CPU_VEC_H
#define BT_DEVICE_CPU_VEC_H

#include "device/cpu/worker.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define VEC_JOIN2(a, b) a##_##b
#define VEC_JOIN(a, b)  VEC_JOIN2(a, b)
#define VEC_NAME(name)  VEC_JOIN(name, BT_ISA)

// Kernels that hold a tile in registers need their loops over it unrolled at any -O level.
#if defined(__clang__)
#define VEC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VEC_UNROLL _Pragma("GCC unroll 32")
#endif
#define VEC_INLINE static inline __attribute__((always_inline))
// A function of its own, so that its innermost loop has all registers.
#define VEC_ALONE __attribute__((noinline))

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));

VEC_INLINE vf v_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

VEC_INLINE void v_store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}

// Keeps a loaded vector in a register where the compiler would load it anew for each use.
VEC_INLINE vf v_keep(vf v) {
#if defined(__AVX2__)
    __asm__("" : "+v"(v));
#endif
    return v;
}

#if defined(__AVX512F__)

VEC_INLINE vf v_set(float x) {
    return (vf)_mm512_set1_ps(x);
}
VEC_INLINE vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
VEC_INLINE vf v_sqrt(vf a) {
    return (vf)_mm512_sqrt_ps((__m512)a);
}
// The second operand where either is NaN, as in maxps.
VEC_INLINE vf v_max(vf a, vf b) {
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}
VEC_INLINE vf v_min(vf a, vf b) {
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}
VEC_INLINE vf v_bytes(const uint8_t *p) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)));
}

// The first n <= LANES elements (below: n < LANES); zeros (load) or nothing (store) beyond.
VEC_INLINE vf v_load_part(const float *p, size_t n) {
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
VEC_INLINE void v_store_part(float *p, vf v, size_t n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
}

#elif defined(__AVX2__)

VEC_INLINE vf v_set(float x) {
    return (vf)_mm256_set1_ps(x);
}
VEC_INLINE vf v_fma(vf a, vf b, vf c) {
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
VEC_INLINE vf v_sqrt(vf a) {
    return (vf)_mm256_sqrt_ps((__m256)a);
}
VEC_INLINE vf v_max(vf a, vf b) {
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}
VEC_INLINE vf v_min(vf a, vf b) {
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}
VEC_INLINE vf v_bytes(const uint8_t *p) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)));
}

VEC_INLINE __m256i v_first(size_t n) {
    return (__m256i)((vi){0, 1, 2, 3, 4, 5, 6, 7} < (vi)_mm256_set1_epi32((int)n));
}
VEC_INLINE vf v_load_part(const float *p, size_t n) {
    return (vf)_mm256_maskload_ps(p, v_first(n));
}
VEC_INLINE void v_store_part(float *p, vf v, size_t n) {
    _mm256_maskstore_ps(p, v_first(n), (__m256)v);
}

#else

VEC_INLINE vf v_set(float x) {
    return (vf){x, x, x, x};
}
VEC_INLINE vf v_max(vf a, vf b) {
    vi larger = a > b;
    return (vf)(((vi)a & larger) | ((vi)b & ~larger));
}
VEC_INLINE vf v_min(vf a, vf b) {
    vi smaller = a < b;
    return (vf)(((vi)a & smaller) | ((vi)b & ~smaller));
}
VEC_INLINE vf v_bytes(const uint8_t *p) {
    return (vf){p[0], p[1], p[2], p[3]};
}

#if defined(__aarch64__)
VEC_INLINE vf v_fma(vf a, vf b, vf c) {
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
VEC_INLINE vf v_sqrt(vf a) {
    return (vf)vsqrtq_f32((float32x4_t)a);
}
#else
VEC_INLINE vf v_fma(vf a, vf b, vf c) {
    return a * b + c;
}
VEC_INLINE vf v_sqrt(vf a) {
    return (vf){__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]),
                __builtin_sqrtf(a[3])};
}
#endif

VEC_INLINE vf v_load_part(const float *p, size_t n) {
    vf v = {0};
    for (size_t i = 0; i < n; i++) v[i] = p[i];
    return v;
}
VEC_INLINE void v_store_part(float *p, vf v, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = v[i];
}

#endif

VEC_INLINE vf v_select(vi mask, vf yes, vf no) {
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}
VEC_INLINE vf v_abs(vf a) {
    return (vf)((vi)a & 0x7fffffff);
}
VEC_INLINE vf v_sign_of(vf magnitude, vf sign) { // magnitude >= 0
    return (vf)((vi)magnitude | ((vi)sign & (int32_t)0x80000000));
}

// All ones in the first n lanes.
VEC_INLINE vi v_below(size_t n) {
    static const int32_t index[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vi lane;
    memcpy(&lane, index, sizeof lane);
    return lane < (int32_t)n;
}

// A bit for each lane of a comparison's result that is true, the first lane lowest.
VEC_INLINE uint64_t v_mask(vi comparison) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)comparison);
#elif defined(__AVX2__)
    return (uint64_t)_mm256_movemask_ps((__m256)comparison);
#else
    vi bits = comparison & (vi){1, 2, 4, 8};
    return (uint64_t)(bits[0] | bits[1] | bits[2] | bits[3]);
#endif
}
VEC_INLINE bool v_any(vi comparison) {
    return v_mask(comparison) != 0;
}

// Segments: a vector of 16 lanes may be made of two runs of 8, which suits the short rows of
// images; shorter vectors are one run.
enum { SEGMENT = LANES == 16 ? 8 : LANES, SEGMENTS = LANES / SEGMENT };
typedef float v4 __attribute__((vector_size(16)));

#if defined(__AVX512F__)
typedef float v8 __attribute__((vector_size(32)));
VEC_INLINE v8 v_low(vf v) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
}
VEC_INLINE v8 v_high(vf v) {
    return __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
}
VEC_INLINE v4 v_quarter(vf v) {
    v8 h = v_low(v) + v_high(v);
    return __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
}
VEC_INLINE vf v_load_segments(const float *p, const int32_t offset[SEGMENTS]) {
    v8 low, high;
    memcpy(&low, p + offset[0], sizeof low);
    memcpy(&high, p + offset[1], sizeof high);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
VEC_INLINE void v_store_segment(float *p, vf v, int segment) {
    v8 part = segment ? v_high(v) : v_low(v);
    memcpy(p, &part, sizeof part);
}
VEC_INLINE void v_add_segment(float *p, vf v, int segment) {
    v8 part;
    memcpy(&part, p, sizeof part);
    part += segment ? v_high(v) : v_low(v);
    memcpy(p, &part, sizeof part);
}
#else
#if defined(__AVX2__)
VEC_INLINE v4 v_quarter(vf v) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
#else
VEC_INLINE v4 v_quarter(vf v) {
    return v;
}
#endif
VEC_INLINE vf v_load_segments(const float *p, const int32_t offset[SEGMENTS]) {
    return v_load(p + offset[0]);
}
VEC_INLINE void v_store_segment(float *p, vf v, int segment) {
    (void)segment;
    v_store(p, v);
}
VEC_INLINE void v_add_segment(float *p, vf v, int segment) {
    (void)segment;
    v_store(p, v_load(p) + v);
}
#endif

// Quarters of a vector, 4 lanes each, `apart` numbers from one to the next.
enum { QUARTERS = LANES / 4 };
VEC_INLINE vf v_load_quarters(const float *p, size_t apart) {
    v4 part[QUARTERS];
    VEC_UNROLL
    for (size_t q = 0; q < QUARTERS; q++) memcpy(&part[q], p + q * apart, sizeof part[q]);
#if defined(__AVX512F__)
    v8 low = __builtin_shufflevector(part[0], part[1], 0, 1, 2, 3, 4, 5, 6, 7);
    v8 high = __builtin_shufflevector(part[2], part[3], 0, 1, 2, 3, 4, 5, 6, 7);
    return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__AVX2__)
    return __builtin_shufflevector(part[0], part[1], 0, 1, 2, 3, 4, 5, 6, 7);
#else
    return part[0];
#endif
}

// The sum of the lanes, by halves.
VEC_INLINE float v_sum(vf v) {
    v4 q = v_quarter(v);
    v4 pair = q + __builtin_shufflevector(q, q, 2, 3, 0, 1);
    return pair[0] + pair[1];
}

// The largest lane; lanes must not be NaN.
VEC_INLINE float v_top(vf v) {
    float top = v[0];
    for (int i = 1; i < LANES; i++) top = v[i] > top ? v[i] : top;
    return top;
}

// Loads n elements, n >= LANES meaning a whole vector; the same for stores.
VEC_INLINE vf v_load_up_to(const float *p, size_t n) {
    return n >= LANES ? v_load(p) : v_load_part(p, n);
}
VEC_INLINE void v_store_up_to(float *p, vf v, size_t n) {
    if (n >= LANES)
        v_store(p, v);
    else
        v_store_part(p, v, n);
}

#endif
