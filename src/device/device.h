// The seam between Bantam and hardware. A device launches kernels on buffers; it does not know
// what an operator is. A training step is a list of launches, plain data, given to the device
// once (program_init) and then run any number of times without the host (run). Whatever changes
// from step to step lives in buffers.
//
// To add a device: fill a bt_device_api, name it in registry.c, and run every kernel of
// kernels.h, or do not register (there is no fallback to the host).
#ifndef BT_DEVICE_DEVICE_H
#define BT_DEVICE_DEVICE_H

#include "base/status.h"

// Portable limits: kc holds kernels to them, static asserts the bindings and scalars, validate.c
// the alignment, and bt_portable_pick the grid.
enum {
    BT_BINDINGS_MAX = 8,
    BT_GROUP_THREADS_MAX = 256,
    BT_GROUP_SHARED_BYTES_MAX = 16384,
    BT_SCALAR_BYTES_MAX = 64,
    BT_GROUPS_MAX = 65535, // along each axis of a grid
    BT_BINDING_ALIGN = 256,
};

typedef struct bt_device bt_device;
typedef struct bt_device_program bt_device_program;

typedef struct bt_buffer {
    void *handle; // the device's own; on the CPU the memory itself
    size_t bytes;
} bt_buffer;

// A range of a buffer. `offset` is a multiple of BT_BINDING_ALIGN.
typedef struct bt_binding {
    bt_buffer *buffer;
    size_t offset, bytes;
} bt_binding;

// One kernel on some buffers: plain data, so that checking, profiling, planning and replay are
// written once for all devices.
typedef struct bt_launch {
    uint16_t kernel; // bt_kernel_id of kernels.h
    uint8_t dtype;   // BT_F32 or BT_F64: what `real` is inside the kernel
    uint8_t binding_count;
    bt_binding binding[BT_BINDINGS_MAX];
    _Alignas(8) unsigned char scalars[BT_SCALAR_BYTES_MAX]; // the kernel's bt_*_args
} bt_launch;

// How a program will be used.
typedef struct bt_program_use {
    bool timed;                // every launch is timed
    const bt_binding *outputs; // what is read after runs, beside buffers that outlive the program
    int output_count;
} bt_program_use;

// What crossed between the host and the device since it was opened.
typedef struct bt_device_counters {
    uint64_t submissions;   // times the device was given work to run
    uint64_t launches;      // kernels that this ran
    uint64_t bytes_written; // host to device
    uint64_t bytes_read;    // device to host
} bt_device_counters;

struct bt_portable;   // portable.h
struct bt_launch_log; // base/launch_log.h

typedef struct bt_device_api {
    const char *name; // "cpu"
    bool portable;    // runs the kernels of bt_portable_table, picked by bt_portable_pick
    bool host;        // runs on the CPU: calls functions of the host, and computes in f64

    // Describes device `index` of this kind; false when there is none (index 0 always fills in
    // the reason). Without a name nobody would expect one here, and it is not listed.
    bool (*probe)(int index, bt_device_info *out);
    bt_status (*open)(int index, const bt_context_desc *desc, bt_error *err, bt_device **out);
    void (*close)(bt_device *dev);

    // Contents are undefined until written. bytes > 0.
    bt_status (*buffer_init)(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out);
    void (*buffer_done)(bt_device *dev, bt_buffer *buffer);
    bt_status (*write)(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                       size_t bytes, bt_error *err);
    // Waits for all runs, then copies.
    bt_status (*read)(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                      size_t bytes, bt_error *err);

    // Records launches that are run in this order, each seeing what the ones before it wrote.
    // The launches are copied; the buffers must outlive the program.
    bt_status (*program_init)(bt_device *dev, const bt_launch *launches, int count,
                              const bt_program_use *use, bt_error *err, bt_device_program **out);
    void (*program_done)(bt_device *dev, bt_device_program *program);
    // Queues `steps` repetitions; may return before they are done.
    bt_status (*run)(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err);
    bt_status (*wait)(bt_device *dev, bt_error *err);
    // Seconds spent in each launch over all runs so far (count numbers), and in the runs as a
    // whole, from first start to last end.
    void (*times)(bt_device *dev, const bt_device_program *program, double *seconds, double *total);
    // The same launch by launch, on the clock of the host; NULL: it is not timed.
    const struct bt_launch_log *(*log)(const bt_device_program *program);
    const bt_device_counters *(*counters)(const bt_device *dev);
    // By kernel: so many launches after one of it may be done together with it, so what it touches
    // must not be used anew by them. NULL: none.
    const unsigned char *joined;
    // The kernel that does launch `i` where that is not the launch's own; *into: the launch to
    // which its time is counted, i itself or another one that is done with it; *bytes is changed
    // where it moves less then. NULL: none ever.
    const char *(*merged)(const bt_device_program *program, int i, int *into, double *bytes);
    // What it computes products of F32 with, given what `open` was asked for; NULL: FP32 always.
    bt_precision (*precision)(const bt_device *dev);
    // How a program is run, in a few words for a log; NULL: nothing to say.
    const char *(*note)(const bt_device_program *program);
    // Runs kernel `portable` of bt_portable_table from another text, in `language`, under the rules
    // of `rules` (its grid, when and special words), in all programs from their next run on.
    // Copies what `rules` points to. Fails, swapped all the same, where a program does not run with
    // it: swap the old one back. NULL: the device cannot.
    bt_status (*kernel_swap)(bt_device *dev, int portable, const struct bt_portable *rules,
                             const char *text, bt_error *err);
    const char *language; // of those texts: "glsl", "cuda"
} bt_device_api;

// Registered kinds, in order of preference; NULL at the end (registry.c).
extern const bt_device_api *const bt_device_kinds[];

// Finds and opens "cpu", "cpu:0", "gpu" (the first device there that is a GPU) ...
bt_status bt_device_open(const bt_context_desc *desc, bt_error *err, const bt_device_api **api,
                         int *index, bt_device **out);

#endif
