// Classifying drawings; see classify.h.
#include "classify.h"

#include "center.h"
#include "report/chart.h"
#include "system.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A checkpoint may come from anywhere, and everybody waits while one drawing is classified.
enum { SIDE_MAX = 1024, NUMBERS_MAX = 8 << 20, WORK_MAX = 2000000000 };
enum { CLASSES_MAX = 100, MAPS_MAX = 64, MAP_ROW = 16, IMAGE_PIXELS = 660, MAP_PIXELS = 140 };

struct classifier {
    char run[PATH_BYTES], path[PATH_BYTES + 64]; // of the checkpoint that is loaded
    struct stat file;                            // as it was then
    bt_context *ctx;                             // NULL: nothing is loaded
    bt_model *model;
    bt_model_desc desc;
    bt_program *program;
    bt_tensor input, outputs[2]; // probabilities, and what leaves the first layer
    float *pixels, *probabilities, *maps;
};

classifier *classifier_make(const char *run) {
    classifier *c = calloc(1, sizeof *c);
    if (c) snprintf(c->run, sizeof c->run, "%s", run);
    return c;
}

static void unload(classifier *c) {
    if (c->ctx) bt_close(c->ctx);
    free(c->pixels);
    free(c->probabilities);
    free(c->maps);
    c->ctx = NULL, c->program = NULL, c->pixels = c->probabilities = c->maps = NULL;
}

void classifier_free(classifier *c) {
    if (!c) return;
    unload(c);
    free(c);
}

// ---- Loading -----------------------------------------------------------------------------------

static bool find_file(const classifier *c, char path[PATH_BYTES + 64], struct stat *info) {
    static const char *const names[] = {"best", "last"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, PATH_BYTES + 64, "%s/checkpoints/%s.safetensors", c->run, names[i]);
        if (!stat(path, info) && S_ISREG(info->st_mode)) return true;
    }
    return false;
}

static bool is_loaded(const classifier *c, const char *path, const struct stat *now) {
    const struct stat *then = &c->file;
    return c->program && !strcmp(c->path, path) && now->st_ino == then->st_ino &&
           now->st_size == then->st_size && now->st_mtim.tv_sec == then->st_mtim.tv_sec &&
           now->st_mtim.tv_nsec == then->st_mtim.tv_nsec;
}

// Whether it stays within those bounds; otherwise why not. (A graph costs nothing until it is run.)
static bool fits(const classifier *c, bt_tensor input, char why[512]) {
    double numbers = 0, work = 0; // of all layers' outputs; multiplications
    for (int i = 0; i < bt_model_layer_count(c->model); i++) {
        bt_shape shape =
            bt_tensor_shape(c->ctx, bt_model_forward_to(c->ctx, c->model, input, i + 1));
        double places = shape.rank == 4 ? (double)shape.dim[2] * shape.dim[3] : 1;
        numbers += places * shape.dim[1];
        for (int k = 0; k < bt_model_parameter_count(c->model); k++) // "0.weight" is of "0.conv8x5"
            if (atoi(bt_model_parameter_name(c->model, k)) == i)
                work += places * (double)bt_shape_count(
                                     bt_tensor_shape(c->ctx, bt_model_parameter(c->model, k)));
    }
    if (numbers <= NUMBERS_MAX && work <= WORK_MAX) return true;
    snprintf(why, 512,
             "the network computes %.3g numbers with %.3g multiplications for a drawing; the live "
             "page allows %.3g and %.3g, use `bantam predict`",
             numbers, work, (double)NUMBERS_MAX, (double)WORK_MAX);
    return false;
}

