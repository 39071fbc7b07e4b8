// What the commands share; see cli.h.
#include "cli.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

// Texts of files may be in what is told: nothing in it is for the terminal to obey.
static void tell(const char *prefix, char *text, bool lines) {
    for (char *c = text; *c; c++)
        if (((unsigned char)*c < 0x20 && !(lines && *c == '\n')) || *c == 0x7f) *c = '?';
    fprintf(stderr, "%s%s\n", prefix, text);
}

int fail(int code, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tell("bantam: ", text, false);
    return code;
}

int fail_status(const bt_context *ctx, bt_status status) {
    const char *text = ctx ? bt_error_text(ctx) : "out of memory";
    return fail((int)status, "%s", *text ? text : bt_status_name(status));
}

void note(const settings *s, const char *format, ...) {
    char text[8192];
    if (opt_flag(s, "quiet")) return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tell("", text, true); // (a list may have several lines)
}

// ---- Contexts ----------------------------------------------------------------------------------

int open_context(const bt_context_desc *desc, bt_context **out) {
    bt_status status = bt_open(desc, out);
    if (status == BT_OK) return 0;
    int code = fail_status(*out, status);
    if (*out) bt_close(*out);
    *out = NULL;
    return code;
}

int with_context(const bt_context_desc *desc, int (*body)(bt_context *ctx, void *user),
                 void *user) {
    bt_context *ctx;
    int code = open_context(desc, &ctx);
    if (code) return code;
    code = body(ctx, user);
    bt_close(ctx);
    return code;
}

int with_reader(int (*body)(bt_context *ctx, void *user), void *user) {
    return with_context(&(bt_context_desc){.threads = 1}, body, user);
}

bt_context_desc describe_context(const settings *s) {
    bt_context_desc desc = {.device = opt_text(s, "device"),
                            .threads = opt_int(s, "threads"),
                            .no_overrides = opt_is(s, "overrides", "off")};
    for (bt_precision p = BT_PRECISION_FP32; p <= BT_PRECISION_BF16; p++)
        if (opt_is(s, "precision", bt_precision_name(p))) desc.precision = p;
    return desc;
}

static int check_precision(const bt_context *ctx, const settings *s) {
    bt_device_info device;
    bt_context_device(ctx, &device);
    bool fp64 = opt_is(s, "precision", "fp64");
    if (fp64 && !bt_context_computes(ctx, BT_F64))
        return fail(BT_ERROR_USAGE, "--precision fp64: %s computes in f32; fp64 needs --device cpu",
                    device.name);
    if (!fp64 && bt_context_precision(ctx) != describe_context(s).precision)
        note(s, "--precision %s makes no difference: %s computes in %s", opt_text(s, "precision"),
             device.name, precision_name(ctx, s));
    return 0;
}

int with_device(settings *s, int (*body)(bt_context *ctx, void *user), void *user) {
    bt_context *ctx;
    bt_context_desc desc = describe_context(s);
    int code = open_context(&desc, &ctx);
    if (code) return code;
    code = check_precision(ctx, s);
    if (!code) code = body(ctx, user);
    bt_close(ctx);
    return code;
}

const char *precision_name(const bt_context *ctx, const settings *s) {
    return opt_is(s, "precision", "fp64") ? "fp64" : bt_precision_name(bt_context_precision(ctx));
}

// ---- Data and checkpoints ----------------------------------------------------------------------

// MNIST where it is found, else the built-in digits.
static int default_data(settings *s) {
    enum { SETS = 32 };
    const char *folder = opt_text(s, "data-dir");
    struct stat info;
    if (folder && *folder && (stat(folder, &info) || !S_ISDIR(info.st_mode)))
        return fail(BT_ERROR_DATA, "the data folder %s (--data-dir or BANTAM_DATA) is not there",
                    folder);
    bt_dataset_entry *sets = calloc(SETS, sizeof *sets);
    if (!sets) return fail(BT_ERROR_MEMORY, "out of memory for the list of data sets");
    int count = bt_dataset_list(opt_text(s, "data-dir"), sets, SETS);
    const bt_dataset_entry *mnist = NULL;
    for (int i = 0; i < count && i < SETS; i++)
        if (!strcmp(sets[i].name, "mnist")) mnist = &sets[i];
    bool found = mnist && mnist->present;
    if (found)
        note(s, "data: mnist, found in %s", mnist->folder);
    else
        note(s, "data: digits (built in); mnist is not in %s, see `bantam data get mnist`",
             mnist ? mnist->folder : "the data folder");
    free(sets);
    return settings_set(s, "data", found ? "mnist" : "digits", FROM_DEFAULT);
}

