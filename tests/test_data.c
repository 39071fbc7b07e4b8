// Data sets: IDX files good and bad, the built-in digits, splitting, image files, and getting a
// set from a folder. Every damaged file must end in one sentence that names it.
#include "support.h"

#include <png.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

// ---- A small set in IDX files -----------------------------------------------------------------

enum { N = 30, SIDE = 6, PIXELS = SIDE * SIDE, HEADER = 16 };

typedef struct file {
    uint8_t *bytes;
    size_t count;
} file;

static void put32(uint8_t *to, uint32_t v) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(v >> (24 - 8 * i));
}

static file images_file(int n) {
    file f = {.count = HEADER + (size_t)n * PIXELS};
    f.bytes = allocate(f.count);
    put32(f.bytes, 0x803), put32(f.bytes + 4, (uint32_t)n), put32(f.bytes + 8, SIDE),
        put32(f.bytes + 12, SIDE);
    for (size_t i = HEADER; i < f.count; i++) f.bytes[i] = (uint8_t)(i * 37 % 251);
    return f;
}

static file labels_file(int n) {
    file f = {.count = 8 + (size_t)n};
    f.bytes = allocate(f.count);
    put32(f.bytes, 0x801), put32(f.bytes + 4, (uint32_t)n);
    for (int i = 0; i < n; i++) f.bytes[8 + i] = (uint8_t)(i % 10);
    return f;
}

static file zipped(file in) {
    file out = {.bytes = allocate(in.count + 200)};
    z_stream z = {.next_in = in.bytes,
                  .avail_in = (unsigned)in.count,
                  .next_out = out.bytes,
                  .avail_out = (unsigned)in.count + 200};
    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    check(deflate(&z, Z_FINISH) == Z_STREAM_END, "cannot pack");
    out.count = z.total_out;
    deflateEnd(&z);
    return out;
}

static void save(const char *folder, const char *name, file f) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    write_file(path, f.bytes, f.count);
}

// The same for a file made for this alone.
static void put(const char *folder, const char *name, file f) {
    save(folder, name, f);
    free(f.bytes);
}

static const char *new_folder(const char *name) {
    const char *folder = in_scratch(name);
    mkdir(folder, 0777);
    return folder;
}

static bt_status open_folder(bt_context *ctx, const char *folder, bool test, bt_dataset **set) {
    return bt_dataset_open(ctx, &(bt_dataset_desc){.name = folder, .test = test}, set);
}

static void check_set(const bt_dataset *set, int n) {
    bt_dataset_info info;
    bt_dataset_describe(set, &info);
    check(info.count == n && info.channels == 1 && info.height == SIDE && info.width == SIDE,
          "%d samples of %d x %d x %d", info.count, info.channels, info.height, info.width);
    file f = images_file(n);
    for (int i = 0; i < n; i++) { // the bytes of images_file
        check(bt_dataset_label(set, i) == i % 10, "label %d is %d", i, bt_dataset_label(set, i));
        check(!memcmp(bt_dataset_image(set, i), f.bytes + HEADER + i * PIXELS, PIXELS),
              "image %d differs", i);
    }
    free(f.bytes);
}

