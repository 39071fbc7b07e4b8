// See npz.h. The central directory at the end of the zip is what counts; local headers must agree
// with it, and no byte may belong to two entries.
#include "data/npz.h"

#include "base/checked.h"
#include "data/output.h"

#include <stdlib.h>
#include <string.h>

enum {
    END_BYTES = 22,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    DESCRIPTOR_BYTES = 24, // at most, behind an entry whose sizes were not known when it began
    NAME_MAX_BYTES = 512,
    HEADER_MAX = 10000, // NumPy's own limit
    ENTRIES_MAX = 16384,
    RANK_MAX = 8,
    DEFLATE_RATIO = 1032 // no stream unpacks to more than this many times its bytes
};
// Unpacked, all together: numbers of a network hardly compress, so a file far beyond this is a
// bomb.
static const size_t unpacked_free = (size_t)64 << 20, unpacked_ratio = 16;

static const struct {
    const char *descr;
    bt_dtype dtype;
    size_t bytes; // in the file; 2: widened
} types[] = {{"<f4", BT_F32, 4},
             {"<f8", BT_F64, 8},
             {"<i4", BT_I32, 4},
             {"|u1", BT_U8, 1},
             {"<f2", BT_F32, 2}};
enum { TYPES = sizeof types / sizeof *types };

typedef struct entry {
    char *name; // without ".npy"
    int name_bytes, flags, method;
    uint32_t crc;
    size_t packed, unpacked, local, data; // places are offsets in the file
    int type, rank;
    bool fortran;
    size_t dim[RANK_MAX], header, bytes; // of the .npy inside; bytes of its numbers
} entry;

typedef struct reader {
    const char *path;
    bt_error *err;
    bt_bytes file;
    size_t directory; // where it begins; entries lie before it
    entry *entries;
    int count;
    char *names;
} reader;

#define FAIL(r, ...) bt_fail((r)->err, BT_ERROR_DATA, __VA_ARGS__)

// ---- The zip -----------------------------------------------------------------------------------

static uint32_t little(const uint8_t *at, int bytes) {
    uint32_t value = 0;
    for (int i = bytes; i-- > 0;) value = value << 8 | at[i];
    return value;
}

static bt_status find_directory(reader *r) {
    size_t before = r->file.size < END_BYTES ? 0 : r->file.size - END_BYTES;
    const uint8_t *end = r->file.data + before;
    if (r->file.size < END_BYTES || little(end, 4) != 0x06054b50)
        return FAIL(r,
                    "'%s' is not a whole zip: it does not end with an end record (a comment "
                    "behind it is not read)",
                    r->path);
    uint32_t count = little(end + 10, 2), bytes = little(end + 12, 4), begin = little(end + 16, 4);
    if (little(end + 4, 4) != 0 || little(end + 8, 2) != count)
        return FAIL(r, "'%s' is a part of a zip of several files", r->path);
    if (count > ENTRIES_MAX || (size_t)begin + bytes != before)
        return FAIL(
            r,
            "'%s': its directory of %u entries, %u bytes from %u on, does not end where the "
            "end record begins, or is of the zip64 kind, or has more than %d entries",
            r->path, count, bytes, begin, ENTRIES_MAX);
    r->directory = begin;
    r->count = (int)count;
    r->entries = calloc((size_t)count + 1, sizeof *r->entries);
    r->names = malloc((size_t)bytes + 1); // they are among these bytes
    return r->entries && r->names ? BT_OK : bt_fail_memory(r->err, r->path, bytes);
}

// Names go into messages and onto terminals, never to a file system.
static bt_status check_name(reader *r, const uint8_t *name, int length) {
    for (int i = 0; i < length; i++)
        if (name[i] < 32 || name[i] == 127 || name[i] == '/' || name[i] == '\\')
            return FAIL(r,
                        "'%s': the name of entry has byte 0x%02x; names of arrays have no "
                        "slashes and no control characters",
                        r->path, name[i]);
    if (length > 4 && length <= NAME_MAX_BYTES && !memcmp(name + length - 4, ".npy", 4))
        return BT_OK;
    return FAIL(r, "'%s': the entry '%.*s' is not named NAME.npy, or with more than %d letters",
                r->path, length < 60 ? length : 60, (const char *)name, NAME_MAX_BYTES);
}

