// The kernel translator: what each language gets for each feature (tests/kc/golden), what is
// refused and where, rules and tables, and broken sources by the thousand.
//
// A changed translation shows as a difference to its golden file; made anew by
//   for l in glsl cuda msl wgsl c; do
//     build/kc $l features tests/kc/features.k tests/kc/parts.k > tests/kc/golden/$l.txt; done
#include "device/portable.h"
#include "kc/kc.h"
#include "support.h"

#include <glob.h>

static kc_source load(const char *path) {
    kc_source source = {.path = path};
    source.text = (char *)read_file(path, &source.length);
    check(source.text, "%s cannot be read", path);
    return source;
}

static kc_unit *parse_text(const char *text, kc_error *error) {
    kc_source source = {"a.k", text, strlen(text)};
    return kc_parse(&source, 1, error);
}

// ---- Translations ----------------------------------------------------------------------------

static kc_unit *parse_features(kc_source sources[2]) {
    kc_error error = {""};
    sources[0] = load("tests/kc/features.k");
    sources[1] = load("tests/kc/parts.k");
    kc_unit *unit = kc_parse(sources, 2, &error);
    check(unit, "%s", error.text);
    return unit;
}

static void free_features(kc_unit *unit, kc_source sources[2]) {
    kc_free(unit);
    free((char *)sources[0].text);
    free((char *)sources[1].text);
}

static void check_same(const char *got, const char *want, const char *name) {
    int line = 1;
    size_t i = 0;
    for (; got[i] && got[i] == want[i]; i++) line += got[i] == '\n';
    check(got[i] == want[i], "%s, line %d: '%.60s' in place of '%.60s'", name, line, got + i,
          want + i);
}

static void test_golden(void **state) {
    (void)state;
    kc_source sources[2];
    kc_unit *unit = parse_features(sources);
    int kernel = kc_kernel_find(unit, "features");
    for (int lang = 0; lang < KC_LANG_COUNT; lang++) {
        char path[64];
        snprintf(path, sizeof path, "tests/kc/golden/%s.txt", kc_lang_names[lang]);
        kc_source want = load(path);
        char *got = kc_emit(unit, kernel, (kc_lang)lang), *text = allocate(want.length + 1);
        memcpy(text, want.text, want.length);
        check_same(got, text, path);
        free(got);
        free(text);
        free((char *)want.text);
    }
    free_features(unit, sources);
}

static char *written(bool (*write)(const kc_unit *, FILE *), const kc_unit *unit) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    check(out && write(unit, out) && !fclose(out), "cannot be written");
    return text;
}

static void test_c_side(void **state) {
    (void)state;
    static const char *const header[] = {"X(features, \"rRwU\", bt_features_args)",
                                         "typedef struct bt_features_args {\n    uint32_t op;\n",
                                         "    uint32_t dim[3];\n    float factor;\n",
                                         "BT_CHUNK = 4096,",
                                         "BT_SORT_NONE = 0,",
                                         "BT_SORT_DOWN = 2,"};
    static const char *const tables[] = {
        "{\"wide\", \"tests/kc/features.k\", 26, BT_KERNEL_features, 64, 0, 2, {0, 6}, when_0, "
        "{x_0, y_0, z_0}}",
        "{\"features\", \"tests/kc/features.k\", 34, BT_KERNEL_features, 64, 292, 2, {0, 6}, NULL, "
        "{x_1, NULL, NULL}}",
        "{BT_RULE_WORD, 1u, BT_RULE_END}", "\"include \\\"parts.k\\\"\\n\""};
    kc_source sources[2];
    kc_unit *unit = parse_features(sources);
    char *text = written(kc_write_header, unit);
    for (size_t i = 0; i < 6; i++)
        check(strstr(text, header[i]), "no '%s' in\n%s", header[i], text);
    check(!strstr(text, "WIDE") && !strstr(text, "X(wide"), "too much in\n%s", text);
    free(text);
    text = written(kc_write_tables, unit);
    for (size_t i = 0; i < 4; i++)
        check(strstr(text, tables[i]), "no '%s' in\n%s", tables[i], text);
    free(text);
    free_features(unit, sources);
}

