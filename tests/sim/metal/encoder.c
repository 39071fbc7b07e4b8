// Compute encoders: what a dispatch uses is checked when it is encoded.
#include "internal.h"

#include <stdlib.h>
#include <string.h>

typedef metal_object object;

enum { BYTES_MAX = 4095 }; // of setBytes:length:atIndex:
enum {
    CONSTANT_ALIGN = 32
}; // Metal Feature Set Tables, "Minimum constant buffer offset alignment", Mac2
enum { BARRIER_BUFFERS = 1 }; // MTLBarrierScope

static const metal_class class_encoder;

typedef struct encoder_data {
    object *command, *pipeline;
    metal_place places[METAL_BUFFERS];
    metal_dispatch **span; // where those begin that may run in any order
    bool concurrent, ended;
} encoder_data;

static bool keeps(const encoder_data *e) {
    return ((metal_command *)e->command->data)->keeps;
}

static void clear_place(const metal_command *c, metal_place *place) {
    if (c->keeps) metal_drop(place->buffer);
    free(place->bytes);
    *place = (metal_place){0};
}

void metal_places_drop(const metal_command *c, metal_place *places) {
    for (int i = 0; i < METAL_BUFFERS; i++) clear_place(c, &places[i]);
}

object *metal_encoder_make(object *command, bool concurrent) {
    object *o = metal_new(&class_encoder, sizeof(encoder_data));
    *(encoder_data *)o->data = (encoder_data){.command = metal_keep(command),
                                              .concurrent = concurrent,
                                              .span = ((metal_command *)command->data)->end};
    return o;
}

static void end_encoder(encoder_data *e) {
    e->ended = true;
    ((metal_command *)e->command->data)->encoder = NULL;
    const metal_command *c = e->command->data;
    if (c->keeps) metal_drop(e->pipeline);
    e->pipeline = NULL;
    metal_places_drop(c, e->places);
}

// MTLCommandEncoder, endEncoding(), is what completes an encoder; "Command encoder released without
// endEncoding" is what Metal's validation says of one that went without.
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

// MTLCommandEncoder, endEncoding(): "You cannot encode any other commands with this encoder."
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
        !metal_is_a(pipeline, &metal_class_pipeline,
                    "-[MTLComputeCommandEncoder setComputePipelineState:]"))
        return;
    if (keeps(e)) metal_keep(pipeline);
    if (keeps(e)) metal_drop(e->pipeline);
    e->pipeline = pipeline;
}

// Metal Feature Set Tables, "Maximum number of entries in the buffer argument table": 31.
static bool rule_index(metal_uint index, const char *selector) {
    if (index < METAL_BUFFERS) return true;
    metal_finding("-[MTLComputeCommandEncoder %s]: index %lu is not 0 to %d.", selector, index,
                  METAL_BUFFERS - 1);
    return false;
}

// MTLComputeCommandEncoder, setBuffer(_:offset:index:): "The number of bytes to skip in the buffer
// before the first element", of which there is one then.
static bool rule_offset(const metal_buffer *b, metal_uint offset) {
    if (offset < b->bytes) return true;
    metal_finding(
        "-[MTLComputeCommandEncoder setBuffer:offset:atIndex:]: offset %lu is outside of a "
        "buffer of %zu bytes.",
        offset, b->bytes);
    return false;
}

static void encoder_buffer(object *self, metal_sel sel, object *buffer, metal_uint offset,
                           metal_uint index) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel) || !rule_index(index, sel)) return;
    if (buffer && (!metal_is_a(buffer, &metal_class_buffer,
                               "-[MTLComputeCommandEncoder setBuffer:offset:atIndex:]") ||
                   !rule_offset(buffer->data, offset)))
        return;
    if (keeps(e)) metal_keep(buffer);
    clear_place(e->command->data, &e->places[index]);
    e->places[index] = (metal_place){.buffer = buffer, .offset = offset};
}

// MTLComputeCommandEncoder, setBytes(_:length:index:): "This method only works for data smaller
// than 4 kilobytes". (Of 4096 bytes, which Metal's validation lets pass, no page says that they are
// fine.)
static bool rule_bytes_length(metal_uint length) {
    if (length > 0 && length <= BYTES_MAX) return true;
    metal_finding(
        "-[MTLComputeCommandEncoder setBytes:length:atIndex:]: %lu bytes are not 1 to %d.", length,
        BYTES_MAX);
    return false;
}

static void encoder_bytes(object *self, metal_sel sel, const void *bytes, metal_uint length,
                          metal_uint index) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel) || !rule_index(index, sel) || !rule_bytes_length(length)) return;
    unsigned char *copy = aligned_alloc(256, (length + 255) / 256 * 256);
    if (!copy) abort();
    memcpy(copy, bytes, length);
    clear_place(e->command->data, &e->places[index]);
    e->places[index] = (metal_place){.bytes = copy, .byte_count = length};
}

