// `bantam eval` and `bantam predict`: what a checkpoint makes of a data set and of pictures.
#include "cli.h"
#include "report/analysis.h"

#include <stdlib.h>

// The checkpoint: --ckpt, else the first argument, which `used` then counts.
static int checkpoint_of(const settings *s, char out[PATH_BYTES], int *used) {
    const char *path = opt_text(s, "ckpt");
    *used = path ? 0 : 1;
    if (!path && s->arg_count) path = s->args[0];
    if (!path)
        return fail(BT_ERROR_USAGE, "%s needs a CKPT: a checkpoint file or a run directory",
                    s->title);
    return find_checkpoint(path, out);
}

// ---- Eval --------------------------------------------------------------------------------------

static void print_evaluation(const bt_evaluation *e, const char *name, const uint32_t *matrix,
                             int classes) {
    printf("%s: accuracy %.2f +- %.2f %% (%d/%d), loss %.4f\n\n", name, 100 * e->accuracy,
           100 * e->standard_error, e->correct, e->count, e->loss);
    printf("true \\ predicted\n     ");
    for (int c = 0; c < classes; c++) printf("%6d", c);
    printf("   precision  recall      F1\n");
    for (int i = 0; i < classes; i++) {
        class_scores s = scores_of_class(matrix, classes, i);
        printf("%5d", i);
        for (int j = 0; j < classes; j++) printf("%6u", matrix[i * classes + j]);
        printf("   %9.4f  %6.4f  %6.4f\n", s.precision, s.recall, s.f1);
    }
}

static int print_evaluation_json(const bt_evaluation *e, const bt_model *model,
                                 const bt_dataset_info *data, const uint32_t *matrix,
                                 const char *precision) {
    json_t *rows = json_array(), *classes = json_array();
    for (int i = 0; i < data->classes; i++) {
        json_t *row = json_array();
        for (int j = 0; j < data->classes; j++)
            json_array_append_new(row, json_integer((json_int_t)matrix[i * data->classes + j]));
        json_array_append_new(rows, row);
        class_scores s = scores_of_class(matrix, data->classes, i);
        json_array_append_new(classes,
                              json_pack("{s:i,s:i,s:f,s:f,s:f}", "class", i, "count", (int)s.count,
                                        "precision", s.precision, "recall", s.recall, "f1", s.f1));
    }
    return print_json(json_pack(
        "{s:f,s:o,s:f,s:i,s:i,s:f,s:s,s:s,s:I,s:s,s:o,s:o}", "test_acc", e->accuracy, "test_loss",
        real_or_null(e->loss), "test_standard_error", e->standard_error, "correct", e->correct,
        "count", e->count, "seconds", e->seconds, "data", data->name, "model", bt_model_spec(model),
        "params", (json_int_t)bt_model_size(model), "precision", precision, "confusion", rows,
        "classes", classes));
}

static void announce(const bt_context *ctx, const settings *s) {
    bt_device_info device;
    bt_context_device(ctx, &device);
    note(s, "on %s in %s: %s", device.name, precision_name(ctx, s), device.description);
}

static int evaluate(bt_context *ctx, const settings *s, bt_model *model, bt_dataset *set) {
    bt_dataset_info data;
    bt_model_desc m;
    bt_evaluation e;
    announce(ctx, s);
    bt_dataset_describe(set, &data);
    bt_model_describe(model, &m);
    data.classes = m.classes; // no fewer than the data's, and any of them may be predicted
    int32_t *predicted = calloc((size_t)data.count + 1, sizeof *predicted);
    uint32_t *matrix = calloc((size_t)data.classes * (size_t)data.classes, sizeof *matrix);
    bt_status status = BT_ERROR_MEMORY;
    if (predicted && matrix)
        status = bt_evaluate(ctx, model, set, opt_int(s, "batch"), &e, predicted);
    int code = 0;
    if (status != BT_OK) {
        code = fail_status(predicted && matrix ? ctx : NULL, status);
    } else {
        for (int i = 0; i < data.count; i++)
            matrix[bt_dataset_label(set, i) * data.classes + predicted[i]]++;
        if (opt_flag(s, "json"))
            code = print_evaluation_json(&e, model, &data, matrix, precision_name(ctx, s));
        else
            print_evaluation(&e, data.name, matrix, data.classes);
    }
    free(predicted);
    free(matrix);
    return code;
}

typedef struct evaluation {
    settings *s;
    char checkpoint[PATH_BYTES];
} evaluation;

static int eval_body(bt_context *ctx, void *user) {
    const evaluation *e = user;
    bt_dtype dtype = opt_is(e->s, "precision", "fp64") ? BT_F64 : BT_F32;
    bt_model *model;
    bt_dataset *set;
    CHECK(ctx, bt_model_load(ctx, e->checkpoint, dtype, &model));
    CHECK(ctx, open_data(ctx, e->s, true, opt_int(e->s, "limit"), &set));
    return evaluate(ctx, e->s, model, set);
}

