// The classes of Metal that compute programs use, and the rules that their documentation states. A
// call that breaks one is found, and does nothing; Metal's own validation would end the process.
//
// Work is done as late as it may be: when somebody waits, or asks for a command buffer while as
// many as a queue allows are under way. So whoever forgets to wait reads what was there before.
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long ulong; // NSUInteger
typedef struct size3 {       // MTLSize
    ulong width, height, depth;
} size3;
typedef metal_object object; // of any class; what it is stands in the name of the variable

enum { FLYING_MAX = 64 };       // of newCommandQueue
enum { BYTES_MAX = 4096 };      // of setBytes:length:atIndex:
enum { SHARED_MAX = 32 << 10 }; // Metal Feature Set Tables, Apple4 and later
enum { CONSTANT_ALIGN = 32 };   // the same, "Minimum constant buffer offset alignment", Mac2
enum { ERROR_PAGE_FAULT = 3, ERROR_COMPILE = 3, ERROR_PIPELINE = 1 };
static const size_t memory_bytes = (size_t)8 << 30;

// MTLCommandBufferStatus.
enum { NOT_ENQUEUED = 0, COMMITTED = 2, COMPLETED = 4, FAILED = 5 };

typedef struct buffer_data {
    unsigned char *memory;
    size_t bytes;
} buffer_data;

typedef struct library_data {
    metal_program program;
} library_data;

typedef struct kernel_data { // of a function, and of a pipeline
    object *library;
    const sim_kernel *kernel;
} kernel_data;

typedef struct queue_data {
    object *first, *last; // committed command buffers that are not done, linked by `next`
    int unfinished;       // of all its command buffers
} queue_data;

typedef struct place { // what is bound at an index
    object *buffer;
    size_t offset;
    unsigned char *bytes; // instead of a buffer
    size_t byte_count;
} place;

typedef struct dispatch {
    struct dispatch *next;
    object *pipeline;
    unsigned groups[3], threads[3];
    place places[METAL_BUFFERS];
} dispatch;

typedef struct command_data {
    object *queue, *next, *error;
    object *encoder; // that has not ended; not kept
    dispatch *first, *last;
    int status;
    double start, end;
} command_data;

typedef struct encoder_data {
    object *command, *pipeline;
    place places[METAL_BUFFERS];
    bool ended;
} encoder_data;

static const metal_class class_queue, class_command, class_encoder, class_buffer, class_library,
    class_function, class_pipeline, class_device;

