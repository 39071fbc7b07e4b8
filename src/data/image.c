// Pictures for prediction: PNG (libpng), PGM and IDX, fitted to the size that a network takes.
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/owner.h"
#include "data/idx.h"
#include "data/image.h"

enum { SIDE_MAX = 4096 };

typedef struct picture {
    uint8_t *data; // [count, height, width]
    int count, height, width;
} picture;

static bt_status check_size(uint32_t height, uint32_t width, const char *name, bt_error *err) {
    if (height >= 1 && height <= SIDE_MAX && width >= 1 && width <= SIDE_MAX) return BT_OK;
    return bt_fail(err, BT_ERROR_DATA, "'%s' is %u x %u pixels; 1 to %d on a side can be read",
                   name, width, height, SIDE_MAX);
}

// ---- Readers ---------------------------------------------------------------------------------

bool bt_is_png(bt_bytes file) {
    return file.size >= 8 && memcmp(file.data, "\x89PNG\r\n\x1a\n", 8) == 0;
}

bool bt_is_pgm(bt_bytes file) {
    return file.size >= 3 && file.data[0] == 'P' && (file.data[1] == '5' || file.data[1] == '2') &&
           (strchr(" \t\r\n#", file.data[2]) && file.data[2]);
}

static bt_status fail_png(const png_image *image, const char *name, bt_error *err) {
    if (strcasestr(image->message, "memory")) return bt_fail_memory(err, name, 0);
    return bt_fail(err, BT_ERROR_DATA, "'%s' is a damaged PNG: %s", name, image->message);
}

static bt_status read_png(bt_bytes file, const char *name, bt_error *err, picture *out) {
    png_image image = {.version = PNG_IMAGE_VERSION};
    const png_color paper = {255, 255, 255}; // what shows through transparent pixels
    if (!png_image_begin_read_from_memory(&image, file.data, file.size))
        return fail_png(&image, name, err);
    bt_status status = check_size(image.height, image.width, name, err);
    image.format = PNG_FORMAT_GRAY;
    if (status == BT_OK && !(out->data = malloc(PNG_IMAGE_SIZE(image))))
        status = bt_fail_memory(err, name, PNG_IMAGE_SIZE(image));
    if (status == BT_OK && !png_image_finish_read(&image, &paper, out->data, 0, NULL))
        status = fail_png(&image, name, err);
    out->count = 1;
    out->height = (int)image.height;
    out->width = (int)image.width;
    png_image_free(&image);
    return status;
}

// A number of a PGM header or of P2's pixels, after blanks and comments; -1: none, or above 65535.
static int read_number(const bt_bytes *file, size_t *at) {
    while (*at < file->size && strchr(" \t\r\n\v\f#", file->data[*at]) && file->data[*at])
        if (file->data[(*at)++] == '#')
            while (*at < file->size && file->data[*at] != '\n') ++*at;
    int value = -1;
    for (; *at < file->size && file->data[*at] >= '0' && file->data[*at] <= '9'; ++*at) {
        value = (value < 0 ? 0 : value * 10) + (file->data[*at] - '0');
        if (value > 65535) return -1;
    }
    return value;
}

static int pgm_pixel(const bt_bytes *file, size_t *at, bool text, int most) {
    if (text) return read_number(file, at);
    size_t bytes = most > 255 ? 2 : 1;
    if (file->size - *at < bytes) return -1;
    int value = file->data[*at];
    if (bytes == 2) value = value << 8 | file->data[*at + 1];
    *at += bytes;
    return value;
}

static bt_status read_pgm(bt_bytes file, const char *name, bt_error *err, picture *out) {
    size_t at = 2;
    bool text = file.data[1] == '2';
    int width = read_number(&file, &at), height = read_number(&file, &at);
    int most = read_number(&file, &at);
    if (width < 0 || height < 0 || most < 1 || at >= file.size)
        return bt_fail(
            err, BT_ERROR_DATA,
            "'%s' is a damaged PGM: its header is not width, height and a maximum of 1 to "
            "65535",
            name);
    BT_TRY(check_size((uint32_t)height, (uint32_t)width, name, err));
    at += !text; // the one blank before the pixels
    size_t pixels = (size_t)width * (size_t)height;
    if (file.size - at < pixels) // a pixel takes a byte or more
        return bt_fail(err, BT_ERROR_DATA, "'%s' is truncated: %d x %d pixels, %zu bytes for them",
                       name, width, height, file.size - at);
    *out = (picture){malloc(pixels), 1, height, width};
    if (!out->data) return bt_fail_memory(err, name, pixels);
    for (size_t i = 0; i < pixels; i++) {
        int value = pgm_pixel(&file, &at, text, most);
        if (value < 0 || value > most)
            return bt_fail(
                err, BT_ERROR_DATA,
                "'%s' is a damaged PGM: pixel %zu of %zu is missing or above the maximum "
                "of %d",
                name, i, pixels, most);
        out->data[i] = (uint8_t)((value * 255 + most / 2) / most);
    }
    if (!text && at != file.size)
        return bt_fail(err, BT_ERROR_DATA, "'%s' is a damaged PGM: %zu bytes come after its pixels",
                       name, file.size - at);
    return BT_OK;
}

static bt_status read_idx(bt_bytes file, const char *name, bt_error *err, picture *out) {
    bt_idx idx;
    BT_TRY(bt_idx_parse(file, name, err, &idx));
    *out = (picture){idx.data, (int)idx.dim[0], (int)idx.dim[1], (int)idx.dim[2]};
    BT_TRY(bt_idx_expect_images(&idx, name, err));
    return check_size(idx.dim[1], idx.dim[2], name, err);
}

