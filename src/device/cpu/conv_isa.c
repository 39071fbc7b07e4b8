// Direct convolution and its two gradients, without columns in memory. An image is laid out as
// planes in which each tap (channel, ky, kx) of a filter is a constant offset: the image itself
// when stride is 1 and nothing is padded, else a copy with zeros around it, split into stride x
// stride phases (pixels whose coordinates have the same remainder). The result is cut into
// segments, runs of SEGMENT pixels of one row (the last of a row reaches back over pixels already
// covered). All three kernels then are sums of products over tables of offsets:
//   y[o][segment] = sum over taps of weight[o][tap] x[segment + tap]
//   dx[segment + tap] += sum over o of weight[o][tap] dy[o][segment]
//   dweight[o][tap] = sum over samples and segments of dy[o][segment] x[segment + tap]
// computed in tiles that stay in registers. The order of every sum depends on shapes alone.
#include "device/cpu/kernels_isa.h"
#include "device/cpu/vec_map.h"

enum {
    TILE = LANES == 16 ? 8 : 4, // output channels (dx: taps) of a tile
    VECTORS = 3,                // of pixels in a tile (dweight: taps)
    LAYOUT_MAX = 1 << 28,       // numbers in the layout of an image
    GROUP_BYTES = 80 << 10,     // images whose products dweight sums before adding up the lanes
};

typedef struct plan {
    bt_conv_args args;
    bool direct;                    // images are used where they are
    bool dense;                     // so is dy: segments do not overlap
    size_t taps, pixels;            // per filter, per plane of the result
    size_t plane_h, plane_w, image; // of the layout, in floats
    size_t vectors;                 // per plane of the result
    size_t row;                     // segments in a row
    size_t group;                   // samples at a time, in dweight
    int32_t *tap;                   // [taps] offsets in the image
    int32_t *base, *out; // [vectors * SEGMENTS] offsets in the image, in a plane of the result
    float *weight;       // packed in tiles
    float *x, *dy;       // copies, where needed
    size_t bytes;        // of all these arrays
} plan;

static size_t round_up(size_t n, size_t block) {
    return (n + block - 1) / block * block;
}

// Takes n 4-byte elements from the working memory.
static void *take(plan *p, char *scratch, size_t n) {
    void *at = scratch ? scratch + p->bytes : NULL;
    p->bytes += round_up(n * 4, 64);
    return at;
}

static plan make_plan(const bt_launch *launch, char *scratch) {
    BT_CPU_ARGS(bt_conv_args);
    size_t s = args.stride;
    plan p = {.args = args};
    p.taps = (size_t)args.c * args.kh * args.kw;
    p.pixels = (size_t)args.oh * args.ow;
    p.direct = s == 1 && args.padding == 0 && args.ow >= SEGMENT;
    p.plane_h = args.oh + (args.kh - 1) / s;
    p.plane_w = args.ow + (args.kw - 1) / s;
    p.image = args.c * s * s * p.plane_h * p.plane_w;
    p.row = args.ow < SEGMENT ? 1 : (args.ow + SEGMENT - 1) / SEGMENT;
    p.vectors = (args.oh * p.row + SEGMENTS - 1) / SEGMENTS;
    p.dense = p.vectors * LANES == p.pixels && args.ow % SEGMENT == 0;
    p.group = 1;
    while (launch->kernel == BT_KERNEL_conv2d_grad_weight && p.group < BT_CONV_CHUNK &&
           2 * p.group * 4 * (p.image + args.o * p.pixels) <= GROUP_BYTES)
        p.group *= 2;
    p.tap = take(&p, scratch, p.taps);
    p.base = take(&p, scratch, p.vectors * SEGMENTS);
    p.out = take(&p, scratch, p.vectors * SEGMENTS);
    if (launch->kernel == BT_KERNEL_conv2d)
        p.weight = take(&p, scratch, round_up(args.o, TILE) * p.taps);
    if (launch->kernel == BT_KERNEL_conv2d_grad_input)
        p.weight = take(&p, scratch, round_up(p.taps, TILE) * args.o);
    if (!p.direct) p.x = take(&p, scratch, p.group * p.image + SEGMENT);
    if (!p.dense && launch->kernel != BT_KERNEL_conv2d)
        p.dy = take(&p, scratch, p.group * args.o * p.vectors * LANES);
    return p;
}

