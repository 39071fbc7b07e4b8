// `bantam train`: from options to a trained network in a run directory. Signals are answered at
// the next report of the trainer: the handler only notes them.
#include "doctor.h"
#include "profile.h"
#include "progress.h"
#include "report/analysis.h"
#include "report/report.h"
#include "rundir.h"
#include "serve/serve.h"
#include "tensorboard.h"
#include "trace.h"
#include "watch.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// All that a training needs, so that the callback can reach it.
typedef struct training {
    settings *s;
    bt_context *ctx;
    bt_model *model;
    bt_dataset *train, *validation, *test;
    const bt_train_desc *desc;   // while it trains
    char checkpoint[PATH_BYTES]; // resumed from; "" for a new run
    uint32_t first_step;         // of that checkpoint
    char data_sha256[65];        // of the data it was trained on; "" if not known
    rundir dir;
    char program[256]; // how the device runs it, "" where it has nothing to say
    progress progress;
    doctor doctor;
    watch watch;
    server *server; // of --serve
    tensorboard tensorboard;
    json_t *profile; // rows of op_timings.csv; NULL without --profile
    bt_roofline roofline;
    bool started;    // the first step may come: from now on files of the run are written
    int failure;     // exit code of a failure that was printed
    int write_error; // errno of a file of the run that could not be written
    bool warned;     // of a save that failed and is tried again
} training;

// ---- Signals -----------------------------------------------------------------------------------

static volatile sig_atomic_t stop_signal, save_wanted;

static void on_signal(int signal_number) {
    if (signal_number == SIGUSR2)
        save_wanted = 1;
    else if (signal_number == SIGINT && stop_signal == SIGINT)
        _exit(EXIT_INTERRUPTED);
    else
        stop_signal = signal_number;
}

static void catch_signals(void) {
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, old;
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++) {
        sigaction(caught[i], NULL, &old);
        if (caught[i] == SIGHUP && old.sa_handler == SIG_IGN) continue; // under nohup
        sigaction(caught[i], &action, NULL);
    }
}

// ---- Settings ----------------------------------------------------------------------------------

// Takes over the settings of the checkpoint of --resume.
static int merge_checkpoint(bt_context *ctx, void *user) {
    training *t = user;
    return merge_kept(ctx, t->s, t->checkpoint, &t->first_step, t->data_sha256);
}

static const struct {
    const char *name;
    bt_optimizer optimizer;
} optimizers[] = {{"sgd", BT_SGD},
                  {"momentum", BT_SGD},
                  {"nesterov", BT_NESTEROV},
                  {"adam", BT_ADAM},
                  {"adamw", BT_ADAMW}};
static const char *const schedules[] = {[BT_SCHEDULE_CONST] = "const",
                                        [BT_SCHEDULE_STEP] = "step",
                                        [BT_SCHEDULE_COSINE] = "cosine",
                                        [BT_SCHEDULE_ONECYCLE] = "onecycle"};

static void describe_training(const settings *s, bt_train_desc *desc) {
    *desc = (bt_train_desc){
        .epochs = opt_int(s, "epochs"),
        .batch = opt_int(s, "batch"),
        .hyper = {.lr = opt_number(s, "lr"),
                  .momentum = opt_is(s, "opt", "sgd") ? 0 : opt_number(s, "momentum"),
                  .beta2 = 0.999,
                  .epsilon = 1e-8,
                  .weight_decay = opt_number(s, "wd"),
                  .clip = opt_number(s, "clip")},
        .warmup = opt_number(s, "warmup"),
        .file_order = opt_is(s, "shuffle", "off"),
        .seed = (uint64_t)opt_number(s, "seed"),
        .target_accuracy = opt_number(s, "target-acc"),
        .seconds_max = opt_number(s, "max-time"),
        .patience = opt_int(s, "patience"),
        .profile = opt_flag(s, "profile"),
    };
    for (int i = 0; i < 5; i++)
        if (opt_is(s, "opt", optimizers[i].name)) desc->optimizer = optimizers[i].optimizer;
    for (int i = 0; i < 4; i++)
        if (opt_is(s, "sched", schedules[i])) desc->schedule = (bt_schedule)i;
}

// ---- Preparing ---------------------------------------------------------------------------------

