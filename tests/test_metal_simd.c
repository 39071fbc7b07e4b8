// The simulated Metal (sim/metal) as kernels see it: pointers of each address space, SIMD-groups
// and their matrices, and that what these must not do is found.
#include "metal_messages.h"
#include "support.h"

#include <math.h>

#include "base/threads.h"

#define BEGIN "#include <metal_stdlib>\nusing namespace metal;\n"

static void *pool;
static id device, queue;

static int before_each(void **state) {
    (void)state;
    reset();
    pool = pool_push();
    device = create_device();
    queue = get(device, "newCommandQueue");
    return 0;
}

static int after_each(void **state) {
    (void)state;
    tell(queue, "release");
    tell(device, "release");
    pool_pop(pool);
    return metal_nothing_left();
}

static id buffer_with(const float *values, int count) {
    id buffer = buffer_of(device, (ulong)count * sizeof(float));
    if (values) memcpy(floats(buffer), values, (size_t)count * sizeof(float));
    return buffer;
}

// Runs the kernel `k` of the text once on these buffers; false: its command buffer failed.
static bool run_k(const char *text, ulong groups, ulong threads, const id *buffers, int count) {
    id error = NULL, library = library_of(device, text, &error);
    check(library, "the library fails: %s", said(error));
    id function = function_of(library, "k"), pipeline = pipeline_of(device, function, NULL);
    id command = get(queue, "commandBuffer"), encoder = get(command, "computeCommandEncoder");
    set_pipeline(encoder, pipeline);
    for (int i = 0; i < count; i++) set_buffer(encoder, buffers[i], 0, (ulong)i);
    dispatch(encoder, groups, threads);
    tell(encoder, "endEncoding");
    tell(command, "commit");
    tell(command, "waitUntilCompleted");
    id all[] = {pipeline, function, library};
    for (int i = 0; i < 3; i++) tell(all[i], "release");
    return number(command, "status") == 4;
}

// One buffer of `count` floats, 0 at first, that `k` has as buffer 0.
static id run_on(const char *text, ulong threads, int count) {
    id y = buffer_with(NULL, count);
    check(run_k(text, 1, threads, &y, 1), "it fails: %s", findings());
    nothing_found();
    return y;
}

// What a group of `threads` does to a buffer of 64 floats is found, and fails.
static void expect_found(const char *text, ulong threads, const char *part) {
    id y = buffer_with(NULL, 64);
    check(!run_k(text, 1, threads, &y, 1), "nothing fails where this should be: %s", part);
    tell(y, "release");
    found(part);
}

// ---- Pointers ---------------------------------------------------------------------------------

#define POINTERS                                                                                  \
    BEGIN                                                                                         \
    "constant float table[] = {1.0f, 2.0f,\n    4.0f};\n"                                         \
    "/* a kernel of a device in a threadgroup */\n"                                               \
    "static float first(threadgroup const float *p, constant float *q) { return p[0] + q[1]; }\n" \
    "static void put(device float *to, uint at, float value) { to[at] = value; }\n"               \
    "static void add(thread float &sum, thread const float (&own)[2]) { sum += own[0] + own[1]; " \
    "}\n"                                                                                         \
    "kernel void other(device float *y [[buffer(0)]]) {\n"                                        \
    "    threadgroup float much[5000];\n    much[0] = y[0];\n}\n"                                 \
    "kernel void k(device float *y [[buffer(0)]],\n"                                              \
    "    uint lid [[thread_index_in_threadgroup]]) { // line 14\n"                                \
    "    threadgroup float tile[8];\n"                                                            \
    "    threadgroup float (&whole)[8] = tile;\n"                                                 \
    "    threadgroup float *half = tile + 4;\n"                                                   \
    "    device float *p = y + 4u;\n"                                                             \
    "    const device float *q = p - 4;\n"                                                        \
    "    float own[2] = {0.5f, 0.25f}, sum = 0.0f;\n"                                             \
    "    whole[lid] = q[lid] + table[lid % 3u];\n"                                                \
    "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"                                      \
    "    add(sum, own);\n"                                                                        \
    "    p += 4;\n"

static void test_pointers(void **state) {
    (void)state;
    id y = run_on(POINTERS "    put(p, lid, first(half, table) + tile[lid] + sum);\n}\n", 8, 16);
    for (int i = 0; i < 8; i++) {
        static const float table[] = {1, 2, 4};
        float want = table[1] + 2 + table[i % 3] + 0.75f; // tile[4] is table[1]
        check(floats(y)[8 + i] == want, "element %d is %g, not %g", 8 + i, (double)floats(y)[8 + i],
              (double)want);
    }
    tell(y, "release");
}

