// A growing block of bytes that a file is put together in. The first failure (no memory, or more
// bytes than a file may have) sticks, so that writers need no checks but the one at the end.
#ifndef BT_DATA_OUTPUT_H
#define BT_DATA_OUTPUT_H

#include "data/file.h"

typedef struct bt_output {
    uint8_t *data;
    size_t size, room;
    bool failed;
} bt_output;

void bt_output_add(bt_output *b, const void *data, size_t size);
void bt_output_little(bt_output *b, uint64_t value, int bytes); // little-endian
void bt_output_print(bt_output *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
// `count` numbers of `size` bytes, little-endian.
void bt_output_numbers(bt_output *b, const void *data, size_t count, size_t size);

// Puts it into the file `path` (bt_file_write) and frees it, also after a failure.
bt_status bt_output_write(bt_output *b, const char *path, bt_error *err) BT_MUST_CHECK;
void bt_output_free(bt_output *b);

// ---- Protocol buffers --------------------------------------------------------------------------

// Fields of a message, in the wire format: https://protobuf.dev/programming-guides/encoding
void bt_proto_int(bt_output *b, int field, uint64_t value);
void bt_proto_float(bt_output *b, int field, float value);
void bt_proto_double(bt_output *b, int field, double value);
void bt_proto_bytes(bt_output *b, int field, const void *data, size_t size);
void bt_proto_text(bt_output *b, int field, const char *text);
// What comes between begin and end(what begin gave) is a message inside, or packed numbers.
size_t bt_proto_begin(bt_output *b, int field);
void bt_proto_end(bt_output *b, size_t begin);

#endif
