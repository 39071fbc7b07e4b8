// What the files of the Metal device share, and its tests see. One bt_device belongs to one context
// and is used by one thread at a time; only what loader.c keeps is shared by the process.
#ifndef BT_DEVICE_METAL_INTERNAL_H
#define BT_DEVICE_METAL_INTERNAL_H

#include "device/metal/metal.h"
#include "device/portable.h"

// ---- loader.c: Metal as C sees it ---------------------------------------------------------------

typedef void *bt_mtl;                // an object or a class; nil is NULL
typedef const void *bt_mtl_selector; // the registered name of a message
typedef unsigned long bt_mtl_uint;   // NSUInteger
typedef struct bt_mtl_size {
    bt_mtl_uint x, y, z;
} bt_mtl_size; // MTLSize

// X(name, selector): every message that Bantam sends.
// clang-format off
#define BT_METAL_SELECTORS(X) \
    X(string, "stringWithUTF8String:") X(utf8, "UTF8String") X(make, "new") \
    X(release, "release") X(retain, "retain") X(first, "firstObject") \
    X(name, "name") X(max_buffer, "maxBufferLength") X(has_unified, "hasUnifiedMemory") \
    X(working_set, "recommendedMaxWorkingSetSize") X(supports_family, "supportsFamily:") \
    X(max_shared, "maxThreadgroupMemoryLength") X(new_queue, "newCommandQueue") \
    X(new_buffer, "newBufferWithLength:options:") X(contents, "contents") \
    X(set_fast_math, "setFastMathEnabled:") \
    X(new_library, "newLibraryWithSource:options:error:") \
    X(set_constant, "setConstantValue:type:atIndex:") \
    X(new_function, "newFunctionWithName:constantValues:error:") \
    X(new_pipeline, "newComputePipelineStateWithFunction:error:") \
    X(max_threads, "maxTotalThreadsPerThreadgroup") \
    X(static_shared, "staticThreadgroupMemoryLength") \
    X(command_buffer, "commandBufferWithUnretainedReferences") \
    X(compute_encoder, "computeCommandEncoderWithDispatchType:") \
    X(barrier, "memoryBarrierWithScope:") \
    X(set_pipeline, "setComputePipelineState:") X(set_buffer, "setBuffer:offset:atIndex:") \
    X(set_bytes, "setBytes:length:atIndex:") \
    X(dispatch, "dispatchThreadgroups:threadsPerThreadgroup:") X(end_encoding, "endEncoding") \
    X(commit, "commit") X(wait, "waitUntilCompleted") X(status, "status") X(error, "error") \
    X(description, "localizedDescription") X(code, "code") X(domain, "domain") \
    X(gpu_start, "GPUStartTime") X(gpu_end, "GPUEndTime")
// clang-format on

typedef struct bt_metal_functions {
    void (*send)(void); // objc_msgSend, to be called as what the message is: BT_METAL
    bt_mtl (*class_of)(const char *name);
    void *(*pool_push)(void);
    void (*pool_pop)(void *pool);
    bt_mtl (*default_device)(void);
    bt_mtl (*all_devices)(void); // an array, to be released
#define X(name, selector) bt_mtl_selector name;
    BT_METAL_SELECTORS(X)
#undef X
} bt_metal_functions;
extern bt_metal_functions bt_metal;

// objc_msgSend as a function that returns `type`; behind it come the types of the arguments that
// follow the object and the selector.
#define BT_METAL(type, ...) ((type(*)(bt_mtl, bt_mtl_selector, ##__VA_ARGS__))bt_metal.send)

static inline bt_mtl bt_mtl_object(bt_mtl object, bt_mtl_selector selector) {
    return BT_METAL(bt_mtl)(object, selector);
}
static inline bt_mtl_uint bt_mtl_number(bt_mtl object, bt_mtl_selector selector) {
    return BT_METAL(bt_mtl_uint)(object, selector);
}
static inline void bt_mtl_do(bt_mtl object, bt_mtl_selector selector) {
    BT_METAL(void)(object, selector);
}
static inline void bt_mtl_release(bt_mtl object) {
    if (object) BT_METAL(void)(object, bt_metal.release);
}

// An NSString of the text, and the text of an NSString ("" of nil); both live as long as the pool.
bt_mtl bt_mtl_string(const char *text);
const char *bt_mtl_text(bt_mtl string);

enum { BT_METAL_REASON_BYTES = 192 };

// The GPU, to be released. NULL: there is none, and why. *possible is false where nobody expects
// one: not on a Mac.
bt_mtl bt_metal_gpu(char reason[BT_METAL_REASON_BYTES], bool *possible);
// Is it played by what BANTAM_METAL names?
bool bt_metal_simulated(void);

