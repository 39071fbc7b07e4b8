// See tensorboard.h.
#include "tensorboard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES_MAX = 25 };

// Keeps the training going without event files.
static void give_up(tensorboard *t) {
    const char *text = bt_error_text(t->ctx);
    note(t->s, "warning: no more TensorBoard events: %s", *text ? text : "out of memory");
    bt_error_reset(t->ctx);
    t->events = NULL;
}

void tensorboard_open(tensorboard *t, const settings *s, bt_context *ctx, bt_model *model,
                      const char *folder, uint32_t first_step) {
    *t = (tensorboard){.s = s, .ctx = ctx, .model = model};
    if (!opt_flag(s, "tensorboard")) return;
    if (bt_events_open(ctx, folder, first_step, &t->events) != BT_OK) give_up(t);
}

void tensorboard_epoch(tensorboard *t, const bt_progress *now) {
    const struct {
        const char *tag;
        double value;
    } scalars[] = {{"loss/train", now->train_loss},
                   {"loss/validation", now->val_loss},
                   {"accuracy/train", now->train_accuracy},
                   {"accuracy/validation", now->val_accuracy},
                   {"learning_rate", now->lr},
                   {"images_per_second", now->images_per_second}};
    bt_status status = BT_OK;
    if (!t->events) return;
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars && status == BT_OK; i++)
        if (!isnan(scalars[i].value))
            status =
                bt_events_scalar(t->ctx, t->events, scalars[i].tag, now->step, scalars[i].value);
    for (int i = 0; i < bt_model_parameter_count(t->model) && status == BT_OK; i++) {
        char tag[64];
        snprintf(tag, sizeof tag, "weights/%s", bt_model_parameter_name(t->model, i));
        status =
            bt_events_histogram(t->ctx, t->events, tag, now->step, bt_model_parameter(t->model, i));
    }
    if (status != BT_OK) give_up(t);
}

// ---- Misclassified samples ---------------------------------------------------------------------

typedef struct mistake {
    int sample, predicted;
    float sure; // the probability of what was predicted
} mistake;

static int surest_first(const void *a, const void *b) {
    const mistake *x = a, *y = b;
    return x->sure != y->sure ? (x->sure < y->sure ? 1 : -1) : x->sample - y->sample;
}

static bt_status rate_mistakes(tensorboard *t, const bt_dataset *set, mistake *list, int count) {
    bt_dataset_info d;
    bt_model_desc m;
    bt_dataset_describe(set, &d);
    bt_model_describe(t->model, &m);
    size_t bytes = (size_t)d.channels * (size_t)d.height * (size_t)d.width;
    uint8_t *images = malloc((size_t)count * bytes + 1);
    float *p = malloc((size_t)count * (size_t)m.classes * sizeof *p + 1);
    bt_status status = images && p ? BT_OK : BT_ERROR_MEMORY;
    for (int i = 0; i < count && status == BT_OK; i++)
        memcpy(images + (size_t)i * bytes, bt_dataset_image(set, list[i].sample), bytes);
    if (status == BT_OK) status = bt_predict(t->ctx, t->model, images, count, p);
    for (int i = 0; i < count && status == BT_OK; i++)
        list[i].sure = p[(size_t)i * (size_t)m.classes + (size_t)list[i].predicted];
    free(images);
    free(p);
    return status;
}

static bt_status add_image(tensorboard *t, const bt_dataset *set, const mistake *m, int rank,
                           uint32_t step) {
    bt_dataset_info d;
    char tag[96];
    bt_dataset_describe(set, &d);
    snprintf(tag, sizeof tag, "misclassified/%02d: %d taken for %d (%.1f %%)", rank,
             bt_dataset_label(set, m->sample), m->predicted, 100 * (double)m->sure);
    int channels = d.channels == 3 ? 3 : 1; // of others the first is shown
    return bt_events_image(t->ctx, t->events, tag, step, bt_dataset_image(set, m->sample), channels,
                           d.height, d.width);
}

void tensorboard_misclassified(tensorboard *t, const bt_dataset *set, const int32_t *predictions,
                               uint32_t step) {
    bt_dataset_info d;
    int count = 0;
    if (!t->events || !predictions) return;
    bt_dataset_describe(set, &d);
    mistake *list = calloc((size_t)d.count + 1, sizeof *list);
    for (int i = 0; list && i < d.count; i++)
        if (predictions[i] != bt_dataset_label(set, i))
            list[count++] = (mistake){.sample = i, .predicted = predictions[i]};
    bt_status status = list ? rate_mistakes(t, set, list, count) : BT_ERROR_MEMORY;
    if (list) qsort(list, (size_t)count, sizeof *list, surest_first);
    for (int i = 0; i < count && i < IMAGES_MAX && status == BT_OK; i++)
        status = add_image(t, set, &list[i], i + 1, step);
    free(list);
    if (status != BT_OK) give_up(t);
}

void tensorboard_close(tensorboard *t) {
    if (t->events && bt_events_close(t->ctx, t->events) != BT_OK) give_up(t);
    t->events = NULL;
}
