// See idx.h.
#include "data/idx.h"

#include <stdlib.h>

#include "base/checked.h"

typedef struct idx_type {
    int code;
    size_t bytes;
    const char *name;
} idx_type;

static const idx_type types[] = {{0x08, 1, "u8"},  {0x09, 1, "i8"},  {0x0B, 2, "i16"},
                                 {0x0C, 4, "i32"}, {0x0D, 4, "f32"}, {0x0E, 8, "f64"}};

static const idx_type *find_type(int code) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].code == code) return &types[i];
    return NULL;
}

const char *bt_idx_type_name(int type) {
    const idx_type *t = find_type(type);
    return t ? t->name : NULL;
}

static uint32_t big32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bt_status read_magic(bt_unpacker *in, const char *name, bt_error *err, bt_idx *out) {
    const uint8_t *h = out->header;
    size_t n = bt_unpack(in, out->header, 4);
    if (n < 4)
        return bt_fail(err, BT_ERROR_DATA, "'%s' is too short for IDX: %zu of 4 magic bytes%s",
                       name, n, in->gzipped ? " after unpacking" : "");
    if (h[0] != 0 || h[1] != 0 || !find_type(h[2]))
        return bt_fail(err, BT_ERROR_DATA,
                       "'%s' is not an IDX file: its first bytes are %02x %02x %02x %02x, not "
                       "00 00 TYPE RANK",
                       name, h[0], h[1], h[2], h[3]);
    if (h[3] < 1 || h[3] > BT_IDX_RANK_MAX)
        return bt_fail(err, BT_ERROR_DATA, "'%s' has %d dimensions; IDX files have 1 to %d", name,
                       h[3], BT_IDX_RANK_MAX);
    out->type = h[2];
    out->rank = h[3];
    return BT_OK;
}

static bt_status read_shape(bt_unpacker *in, const char *name, bt_error *err, bt_idx *out) {
    size_t want = 4 * (size_t)out->rank;
    if (bt_unpack(in, out->header + 4, want) < want)
        return bt_fail(err, BT_ERROR_DATA, "'%s' ends inside its header of %zu bytes", name,
                       4 + want);
    out->header_bytes = 4 + want;
    out->bytes = find_type(out->type)->bytes;
    for (int i = 0; i < out->rank; i++) {
        out->dim[i] = big32(out->header + 4 + 4 * i);
        if (!bt_mul_ok(out->bytes, out->dim[i], &out->bytes) || out->bytes > BT_FILE_MAX)
            return bt_fail(err, BT_ERROR_DATA,
                           "'%s' declares more than %d bytes (dimension %d is %u); its header is "
                           "damaged",
                           name, BT_FILE_MAX, i, out->dim[i]);
    }
    return BT_OK;
}

static bt_status read_array(bt_unpacker *in, const char *name, bt_error *err, bt_idx *out) {
    size_t most = bt_unpack_bound(in);
    if (out->bytes > most) // so that a small file cannot make us allocate much
        return bt_fail(err, BT_ERROR_DATA,
                       "'%s' is truncated: its header declares %zu bytes of data, at most %zu are "
                       "there",
                       name, out->bytes, most);
    out->data = malloc(out->bytes ? out->bytes : 1);
    if (!out->data) return bt_fail_memory(err, name, out->bytes);
    size_t n = bt_unpack(in, out->data, out->bytes);
    if (n < out->bytes)
        return bt_fail(err, BT_ERROR_DATA,
                       "'%s' is truncated or damaged: its header declares %zu bytes of data, %zu "
                       "could be %s",
                       name, out->bytes, n, in->gzipped ? "unpacked" : "read");
    if (!bt_unpack_finished(in))
        return bt_fail(
            err, BT_ERROR_DATA,
            "'%s' is damaged: %s after the %zu bytes of data that its header declares", name,
            in->gzipped ? "more data or a wrong checksum comes" : "more bytes come", out->bytes);
    return BT_OK;
}

static bt_status parse(bt_unpacker *in, const char *name, bt_error *err, bt_idx *out) {
    BT_TRY(read_magic(in, name, err, out));
    BT_TRY(read_shape(in, name, err, out));
    return read_array(in, name, err, out);
}

bt_status bt_idx_parse(bt_bytes file, const char *name, bt_error *err, bt_idx *out) {
    *out = (bt_idx){0};
    bt_unpacker in;
    BT_TRY(bt_unpack_open(&in, file, err));
    out->gzipped = in.gzipped;
    bt_status status = parse(&in, name, err, out);
    bt_unpack_close(&in);
    if (status != BT_OK) {
        free(out->data);
        out->data = NULL;
    }
    return status;
}

bt_status bt_idx_read(const char *path, bt_error *err, bt_idx *out) {
    bt_bytes file;
    *out = (bt_idx){0};
    BT_TRY(bt_file_read(path, err, &file));
    bt_status status = bt_idx_parse(file, path, err, out);
    free(file.data);
    return status;
}

bt_status bt_idx_expect_images(const bt_idx *idx, const char *name, bt_error *err) {
    if (idx->rank == 1 && idx->type == 8)
        return bt_fail(err, BT_ERROR_DATA,
                       "'%s' holds labels (one dimension), but images (three) were expected; are "
                       "the two files swapped?",
                       name);
    if (idx->rank != 3 || idx->type != 8)
        return bt_fail(
            err, BT_ERROR_DATA,
            "'%s' holds %s with %d dimensions; images are u8 with 3: count, height, width", name,
            bt_idx_type_name(idx->type), idx->rank);
    if (idx->dim[0] == 0 || idx->dim[1] == 0 || idx->dim[2] == 0)
        return bt_fail(err, BT_ERROR_DATA, "'%s' holds no images: its shape is %u x %u x %u", name,
                       idx->dim[0], idx->dim[1], idx->dim[2]);
    return BT_OK;
}

bt_status bt_idx_expect_labels(const bt_idx *idx, const char *name, bt_error *err) {
    if (idx->rank == 3 && idx->type == 8)
        return bt_fail(err, BT_ERROR_DATA,
                       "'%s' holds images (three dimensions), but labels (one) were expected; are "
                       "the two files swapped?",
                       name);
    if (idx->rank != 1 || idx->type != 8)
        return bt_fail(err, BT_ERROR_DATA,
                       "'%s' holds %s with %d dimensions; labels are u8 with 1: count", name,
                       bt_idx_type_name(idx->type), idx->rank);
    return BT_OK;
}

bool bt_is_idx(bt_bytes bytes) {
    bt_error ignored = {0};
    bt_unpacker in;
    uint8_t magic[4];
    if (bt_unpack_open(&in, bytes, &ignored) != BT_OK) return false;
    size_t n = bt_unpack(&in, magic, 4);
    bt_unpack_close(&in);
    return n == 4 && magic[0] == 0 && magic[1] == 0 && find_type(magic[2]) && magic[3] >= 1 &&
           magic[3] <= BT_IDX_RANK_MAX;
}
