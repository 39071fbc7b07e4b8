// What tests below the library share: calls of a bt_device_api that must work, or must fail with a
// sentence, and the smallest launch there is.
#ifndef BT_TESTS_DEVICE_CALLS_H
#define BT_TESTS_DEVICE_CALLS_H

#include "device/kernels.h"
#include "support.h"

static bt_error err; // of the call before

#define works(call)                                                                           \
    do {                                                                                      \
        bt_status status_ = (call);                                                           \
        if (status_ != BT_OK) test_fail(__FILE__, __LINE__, "%s fails: %s", #call, err.text); \
    } while (0)

// The call must fail in this way, with a sentence that contains `part`.
#define fails(want, part, call)                                                                  \
    do {                                                                                         \
        bt_error_clear(&err);                                                                    \
        bt_status status_ = (call);                                                              \
        if (status_ != (want) || !strstr(err.text, part))                                        \
            test_fail(__FILE__, __LINE__, "%s gives \"%s\": %s", #call, bt_status_name(status_), \
                      err.text);                                                                 \
        bt_error_clear(&err);                                                                    \
    } while (0)

// y = op(a, b), or op(a) where b is NULL, of `count` floats.
static inline bt_launch map_launch(bt_map_op op, bt_buffer *a, bt_buffer *b, bt_buffer *y,
                                   uint32_t count) {
    bt_launch launch = {.kernel = BT_KERNEL_map, .dtype = BT_F32, .binding_count = 3};
    bt_map_args args = {
        .op = op, .dim = {1, 1, 1, count}, .a_stride[3] = 1, .b_stride[3] = b ? 1 : 0};
    bt_buffer *buffers[] = {a, b, y};
    for (int i = 0; i < 3; i++)
        if (buffers[i]) launch.binding[i] = (bt_binding){buffers[i], 0, buffers[i]->bytes};
    memcpy(launch.scalars, &args, sizeof args);
    return launch;
}

#endif
