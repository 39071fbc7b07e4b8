// What a training step does around the network: gathering a batch, the norm of the gradients, and
// the update of the parameters.
#include <math.h>

#include "device/cpu/kernels_isa.h"

// byte / 255, rounded as a division rounds (tests compare all 256): a product corrected once.
VEC_INLINE vf scaled(vf byte) {
#if defined(__AVX2__) || defined(__aarch64__)
    const vf reciprocal = v_set(1 / 255.0f);
    vf guess = byte * reciprocal, rest = v_fma(guess, v_set(-255), byte);
    return v_fma(rest, reciprocal, guess);
#else
    return byte / v_set(255);
#endif
}

static void scale_row(const uint8_t *from, size_t n, float *to) {
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(to + i, scaled(v_bytes(from + i)));
    for (; i < n; i++) to[i] = (float)from[i] / 255;
}

// The same, and a bit for each that is not 0; returns how many these are.
static uint32_t scale_row_bits(const uint8_t *from, size_t n, float *to, uint64_t *bits) {
    uint32_t count = 0;
    for (size_t begin = 0; begin < n; begin += 64) {
        size_t end = n - begin < 64 ? n : begin + 64, i = begin;
        uint64_t word = 0;
        for (; i + LANES <= end; i += LANES) {
            vf byte = v_bytes(from + i);
            word |= v_mask(byte != (vf){0}) << (i - begin);
            v_store(to + i, scaled(byte));
        }
        for (; i < end; i++) {
            word |= (uint64_t)(from[i] != 0) << (i - begin);
            to[i] = (float)from[i] / 255;
        }
        bits[begin / 64] = word;
        count += (uint32_t)__builtin_popcountll(word);
    }
    return count;
}

// Row r of the batch; from NULL: it is past the end of the epoch.
static void gather_row(const uint8_t *from, size_t n, float *to, bt_cpu_nonzeros *nonzeros,
                       size_t r) {
    uint64_t *bits = nonzeros ? nonzeros->bits + r * nonzeros->words : NULL;
    if (!from) {
        memset(to, 0, n * sizeof *to);
        if (bits) memset(bits, 0, nonzeros->words * sizeof *bits);
        if (bits) nonzeros->count[r] = 0;
    } else if (bits) {
        nonzeros->count[r] = scale_row_bits(from, n, to, bits);
    } else {
        scale_row(from, n, to);
    }
}

// Samples lie anywhere in memory: so many are on their way while the first of them is scaled.
enum { AHEAD = 16 };

void VEC_NAME(bt_cpu_gather_batch)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_gather_args);
    const uint8_t *bytes = bt_cpu_data(launch, 0), *image[AHEAD];
    const int32_t *labels = bt_cpu_data(launch, 1), *index = bt_cpu_data(launch, 2);
    const bt_step_state *state = bt_cpu_data(launch, 3);
    float *images = bt_cpu_data(launch, 4);
    int32_t *out_labels = bt_cpu_data(launch, 5);
    size_t pixels = args.pixels, begin, end;
    bt_cpu_share(me, args.batch, 1, &begin, &end);
    for (size_t r = begin; r < end; r += AHEAD) {
        size_t rows = end - r < AHEAD ? end - r : AHEAD;
        const int32_t *label[AHEAD];
        for (size_t i = 0; i < rows; i++) {
            int64_t sample = bt_cpu_batch_sample(&args, index, state->step, r + i);
            image[i] = sample < 0 ? NULL : bytes + (size_t)sample * pixels;
            label[i] = sample < 0 ? NULL : labels + sample;
            __builtin_prefetch(label[i]);
            for (size_t j = 0; image[i] && j < pixels; j += 64) __builtin_prefetch(image[i] + j);
        }
        for (size_t i = 0; i < rows; i++) {
            gather_row(image[i], pixels, images + (r + i) * pixels, me->nonzeros, r + i);
            if (out_labels) out_labels[r + i] = label[i] ? *label[i] : -1;
        }
    }
}

void VEC_NAME(bt_cpu_grad_sumsq)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_sumsq_args);
    const float *g = bt_cpu_data(launch, 0);
    float *partial = bt_cpu_data(launch, 1);
    size_t begin, end;
    bt_cpu_share(me, args.n, BT_SUMSQ_CHUNK, &begin, &end);
    for (size_t first = begin; first < end; first += BT_SUMSQ_CHUNK) {
        size_t n = end - first < BT_SUMSQ_CHUNK ? end - first : BT_SUMSQ_CHUNK, i = 0;
        vf sum[2] = {0};
        for (; i + 2 * LANES <= n; i += 2 * LANES) {
            vf a = v_load(g + first + i), b = v_load(g + first + i + LANES);
            sum[0] = v_fma(a, a, sum[0]);
            sum[1] = v_fma(b, b, sum[1]);
        }
        for (; i < n; i += LANES) {
            size_t left = n - i < LANES ? n - i : LANES;
            vf a = v_load_up_to(g + first + i, left);
            sum[0] = v_fma(a, a, sum[0]);
        }
        partial[first / BT_SUMSQ_CHUNK] = v_sum(sum[0] + sum[1]);
    }
}