// Far strides and wide padding around many channels make layouts that no memory holds and whose
// offsets no 32 bits do: these are left to the plain loops, which need none.
static bool too_large(const plan *p) {
    return !p->direct && p->image > LAYOUT_MAX;
}

size_t VEC_NAME(bt_cpu_conv_scratch)(const bt_launch *launch) {
    plan p = make_plan(launch, NULL);
    return too_large(&p) ? 0 : p.bytes;
}

// Fills the tables of offsets. Taps are in the order of the weights, or, for dx, those of all
// channels together: one tile's then fall on different planes, and no addition waits for another.
static void fill_tables(plan *p, bool channels_together) {
    const bt_conv_args *a = &p->args;
    size_t s = a->stride, window = (size_t)a->kh * a->kw;
    for (size_t c = 0; c < a->c; c++)
        for (size_t ky = 0; ky < a->kh; ky++)
            for (size_t kx = 0; kx < a->kw; kx++) {
                size_t plane = (c * s + ky % s) * s + kx % s;
                size_t at = ky * a->kw + kx;
                size_t t = channels_together ? at * a->c + c : c * window + at;
                p->tap[t] = (int32_t)((plane * p->plane_h + ky / s) * p->plane_w + kx / s);
            }
    size_t segments = a->oh * p->row;
    for (size_t i = 0; i < p->vectors * SEGMENTS; i++) {
        size_t at = i < segments ? i : segments - 1, oy = at / p->row, ox = at % p->row * SEGMENT;
        if (ox + SEGMENT > a->ow) ox = a->ow < SEGMENT ? 0 : a->ow - SEGMENT;
        p->base[i] = (int32_t)(oy * p->plane_w + ox);
        p->out[i] = (int32_t)(oy * a->ow + ox);
    }
}

// The columns X of a phase px that fall inside the image: ix = X stride + px - padding.
static void inside(const bt_conv_args *a, size_t px, size_t limit, size_t *begin, size_t *end) {
    size_t s = a->stride, first = a->padding > px ? a->padding - px : 0;
    size_t last = a->w + a->padding > px ? a->w + a->padding - px : 0;
    *end = (last + s - 1) / s < limit ? (last + s - 1) / s : limit;
    *begin = (first + s - 1) / s < *end ? (first + s - 1) / s : *end;
}

// Copies an image into its layout.
static void lay_out(const plan *p, const float *x, float *to) {
    const bt_conv_args *a = &p->args;
    size_t s = a->stride;
    memset(to, 0, (p->image + SEGMENT) * sizeof *to);
    for (size_t plane = 0; plane < a->c * s * s; plane++) {
        size_t py = plane / s % s, px = plane % s, begin, end;
        inside(a, px, p->plane_w, &begin, &end);
        for (size_t row = 0; row < p->plane_h; row++, to += p->plane_w) {
            size_t iy = row * s + py;
            if (iy < a->padding || iy - a->padding >= a->h) continue;
            const float *from = x + (plane / (s * s) * a->h + iy - a->padding) * a->w;
            for (size_t column = begin; column < end; column++)
                to[column] = from[column * s + px - a->padding];
        }
    }
}