static bt_status read_central(reader *r, entry *e, const uint8_t **at, char **names) {
    const uint8_t *c = *at, *end = r->file.data + r->file.size - END_BYTES;
    if (end - c < CENTRAL_BYTES || little(c, 4) != 0x02014b50)
        return FAIL(r, "'%s': its directory ends before its %d entries, or is damaged", r->path,
                    r->count);
    size_t name = little(c + 28, 2), rest = (size_t)little(c + 30, 2) + little(c + 32, 2);
    if ((size_t)(end - c) < CENTRAL_BYTES + name + rest)
        return FAIL(r, "'%s': the last entry of its directory reaches beyond it", r->path);
    BT_TRY(check_name(r, c + CENTRAL_BYTES, (int)name));
    e->flags = (int)little(c + 8, 2);
    e->method = (int)little(c + 10, 2);
    e->crc = little(c + 16, 4);
    e->packed = little(c + 20, 4);
    e->unpacked = little(c + 24, 4);
    e->local = little(c + 42, 4);
    e->name = *names;
    e->name_bytes = (int)name;
    memcpy(*names, c + CENTRAL_BYTES, name);
    (*names)[name - 4] = 0;
    *names += name;
    *at = c + CENTRAL_BYTES + name + rest;
    if (e->flags & 1) return FAIL(r, "'%s': %.100s is encrypted", r->path, e->name);
    if (e->method != 0 && e->method != 8)
        return FAIL(r, "'%s': %.100s is compressed by method %d; stored and deflated ones are read",
                    r->path, e->name, e->method);
    return BT_OK;
}

// The local header, whose sizes are not used: NumPy writes them in the zip64 way.
static bt_status read_local(reader *r, entry *e) {
    const uint8_t *l = r->file.data + e->local;
    bool there = e->local <= r->directory && r->directory - e->local >= LOCAL_BYTES;
    if (!there || little(l, 4) != 0x04034b50)
        return FAIL(r, "'%s': there is no entry at %zu, where %.100s should be", r->path, e->local,
                    e->name);
    size_t name = little(l + 26, 2), skip = LOCAL_BYTES + name + little(l + 28, 2);
    if (r->directory - e->local < skip || r->directory - e->local - skip < e->packed)
        return FAIL(r, "'%s': %.100s with its %zu bytes from %zu on reaches beyond the entries",
                    r->path, e->name, e->packed, e->local);
    e->data = e->local + skip;
    size_t stem = (size_t)e->name_bytes - 4;
    if (name != stem + 4 || memcmp(l + LOCAL_BYTES, e->name, stem) != 0 ||
        memcmp(l + LOCAL_BYTES + stem, ".npy", 4) != 0 || (int)little(l + 8, 2) != e->method ||
        (little(l + 6, 2) & 1))
        return FAIL(r, "'%s': name or method of %.100s differ between directory and entry", r->path,
                    e->name);
    return BT_OK;
}

static int by_place(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return x->local < y->local ? -1 : x->local > y->local;
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(const entry *const *)a)->name, (*(const entry *const *)b)->name);
}

// Every byte belongs to one entry at most, and all do to some.
static bt_status check_places(reader *r) {
    size_t end = 0, allowed = 0;
    qsort(r->entries, (size_t)r->count, sizeof *r->entries, by_place);
    for (int i = 0; i <= r->count; i++) {
        size_t begin = i < r->count ? r->entries[i].local : r->directory;
        if (begin < end || begin - end > allowed)
            return FAIL(r, "'%s': its entries overlap or leave bytes between them, at %zu", r->path,
                        end);
        end = r->entries[i].data + r->entries[i].packed;
        allowed = r->entries[i].flags & 8 ? DESCRIPTOR_BYTES : 0;
    }
    return BT_OK;
}

static bt_status check_names(reader *r) {
    const entry **sorted = malloc(((size_t)r->count + 1) * sizeof *sorted);
    if (!sorted) return bt_fail_memory(r->err, r->path, (size_t)r->count * sizeof *sorted);
    for (int i = 0; i < r->count; i++) sorted[i] = &r->entries[i];
    qsort(sorted, (size_t)r->count, sizeof *sorted, by_name);
    bt_status status = BT_OK;
    for (int i = 1; i < r->count && status == BT_OK; i++)
        if (!strcmp(sorted[i - 1]->name, sorted[i]->name))
            status = FAIL(r, "'%s': two entries are named %.100s", r->path, sorted[i]->name);
    free(sorted);
    return status;
}

