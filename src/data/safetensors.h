// safetensors files: the one container for checkpoints and weights. The reader is stricter than
// the reference (docs/formats.md lists how); the writer survives a crash at any moment.
#ifndef BT_DATA_SAFETENSORS_H
#define BT_DATA_SAFETENSORS_H

#include "data/file.h"

typedef struct bt_st_tensor {
    const char *name;
    bt_dtype dtype; // F32, F64, I32 and U8 are kept; F16 and BF16 are widened to F32, I64 and
                    // I8/I16/BOOL are refused by name when read
    int rank;       // 0 .. 8
    size_t dim[8];
    const void *data; // host byte order, aligned to 8
    size_t bytes;
    const char *stored; // dtype in the file, "BF16"; not used when writing
} bt_st_tensor;

typedef struct bt_st_pair {
    const char *key, *value;
} bt_st_pair;

typedef struct bt_st_file {
    bt_st_tensor *tensors; // in the order of the data section
    int tensor_count;
    bt_st_pair *metadata; // in the order of the file
    int metadata_count;
    size_t file_bytes, header_bytes;
    void *memory[4]; // owned; the last is a JSON value, or NULL
} bt_st_file;

// Reads and checks a whole file. Free with bt_st_close, also after a failure. When the metadata has
// "sha256" (as bt_st_write puts it there: hex, of the file with zeros in its place) it is verified.
bt_status bt_st_open(const char *path, bt_error *err, bt_st_file *out) BT_MUST_CHECK;
// Of a file that was read; frees file.data. `path` stands for it in errors.
bt_status bt_st_take(const char *path, bt_bytes file, bt_error *err, bt_st_file *out) BT_MUST_CHECK;
void bt_st_close(bt_st_file *file);

const bt_st_tensor *bt_st_find(const bt_st_file *file, const char *name); // NULL: none
const char *bt_st_metadata(const bt_st_file *file, const char *key);      // NULL: none

// The bits of a 16-bit float as those of a 32-bit one.
uint32_t bt_widen_f16(uint16_t half);

// Writes to a temporary file in the same folder, fsync, rename, fsync of the folder; the old file
// stays whole until the new one is. Tensors are sorted as the reference does (docs/formats.md);
// adds "sha256" of the whole file to the metadata.
bt_status bt_st_write(const char *path, const bt_st_tensor *tensors, int tensor_count,
                      const bt_st_pair *metadata, int metadata_count, bt_error *err) BT_MUST_CHECK;

#endif