// ---- Rules -----------------------------------------------------------------------------------

static void test_rules(void **state) {
    (void)state;
    static const struct {
        const char *rule;
        uint32_t value; // of n = 10, m = 3, dim = {5, 6}
    } rules[] = {
        {"n", 10},
        {"n + m * 2u", 16},
        {"(n + m) * 2u", 26},
        {"n - m - 1u", 6},
        {"n / m % 2u", 1},
        {"dim[0] * 10u + dim[1]", 56},
        {"min(n, m) + max(n, 0xffu)", 258},
        {"FOUR * FOUR", 16},
        {"n > m", 1},
        {"n == m || m == 3u", 1},
        {"!(n != 10u)", 1},
        {"16u + 48u * (n > 32u) + 192u * (m <= 3u)", 208},
        {"n >= 10u && m < 3u", 0},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        char text[400];
        kc_error error = {""};
        snprintf(text, sizeof text,
                 "const uint FOUR = 4u;\nscalars s { uint n; float f; uint m; uint dim[2]; }\n"
                 "kernel k(out float y[], s) group(1) grid(1u, %s) { }\n"
                 "kernel v of k when (%s) (out float y[], s) group(1) grid(1u) { }\n",
                 rules[i].rule, rules[i].rule);
        kc_unit *unit = parse_text(text, &error);
        check(unit, "%s: %s", rules[i].rule, error.text);
        const kc_kernel *v = kc_kernel_at(unit, 0), *k = kc_kernel_at(unit, 1);
        uint32_t value = 0, scalars[] = {10, 0, 3, 5, 6};
        check(!strcmp(v->name, "v") && !v->always && k->always, "the variant does not come first");
        check(bt_rule_value(v->when, (unsigned char *)scalars, &value) && value == rules[i].value,
              "%s is %u", rules[i].rule, (unsigned)value);
        check(!memcmp(v->when, k->grid[1], sizeof v->when) && !k->grid[2][0], "the grid differs");
        kc_free(unit);
    }
}

// ---- What is refused -------------------------------------------------------------------------

#define TOP \
    "scalars s { uint n; float f; int j; uint dim[2]; const uint op; } const uint SIZE = 4u;\n"
#define HEAD \
    "kernel k(in float x[], inout float y[], out uint z[], in? int w[], s) group(64) grid(1u) {\n"
// A body is in line 3, from column 1.
#define BODY(text) TOP HEAD text "\n}\n"
#define LOOP(text) BODY("for (uint i = 0u; i < n; i++) {\n" text "\n}")

