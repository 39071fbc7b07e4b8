// The training loop. All that happens from step to step is in the program on the device; the host
// runs it for a stretch of steps, reads the log of that stretch, and looks up once in a while to
// report, validate, save, and see whether it is time to stop.
#include "train/trace.h"
#include "train/train.h"

#include "base/threads.h"
#include "data/dataset.h"
#include "data/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEPS_MAX = 1 << 24, PATH_BYTES = 4096 };

static const double stretch_seconds = 0.075; // between two reports
static const double save_seconds = 1;        // between two saves of a kind, at least

typedef struct saver {
    const char *name; // of the file
    bt_checkpoint *checkpoint;
    bool pending;    // there is something to write
    double tried_at; // bt_seconds; 0: not yet
    bt_error error;  // of the last try
} saver;

typedef struct run {
    bt_context *ctx;
    const bt_train_desc *desc;
    bt_program *program;
    bt_evaluator validation;
    bt_run_state state;
    uint32_t steps, epoch_steps, stretch;
    // The running epoch: its log, and the sums over it.
    bt_log_entry *log;
    uint32_t log_count, log_reported;
    double loss_sum, correct_sum, rows;
    double epoch_rows, epoch_seconds; // since the epoch began or was resumed, for the speed
    bool epoch_best;
    double started;
    saver last, best;
    bool save_asked;
    const char *stop; // why, once it is time
    bt_trace trace;
    double epoch_began; // bt_seconds
} run;

// ---- Checking --------------------------------------------------------------------------------

static bt_status check_settings(const bt_train_desc *d, bt_error *err) {
    const struct {
        const char *name;
        double value, low, high;
    } settings[] = {
        {"epochs", d->epochs, 0, 1e9},
        {"batch", d->batch, 0, 1e9},
        {"optimizer", d->optimizer, BT_SGD, BT_ADAMW},
        {"schedule", d->schedule, BT_SCHEDULE_CONST, BT_SCHEDULE_ONECYCLE},
        {"learning rate", d->hyper.lr, 0, 1e6},
        {"momentum (or beta1)", d->hyper.momentum, 0, 0.999999},
        {"beta2", d->hyper.beta2, 0, 0.99999999},
        {"epsilon", d->hyper.epsilon, 0, 1},
        {"weight decay", d->hyper.weight_decay, 0, 1e6},
        {"gradient clipping", d->hyper.clip, 0, INFINITY},
        {"warm-up", d->warmup, 0, 1e9},
        {"target accuracy", d->target_accuracy, 0, 1},
        {"time limit", d->seconds_max, 0, INFINITY},
        {"patience", d->patience, 0, 1e9},
    };
    if (!d->model || !d->train)
        return bt_fail(err, BT_ERROR_USAGE, "bt_train needs a model and training data");
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (!(settings[i].value >= settings[i].low && settings[i].value <= settings[i].high))
            return bt_fail(err, BT_ERROR_USAGE, "the %s is %g; it must be from %g to %g",
                           settings[i].name, settings[i].value, settings[i].low, settings[i].high);
    if (d->model->parameter_count == 0)
        return bt_fail(err, BT_ERROR_USAGE, "the model \"%s\" has nothing to train",
                       d->model->spec);
    return BT_OK;
}

static bt_status check_folder(const char *folder, bt_error *err) {
    if (strlen(folder) + 32 > PATH_BYTES)
        return bt_fail(err, BT_ERROR_USAGE, "the name of the checkpoint folder has %zu characters",
                       strlen(folder));
    BT_TRY(bt_folder_make(folder, err));
    if (access(folder, W_OK | X_OK) == 0) return BT_OK;
    return bt_fail(err, BT_ERROR_MEMORY, "cannot write checkpoints into %s; choose another folder",
                   folder);
}

// ---- Making ----------------------------------------------------------------------------------

