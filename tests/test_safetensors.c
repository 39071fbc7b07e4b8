// safetensors: round trips, the byte layout of the reference writer, the known attacks on loaders,
// and 20 000 mutated files that must be refused or read, never worse.
#include "data/safetensors.h"
#include "support.h"

#include <unistd.h>

static const char *path(void) {
    return in_scratch("t.safetensors");
}

// Writes 8 bytes of length, the header and `data` bytes of zeros.
static void write_raw(const char *header, size_t claimed, size_t data) {
    size_t n = strlen(header);
    uint8_t *bytes = allocate(8 + n + data);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(claimed >> 8 * i);
    memcpy(bytes + 8, header, n);
    write_file(path(), bytes, 8 + n + data);
    free(bytes);
}

static bt_status open_file(bt_error *err) {
    bt_st_file file = {0};
    bt_error_clear(err);
    bt_status status = bt_st_open(path(), err, &file);
    bt_st_close(&file);
    return status;
}

// The file must be refused as data, with a sentence that names it.
static void refuse(const char *header, size_t data, const char *what) {
    bt_error err = {0};
    write_raw(header, strlen(header), data);
    bt_status status = open_file(&err);
    check(status == BT_ERROR_DATA, "%s: %s gives %s", what, header, bt_status_name(status));
    check(strstr(err.text, "t.safetensors") && strlen(err.text) > 30, "%s: says only \"%s\"", what,
          err.text);
}

static void accept(const char *header, size_t data) {
    bt_error err = {0};
    write_raw(header, strlen(header), data);
    check(open_file(&err) == BT_OK, "%s is refused: %s", header, err.text);
}

#define F32_2 "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":"

static void test_accepted(void **state) {
    (void)state;
    accept("{}", 0);
    accept("{}      ", 0);
    accept("{\"a\":{" F32_2 "[0,8]}}", 8);
    accept("{\"a\":{" F32_2 "[0,8]},\"b\":{" F32_2 "[8,16]}}", 16);
    accept("{\"b\":{" F32_2 "[8,16]},\"a\":{" F32_2 "[0,8]}}", 16);
    accept("{\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8);
    accept("{\"e\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[0,0]}}", 0);
    accept("{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"data_offsets\":[0,8],\"shape\":[2],\"dtype\":"
           "\"F32\"}}",
           8);
    accept("{\"\\u00e9\\n\":{" F32_2 "[0,8]}}", 8);
}

static void test_header_length(void **state) {
    (void)state;
    bt_error err = {0};
    const char *header = "{\"a\":{" F32_2 "[0,8]}}";
    size_t n = strlen(header);
    size_t claims[] = {
        0,         1,         n - 1,           n + 1,        n + 8,        n + 9,
        100000000, 100000001, (size_t)1 << 40, SIZE_MAX / 2, SIZE_MAX - 8, SIZE_MAX - 7,
        SIZE_MAX};
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        write_raw(header, claims[i], 8);
        check(open_file(&err) == BT_ERROR_DATA, "a header length of %zu is accepted", claims[i]);
    }
    for (size_t cut = 0; cut < 8; cut++) {
        write_file(path(), "\x02\0\0\0\0\0\0\0{}", cut);
        check(open_file(&err) == BT_ERROR_DATA, "%zu bytes are accepted", cut);
    }
    unlink(path());
    check(open_file(&err) == BT_ERROR_DATA && strstr(err.text, "t.safetensors"),
          "a missing file: \"%s\"", err.text);
}

