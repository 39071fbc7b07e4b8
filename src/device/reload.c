// Kernels as text; see reload.h. The translator is part of the library: what a user edits goes
// through the same checks as what the build contains.
#include "device/reload.h"

#include "base/owner.h"
#include "device/kernels.h"
#include "kc/kc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 64, FILE_BYTES_MAX = 1 << 20 };

// A translated set of kernels.
struct bt_reload {
    kc_source files[FILES_MAX];
    char *texts[2 * FILES_MAX]; // paths and texts that are owned
    int file_count, text_count;
    kc_unit *unit;
    bt_portable rules[]; // in the order of bt_portable_table
};

void bt_reload_free(bt_reload *set) {
    if (!set) return;
    kc_free(set->unit);
    for (int i = 0; i < set->text_count; i++) free(set->texts[i]);
    free(set);
}

// ---- Reading -----------------------------------------------------------------------------------

static bt_status translate(bt_reload *set, bt_error *err) {
    kc_error error;
    set->unit = kc_parse(set->files, set->file_count, &error);
    return set->unit ? BT_OK : bt_fail(err, BT_ERROR_DATA, "%s", error.text);
}

static bt_reload *new_set(void) {
    return calloc(1, sizeof(bt_reload) + (size_t)bt_portable_count * sizeof(bt_portable));
}

static bt_reload *built_in(bt_error *err) {
    bt_reload *set = new_set();
    const bt_portable_source *source = bt_portable_sources;
    for (; set && source->path && set->file_count < FILES_MAX; source++)
        set->files[set->file_count++] =
            (kc_source){source->path, source->text, strlen(source->text)};
    if (set && translate(set, err) == BT_OK) return set;
    bt_reload_free(set);
    return NULL;
}

static bt_status read_source(bt_reload *set, const char *folder, const char *name, bt_error *err) {
    char *path = NULL, *text = malloc(FILE_BYTES_MAX + 1);
    bool named = asprintf(&path, "%s/%s", folder, name) >= 0;
    if (!named || !text) {
        if (named) free(path);
        free(text);
        return bt_fail_memory(err, "a kernel file", FILE_BYTES_MAX);
    }
    set->texts[set->text_count++] = path;
    set->texts[set->text_count++] = text;
    int handle = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); // a pipe must not stop us
    struct stat info;
    bool regular = handle >= 0 && fstat(handle, &info) == 0 && S_ISREG(info.st_mode);
    FILE *file = regular ? fdopen(handle, "rb") : NULL;
    if (!file) {
        const char *why = handle >= 0 && !regular ? "it is no file" : strerror(errno);
        if (handle >= 0) close(handle);
        return bt_fail(err, BT_ERROR_USAGE,
                       "%s cannot be read: %s; the folder is to be a copy of kernels/", path, why);
    }
    size_t length = fread(text, 1, FILE_BYTES_MAX + 1, file);
    fclose(file);
    if (length > FILE_BYTES_MAX)
        return bt_fail(err, BT_ERROR_DATA, "%s has more than %d bytes", path, FILE_BYTES_MAX);
    set->files[set->file_count++] = (kc_source){path, text, length};
    return BT_OK;
}

// The files that the build was made from, in their order.
static bt_status read_folder(bt_reload *set, const char *folder, bt_error *err) {
    const bt_portable_source *source = bt_portable_sources;
    for (; source->path && set->file_count < FILES_MAX; source++) {
        const char *slash = strrchr(source->path, '/');
        BT_TRY(read_source(set, folder, slash ? slash + 1 : source->path, err));
    }
    return translate(set, err);
}

// ---- Comparing ---------------------------------------------------------------------------------

// The C side of a set: kernels, bindings, scalars, exported constants.
static char *contract(const bt_reload *set) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    bool written = out && kc_write_header(set->unit, out);
    if (out && fclose(out)) written = false;
    if (written) return text;
    free(text);
    return NULL;
}