static int open_sets(training *t) {
    settings *s = t->s;
    bt_dataset *all;
    bt_dataset_info info;
    double split = opt_number(s, "val-split");
    CHECK(t->ctx, open_data(t->ctx, s, false, opt_int(s, "limit"), &all));
    t->train = all;
    bt_dataset_describe(all, &info);
    if (opt(s, "data")->from == FROM_CHECKPOINT && *t->data_sha256 &&
        strcmp(info.sha256, t->data_sha256))
        return fail(BT_ERROR_DATA,
                    "the data (%s, %d samples) is not what %s was trained on (SHA-256 %.12s... and "
                    "%.12s...); resume with the same --limit and files",
                    info.name, info.count, t->checkpoint, info.sha256, t->data_sha256);
    if (*t->data_sha256 && strcmp(info.sha256, t->data_sha256))
        note(s,
             "warning: the run goes on with other data (%s) than it was trained on; accuracies "
             "before and after do not compare",
             info.name);
    if (split > 0)
        CHECK(t->ctx, bt_dataset_split(t->ctx, all, split, (uint64_t)opt_number(s, "seed"),
                                       &t->train, &t->validation));
    CHECK(t->ctx, open_data(t->ctx, s, true, 0, &t->test));
    bt_dataset_info test;
    bt_dataset_describe(t->test, &test);
    if (test.height == info.height && test.width == info.width && test.channels == info.channels)
        return 0;
    return fail(BT_ERROR_DATA, "%s: images of %d x %d, but those to train on (%s) are %d x %d",
                test.source, test.height, test.width, info.source, info.height, info.width);
}

static int make_model(training *t) {
    settings *s = t->s;
    bt_dtype dtype = opt_is(s, "precision", "fp64") ? BT_F64 : BT_F32;
    if (s->arg_count == 0) { // resumed
        CHECK(t->ctx, bt_model_load(t->ctx, t->checkpoint, dtype, &t->model));
        return 0;
    }
    bt_dataset_info info, test;
    bt_dataset_describe(t->train, &info);
    bt_dataset_describe(t->test, &test);
    bt_model_desc desc = {.spec = s->args[0],
                          .channels = info.channels,
                          .height = info.height,
                          .width = info.width,
                          .classes = test.classes > info.classes ? test.classes : info.classes,
                          .init = opt_is(s, "init", "xavier") ? BT_INIT_XAVIER : BT_INIT_HE,
                          .seed = (uint64_t)opt_number(s, "seed"),
                          .dtype = dtype};
    CHECK(t->ctx, bt_model_make(t->ctx, &desc, &t->model));
    const char *from = opt_text(s, "init-from");
    char how[4096];
    if (!from) return 0;
    bt_status status = bt_model_import(t->ctx, t->model, from, how, sizeof how);
    if (status != BT_OK && *how) note(s, "%s", how); // what did not match
    CHECK(t->ctx, status);
    note(s, "weights: %s", how);
    return 0;
}

static json_t *describe_data(const bt_dataset *set) {
    bt_dataset_info i;
    if (!set) return json_null();
    bt_dataset_describe(set, &i);
    return json_pack("{s:s,s:s,s:s,s:i,s:[i,i,i],s:i}", "name", i.name, "source", i.source,
                     "sha256", i.sha256, "count", i.count, "shape", i.channels, i.height, i.width,
                     "classes", i.classes);
}

#ifdef __clang__
static const char compiler[] = __VERSION__; // names itself
#else
static const char compiler[] = "gcc " __VERSION__;
#endif

// What is known before the first step, for run.json.
static json_t *describe_run(const training *t) {
    char start[40];
    time_t now = time(NULL);
    bt_device_info device;
    bt_context_device(t->ctx, &device);
    strftime(start, sizeof start, "%Y-%m-%dT%H:%M:%S%z", localtime(&now));
    json_t *words = json_pack("[s,s]", "bantam", t->s->title);
    for (int i = 0; i < t->s->argc; i++) json_array_append_new(words, json_string(t->s->argv[i]));
    return json_pack(
        "{s:s,s:s,s:s,s:s,s:o,s:s,s:I,s:{s:s,s:s,s:s},s:i,s:{s:o,s:o,s:o},s:o,s:s?,s:I}", "status",
        "running", "version", BT_VERSION_TEXT, "compiler", compiler, "start", start, "argv", words,
        "model", bt_model_spec(t->model), "params", (json_int_t)bt_model_size(t->model), "device",
        "name", device.name, "description", device.description, "precision",
        precision_name(t->ctx, t->s), "cores", (int)sysconf(_SC_NPROCESSORS_ONLN), "data", "train",
        describe_data(t->train), "validation", describe_data(t->validation), "test",
        describe_data(t->test), "settings", settings_json(t->s, false), "resumed_from",
        *t->checkpoint ? t->checkpoint : NULL, "resumed_at_step", (json_int_t)t->first_step);
}