static void test_offsets(void **state) {
    (void)state;
    refuse("{\"a\":{" F32_2 "[-8,0]}}", 8, "negative offset");
    refuse("{\"a\":{" F32_2 "[8,0]}}", 8, "backward range");
    refuse("{\"a\":{" F32_2 "[0,16]}}", 8, "range past the end");
    refuse("{\"a\":{" F32_2 "[0,4]}}", 4, "range too short");
    refuse("{\"a\":{" F32_2 "[0,12]}}", 12, "range too long");
    refuse("{\"a\":{" F32_2 "[8,16]}}", 16, "hole at the start");
    refuse("{\"a\":{" F32_2 "[0,8]},\"b\":{" F32_2 "[12,20]}}", 20, "hole");
    refuse("{\"a\":{" F32_2 "[0,8]},\"b\":{" F32_2 "[4,12]}}", 12, "overlap");
    refuse("{\"a\":{" F32_2 "[0,8]},\"b\":{" F32_2 "[0,8]}}", 8, "the same range twice");
    refuse("{\"a\":{" F32_2 "[0,8]}}", 9, "trailing byte");
    refuse("{\"a\":{" F32_2 "[0,8]}}", 7, "a byte short");
    refuse("{}", 1, "data without tensors");
    refuse("{\"a\":{" F32_2 "[0,8,8]}}", 8, "three offsets");
    refuse("{\"a\":{" F32_2 "[8]}}", 8, "one offset");
    refuse("{\"a\":{" F32_2 "[0,18446744073709551616]}}", 8, "offset of 2^64");
    refuse("{\"a\":{" F32_2 "[0,18446744073709551615]}}", 8, "offset of 2^64 - 1");
}

