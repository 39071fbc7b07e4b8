// MSL to machine code: what text.c makes of it is compiled under shim/metal_stdlib. What was
// compiled once is found again in a folder: METAL_SIM_CACHE, or one below BUILD or TMPDIR.
#include "internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef METAL_SIM_SHIM
#define METAL_SIM_SHIM "tests/sim/metal/shim"
#endif

// Warnings are errors, but for what somebody who edits a kernel may leave unused.
static const char flags[] =
    "-std=c++17 -O1 -fPIC -ffp-contract=off -fno-strict-aliasing -fno-exceptions -fno-rtti "
    "-fsanitize=bounds -fvisibility=default -Wall -Wextra -Werror -Wno-unused "
    "-Wno-unused-parameter -Wno-unknown-pragmas"; // (pragmas are for clang)

// ---- The cache --------------------------------------------------------------------------------

static uint64_t hash_of(const char *text, uint64_t hash) {
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u; // FNV-1a
    return hash;
}

static char *contents_of(const char *path) { // NULL: there is no such file
    FILE *in = fopen(path, "r");
    if (!in) return NULL;
    char *text = NULL, part[4096];
    size_t bytes = 0, got;
    FILE *out = open_memstream(&text, &bytes);
    while (out && (got = fread(part, 1, sizeof part, in)) > 0) fwrite(part, 1, got, out);
    if (out) fclose(out);
    fclose(in);
    return text;
}

static void cache_folder(char *path, size_t bytes) {
    const char *own = getenv("METAL_SIM_CACHE"), *build = getenv("BUILD"), *tmp = getenv("TMPDIR");
    if (own)
        snprintf(path, bytes, "%s", own);
    else if (build)
        snprintf(path, bytes, "%s/tests/metal_cache", build);
    else
        snprintf(path, bytes, "%s/metal_sim-%u", tmp ? tmp : "/tmp", (unsigned)getuid());
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    (void)mkdir(path, 0700);
}

static const char *compiler(void) {
    static const char *const known[] = {"clang++", "g++", "c++"};
    static const char *own;
    if (!own) own = getenv("METAL_SIM_CXX");
    for (size_t i = 0; !own && i < sizeof known / sizeof *known; i++) {
        char command[64];
        snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", known[i]);
        if (system(command) == 0) own = known[i];
    }
    return own;
}

// Runs a compiler, and gives what it said where it failed.
static bool shell(const char *command, char *error, size_t error_bytes) {
    FILE *in = popen(command, "r");
    if (!in) return snprintf(error, error_bytes, "no shell for: %s", command), false;
    size_t used = fread(error, 1, error_bytes - 1, in);
    char rest[4096];
    error[used] = '\0';
    while (fread(rest, 1, sizeof rest, in) > 0) {
    }
    int status = pclose(in);
    if (status != 0 && !used) snprintf(error, error_bytes, "status %d of: %s", status, command);
    return status == 0;
}

// Without it fma is a call of a function, which takes longer than all else.
static const char *fma_flag(void) {
#ifdef __x86_64__
    return __builtin_cpu_supports("fma") ? "-mfma" : "";
#else
    return "";
#endif
}

static bool build(const char *base, const char *text, char *error, size_t error_bytes) {
    char path[1200], command[8192], mine[1100];
    snprintf(mine, sizeof mine, "%s-%d", base, (int)getpid()); // another process may do the same
    snprintf(path, sizeof path, "%s.cc", mine);
    FILE *out = fopen(path, "w");
    const char *cxx = compiler();
    if (!out || !cxx) {
        if (out) fclose(out);
        snprintf(error, error_bytes, "%s",
                 cxx ? "the simulated Metal cannot write into its cache (METAL_SIM_CACHE)"
                     : "the simulated Metal needs clang++ or g++ (METAL_SIM_CXX)");
        return false;
    }
    fputs(text, out);
    fclose(out);
    snprintf(command, sizeof command,
             "{ %s %s %s -I'%s' -c -o '%s.o' '%s.cc' && %s -shared -o '%s.so' '%s.o'; } 2>&1", cxx,
             flags, fma_flag(), METAL_SIM_SHIM, mine, mine, cxx, mine, mine);
    bool done = shell(command, error, error_bytes);
    metal_state.compiled += done;
    static const char *const endings[] = {"o", "cc", "so"};
    for (int i = 0; i < 3; i++) {
        char to[1200];
        snprintf(path, sizeof path, "%s.%s", mine, endings[i]);
        snprintf(to, sizeof to, "%s.%s", base, endings[i]);
        if (!done || i == 0)
            (void)unlink(path);
        else if (rename(path, to) != 0)
            done = false;
    }
    return done;
}

// Everything that the machine code depends on is in the name.
static void cache_name(char *path, size_t bytes, const char *text) {
    char folder[900];
    const char *cxx = compiler();
    uint64_t first = hash_of(text, 0xcbf29ce484222325u), second = hash_of(text, 42);
    static const char *const headers[] = {METAL_SIM_SHIM "/metal_stdlib",
                                          METAL_SIM_SHIM "/metal_abi.h"};
    for (int i = 0; i < 2; i++) {
        char *header = contents_of(headers[i]);
        second = hash_of(header ? header : "", second);
        free(header);
    }
    second = hash_of(cxx ? cxx : "", hash_of(flags, hash_of(fma_flag(), second)));
    cache_folder(folder, sizeof folder);
    snprintf(path, bytes, "%s/%016llx%016llx", folder, (unsigned long long)first,
             (unsigned long long)second);
}

static char *translated(const char *text) {
    char *result = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&result, &bytes);
    if (!out) abort();
    metal_text_put(out, text);
    fclose(out);
    return result;
}

static bool open_program(const char *path, metal_program *out, char *error, size_t error_bytes) {
    out->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    sim_hooks *calls = out->handle ? dlsym(out->handle, "sim_calls") : NULL;
    out->constants = out->handle ? dlsym(out->handle, "sim_constants") : NULL;
    if (calls && out->constants) {
        *calls = metal_hooks;
        return true;
    }
    snprintf(error, error_bytes, "%s",
             out->handle ? "the text includes no metal_stdlib" : dlerror());
    return false;
}

bool metal_compile(const char *text, metal_program *out, char *error, size_t error_bytes) {
    METAL_LOCKED;
    char base[1000], path[1100], *cxx_text = translated(text);
    cache_name(base, sizeof base, cxx_text);
    snprintf(path, sizeof path, "%s.so", base);
    bool there = access(path, R_OK) == 0 || build(base, cxx_text, error, error_bytes);
    free(cxx_text);
    return there && open_program(path, out, error, error_bytes);
}

const sim_kernel *metal_kernel(const metal_program *program, const char *name) {
    char symbol[256];
    snprintf(symbol, sizeof symbol, "sim_kernel_%.200s", name);
    return dlsym(program->handle, symbol);
}
