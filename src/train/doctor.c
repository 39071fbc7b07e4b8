// Looks for what commonly keeps a network from learning: in the data, in the model before and after
// training, and in the figures of the epochs. What counts as ill is in one table of thresholds.
#include "train/train.h"

#include "data/dataset.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Each was set so that the sick trainings of tests/test_doctor.c are far on one side and the
// healthy ones of docs/doctor.md far on the other. "Fresh" is what 2640 fresh networks have: eleven
// kinds, He's and Xavier's weights, digits and MNIST, 60 seeds.
static const struct {
    double class_ratio; // Samples of the largest class for one of the smallest. At 10 a class
                        // has next to no weight in the loss; MNIST has 1.2.
    double pixel_range; // Bytes between darkest and brightest. Below 32 of 255 the inputs are
                        // below 1/8, while initial weights are made for about 1.
    double loss_excess; // First loss above ln(classes). Fresh: up to 2.1; 14 with the weights of
                        // mlp five times as large.
    double signal_low;  // Deviation of a layer's activations over samples before training.
    double signal_high; // Fresh: 0.013 to 1.0; 0.005 after three sigmoids, which still learn.
    double gradient_spread; // Between layers, of gradient norm over weight norm before training.
                            // Fresh: up to 37; 650 with five sigmoids in a row.
    double gradient_large;  // That ratio itself. Fresh: up to 2.8.
    double dead_warning;  // Share of dead units. Healthy networks have up to 0.22 in a layer after
    double dead_problem;  // training; with half of them the layer could be half as large.
    double lr_far_low;    // Below this part of the lowest rate that helped in 100 steps, an epoch
                          // of 1000 steps moves about as far as those did.
    double lr_far_high;   // Above the best rate of the test by this factor: momentum and the
                          // growth of the rate hide a factor of about 3 at the upper end.
    double learned;       // Part of the loss of guessing that a training must get below.
    double gap;           // Accuracy in training above that in validation. MNIST: 0.01 to 0.03.
    double loss_rise;     // Last validation loss over the lowest: 1.0 to 1.2 when healthy, and
                          // memorising doubles it.
    double one_class;     // Share of the samples put into one class.
    double chance_errors; // Standard errors by which an accuracy must exceed guessing.
} limits = {
    .class_ratio = 10,
    .pixel_range = 32,
    .loss_excess = 3,
    .signal_low = 0.004,
    .signal_high = 50,
    .gradient_spread = 100,
    .gradient_large = 10,
    .dead_warning = 0.4,
    .dead_problem = 0.95,
    .lr_far_low = 1.0 / 30,
    .lr_far_high = 3,
    .learned = 0.95,
    .gap = 0.08,
    .loss_rise = 1.5,
    .one_class = 0.9,
    .chance_errors = 3,
};

enum { SAMPLES = 1000, PIXEL_SAMPLES = 10000, RANGE_STEPS = 100 };
static const double range_first = 1e-5, range_last = 10; // 15 % more at each step

typedef struct visit {
    bt_context *ctx;
    const bt_train_desc *desc;
    bt_diagnosis *out;
    bt_dataset *sample;
    double guessing;     // loss of the best guess that does not look at the images
    int counts[256];     // of the labels
    int largest, rarest; // classes
} visit;

// ---- Telling ---------------------------------------------------------------------------------

const char *bt_severity_name(bt_severity severity) {
    return severity == BT_SEVERITY_PROBLEM ? "problem" : "warning";
}

// A place for a finding: that of the same one if it was there already.
static bt_finding *place(bt_diagnosis *d, const char *code, const char *layer) {
    for (int i = 0; i < d->count; i++)
        if (!strcmp(d->findings[i].code, code) && !strcmp(d->findings[i].layer, layer))
            return &d->findings[i];
    return d->count < BT_FINDINGS_MAX ? &d->findings[d->count++] : NULL;
}

__attribute__((format(printf, 6, 7))) static void find(visit *v, bt_severity severity,
                                                       const char *code, const char *layer,
                                                       const char *hint, const char *format, ...) {
    bt_finding *f = place(v->out, code, layer);
    if (!f) return;
    *f = (bt_finding){.severity = severity, .code = code, .hint = hint};
    snprintf(f->layer, sizeof f->layer, "%s", layer);
    va_list args;
    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void looked_at(visit *v, const char *format, ...) {
    char *text = v->out->looked_at;
    size_t room = sizeof v->out->looked_at, used = strlen(text);
    if (used) used += (size_t)snprintf(text + used, room - used, "; ");
    if (used >= room) return;
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, room - used, format, args);
    va_end(args);
}