static bt_status plan(run *r) {
    const bt_train_desc *d = r->desc;
    int count = d->train->info.count, epochs = d->epochs ? d->epochs : 10;
    int batch = d->batch ? d->batch : 64;
    if (batch > count) batch = count;
    r->epoch_steps = (uint32_t)((count - 1) / batch + 1);
    uint64_t steps = (uint64_t)r->epoch_steps * (uint64_t)epochs;
    if (steps > STEPS_MAX)
        return bt_fail(bt_error_of(r->ctx), BT_ERROR_USAGE,
                       "%d epochs of %u steps are %llu steps; a run has at most %d: ask for fewer "
                       "epochs, or a larger batch",
                       epochs, r->epoch_steps, (unsigned long long)steps, STEPS_MAX);
    r->steps = (uint32_t)steps;
    r->stretch = 1;
    r->state = (bt_run_state){.optimizer = d->optimizer,
                              .schedule = d->schedule,
                              .epochs = epochs,
                              .batch = batch,
                              .train_count = count,
                              .file_order = d->file_order,
                              .seed = d->seed,
                              .hyper = d->hyper,
                              .warmup = d->warmup,
                              .best_accuracy = NAN,
                              .train_loss = NAN,
                              .train_accuracy = NAN,
                              .val_loss = NAN,
                              .val_accuracy = NAN};
    return BT_OK;
}

static bt_status make_program(run *r, const bt_hyper *table) {
    const bt_train_desc *d = r->desc;
    bt_batch batch = bt_dataset_batch(r->ctx, &(bt_batch_desc){.set = d->train,
                                                               .batch = r->state.batch,
                                                               .dtype = d->model->desc.dtype,
                                                               .shuffle = !d->file_order,
                                                               .seed = d->seed});
    bt_tensor logits = bt_model_forward(r->ctx, d->model, batch.images);
    return bt_program_make(
        r->ctx,
        &(bt_program_desc){.loss = bt_cross_entropy(r->ctx, logits, batch.labels),
                           .parameters = d->model->parameters,
                           .parameter_count = d->model->parameter_count,
                           .optimizer = d->optimizer,
                           .hyper = table,
                           .hyper_count = (int)r->steps,
                           .logits = logits,
                           .labels = batch.labels,
                           .log_steps = (int)r->epoch_steps,
                           .profile = d->profile},
        &r->program);
}

static bt_status make_programs(run *r) {
    const bt_train_desc *d = r->desc;
    size_t bytes = r->steps * sizeof(bt_hyper);
    bt_hyper *table = malloc(bytes);
    if (!table) return bt_fail_memory(bt_error_of(r->ctx), "the learning rates", bytes);
    for (uint32_t s = 0; s < r->steps; s++)
        table[s] = bt_schedule_at(d, s, r->steps, r->epoch_steps);
    bt_status status = make_program(r, table);
    free(table);
    BT_TRY(status);
    if (!d->validation) return BT_OK;
    return bt_evaluator_make(r->ctx, d->model, d->validation, 0, false, &r->validation);
}

static bt_status make_saver(run *r, saver *s, const char *name) {
    s->name = name;
    if (!r->desc->folder) return BT_OK;
    return bt_checkpoint_make(r->ctx, r->desc->model, r->program, r->epoch_steps, r->desc->settings,
                              &s->checkpoint);
}

static void count_step(run *r, uint32_t i) {
    int64_t left = r->state.train_count - (int64_t)i * r->state.batch;
    double rows = (double)(left < r->state.batch ? left : r->state.batch);
    r->loss_sum += r->log[i].loss * rows;
    r->correct_sum += r->log[i].correct;
    r->rows += rows;
}

