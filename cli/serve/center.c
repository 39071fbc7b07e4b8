// Cutting out, scaling and centring a drawing; see center.h.
#include "center.h"

#include <math.h>
#include <string.h>

enum { FAINTEST = 16 }; // what is darker counts as ground: the edge of a stroke, noise

typedef struct box {
    int left, top, right, bottom; // the last two are one further
} box;

static bool find_box(const uint8_t *grey, int side, box *b) {
    *b = (box){side, side, 0, 0};
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            if (grey[y * side + x] < FAINTEST) continue;
            if (x < b->left) b->left = x;
            if (x >= b->right) b->right = x + 1;
            if (y < b->top) b->top = y;
            b->bottom = y + 1;
        }
    return b->right > b->left;
}

// The mean of a rectangle of the drawing, whose edges may lie within pixels: so is it
// anti-aliased, whether it shrinks or grows.
static double mean_of(const uint8_t *grey, int side, double left, double top, double right,
                      double bottom) {
    double sum = 0;
    for (int y = (int)top; y < bottom && y < side; y++) {
        double high = fmin(bottom, y + 1) - fmax(top, y);
        for (int x = (int)left; x < right && x < side; x++)
            sum += high * (fmin(right, x + 1) - fmax(left, x)) * grey[y * side + x];
    }
    return sum / ((right - left) * (bottom - top));
}

// Where a line of `length` pixels begins, so that its centre of mass is in the middle of `room` and
// all of it is inside.
static int place(double centre, int length, int room) {
    int start = (int)lround(room / 2.0 - centre);
    if (start > room - length) start = room - length;
    return start < 0 ? 0 : start;
}

// The centre of mass within the box, from its left and from its top.
static void find_centre(const uint8_t *grey, int side, const box *b, double *x_out, double *y_out) {
    double sum = 0, sum_x = 0, sum_y = 0;
    for (int y = b->top; y < b->bottom; y++)
        for (int x = b->left; x < b->right; x++) {
            double v = grey[y * side + x];
            sum += v, sum_x += v * (x + 0.5 - b->left), sum_y += v * (y + 0.5 - b->top);
        }
    *x_out = sum_x / sum, *y_out = sum_y / sum;
}

bool center_drawing(const uint8_t *grey, int side, uint8_t *out, int height, int width) {
    box b;
    double x, y;
    memset(out, 0, (size_t)height * (size_t)width);
    if (!find_box(grey, side, &b)) return false;
    find_centre(grey, side, &b, &x, &y);
    int smaller = height < width ? height : width, wide = b.right - b.left, high = b.bottom - b.top;
    // Of both sides, so that proportions stay.
    double scale = fmax(1, round(smaller * 20 / 28.0)) / (wide > high ? wide : high);
    int w = (int)fmax(1, round(wide * scale)), h = (int)fmax(1, round(high * scale));
    double step_x = (double)wide / w, step_y = (double)high / h;
    int at_x = place(x / step_x, w, width), at_y = place(y / step_y, h, height);
    for (int i = 0; i < h; i++)
        for (int j = 0; j < w; j++) {
            double left = b.left + j * step_x, top = b.top + i * step_y;
            double mean = mean_of(grey, side, left, top, left + step_x, top + step_y);
            out[(i + at_y) * width + j + at_x] = (uint8_t)lround(mean);
        }
    return true;
}