// The way back; pixels that no tap reaches are 0.
static void lay_back(const plan *p, const float *from, float *x) {
    const bt_conv_args *a = &p->args;
    size_t s = a->stride;
    memset(x, 0, (size_t)a->c * a->h * a->w * sizeof *x);
    for (size_t plane = 0; plane < a->c * s * s; plane++) {
        size_t py = plane / s % s, px = plane % s, begin, end;
        inside(a, px, p->plane_w, &begin, &end);
        for (size_t row = 0; row < p->plane_h; row++, from += p->plane_w) {
            size_t iy = row * s + py;
            if (iy < a->padding || iy - a->padding >= a->h) continue;
            float *to = x + (plane / (s * s) * a->h + iy - a->padding) * a->w;
            for (size_t column = begin; column < end; column++)
                to[column * s + px - a->padding] = from[column];
        }
    }
}

// Planes of dy as vectors, with zeros in the lanes that an earlier segment covers.
static void pack_dy(const plan *p, const float *dy, size_t planes, float *to) {
    size_t ow = p->args.ow, segments = p->args.oh * p->row, count = ow < SEGMENT ? ow : SEGMENT;
    for (size_t k = 0; k < planes; k++, dy += p->pixels)
        for (size_t i = 0; i < p->vectors * SEGMENTS; i++, to += SEGMENT) {
            size_t covered = i % p->row * SEGMENT - (size_t)p->out[i] % ow;
            size_t skip = i < segments ? covered : SEGMENT;
            for (size_t lane = 0; lane < SEGMENT; lane++)
                to[lane] = lane >= skip && lane < count ? dy[(size_t)p->out[i] + lane] : 0;
        }
}

// to [tiles of o][taps][TILE], with zeros beyond the last o.
static void pack_forward(const plan *p, const float *weight, float *to) {
    for (size_t tile = 0; tile < p->args.o; tile += TILE)
        for (size_t t = 0; t < p->taps; t++)
            for (size_t o = tile; o < tile + TILE; o++)
                *to++ = o < p->args.o ? weight[o * p->taps + t] : 0;
}

// to [tiles of taps][o][TILE], taps in the order of dx.
static void pack_scatter(const plan *p, const float *weight, float *to) {
    size_t channels = p->args.c, window = (size_t)p->args.kh * p->args.kw;
    for (size_t tile = 0; tile < p->taps; tile += TILE)
        for (size_t o = 0; o < p->args.o; o++)
            for (size_t t = tile; t < tile + TILE; t++)
                *to++ =
                    t < p->taps ? weight[o * p->taps + t % channels * window + t / channels] : 0;
}

// ---- y -------------------------------------------------------------------------------------

// y [rows <= TILE, pixels]: some vectors of it, from weights [taps][TILE].
VEC_INLINE void forward_tile(const plan *p, const int vectors, size_t first, const float *image,
                             const float *weight, const float *bias, float *y, int rows) {
    vf sum[TILE][VECTORS];
    const int32_t *base = p->base + first * SEGMENTS, *out = p->out + first * SEGMENTS;
    VEC_UNROLL
    for (int r = 0; r < TILE; r++) {
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) sum[r][v] = v_set(bias[r]);
    }
    for (size_t t = 0; t < p->taps; t++, weight += TILE) {
        vf x[VECTORS];
        VEC_UNROLL
        for (int v = 0; v < vectors; v++)
            x[v] = v_load_segments(image + p->tap[t], base + v * SEGMENTS);
        VEC_UNROLL
        for (int r = 0; r < TILE; r++) {
            vf w = v_set(weight[r]);
            VEC_UNROLL
            for (int v = 0; v < vectors; v++) sum[r][v] = v_fma(w, x[v], sum[r][v]);
        }
    }
    bool relu = p->args.epilogue == BT_MAP_RELU;
    VEC_UNROLL
    for (int r = 0; r < TILE; r++) {
        if (r >= rows) continue; // no break: the loop must unroll
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) {
            vf result = relu ? v_max((vf){0}, sum[r][v]) : sum[r][v];
            VEC_UNROLL
            for (int s = 0; s < SEGMENTS; s++) {
                float *to = y + (size_t)r * p->pixels + out[v * SEGMENTS + s];
                if (p->args.ow >= SEGMENT)
                    v_store_segment(to, result, s);
                else
                    for (uint32_t i = 0; i < p->args.ow; i++)
                        to[i] = result[(uint32_t)s * SEGMENT + i];
            }
        }
    }
}