// MTLBarrierScope: buffers 1, textures 2, render targets 4; MTLComputeCommandEncoder,
// memoryBarrier(scope:).
static void encoder_barrier(object *self, metal_sel sel, metal_uint scope) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel)) return;
    if (scope == 0 || scope > 3)
        metal_finding("-[MTLComputeCommandEncoder memoryBarrierWithScope:]: scope %lu is none of a "
                      "compute encoder.",
                      scope);
    else if (scope & BARRIER_BUFFERS)
        e->span = ((metal_command *)e->command->data)->end;
}

// MTLComputeCommandEncoder, setComputePipelineState(_:): a dispatch needs one.
static bool rule_pipeline_set(const encoder_data *e) {
    if (e->pipeline && e->pipeline->refs > 0) return true;
    metal_finding("-[MTLComputeCommandEncoder dispatchThreadgroups:threadsPerThreadgroup:]: %s.",
                  e->pipeline ? "the pipeline state was released for the last time since it was set"
                              : "no pipeline state is set");
    return false;
}

// MTLCommandQueue, makeCommandBufferWithUnretainedReferences(): who encodes keeps what is set.
static bool rule_buffer_there(const metal_place *p, const char *kernel, const sim_argument *a) {
    if (!p->buffer || p->buffer->refs > 0) return true;
    metal_finding("kernel %s: \"%s\", buffer %d, was released for the last time since it was set.",
                  kernel, a->name, a->index);
    return false;
}

// MTLComputeCommandEncoder, setBuffer(_:offset:index:): what a kernel declares is bound, holds one
// element at least, and is aligned as its type; in the constant address space as the feature set
// tables say.
static bool rule_argument_bound(const encoder_data *e, const char *kernel, const sim_argument *a) {
    const metal_place *p = &e->places[a->index];
    if (!rule_buffer_there(p, kernel, a)) return false;
    if (!p->buffer && !p->bytes) {
        metal_finding("kernel %s: nothing is bound for \"%s\", buffer %d.", kernel, a->name,
                      a->index);
        return false;
    }
    size_t bytes = p->buffer ? ((metal_buffer *)p->buffer->data)->bytes - p->offset : p->byte_count;
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
static bool rule_threads(const sim_kernel *of, metal_size groups, metal_size threads) {
    const char *kernel = of->name;
    bool some = groups.width && groups.height && groups.depth && threads.width && threads.height &&
                threads.depth;
    metal_uint most = metal_threads_max(of);
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

// What is set stays set for the next dispatch, and so this one gets a copy.
static metal_place copy_place(const encoder_data *e, int index) {
    metal_place place = e->places[index];
    if (keeps(e)) metal_keep(place.buffer);
    if (!place.bytes) return place;
    place.bytes = aligned_alloc(256, (place.byte_count + 255) / 256 * 256);
    if (!place.bytes) abort();
    memcpy(place.bytes, e->places[index].bytes, place.byte_count);
    return place;
}

// MTLDispatchType.concurrent: "If you encode multiple commands that access a single resource,
// you're responsible for synchronizing". Between two barriers the last one comes first here, so
// that who forgets one gets something else.
static void put_dispatch(encoder_data *e, metal_dispatch *d) {
    metal_command *c = e->command->data;
    metal_dispatch **at = e->concurrent ? e->span : c->end;
    d->next = *at;
    *at = d;
    if (c->end == at) c->end = &d->next;
}

static void encoder_dispatch(object *self, metal_sel sel, metal_size groups, metal_size threads) {
    METAL_LOCKED;
    encoder_data *e = self->data;
    if (!rule_encoding(e, sel) || !rule_pipeline_set(e)) return;
    const sim_kernel *kernel = ((metal_pipeline *)e->pipeline->data)->kernel;
    if (!rule_threads(kernel, groups, threads)) return;
    for (int i = 0; i < kernel->count; i++)
        if (!rule_argument_bound(e, kernel->name, &kernel->arguments[i])) return;
    metal_dispatch *d = calloc(1, sizeof *d);
    if (!d) abort();
    *d = (metal_dispatch){
        .pipeline = keeps(e) ? metal_keep(e->pipeline) : e->pipeline,
        .groups = {(unsigned)groups.width, (unsigned)groups.height, (unsigned)groups.depth},
        .threads = {(unsigned)threads.width, (unsigned)threads.height, (unsigned)threads.depth}};
    for (int i = 0; i < kernel->count; i++) {
        int at = kernel->arguments[i].index;
        d->places[at] = copy_place(e, at);
    }
    put_dispatch(e, d);
}

// ---- Classes ----------------------------------------------------------------------------------

static METAL_CLASS(class_encoder, "MTLComputeCommandEncoder", encoder_done, &metal_state.encoders,
                   METAL_METHOD("setComputePipelineState:", encoder_pipeline),
                   METAL_METHOD("setBuffer:offset:atIndex:", encoder_buffer),
                   METAL_METHOD("setBytes:length:atIndex:", encoder_bytes),
                   METAL_METHOD("dispatchThreadgroups:threadsPerThreadgroup:", encoder_dispatch),
                   METAL_METHOD("memoryBarrierWithScope:", encoder_barrier),
                   METAL_METHOD("endEncoding", encoder_end));
