// Elementwise functions on vectors, for the kernels of one instruction set (see vec.h). Errors
// are a few units in the last place; infinities and NaN come out as in math.h.
#ifndef BT_DEVICE_CPU_VEC_MAP_H
#define BT_DEVICE_CPU_VEC_MAP_H

#include <math.h>

#include "device/cpu/vec.h"

// y[i] = op(a[i], b[i]) for i < n; a step is 1, or 0 to repeat the first element. y may be a or b.
typedef struct bt_cpu_row {
    const float *a, *b; // b: NULL for unary operators
    int a_step, b_step;
    float *y;
} bt_cpu_row;
void VEC_NAME(bt_cpu_map_row)(uint32_t op, bt_cpu_row row, size_t n);

VEC_INLINE void v_map_row(uint32_t op, bt_cpu_row row, size_t n) {
    VEC_NAME(bt_cpu_map_row)(op, row, n);
}

// Horner's rule, highest power first.
VEC_INLINE vf v_poly(vf x, const float *coefficient, int count) {
    vf sum = v_set(coefficient[0]);
    VEC_UNROLL
    for (int i = 1; i < count; i++) sum = v_fma(sum, x, v_set(coefficient[i]));
    return sum;
}

// 2^n for -126 <= n <= 127.
VEC_INLINE vf v_power2(vi n) {
    return (vf)((n + 127) << 23);
}

// Polynomial of Cephes' expf; two factors of 2^n reach denormal numbers and infinity.
VEC_INLINE vf v_exp(vf x) {
    static const float p[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                              4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    const vf round = v_set(0x1.8p23f);
    x = v_max(v_set(-105), v_min(v_set(90), x)); // NaN passes
    vf n = v_fma(x, v_set(1.44269504088896341f), round) - round;
    vf r = v_fma(n, v_set(-0.693359375f), x);
    r = v_fma(n, v_set(2.12194440e-4f), r);
    vf y = v_fma(v_poly(r, p, 6), r * r, r) + v_set(1);
    vi whole = __builtin_convertvector(v_select(n == n, n, (vf){0}), vi), half = whole >> 1;
    return y * v_power2(half) * v_power2(whole - half);
}

VEC_INLINE vf v_sigmoid(vf x) {
    return v_set(1) / (v_set(1) + v_exp(-x));
}

// A polynomial near 0, where 1 - 2 / (exp(2 x) + 1) would cancel.
VEC_INLINE vf v_tanh(vf x) {
    static const float p[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                              1.33314422036e-1f, -3.33332819422e-1f};
    vf magnitude = v_abs(x), square = x * x;
    vf near = v_fma(v_poly(square, p, 5) * square, x, x);
    vf far = v_set(1) - v_set(2) / (v_exp(magnitude + magnitude) + v_set(1));
    return v_select(magnitude < v_set(0.625f), near, v_sign_of(far, x));
}

// exp(-x^2 / 2), with the rounding error of x^2 made good.
VEC_INLINE vf v_gauss(vf x) {
    vf square = x * x, rest = v_fma(x, x, -square);
    rest = v_select(v_abs(x) < v_set(1e4f), rest, (vf){0});
    return v_exp(v_set(-0.5f) * square) * v_fma(v_set(-0.5f), rest, v_set(1));
}

// The normal distribution function Phi(x) from Cephes' erff and erfcf; gauss = v_gauss(x).
VEC_INLINE vf v_normal(vf x, vf gauss) {
    static const float near_p[] = {7.853861353153693e-5f, -8.010193625184903e-4f,
                                   5.188327685732524e-3f, -2.685381193529856e-2f,
                                   1.128358514861418e-1f, -3.761262582423300e-1f,
                                   1.128379165726710e+0f};
    static const float middle_p[] = {
        2.326819970068386e-2f,  -1.387039388740657e-1f, 3.687424674597105e-1f,
        -5.824733027278666e-1f, 6.210004621745983e-1f,  -4.944515323274145e-1f,
        3.404879937665872e-1f,  -2.741127028184656e-1f, 5.638259427386472e-1f};
    static const float far_p[] = {-1.047766399936249e+1f, 1.297719955372516e+1f,
                                  -7.495518717768503e+0f, 2.921019019210786e+0f,
                                  -1.015265279202700e+0f, 4.218463358204948e-1f,
                                  -2.820767439740514e-1f, 5.641895067754075e-1f};
    vf z = x * v_set(0.70710678118654752f), magnitude = v_abs(z);
    vf near = v_fma(v_poly(z * z, near_p, 7) * z, v_set(0.5f), v_set(0.5f));
    vf inverse = v_set(1) / v_max(v_set(1), magnitude), y = inverse * inverse;
    vf series = v_select(magnitude < v_set(2), v_poly(y, middle_p, 9), v_poly(y, far_p, 8));
    vf tail = v_set(0.5f) * gauss * inverse * series; // Phi(-|x|)
    vf far = v_select(x < (vf){0}, tail, v_set(1) - tail);
    return v_select(magnitude < v_set(1), near, far);
}

VEC_INLINE vf v_gelu_slope(vf x) {
    vf gauss = v_gauss(x);
    return v_fma(x * v_set(0.39894228040143268f), gauss, v_normal(x, gauss));
}

// Polynomial of Cephes' logf on [sqrt(1/2), sqrt(2)). What a lane gets does not depend on others.
VEC_INLINE vf v_log(vf x) {
    static const float p[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                              -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                              2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    vi bits = (vi)x - 0x3f3504f3; // of sqrt(1/2)
    vi exponent = bits >> 23;
    vf m = (vf)((vi)x - (exponent << 23)) - v_set(1), e = __builtin_convertvector(exponent, vf);
    vf square = m * m, y = v_poly(m, p, 9) * m * square;
    y = v_fma(e, v_set(-2.12194440e-4f), y);
    y = v_fma(v_set(-0.5f), square, y);
    vf result = v_fma(e, v_set(0.693359375f), m + y);
    vi rare = (x < v_set(0x1p-126f)) | (x > v_set(0x1.fffffep127f)) | (x != x);
    for (int i = 0; v_any(rare) && i < LANES; i++)
        if (rare[i]) result[i] = logf(x[i]);
    return result;
}

// The operators of BT_MAPS; `op` is a constant where this is used.
VEC_INLINE vf v_map(uint32_t op, vf a, vf b) {
    switch (op) {
    case BT_MAP_ADD: return a + b;
    case BT_MAP_SUB: return a - b;
    case BT_MAP_MUL: return a * b;
    case BT_MAP_DIV: return a / b;
    case BT_MAP_NEG: return -a;
    case BT_MAP_RELU: return v_max((vf){0}, a);
    case BT_MAP_SIGMOID: return v_sigmoid(a);
    case BT_MAP_TANH: return v_tanh(a);
    case BT_MAP_GELU: return a * v_normal(a, v_gauss(a));
    case BT_MAP_EXP: return v_exp(a);
    case BT_MAP_LOG: return v_log(a);
    case BT_MAP_SQRT: return v_sqrt(a);
    case BT_MAP_RELU_GRAD: return (vf)((vi)b & (a > (vf){0}));
    case BT_MAP_SIGMOID_GRAD: return b * a * (v_set(1) - a);
    case BT_MAP_TANH_GRAD: return b * (v_set(1) - a * a);
    case BT_MAP_GELU_GRAD: return b * v_gelu_slope(a);
    case BT_MAP_SQRT_GRAD: return b / (a + a);
    default: return a;
    }
}

#endif
