// Tensors of a safetensors or .npz file as a model's parameters: by name, and for files of other
// frameworks, whose names may differ, in order. What does not fit is listed.
#include "data/npz.h"
#include "train/train.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 128, CANDIDATES_MAX = 2 * BT_LAYERS_MAX };

// ---- One tensor ------------------------------------------------------------------------------

// "[128, 784]"
static const char *dims_text(const bt_st_tensor *t, char text[TEXT]) {
    size_t at = (size_t)snprintf(text, TEXT, "[");
    for (int i = 0; i < t->rank && at < TEXT - 24; i++)
        at += (size_t)snprintf(text + at, TEXT - at, "%s%zu", i ? ", " : "", t->dim[i]);
    snprintf(text + at, TEXT - at, "]");
    return text;
}

static void parameter_like(bt_context *ctx, const bt_model *model, int i, bt_st_tensor *out) {
    bt_shape shape = bt_tensor_shape(ctx, model->parameters[i]);
    *out = (bt_st_tensor){.name = model->names[i], .rank = shape.rank};
    for (int d = 0; d < shape.rank; d++) out->dim[d] = (size_t)shape.dim[d];
}

static bool same_dims(const bt_st_tensor *a, const bt_st_tensor *b) {
    if (a->rank != b->rank) return false;
    for (int d = 0; d < a->rank; d++)
        if (a->dim[d] != b->dim[d]) return false;
    return true;
}

static bool is_real(const bt_st_tensor *t) {
    return t->dtype == BT_F32 || t->dtype == BT_F64;
}

static bool like_parameter(bt_context *ctx, const bt_model *model, int i, const bt_st_tensor *t) {
    bt_st_tensor p;
    parameter_like(ctx, model, i, &p);
    return is_real(t) && same_dims(&p, t);
}

bt_status bt_weight_find(bt_context *ctx, const char *path, const bt_st_file *file,
                         const bt_model *model, int i, const char *name, const bt_st_tensor **out) {
    *out = bt_st_find(file, name);
    if (!*out)
        return bt_fail(bt_error_of(ctx), BT_ERROR_DATA, "%s: the tensor %s is missing", path, name);
    if (like_parameter(ctx, model, i, *out)) return BT_OK;
    char a[TEXT], b[TEXT];
    bt_st_tensor p;
    parameter_like(ctx, model, i, &p);
    return bt_fail(bt_error_of(ctx), BT_ERROR_DATA, "%s: the tensor %s is %s %s, and must be %s",
                   path, name, bt_dtype_name((*out)->dtype), dims_text(*out, a), dims_text(&p, b));
}

bt_status bt_weight_write(bt_context *ctx, const bt_model *model, int i, const bt_st_tensor *t) {
    if (t->dtype == model->desc.dtype)
        return bt_write(ctx, model->parameters[i], t->data, t->bytes);
    size_t n = t->bytes / bt_dtype_size(t->dtype), bytes = n * bt_dtype_size(model->desc.dtype);
    void *data = malloc(bytes);
    if (!data) return bt_fail_memory(bt_error_of(ctx), "the weights of a layer", bytes);
    for (size_t k = 0; k < n; k++) {
        if (t->dtype == BT_F32)
            ((double *)data)[k] = (double)((const float *)t->data)[k];
        else
            ((float *)data)[k] = (float)((const double *)t->data)[k];
    }
    bt_status status = bt_write(ctx, model->parameters[i], data, bytes);
    free(data);
    return status;
}

// ---- Import ----------------------------------------------------------------------------------

// Tensors that may be weights: numbers that are not a checkpoint's own record of its run.
typedef struct candidates {
    const bt_st_tensor *tensor[CANDIDATES_MAX];
    int count; // may be more than there is room for
} candidates;

static candidates find_candidates(const bt_st_file *file) {
    candidates c = {.count = 0};
    for (int i = 0; i < file->tensor_count; i++) {
        const bt_st_tensor *t = &file->tensors[i];
        if (!strncmp(t->name, "optimizer.", 10) || !strncmp(t->name, "epoch.", 6)) continue;
        if (c.count < CANDIDATES_MAX) c.tensor[c.count] = t;
        c.count++;
    }
    return c;
}

