// See digits.h. A digit is a few strokes, curves through hand-placed points, which a random hand
// draws: points moved, sheared, turned, scaled, bent by a smooth field, and inked with a pen of
// random width. The bits are the same on every machine because only + - * / and sqrtf of IEEE
// single precision are used, in a fixed order, and because a sample depends on its number alone.
#include "data/digits.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "base/threads.h"

enum {
    SIDE = BT_DIGITS_SIDE,
    PIXELS = SIDE * SIDE,
    POINTS_MAX = 24, // of a glyph
    SPAN_STEPS = 4,  // straight pieces between two points of a curve
    GRID = 4,        // of the bending field
    GLYPHS = 26
};

static const uint64_t seed = 20260101;
static const float FAR = 1e6f; // a squared distance that no pixel has

// Points x, y on a square of 100 with y down. A point given twice is a corner; UP lifts the pen and
// END ends the glyph.
enum { UP = -1, END = -2 };
typedef struct glyph {
    int digit;
    int8_t path[2 * POINTS_MAX + 8];
} glyph;

static const glyph glyphs[GLYPHS] = {
    {0, {50, 7, 27, 18, 17, 50, 27, 84, 50, 94, 73, 84, 83, 50, 73, 18, 50, 7, END}},
    {0, {60, 10, 34, 14, 20, 46, 28, 82, 52, 93, 76, 72, 78, 36, 62, 12, 44, 14, END}},
    {1, {51, 5, 50, 50, 49, 95, END}},
    {1, {32, 28, 52, 6, 52, 6, 51, 50, 50, 95, END}},
    {1, {33, 27, 52, 7, 52, 7, 52, 50, 51, 93, UP, 28, 94, 74, 93, END}},
    {2, {21, 28, 32, 10, 56, 6, 74, 22, 68, 44, 44, 68, 17, 92, 17, 92, 50, 92, 83, 90, END}},
    {2,
     {22, 26, 40, 8, 66, 10, 74, 32, 58, 58, 34, 82, 20, 86, 22, 74, 36, 76, 58, 90, 84, 84, END}},
    {3, {22, 14, 48, 6, 72, 18, 66, 38, 42, 46, 42, 46, 70, 54, 78, 74, 58, 92, 21, 86, END}},
    {3, {22, 10, 75, 10, 75, 10, 46, 42, 46, 42, 74, 54, 76, 78, 52, 94, 20, 84, END}},
    {3,
     {20, 20, 44, 6, 68, 16, 64, 36, 46, 44, 38, 48, 48, 48, 74, 60, 72, 84, 46, 95, 20, 80, END}},
    {4, {30, 8, 24, 32, 18, 57, 18, 57, 50, 56, 82, 54, UP, 66, 10, 65, 50, 62, 95, END}},
    {4, {63, 95, 64, 50, 65, 6, 65, 6, 40, 36, 15, 65, 15, 65, 50, 64, 86, 62, END}},
    {4, {27, 10, 22, 42, 36, 56, 70, 48, UP, 75, 8, 70, 50, 64, 94, END}},
    {5, {76, 8, 32, 10, 32, 10, 27, 45, 27, 45, 54, 38, 76, 58, 68, 84, 44, 94, 19, 84, END}},
    {5, {34, 11, 29, 45, 29, 45, 56, 40, 76, 60, 64, 88, 40, 95, 20, 86, UP, 34, 11, 79, 8, END}},
    {6, {64, 6, 38, 26, 22, 60, 28, 88, 52, 94, 73, 80, 68, 58, 46, 52, 26, 68, END}},
    {6, {50, 4, 32, 40, 22, 72, 36, 93, 60, 92, 74, 74, 62, 55, 40, 57, 24, 76, END}},
    {7, {17, 12, 48, 11, 81, 10, 81, 10, 58, 48, 42, 95, END}},
    {7, {17, 12, 48, 11, 81, 10, 81, 10, 58, 48, 40, 95, UP, 32, 52, 71, 49, END}},
    {7, {19, 26, 22, 11, 22, 11, 79, 13, 79, 13, 60, 50, 47, 95, END}},
    {8, {70, 20, 50, 6,  30, 17, 35, 36, 62, 56, 74, 77, 52,
         95, 27, 82, 33, 60, 62, 38, 71, 20, 66, 12, END}},
    {8, {50, 6,  30, 16, 32, 37, 50, 46, 68, 37, 70, 16, 50, 6,  UP,
         50, 46, 27, 60, 25, 84, 50, 95, 75, 84, 73, 60, 50, 46, END}},
    {8,
     {68, 14, 44, 7, 30, 24, 46, 42, 70, 64, 66, 88, 40, 94, 26, 76, 42, 54, 66, 34, 68, 14, END}},
    {9, {75, 26, 54, 8, 30, 18, 28, 42, 50, 51, 70, 38, 75, 14, 75, 14, 71, 58, 64, 95, END}},
    {9, {74, 24, 54, 7, 30, 18, 28, 40, 48, 51, 68, 42, 74, 24, 74, 60, 60, 90, 32, 91, END}},
    {9, {70, 12, 44, 10, 26, 28, 36, 47, 60, 42, 74, 14, 74, 14, 66, 52, 52, 95, END}},
};

