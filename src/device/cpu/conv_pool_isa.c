// Convolution, ReLU and max pooling of size 2 as one: the four results of a window stay in
// registers, and only their maximum and where it was leave them. A vector holds LANES filters, so
// every sum is that of conv_isa.c, term by term: the bias, then (channel, ky, kx) in order.
//
// A position is the offset of the maximum's patch in the image as pixels (see conv_pool.h), or -1
// where ReLU has no derivative: all that the gradients need (conv_pool_grad_isa.c).
//
// Where a window sees nothing but zeros, as many do in images of one channel, nothing is summed:
// the result is the bias, as it would be with (finite) weights.
#include "device/cpu/conv_pool.h"

enum {
    SCRATCH_MAX = 2 << 20, // bytes, roughly; what needs more is not for these kernels
    KERNEL_MAX = 16,
    SPARSE_MAX = 64, // rows and columns of images whose zeros are looked for: bits
    WIDE = 3,        // a tile is up to so many windows of one vector of filters,
    PAIR = 2,        // or one window of so many vectors
};

typedef struct forward {
    conv_pool shape;
    bool relu, padded, sparse;
    size_t blocks;           // of LANES filters
    size_t room;             // numbers for the windows of one block
    float *weight;           // [blocks][taps][LANES]
    float *bias;             // [blocks][LANES]
    float *image;            // padded planes
    int32_t *row;            // [c * kh] where a row of taps begins in the planes
    int32_t *corner, *patch; // [windows] offsets in a plane, and in the image as pixels
    int32_t *order;          // [windows] those that see only zeros last
    float *y, *position;     // [PAIR][windows][LANES]; position is int32_t, NULL: not wanted
    size_t bytes;
} forward;

static size_t weight_count(const conv_pool *s) {
    size_t slack = LANES * LANES; // a vector of taps may be more than there are
    return round_up(s->conv.o, LANES) * s->taps + slack;
}

static forward make_forward(const bt_launch *parts, const void *packed, char *scratch) {
    bt_conv_args args;
    memcpy(&args, parts[0].scalars, sizeof args);
    arena a = {.scratch = scratch};
    forward f = {.shape = conv_pool_of(&args), .relu = args.epilogue == BT_MAP_RELU};
    size_t n = f.shape.windows;
    f.padded = args.padding > 0;
    f.sparse = args.c == 1 && f.shape.ph <= SPARSE_MAX && f.shape.pw <= SPARSE_MAX;
    f.blocks = (args.o + LANES - 1) / LANES;
    f.room = round_up(n, LANES) * LANES;
    f.weight = packed ? (float *)(uintptr_t)packed : take(&a, weight_count(&f.shape));
    f.bias = take(&a, f.blocks * LANES);
    if (f.padded) f.image = take(&a, args.c * f.shape.ph * f.shape.pw);
    f.row = take(&a, (size_t)args.c * args.kh);
    f.corner = take(&a, n);
    f.patch = take(&a, n);
    f.order = take(&a, n);
    f.y = take(&a, PAIR * f.room);
    if (parts[1].binding_count > 2 && parts[1].binding[2].buffer)
        f.position = take(&a, PAIR * f.room);
    f.bytes = a.bytes;
    return f;
}

size_t VEC_NAME(bt_cpu_conv_pool_scratch)(const bt_launch *parts) {
    return make_forward(parts, NULL, NULL).bytes;
}

bool VEC_NAME(bt_cpu_conv_pool_takes)(const bt_conv_args *a, const bt_pool_args *pool) {
    uint64_t limit = SCRATCH_MAX / 4, plane = ((uint64_t)a->h + 2 * (uint64_t)a->padding);
    if (a->padding > 64 || a->kh > KERNEL_MAX || a->kw > KERNEL_MAX) return false;
    plane *= (uint64_t)a->w + 2 * a->padding;
    return a->stride == 1 && (a->epilogue == BT_MAP_COPY || a->epilogue == BT_MAP_RELU) &&
           pool->size == 2 && pool->stride == 2 && pool->padding == 0 && a->oh >= 2 && a->ow >= 2 &&
           a->c > 0 && a->o > 0 && a->kh > 0 && a->kw > 0 && a->c < 4096 && a->o < 4096 &&
           plane * (a->c + 8) < limit && plane / 2 * a->o < limit &&
           (uint64_t)(a->c + 8) * a->kh * (a->kw + 16) * a->o < limit;
}