static const struct {
    const char *text, *place, *part;
} refusals[] = {
    // Characters, numbers, names
    {"const uint A = 1u; /* no */", "1:20", "expected before '/'"},
    {"// caf\xc3\xa9\n", "1:7", "0xc3"},
    {"// splice \\\nconst uint A = 1u;", "1:11", "0x5c"},
    {"// splice ?\?/\nconst uint A = 1u;", "1:11", "0x3f"},
    {"const uint A = 08u;", "1:16", "no number"},
    {"const uint A = 0x1f;", "1:16", "no number"},
    {"const float A = 1.;", "1:17", "no number"},
    {"const float A = 1.0f;", "1:17", "no number"},
    {"const float A = 1e99;", "1:17", "not finite"},
    {"const float A = 1e-60;", "1:17", "too small"},
    {"const uint A = 4294967296u;", "1:16", "no uint"},
    {"const int A = 2147483648;", "1:15", "no int"},
    {"const uint half = 1u;", "1:12", "reserved word"},
    {"const uint target = 1u;", "1:12", "reserved word"},
    {"const uint bt_x = 1u;", "1:12", "bt_"},
    {"const uint a__b = 1u;", "1:12", "underscores"},
    {"const uint sin = 1u;", "1:12", "function of one"},
    {"const uint lid = 1u;", "1:12", "built in"},
    {"const uint A = 1u;\nconst uint A = 2u;", "2:12", "line 1"},
    // Constants
    {"const uint A = 0u - 1u;", "1:19", "no uint"},
    {"const int A = 2147483647 + 1;", "1:26", "no int"},
    {"const uint A = 65536u * 65536u;", "1:23", "no uint"},
    {"const uint A = 1u / 0u;", "1:19", "by 0"},
    {"const uint A = 1u << 32u;", "1:19", "at most 31"},
    {"const uint A = 2u << 31u;", "1:19", "no uint"},
    {"const float A = 1e38 * 10.0;", "1:22", "not finite"},
    {"const float A = as_float(0x7f800000u);", "1:17", "not finite"},
    {"const float A = exp(1.0);", "1:17", "write the number"},
    {"const uint A = uint(-1.0);", "1:16", "no uint"},
    {"export const uint A = 2147483648u;", "1:14", "below 2^31"},
    {"const uint A = 1;", "1:16", "uint, not int"},
    // Types
    {BODY("float v = 1;"), "3:11", "float, not int"},
    {BODY("float v = n * f;"), "3:13", "uint and float"},
    {BODY("uint v = -n;"), "3:10", "not for uint"},
    {BODY("float v = f % f;"), "3:13", "not for float"},
    {BODY("uint v = n << 2;"), "3:12", "by a uint"},
    {BODY("bool v = bool(n);"), "3:10", "no conversion"},
    {BODY("bool v = true < false;"), "3:15", "not for bool"},
    {BODY("if (n) { }"), "3:5", "bool, not uint"},
    {BODY("float v = max(f, 1u);"), "3:18", "float and uint"},
    {BODY("float v = pick(n, f, f);"), "3:16", "by a bool"},
    {BODY("uint v = n; v = f;"), "3:17", "uint(...)"},
    {BODY("y[1.0] = f;"), "3:3", "index is a uint"},
    {BODY("y[j] = f;"), "3:3", "index is a uint"},
    {BODY("y = f;"), "3:3", "'['"},
    // The grammar
    {BODY("bool v = n < n == n < n;"), "3:16", "parentheses"},
    {BODY("uint v = n << 2u + n;"), "3:18", "parentheses"},
    {BODY("uint v = n + n & n;"), "3:16", "parentheses"},
    {BODY("uint v = n & n | n;"), "3:16", "parentheses"},
    {BODY("bool v = n > 1u && n > 2u || n > 3u;"), "3:27", "mix"},
    {BODY("uint v = (n;"), "3:12", "')'"},
    {BODY("if (n > 1u) y[0] = f;"), "3:13", "'{'"},
    {BODY("for (uint i = 0u; i < n;) { }"), "3:25", "value"},
    {BODY("n + 1u;"), "3:1", "assigned"},
    {BODY("uint v = n++;"), "3:11", "';'"},
    {BODY("const uint V = 1u;"), "3:1", "outside"},
    {BODY("return 1u;"), "3:8", "';'"},
    {BODY("break;"), "3:1", "loop"},
    {BODY("float v;"), "3:1", "first value"},
    {BODY("float v[4] = f;"), "3:12", "no first value"},
    {BODY("exp(f);"), "3:1", "no statement"},
    {TOP HEAD "uint v = n;", "3:12", "end of the file"},
    // Names and places
    {BODY("uint v = v;"), "3:10", "not declared"},
    {BODY("uint n = 1u;"), "3:6", "hide"},
    {LOOP("uint i = 0u;"), "4:6", "hide"},
    {LOOP("} y[i] = f; if (true) {"), "4:5", "not declared"},
    {BODY("n = 1u;"), "3:1", "a scalar"},
    {BODY("SIZE = 1u;"), "3:1", "a constant"},
    {BODY("x[0] = f;"), "3:1", "read (in)"},
    {BODY("lid += 1u;"), "3:1", "built-in value"},
    {BODY("float v[4]; v[4u] = f;"), "3:15", "4 of 4"},
    {BODY("uint v = dim[2];"), "3:14", "2 of 2"},
    {BODY("uint v = dim[lid];"), "3:14", "literal"},
    {BODY("float v[n]; v[0] = f;"), "3:9", "constant from 1"},
    {BODY("float v[64][64];"), "3:12", "at most 1024"},
    {BODY("shared float v[4097];"), "3:16", "4096"},
    {BODY("shared float v[4096]; shared uint q[1];"), "3:23", "16388 bytes"},
    {BODY("if (true) { shared uint v[1]; }"), "3:13", "top level"},
    {BODY("bool v = has(x);"), "3:14", "always there"},
    {BODY("bool v = has(n);"), "3:14", "a buffer"},
    {"float h(float v) { v = 1.0; return v; }", "1:20", "a parameter"},
    {"float h(float v) { return h(v); }", "1:27", "itself"},
    {"float h(float v) { float q = v; }", "1:33", "ends with its return"},
    {"float h(float v) { if (v > 1.0) { return v; } return v; }", "1:35", "at its end"},
    {"float h(float v) { barrier(); return v; }", "1:20", "kernels alone"},
    {"float h(uint v) { return float(lid); }", "1:32", "not declared"},
    {"float h() { return 1.0; } const float A = h();", "1:43", "no constant"},
    {TOP "float h(float v) { return v; }\n" HEAD "y[0] = h(1u);\n}", "4:10", "is float, not uint"},
    // Barriers
    {BODY("if (lid < 2u) { barrier(); }"), "3:17", "not all threads"},
    {BODY("if (y[0] > 2.0) { barrier(); }"), "3:19", "not all threads"},
    {BODY("if (x[lid] > 2.0) { barrier(); }"), "3:21", "not all threads"},
    {BODY("shared uint q[1]; if (q[0] > 2u) { barrier(); }"), "3:36", "not all threads"},
    {BODY("if (lid < 2u) { return; } barrier();"), "3:27", "not all threads"},
    {BODY("uint v = 0u; if (lid < 2u) { v = 1u; } if (v < 1u) { barrier(); }"), "3:54", "not all"},
    {BODY("uint v = 0u; uint q = 0u; for (uint i = 0u; i < n; i++) {\n"
          "if (q > 0u) { barrier(); } q = v; v = lid; }"),
     "4:15", "not all threads"},
    {LOOP("barrier(); if (lid == i) { break; }"), "4:1", "not all threads"},
    {LOOP("if (lid == i) { continue; } barrier();"), "4:29", "not all threads"},
    {LOOP("for (uint q = 0u; q < n; q++) { if (lid < q) { return; } } barrier();"), "4:60",
     "not all"},
    {BODY("for (uint i = lid; i < n; i += 64u) { barrier(); }"), "3:39", "not all threads"},
    {BODY("while (w[lid] > 0) { barrier(); }"), "3:22", "not all threads"},
    // Kernels and files
    {"include \"b.k\"", "1:9", "no file \"b.k\""},
    {"include \"a.k\"", "1:9", "includes itself"},
    {"include \"a.k", "1:9", "ends with"},
    {"scalars s { uint a[17]; }", "1:20", "from 1 to 16"},
    {"scalars s { uint a[9]; uint b[8]; }", "1:24", "68 bytes"},
    {"scalars s { const uint a[2]; }", "1:13", "compiled in"},
    {"scalars s { bool a; }", "1:13", "uint, int or float"},
    {"kernel k(out float y[]) group(257) grid(1u) { }", "1:31", "from 1 to 256"},
    {"kernel k(out float y[]) group(1) grid(1) { }", "1:39", "uints"},
    {"kernel k(out float y[]) group(1) grid(lid) { }", "1:39", "alone"},
    {"kernel k(out float y[]) group(1) grid(y[0]) { }", "1:39", "alone"},
    {"kernel k(out float y[]) group(1) grid(1u << 2u) { }", "1:42", "alone"},
    {"scalars s { float a; } kernel k(out float y[], s) group(1) grid(a) { }", "1:65", "uints"},
    {"kernel k(s) group(1) grid(1u) { }", "1:10", "a buffer"},
    {TOP "kernel k(out float n[], s) group(1) grid(1u) { }", "2:25", "scalar 'n'"},
    {TOP "kernel k(s, out float y[]) group(1) grid(1u) { }", "2:11", "has buffers"},
    {"kernel k(out float y[]) group(1) grid(1u) { }\nkernel k(out float y[]) group(1) grid(1u) { }",
     "2:8", "two kernels"},
    {"kernel v of k when (1u) (out float y[]) group(1) grid(1u) { }", "1:13", "no kernel 'k'"},
    {"kernel k(out float y[]) group(1) grid(1u) { }\n"
     "kernel v of k when (1u) (in float y[]) group(1) grid(1u) { }",
     "2:8", "has the buffers"},
};