// ---- Randomness ------------------------------------------------------------------------------

typedef struct hand {
    uint64_t counter; // sample << 16 and a count of draws
    bt_random4 drawn;
    int left;
} hand;

static uint32_t next_bits(hand *h) {
    if (h->left == 0) {
        h->drawn = bt_philox(seed, BT_STREAM_DIGITS, h->counter++);
        h->left = 4;
    }
    return h->drawn.v[--h->left];
}

static uint32_t next_below(hand *h, uint32_t n) {
    return (uint32_t)((uint64_t)next_bits(h) * n >> 32);
}

static float between(hand *h, float low, float high) {
    return low + (high - low) * bt_uniform(next_bits(h));
}

// Around 0, at most `most` away, mostly near: the sum of three uniform numbers. (Integers, since C
// leaves open which of the three is drawn first.)
static float wobble(hand *h, float most) {
    uint32_t sum = (next_bits(h) >> 10) + (next_bits(h) >> 10) + (next_bits(h) >> 10);
    return ((float)sum * (2.0f / 3.0f * 0x1p-22f) - 1.0f) * most;
}

// ---- Drawing ---------------------------------------------------------------------------------

typedef struct point {
    float x, y;
} point;

typedef struct pose {
    float xx, xy, yx, yy, dx, dy;                 // affine, from the square of 100 to pixels
    float bend_x[GRID][GRID], bend_y[GRID][GRID]; // pixels
    float tremble;                                // of the points, on the square of 100
    float radius, soft;                           // of the pen, in pixels
    float ink, noise; // 0 .. 255, and what a random byte is multiplied by
} pose;

static pose random_pose(hand *h) {
    float turn = wobble(h, 0.67f), shear = wobble(h, 0.70f);
    float width = between(h, 0.125f, 0.215f), height = between(h, 0.155f, 0.225f);
    float t2 = turn * turn;
    float sine = turn * (1.0f - t2 * (1.0f / 6.0f) * (1.0f - t2 * (1.0f / 20.0f)));
    float cosine = 1.0f - t2 * 0.5f * (1.0f - t2 * (1.0f / 12.0f));
    pose p;
    p.xx = cosine * width;
    p.xy = (-sine - cosine * shear) * height;
    p.yx = sine * width;
    p.yy = (cosine - sine * shear) * height;
    p.dx = 13.5f + wobble(h, 6.0f);
    p.dy = 13.5f + wobble(h, 6.0f);
    float bend = between(h, 0.7f, 2.8f);
    for (int i = 0; i < GRID * GRID; i++) {
        p.bend_x[i / GRID][i % GRID] = between(h, -bend, bend);
        p.bend_y[i / GRID][i % GRID] = between(h, -bend, bend);
    }
    p.tremble = between(h, 2.0f, 7.0f);
    p.radius = between(h, 0.55f, 1.55f);
    p.soft = between(h, 0.45f, 0.95f);
    p.ink = between(h, 190.0f, 255.0f);
    p.noise = between(h, 0.0f, 0.2f);
    return p;
}

static float bilinear(const float field[GRID][GRID], float x, float y) {
    int i = x < 1.0f ? 0 : x < 2.0f ? 1 : 2, j = y < 1.0f ? 0 : y < 2.0f ? 1 : 2;
    float u = x - (float)i, v = y - (float)j;
    float top = field[j][i] + (field[j][i + 1] - field[j][i]) * u;
    float bottom = field[j + 1][i] + (field[j + 1][i + 1] - field[j + 1][i]) * u;
    return top + (bottom - top) * v;
}

// From the square of 100 to pixels.
static point place(const pose *p, point at) {
    float x = at.x - 50.0f, y = at.y - 50.0f;
    point out = {p->xx * x + p->xy * y + p->dx, p->yx * x + p->yy * y + p->dy};
    float gx = at.x * 0.03f, gy = at.y * 0.03f; // 0 .. 3 on the field
    out.x += bilinear(p->bend_x, gx, gy);
    out.y += bilinear(p->bend_y, gx, gy);
    return out;
}