static bt_status read_directory(reader *r) {
    BT_TRY(find_directory(r));
    const uint8_t *at = r->file.data + r->directory;
    char *names = r->names;
    for (int i = 0; i < r->count; i++) {
        BT_TRY(read_central(r, &r->entries[i], &at, &names));
        BT_TRY(read_local(r, &r->entries[i]));
    }
    if (at != r->file.data + r->file.size - END_BYTES)
        return FAIL(r, "'%s': its directory has more bytes than its %d entries", r->path, r->count);
    BT_TRY(check_places(r));
    return check_names(r);
}

// ---- Headers of arrays -------------------------------------------------------------------------

// NumPy evaluates this text as Python; here it is one dictionary of three keys and nothing else.
typedef struct literal {
    const char *at;
} literal;

static bool take(literal *l, const char *text) {
    while (*l->at == ' ') l->at++;
    size_t n = strlen(text);
    if (strncmp(l->at, text, n) != 0) return false;
    l->at += n;
    return true;
}

static bool take_size(literal *l, size_t *out) {
    size_t value = 0;
    while (*l->at == ' ') l->at++;
    if (*l->at < '0' || *l->at > '9') return false;
    for (; *l->at >= '0' && *l->at <= '9'; l->at++)
        if (!bt_mul_ok(value, 10, &value) || !bt_add_ok(value, (size_t)(*l->at - '0'), &value))
            return false;
    *out = value;
    return true;
}

static bool take_shape(literal *l, entry *e) {
    if (!take(l, "(")) return false;
    while (!take(l, ")")) {
        if (e->rank == RANK_MAX || !take_size(l, &e->dim[e->rank++])) return false;
        if (!take(l, ",")) return e->rank > 1 && take(l, ")"); // (3) would be a number
    }
    return true;
}

static bool take_descr(literal *l, char descr[16]) {
    size_t n = 0;
    if (!take(l, "'")) return false;
    for (; *l->at && *l->at != '\''; l->at++)
        if (n < 15) descr[n++] = *l->at < 32 || *l->at > 126 ? '?' : *l->at;
    return take(l, "'");
}

static bool take_dictionary(literal *l, entry *e, char descr[16]) {
    bool seen[3] = {false, false, false};
    if (!take(l, "{")) return false;
    while (!take(l, "}")) {
        int key = take(l, "'descr'")           ? 0
                  : take(l, "'fortran_order'") ? 1
                  : take(l, "'shape'")         ? 2
                                               : 3;
        if (key == 3 || seen[key] || !take(l, ":")) return false;
        seen[key] = true;
        if (key == 0 && !take_descr(l, descr)) return false;
        if (key == 1 && !(e->fortran = take(l, "True")) && !take(l, "False")) return false;
        if (key == 2 && !take_shape(l, e)) return false;
        if (!take(l, ",")) {
            if (!take(l, "}")) return false;
            break;
        }
    }
    while (*l->at == ' ') l->at++;
    return seen[0] && seen[1] && seen[2] && !strcmp(l->at, "\n");
}

static bt_status set_type(reader *r, entry *e, const char *descr) {
    for (e->type = 0; e->type < TYPES; e->type++)
        if (!strcmp(types[e->type].descr, descr)) return BT_OK;
    if (strchr(descr, 'O'))
        return FAIL(r,
                    "'%s': %.100s holds Python objects, a pickle, which could run anything when "
                    "read; save it as numbers",
                    r->path, e->name);
    return FAIL(r, "'%s': %.100s is of type '%s'; '<f4', '<f8', '<f2', '<i4' and '|u1' are read",
                r->path, e->name, descr);
}

static bt_status set_sizes(reader *r, entry *e) {
    size_t count = 1;
    bool fits = true;
    for (int d = 0; d < e->rank; d++) fits = fits && bt_mul_ok(count, e->dim[d], &count);
    fits = fits && bt_mul_ok(count, types[e->type].bytes, &e->bytes);
    if (fits && e->unpacked >= e->header && e->bytes == e->unpacked - e->header) return BT_OK;
    return FAIL(r, "'%s': %.100s has %zu bytes, and its header of %zu bytes promises others",
                r->path, e->name, e->unpacked, e->header);
}