// ---- Data ------------------------------------------------------------------------------------

static void count_labels(visit *v) {
    const bt_dataset *set = v->desc->train;
    for (int i = 0; i < set->info.count; i++) v->counts[bt_dataset_label(set, i)]++;
    for (int c = 0; c < set->info.classes; c++) {
        if (v->counts[c] > v->counts[v->largest]) v->largest = c;
        if (v->counts[c] < v->counts[v->rarest]) v->rarest = c;
        double share = (double)v->counts[c] / set->info.count;
        if (share > 0) v->guessing -= share * log(share);
    }
}

static void look_at_labels(visit *v) {
    const bt_dataset_info *d = &v->desc->train->info;
    int most = v->counts[v->largest], least = v->counts[v->rarest];
    looked_at(v, "%d labels in %d classes (%.1f %% in the largest)", d->count, d->classes,
              100.0 * most / d->count);
    if (d->classes < 2 || most < limits.class_ratio * least) return;
    find(
        v, BT_SEVERITY_WARNING, "classes-unbalanced", "",
        "more samples of the rare classes or fewer of the frequent ones, and judging by the recall "
        "of each class (bantam eval)",
        "class %d has %d of %d samples (%.1f %%) and class %d has %d", v->largest, most, d->count,
        100.0 * most / d->count, v->rarest, least);
}

// Returns false where all images are the same, so that nothing else can be told from them.
static bool look_at_pixels(visit *v) {
    const bt_dataset *set = v->desc->train;
    const bt_dataset_info *d = &set->info;
    int count = d->count < PIXEL_SAMPLES ? d->count : PIXEL_SAMPLES, low = 255, high = 0;
    size_t pixels = (size_t)d->channels * (size_t)d->height * (size_t)d->width;
    bool differ = false;
    for (int i = 0; i < count; i++) {
        const uint8_t *image = bt_dataset_image(set, i);
        differ |= i > 0 && memcmp(image, bt_dataset_image(set, 0), pixels);
        for (size_t p = 0; p < pixels; p++) {
            if (image[p] < low) low = image[p];
            if (image[p] > high) high = image[p];
        }
    }
    looked_at(v, "pixels from %d to %d", low, high);
    if (count > 1 && !differ) {
        find(v, BT_SEVERITY_PROBLEM, "inputs-constant", "",
             "looking at the file of images (bantam inspect): it holds one image again and again",
             "the first %d images are all the same", count);
        return false;
    }
    if (high - low < limits.pixel_range)
        find(v, BT_SEVERITY_WARNING, "inputs-not-scaled", "",
             "stretching the pixels to 0 ... 255; the network gets them divided by 255",
             "pixels run from %d to %d of 255", low, high);
    return true;
}

// ---- Layers ----------------------------------------------------------------------------------

static bt_status draw_sample(visit *v) {
    bt_dataset *set = v->desc->train, *rest;
    v->sample = set;
    if (set->info.count <= SAMPLES) return BT_OK;
    return bt_dataset_split(v->ctx, set, (double)SAMPLES / set->info.count, 1, &rest, &v->sample);
}

static void judge_dead(visit *v, const bt_layer_stats *l) {
    if (!(l->dead > limits.dead_warning)) return;
    find(v, l->dead > limits.dead_problem ? BT_SEVERITY_PROBLEM : BT_SEVERITY_WARNING, "dead-units",
         l->name, "a lower learning rate or a warm-up, biases that start at 0, --clip 1, or gelu",
         "%.0f %% of its %d units pass no gradient for any of %d samples", 100 * l->dead, l->units,
         v->sample->info.count);
}

// Judges the first layer whose activations are out of bounds: those after it follow.
static void judge_signal(visit *v, const bt_layer_stats *l, int count) {
    for (int i = 0; i < count; i++, l++) {
        bool low = l->activation_deviation < limits.signal_low;
        if (!low && l->activation_deviation <= limits.signal_high) continue;
        find(v, BT_SEVERITY_PROBLEM, low ? "signal-vanishes" : "signal-explodes", l->name,
             low ? "larger initial weights (--init he), fewer layers, relu or gelu for sigmoid"
                 : "smaller initial weights (--init he or xavier)",
             "its activations have deviation %.2g over samples, and 0.02 to 5 is usual: they "
             "hardly %s",
             l->activation_deviation,
             low ? "tell samples apart" : "change any more while it learns");
        return;
    }
}