// Lowers the squared distance of the pixels near the piece from a to b.
static void ink_piece(float near[PIXELS], point a, point b, float reach) {
    float dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy;
    float inverse = length2 > 1e-6f ? 1.0f / length2 : 0.0f;
    float left = (dx < 0 ? b.x : a.x) - reach, right = (dx < 0 ? a.x : b.x) + reach;
    float top = (dy < 0 ? b.y : a.y) - reach, bottom = (dy < 0 ? a.y : b.y) + reach;
    int x0 = left > 0.0f ? (int)left : 0, x1 = right < SIDE - 1 ? (int)right + 1 : SIDE - 1;
    int y0 = top > 0.0f ? (int)top : 0, y1 = bottom < SIDE - 1 ? (int)bottom + 1 : SIDE - 1;
    for (int y = y0; y <= y1; y++)
        for (int x = x0; x <= x1; x++) {
            float px = (float)x - a.x, py = (float)y - a.y;
            float t = (px * dx + py * dy) * inverse;
            t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
            float ex = px - t * dx, ey = py - t * dy, d = ex * ex + ey * ey;
            float *cell = &near[y * SIDE + x];
            *cell = d < *cell ? d : *cell;
        }
}

// Catmull and Rom's curve between b and c.
static point curve(point a, point b, point c, point d, float t) {
    float t2 = t * t, t3 = t2 * t;
    float wa = 0.5f * (2.0f * t2 - t3 - t), wb = 0.5f * (3.0f * t3 - 5.0f * t2 + 2.0f);
    float wc = 0.5f * (4.0f * t2 - 3.0f * t3 + t), wd = 0.5f * (t3 - t2);
    return (point){wa * a.x + wb * b.x + wc * c.x + wd * d.x,
                   wa * a.y + wb * b.y + wc * c.y + wd * d.y};
}

static bool same(point a, point b) {
    return a.x == b.x && a.y == b.y;
}

static void ink_stroke(const pose *p, const point *at, int count, float near[PIXELS]) {
    float reach = p->radius + p->soft + 0.5f;
    for (int i = 0; i + 1 < count; i++) {
        if (same(at[i], at[i + 1])) continue; // a corner
        point a = at[i > 0 ? i - 1 : i], d = at[i + 2 < count ? i + 2 : i + 1];
        point from = place(p, at[i]);
        for (int s = 1; s <= SPAN_STEPS; s++) {
            point to = place(p, curve(a, at[i], at[i + 1], d, (float)s / SPAN_STEPS));
            ink_piece(near, from, to, reach);
            from = to;
        }
    }
}

// Walks the path, moving each point a little (both of a corner alike), and draws its strokes.
static void ink_glyph(hand *h, const pose *p, const int8_t *path, float near[PIXELS]) {
    point at[POINTS_MAX];
    int count = 0;
    for (;; path += 2) {
        if (*path == UP || *path == END) {
            ink_stroke(p, at, count, near);
            count = 0;
            if (*path++ == END) return;
        }
        bool corner = count > 0 && path[0] == path[-2] && path[1] == path[-1];
        if (corner) {
            at[count] = at[count - 1];
        } else {
            at[count].x = (float)path[0] + wobble(h, p->tremble);
            at[count].y = (float)path[1] + wobble(h, p->tremble);
        }
        count++;
    }
}

// Ink where the pen came near, and noise everywhere.
static void ink_pixels(hand *h, const pose *p, const float near[PIXELS], uint8_t image[PIXELS]) {
    float edge = p->radius + p->soft, slope = p->ink / (2.0f * p->soft);
    uint32_t bits = 0;
    for (int i = 0; i < PIXELS; i++) {
        bits = i % 4 == 0 ? next_bits(h) : bits >> 8;
        float value = ((float)(bits & 255) - 127.5f) * p->noise;
        if (near[i] < FAR) {
            float ink = (edge - sqrtf(near[i])) * slope;
            value += ink < 0.0f ? 0.0f : ink > p->ink ? p->ink : ink;
        }
        image[i] = (uint8_t)(value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value);
    }
}

static void draw(int sample, uint8_t image[PIXELS], uint8_t *label) {
    hand h = {.counter = (uint64_t)sample << 16};
    float near[PIXELS];
    *label = (uint8_t)next_below(&h, 10);
    int first = 0, variants = 0;
    while (glyphs[first].digit != *label) first++;
    while (first + variants < GLYPHS && glyphs[first + variants].digit == *label) variants++;
    const glyph *g = &glyphs[first + (int)next_below(&h, (uint32_t)variants)];
    pose p = random_pose(&h);
    for (int i = 0; i < PIXELS; i++) near[i] = FAR;
    ink_glyph(&h, &p, g->path, near);
    ink_pixels(&h, &p, near, image);
}

typedef struct job {
    int first, count;
    uint8_t *images, *labels;
} job;

static void draw_share(void *user, int worker, int workers) {
    job *j = user;
    size_t begin, end;
    bt_share((size_t)j->count, 16, worker, workers, &begin, &end);
    for (size_t i = begin; i < end; i++)
        draw(j->first + (int)i, j->images + i * PIXELS, &j->labels[i]);
}

bt_status bt_digits_draw(int first, int count, uint8_t *images, uint8_t *labels, bt_error *err) {
    bt_pool *pool;
    job j = {first, count, images, labels};
    BT_TRY(bt_pool_open(0, err, &pool));
    bt_pool_run(pool, draw_share, &j);
    bt_pool_close(pool);
    return BT_OK;
}
