// A kernel exchanged while the device is open: its new GLSL is compiled by glslc, a program of its
// own, so that nobody who does not ask for this needs a compiler.
#include "base/temporary.h"
#include "device/vulkan/vulkan_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { SPIRV_MAX = 16 << 20, NAME_BYTES = 512 };

typedef struct folder {
    char path[NAME_BYTES - 16], glsl[NAME_BYTES], spirv[NAME_BYTES], message[NAME_BYTES];
} folder;

static bool make_folder(folder *f) {
    if (!bt_temporary_folder(f->path, sizeof f->path)) return false;
    snprintf(f->glsl, sizeof f->glsl, "%s/kernel.comp", f->path);
    snprintf(f->spirv, sizeof f->spirv, "%s/kernel.spv", f->path);
    snprintf(f->message, sizeof f->message, "%s/message", f->path);
    return true;
}

static void remove_folder(const folder *f) {
    unlink(f->glsl);
    unlink(f->spirv);
    unlink(f->message);
    rmdir(f->path);
}

static bool write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "wb");
    if (!file) return false;
    bool written = fputs(text, file) >= 0;
    return fclose(file) == 0 && written;
}

// The bytes of a file and a 0 after them, to be freed. NULL: there are none, or too many.
static char *read_all(const char *path, size_t *bytes) {
    struct stat info;
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    char *data = NULL;
    if (!fstat(fileno(file), &info) && info.st_size > 0 && info.st_size <= SPIRV_MAX &&
        (data = calloc(1, (size_t)info.st_size + 1)))
        *bytes = fread(data, 1, (size_t)info.st_size, file);
    fclose(file);
    return data;
}

// Runs glslc, without a shell. false: it could not be started, or found fault.
static bool run_glslc(const char *glslc, folder *f) {
    char *arguments[] = {(char *)glslc,
                         "--target-env=vulkan1.2",
                         "-fshader-stage=compute",
                         "-O",
                         "-o",
                         f->spirv,
                         f->glsl,
                         NULL};
    posix_spawn_file_actions_t files;
    if (posix_spawn_file_actions_init(&files) != 0) return false;
    pid_t child;
    int state = -1;
    bool ran =
        posix_spawn_file_actions_addopen(&files, 2, f->message, O_WRONLY | O_CREAT, 0600) == 0 &&
        posix_spawn_file_actions_adddup2(&files, 2, 1) == 0 &&
        posix_spawnp(&child, glslc, &files, NULL, arguments, environ) == 0;
    while (ran && waitpid(child, &state, 0) != child) ran = errno == EINTR;
    posix_spawn_file_actions_destroy(&files);
    return ran && WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

static bt_status compile(folder *f, const char *name, const char *glsl, bt_error *err, char **spirv,
                         size_t *bytes) {
    const char *wish = getenv("BANTAM_GLSLC"), *glslc = wish && *wish ? wish : "glslc";
    if (!write_text(f->glsl, glsl))
        return bt_fail(err, BT_ERROR_MEMORY, "cannot write %.400s", f->glsl);
    bool right = run_glslc(glslc, f);
    if (right && (*spirv = read_all(f->spirv, bytes))) return BT_OK;
    char *message = read_all(f->message, bytes);
    if (message) message[strcspn(message, "\n")] = 0; // the first of its errors
    bt_fail(err, BT_ERROR_DATA, "kernel %.40s does not compile: %.400s", name,
            message ? message
                    : "glslc cannot be run; install it (Debian: glslc) or name it in BANTAM_GLSLC");
    free(message);
    return err->status;
}

bt_status bt_vk_kernel_swap(bt_device *dev, int portable, const bt_portable *rules,
                            const char *glsl, bt_error *err) {
    BT_TRY(bt_vk_wait(dev, err));
    if (portable < 0 || portable >= bt_portable_count)
        return bt_fail(err, BT_ERROR_USAGE, "there is no kernel %d; there are %d", portable,
                       bt_portable_count);
    folder f;
    char *spirv = NULL;
    size_t bytes = 0;
    VkShaderModule module = VK_NULL_HANDLE;
    if (!make_folder(&f))
        return bt_fail(err, BT_ERROR_MEMORY, "cannot make a folder like %.400s", f.path);
    bt_status status = compile(&f, dev->table[portable].name, glsl, err, &spirv, &bytes);
    if (status == BT_OK)
        status = bt_vk_module(dev, (const uint32_t *)(void *)spirv, bytes, &module, err);
    if (status == BT_OK)
        status = bt_portable_adopt(&dev->table[portable], rules, &dev->rules[portable], err);
    free(spirv);
    remove_folder(&f);
    if (status != BT_OK) {
        bt_vk.DestroyShaderModule(dev->handle, module, NULL);
        return status;
    }
    bt_vk_pipelines_drop(dev, portable);
    bt_vk.DestroyShaderModule(dev->handle, dev->modules[portable], NULL);
    dev->modules[portable] = module;
    dev->generation++; // programs that were recorded are recorded again
    return bt_vk_resolve_all(dev, err);
}