int choose_data(settings *s, int index) {
    const setting *v = opt(s, "data");
    if (index >= s->arg_count) return v->text ? 0 : default_data(s);
    if (v->from == FROM_COMMAND_LINE && strcmp(v->text, s->args[index]))
        return fail(BT_ERROR_USAGE, "two data sets are named: %s and --data %s", s->args[index],
                    v->text);
    return settings_set(s, "data", s->args[index], FROM_COMMAND_LINE);
}

bt_status open_data(bt_context *ctx, const settings *s, bool test, int limit, bt_dataset **out) {
    bt_dataset_desc desc = {.name = opt_text(s, "data"),
                            .folder = opt_text(s, "data-dir"),
                            .test = test,
                            .limit = limit};
    return bt_dataset_open(ctx, &desc, out);
}

int find_checkpoint(const char *path, char out[PATH_BYTES]) {
    static const char *const places[] = {"", "/checkpoints/last.safetensors", "/last.safetensors"};
    struct stat info;
    for (int i = 0; i < 3; i++) {
        if (snprintf(out, PATH_BYTES, "%s%s", path, places[i]) >= PATH_BYTES) break;
        if (!stat(out, &info) && !S_ISDIR(info.st_mode)) return 0;
    }
    if (!stat(path, &info))
        return fail(BT_ERROR_DATA, "%s: no checkpoint in it; expected checkpoints/last.safetensors",
                    path);
    return fail(BT_ERROR_DATA, "%s: no such checkpoint or run directory", path);
}

int merge_kept(bt_context *ctx, settings *s, const char *checkpoint, uint32_t *step,
               char data_sha256[65]) {
    const char *text;
    uint32_t unused;
    CHECK(ctx, bt_checkpoint_settings(ctx, checkpoint, &text, step ? step : &unused));
    json_t *kept = json_loads(text && *text ? text : "{}", 0, NULL);
    if (!kept) return fail(BT_ERROR_DATA, "%s: its settings are not JSON", checkpoint);
    const char *hash = json_string_value(json_object_get(kept, "data_sha256"));
    if (data_sha256) snprintf(data_sha256, 65, "%s", hash ? hash : "");
    json_t *options = json_incref(json_object_get(kept, "options"));
    if (options && s->command != CMD_TRAIN) { // the rest is about how it was trained
        static const char *const names[] = {"data", "data-dir", "precision"};
        json_t *few = json_object();
        for (int i = 0; i < 3; i++)
            json_object_set(few, names[i], json_object_get(options, names[i]));
        json_decref(options);
        options = few;
    }
    int code = options ? settings_merge(s, options, FROM_CHECKPOINT, checkpoint) : 0;
    json_decref(options);
    json_decref(kept);
    return code;
}

int print_json(json_t *object) {
    if (!object) return fail(BT_ERROR_MEMORY, "out of memory for the result");
    json_dumpf(object, stdout, JSON_REAL_PRECISION(15));
    putchar('\n');
    json_decref(object);
    return 0;
}

json_t *real_or_null(double number) {
    return isfinite(number) ? json_real(number) : json_null();
}

json_t *json_of_file(const char *path, int64_t bytes_max) {
    struct stat info;
    if (stat(path, &info) || !S_ISREG(info.st_mode) || info.st_size > bytes_max) return NULL;
    return json_load_file(path, 0, NULL);
}

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *short_number(double number, char out[16]) {
    static const char prefixes[] = " kMGT";
    int p = 0;
    while (number >= 999.5 && p < 4) number /= 1000, p++;
    int decimals = number >= 99.95 || (p == 0 && number == floor(number)) ? 0
                   : number >= 9.995                                      ? 1
                                                                          : 2;
    snprintf(out, 16, "%.*f%.*s", decimals, number, p > 0, &prefixes[p]);
    return out;
}