static void test_pointers_outside(void **state) {
    (void)state;
    expect_found(POINTERS "    put(p, 56u, 0.0f);\n}\n", 8,
                 "thread 0: element 64 of \"y\", buffer 0, which has 64, is touched");
    expect_found(POINTERS "    y[0] = (p - 9)[0];\n}\n", 8, "element -1 of \"y\", buffer 0");
    expect_found(POINTERS "    constant float *t = table;\n    y[0] = first(tile, t + 2u);\n}\n", 8,
                 "element 3 of an array of the program, which has 3, is touched");
    expect_found(POINTERS "    whole[lid + 1u] = 0.0f;\n}\n", 8,
                 "program_source:25: kernel k, group (0,0,0), thread 7: index 8 is outside");
}

// Each kernel of a library has the threadgroup memory that it declares.
static void test_shared_of_kernel(void **state) {
    (void)state;
    id library = library_of(device, POINTERS "}\n", NULL);
    static const struct {
        const char *name;
        ulong bytes;
    } kernels[] = {{"k", 32}, {"other", 20000}};
    for (int i = 0; i < 2; i++) {
        id function = function_of(library, kernels[i].name);
        id pipeline = pipeline_of(device, function, NULL);
        ulong bytes = number(pipeline, "staticThreadgroupMemoryLength");
        check(bytes == kernels[i].bytes, "%s has %lu bytes", kernels[i].name, bytes);
        tell(pipeline, "release");
        tell(function, "release");
    }
    tell(library, "release");
}

// ---- SIMD-groups ------------------------------------------------------------------------------

#define KERNEL                                                                                 \
    BEGIN                                                                                      \
    "kernel void k(device float *y [[buffer(0)]],\n"                                           \
    "    uint lid [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],\n" \
    "    uint simd [[simdgroup_index_in_threadgroup]]) { // line 5\n"                          \
    "    threadgroup float tile[64];\n"                                                        \
    "    simdgroup_float8x8 m;\n"

static void test_simd_functions(void **state) {
    (void)state;
    id y = run_on(KERNEL "    float a = simd_sum(float(lid)), b = simd_max(-float(lid));\n"
                         "    uint c = simd_shuffle_xor(lid, 5), d = simd_broadcast(lid, 3);\n"
                         "    simdgroup_barrier(mem_flags::mem_none);\n"
                         "    int e = simd_sum(int(lane) - 16);\n"
                         "    y[lid * 5u] = a;\n    y[lid * 5u + 1u] = b;\n"
                         "    y[lid * 5u + 2u] = float(c);\n    y[lid * 5u + 3u] = float(d);\n"
                         "    y[lid * 5u + 4u] = float(e);\n}\n",
                  72, 72 * 5); // two SIMD-groups, and 8 threads of a third
    for (int i = 0; i < 72; i++) {
        int first = i / 32 * 32, lanes = first == 64 ? 8 : 32, sum = 0;
        for (int j = 0; j < lanes; j++) sum += first + j;
        float want[] = {(float)sum, -(float)first, (float)(i ^ 5), (float)(first + 3),
                        (float)(sum - lanes * (first + 16))};
        for (int j = 0; j < 5; j++)
            check(floats(y)[i * 5 + j] == want[j], "thread %d, value %d is %g, not %g", i, j,
                  (double)floats(y)[i * 5 + j], (double)want[j]);
    }
    tell(y, "release");
}

static void test_simd_apart(void **state) {
    (void)state;
    expect_found(KERNEL "    if (lid != 35u) {\n        y[0] = simd_sum(1.0f);\n    }\n}\n", 64,
                 "program_source:9: kernel k, group (0,0,0), thread 32: is in simd_sum that thread "
                 "35 ended without");
    expect_found(KERNEL "    if (lid != 0u) { y[0] = simd_max(1.0f); }\n"
                        "    threadgroup_barrier(mem_flags::mem_threadgroup);\n}\n",
                 64, "thread 1: is in simd_max while thread 0 waits at a barrier, line 9");
    expect_found(KERNEL "    if (lid < 8u) {\n        y[0] = simd_sum(1.0f);\n    } else {\n"
                        "        simdgroup_barrier(mem_flags::mem_none);\n    }\n}\n",
                 64,
                 ":9: kernel k, group (0,0,0), thread 0: is in simd_sum while thread 8 is in "
                 "simdgroup_barrier, line 11");
    // Which SIMD-group does what is free.
    tell(run_on(KERNEL "    if (simd == 1u) { y[lid] = simd_sum(1.0f); }\n}\n", 64, 64), "release");
}

