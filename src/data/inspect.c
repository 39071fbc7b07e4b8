// `bantam inspect`: what a file is, told by its content, and whether it is sound. One JSON object
// is built; the text is a rendering of it.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/owner.h"
#include "data/idx.h"
#include "data/image.h"
#include "data/safetensors.h"
#include "data/sets.h"

typedef struct subject {
    const char *path;
    bt_bytes file;
    bt_error *err;
    json_t *root;
} subject;

typedef bt_status (*inspect_fn)(subject *s);

// jansson takes NULL values, the mark of lacking memory, as an error of the call.
static bt_status put(subject *s, const char *key, json_t *value) {
    if (json_object_set_new(s->root, key, value) == 0) return BT_OK;
    return bt_fail_memory(s->err, "a description", strlen(key));
}

static json_t *sizes(const size_t *dim, int rank) {
    json_t *list = json_array();
    for (int i = 0; i < rank; i++) json_array_append_new(list, json_integer((json_int_t)dim[i]));
    return list;
}

static json_t *describe_tensor(const bt_st_tensor *t) {
    return json_pack("{s:s, s:s, s:o}", "name", t->name, "dtype", t->stored, "shape",
                     sizes(t->dim, t->rank));
}

static bt_status put_safetensors(subject *s, const bt_st_file *st) {
    json_t *tensors = json_array(), *metadata = json_object();
    const char *hash = bt_st_metadata(st, "sha256");
    bool ok = true;
    BT_TRY(put(s, "header_bytes", json_integer((json_int_t)st->header_bytes)));
    BT_TRY(put(s, "checksum", json_string(hash ? "right" : "none")));
    BT_TRY(put(s, "tensors", tensors));
    BT_TRY(put(s, "metadata", metadata));
    for (int i = 0; i < st->tensor_count; i++)
        ok = json_array_append_new(tensors, describe_tensor(&st->tensors[i])) == 0 && ok;
    for (int i = 0; i < st->metadata_count; i++)
        ok = json_object_set_new(metadata, st->metadata[i].key,
                                 json_string(st->metadata[i].value)) == 0 &&
             ok;
    return ok ? BT_OK : bt_fail_memory(s->err, "a description", s->file.size);
}

static bt_status inspect_safetensors(subject *s) {
    bt_st_file st;
    bt_status status = bt_st_open(s->path, s->err, &st);
    if (status == BT_OK) status = put_safetensors(s, &st);
    bt_st_close(&st);
    return status;
}

// Names the file of a known data set that has this hash.
static bt_status put_known(subject *s, const char *hash) {
    char name[128];
    for (int i = 0; i < bt_set_count; i++)
        for (int f = 0; f < BT_SET_FILES; f++) {
            const char *want = bt_sets[i].sha256[f];
            if (!want || strcmp(want, hash) != 0) continue;
            snprintf(name, sizeof name, "%s %s", bt_sets[i].name, bt_set_file(f, 0));
            return put(s, "known_as", json_string(name));
        }
    return BT_OK;
}

static bt_status put_idx(subject *s, const bt_idx *idx) {
    char hash[65];
    bt_bytes parts[] = {{(uint8_t *)(uintptr_t)idx->header, idx->header_bytes},
                        {idx->data, idx->bytes}};
    size_t dim[BT_IDX_RANK_MAX];
    for (int i = 0; i < idx->rank; i++) dim[i] = idx->dim[i];
    bt_sha256(parts, 2, hash);
    BT_TRY(put(s, "dtype", json_string(bt_idx_type_name(idx->type))));
    BT_TRY(put(s, "shape", sizes(dim, idx->rank)));
    BT_TRY(put(s, "checksum", json_string(idx->gzipped ? "right" : "none")));
    if (idx->gzipped) BT_TRY(put(s, "unpacked_sha256", json_string(hash)));
    return put_known(s, hash);
}

static bt_status inspect_idx(subject *s) {
    bt_idx idx;
    BT_TRY(bt_idx_parse(s->file, s->path, s->err, &idx));
    bt_status status = put_idx(s, &idx);
    free(idx.data);
    return status;
}

