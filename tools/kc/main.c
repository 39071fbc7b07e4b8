// The command kc: translates kernels, and makes the C files that the build needs of them.
#include "kc/kc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: kc list FILES          names of the kernels, one a line\n"
    "       kc LANG NAME FILES     kernel NAME as glsl, cuda, msl, wgsl or c\n"
    "       kc header FILES        kernels_gen.h: the contract of the kernels\n"
    "       kc tables FILES        kernels_tables.c: what devices choose from\n"
    "       kc portable FILES      portable.cu: all kernels as CUDA C\n"
    "       kc sim FILES           sim_kernels.c: all kernels for the simulated device\n"
    "       kc metal FILES         metal_kernels.c: all kernels as texts in MSL\n"
    "       kc spirv DIR FILES     spirv.c: DIR/NAME.spv of all kernels\n";

static char *read_file(const char *path, size_t *length) {
    enum { MOST = 1 << 26 };
    FILE *in = fopen(path, "rb");
    char *text = in ? malloc(MOST) : NULL;
    *length = text ? fread(text, 1, MOST, in) : 0;
    bool failed = !text || ferror(in) || *length == MOST;
    if (failed) fprintf(stderr, "kc: %s: %s\n", path, errno ? strerror(errno) : "too large");
    if (in) fclose(in);
    if (failed) exit(1);
    char *exact = realloc(text, *length + 1);
    return exact ? exact : text;
}

static kc_unit *parse(char **paths, int count) {
    static kc_source *sources; // the unit points into them until the end
    sources = calloc((size_t)count + 1, sizeof *sources);
    kc_error error;
    for (int i = 0; sources && i < count; i++) {
        sources[i].path = paths[i];
        sources[i].text = read_file(paths[i], &sources[i].length);
    }
    kc_unit *unit = sources ? kc_parse(sources, count, &error) : NULL;
    if (!unit) fprintf(stderr, "%s\n", sources ? error.text : "kc: out of memory");
    if (!unit) exit(1);
    return unit;
}

static bool list(const kc_unit *unit) {
    for (int i = 0; i < kc_kernel_count(unit); i++) puts(kc_kernel_at(unit, i)->name);
    return !ferror(stdout);
}

static bool emit(const kc_unit *unit, int kernel, kc_lang lang) {
    char *text = kc_emit(unit, kernel, lang);
    bool written = text && fputs(text, stdout) >= 0;
    free(text);
    return written;
}

static bool translate(const kc_unit *unit, const char *name, kc_lang lang) {
    int kernel = kc_kernel_find(unit, name);
    if (kernel >= 0) return emit(unit, kernel, lang);
    fprintf(stderr, "kc: there is no kernel %s\n", name);
    return false;
}

// Each in a namespace of its own, since each text has all that it needs.
static bool portable(const kc_unit *unit) {
    bool written = true;
    printf("// The portable kernels in CUDA C. Made by kc from the .k files.\n");
    for (int i = 0; i < kc_kernel_count(unit); i++) {
        printf("\nnamespace bt_%s_text {\n", kc_kernel_at(unit, i)->name);
        written &= emit(unit, i, KC_CUDA);
        printf("}\n");
    }
    return written && !ferror(stdout);
}

static bool sim(const kc_unit *unit) {
    printf("// The portable kernels for the simulated device. Made by kc from the .k files.\n"
           "#include \"device/sim/sim.h\"\n\n"
           "// What a kernel may do though C compilers warn of it.\n"
           "#pragma GCC diagnostic ignored \"-Wunused-parameter\"\n"
           "#pragma GCC diagnostic ignored \"-Wunused-but-set-variable\"\n"
           "#pragma GCC diagnostic ignored \"-Wtype-limits\"\n"
           "#pragma GCC diagnostic ignored \"-Wshadow\"\n"
           "#pragma GCC diagnostic ignored \"-Wtautological-compare\"\n"
           "#ifdef __clang__\n#pragma GCC diagnostic ignored \"-Wparentheses-equality\"\n"
           "#pragma GCC diagnostic ignored \"-Wself-assign\"\n"
           "#pragma GCC diagnostic ignored \"-Wfor-loop-analysis\"\n#endif\n");
    bool written = true;
    for (int i = 0; i < kc_kernel_count(unit); i++) {
        puts("");
        written &= emit(unit, i, KC_C);
    }
    printf("\nconst bt_sim_kernel bt_sim_kernels[] = {\n");
    for (int i = 0; i < kc_kernel_count(unit); i++) {
        const kc_kernel *k = kc_kernel_at(unit, i);
        printf("    {\"%s\", %s_thread, %u, %s},\n", k->name, k->name, (unsigned)k->shared_bytes,
               k->has_barrier ? "true" : "false");
    }
    printf("};\n");
    return written && !ferror(stdout);
}

