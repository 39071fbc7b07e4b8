// A checkpoint is one safetensors file: weights with PyTorch's names, optimizer moments as
// "optimizer.<name>.<moment>", the log of the unfinished epoch, and as metadata the model, the
// settings that determine the run, and where it is. Nothing else is needed to go on to the same
// bits: batches and schedules are functions of the step.
#include "train/train.h"

#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1, NAME = 48, VALUE = 32 };

static const char *const log_name = "epoch.log";
static const char *const moment_names[][2] = {
    {"", ""}, {"momentum", ""}, {"exp_avg", "exp_avg_sq"}};

// ---- Numbers as metadata ---------------------------------------------------------------------

typedef enum field_kind { FIELD_INT, FIELD_U32, FIELD_U64, FIELD_REAL, FIELD_CHOICE } field_kind;

typedef struct field {
    const char *key;
    field_kind kind;
    size_t offset;
    const char *const *choices; // ended by NULL
    bool fixed;                 // a run that is resumed must have the same
} field;

static const char *const inits[] = {"he", "xavier", NULL};
static const char *const optimizers[] = {"sgd", "nesterov", "adam", "adamw", NULL};
static const char *const schedules[] = {"const", "step", "cosine", "onecycle", NULL};

#define MODEL(member) offsetof(bt_model_desc, member)
static const field model_fields[] = {
    {"channels", FIELD_INT, MODEL(channels), NULL, true},
    {"height", FIELD_INT, MODEL(height), NULL, true},
    {"width", FIELD_INT, MODEL(width), NULL, true},
    {"classes", FIELD_INT, MODEL(classes), NULL, true},
    {"init", FIELD_CHOICE, MODEL(init), inits, false},
    {"init_seed", FIELD_U64, MODEL(seed), NULL, false},
};
#define RUN(member) offsetof(bt_run_state, member)
static const field run_fields[] = {
    {"optimizer", FIELD_CHOICE, RUN(optimizer), optimizers, true},
    {"batch", FIELD_INT, RUN(batch), NULL, true},
    {"seed", FIELD_U64, RUN(seed), NULL, true},
    {"train_count", FIELD_INT, RUN(train_count), NULL, true},
    {"file_order", FIELD_INT, RUN(file_order), NULL, true},
    {"schedule", FIELD_CHOICE, RUN(schedule), schedules, false},
    {"epochs", FIELD_INT, RUN(epochs), NULL, false},
    {"lr", FIELD_REAL, RUN(hyper.lr), NULL, false},
    {"momentum", FIELD_REAL, RUN(hyper.momentum), NULL, false},
    {"beta2", FIELD_REAL, RUN(hyper.beta2), NULL, false},
    {"epsilon", FIELD_REAL, RUN(hyper.epsilon), NULL, false},
    {"weight_decay", FIELD_REAL, RUN(hyper.weight_decay), NULL, false},
    {"clip", FIELD_REAL, RUN(hyper.clip), NULL, false},
    {"warmup", FIELD_REAL, RUN(warmup), NULL, false},
    {"step", FIELD_U32, RUN(step), NULL, false},
    {"best_epoch", FIELD_INT, RUN(best_epoch), NULL, false},
    {"stale_epochs", FIELD_INT, RUN(stale_epochs), NULL, false},
    {"seconds", FIELD_REAL, RUN(seconds), NULL, false},
    {"best_accuracy", FIELD_REAL, RUN(best_accuracy), NULL, false},
    {"train_loss", FIELD_REAL, RUN(train_loss), NULL, false},
    {"train_accuracy", FIELD_REAL, RUN(train_accuracy), NULL, false},
    {"val_loss", FIELD_REAL, RUN(val_loss), NULL, false},
    {"val_accuracy", FIELD_REAL, RUN(val_accuracy), NULL, false},
};
enum {
    MODEL_FIELDS = sizeof model_fields / sizeof *model_fields,
    RUN_FIELDS = sizeof run_fields / sizeof *run_fields,
    PAIRS_MAX = MODEL_FIELDS + RUN_FIELDS + 3
};

