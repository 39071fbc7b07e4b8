// Grids of small images as PNG in data URIs; see chart.h.
#include "report/chart_draw.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

enum { GAP = 10, CAPTION = 15, LEVELS = 65, LARGEST = 1024 };

static const double SMALL = 11.0 / 12; // letters of captions

// ---- PNG ---------------------------------------------------------------------------------------

static void base64(const uint8_t *bytes, size_t count, FILE *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < count; i += 3) {
        uint32_t group = (uint32_t)bytes[i] << 16;
        if (i + 1 < count) group |= (uint32_t)bytes[i + 1] << 8;
        if (i + 2 < count) group |= bytes[i + 2];
        putc(digits[group >> 18], out);
        putc(digits[group >> 12 & 63], out);
        putc(i + 1 < count ? digits[group >> 6 & 63] : '=', out);
        putc(i + 2 < count ? digits[group & 63] : '=', out);
    }
}

// Blue, white, orange: for the colour-blind the lightness is enough to see how far from 0, and
// these two hues stay apart.
static void palette(uint8_t colours[LEVELS][3]) {
    static const uint8_t ends[2][3] = {{0, 90, 160}, {200, 80, 0}};
    for (int i = 0; i < LEVELS; i++)
        for (int k = 0; k < 3; k++) {
            double t = fabs(2.0 * i / (LEVELS - 1) - 1);
            colours[i][k] = (uint8_t)(255 + t * (ends[i > LEVELS / 2][k] - 255.0) + 0.5);
        }
}

static void indexes(const float *values, size_t count, double full, uint8_t *out) {
    for (size_t i = 0; i < count; i++) {
        double t = full > 0 && isfinite(values[i]) ? fmin(fmax(values[i] / full, -1), 1) : 0;
        out[i] = (uint8_t)lround((t + 1) / 2 * (LEVELS - 1));
    }
}

// pixels: grey, or indexes of the palette.
static void write_png(const uint8_t *pixels, bool coloured, int width, int height, FILE *out) {
    uint8_t colours[LEVELS][3];
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = coloured ? PNG_FORMAT_RGB_COLORMAP : PNG_FORMAT_GRAY,
                       .flags = PNG_IMAGE_FLAG_FAST,
                       .colormap_entries = LEVELS};
    if (coloured) palette(colours);
    png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
    uint8_t *file = malloc(bytes);
    bool good = file && png_image_write_to_memory(&image, file, &bytes, 0, pixels, 0,
                                                  coloured ? colours : NULL);
    if (good)
        fputs("data:image/png;base64,", out), base64(file, bytes, out);
    else
        fputs("data:,", out); // no memory: an empty picture
    free(file);
}

// ---- The grid ----------------------------------------------------------------------------------

typedef struct grid {
    const chart_images *chart;
    int cell, scale, columns, captions;
    double full;
    uint8_t *pixels; // of one image
    FILE *out;
} grid;

static grid grid_measure(const chart_images *c, FILE *out) {
    grid g = {.chart = c, .out = out, .scale = c->scale, .full = c->full};
    size_t count = (size_t)c->width * (size_t)c->height;
    double widest = 0; // of the captions
    if (g.scale <= 0) g.scale = c->width > 84 ? 1 : 84 / c->width < 12 ? 84 / c->width : 12;
    for (int i = 0; i < c->count; i++) {
        const chart_image *image = &c->images[i];
        for (int k = 0; k < 3; k++)
            if (image->caption[k]) {
                widest = fmax(widest, SMALL * chart_text_width(image->caption[k]));
                if (g.captions <= k) g.captions = k + 1;
            }
        for (size_t j = 0; c->full <= 0 && image->values && j < count; j++)
            if (chart_finite(image->values[j])) g.full = fmax(g.full, fabs(image->values[j]));
    }
    g.cell = c->width * g.scale;
    if (g.cell < widest) g.cell = (int)fmin(widest, 132) + 1;
    int fit = (CHART_WIDTH - GAP) / (g.cell + GAP);
    g.columns = c->columns > 0 && c->columns < fit ? c->columns : fit > 0 ? fit : 1;
    return g;
}

