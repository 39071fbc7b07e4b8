// See cmocka.h. Also what the library calls of others when a data set is opened, and does without.
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "cmocka.h"

static jmp_buf end_of_test;

void _fail(const char *file, int line) {
    fprintf(stderr, "ERROR: %s:%d\n", file, line);
    longjmp(end_of_test, 1);
}

void _skip(const char *file, int line) {
    _fail(file, line); // nothing may be missing here
}

static bool passes(const struct CMUnitTest *test) {
    void *state = NULL;
    if (setjmp(end_of_test)) return false;
    test->run(&state);
    return true;
}

int run_tests(const char *group, const struct CMUnitTest *tests, size_t count) {
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        bool fine = passes(&tests[i]);
        printf("%s - %s %s\n", fine ? "ok" : "not ok", group, tests[i].name);
        fflush(stdout);
        failed += !fine;
    }
    return failed;
}

// The digest of a data set, which nobody looks at here.
void SHA256Init(void *digest);
void SHA256Update(void *digest, const void *data, size_t bytes);
char *SHA256End(void *digest, char *text);

void SHA256Init(void *digest) {
    (void)digest;
}
void SHA256Update(void *digest, const void *data, size_t bytes) {
    (void)digest, (void)data, (void)bytes;
}
char *SHA256End(void *digest, char *text) {
    (void)digest;
    return text;
}