// A nil, or an object of another class, where one of this class belongs.
static bool is_a(const object *o, const metal_class *isa, const char *where) {
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
    buffer_data *b = data;
    memset(b->memory, 0xdd, b->bytes); // shows if it is read again
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
static bool rule_buffer_options(ulong options) {
    if ((options & ~1ul) == 0) return true;
    metal_finding("-[MTLDevice newBufferWithLength:options:]: options 0x%lx are not shared storage "
                  "with a CPU cache mode, all that the simulated Metal has.",
                  options);
    return false;
}

// MTLDevice, makeBuffer(length:options:): the memory is cleared; nil where there is none.
static object *device_buffer(object *self, metal_sel sel, ulong bytes, ulong options) {
    (void)self, (void)sel;
    METAL_LOCKED;
    if (!rule_buffer_length(bytes) || !rule_buffer_options(options)) return NULL;
    if (metal_wish.memory_max && metal_state.bytes + bytes > metal_wish.memory_max) return NULL;
    size_t whole = (bytes + 255) / 256 * 256;
    unsigned char *memory = aligned_alloc(256, whole);
    if (!memory) return NULL;
    memset(memory, 0, whole);
    object *o = metal_new(&class_buffer, sizeof(buffer_data));
    *(buffer_data *)o->data = (buffer_data){memory, bytes};
    metal_state.bytes += bytes;
    return o;
}

static void *buffer_contents(object *self, metal_sel sel) {
    (void)sel;
    return ((buffer_data *)self->data)->memory;
}
static ulong buffer_length(object *self, metal_sel sel) {
    (void)sel;
    return ((buffer_data *)self->data)->bytes;
}

// ---- Libraries, functions, pipelines ----------------------------------------------------------

// MTLDevice, makeLibrary(source:options:): the error tells what the compiler says.
static object *device_library(object *self, metal_sel sel, object *text, object *options,
                              object **error) {
    (void)self, (void)sel;
    METAL_LOCKED;
    static const char where[] = "-[MTLDevice newLibraryWithSource:options:error:]";
    char said[8192];
    metal_program program;
    if (!is_a(text, &metal_class_string, where)) return NULL;
    if (options && !is_a(options, &metal_class_options, where)) return NULL;
    if (metal_wish.compile_error[0])
        return metal_refuse(error, "MTLLibraryErrorDomain", ERROR_COMPILE,
                            metal_wish.compile_error);
    if (!metal_compile(metal_string_text(text), &program, said, sizeof said))
        return metal_refuse(error, "MTLLibraryErrorDomain", ERROR_COMPILE, said);
    object *o = metal_new(&class_library, sizeof(library_data));
    ((library_data *)o->data)->program = program;
    metal_state.libraries_made++;
    return o;
}

static object *make_kernel(const metal_class *isa, object *library, const sim_kernel *kernel) {
    object *o = metal_new(isa, sizeof(kernel_data));
    *(kernel_data *)o->data = (kernel_data){metal_keep(library), kernel};
    return o;
}

static void kernel_done(void *data) {
    metal_drop(((kernel_data *)data)->library);
}

static const metal_program *program_of(const kernel_data *k) {
    return &((library_data *)k->library->data)->program;
}

// MTLLibrary, makeFunction(name:): nil where the library has none of this name.
static object *library_function(object *self, metal_sel sel, object *name) {
    (void)sel;
    METAL_LOCKED;
    if (!is_a(name, &metal_class_string, "-[MTLLibrary newFunctionWithName:]")) return NULL;
    const sim_kernel *kernel =
        metal_kernel(&((library_data *)self->data)->program, metal_string_text(name));
    return kernel && !metal_wish.no_function ? make_kernel(&class_function, self, kernel) : NULL;
}

static ulong shared_max(void) {
    return metal_wish.shared_max ? metal_wish.shared_max : SHARED_MAX;
}

// MTLDevice, maxThreadgroupMemoryLength, the most that a compute kernel may have; there is no
// pipeline for one that declares more. (Counted is the memory of all kernels of a library.)
static bool rule_shared_memory(const metal_program *program, char *text, size_t text_bytes) {
    if (program->shared_bytes <= shared_max()) return true;
    snprintf(text, text_bytes,
             "Threadgroup memory size (%llu) exceeds the maximum threadgroup memory allowed (%lu)",
             program->shared_bytes, shared_max());
    metal_finding("-[MTLDevice newComputePipelineStateWithFunction:error:]: %s.", text);
    return false;
}

static object *device_pipeline(object *self, metal_sel sel, object *function, object **error) {
    (void)self, (void)sel;
    METAL_LOCKED;
    char text[200];
    if (!is_a(function, &class_function, "-[MTLDevice newComputePipelineStateWithFunction:error:]"))
        return NULL;
    const kernel_data *k = function->data;
    if (metal_wish.pipeline_error[0])
        return metal_refuse(error, "AGXMetalG13X", ERROR_PIPELINE, metal_wish.pipeline_error);
    if (!rule_shared_memory(program_of(k), text, sizeof text))
        return metal_refuse(error, "AGXMetalG13X", ERROR_PIPELINE, text);
    return make_kernel(&class_pipeline, k->library, k->kernel);
}

static object *kernel_name(object *self, metal_sel sel) {
    (void)sel;
    return metal_string(((kernel_data *)self->data)->kernel->name);
}

static ulong threads_max(void) {
    return metal_wish.threads_max ? metal_wish.threads_max : METAL_THREADS;
}
static ulong pipeline_threads(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return threads_max();
}
static ulong pipeline_width(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return METAL_SIMD;
}
static ulong pipeline_shared(object *self, metal_sel sel) {
    (void)sel;
    return (ulong)program_of(self->data)->shared_bytes;
}

// ---- Command buffers --------------------------------------------------------------------------

static void drop_places(place *places) {
    for (int i = 0; i < METAL_BUFFERS; i++) {
        metal_drop(places[i].buffer);
        free(places[i].bytes);
        places[i] = (place){0};
    }
}

static void drop_dispatches(command_data *c) {
    while (c->first) {
        dispatch *d = c->first;
        c->first = d->next;
        metal_drop(d->pipeline);
        drop_places(d->places);
        free(d);
    }
    c->last = NULL;
}

static double now(void) {
    static double last; // no two moments are the same
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double seconds = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    return last = seconds > last ? seconds : last + 1e-9;
}

static bool run_dispatch(const dispatch *d) {
    const kernel_data *k = d->pipeline->data;
    sim_binding bindings[METAL_BUFFERS];
    memset(bindings, 0, sizeof bindings);
    for (int i = 0; i < METAL_BUFFERS; i++) {
        const place *p = &d->places[i];
        const buffer_data *b = p->buffer ? p->buffer->data : NULL;
        if (b) bindings[i] = (sim_binding){b->memory + p->offset, b->bytes - p->offset};
        if (p->bytes) bindings[i] = (sim_binding){p->bytes, p->byte_count};
    }
    metal_state.dispatches++;
    return metal_run(k->kernel, program_of(k), bindings, d->groups, d->threads);
}

static void fail_command(command_data *c, const char *domain, long code, const char *text) {
    c->error = metal_error(domain, code, text);
    c->status = FAILED;
}

// The oldest command buffer of the queue is done.
static void finish_first(queue_data *queue) {
    object *command = queue->first;
    command_data *c = command->data;
    queue->first = c->next;
    if (!queue->first) queue->last = NULL;
    c->next = NULL;
    c->start = now();
    if (metal_wish.command_error[0] && metal_wish.command_after-- == 0) {
        fail_command(c,
                     metal_wish.command_domain[0] ? metal_wish.command_domain
                                                  : "MTLCommandBufferErrorDomain",
                     metal_wish.command_code, metal_wish.command_error);
        metal_wish.command_error[0] = '\0';
    }
    for (const dispatch *d = c->first; d && c->status != FAILED; d = d->next)
        if (!run_dispatch(d))
            fail_command(c, "MTLCommandBufferErrorDomain", ERROR_PAGE_FAULT,
                         "Caused GPU Address Fault Error "
                         "(0000000b:kIOGPUCommandBufferCallbackErrorPageFault)");
    c->end = now();
    if (c->status != FAILED) c->status = COMPLETED;
    queue->unfinished--;
    metal_state.flying--;
    drop_dispatches(c);
    metal_drop(command); // the queue's
}

// What is under way gets done without anybody who waits; only then can the queue end.
static void queue_release(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    queue_data *queue = self->data;
    while (queue->first) finish_first(queue);
    metal_drop(self);
}

static object *device_queue(object *self, metal_sel sel) {
    (void)self, (void)sel;
    METAL_LOCKED;
    return metal_new(&class_queue, sizeof(queue_data));
}

// MTLDevice, makeCommandQueue(): a queue has room for 64 command buffers that are not completed;
// MTLCommandQueue, makeCommandBuffer(), waits while there are so many.
static bool rule_command_there(queue_data *queue) {
    if (queue->unfinished < FLYING_MAX) return true;
    if (queue->first) finish_first(queue);
    if (queue->unfinished < FLYING_MAX) return true;
    metal_finding("-[MTLCommandQueue commandBuffer]: %d command buffers are there that were never "
                  "committed: it would wait forever.",
                  queue->unfinished);
    return false;
}

static object *queue_command(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    queue_data *queue = self->data;
    if (!rule_command_there(queue)) return NULL;
    object *o = metal_new(&class_command, sizeof(command_data));
    ((command_data *)o->data)->queue = metal_keep(self);
    queue->unfinished++;
    return metal_autorelease(o);
}

static void command_done(void *data) {
    command_data *c = data;
    if (c->status == NOT_ENQUEUED) ((queue_data *)c->queue->data)->unfinished--;
    drop_dispatches(c);
    metal_drop(c->error);
    metal_drop(c->queue);
}

// MTLCommandBuffer, commit(): "You can only commit a command buffer once."
static bool rule_committed_once(const command_data *c) {
    if (c->status == NOT_ENQUEUED) return true;
    metal_finding("-[MTLCommandBuffer commit]: it was committed before.");
    return false;
}

// MTLCommandBuffer, commit(): "You can't commit a command buffer if the command buffer has an
// active command encoder"; MTLCommandBuffer, overview: one encoder at a time is active.
static bool rule_encoding_ended(const command_data *c, const char *where) {
    if (!c->encoder) return true;
    metal_finding("-[MTLCommandBuffer %s]: an encoder of it has not got endEncoding.", where);
    return false;
}

static void command_commit(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    command_data *c = self->data;
    if (!rule_committed_once(c) || !rule_encoding_ended(c, "commit")) return;
    queue_data *queue = c->queue->data;
    c->status = COMMITTED;
    metal_keep(self);
    if (queue->last)
        ((command_data *)queue->last->data)->next = self;
    else
        queue->first = self;
    queue->last = self;
    metal_state.commits++;
    metal_state.flying++;
}

// MTLCommandBuffer, waitUntilCompleted(): waits for a command buffer that has been committed; for
// another one it would wait forever.
static bool rule_wait_committed(const command_data *c) {
    if (c->status != NOT_ENQUEUED) return true;
    metal_finding("-[MTLCommandBuffer waitUntilCompleted]: it was not committed, and would wait "
                  "forever.");
    return false;
}

static void command_wait(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    command_data *c = self->data;
    if (!rule_wait_committed(c)) return;
    while (c->status == COMMITTED) finish_first(c->queue->data);
}

// Whoever asks again and again gets to the end.
static ulong command_status(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    const command_data *c = self->data;
    ulong status = (ulong)c->status;
    if (c->status == COMMITTED) finish_first(c->queue->data);
    return status;
}

static object *command_error(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    const command_data *c = self->data;
    return c->error ? metal_autorelease(metal_keep(c->error)) : NULL;
}
static double command_start(object *self, metal_sel sel) {
    (void)sel;
    return ((command_data *)self->data)->start;
}
static double command_end(object *self, metal_sel sel) {
    (void)sel;
    return ((command_data *)self->data)->end;
}

// ---- Encoders ---------------------------------------------------------------------------------

// MTLCommandBuffer, makeComputeCommandEncoder(): a command buffer that is committed takes no more,
// and has one encoder at a time.
static bool rule_encoder_allowed(const command_data *c) {
    if (c->status != NOT_ENQUEUED) {
        metal_finding("-[MTLCommandBuffer computeCommandEncoder]: it was committed before.");
        return false;
    }
    return rule_encoding_ended(c, "computeCommandEncoder");
}

static object *command_encoder(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    command_data *c = self->data;
    if (!rule_encoder_allowed(c)) return NULL;
    object *o = metal_new(&class_encoder, sizeof(encoder_data));
    ((encoder_data *)o->data)->command = metal_keep(self);
    c->encoder = o;
    return metal_autorelease(o);
}

static void end_encoder(encoder_data *e) {
    e->ended = true;
    ((command_data *)e->command->data)->encoder = NULL;
    metal_drop(e->pipeline);
    e->pipeline = NULL;
    drop_places(e->places);
}

// MTLCommandEncoder, endEncoding(): comes before the encoder is released.
static void rule_encoder_released(encoder_data *e) {
    if (e->ended) return;
    metal_finding("-[MTLComputeCommandEncoder dealloc]: it is released without endEncoding.");
    end_encoder(e);
}

static void encoder_done(void *data) {
    encoder_data *e = data;
    rule_encoder_released(e);
    metal_drop(e->command);
}

// MTLCommandEncoder, endEncoding(): the encoder takes no more commands after it.
static bool rule_encoding(const encoder_data *e, const char *selector) {
    if (!e->ended) return true;
    metal_finding("-[MTLComputeCommandEncoder %s]: it has got endEncoding before.", selector);
    return false;
}

static void encoder_end(object *self, metal_sel sel) {
    METAL_LOCKED;
    if (rule_encoding(self->data, sel)) end_encoder(self->data);
}

static void encoder_pipeline(object *self, metal_sel sel, object *pipeline) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel) ||
        !is_a(pipeline, &class_pipeline, "-[MTLComputeCommandEncoder setComputePipelineState:]"))
        return;
    metal_keep(pipeline);
    metal_drop(e->pipeline);
    e->pipeline = pipeline;
}

