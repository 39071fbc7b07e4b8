// Kernels: their MSL is compiled when a program first needs one, and the device keeps the library.
// From it come pipelines, one for each set of function constants: which bindings are there, and the
// `const` scalars, so that loops over the taps of a filter unroll and divisions by sizes become
// multiplications. (macOS keeps what it compiled on disk by itself, for each program and version.)
#include "device/metal/metal_internal.h"

#include <stdlib.h>
#include <string.h>

bt_status bt_metal_pipelines_open(bt_device *dev, bt_error *err) {
    dev->kernel_count = bt_portable_count + bt_metal_override_count;
    size_t count = (size_t)dev->kernel_count;
    dev->table = calloc(count, sizeof *dev->table);
    dev->libraries = calloc(count, sizeof *dev->libraries);
    dev->rules = calloc(count, sizeof *dev->rules);
    if (!dev->table || !dev->libraries || !dev->rules)
        return bt_fail_memory(err, "the table of kernels", count * sizeof *dev->table);
    memcpy(dev->table, bt_portable_table, (size_t)bt_portable_count * sizeof *dev->table);
    bt_metal_overrides_fill(dev->table + bt_portable_count);
    return BT_OK;
}

void bt_metal_pipelines_drop(bt_device *dev, int kernel) {
    for (bt_metal_pipeline **at = &dev->pipelines; *at;) {
        bt_metal_pipeline *pipeline = *at;
        if (pipeline->kernel != kernel) {
            at = &pipeline->next;
            continue;
        }
        *at = pipeline->next;
        bt_mtl_release(pipeline->handle);
        free(pipeline);
    }
}

void bt_metal_pipelines_close(bt_device *dev) {
    for (int i = 0; i < dev->kernel_count; i++) {
        bt_metal_pipelines_drop(dev, i);
        if (dev->libraries) bt_mtl_release(dev->libraries[i]);
        if (dev->rules) free(dev->rules[i]);
    }
    free(dev->libraries);
    free(dev->rules);
    free(dev->table);
}

// ---- Compiling ----------------------------------------------------------------------------------

// Says what the compiler found: the first line of its message that names an error, or that is one.
// A kernel that came with Bantam should pass: only one that was exchanged is the user's.
static bt_status refused(const bt_portable *kernel, bool own, const char *what, bt_mtl error,
                         bt_error *err) {
    const char *text = bt_mtl_text(bt_mtl_object(error, bt_metal.description));
    const char *line = strstr(text, "error:");
    if (!line) line = text + strspn(text, "\n ");
    while (line > text && line[-1] != '\n') line--;
    if (!*line) line = "Metal does not say why";
    int length = (int)strcspn(line, "\n");
    return bt_fail(err, own ? BT_ERROR_DEVICE : BT_ERROR_DATA, "kernel %.40s (%.60s) %s: %.*s%s",
                   kernel->name, kernel->file, what, length > 300 ? 300 : length, line,
                   own ? "; this is Bantam's fault: please report it, and use --device cpu" : "");
}

// IEEE arithmetic, as on all devices: kernels tell infinities and NaNs apart.
static bt_mtl options(void) {
    bt_mtl made = bt_mtl_object(bt_metal.class_of("MTLCompileOptions"), bt_metal.make);
    BT_METAL(void, bool)(made, bt_metal.set_fast_math, false);
    return made;
}

bt_status bt_metal_compile(bt_device *dev, const bt_portable *kernel, bool own, const char *text,
                           bt_error *err, bt_mtl *out) {
    void *pool = bt_metal.pool_push();
    bt_mtl error = NULL, how = options();
    *out = BT_METAL(bt_mtl, bt_mtl, bt_mtl, bt_mtl *)(dev->gpu, bt_metal.new_library,
                                                      bt_mtl_string(text), how, &error);
    bt_mtl_release(how);
    bt_status status = *out ? BT_OK : refused(kernel, own, "does not compile", error, err);
    bt_metal.pool_pop(pool);
    return status;
}

