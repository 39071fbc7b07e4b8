// `bantam export`: a checkpoint as a file for other programs.
#include "cli.h"

#include <string.h>
#include <sys/stat.h>

static const char *const formats[] = {
    [BT_EXPORT_ONNX] = "onnx", [BT_EXPORT_NPZ] = "npz", [BT_EXPORT_C] = "c"};

static bt_export format_of(const settings *s) {
    for (int i = 0; i < 3; i++)
        if (opt_is(s, "to", formats[i])) return (bt_export)i;
    return BT_EXPORT_ONNX;
}

// The numbers of a run in fp64 go into an .npz as they are.
static int dtype_of(bt_context *ctx, const char *checkpoint, bt_dtype *out) {
    const char *text;
    uint32_t step;
    CHECK(ctx, bt_checkpoint_settings(ctx, checkpoint, &text, &step));
    json_t *kept = json_loads(text && *text ? text : "{}", 0, NULL);
    json_t *precision = json_object_get(json_object_get(kept, "options"), "precision");
    if (json_is_object(precision)) precision = json_object_get(precision, "value");
    const char *name = json_string_value(precision);
    *out = name && !strcmp(name, "fp64") ? BT_F64 : BT_F32;
    json_decref(kept);
    return 0;
}

static int show(const settings *s, const bt_model *model, const char *path) {
    struct stat info = {0};
    bool known = stat(path, &info) == 0;
    if (opt_flag(s, "json"))
        return print_json(json_pack("{s:s,s:s,s:I,s:s,s:I}", "file", path, "format",
                                    opt_text(s, "to"), "bytes", (json_int_t)info.st_size, "model",
                                    bt_model_spec(model), "params",
                                    (json_int_t)bt_model_size(model)));
    printf("%s", path);
    if (format_of(s) == BT_EXPORT_C) printf(" and %.*s.h", (int)strlen(path) - 2, path);
    if (known) printf(" (%lld bytes)", (long long)info.st_size);
    printf(": %s, %zu parameters\n", bt_model_spec(model), bt_model_size(model));
    return 0;
}

static int export_body(bt_context *ctx, void *user) {
    settings *s = user;
    char checkpoint[PATH_BYTES], path[PATH_BYTES];
    bt_model *model;
    bt_dtype dtype = BT_F32;
    int code = find_checkpoint(s->args[0], checkpoint);
    if (!code) code = dtype_of(ctx, checkpoint, &dtype);
    if (code) return code;
    snprintf(path, sizeof path, "model.%s", opt_text(s, "to"));
    if (opt_text(s, "out")) snprintf(path, sizeof path, "%s", opt_text(s, "out"));
    CHECK(ctx, bt_model_load(ctx, checkpoint, dtype, &model));
    CHECK(ctx, bt_model_export(ctx, model, format_of(s), path));
    return show(s, model, path);
}

int command_export(settings *s) {
    if (s->arg_count == 0)
        return fail(BT_ERROR_USAGE, "export needs a CKPT: a checkpoint file or a run directory");
    if (!opt_text(s, "to"))
        return fail(BT_ERROR_USAGE, "export needs a format: --to onnx, --to npz or --to c");
    return with_reader(export_body, s);
}