// Metal Feature Set Tables, "Maximum number of entries in the buffer argument table": 31.
static bool rule_index(ulong index, const char *selector) {
    if (index < METAL_BUFFERS) return true;
    metal_finding("-[MTLComputeCommandEncoder %s]: index %lu is not 0 to %d.", selector, index,
                  METAL_BUFFERS - 1);
    return false;
}

// MTLComputeCommandEncoder, setBuffer(_:offset:index:): the offset is one within the buffer.
static bool rule_offset(const buffer_data *b, ulong offset) {
    if (offset < b->bytes) return true;
    metal_finding(
        "-[MTLComputeCommandEncoder setBuffer:offset:atIndex:]: offset %lu is outside of a "
        "buffer of %zu bytes.",
        offset, b->bytes);
    return false;
}

static void encoder_buffer(object *self, metal_sel sel, object *buffer, ulong offset, ulong index) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel) || !rule_index(index, sel)) return;
    if (buffer &&
        (!is_a(buffer, &class_buffer, "-[MTLComputeCommandEncoder setBuffer:offset:atIndex:]") ||
         !rule_offset(buffer->data, offset)))
        return;
    metal_keep(buffer);
    metal_drop(e->places[index].buffer);
    free(e->places[index].bytes);
    e->places[index] = (place){.buffer = buffer, .offset = offset};
}

