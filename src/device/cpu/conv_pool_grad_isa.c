// The gradients of convolution, ReLU and max pooling of size 2 as one. Of the four results of a
// window only the maximum has a gradient, and none where ReLU has no derivative: all the rest of dz
// are zeros, which are never made. What there is goes into lists of a gradient d and of where its
// factors begin, and both products are sums over such a list of d times a patch, which stay in
// registers:
//   dweight[o] += d * patch of the image     over the windows of some samples
//   dx at window += d * filter o             over the filters
// Images lie as pixels (see conv_pool.h); so do the filters, with a border of zeros to be shifted
// to the maximum, so that a window has one patch of (kh + 1) x (kw + 1) pixels whichever it was.
// The order of a sum depends on shapes and on what is 0, never on who does it.
#include "device/cpu/conv_pool.h"

enum {
    GROUP_BYTES = 28 << 10, // images and lists of samples that are listed together
    VECTORS = 6,            // in a row of a part of a patch that stays in registers, at most
    ROWS = 5,               // of such a part
    SUMS = 15,              // vectors in registers, for all entries at once
};

// Sums of products of gradients and patches, each over a list of its own.
typedef struct sums {
    size_t rows, vectors;    // of a patch
    size_t n;                // sums
    float *to;               // where they are: sum i from to + place[i] on
    int32_t *place;          // [n]
    size_t to_step;          // from row to row
    const float *from;       // where patches are
    size_t from_step;        // from row to row
    uint32_t *begin, *count; // [n] entries of each list
    int32_t *offset;         // of all entries: the patch is from + offset
    float *d;                // the gradient
} sums;

typedef struct backward {
    conv_pool shape;
    size_t group;          // samples at a time
    float *image;          // [group] as pixels
    size_t image_room;     // numbers there
    sums filters;          // dweight; windows of a group of samples are listed
    sums windows;          // dx of a sample; filters are listed
    size_t border, filter; // numbers in a row of a filter and in all of it, with zeros around
    float *weight;         // [o][filter]
    float *dy, *position;  // [windows][o rounded up to LANES], of a sample
    int32_t *corner;       // [o] where filters begin in `weight`
    size_t bytes;
} backward;

static void take_lists(arena *a, sums *s, size_t entries) {
    s->place = take(a, s->n);
    s->begin = take(a, s->n);
    s->count = take(a, s->n);
    s->offset = take(a, entries + LANES); // appending goes too far
    s->d = take(a, entries + LANES);
}

static void take_windows(arena *a, backward *b) {
    const conv_pool *s = &b->shape;
    size_t o = round_up(s->conv.o, LANES), room = round_up(s->windows, LANES) * o;
    sums *w = &b->windows;
    *w = (sums){.rows = s->conv.kh + 1, .n = s->windows, .to_step = s->pw * s->channels};
    w->vectors = (s->run + s->channels + LANES - 1) / LANES;
    b->border = w->from_step = s->channels + w->vectors * LANES;
    b->filter = (s->conv.kh + 2) * b->border;
    w->to = take(a, s->image + 2 * LANES * s->channels);
    w->from = b->weight = take(a, s->conv.o * b->filter + LANES * s->channels);
    take_lists(a, w, s->windows * s->conv.o);
    b->dy = take(a, room);
    b->position = take(a, room);
    b->corner = take(a, o);
}

static backward make_backward(const bt_launch *parts, char *scratch) {
    bt_conv_args args;
    memcpy(&args, parts[2].scalars, sizeof args);
    arena a = {.scratch = scratch};
    backward b = {.shape = conv_pool_of(&args), .group = 1};
    const conv_pool *s = &b.shape;
    size_t each = 4 * s->image + 8 * args.o * s->windows, step = s->run_vectors * LANES;
    while (b.group < BT_CONV_CHUNK && 2 * b.group * each <= GROUP_BYTES) b.group *= 2;
    b.image_room = b.group * s->image + 2 * LANES * s->channels;
    b.image = take(&a, b.image_room);
    b.filters = (sums){.rows = args.kh, .vectors = s->run_vectors, .n = args.o};
    b.filters.to = take(&a, args.o * args.kh * step + LANES * s->channels);
    b.filters.to_step = step;
    b.filters.from = b.image;
    b.filters.from_step = s->pw * s->channels;
    take_lists(&a, &b.filters, args.o * (b.group * s->windows + LANES));
    if (parts[4].binding_count > 0) take_windows(&a, &b);
    b.bytes = a.bytes;
    return b;
}

