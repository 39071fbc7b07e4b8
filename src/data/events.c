// TensorBoard's event files: records of protocol buffers, each with its length and two checksums.
// Format: TensorFlow's record_writer.cc, event.proto, summary.proto and histogram.proto. The file
// is a log: what a crash leaves is whole but for the last record, which readers skip.
#include "base/owner.h"
#include "data/file.h"
#include "data/output.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATH = 4096, BUCKETS = 30, TRIES = 100 };

struct bt_events {
    int fd; // -1: not yet made, or closed
    bool ended;
    uint32_t first_step;
    char folder[PATH / 2], path[PATH];
    bt_output event; // of the record that is being made
};

// ---- Records -----------------------------------------------------------------------------------

// CRC-32C (Castagnoli), which is not zlib's CRC-32, bit by bit: there are kilobytes an epoch.
static uint32_t crc32c(const uint8_t *data, size_t size) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

static uint32_t masked(uint32_t crc) {
    return (crc >> 15 | crc << 17) + 0xa282ead8;
}

static bt_status fail_write(const bt_events *e, bt_error *err, int code) {
    return bt_fail(err, BT_ERROR_MEMORY, "cannot write '%s': %s", *e->path ? e->path : e->folder,
                   strerror(code));
}

// Adds the event that was made to the file, in one write, so that readers see whole records.
static bt_status add_record(bt_events *e, bt_error *err) {
    bt_output record = {0};
    bt_output_little(&record, e->event.size, 8);
    if (!record.failed) bt_output_little(&record, masked(crc32c(record.data, 8)), 4);
    bt_output_add(&record, e->event.data, e->event.size);
    bt_output_little(&record, masked(crc32c(e->event.data, e->event.size)), 4);
    bool made = !record.failed && !e->event.failed;
    errno = ENOMEM;
    bool ok = made && bt_write_all(e->fd, record.data, record.size);
    int code = errno;
    bt_output_free(&record);
    bt_output_free(&e->event);
    return ok ? BT_OK : fail_write(e, err, code);
}

static void begin_event(bt_events *e, uint32_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    bt_output_free(&e->event); // of an event that was given up
    bt_proto_double(&e->event, 1, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    bt_proto_int(&e->event, 2, step);
}

// ---- Opening and closing -----------------------------------------------------------------------

static void free_events(bt_context *ctx, void *object) {
    (void)ctx;
    bt_events *e = object;
    if (e->fd >= 0) close(e->fd);
    bt_output_free(&e->event);
    free(e);
}

// The time is in the name because TensorBoard reads a folder's files in the order of their names.
static bt_status make_file(bt_events *e, bt_error *err) {
    for (int i = 0; i < TRIES && e->fd < 0; i++) {
        snprintf(e->path, PATH, "%s/events.out.tfevents.%010lld.bantam.%ld.%d", e->folder,
                 (long long)time(NULL), (long)getpid(), i);
        e->fd = open(e->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (e->fd < 0 && errno != EEXIST) break;
    }
    if (e->fd < 0) return fail_write(e, err, errno);
    begin_event(e, 0);
    bt_proto_text(&e->event, 3, "brain.Event:2");
    BT_TRY(add_record(e, err));
    begin_event(e, e->first_step); // a session log with the status "start"
    size_t session = bt_proto_begin(&e->event, 7);
    bt_proto_int(&e->event, 1, 1);
    bt_proto_end(&e->event, session);
    return add_record(e, err);
}

bt_status bt_events_open(bt_context *ctx, const char *folder, uint32_t step, bt_events **out) {
    *out = NULL;
    bt_events *e = calloc(1, sizeof *e);
    if (!e) return bt_fail_memory(bt_error_of(ctx), "an event file", sizeof *e);
    e->fd = -1;
    e->first_step = step;
    BT_TRY(bt_own(ctx, e, free_events));
    if (strlen(folder) >= sizeof e->folder) return fail_write(e, bt_error_of(ctx), ENAMETOOLONG);
    memcpy(e->folder, folder, strlen(folder) + 1);
    *out = e;
    return BT_OK;
}

bt_status bt_events_close(bt_context *ctx, bt_events *events) {
    int fd = events ? events->fd : -1;
    if (!events) return BT_OK;
    events->fd = -1;
    events->ended = true;
    return fd < 0 || close(fd) == 0 ? BT_OK : fail_write(events, bt_error_of(ctx), errno);
}

// ---- Summaries ---------------------------------------------------------------------------------

typedef struct summary {
    size_t whole, value;
} summary;

static bt_status begin_summary(bt_context *ctx, bt_events *e, const char *tag, uint32_t step,
                               summary *out) {
    if (e->ended)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE, "the event file '%s' is closed", e->path);
    if (e->fd < 0) BT_TRY(make_file(e, bt_error_of(ctx)));
    begin_event(e, step);
    out->whole = bt_proto_begin(&e->event, 5);
    out->value = bt_proto_begin(&e->event, 1);
    bt_proto_text(&e->event, 1, tag);
    return BT_OK;
}

static bt_status end_summary(bt_context *ctx, bt_events *e, summary s) {
    bt_proto_end(&e->event, s.value);
    bt_proto_end(&e->event, s.whole);
    return add_record(e, bt_error_of(ctx));
}

bt_status bt_events_scalar(bt_context *ctx, bt_events *events, const char *tag, uint32_t step,
                           double value) {
    summary s;
    BT_TRY(begin_summary(ctx, events, tag, step, &s));
    bt_proto_float(&events->event, 2, (float)value);
    return end_summary(ctx, events, s);
}

// Bytes of a PNG, to be freed; NULL: no memory.
static uint8_t *encode(const uint8_t *pixels, int channels, int height, int width, size_t *size) {
    size_t area = (size_t)height * (size_t)width;
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY};
    uint8_t *mixed = malloc(area * (size_t)channels), *out = NULL;
    for (size_t i = 0; mixed && i < area * (size_t)channels; i++)
        mixed[i] = pixels[i % (size_t)channels * area + i / (size_t)channels];
    png_alloc_size_t bytes = mixed ? PNG_IMAGE_PNG_SIZE_MAX(image) : 0;
    if (bytes) out = malloc(bytes);
    if (out && !png_image_write_to_memory(&image, out, &bytes, 0, mixed, 0, NULL)) {
        free(out);
        out = NULL;
    }
    free(mixed);
    *size = bytes;
    return out;
}