// ---- Pipelines ----------------------------------------------------------------------------------

static bt_mtl constants(const bt_metal_pipeline *pipeline, int count) {
    enum { UINT = 33 }; // MTLDataTypeUInt
    bt_mtl made = bt_mtl_object(bt_metal.class_of("MTLFunctionConstantValues"), bt_metal.make);
    for (int i = 0; i < count; i++) BT_METAL(void, const void *, bt_mtl_uint, bt_mtl_uint)
    (made, bt_metal.set_constant, &pipeline->constants[i], UINT, (bt_mtl_uint)i);
    return made;
}

static bt_status make_function(bt_device *dev, const bt_metal_pipeline *pipeline, bt_error *err,
                               bt_mtl *out) {
    const bt_portable *kernel = &dev->table[pipeline->kernel];
    bt_mtl error = NULL, values = constants(pipeline, 1 + kernel->special_count);
    *out = BT_METAL(bt_mtl, bt_mtl, bt_mtl, bt_mtl *)(dev->libraries[pipeline->kernel],
                                                      bt_metal.new_function,
                                                      bt_mtl_string(kernel->name), values, &error);
    bt_mtl_release(values);
    return *out ? BT_OK
                : refused(kernel, !dev->rules[pipeline->kernel], "gives Metal no function", error,
                          err);
}

// Is the GPU large enough for a group? What a kernel takes decides, so that this is known now.
static bt_status check_limits(const bt_device *dev, const bt_metal_pipeline *pipeline,
                              bt_error *err) {
    const bt_portable *kernel = &dev->table[pipeline->kernel];
    bt_mtl_uint threads = bt_mtl_number(pipeline->handle, bt_metal.max_threads);
    bt_mtl_uint shared = bt_mtl_number(pipeline->handle, bt_metal.static_shared);
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

static bt_status make_pipeline(bt_device *dev, bt_metal_pipeline *pipeline, bt_error *err) {
    const bt_portable *kernel = &dev->table[pipeline->kernel];
    bt_mtl *library = &dev->libraries[pipeline->kernel], function, error = NULL;
    int extra = pipeline->kernel - bt_portable_count; // of an override, its number
    const char *text =
        extra < 0 ? bt_metal_texts[pipeline->kernel] : (const char *)bt_metal_files[extra].begin;
    if (!*library) BT_TRY(bt_metal_compile(dev, kernel, true, text, err, library));
    BT_TRY(make_function(dev, pipeline, err, &function));
    pipeline->handle =
        BT_METAL(bt_mtl, bt_mtl, bt_mtl *)(dev->gpu, bt_metal.new_pipeline, function, &error);
    bt_mtl_release(function);
    return pipeline->handle ? check_limits(dev, pipeline, err)
                            : refused(kernel, !dev->rules[pipeline->kernel],
                                      "gives Metal no pipeline", error, err);
}

bt_status bt_metal_pipeline_for(bt_device *dev, const bt_launch *launch, int kernel, bt_mtl *out,
                                bt_error *err) {
    bt_metal_pipeline wanted = {.kernel = kernel};
    bt_portable_constants(&dev->table[kernel], launch, wanted.constants);
    for (const bt_metal_pipeline *at = dev->pipelines; at; at = at->next)
        if (at->kernel == kernel &&
            !memcmp(at->constants, wanted.constants, sizeof wanted.constants)) {
            *out = at->handle;
            return BT_OK;
        }
    bt_metal_pipeline *made = malloc(sizeof *made);
    if (!made) return bt_fail_memory(err, "a pipeline", sizeof *made);
    *made = wanted;
    void *pool = bt_metal.pool_push();
    bt_status status = make_pipeline(dev, made, err);
    bt_metal.pool_pop(pool);
    if (status != BT_OK) {
        bt_mtl_release(made->handle);
        free(made);
        return status;
    }
    made->next = dev->pipelines;
    dev->pipelines = made;
    *out = made->handle;
    return BT_OK;
}