// A new directory, or the one of the checkpoint that is resumed.
static int open_directory(training *t) {
    const char *out = opt_text(t->s, "out");
    bool resumed = *t->checkpoint && rundir_of(t->checkpoint, t->dir.path);
    if (resumed && out && strcmp(out, t->dir.path))
        return fail(BT_ERROR_USAGE, "--resume goes on in %s; leave out --out %s", t->dir.path, out);
    const char *model = t->s->arg_count ? t->s->args[0] : bt_model_spec(t->model);
    int code = resumed ? 0 : rundir_make(&t->dir, out, model);
    return code ? code : rundir_lock(&t->dir);
}

static void announce(const training *t) {
    bt_dataset_info train, validation = {0}, test;
    bt_device_info device;
    bt_dataset_describe(t->train, &train);
    bt_dataset_describe(t->test, &test);
    if (t->validation) bt_dataset_describe(t->validation, &validation);
    bt_context_device(t->ctx, &device);
    note(t->s, "%s (%zu parameters) on %s in %s: %s", bt_model_spec(t->model),
         bt_model_size(t->model), device.name, precision_name(t->ctx, t->s), device.description);
    note(t->s, "%s: %d to train, %d to validate, %d to test", train.name, train.count,
         validation.count, test.count);
    note(t->s, "run directory: %s", t->dir.path);
    if (*t->checkpoint) note(t->s, "going on after step %u of %s", t->first_step, t->checkpoint);
}

// ---- Running -----------------------------------------------------------------------------------

// A resumed directory keeps what an earlier part of the training found out, where this one does not
// ask again; an analysis is of a network that will be another.
static void keep_findings(training *t) {
    static const char *const names[] = {"roofline", "doctor", "findings"};
    char path[PATH_BYTES + 16];
    snprintf(path, sizeof path, "%s/analysis.json", t->dir.path);
    unlink(path);
    snprintf(path, sizeof path, "%s/run.json", t->dir.path);
    json_t *old = json_of_file(path, 16 << 20);
    for (int i = 0; old && i < 3; i++)
        if (!json_object_get(t->dir.record, names[i]) && json_object_get(old, names[i]))
            json_object_set(t->dir.record, names[i], json_object_get(old, names[i]));
    json_decref(old);
}

// The trainer accepted the settings and the checkpoint: a resumed directory may be changed now.
static int start(training *t, const char *program) {
    t->started = true;
    if (*t->checkpoint) keep_findings(t);
    snprintf(t->program, sizeof t->program, "%s", program ? program : "");
    if (*t->program) note(t->s, "program: %s", t->program);
    json_object_set_new(t->dir.record, "program", json_string(t->program));
    int code = rundir_begin(&t->dir, opt_text(t->s, "loss-log"), opt_is(t->s, "precision", "fp64"),
                            t->desc, t->first_step);
    return code ? code : rundir_save(&t->dir);
}

static bt_answer on_progress(void *user, const bt_progress *now) {
    training *t = user;
    if (now->event == BT_EVENT_START) t->failure = start(t, now->program);
    if (t->failure) return BT_STOP;
    if (now->warning && !t->warned) {
        progress_clear(&t->progress);
        note(t->s, "warning: %s; training goes on and tries again", now->warning);
    }
    t->warned = now->warning != NULL;
    doctor_progress(&t->doctor, now);
    progress_show(&t->progress, now);
    if (!t->write_error) t->write_error = rundir_progress(&t->dir, now);
    if (now->event == BT_EVENT_EPOCH && t->watch.folder && !t->write_error) {
        progress_clear(&t->progress);
        watch_look(&t->watch);
    }
    if (now->event == BT_EVENT_EPOCH && t->tensorboard.events && !t->write_error) {
        progress_clear(&t->progress);
        tensorboard_epoch(&t->tensorboard, now);
    }
    if (stop_signal || t->write_error) return BT_STOP;
    if (!save_wanted) return BT_CONTINUE;
    save_wanted = 0;
    return BT_SAVE;
}

