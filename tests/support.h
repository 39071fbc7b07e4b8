// What every test program shares: cmocka, contexts, checks with a sentence, scratch folders.
#ifndef BT_TESTS_SUPPORT_H
#define BT_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bantam.h"

// Fails the test with a sentence.
#define check(condition, ...)                                         \
    do {                                                              \
        if (!(condition)) test_fail(__FILE__, __LINE__, __VA_ARGS__); \
    } while (0)
void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// The call must return BT_OK; the library's sentence is the reason otherwise.
#define ok(ctx, call) test_ok(ctx, (call), #call, __FILE__, __LINE__)
void test_ok(bt_context *ctx, bt_status status, const char *call, const char *file, int line);

// The call must return `want`, with a sentence that contains `part` (NULL: any); forgets it.
#define refused(ctx, want, part, call) \
    test_refused(ctx, want, part, (call), #call, __FILE__, __LINE__)
void test_refused(bt_context *ctx, bt_status want, const char *part, bt_status status,
                  const char *call, const char *file, int line);

// Ends the test as skipped, and says why.
void skip_because(const char *reason);

// Under sanitizers the long tests run on less (BT_TEST_QUICK).
bool quick(void);

extern const char *test_device; // what open_cpu opens; "cpu" at first
bt_context *open_cpu(int threads);
void *allocate(size_t bytes); // zeros; never NULL

// Deterministic numbers in [low, high).
double test_random(uint64_t *state, double low, double high);

// A new empty folder that lives until the program ends, and a path in it (a few at a time).
const char *scratch(void);
const char *in_scratch(const char *name);

// Runs a command. `out`: what it and its errors print, the last of it where that is long. Returns
// its status as pclose does.
int shell(char *out, size_t out_bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void write_file(const char *path, const void *bytes, size_t count);
uint8_t *read_file(const char *path, size_t *count); // to be freed; NULL: cannot be read

// Reads a tensor of any dtype as doubles, to be freed.
double *read_doubles(bt_context *ctx, bt_tensor t, size_t *count);
// Gives doubles to the library as dtype.
bt_tensor from_doubles(bt_context *ctx, bt_dtype dtype, bt_shape shape, const double *values,
                       bool input);
void write_doubles(bt_context *ctx, bt_tensor t, const double *values, size_t count);

#endif