static bt_status unpack_open(reader *r, const entry *e, bt_unpacker *in) {
    *in = (bt_unpacker){.gzipped = e->method == 8};
    in->z.next_in = r->file.data + e->data;
    in->z.avail_in = (uInt)e->packed;
    if (in->gzipped && inflateInit2(&in->z, -MAX_WBITS) != Z_OK) // deflate without a wrapper
        return bt_fail_memory(r->err, "zlib", sizeof in->z);
    return BT_OK;
}

// `text` gets the header, which begins with 10 or 12 bytes of magic, version and length.
static bt_status read_array_header(reader *r, entry *e, bt_unpacker *in, char *text) {
    uint8_t start[12] = {0};
    size_t fixed = 10;
    bool there = bt_unpack(in, start, 10) == 10 && !memcmp(start, "\x93NUMPY", 6);
    if (there && start[6] > 1) {
        fixed = 12;
        there = start[6] <= 3 && bt_unpack(in, start + 10, 2) == 2;
    }
    size_t length = little(start + 8, start[6] > 1 ? 4 : 2);
    if (!there || start[7] != 0 || length > HEADER_MAX || bt_unpack(in, text, length) != length)
        return FAIL(r,
                    "'%s': %.100s.npy does not begin with a header of NumPy's version 1, 2 or 3 "
                    "of at most %d bytes",
                    r->path, e->name, HEADER_MAX);
    text[length] = 0;
    e->header = fixed + length;
    char descr[16] = "";
    literal l = {text};
    if (strlen(text) != length || !take_dictionary(&l, e, descr))
        return FAIL(r,
                    "'%s': the header of %.100s.npy is not {'descr': '...', 'fortran_order': "
                    "..., 'shape': (...), }",
                    r->path, e->name);
    BT_TRY(set_type(r, e, descr));
    return set_sizes(r, e);
}

static bt_status read_headers(reader *r) {
    char text[HEADER_MAX + 1];
    size_t limit = unpacked_free + unpacked_ratio * r->file.size, all = 0;
    for (int i = 0; i < r->count; i++) {
        entry *e = &r->entries[i];
        size_t most = e->method == 8 ? e->packed * DEFLATE_RATIO + DEFLATE_RATIO : e->packed;
        all += e->unpacked; // at most 2^14 numbers below 2^32
        if (e->unpacked > most || (e->method == 0 && e->unpacked != e->packed))
            return FAIL(r, "'%s': %.100s cannot unpack from %zu to %zu bytes", r->path, e->name,
                        e->packed, e->unpacked);
        if (all > limit)
            return FAIL(r,
                        "'%s' would unpack from %zu bytes to more than %zu; that is no file of "
                        "weights",
                        r->path, r->file.size, limit);
        bt_unpacker in;
        BT_TRY(unpack_open(r, e, &in));
        bt_status status = read_array_header(r, e, &in, text);
        bt_unpack_close(&in);
        BT_TRY(status);
    }
    return BT_OK;
}

// ---- The numbers -------------------------------------------------------------------------------

// Where element k of the file belongs: in Fortran order the first index runs fastest.
static size_t place_of(const entry *e, size_t k) {
    size_t place = 0;
    if (!e->fortran) return k;
    size_t stride = 1;
    for (int d = e->rank - 1; d >= 0; d--) stride *= e->dim[d];
    for (int d = 0; d < e->rank; d++) {
        stride /= e->dim[d];
        place += k % e->dim[d] * stride;
        k /= e->dim[d];
    }
    return place;
}

static void place_numbers(const entry *e, const uint8_t *raw, uint8_t *out) {
    size_t size = types[e->type].bytes, wide = bt_dtype_size(types[e->type].dtype);
    for (size_t k = 0; k < e->bytes / size; k++) {
        uint8_t *to = out + place_of(e, k) * wide;
        const uint8_t *from = raw + k * size;
        uint32_t bits = size == 2 ? bt_widen_f16((uint16_t)little(from, 2)) : 0;
        for (size_t i = 0; i < wide; i++) {
            uint8_t byte = size == 2 ? (uint8_t)(bits >> 8 * i) : from[i];
            to[__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? i : wide - 1 - i] = byte;
        }
    }
}