static void test_refusals(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        kc_error error = {""};
        char place[32];
        kc_unit *unit = parse_text(refusals[i].text, &error);
        check(!unit, "accepted: %s", refusals[i].text);
        snprintf(place, sizeof place, "a.k:%s: error: ", refusals[i].place);
        check(!strncmp(error.text, place, strlen(place)) && strstr(error.text, refusals[i].part),
              "'%s' in place of '%s... %s' for %s", error.text, place, refusals[i].part,
              refusals[i].text);
    }
}

// What is like the refusals, but right.
static void test_accepted(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "// nothing",
        "const uint A = 1u; const uint B = A - 1u;",
        BODY("if (n > 1u) { barrier(); }"),
        BODY("if (x[gx] > 2.0) { barrier(); }"),
        BODY("if (n > 1u) { return; } barrier();"),
        BODY("if (has(w) && gy < ngx) { barrier(); }"),
        BODY("for (uint i = lid; i < n; i++) { y[i] = f; } barrier();"),
        BODY("for (uint i = 0u; i < n; i++) { if (lid == i) { break; } } barrier();"),
        BODY("barrier(); if (lid < 2u) { return; }"),
        LOOP("uint v = lid; if (op == i) { break; } barrier();"),
        BODY("for (uint i = 0u; i < n; i++) { } for (uint i = 0u; i < n; i++) { }"),
        BODY("uint v = (n & n) + (n << 2u); bool b = (n < 1u) == (n > 2u); v = ~~v; b = !!b;"),
        BODY("float v[SIZE * 2u][3]; v[7][2u] = -(-f);"),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        kc_error error = {""};
        kc_unit *unit = parse_text(texts[i], &error);
        check(unit, "%s for %s", error.text, texts[i]);
        kc_free(unit);
    }
}