static VEC_ALONE void forward_rows(const plan *p, const float *image, const float *weight,
                                   const float *bias, float *y, int rows) {
    size_t v = 0;
    for (; v + 3 <= p->vectors; v += 3) forward_tile(p, 3, v, image, weight, bias, y, rows);
    if (p->vectors - v == 2) forward_tile(p, 2, v, image, weight, bias, y, rows);
    if (p->vectors - v == 1) forward_tile(p, 1, v, image, weight, bias, y, rows);
}

void VEC_NAME(bt_cpu_conv2d)(const bt_launch *launch, const bt_cpu_worker *me) {
    plan p = make_plan(launch, me->scratch);
    if (too_large(&p)) {
        bt_cpu_reference_f32[launch->kernel].run(launch, me);
        return;
    }
    const float *x = bt_cpu_data(launch, 0), *weight = bt_cpu_data(launch, 1);
    const float *bias = bt_cpu_data(launch, 2);
    float *y = bt_cpu_data(launch, 3);
    size_t o = p.args.o, tiles = (o + TILE - 1) / TILE,
           size = (size_t)p.args.c * p.args.h * p.args.w;
    size_t begin, end, laid_out = SIZE_MAX;
    bt_cpu_share(me, p.args.n * tiles, 1, &begin, &end);
    if (begin == end || p.pixels == 0) return;
    fill_tables(&p, false);
    pack_forward(&p, weight, p.weight);
    for (size_t item = begin; item < end; item++) {
        size_t sample = item / tiles, first = item % tiles * TILE;
        int rows = o - first < TILE ? (int)(o - first) : TILE;
        const float *image = p.direct ? x + sample * size : p.x;
        float start[TILE] = {0}, *to = y + (sample * o + first) * p.pixels;
        if (!p.direct && sample != laid_out) lay_out(&p, x + sample * size, p.x);
        laid_out = sample;
        for (int r = 0; bias && r < rows; r++) start[r] = bias[first + (size_t)r];
        forward_rows(&p, image, p.weight + first * p.taps, start, to, rows);
        if (p.args.epilogue != BT_MAP_COPY && p.args.epilogue != BT_MAP_RELU)
            v_map_row(p.args.epilogue, (bt_cpu_row){to, NULL, 1, 0, to}, (size_t)rows * p.pixels);
    }
}

// ---- dx ------------------------------------------------------------------------------------

// Adds the taps of one tile, at some vectors, to an image. weight [o][TILE].
VEC_INLINE void scatter_tile(const plan *p, const int vectors, size_t first, const float *dy,
                             const float *weight, const int32_t *tap, int rows, float *image) {
    vf sum[TILE][VECTORS];
    VEC_UNROLL
    for (int r = 0; r < TILE; r++) {
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) sum[r][v] = (vf){0};
    }
    dy += first * LANES;
    for (size_t o = 0; o < p->args.o; o++, weight += TILE, dy += p->vectors * LANES) {
        vf d[VECTORS];
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) d[v] = v_load(dy + v * LANES);
        VEC_UNROLL
        for (int r = 0; r < TILE; r++) {
            vf w = v_set(weight[r]);
            VEC_UNROLL
            for (int v = 0; v < vectors; v++) sum[r][v] = v_fma(w, d[v], sum[r][v]);
        }
    }
    VEC_UNROLL
    for (int r = 0; r < TILE; r++) {
        if (r >= rows) continue; // no break: the loop must unroll
        VEC_UNROLL
        for (int v = 0; v < vectors; v++) {
            VEC_UNROLL
            for (int s = 0; s < SEGMENTS; s++)
                v_add_segment(image + tap[r] + p->base[(first + (size_t)v) * SEGMENTS + (size_t)s],
                              sum[r][v], s);
        }
    }
}