static const char *choice_text(const field *f, int value) {
    for (int i = 0; f->choices[i]; i++)
        if (i == value) return f->choices[i];
    return "unknown";
}

static void write_field(const field *f, const void *base, char text[VALUE]) {
    const char *at = (const char *)base + f->offset;
    switch (f->kind) {
    case FIELD_INT: snprintf(text, VALUE, "%d", *(const int *)at); break;
    case FIELD_U32: snprintf(text, VALUE, "%u", *(const uint32_t *)at); break;
    case FIELD_U64: snprintf(text, VALUE, "%llu", (unsigned long long)*(const uint64_t *)at); break;
    case FIELD_REAL: snprintf(text, VALUE, "%.17g", *(const double *)at); break;
    case FIELD_CHOICE: snprintf(text, VALUE, "%s", choice_text(f, *(const int *)at)); break;
    }
}

static bool read_field(const field *f, const char *text, void *base) {
    char *at = (char *)base + f->offset, *end = NULL;
    if (f->kind == FIELD_CHOICE) {
        for (int i = 0; f->choices[i]; i++) {
            if (strcmp(f->choices[i], text)) continue;
            *(int *)at = i;
            return true;
        }
        return false;
    }
    if (f->kind == FIELD_REAL) {
        *(double *)at = strtod(text, &end);
        return end != text && !*end;
    }
    uint64_t most = f->kind == FIELD_INT ? INT_MAX : f->kind == FIELD_U32 ? UINT32_MAX : UINT64_MAX;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value > most) return false;
    if (f->kind == FIELD_U64)
        *(uint64_t *)at = value;
    else
        *(uint32_t *)at = (uint32_t)value;
    return true;
}

bt_c_locale bt_c_locale_enter(void) {
    locale_t locale = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    return (bt_c_locale){locale, uselocale(locale)};
}

void bt_c_locale_leave(bt_c_locale l) {
    uselocale(l.before);
    if (l.locale) freelocale(l.locale);
}

static bt_status read_fields(const field *fields, int count, const char *path,
                             const bt_st_file *file, void *base, bt_error *err) {
    bt_status status = BT_OK;
    bt_c_locale l = bt_c_locale_enter();
    for (int i = 0; i < count && status == BT_OK; i++) {
        const char *text = bt_st_metadata(file, fields[i].key);
        if (!text)
            status = bt_fail(err, BT_ERROR_DATA,
                             "%s: the metadata has no \"%s\"; it is not a complete checkpoint",
                             path, fields[i].key);
        else if (!read_field(&fields[i], text, base))
            status = bt_fail(err, BT_ERROR_DATA,
                             "%s: the metadata's \"%s\" is \"%.40s\", which cannot be", path,
                             fields[i].key, text);
    }
    bt_c_locale_leave(l);
    return status;
}

// ---- Taking and writing ----------------------------------------------------------------------

struct bt_checkpoint {
    const bt_model *model;
    bt_program *program;  // NULL: the model alone
    const char *settings; // NULL: none
    bt_run_state state;
    bt_st_tensor *tensors; // weights, moments, log
    char (*names)[NAME];
    unsigned char *data;
    bt_log_entry *log; // the end of data
    int tensor_count;  // the log, if it is not empty, is one more
};

static void free_checkpoint(bt_context *ctx, void *object) {
    (void)ctx;
    bt_checkpoint *c = object;
    free(c->tensors);
    free(c->names);
    free(c->data);
    free(c);
}

static size_t parameter_bytes(const bt_context *ctx, const bt_model *model, int i) {
    return bt_shape_count(bt_tensor_shape(ctx, model->parameters[i])) *
           bt_dtype_size(model->desc.dtype);
}