size_t VEC_NAME(bt_cpu_conv_pool_grad_scratch)(const bt_launch *parts) {
    return make_backward(parts, NULL).bytes;
}

// ---- Lists -------------------------------------------------------------------------------------

#if defined(__AVX512F__)
// Appends the lanes of `keep`; returns how many. Writes LANES numbers.
VEC_INLINE size_t v_append(int32_t *offset, float *d, vi where, vf value, vi keep) {
    __mmask16 mask = _mm512_movepi32_mask((__m512i)keep);
    _mm512_storeu_si512(offset, _mm512_maskz_compress_epi32(mask, (__m512i)where));
    v_store(d, (vf)_mm512_maskz_compress_ps(mask, (__m512)value));
    return (size_t)__builtin_popcount(mask);
}
#elif defined(__AVX2__)
VEC_INLINE size_t v_append(int32_t *offset, float *d, vi where, vf value, vi keep) {
    static const int32_t first[16][4] = {
        {0}, {0},    {1},    {0, 1},    {2},    {0, 2},    {1, 2},    {0, 1, 2},
        {3}, {0, 3}, {1, 3}, {0, 1, 3}, {2, 3}, {0, 2, 3}, {1, 2, 3}, {0, 1, 2, 3},
    };
    unsigned mask = (unsigned)_mm256_movemask_ps((__m256)keep), low = mask & 15;
    size_t n = (size_t)__builtin_popcount(low);
    __m128i order = _mm_loadu_si128((const __m128i *)first[low]);
    __m128i order2 = _mm_loadu_si128((const __m128i *)first[mask >> 4]);
    __m256 at = (__m256)where, v = (__m256)value;
    _mm_storeu_ps(d, _mm_permutevar_ps(_mm256_castps256_ps128(v), order));
    _mm_storeu_ps(d + n, _mm_permutevar_ps(_mm256_extractf128_ps(v, 1), order2));
    __m128 near = _mm_permutevar_ps(_mm256_castps256_ps128(at), order);
    __m128 far = _mm_permutevar_ps(_mm256_extractf128_ps(at, 1), order2);
    memcpy(offset, &near, sizeof near);
    memcpy(offset + n, &far, sizeof far);
    return (size_t)__builtin_popcount(mask);
}
#else
VEC_INLINE size_t v_append(int32_t *offset, float *d, vi where, vf value, vi keep) {
    size_t n = 0;
    for (int i = 0; i < LANES; i++) {
        offset[n] = where[i];
        d[n] = value[i];
        n += keep[i] != 0;
    }
    return n;
}
#endif

// Appends the gradients of filter o in one sample, whose image begins at `image`, but for those of
// patches of zeros, which add nothing; returns the sum of all.
static float list_filter(const backward *b, size_t o, const float *dy, const float *position,
                         size_t image) {
    const sums *f = &b->filters;
    size_t windows = b->shape.windows, n = f->begin[o] + f->count[o];
    vf total = {0};
    for (size_t i = 0; i < windows; i += LANES) {
        vi where = (vi)v_load_up_to(position + i, windows - i);
        vf d = v_load_up_to(dy + i, windows - i);
        vi alive = where >= 0;
        if (windows - i < LANES) alive &= v_below(windows - i);
        total += (vf)((vi)d & alive);
        n += v_append(f->offset + n, f->d + n, where + (int32_t)image, d, alive & (where < EMPTY));
    }
    f->count[o] = (uint32_t)n - f->begin[o];
    return v_sum(total);
}