static void judge_gradients(visit *v, const bt_layer_stats *layers, int count) {
    const bt_layer_stats *low = NULL, *high = NULL;
    double least = INFINITY, most = 0;
    for (int i = 0; i < count; i++) {
        double ratio = layers[i].gradient_norm / layers[i].weight_norm;
        if (!isfinite(ratio)) continue;
        if (ratio < least) least = ratio, low = &layers[i];
        if (ratio > most) most = ratio, high = &layers[i];
    }
    if (!high) return;
    if (most > limits.gradient_large)
        find(v, BT_SEVERITY_PROBLEM, "gradient-explodes", high->name,
             "smaller initial weights, --clip 1, a lower learning rate",
             "its gradient has %.3g times the norm of its weights", most);
    if (most <= limits.gradient_spread * least) return;
    find(v, low < high ? BT_SEVERITY_PROBLEM : BT_SEVERITY_WARNING, "gradient-vanishes", low->name,
         "relu or gelu for sigmoid and tanh, --init he, fewer layers, --opt adam",
         "its gradient has %.2g times the norm of its weights, and that of %s %.2g times", least,
         high->name, most);
}

static bt_status look_at_layers(visit *v, bool fresh) {
    bt_layer_stats *layers = calloc(BT_LAYERS_MAX, sizeof *layers);
    if (!layers) return bt_fail_memory(bt_error_of(v->ctx), "statistics", sizeof *layers);
    BT_TRY(bt_own(v->ctx, layers, bt_free_block));
    int count;
    BT_TRY(bt_model_statistics(v->ctx, v->desc->model, v->sample, SAMPLES, layers, BT_LAYERS_MAX,
                               &count));
    double dead = 0;
    for (int i = 0; i < count; i++) {
        judge_dead(v, &layers[i]);
        if (layers[i].dead > dead) dead = layers[i].dead;
    }
    looked_at(v, "%s of %d layers (at most %.0f %% dead units in one)",
              fresh ? "signal and gradients" : "activations", count, 100 * dead);
    if (!fresh || dead > limits.dead_problem) return BT_OK; // no wonder that nothing gets through
    judge_signal(v, layers, count);
    judge_gradients(v, layers, count);
    return BT_OK;
}

// ---- Loss and learning rate ------------------------------------------------------------------

static bt_status look_at_loss(visit *v, double *loss) {
    bt_evaluation e;
    double chance = log(v->desc->model->desc.classes);
    BT_TRY(bt_evaluate(v->ctx, v->desc->model, v->sample, 0, &e, NULL));
    *loss = e.loss;
    looked_at(v, "first loss %.3g (guessing: %.3g)", e.loss, chance);
    if (e.loss < chance + limits.loss_excess) return BT_OK;
    find(v, BT_SEVERITY_WARNING, "first-loss", "", "smaller initial weights (--init he or xavier)",
         "the first loss is %.3g, and that of guessing is ln %d = %.3g", e.loss,
         v->desc->model->desc.classes, chance);
    return BT_OK;
}

static bt_status copy_model(bt_context *ctx, const bt_model *model, bt_model **out) {
    BT_TRY(bt_model_make(ctx, &model->desc, out));
    for (int i = 0; i < model->parameter_count; i++) {
        bt_tensor t = model->parameters[i];
        size_t bytes = bt_shape_count(bt_tensor_shape(ctx, t)) * bt_dtype_size(model->desc.dtype);
        void *values = malloc(bytes + 1);
        if (!values) return bt_fail_memory(bt_error_of(ctx), "the weights of a layer", bytes);
        bt_status status = bt_read(ctx, t, values, bytes);
        if (status == BT_OK) status = bt_write(ctx, (*out)->parameters[i], values, bytes);
        free(values);
        BT_TRY(status);
    }
    return BT_OK;
}

static double range_rate(int step) {
    return range_first * pow(range_last / range_first, (double)step / (RANGE_STEPS - 1));
}

// Trains a copy with a rate that grows from step to step. Smith, "Cyclical learning rates for
// training neural networks", 2017, section 3.3.
static bt_status train_range(visit *v, bt_log_entry *log) {
    const bt_train_desc *d = v->desc;
    bt_model *model;
    bt_program *program;
    bt_hyper table[RANGE_STEPS];
    for (int i = 0; i < RANGE_STEPS; i++) table[i] = d->hyper, table[i].lr = range_rate(i);
    int batch = d->batch ? d->batch : 64;
    if (batch > d->train->info.count) batch = d->train->info.count;
    BT_TRY(copy_model(v->ctx, d->model, &model));
    bt_batch in = bt_dataset_batch(v->ctx, &(bt_batch_desc){.set = d->train,
                                                            .batch = batch,
                                                            .dtype = model->desc.dtype,
                                                            .shuffle = true,
                                                            .seed = d->seed});
    bt_tensor logits = bt_model_forward(v->ctx, model, in.images);
    BT_TRY(bt_program_make(v->ctx,
                           &(bt_program_desc){.loss = bt_cross_entropy(v->ctx, logits, in.labels),
                                              .parameters = model->parameters,
                                              .parameter_count = model->parameter_count,
                                              .optimizer = d->optimizer,
                                              .hyper = table,
                                              .hyper_count = RANGE_STEPS,
                                              .log_steps = RANGE_STEPS},
                           &program));
    BT_TRY(bt_program_run(v->ctx, program, RANGE_STEPS));
    return bt_program_log(v->ctx, program, 0, RANGE_STEPS, log);
}