static bt_status open_run(run *r) {
    const bt_train_desc *d = r->desc;
    BT_TRY(check_settings(d, bt_error_of(r->ctx)));
    BT_TRY(bt_model_fits(r->ctx, d->model, d->train));
    if (d->folder) BT_TRY(check_folder(d->folder, bt_error_of(r->ctx)));
    BT_TRY(plan(r));
    BT_TRY(make_programs(r));
    BT_TRY(make_saver(r, &r->last, "last"));
    BT_TRY(make_saver(r, &r->best, "best"));
    r->log = calloc(r->epoch_steps, sizeof *r->log);
    if (!r->log)
        return bt_fail_memory(bt_error_of(r->ctx), "the log", r->epoch_steps * sizeof *r->log);
    BT_TRY(bt_own(r->ctx, r->log, bt_free_block));
    if (!d->resume) return BT_OK;
    BT_TRY(bt_checkpoint_restore(r->ctx, d->resume, d->model, r->program, r->epoch_steps, &r->state,
                                 r->log, &r->log_count));
    for (uint32_t i = 0; i < r->log_count; i++) count_step(r, i);
    r->log_reported = r->log_count;
    return BT_OK;
}

// ---- Reporting -------------------------------------------------------------------------------

// Of the running epoch, or of the last one when it is not yet running.
static double train_loss(const run *r) {
    return r->rows > 0 ? r->loss_sum / r->rows : r->state.train_loss;
}

static double train_accuracy(const run *r) {
    return r->rows > 0 ? r->correct_sum / r->rows : r->state.train_accuracy;
}

static void report(run *r, bt_event event) {
    const bt_run_state *s = &r->state;
    if (!r->desc->callback) return;
    bool epoch = event == BT_EVENT_EPOCH;
    uint32_t last = s->step > 0 ? s->step - 1 : 0;
    bt_progress p = {
        .event = event,
        .epoch = (int)((event == BT_EVENT_START ? s->step : last) / r->epoch_steps) + 1,
        .step = s->step,
        .steps = r->steps,
        .epoch_steps = r->epoch_steps,
        .seconds = s->seconds,
        .train_loss = r->rows > 0 ? train_loss(r) : NAN,
        .train_accuracy = r->rows > 0 ? train_accuracy(r) : NAN,
        .val_loss = epoch ? s->val_loss : NAN,
        .val_accuracy = epoch ? s->val_accuracy : NAN,
        .lr = bt_schedule_at(r->desc, last, r->steps, r->epoch_steps).lr,
        .images_per_second = r->epoch_seconds > 0 ? r->epoch_rows / r->epoch_seconds : NAN,
        .best = epoch && r->epoch_best,
        .log = r->log + r->log_reported,
        .log_first = s->step - (r->log_count - r->log_reported),
        .log_count = r->log_count - r->log_reported,
        .warning = r->last.error.status != BT_OK   ? r->last.error.text
                   : r->best.error.status != BT_OK ? r->best.error.text
                                                   : NULL,
        .program = event == BT_EVENT_START ? bt_program_note(r->program) : NULL,
    };
    r->log_reported = r->log_count;
    double began = bt_seconds();
    bt_answer answer = r->desc->callback(r->desc->user, &p);
    bt_trace_add(&r->trace, began, s->step, 0, "report");
    if (answer == BT_SAVE) r->save_asked = true;
    if (answer == BT_STOP && !r->stop) r->stop = "asked";
}

// ---- Saving ----------------------------------------------------------------------------------

static bt_status take(run *r, saver *s) {
    if (!s->checkpoint) return BT_OK;
    s->pending = false;
    double began = bt_seconds();
    BT_TRY(bt_checkpoint_take(r->ctx, s->checkpoint, &r->state, r->log, r->log_count));
    bt_trace_add(&r->trace, began, r->state.step, 0, "take checkpoint %s", s->name);
    s->pending = true;
    return BT_OK;
}

// A failure is kept for later: a full disk shall not end the run, and may be free again by then.
static void write_pending(run *r, saver *s, bool now) {
    double time = bt_seconds();
    if (!s->pending || (!now && s->tried_at > 0 && time - s->tried_at < save_seconds)) return;
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s.safetensors", r->desc->folder, s->name);
    bt_error_clear(&s->error);
    double began = bt_seconds();
    s->pending = bt_checkpoint_write(s->checkpoint, path, &s->error) != BT_OK;
    s->tried_at = bt_seconds();
    bt_trace_add(&r->trace, began, r->state.step, 0, "write checkpoint %s", s->name);
}