// On failure `why` may be "": then the context knows.
static bt_status load_model(classifier *c, char why[512]) {
    bt_status status = bt_open(&(bt_context_desc){.threads = 1}, &c->ctx);
    if (status == BT_OK) status = bt_model_load(c->ctx, c->path, BT_F32, &c->model);
    if (status != BT_OK) return status;
    bt_model_describe(c->model, &c->desc);
    if (c->desc.height > SIDE_MAX || c->desc.width > SIDE_MAX) {
        snprintf(
            why, 512,
            "the network takes pictures of %d x %d pixels; the live page draws at most %d x %d",
            c->desc.height, c->desc.width, SIDE_MAX, SIDE_MAX);
        return BT_ERROR_DATA;
    }
    bt_shape shape = BT_SHAPE(1, c->desc.channels, c->desc.height, c->desc.width);
    c->input = bt_input(c->ctx, BT_F32, shape, NULL);
    if (!fits(c, c->input, why)) return BT_ERROR_DATA;
    c->outputs[0] = bt_softmax(c->ctx, bt_model_forward(c->ctx, c->model, c->input), 1);
    c->outputs[1] = bt_model_forward_to(c->ctx, c->model, c->input, 1);
    bt_program_desc program = {.outputs = c->outputs, .output_count = 2};
    status = bt_program_make(c->ctx, &program, &c->program);
    if (status != BT_OK) return status;
    c->pixels = calloc(bt_shape_count(shape), sizeof *c->pixels);
    c->probabilities = calloc((size_t)c->desc.classes, sizeof *c->probabilities);
    // (A row more, which write_maps may show in part.)
    size_t maps = bt_shape_count(bt_tensor_shape(c->ctx, c->outputs[1])) + MAP_ROW;
    c->maps = calloc(maps, sizeof *c->maps);
    return c->pixels && c->probabilities && c->maps ? BT_OK : BT_ERROR_MEMORY;
}

// The best checkpoint so far, or the last.
static bt_status load(classifier *c, char why[512]) {
    char path[sizeof c->path];
    struct stat info;
    if (!find_file(c, path, &info)) {
        snprintf(why, 512, "There is no checkpoint yet; the first comes with the first epoch.");
        return BT_ERROR_DATA;
    }
    if (is_loaded(c, path, &info)) return BT_OK;
    unload(c);
    memcpy(c->path, path, sizeof path);
    c->file = info;
    *why = 0;
    bt_status status = load_model(c, why);
    if (status == BT_OK && c->desc.channels == 1 && c->desc.classes <= CLASSES_MAX) return BT_OK;
    const char *text = c->ctx ? bt_error_text(c->ctx) : "";
    if (status == BT_OK)
        snprintf(why, 512,
                 "the network takes pictures of %d channels and tells %d classes; drawings are "
                 "grey, and of at most %d classes",
                 c->desc.channels, c->desc.classes, CLASSES_MAX);
    else if (!*why)
        snprintf(why, 512, "%s", *text ? text : "out of memory");
    unload(c);
    return BT_ERROR_DATA;
}

// ---- Answering ---------------------------------------------------------------------------------

static void write_bars(const classifier *c, int best, FILE *out) {
    static char labels[CLASSES_MAX][8], texts[CLASSES_MAX][16];
    static chart_bar bars[CLASSES_MAX];
    for (int i = 0; i < c->desc.classes; i++) {
        double p = (double)c->probabilities[i];
        snprintf(labels[i], sizeof labels[i], "%d", i);
        snprintf(texts[i], sizeof texts[i], "%.1f %%", 100 * p);
        bars[i] = (chart_bar){labels[i], p, texts[i], i == best ? 1 : 0};
    }
    chart_bars chart = {
        {.title = "Probability of each class", .heading = true}, 1, bars, c->desc.classes};
    chart_write_bars(&chart, out);
}

static void write_input(const classifier *c, const uint8_t *grey, FILE *out) {
    chart_image image = {.grey = grey, .title = "the drawing, centred and scaled"};
    chart_images chart = {{.title = "What the network sees", .heading = true},
                          .height = c->desc.height,
                          .width = c->desc.width,
                          .columns = 1,
                          .scale = IMAGE_PIXELS / c->desc.width + 1,
                          .images = &image,
                          .count = 1};
    chart_write_images(&chart, out);
}

// A channel is an image; the units of fc are one, MAP_ROW in a row.
static void write_maps(const classifier *c, FILE *out) {
    bt_shape shape = bt_tensor_shape(c->ctx, c->outputs[1]);
    bool flat = shape.rank == 2;
    int count = flat ? 1 : shape.dim[1], units = flat ? shape.dim[1] : 0;
    chart_image images[MAPS_MAX];
    char titles[MAPS_MAX][24];
    chart_images chart = {{.title = "What the first layer makes of it", .heading = true},
                          .height = flat ? (units + MAP_ROW - 1) / MAP_ROW : shape.dim[2],
                          .width = flat ? MAP_ROW : shape.dim[3],
                          .scale = (flat ? IMAGE_PIXELS / MAP_ROW : MAP_PIXELS / shape.dim[3]) + 1,
                          .images = images,
                          .count = count < MAPS_MAX ? count : MAPS_MAX};
    for (int i = 0; i < chart.count; i++) {
        snprintf(titles[i], sizeof titles[i], flat ? "%d: all units" : "filter %d",
                 flat ? units : i);
        images[i] =
            (chart_image){.values = c->maps + (size_t)i * (size_t)(chart.height * chart.width),
                          .title = titles[i]};
    }
    chart_write_images(&chart, out);
}

