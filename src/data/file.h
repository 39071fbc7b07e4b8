// Whole files in and out of memory: reading with a limit, unpacking gzip with a limit, hashing, and
// writing that survives a crash at any moment.
#ifndef BT_DATA_FILE_H
#define BT_DATA_FILE_H

#include "base/status.h"

#include <zlib.h>

typedef struct bt_bytes {
    uint8_t *data;
    size_t size;
} bt_bytes;

// No file that Bantam reads is larger: tensors have fewer than 2^31 elements.
enum { BT_FILE_MAX = 0x7fffffff };

// Reads a whole file of at most BT_FILE_MAX bytes; out->data is to be freed. The second takes an
// open descriptor, for standard input; `name` stands for it in errors.
bt_status bt_file_read(const char *path, bt_error *err, bt_bytes *out) BT_MUST_CHECK;
bt_status bt_file_read_open(int fd, const char *name, bt_error *err, bt_bytes *out) BT_MUST_CHECK;

// Replaces `path` by the parts one after the other. A crash, a full disk or a failure at any moment
// leaves the old file or the new one, never a mixture; failures name the file.
bt_status bt_file_write(const char *path, const bt_bytes *parts, int count,
                        bt_error *err) BT_MUST_CHECK;

// All of the bytes, whatever interrupts; false: errno says why not.
bool bt_write_all(int fd, const uint8_t *data, size_t size);

bool bt_folder_exists(const char *path);
// Makes a folder and those above it.
bt_status bt_folder_make(const char *path, bt_error *err) BT_MUST_CHECK;

// Hex of the SHA-256 of the parts one after the other.
void bt_sha256(const bt_bytes *parts, int count, char hex[65]);

// Bytes that may be gzipped (told by content), taken piece by piece, so that the reader can look at
// a header before it makes room for the rest.
typedef struct bt_unpacker {
    z_stream z;
    bool gzipped, ended;
} bt_unpacker;

bool bt_is_gzip(bt_bytes bytes);
bt_status bt_unpack_open(bt_unpacker *in, bt_bytes bytes, bt_error *err) BT_MUST_CHECK;
// Returns how many bytes were there, fewer than `size` at the end and where the data is damaged.
size_t bt_unpack(bt_unpacker *in, void *out, size_t size);
// Whether everything was taken, and the checksum of gzip is right.
bool bt_unpack_finished(bt_unpacker *in);
// At most how many bytes can still come.
size_t bt_unpack_bound(const bt_unpacker *in);
void bt_unpack_close(bt_unpacker *in);

#endif
