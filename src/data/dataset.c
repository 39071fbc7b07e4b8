// Opening, making and splitting data sets. See dataset.h, and sets.h for the known ones.
#include "data/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/rng.h"
#include "data/digits.h"
#include "data/file.h"
#include "data/idx.h"
#include "data/sets.h"

// ---- Making ----------------------------------------------------------------------------------

static void free_set(bt_context *ctx, void *object) {
    bt_dataset *set = object;
    if (set->base == set) {
        free(set->images);
        free(set->labels);
    }
    free(set->index);
    bt_free_block(ctx, set);
}

// A set over the bytes of `base` (NULL: its own, still to be filled in) with room for an index.
static bt_status new_set(bt_context *ctx, bt_dataset *base, int count, bt_dataset **out) {
    bt_dataset *set = calloc(1, sizeof *set);
    uint32_t *index = calloc(count > 0 ? (size_t)count : 1, sizeof *index);
    if (!set || !index) {
        free(set);
        free(index);
        return bt_fail_memory(bt_error_of(ctx), "a data set", (size_t)count * sizeof *index);
    }
    if (base) *set = *base;
    set->base = base ? base : set;
    set->index = index;
    set->index_id = 0;
    set->info.count = count;
    BT_TRY(bt_own(ctx, set, free_set));
    *out = set;
    return BT_OK;
}

// What the samples would be as an image and a label file, so that every way of getting the same
// samples has the same hash.
static void hash_set(bt_dataset *set) {
    const bt_dataset_info *info = &set->info;
    uint32_t dim[4] = {set->total, (uint32_t)info->channels, (uint32_t)info->height,
                       (uint32_t)info->width};
    uint8_t images[20] = {0, 0, 8, info->channels == 1 ? 3 : 4}, labels[8] = {0, 0, 8, 1};
    size_t n = 4;
    for (int d = 0; d < 4; d++) {
        if (d == 1 && info->channels == 1) continue;
        for (int shift = 24; shift >= 0; shift -= 8) images[n++] = (uint8_t)(dim[d] >> shift);
    }
    memcpy(labels + 4, images + 4, 4);
    size_t pixels = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
    bt_bytes parts[] = {
        {images, n}, {set->images, set->total * pixels}, {labels, 8}, {set->labels, set->total}};
    bt_sha256(parts, 4, set->info.sha256);
}

static bt_status check_labels(const bt_dataset *set, const char *name, bt_error *err) {
    for (uint32_t i = 0; i < set->total; i++)
        if (set->labels[i] >= set->info.classes)
            return bt_fail(err, BT_ERROR_DATA, "'%s': label %u is %d; the classes are 0 to %d",
                           name, i, set->labels[i], set->info.classes - 1);
    return BT_OK;
}

// Takes over images and labels, also when it fails.
static bt_status adopt(bt_context *ctx, uint8_t *images, uint8_t *labels, bt_dataset_info info,
                       int limit, bt_dataset **out) {
    bt_dataset *set;
    uint32_t total = (uint32_t)info.count;
    int count = limit > 0 && limit < info.count ? limit : info.count;
    bt_status status = new_set(ctx, NULL, count, &set);
    if (status != BT_OK) {
        free(images);
        free(labels);
        return status;
    }
    set->images = images;
    set->labels = labels;
    set->total = total;
    set->info = info;
    set->info.count = count;
    for (int i = 0; i < count; i++) set->index[i] = (uint32_t)i;
    hash_set(set);
    *out = set;
    return BT_OK;
}

bt_status bt_dataset_make(bt_context *ctx, const uint8_t *images, const uint8_t *labels, int count,
                          int channels, int height, int width, int classes, bt_dataset **out) {
    bt_error *err = bt_error_of(ctx);
    *out = NULL;
    size_t bytes = 0;
    bool fits = count > 0 && channels > 0 && height > 0 && width > 0 &&
                bt_mul_ok((size_t)count, (size_t)channels, &bytes) &&
                bt_mul_ok(bytes, (size_t)height, &bytes) &&
                bt_mul_ok(bytes, (size_t)width, &bytes) && bytes <= BT_FILE_MAX;
    if (!fits)
        return bt_fail(err, BT_ERROR_USAGE,
                       "a data set of %d x %d x %d x %d is not possible; every dimension is 1 or "
                       "more and they multiply to less than 2^31",
                       count, channels, height, width);
    if (classes < 1 || classes > 256)
        return bt_fail(err, BT_ERROR_USAGE, "%d classes are not possible; 1 to 256 are", classes);
    uint8_t *image_copy = malloc(bytes), *label_copy = malloc((size_t)count);
    if (!image_copy || !label_copy) {
        free(image_copy);
        free(label_copy);
        return bt_fail_memory(err, "a data set", bytes);
    }
    memcpy(image_copy, images, bytes);
    memcpy(label_copy, labels, (size_t)count);
    bt_dataset_info info = {.name = "memory",
                            .source = "memory",
                            .count = count,
                            .channels = channels,
                            .height = height,
                            .width = width,
                            .classes = classes};
    bt_dataset *set;
    BT_TRY(adopt(ctx, image_copy, label_copy, info, 0, &set));
    BT_TRY(check_labels(set, "memory", err));
    *out = set;
    return BT_OK;
}

