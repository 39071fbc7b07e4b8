// See safetensors.h. The JSON is jansson's business; what is checked here is everything that the
// reference checks and the stricter rules of docs/formats.md. A scan bounds the depth and the
// number of values before jansson sees the header, because a parsed value takes more memory than
// its text.
#include "data/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "data/file.h"

enum {
    HEADER_MAX = 100000000, // as the reference
    TENSORS_MAX = 65536,
    VALUES_MAX = 1 << 20, // in the header
    DEPTH_MAX = 3,
    RANK_MAX = 8,
    NAME_MAX_BYTES = 512,
    HASH_BYTES = 64
};

typedef struct st_dtype {
    const char *name;
    size_t bytes; // in the file
    bt_dtype dtype;
    bool readable;
    int order; // when writing: the reference's, by alignment
} st_dtype;

static const st_dtype dtypes[] = {
    {"F32", 4, BT_F32, true, 2},  {"F64", 8, BT_F64, true, 3}, {"I32", 4, BT_I32, true, 1},
    {"U8", 1, BT_U8, true, 0},    {"F16", 2, BT_F32, true, 0}, {"BF16", 2, BT_F32, true, 0},
    {"BOOL", 1, BT_U8, false, 0}, {"I8", 1, BT_U8, false, 0},  {"I16", 2, BT_U8, false, 0},
    {"I64", 8, BT_U8, false, 0},
};

// A tensor as the header has it.
typedef struct st_entry {
    const char *name;
    const st_dtype *type;
    int rank;
    size_t dim[RANK_MAX], begin, end;
} st_entry;

typedef struct st_reader {
    const char *path;
    bt_error *err;
    bt_bytes file;
    size_t header; // bytes of it
    json_t *root;
    st_entry *entries;
    int count;
    json_t *metadata; // NULL: none
} st_reader;

#define FAIL(r, ...) bt_fail((r)->err, BT_ERROR_DATA, __VA_ARGS__)

// ---- The header ------------------------------------------------------------------------------

static bt_status check_lengths(st_reader *r) {
    if (r->file.size < 8)
        return FAIL(r,
                    "'%s' is not a safetensors file: it has %zu bytes, the header length alone "
                    "takes 8",
                    r->path, r->file.size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | r->file.data[i];
    if (n > HEADER_MAX)
        return FAIL(r,
                    "'%s' is not a safetensors file: its header would have %llu bytes, the limit "
                    "is %d",
                    r->path, (unsigned long long)n, HEADER_MAX);
    if (n > r->file.size - 8)
        return FAIL(r, "'%s' is truncated: its header has %llu bytes, %zu are there", r->path,
                    (unsigned long long)n, r->file.size - 8);
    if (n < 2 || r->file.data[8] != '{')
        return FAIL(r, "'%s' is not a safetensors file: its header does not begin with '{'",
                    r->path);
    r->header = (size_t)n;
    return BT_OK;
}

// The header may hold objects, arrays, strings and plain digits: no sign, fraction, exponent, true
// or null. Strings are left to the JSON parser.
static bt_status scan(st_reader *r) {
    const uint8_t *text = r->file.data + 8;
    int depth = 0, values = 0;
    bool quoted = false;
    for (size_t i = 0; i < r->header; i++) {
        uint8_t c = text[i];
        if (quoted) {
            if (c == '\\') i++;
            quoted = c != '"';
        } else if (c == '"')
            quoted = true;
        else if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']')
            depth--;
        else if (c == ',' || c == ':')
            values++;
        else if (!(c >= '0' && c <= '9') && c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return FAIL(r,
                        "'%s': byte %zu of the header, 0x%02x, belongs to no object, array, "
                        "string or plain number",
                        r->path, i, c);
        if (depth > DEPTH_MAX || values > VALUES_MAX)
            return FAIL(r, "'%s': the header is nested deeper than %d or has more than %d values",
                        r->path, DEPTH_MAX, VALUES_MAX);
    }
    return BT_OK;
}

static bt_status parse_json(st_reader *r) {
    BT_TRY(check_lengths(r));
    BT_TRY(scan(r));
    json_error_t e;
    r->root = json_loadb((const char *)r->file.data + 8, r->header, JSON_REJECT_DUPLICATES, &e);
    if (r->root) return BT_OK;
    // jansson leaves the error unnamed when memory runs out in most places.
    if (json_error_code(&e) == json_error_out_of_memory || !e.text[0])
        return bt_fail_memory(r->err, "a safetensors header", r->header);
    return FAIL(r, "'%.200s': the header is not valid JSON at byte %d: %s", r->path, e.position,
                e.text);
}

static bool read_size(const json_t *value, size_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (size_t)json_integer_value(value);
    return true;
}

static bt_status read_shape(st_reader *r, st_entry *entry, const json_t *shape) {
    if (!json_is_array(shape) || json_array_size(shape) > RANK_MAX)
        return FAIL(r, "'%.200s': the shape of '%.100s' is not a list of at most %d numbers",
                    r->path, entry->name, RANK_MAX);
    entry->rank = (int)json_array_size(shape);
    size_t bytes = 1;
    for (int i = 0; i < entry->rank; i++) {
        if (!read_size(json_array_get(shape, (size_t)i), &entry->dim[i]))
            return FAIL(r, "'%.200s': the shape of '%.100s' has something that is no number",
                        r->path, entry->name);
        if (!bt_mul_ok(bytes, entry->dim[i], &bytes))
            return FAIL(r, "'%.200s': the shape of '%.100s' overflows", r->path, entry->name);
    }
    if (!bt_mul_ok(bytes, entry->type->bytes, &bytes))
        return FAIL(r, "'%.200s': the shape of '%.100s' overflows", r->path, entry->name);
    if (entry->end < entry->begin || entry->end - entry->begin != bytes)
        return FAIL(r,
                    "'%.200s': '%.100s' needs %zu bytes by its shape and dtype, its data_offsets "
                    "are %zu to %zu",
                    r->path, entry->name, bytes, entry->begin, entry->end);
    return BT_OK;
}

static bt_status read_dtype(st_reader *r, st_entry *entry, const json_t *dtype) {
    const char *name = json_string_value(dtype);
    if (!name) return FAIL(r, "'%.200s': '%.100s' has no dtype", r->path, entry->name);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, name) == 0) entry->type = &dtypes[i];
    if (!entry->type || !entry->type->readable)
        return FAIL(r,
                    "'%.200s': '%.100s' has dtype %.20s; F32, F64, F16, BF16, I32 and U8 can be "
                    "read",
                    r->path, entry->name, name);
    return BT_OK;
}