// ---- Sums and maxima ---------------------------------------------------------------------------

// sum += a b and a load, where they stand: compilers that move them, or that let the product take
// the place of a factor, run out of registers.
VEC_INLINE void add_product(vf *sum, vf a, vf b) {
#if defined(__AVX2__)
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
#else
    *sum = v_fma(a, b, *sum);
#endif
}
VEC_INLINE vf spread(const float *p) {
    vf v = v_set(*p);
#if defined(__AVX2__)
    __asm__ volatile("" : "+v"(v));
#endif
    return v;
}

// One number times two vectors.
VEC_INLINE void add_two(vf *sum, vf a, vf *sum2, vf b, const float *p) {
#if defined(__AVX2__)
    vf x;
    __asm__ volatile("vbroadcastss %5, %2\n\tvfmadd231ps %3, %2, %0\n\tvfmadd231ps %4, %2, %1"
                     : "+v"(*sum), "+v"(*sum2), "=&v"(x)
                     : "v"(a), "v"(b), "m"(*p));
#else
    *sum = v_fma(a, v_set(*p), *sum);
    *sum2 = v_fma(b, v_set(*p), *sum2);
#endif
}

// Keeps an address in a register of its own, where compilers would add up its parts at every use.
VEC_INLINE const float *kept(const float *p) {
    __asm__("" : "+r"(p));
    return p;
}

// The four results of some windows, [window][pixel][vector].
typedef struct tile {
    vf sum[WIDE][4][PAIR];
} tile;

// Adds column s of the pixels under some windows, `pitch` from row to row: it meets `left` weights
// in a window's left results and `right` ones in its right ones, as far as there are.
VEC_INLINE void add_column(tile *t, const int windows, const int vectors, const bool has_left,
                           const bool has_right, const float *const at[WIDE], size_t s,
                           size_t pitch, const vf left[PAIR], const vf right[PAIR]) {
    VEC_UNROLL
    for (int i = 0; i < 2 * windows; i++) {
        const float *from = at[i / 2] + (i % 2 ? pitch : 0) + s;
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) {
            vf *to = &t->sum[i / 2][i % 2 * 2][v], *to2 = &t->sum[i / 2][i % 2 * 2 + 1][v];
            if (has_left && has_right)
                add_two(to, left[v], to2, right[v], from);
            else if (has_left)
                add_product(to, left[v], spread(from));
            else
                add_product(to2, right[v], spread(from));
        }
    }
}

VEC_INLINE void load_weights(vf w[PAIR], const int vectors, const float *weight, size_t block) {
    VEC_UNROLL
    for (int v = 0; v < vectors; v++) w[v] = v_keep(v_load(weight + (size_t)v * block));
}

// Adds row (channel, ky) of the filters, kw of their taps, whose weights are `block` apart. A pixel
// of the image meets tap s in a window's left results and tap s - 1 in its right ones.
VEC_INLINE void add_row(tile *t, const int windows, const int vectors, const size_t kw,
                        const float *row, const size_t corner[WIDE], size_t pitch,
                        const float *weight, size_t block) {
    vf left[PAIR], right[PAIR];
    const float *at[WIDE];
    VEC_UNROLL
    for (int i = 0; i < windows; i++) at[i] = kept(row + corner[i]);
    load_weights(left, vectors, weight, block);
    add_column(t, windows, vectors, true, false, at, 0, pitch, left, left);
    VEC_UNROLL
    for (size_t s = 1; s < kw; s++) {
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) right[v] = left[v];
        load_weights(left, vectors, weight + s * LANES, block);
        add_column(t, windows, vectors, true, true, at, s, pitch, left, right);
    }
    add_column(t, windows, vectors, false, true, at, kw, pitch, left, left);
}