// Lists the gradients of all windows of a sample. A filter begins where its pixel (0, 0) meets the
// maximum: one pixel to the left for a maximum on the right ...
static void list_windows(const backward *b) {
    const sums *w = &b->windows;
    const int32_t right = (int32_t)b->shape.channels, down = (int32_t)w->to_step;
    size_t o = b->shape.conv.o, all = round_up(o, LANES), n = 0;
    for (size_t i = 0; i < w->n; i++) {
        w->begin[i] = (uint32_t)n;
        for (size_t j = 0; j < o; j += LANES) {
            vi where = (vi)v_load(b->position + i * all + j), corner;
            memcpy(&corner, b->corner + j, sizeof corner);
            vi alive = where >= 0;
            if (o - j < LANES) alive &= v_below(o - j);
            vi shift = (where & ~EMPTY) - w->place[i], lower = shift >= down;
            vi at = corner - (lower & (int32_t)b->border) - ((shift - (lower & down)) & right);
            n += v_append(w->offset + n, w->d + n, at, v_load(b->dy + i * all + j), alive);
        }
        w->count[i] = (uint32_t)n - w->begin[i];
    }
}

// ---- Products ----------------------------------------------------------------------------------

// Where vector k of some rows is.
VEC_INLINE size_t vector_at(int k, int vectors, size_t step) {
    return (size_t)(k / vectors) * step + (size_t)(k % vectors) * LANES;
}

// sum[first] and on += d * patch
VEC_INLINE void add_patch(vf sum[SUMS], const int first, const int rows, const int vectors, float d,
                          const float *patch, size_t step) {
    vf factor = v_set(d);
    VEC_UNROLL
    for (int k = 0; k < rows * vectors; k++)
        sum[first + k] = v_fma(factor, v_load(patch + vector_at(k, vectors, step)), sum[first + k]);
}

// All sums, each in registers while its list lasts. Where patches have few vectors some `entries`
// are added at once, so that sums do not wait for each other.
VEC_INLINE void add_patches(const int rows, const int vectors, const int entries, const sums *s) {
    const int each = rows * vectors;
    const size_t from_step = s->from_step, to_step = s->to_step, n = s->n;
    const int32_t *place = s->place;
    const uint32_t *begin = s->begin, *count = s->count;
    const float *from = s->from;
    for (size_t i = 0; i < n; i++) {
        if (count[i] == 0) continue; // so that sums need not be ready before the loop
        const int32_t *offset = s->offset + begin[i], *end = offset + count[i];
        const float *d = s->d + begin[i];
        float *to = s->to + place[i];
        vf sum[SUMS];
        VEC_UNROLL
        for (int k = 0; k < entries * each; k++)
            sum[k] = k < each ? v_load(to + vector_at(k, vectors, to_step)) : (vf){0};
        for (; end - offset >= entries; offset += entries, d += entries) {
            VEC_UNROLL
            for (int e = 0; e < entries; e++)
                add_patch(sum, e * each, rows, vectors, d[e], from + offset[e], from_step);
        }
        for (; entries > 1 && offset < end; offset++, d++)
            add_patch(sum, 0, rows, vectors, *d, from + *offset, from_step);
        VEC_UNROLL
        for (int k = 0; k < each; k++) {
            vf total = sum[k];
            VEC_UNROLL
            for (int e = 1; e < entries; e++) total += sum[e * each + k];
            v_store(to + vector_at(k, vectors, to_step), total);
        }
    }
}

// X(vectors, rows, entries): together not more than registers hold.
// clang-format off
#define EACH_PATCH(X) \
    X(1, 1, 8) X(1, 2, 4) X(1, 3, 4) X(1, 4, 2) X(1, 5, 2) \
    X(2, 1, 4) X(2, 2, 2) X(2, 3, 2) X(2, 4, 1) X(2, 5, 1) \
    X(3, 1, 4) X(3, 2, 2) X(3, 3, 1) X(3, 4, 1) X(3, 5, 1) \
    X(4, 1, 2) X(4, 2, 1) X(4, 3, 1) \
    X(5, 1, 2) X(5, 2, 1) X(5, 3, 1) \
    X(6, 1, 2) X(6, 2, 1)