// Mean of the losses around a step; infinite once one of them is not finite.
static double smooth(const bt_log_entry *log, int step) {
    int first = step < 3 ? 0 : step - 3, last = step + 3 < RANGE_STEPS ? step + 3 : RANGE_STEPS - 1;
    double sum = 0;
    for (int i = first; i <= last; i++) sum += log[i].loss;
    return isfinite(sum) ? sum / (last - first + 1) : INFINITY;
}

// From where a fifth of the fall of the loss is done to where half of it is lost again. A fall to
// the loss of guessing does not count: the biases of the last layer learn that much.
static void find_range(visit *v, const bt_log_entry *log) {
    double start = 0, least = INFINITY;
    int end = 0, low = 0, high = 0;
    for (int i = 0; i < 15; i++) start += log[i].loss / 15; // at these rates nothing moves
    if (!(start > 0)) return;                               // one class: there is nothing to learn
    while (end < RANGE_STEPS && smooth(log, end) < 1.5 * start) {
        if (smooth(log, end) < least) least = smooth(log, end);
        end++;
    }
    if (end < RANGE_STEPS) v->out->lr_high = range_rate(end);
    if (start > v->guessing) start = v->guessing;
    if (!(least < 0.9 * start)) return;
    while (smooth(log, low) > start - 0.2 * (start - least)) low++;
    for (int i = low; i < end; i++)
        if (smooth(log, i) < start - 0.5 * (start - least)) high = i;
    v->out->lr_low = range_rate(low);
    v->out->lr_high = range_rate(high);
}

static bt_status look_at_rates(visit *v) {
    bt_log_entry log[RANGE_STEPS];
    BT_TRY(train_range(v, log));
    find_range(v, log);
    double lr = v->desc->hyper.lr, low = v->out->lr_low, high = v->out->lr_high;
    if (isfinite(low))
        looked_at(v, "learning rates (%.2g to %.2g help in %d steps, asked for: %g)", low, high,
                  RANGE_STEPS, lr);
    else
        looked_at(v, "learning rates (none helps within %d steps)", RANGE_STEPS);
    if (lr < limits.lr_far_low * low)
        find(
            v, BT_SEVERITY_PROBLEM, "lr-low", "", "a learning rate in that range (--lr)",
            "the learning rate %g is far below those that help in a test of %d steps: %.2g to %.2g",
            lr, RANGE_STEPS, low, high);
    if (lr > limits.lr_far_high * high)
        find(v, BT_SEVERITY_PROBLEM, "lr-high", "", "a lower learning rate (--lr)",
             "the learning rate is %g, and in a test of %d steps the loss grew from %.2g on", lr,
             RANGE_STEPS, high);
    return BT_OK;
}

// ---- Predictions and epochs ------------------------------------------------------------------

static bt_status look_at_predictions(visit *v) {
    int32_t predicted[SAMPLES];
    int counts[256] = {0}, labels = 0, most = 0, n = v->sample->info.count;
    bt_evaluation e;
    BT_TRY(bt_evaluate(v->ctx, v->desc->model, v->sample, 0, &e, predicted));
    for (int i = 0; i < n; i++) counts[predicted[i] & 255]++;
    for (int c = 0; c < 256; c++)
        if (counts[c] > counts[most]) most = c;
    for (int i = 0; i < n; i++) labels += bt_dataset_label(v->sample, i) == most;
    looked_at(v, "predictions of %d samples", n);
    if (counts[most] < limits.one_class * n || labels > 0.5 * n) return BT_OK;
    find(v, BT_SEVERITY_PROBLEM, "one-class", "",
         "a lower learning rate; the answers do not depend on the images any more",
         "%d of %d samples are put into class %d, which %d of them have", counts[most], n, most,
         labels);
    return BT_OK;
}

