// `bantam devices`, `bantam data` and `bantam inspect`: what is here.
#include "cli.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

enum { DEVICES_MAX = 32, SETS_MAX = 32, CLASSES_MAX = 256, PICTURES = 2 };

// Prints {key: rows} where --json asks for it.
static int end_list(settings *s, table *t, const char *key) {
    if (opt_flag(s, "json")) print_json(json_pack("{s:O}", key, t->rows));
    table_end(t);
    return 0;
}

int command_devices(settings *s) {
    static const column columns[] = {{"name", "device", "%-8s"},
                                     {"available", "state", "ready  |missing"},
                                     {"description", "description", "%s"},
                                     {"reason", "", "%s"}};
    table t;
    bt_device_info devices[DEVICES_MAX];
    int count = bt_devices(devices, DEVICES_MAX);
    table_begin(&t, columns, 4, opt_flag(s, "json"));
    for (int i = 0; i < count && i < DEVICES_MAX; i++)
        table_add(&t, json_pack("{s:s,s:s,s:b,s:s,s:I}", "name", devices[i].name, "description",
                                devices[i].description, "available", (int)devices[i].available,
                                "reason", devices[i].reason, "memory_bytes",
                                (json_int_t)devices[i].memory_bytes));
    return end_list(s, &t, "devices");
}

// ---- Data --------------------------------------------------------------------------------------

static int list_sets(settings *s) {
    static const column columns[] = {{"name", "data set", "%-14s"},
                                     {"present", "state", "here   |missing"},
                                     {"description", "description", "%-46s"},
                                     {"folder", "folder", "%s"}};
    table t;
    bt_dataset_entry *sets = calloc(SETS_MAX, sizeof *sets);
    if (!sets) return fail_status(NULL, BT_ERROR_MEMORY);
    int count = bt_dataset_list(opt_text(s, "data-dir"), sets, SETS_MAX);
    table_begin(&t, columns, 4, opt_flag(s, "json"));
    for (int i = 0; i < count && i < SETS_MAX; i++)
        table_add(&t, json_pack("{s:s,s:s,s:b,s:b,s:s}", "name", sets[i].name, "description",
                                sets[i].description, "built_in", (int)sets[i].built_in, "present",
                                (int)sets[i].present, "folder",
                                sets[i].built_in ? "(built in)" : sets[i].folder));
    free(sets);
    return end_list(s, &t, "sets");
}

static int get_set(bt_context *ctx, void *user) {
    settings *s = user;
    if (s->arg_count < 2)
        return fail(BT_ERROR_USAGE, "data get needs a NAME; see `bantam data list`");
    CHECK(ctx, bt_dataset_get(ctx, s->args[1], opt_text(s, "data-dir"), opt_text(s, "from"),
                              opt_flag(s, "quiet") ? NULL : stderr));
    return 0;
}

// The first pictures side by side. A character is about twice as high as wide, so each stands for
// two rows.
static void draw_pictures(const bt_dataset *set, const bt_dataset_info *d) {
    static const char shades[] = " .:-=+*#%@";
    int pictures = d->count < PICTURES ? d->count : PICTURES;
    for (int i = 0; i < pictures; i++)
        printf("%*slabel %-*d", i ? 2 : 0, "", d->width - 6, bt_dataset_label(set, i));
    putchar('\n');
    for (int y = 0; y + 1 < d->height; y += 2) {
        for (int i = 0; i < pictures; i++) {
            const uint8_t *row = bt_dataset_image(set, i) + (size_t)y * (size_t)d->width;
            if (i) fputs("  ", stdout);
            for (int x = 0; x < d->width; x++)
                putchar(shades[(row[x] + row[x + d->width]) * 9 / 510]);
        }
        putchar('\n');
    }
}

static void count_classes(const bt_dataset *set, const bt_dataset_info *d, int *counts) {
    memset(counts, 0, CLASSES_MAX * sizeof *counts);
    for (int i = 0; i < d->count; i++) counts[bt_dataset_label(set, i) % CLASSES_MAX]++;
}

static void print_part(const bt_dataset *set, const bt_dataset_info *d, const char *part) {
    int counts[CLASSES_MAX];
    count_classes(set, d, counts);
    printf(
        "%s %s: %d samples of %d x %d x %d, %d classes\n  source   %s\n  sha256   %s\n  classes ",
        d->name, part, d->count, d->channels, d->height, d->width, d->classes, d->source,
        d->sha256);
    for (int c = 0; c < d->classes && c < CLASSES_MAX; c++) printf(" %d:%d", c, counts[c]);
    putchar('\n');
}

static json_t *describe_part(const bt_dataset *set, const bt_dataset_info *d) {
    int counts[CLASSES_MAX];
    json_t *balance = json_array();
    count_classes(set, d, counts);
    for (int c = 0; c < d->classes && c < CLASSES_MAX; c++)
        json_array_append_new(balance, json_integer(counts[c]));
    return json_pack("{s:s,s:s,s:s,s:i,s:[i,i,i],s:i,s:o}", "name", d->name, "source", d->source,
                     "sha256", d->sha256, "count", d->count, "shape", d->channels, d->height,
                     d->width, "classes", d->classes, "class_counts", balance);
}

static int show_set(bt_context *ctx, void *user) {
    settings *s = user;
    json_t *parts = opt_flag(s, "json") ? json_object() : NULL;
    for (int test = 0; test < 2; test++) {
        bt_dataset *set;
        bt_dataset_info d;
        bt_dataset_desc desc = {.name = s->arg_count > 1 ? s->args[1] : "digits",
                                .folder = opt_text(s, "data-dir"),
                                .test = test};
        bt_status status = bt_dataset_open(ctx, &desc, &set);
        if (status != BT_OK) {
            json_decref(parts);
            return fail_status(ctx, status);
        }
        bt_dataset_describe(set, &d);
        if (parts)
            json_object_set_new(parts, test ? "test" : "train", describe_part(set, &d));
        else
            print_part(set, &d, test ? "test" : "training");
        if (!parts && !test) draw_pictures(set, &d);
    }
    return parts ? print_json(parts) : 0;
}

int command_data(settings *s) {
    static const char *const actions[] = {"list", "get", "info"};
    const char *action = s->arg_count ? s->args[0] : "list";
    if (!strcmp(action, "list")) return list_sets(s);
    if (!strcmp(action, "get")) return with_reader(get_set, s);
    if (!strcmp(action, "info")) return with_reader(show_set, s);
    const char *guess = nearest(action, actions, 3);
    return fail(BT_ERROR_USAGE, "unknown action 'data %s'; did you mean '%s'?", action,
                guess ? guess : "list");
}

static int inspect_file(bt_context *ctx, void *user) {
    settings *s = user;
    CHECK(ctx, bt_inspect(ctx, s->args[0], opt_flag(s, "json"), stdout));
    return 0;
}

int command_inspect(settings *s) {
    if (s->arg_count == 0)
        return fail(BT_ERROR_USAGE, "inspect needs a FILE: a checkpoint, data set or picture file");
    return with_reader(inspect_file, s);
}