// clang-format on

#define X(vectors, rows, entries)                                     \
    static VEC_ALONE void patches_##vectors##_##rows(const sums *s) { \
        add_patches(rows, vectors, entries, s);                       \
    }
EACH_PATCH(X)
#undef X
static void (*const patches[VECTORS][ROWS])(const sums *) = {
#define X(vectors, rows, entries) [vectors - 1][rows - 1] = patches_##vectors##_##rows,
    EACH_PATCH(X)
#undef X
};

// Patches of any size, in parts of about the same size.
static void add_lists(const sums *s) {
    static const uint8_t rows_max[VECTORS] = {5, 5, 5, 3, 3, 2};
    size_t blocks = (s->vectors + VECTORS - 1) / VECTORS;
    for (size_t block = 0; block < blocks; block++) {
        size_t first = s->vectors * block / blocks;
        size_t vectors = s->vectors * (block + 1) / blocks - first;
        size_t cuts = (s->rows + rows_max[vectors - 1] - 1) / rows_max[vectors - 1];
        for (size_t cut = 0; cut < cuts; cut++) {
            size_t row = s->rows * cut / cuts, rows = s->rows * (cut + 1) / cuts - row;
            sums part = *s;
            part.to += row * s->to_step + first * LANES;
            part.from += row * s->from_step + first * LANES;
            patches[vectors - 1][rows - 1](&part);
        }
    }
}

static void make_dx(const backward *b, const float *dy, const float *position) {
    const conv_pool *s = &b->shape;
    picture p = {s->conv.o, s->windows, s->windows, round_up(s->conv.o, LANES)};
    planes_to_pixels(p, dy, b->dy);
    planes_to_pixels(p, position, b->position);
    list_windows(b);
    memset(b->windows.to, 0, s->image * sizeof *b->windows.to);
    add_lists(&b->windows);
}

// ---- The whole ---------------------------------------------------------------------------------

// Filters as pixels between zeros; they begin at their pixel (1, 1).
static void prepare_windows(const backward *b, const float *weight) {
    const conv_pool *s = &b->shape;
    size_t window = (size_t)s->conv.kh * s->conv.kw;
    for (size_t i = 0; i < s->windows; i++)
        b->windows.place[i] = (int32_t)((i / s->ow * s->pw + i % s->ow) * 2 * s->channels);
    memset(b->weight, 0, s->conv.o * b->filter * sizeof *b->weight);
    for (size_t o = 0; o < s->conv.o; o++, weight += s->taps) {
        size_t corner = o * b->filter + b->border + s->channels;
        b->corner[o] = (int32_t)corner;
        for (size_t ky = 0; ky < s->conv.kh; ky++) {
            picture p = {s->conv.c, s->conv.kw, window, s->channels};
            planes_to_pixels(p, weight + ky * s->conv.kw, b->weight + corner + ky * b->border);
        }
    }
}

static void prepare(const backward *b, const float *weight) {
    const conv_pool *s = &b->shape;
    for (size_t o = 0; o < s->conv.o; o++) {
        b->filters.place[o] = (int32_t)(o * s->conv.kh * b->filters.to_step);
        b->filters.begin[o] = (uint32_t)(o * (b->group * s->windows + LANES));
    }
    memset(b->image, 0, b->image_room * sizeof *b->image);
    if (weight) prepare_windows(b, weight);
}

// dweight of one filter as [c][kh][kw].
static void runs_to_weights(const conv_pool *s, const float *runs, float *weight) {
    size_t kh = s->conv.kh, kw = s->conv.kw, window = kh * kw, step = s->run_vectors * LANES;
    size_t rows = step == s->run ? 1 : kh; // without gaps between runs, all are one
    for (size_t ky = 0; ky < rows; ky++) {
        picture p = {s->conv.c, rows == 1 ? window : kw, window, s->channels};
        pixels_to_planes(p, runs + ky * step, weight + ky * kw);
    }
}