// Text that would need much memory, time or stack.
static void test_bounds(void **state) {
    (void)state;
    static const struct {
        const char *head, *part, *tail, *want;
        size_t times;
    } cases[] = {
        {"const uint A = ", "(", "", "too deeply", 100000},
        {"const int A = ", "- ", "1;", "too deeply", 100000},
        {"const uint A = 0u", " + 1u", ";", NULL, 10000},
        {BODY(""), "kernel ", "", "name", 1},
        {TOP HEAD, "if (true) {", "", "too deeply", 10000},
        {TOP HEAD "if (true) {}", " else if (true) {}", "}", "levels", 10000},
        {TOP HEAD, "float a[1024];", "", "hide", 10000},
        {TOP HEAD, "y[lid] += x[lid];", "}", NULL, 10000},
        {"", "a", "", "a name of", 100},
        {"", " ", "", "262144", 300000},
        {"kernel k(out float y[]) group(1) grid(1u", " + 1u", ") { }", "too long", 100},
        {"kernel k(out float y[]) group(1) grid(1u", " + (1u", ") { }", "too deeply", 100},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t part = strlen(cases[i].part), length = strlen(cases[i].head);
        char *text = allocate(length + part * cases[i].times + strlen(cases[i].tail) + 1);
        strcpy(text, cases[i].head);
        for (size_t j = 0; j < cases[i].times; j++, length += part)
            memcpy(text + length, cases[i].part, part);
        strcpy(text + length, cases[i].tail);
        kc_error error = {""};
        kc_unit *unit = parse_text(text, &error);
        check(!unit == !!cases[i].want, "case %zu: '%s'", i, error.text);
        check(unit || strstr(error.text, cases[i].want), "case %zu: '%s'", i, error.text);
        kc_free(unit);
        free(text);
    }
}

// ---- Broken sources --------------------------------------------------------------------------

static size_t pick_below(uint64_t *state, size_t count) {
    return (size_t)test_random(state, 0, (double)count) % (count ? count : 1);
}