// The same for any kw.
VEC_INLINE void add_any_row(tile *t, const int windows, const int vectors, size_t kw,
                            const float *row, const size_t corner[WIDE], size_t pitch,
                            const float *weight, size_t block) {
    for (size_t s = 0; s < kw; s++) {
        vf w[PAIR];
        load_weights(w, vectors, weight + s * LANES, block);
        VEC_UNROLL
        for (int i = 0; i < 4 * windows; i++) {
            size_t at = corner[i / 4] + (i / 2 % 2 ? pitch : 0) + (size_t)(i % 2);
            vf x = v_set(row[at + s]);
            VEC_UNROLL
            for (int v = 0; v < vectors; v++)
                t->sum[i / 4][i % 4][v] = v_fma(w[v], x, t->sum[i / 4][i % 4][v]);
        }
    }
}

// Can there be NaN in a tile? (Infinities of both signs look the same.)
VEC_INLINE bool suspicious(const tile *t, const int windows, const int vectors) {
    vf all = {0};
    VEC_UNROLL
    for (int i = 0; i < windows; i++) {
        VEC_UNROLL
        for (int v = 0; v < vectors; v++)
            all += t->sum[i][0][v] + t->sum[i][1][v] + (t->sum[i][2][v] + t->sum[i][3][v]);
    }
    return __builtin_expect(v_any(all != all), 0);
}

// The first maximum of a window and its place: 0, right, down, or right + down.
VEC_INLINE vf top_of(vf p0, vf p1, vf p2, vf p3, vi right, vi down, vi *where) {
    vf upper = v_max(p1, p0), lower = v_max(p3, p2); // the second where they are equal
    vi below = lower > upper, beside = ((p3 > p2) & below) | ((p1 > p0) & ~below);
    *where = (beside & right) + (below & down);
    return v_max(lower, upper);
}

// Takes `value` where it is larger than all before, and NaN where none was before.
VEC_INLINE void challenge(vf value, vi where, vf *best, vi *index) {
    vi wins = (value > *best) | ((value != value) & (*best == *best));
    *best = v_select(wins, value, *best);
    *index = (where & wins) | (*index & ~wins);
}

VEC_INLINE vf top_or_nan(vf p0, vf p1, vf p2, vf p3, vi right, vi down, vi *where) {
    *where = (vi){0};
    challenge(p1, right, &p0, where);
    challenge(p2, down, &p0, where);
    challenge(p3, right + down, &p0, where);
    return p0;
}

// Keeps the maximum of a window, which is `where` in it.
VEC_INLINE void store(const forward *f, size_t slot, size_t window, vf y, vi where) {
    size_t at = slot * f->room + window * LANES;
    where += f->patch[window];
    if (f->relu) {
        where |= ~(y > (vf){0});
        y = v_max((vf){0}, y);
    }
    v_store(f->y + at, y);
    if (f->position) memcpy(f->position + at, &where, sizeof where);
}

VEC_INLINE void pool_tile(const forward *f, const tile *t, const int windows, const int vectors,
                          bool nan, size_t first, size_t slot) {
    vi right = (vi){0} + (int32_t)f->shape.channels, down = right * (int32_t)f->shape.pw;
    VEC_UNROLL
    for (int i = 0; i < windows; i++) {
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) {
            vf p0 = t->sum[i][0][v], p1 = t->sum[i][1][v];
            vf p2 = t->sum[i][2][v], p3 = t->sum[i][3][v];
            vi where;
            vf y = nan ? top_or_nan(p0, p1, p2, p3, right, down, &where)
                       : top_of(p0, p1, p2, p3, right, down, &where);
            store(f, slot + (size_t)v, (size_t)f->order[first + (size_t)i], y, where);
        }
    }
}

// Windows begin .. end - 1, `windows` at a time, of `vectors` blocks of filters. kw 0: any.
VEC_INLINE void tiles(const forward *f, const int windows, const int vectors, const size_t kw,
                      const float *image, size_t begin, size_t end, size_t block) {
    const conv_pool *s = &f->shape;
    size_t step = kw ? kw : s->conv.kw, rows = s->taps / step;
    for (size_t first = begin; first < end; first += (size_t)windows) {
        const float *weight = f->weight + block * s->taps * LANES;
        size_t corner[WIDE];
        tile t;
        VEC_UNROLL
        for (int i = 0; i < windows; i++)
            corner[i] = (size_t)f->corner[f->order[first + (size_t)i]];
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) {
            vf bias = v_load(f->bias + (block + (size_t)v) * LANES);
            VEC_UNROLL
            for (int i = 0; i < windows; i++) {
                VEC_UNROLL
                for (int k = 0; k < 4; k++) t.sum[i][k][v] = bias;
            }
        }
        for (size_t r = 0; r < rows; r++, weight += step * LANES)
            if (kw)
                add_row(&t, windows, vectors, kw, image + f->row[r], corner, s->pw, weight,
                        s->taps * LANES);
            else
                add_any_row(&t, windows, vectors, step, image + f->row[r], corner, s->pw, weight,
                            s->taps * LANES);
        if (suspicious(&t, windows, vectors))
            pool_tile(f, &t, windows, vectors, true, first, block % PAIR);
        else
            pool_tile(f, &t, windows, vectors, false, first, block % PAIR);
    }
}