static bt_status inspect_image(subject *s) {
    int height, width;
    BT_TRY(bt_image_check(s->file, s->path, s->err, &height, &width));
    BT_TRY(put(s, "checksum", json_string(bt_is_png(s->file) ? "right" : "none")));
    return put(s, "shape", json_pack("[i, i]", height, width));
}

// A safetensors header begins with '{' behind its length.
static bool is_safetensors(bt_bytes file) {
    return file.size > 8 && file.data[8] == '{';
}

static const struct {
    const char *kind;
    bool (*matches)(bt_bytes file);
    inspect_fn inspect;
} kinds[] = {{"PNG", bt_is_png, inspect_image},
             {"PGM", bt_is_pgm, inspect_image},
             {"safetensors", is_safetensors, inspect_safetensors},
             {"IDX", bt_is_idx, inspect_idx}};

static bt_status inspect(subject *s) {
    char hash[65];
    bt_sha256(&s->file, 1, hash);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!kinds[i].matches(s->file)) continue;
        bool packed = bt_is_gzip(s->file);
        BT_TRY(put(s, "file", json_string(s->path)));
        BT_TRY(put(s, "kind", json_sprintf("%s%s", kinds[i].kind, packed ? ", gzipped" : "")));
        BT_TRY(put(s, "bytes", json_integer((json_int_t)s->file.size)));
        BT_TRY(put(s, "sha256", json_string(hash)));
        return kinds[i].inspect(s);
    }
    return bt_fail(s->err, BT_ERROR_DATA,
                   "'%s' (%zu bytes) is none of safetensors, IDX (gzipped or not), PNG and PGM",
                   s->path, s->file.size);
}

// ---- Text ------------------------------------------------------------------------------------

// Texts of a file may hold anything, also what a terminal takes for commands.
static void print_text(const char *text, FILE *out) {
    for (; *text; text++) fputc((uint8_t)*text < 32 || *text == 127 ? ' ' : *text, out);
}

static void print_shape(const json_t *shape, FILE *out) {
    size_t i;
    json_t *dim;
    fputc('[', out);
    json_array_foreach(shape, i, dim) {
        fprintf(out, "%s%" JSON_INTEGER_FORMAT, i ? ", " : "", json_integer_value(dim));
    }
    fputc(']', out);
}

static void print_tensors(const json_t *tensors, FILE *out) {
    size_t i;
    json_t *t;
    fprintf(out, "%zu", json_array_size(tensors));
    json_array_foreach(tensors, i, t) {
        fprintf(out, "\n  %-5s", json_string_value(json_object_get(t, "dtype")));
        print_text(json_string_value(json_object_get(t, "name")), out);
        fputc(' ', out);
        print_shape(json_object_get(t, "shape"), out);
    }
}

static void print_metadata(json_t *metadata, FILE *out) {
    const char *key;
    json_t *value;
    fprintf(out, "%zu", json_object_size(metadata));
    json_object_foreach(metadata, key, value) {
        fprintf(out, "\n  ");
        print_text(key, out);
        fprintf(out, " = ");
        print_text(json_string_value(value), out);
    }
}

static void print_root(json_t *root, FILE *out) {
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        fprintf(out, "%-16s", key);
        if (json_is_integer(value))
            fprintf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        else if (json_is_string(value))
            print_text(json_string_value(value), out);
        else if (json_is_object(value))
            print_metadata(value, out);
        else if (strcmp(key, "tensors") == 0)
            print_tensors(value, out);
        else
            print_shape(value, out);
        fputc('\n', out);
    }
}

bt_status bt_inspect(bt_context *ctx, const char *path, bool json, FILE *out) {
    subject s = {.path = path, .err = bt_error_of(ctx)};
    BT_TRY(bt_file_read(path, s.err, &s.file));
    s.root = json_object();
    bt_status status = s.root ? inspect(&s) : bt_fail_memory(s.err, "a description", s.file.size);
    if (status == BT_OK && !json) print_root(s.root, out);
    if (status == BT_OK && json && json_dumpf(s.root, out, JSON_INDENT(2)) == 0) fputc('\n', out);
    json_decref(s.root);
    free(s.file.data);
    return status;
}