// ---- The device ---------------------------------------------------------------------------------

// Generated: the MSL of each kernel of bt_portable_table.
extern const char *const bt_metal_texts[];

// Generated: the MSL of the overrides, kernels/metal/NAME.metal below the helpers of its kernel.
typedef struct bt_metal_file {
    const char *name; // "matmul_simd.metal"
    const unsigned char *begin, *end;
} bt_metal_file;
extern const bt_metal_file bt_metal_files[];

// A kernel with its constants compiled in: which bindings are there, and the `const` scalars.
typedef struct bt_metal_pipeline {
    struct bt_metal_pipeline *next;
    int kernel; // of dev->table
    uint32_t constants[1 + BT_SPECIAL_MAX];
    bt_mtl handle;
} bt_metal_pipeline;

enum { BT_METAL_IN_FLIGHT = 4 };

// A command buffer that may be under way.
typedef struct bt_metal_slot {
    bt_mtl commands; // NULL: nothing is under way
    bt_device_program *program;
    uint32_t steps;
    int launch;  // of a timed program, the only one in it
    bool first;  // of its run
    double sent; // bt_seconds then
} bt_metal_slot;

struct bt_device {
    bt_device_counters counters;
    int index;
    char name[64];
    bt_error lost; // once a command buffer failed every call fails with this
    bt_mtl gpu, queue;
    bt_metal_slot slots[BT_METAL_IN_FLIGHT];
    uint32_t next_slot;

    bt_mtl nothing; // is bound where a binding is absent
    size_t used_bytes, most_bytes, working_set;

    int family;      // the newest generation of Apple's GPUs that it belongs to; 0: none
    bool concurrent; // dispatches may run side by side
    bool no_overrides;
    bt_portable *table;        // bt_portable_table, with kernels swapped; then the overrides
    int kernel_count;          // of it
    bt_portable_rules **rules; // of those that were swapped
    bt_mtl *libraries;         // of each kernel, compiled; NULL: not needed so far
    bt_metal_pipeline *pipelines;
    uint64_t generation;         // counts swaps
    bt_device_program *programs; // those that are alive
};

// device.c
bt_status bt_metal_alive(const bt_device *dev, bt_error *err);

// memory.c
bt_status bt_metal_memory_open(bt_device *dev, bt_error *err);
void bt_metal_memory_close(bt_device *dev);
bt_status bt_metal_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out);
void bt_metal_buffer_done(bt_device *dev, bt_buffer *buffer);
bt_status bt_metal_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                         size_t bytes, bt_error *err);
bt_status bt_metal_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                        size_t bytes, bt_error *err);

// pipeline.c
bt_status bt_metal_pipelines_open(bt_device *dev, bt_error *err);
void bt_metal_pipelines_close(bt_device *dev);
// Compiles the MSL of a kernel, that which came with Bantam (`own`) or another one.
bt_status bt_metal_compile(bt_device *dev, const bt_portable *kernel, bool own, const char *text,
                           bt_error *err, bt_mtl *out);
// The pipeline that runs the launch as kernel `kernel` of dev->table, made when it is first needed.
bt_status bt_metal_pipeline_for(bt_device *dev, const bt_launch *launch, int kernel, bt_mtl *out,
                                bt_error *err);
// Forgets those of a kernel. Nothing may be under way.
void bt_metal_pipelines_drop(bt_device *dev, int kernel);

// override.c
extern const int bt_metal_override_count;
// Fills in entries for the overrides, behind those of bt_portable_table.
void bt_metal_overrides_fill(bt_portable *table);
// The entry of dev->table that runs the launch faster than a portable kernel, and its grid; -1:
// there is none.
int bt_metal_override_for(const bt_device *dev, const bt_launch *launch, uint32_t grid[3]);

// swap.c
bt_status bt_metal_kernel_swap(bt_device *dev, int portable, const bt_portable *rules,
                               const char *text, bt_error *err);

// program.c
bt_status bt_metal_program_init(bt_device *dev, const bt_launch *launches, int count,
                                const bt_program_use *use, bt_error *err, bt_device_program **out);
void bt_metal_program_done(bt_device *dev, bt_device_program *program);
bt_status bt_metal_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err);
bt_status bt_metal_wait(bt_device *dev, bt_error *err);
void bt_metal_times(bt_device *dev, const bt_device_program *program, double *seconds,
                    double *total);
const char *bt_metal_merged(const bt_device_program *program, int launch, int *into, double *bytes);
const struct bt_launch_log *bt_metal_log(const bt_device_program *program);
// Finds the kernels of all programs anew, so that a swap that does not fit one fails now.
bt_status bt_metal_resolve_all(bt_device *dev, bt_error *err);

#endif