// Each a function of its own: together, they do not stay in registers.
#define TILES(windows, vectors, kw)                                                     \
    static VEC_ALONE void tiles_##windows##_##vectors##_##kw(                           \
        const forward *f, const float *image, size_t begin, size_t end, size_t block) { \
        tiles(f, windows, vectors, kw, image, begin, end, block);                       \
    }
// Three windows of a vector are the most that registers hold; one window that is left over goes
// with two vectors, where there are two. The first n windows in order.
#define BLOCKS(kw)                                                                        \
    TILES(1, 1, kw)                                                                       \
    TILES(2, 1, kw)                                                                       \
    TILES(3, 1, kw)                                                                       \
    TILES(1, 2, kw)                                                                       \
    static void blocks_##kw(const forward *f, const float *image, size_t n, size_t block, \
                            size_t vectors) {                                             \
        size_t whole = n - n % WIDE;                                                      \
        for (size_t b = block; b < block + vectors; b++) {                                \
            tiles_3_1_##kw(f, image, 0, whole, b);                                        \
            if (n % WIDE == 2) tiles_2_1_##kw(f, image, whole, n, b);                     \
            if (n % WIDE == 1 && vectors == 1) tiles_1_1_##kw(f, image, whole, n, b);     \
        }                                                                                 \
        if (n % WIDE == 1 && vectors == PAIR) tiles_1_2_##kw(f, image, whole, n, block);  \
    }
BLOCKS(0)
BLOCKS(3)
BLOCKS(5)

// ---- Zeros -------------------------------------------------------------------------------------

// A bit for each pixel of a row that is not 0.
static uint64_t nonzeros_of_row(const float *row, size_t n) {
    uint64_t bits = 0;
    if (n < LANES) return v_mask(v_load_part(row, n) != (vf){0});
    for (size_t i = 0; i < n; i += LANES) {
        size_t at = pixels_at(i, n);
        bits |= v_mask(v_load(row + at) != (vf){0}) << at;
    }
    return bits;
}

// Puts windows that see only zeros at the end of the order; returns how many others there are.
static size_t order_windows(const forward *f, const float *image) {
    const conv_pool *s = &f->shape;
    size_t seen = 0, empty = s->windows;
    uint64_t row[SPARSE_MAX];
    if (!f->sparse) return s->windows;
    for (size_t i = 0; i < s->ph; i++) row[i] = nonzeros_of_row(image + i * s->pw, s->pw);
    for (size_t oy = 0, window = 0; oy < s->oh; oy++) {
        uint64_t all = 0, any = 0;
        for (size_t i = 0; i <= s->conv.kh; i++) all |= row[2 * oy + i];
        for (size_t i = 0; i <= s->conv.kw; i++) any |= all >> i;
        for (size_t ox = 0; ox < s->ow; ox++, window++, any >>= 2) { // without branches
            f->order[seen] = f->order[empty - 1] = (int32_t)window;
            seen += any & 1;
            empty -= ~any & 1;
        }
    }
    return seen;
}

// Windows n and on in order see only zeros.
static void fill_empty(const forward *f, size_t n, size_t block) {
    vf bias = v_load(f->bias + block * LANES);
    for (size_t i = n; i < f->shape.windows; i++)
        store(f, block % PAIR, (size_t)f->order[i], bias, (vi){0} + EMPTY);
}

// ---- The whole ---------------------------------------------------------------------------------

static void pack_weights(const conv_pool *s, const float *weight, float *to) {
    for (size_t o = 0; o < s->conv.o; o += LANES) {
        size_t filters = s->conv.o - o < LANES ? s->conv.o - o : LANES;
        picture p = {filters, s->taps, s->taps, LANES};
        planes_to_pixels(p, weight + o * s->taps, to + o * s->taps);
    }
}

