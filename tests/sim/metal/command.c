// Queues and command buffers: what was committed is run in order, when somebody waits for it.
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef metal_object object;

enum { FLYING_MAX = 64 }; // of newCommandQueue
enum { ERROR_PAGE_FAULT = 3 };

static const metal_class class_queue, class_command;

typedef struct queue_data {
    object *first, *last; // committed command buffers that are not done, linked by `next`
    int unfinished;       // of all its command buffers
} queue_data;

static void drop_dispatches(metal_command *c) {
    while (c->first) {
        metal_dispatch *d = c->first;
        c->first = d->next;
        if (c->keeps) metal_drop(d->pipeline);
        metal_places_drop(c, d->places);
        free(d);
    }
    c->end = &c->first;
}

static double now(void) {
    static double last; // no two moments are the same
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double seconds = 1000 + (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    return last = seconds > last ? seconds : last + 1e-9;
}

// MTLCommandQueue, makeCommandBufferWithUnretainedReferences(): "It's your app's responsibility to
// maintain strong references to all the resources the command buffer uses until it finishes running
// on the GPU."
static bool rule_still_there(const metal_dispatch *d) {
    if (d->pipeline->refs <= 0) {
        metal_finding("MTLComputePipelineState freed while in flight: a command buffer that does "
                      "not retain it was to use it.");
        return false;
    }
    const sim_kernel *kernel = ((metal_pipeline *)d->pipeline->data)->kernel;
    for (int i = 0; i < METAL_BUFFERS; i++) {
        if (!d->places[i].buffer || d->places[i].buffer->refs > 0) continue;
        metal_finding("kernel %s: buffer freed while in flight: buffer %d of a command buffer that "
                      "does not retain it.",
                      kernel->name, i);
        return false;
    }
    return true;
}

static bool run_dispatch(const metal_dispatch *d) {
    if (!rule_still_there(d)) return false;
    const metal_pipeline *k = d->pipeline->data;
    sim_binding bindings[METAL_BUFFERS];
    memset(bindings, 0, sizeof bindings);
    for (int i = 0; i < METAL_BUFFERS; i++) {
        const metal_place *p = &d->places[i];
        const metal_buffer *b = p->buffer ? p->buffer->data : NULL;
        if (b) bindings[i] = (sim_binding){b->memory + p->offset, b->bytes - p->offset};
        if (p->bytes) bindings[i] = (sim_binding){p->bytes, p->byte_count};
    }
    metal_state.dispatches++;
    metal_pipeline_prepare(k);
    return metal_run(k->kernel, bindings, d->groups, d->threads);
}

static void fail_command(metal_command *c, const char *domain, long code, const char *text) {
    c->error = metal_error(domain, code, text);
    c->status = METAL_FAILED;
}

// The oldest command buffer of the queue is done.
static void finish_first(queue_data *queue) {
    object *command = queue->first;
    metal_command *c = command->data;
    queue->first = c->next;
    if (!queue->first) queue->last = NULL;
    c->next = NULL;
    c->start_s = now();
    if (metal_wish.command_error[0] && metal_wish.command_after-- == 0) {
        fail_command(c,
                     metal_wish.command_domain[0] ? metal_wish.command_domain
                                                  : "MTLCommandBufferErrorDomain",
                     metal_wish.command_code, metal_wish.command_error);
        metal_wish.command_error[0] = '\0';
    }
    for (const metal_dispatch *d = c->first; d && c->status != METAL_FAILED; d = d->next)
        if (!run_dispatch(d))
            fail_command(c, "MTLCommandBufferErrorDomain", ERROR_PAGE_FAULT,
                         "Caused GPU Address Fault Error "
                         "(0000000b:kIOGPUCommandBufferCallbackErrorPageFault)");
    c->end_s = now();
    if (c->status != METAL_FAILED) c->status = METAL_COMPLETED;
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

object *metal_queue_make(void) {
    return metal_new(&class_queue, sizeof(queue_data));
}

// MTLDevice, makeCommandQueue(): a queue has room for 64 command buffers that are not completed;
// MTLCommandQueue, makeCommandBuffer(), waits while there are so many.
static bool rule_command_there(queue_data *queue, const char *selector) {
    if (queue->unfinished < FLYING_MAX) return true;
    if (queue->first) finish_first(queue);
    if (queue->unfinished < FLYING_MAX) return true;
    metal_finding("-[MTLCommandQueue %s]: %d command buffers are there that were never committed: "
                  "it would wait forever.",
                  selector, queue->unfinished);
    return false;
}

static object *make_command(object *self, metal_sel sel, bool keeps) {
    METAL_LOCKED;
    queue_data *queue = self->data;
    if (!rule_command_there(queue, sel)) return NULL;
    object *o = metal_new(&class_command, sizeof(metal_command));
    metal_command *c = o->data;
    *c = (metal_command){.queue = metal_keep(self), .keeps = keeps, .end = &c->first};
    queue->unfinished++;
    return metal_autorelease(o);
}

static object *queue_command(object *self, metal_sel sel) {
    return make_command(self, sel, true);
}
static object *queue_unretained(object *self, metal_sel sel) {
    return make_command(self, sel, false);
}

static void command_done(void *data) {
    metal_command *c = data;
    if (c->status == METAL_NOT_ENQUEUED) ((queue_data *)c->queue->data)->unfinished--;
    drop_dispatches(c);
    metal_drop(c->error);
    metal_drop(c->queue);
}

// MTLCommandBuffer, commit(): "You can commit a command buffer to its command queue only one time."
static bool rule_committed_once(const metal_command *c) {
    if (c->status == METAL_NOT_ENQUEUED) return true;
    metal_finding("-[MTLCommandBuffer commit]: it was committed before.");
    return false;
}

// MTLCommandBuffer, commit(): "You can only commit a command buffer when it doesn't have an active
// encoder"; MTLCommandBuffer, overview: one encoder at a time is active.
bool metal_rule_encoding_ended(const metal_command *c, const char *where) {
    if (!c->encoder) return true;
    metal_finding("-[MTLCommandBuffer %s]: an encoder of it has not got endEncoding.", where);
    return false;
}

static void command_commit(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    metal_command *c = self->data;
    if (!rule_committed_once(c) || !metal_rule_encoding_ended(c, "commit")) return;
    queue_data *queue = c->queue->data;
    c->status = METAL_COMMITTED;
    metal_keep(self);
    if (queue->last)
        ((metal_command *)queue->last->data)->next = self;
    else
        queue->first = self;
    queue->last = self;
    metal_state.commits++;
    metal_state.flying++;
}

// MTLCommandBuffer, waitUntilCompleted(): waits for a command buffer that has been committed; for
// another one it would wait forever.
static bool rule_wait_committed(const metal_command *c) {
    if (c->status != METAL_NOT_ENQUEUED) return true;
    metal_finding("-[MTLCommandBuffer waitUntilCompleted]: it was not committed, and would wait "
                  "forever.");
    return false;
}

static void command_wait(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    metal_command *c = self->data;
    if (!rule_wait_committed(c)) return;
    while (c->status == METAL_COMMITTED) finish_first(c->queue->data);
}

// Whoever asks again and again gets to the end.
static metal_uint command_status(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    const metal_command *c = self->data;
    metal_uint status = (metal_uint)c->status;
    if (c->status == METAL_COMMITTED) finish_first(c->queue->data);
    return status;
}

static object *command_error(object *self, metal_sel sel) {
    (void)sel;
    METAL_LOCKED;
    const metal_command *c = self->data;
    return c->error ? metal_autorelease(metal_keep(c->error)) : NULL;
}
static double command_start(object *self, metal_sel sel) {
    (void)sel;
    return ((metal_command *)self->data)->start_s;
}
static double command_end(object *self, metal_sel sel) {
    (void)sel;
    return ((metal_command *)self->data)->end_s;
}

// MTLCommandBuffer, makeComputeCommandEncoder(): a command buffer that is committed takes no more,
// and has one encoder at a time.
static bool rule_encoder_allowed(const metal_command *c, const char *selector) {
    if (c->status != METAL_NOT_ENQUEUED) {
        metal_finding("-[MTLCommandBuffer %s]: it was committed before.", selector);
        return false;
    }
    return metal_rule_encoding_ended(c, selector);
}

static object *make_encoder(object *self, metal_sel sel, bool concurrent) {
    metal_command *c = self->data;
    if (!rule_encoder_allowed(c, sel)) return NULL;
    c->encoder = metal_encoder_make(self, concurrent);
    metal_state.concurrent += concurrent;
    return metal_autorelease(c->encoder);
}

static object *command_encoder(object *self, metal_sel sel) {
    METAL_LOCKED;
    return make_encoder(self, sel, false);
}

// MTLDispatchType: serial is 0, concurrent 1.
static object *command_encoder_of(object *self, metal_sel sel, metal_uint type) {
    METAL_LOCKED;
    if (type <= 1) return make_encoder(self, sel, type == 1);
    metal_finding("-[MTLCommandBuffer %s]: there is no dispatch type %lu.", sel, type);
    return NULL;
}

// ---- Classes ----------------------------------------------------------------------------------

static METAL_CLASS(class_queue, "MTLCommandQueue", NULL, &metal_state.queues,
                   METAL_METHOD("commandBuffer", queue_command),
                   METAL_METHOD("commandBufferWithUnretainedReferences", queue_unretained),
                   METAL_METHOD("release", queue_release));
static METAL_CLASS(class_command, "MTLCommandBuffer", command_done, &metal_state.commands,
                   METAL_METHOD("computeCommandEncoder", command_encoder),
                   METAL_METHOD("computeCommandEncoderWithDispatchType:", command_encoder_of),
                   METAL_METHOD("commit", command_commit),
                   METAL_METHOD("waitUntilCompleted", command_wait),
                   METAL_METHOD("status", command_status), METAL_METHOD("error", command_error),
                   METAL_METHOD("GPUStartTime", command_start),
                   METAL_METHOD("GPUEndTime", command_end));