// MTLComputeCommandEncoder, setBytes(_:length:index:): for data "smaller than 4 KB".
static bool rule_bytes_length(ulong length) {
    if (length > 0 && length <= BYTES_MAX) return true;
    metal_finding(
        "-[MTLComputeCommandEncoder setBytes:length:atIndex:]: %lu bytes are not 1 to %d.", length,
        BYTES_MAX);
    return false;
}

static void encoder_bytes(object *self, metal_sel sel, const void *bytes, ulong length,
                          ulong index) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel) || !rule_index(index, sel) || !rule_bytes_length(length)) return;
    unsigned char *copy = aligned_alloc(256, (length + 255) / 256 * 256);
    if (!copy) abort();
    memcpy(copy, bytes, length);
    metal_drop(e->places[index].buffer);
    free(e->places[index].bytes);
    e->places[index] = (place){.bytes = copy, .byte_count = length};
}

// MTLBarrierScope: buffers 1, textures 2, render targets 4; MTLComputeCommandEncoder,
// memoryBarrier(scope:).
static void encoder_barrier(object *self, metal_sel sel, ulong scope) {
    METAL_LOCKED;
    if (!rule_encoding(self->data, sel)) return;
    if (scope == 0 || scope > 3)
        metal_finding("-[MTLComputeCommandEncoder memoryBarrierWithScope:]: scope %lu is none of a "
                      "compute encoder.",
                      scope);
}