static bt_status read_entry(st_reader *r, st_entry *entry, const char *name, const json_t *value) {
    const json_t *offsets = json_object_get(value, "data_offsets");
    const json_t *shape = json_object_get(value, "shape");
    entry->name = name;
    if (strlen(name) > NAME_MAX_BYTES)
        return FAIL(r, "'%.200s': a tensor name has %zu bytes; the limit is %d", r->path,
                    strlen(name), NAME_MAX_BYTES);
    if (json_object_size(value) != 3 || !offsets || !shape)
        return FAIL(r, "'%.200s': '%.100s' is not described by dtype, shape and data_offsets alone",
                    r->path, name);
    BT_TRY(read_dtype(r, entry, json_object_get(value, "dtype")));
    if (json_array_size(offsets) != 2 || !read_size(json_array_get(offsets, 0), &entry->begin) ||
        !read_size(json_array_get(offsets, 1), &entry->end))
        return FAIL(r, "'%.200s': the data_offsets of '%.100s' are not two numbers", r->path, name);
    return read_shape(r, entry, shape);
}

static int by_offset(const void *a, const void *b) {
    const st_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

// The data section is covered by the tensors without a hole, an overlap or a rest.
static bt_status check_cover(st_reader *r) {
    size_t at = 0, section = r->file.size - 8 - r->header;
    if (r->count > 0) qsort(r->entries, (size_t)r->count, sizeof *r->entries, by_offset);
    for (int i = 0; i < r->count; i++) {
        const st_entry *entry = &r->entries[i];
        if (entry->begin != at)
            return FAIL(r,
                        "'%.200s': '%.100s' begins at byte %zu of the data, the tensor before it "
                        "ends at %zu",
                        r->path, entry->name, entry->begin, at);
        at = entry->end;
    }
    if (at != section)
        return FAIL(r,
                    "'%.200s' is truncated or has something appended: its tensors take %zu bytes, "
                    "%zu are there",
                    r->path, at, section);
    return BT_OK;
}

static bt_status check_metadata(st_reader *r) {
    const char *key;
    json_t *value;
    if (!json_is_object(r->metadata))
        return FAIL(r, "'%s': __metadata__ is not an object", r->path);
    json_object_foreach(r->metadata, key, value) {
        if (!json_is_string(value))
            return FAIL(r, "'%.200s': the metadata '%.100s' is not a string", r->path, key);
    }
    return BT_OK;
}

static bt_status read_header(st_reader *r) {
    const char *key;
    json_t *value;
    BT_TRY(parse_json(r));
    size_t most = json_object_size(r->root);
    if (most > TENSORS_MAX + 1)
        return FAIL(r, "'%s' has %zu tensors; the limit is %d", r->path, most, TENSORS_MAX);
    r->entries = calloc(most ? most : 1, sizeof *r->entries);
    if (!r->entries)
        return bt_fail_memory(r->err, "a safetensors header", most * sizeof *r->entries);
    json_object_foreach(r->root, key, value) {
        if (strcmp(key, "__metadata__") == 0)
            r->metadata = value;
        else
            BT_TRY(read_entry(r, &r->entries[r->count++], key, value));
    }
    if (r->metadata) BT_TRY(check_metadata(r));
    return check_cover(r);
}

// ---- The data --------------------------------------------------------------------------------

static void copy_little(void *out, const void *in, size_t count, size_t size) {
    const uint8_t *from = in;
    uint8_t *to = out;
    if (count == 0) return;
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
        memcpy(out, in, count * size);
        return;
    }
    for (size_t i = 0; i < count * size; i++) to[i] = from[i / size * size + size - 1 - i % size];
}

