// The classes of Metal that compute programs use, and the rules that their documentation states:
// the device and its buffers here. A call that breaks a rule is found, and does nothing; Metal's
// own validation would end the process.
//
// Work is done as late as it may be: when somebody waits, or asks for a command buffer while as
// many as a queue allows are under way. So whoever forgets to wait reads what was there before.
#include "internal.h"

#include <stdlib.h>
#include <string.h>

typedef metal_object object; // of any class; what it is stands in the name of the variable

enum { SHARED_MAX = 32 << 10 }; // Metal Feature Set Tables, Apple4 and later
static const size_t memory_bytes = (size_t)8 << 30;

static const metal_class class_device, class_array;

// A nil, or an object of another class, where one of this class belongs.
bool metal_is_a(const object *o, const metal_class *isa, const char *where) {
    if (o && o->isa == isa && o->refs > 0) return true;
    metal_finding("%s: gets %s where %s belongs.", where,
                  !o             ? "nil"
                  : o->refs <= 0 ? "an object that was released for the last time"
                                 : o->isa->name,
                  isa->name);
    return false;
}

// ---- Buffers ----------------------------------------------------------------------------------

static void buffer_done(void *data) {
    metal_buffer *b = data;
    memset(b->memory, 0xff, b->bytes); // NaN, if it is read again
    free(b->memory);
    metal_state.bytes -= b->bytes;
}

static size_t buffer_max(void) {
    return metal_wish.buffer_max ? metal_wish.buffer_max : memory_bytes / 2;
}

// MTLDevice, makeBuffer(length:options:) and maxBufferLength, the most
// bytes of one buffer; an empty one there is none.
static bool rule_buffer_length(size_t bytes) {
    if (bytes > 0 && bytes <= buffer_max()) return true;
    metal_finding(
        "-[MTLDevice newBufferWithLength:options:]: the length is %zu, but it must be 1 to "
        "%zu (maxBufferLength).",
        bytes, buffer_max());
    return false;
}

// MTLResourceOptions: MTLResourceStorageModeShared is 0; contents are there for it alone. The write
// combined cache mode is 1.
static bool rule_buffer_options(metal_uint options) {
    if ((options & ~1ul) == 0) return true;
    metal_finding("-[MTLDevice newBufferWithLength:options:]: options 0x%lx are not shared storage "
                  "with a CPU cache mode, all that the simulated Metal has.",
                  options);
    return false;
}

// MTLDevice, makeBuffer(length:options:): the memory is cleared; nil where there is none.
static object *device_buffer(object *self, metal_sel sel, metal_uint bytes, metal_uint options) {
    (void)self, (void)sel;
    METAL_LOCKED;
    if (!rule_buffer_length(bytes) || !rule_buffer_options(options)) return NULL;
    if (metal_wish.memory_max && metal_state.bytes + bytes > metal_wish.memory_max) return NULL;
    size_t whole = (bytes + 255) / 256 * 256;
    unsigned char *memory = aligned_alloc(256, whole);
    if (!memory) return NULL;
    memset(memory, 0, whole);
    object *o = metal_new(&metal_class_buffer, sizeof(metal_buffer));
    *(metal_buffer *)o->data = (metal_buffer){memory, bytes};
    metal_state.bytes += bytes;
    return o;
}

static void *buffer_contents(object *self, metal_sel sel) {
    (void)sel;
    return ((metal_buffer *)self->data)->memory;
}
static metal_uint buffer_length(object *self, metal_sel sel) {
    (void)sel;
    return ((metal_buffer *)self->data)->bytes;
}

metal_uint metal_shared_max(void) {
    return metal_wish.shared_max ? metal_wish.shared_max : SHARED_MAX;
}

// ---- The device -------------------------------------------------------------------------------

METAL_EXPORT object *MTLCreateSystemDefaultDevice(void);
METAL_EXPORT object *MTLCopyAllDevices(void);