// Ends of epochs are taken when they are due, so that short epochs do not wait for the disk.
static bt_status save(run *r, bool epoch_end, bool now) {
    bool due = r->last.tried_at == 0 || bt_seconds() - r->last.tried_at >= save_seconds;
    if (now || (epoch_end && due)) BT_TRY(take(r, &r->last));
    write_pending(r, &r->last, now);
    write_pending(r, &r->best, now);
    return BT_OK;
}

// ---- Training --------------------------------------------------------------------------------

static bt_status check_finite(run *r, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++) {
        if (isfinite(r->log[i].loss)) continue;
        report(r, BT_EVENT_STEPS); // how it came to that
        uint32_t step = r->state.step - r->log_count + i;
        const char *note = bt_program_note(r->program); // a kernel may limit its weights
        return bt_fail(
            bt_error_of(r->ctx), BT_ERROR_NUMERIC,
            "the loss became %s at step %u (epoch %u) with learning rate %g; try a lower "
            "one, a warm-up, or gradient clipping%s%s",
            isnan(r->log[i].loss) ? "NaN" : "infinite", step + 1, step / r->epoch_steps + 1,
            bt_schedule_at(r->desc, step, r->steps, r->epoch_steps).lr, *note ? "; program: " : "",
            note);
    }
    return BT_OK;
}

// Runs a stretch of steps that stays within the epoch, and sizes the next one by the time it took.
static bt_status run_stretch(run *r) {
    uint32_t left = r->epoch_steps - r->log_count, n = r->stretch < left ? r->stretch : left;
    uint32_t first = r->log_count;
    double start = bt_seconds(), rows = r->rows;
    BT_TRY(bt_program_run(r->ctx, r->program, n));
    BT_TRY(bt_program_log(r->ctx, r->program, first, n, r->log + first));
    double seconds = bt_seconds() - start, most = 8.0 * r->stretch;
    for (uint32_t i = first; i < first + n; i++) count_step(r, i);
    bt_trace_add(&r->trace, start, r->state.step + 1, (uint32_t)(r->rows - rows), "steps");
    r->log_count += n;
    r->state.step += n;
    r->state.seconds += seconds;
    r->epoch_seconds += seconds;
    r->epoch_rows += r->rows - rows;
    double wanted = seconds > 0 ? stretch_seconds * n / seconds : most;
    r->stretch = wanted < 1 ? 1 : wanted > most ? (uint32_t)most : (uint32_t)wanted;
    return check_finite(r, first, n);
}

static void consider_stopping(run *r, double accuracy) {
    const bt_train_desc *d = r->desc;
    if (r->stop) return;
    if (d->target_accuracy > 0 && accuracy >= d->target_accuracy)
        r->stop = "target";
    else if (d->patience > 0 && r->state.stale_epochs >= d->patience)
        r->stop = "patience";
}

static bt_status finish_epoch(run *r) {
    bt_run_state *s = &r->state;
    s->train_loss = train_loss(r);
    s->train_accuracy = train_accuracy(r);
    if (r->validation.program) {
        bt_evaluation e;
        double began = bt_seconds();
        BT_TRY(bt_evaluator_run(r->ctx, &r->validation, &e, NULL));
        bt_trace_add(&r->trace, began, s->step, 0, "validation");
        s->val_loss = e.loss;
        s->val_accuracy = e.accuracy;
    }
    double accuracy = r->validation.program ? s->val_accuracy : s->train_accuracy;
    r->epoch_best = !(accuracy <= s->best_accuracy); // also when there was none
    s->stale_epochs++;
    if (r->epoch_best) {
        s->stale_epochs = 0;
        s->best_accuracy = accuracy;
        s->best_epoch = (int)(s->step / r->epoch_steps);
    }
    consider_stopping(r, accuracy);
    report(r, BT_EVENT_EPOCH);
    r->log_count = r->log_reported = 0;
    r->loss_sum = r->correct_sum = r->rows = r->epoch_rows = r->epoch_seconds = 0;
    if (r->epoch_best) BT_TRY(take(r, &r->best));
    bt_trace_add(&r->trace, r->epoch_began, s->step - r->epoch_steps + 1, 0, "epoch %u",
                 s->step / r->epoch_steps);
    r->epoch_began = bt_seconds();
    return BT_OK;
}

