// MSL to machine code: the text, whose kernels get pointers that know their buffers, and after it a
// function for each kernel that fills its arguments in, is compiled as C++ under shim/metal_stdlib.
// What was compiled once is found again in a folder: METAL_SIM_CACHE, or one below BUILD or TMPDIR.
#include "internal.h"

#include <ctype.h>
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

// Warnings are errors, but for what kc names and a kernel may leave unused.
static const char flags[] =
    "-std=c++17 -O1 -fPIC -ffp-contract=off -fno-strict-aliasing -fno-exceptions -fno-rtti "
    "-fsanitize=bounds -fvisibility=default -Wall -Wextra -Werror -Wno-unused-variable "
    "-Wno-unused-parameter -Wno-unused-function -Wno-unused-const-variable";

// ---- The text ---------------------------------------------------------------------------------

typedef struct slice {
    const char *at, *end;
} slice;

static slice trim(slice s) {
    while (s.at < s.end && isspace((unsigned char)*s.at)) s.at++;
    while (s.end > s.at && isspace((unsigned char)s.end[-1])) s.end--;
    return s;
}

static bool starts(slice s, const char *word) {
    size_t n = strlen(word);
    return (size_t)(s.end - s.at) > n && !strncmp(s.at, word, n) &&
           !isalnum((unsigned char)s.at[n]);
}

// One parameter of a kernel: TYPE [*&] NAME [[ATTRIBUTE]].
typedef struct parameter {
    slice type, name, attribute;
    char pointer; // '*', '&' or 0
    bool device, constant;
    int index; // of its buffer
} parameter;

static parameter read_parameter(slice whole) {
    parameter p = {.index = -1};
    whole = trim(whole);
    slice left = whole;
    for (const char *c = whole.at; c + 1 < whole.end; c++)
        if (c[0] == '[' && c[1] == '[') {
            p.attribute = trim((slice){c + 2, whole.end - 2});
            left.end = c;
            break;
        }
    left = trim(left);
    p.name = (slice){left.end, left.end};
    while (p.name.at > left.at && (isalnum((unsigned char)p.name.at[-1]) || p.name.at[-1] == '_'))
        p.name.at--;
    p.type = trim((slice){left.at, p.name.at});
    if (p.type.end > p.type.at && strchr("*&", p.type.end[-1])) p.pointer = *--p.type.end;
    p.device = starts(p.type, "device");
    p.constant = starts(p.type, "constant");
    if (p.device || p.constant) p.type.at += p.device ? 6 : 8;
    p.type = trim(p.type);
    if (starts(p.attribute, "buffer")) p.index = atoi(strchr(p.attribute.at, '(') + 1);
    return p;
}

#define TEXT(s) (int)((s).end - (s).at), (s).at

enum { PARAMETERS_MAX = 64 };

// The parameters between the ( and the ) where `at` ends up.
static int read_parameters(const char **at, parameter *out) {
    const char *from = *at, *p = from;
    int count = 0, inside = 0;
    for (; *p; p++) {
        if (inside == 0 && (*p == ',' || *p == ')')) {
            if (count < PARAMETERS_MAX && trim((slice){from, p}).at < p)
                out[count++] = read_parameter((slice){from, p});
            from = p + 1;
            if (*p == ')') break;
        }
        inside += (*p == '(' || *p == '[') - (*p == ')' || *p == ']');
    }
    *at = p;
    return count;
}