uint32_t bt_widen_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return sign | 0x7f800000u | fraction << 13;
    if (exponent == 0 && fraction == 0) return sign;
    if (exponent == 0) { // subnormal: shift its highest bit up to the implied one
        for (exponent = 1; !(fraction & 1024); exponent--) fraction <<= 1;
        fraction &= 1023;
    }
    return sign | (exponent + 112) << 23 | fraction << 13;
}

static void widen(const st_dtype *type, uint8_t *out, const uint8_t *in, size_t count) {
    bool brain = type->name[0] == 'B';
    for (size_t i = 0; i < count; i++) {
        uint16_t half = (uint16_t)(in[2 * i] | in[2 * i + 1] << 8);
        uint32_t bits = brain ? (uint32_t)half << 16 : bt_widen_f16(half);
        memcpy(out + 4 * i, &bits, 4);
    }
}

// Bytes in memory: 16-bit numbers become 32-bit ones.
static size_t loaded_bytes(const st_entry *entry) {
    return (entry->end - entry->begin) * (entry->type->bytes == 2 ? 2 : 1);
}

static size_t room_for(const st_entry *entry) {
    return (loaded_bytes(entry) + 7) & ~(size_t)7; // no overflow: the bytes are in a small file
}

// Copies the values out of the file: they may stand at odd addresses there.
static bt_status copy_tensors(st_reader *r, bt_st_file *out) {
    const uint8_t *section = r->file.data + 8 + r->header;
    size_t room = 8;
    for (int i = 0; i < r->count; i++) room += room_for(&r->entries[i]);
    uint8_t *at = out->memory[0] = malloc(room);
    out->tensors = out->memory[1] = calloc((size_t)r->count + 1, sizeof *out->tensors);
    if (!at || !out->tensors) return bt_fail_memory(r->err, r->path, room);
    for (int i = 0; i < r->count; i++) {
        const st_entry *entry = &r->entries[i];
        size_t count = (entry->end - entry->begin) / entry->type->bytes;
        bt_st_tensor *tensor = &out->tensors[out->tensor_count++];
        *tensor = (bt_st_tensor){.name = entry->name,
                                 .dtype = entry->type->dtype,
                                 .rank = entry->rank,
                                 .data = at,
                                 .stored = entry->type->name,
                                 .bytes = loaded_bytes(entry)};
        memcpy(tensor->dim, entry->dim, sizeof tensor->dim);
        if (entry->type->bytes == 2)
            widen(entry->type, at, section + entry->begin, count);
        else
            copy_little(at, section + entry->begin, count, entry->type->bytes);
        at += room_for(entry);
    }
    return BT_OK;
}

static bt_status copy_metadata(st_reader *r, bt_st_file *out) {
    const char *key;
    json_t *value;
    size_t count = json_object_size(r->metadata);
    out->metadata = out->memory[2] = calloc(count + 1, sizeof *out->metadata);
    if (!out->metadata) return bt_fail_memory(r->err, r->path, count * sizeof *out->metadata);
    json_object_foreach(r->metadata, key, value) {
        out->metadata[out->metadata_count++] = (bt_st_pair){key, json_string_value(value)};
    }
    return BT_OK;
}