static void test_idx_spellings(void **state) {
    (void)state;
    static const char *names[][2] = {{"train-images-idx3-ubyte", "train-labels-idx1-ubyte"},
                                     {"train-images.idx3-ubyte", "train-labels.idx1-ubyte"},
                                     {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"},
                                     {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz"}};
    bt_context *ctx = open_cpu(1);
    for (int i = 0; i < 4; i++) {
        char folder_name[32];
        snprintf(folder_name, sizeof folder_name, "good-%d", i);
        const char *folder = new_folder(folder_name);
        for (int j = 0; j < 2; j++) {
            file plain = j ? labels_file(N) : images_file(N), packed = zipped(plain);
            save(folder, names[i][j], strstr(names[i][j], ".gz") ? packed : plain);
            free(plain.bytes), free(packed.bytes);
        }
        bt_dataset *set = NULL;
        ok(ctx, open_folder(ctx, folder, i == 3, &set));
        check_set(set, N);
    }
    bt_close(ctx);
}

static void test_limit(void **state) {
    (void)state;
    const char *folder = new_folder("limit");
    put(folder, "train-images-idx3-ubyte", images_file(N));
    put(folder, "train-labels-idx1-ubyte", labels_file(N));
    bt_context *ctx = open_cpu(1);
    bt_dataset *set = NULL;
    ok(ctx, bt_dataset_open(ctx, &(bt_dataset_desc){.name = folder, .limit = 7}, &set));
    check_set(set, 7);
    bt_close(ctx);
}

// A damaged pair must be refused as data, with a sentence that names the file.
static void refuse_pair(const char *what, file images, file labels) {
    const char *folder = new_folder("bad");
    char path[600];
    for (int packed = 0; packed < 2; packed++) {
        if (packed) {
            file plain[2] = {images, labels};
            if (images.bytes) images = zipped(images), free(plain[0].bytes);
            if (labels.bytes) labels = zipped(labels), free(plain[1].bytes);
        }
        if (images.bytes) save(folder, "train-images-idx3-ubyte", images);
        if (labels.bytes) save(folder, "train-labels-idx1-ubyte", labels);
        bt_context *ctx = open_cpu(1);
        bt_dataset *set = NULL;
        bt_status status = open_folder(ctx, folder, false, &set);
        check(status == BT_ERROR_DATA, "%s: gives %s", what, bt_status_name(status));
        check(strstr(bt_error_text(ctx), "images") || strstr(bt_error_text(ctx), "labels"),
              "%s: the sentence does not name the file: \"%s\"", what, bt_error_text(ctx));
        bt_close(ctx);
        snprintf(path, sizeof path, "%s/train-images-idx3-ubyte", folder);
        unlink(path);
        snprintf(path, sizeof path, "%s/train-labels-idx1-ubyte", folder);
        unlink(path);
    }
    free(images.bytes), free(labels.bytes);
}

static void test_bad_idx(void **state) {
    (void)state;
    file none = {0};
    refuse_pair("no labels", images_file(N), none);
    refuse_pair("no images", none, labels_file(N));
    refuse_pair("swapped", labels_file(N), images_file(N));
    refuse_pair("fewer labels", images_file(N), labels_file(N - 1));
    refuse_pair("more labels", images_file(N), labels_file(N + 1));
    static const size_t cuts[] = {0, 1, 3, 4, 7, 15, 16, 17, HEADER + N * PIXELS - 1};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        file f = images_file(N);
        f.count = cuts[i];
        char text[64];
        snprintf(text, sizeof text, "cut to %zu bytes", cuts[i]);
        refuse_pair(text, f, labels_file(N));
    }
    file longer = images_file(N + 1);
    put32(longer.bytes + 4, N);
    refuse_pair("too long", longer, labels_file(N));
    file ten = labels_file(N);
    ten.bytes[8 + 11] = 200;
    put32(ten.bytes + 4, N - 1);
    refuse_pair("labels too long", images_file(N), ten);
}

static void test_bit_flips(void **state) {
    (void)state;
    // Every bit of the two headers.
    for (int bit = 0; bit < 8 * HEADER; bit++) {
        char text[64];
        snprintf(text, sizeof text, "bit %d of the images' header flipped", bit);
        file f = images_file(N);
        f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        refuse_pair(text, f, labels_file(N));
    }
    for (int bit = 0; bit < 8 * 8; bit++) {
        char text[64];
        snprintf(text, sizeof text, "bit %d of the labels' header flipped", bit);
        file f = labels_file(N);
        f.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        refuse_pair(text, images_file(N), f);
    }
}

static void test_huge_dimensions(void **state) {
    (void)state;
    static const uint32_t sizes[][3] = {{0xffffffff, 0xffffffff, 0xffffffff},
                                        {0x40000000, 4, 1},
                                        {0, 6, 6},
                                        {0x10000, 0x10000, 1},
                                        {30, 0, 0},
                                        {0x7fffffff, 1, 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        file f = images_file(N);
        for (int d = 0; d < 3; d++) put32(f.bytes + 4 + 4 * d, sizes[i][d]);
        refuse_pair("huge or empty dimensions", f, labels_file(N));
    }
}

static void test_bad_gzip(void **state) {
    (void)state;
    file plain = images_file(N), good = zipped(plain);
    const char *folder = new_folder("bad-gzip");
    put(folder, "train-labels-idx1-ubyte", labels_file(N));
    for (size_t cut = 2; cut < good.count; cut += 7) {
        bt_context *ctx = open_cpu(1);
        bt_dataset *set = NULL;
        save(folder, "train-images-idx3-ubyte.gz", (file){good.bytes, cut});
        bt_status status = open_folder(ctx, folder, false, &set);
        check(status == BT_ERROR_DATA, "gzip cut to %zu of %zu gives %s", cut, good.count,
              bt_status_name(status));
        bt_close(ctx);
    }
    // A damaged checksum at the end.
    good.bytes[good.count - 6] ^= 1;
    save(folder, "train-images-idx3-ubyte.gz", good);
    bt_context *ctx = open_cpu(1);
    bt_dataset *set = NULL;
    refused(ctx, BT_ERROR_DATA, "images", open_folder(ctx, folder, false, &set));
    bt_close(ctx);
    free(plain.bytes), free(good.bytes);
}

static void test_unknown_set(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_dataset *set = NULL;
    bt_status status = bt_dataset_open(ctx, &(bt_dataset_desc){.name = "digts"}, &set);
    check(status == BT_ERROR_USAGE || status == BT_ERROR_DATA, "\"digts\" gives %s",
          bt_status_name(status));
    check(strstr(bt_error_text(ctx), "digits"), "no known name is offered: \"%s\"",
          bt_error_text(ctx));
    bt_close(ctx);
}

// ---- Built-in digits --------------------------------------------------------------------------

// Of the bytes that a set describes; they must never change, or old results lose their meaning.
static const char digits_train[] =
    "eef0ebce45c779d2cb78e96cbe2e99ae1d70d9eb865839667c4018e6560c571d";
static const char digits_test[] =
    "b23e199fe3c071aeb61207b569c133953285e01c09dd3ffce7ff2397ad63a4b2";

static void test_digits(void **state) {
    (void)state;
    int counts[] = {60000, 10000};
    const char *pinned[] = {digits_train, digits_test};
    for (int part = quick(); part < 2; part++) {
        bt_context *ctx = open_cpu(2);
        bt_dataset *set = NULL;
        bt_dataset_info info;
        ok(ctx, bt_dataset_open(ctx, &(bt_dataset_desc){.name = "digits", .test = part}, &set));
        bt_dataset_describe(set, &info);
        check(info.count == counts[part] && info.height == 28 && info.width == 28 &&
                  info.classes == 10 && info.channels == 1,
              "%d samples", info.count);
        check(!strcmp(info.sha256, pinned[part]), "the digits changed: SHA-256 is %s and not %s",
              info.sha256, pinned[part]);
        int seen[10] = {0};
        for (int i = 0; i < info.count; i++) seen[bt_dataset_label(set, i)]++;
        for (int d = 0; d < 10; d++)
            check(seen[d] > info.count / 20, "only %d of digit %d", seen[d], d);
        bt_close(ctx);
    }
}

static void test_digits_limit(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 8};
    uint8_t first[3][100 * 784];
    for (int t = 0; t < 3; t++) {
        bt_context *ctx = open_cpu(threads[t]);
        bt_dataset *set = NULL;
        ok(ctx, bt_dataset_open(
                    ctx, &(bt_dataset_desc){.name = "digits", .limit = t == 2 ? 100 : 333}, &set));
        for (int i = 0; i < 100; i++) memcpy(&first[t][i * 784], bt_dataset_image(set, i), 784);
        check(!memcmp(first[0], first[t], sizeof first[0]), "%d threads draw other digits",
              threads[t]);
        bt_close(ctx);
    }
}

// ---- Sets from memory, splitting --------------------------------------------------------------

static void test_split(void **state) {
    (void)state;
    static const double fractions[] = {0, 0.1, 0.25, 0.5, 0.999, 1};
    file f = images_file(N), l = labels_file(N);
    for (int i = 0; i < N; i++) f.bytes[HEADER + i * PIXELS] = (uint8_t)i; // tells them apart
    for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++) {
        bt_context *ctx = open_cpu(1);
        bt_dataset *set = NULL, *part[2] = {0};
        ok(ctx, bt_dataset_make(ctx, f.bytes + HEADER, l.bytes + 8, N, 1, SIDE, SIDE, 10, &set));
        bt_status status = bt_dataset_split(ctx, set, fractions[i], 7, &part[0], &part[1]);
        if (status != BT_OK) { // an empty part may be refused, with words
            check(i == 0 || i > 3, "splitting off %g fails: %s", fractions[i], bt_error_text(ctx));
            bt_close(ctx);
            continue;
        }
        bool seen[N] = {false};
        int total = 0;
        for (int p = 0; p < 2; p++) {
            bt_dataset_info info;
            bt_dataset_describe(part[p], &info);
            if (p)
                check(info.count == (int)(fractions[i] * N + 0.5), "%d split off of %d at %g",
                      info.count, N, fractions[i]);
            int last = -1;
            for (int j = 0; j < info.count; j++, total++) {
                int id = bt_dataset_image(part[p], j)[0];
                check(id < N && !seen[id] && id > last, "sample %d is there twice, or out of order",
                      id);
                check(bt_dataset_label(part[p], j) == id % 10, "the label of %d moved", id);
                seen[id] = true;
                last = id;
            }
        }
        check(total == N, "%d of %d samples after the split", total, N);
        bt_close(ctx);
    }
    free(f.bytes), free(l.bytes);
}

// ---- Image files ------------------------------------------------------------------------------

static void write_png(const char *path, int w, int h, const uint8_t *grey, bool rgb) {
    uint8_t *pixels = allocate((size_t)(w * h * 3));
    for (int i = 0; i < w * h * (rgb ? 3 : 1); i++) pixels[i] = grey[rgb ? i / 3 : i];
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (unsigned)w,
                       .height = (unsigned)h,
                       .format = rgb ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY};
    check(png_image_write_to_file(&image, path, 0, pixels, 0, NULL), "cannot write %s", path);
    free(pixels);
}

