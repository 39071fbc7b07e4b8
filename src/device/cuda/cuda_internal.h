// What the files of the CUDA device share, and its tests see. One bt_device belongs to one context
// and is used by one thread at a time; only what loader.c keeps is shared by the process.
#ifndef BT_DEVICE_CUDA_INTERNAL_H
#define BT_DEVICE_CUDA_INTERNAL_H

#include "device/cuda/cuda.h"
#include "device/cuda/driver.h"
#include "device/cuda/whole.h"
#include "device/portable.h"

#include "cuda/args.h" // of kernels/

// ---- loader.c: the driver and the GPUs --------------------------------------------------------

enum { BT_CUDA_REASON_BYTES = 192, BT_CUDA_NAME_BYTES = 80 };

typedef struct bt_cuda_chip {
    CUdevice handle;
    char name[BT_CUDA_NAME_BYTES];
    size_t memory_bytes;
    int driver;     // the CUDA version it is for: 13000 is 13.0
    int capability; // 90: 9.0
    int sms;
    size_t shared_max; // of a block, when it asks for it
} bt_cuda_chip;

// GPU `index` of those that can run Bantam. false: there is none, and why.
bool bt_cuda_chip_at(int index, bt_cuda_chip *out, char reason[BT_CUDA_REASON_BYTES]);

// ---- Code in the library (written by the build) -----------------------------------------------

// A compiled kernel file ("portable.cubin", "ahead_mlp.cubin"), or a source text of kernels/cuda
// ("mlp.cu", "args.h", "ahead.txt"), which a 0 follows. NULL name at the end.
typedef struct bt_cuda_image {
    const char *name;
    const unsigned char *begin, *end;
} bt_cuda_image;
extern const bt_cuda_image bt_cuda_images[];

const bt_cuda_image *bt_cuda_image_named(const char *name); // NULL: the build has none

// ---- The device -------------------------------------------------------------------------------

typedef struct bt_cuda_module {
    struct bt_cuda_module *next;
    char name[64]; // of its image
    CUmodule handle;
} bt_cuda_module;

typedef struct bt_cuda_scratch {
    struct bt_cuda_scratch *next;
    CUdeviceptr address;
    size_t bytes;
} bt_cuda_scratch;

enum { BT_CUDA_IN_FLIGHT = 4 };

// A run that may be under way.
typedef struct bt_cuda_slot {
    CUevent begin, end;
    bt_device_program *program; // NULL: nothing is under way
} bt_cuda_slot;

struct bt_device {
    bt_device_counters counters;
    int index;
    bt_error lost; // once a kernel has failed every call fails with this
    bt_cuda_chip chip;
    bt_precision precision;
    bool no_overrides;          // portable kernels alone
    char no_gemm[BT_WHY_BYTES]; // why products are left to portable kernels; "": they are not
    CUcontext context;
    CUstream stream;
    size_t used_bytes; // of its memory
    bt_cuda_slot slots[BT_CUDA_IN_FLIGHT];
    uint32_t next_slot;

    bt_cuda_module *modules;
    CUfunction *functions;     // of each portable kernel; NULL: not needed yet
    CUmodule *swapped;         // of those that were swapped
    uint32_t swaps;            // how often
    bt_portable *table;        // bt_portable_table, with kernels swapped
    bt_portable_rules **rules; // of those that were swapped
    bt_cuda_scratch *scratch;  // the largest first; what programs hold stays
    bt_device_program *programs;
};

// device.c
bt_status bt_cuda_check(bt_device *dev, CUresult result, const char *doing, bt_error *err);
// Before every call of the driver: is the GPU well? Then its context is this thread's.
bt_status bt_cuda_enter(bt_device *dev, bt_error *err);

// memory.c
bt_status bt_cuda_buffer_init(bt_device *dev, size_t bytes, bt_error *err, bt_buffer *out);
void bt_cuda_buffer_done(bt_device *dev, bt_buffer *buffer);
bt_status bt_cuda_write(bt_device *dev, bt_buffer *buffer, size_t offset, const void *data,
                        size_t bytes, bt_error *err);
bt_status bt_cuda_read(bt_device *dev, const bt_buffer *buffer, size_t offset, void *data,
                       size_t bytes, bt_error *err);
bt_status bt_cuda_alloc(bt_device *dev, size_t bytes, const char *what, CUdeviceptr *out,
                        bt_error *err);
void bt_cuda_free(bt_device *dev, CUdeviceptr address, size_t bytes);
// Where a binding begins; 0: it is absent.
CUdeviceptr bt_cuda_address(const bt_binding *binding);
// Memory for what a launch needs between its own nodes. All launches get the same, so a node that
// uses it says so (bt_cuda_node.scratch).
bt_status bt_cuda_scratch_for(bt_device *dev, size_t bytes, CUdeviceptr *out, bt_error *err);
void bt_cuda_scratch_close(bt_device *dev);

// ---- Kernels to run ---------------------------------------------------------------------------

enum { BT_CUDA_ARGS_BYTES = 512, BT_CUDA_NODES_MAX = 8 };

// One kernel with its arguments. Functions with more than 48 KiB of dynamic shared memory, or
// clusters above 8, need their attributes set (bt_cuda_allow).
typedef struct bt_cuda_node {
    CUfunction function;
    unsigned grid[3], block;                            // block: threads along x
    unsigned cluster;                                   // blocks along x; 0: none
    unsigned shared;                                    // dynamic bytes of a block
    bool scratch;                                       // uses bt_cuda_scratch_for
    bool early;                                         // it waits by griddepcontrol.wait
    bool one;                                           // args is one parameter, a struct
    _Alignas(8) unsigned char args[BT_CUDA_ARGS_BYTES]; // laid out as its parameters
    size_t args_bytes;
} bt_cuda_node;