typedef struct tuning {
    float lr, beta1, beta2, epsilon, decay, clip, correction1, correction2;
} tuning;

// One vector of parameters; the optimizer is a constant where this is used. moment1 is read and
// written only with `moment`.
VEC_INLINE vf update_vector(const bt_optimizer optimizer, const tuning *h, vf p, vf g, vf *moment1,
                            vf *moment2, bool moment) {
    const vf lr = v_set(h->lr), beta1 = v_set(h->beta1), decay = v_set(h->decay);
    g = g * v_set(h->clip);
    if (optimizer == BT_ADAMW)
        p = p - lr * decay * p;
    else
        g = v_fma(decay, p, g);
    if (optimizer == BT_ADAM || optimizer == BT_ADAMW) {
        *moment1 = v_fma(beta1, *moment1, (v_set(1) - beta1) * g);
        *moment2 = v_fma(v_set(h->beta2), *moment2, v_set(1 - h->beta2) * g * g);
        vf root = v_sqrt(*moment2 * v_set(h->correction2)) + v_set(h->epsilon);
        return p - lr * (*moment1 * v_set(h->correction1)) / root;
    }
    vf v = moment ? v_fma(beta1, *moment1, g) : g;
    *moment1 = v;
    return v_fma(-lr, optimizer == BT_NESTEROV ? v_fma(beta1, v, g) : v, p);
}

typedef struct arrays {
    float *params, *moment1, *moment2;
    const float *grads;
} arrays;

VEC_INLINE void update_range(const bt_optimizer optimizer, const tuning *h, const arrays *a,
                             size_t begin, size_t end) {
    for (size_t i = begin; i < end; i += LANES) {
        size_t n = end - i;
        vf m1 = a->moment1 ? v_load_up_to(a->moment1 + i, n) : (vf){0};
        vf m2 = a->moment2 ? v_load_up_to(a->moment2 + i, n) : (vf){0};
        vf p = update_vector(optimizer, h, v_load_up_to(a->params + i, n),
                             v_load_up_to(a->grads + i, n), &m1, &m2, a->moment1 != NULL);
        v_store_up_to(a->params + i, p, n);
        if (a->moment1) v_store_up_to(a->moment1 + i, m1, n);
        if (a->moment2) v_store_up_to(a->moment2 + i, m2, n);
    }
}

static float clip_factor(const float *partial, uint32_t chunks, float limit) {
    if (!partial || !(limit > 0)) return 1;
    float sum = 0;
    for (uint32_t i = 0; i < chunks; i++) sum += partial[i];
    float norm = sqrtf(sum);
    return norm <= limit ? 1 : limit / norm;
}

void VEC_NAME(bt_cpu_update)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_update_args);
    const float *table = bt_cpu_data(launch, 4);
    const bt_step_state *state = bt_cpu_data(launch, 5);
    arrays a = {bt_cpu_data(launch, 0), bt_cpu_data(launch, 2), bt_cpu_data(launch, 3),
                bt_cpu_data(launch, 1)};
    uint32_t row = state->step < args.rows ? state->step : args.rows - 1;
    const float *hyper = table + (size_t)row * BT_HYPER_COLUMNS;
    tuning h = {.lr = hyper[BT_HYPER_LR],
                .beta1 = hyper[BT_HYPER_MOMENTUM],
                .beta2 = hyper[BT_HYPER_BETA2],
                .epsilon = hyper[BT_HYPER_EPSILON],
                .decay = hyper[BT_HYPER_DECAY],
                .clip = clip_factor(bt_cpu_data(launch, 6), args.chunks, hyper[BT_HYPER_CLIP]),
                .correction1 = hyper[BT_HYPER_CORRECTION1],
                .correction2 = hyper[BT_HYPER_CORRECTION2]};
    size_t begin, end;
    bt_cpu_share(me, args.n, LANES, &begin, &end);
    switch ((bt_optimizer)args.optimizer) {
    case BT_SGD: update_range(BT_SGD, &h, &a, begin, end); break;
    case BT_NESTEROV: update_range(BT_NESTEROV, &h, &a, begin, end); break;
    case BT_ADAM: update_range(BT_ADAM, &h, &a, begin, end); break;
    case BT_ADAMW: update_range(BT_ADAMW, &h, &a, begin, end); break;
    }
}
