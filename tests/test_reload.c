// Kernels as text: listing, printing, and running those of a folder instead, all or none.
#include "support.h"

#include <dirent.h>
#include <sys/stat.h>

static void test_list(void **state) {
    (void)state;
    static const char *const languages[] = {NULL, "glsl", "cuda", "msl", "wgsl", "c"};
    bt_kernel_desc kernels[128];
    int count = bt_kernels(kernels, 128);
    check(count >= 22 && count <= 128, "%d kernels", count);
    bt_context *ctx = open_cpu(1);
    for (int i = 0; i < count; i++)
        for (int lang = 0; lang < 6; lang++) {
            char *text = NULL;
            size_t bytes;
            FILE *out = open_memstream(&text, &bytes);
            ok(ctx, bt_kernel_print(ctx, kernels[i].name, languages[lang], out));
            fclose(out);
            check(bytes > 100 && strstr(text, kernels[i].file), "%s in %s: %.80s", kernels[i].name,
                  lang ? languages[lang] : "k", text);
            free(text);
        }
    bt_close(ctx);
}

static void test_unknown(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    refused(ctx, BT_ERROR_USAGE, "no kernel nonsense",
            bt_kernel_print(ctx, "nonsense", "c", stderr));
    refused(ctx, BT_ERROR_USAGE, "hlsl", bt_kernel_print(ctx, "map", "hlsl", stderr));
    bt_close(ctx);
}

static void test_cpu_refuses(void **state) {
    (void)state;
    char swapped[64];
    bt_context *ctx = open_cpu(1);
    refused(ctx, BT_ERROR_DEVICE, "vulkan", bt_kernels_load(ctx, "kernels", swapped, 64));
    bt_close(ctx);
}

// ---- On a device that can ----------------------------------------------------------------------

static bt_context *open_vulkan(void) {
    bt_device_info devices[32];
    int count = bt_devices(devices, 32);
    bool there = false;
    for (int i = 0; i < count && i < 32; i++)
        there |= devices[i].available && !strncmp(devices[i].name, "vulkan", 6);
    if (!there) skip_because("no Vulkan device here");
    bt_context *ctx;
    bt_open(&(bt_context_desc){.device = "vulkan"}, &ctx);
    check(ctx && !*bt_error_text(ctx), "%s", bt_error_text(ctx));
    return ctx;
}

// A copy of kernels/ in the scratch folder, with the first `from` of one file replaced by `to`.
static const char *copy_with(const char *file, const char *from, const char *to) {
    struct dirent *entry;
    DIR *dir = opendir("kernels");
    check(dir, "no folder kernels here");
    bool edited = !file;
    while ((entry = readdir(dir))) {
        char path[300];
        size_t n;
        if (!strstr(entry->d_name, ".k")) continue;
        snprintf(path, sizeof path, "kernels/%s", entry->d_name);
        char *text = (char *)read_file(path, &n);
        char *at = file && !strcmp(file, entry->d_name) ? strstr(text, from) : NULL;
        char *out = allocate(n + (at ? strlen(to) : 0) + 1);
        size_t head = at ? (size_t)(at - text) : n;
        memcpy(out, text, head);
        if (at) sprintf(out + head, "%s%s", to, at + strlen(from));
        write_file(in_scratch(entry->d_name), out, strlen(out));
        edited |= at != NULL;
        free(text), free(out);
    }
    closedir(dir);
    check(edited, "'%s' is not in %s", from, file);
    return scratch();
}

typedef struct adder {
    bt_context *ctx;
    bt_program *program; // 5 + 3
    char swapped[2048];
} adder;

static adder make_adder(void) {
    static const float five[] = {5}, three[] = {3};
    adder a = {.ctx = open_vulkan()};
    bt_tensor sum = bt_add(a.ctx, bt_input(a.ctx, BT_F32, BT_SHAPE(1), five),
                           bt_input(a.ctx, BT_F32, BT_SHAPE(1), three));
    ok(a.ctx,
       bt_program_make(a.ctx, &(bt_program_desc){.outputs = &sum, .output_count = 1}, &a.program));
    return a;
}