// What the operators were compiled against cannot change.
static bt_status same_contract(const bt_reload *old, const bt_reload *set, const char *folder,
                               bt_error *err) {
    char *texts[] = {contract(old), contract(set)};
    bt_status status = texts[0] && texts[1] ? BT_OK : bt_fail_memory(err, "kernels", 1 << 16);
    for (const char *a = texts[0], *b = texts[1]; status == BT_OK && (*a || *b);) {
        int n = (int)strcspn(a, "\n"), m = (int)strcspn(b, "\n");
        if (n != m || memcmp(a, b, (size_t)n))
            status = bt_fail(err, BT_ERROR_DATA,
                             "the kernels of %s do not fit this build: '%.*s' became '%.*s'; "
                             "build bantam anew for that",
                             folder, n, a, m, b);
        a += n + (a[n] == '\n'), b += m + (b[m] == '\n');
    }
    free(texts[0]), free(texts[1]);
    return status;
}

static bt_portable rules_of(const kc_kernel *k, const bt_portable *as) {
    bt_portable rules = {.name = as->name,
                         .file = k->path,
                         .line = k->line,
                         .kernel = as->kernel,
                         .group = (uint16_t)k->group,
                         .shared_bytes = (uint16_t)k->shared_bytes,
                         .special_count = (uint16_t)k->special_count,
                         .when = k->always ? NULL : k->when};
    for (uint32_t i = 0; i < k->special_count; i++) rules.special[i] = (uint8_t)k->special[i];
    for (int i = 0; i < 3; i++) rules.grid[i] = k->grid[i][0] == BT_RULE_END ? NULL : k->grid[i];
    return rules;
}

static bt_status fill_rules(bt_reload *set, const char *where, bt_error *err) {
    for (int i = 0; i < bt_portable_count; i++) {
        const bt_portable *as = &bt_portable_table[i];
        int k = kc_kernel_find(set->unit, as->name);
        const char *of = k < 0 ? "" : kc_kernel_at(set->unit, k)->of;
        if (strcmp(of, bt_kernel_table[as->kernel].name) != 0)
            return bt_fail(err, BT_ERROR_DATA, "%s: kernel %s%s%s is missing", where, as->name,
                           *of ? " of " : "", *of ? bt_kernel_table[as->kernel].name : "");
        set->rules[i] = rules_of(kc_kernel_at(set->unit, k), as);
    }
    if (kc_kernel_count(set->unit) == bt_portable_count) return BT_OK;
    return bt_fail(err, BT_ERROR_DATA,
                   "%s: %d kernels, but this build has %d; a new one needs a "
                   "new build",
                   where, kc_kernel_count(set->unit), bt_portable_count);
}

// Equal but for the lines that say where the text came from: the first, and #line.
static bool same_text(const char *a, const char *b) {
    for (bool first = true; *a || *b; first = false) {
        size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");
        bool places = first || (!strncmp(a, "#line", 5) && !strncmp(b, "#line", 5));
        if (!places && (n != m || memcmp(a, b, n) != 0)) return false;
        a += n + (a[n] == '\n'), b += m + (b[m] == '\n');
    }
    return true;
}

static bool same_rules(const kc_kernel *a, const kc_kernel *b) {
    return a->group == b->group && a->always == b->always && a->shared_bytes == b->shared_bytes &&
           !memcmp(a->when, b->when, sizeof a->when) && !memcmp(a->grid, b->grid, sizeof a->grid);
}

// ---- Swapping ----------------------------------------------------------------------------------

static const kc_kernel *kernel_of(const bt_reload *set, int i) {
    return kc_kernel_at(set->unit, kc_kernel_find(set->unit, bt_portable_table[i].name));
}

// The text of kernel i in the language of the device.
static char *text_of(const bt_reload *set, int i, const bt_device_api *api) {
    int lang = 0;
    while (strcmp(kc_lang_names[lang], api->language) != 0) lang++;
    return kc_emit(set->unit, kc_kernel_find(set->unit, bt_portable_table[i].name), (kc_lang)lang);
}