// A run that failed says so in its run.json too, if that can be written; one that never started
// leaves nothing.
static int record_failure(training *t, bt_status status) {
    char text[1200];
    int code = t->write_error ? BT_ERROR_MEMORY : (int)status;
    if (t->failure) return t->failure;
    if (t->write_error)
        snprintf(text, sizeof text, "the metrics or the loss log of %s cannot be written: %s",
                 t->dir.path, strerror(t->write_error));
    else
        snprintf(text, sizeof text, "%s", bt_error_text(t->ctx));
    fail(code, "%s", text);
    if (!t->started && !*t->checkpoint) rundir_discard(&t->dir);
    if (!t->started) return code;
    json_object_set_new(t->dir.record, "status", json_string("failed"));
    json_object_set_new(t->dir.record, "error", json_string(text));
    rundir_try_save(&t->dir);
    if (code != BT_ERROR_MEMORY) report_run(t->dir.path); // its page says so as well
    return code;
}

// The final figures, as run.json keeps them and --json prints them. `test` NULL: not evaluated.
static json_t *describe_result(const training *t, const bt_train_result *r,
                               const bt_evaluation *test) {
    bt_device_info device;
    bt_context_device(t->ctx, &device);
    return json_pack(
        "{s:o,s:o,s:o,s:i,s:I,s:f,s:o,s:s,s:s,s:s,s:I,s:s,s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:i,s:s}",
        "test_acc", real_or_null(test ? test->accuracy : NAN), "test_loss",
        real_or_null(test ? test->loss : NAN), "test_standard_error",
        real_or_null(test ? test->standard_error : NAN), "epochs", r->epochs, "steps",
        (json_int_t)r->steps, "train_s", r->seconds, "images_per_s",
        real_or_null(r->images_per_second), "device", device.name, "precision",
        precision_name(t->ctx, t->s), "program", t->program, "params",
        (json_int_t)bt_model_size(t->model), "run_dir", t->dir.path, "model",
        bt_model_spec(t->model), "data", opt_text(t->s, "data"), "train_loss",
        real_or_null(r->train_loss), "train_acc", real_or_null(r->train_accuracy), "val_loss",
        real_or_null(r->val_loss), "val_acc", real_or_null(r->val_accuracy), "best_val_acc",
        real_or_null(r->best_accuracy), "best_epoch", r->best_epoch, "stop",
        r->stop ? r->stop : "");
}

static int keep_profile(training *t, const bt_train_result *r) {
    bt_dtype dtype = opt_is(t->s, "precision", "fp64") ? BT_F64 : BT_F32;
    CHECK(t->ctx, bt_roofline_find(t->ctx, dtype, &t->roofline));
    t->profile = profile_rows(r->profile, r->profile_count, &t->roofline);
    json_object_set_new(
        t->dir.record, "roofline",
        json_pack("{s:f,s:f}", "gflops", t->roofline.gflops, "gbytes_s", t->roofline.gbytes_s));
    return 0;
}

// Writes all that a finished or stopped training leaves.
static int leave_files(training *t, const char *status, json_t *result) {
    json_object_set_new(t->dir.record, "status", json_string(status));
    json_object_set(t->dir.record, "result", result);
    int code = rundir_save(&t->dir);
    if (!code && t->profile) code = rundir_timings(&t->dir, t->profile);
    if (!code) code = report_run(t->dir.path);
    return code;
}

// On a GPU the programs for it would take longer to make than all of the training; there, and where
// this fails, `bantam report` does it.
static void keep_analysis(training *t, const bt_evaluation *test, const int32_t *predictions,
                          uint32_t step) {
    bt_device_info device;
    bt_context_device(t->ctx, &device);
    if (strncmp(device.name, "cpu", 3)) return;
    analysis *a = analysis_make(t->ctx, t->model, t->test, test, predictions);
    if (a) analysis_write(a, t->dir.path, "last.safetensors", step);
    if (!a) bt_error_reset(t->ctx);
    analysis_free(a);
}