// Tensor k describes parameter k % n, or its moment k / n - 1.
static void describe_tensor(bt_context *ctx, bt_checkpoint *c, int k, size_t *at) {
    int n = c->model->parameter_count, i = k % n, moments = c->tensor_count / n - 1;
    bt_shape shape = bt_tensor_shape(ctx, c->model->parameters[i]);
    if (k < n)
        snprintf(c->names[k], NAME, "%s", c->model->names[i]);
    else
        snprintf(c->names[k], NAME, "optimizer.%s.%s", c->model->names[i],
                 moment_names[moments][k / n - 1]);
    c->tensors[k] = (bt_st_tensor){.name = c->names[k],
                                   .dtype = c->model->desc.dtype,
                                   .rank = shape.rank,
                                   .data = c->data + *at,
                                   .bytes = parameter_bytes(ctx, c->model, i)};
    for (int d = 0; d < shape.rank; d++) c->tensors[k].dim[d] = (size_t)shape.dim[d];
    *at += (c->tensors[k].bytes + 7) / 8 * 8;
}

static size_t data_bytes(bt_context *ctx, const bt_model *model, int copies) {
    size_t bytes = 0;
    for (int i = 0; i < model->parameter_count; i++)
        bytes += (parameter_bytes(ctx, model, i) + 7) / 8 * 8;
    return bytes * (size_t)copies;
}

bt_status bt_checkpoint_make(bt_context *ctx, const bt_model *model, bt_program *program,
                             uint32_t epoch_steps, const char *settings, bt_checkpoint **out) {
    bt_checkpoint *c = calloc(1, sizeof *c);
    if (!c) return bt_fail_memory(bt_error_of(ctx), "a checkpoint", sizeof *c);
    BT_TRY(bt_own(ctx, c, free_checkpoint));
    int copies = 1 + (program ? bt_program_moment_count(program) : 0);
    size_t numbers = data_bytes(ctx, model, copies), at = 0;
    size_t bytes = numbers + epoch_steps * sizeof(bt_log_entry);
    c->model = model;
    c->program = program;
    c->settings = settings;
    c->tensor_count = model->parameter_count * copies;
    c->tensors = calloc((size_t)c->tensor_count + 1, sizeof *c->tensors);
    c->names = calloc((size_t)c->tensor_count + 1, sizeof *c->names);
    c->data = malloc(bytes + 1);
    if (!c->tensors || !c->names || !c->data)
        return bt_fail_memory(bt_error_of(ctx), "a checkpoint", bytes);
    for (int k = 0; k < c->tensor_count; k++) describe_tensor(ctx, c, k, &at);
    c->log = (bt_log_entry *)(c->data + numbers);
    *out = c;
    return BT_OK;
}

static bool all_finite(const bt_st_tensor *t) {
    size_t n = t->bytes / bt_dtype_size(t->dtype);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(t->dtype == BT_F64 ? ((const double *)t->data)[i]
                                         : (double)((const float *)t->data)[i]))
            return false;
    return true;
}

bt_status bt_checkpoint_take(bt_context *ctx, bt_checkpoint *c, const bt_run_state *state,
                             const bt_log_entry *log, uint32_t log_count) {
    int n = c->model->parameter_count;
    if (state) c->state = *state;
    for (int k = 0; k < c->tensor_count; k++) {
        const bt_st_tensor *t = &c->tensors[k];
        void *to = (void *)t->data; // into c->data
        if (k < n)
            BT_TRY(bt_read(ctx, c->model->parameters[k], to, t->bytes));
        else
            BT_TRY(bt_program_moment_read(ctx, c->program, k % n, k / n - 1, to, t->bytes));
        if (!all_finite(t) && !state)
            return bt_fail(bt_error_of(ctx), BT_ERROR_NUMERIC,
                           "%s holds numbers that are not finite (NaN or infinity); nothing was "
                           "written",
                           t->name);
        if (!all_finite(t))
            return bt_fail(
                bt_error_of(ctx), BT_ERROR_NUMERIC,
                "%s is not finite after step %u; the checkpoint before it was kept; try a "
                "lower learning rate, or clipping",
                t->name, c->state.step);
    }
    size_t bytes = log_count * sizeof *log;
    if (bytes) memcpy(c->log, log, bytes);
    c->tensors[c->tensor_count] = (bt_st_tensor){.name = log_name,
                                                 .dtype = BT_F64,
                                                 .rank = 2,
                                                 .dim = {log_count, 2},
                                                 .data = c->log,
                                                 .bytes = bytes};
    return BT_OK;
}