typedef struct array_data {
    object *first; // NULL: it is empty
} array_data;

static void array_done(void *data) {
    metal_drop(((array_data *)data)->first);
}
static object *array_first(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    object *first = ((array_data *)self->data)->first;
    return first ? metal_autorelease(metal_keep(first)) : NULL;
}

static object *the_device(void) {
    static object *device;
    if (device && device->refs > 0) return metal_keep(device);
    return device = metal_new(&class_device, 0);
}

// MTLCreateSystemDefaultDevice(): nil where Metal is not supported; else a reference to the device,
// which is one for all who ask.
object *MTLCreateSystemDefaultDevice(void) {
    METAL_LOCKED;
    return metal_wish.no_device || metal_wish.no_default ? NULL : the_device();
}

// MTLCopyAllDevices(): all GPUs, also for programs that have no default one; the caller releases
// the array.
object *MTLCopyAllDevices(void) {
    METAL_LOCKED;
    object *o = metal_new(&class_array, sizeof(array_data));
    if (!metal_wish.no_device) ((array_data *)o->data)->first = the_device();
    return o;
}

static object *device_name(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return metal_string("Simulated Metal");
}
static metal_uint device_shared_max(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return metal_shared_max();
}
static metal_uint device_buffer_max(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return buffer_max();
}
static uint64_t device_working_set(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return metal_wish.memory_max ? metal_wish.memory_max : memory_bytes;
}
static signed char device_unified(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return !metal_wish.not_unified;
}

static int apple_family(void) {
    return metal_wish.family ? metal_wish.family : 7;
}

// MTLGPUFamily: an Apple7 (M1), where nothing else is wished, that is also Mac2 and Common3; from
// Apple7 on a GPU is Metal3 (Metal Feature Set Tables).
static signed char device_family(object *self, metal_sel sel, long family) {
    (void)self, (void)sel;
    return (family >= 1001 && family <= 1000 + apple_family()) || family == 2002 ||
           (family >= 3001 && family <= 3003) || (family == 5001 && apple_family() >= 7);
}

// MTLDevice, makeLibrary(source:options:).
static object *device_library(object *self, metal_sel sel, object *text, object *options,
                              object **error) {
    (void)self, (void)sel;
    METAL_LOCKED;
    return metal_library_make(text, options, apple_family(), error);
}
static object *device_pipeline(object *self, metal_sel sel, object *function, object **error) {
    (void)self, (void)sel;
    METAL_LOCKED;
    return metal_pipeline_make(function, error);
}
static object *device_queue(object *self, metal_sel sel) {
    (void)self, (void)sel;
    METAL_LOCKED;
    return metal_queue_make();
}

// ---- Classes ----------------------------------------------------------------------------------

static METAL_CLASS(class_device, "MTLDevice", NULL, &metal_state.devices,
                   METAL_METHOD("name", device_name), METAL_METHOD("newCommandQueue", device_queue),
                   METAL_METHOD("newBufferWithLength:options:", device_buffer),
                   METAL_METHOD("newLibraryWithSource:options:error:", device_library),
                   METAL_METHOD("newComputePipelineStateWithFunction:error:", device_pipeline),
                   METAL_METHOD("maxThreadgroupMemoryLength", device_shared_max),
                   METAL_METHOD("maxBufferLength", device_buffer_max),
                   METAL_METHOD("recommendedMaxWorkingSetSize", device_working_set),
                   METAL_METHOD("hasUnifiedMemory", device_unified),
                   METAL_METHOD("supportsFamily:", device_family));
static METAL_CLASS(class_array, "NSArray", array_done, &metal_state.arrays,
                   METAL_METHOD("firstObject", array_first));
METAL_CLASS(metal_class_buffer, "MTLBuffer", buffer_done, &metal_state.buffers,
            METAL_METHOD("contents", buffer_contents), METAL_METHOD("length", buffer_length));