static bool match_names(bt_context *ctx, const bt_model *model, const bt_st_file *file,
                        candidates *out) {
    for (int i = 0; i < model->parameter_count; i++) {
        const bt_st_tensor *t = bt_st_find(file, model->names[i]);
        if (!t || !like_parameter(ctx, model, i, t)) return false;
        out->tensor[i] = t;
    }
    return true;
}

static bool fits_in_order(bt_context *ctx, const bt_model *model, const candidates *c) {
    if (c->count != model->parameter_count) return false;
    for (int i = 0; i < c->count; i++)
        if (!like_parameter(ctx, model, i, c->tensor[i])) return false;
    return true;
}

// "layer2" before "layer10", and of one layer the weight before the bias: safetensors files are
// usually sorted by the alphabet, which has both the other way round.
static int compare_names(const void *x, const void *y) {
    const char *a = (*(const bt_st_tensor *const *)x)->name;
    const char *b = (*(const bt_st_tensor *const *)y)->name;
    for (;;) {
        while (*a && *a == *b && !isdigit((unsigned char)*a)) a++, b++;
        if (!isdigit((unsigned char)*a) || !isdigit((unsigned char)*b)) break;
        char *end_a, *end_b;
        unsigned long long i = strtoull(a, &end_a, 10), j = strtoull(b, &end_b, 10);
        if (i != j) return i < j ? -1 : 1;
        a = end_a;
        b = end_b;
    }
    if (!strcmp(a, "weight") && !strcmp(b, "bias")) return -1;
    if (!strcmp(a, "bias") && !strcmp(b, "weight")) return 1;
    return strcmp(a, b);
}

// A list, a line for each difference, that ends with how many more there are when it is full.
typedef struct report {
    char *text; // NULL: only counted
    size_t bytes, at;
    char first[200];
    int missing, misshapen, unexpected, left_out;
} report;

__attribute__((format(printf, 2, 3))) static void add_line(report *r, const char *format, ...) {
    enum { MORE = 32 }; // room for the last line
    char line[2 * TEXT + 600];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    // Names come from the file: no line of their own, and nothing that a terminal obeys.
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    if (!*r->first) snprintf(r->first, sizeof r->first, "%.190s", line);
    size_t length = strlen(line);
    if (!r->text || r->left_out || r->at + length + 1 + MORE > r->bytes) {
        r->left_out++;
        return;
    }
    r->at += (size_t)snprintf(r->text + r->at, r->bytes - r->at, "%s%s", r->at ? "\n" : "", line);
}

// Of tensor t, which is in the place of parameter i.
static void add_shape(bt_context *ctx, const bt_model *model, int i, const bt_st_tensor *t,
                      report *r) {
    char a[TEXT], b[TEXT];
    bt_st_tensor p;
    if (like_parameter(ctx, model, i, t)) return;
    parameter_like(ctx, model, i, &p);
    bool turned = t->rank == 2 && p.rank == 2 && t->dim[0] == p.dim[1] && t->dim[1] == p.dim[0];
    bool other = strcmp(t->name, p.name) != 0;
    r->misshapen++;
    add_line(r, "wrong shape: %s is %s %s and must be %s%s%s%s%s", t->name, t->stored,
             dims_text(t, a), dims_text(&p, b), other ? " to be " : "", other ? p.name : "",
             same_dims(t, &p) ? " of floats" : "",
             turned ? ": it is transposed, PyTorch has [outputs, inputs]" : "");
}