// MTLComputeCommandEncoder, setComputePipelineState(_:): a dispatch needs one.
static bool rule_pipeline_set(const encoder_data *e) {
    if (e->pipeline) return true;
    metal_finding("-[MTLComputeCommandEncoder dispatchThreadgroups:threadsPerThreadgroup:]: no "
                  "pipeline state is set.");
    return false;
}

// MTLComputeCommandEncoder, setBuffer(_:offset:index:): what a kernel declares is bound, holds one
// element at least, and is aligned as its type; in the constant address space as the feature set
// tables say.
static bool rule_argument_bound(const encoder_data *e, const char *kernel, const sim_argument *a) {
    const place *p = &e->places[a->index];
    if (!p->buffer && !p->bytes) {
        metal_finding("kernel %s: nothing is bound for \"%s\", buffer %d.", kernel, a->name,
                      a->index);
        return false;
    }
    size_t bytes = p->buffer ? ((buffer_data *)p->buffer->data)->bytes - p->offset : p->byte_count;
    if (bytes < a->bytes) {
        metal_finding("kernel %s: %zu bytes are bound for \"%s\", buffer %d, that needs %llu.",
                      kernel, bytes, a->name, a->index, a->bytes);
        return false;
    }
    size_t align = a->constant ? CONSTANT_ALIGN : (size_t)a->align;
    if (p->offset % align == 0) return true;
    metal_finding("kernel %s: offset %zu of \"%s\", buffer %d, is no multiple of %zu.", kernel,
                  p->offset, a->name, a->index, align);
    return false;
}

