// A context: its device, device memory, and the lifetime of everything made with it.
#include "device/reload.h"
#include "tensor/graph.h"

#include <stdlib.h>
#include <string.h>

static const size_t chunk_bytes = (size_t)4 << 20;

bt_status bt_open(const bt_context_desc *desc, bt_context **out) {
    bt_context_desc defaults = {0};
    if (!desc) desc = &defaults;
    bt_context *ctx = *out = calloc(1, sizeof *ctx);
    if (!ctx) return BT_ERROR_MEMORY;
    ctx->nodes = calloc(64, sizeof *ctx->nodes);
    if (!ctx->nodes) return bt_fail_memory(bt_error_of(ctx), "the graph", 64 * sizeof *ctx->nodes);
    ctx->node_capacity = 64;
    ctx->node_count = 1;
    ctx->threads = desc->threads;
    return bt_device_open(desc, bt_error_of(ctx), &ctx->api, &ctx->device_index, &ctx->device);
}

static void free_values(bt_context *ctx, uint32_t node_count) {
    for (uint32_t id = ctx->node_count; id-- > node_count;)
        if (ctx->nodes[id].owns_value) bt_buffer_free(ctx, ctx->nodes[id].value.buffer);
    ctx->node_count = node_count;
}

void bt_close(bt_context *ctx) {
    if (!ctx) return;
    bt_owner_shrink(ctx, 0);
    if (ctx->device) {
        free_values(ctx, 1);
        for (int i = 0; i < ctx->chunk_count; i++) bt_buffer_free(ctx, ctx->chunks[i].buffer);
        ctx->api->close(ctx->device);
        bt_reload_free(ctx->reload);
    }
    free(ctx->owner.items);
    free(ctx->nodes);
    free(ctx);
}

const char *bt_error_text(const bt_context *ctx) {
    return ctx ? ((const bt_owner *)ctx)->error.text : "out of memory";
}

void bt_error_reset(bt_context *ctx) {
    bt_error_clear(bt_error_of(ctx));
}

void bt_context_device(const bt_context *ctx, bt_device_info *out) {
    memset(out, 0, sizeof *out);
    if (ctx->api) ctx->api->probe(ctx->device_index, out);
}

size_t bt_device_bytes(const bt_context *ctx) {
    return ctx->device_bytes;
}
uint64_t bt_device_allocations(const bt_context *ctx) {
    return ctx->device_allocations;
}

bt_precision bt_context_precision(const bt_context *ctx) {
    if (!ctx->device || !ctx->api->precision) return BT_PRECISION_FP32;
    return ctx->api->precision(ctx->device);
}

const char *bt_precision_name(bt_precision precision) {
    static const char *const names[] = {
        [BT_PRECISION_FP32] = "fp32", [BT_PRECISION_TF32] = "tf32", [BT_PRECISION_BF16] = "bf16"};
    return (unsigned)precision < sizeof names / sizeof *names ? names[precision] : "?";
}

bool bt_context_computes(const bt_context *ctx, bt_dtype dtype) {
    return ctx->device && (dtype != BT_F64 || ctx->api->host);
}

void bt_context_counters(const bt_context *ctx, bt_counters *out) {
    memset(out, 0, sizeof *out);
    if (!ctx->device) return;
    const bt_device_counters *c = ctx->api->counters(ctx->device);
    *out = (bt_counters){c->submissions, c->launches, c->bytes_written, c->bytes_read};
}

bt_status bt_kernels_load(bt_context *ctx, const char *folder, char *swapped, size_t bytes) {
    *swapped = 0;
    if (!ctx->device) return bt_error_of(ctx)->status;
    return bt_reload_folder(&ctx->reload, ctx->api, ctx->device, folder, swapped, bytes,
                            bt_error_of(ctx));
}

bt_status bt_kernels_copy(bt_context *ctx, const bt_context *from, char *swapped, size_t bytes) {
    return bt_reload_copy(&ctx->reload, ctx->api, ctx->device, from->reload, swapped, bytes,
                          bt_error_of(ctx));
}