static int merge_body(bt_context *ctx, void *user) {
    const evaluation *e = user;
    return merge_kept(ctx, e->s, e->checkpoint, NULL, NULL);
}

int command_eval(settings *s) {
    evaluation e = {.s = s};
    int used, code = checkpoint_of(s, e.checkpoint, &used);
    if (!code && s->arg_count > used + 1)
        code = fail(BT_ERROR_USAGE, "unexpected argument '%s'", s->args[used + 1]);
    // In a context of its own, because the checkpoint may name the precision.
    if (!code) code = with_reader(merge_body, &e);
    if (!code) code = choose_data(s, used);
    return code ? code : with_device(s, eval_body, &e);
}

// ---- Predict -----------------------------------------------------------------------------------

// The most probable class that is not yet taken; taken ones have probability < 0.
static int best_class(const float *p, int classes) {
    int best = 0;
    for (int c = 1; c < classes; c++)
        if (p[c] > p[best]) best = c;
    return best;
}

static void show_prediction(const char *file, int index, int count, float *p, int classes, int top,
                            json_t *list) {
    char place[24] = "";
    json_t *ranks = json_array();
    if (count > 1) snprintf(place, sizeof place, "[%d]", index);
    if (!list) printf("%s%s:", file, place);
    for (int k = 0; k < top && k < classes; k++) {
        int c = best_class(p, classes);
        if (!list) printf("%s %d (%.2f %%)", k ? "," : "", c, 100.0 * (double)p[c]);
        json_array_append_new(ranks,
                              json_pack("{s:i,s:f}", "class", c, "probability", (double)p[c]));
        p[c] = -1;
    }
    if (!list) putchar('\n');
    if (list)
        json_array_append_new(
            list,
            json_pack("{s:s,s:i,s:O,s:O,s:O}", "file", file, "index", index, "class",
                      json_object_get(json_array_get(ranks, 0), "class"), "probability",
                      json_object_get(json_array_get(ranks, 0), "probability"), "top", ranks));
    json_decref(ranks);
}

// Networks are trained on light drawings on a dark ground.
static void prepare_pixels(const settings *s, const char *file, uint8_t *pixels, size_t bytes,
                           bool scaled) {
    double sum = 0;
    if (opt_flag(s, "invert"))
        for (size_t i = 0; i < bytes; i++) pixels[i] = (uint8_t)(255 - pixels[i]);
    for (size_t i = 0; i < bytes; i++) sum += pixels[i];
    if (scaled) note(s, "%s: scaled to the size that the model takes", file);
    if (bytes && sum / (double)bytes > 127)
        note(s, "%s: mostly light; drawings are expected light on dark%s", file,
             opt_flag(s, "invert") ? " (without --invert?)" : ", see --invert");
}

static int predict_file(bt_context *ctx, const settings *s, bt_model *model, const char *file,
                        json_t *list) {
    bt_model_desc m;
    uint8_t *pixels;
    int count;
    bool scaled;
    bt_model_describe(model, &m);
    CHECK(ctx, bt_images_read(ctx, file, m.height, m.width, &pixels, &count, &scaled));
    prepare_pixels(s, file, pixels, (size_t)count * (size_t)(m.height * m.width), scaled);
    float *p = calloc((size_t)count + 1, sizeof *p * (size_t)m.classes);
    if (!p) return fail_status(NULL, BT_ERROR_MEMORY);
    bt_status status = bt_predict(ctx, model, pixels, count, p);
    for (int i = 0; i < count && status == BT_OK; i++)
        show_prediction(file, i, count, &p[(size_t)i * (size_t)m.classes], m.classes,
                        opt_int(s, "top"), list);
    free(p);
    return status == BT_OK ? 0 : fail_status(ctx, status);
}

static int predict_files(bt_context *ctx, const settings *s, bt_model *model, int first,
                         json_t *list) {
    bt_model_desc m;
    bt_model_describe(model, &m);
    if (m.channels != 1)
        return fail(BT_ERROR_DATA, "the model takes %d channels; pictures are read as grey",
                    m.channels);
    for (int i = first; i < s->arg_count; i++) {
        uint32_t mark = bt_mark(ctx);
        int code = predict_file(ctx, s, model, s->args[i], list);
        if (code) return code;
        bt_release(ctx, mark);
    }
    return 0;
}

static int predict_body(bt_context *ctx, void *user) {
    settings *s = user;
    char path[PATH_BYTES];
    int used;
    bt_model *model;
    int code = checkpoint_of(s, path, &used);
    if (!code && s->arg_count <= used)
        code = fail(BT_ERROR_USAGE, "predict needs pictures: PNG, PGM or IDX files, or -");
    if (code) return code;
    CHECK(ctx, bt_model_load(ctx, path, BT_F32, &model));
    json_t *list = opt_flag(s, "json") ? json_array() : NULL;
    code = predict_files(ctx, s, model, used, list);
    if (!code && list) return print_json(json_pack("{s:o}", "predictions", list));
    json_decref(list);
    return code;
}

int command_predict(settings *s) {
    return with_device(s, predict_body, s);
}