static VEC_ALONE void scatter(const plan *p, const float *dy, float *image) {
    for (size_t t = 0; t < p->taps; t += TILE) {
        int rows = p->taps - t < TILE ? (int)(p->taps - t) : TILE;
        const float *weight = p->weight + t * p->args.o;
        size_t v = 0;
        for (; v + 3 <= p->vectors; v += 3)
            scatter_tile(p, 3, v, dy, weight, p->tap + t, rows, image);
        if (p->vectors - v == 2) scatter_tile(p, 2, v, dy, weight, p->tap + t, rows, image);
        if (p->vectors - v == 1) scatter_tile(p, 1, v, dy, weight, p->tap + t, rows, image);
    }
}

void VEC_NAME(bt_cpu_conv2d_grad_input)(const bt_launch *launch, const bt_cpu_worker *me) {
    plan p = make_plan(launch, me->scratch);
    if (too_large(&p)) {
        bt_cpu_reference_f32[launch->kernel].run(launch, me);
        return;
    }
    const float *dy = bt_cpu_data(launch, 0), *weight = bt_cpu_data(launch, 1);
    float *dx = bt_cpu_data(launch, 2);
    size_t o = p.args.o, size = (size_t)p.args.c * p.args.h * p.args.w, begin, end;
    bt_cpu_share(me, p.args.n, 1, &begin, &end);
    if (begin == end || size == 0) return;
    fill_tables(&p, true);
    pack_scatter(&p, weight, p.weight);
    for (size_t sample = begin; sample < end; sample++) {
        const float *from = dy + sample * o * p.pixels;
        float *image = p.direct ? dx + sample * size : p.x;
        if (!p.dense) pack_dy(&p, from, o, p.dy);
        memset(image, 0, (p.direct ? size : p.image + SEGMENT) * sizeof *image);
        scatter(&p, p.dense ? from : p.dy, image);
        if (!p.direct) lay_back(&p, image, dx + sample * size);
    }
}

// ---- dweight -------------------------------------------------------------------------------

// The images and gradients of a group of samples, in layout.
typedef struct group {
    const float *image, *dy;
    size_t image_step, dy_step, samples;
} group;

// to [rows][VECTORS taps] = the products of a group, for `rows` planes from dy on.
VEC_INLINE void weight_tile(const plan *p, const group *g, const int rows, const float *dy,
                            const int32_t tap[VECTORS], float to[TILE][VECTORS]) {
    const size_t pitch = p->vectors * LANES;
    vf sum[TILE][VECTORS];
    VEC_UNROLL
    for (int r = 0; r < rows; r++) {
        VEC_UNROLL
        for (int t = 0; t < VECTORS; t++) sum[r][t] = (vf){0};
    }
    for (size_t sample = 0; sample < g->samples; sample++) {
        const float *image = g->image + sample * g->image_step, *d = dy + sample * g->dy_step;
        const float *from[VECTORS] = {image + tap[0], image + tap[1], image + tap[2]};
        for (const int32_t *base = p->base, *end = base + p->vectors * SEGMENTS; base < end;
             base += SEGMENTS, d += LANES) {
            vf x[VECTORS];
            VEC_UNROLL
            for (int t = 0; t < VECTORS; t++) x[t] = v_keep(v_load_segments(from[t], base));
            VEC_UNROLL
            for (int r = 0; r < rows; r++) {
                vf left = v_keep(v_load(d + (size_t)r * pitch));
                VEC_UNROLL
                for (int t = 0; t < VECTORS; t++) sum[r][t] = v_fma(left, x[t], sum[r][t]);
            }
        }
    }
    VEC_UNROLL
    for (int r = 0; r < rows; r++) {
        VEC_UNROLL
        for (int t = 0; t < VECTORS; t++) to[r][t] = v_sum(sum[r][t]);
    }
}