// MTLComputeCommandEncoder, dispatchThreadgroups(_:threadsPerThreadgroup:), and
// MTLComputePipelineState, maxTotalThreadsPerThreadgroup.
static bool rule_threads(const char *kernel, size3 groups, size3 threads) {
    bool some = groups.width && groups.height && groups.depth && threads.width && threads.height &&
                threads.depth;
    ulong most = threads_max();
    if (!some)
        metal_finding(
            "kernel %s: a grid of %lu x %lu x %lu groups of %lu x %lu x %lu threads has a "
            "0.",
            kernel, groups.width, groups.height, groups.depth, threads.width, threads.height,
            threads.depth);
    else if (threads.width > most || threads.height > most || threads.depth > most ||
             threads.width * threads.height * threads.depth > most)
        metal_finding("kernel %s: a group of %lu x %lu x %lu threads is larger than %lu "
                      "(maxTotalThreadsPerThreadgroup).",
                      kernel, threads.width, threads.height, threads.depth, most);
    else
        return true;
    return false;
}

static void encoder_dispatch(object *self, metal_sel sel, size3 groups, size3 threads) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel) || !rule_pipeline_set(e)) return;
    const sim_kernel *kernel = ((kernel_data *)e->pipeline->data)->kernel;
    if (!rule_threads(kernel->name, groups, threads)) return;
    for (int i = 0; i < kernel->count; i++)
        if (!rule_argument_bound(e, kernel->name, &kernel->arguments[i])) return;
    dispatch *d = calloc(1, sizeof *d);
    if (!d) abort();
    *d = (dispatch){
        .pipeline = metal_keep(e->pipeline),
        .groups = {(unsigned)groups.width, (unsigned)groups.height, (unsigned)groups.depth},
        .threads = {(unsigned)threads.width, (unsigned)threads.height, (unsigned)threads.depth}};
    for (int i = 0; i < kernel->count; i++) { // what is set stays set for the next dispatch
        int at = kernel->arguments[i].index;
        place *to = &d->places[at];
        *to = e->places[at];
        metal_keep(to->buffer);
        if (!to->bytes) continue;
        to->bytes = aligned_alloc(256, (to->byte_count + 255) / 256 * 256);
        if (!to->bytes) abort();
        memcpy(to->bytes, e->places[at].bytes, to->byte_count);
    }
    command_data *c = e->command->data;
    if (c->last)
        c->last->next = d;
    else
        c->first = d;
    c->last = d;
}

// ---- The device -------------------------------------------------------------------------------

METAL_EXPORT object *MTLCreateSystemDefaultDevice(void);