static void gives(adder *a, float want) {
    float y = 0;
    ok(a->ctx, bt_program_run(a->ctx, a->program, 1));
    ok(a->ctx, bt_program_read(a->ctx, a->program, 0, &y, sizeof y));
    check(y == want, "the program gives %g, not %g", (double)y, (double)want);
}

static bt_status load(adder *a, const char *folder) {
    return bt_kernels_load(a->ctx, folder, a->swapped, sizeof a->swapped);
}

// A program that exists runs the new kernel, and later the old one again.
static void test_swap(void **state) {
    (void)state;
    adder a = make_adder();
    gives(&a, 8);
    ok(a.ctx, load(&a, copy_with(NULL, NULL, NULL)));
    check(!*a.swapped, "an unchanged folder swaps %s", a.swapped);
    ok(a.ctx, load(&a, copy_with("math.k", "y = a + b;", "y = a - b;")));
    check(strstr(a.swapped, "map "), "swapped: %s", a.swapped);
    gives(&a, 2);
    ok(a.ctx, load(&a, "kernels"));
    check(strstr(a.swapped, "map "), "swapped back: %s", a.swapped);
    gives(&a, 8);
    bt_close(a.ctx);
}

// What was tried in one context goes to another as it was then, whatever the folder holds now.
static void test_copy(void **state) {
    (void)state;
    adder tried = make_adder(), training = make_adder();
    ok(tried.ctx, load(&tried, copy_with("math.k", "y = a + b;", "y = a - b;")));
    copy_with("math.k", "y = a + b;", "y = a * b;");
    ok(training.ctx,
       bt_kernels_copy(training.ctx, tried.ctx, training.swapped, sizeof training.swapped));
    check(strstr(training.swapped, "map "), "copied: %s", training.swapped);
    gives(&training, 2);
    bt_close(tried.ctx);
    gives(&training, 2);
    bt_close(training.ctx);
}

static void test_refusals(void **state) {
    (void)state;
    adder a = make_adder();
    // Translates and compiles, but the launch of the program wants too many groups.
    refused(a.ctx, BT_ERROR_USAGE, "work groups",
            load(&a, copy_with("map.k", "grid(min(65535u,", "grid(max(65536u,")));
    gives(&a, 8);
    const char *piped = copy_with(NULL, NULL, NULL);
    remove(in_scratch("map.k"));
    check(mkfifo(in_scratch("map.k"), 0600) == 0, "no pipe could be made");
    refused(a.ctx, BT_ERROR_USAGE, "no file", load(&a, piped));
    remove(in_scratch("map.k"));
    refused(a.ctx, BT_ERROR_DATA,
            "map.k:", load(&a, copy_with("map.k", "float second = 0.0;", "float second = 0;")));
    refused(a.ctx, BT_ERROR_DATA, "do not fit this build",
            load(&a, copy_with("map.k", "uint dim[4];", "uint more; uint dim[4];")));
    refused(a.ctx, BT_ERROR_DATA, "map_vector",
            load(&a, copy_with("map.k", "kernel map_vector", "kernel map_line")));
    refused(a.ctx, BT_ERROR_USAGE, "nowhere", load(&a, in_scratch("nowhere")));
    gives(&a, 8);
    bt_close(a.ctx);
}

// Everything translates, but the compiler refuses a kernel after it took others: those go back.
static void test_compiler_fails(void **state) {
    (void)state;
    static const char script[] = "#!/bin/sh\n"
                                 "for file; do :; done\n"
                                 "grep -q 'Kernel matmul' \"$file\" && echo no matmul && exit 1\n"
                                 "exec glslc \"$@\"\n";
    adder a = make_adder();
    const char *folder = copy_with("math.k", "y = a + b;", "y = a - b;");
    const char *glslc = in_scratch("glslc");
    write_file(glslc, script, sizeof script - 1);
    check(!chmod(glslc, 0700), "chmod");
    setenv("BANTAM_GLSLC", glslc, 1);
    refused(a.ctx, BT_ERROR_DATA, "no matmul", load(&a, folder));
    unsetenv("BANTAM_GLSLC");
    gives(&a, 8);
    bt_close(a.ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),           cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_cpu_refuses),    cmocka_unit_test(test_swap),
        cmocka_unit_test(test_copy),           cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_compiler_fails),
    };
    return cmocka_run_group_tests_name("reload", tests, NULL, NULL);
}
