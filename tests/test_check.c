// The checking device: a device that misbehaves on purpose lies under it, and every misdeed must be
// found, with the name of the kernel; and on the CPU it gives the bits of the CPU.
#include "device/check/check.h"
#include "device/cpu/cpu.h"
#include "device/kernels.h"
#include "support.h"

typedef enum misdeed_kind {
    HONEST,
    LEAVES_ONE,
    WRITES_INPUT,
    WRITES_BESIDE,
    WRITES_BEYOND,
    WRITES_BELOW,
    WRITES_ELSEWHERE,
    FAILS,
} misdeed_kind;

static misdeed_kind misdeed;
static unsigned char *elsewhere; // the end of a buffer that the launch does not see

// ---- A device that copies binding 0 to binding 2, and more -----------------------------------

static bt_status liar_program_init(bt_device *dev, const bt_launch *launches, int count,
                                   const bt_program_use *use, bt_error *err,
                                   bt_device_program **out) {
    (void)dev, (void)use, (void)err;
    check(count == 1, "%d launches in a program", count);
    bt_launch *copy = allocate(sizeof *copy);
    *copy = launches[0];
    *out = (bt_device_program *)copy;
    return BT_OK;
}

static void liar_program_done(bt_device *dev, bt_device_program *program) {
    (void)dev;
    free(program);
}

static bt_status liar_run(bt_device *dev, bt_device_program *program, uint32_t steps,
                          bt_error *err) {
    (void)dev;
    const bt_launch *launch = (const bt_launch *)program;
    const bt_binding *from = &launch->binding[0], *to = &launch->binding[2];
    unsigned char *x = (unsigned char *)from->buffer->handle + from->offset;
    unsigned char *y = (unsigned char *)to->buffer->handle + to->offset;
    check(steps == 1, "%u steps at once", steps);
    for (size_t i = 0; i < to->bytes; i++)
        if (!(misdeed == LEAVES_ONE && i / 8 == 3)) y[i] = x[i];
    switch (misdeed) {
    case WRITES_INPUT: x[9]++; break;
    case WRITES_BESIDE: y[to->bytes]++; break;
    case WRITES_BEYOND: y[1024 - 256]++; break; // y lies at 256 of 1024 bytes
    case WRITES_BELOW: y[-257]++; break;
    case WRITES_ELSEWHERE: (*elsewhere)++; break;
    case FAILS: return bt_fail(err, BT_ERROR_DEVICE, "lost");
    default: break;
    }
    return BT_OK;
}

static bt_device_api liar(void) {
    bt_device_api api = bt_device_cpu;
    api.program_init = liar_program_init;
    api.program_done = liar_program_done;
    api.run = liar_run;
    return api;
}

// ---- One launch on it ------------------------------------------------------------------------

typedef struct rig {
    bt_device_api under;
    bt_device *dev;
    bt_buffer x, y, other;
    bt_error err;
} rig;

static void rig_open(rig *r) {
    const bt_device_api *api = &bt_device_check;
    memset(r, 0, sizeof *r);
    r->under = liar();
    check(bt_check_open(&r->under, 0, NULL, &r->err, &r->dev) == BT_OK, "%s", r->err.text);
    check(api->buffer_init(r->dev, 1024, &r->err, &r->x) == BT_OK &&
              api->buffer_init(r->dev, 1024, &r->err, &r->y) == BT_OK &&
              api->buffer_init(r->dev, 100, &r->err, &r->other) == BT_OK,
          "%s", r->err.text);
    float ones[256];
    for (int i = 0; i < 256; i++) ones[i] = 1;
    check(api->write(r->dev, &r->x, 0, ones, sizeof ones, &r->err) == BT_OK, "%s", r->err.text);
    // A handle begins with the buffer below, which begins with a guard of 256 bytes.
    elsewhere = (unsigned char *)((bt_buffer *)r->other.handle)->handle + 256 + 100;
}

static bt_status rig_run(rig *r, bt_dtype dtype, uint32_t steps) {
    const bt_device_api *api = &bt_device_check;
    bt_launch launch = {.kernel = BT_KERNEL_map, .dtype = (uint8_t)dtype, .binding_count = 3};
    launch.binding[0] = (bt_binding){&r->x, 512, 400};
    launch.binding[2] = (bt_binding){&r->y, 256, 400};
    const bt_launch two[2] = {launch, launch};
    bt_device_program *program;
    check(api->program_init(r->dev, two, 2, &(bt_program_use){0}, &r->err, &program) == BT_OK, "%s",
          r->err.text);
    bt_status status = api->run(r->dev, program, steps, &r->err);
    api->program_done(r->dev, program);
    return status;
}