size_t VEC_NAME(bt_cpu_conv_pool_packed)(const bt_launch *parts) {
    bt_conv_args args;
    memcpy(&args, parts[0].scalars, sizeof args);
    conv_pool s = conv_pool_of(&args);
    return 4 * weight_count(&s);
}

void VEC_NAME(bt_cpu_conv_pool_pack)(const bt_launch *parts, void *packed) {
    bt_conv_args args;
    memcpy(&args, parts[0].scalars, sizeof args);
    conv_pool s = conv_pool_of(&args);
    pack_weights(&s, bt_cpu_data(&parts[0], 1), packed);
}

static void prepare(const forward *f, const float *bias) {
    const conv_pool *s = &f->shape;
    for (size_t o = 0; o < f->blocks * LANES; o++) f->bias[o] = bias && o < s->conv.o ? bias[o] : 0;
    for (size_t c = 0, r = 0; c < s->conv.c; c++)
        for (size_t ky = 0; ky < s->conv.kh; ky++, r++)
            f->row[r] = (int32_t)((c * s->ph + ky) * s->pw);
    for (size_t oy = 0, i = 0; oy < s->oh; oy++)
        for (size_t ox = 0; ox < s->ow; ox++, i++) {
            f->order[i] = (int32_t)i;
            f->corner[i] = (int32_t)(2 * (oy * s->pw + ox));
            f->patch[i] = f->corner[i] * (int32_t)s->channels;
        }
    if (f->padded) memset(f->image, 0, s->conv.c * s->ph * s->pw * sizeof *f->image);
}

// Copies an image between its zeros.
static void pad_image(const forward *f, const float *x) {
    const conv_pool *s = &f->shape;
    size_t w = s->conv.w, padding = s->conv.padding;
    for (size_t c = 0; c < s->conv.c; c++)
        for (size_t row = 0; row < s->conv.h; row++, x += w)
            memcpy(f->image + (c * s->ph + row + padding) * s->pw + padding, x, w * sizeof *x);
}

static void one_sample(const forward *f, const float *image, float *y, float *position) {
    const conv_pool *s = &f->shape;
    size_t n = order_windows(f, image);
    for (size_t block = 0; block < f->blocks; block += PAIR) {
        size_t vectors = f->blocks - block < PAIR ? f->blocks - block : PAIR;
        if (s->conv.kw == 3)
            blocks_3(f, image, n, block, vectors);
        else if (s->conv.kw == 5)
            blocks_5(f, image, n, block, vectors);
        else
            blocks_0(f, image, n, block, vectors);
        for (size_t v = 0; v < vectors; v++) {
            size_t o = (block + v) * LANES, filters = s->conv.o - o < LANES ? s->conv.o - o : LANES;
            picture p = {filters, s->windows, s->windows, LANES};
            fill_empty(f, n, block + v);
            pixels_to_planes(p, f->y + v * f->room, y + o * s->windows);
            if (position) pixels_to_planes(p, f->position + v * f->room, position + o * s->windows);
        }
    }
}

void VEC_NAME(bt_cpu_conv_pool)(const bt_launch *parts, const bt_cpu_worker *me) {
    const forward f = make_forward(parts, me->packed, me->scratch);
    const float *x = bt_cpu_data(&parts[0], 0);
    float *y = bt_cpu_data(&parts[1], 1), *position = f.position ? bt_cpu_data(&parts[1], 2) : NULL;
    size_t begin, end, size = (size_t)f.shape.conv.c * f.shape.conv.h * f.shape.conv.w;
    size_t results = f.shape.conv.o * f.shape.windows;
    bt_cpu_share(me, f.shape.conv.n, 1, &begin, &end);
    if (begin == end) return;
    if (!me->packed) pack_weights(&f.shape, bt_cpu_data(&parts[0], 1), f.weight);
    prepare(&f, bt_cpu_data(&parts[0], 2));
    for (size_t n = begin; n < end; n++) {
        if (f.padded) pad_image(&f, x + n * size);
        one_sample(&f, f.padded ? f.image : x + n * size, y + n * results,
                   position ? position + n * results : NULL);
    }
}