// ---- Opening ---------------------------------------------------------------------------------

static bt_status open_digits(bt_context *ctx, const bt_dataset_desc *desc, bt_dataset **out) {
    int count = desc->test ? BT_DIGITS_TEST : BT_DIGITS_TRAIN;
    if (desc->limit > 0 && desc->limit < count) count = desc->limit; // draw no more than asked
    size_t pixels = (size_t)BT_DIGITS_SIDE * BT_DIGITS_SIDE;
    uint8_t *images = malloc((size_t)count * pixels), *labels = malloc((size_t)count);
    bt_status status = images && labels
                           ? bt_digits_draw(desc->test ? BT_DIGITS_TRAIN : 0, count, images, labels,
                                            bt_error_of(ctx))
                           : bt_fail_memory(bt_error_of(ctx), "the digits", (size_t)count * pixels);
    if (status != BT_OK) {
        free(images);
        free(labels);
        return status;
    }
    bt_dataset_info info = {.name = "digits",
                            .source = "built in",
                            .count = count,
                            .channels = 1,
                            .height = BT_DIGITS_SIDE,
                            .width = BT_DIGITS_SIDE,
                            .classes = 10};
    return adopt(ctx, images, labels, info, 0, out);
}

static bt_status check_pair(const bt_idx *images, const char *image_path, const bt_idx *labels,
                            const char *label_path, bt_error *err) {
    BT_TRY(bt_idx_expect_images(images, image_path, err));
    BT_TRY(bt_idx_expect_labels(labels, label_path, err));
    if (images->dim[0] != labels->dim[0])
        return bt_fail(err, BT_ERROR_DATA, "'%.200s' holds %u images but '%.200s' %u labels",
                       image_path, images->dim[0], label_path, labels->dim[0]);
    return BT_OK;
}

static bt_status read_pair(const char *image_path, const char *label_path, bt_error *err,
                           bt_idx *images, bt_idx *labels) {
    BT_TRY(bt_idx_read(image_path, err, images));
    bt_status status = bt_idx_read(label_path, err, labels);
    if (status == BT_OK) status = check_pair(images, image_path, labels, label_path, err);
    if (status != BT_OK) {
        free(images->data);
        free(labels->data);
    }
    return status;
}

static int count_classes(const bt_idx *labels) {
    int most = 0;
    for (size_t i = 0; i < labels->bytes; i++)
        if (labels->data[i] > most) most = labels->data[i];
    return most + 1;
}

static bt_status locate(const char *folder, int file, bt_error *err, char out[BT_PATH_BYTES]) {
    if (bt_set_locate(folder, file, out)) return BT_OK;
    return bt_fail(err, BT_ERROR_DATA,
                   "the folder '%.300s' has no file '%s' (nor with .gz or a dot before idx)",
                   folder, bt_set_file(file, 0));
}

// A known set of full size has to have its bytes. Other sizes pass: they are somebody's excerpt.
static bt_status check_known(const bt_set *known, const bt_dataset *set, bool test, bt_error *err) {
    if (!known || set->total != (uint32_t)known->counts[test] ||
        strcmp(set->info.sha256, known->parts[test]) == 0)
        return BT_OK;
    return bt_fail(err, BT_ERROR_DATA,
                   "the files of %s are damaged (%.200s): their SHA-256 is %.16s..., but must be "
                   "%.16s...; mend them with: bantam data get %s",
                   known->name, set->info.source, set->info.sha256, known->parts[test],
                   known->name);
}

static bt_status open_folder(bt_context *ctx, const bt_dataset_desc *desc, const char *folder,
                             const bt_set *known, bt_dataset **out) {
    bt_error *err = bt_error_of(ctx);
    char image_path[BT_PATH_BYTES], label_path[BT_PATH_BYTES];
    bt_idx images, labels;
    BT_TRY(locate(folder, desc->test ? 2 : 0, err, image_path));
    BT_TRY(locate(folder, desc->test ? 3 : 1, err, label_path));
    BT_TRY(read_pair(image_path, label_path, err, &images, &labels));
    bt_dataset_info info = {.count = (int)images.dim[0],
                            .channels = 1,
                            .height = (int)images.dim[1],
                            .width = (int)images.dim[2],
                            .classes = known ? 10 : count_classes(&labels)};
    size_t length = strlen(desc->name);
    while (length > 1 && desc->name[length - 1] == '/') length--;
    size_t start = length;
    while (start > 0 && desc->name[start - 1] != '/') start--;
    snprintf(info.name, sizeof info.name, "%.*s", (int)(length - start), desc->name + start);
    snprintf(info.source, sizeof info.source, "%.250s, %s", image_path,
             strrchr(label_path, '/') + 1);
    bt_dataset *set;
    BT_TRY(adopt(ctx, images.data, labels.data, info, desc->limit, &set));
    BT_TRY(check_labels(set, label_path, err));
    BT_TRY(check_known(known, set, desc->test, err));
    *out = set;
    return BT_OK;
}

