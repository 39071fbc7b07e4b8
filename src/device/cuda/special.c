// Portable kernels compiled anew for a program that will be run many times: with its `const`
// scalars, and which bindings are there, as numbers in the text. Loops over the taps of a filter
// are then unrolled, and divisions by sizes become multiplications. Vulkan's drivers do this
// always; here it needs NVRTC, and without it the kernels of the build run, which read the same
// numbers.
#include "device/cuda/cuda_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct variant {
    int portable;
    uint32_t constants[1 + BT_SPECIAL_MAX]; // which bindings are there, then the special words
} variant;

typedef struct variants {
    variant *of; // each launch
    int *index;  // the number of that variant
    int count;   // of launches
} variants;

static bt_status variant_of(const bt_device *dev, const bt_launch *launch, variant *out,
                            bt_error *err) {
    uint32_t grid[3];
    *out = (variant){0};
    BT_TRY(bt_portable_pick(dev->table, bt_portable_count, launch, grid, err, &out->portable));
    bt_portable_constants(&dev->table[out->portable], launch, out->constants);
    return BT_OK;
}

// ---- The text ---------------------------------------------------------------------------------

// The text of a kernel in portable.cu is a namespace.
static bool put_kernel(const char *name, FILE *out) {
    char begin[96];
    const bt_cuda_image *all = bt_cuda_image_named("portable.cu");
    snprintf(begin, sizeof begin, "namespace bt_%s_text {\n", name);
    const char *text = all ? strstr((const char *)all->begin, begin) : NULL;
    if (!text) return false;
    const char *end = strstr(text, "\nnamespace bt_");
    return fprintf(out, "%.*s\n", end ? (int)(end - text) : (int)strlen(text), text) > 0;
}

// Variant number `index`, whose kernel is bt_conv2d__<index>.
static bool put_variant(const bt_portable *kernel, const variant *v, int index, FILE *out) {
    fprintf(out, "namespace bt_variant_%d {\n#define bt_%s bt_%s__%d\n", index, kernel->name,
            kernel->name, index);
    fprintf(out, "#define BT_WORD_present %uu\n", v->constants[0]);
    for (int i = 0; i < kernel->special_count; i++)
        fprintf(out, "#define BT_WORD_%u %uu\n", kernel->special[i], v->constants[1 + i]);
    bool found = put_kernel(kernel->name, out);
    fprintf(out, "#undef bt_%s\n#undef BT_WORD_present\n", kernel->name);
    for (int i = 0; i < kernel->special_count; i++)
        fprintf(out, "#undef BT_WORD_%u\n", kernel->special[i]);
    fprintf(out, "}\n");
    return found;
}

// The variants that differ, as a text to be freed; numbers them.
static char *text_of(const bt_device *dev, variants *v) {
    char *text = NULL;
    size_t bytes = 0;
    int distinct = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return NULL;
    fprintf(out, "#define BT_CONST(word, value) BT_WORD_##word\n");
    bool good = true;
    for (int i = 0; i < v->count; i++) {
        int same = 0;
        while (memcmp(&v->of[same], &v->of[i], sizeof *v->of)) same++;
        v->index[i] = same < i ? v->index[same] : distinct++;
        if (same == i)
            good &= put_variant(&dev->table[v->of[i].portable], &v->of[i], v->index[i], out);
    }
    if (fclose(out) == 0 && good) return text;
    free(text);
    return NULL;
}

// ---- Loading it -------------------------------------------------------------------------------

static bt_status load(bt_device *dev, const variants *v, const char *text, CUmodule *module,
                      CUfunction *functions, char why[BT_WHY_BYTES], bt_error *err) {
    static const char name[] = "the kernels of a program";
    size_t bytes = 0;
    unsigned char *code = bt_cuda_cached(dev, text, name, &bytes, why, BT_WHY_BYTES);
    if (!code) return BT_OK;
    bt_status status = bt_cuda_load(dev, code, name, module, err);
    free(code);
    if (status != BT_OK) bt_cuda_cache_forget(dev, text);
    for (int i = 0; i < v->count && status == BT_OK; i++) {
        char entry[96];
        snprintf(entry, sizeof entry, "bt_%s__%d", dev->table[v->of[i].portable].name, v->index[i]);
        status = bt_cuda_check(dev, bt_cu.cuModuleGetFunction(&functions[i], *module, entry),
                               "finding a kernel", err);
    }
    return status;
}

bt_status bt_cuda_special_make(bt_device *dev, const bt_launch *launches, int count,
                               CUmodule *module, CUfunction *functions, char why[BT_WHY_BYTES],
                               bt_error *err) {
    size_t room = (size_t)count + 1;
    variants v = {calloc(room, sizeof *v.of), calloc(room, sizeof *v.index), count};
    bt_status status = v.of && v.index
                           ? BT_OK
                           : bt_fail_memory(err, "the kernels of a program", room * sizeof *v.of);
    for (int i = 0; i < count && status == BT_OK; i++)
        status = variant_of(dev, &launches[i], &v.of[i], err);
    char *text = status == BT_OK ? text_of(dev, &v) : NULL;
    if (status == BT_OK)
        status = text ? load(dev, &v, text, module, functions, why, err)
                      : bt_fail_memory(err, "the text of kernels", 1 << 20);
    free(text);
    free(v.of);
    free(v.index);
    return status;
}