// module.c
// Function `entry` of the image called `name`, which is loaded when it is first needed.
bt_status bt_cuda_function(bt_device *dev, const char *name, const char *entry, CUfunction *out,
                           bt_error *err);
bt_status bt_cuda_load(bt_device *dev, const void *image, const char *name, CUmodule *out,
                       bt_error *err);
bt_status bt_cuda_allow(bt_device *dev, CUfunction function, size_t shared, unsigned cluster,
                        bt_error *err);
bt_status bt_cuda_modules_open(bt_device *dev, bt_error *err);
void bt_cuda_modules_close(bt_device *dev);
// The portable kernel for a launch; special: its function compiled for the launch, or NULL.
bt_status bt_cuda_portable_node(bt_device *dev, const bt_launch *launch, CUfunction special,
                                bt_cuda_node *node, bt_error *err);

// Are there kernels of gemm.c for the chip, from the build or by NVRTC? dev->no_gemm says why not.
bool bt_cuda_has_gemm(bt_device *dev);

// gemm.c: does the launch by `count` kernels (at most BT_CUDA_NODES_MAX), each of which needs the
// one before it. false: the portable kernel is to do it; or err->status says what went wrong.
bool bt_cuda_gemm_expand(bt_device *dev, const bt_launch *launch, bt_cuda_node *nodes, int *count,
                         bt_error *err);

// graph.c
typedef struct bt_cuda_tape {
    const bt_cuda_node *nodes; // of one step
    const int *first;          // node of each launch; first[count]: how many nodes
    const bt_launch *launches;
    int count;
    CUevent *events; // NULL, or 2 for each launch, which then run one after the other
} bt_cuda_tape;

bt_status bt_cuda_record(bt_device *dev, const bt_cuda_tape *tape, uint32_t steps, CUgraphExec *out,
                         bt_error *err);

// ---- Whole-program kernels (whole.c) ----------------------------------------------------------

typedef struct bt_cuda_whole {
    bt_whole_plan plan;
    bool ahead; // compiled by the build
    bt_net_args args;
    CUmodule module;
    CUfunction function;
    CUdeviceptr scratch;
} bt_cuda_whole;

// NULL in *out: no whole-program kernel does it, and `why` says why not.
bt_status bt_cuda_whole_make(bt_device *dev, const bt_launch *launches, int count,
                             const bt_program_use *use, bt_cuda_whole **out, char why[BT_WHY_BYTES],
                             bt_error *err);
bt_status bt_cuda_whole_run(bt_device *dev, bt_cuda_whole *whole, uint32_t steps, bt_error *err);
void bt_cuda_whole_free(bt_device *dev, bt_cuda_whole *whole);
// The image that was compiled ahead for a plan (kernels/cuda/ahead.txt); NULL: none.
const bt_cuda_image *bt_cuda_ahead(const bt_whole_plan *plan);

// compile.c: NVRTC, which is opened when it is first needed.
// Machine code for the chip, to be freed. false: `why` says what is missing, or the first error.
bool bt_cuda_compile(const char *text, const char *name, int capability, unsigned char **code,
                     size_t *bytes, char *why, size_t why_bytes);
// Its version, 13000 for 13.0; 0: it is not there.
int bt_cuda_compiler(char *why, size_t why_bytes);

// cache.c: machine code on disk, by a key of text.
unsigned char *bt_cuda_cache_read(const char *key, size_t *bytes); // to be freed; NULL: none
void bt_cuda_cache_write(const char *key, const unsigned char *code, size_t bytes);
// Of a text whose code the driver does not take: it shall be compiled again next time.
void bt_cuda_cache_forget(const bt_device *dev, const char *text);
// Machine code of a text for the device, from the cache or by NVRTC, to be freed. NULL: `why` says
// why there is none.
unsigned char *bt_cuda_cached(const bt_device *dev, const char *text, const char *name,
                              size_t *bytes, char *why, size_t why_bytes);

// special.c: portable kernels compiled for one program. *module stays NULL, and `why` says why,
// when that cannot be; functions[i] is that of launch i.
bt_status bt_cuda_special_make(bt_device *dev, const bt_launch *launches, int count,
                               CUmodule *module, CUfunction *functions, char why[BT_WHY_BYTES],
                               bt_error *err);

// swap.c
bt_status bt_cuda_kernel_swap(bt_device *dev, int portable, const bt_portable *rules,
                              const char *text, bt_error *err);

// program.c
bt_status bt_cuda_program_init(bt_device *dev, const bt_launch *launches, int count,
                               const bt_program_use *use, bt_error *err, bt_device_program **out);
void bt_cuda_program_done(bt_device *dev, bt_device_program *program);
bt_status bt_cuda_run(bt_device *dev, bt_device_program *program, uint32_t steps, bt_error *err);
bt_status bt_cuda_wait(bt_device *dev, bt_error *err);
void bt_cuda_times(bt_device *dev, const bt_device_program *program, double *seconds,
                   double *total);
const struct bt_launch_log *bt_cuda_log(const bt_device_program *program);
const char *bt_cuda_note(const bt_device_program *program);
const bt_whole_plan *bt_cuda_plan(const bt_device_program *program); // NULL: launch by launch
bt_status bt_cuda_resolve_all(bt_device *dev, bt_error *err);

#endif
