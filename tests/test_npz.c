// NumPy's .npz: round trips, zips and arrays made to attack a reader, mutated files that must be
// refused or read, never worse; and what an import says does not match. (That NumPy reads what is
// written here, and the other way round, is in test_export.)
#include "data/npz.h"
#include "support.h"

#include <unistd.h>

static const char *path(void) {
    return in_scratch("t.npz");
}

// ---- Zips by hand ------------------------------------------------------------------------------

// An entry, and where it lies: what is 0 is as it has to be.
typedef struct part {
    const char *name, *local_name, *header, *data;
    size_t count, more; // bytes of data; bytes that a packed size claims beyond them
    int flags, method, local_method;
    uint32_t crc, unpacked, local; // 1 more than the wrong value
    const char *between;           // bytes behind the entry
} part;

typedef struct bytes {
    uint8_t data[1 << 16];
    size_t size;
} bytes;

static void put(bytes *b, const void *data, size_t size) {
    check(b->size + size <= sizeof b->data, "a zip of the tests is too large");
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_number(bytes *b, uint64_t value, int size) {
    uint8_t little[8];
    for (int i = 0; i < size; i++) little[i] = (uint8_t)(value >> 8 * i);
    put(b, little, (size_t)size);
}

// The .npy of a part, deflated by method 8.
static void make_array(const part *p, bytes *plain, bytes *packed) {
    plain->size = packed->size = 0;
    put(plain, "\x93NUMPY\1\0", 8);
    put_number(plain, strlen(p->header), 2);
    put(plain, p->header, strlen(p->header));
    put(plain, p->data, p->count);
    z_stream z = {.next_in = plain->data, .avail_in = (uInt)plain->size};
    z.next_out = packed->data;
    z.avail_out = sizeof packed->data;
    if (p->method == 8) {
        deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
        deflate(&z, Z_FINISH);
        packed->size = z.total_out;
        deflateEnd(&z);
    } else {
        put(packed, plain->data, plain->size);
    }
}

static void put_common(bytes *zip, const part *p, int method, const bytes *plain,
                       const bytes *packed, const char *name) {
    put_number(zip, 20, 2);
    put_number(zip, (uint64_t)p->flags, 2);
    put_number(zip, (uint64_t)method, 2);
    put_number(zip, 0, 4);
    put_number(zip, p->crc ? p->crc - 1 : crc32(0, plain->data, (uInt)plain->size), 4);
    put_number(zip, packed->size + p->more, 4);
    put_number(zip, p->unpacked ? p->unpacked - 1 : plain->size, 4);
    put_number(zip, strlen(name), 2);
    put_number(zip, 0, 2);
}

static void write_zip(const part *parts, int count) {
    static bytes zip, directory, plain, packed;
    zip.size = directory.size = 0;
    for (int i = 0; i < count; i++) {
        const part *p = &parts[i];
        size_t at = p->local ? p->local - 1 : zip.size;
        make_array(p, &plain, &packed);
        put(&zip, "PK\3\4", 4);
        const char *local_name = p->local_name ? p->local_name : p->name;
        put_common(&zip, p, p->local_method ? p->local_method - 1 : p->method, &plain, &packed,
                   local_name);
        put(&zip, local_name, strlen(local_name));
        put(&zip, packed.data, packed.size);
        if (p->between) put(&zip, p->between, strlen(p->between));
        put(&directory, "PK\1\2\24\0", 6);
        put_common(&directory, p, p->method, &plain, &packed, p->name);
        put_number(&directory, 0, 8);
        put_number(&directory, 0, 2);
        put_number(&directory, at, 4);
        put(&directory, p->name, strlen(p->name));
    }
    size_t begin = zip.size;
    put(&zip, directory.data, directory.size);
    put(&zip, "PK\5\6\0\0\0\0", 8);
    put_number(&zip, (uint64_t)count, 2);
    put_number(&zip, (uint64_t)count, 2);
    put_number(&zip, directory.size, 4);
    put_number(&zip, begin, 4);
    put_number(&zip, 0, 2);
    write_file(path(), zip.data, zip.size);
}

static bt_status open_file(bt_error *err) {
    bt_st_file file = {0};
    bt_error_clear(err);
    bt_status status = bt_npz_open(path(), err, &file);
    bt_st_close(&file);
    return status;
}

static void accept(const part *parts, int count) {
    bt_error err = {0};
    write_zip(parts, count);
    check(open_file(&err) == BT_OK, "%s is refused: %s", parts->header, err.text);
}

// The file must be refused as data, with a sentence that names it and has `why` in it.
static void refuse(const part *parts, int count, const char *why) {
    bt_error err = {0};
    write_zip(parts, count);
    bt_status status = open_file(&err);
    check(status == BT_ERROR_DATA, "%s %s gives %s", parts->name, parts->header,
          bt_status_name(status));
    check(strstr(err.text, "t.npz") && strstr(err.text, why), "%s %s: says only \"%s\", not \"%s\"",
          parts->name, parts->header, err.text, why);
}

#define HEADER(type, fortran, shape) \
    "{'descr': '" type "', 'fortran_order': " fortran ", 'shape': " shape ", }\n"
#define TWO   HEADER("<f4", "False", "(2,)")
#define EIGHT "\0\0\x80?\0\0\0@" // 1 and 2

static part two(const char *name) {
    return (part){.name = name, .header = TWO, .data = EIGHT, .count = 8};
}

// ---- Zips --------------------------------------------------------------------------------------

static void test_zips(void **state) {
    (void)state;
    part p[2] = {two("a.npy"), two("b.npy")};
    accept(p, 0);
    accept(p, 2);
    p[1].method = 8;
    accept(p, 2);
    p[1].name = "a.npy";
    refuse(p, 2, "two entries are named a");
    static const struct {
        const char *name, *why;
    } names[] = {{"a/b.npy", "slashes"},  {"../a.npy", "slashes"}, {"\\a.npy", "0x5c"},
                 {"a\033.npy", "0x1b"},   {"a.txt", "NAME.npy"},   {".npy", "NAME.npy"},
                 {"a.npy.gz", "NAME.npy"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        p[0] = two(names[i].name);
        refuse(p, 1, names[i].why);
    }
    p[0] = two("a.npy"), p[0].flags = 1;
    refuse(p, 1, "encrypted");
    p[0] = two("a.npy"), p[0].method = 12;
    refuse(p, 1, "method 12");
    p[0] = two("a.npy"), p[0].crc = 0x12345;
    refuse(p, 1, "00012344");
    p[0] = two("a.npy"), p[0].local_name = "b.npy";
    refuse(p, 1, "differ between directory and entry");
    p[0] = two("a.npy"), p[0].local_method = 9;
    refuse(p, 1, "differ between directory and entry");
    p[0] = two("a.npy"), p[0].between = "hidden";
    refuse(p, 1, "bytes between");
    p[0] = two("archive/data.pkl"), p[0].between = NULL;
    refuse(p, 1, "torch.save");
}

// Sizes and places that lie: nothing outside of the file is read, nothing is unpacked beyond
// reason.
static void test_sizes(void **state) {
    (void)state;
    part p[2] = {two("a.npy"), two("b.npy")};
    p[1].local = 1; // both in the same place, under two names
    p[1].local_name = "a.npy";
    refuse(p, 2, "differ between directory and entry");
    p[1] = two("b.npy"), p[1].local = 0xffffffff;
    refuse(p, 2, "no entry at");
    p[1] = two("b.npy"), p[0].more = 20;
    refuse(p, 2, "overlap");
    p[0].more = 100000;
    refuse(p, 2, "reaches beyond the entries");
    p[0].more = 0;
    p[0].unpacked = 0xfffffff;
    refuse(p, 1, "cannot unpack");
    static char zeros[40000];
    static const char *const shape = HEADER("<f4", "False", "(10000,)");
    p[0] = (part){.name = "a.npy", .header = shape, .data = zeros, .count = 40000, .method = 8};
    accept(p, 1);
    p[0].unpacked = 40000;
    refuse(p, 1, "promises others");
    p[0].unpacked = 0xffffffff; // zip64, or a bomb
    refuse(p, 1, "cannot unpack");
    p[0].header = HEADER("<f4", "False", "(20000,)");
    p[0].unpacked = 80000;
    refuse(p, 1, "promises others");
}

// An honest one: every size is right, and no stream packs better.
static void test_bomb(void **state) {
    (void)state;
    bt_error err = {0};
    size_t size = (size_t)150 << 20; // in 150 KB
    uint8_t *wide = allocate(size), *packed = allocate(1 << 20);
    int n = snprintf((char *)wide, 200, "%-117s\n",
                     "{'descr': '|u1', 'fortran_order': False, 'shape': (157286272,), }");
    memmove(wide + 10, wide, (size_t)n);
    memcpy(wide, "\x93NUMPY\1\0\x76\0", 10);
    z_stream z = {
        .next_in = wide, .avail_in = (uInt)size, .next_out = packed, .avail_out = 1 << 20};
    deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
    check(deflate(&z, Z_FINISH) == Z_STREAM_END, "the bomb needs %lu bytes", z.total_out);
    deflateEnd(&z);
    uint8_t zip[35] = "PK\3\4\24\0\0\0\10\0\0\0\0\0";
    uint8_t directory[73] = "PK\1\2\24\0\24\0\0\0\10\0\0\0\0\0";
    uint32_t crc = (uint32_t)crc32(crc32(0, NULL, 0), wide, (uInt)size);
    uint32_t numbers[] = {crc, (uint32_t)z.total_out, (uint32_t)size, 5};
    memcpy(zip + 14, numbers, 14), memcpy(zip + 30, "a.npy", 5);
    memcpy(directory + 16, numbers, 14), memcpy(directory + 46, "a.npy", 5);
    uint32_t end[] = {51, 35 + (uint32_t)z.total_out};
    memcpy(directory + 51, "PK\5\6\0\0\0\0\1\0\1\0", 12), memcpy(directory + 63, end, 8);
    memmove(packed + 35, packed, z.total_out), memcpy(packed, zip, 35);
    memcpy(packed + 35 + z.total_out, directory, 73);
    write_file(path(), packed, 35 + z.total_out + 73);
    check(open_file(&err) == BT_ERROR_DATA && strstr(err.text, "would unpack"), "the bomb: %s",
          err.text);
    free(wide), free(packed);
}

static void test_truncated(void **state) {
    (void)state;
    const part p[2] = {two("a.npy"), two("b.npy")};
    size_t size;
    bt_error err = {0};
    write_zip(p, 2);
    uint8_t *whole = read_file(path(), &size);
    for (size_t n = 0; n < size; n++) {
        unlink(path());
        write_file(path(), whole, n);
        check(open_file(&err) == BT_ERROR_DATA, "%zu of %zu bytes: %s", n, size, err.text);
    }
    free(whole);
}

// ---- Arrays ------------------------------------------------------------------------------------

static void test_headers(void **state) {
    (void)state;
    static const char *const good[] = {
        TWO,
        "{'descr':'<f4','fortran_order':True,'shape':(1,2)}\n",
        "{ 'shape' : (2, 1,), 'fortran_order' : False, 'descr' : '<f4', }     \n",
        HEADER("<f8", "False", "()"),
        HEADER("<f2", "False", "(2, 2)"),
        HEADER("<i4", "True", "(2, 1)"),
        HEADER("|u1", "False", "(2, 2, 2)")};
    static const struct {
        const char *header, *why;
    } bad[] = {
        {HEADER("|O", "False", "(1,)"), "pickle"},
        {HEADER(">f4", "False", "(2,)"), "'>f4'"},
        {HEADER("<i8", "False", "(1,)"), "'<i8'"},
        {HEADER("<f4\"\\x00", "False", "(2,)"), "of type"},
        {HEADER("<f4", "False", "(3,)"), "promises others"},
        {HEADER("<f4", "False", "(1,)"), "promises others"},
        {HEADER("<f4", "False", "(4294967296, 4294967296, 4294967296)"), "promises others"},
        {HEADER("<f4", "False", "(18446744073709551618,)"), "is not {"},
        {HEADER("<f4", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 2)"), "is not {"},
        {HEADER("<f4", "False", "(2)"), "is not {"},
        {HEADER("<f4", "False", "(-2,)"), "is not {"},
        {HEADER("<f4", "False", "(2,,)"), "is not {"},
        {HEADER("<f4", "0", "(2,)"), "is not {"},
        {HEADER("<f4", "False", "(2,)") "x", "is not {"},
        {"{'descr': '<f4', 'fortran_order': False, }\n", "is not {"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", "is not {"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }\n", "is not {"},
        {"__import__('os').system('true')\n", "is not {"},
        {"", "is not {"}};
    part p = two("a.npy");
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        p.header = good[i];
        accept(&p, 1);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        p.header = bad[i].header;
        refuse(&p, 1, bad[i].why);
    }
}

static void test_round_trip(void **state) {
    (void)state;
    static const double wide[] = {1, -2.5, 1e300};
    static const float narrow[] = {0, -1, 2, 1e-40F, 4, 5};
    static const int32_t whole[] = {-7};
    static const uint8_t small[] = {0, 255, 7};
    const bt_st_tensor tensors[] = {
        {.name = "b", .dtype = BT_F32, .rank = 2, .dim = {2, 3}, .data = narrow, .bytes = 24},
        {.name = "a.weight", .dtype = BT_F64, .rank = 1, .dim = {3}, .data = wide, .bytes = 24},
        {.name = "scalar", .dtype = BT_I32, .rank = 0, .data = whole, .bytes = 4},
        {.name = "pixels", .dtype = BT_U8, .rank = 3, .dim = {1, 3, 1}, .data = small, .bytes = 3},
        {.name = "none", .dtype = BT_F32, .rank = 2, .dim = {0, 5}, .data = narrow, .bytes = 0}};
    bt_error err = {0};
    bt_st_file file = {0};
    check(bt_npz_write(path(), tensors, 5, &err) == BT_OK, "%s", err.text);
    check(bt_tensors_open(path(), &err, &file) == BT_OK, "%s", err.text);
    check(file.tensor_count == 5, "%d tensors", file.tensor_count);
    for (int i = 0; i < 5; i++) {
        const bt_st_tensor *want = &tensors[i], *t = bt_st_find(&file, want->name);
        check(t && t->dtype == want->dtype && t->rank == want->rank && t->bytes == want->bytes &&
                  !memcmp(t->dim, want->dim, sizeof t->dim) &&
                  !memcmp(t->data, want->data, t->bytes),
              "%s is another", want->name);
    }
    bt_st_close(&file);
    size_t n, m;
    uint8_t *first = read_file(path(), &n);
    check(bt_npz_write(path(), tensors, 5, &err) == BT_OK, "%s", err.text);
    uint8_t *second = read_file(path(), &m);
    check(n == m && !memcmp(first, second, n), "the same tensors give another file");
    free(first), free(second);
}

// Changes bits, bytes and lengths, mostly in what is not numbers.
static size_t mutate(uint8_t *data, size_t size, size_t room, uint64_t *random) {
    static const uint32_t values[] = {0, 1, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 8, 46};
    for (int changes = 1 + (int)test_random(random, 0, 4); changes-- && size > 64;) {
        size_t at = (size_t)test_random(random, 0, (double)(size - 8)), n;
        switch ((int)test_random(random, 0, 6)) {
        case 0: data[at] ^= (uint8_t)(1 << (int)test_random(random, 0, 8)); break;
        case 1: data[at] = (uint8_t)test_random(random, 0, 256); break;
        case 2: memcpy(data + at, &values[(int)test_random(random, 0, 8)], 4); break;
        case 3: memcpy(data + at, &values[(int)test_random(random, 0, 8)], 2); break;
        case 4: // take a piece out
            n = (size_t)test_random(random, 1, 30);
            if (at + n > size) break;
            memmove(data + at, data + at + n, size - at - n);
            size -= n;
            break;
        default: // a piece twice
            n = (size_t)test_random(random, 1, 60);
            if (at + n > size || size + n > room) break;
            memmove(data + at + n, data + at, size - at);
            size += n;
        }
    }
    return size;
}

static void test_mutations(void **state) {
    (void)state;
    part p[3] = {two("a.npy"), two("b.npy"), two("c.npy")};
    p[1].method = 8;
    p[2].header = HEADER("<f2", "True", "(2, 2)");
    write_zip(p, 3);
    size_t size, read = 0, total = quick() ? 4000 : 10000;
    uint8_t *good = read_file(path(), &size), *damaged = allocate(size + 1024);
    uint64_t random = 2024;
    bt_error err = {0};
    for (size_t i = 0; i < total; i++) {
        memcpy(damaged, good, size);
        unlink(path()); // a new file costs less than one written over
        write_file(path(), damaged, mutate(damaged, size, size + 1024, &random));
        bt_status status = open_file(&err);
        check(status == BT_OK || status == BT_ERROR_DATA, "mutation %zu gives %s: %s", i,
              bt_status_name(status), err.text);
        check(status == BT_OK || *err.text, "mutation %zu is refused without a word", i);
        read += status == BT_OK;
    }
    check(read < total / 5, "%zu of %zu damaged files are accepted", read, total);
    free(good), free(damaged);
}

// ---- Into a model ------------------------------------------------------------------------------

static bt_st_tensor tensor(const char *name, size_t rows, size_t columns) {
    static const float numbers[64];
    return (bt_st_tensor){.name = name,
                          .dtype = BT_F32,
                          .rank = columns ? 2 : 1,
                          .dim = {rows, columns},
                          .data = numbers,
                          .bytes = rows * (columns ? columns : 1) * 4};
}

// What does not match is listed, a line for each, by name where some names are known.
static void test_what_does_not_match(void **state) {
    (void)state;
    bt_context *ctx = open_cpu(1);
    bt_model *model;
    bt_model_desc desc = {
        .spec = "fc4,relu,fc3", .channels = 1, .height = 2, .width = 3, .classes = 3};
    ok(ctx, bt_model_make(ctx, &desc, &model));
    const struct {
        bt_st_tensor tensors[5];
        int count;
        const char *how; // NULL: it fits
        const char *lines;
    } files[] = {
        {{tensor("0.weight", 4, 6), tensor("0.bias", 4, 0), tensor("2.weight", 3, 4),
          tensor("2.bias", 3, 0), tensor("extra", 2, 2)},
         5,
         NULL,
         "4 tensors matched by name; not used:\nunexpected: extra <f4 [2, 2]"},
        {{tensor("l1.w", 4, 6), tensor("l1.b", 4, 0), tensor("l2.w", 3, 4), tensor("l2.b", 3, 0)},
         4,
         NULL,
         "the names differ: 4 tensors matched in order, as their shapes allow (l1.w is 0.weight, "
         "... "
         "l2.b is 2.bias)"},
        {{tensor("0.weight", 4, 6), tensor("2.weight", 4, 3), tensor("2.bias", 3, 0),
          tensor("4.bias", 9, 0)},
         4,
         "of its 4 tensors 1 is missing, 1 is of the wrong shape, and 1 of the file is not "
         "expected",
         "missing: 0.bias [4]\n"
         "wrong shape: 2.weight is <f4 [4, 3] and must be [3, 4]: it is transposed, PyTorch has "
         "[outputs, inputs]\n"
         "unexpected: 4.bias <f4 [9]"},
        {{tensor("a", 4, 6), tensor("b", 4, 0), tensor("c", 5, 4), tensor("d", 5, 0)},
         4,
         "0 are missing, 2 are of the wrong shape",
         "wrong shape: c is <f4 [5, 4] and must be [3, 4] to be 2.weight\n"
         "wrong shape: d is <f4 [5] and must be [3] to be 2.bias"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        bt_error err = {0};
        char how[1000];
        check(bt_npz_write(path(), files[i].tensors, files[i].count, &err) == BT_OK, "%s",
              err.text);
        if (!files[i].how)
            ok(ctx, bt_model_import(ctx, model, path(), how, sizeof how));
        else
            refused(ctx, BT_ERROR_DATA, files[i].how,
                    bt_model_import(ctx, model, path(), how, sizeof how));
        check(!strcmp(how, files[i].lines), "file %zu: %s", i, how);
    }
    bt_close(ctx);
}

// ---- Told by content ---------------------------------------------------------------------------

static bt_status open_any(const char *name, bt_error *err) {
    bt_st_file file = {0};
    bt_error_clear(err);
    bt_status status = bt_tensors_open(name, err, &file);
    bt_st_close(&file);
    return status;
}

static void test_other_files(void **state) {
    (void)state;
    const part p = two("archive/data.pkl");
    bt_error err = {0};
    size_t size;
    write_zip(&p, 1);
    uint8_t *zip = read_file(path(), &size);
    memset(zip + size - 6, 0xff, 4); // zip64, as torch.save writes it
    write_file(path(), zip, size);
    free(zip);
    check(open_any(path(), &err) == BT_ERROR_DATA && strstr(err.text, "torch.save") &&
              strstr(err.text, "numpy.savez("),
          "a .pt: %s", err.text);
    static const char *const others[] = {"\x93NUMPY\1", "\x80\2\x8a\nl\xfc\x9c"};
    for (int i = 0; i < 2; i++) {
        char text[64] = "";
        snprintf(text, sizeof text, "%s", others[i]);
        write_file(path(), text, sizeof text);
        check(open_any(path(), &err) == BT_ERROR_DATA && strstr(err.text, "numpy.savez("), "%d: %s",
              i, err.text);
    }
}

// A pipe gives its bytes once: --init-from <(cat w.safetensors).
static void test_pipe(void **state) {
    (void)state;
    const bt_st_tensor t = {
        .name = "a", .dtype = BT_F32, .rank = 1, .dim = {2}, .data = EIGHT, .bytes = 8};
    for (int zip = 0; zip < 2; zip++) {
        bt_error err = {0};
        size_t size;
        int ends[2];
        char name[32];
        check((zip ? bt_npz_write(path(), &t, 1, &err)
                   : bt_st_write(path(), &t, 1, NULL, 0, &err)) == BT_OK,
              "%s", err.text);
        uint8_t *whole = read_file(path(), &size);
        check(!pipe(ends) && write(ends[1], whole, size) == (ssize_t)size, "no pipe");
        close(ends[1]);
        snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
        check(open_any(name, &err) == BT_OK, "%s", err.text);
        close(ends[0]);
        free(whole);
    }
}

// Names of a safetensors file may hold anything; what is told of them goes to a terminal.
static void test_hostile_names(void **state) {
    (void)state;
    static const char evil[] = "x\r\nbantam: forged\033[2J\177";
    const bt_st_tensor t = {
        .name = evil, .dtype = BT_F32, .rank = 1, .dim = {2}, .data = EIGHT, .bytes = 8};
    bt_context *ctx = open_cpu(1);
    bt_model *model;
    bt_error err = {0};
    char how[1000];
    bt_model_desc desc = {.spec = "fc2", .channels = 1, .height = 1, .width = 1, .classes = 2};
    ok(ctx, bt_model_make(ctx, &desc, &model));
    check(bt_st_write(path(), &t, 1, NULL, 0, &err) == BT_OK, "%s", err.text);
    refused(ctx, BT_ERROR_DATA, "does not fit the model",
            bt_model_import(ctx, model, path(), how, sizeof how));
    check(strstr(how, "unexpected: x??bantam: forged?[2J? F32 [2]") && !strpbrk(how, "\r\033\177"),
          "it says: %s", how);
    bt_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zips),          cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_bomb),          cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_headers),       cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_mutations),     cmocka_unit_test(test_what_does_not_match),
        cmocka_unit_test(test_other_files),   cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_hostile_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