// Gives kernel i of `set` to the device, where it differs from that of `old`.
static bt_status swap(const bt_reload *old, const bt_reload *set, int i, const bt_device_api *api,
                      bt_device *dev, bool *swapped, bt_error *err) {
    char *before = text_of(old, i, api), *after = text_of(set, i, api);
    bt_status status = before && after ? BT_OK : bt_fail_memory(err, "a kernel", 1 << 14);
    *swapped = status == BT_OK &&
               !(same_text(before, after) && same_rules(kernel_of(old, i), kernel_of(set, i)));
    if (*swapped) status = api->kernel_swap(dev, i, &set->rules[i], after, err);
    free(before), free(after);
    return status;
}

static bt_status swap_all(const bt_reload *old, const bt_reload *set, const bt_device_api *api,
                          bt_device *dev, char *names, size_t bytes, bt_error *err) {
    bt_status status = BT_OK;
    size_t used = 0;
    int i = 0;
    *names = 0;
    for (; i < bt_portable_count && status == BT_OK; i++) {
        bool swapped;
        status = swap(old, set, i, api, dev, &swapped, err);
        if (status == BT_OK && swapped && used < bytes)
            used += (size_t)snprintf(names + used, bytes - used, "%s ", bt_portable_table[i].name);
    }
    // What ran until now can run again; the one that failed may have been swapped all the same.
    bt_error ignored = {0};
    bool unused;
    for (i -= 1; status != BT_OK && i >= 0; i--)
        if (swap(set, old, i, api, dev, &unused, &ignored) != BT_OK) ignored = (bt_error){0};
    return status;
}

// Ends with `set` running, or freed.
static bt_status adopt(bt_reload **now, const bt_device_api *api, bt_device *dev, bt_reload *set,
                       const char *where, char *swapped, size_t bytes, bt_error *err) {
    bt_status status = fill_rules(set, where, err);
    if (status == BT_OK) status = same_contract(*now, set, where, err);
    if (status == BT_OK) status = swap_all(*now, set, api, dev, swapped, bytes, err);
    bt_reload *unused = status == BT_OK ? *now : set;
    if (status == BT_OK) *now = set;
    bt_reload_free(unused);
    return status;
}

// Before the first change: what is built in runs.
static bt_status begin(bt_reload **now, const bt_device_api *api, bt_reload **set, bt_error *err) {
    *set = NULL;
    if (!api->kernel_swap)
        return bt_fail(
            err, BT_ERROR_DEVICE,
            "device %s runs the kernels it was built with; others run on vulkan, cuda and metal",
            api->name);
    if (!*now) *now = built_in(err);
    if (*now && !(*now)->rules[0].name) BT_TRY(fill_rules(*now, "the build", err));
    *set = *now ? new_set() : NULL;
    return *set ? BT_OK : bt_fail_memory(err, "kernels", sizeof **set);
}

bt_status bt_reload_folder(bt_reload **now, const bt_device_api *api, bt_device *dev,
                           const char *folder, char *swapped, size_t bytes, bt_error *err) {
    bt_reload *set;
    BT_TRY(begin(now, api, &set, err));
    bt_status status = read_folder(set, folder, err);
    if (status == BT_OK) return adopt(now, api, dev, set, folder, swapped, bytes, err);
    bt_reload_free(set);
    return status;
}

bt_status bt_reload_copy(bt_reload **now, const bt_device_api *api, bt_device *dev,
                         const bt_reload *from, char *swapped, size_t bytes, bt_error *err) {
    bt_reload *set;
    *swapped = 0;
    if (!from) return BT_OK;
    BT_TRY(begin(now, api, &set, err));
    bt_status status = BT_OK;
    for (int i = 0; i < from->file_count && status == BT_OK; i++) {
        const kc_source *file = &from->files[i];
        char *path = strdup(file->path), *text = malloc(file->length + 1);
        if (text) memcpy(text, file->text, file->length);
        set->texts[set->text_count++] = path;
        set->texts[set->text_count++] = text;
        set->files[set->file_count++] = (kc_source){path, text, file->length};
        if (!path || !text) status = bt_fail_memory(err, "a kernel file", file->length);
    }
    if (status == BT_OK) status = translate(set, err);
    if (status == BT_OK) return adopt(now, api, dev, set, "the other context", swapped, bytes, err);
    bt_reload_free(set);
    return status;
}