static bt_status train(run *r) {
    report(r, BT_EVENT_START);
    r->epoch_began = bt_seconds();
    while (!r->stop && r->state.step < r->steps) {
        BT_TRY(run_stretch(r));
        report(r, BT_EVENT_STEPS);
        bool epoch_end = r->log_count == r->epoch_steps;
        if (epoch_end) BT_TRY(finish_epoch(r));
        double seconds = bt_seconds() - r->started;
        if (!r->stop && r->desc->seconds_max > 0 && seconds >= r->desc->seconds_max)
            r->stop = "time";
        bool over = r->stop || r->state.step == r->steps; // saved below, once
        if (!over) BT_TRY(save(r, epoch_end, r->save_asked));
        r->save_asked = false;
    }
    if (!r->stop) r->stop = "epochs";
    return save(r, false, true);
}

// ---- Ending ----------------------------------------------------------------------------------

// The rows outlive the program.
static bt_status copy_profile(run *r, bt_profile_row **rows, int *count) {
    *count = bt_program_profile(r->program, NULL, 0);
    size_t bytes = (size_t)*count * sizeof **rows;
    *rows = malloc(bytes + 1);
    if (!*rows) return bt_fail_memory(bt_error_of(r->ctx), "the profile", bytes);
    *count = bt_program_profile(r->program, *rows, *count);
    bt_trace_add(&r->trace, r->started, 1, 0, "training");
    return bt_trace_launches(&r->trace, r->program, bt_error_of(r->ctx));
}

static void fill_result(const run *r, bt_train_result *out) {
    const bt_run_state *s = &r->state;
    double images = (double)(s->step / r->epoch_steps) * s->train_count + r->rows;
    *out = (bt_train_result){.epochs = (int)(s->step / r->epoch_steps),
                             .steps = s->step,
                             .seconds = s->seconds,
                             .images_per_second = s->seconds > 0 ? images / s->seconds : NAN,
                             .train_loss = train_loss(r),
                             .train_accuracy = train_accuracy(r),
                             .val_loss = s->val_loss,
                             .val_accuracy = s->val_accuracy,
                             .best_accuracy = s->best_accuracy,
                             .best_epoch = s->best_epoch,
                             .stop = r->stop};
}

bt_status bt_train(bt_context *ctx, const bt_train_desc *desc, bt_train_result *out) {
    run r = {.ctx = ctx, .desc = desc, .started = bt_seconds(), .trace = {.wanted = desc->profile}};
    bt_profile_row *rows = NULL;
    int row_count = 0;
    *out = (bt_train_result){0};
    uint32_t mark = bt_mark(ctx);
    bt_status status = open_run(&r);
    if (status == BT_OK) {
        status = train(&r);
        write_pending(&r, &r.best, true); // also when training failed: it is good
        fill_result(&r, out);
    }
    if (status == BT_OK && desc->profile) status = copy_profile(&r, &rows, &row_count);
    bt_release(ctx, mark);
    if (rows) BT_TRY(bt_own(ctx, rows, bt_free_block));
    out->profile = rows;
    out->profile_count = row_count;
    if (r.trace.spans) BT_TRY(bt_own(ctx, r.trace.spans, bt_free_block));
    out->trace = r.trace.spans;
    out->trace_count = r.trace.count;
    const bt_error *unsaved = r.last.pending ? &r.last.error : &r.best.error;
    if (status == BT_OK && (r.last.pending || r.best.pending))
        return bt_fail(bt_error_of(ctx), unsaved->status, "%s", unsaved->text);
    if (status == BT_OK && !strcmp(r.stop, "asked")) return BT_STOPPED;
    return status;
}