static void test_images(void **state) {
    (void)state;
    uint8_t grey[PIXELS];
    for (int i = 0; i < PIXELS; i++) grey[i] = (uint8_t)(i * 7);
    char pgm[64 + PIXELS];
    int head = snprintf(pgm, sizeof pgm, "P5\n# a comment\n%d %d\n255\n", SIDE, SIDE);
    memcpy(pgm + head, grey, PIXELS);
    write_file(in_scratch("a.pgm"), pgm, (size_t)head + PIXELS);
    write_png(in_scratch("a.png"), SIDE, SIDE, grey, false);
    write_png(in_scratch("rgb.png"), SIDE, SIDE, grey, true);
    static const char *names[] = {"a.pgm", "a.png", "rgb.png"};
    bt_context *ctx = open_cpu(1);
    for (int i = 0; i < 3; i++) {
        uint8_t *images = NULL;
        int count = 0;
        bool scaled = true;
        ok(ctx, bt_images_read(ctx, in_scratch(names[i]), SIDE, SIDE, &images, &count, &scaled));
        check(count == 1 && !scaled, "%s: %d images%s", names[i], count, scaled ? ", scaled" : "");
        for (int p = 0; p < PIXELS; p++) {
            int off = abs(images[p] - grey[p]);
            check(off <= (i == 2), "%s: pixel %d is %d and not %d", names[i], p, images[p],
                  grey[p]);
        }
        ok(ctx, bt_images_read(ctx, in_scratch(names[i]), 28, 28, &images, &count, &scaled));
        check(count == 1 && scaled, "%s is not scaled", names[i]);
    }
    file f = images_file(5);
    write_file(in_scratch("five-idx3-ubyte"), f.bytes, f.count);
    uint8_t *images = NULL;
    int count = 0;
    bool scaled;
    ok(ctx,
       bt_images_read(ctx, in_scratch("five-idx3-ubyte"), SIDE, SIDE, &images, &count, &scaled));
    check(count == 5 && !memcmp(images, f.bytes + HEADER, 5 * PIXELS),
          "%d images of IDX, or other bytes", count);
    free(f.bytes);
    bt_close(ctx);
}

