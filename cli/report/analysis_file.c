// analysis.json: an analysis beside the run that it is of. It is read as strictly as any file from
// outside: a member that is missing or does not fit makes the whole useless, and it is made anew.
#include "analysis.h"
#include "replace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// (Labels are bytes; and each cell of the confusion matrix is 170 bytes of a page.)
enum { FORMAT = 1, FILE_BYTES_MAX = 32 << 20, SIDE_MAX = 1024, CLASSES_MAX = 256 };

int64_t checkpoint_bytes(const char *path, const char *checkpoint) {
    char name[PATH_BYTES + 64];
    struct stat info;
    snprintf(name, sizeof name, "%s/checkpoints/%s", path, checkpoint);
    return stat(name, &info) == 0 && S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1;
}

// ---- Writing -----------------------------------------------------------------------------------

static json_t *hex(const uint8_t *bytes, size_t count) {
    static const char digits[] = "0123456789abcdef";
    char *text = malloc(2 * count + 1);
    if (!text) return NULL;
    for (size_t i = 0; i < count; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    json_t *json = json_stringn(text, 2 * count);
    free(text);
    return json;
}

static json_t *mistakes_json(const analysis *a) {
    json_t *list = json_array();
    for (int i = 0; i < a->mistake_count; i++) {
        const mistake *m = &a->mistakes[i];
        json_array_append_new(list, json_pack("{s:i,s:i,s:i,s:o,s:o,s:o}", "index", m->index,
                                              "label", m->label, "predicted", m->predicted,
                                              "p_label", real_or_null(m->p_label), "p_predicted",
                                              real_or_null(m->p_predicted), "grey",
                                              hex(m->grey, (size_t)a->height * (size_t)a->width)));
    }
    return list;
}

static json_t *layers_json(const analysis *a) {
    json_t *list = json_array();
    for (int i = 0; i < a->layer_count; i++) {
        const bt_layer_stats *l = &a->layers[i];
        json_array_append_new(
            list, json_pack("{s:s,s:i,s:o,s:o,s:o,s:o,s:o}", "name", l->name, "units", l->units,
                            "weight_norm", real_or_null(l->weight_norm), "gradient_norm",
                            real_or_null(l->gradient_norm), "activation_mean",
                            real_or_null(l->activation_mean), "activation_deviation",
                            real_or_null(l->activation_deviation), "dead", real_or_null(l->dead)));
    }
    return list;
}

static json_t *filters_json(const analysis *a) {
    size_t bytes = (size_t)a->filter_count * (size_t)a->filter_height * (size_t)a->filter_width;
    if (!*a->filter_name) return json_null();
    return json_pack("{s:s,s:i,s:i,s:i,s:i,s:f,s:o}", "name", a->filter_name, "count",
                     a->filter_count, "of", a->filter_all, "height", a->filter_height, "width",
                     a->filter_width, "full", a->filter_full, "weights", hex(a->filters, bytes));
}

static json_t *analysis_json(const analysis *a) {
    json_t *confusion = json_array();
    for (int i = 0; i < a->classes * a->classes; i++)
        json_array_append_new(confusion, json_integer(a->confusion[i]));
    return json_pack("{s:i,s:s,s:I,s:I,s:s,s:i,s:i,s:i,s:i,s:i,s:o,s:f,s:f,s:o,s:o,s:o,s:o}",
                     "format", FORMAT, "checkpoint", a->checkpoint, "step", (json_int_t)a->step,
                     "bytes", (json_int_t)a->bytes, "data", a->data, "count", a->count, "correct",
                     a->correct, "classes", a->classes, "height", a->height, "width", a->width,
                     "loss", real_or_null(a->loss), "accuracy", a->accuracy, "standard_error",
                     a->standard_error, "confusion", confusion, "mistakes", mistakes_json(a),
                     "filters", filters_json(a), "layers", layers_json(a));
}

bool analysis_write(analysis *a, const char *path, const char *checkpoint, uint32_t step) {
    replacement f;
    int64_t bytes = checkpoint_bytes(path, checkpoint);
    if (bytes < 0) return false;
    snprintf(a->checkpoint, sizeof a->checkpoint, "%s", checkpoint);
    a->step = step, a->bytes = bytes;
    json_t *json = analysis_json(a);
    bool good = json && replace_begin(&f, path, "analysis.json");
    if (good) {
        json_dumpf(json, f.file, JSON_COMPACT | JSON_REAL_PRECISION(9));
        good = replace_end(&f);
    }
    json_decref(json);
    return good;
}

// ---- Reading -----------------------------------------------------------------------------------

static double real(const json_t *object, const char *name) {
    const json_t *member = json_object_get(object, name);
    return json_is_number(member) ? json_number_value(member) : NAN;
}

static bool text(const json_t *object, const char *name, char *out, size_t bytes) {
    const char *value = json_string_value(json_object_get(object, name));
    if (value) snprintf(out, bytes, "%s", value);
    return value;
}

static bool whole(const json_t *object, const char *name, int low, int high, int *out) {
    const json_t *member = json_object_get(object, name);
    json_int_t value = json_integer_value(member);
    *out = (int)value;
    return json_is_integer(member) && value >= low && value <= high;
}

static int nibble(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static uint8_t *bytes_of(const json_t *object, const char *name, size_t count) {
    const json_t *member = json_object_get(object, name);
    const char *digits = json_string_value(member);
    if (!digits || json_string_length(member) != 2 * count) return NULL;
    uint8_t *bytes = malloc(count + 1);
    for (size_t i = 0; bytes && i < count; i++) {
        int high = nibble(digits[2 * i]), low = nibble(digits[2 * i + 1]);
        if (high < 0 || low < 0) return free(bytes), NULL;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return bytes;
}

static bool read_confusion(analysis *a, const json_t *list) {
    size_t cells = (size_t)a->classes * (size_t)a->classes;
    if (json_array_size(list) != cells) return false;
    a->confusion = calloc(cells, sizeof *a->confusion);
    for (size_t i = 0; a->confusion && i < cells; i++) {
        json_int_t value = json_integer_value(json_array_get(list, i));
        if (value < 0 || value > a->count) return false;
        a->confusion[i] = (uint32_t)value;
    }
    return a->confusion;
}

static bool read_mistakes(analysis *a, const json_t *list) {
    if (!json_is_array(list) || json_array_size(list) > MISTAKES_MAX) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        mistake *m = &a->mistakes[i];
        bool good = whole(item, "index", 0, a->count - 1, &m->index) &&
                    whole(item, "label", 0, a->classes - 1, &m->label) &&
                    whole(item, "predicted", 0, a->classes - 1, &m->predicted);
        m->p_label = real(item, "p_label"), m->p_predicted = real(item, "p_predicted");
        m->grey = good ? bytes_of(item, "grey", (size_t)a->height * (size_t)a->width) : NULL;
        if (!m->grey) return false;
        a->mistake_count++;
    }
    return true;
}

static bool read_filters(analysis *a, const json_t *object) {
    if (json_is_null(object)) return true;
    bool good = text(object, "name", a->filter_name, sizeof a->filter_name) &&
                whole(object, "count", 1, FILTERS_MAX, &a->filter_count) &&
                whole(object, "of", a->filter_count, INT32_MAX, &a->filter_all) &&
                whole(object, "height", 1, SIDE_MAX, &a->filter_height) &&
                whole(object, "width", 1, SIDE_MAX, &a->filter_width);
    a->filter_full = real(object, "full");
    if (!good || !isfinite(a->filter_full)) return false;
    a->filters =
        bytes_of(object, "weights",
                 (size_t)a->filter_count * (size_t)a->filter_height * (size_t)a->filter_width);
    return a->filters;
}

static bool read_layers(analysis *a, const json_t *list) {
    if (!json_is_array(list) || json_array_size(list) > LAYERS_MAX) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        bt_layer_stats *l = &a->layers[a->layer_count++];
        if (!text(item, "name", l->name, sizeof l->name)) return false;
        if (!whole(item, "units", 0, INT32_MAX, &l->units)) return false;
        l->weight_norm = real(item, "weight_norm"), l->gradient_norm = real(item, "gradient_norm");
        l->activation_mean = real(item, "activation_mean");
        l->activation_deviation = real(item, "activation_deviation"), l->dead = real(item, "dead");
    }
    return true;
}

static bool read_members(analysis *a, const json_t *json) {
    int format;
    bool good = whole(json, "format", FORMAT, FORMAT, &format) &&
                text(json, "checkpoint", a->checkpoint, sizeof a->checkpoint) &&
                text(json, "data", a->data, sizeof a->data) &&
                whole(json, "count", 1, INT32_MAX, &a->count) &&
                whole(json, "correct", 0, a->count, &a->correct) &&
                whole(json, "classes", 1, CLASSES_MAX, &a->classes) &&
                whole(json, "height", 1, SIDE_MAX, &a->height) &&
                whole(json, "width", 1, SIDE_MAX, &a->width);
    json_int_t step = json_integer_value(json_object_get(json, "step"));
    a->step = (uint32_t)step;
    a->bytes = json_integer_value(json_object_get(json, "bytes"));
    a->loss = real(json, "loss"), a->accuracy = real(json, "accuracy");
    a->standard_error = real(json, "standard_error");
    return good && step >= 0 && step <= UINT32_MAX && isfinite(a->accuracy) &&
           isfinite(a->standard_error) && read_confusion(a, json_object_get(json, "confusion")) &&
           read_mistakes(a, json_object_get(json, "mistakes")) &&
           read_filters(a, json_object_get(json, "filters")) &&
           read_layers(a, json_object_get(json, "layers"));
}

analysis *analysis_read(const char *path, const char *checkpoint, uint32_t step, int64_t bytes) {
    char name[PATH_BYTES + 32];
    snprintf(name, sizeof name, "%s/analysis.json", path);
    json_t *json = json_of_file(name, FILE_BYTES_MAX);
    analysis *a = json ? calloc(1, sizeof *a) : NULL;
    bool good = a && read_members(a, json) && !strcmp(a->checkpoint, checkpoint) &&
                a->step == step && a->bytes == bytes;
    json_decref(json);
    if (good) return a;
    analysis_free(a);
    return NULL;
}