static void draw_image(const grid *g, const chart_image *image, double x, double y) {
    const chart_images *c = g->chart;
    size_t count = (size_t)c->width * (size_t)c->height;
    fprintf(g->out, "<g><title>");
    if (image->title) chart_text(image->title, g->out);
    for (int k = 0; k < 3 && !image->title && image->caption[k]; k++)
        fputs(k ? ", " : "", g->out), chart_text(image->caption[k], g->out);
    fprintf(g->out,
            "</title><image x='%.1f' y='%.1f' width='%d' height='%d' preserveAspectRatio='none' "
            "href='",
            x, y, c->width * g->scale, c->height * g->scale);
    if (image->grey)
        write_png(image->grey, false, c->width, c->height, g->out);
    else if (image->values && g->pixels) {
        indexes(image->values, count, g->full, g->pixels);
        write_png(g->pixels, true, c->width, c->height, g->out);
    }
    fprintf(g->out, "'/><rect class='frame' x='%.1f' y='%.1f' width='%d' height='%d'/>", x - 0.5,
            y - 0.5, c->width * g->scale + 1, c->height * g->scale + 1);
    for (int k = 0; k < 3 && image->caption[k]; k++) {
        fprintf(g->out, "<text class='small' x='%.1f' y='%.1f'>", x,
                y + c->height * g->scale + CAPTION * (k + 1) - 2);
        chart_text_fit(image->caption[k], (g->cell + GAP / 2) / SMALL, g->out);
        fputs("</text>", g->out);
    }
    fputs("</g>\n", g->out);
}

// What the colours of values mean.
static void draw_scale(const grid *g, double y) {
    float ramp[LEVELS];
    uint8_t pixels[LEVELS];
    char number[24];
    for (int i = 0; i < LEVELS; i++) ramp[i] = (float)i / (LEVELS - 1) * 2 - 1;
    indexes(ramp, LEVELS, 1, pixels);
    fprintf(g->out,
            "<image x='%d' y='%.1f' width='160' height='10' preserveAspectRatio='none' "
            "href='",
            GAP, y);
    write_png(pixels, true, LEVELS, 1, g->out);
    const char *full = chart_number(g->full, number);
    fprintf(g->out,
            "'/><text class='small' x='%d' y='%.1f'>-%s</text><text class='small middle' x='%d' "
            "y='%.1f'>0</text><text class='small end' x='%d' y='%.1f'>%s</text>\n",
            GAP, y + 23, full, GAP + 80, y + 23, GAP + 160, y + 23, full);
}

void chart_write_images(const chart_images *c, FILE *out) {
    if (c->count <= 0 || c->width <= 0 || c->height <= 0 || c->width > LARGEST ||
        c->height > LARGEST) {
        chart_nothing(&c->head, out);
        return;
    }
    grid g = grid_measure(c, out);
    bool coloured = false;
    for (int i = 0; i < c->count; i++) coloured |= !c->images[i].grey;
    int row = c->height * g.scale + CAPTION * g.captions + GAP;
    int rows = (c->count + g.columns - 1) / g.columns, bottom = CHART_TITLE + rows * row;
    int height = bottom + (coloured ? 30 : 0);
    g.pixels = coloured ? malloc((size_t)c->width * (size_t)c->height) : NULL;
    chart_begin(&c->head, CHART_WIDTH, height, out);
    fprintf(out, "%d images.", c->count);
    chart_body(&c->head, CHART_WIDTH, height, out);
    for (int i = 0; i < c->count; i++)
        draw_image(&g, &c->images[i], GAP + (i % g.columns) * (g.cell + GAP),
                   CHART_TITLE + (i / g.columns) * row);
    if (coloured) draw_scale(&g, bottom);
    chart_end(out);
    free(g.pixels);
}