static void test_bad_images(void **state) {
    (void)state;
    static const char *bad[] = {"",
                                "P5",
                                "P5\n6 6\n255\nshort",
                                "P5\n99999999 99999999\n255\n",
                                "P5\n-6 6\n255\n1",
                                "P5\n6 6\n0\n",
                                "GIF89a",
                                "\x89PNG\r\n\x1a\n broken",
                                "P5\n0 0\n255\n"};
    bt_context *ctx = open_cpu(1);
    uint8_t *images = NULL;
    int count;
    bool scaled;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(in_scratch("bad.pgm"), bad[i], strlen(bad[i]));
        refused(ctx, BT_ERROR_DATA, "bad.pgm",
                bt_images_read(ctx, in_scratch("bad.pgm"), 28, 28, &images, &count, &scaled));
    }
    refused(ctx, BT_ERROR_DATA, "nowhere.png",
            bt_images_read(ctx, in_scratch("nowhere.png"), 28, 28, &images, &count, &scaled));
    uint8_t grey[PIXELS] = {0};
    write_png(in_scratch("cut.png"), SIDE, SIDE, grey, false);
    size_t size;
    uint8_t *bytes = read_file(in_scratch("cut.png"), &size);
    for (size_t cut = 8; cut < size - 12; cut += 3) {
        write_file(in_scratch("cut.png"), bytes, cut);
        refused(ctx, BT_ERROR_DATA, "cut.png",
                bt_images_read(ctx, in_scratch("cut.png"), 28, 28, &images, &count, &scaled));
    }
    free(bytes);
    bt_close(ctx);
}