// ---- Listing -----------------------------------------------------------------------------------

const char *bt_kernel_name(const bt_device_api *api, const bt_launch *launch) {
    uint32_t grid[3];
    int i;
    bt_error ignored = {0};
    bool found = api->portable && bt_portable_pick(bt_portable_table, bt_portable_count, launch,
                                                   grid, &ignored, &i) == BT_OK;
    return found ? bt_portable_table[i].name : bt_kernel_table[launch->kernel].name;
}

static const char *source_of(const bt_portable *kernel) {
    const bt_portable_source *s = bt_portable_sources;
    while (s->path && strcmp(s->path, kernel->file) != 0) s++;
    return s->path ? s->text : "";
}

// Line `number` of a text; the first is 1.
static const char *line_at(const char *text, int number) {
    while (--number > 0 && *text) text += strcspn(text, "\n") + (text[strcspn(text, "\n")] != 0);
    return text;
}

// The condition behind `when`, as it is written.
static void copy_condition(const char *kernel, char *out, size_t bytes) {
    const char *when = strstr(kernel, "when (");
    size_t used = 0;
    int depth = 1;
    for (const char *p = when ? when + 6 : ""; *p; p++) {
        depth += (*p == '(') - (*p == ')');
        if (!depth || used + 1 >= bytes) break;
        bool space = *p == ' ' || *p == '\n';
        if (!space || (used && out[used - 1] != ' ')) out[used++] = space ? ' ' : *p;
    }
    out[used] = 0;
}

int bt_kernels(bt_kernel_desc *out, int max) {
    for (int i = 0; i < bt_portable_count && i < max; i++) {
        const bt_portable *k = &bt_portable_table[i];
        out[i] = (bt_kernel_desc){.name = k->name,
                                  .of = bt_kernel_table[k->kernel].name,
                                  .file = k->file,
                                  .bindings = bt_kernel_table[k->kernel].bindings,
                                  .line = k->line,
                                  .group = k->group,
                                  .shared_bytes = k->shared_bytes};
        if (k->when)
            copy_condition(line_at(source_of(k), k->line), out[i].when, sizeof out[i].when);
    }
    return bt_portable_count;
}

// The kernel with the comment above it, to the brace that ends it.
static void print_source(const bt_portable *k, FILE *out) {
    const char *text = source_of(k);
    int first = k->line;
    while (first > 1 && !strncmp(line_at(text, first - 1), "//", 2)) first--;
    const char *from = line_at(text, first), *end = strstr(line_at(text, k->line), "\n}");
    int length = end ? (int)(end + 2 - from) : (int)strlen(from);
    fprintf(out, "// %s:%d\n%.*s\n", k->file, k->line, length, from);
}

bt_status bt_kernel_print(bt_context *ctx, const char *name, const char *language, FILE *out) {
    bt_error *err = bt_error_of(ctx);
    int i = 0, lang = 0;
    while (i < bt_portable_count && strcmp(bt_portable_table[i].name, name) != 0) i++;
    while (language && lang < KC_LANG_COUNT && strcmp(kc_lang_names[lang], language) != 0) lang++;
    if (i == bt_portable_count || lang == KC_LANG_COUNT)
        return bt_fail(err, BT_ERROR_USAGE, "there is no kernel %s in the language %s", name,
                       language ? language : "k");
    if (!language) return print_source(&bt_portable_table[i], out), BT_OK;
    bt_reload *set = built_in(err);
    char *text = set ? kc_emit(set->unit, kc_kernel_find(set->unit, name), (kc_lang)lang) : NULL;
    if (text) fputs(text, out);
    free(text);
    bt_reload_free(set);
    return text ? BT_OK : bt_fail_memory(err, "a kernel", 1 << 16);
}
