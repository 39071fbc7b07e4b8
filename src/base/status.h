// Errors as values: a status code and one sentence that says what, where, with which numbers,
// and what to try. Nothing below the command line prints or exits.
#ifndef BT_BASE_STATUS_H
#define BT_BASE_STATUS_H

#include "bantam.h"

// The sentence of the last failure. Zero-initialise; owned by whoever declares it.
typedef struct bt_error {
    bt_status status;
    char text[512];
} bt_error;

#define BT_MUST_CHECK __attribute__((warn_unused_result))

// Records a failure and returns `status`, so that callers write `return bt_fail(err, ...)`.
// The first sentence is kept: it is the closest to the cause.
bt_status bt_fail(bt_error *err, bt_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Forgets a failure, so that the next one is recorded.
void bt_error_clear(bt_error *err);

// Out of memory while asking for `bytes` for `what`.
bt_status bt_fail_memory(bt_error *err, const char *what, size_t bytes);

#define BT_TRY(call)                                \
    do {                                            \
        bt_status try_status = (call);              \
        if (try_status != BT_OK) return try_status; \
    } while (0)

#endif
