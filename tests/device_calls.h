// What tests below the library share: calls of a bt_device_api that must work, or must fail with a
// sentence, and the smallest program there is. Who includes it says before which device is tested:
// TESTED is its bt_device_api.
#ifndef BT_TESTS_DEVICE_CALLS_H
#define BT_TESTS_DEVICE_CALLS_H

#include "device/kernels.h"
#include "support.h"

static const bt_device_api *const api = &TESTED;
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

enum { N = 1000 };

// A buffer of N floats.
static inline bt_buffer floats(bt_device *dev, float value) {
    float values[N];
    bt_buffer out;
    for (int i = 0; i < N; i++) values[i] = value;
    works(api->buffer_init(dev, sizeof values, &err, &out));
    works(api->write(dev, &out, 0, values, sizeof values, &err));
    return out;
}

static inline void expect(bt_device *dev, const bt_buffer *buffer, float want) {
    float values[N];
    works(api->read(dev, buffer, 0, values, sizeof values, &err));
    for (int i = 0; i < N; i++)
        check(values[i] == want, "element %d is %g, not %g", i, (double)values[i], (double)want);
}

// y = x + one; x = y: every step needs the one before it.
typedef struct counter {
    bt_device *dev;
    bt_buffer x, y, one;
    bt_device_program *program;
} counter;

static inline counter counter_buffers(bt_device *dev) {
    counter c = {.dev = dev};
    c.x = floats(dev, 0);
    c.y = floats(dev, 0);
    c.one = floats(dev, 1);
    return c;
}

static inline bt_status counter_program(counter *c, bool timed) {
    const bt_launch launches[] = {map_launch(BT_MAP_ADD, &c->x, &c->one, &c->y, N),
                                  map_launch(BT_MAP_COPY, &c->y, NULL, &c->x, N)};
    return api->program_init(c->dev, launches, 2, &(bt_program_use){.timed = timed}, &err,
                             &c->program);
}

// All but the device.
static inline void counter_done(counter *c) {
    api->program_done(c->dev, c->program);
    api->buffer_done(c->dev, &c->x);
    api->buffer_done(c->dev, &c->y);
    api->buffer_done(c->dev, &c->one);
}

#endif