// Where the 64 digits of `hash` stand in a header as this writer makes it; NULL: nowhere.
static uint8_t *find_hash(const bt_bytes *header, const char *hash) {
    char text[HASH_BYTES + 16];
    int length = snprintf(text, sizeof text, "\"sha256\":\"%.64s\"", hash);
    uint8_t *at = memmem(header->data, header->size, text, (size_t)length);
    return at ? at + 10 : NULL;
}

// The hash is of the whole file with zeros in the place of the hash itself, so that metadata, names
// and shapes are covered as the numbers are.
static bt_status check_hash(st_reader *r, const bt_st_file *file) {
    const char *want = bt_st_metadata(file, "sha256");
    char have[HASH_BYTES + 1];
    if (!want) return BT_OK;
    bt_bytes header = {r->file.data, 8 + r->header};
    uint8_t *digits = strlen(want) == HASH_BYTES ? find_hash(&header, want) : NULL;
    if (!digits) return FAIL(r, "'%.200s' is damaged: its metadata's sha256 is no hash", r->path);
    memset(digits, '0', HASH_BYTES);
    bt_sha256(&r->file, 1, have);
    if (strcmp(want, have) == 0) return BT_OK;
    return FAIL(r, "'%.200s' is damaged: its SHA-256 is %s, its metadata says %.64s", r->path, have,
                want);
}

static bt_status read_file(st_reader *r, bt_st_file *out) {
    BT_TRY(read_header(r));
    out->memory[3] = r->root; // the names and metadata are its strings
    out->file_bytes = r->file.size;
    out->header_bytes = r->header;
    BT_TRY(copy_metadata(r, out));
    BT_TRY(check_hash(r, out));
    return copy_tensors(r, out);
}

bt_status bt_st_open(const char *path, bt_error *err, bt_st_file *out) {
    bt_bytes file;
    *out = (bt_st_file){0};
    BT_TRY(bt_file_read(path, err, &file));
    return bt_st_take(path, file, err, out);
}

bt_status bt_st_take(const char *path, bt_bytes file, bt_error *err, bt_st_file *out) {
    st_reader r = {.path = path, .err = err, .file = file};
    *out = (bt_st_file){0};
    bt_status status = read_file(&r, out);
    if (!out->memory[3]) json_decref(r.root);
    free(r.entries);
    free(r.file.data);
    return status;
}

void bt_st_close(bt_st_file *file) {
    for (int i = 0; i < 3; i++) free(file->memory[i]);
    json_decref(file->memory[3]);
    *file = (bt_st_file){0};
}

const bt_st_tensor *bt_st_find(const bt_st_file *file, const char *name) {
    for (int i = 0; i < file->tensor_count; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

const char *bt_st_metadata(const bt_st_file *file, const char *key) {
    for (int i = 0; i < file->metadata_count; i++)
        if (strcmp(file->metadata[i].key, key) == 0) return file->metadata[i].value;
    return NULL;
}

// ---- Writing ---------------------------------------------------------------------------------

// The first rows of `dtypes` are the dtypes of bt_dtype, in its order.
static int by_writing_order(const void *a, const void *b) {
    const bt_st_tensor *x = a, *y = b;
    int by_type = dtypes[y->dtype].order - dtypes[x->dtype].order;
    return by_type ? by_type : strcmp(x->name, y->name);
}

// Adds "name": {dtype, shape, data_offsets} to the header.
static bt_status describe(json_t *root, const bt_st_tensor *tensor, size_t begin, bt_error *err) {
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->dim[i]));
    json_t *entry =
        json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtypes[tensor->dtype].name, "shape", shape,
                  "data_offsets", (json_int_t)begin, (json_int_t)(begin + tensor->bytes));
    if (!entry) return bt_fail_memory(err, "a safetensors header", 0);
    if (json_object_get(root, tensor->name)) {
        json_decref(entry);
        return bt_fail(err, BT_ERROR_USAGE, "two tensors are named '%s'", tensor->name);
    }
    if (json_object_set_new(root, tensor->name, entry) != 0)
        return bt_fail(err, BT_ERROR_USAGE, "a tensor name is not valid UTF-8, or memory ran out");
    return BT_OK;
}