static char *answer(const classifier *c, const uint8_t *grey) {
    int best = 0;
    char *html = NULL;
    size_t bytes;
    FILE *out = open_memstream(&html, &bytes);
    if (!out) return NULL;
    json_t *all = json_array();
    for (int i = 0; i < c->desc.classes; i++) {
        if (c->probabilities[i] > c->probabilities[best]) best = i;
        json_array_append_new(all, real_or_null((double)c->probabilities[i]));
    }
    double p = (double)c->probabilities[best];
    fprintf(out, "<div><p class=\"answer\"><strong>%d</strong> %.1f %%</p>", best, 100 * p);
    write_bars(c, best, out);
    fputs("</div><div id=\"draw-views\"><figure><figcaption>What the network sees</figcaption>",
          out);
    write_input(c, grey, out);
    fputs("</figure><figure><figcaption>What its first layer makes of it</figcaption>", out);
    write_maps(c, out);
    fputs("</figure></div>", out);
    json_t *object = !fclose(out) && html
                         ? json_pack("{s:i,s:o,s:o,s:s}", "class", best, "probability",
                                     real_or_null(p), "probabilities", all, "html", html)
                         : NULL;
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    free(html);
    return text;
}

static bt_status run_network(classifier *c, const uint8_t *grey) {
    size_t count = (size_t)(c->desc.height * c->desc.width);
    for (size_t i = 0; i < count; i++) c->pixels[i] = (float)grey[i] / 255;
    bt_status status = bt_write(c->ctx, c->input, c->pixels, sizeof *c->pixels * count);
    if (status == BT_OK) status = bt_program_run(c->ctx, c->program, 1);
    if (status == BT_OK)
        status = bt_program_read(c->ctx, c->program, 0, c->probabilities,
                                 sizeof *c->probabilities * (size_t)c->desc.classes);
    size_t maps = bt_shape_count(bt_tensor_shape(c->ctx, c->outputs[1]));
    if (status == BT_OK)
        status = bt_program_read(c->ctx, c->program, 1, c->maps, sizeof *c->maps * maps);
    return status;
}

// The network's input; false: nothing is drawn.
static bool prepare(const classifier *c, const uint8_t *grey, size_t bytes, uint8_t *out) {
    size_t wanted = (size_t)(c->desc.height * c->desc.width);
    if (bytes != wanted)
        return center_drawing(grey, (int)lround(sqrt((double)bytes)), out, c->desc.height,
                              c->desc.width);
    memcpy(out, grey, bytes);
    while (bytes && !grey[bytes - 1]) bytes--;
    return bytes;
}

// No fault of who draws: the answer says why there is none.
static bt_status without_network(char **json, const char *why) {
    json_t *object = json_pack("{s:n,s:s,s:s}", "class", "html", "", "note", why);
    *json = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return *json ? BT_OK : BT_ERROR_MEMORY;
}

bt_status classify(classifier *c, const uint8_t *grey, size_t bytes, char **json, char why[512]) {
    if (load(c, why) != BT_OK) return without_network(json, why);
    bt_status status = BT_OK;
    size_t wanted = (size_t)(c->desc.height * c->desc.width);
    size_t side = (size_t)lround(sqrt((double)bytes));
    if (!bytes || (side * side != bytes && bytes != wanted)) {
        snprintf(why, 512, "%zu bytes are no square drawing of one byte a pixel", bytes);
        return BT_ERROR_USAGE;
    }
    uint8_t *input = calloc(wanted, 1);
    *json = NULL;
    if (input && !prepare(c, grey, bytes, input)) {
        *json = strdup("{\"class\":null,\"html\":\"\"}");
    } else if (input) {
        status = run_network(c, input);
        if (status == BT_OK) *json = answer(c, input);
    }
    free(input);
    if (*json) return BT_OK;
    const char *text = bt_error_text(c->ctx);
    snprintf(why, 512, "%s", *text ? text : "out of memory");
    unload(c); // a context that failed stays failed
    return BT_ERROR_DATA;
}