static void compare_by_name(bt_context *ctx, const bt_model *model, const bt_st_file *file,
                            const candidates *c, report *r) {
    char text[TEXT];
    for (int i = 0; i < model->parameter_count; i++) {
        const bt_st_tensor *t = bt_st_find(file, model->names[i]);
        bt_st_tensor p;
        parameter_like(ctx, model, i, &p);
        if (t) add_shape(ctx, model, i, t, r);
        if (t) continue;
        r->missing++;
        add_line(r, "missing: %s %s", p.name, dims_text(&p, text));
    }
    for (int k = 0; k < c->count && k < CANDIDATES_MAX; k++) {
        bool known = false;
        for (int i = 0; i < model->parameter_count; i++)
            known = known || !strcmp(model->names[i], c->tensor[k]->name);
        if (known) continue;
        r->unexpected++;
        add_line(r, "unexpected: %s %s %s", c->tensor[k]->name, c->tensor[k]->stored,
                 dims_text(c->tensor[k], text));
    }
}

static void end_report(report *r) {
    if (r->text && r->left_out)
        snprintf(r->text + r->at, r->bytes - r->at, "%s... and %d more", r->at ? "\n" : "",
                 r->left_out);
}

static bt_status fail_import(bt_context *ctx, const char *path, const bt_model *model,
                             const bt_st_file *file, const candidates *c, report *r) {
    int known = 0, n = model->parameter_count;
    for (int i = 0; i < n; i++) known += bt_st_find(file, model->names[i]) != NULL;
    // Other names but as many tensors: in order, as they would be taken.
    if (!known && c->count == n)
        for (int i = 0; i < n; i++) add_shape(ctx, model, i, c->tensor[i], r);
    else
        compare_by_name(ctx, model, file, c, r);
    end_report(r);
    return bt_fail(bt_error_of(ctx), BT_ERROR_DATA,
                   "%.120s does not fit the model: of its %d tensors %d %s missing, %d %s of the "
                   "wrong shape, and %d of the file %s not expected. %s",
                   path, n, r->missing, r->missing == 1 ? "is" : "are", r->misshapen,
                   r->misshapen == 1 ? "is" : "are", r->unexpected,
                   r->unexpected == 1 ? "is" : "are", r->first);
}

// By name where all names and shapes are there, else in the order of the file, else in that of the
// names; NULL: none of these.
static const char *match(bt_context *ctx, const bt_model *model, const bt_st_file *file,
                         candidates *c) {
    candidates named = *c;
    if (match_names(ctx, model, file, &named)) {
        *c = named;
        return "by name";
    }
    if (fits_in_order(ctx, model, c)) return "in order";
    int sorted = c->count < CANDIDATES_MAX ? c->count : CANDIDATES_MAX;
    qsort(c->tensor, (size_t)sorted, sizeof *c->tensor, compare_names);
    return fits_in_order(ctx, model, c) ? "in order" : NULL;
}

static bt_status import(bt_context *ctx, const char *path, const bt_model *model,
                        const bt_st_file *file, report *r) {
    candidates all = find_candidates(file), c = all;
    int n = model->parameter_count;
    const char *matched = match(ctx, model, file, &c);
    if (!matched) return fail_import(ctx, path, model, file, &c, r);
    for (int i = 0; i < n; i++) BT_TRY(bt_weight_write(ctx, model, i, c.tensor[i]));
    if (!strcmp(matched, "by name")) {
        add_line(r, "%d tensors matched by name%s", n, all.count > n ? "; not used:" : "");
        compare_by_name(ctx, model, file, &all, r); // what is left over
    } else if (n > 0) {
        add_line(r,
                 "the names differ: %d tensors matched in order, as their shapes allow (%s is %s, "
                 "... %s is %s)",
                 n, c.tensor[0]->name, model->names[0], c.tensor[n - 1]->name, model->names[n - 1]);
    }
    end_report(r);
    return BT_OK;
}

bt_status bt_model_import(bt_context *ctx, bt_model *model, const char *path, char *how,
                          size_t how_bytes) {
    bt_st_file file = {0};
    report r = {.text = how_bytes ? how : NULL, .bytes = how_bytes};
    if (r.text) *how = 0;
    bt_status status = bt_tensors_open(path, bt_error_of(ctx), &file);
    if (status == BT_OK) status = import(ctx, path, model, &file, &r);
    bt_st_close(&file);
    return status;
}