static bt_status evaluate_test(training *t, uint32_t step, bt_evaluation *out) {
    bt_dataset_info d;
    bt_dataset_describe(t->test, &d);
    int32_t *predictions = calloc((size_t)d.count + 1, sizeof *predictions);
    bt_status status = bt_evaluate(t->ctx, t->model, t->test, 0, out, predictions);
    if (status == BT_OK && predictions) {
        tensorboard_misclassified(&t->tensorboard, t->test, predictions, step);
        keep_analysis(t, out, predictions, step);
    }
    free(predictions);
    return status;
}

static int finish(training *t, const bt_train_desc *desc, const bt_train_result *r) {
    bool stopped = r->stop && !strcmp(r->stop, "asked");
    bt_evaluation test;
    bt_status status = stopped ? BT_OK : evaluate_test(t, r->steps, &test);
    tensorboard_close(&t->tensorboard);
    if (status == BT_OK && !stopped) status = doctor_after(&t->doctor, t->ctx, desc);
    if (status != BT_OK) return record_failure(t, status);
    json_t *result = describe_result(t, r, stopped ? NULL : &test);
    if (!result) return fail(BT_ERROR_MEMORY, "out of memory for the result");
    doctor_record(&t->doctor, t->dir.record, result);
    int code = r->profile ? keep_profile(t, r) : 0;
    if (!code) code = leave_files(t, stopped ? "stopped" : "done", result);
    if (!code && r->profile) code = trace_write(r->trace, r->trace_count, t->dir.path);
    // What was trained is told even if a chart of it cannot be written.
    if (opt_flag(t->s, "json")) print_json(json_incref(result));
    json_decref(result);
    if (stopped) {
        note(t->s, "stopped after step %u; go on with: bantam train --resume %s", r->steps,
             t->dir.path);
        return code ? code : stop_signal == SIGINT ? EXIT_INTERRUPTED : BT_STOPPED;
    }
    if (r->steps == t->first_step && *t->checkpoint)
        note(t->s, "all %d epochs were done already; ask for more with --epochs", r->epochs);
    if (opt_flag(t->s, "json")) return code;
    if (t->profile) profile_print(t->profile, &t->roofline);
    char rate[16];
    printf("%s: test accuracy %.2f +- %.2f %% (%d/%d), loss %.4f\n", opt_text(t->s, "data"),
           100 * test.accuracy, 100 * test.standard_error, test.correct, test.count, test.loss);
    printf("%u steps in %.2f s, %s images/s; %s\n", r->steps, r->seconds,
           short_number(r->images_per_second, rate), t->dir.path);
    return code;
}

// The text that the checkpoint keeps for --resume and eval; NULL when memory ran out.
static char *describe_kept(const training *t) {
    bt_dataset_info data;
    bt_dataset_describe(t->train, &data);
    json_t *kept =
        json_pack("{s:s,s:o}", "data_sha256", data.sha256, "options", settings_json(t->s, true));
    char *text = json_dumps(kept, JSON_REAL_PRECISION(17));
    json_decref(kept);
    return text;
}

static int run(training *t) {
    bt_train_desc desc;
    bt_train_result result;
    char *kept = describe_kept(t), checkpoints[PATH_BYTES + 16];
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", t->dir.path);
    describe_training(t->s, &desc);
    desc.model = t->model, desc.train = t->train, desc.validation = t->validation;
    desc.folder = checkpoints, desc.settings = kept;
    desc.resume = *t->checkpoint ? t->checkpoint : NULL;
    desc.callback = on_progress, desc.user = t;
    t->desc = &desc;
    bt_status status = doctor_before(&t->doctor, t->s, t->ctx, &desc);
    doctor_record(&t->doctor, t->dir.record, NULL);
    tensorboard_open(&t->tensorboard, t->s, t->ctx, t->model, t->dir.path, t->first_step);
    progress_open(&t->progress, opt_flag(t->s, "quiet"), desc.epochs);
    if (status == BT_OK) status = bt_train(t->ctx, &desc, &result);
    progress_clear(&t->progress);
    rundir_end(&t->dir);
    free(kept);
    if (t->failure || t->write_error || (status != BT_OK && status != BT_STOPPED))
        return record_failure(t, status);
    return finish(t, &desc, &result);
}