static void test_shapes(void **state) {
    (void)state;
#define WITH_SHAPE(s) "{\"a\":{\"dtype\":\"F32\",\"shape\":" s ",\"data_offsets\":[0,8]}}"
    refuse(WITH_SHAPE("[3]"), 8, "shape and range differ");
    refuse(WITH_SHAPE("[-2]"), 8, "negative dimension");
    refuse(WITH_SHAPE("[2.0]"), 8, "fraction");
    refuse(WITH_SHAPE("[2e0]"), 8, "exponent");
    refuse(WITH_SHAPE("[02]"), 8, "leading zero");
    refuse(WITH_SHAPE("[\"2\"]"), 8, "text for a number");
    refuse(WITH_SHAPE("2"), 8, "no list");
    refuse(WITH_SHAPE("[4294967296,4294967296,4294967296]"), 8, "overflowing product");
    refuse(WITH_SHAPE("[4611686018427387906]"), 8, "product that wraps to 8");
    refuse(WITH_SHAPE("[9223372036854775809,2]"), 8, "product that wraps to 2");
    refuse(WITH_SHAPE("[1,1,1,1,1,1,1,1,2]"), 8, "rank 9");
    refuse("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]}}", 8,
           "other dtype");
    refuse("{\"a\":{\"dtype\":\"f32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "misspelt dtype");
    refuse("{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype is a number");
    refuse("{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no dtype");
    refuse("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "no shape");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "no offsets");
}

static void test_json(void **state) {
    (void)state;
    refuse(" {\"a\":{" F32_2 "[0,8]}}", 8, "does not begin with {");
    refuse("[]", 0, "a list");
    refuse("{\"a\":{" F32_2 "[0,8]}", 8, "unfinished");
    refuse("{\"a\":{" F32_2 "[0,8]}}x", 8, "text behind");
    refuse("{\"a\":{" F32_2 "[0,8]},}", 8, "trailing comma");
    refuse("{\"a\":{" F32_2 "[0,8]},\"a\":{" F32_2 "[8,16]}}", 16, "duplicate name");
    refuse("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
           "duplicate key");
    refuse("{\"a\":{" F32_2 "[0,8],\"extra\":1}}", 8, "unknown key");
    refuse("{\"__metadata__\":{\"k\":1}}", 0, "metadata that is a number");
    refuse("{\"__metadata__\":{\"k\":{\"l\":\"m\"}}}", 0, "nested metadata");
    refuse("{\"__metadata__\":[]}", 0, "metadata that is a list");
    refuse("{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "duplicate metadata");
    refuse("{\"\xff\":{" F32_2 "[0,8]}}", 8, "not UTF-8");
    refuse("{\"\xc0\x80\":{" F32_2 "[0,8]}}", 8, "overlong UTF-8");
    refuse("{\"a\\u0000b\":{" F32_2 "[0,8]}}", 8, "a name with NUL");
    char *deep = allocate(200010);
    memset(deep, '[', 200000);
    refuse(deep, 0, "depth of 200 000");
    memcpy(deep, "{\"a\":", 5);
    refuse(deep, 0, "depth of 200 000 inside");
    free(deep);
}

static void test_many_entries(void **state) {
    (void)state;
    char *header = allocate(1 << 20), *to = header;
    to += sprintf(to, "{\"__metadata__\":{");
    for (int i = 0; i < 5000; i++) to += sprintf(to, "%s\"k%d\":\"v\"", i ? "," : "", i);
    to += sprintf(to, "}");
    for (int i = 0; i < 2000; i++)
        to += sprintf(to, ",\"t%d\":{" F32_2 "[%d,%d]}", i, 8 * i, 8 * i + 8);
    sprintf(to, "}");
    accept(header, 16000);
    free(header);
}

static void test_names(void **state) {
    (void)state;
    char header[1024], name[600] = {0};
    memset(name, 'n', 513);
    snprintf(header, sizeof header, "{\"%s\":{" F32_2 "[0,8]}}", name);
    refuse(header, 8, "a name of 513 bytes");
    snprintf(header, sizeof header, "{\"%s\":{" F32_2 "[0,8]}}", name + 1);
    accept(header, 8);
}

// ---- Writing ----------------------------------------------------------------------------------

static const float weights[6] = {1, -2, 0.5f, 4, 5, 6};
static const double moments[2] = {1.25, -7};
static const uint8_t flags[3] = {1, 2, 255};
static const bt_st_tensor tensors[] = {
    {.name = "u8", .dtype = BT_U8, .rank = 1, .dim = {3}, .data = flags, .bytes = 3},
    {.name = "b.weight", .dtype = BT_F32, .rank = 2, .dim = {2, 3}, .data = weights, .bytes = 24},
    {.name = "moments", .dtype = BT_F64, .rank = 1, .dim = {2}, .data = moments, .bytes = 16},
    {.name = "a.bias", .dtype = BT_F32, .rank = 0, .data = weights, .bytes = 4},
    {.name = "empty", .dtype = BT_F32, .rank = 2, .dim = {0, 7}, .data = weights, .bytes = 0},
};

static void test_round_trip(void **state) {
    (void)state;
    const bt_st_pair pairs[] = {{"settings", "{\"a\": \"quotes \\\" and \n lines\"}"},
                                {"name", "\xc3\xa9"}};
    bt_error err = {0};
    check(bt_st_write(path(), tensors, 5, pairs, 2, &err) == BT_OK, "%s", err.text);
    bt_st_file file = {0};
    check(bt_st_open(path(), &err, &file) == BT_OK, "%s", err.text);
    check(file.tensor_count == 5, "%d tensors", file.tensor_count);
    for (int i = 0; i < 5; i++) {
        const bt_st_tensor *want = &tensors[i], *got = bt_st_find(&file, want->name);
        check(got && got->dtype == want->dtype && got->rank == want->rank &&
                  got->bytes == want->bytes &&
                  !memcmp(got->dim, want->dim, sizeof(size_t) * (size_t)want->rank) &&
                  !memcmp(got->data, want->data, want->bytes),
              "%s comes back changed", want->name);
        check((uintptr_t)got->data % 8 == 0, "%s is not aligned", want->name);
    }
    check(!bt_st_find(&file, "nothing"), "a tensor from nowhere");
    for (int i = 0; i < 2; i++) {
        const char *value = bt_st_metadata(&file, pairs[i].key);
        check(value && !strcmp(value, pairs[i].value), "metadata \"%s\" is \"%s\"", pairs[i].key,
              value ? value : "");
    }
    check(bt_st_metadata(&file, "sha256") && strlen(bt_st_metadata(&file, "sha256")) == 64,
          "no checksum");
    bt_st_close(&file);
}

// The checksum covers names, shapes and metadata as well as the numbers.
static void test_every_bit(void **state) {
    (void)state;
    bt_error err = {0};
    check(bt_st_write(path(), tensors, 5, &(bt_st_pair){"lr", "0.05"}, 1, &err) == BT_OK, "%s",
          err.text);
    size_t size;
    uint8_t *bytes = read_file(path(), &size);
    for (size_t bit = 0; bit < 8 * size; bit += 3) {
        bt_st_file file = {0};
        bt_error_clear(&err);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        write_file(path(), bytes, size);
        // Only a hit on its name makes the checksum disappear, which checkpoints do not allow.
        bool refused = bt_st_open(path(), &err, &file) == BT_ERROR_DATA;
        check(refused || !bt_st_metadata(&file, "sha256"), "bit %zu of byte %zu flipped unseen",
              bit % 8, bit / 8);
        bt_st_close(&file);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(bytes);
}

// Sorted by alignment, then name; header padded to 8 with spaces; data without holes.
static void test_layout(void **state) {
    (void)state;
    bt_error err = {0};
    check(bt_st_write(path(), tensors, 5, NULL, 0, &err) == BT_OK, "%s", err.text);
    size_t size, n = 0;
    uint8_t *bytes = read_file(path(), &size);
    for (int i = 0; i < 8; i++) n |= (size_t)bytes[i] << 8 * i;
    check(n % 8 == 0 && bytes[8] == '{' && size == 8 + n + 47, "header of %zu in %zu bytes", n,
          size);
    const char *order[] = {"\"moments\":", "\"a.bias\":", "\"b.weight\":", "\"empty\":", "\"u8\":"};
    char *text = allocate(n + 1), *last = text;
    memcpy(text, bytes + 8, n);
    for (int i = 0; i < 5; i++) {
        char *at = strstr(text, order[i]);
        check(at && at > last, "%s is not number %d in %s", order[i], i, text);
        last = at;
    }
    check(strstr(text, "\"a.bias\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[16,20]}"),
          "another text: %s", text);
    check(!memcmp(bytes + 8 + n, moments, 16) && !memcmp(bytes + 8 + n + 16, weights, 4) &&
              bytes[size - 1] == 255,
          "other data");
    free(text), free(bytes);
}

static void test_damage_is_seen(void **state) {
    (void)state;
    bt_error err = {0};
    check(bt_st_write(path(), tensors, 5, NULL, 0, &err) == BT_OK, "%s", err.text);
    size_t size;
    uint8_t *bytes = read_file(path(), &size);
    for (size_t i = size - 47; i < size; i += 5) {
        bytes[i] ^= 4;
        write_file(path(), bytes, size);
        check(open_file(&err) == BT_ERROR_DATA, "a flipped bit at %zu of %zu is not seen", i, size);
        bytes[i] ^= 4;
    }
    free(bytes);
}

static void test_failed_write_keeps_old(void **state) {
    (void)state;
    bt_error err = {0};
    const char *nowhere = in_scratch("missing-folder/t.safetensors");
    check(bt_st_write(nowhere, tensors, 5, NULL, 0, &err) == BT_ERROR_MEMORY,
          "writing into a missing folder");
    check(strstr(err.text, "missing-folder"), "the sentence is \"%s\"", err.text);
}

static void test_other_dtypes(void **state) {
    (void)state;
    // F16 and BF16 are widened.
    uint8_t halves[] = {0x00, 0x3c, 0x01, 0x00, 0x00, 0xfc, 0xff, 0x7b}; // 1, 2^-24, -inf, 65504
    const float want_half[] = {1, 0x1p-24f, -__builtin_inff(), 65504};
    uint8_t brains[] = {0x80, 0x3f, 0x00, 0xc0}; // 1, -2
    const char *header = "{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}";
    size_t n = strlen(header);
    uint8_t bytes[512] = {(uint8_t)n};
    check(n < 256, "the header grew");
    memcpy(bytes + 8, header, n);
    memcpy(bytes + 8 + n, halves, 8);
    memcpy(bytes + 16 + n, brains, 4);
    write_file(path(), bytes, 20 + n);
    bt_error err = {0};
    bt_st_file file = {0};
    check(bt_st_open(path(), &err, &file) == BT_OK, "%s", err.text);
    const bt_st_tensor *h = bt_st_find(&file, "h"), *b = bt_st_find(&file, "b");
    check(h && b && h->dtype == BT_F32 && b->dtype == BT_F32, "half types are not widened");
    for (int i = 0; i < 4; i++)
        check(((const float *)h->data)[i] == want_half[i], "half %d is %g", i,
              ((const float *)h->data)[i]);
    check(((const float *)b->data)[0] == 1 && ((const float *)b->data)[1] == -2, "bf16 is %g",
          ((const float *)b->data)[0]);
    bt_st_close(&file);
}

// ---- Mutations --------------------------------------------------------------------------------

static size_t mutate(uint8_t *bytes, size_t size, size_t room, uint64_t *random) {
    static const char *tokens[] = {"{",
                                   "}",
                                   "[",
                                   "]",
                                   ",",
                                   ":",
                                   "\"",
                                   "0",
                                   "-1",
                                   "18446744073709551615",
                                   "1e9",
                                   "null",
                                   "true",
                                   "\"F64\"",
                                   "\"__metadata__\"",
                                   "\\u0000",
                                   "\xff",
                                   "4611686018427387904"};
    int changes = 1 + (int)test_random(random, 0, 4);
    while (changes--) {
        size_t at = (size_t)test_random(random, 0, (double)size);
        if (test_random(random, 0, 1) < 0.7) at %= 400; // mostly in the header
        if (at >= size) continue;
        switch ((int)test_random(random, 0, 6)) {
        case 0: bytes[at] ^= (uint8_t)(1 << (int)test_random(random, 0, 8)); break;
        case 1: bytes[at] = (uint8_t)test_random(random, 0, 256); break;
        case 2: size = at; break;
        case 3: { // write a token over what is there
            const char *token =
                tokens[(size_t)test_random(random, 0, sizeof tokens / sizeof *tokens)];
            size_t n = strlen(token);
            if (at + n <= size) memcpy(bytes + at, token, n);
            break;
        }
        case 4: { // take a piece out
            size_t n = (size_t)test_random(random, 1, 20);
            if (at + n > size) break;
            memmove(bytes + at, bytes + at + n, size - at - n);
            size -= n;
            break;
        }
        default: { // a piece twice
            size_t n = (size_t)test_random(random, 1, 60);
            if (at + n > size || size + n > room) break;
            memmove(bytes + at + n, bytes + at, size - at);
            size += n;
        }
        }
    }
    return size;
}

static void test_mutations(void **state) {
    (void)state;
    const bt_st_pair pairs[] = {{"step", "12"}, {"settings", "{}"}};
    bt_error err = {0};
    check(bt_st_write(path(), tensors, 5, pairs, 2, &err) == BT_OK, "%s", err.text);
    size_t size, read = 0, total = quick() ? 4000 : 20000;
    uint8_t *good = read_file(path(), &size), *bytes = allocate(size + 1024);
    uint64_t random = 2024;
    for (size_t i = 0; i < total; i++) {
        memcpy(bytes, good, size);
        size_t n = mutate(bytes, size, size + 1024, &random);
        write_file(path(), bytes, n);
        bt_status status = open_file(&err);
        check(status == BT_OK || status == BT_ERROR_DATA || status == BT_ERROR_MEMORY,
              "mutation %zu gives %s", i, bt_status_name(status));
        check(status == BT_OK || *err.text, "mutation %zu is refused without a word", i);
        if (status == BT_OK) read++;
    }
    // Damage to the data is seen by the checksum; only a few changes do not matter.
    check(read < total / 10, "%zu of %zu damaged files are accepted", read, total);
    free(good), free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),       cmocka_unit_test(test_header_length),
        cmocka_unit_test(test_offsets),        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_json),           cmocka_unit_test(test_many_entries),
        cmocka_unit_test(test_names),          cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_bit),      cmocka_unit_test(test_layout),
        cmocka_unit_test(test_damage_is_seen), cmocka_unit_test(test_failed_write_keeps_old),
        cmocka_unit_test(test_other_dtypes),   cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