static VEC_ALONE void any_weight_tile(const plan *p, const group *g, int rows, const float *dy,
                                      const int32_t tap[VECTORS], float to[TILE][VECTORS]) {
#define CASE(r) \
    case r: weight_tile(p, g, r, dy, tap, to); break
    switch (rows) {
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
#if defined(__AVX512F__)
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
#endif
    }
#undef CASE
}

// partial [o, taps]: rows first .. first + TILE - 1 of it, as far as there are.
static void weight_rows(const plan *p, const group *g, size_t first, bool add, float *partial) {
    int rows = p->args.o - first < TILE ? (int)(p->args.o - first) : TILE;
    const float *dy = g->dy + first * p->vectors * LANES;
    for (size_t t = 0; t < p->taps; t += VECTORS) {
        int32_t tap[VECTORS]; // beyond the last: the last again
        float sum[TILE][VECTORS];
        for (size_t i = 0; i < VECTORS; i++) tap[i] = p->tap[t + i < p->taps ? t + i : p->taps - 1];
        any_weight_tile(p, g, rows, dy, tap, sum);
        for (int r = 0; r < rows; r++)
            for (size_t i = 0; i < VECTORS && t + i < p->taps; i++) {
                float *to = partial + (first + (size_t)r) * p->taps + t + i;
                *to = add ? *to + sum[r][i] : sum[r][i];
            }
    }
}

static group prepare_group(const plan *p, const float *dy, const float *x, size_t first,
                           size_t samples) {
    size_t o = p->args.o, size = (size_t)p->args.c * p->args.h * p->args.w;
    x += first * size;
    dy += first * o * p->pixels;
    if (!p->direct)
        for (size_t i = 0; i < samples; i++) lay_out(p, x + i * size, p->x + i * p->image);
    if (!p->dense) pack_dy(p, dy, samples * o, p->dy);
    return (group){p->direct ? x : p->x, p->dense ? dy : p->dy, p->direct ? size : p->image,
                   o * p->vectors * LANES, samples};
}

// Tiles begin .. end - 1 of one chunk.
static void weight_chunk(const plan *p, const float *dy, const float *x, size_t chunk, size_t begin,
                         size_t end, float *partial) {
    size_t first = chunk * BT_CONV_CHUNK, last = first + BT_CONV_CHUNK;
    if (last > p->args.n) last = p->args.n;
    for (size_t sample = first; sample < last; sample += p->group) {
        size_t samples = last - sample < p->group ? last - sample : p->group;
        group g = prepare_group(p, dy, x, sample, samples);
        for (size_t tile = begin; tile < end; tile++)
            weight_rows(p, &g, tile * TILE, sample > first, partial);
    }
}

void VEC_NAME(bt_cpu_conv2d_grad_weight)(const bt_launch *launch, const bt_cpu_worker *me) {
    plan p = make_plan(launch, me->scratch);
    if (too_large(&p)) {
        bt_cpu_reference_f32[launch->kernel].run(launch, me);
        return;
    }
    const float *dy = bt_cpu_data(launch, 0), *x = bt_cpu_data(launch, 1);
    float *partial = bt_cpu_data(launch, 2);
    size_t tiles = ((size_t)p.args.o + TILE - 1) / TILE, begin, end;
    size_t chunks = ((size_t)p.args.n + BT_CONV_CHUNK - 1) / BT_CONV_CHUNK;
    bt_cpu_share(me, chunks * tiles, 1, &begin, &end);
    if (begin == end || p.taps == 0) return;
    fill_tables(&p, false);
    while (begin < end) {
        size_t chunk = begin / tiles, tile = begin % tiles;
        size_t stop = end - begin < tiles - tile ? tile + end - begin : tiles;
        weight_chunk(&p, dy, x, chunk, tile, stop, partial + chunk * p.args.o * p.taps);
        begin += stop - tile;
    }
}
