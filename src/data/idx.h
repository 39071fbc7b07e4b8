// IDX files (LeCun, Cortes and Burges, the MNIST database): a big-endian header and an array.
#ifndef BT_DATA_IDX_H
#define BT_DATA_IDX_H

#include "data/file.h"

enum { BT_IDX_RANK_MAX = 8, BT_IDX_HEADER_MAX = 4 + 4 * BT_IDX_RANK_MAX };

typedef struct bt_idx {
    int type, rank; // type as in the file: 8 is U8
    uint32_t dim[BT_IDX_RANK_MAX];
    uint8_t header[BT_IDX_HEADER_MAX];
    size_t header_bytes;
    uint8_t *data; // to be freed
    size_t bytes;
    bool gzipped;
} bt_idx;

// Every check is made here: type, rank, sizes that multiply to exactly the bytes there are.
// `name` stands for the file in errors.
bt_status bt_idx_parse(bt_bytes file, const char *name, bt_error *err, bt_idx *out) BT_MUST_CHECK;
bt_status bt_idx_read(const char *path, bt_error *err, bt_idx *out) BT_MUST_CHECK;

// Fails unless the array is bytes of [count, height, width] or of [count].
bt_status bt_idx_expect_images(const bt_idx *idx, const char *name, bt_error *err) BT_MUST_CHECK;
bt_status bt_idx_expect_labels(const bt_idx *idx, const char *name, bt_error *err) BT_MUST_CHECK;

const char *bt_idx_type_name(int type); // NULL: no such type
bool bt_is_idx(bt_bytes bytes);         // looks like one, gzipped or not

#endif
