// Max pooling of size 2 and stride 2 over planes that it covers exactly, in quads: 4 results of a
// row, from 8 pixels of each of two rows. Planes and rows follow each other without a gap, so a
// vector takes the next quads wherever they are. Other pooling goes to the plain loops.
#include "device/cpu/kernels_isa.h"

enum { QUADS = LANES / 4 };
#define LANES_OF(corner) corner, corner + 2, corner + 4, corner + 6 // of a quad

// vf of the lanes with even (odd) positions of a and b, one after the other; and back.
#if defined(__AVX512F__)
#define EVEN(a, b) \
    __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) \
    __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define ZIP_LOW(a, b) \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define ZIP_HIGH(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX2__)
#define EVEN(a, b)     __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b)      __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define EVEN(a, b)     __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODD(a, b)      __builtin_shufflevector(a, b, 1, 3, 5, 7)
#define ZIP_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define ZIP_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

static bool in_quads(const bt_pool_args *a) {
    return a->size == 2 && a->stride == 2 && a->padding == 0 && a->h == 2 * a->oh &&
           a->w == 2 * a->ow && a->ow % 4 == 0 && a->ow > 0;
}

// Where the next vector of quads is.
typedef struct place {
    size_t pixel[QUADS]; // upper left of each quad, from the first plane's first pixel
    vi corner;           // upper left pixel of each lane, in its plane
} place;

VEC_INLINE place find_place(const bt_pool_args *a, size_t quad) {
    place at;
    int32_t c[QUADS];
    size_t in_row = a->ow / 4;
    VEC_UNROLL
    for (int q = 0; q < QUADS; q++) {
        size_t row = (quad + (size_t)q) / in_row, column = (quad + (size_t)q) % in_row * 8;
        at.pixel[q] = row * 2 * a->w + column;
        c[q] = (int32_t)(row % a->oh * 2 * a->w + column);
    }
    // (By initialisers: numbers stored one by one and loaded as a vector would wait for each
    // other.)
#if defined(__AVX512F__)
    at.corner = (vi){LANES_OF(c[0]), LANES_OF(c[1]), LANES_OF(c[2]), LANES_OF(c[3])};
#elif defined(__AVX2__)
    at.corner = (vi){LANES_OF(c[0]), LANES_OF(c[1])};
#else
    at.corner = (vi){LANES_OF(c[0])};
#endif
    return at;
}

// Half of the pixels of all quads, in order. (Straight from memory: what is stored in pieces and
// loaded as a whole waits.)
VEC_INLINE vf load_half(const float *x, const size_t pixel[QUADS], int half) {
#if defined(__AVX512F__)
    v8 a, b;
    memcpy(&a, x + pixel[2 * half], sizeof a);
    memcpy(&b, x + pixel[2 * half + 1], sizeof b);
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__AVX2__)
    return v_load(x + pixel[half]);
#else
    return v_load(x + pixel[0] + LANES * half);
#endif
}

VEC_INLINE void store_half(float *x, const size_t pixel[QUADS], int half, vf v) {
#if defined(__AVX512F__)
    v8 low = v_low(v), high = v_high(v);
    memcpy(x + pixel[2 * half], &low, sizeof low);
    memcpy(x + pixel[2 * half + 1], &high, sizeof high);
#elif defined(__AVX2__)
    v_store(x + pixel[half], v);
#else
    v_store(x + pixel[0] + LANES * half, v);
#endif
}

// The 8 pixels of each quad, `offset` past its corner: those of even and of odd columns; and back.
VEC_INLINE void load_pixels(const float *x, const place *at, size_t offset, vf *even, vf *odd) {
    vf low = load_half(x + offset, at->pixel, 0), high = load_half(x + offset, at->pixel, 1);
    *even = EVEN(low, high);
    *odd = ODD(low, high);
}

VEC_INLINE void store_pixels(float *x, const place *at, size_t offset, vf even, vf odd) {
    store_half(x + offset, at->pixel, 0, ZIP_LOW(even, odd));
    store_half(x + offset, at->pixel, 1, ZIP_HIGH(even, odd));
}

// Takes `value` where it is larger than all before, and NaN where none was before.
VEC_INLINE void challenge(vf value, vi where, vf *best, vi *index) {
    vi wins = (value > *best) | ((value != value) & (*best == *best));
    *best = v_select(wins, value, *best);
    *index = (where & wins) | (*index & ~wins);
}

void VEC_NAME(bt_cpu_max_pool)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_pool_args);
    if (!in_quads(&args) || args.planes * args.oh * (args.ow / 4) % QUADS != 0) {
        bt_cpu_reference_f32[BT_KERNEL_max_pool].run(launch, me);
        return;
    }
    const float *x = bt_cpu_data(launch, 0);
    float *y = bt_cpu_data(launch, 1);
    int32_t *index = bt_cpu_data(launch, 2), w = (int32_t)args.w;
    size_t begin, end;
    bt_cpu_share(me, (size_t)args.planes * args.oh * (args.ow / 4), QUADS, &begin, &end);
    for (size_t quad = begin; quad < end; quad += QUADS) {
        place at = find_place(&args, quad);
        vf best, right, below, below_right;
        vi where = at.corner;
        load_pixels(x, &at, 0, &best, &right);
        load_pixels(x, &at, args.w, &below, &below_right);
        challenge(right, at.corner + 1, &best, &where);
        challenge(below, at.corner + w, &best, &where);
        challenge(below_right, at.corner + (w + 1), &best, &where);
        v_store(y + 4 * quad, best);
        if (index) memcpy(index + 4 * quad, &where, sizeof where);
    }
}

void VEC_NAME(bt_cpu_max_pool_grad)(const bt_launch *launch, const bt_cpu_worker *me) {
    BT_CPU_ARGS(bt_pool_args);
    if (!in_quads(&args) || args.planes * args.oh * (args.ow / 4) % QUADS != 0) {
        bt_cpu_reference_f32[BT_KERNEL_max_pool_grad].run(launch, me);
        return;
    }
    const float *dy = bt_cpu_data(launch, 0);
    const int32_t *index = bt_cpu_data(launch, 1);
    float *dx = bt_cpu_data(launch, 2);
    size_t begin, end;
    bt_cpu_share(me, (size_t)args.planes * args.oh * (args.ow / 4), QUADS, &begin, &end);
    for (size_t quad = begin; quad < end; quad += QUADS) {
        place at = find_place(&args, quad);
        int32_t w = (int32_t)args.w;
        vi d = (vi)v_load(dy + 4 * quad), where;
        memcpy(&where, index + 4 * quad, sizeof where);
        where -= at.corner;
        store_pixels(dx, &at, 0, (vf)(d & (where == 0)), (vf)(d & (where == 1)));
        store_pixels(dx, &at, args.w, (vf)(d & (where == w)), (vf)(d & (where == w + 1)));
    }
}
