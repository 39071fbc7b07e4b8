// NVRTC, NVIDIA's compiler as a library: opened when a kernel is to be compiled at run time, for a
// network that the build did not know or for an exchanged kernel. Nobody else needs it.
#include "device/cuda/cuda_internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct nvrtc_program *nvrtcProgram;
enum { NVRTC_SUCCESS = 0, HEADERS_MAX = 64, LOG_MAX = 1 << 20 };

// clang-format off
#define FUNCTIONS(X) \
    X(nvrtcVersion, (int *major, int *minor)) \
    X(nvrtcCreateProgram, (nvrtcProgram *program, const char *text, const char *name, int count, \
                           const char *const *headers, const char *const *names)) \
    X(nvrtcDestroyProgram, (nvrtcProgram *program)) \
    X(nvrtcCompileProgram, (nvrtcProgram program, int count, const char *const *options)) \
    X(nvrtcGetProgramLogSize, (nvrtcProgram program, size_t *bytes)) \
    X(nvrtcGetProgramLog, (nvrtcProgram program, char *log)) \
    X(nvrtcGetCUBINSize, (nvrtcProgram program, size_t *bytes)) \
    X(nvrtcGetCUBIN, (nvrtcProgram program, char *code))
// clang-format on

static struct {
    pthread_once_t once;
    int version;
    char why[BT_WHY_BYTES]; // there is none
#define X(name, parameters) int(*name) parameters;
    FUNCTIONS(X)
#undef X
} rtc = {.once = PTHREAD_ONCE_INIT,
         .why = "there is no NVRTC (libnvrtc.so.13 or 12) to compile it with; install it (CUDA's "
                "toolkit has it) or name it in BANTAM_NVRTC"};

static void open_compiler(void) {
    // (Where NVIDIA's packages put it, the loader does not look.)
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so",
                                        "/usr/local/cuda/lib64/libnvrtc.so"};
    const char *wish = getenv("BANTAM_NVRTC");
    bool whole = true;
    bool wished = wish && *wish; // then no other will do
    void *library = wished ? dlopen(wish, RTLD_NOW | RTLD_LOCAL) : NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library && !wished; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        if (wished)
            snprintf(rtc.why, sizeof rtc.why, "BANTAM_NVRTC names %.100s, which cannot be loaded",
                     wish);
        return;
    }
#define X(name, parameters)                      \
    *(void **)&rtc.name = dlsym(library, #name); \
    whole &= rtc.name != NULL;
    FUNCTIONS(X)
#undef X
    int major = 0, minor = 0;
    if (whole && rtc.nvrtcVersion(&major, &minor) == NVRTC_SUCCESS)
        rtc.version = 1000 * major + 10 * minor;
}

int bt_cuda_compiler(char *why, size_t why_bytes) {
    pthread_once(&rtc.once, open_compiler);
    if (!rtc.version) snprintf(why, why_bytes, "%s", rtc.why);
    return rtc.version;
}

// The files of kernels/cuda, so that one can include another.
static int headers_of(const char *texts[HEADERS_MAX], const char *names[HEADERS_MAX]) {
    int count = 0;
    for (const bt_cuda_image *at = bt_cuda_images; at->name && count < HEADERS_MAX; at++) {
        const char *dot = strrchr(at->name, '.');
        if (!dot || (strcmp(dot, ".cu") && strcmp(dot, ".cuh") && strcmp(dot, ".h"))) continue;
        names[count] = at->name;
        texts[count++] = (const char *)at->begin;
    }
    return count;
}

// The first line of the compiler's log that names an error.
static void first_error(nvrtcProgram program, char *why, size_t why_bytes) {
    size_t bytes = 0;
    snprintf(why, why_bytes, "NVRTC failed without a word");
    if (rtc.nvrtcGetProgramLogSize(program, &bytes) != NVRTC_SUCCESS || bytes > LOG_MAX) return;
    char *log = calloc(1, bytes + 1);
    if (log && rtc.nvrtcGetProgramLog(program, log) == NVRTC_SUCCESS && log[0]) {
        const char *error = strstr(log, "error"), *line = error ? error : log;
        while (line > log && line[-1] != '\n') line--;
        snprintf(why, why_bytes, "%.*s", (int)strcspn(line, "\n"), line);
    }
    free(log);
}

static bool take_code(nvrtcProgram program, unsigned char **code, size_t *bytes) {
    if (rtc.nvrtcGetCUBINSize(program, bytes) != NVRTC_SUCCESS || *bytes == 0) return false;
    *code = malloc(*bytes);
    if (*code && rtc.nvrtcGetCUBIN(program, (char *)*code) == NVRTC_SUCCESS) return true;
    free(*code);
    *code = NULL;
    return false;
}

bool bt_cuda_compile(const char *text, const char *name, int capability, unsigned char **code,
                     size_t *bytes, char *why, size_t why_bytes) {
    const char *texts[HEADERS_MAX], *names[HEADERS_MAX];
    char architecture[40];
    nvrtcProgram program = NULL;
    *code = NULL;
    if (!bt_cuda_compiler(why, why_bytes)) return false;
    int headers = headers_of(texts, names);
    // "a": with the instructions that this architecture alone has.
    snprintf(architecture, sizeof architecture, "--gpu-architecture=sm_%d%s", capability,
             capability >= 90 ? "a" : "");
    const char *options[] = {architecture, "-std=c++17", "--diag-suppress=177"};
    // (A text of the name of a file that it includes would include itself.)
    char title[96];
    snprintf(title, sizeof title, "text of %.80s", name);
    if (rtc.nvrtcCreateProgram(&program, text, title, headers, texts, names) != NVRTC_SUCCESS) {
        snprintf(why, why_bytes, "NVRTC does not take %.60s", name);
        return false;
    }
    bool good = rtc.nvrtcCompileProgram(program, sizeof options / sizeof *options, options) ==
                    NVRTC_SUCCESS &&
                take_code(program, code, bytes);
    if (!good) first_error(program, why, why_bytes);
    rtc.nvrtcDestroyProgram(&program);
    return good;
}