const bt_st_tensor *bt_checkpoint_tensors(const bt_checkpoint *c) {
    return c->tensors;
}

bt_status bt_checkpoint_write(const bt_checkpoint *c, const char *path, bt_error *err) {
    char texts[PAIRS_MAX][VALUE];
    bt_st_pair pairs[PAIRS_MAX] = {{"bantam", texts[0]}, {"spec", c->model->spec}};
    int n = 2;
    bt_c_locale l = bt_c_locale_enter();
    snprintf(texts[0], VALUE, "%d", FORMAT);
    for (int i = 0; i < MODEL_FIELDS; i++, n++) {
        write_field(&model_fields[i], &c->model->desc, texts[n]);
        pairs[n] = (bt_st_pair){model_fields[i].key, texts[n]};
    }
    for (int i = 0; i < RUN_FIELDS && c->program; i++, n++) {
        write_field(&run_fields[i], &c->state, texts[n]);
        pairs[n] = (bt_st_pair){run_fields[i].key, texts[n]};
    }
    bt_c_locale_leave(l);
    if (c->settings) pairs[n++] = (bt_st_pair){"settings", c->settings};
    int tensors = c->tensor_count + (c->tensors[c->tensor_count].bytes > 0);
    return bt_st_write(path, c->tensors, tensors, pairs, n, err);
}

bt_status bt_model_save(bt_context *ctx, const bt_model *model, const char *path) {
    bt_checkpoint *c;
    uint32_t mark = bt_mark(ctx);
    bt_status status = bt_checkpoint_make(ctx, model, NULL, 0, NULL, &c);
    if (status == BT_OK) status = bt_checkpoint_take(ctx, c, NULL, NULL, 0);
    if (status == BT_OK) status = bt_checkpoint_write(c, path, bt_error_of(ctx));
    bt_release(ctx, mark);
    return status;
}

// ---- Reading ---------------------------------------------------------------------------------

static bt_status read_model(bt_context *ctx, const char *path, const bt_st_file *file,
                            bt_model_desc *out) {
    bt_error *err = bt_error_of(ctx);
    const char *format = bt_st_metadata(file, "bantam");
    *out = (bt_model_desc){.spec = bt_st_metadata(file, "spec")};
    if (!format || !out->spec)
        return bt_fail(
            err, BT_ERROR_DATA,
            "%s has tensors but no Bantam model in its metadata; name the model and give "
            "it these weights with --init-from (bt_model_import)",
            path);
    if (!bt_st_metadata(file, "sha256"))
        return bt_fail(err, BT_ERROR_DATA,
                       "%s is damaged: a checkpoint has a sha256 in its metadata", path);
    if (atoi(format) != FORMAT)
        return bt_fail(err, BT_ERROR_DATA, "%s has checkpoint format %.20s; this version reads %d",
                       path, format, FORMAT);
    return read_fields(model_fields, MODEL_FIELDS, path, file, out, err);
}