// Unpacks an entry into `raw` and checks its CRC-32.
static bt_status unpack_entry(reader *r, const entry *e, uint8_t *raw) {
    bt_unpacker in;
    BT_TRY(unpack_open(r, e, &in));
    bool whole = bt_unpack(&in, raw, e->unpacked) == e->unpacked && bt_unpack_finished(&in);
    bt_unpack_close(&in);
    if (whole && crc32(0, raw, (uInt)e->unpacked) == e->crc) return BT_OK;
    return FAIL(r, "'%s' is damaged: %.100s does not unpack to %zu bytes with the CRC-32 %08x",
                r->path, e->name, e->unpacked, e->crc);
}

static bt_status load_tensor(reader *r, const entry *e, uint8_t *at, bt_st_tensor *out) {
    uint8_t *raw = malloc(e->unpacked);
    if (!raw) return bt_fail_memory(r->err, r->path, e->unpacked);
    bt_status status = unpack_entry(r, e, raw);
    if (status == BT_OK) place_numbers(e, raw + e->header, at);
    free(raw);
    *out = (bt_st_tensor){.name = e->name,
                          .dtype = types[e->type].dtype,
                          .rank = e->rank,
                          .data = at,
                          .stored = types[e->type].descr};
    memcpy(out->dim, e->dim, sizeof out->dim);
    out->bytes = e->bytes / types[e->type].bytes * bt_dtype_size(out->dtype);
    return status;
}

static size_t room_for(const entry *e) {
    return (e->bytes * (types[e->type].bytes == 2 ? 2 : 1) + 7) & ~(size_t)7;
}

static bt_status read_file(reader *r, bt_st_file *out) {
    BT_TRY(read_directory(r));
    BT_TRY(read_headers(r));
    size_t room = 8;
    for (int i = 0; i < r->count; i++) room += room_for(&r->entries[i]);
    uint8_t *at = out->memory[0] = malloc(room);
    out->tensors = out->memory[1] = calloc((size_t)r->count + 1, sizeof *out->tensors);
    if (!at || !out->tensors) return bt_fail_memory(r->err, r->path, room);
    out->file_bytes = r->file.size;
    out->header_bytes = r->file.size - r->directory;
    for (int i = 0; i < r->count; i++) {
        BT_TRY(load_tensor(r, &r->entries[i], at, &out->tensors[i]));
        out->tensor_count++;
        at += room_for(&r->entries[i]);
    }
    return BT_OK;
}

bool bt_is_zip(bt_bytes file) {
    return file.size >= END_BYTES &&
           (!memcmp(file.data, "PK\3\4", 4) || !memcmp(file.data, "PK\5\6", 4));
}

static bool begins(bt_bytes file, const char *magic, size_t size) {
    return file.size >= size && !memcmp(file.data, magic, size);
}

// What is easily taken for a file of weights; both kinds of torch.save, of which the newer one is a
// zip.
static bt_status check_others(const char *path, bt_bytes file, bt_error *err) {
    const char *what = NULL;
    if (begins(file, "\x93NUMPY", 6))
        what = "an array of numpy.save (.npy), which has no name";
    else if (begins(file, "\x80\2\x8a\nl\xfc\x9c", 7) ||
             (bt_is_zip(file) && memmem(file.data, file.size, "/data.pkl", 9)))
        what = "a file of torch.save, a pickle, which could run anything when read";
    if (!what) return BT_OK;
    return bt_fail(err, BT_ERROR_DATA,
                   "'%.200s' is %s; save the weights with numpy.savez(\"w.npz\", **{k: v.numpy() "
                   "for k, v in model.state_dict().items()})",
                   path, what);
}

// Frees file.data.
static bt_status take_file(const char *path, bt_bytes file, bt_error *err, bt_st_file *out) {
    reader r = {.path = path, .err = err, .file = file};
    bt_status status = check_others(path, file, err);
    if (status == BT_OK) status = read_file(&r, out);
    out->memory[2] = r.names;
    free(r.entries);
    free(r.file.data);
    return status;
}

bt_status bt_npz_open(const char *path, bt_error *err, bt_st_file *out) {
    bt_bytes file;
    *out = (bt_st_file){0};
    BT_TRY(bt_file_read(path, err, &file));
    return take_file(path, file, err, out);
}