static bt_status make_metadata(const bt_st_pair *pairs, int count, const char *hash, bt_error *err,
                               json_t *root) {
    json_t *metadata = json_object();
    if (json_object_set_new(root, "__metadata__", metadata) != 0)
        return bt_fail_memory(err, "a safetensors header", 0);
    for (int i = 0; i < count; i++)
        if (json_object_set_new(metadata, pairs[i].key, json_string(pairs[i].value)) != 0)
            return bt_fail(err, BT_ERROR_USAGE,
                           "the metadata '%s' is not valid UTF-8, or memory ran out", pairs[i].key);
    if (json_object_set_new(metadata, "sha256", json_string(hash)) != 0)
        return bt_fail_memory(err, "a safetensors header", 0);
    return BT_OK;
}

// The length and the text, padded with spaces so that the data begin at a multiple of 8.
static bt_status make_header(const json_t *root, bt_error *err, bt_bytes *out) {
    size_t text = json_dumpb(root, NULL, 0, JSON_COMPACT), padded;
    if (text == 0) return bt_fail_memory(err, "a safetensors header", 0);
    if (text > HEADER_MAX)
        return bt_fail(err, BT_ERROR_USAGE, "a safetensors header of %zu bytes is not possible",
                       text);
    padded = (text + 7) & ~(size_t)7;
    out->data = malloc(8 + padded);
    if (!out->data) return bt_fail_memory(err, "a safetensors header", 8 + padded);
    out->size = 8 + padded;
    memset(out->data + 8, ' ', padded);
    json_dumpb(root, (char *)out->data + 8, padded, JSON_COMPACT);
    for (int i = 0; i < 8; i++) out->data[i] = (uint8_t)((uint64_t)padded >> (8 * i));
    return BT_OK;
}

// Concatenates the sorted tensors, little-endian.
static bt_status make_section(const bt_st_tensor *tensors, int count, bt_error *err,
                              bt_bytes *out) {
    size_t total = 0;
    for (int i = 0; i < count; i++)
        if (!bt_add_ok(total, tensors[i].bytes, &total) || total > BT_FILE_MAX)
            return bt_fail(err, BT_ERROR_USAGE,
                           "more than %d bytes of tensors do not fit in a file", BT_FILE_MAX);
    out->data = malloc(total ? total : 1);
    if (!out->data) return bt_fail_memory(err, "a safetensors file", total);
    for (int i = 0; i < count; i++) {
        size_t size = dtypes[tensors[i].dtype].bytes;
        copy_little(out->data + out->size, tensors[i].data, tensors[i].bytes / size, size);
        out->size += tensors[i].bytes;
    }
    return BT_OK;
}

static bt_status make_file(const bt_st_tensor *sorted, int tensor_count, const bt_st_pair *metadata,
                           int metadata_count, bt_error *err, json_t *root, bt_bytes parts[2]) {
    char hash[HASH_BYTES + 1], zeros[HASH_BYTES + 1] = {0};
    size_t begin = 0;
    memset(zeros, '0', HASH_BYTES);
    BT_TRY(make_section(sorted, tensor_count, err, &parts[1]));
    BT_TRY(make_metadata(metadata, metadata_count, zeros, err, root));
    for (int i = 0; i < tensor_count; i++) {
        BT_TRY(describe(root, &sorted[i], begin, err));
        begin += sorted[i].bytes;
    }
    BT_TRY(make_header(root, err, &parts[0]));
    bt_sha256(parts, 2, hash);
    uint8_t *digits = find_hash(&parts[0], zeros);
    if (!digits) return bt_fail(err, BT_ERROR_INTERNAL, "a safetensors header has no sha256");
    memcpy(digits, hash, HASH_BYTES);
    return BT_OK;
}

bt_status bt_st_write(const char *path, const bt_st_tensor *tensors, int tensor_count,
                      const bt_st_pair *metadata, int metadata_count, bt_error *err) {
    bt_bytes parts[2] = {{0}, {0}};
    json_t *root = json_object();
    size_t bytes = (size_t)tensor_count * sizeof *tensors;
    bt_st_tensor *sorted = malloc(bytes ? bytes : 1);
    bt_status status;
    if (!root || !sorted) {
        status = bt_fail_memory(err, "a safetensors file", bytes);
    } else {
        if (bytes) memcpy(sorted, tensors, bytes);
        qsort(sorted, (size_t)tensor_count, sizeof *sorted, by_writing_order);
        status = make_file(sorted, tensor_count, metadata, metadata_count, err, root, parts);
    }
    if (status == BT_OK) status = bt_file_write(path, parts, 2, err);
    free(parts[0].data);
    free(parts[1].data);
    free(sorted);
    json_decref(root);
    return status;
}