static void judge_learning(visit *v, const bt_epoch *last) {
    if (!(last->train_loss > limits.learned * v->guessing)) return;
    bool explained = false;
    for (int i = 0; i < v->out->count; i++)
        explained |= v->out->findings[i].severity == BT_SEVERITY_PROBLEM;
    find(v, BT_SEVERITY_PROBLEM, "nothing-learned", "",
         explained ? "what the other findings say"
                   : "looking whether labels belong to their images (they look shuffled), then "
                     "--opt adam, and more epochs",
         "the training loss is %.3g at the end, and guessing has %.3g", last->train_loss,
         v->guessing);
}

static void judge_validation(visit *v, const bt_epoch *epochs, int count) {
    const bt_epoch *last = &epochs[count - 1];
    if (!v->desc->validation || !isfinite(last->val_loss)) return;
    double n = v->desc->validation->info.count, p = last->val_accuracy, lowest = last->val_loss;
    double error = limits.chance_errors * sqrt(fmax(p * (1 - p), 0.01) / n);
    double chance = (double)v->counts[v->largest] / v->desc->train->info.count;
    double gap = last->train_accuracy - p;
    int best = last->epoch;
    for (int i = 0; i < count; i++)
        if (epochs[i].val_loss < lowest) lowest = epochs[i].val_loss, best = epochs[i].epoch;
    if (gap > limits.gap + error && p < chance + error)
        find(
            v, BT_SEVERITY_PROBLEM, "labels-random", "",
            "looking whether labels belong to their images: what was learned by heart tells "
            "nothing about other samples",
            "accuracy is %.1f %% in training and %.1f %% in validation, where guessing has %.1f %%",
            100 * last->train_accuracy, 100 * p, 100 * chance);
    else if (gap > limits.gap + error)
        find(v, BT_SEVERITY_WARNING, "overfitting", "",
             "more samples, a smaller network, weight decay (--wd), fewer epochs (--patience)",
             "accuracy is %.1f %% in training and %.1f %% in validation",
             100 * last->train_accuracy, 100 * p);
    else if (last->val_loss > limits.loss_rise * lowest && last->val_loss > 2 * last->train_loss)
        find(
            v, BT_SEVERITY_WARNING, "overfitting", "",
            "fewer epochs (--patience; best.safetensors is from the best one), weight decay (--wd)",
            "the validation loss was %.3g after epoch %d and is %.3g at the end", lowest, best,
            last->val_loss);
}

// ---- The two visits --------------------------------------------------------------------------

static bt_status open_visit(visit *v) {
    if (!v->desc->model || !v->desc->train)
        return bt_fail(bt_error_of(v->ctx), BT_ERROR_USAGE,
                       "the doctor needs a model and training data");
    BT_TRY(bt_model_fits(v->ctx, v->desc->model, v->desc->train));
    count_labels(v);
    return draw_sample(v);
}

static bt_status before(visit *v) {
    double loss;
    BT_TRY(open_visit(v));
    look_at_labels(v);
    if (!look_at_pixels(v)) return BT_OK;
    BT_TRY(look_at_loss(v, &loss));
    // (A network that has learned already may have weights of any size, and hardly learns more in a
    // short test.)
    if (loss < 0.5 * v->guessing) {
        looked_at(v, "(it has learned before, so learning rates were not tested)");
        return BT_OK;
    }
    BT_TRY(look_at_layers(v, true));
    return look_at_rates(v);
}

static bt_status after(visit *v, const bt_epoch *epochs, int count) {
    BT_TRY(open_visit(v));
    BT_TRY(look_at_layers(v, false));
    BT_TRY(look_at_predictions(v));
    if (count < 1) return BT_OK;
    looked_at(v, "loss and accuracy of %d epoch%s%s", count, count > 1 ? "s" : "",
              v->desc->validation ? "" : " (no validation)");
    judge_learning(v, &epochs[count - 1]);
    judge_validation(v, epochs, count);
    return BT_OK;
}

bt_status bt_doctor_before(bt_context *ctx, const bt_train_desc *desc, bt_diagnosis *out) {
    visit v = {.ctx = ctx, .desc = desc, .out = out};
    *out = (bt_diagnosis){.lr_low = NAN, .lr_high = NAN};
    uint32_t mark = bt_mark(ctx);
    bt_status status = before(&v);
    bt_release(ctx, mark);
    return status;
}

bt_status bt_doctor_after(bt_context *ctx, const bt_train_desc *desc, const bt_epoch *epochs,
                          int count, bt_diagnosis *diagnosis) {
    visit v = {.ctx = ctx, .desc = desc, .out = diagnosis};
    uint32_t mark = bt_mark(ctx);
    bt_status status = after(&v, epochs, count);
    bt_release(ctx, mark);
    return status;
}
