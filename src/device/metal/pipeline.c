// Kernels: their MSL is compiled when a program first needs one, and the device keeps the pipeline.
// (What differs from launch to launch are bytes beside the bindings, so one pipeline serves all.)
#include "device/metal/metal_internal.h"

#include <stdlib.h>
#include <string.h>

bt_status bt_metal_pipelines_open(bt_device *dev, bt_error *err) {
    size_t count = (size_t)bt_portable_count;
    dev->table = calloc(count, sizeof *dev->table);
    dev->pipelines = calloc(count, sizeof *dev->pipelines);
    dev->rules = calloc(count, sizeof *dev->rules);
    if (!dev->table || !dev->pipelines || !dev->rules)
        return bt_fail_memory(err, "the table of kernels", count * sizeof *dev->table);
    memcpy(dev->table, bt_portable_table, count * sizeof *dev->table);
    return BT_OK;
}

void bt_metal_pipelines_close(bt_device *dev) {
    for (int i = 0; i < bt_portable_count; i++) {
        if (dev->pipelines) bt_mtl_release(dev->pipelines[i]);
        if (dev->rules) free(dev->rules[i]);
    }
    free(dev->pipelines);
    free(dev->rules);
    free(dev->table);
}

// ---- Compiling ----------------------------------------------------------------------------------

// Says what the compiler found: the first line of its message that names an error, or that is one.
static bt_status refused(const bt_portable *kernel, bt_mtl error, bt_error *err) {
    const char *text = bt_mtl_text(bt_mtl_object(error, bt_metal.description)), *line = text;
    while (*line && !strstr(line, "error:")) line += strlen(line);
    if (*line) {
        line = strstr(line, "error:");
        while (line > text && line[-1] != '\n') line--;
    } else {
        line = text + strspn(text, "\n ");
    }
    int length = (int)strcspn(line, "\n");
    return bt_fail(err, BT_ERROR_DATA, "kernel %.40s does not compile: %.*s", kernel->name,
                   length > 400 ? 400 : length, length > 0 ? line : "Metal does not say why");
}

// IEEE arithmetic, as on all devices: kernels tell infinities and NaNs apart.
static bt_mtl options(void) {
    bt_mtl made = bt_mtl_object(bt_metal.class_of("MTLCompileOptions"), bt_metal.make);
    BT_METAL(void, bool)(made, bt_metal.set_fast_math, false);
    return made;
}

static bt_status make_function(bt_device *dev, const bt_portable *kernel, const char *text,
                               bt_error *err, bt_mtl *out) {
    bt_mtl error = NULL, how = options();
    bt_mtl library = BT_METAL(bt_mtl, bt_mtl, bt_mtl, bt_mtl *)(dev->gpu, bt_metal.new_library,
                                                                bt_mtl_string(text), how, &error);
    bt_mtl_release(how);
    if (!library) return refused(kernel, error, err);
    *out = BT_METAL(bt_mtl, bt_mtl)(library, bt_metal.new_function, bt_mtl_string(kernel->name));
    bt_mtl_release(library);
    if (*out) return BT_OK;
    return bt_fail(err, BT_ERROR_DATA,
                   "kernel %.40s (%.60s) compiles, but Metal finds no function of its name in it",
                   kernel->name, kernel->file);
}

// Is the GPU large enough for a group? What a kernel takes decides, so that this is known now.
static bt_status check_limits(const bt_device *dev, const bt_portable *kernel, bt_mtl pipeline,
                              bt_error *err) {
    bt_mtl_uint threads = bt_mtl_number(pipeline, bt_metal.max_threads);
    bt_mtl_uint shared = bt_mtl_number(pipeline, bt_metal.static_shared);
    bt_mtl_uint room = bt_mtl_number(dev->gpu, bt_metal.max_shared);
    if (threads < kernel->group)
        return bt_fail(err, BT_ERROR_DEVICE,
                       "kernel %.40s needs groups of %u threads, and metal:%d (%s) runs it with "
                       "%lu at most; it uses too many registers for this GPU",
                       kernel->name, (unsigned)kernel->group, dev->index, dev->name, threads);
    if (shared > room)
        return bt_fail(err, BT_ERROR_DEVICE,
                       "kernel %.40s needs %lu bytes of threadgroup memory, and metal:%d (%s) has "
                       "%lu; make its shared arrays smaller",
                       kernel->name, shared, dev->index, dev->name, room);
    return BT_OK;
}

static bt_status make_pipeline(bt_device *dev, const bt_portable *kernel, const char *text,
                               bt_error *err, bt_mtl *out) {
    bt_mtl error = NULL, function;
    BT_TRY(make_function(dev, kernel, text, err, &function));
    *out = BT_METAL(bt_mtl, bt_mtl, bt_mtl *)(dev->gpu, bt_metal.new_pipeline, function, &error);
    bt_mtl_release(function);
    return *out ? check_limits(dev, kernel, *out, err) : refused(kernel, error, err);
}

bt_status bt_metal_compile(bt_device *dev, const bt_portable *kernel, const char *text,
                           bt_error *err, bt_mtl *out) {
    *out = NULL;
    void *pool = bt_metal.pool_push();
    bt_status status = make_pipeline(dev, kernel, text, err, out);
    if (status != BT_OK) {
        bt_mtl_release(*out);
        *out = NULL;
    }
    bt_metal.pool_pop(pool);
    return status;
}

bt_status bt_metal_pipeline_for(bt_device *dev, int portable, bt_mtl *out, bt_error *err) {
    bt_mtl *kept = &dev->pipelines[portable];
    if (!*kept)
        BT_TRY(bt_metal_compile(dev, &dev->table[portable], bt_metal_kernels[portable].text, err,
                                kept));
    *out = *kept;
    return BT_OK;
}