static void rig_close(rig *r) {
    const bt_device_api *api = &bt_device_check;
    api->buffer_done(r->dev, &r->x);
    api->buffer_done(r->dev, &r->other);
    api->buffer_done(r->dev, &r->y);
    api->close(r->dev);
}

static void test_misdeeds_are_found(void **state) {
    (void)state;
    static const struct {
        misdeed_kind kind;
        bt_status status;
        const char *sentence;
    } cases[] = {
        {HONEST, BT_OK, ""},
        {LEAVES_ONE, BT_ERROR_INTERNAL, "kernel map leaves bytes 24 to"},
        {WRITES_INPUT, BT_ERROR_INTERNAL, "kernel map changed byte 521 of the buffer of binding 0"},
        {WRITES_BESIDE, BT_ERROR_INTERNAL,
         "kernel map changed byte 656 of the buffer of binding 2"},
        {WRITES_BEYOND, BT_ERROR_INTERNAL, "beyond the end of a buffer of 1024 bytes (binding 2"},
        {WRITES_BELOW, BT_ERROR_INTERNAL, "below a buffer of 1024 bytes (binding 2"},
        {WRITES_ELSEWHERE, BT_ERROR_INTERNAL, "a buffer of 100 bytes (binding -1"},
        {FAILS, BT_ERROR_DEVICE, "lost"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (bt_dtype dtype = BT_F32; dtype <= BT_F64; dtype++) {
            rig r;
            rig_open(&r);
            misdeed = cases[i].kind;
            bt_status status = rig_run(&r, dtype, 1);
            check(status == cases[i].status && strstr(r.err.text, cases[i].sentence),
                  "misdeed %d in %s: status %d, \"%s\"", (int)misdeed, bt_dtype_name(dtype),
                  (int)status, r.err.text);
            rig_close(&r);
        }
}

static void test_new_buffers_are_no_numbers(void **state) {
    (void)state;
    rig r;
    float f[256];
    double d[128];
    rig_open(&r);
    check(bt_device_check.read(r.dev, &r.y, 0, f, sizeof f, &r.err) == BT_OK &&
              bt_device_check.read(r.dev, &r.y, 0, d, sizeof d, &r.err) == BT_OK,
          "%s", r.err.text);
    for (int i = 0; i < 256; i++) check(f[i] != f[i] && d[i / 2] != d[i / 2], "%d is a number", i);
    check(bt_device_check.read(r.dev, &r.y, 1000, f, 25, &r.err) == BT_ERROR_INTERNAL,
          "reading past the end passes");
    rig_close(&r);
}

static void test_counters(void **state) {
    (void)state;
    rig r;
    rig_open(&r);
    misdeed = HONEST;
    check(rig_run(&r, BT_F32, 5) == BT_OK, "%s", r.err.text);
    const bt_device_counters *c = bt_device_check.counters(r.dev);
    check(c->submissions == 1 && c->launches == 10 && c->bytes_written == 1024 && !c->bytes_read,
          "%d submissions, %d launches, %d bytes written", (int)c->submissions, (int)c->launches,
          (int)c->bytes_written);
    rig_close(&r);
}

// The sum of a product and more, on device `name`; its counters too.
static void compute(const char *name, float out[12], bt_counters *counters) {
    bt_context *ctx;
    bt_status status = bt_open(&(bt_context_desc){.device = name, .threads = 2}, &ctx);
    check(status == BT_OK, "%s: %s", name, bt_error_text(ctx));
    bt_tensor a = bt_random_normal(ctx, BT_F32, BT_SHAPE(3, 5), 1, 0, 1);
    bt_tensor b = bt_random_normal(ctx, BT_F32, BT_SHAPE(5, 4), 2, 0, 1);
    ok(ctx, bt_read(ctx, bt_softmax(ctx, bt_tanh(ctx, bt_matmul(ctx, a, b)), 1), out, 48));
    bt_context_counters(ctx, counters);
    bt_close(ctx);
}

static void test_same_bits_as_the_cpu(void **state) {
    (void)state;
    float want[12], got[12];
    bt_counters cpu, checked;
    compute("cpu", want, &cpu);
    compute("check", got, &checked);
    check(!memcmp(want, got, sizeof want), "the checking device computes something else");
    check(cpu.submissions == 1 && cpu.launches >= 2 && cpu.bytes_read == 48 &&
              cpu.bytes_written >= 140,
          "%d submissions, %d launches, %d bytes read, %d written", (int)cpu.submissions,
          (int)cpu.launches, (int)cpu.bytes_read, (int)cpu.bytes_written);
    check(!memcmp(&cpu, &checked, sizeof cpu), "the counters of the two devices differ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_misdeeds_are_found),
        cmocka_unit_test(test_new_buffers_are_no_numbers),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_same_bits_as_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