// An image as pixels between its zeros, and back.
static void image_to_pixels(const conv_pool *s, const float *x, float *to) {
    size_t h = s->conv.h, w = s->conv.w, padding = s->conv.padding;
    size_t rows = padding ? h : 1;
    for (size_t row = 0; row < rows; row++) {
        picture p = {s->conv.c, padding ? w : h * w, h * w, s->channels};
        planes_to_pixels(p, x + row * w, to + ((row + padding) * s->pw + padding) * s->channels);
    }
}

static void pixels_to_image(const conv_pool *s, const float *from, float *x) {
    size_t h = s->conv.h, w = s->conv.w, padding = s->conv.padding;
    size_t rows = padding ? h : 1;
    for (size_t row = 0; row < rows; row++) {
        picture p = {s->conv.c, padding ? w : h * w, h * w, s->channels};
        pixels_to_planes(p, from + ((row + padding) * s->pw + padding) * s->channels, x + row * w);
    }
}

// What the parts read and write.
typedef struct arrays {
    const float *dy, *position, *x; // position: int32_t
    float *partial, *dbias, *dx;
} arrays;

static void one_group(const backward *b, const arrays *a, size_t first, size_t samples) {
    const conv_pool *s = &b->shape;
    size_t size = (size_t)s->conv.c * s->conv.h * s->conv.w, o = s->conv.o, n = s->windows;
    memset(b->filters.count, 0, o * sizeof *b->filters.count);
    for (size_t i = 0; i < samples; i++) {
        size_t plane = (first + i) * o;
        image_to_pixels(s, a->x + (first + i) * size, b->image + i * s->image);
        for (size_t j = 0; j < o; j++, plane++) {
            float sum = list_filter(b, j, a->dy + plane * n, a->position + plane * n, i * s->image);
            if (a->dbias) a->dbias[plane] = sum;
        }
    }
    add_lists(&b->filters);
    for (size_t i = first; a->dx && i < first + samples; i++) {
        make_dx(b, a->dy + i * o * n, a->position + i * o * n);
        pixels_to_image(s, b->windows.to, a->dx + i * size);
    }
}

static arrays arrays_of(const bt_launch *parts) {
    arrays a = {.dy = bt_cpu_data(&parts[0], 0), .position = bt_cpu_data(&parts[0], 1)};
    a.x = bt_cpu_data(&parts[2], 1);
    a.partial = bt_cpu_data(&parts[2], 2);
    if (parts[3].binding_count > 0) a.dbias = bt_cpu_data(&parts[3], 1);
    if (parts[4].binding_count > 0) a.dx = bt_cpu_data(&parts[4], 2);
    return a;
}

// Chunks of samples are shared out, and each is done whole.
void VEC_NAME(bt_cpu_conv_pool_grad)(const bt_launch *parts, const bt_cpu_worker *me) {
    const arrays a = arrays_of(parts);
    const backward b = make_backward(parts, me->scratch);
    const conv_pool *s = &b.shape;
    size_t o = s->conv.o, patch = s->conv.kh * b.filters.to_step, begin, end;
    bt_cpu_share(me, s->conv.n, BT_CONV_CHUNK, &begin, &end);
    if (begin == end) return;
    prepare(&b, a.dx ? bt_cpu_data(&parts[4], 1) : NULL);
    for (size_t first = begin; first < end; first += BT_CONV_CHUNK) {
        size_t last = first + BT_CONV_CHUNK < end ? first + BT_CONV_CHUNK : end;
        memset(b.filters.to, 0, o * patch * sizeof *b.filters.to);
        for (size_t i = first; i < last; i += b.group)
            one_group(&b, &a, i, last - i < b.group ? last - i : b.group);
        float *partial = a.partial + first / BT_CONV_CHUNK * o * s->taps;
        for (size_t i = 0; i < o; i++)
            runs_to_weights(s, b.filters.to + i * patch, partial + i * s->taps);
    }
}
