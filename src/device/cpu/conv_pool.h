// What convolution + ReLU + max pooling as one and its gradients share: the shapes, and two layouts
// of an image. In planes each channel lies apart; in pixels the channels of a pixel lie together,
// so that the patch under a filter is kh runs of kw pixels and a vector holds some of a run.
#ifndef BT_DEVICE_CPU_CONV_POOL_H
#define BT_DEVICE_CPU_CONV_POOL_H

#include "device/cpu/kernels_isa.h"

typedef struct conv_pool {
    bt_conv_args conv;
    size_t oh, ow, windows;  // of the pooled result
    size_t taps;             // of a filter
    size_t ph, pw;           // image with its padding
    size_t channels;         // in a pixel, some of them zeros
    size_t run, run_vectors; // numbers in kw pixels, vectors that hold them
    size_t image;            // numbers in an image as pixels
} conv_pool;

static inline size_t round_up(size_t n, size_t block) {
    return (n + block - 1) / block * block;
}

// The result is the same for all instruction sets, but for run_vectors.
static inline conv_pool conv_pool_of(const bt_conv_args *a) {
    conv_pool s = {.conv = *a, .oh = a->oh / 2, .ow = a->ow / 2};
    s.windows = s.oh * s.ow;
    s.taps = (size_t)a->c * a->kh * a->kw;
    s.ph = a->h + 2 * (size_t)a->padding;
    s.pw = a->w + 2 * (size_t)a->padding;
    s.channels = a->c == 1 ? 1 : a->c <= 4 ? 4 : round_up(a->c, 8);
    s.run = a->kw * s.channels;
    s.run_vectors = (s.run + LANES - 1) / LANES;
    s.image = s.ph * s.pw * s.channels;
    return s;
}

// Set in the position of a maximum whose patch holds nothing but zeros.
enum { EMPTY = 1 << 30 };

// Working memory is taken piece by piece; with scratch NULL the pieces are only counted.
typedef struct arena {
    char *scratch;
    size_t bytes;
} arena;

static inline void *take(arena *a, size_t n) { // n 4-byte elements
    void *at = a->scratch ? a->scratch + a->bytes : NULL;
    a->bytes += round_up(4 * n, 64);
    return at;
}

// ---- Between planes and pixels -----------------------------------------------------------------

#if defined(__AVX512F__)
#define EACH_QUARTER(at) at(0), at(1), at(2), at(3)
#elif defined(__AVX2__)
#define EACH_QUARTER(at) at(0), at(1)
#else
#define EACH_QUARTER(at) at(0)
#endif
#define LOW_OF(q)   4 * q, LANES + 4 * q, 4 * q + 1, LANES + 4 * q + 1
#define HIGH_OF(q)  4 * q + 2, LANES + 4 * q + 2, 4 * q + 3, LANES + 4 * q + 3
#define LEFT_OF(q)  4 * q, 4 * q + 1, LANES + 4 * q, LANES + 4 * q + 1
#define RIGHT_OF(q) 4 * q + 2, 4 * q + 3, LANES + 4 * q + 2, LANES + 4 * q + 3

// Transposes the 4 x 4 numbers in each quarter of four vectors.
VEC_INLINE void turn(vf r[4]) {
    vf low = __builtin_shufflevector(r[0], r[1], EACH_QUARTER(LOW_OF));
    vf high = __builtin_shufflevector(r[0], r[1], EACH_QUARTER(HIGH_OF));
    vf low2 = __builtin_shufflevector(r[2], r[3], EACH_QUARTER(LOW_OF));
    vf high2 = __builtin_shufflevector(r[2], r[3], EACH_QUARTER(HIGH_OF));
    r[0] = __builtin_shufflevector(low, low2, EACH_QUARTER(LEFT_OF));
    r[1] = __builtin_shufflevector(low, low2, EACH_QUARTER(RIGHT_OF));
    r[2] = __builtin_shufflevector(high, high2, EACH_QUARTER(LEFT_OF));
    r[3] = __builtin_shufflevector(high, high2, EACH_QUARTER(RIGHT_OF));
}

VEC_INLINE void v_store_quarter(float *p, v4 part) {
    memcpy(p, &part, sizeof part);
}