// ---- Getting sets -----------------------------------------------------------------------------

static void test_list(void **state) {
    (void)state;
    bt_dataset_entry entries[16];
    int count = bt_dataset_list(new_folder("empty-data"), entries, 16);
    bool built_in = false;
    for (int i = 0; i < count; i++) {
        if (!strcmp(entries[i].name, "digits"))
            built_in = entries[i].built_in && entries[i].present;
        else
            check(!entries[i].present, "%s is there, in an empty folder", entries[i].name);
    }
    check(count >= 3 && built_in, "%d sets are listed", count);
}

static void test_get_refuses_wrong_bytes(void **state) {
    (void)state;
    const char *from = new_folder("from"), *to = new_folder("to");
    put(from, "train-images-idx3-ubyte", images_file(N));
    put(from, "train-labels-idx1-ubyte", labels_file(N));
    put(from, "t10k-images-idx3-ubyte", images_file(N));
    put(from, "t10k-labels-idx1-ubyte", labels_file(N));
    bt_context *ctx = open_cpu(1);
    refused(ctx, BT_ERROR_DATA, "SHA-256", bt_dataset_get(ctx, "mnist", to, from, NULL));
    bt_dataset_entry entries[16];
    int count = bt_dataset_list(to, entries, 16);
    for (int i = 0; i < count; i++) {
        check(entries[i].built_in || !entries[i].present, "%s was put in place all the same",
              entries[i].name);
    }
    refused(ctx, BT_ERROR_DATA, NULL,
            bt_dataset_get(ctx, "mnist", to, in_scratch("no-such-folder"), NULL));
    bt_close(ctx);
}

static void test_get_mnist_from_folder(void **state) {
    (void)state;
    const char *data = getenv("BANTAM_DATA");
    char from[600];
    snprintf(from, sizeof from, "%s/mnist", data ? data : "");
    if (!data || access(from, R_OK))
        skip_because("no MNIST here; set BANTAM_DATA to the folder that holds mnist/");
    const char *to = new_folder("to-mnist");
    bt_context *ctx = open_cpu(1);
    ok(ctx, bt_dataset_get(ctx, "mnist", to, from, NULL));
    bt_dataset *set = NULL;
    bt_dataset_info info;
    ok(ctx,
       bt_dataset_open(ctx, &(bt_dataset_desc){.name = "mnist", .folder = to, .test = true}, &set));
    bt_dataset_describe(set, &info);
    check(info.count == 10000 && bt_dataset_label(set, 0) == 7, "%d samples, the first is a %d",
          info.count, bt_dataset_label(set, 0));
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idx_spellings),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_bad_idx),
        cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_huge_dimensions),
        cmocka_unit_test(test_bad_gzip),
        cmocka_unit_test(test_unknown_set),
        cmocka_unit_test(test_digits),
        cmocka_unit_test(test_digits_limit),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_bad_images),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_get_refuses_wrong_bytes),
        cmocka_unit_test(test_get_mnist_from_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