bt_status bt_events_image(bt_context *ctx, bt_events *events, const char *tag, uint32_t step,
                          const uint8_t *pixels, int channels, int height, int width) {
    bt_error *err = bt_error_of(ctx);
    if ((channels != 1 && channels != 3) || height < 1 || width < 1 || height > 65536 ||
        width > 65536)
        return bt_fail(err, BT_ERROR_USAGE,
                       "an image of %d channels and %d x %d is not possible; there are 1 or 3 "
                       "channels, and sides of 1 to 65536",
                       channels, height, width);
    size_t size;
    uint8_t *png = encode(pixels, channels, height, width, &size);
    if (!png) return bt_fail_memory(err, "an image", (size_t)height * (size_t)width);
    summary s;
    bt_status status = begin_summary(ctx, events, tag, step, &s);
    if (status == BT_OK) {
        size_t image = bt_proto_begin(&events->event, 4);
        bt_proto_int(&events->event, 1, (uint64_t)height);
        bt_proto_int(&events->event, 2, (uint64_t)width);
        bt_proto_int(&events->event, 3, (uint64_t)channels); // 1 is grey, 3 RGB
        bt_proto_bytes(&events->event, 4, png, size);
        bt_proto_end(&events->event, image);
        status = end_summary(ctx, events, s);
    }
    free(png);
    return status;
}

typedef struct histogram {
    double least, most, count, sum, squares, bucket[BUCKETS];
} histogram;

// Buckets of equal width between the least and the greatest finite value.
static histogram count_values(const double *values, size_t count) {
    histogram h = {.least = INFINITY, .most = -INFINITY};
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) continue;
        h.least = fmin(h.least, values[i]);
        h.most = fmax(h.most, values[i]);
        h.count++;
        h.sum += values[i];
        h.squares += values[i] * values[i];
    }
    if (h.count == 0) h.least = h.most = 0;
    // Halves, because the whole width may be infinite; a quotient of at most 1, because a factor
    // would be infinite for a width near 0.
    double width = h.most / 2 - h.least / 2;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) continue;
        int k = width > 0 ? (int)((values[i] / 2 - h.least / 2) / width * BUCKETS) : 0;
        h.bucket[k < BUCKETS ? k : BUCKETS - 1]++;
    }
    return h;
}

static void put_packed(bt_output *b, int field, const double *values, int count) {
    size_t packed = bt_proto_begin(b, field);
    bt_output_numbers(b, values, (size_t)count, sizeof *values);
    bt_proto_end(b, packed);
}

static bt_status add_histogram(bt_context *ctx, bt_events *e, const char *tag, uint32_t step,
                               const double *values, size_t count) {
    histogram h = count_values(values, count);
    double limits[BUCKETS];
    for (int i = 0; i < BUCKETS; i++)
        limits[i] = h.least / BUCKETS * (BUCKETS - 1 - i) + h.most / BUCKETS * (i + 1);
    limits[BUCKETS - 1] = h.most; // not a rounding error less
    summary s;
    BT_TRY(begin_summary(ctx, e, tag, step, &s));
    size_t histo = bt_proto_begin(&e->event, 5);
    bt_proto_double(&e->event, 1, h.least);
    bt_proto_double(&e->event, 2, h.most);
    bt_proto_double(&e->event, 3, h.count);
    bt_proto_double(&e->event, 4, h.sum);
    bt_proto_double(&e->event, 5, h.squares);
    put_packed(&e->event, 6, limits, BUCKETS);
    put_packed(&e->event, 7, h.bucket, BUCKETS);
    bt_proto_end(&e->event, histo);
    return end_summary(ctx, e, s);
}

bt_status bt_events_histogram(bt_context *ctx, bt_events *events, const char *tag, uint32_t step,
                              bt_tensor values) {
    size_t count = bt_shape_count(bt_tensor_shape(ctx, values));
    bt_dtype dtype = bt_tensor_dtype(ctx, values);
    size_t size = bt_dtype_size(dtype);
    bt_error *err = bt_error_of(ctx);
    if (dtype != BT_F32 && dtype != BT_F64)
        return bt_fail(err, BT_ERROR_USAGE, "a histogram is of F32 or F64, not of %s",
                       bt_dtype_name(dtype));
    double *wide = malloc((count + 1) * sizeof *wide);
    if (!wide) return bt_fail_memory(err, "a histogram", count * sizeof *wide);
    // Read to the end of the room and widened from its beginning, so that nothing is overwritten
    // before it is read.
    uint8_t *raw = (uint8_t *)wide + count * (sizeof *wide - size);
    bt_status status = bt_read(ctx, values, raw, count * size);
    for (size_t i = 0; i < count && size == sizeof(float); i++) {
        float value;
        memcpy(&value, raw + i * size, sizeof value);
        wide[i] = (double)value;
    }
    if (status == BT_OK) status = add_histogram(ctx, events, tag, step, wide, count);
    free(wide);
    return status;
}