// A small file cannot make us allocate much: the numbers that its model has must be in it.
static bt_status check_size(const char *path, const bt_st_file *file, const bt_model_desc *desc,
                            bt_error *err) {
    bt_model *plan = calloc(1, sizeof *plan);
    if (!plan) return bt_fail_memory(err, "a model", sizeof *plan);
    plan->desc = *desc;
    bt_status status = bt_spec_parse(plan, err);
    double wanted = 0, there = 0;
    for (int i = 0; i < plan->layer_count && status == BT_OK; i++) {
        const bt_layer *l = &plan->layers[i];
        double area = l->kind == BT_LAYER_CONV ? (double)l->size * l->size : 1;
        wanted += l->outputs * (area * l->inputs + 1); // outputs is 0 where there are no weights
    }
    free(plan->spec);
    free(plan);
    for (int i = 0; i < file->tensor_count; i++)
        there += (double)file->tensors[i].bytes / (double)bt_dtype_size(file->tensors[i].dtype);
    if (status != BT_OK || wanted <= there) return status;
    return bt_fail(err, BT_ERROR_DATA,
                   "%s: its model \"%.120s\" has %.0f numbers, and its tensors %.0f", path,
                   desc->spec, wanted, there);
}

// The file's model text comes from outside: what is wrong with it is wrong data.
static bt_status make_model(bt_context *ctx, const char *path, const bt_st_file *file,
                            const bt_model_desc *desc, bt_model **out) {
    bt_error *err = bt_error_of(ctx);
    bool clean = err->status == BT_OK;
    if (check_size(path, file, desc, err) == BT_OK && bt_model_make(ctx, desc, out) == BT_OK)
        return BT_OK;
    if (!clean || err->status != BT_ERROR_USAGE) return err->status;
    bt_error cause = *err;
    bt_error_clear(err);
    return bt_fail(err, BT_ERROR_DATA, "%s: %.400s", path, cause.text);
}

static bt_status load(bt_context *ctx, const char *path, const bt_st_file *file, bt_dtype dtype,
                      bt_model **out) {
    bt_model_desc desc;
    BT_TRY(read_model(ctx, path, file, &desc));
    desc.dtype = dtype;
    bt_model *model;
    BT_TRY(make_model(ctx, path, file, &desc, &model));
    for (int i = 0; i < model->parameter_count; i++) {
        const bt_st_tensor *t;
        BT_TRY(bt_weight_find(ctx, path, file, model, i, model->names[i], &t));
        BT_TRY(bt_weight_write(ctx, model, i, t));
    }
    *out = model;
    return BT_OK;
}

bt_status bt_model_load(bt_context *ctx, const char *path, bt_dtype dtype, bt_model **out) {
    bt_st_file file = {0};
    *out = NULL;
    bt_status status = bt_st_open(path, bt_error_of(ctx), &file);
    if (status == BT_OK) status = load(ctx, path, &file, dtype, out);
    bt_st_close(&file);
    return status;
}

static bt_status take_settings(bt_context *ctx, const bt_st_file *file, const char **settings) {
    const char *text = bt_st_metadata(file, "settings");
    char *copy = strdup(text ? text : "{}");
    if (!copy) return bt_fail_memory(bt_error_of(ctx), "settings", text ? strlen(text) : 3);
    BT_TRY(bt_own(ctx, copy, bt_free_block));
    *settings = copy;
    return BT_OK;
}

bt_status bt_checkpoint_settings(bt_context *ctx, const char *path, const char **settings,
                                 uint32_t *step) {
    bt_error *err = bt_error_of(ctx);
    bt_st_file file = {0};
    bt_model_desc desc;
    bt_run_state state = {0};
    bt_status status = bt_st_open(path, err, &file);
    if (status == BT_OK) status = read_model(ctx, path, &file, &desc);
    if (status == BT_OK) status = read_fields(run_fields, RUN_FIELDS, path, &file, &state, err);
    if (status == BT_OK) status = take_settings(ctx, &file, settings);
    bt_st_close(&file);
    *step = state.step;
    return status;
}

// ---- Resuming --------------------------------------------------------------------------------

static bt_status check_fixed(const char *path, const field *fields, int count, const void *there,
                             const void *here, bt_error *err) {
    for (int i = 0; i < count; i++) {
        char a[VALUE], b[VALUE];
        write_field(&fields[i], there, a);
        write_field(&fields[i], here, b);
        if (!fields[i].fixed || !strcmp(a, b)) continue;
        return bt_fail(err, BT_ERROR_DATA,
                       "cannot resume %s: its %s is %s, and this run has %s; give it the same, or "
                       "start a new run from its weights (bt_model_import, --init-from)",
                       path, fields[i].key, a, b);
    }
    return BT_OK;
}