static bt_status read_any(bt_bytes file, const char *name, bt_error *err, picture *out) {
    if (bt_is_png(file)) return read_png(file, name, err, out);
    if (bt_is_pgm(file)) return read_pgm(file, name, err, out);
    if (bt_is_idx(file)) return read_idx(file, name, err, out);
    return bt_fail(err, BT_ERROR_DATA, "'%s' is neither PNG, PGM (P2, P5) nor IDX", name);
}

bt_status bt_image_check(bt_bytes file, const char *name, bt_error *err, int *height, int *width) {
    picture p = {0};
    bt_status status = read_any(file, name, err, &p);
    free(p.data);
    *height = p.height;
    *width = p.width;
    return status;
}

// ---- Scaling ---------------------------------------------------------------------------------

// One line of n numbers to m: each new number is the mean over its share of the line when
// shrinking, and lies between its two neighbours when growing.
static void fit_line(const float *in, size_t in_step, int n, float *out, size_t out_step, int m) {
    float ratio = (float)n / (float)m;
    for (int i = 0; i < m; i++) {
        // A tent of the old pixels' width, or a box of the new ones'.
        float low = (float)i * ratio, high = low + ratio, sum = 0, weights = 0;
        if (m > n) low = (low + high) * 0.5f - 0.5f, high = low + 1.0f;
        int first = low > 0 ? (int)low : 0, last = high < (float)n ? (int)high : n - 1;
        for (int k = first; k <= last; k++) {
            float left = low > (float)k ? low : (float)k;
            float right = high < (float)(k + 1) ? high : (float)(k + 1);
            if (right <= left) continue;
            sum += (right - left) * in[(size_t)k * in_step];
            weights += right - left;
        }
        out[(size_t)i * out_step] = weights > 0 ? sum / weights : 0;
    }
}

static int scaled_side(int side, double scale, int room) {
    int scaled = (int)(side * scale + 0.5);
    return scaled < 1 ? 1 : scaled > room ? room : scaled;
}

// Fits one picture into height x width zeros, centred, its shape kept. `work` has room for
// the picture as floats, for it with fewer columns, and for the result.
static void fit_picture(const uint8_t *in, const picture *p, int height, int width, float *work,
                        uint8_t *out) {
    double scale_y = (double)height / p->height, scale_x = (double)width / p->width;
    double scale = scale_y < scale_x ? scale_y : scale_x;
    int h = scaled_side(p->height, scale, height), w = scaled_side(p->width, scale, width);
    size_t rows = (size_t)p->height, columns = (size_t)p->width, line = (size_t)w;
    float *narrow = work + rows * columns, *small = narrow + rows * (size_t)width;
    for (size_t i = 0; i < rows * columns; i++) work[i] = in[i];
    for (size_t y = 0; y < rows; y++)
        fit_line(work + y * columns, 1, p->width, narrow + y * line, 1, w);
    for (size_t x = 0; x < line; x++) fit_line(narrow + x, line, p->height, small + x, line, h);
    memset(out, 0, (size_t)height * (size_t)width);
    uint8_t *corner = out + (size_t)((height - h) / 2) * (size_t)width + (size_t)((width - w) / 2);
    for (size_t i = 0; i < (size_t)h * line; i++)
        corner[i / line * (size_t)width + i % line] = (uint8_t)(small[i] + 0.5f);
}

static bt_status fit_all(const picture *p, int height, int width, bt_error *err, uint8_t **out) {
    size_t side = (size_t)height * (size_t)width, old = (size_t)p->height * (size_t)p->width, bytes;
    if (!bt_mul_ok(side, (size_t)p->count, &bytes) || bytes > BT_FILE_MAX)
        return bt_fail(err, BT_ERROR_DATA, "%d images of %d x %d are more than %d bytes", p->count,
                       width, height, BT_FILE_MAX);
    float *work = malloc((old + (size_t)p->height * (size_t)width + side) * sizeof *work);
    *out = malloc(bytes);
    if (!work || !*out) {
        free(work);
        free(*out);
        return bt_fail_memory(err, "scaled images", bytes);
    }
    for (int i = 0; i < p->count; i++)
        fit_picture(p->data + (size_t)i * old, p, height, width, work, *out + (size_t)i * side);
    free(work);
    return BT_OK;
}

static bt_status read_and_fit(bt_bytes file, const char *name, int height, int width, bt_error *err,
                              picture *p, bool *scaled) {
    uint8_t *fitted = NULL;
    BT_TRY(read_any(file, name, err, p));
    *scaled = p->height != height || p->width != width;
    if (!*scaled) return BT_OK;
    BT_TRY(fit_all(p, height, width, err, &fitted));
    free(p->data);
    p->data = fitted;
    return BT_OK;
}

bt_status bt_images_read(bt_context *ctx, const char *path, int height, int width, uint8_t **images,
                         int *count, bool *scaled) {
    bt_error *err = bt_error_of(ctx);
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    bt_bytes file;
    picture p = {0};
    *images = NULL;
    *count = 0;
    if (height < 1 || height > SIDE_MAX || width < 1 || width > SIDE_MAX)
        return bt_fail(err, BT_ERROR_USAGE, "images of %d x %d pixels are not possible", width,
                       height);
    if (standard)
        BT_TRY(bt_file_read_open(STDIN_FILENO, name, err, &file));
    else
        BT_TRY(bt_file_read(path, err, &file));
    bt_status status = read_and_fit(file, name, height, width, err, &p, scaled);
    free(file.data);
    if (status != BT_OK) {
        free(p.data);
        return status;
    }
    BT_TRY(bt_own(ctx, p.data, bt_free_block));
    *images = p.data;
    *count = p.count;
    return BT_OK;
}