static void test_simd_misuse(void **state) {
    (void)state;
    expect_found(KERNEL "    y[0] = simd_broadcast(1.0f, lid);\n}\n", 32,
                 "thread 1: asks in simd_broadcast for a thread that is not there, or for another");
    expect_found(KERNEL "    y[0] = simd_shuffle_xor(1.0f, 32);\n}\n", 32,
                 "thread 0: asks in simd_shuffle_xor for a thread that is not there");
}

// ---- Matrices ---------------------------------------------------------------------------------

// Loads and stores in every way that there is, with a row and a column more or less.
static void test_matrices(void **state) {
    (void)state;
    static const char text[] =
        KERNEL "    for (uint i = lid; i < 64u; i += 32u) { tile[i] = float(i); }\n"
               "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
               "    threadgroup float *p = tile;\n"
               "    simdgroup_load(m, p);\n"
               "    simdgroup_store(m, y, 9);\n"
               "    simdgroup_load(m, p, 8, 0, true);\n"
               "    simdgroup_store(m, y + 100u, 8ul, ulong2(0, 1), false);\n"
               "    simdgroup_matrix<float, 8, 8> n;\n"
               "    const device float *from = y;\n"
               "    simdgroup_barrier(mem_flags::mem_device);\n"
               "    simdgroup_load(n, from, 9u, ulong2(0));\n"
               "    simdgroup_store(n, tile, 8, ulong2(0, 0), true);\n"
               "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
               "    y[200u + lid] = tile[lid];\n}\n";
    id y = run_on(text, 32, 300);
    for (int i = 0; i < 64; i++) {
        float plain = (float)i, other = (float)(i % 8 * 8 + i / 8);
        check(floats(y)[i / 8 * 9 + i % 8] == plain, "stored %d", i);
        check(floats(y)[108 + i] == other, "transposed %d: %g", i, (double)floats(y)[108 + i]);
        if (i < 32) check(floats(y)[200 + i] == other, "there and back %d", i);
    }
    tell(y, "release");
}

// d = a b and d = a b + c, where d is one of them as well.
static void test_multiply(void **state) {
    (void)state;
    static const char text[] =
        KERNEL "    simdgroup_float8x8 a, b, d;\n"
               "    simdgroup_load(a, y, 8);\n    simdgroup_load(b, y + 64, 8);\n"
               "    simdgroup_multiply(d, a, b);\n"
               "    simdgroup_store(d, y + 128, 8);\n"
               "    d = make_filled_simdgroup_matrix<float, 8, 8>(0.5f);\n"
               "    for (uint i = 0u; i < 3u; i++) { simdgroup_multiply_accumulate(d, a, b, d); }\n"
               "    simdgroup_multiply(a, a, b);\n"
               "    simdgroup_store(d, y + 192, 8);\n    simdgroup_store(a, y + 256, 8);\n"
               "    simdgroup_store(m, y + 320, 8);\n}\n";
    float values[128];
    for (int i = 0; i < 128; i++) values[i] = (float)((i * 37 + 11) % 19 - 9) / 4;
    id y = buffer_with(NULL, 384);
    memcpy(floats(y), values, sizeof values);
    check(run_k(text, 1, 32, &y, 1), "it fails: %s", findings());
    for (int i = 0; i < 64; i++) {
        float sum = 0;
        for (int k = 0; k < 8; k++) sum += values[i / 8 * 8 + k] * values[64 + k * 8 + i % 8];
        check(floats(y)[128 + i] == sum && floats(y)[256 + i] == sum, "element %d is %g, not %g", i,
              (double)floats(y)[128 + i], (double)sum);
        check(floats(y)[192 + i] == 3 * sum + 0.5f, "accumulated %d is %g", i,
              (double)floats(y)[192 + i]);
        check(isnan(floats(y)[320 + i]), "a matrix without a value has %g",
              (double)floats(y)[320 + i]);
    }
    tell(y, "release");
}