// A string a line. C wants " and \ escaped, and ? for its trigraphs.
static void put_string(const char *text) {
    bool open = false;
    for (const char *at = text; *at; at++) {
        printf("%s", open ? "" : "\n     \"");
        open = *at != '\n';
        if (open)
            printf("%s%c", strchr("\"\\?", *at) ? "\\" : "", *at);
        else
            printf("\\n\"");
    }
    printf("%s", open ? "\"" : "");
}

static bool metal(const kc_unit *unit) {
    bool complete = true;
    printf("// The portable kernels in MSL, in the order of bt_portable_table. Made by kc.\n"
           "#include \"device/metal/metal_internal.h\"\n\n"
           "const char *const bt_metal_texts[] = {");
    for (int i = 0; i < kc_kernel_count(unit); i++) {
        char *text = kc_emit(unit, i, KC_MSL);
        complete &= text != NULL;
        put_string(text ? text : "");
        printf(",\n");
        free(text);
    }
    printf("};\n");
    return complete && !ferror(stdout);
}

static void spirv_words(const char *dir, const char *name) {
    char path[4096];
    size_t length = 0;
    snprintf(path, sizeof path, "%s/%s.spv", dir, name);
    char *bytes = read_file(path, &length);
    printf("static const uint32_t %s_code[] = {", name);
    for (size_t i = 0; i + 4 <= length; i += 4) {
        uint32_t word;
        memcpy(&word, bytes + i, 4);
        printf("%s0x%x,", i % 40 ? "" : "\n", (unsigned)word);
    }
    printf("};\n");
    free(bytes);
}

static bool spirv(const kc_unit *unit, const char *dir) {
    int count = kc_kernel_count(unit);
    printf(
        "// The portable kernels as SPIR-V, in the order of bt_portable_table. Made by kc.\n"
        "#include <stddef.h>\n#include <stdint.h>\n\n"
        "extern const uint32_t *const bt_spirv_code[];\nextern const size_t bt_spirv_bytes[];\n\n");
    for (int i = 0; i < count; i++) spirv_words(dir, kc_kernel_at(unit, i)->name);
    printf("\nconst uint32_t *const bt_spirv_code[] = {\n");
    for (int i = 0; i < count; i++) printf("    %s_code,\n", kc_kernel_at(unit, i)->name);
    printf("};\nconst size_t bt_spirv_bytes[] = {\n");
    for (int i = 0; i < count; i++) printf("    sizeof %s_code,\n", kc_kernel_at(unit, i)->name);
    printf("};\n");
    return !ferror(stdout);
}

static bool header(const kc_unit *unit) {
    return kc_write_header(unit, stdout);
}

static bool tables(const kc_unit *unit) {
    return kc_write_tables(unit, stdout);
}

int main(int argc, char **argv) {
    static const char *const plain[] = {"list", "header", "tables", "sim", "portable", "metal"};
    static bool (*const writers[])(const kc_unit *) = {list, header, tables, sim, portable, metal};
    enum { PLAIN = sizeof plain / sizeof *plain };
    const char *command = argc > 2 ? argv[1] : "";
    int kind = 0, lang = 0;
    while (kind < PLAIN && strcmp(command, plain[kind])) kind++;
    while (lang < KC_LANG_COUNT && strcmp(command, kc_lang_names[lang])) lang++;
    int files = kind < PLAIN ? 2 : 3;
    if (argc <= files || (kind == PLAIN && lang == KC_LANG_COUNT && strcmp(command, "spirv"))) {
        fputs(usage, stderr);
        return 2;
    }
    kc_unit *unit = parse(argv + files, argc - files);
    bool good = kind < PLAIN           ? writers[kind](unit)
                : lang < KC_LANG_COUNT ? translate(unit, argv[2], (kc_lang)lang)
                                       : spirv(unit, argv[2]);
    kc_free(unit);
    return good && !fflush(stdout) ? 0 : 1;
}