// ---- The live page -----------------------------------------------------------------------------

static int open_server(training *t) {
    int code = serve_begin(t->s, t->dir.path, &t->server);
    if (code && !*t->checkpoint) rundir_discard(&t->dir);
    // (--quiet too: with --port 0 nobody knows it otherwise. Not on stdout, which --json has.)
    if (!code) fprintf(stderr, "live page: http://127.0.0.1:%d/\n", server_port(t->server));
    return code;
}

// A training that ended well leaves its page up until a signal. The device is free by then.
static void close_server(training *t, int code) {
    if (t->server && !code && !stop_signal) {
        note(t->s, "the page stays at http://127.0.0.1:%d/ until Ctrl-C", server_port(t->server));
        fflush(stdout);
        while (!stop_signal) usleep(100000); // (the signal may come to any thread)
    }
    server_stop(t->server);
}

static int train_body(bt_context *ctx, void *user) {
    training *t = user;
    t->ctx = ctx;
    int code = watch_begin(&t->watch, t->s, ctx);
    if (!code) code = open_sets(t);
    if (!code) code = make_model(t);
    if (!code) code = open_directory(t);
    if (!code && opt_flag(t->s, "serve")) code = open_server(t);
    if (code) return code;
    t->dir.record = describe_run(t);
    if (!t->dir.record) return fail(BT_ERROR_MEMORY, "out of memory for run.json");
    announce(t);
    return run(t);
}

// Defaults that depend on each other (docs/defaults.md): Adam's steps do not scale with the
// gradient, so its useful rates are smaller; and weight decay belongs to the default recipe, while
// who names an optimizer or a schedule starts from what other frameworks have.
static int default_by_choice(settings *s) {
    bool adamw = opt_is(s, "opt", "adamw"), adam = adamw || opt_is(s, "opt", "adam");
    bool chosen = opt(s, "opt")->from != FROM_DEFAULT || opt(s, "sched")->from != FROM_DEFAULT;
    int code = 0;
    if (adam && opt(s, "lr")->from == FROM_DEFAULT)
        code = settings_set(s, "lr", "0.003", FROM_DEFAULT);
    if (!code && chosen && opt(s, "wd")->from == FROM_DEFAULT)
        code = settings_set(s, "wd", adamw ? "0.01" : "0", FROM_DEFAULT);
    return code;
}

static int check(training *t) {
    settings *s = t->s;
    if (!opt_text(s, "resume") && s->arg_count == 0)
        return fail(BT_ERROR_USAGE, "train needs a MODEL: mlp, lenet, lenet5 or layers such as "
                                    "fc128,relu,fc10; see `bantam help train`");
    // What is watched must be what runs.
    if (opt_text(s, "watch-kernels") && opt(s, "overrides")->from > FROM_CHECKPOINT &&
        opt_is(s, "overrides", "on"))
        return fail(BT_ERROR_USAGE, "--watch-kernels needs --overrides off: kernels that are tuned "
                                    "by hand do not come from .k files");
    if (opt_is(s, "opt", "sgd") && opt(s, "momentum")->from == FROM_COMMAND_LINE)
        return fail(BT_ERROR_USAGE, "--opt sgd has no momentum; use --opt momentum");
    const char *resume = opt_text(s, "resume");
    if (resume && opt_text(s, "init-from"))
        return fail(BT_ERROR_USAGE, "--resume has weights already; --init-from starts a new run");
    int code = resume ? find_checkpoint(resume, t->checkpoint) : 0;
    // In a context of its own, because the checkpoint may name the device.
    if (!code && resume) code = with_reader(merge_checkpoint, t);
    if (!code) code = default_by_choice(s);
    if (!code && opt_text(s, "watch-kernels"))
        code = settings_set(s, "overrides", "off", FROM_CHECKPOINT);
    return code ? code : choose_data(s, 1);
}

int command_train(settings *s) {
    training *t = calloc(1, sizeof *t);
    if (!t) return fail(BT_ERROR_MEMORY, "out of memory");
    t->s = s;
    catch_signals();
    int code = check(t);
    if (!code) code = with_device(s, train_body, t);
    close_server(t, code);
    rundir_close(&t->dir);
    json_decref(t->profile);
    doctor_close(&t->doctor);
    free(t);
    return code;
}
