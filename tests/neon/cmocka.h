// What the tests use of cmocka, for a processor that it is not installed for.
#ifndef BT_TESTS_NEON_CMOCKA_H
#define BT_TESTS_NEON_CMOCKA_H

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(function) \
    { #function, function }
#define cmocka_run_group_tests(tests, setup, teardown) \
    cmocka_run_group_tests_name("", tests, setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    run_tests(name, tests, sizeof(tests) / sizeof *(tests))
#define assert_true(condition)          ((condition) ? (void)0 : _fail(__FILE__, __LINE__))
#define assert_false(condition)         assert_true(!(condition))
#define assert_non_null(pointer)        assert_true((pointer) != NULL)
#define assert_int_equal(a, b)          assert_true((a) == (b))
#define assert_memory_equal(a, b, size) assert_true(memcmp(a, b, size) == 0)
#define skip()                          _skip(__FILE__, __LINE__)

// Prints "ok" or "not ok" and the name of each test; returns how many failed.
int run_tests(const char *group, const struct CMUnitTest *tests, size_t count);
__attribute__((noreturn)) void _fail(const char *file, int line);
__attribute__((noreturn)) void _skip(const char *file, int line);

#endif
