// The kernel translator as a library: kernels/*.k to GLSL, CUDA C, MSL, WGSL and C. The language is
// described in docs/kernel-language.md. Depends on nothing but the C library.
#ifndef KC_H
#define KC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum kc_lang { KC_GLSL, KC_CUDA, KC_MSL, KC_WGSL, KC_C, KC_LANG_COUNT } kc_lang;
extern const char *const kc_lang_names[KC_LANG_COUNT]; // "glsl" ...

enum { KC_BUFFERS_MAX = 8, KC_SPECIAL_MAX = 16, KC_RULE_WORDS_MAX = 64 };

// The text must outlive the unit. `path` is what messages and #line name: "kernels/map.k".
typedef struct kc_source {
    const char *path, *text;
    size_t length;
} kc_source;

typedef struct kc_error {
    char text[512]; // "kernels/map.k:12:9: error: ..."; the first error
} kc_error;

typedef struct kc_kernel {
    const char *name;
    const char *of; // the kernel it is a variant of; its own name otherwise
    const char *path;
    int line;
    const char *scalars;               // name of its block, "" when it has none
    char bindings[KC_BUFFERS_MAX + 1]; // one letter per buffer: r w u, upper case: may be absent
    uint32_t scalar_bytes, group, shared_bytes;
    uint32_t special[KC_SPECIAL_MAX], special_count; // words of the scalars that are const
    bool always;                                     // no `when`
    uint32_t when[KC_RULE_WORDS_MAX];                // rules as in src/device/portable.h
    uint32_t grid[3][KC_RULE_WORDS_MAX];
    bool has_barrier;
} kc_kernel;

typedef struct kc_unit kc_unit;

// Reads and checks all sources together (an include names another of them by its file name; files
// are parsed in the order given, and each once). NULL: error->text says why.
kc_unit *kc_parse(const kc_source *sources, int count, kc_error *error);
void kc_free(kc_unit *unit);

int kc_kernel_count(const kc_unit *unit);
const kc_kernel *kc_kernel_at(const kc_unit *unit, int index);
int kc_kernel_find(const kc_unit *unit, const char *name); // -1: none

// The kernel as a complete source text, malloc'd; NULL: out of memory.
char *kc_emit(const kc_unit *unit, int kernel, kc_lang lang);

// The C side: the contract header (BT_PORTABLE_KERNELS, the structs of scalars, exported
// constants), and the tables bt_portable_table and bt_portable_sources. false: writing failed.
bool kc_write_header(const kc_unit *unit, FILE *out);
bool kc_write_tables(const kc_unit *unit, FILE *out);

#endif