// Flips, deletes, repeats or exchanges pieces of `length` bytes; gives the new length, at most 2
// length.
static size_t mutate(uint64_t *state, char *text, size_t length) {
    size_t at = pick_below(state, length), count = 1 + pick_below(state, 12);
    size_t other = pick_below(state, length);
    if (at + count > length || other + count > length) return length;
    switch (pick_below(state, 5)) {
    case 0: text[at] = (char)(' ' + pick_below(state, 95)); return length;
    case 1: text[at] ^= (char)(1 << pick_below(state, 8)); return length;
    case 2: memmove(text + at, text + at + count, length - at - count); return length - count;
    case 3: memmove(text + at, text + other, count); return length;
    default:
        memmove(text + at + count, text + at, length - at);
        memmove(text + at, text + other, count);
        return length + count;
    }
}

static void try_broken(kc_source *sources, int count) {
    kc_error error = {""};
    kc_unit *unit = kc_parse(sources, count, &error);
    if (!unit) {
        check(strstr(error.text, ".k:") && strstr(error.text, ": error: "), "'%s'", error.text);
        return;
    }
    for (int lang = 0, kernel = kc_kernel_count(unit) - 1; lang < KC_LANG_COUNT && kernel >= 0;
         lang++) {
        char *text = kc_emit(unit, kernel, (kc_lang)lang);
        check(text && strlen(text) > 100, "nothing is emitted");
        free(text);
    }
    kc_free(unit);
}

static void break_file(kc_source *sources, int count, int which, int times) {
    kc_source whole = sources[which];
    uint64_t random = (uint64_t)which * 7919 + 1;
    char *text = allocate(whole.length + 200);
    for (int i = 0; i < times; i++) {
        size_t length = whole.length;
        memcpy(text, whole.text, length);
        for (size_t j = pick_below(&random, 4) + 1; j-- > 0;)
            length = mutate(&random, text, length);
        // A private copy lets a sanitizer see a read behind the end.
        char *exact = allocate(length ? length : 1);
        memcpy(exact, text, length);
        sources[which].text = exact;
        sources[which].length = length;
        try_broken(sources, count);
        free(exact);
    }
    free(text);
    sources[which] = whole;
}

static void test_broken(void **state) {
    (void)state;
    static const char *const paths[] = {"kernels/math.k", "kernels/map.k", "kernels/softmax.k",
                                        "tests/kc/features.k", "tests/kc/parts.k"};
    kc_source sources[5];
    int times = quick() ? 200 : 1500;
    for (int i = 0; i < 5; i++) sources[i] = load(paths[i]);
    for (int i = 0; i < 3; i++) break_file(sources, 3, i, times / 2);
    break_file(sources + 3, 2, 0, times * 3);
    break_file(sources + 3, 2, 1, times);
    for (int i = 0; i < 5; i++) free((char *)sources[i].text);
}

// All kernels together, in every language.
static void test_kernels(void **state) {
    (void)state;
    glob_t found;
    kc_source sources[64];
    kc_error error = {""};
    check(!glob("kernels/*.k", 0, NULL, &found) && found.gl_pathc <= 64, "no kernels");
    for (size_t i = 0; i < found.gl_pathc; i++) sources[i] = load(found.gl_pathv[i]);
    kc_unit *unit = kc_parse(sources, (int)found.gl_pathc, &error);
    check(unit, "%s", error.text);
    check(kc_kernel_count(unit) > 20, "%d kernels", kc_kernel_count(unit));
    for (int i = 0; i < kc_kernel_count(unit); i++) {
        for (int lang = 0; lang < KC_LANG_COUNT; lang++) {
            char *text = kc_emit(unit, i, (kc_lang)lang);
            check(text && strstr(text, kc_kernel_at(unit, i)->name), "%s is not there",
                  kc_kernel_at(unit, i)->name);
            free(text);
        }
    }
    kc_free(unit);
    for (size_t i = 0; i < found.gl_pathc; i++) free((char *)sources[i].text);
    globfree(&found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),   cmocka_unit_test(test_c_side),
        cmocka_unit_test(test_rules),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_accepted), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_kernels),  cmocka_unit_test(test_broken)};
    return cmocka_run_group_tests_name("kc", tests, NULL, NULL);
}