// The file is read once: a pipe gives its bytes only once.
bt_status bt_tensors_open(const char *path, bt_error *err, bt_st_file *out) {
    bt_bytes file;
    *out = (bt_st_file){0};
    BT_TRY(bt_file_read(path, err, &file));
    if (bt_is_zip(file)) return take_file(path, file, err, out);
    bt_status status = check_others(path, file, err);
    if (status == BT_OK) return bt_st_take(path, file, err, out);
    free(file.data);
    return status;
}

// ---- Writing -----------------------------------------------------------------------------------

typedef struct place {
    size_t local, bytes;
    uint32_t crc;
} place;

// Version 1.0: magic, length, and the dictionary, padded so that the numbers begin at a multiple
// of 64.
static void put_array(bt_output *b, const bt_st_tensor *t) {
    bt_output text = {0};
    int type = 0;
    while (types[type].dtype != t->dtype) type++;
    bt_output_print(&text, "{'descr': '%s', 'fortran_order': False, 'shape': (", types[type].descr);
    for (int d = 0; d < t->rank; d++)
        bt_output_print(&text,
                        d + 1 < t->rank ? "%zu, "
                        : t->rank == 1  ? "%zu,"
                                        : "%zu",
                        t->dim[d]);
    bt_output_print(&text, "), }");
    while ((10 + text.size + 1) % 64 != 0 && !text.failed) bt_output_print(&text, " ");
    bt_output_print(&text, "\n");
    bt_output_add(b, "\x93NUMPY\1\0", 8);
    bt_output_little(b, text.size, 2);
    bt_output_add(b, text.data, text.size);
    b->failed = b->failed || text.failed;
    bt_output_free(&text);
    bt_output_numbers(b, t->data, t->bytes / types[type].bytes, types[type].bytes);
}

// What local header and directory have in common, from "version needed" to the length of the name.
static void put_entry(bt_output *b, const place *p, const bt_st_tensor *t) {
    bt_output_little(b, 20, 2);
    bt_output_little(b, 0, 4);           // flags, method: stored
    bt_output_little(b, 0x21u << 16, 4); // 1980-01-01, the first day there is
    bt_output_little(b, p->crc, 4);
    bt_output_little(b, p->bytes, 4);
    bt_output_little(b, p->bytes, 4);
    bt_output_little(b, strlen(t->name) + 4, 2);
    bt_output_little(b, 0, 2);
}

static void put_local(bt_output *b, const bt_st_tensor *t, place *p) {
    bt_output array = {0};
    put_array(&array, t);
    if (!array.failed)
        *p = (place){b->size, array.size, (uint32_t)crc32(0, array.data, (uInt)array.size)};
    bt_output_little(b, 0x04034b50, 4);
    put_entry(b, p, t);
    bt_output_print(b, "%s.npy", t->name);
    bt_output_add(b, array.data, array.size);
    b->failed = b->failed || array.failed;
    bt_output_free(&array);
}

static void put_directory(bt_output *b, const bt_st_tensor *tensors, const place *places,
                          int count) {
    size_t begin = b->size;
    for (int i = 0; i < count; i++) {
        bt_output_little(b, 0x02014b50, 4);
        bt_output_little(b, 20, 2);
        put_entry(b, &places[i], &tensors[i]);
        bt_output_little(b, 0, 8); // comment, disk, attributes
        bt_output_little(b, 0, 2);
        bt_output_little(b, places[i].local, 4);
        bt_output_print(b, "%s.npy", tensors[i].name);
    }
    size_t bytes = b->size - begin;
    bt_output_little(b, 0x06054b50, 4);
    bt_output_little(b, 0, 4);
    bt_output_little(b, (uint64_t)count, 2);
    bt_output_little(b, (uint64_t)count, 2);
    bt_output_little(b, bytes, 4);
    bt_output_little(b, begin, 4);
    bt_output_little(b, 0, 2);
}

bt_status bt_npz_write(const char *path, const bt_st_tensor *tensors, int count, bt_error *err) {
    bt_output b = {0};
    place *places = calloc((size_t)count + 1, sizeof *places);
    if (!places) return bt_fail_memory(err, path, (size_t)count * sizeof *places);
    for (int i = 0; i < count; i++) put_local(&b, &tensors[i], &places[i]);
    put_directory(&b, tensors, places, count);
    free(places);
    return bt_output_write(&b, path, err);
}