VEC_INLINE void v_store_quarters(float *p, size_t apart, vf v) {
#if defined(__AVX512F__)
    v8 low = v_low(v), high = v_high(v);
    v_store_quarter(p, __builtin_shufflevector(low, low, 0, 1, 2, 3));
    v_store_quarter(p + apart, __builtin_shufflevector(low, low, 4, 5, 6, 7));
    v_store_quarter(p + 2 * apart, __builtin_shufflevector(high, high, 0, 1, 2, 3));
    v_store_quarter(p + 3 * apart, __builtin_shufflevector(high, high, 4, 5, 6, 7));
#elif defined(__AVX2__)
    v_store_quarter(p, __builtin_shufflevector(v, v, 0, 1, 2, 3));
    v_store_quarter(p + apart, __builtin_shufflevector(v, v, 4, 5, 6, 7));
#else
    (void)apart;
    v_store_quarter(p, v);
#endif
}

// Some pixels as planes and as pixels. Where there are fewer than LANES of them, the pixels must
// have room for LANES; what is beyond is not used (planes to pixels: zeros).
typedef struct picture {
    size_t planes, n;  // n pixels in each plane
    size_t plane_step; // numbers from one plane to the next
    size_t pixel_step; // from one pixel to the next: 1 where there is one plane, else 4, 8 ...
} picture;

// Where the next LANES pixels begin: the last of them reach back over pixels done already.
VEC_INLINE size_t pixels_at(size_t p, size_t n) {
    return p + LANES > n && n >= LANES ? n - LANES : p;
}

// LANES pixels of four planes, or of as many planes and pixels as there are.
VEC_INLINE void load_planes(const picture *a, size_t c, size_t p, const float *planes, vf r[4]) {
    const float *from = planes + c * a->plane_step + p;
    if (c + 4 <= a->planes && p + LANES <= a->n) {
        VEC_UNROLL
        for (size_t k = 0; k < 4; k++) r[k] = v_load(from + k * a->plane_step);
        return;
    }
    VEC_UNROLL
    for (size_t k = 0; k < 4; k++)
        r[k] = c + k < a->planes ? v_load_up_to(from + k * a->plane_step, a->n - p) : (vf){0};
}

VEC_INLINE void store_planes(const picture *a, size_t c, size_t p, float *planes, const vf r[4]) {
    float *to = planes + c * a->plane_step + p;
    if (c + 4 <= a->planes && p + LANES <= a->n) {
        VEC_UNROLL
        for (size_t k = 0; k < 4; k++) v_store(to + k * a->plane_step, r[k]);
        return;
    }
    VEC_UNROLL
    for (size_t k = 0; k < 4; k++)
        if (c + k < a->planes) v_store_up_to(to + k * a->plane_step, r[k], a->n - p);
}

static VEC_ALONE void planes_to_pixels(picture a, const float *planes, float *pixels) {
    if (a.pixel_step == 1) {
        memcpy(pixels, planes, a.n * sizeof *pixels);
        return;
    }
    for (size_t c = 0; c < a.pixel_step; c += 4)
        for (size_t i = 0; i < a.n; i += LANES) {
            size_t p = pixels_at(i, a.n);
            vf r[4];
            load_planes(&a, c, p, planes, r);
            turn(r);
            float *to = pixels + p * a.pixel_step + c;
            VEC_UNROLL
            for (size_t k = 0; k < 4; k++)
                v_store_quarters(to + k * a.pixel_step, 4 * a.pixel_step, r[k]);
        }
}

static VEC_ALONE void pixels_to_planes(picture a, const float *pixels, float *planes) {
    if (a.pixel_step == 1) {
        memcpy(planes, pixels, a.n * sizeof *planes);
        return;
    }
    for (size_t c = 0; c < a.planes; c += 4)
        for (size_t i = 0; i < a.n; i += LANES) {
            size_t p = pixels_at(i, a.n);
            const float *from = pixels + p * a.pixel_step + c;
            vf r[4];
            VEC_UNROLL
            for (size_t k = 0; k < 4; k++)
                r[k] = v_load_quarters(from + k * a.pixel_step, 4 * a.pixel_step);
            turn(r);
            store_planes(&a, c, p, planes, r);
        }
}

#endif