static bt_status open_known(bt_context *ctx, const bt_dataset_desc *desc, const bt_set *known,
                            bt_dataset **out) {
    char folder[BT_PATH_BYTES], images[BT_PATH_BYTES], looked[400] = "";
    for (int i = 0; bt_set_folder(desc->folder, known->name, i, folder); i++) {
        if (bt_set_locate(folder, desc->test ? 2 : 0, images))
            return open_folder(ctx, desc, folder, known, out);
        size_t used = strlen(looked);
        snprintf(looked + used, sizeof looked - used, "%s'%.180s'", i ? " and " : "", folder);
    }
    return bt_fail(bt_error_of(ctx), BT_ERROR_DATA,
                   "the data set %s is not here (looked for %s); get it with: bantam data get %s",
                   known->name, looked, known->name);
}

bt_status bt_dataset_open(bt_context *ctx, const bt_dataset_desc *desc, bt_dataset **out) {
    bt_error *err = bt_error_of(ctx);
    *out = NULL;
    if (!desc->name || !*desc->name) return bt_fail(err, BT_ERROR_USAGE, "no data set was named");
    if (desc->limit < 0)
        return bt_fail(err, BT_ERROR_USAGE, "the limit of samples is %d; it must be 0 or more",
                       desc->limit);
    const bt_set *known = bt_set_find(desc->name);
    if (known && !known->sha256[0]) return open_digits(ctx, desc, out);
    if (known) return open_known(ctx, desc, known, out);
    if (bt_folder_exists(desc->name)) return open_folder(ctx, desc, desc->name, NULL, out);
    if (strchr(desc->name, '/'))
        return bt_fail(err, BT_ERROR_DATA, "there is no folder '%.400s'", desc->name);
    return bt_set_unknown(desc->name, err);
}

// ---- Splitting and looking -------------------------------------------------------------------

bt_status bt_dataset_split(bt_context *ctx, const bt_dataset *set, double fraction, uint64_t seed,
                           bt_dataset **first, bt_dataset **second) {
    bt_error *err = bt_error_of(ctx);
    int count = set->info.count;
    *first = *second = NULL;
    int taken = fraction > 0 && fraction < 1 ? (int)lround(fraction * count) : 0;
    if (taken < 1 || taken >= count)
        return bt_fail(
            err, BT_ERROR_USAGE,
            "a split of %g of %d samples leaves one part empty; train without validation "
            "(--val-split 0) or on more samples",
            fraction, count);
    uint8_t *chosen = calloc((size_t)count, 1);
    if (!chosen) return bt_fail_memory(err, "a split", (size_t)count);
    uint32_t key = bt_philox(seed, BT_STREAM_SPLIT, 0).v[0];
    for (int i = 0; i < taken; i++) chosen[bt_permute_index((uint32_t)i, (uint32_t)count, key)] = 1;
    bt_dataset *part[2];
    bt_status status = new_set(ctx, set->base, count - taken, &part[0]);
    if (status == BT_OK) status = new_set(ctx, set->base, taken, &part[1]);
    if (status == BT_OK) {
        uint32_t *next[2] = {part[0]->index, part[1]->index};
        for (int i = 0; i < count; i++) *next[chosen[i]]++ = set->index[i];
        *first = part[0];
        *second = part[1];
    }
    free(chosen);
    return status;
}

void bt_dataset_describe(const bt_dataset *set, bt_dataset_info *out) {
    *out = set->info;
}

const uint8_t *bt_dataset_image(const bt_dataset *set, int i) {
    const bt_dataset_info *info = &set->info;
    size_t pixels = (size_t)info->channels * (size_t)info->height * (size_t)info->width;
    return set->images + set->index[i] * pixels;
}

int bt_dataset_label(const bt_dataset *set, int i) {
    return set->labels[set->index[i]];
}

static bool has_all_files(const char *folder) {
    char path[BT_PATH_BYTES];
    for (int i = 0; i < BT_SET_FILES; i++)
        if (!bt_set_locate(folder, i, path)) return false;
    return true;
}

int bt_dataset_list(const char *folder, bt_dataset_entry *out, int max) {
    for (int s = 0; s < bt_set_count && s < max; s++) {
        const bt_set *set = &bt_sets[s];
        char path[BT_PATH_BYTES];
        out[s] = (bt_dataset_entry){.name = set->name, .description = set->description};
        out[s].built_in = out[s].present = !set->sha256[0];
        for (int i = 0; !out[s].present && bt_set_folder(folder, set->name, i, path); i++) {
            out[s].present = has_all_files(path);
            if (out[s].present || i == 0) memcpy(out[s].folder, path, sizeof path);
        }
    }
    return bt_set_count;
}