static void test_matrix_misuse(void **state) {
    (void)state;
    expect_found(KERNEL "    simdgroup_load(m, y + 1u, 8);\n}\n", 32,
                 "thread 31: element 64 of \"y\", buffer 0, which has 64, is touched");
    expect_found(KERNEL "    simdgroup_load(m, tile, 9);\n}\n", 32,
                 "program_source:8: kernel k, group (0,0,0), thread 28: reaches with a SIMD-group "
                 "matrix outside of threadgroup memory");
    expect_found(KERNEL "    simdgroup_store(m, tile + 1, 8);\n}\n", 32,
                 "reaches with a SIMD-group matrix outside of threadgroup memory");
    expect_found(KERNEL "    simdgroup_load(m, y, 8, ulong2(0, 1), true);\n}\n", 32,
                 "transposes a matrix with an origin");
    expect_found(KERNEL "    simdgroup_load(m, tile);\n}\n", 40,
                 "thread 32: calls simdgroup_load in a SIMD-group of 8 threads, not 32");
    expect_found(KERNEL "    if (lid < 16u) { simdgroup_multiply(m, m, m); }\n}\n", 32,
                 "thread 0: is in simdgroup_multiply that thread 16 ended without");
    expect_found(KERNEL "    if (lid < 16u) { simdgroup_load(m, tile); }\n"
                        "    simdgroup_multiply(m, m, m);\n}\n",
                 32,
                 ":9: kernel k, group (0,0,0), thread 0: is in simdgroup_multiply after other "
                 "SIMD-group operations than thread 16");
    expect_found(KERNEL "    if (lid > 3u) { simdgroup_store(m, tile); }\n}\n", 32,
                 "took part in other SIMD-group operations than the others");
}

// ---- A product --------------------------------------------------------------------------------

enum { ROWS = 64, COLUMNS = 64, INNER = 784 };

// A group of four SIMD-groups, each of which has a quarter of 64 x 64; `guard` is the barrier
// without which tiles are overwritten while others read them.
#define PRODUCT(guard)                                                                             \
    BEGIN                                                                                          \
    "constant uint INNER = 784u;\n"                                                                \
    "kernel void k(device const float *a [[buffer(0)]], device const float *b [[buffer(1)]],\n"    \
    "    device float *y [[buffer(2)]], uint lid [[thread_index_in_threadgroup]],\n"               \
    "    uint simd [[simdgroup_index_in_threadgroup]]) {\n"                                        \
    "    threadgroup float ta[64 * 16];\n    threadgroup float tb[16 * 64];\n"                     \
    "    simdgroup_float8x8 acc[4][4], ma[4], mb[4];\n"                                            \
    "    uint row = simd / 2u * 32u, column = simd % 2u * 32u;\n"                                  \
    "    for (uint i = 0u; i < 4u; i++) { for (uint j = 0u; j < 4u; j++) {\n"                      \
    "        acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f); } }\n"                   \
    "    for (uint k0 = 0u; k0 < INNER; k0 += 16u) {\n"                                            \
    "        for (uint i = lid; i < 64u * 16u; i += 128u) {\n"                                     \
    "            ta[i] = a[(i / 16u) * INNER + k0 + i % 16u];\n"                                   \
    "            tb[i] = b[(k0 + i / 64u) * 64u + i % 64u];\n        }\n"                          \
    "        threadgroup_barrier(mem_flags::mem_threadgroup);\n"                                   \
    "        for (uint kk = 0u; kk < 16u; kk += 8u) {\n"                                           \
    "            for (uint i = 0u; i < 4u; i++) {\n"                                               \
    "                simdgroup_load(ma[i], ta + (row + i * 8u) * 16u + kk, 16);\n"                 \
    "                simdgroup_load(mb[i], tb + kk * 64u + column + i * 8u, 64);\n            }\n" \
    "            for (uint i = 0u; i < 4u; i++) { for (uint j = 0u; j < 4u; j++) {\n"              \
    "                simdgroup_multiply_accumulate(acc[i][j], ma[i], mb[j], acc[i][j]); } }\n"     \
    "        }\n        " guard ";\n    }\n"                                                       \
    "    for (uint i = 0u; i < 4u; i++) { for (uint j = 0u; j < 4u; j++) {\n"                      \
    "        simdgroup_store(acc[i][j], y + (row + i * 8u) * 64u + column + j * 8u, 64); } }\n"    \
    "}\n"

