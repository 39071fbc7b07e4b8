// See output.h.
#include "data/output.h"

#include "base/checked.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

// The next `size` bytes, or NULL.
static uint8_t *grow(bt_output *b, size_t size) {
    size_t end;
    if (!bt_add_ok(b->size, size, &end) || end > BT_FILE_MAX) b->failed = true;
    if (b->failed) return NULL;
    if (end > b->room) {
        size_t room = end < 256 ? 256 : end + end / 2;
        uint8_t *data = realloc(b->data, room);
        if (!data) {
            b->failed = true;
            return NULL;
        }
        b->data = data;
        b->room = room;
    }
    uint8_t *at = b->data + b->size;
    b->size = end;
    return at;
}

void bt_output_add(bt_output *b, const void *data, size_t size) {
    uint8_t *at = grow(b, size);
    if (at && size) memcpy(at, data, size);
}

void bt_output_little(bt_output *b, uint64_t value, int bytes) {
    uint8_t *at = grow(b, (size_t)bytes);
    for (int i = 0; at && i < bytes; i++) at[i] = (uint8_t)(value >> 8 * i);
}

void bt_output_print(bt_output *b, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof text)
        b->failed = true;
    else
        bt_output_add(b, text, (size_t)n);
}

void bt_output_numbers(bt_output *b, const void *data, size_t count, size_t size) {
    const uint8_t *from = data;
    uint8_t *at = grow(b, count * size);
    if (!at || count == 0) return;
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
        memcpy(at, from, count * size);
        return;
    }
    for (size_t i = 0; i < count * size; i++) at[i] = from[i / size * size + size - 1 - i % size];
}

bt_status bt_output_write(bt_output *b, const char *path, bt_error *err) {
    bt_bytes part = {b->data, b->size};
    bt_status status = b->failed ? bt_fail(err, BT_ERROR_MEMORY,
                                           "'%s' was not written: out of memory, or more than %d "
                                           "bytes",
                                           path, BT_FILE_MAX)
                                 : bt_file_write(path, &part, 1, err);
    bt_output_free(b);
    return status;
}

void bt_output_free(bt_output *b) {
    free(b->data);
    *b = (bt_output){0};
}

// ---- Protocol buffers --------------------------------------------------------------------------

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5, LENGTH_BYTES = 5 };

static void varint(bt_output *b, uint64_t value) {
    for (; value > 127; value >>= 7) bt_output_little(b, (value & 127) | 128, 1);
    bt_output_little(b, value, 1);
}

static void tag(bt_output *b, int field, int kind) {
    varint(b, (uint64_t)field << 3 | (uint64_t)kind);
}

void bt_proto_int(bt_output *b, int field, uint64_t value) {
    tag(b, field, VARINT);
    varint(b, value);
}

void bt_proto_float(bt_output *b, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    tag(b, field, FIXED32);
    bt_output_little(b, bits, 4);
}

void bt_proto_double(bt_output *b, int field, double value) {
    tag(b, field, FIXED64);
    bt_output_numbers(b, &value, 1, sizeof value);
}

void bt_proto_bytes(bt_output *b, int field, const void *data, size_t size) {
    tag(b, field, LENGTH);
    varint(b, size);
    bt_output_add(b, data, size);
}

void bt_proto_text(bt_output *b, int field, const char *text) {
    bt_proto_bytes(b, field, text, strlen(text));
}

// The length is not known yet: its place is filled in at the end, as a varint of five bytes
// whatever its value, which every reader takes.
size_t bt_proto_begin(bt_output *b, int field) {
    tag(b, field, LENGTH);
    grow(b, LENGTH_BYTES);
    return b->size;
}

void bt_proto_end(bt_output *b, size_t begin) {
    if (b->failed) return;
    size_t length = b->size - begin;
    for (int i = 0; i < LENGTH_BYTES; i++)
        b->data[begin - LENGTH_BYTES + (size_t)i] =
            (uint8_t)((length >> 7 * i & 127) | (i < LENGTH_BYTES - 1 ? 128 : 0));
}