uint32_t bt_mark(const bt_context *constant) {
    bt_context *ctx = (bt_context *)constant; // a mark changes nothing that a caller can see
    if (ctx->mark_count == BT_MARKS_MAX) return 0;
    bt_mark_point *mark = &ctx->marks[ctx->mark_count++];
    *mark = (bt_mark_point){.node_count = ctx->node_count,
                            .owned_count = ctx->owner.count,
                            .chunk_count = ctx->chunk_count};
    if (ctx->chunk_count) mark->chunk_used = ctx->chunks[ctx->chunk_count - 1].used;
    return (uint32_t)ctx->mark_count;
}

void bt_release(bt_context *ctx, uint32_t mark) {
    if (mark == 0 || mark > (uint32_t)ctx->mark_count) return;
    const bt_mark_point point = ctx->marks[mark - 1];
    ctx->mark_count = (int)mark - 1;
    ctx->scope = NULL;
    bt_owner_shrink(ctx, point.owned_count);
    free_values(ctx, point.node_count);
    while (ctx->chunk_count > point.chunk_count)
        bt_buffer_free(ctx, ctx->chunks[--ctx->chunk_count].buffer);
    if (ctx->chunk_count) ctx->chunks[ctx->chunk_count - 1].used = point.chunk_used;
}

void bt_scope(bt_context *ctx, const char *name) {
    if (name && ctx->scope && !strcmp(ctx->scope, name)) return;
    ctx->scope = NULL;
    char *copy = name ? strdup(name) : NULL;
    // A scope that cannot be kept costs a name in a profile and nothing else.
    if (copy && bt_own(ctx, copy, bt_free_block) == BT_OK) ctx->scope = copy;
}

// ---- Device memory ---------------------------------------------------------------------------

bt_status bt_buffer_make(bt_context *ctx, size_t bytes, bt_buffer **out) {
    *out = NULL;
    if (!ctx->device)
        return bt_fail(bt_error_of(ctx), BT_ERROR_DEVICE,
                       "this context has no device, because bt_open failed; close it");
    bt_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer) return bt_fail_memory(bt_error_of(ctx), "a buffer", sizeof *buffer);
    if (bytes == 0) bytes = BT_BINDING_ALIGN;
    bt_status status = ctx->api->buffer_init(ctx->device, bytes, bt_error_of(ctx), buffer);
    if (status != BT_OK) {
        free(buffer);
        return status;
    }
    ctx->device_bytes += bytes;
    ctx->device_allocations++;
    *out = buffer;
    return BT_OK;
}

void bt_buffer_free(bt_context *ctx, bt_buffer *buffer) {
    if (!buffer) return;
    ctx->device_bytes -= buffer->bytes;
    ctx->api->buffer_done(ctx->device, buffer);
    free(buffer);
}

bt_status bt_zero(bt_context *ctx, bt_binding range) {
    static const unsigned char zeros[65536];
    for (size_t at = 0; at < range.bytes; at += sizeof zeros) {
        size_t left = range.bytes - at;
        BT_TRY(ctx->api->write(ctx->device, range.buffer, range.offset + at, zeros,
                               left < sizeof zeros ? left : sizeof zeros, bt_error_of(ctx)));
    }
    return BT_OK;
}

// New chunks are zeroed, so that the gaps that alignment leaves hold numbers, which every update
// passes over harmlessly.
bt_status bt_parameter_place(bt_context *ctx, size_t bytes, bt_binding *out) {
    size_t padded = (bytes + BT_BINDING_ALIGN - 1) / BT_BINDING_ALIGN * BT_BINDING_ALIGN;
    bt_chunk *chunk = ctx->chunk_count ? &ctx->chunks[ctx->chunk_count - 1] : NULL;
    if (!chunk || chunk->buffer->bytes - chunk->used < padded) {
        if (ctx->chunk_count == BT_CHUNKS_MAX)
            return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                           "parameters fill more than %d blocks; use fewer, larger tensors",
                           BT_CHUNKS_MAX);
        chunk = &ctx->chunks[ctx->chunk_count];
        BT_TRY(bt_buffer_make(ctx, padded > chunk_bytes ? padded : chunk_bytes, &chunk->buffer));
        ctx->chunk_count++;
        chunk->used = 0;
        BT_TRY(bt_zero(ctx, (bt_binding){chunk->buffer, 0, chunk->buffer->bytes}));
    }
    *out = (bt_binding){chunk->buffer, chunk->used, bytes};
    chunk->used += padded;
    return BT_OK;
}