// Sets *out to what the file says after comparing it with `here`.
static bt_status check_run(bt_context *ctx, const char *path, const bt_st_file *file,
                           const bt_model *model, const bt_run_state *here, bt_run_state *out) {
    bt_error *err = bt_error_of(ctx);
    bt_model_desc desc;
    BT_TRY(read_model(ctx, path, file, &desc));
    BT_TRY(read_fields(run_fields, RUN_FIELDS, path, file, out, err));
    if (strcmp(desc.spec, model->spec))
        return bt_fail(err, BT_ERROR_DATA,
                       "cannot resume %s: its model is %.120s, and this run's is %.120s", path,
                       desc.spec, model->spec);
    BT_TRY(check_fixed(path, model_fields, MODEL_FIELDS, &desc, &model->desc, err));
    return check_fixed(path, run_fields, RUN_FIELDS, out, here, err);
}

static bt_status restore_tensors(bt_context *ctx, const char *path, const bt_st_file *file,
                                 const bt_model *model, bt_program *program) {
    int moments = bt_program_moment_count(program), n = model->parameter_count;
    const bt_st_tensor *t;
    for (int k = 0; k < n * (1 + moments); k++) {
        char name[NAME];
        snprintf(name, NAME, "%s%s%s%s", k < n ? "" : "optimizer.", model->names[k % n],
                 k < n ? "" : ".", k < n ? "" : moment_names[moments][k / n - 1]);
        BT_TRY(bt_weight_find(ctx, path, file, model, k % n, name, &t));
        if (t->dtype != model->desc.dtype)
            return bt_fail(bt_error_of(ctx), BT_ERROR_DATA,
                           "cannot resume %s: its numbers are %s, and this run's are %s", path,
                           bt_dtype_name(t->dtype), bt_dtype_name(model->desc.dtype));
        if (k < n)
            BT_TRY(bt_write(ctx, model->parameters[k], t->data, t->bytes));
        else
            BT_TRY(bt_program_moment_write(ctx, program, k % n, k / n - 1, t->data, t->bytes));
    }
    return BT_OK;
}

static bt_status restore_log(const char *path, const bt_st_file *file, uint32_t count,
                             bt_log_entry *log, bt_error *err) {
    const bt_st_tensor *t = bt_st_find(file, log_name);
    size_t rows = t && t->dtype == BT_F64 && t->rank == 2 && t->dim[1] == 2 ? t->dim[0] : 0;
    if (rows != count)
        return bt_fail(err, BT_ERROR_DATA,
                       "%s: it is %u steps into an epoch and has the log of %zu; it is damaged",
                       path, count, rows);
    if (count) memcpy(log, t->data, count * sizeof *log);
    return BT_OK;
}

bt_status bt_checkpoint_restore(bt_context *ctx, const char *path, const bt_model *model,
                                bt_program *program, uint32_t epoch_steps, bt_run_state *state,
                                bt_log_entry *log, uint32_t *log_count) {
    bt_error *err = bt_error_of(ctx);
    bt_st_file file = {0};
    bt_run_state there = {0};
    bt_status status = bt_st_open(path, err, &file);
    if (status == BT_OK) status = check_run(ctx, path, &file, model, state, &there);
    *log_count = there.step % epoch_steps;
    if (status == BT_OK) status = restore_log(path, &file, *log_count, log, err);
    if (status == BT_OK) status = restore_tensors(ctx, path, &file, model, program);
    bt_st_close(&file);
    BT_TRY(status);
    // Where the run is comes from the file, what it is from this run: it may be asked to go
    // further.
    there.epochs = state->epochs;
    there.schedule = state->schedule;
    there.hyper = state->hyper;
    there.warmup = state->warmup;
    *state = there;
    return bt_program_seek(ctx, program, state->step);
}