// MTLCreateSystemDefaultDevice(): nil where Metal is not supported; else a reference to the device,
// which is one for all who ask.
object *MTLCreateSystemDefaultDevice(void) {
    METAL_LOCKED;
    static object *device;
    if (metal_wish.no_device) return NULL;
    if (device && device->refs > 0) return metal_keep(device);
    return device = metal_new(&class_device, 0);
}

static object *device_name(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return metal_string("Simulated Metal");
}
static ulong device_shared_max(object *self, metal_sel sel) {
    (void)self, (void)sel;
    return shared_max();
}
static ulong device_buffer_max(object *self, metal_sel sel) {
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

// MTLGPUFamily: an Apple7 (M1) that is also Mac2, Common3 and Metal3.
static signed char device_family(object *self, metal_sel sel, long family) {
    (void)self, (void)sel;
    return (family >= 1001 && family <= 1007) || family == 2002 ||
           (family >= 3001 && family <= 3003) || family == 5001;
}

// ---- Classes ----------------------------------------------------------------------------------

#define CLASS(variable, name, done, alive, ...)                                                \
    static const metal_class variable = {name, (const metal_method[]){__VA_ARGS__, {0}}, done, \
                                         alive}

CLASS(class_device, "MTLDevice", NULL, &metal_state.devices, METAL_METHOD("name", device_name),
      METAL_METHOD("newCommandQueue", device_queue),
      METAL_METHOD("newBufferWithLength:options:", device_buffer),
      METAL_METHOD("newLibraryWithSource:options:error:", device_library),
      METAL_METHOD("newComputePipelineStateWithFunction:error:", device_pipeline),
      METAL_METHOD("maxThreadgroupMemoryLength", device_shared_max),
      METAL_METHOD("maxBufferLength", device_buffer_max),
      METAL_METHOD("recommendedMaxWorkingSetSize", device_working_set),
      METAL_METHOD("hasUnifiedMemory", device_unified),
      METAL_METHOD("supportsFamily:", device_family));
CLASS(class_queue, "MTLCommandQueue", NULL, &metal_state.queues,
      METAL_METHOD("commandBuffer", queue_command), METAL_METHOD("release", queue_release));
CLASS(class_command, "MTLCommandBuffer", command_done, &metal_state.commands,
      METAL_METHOD("computeCommandEncoder", command_encoder),
      METAL_METHOD("commit", command_commit), METAL_METHOD("waitUntilCompleted", command_wait),
      METAL_METHOD("status", command_status), METAL_METHOD("error", command_error),
      METAL_METHOD("GPUStartTime", command_start), METAL_METHOD("GPUEndTime", command_end));
CLASS(class_encoder, "MTLComputeCommandEncoder", encoder_done, &metal_state.encoders,
      METAL_METHOD("setComputePipelineState:", encoder_pipeline),
      METAL_METHOD("setBuffer:offset:atIndex:", encoder_buffer),
      METAL_METHOD("setBytes:length:atIndex:", encoder_bytes),
      METAL_METHOD("dispatchThreadgroups:threadsPerThreadgroup:", encoder_dispatch),
      METAL_METHOD("memoryBarrierWithScope:", encoder_barrier),
      METAL_METHOD("endEncoding", encoder_end));
CLASS(class_buffer, "MTLBuffer", buffer_done, &metal_state.buffers,
      METAL_METHOD("contents", buffer_contents), METAL_METHOD("length", buffer_length));
CLASS(class_library, "MTLLibrary", NULL, &metal_state.libraries,
      METAL_METHOD("newFunctionWithName:", library_function));
CLASS(class_function, "MTLFunction", kernel_done, &metal_state.functions,
      METAL_METHOD("name", kernel_name));
CLASS(class_pipeline, "MTLComputePipelineState", kernel_done, &metal_state.pipelines,
      METAL_METHOD("maxTotalThreadsPerThreadgroup", pipeline_threads),
      METAL_METHOD("threadExecutionWidth", pipeline_width),
      METAL_METHOD("staticThreadgroupMemoryLength", pipeline_shared));