static double worst_error(const float *a, const float *b, const float *y) {
    double worst = 0;
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) {
            double sum = 0;
            for (int k = 0; k < INNER; k++)
                sum += (double)a[i * INNER + k] * (double)b[k * COLUMNS + j];
            worst = fmax(worst, fabs(sum - (double)y[i * COLUMNS + j]));
        }
    return worst;
}

static void test_product(void **state) {
    (void)state;
    id buffers[] = {buffer_with(NULL, ROWS * INNER), buffer_with(NULL, INNER * COLUMNS),
                    buffer_with(NULL, ROWS * COLUMNS)};
    for (int i = 0; i < ROWS * INNER; i++) {
        floats(buffers[0])[i] = (float)((i * 7919) % 2001 - 1000) / 1000;
        floats(buffers[1])[i] = (float)((i * 10473) % 1999 - 999) / 1000;
    }
    static const char text[] = PRODUCT("threadgroup_barrier(mem_flags::mem_threadgroup)");
    tell(library_of(device, text, NULL), "release"); // compiled, so that the next one is quick
    double begin = bt_seconds();
    check(run_k(text, 1, 128, buffers, 3), "it fails: %s", findings());
    double seconds = bt_seconds() - begin;
    double error = worst_error(floats(buffers[0]), floats(buffers[1]), floats(buffers[2]));
    print_message("64 x 64 x 784 in %.3f s, error %.2g\n", seconds, error);
    check(error < 1e-3, "the error is %g", error);
    check(seconds < 2, "it takes %.1f s", seconds);
    nothing_found();
    (void)run_k(PRODUCT(""), 1, 128, buffers, 3);
    error = worst_error(floats(buffers[0]), floats(buffers[1]), floats(buffers[2]));
    check(!(error < 1e-3), "a barrier is missing, and the result is right");
    for (int i = 0; i < 3; i++) tell(buffers[i], "release");
}

// ---- Families ---------------------------------------------------------------------------------

static bool supports(long family) {
    return ((signed char (*)(id, SEL, long))message)(device, selector("supportsFamily:"), family);
}

static void test_families(void **state) {
    (void)state;
    static const char matrix[] = KERNEL "    simdgroup_store(m, y);\n}\n";
    static const char sum[] =
        BEGIN "kernel void k(device float *y [[buffer(0)]]) { y[0] = simd_sum(y[0]); }\n";
    static const char shuffle[] = BEGIN "// not simd_sum, nor simdgroup_matrix\n"
                                        "kernel void k(device float *y [[buffer(0)]]) {\n"
                                        "    y[0] = simd_shuffle_xor(y[0], 1); }\n";
    const char *const texts[] = {matrix, sum, shuffle};
    check(supports(1007) && !supports(1008) && supports(5001), "it is no Apple7");
    for (int family = 5; family <= 8; family++) {
        wish_for(&(metal_sim_wish){.family = family});
        check(supports(1000 + family) && !supports(1001 + family), "it is no Apple%d", family);
        check(supports(5001) == (family >= 7), "Apple%d and Metal 3", family);
        for (int i = 0; i < 3; i++) {
            id error = NULL, library = library_of(device, texts[i], &error);
            check(!library == (family < (i == 2 ? 6 : 7)), "Apple%d and text %d", family, i);
            if (!library)
                check(strstr(said(error), "is not available on Apple"), "it says: %s", said(error));
            tell(library, "release");
        }
    }
    nothing_found();
}

// The C++ that becomes of the MSL in a file, for test_languages: `--text FILE`.
static int print_text(const char *path) {
    void *unused = NULL;
    void (*put)(FILE *, const char *);
    static char text[1 << 20];
    FILE *in = fopen(path, "r");
    if (!in || metal_start_messages(&unused)) return 1;
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    fclose(in);
    metal_find("metal_text_put", &put);
    put(stdout, text);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "--text")) return print_text(argv[2]);
#define TEST(f) cmocka_unit_test_setup_teardown(f, before_each, after_each)
    const struct CMUnitTest kernels[] = {
        TEST(test_pointers),       TEST(test_pointers_outside), TEST(test_shared_of_kernel),
        TEST(test_simd_functions), TEST(test_simd_apart),       TEST(test_simd_misuse),
        TEST(test_matrices),       TEST(test_multiply),         TEST(test_matrix_misuse),
        TEST(test_product),        TEST(test_families),
    };
    return cmocka_run_group_tests(kernels, metal_start_messages, NULL);
}
