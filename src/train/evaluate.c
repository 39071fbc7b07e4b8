// Loss, accuracy and predictions of a model over a data set, as a program that is run once over the
// set: the device gathers the batches, counts, and remembers the predicted classes.
#include "train/train.h"

#include "base/threads.h"
#include "data/dataset.h"
#include "tensor/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Near the least processor time for mlp and lenet on a CPU, of 32 to 10000; and what fills a GPU
// without much memory for its intermediate results.
enum { GOOD_BATCH = 128, GOOD_GPU_BATCH = 1000 };

// Images of a set in file order and the model's logits for them.
typedef struct forward {
    bt_batch batch;
    bt_tensor logits;
    int count, rows;
    uint32_t steps;
} forward;

static forward make_forward(bt_context *ctx, const bt_model *model, bt_dataset *set, int batch) {
    if (batch <= 0) batch = ctx->api->host ? GOOD_BATCH : GOOD_GPU_BATCH;
    forward f = {.count = set->info.count, .rows = batch};
    if (f.rows > f.count) f.rows = f.count;
    f.steps = (uint32_t)((f.count - 1) / f.rows + 1);
    f.batch = bt_dataset_batch(
        ctx, &(bt_batch_desc){.set = set, .batch = f.rows, .dtype = model->desc.dtype});
    f.logits = bt_model_forward(ctx, model, f.batch.images);
    return f;
}

bt_status bt_evaluator_make(bt_context *ctx, const bt_model *model, bt_dataset *set, int batch,
                            bool predictions, bt_evaluator *out) {
    *out = (bt_evaluator){0};
    BT_TRY(bt_model_fits(ctx, model, set));
    forward f = make_forward(ctx, model, set, batch);
    out->log = calloc(f.steps, sizeof *out->log);
    if (!out->log) return bt_fail_memory(bt_error_of(ctx), "the log", f.steps * sizeof *out->log);
    BT_TRY(bt_own(ctx, out->log, bt_free_block));
    out->count = f.count;
    out->batch = f.rows;
    out->steps = f.steps;
    return bt_program_make(ctx,
                           &(bt_program_desc){
                               .loss = bt_cross_entropy(ctx, f.logits, f.batch.labels),
                               .logits = f.logits,
                               .labels = f.batch.labels,
                               .log_steps = (int)f.steps,
                               .prediction_count = predictions ? f.count : 0,
                           },
                           &out->program);
}

bt_status bt_evaluator_run(bt_context *ctx, bt_evaluator *e, bt_evaluation *out,
                           int32_t *predictions) {
    double start = bt_seconds(), loss = 0, correct = 0;
    BT_TRY(bt_program_seek(ctx, e->program, 0));
    BT_TRY(bt_program_run(ctx, e->program, e->steps));
    BT_TRY(bt_program_log(ctx, e->program, 0, e->steps, e->log));
    for (uint32_t s = 0; s < e->steps; s++) {
        int left = e->count - (int)s * e->batch;
        loss += e->log[s].loss * (left < e->batch ? left : e->batch);
        correct += e->log[s].correct;
    }
    double p = correct / e->count;
    *out = (bt_evaluation){.count = e->count,
                           .correct = (int)correct,
                           .loss = loss / e->count,
                           .accuracy = p,
                           .standard_error = sqrt(p * (1 - p) / e->count),
                           .seconds = bt_seconds() - start};
    if (!predictions) return BT_OK;
    return bt_program_predictions(ctx, e->program, predictions, (size_t)e->count);
}

bt_status bt_evaluate(bt_context *ctx, bt_model *model, bt_dataset *set, int batch,
                      bt_evaluation *out, int32_t *predictions) {
    bt_evaluator e;
    uint32_t mark = bt_mark(ctx);
    *out = (bt_evaluation){0};
    bt_status status = bt_evaluator_make(ctx, model, set, batch, predictions, &e);
    if (status == BT_OK) status = bt_evaluator_run(ctx, &e, out, predictions);
    bt_release(ctx, mark);
    return status;
}

// ---- Prediction ------------------------------------------------------------------------------

// One program step for each batch; the rows that the last batch leaves empty are dropped.
static bt_status read_probabilities(bt_context *ctx, bt_program *program, const forward *f,
                                    bt_tensor t, float *out) {
    size_t classes = (size_t)bt_tensor_shape(ctx, t).dim[1], numbers = (size_t)f->rows * classes;
    size_t size = bt_dtype_size(bt_tensor_dtype(ctx, t));
    void *rows = malloc(numbers * size);
    if (!rows) return bt_fail_memory(bt_error_of(ctx), "probabilities", numbers * size);
    bt_status status = bt_own(ctx, rows, bt_free_block);
    for (size_t at = 0, end = (size_t)f->count * classes; at < end && status == BT_OK;
         at += numbers) {
        status = bt_program_run(ctx, program, 1);
        if (status == BT_OK) status = bt_program_read(ctx, program, 0, rows, numbers * size);
        size_t n = end - at < numbers ? end - at : numbers;
        if (status == BT_OK && size == sizeof(float)) memcpy(out + at, rows, n * size);
        for (size_t i = 0; i < n && status == BT_OK && size == sizeof(double); i++)
            out[at + i] = (float)((double *)rows)[i];
    }
    return status;
}

static bt_status predict(bt_context *ctx, bt_model *model, const uint8_t *images, int count,
                         float *probabilities) {
    const bt_model_desc *d = &model->desc;
    uint8_t *labels = calloc((size_t)count, 1);
    if (!labels) return bt_fail_memory(bt_error_of(ctx), "labels", (size_t)count);
    bt_dataset *set;
    bt_status status =
        bt_dataset_make(ctx, images, labels, count, d->channels, d->height, d->width, 1, &set);
    free(labels);
    BT_TRY(status);
    forward f = make_forward(ctx, model, set, 0);
    bt_tensor p = bt_softmax(ctx, f.logits, 1);
    bt_program *program;
    BT_TRY(bt_program_make(ctx, &(bt_program_desc){.outputs = &p, .output_count = 1}, &program));
    return read_probabilities(ctx, program, &f, p, probabilities);
}

bt_status bt_predict(bt_context *ctx, bt_model *model, const uint8_t *images, int count,
                     float *probabilities) {
    if (count < 0) return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE, "bt_predict: %d images", count);
    if (count == 0) return BT_OK;
    uint32_t mark = bt_mark(ctx);
    bt_status status = predict(ctx, model, images, count, probabilities);
    bt_release(ctx, mark);
    return status;
}