// Metal Shading Language Specification, "Kernel Function Input Attributes".
static const char *value_of(slice attribute) {
    static const char *const values[][2] = {
        {"thread_index_in_threadgroup", "t->index"},
        {"threadgroup_position_in_grid", "sim_triple{t->group}"},
        {"threadgroups_per_grid", "sim_triple{t->groups}"},
        {"thread_position_in_threadgroup", "sim_triple{t->local}"},
        {"threads_per_threadgroup", "sim_triple{t->size}"},
        {"thread_index_in_simdgroup", "t->index % 32u"},
        {"simdgroup_index_in_threadgroup", "t->index / 32u"},
        {"threads_per_simdgroup", "32u"},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if ((size_t)(attribute.end - attribute.at) == strlen(values[i][0]) &&
            !strncmp(attribute.at, values[i][0], strlen(values[i][0])))
            return values[i][1];
    return NULL;
}

static void put_parameters(FILE *out, const parameter *p, int count) {
    for (int i = 0; i < count; i++) {
        bool checked = p[i].pointer == '*' && p[i].index >= 0;
        fprintf(out, i ? ", " : "");
        if (checked)
            fprintf(out, "sim_device<%s%.*s> ", p[i].constant ? "const " : "", TEXT(p[i].type));
        else
            fprintf(out, "%s%.*s %c", p[i].constant ? "const " : "", TEXT(p[i].type),
                    p[i].pointer ? p[i].pointer : ' ');
        fprintf(out, "%.*s", TEXT(p[i].name));
    }
}

static void put_caller(FILE *out, slice name, const parameter *p, int count) {
    fprintf(out,
            "\nstatic void sim_run_%.*s(const sim_thread *t, const sim_binding *b) {\n    %.*s(",
            TEXT(name), TEXT(name));
    for (int i = 0; i < count; i++) {
        const char *value = value_of(p[i].attribute);
        fprintf(out, i ? ",\n        " : "");
        if (p[i].index >= 0 && p[i].pointer == '*')
            fprintf(out, "{b, %d}", p[i].index);
        else if (p[i].index >= 0)
            fprintf(out, "*(const %.*s *)b[%d].data", TEXT(p[i].type), p[i].index);
        else if (value)
            fprintf(out, "%s", value);
        else
            fprintf(out, "\n#error the simulated Metal knows no argument [[%.*s]]\n",
                    TEXT(p[i].attribute));
    }
    fprintf(out, ");\n}\nstatic const sim_argument sim_arguments_%.*s[] = {\n", TEXT(name));
    int bound = 0;
    for (int i = 0; i < count; i++) {
        if (p[i].index < 0) continue;
        bound++;
        fprintf(out, "    {\"%.*s\", %d, %d, sizeof(%.*s), alignof(%.*s)},\n", TEXT(p[i].name),
                p[i].index, p[i].constant, TEXT(p[i].type), TEXT(p[i].type));
    }
    fprintf(out,
            "    {nullptr, 0, 0, 0, 0}};\nextern \"C\" const sim_kernel sim_kernel_%.*s = "
            "{\"%.*s\", sim_run_%.*s, sim_arguments_%.*s, %d};\n",
            TEXT(name), TEXT(name), TEXT(name), TEXT(name), bound);
}

// Is this `word` on its own?
static bool is_word(const char *text, const char *at, const char *word) {
    size_t n = strlen(word);
    return (at == text || !(isalnum((unsigned char)at[-1]) || at[-1] == '_')) &&
           !strncmp(at, word, n) && isspace((unsigned char)at[n]);
}

static void put_text(FILE *out, const char *text) {
    fprintf(out, "#line 1 \"program_source\"\n");
    char *callers = NULL;
    size_t bytes = 0;
    FILE *after = open_memstream(&callers, &bytes);
    if (!after) abort();
    for (const char *c = text; *c; c++) {
        if (!is_word(text, c, "kernel")) {
            fputc(*c, out);
            continue;
        }
        parameter p[PARAMETERS_MAX];
        const char *open = strchr(c, '('), *lines = c;
        if (!open) break;
        slice name = trim((slice){c, open});
        while (name.at < name.end && isspace((unsigned char)name.end[-1])) name.end--;
        slice only = {name.end, name.end};
        while (isalnum((unsigned char)only.at[-1]) || only.at[-1] == '_') only.at--;
        c = open + 1;
        int count = read_parameters(&c, p);
        fprintf(out, "%.*s", (int)(open + 1 - lines), lines);
        put_parameters(out, p, count);
        for (const char *l = open; l < c; l++) // the lines keep their numbers
            if (*l == '\n') fputc('\n', out);
        fputc(')', out);
        put_caller(after, only, p, count);
    }
    fclose(after);
    fprintf(out, "\n%s", callers);
    free(callers);
}

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
    const char *own = getenv("METAL_SIM_CXX");
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
    put_text(out, text);
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

bool metal_compile(const char *text, metal_program *out, char *error, size_t error_bytes) {
    METAL_LOCKED;
    char folder[900], base[1000], path[1100];
    char *shim = contents_of(METAL_SIM_SHIM "/metal_stdlib");
    cache_folder(folder, sizeof folder);
    uint64_t first = hash_of(text, 0xcbf29ce484222325u), second = hash_of(text, 42);
    second = hash_of(shim ? shim : "", hash_of(flags, hash_of(fma_flag(), second)));
    free(shim);
    snprintf(base, sizeof base, "%s/%016llx%016llx", folder, (unsigned long long)first,
             (unsigned long long)second);
    snprintf(path, sizeof path, "%s.so", base);
    if (access(path, R_OK) != 0 && !build(base, text, error, error_bytes)) return false;
    out->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *shared = out->handle ? dlsym(out->handle, "sim_shared_memory") : NULL;
    sim_hooks *calls = out->handle ? dlsym(out->handle, "sim_calls") : NULL;
    if (!shared || !calls) {
        snprintf(error, error_bytes, "%s",
                 out->handle ? "the text includes no metal_stdlib" : dlerror());
        return false;
    }
    char *(*shared_memory)(unsigned long long *);
    *(void **)&shared_memory = shared;
    out->shared = shared_memory(&out->shared_bytes);
    *calls = metal_hooks;
    return true;
}

const sim_kernel *metal_kernel(const metal_program *program, const char *name) {
    char symbol[256];
    snprintf(symbol, sizeof symbol, "sim_kernel_%.200s", name);
    return dlsym(program->handle, symbol);
}
