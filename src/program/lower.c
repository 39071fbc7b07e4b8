// From nodes to launches; see lower.h.
#include "program/lower.h"

#include <stdlib.h>
#include <string.h>

bt_status bt_lowering_open(bt_lowering *lo, bt_context *ctx) {
    *lo = (bt_lowering){.ctx = ctx, .node_count = ctx->node_count, .slot_count = 1};
    lo->nodes = calloc(lo->node_count, sizeof *lo->nodes);
    if (!lo->nodes)
        return bt_fail_memory(bt_error_of(ctx), "a program", lo->node_count * sizeof *lo->nodes);
    return BT_OK;
}

void bt_lowering_close(bt_lowering *lo) {
    free(lo->nodes);
    free(lo->slots);
    free(lo->launches);
}

static bool has_value(const bt_lowering *lo, uint32_t id) {
    return lo->ctx->nodes[id].value.buffer != NULL;
}

void bt_lowering_want(bt_lowering *lo, bt_tensor t, bool kept) {
    bt_plan_node *node = &lo->nodes[t.id];
    node->live = true;
    if (kept) lo->nodes[bt_lowering_root(lo, t.id)].kept = node->kept = true;
    // Inputs have smaller ids: one pass downwards reaches everything.
    for (uint32_t id = t.id; id > 0; id--) {
        if (!lo->nodes[id].live || has_value(lo, id)) continue;
        for (int i = 0; i < BT_INPUTS_MAX; i++) lo->nodes[lo->ctx->nodes[id].in[i]].live = true;
    }
    lo->nodes[0].live = false;
}

uint32_t bt_lowering_root(const bt_lowering *lo, uint32_t id) {
    while (lo->ctx->nodes[id].op == BT_OP_RESHAPE && !has_value(lo, id))
        id = lo->ctx->nodes[id].in[0];
    return id;
}

// ---- Values ----------------------------------------------------------------------------------

void bt_lower_fail(bt_lowering *lo, bt_status status, const char *sentence) {
    if (lo->status == BT_OK) lo->status = bt_fail(bt_error_of(lo->ctx), status, "%s", sentence);
}

// Doubles an array of `count` elements when it is full; false after running out of memory.
static bool grow(bt_lowering *lo, void **array, uint32_t count, uint32_t *capacity, size_t size) {
    if (count < *capacity) return true;
    uint32_t wanted = *capacity ? 2 * *capacity : 64;
    void *bigger = realloc(*array, wanted * size);
    if (!bigger) {
        bt_lower_fail(lo, BT_ERROR_MEMORY, "out of memory while compiling a program");
        return false;
    }
    *array = bigger;
    *capacity = wanted;
    return true;
}

static bt_storage slot_add(bt_lowering *lo, bt_slot slot) {
    if (!grow(lo, (void **)&lo->slots, lo->slot_count, &lo->slot_capacity, sizeof slot))
        return BT_NO_STORAGE;
    slot.first = 1;
    slot.last = 0;
    lo->slots[lo->slot_count] = slot;
    return lo->slot_count++;
}

bt_storage bt_lowering_fix(bt_lowering *lo, bt_binding binding) {
    return slot_add(lo, (bt_slot){.bytes = binding.bytes, .fixed = true, .binding = binding});
}

const bt_node *bt_lower_node(const bt_lowering *lo, uint32_t id) {
    return &lo->ctx->nodes[id];
}

bt_fusion bt_lower_fusion(const bt_lowering *lo, uint32_t id) {
    const bt_fusion *fusion = &lo->nodes[id].fusion;
    return fusion->out ? *fusion : (bt_fusion){.out = id, .epilogue = BT_MAP_COPY};
}

bt_storage bt_lower_value(bt_lowering *lo, uint32_t id) {
    if (id == 0) return BT_NO_STORAGE;
    id = bt_lowering_root(lo, id);
    bt_plan_node *plan = &lo->nodes[id];
    const bt_node *node = &lo->ctx->nodes[id];
    if (plan->storage) return plan->storage;
    if (node->value.buffer) return plan->storage = bt_lowering_fix(lo, node->value);
    return plan->storage =
               bt_lower_temporary(lo, bt_shape_count(node->shape) * bt_dtype_size(node->dtype));
}

bt_storage bt_lower_second(bt_lowering *lo, uint32_t id) {
    uint32_t second = lo->ctx->nodes[id].second;
    return second && second < lo->node_count && lo->nodes[second].live ? bt_lower_value(lo, second)
                                                                       : BT_NO_STORAGE;
}

bt_storage bt_lower_temporary(bt_lowering *lo, size_t bytes) {
    return slot_add(lo, (bt_slot){.bytes = bytes});
}

bt_storage bt_lower_state(bt_lowering *lo) {
    return lo->state;
}

bt_emission bt_lower_emission(bt_lowering *lo, uint32_t id, int inputs) {
    const bt_node *node = bt_lower_node(lo, id);
    bt_emission e = {.dtype = node->dtype};
    for (int i = 0; i < inputs; i++) e.binding[i] = bt_lower_value(lo, node->in[i]);
    e.binding[inputs] = bt_lower_value(lo, id);
    e.binding[inputs + 1] = bt_lower_second(lo, id);
    return e;
}

// ---- Launches --------------------------------------------------------------------------------

static void label(const bt_lowering *lo, bt_kernel_id kernel, char *out, size_t bytes) {
    const bt_node *node = lo->current ? &lo->ctx->nodes[lo->current] : NULL;
    const char *name = !node                   ? bt_kernel_table[kernel].name
                       : node->op == BT_OP_MAP ? bt_map_name(node->attr.map)
                                               : bt_op_table[node->op].name;
    snprintf(out, bytes, "%s%s%s%s", node && node->scope ? node->scope : "",
             node && node->scope ? " " : "", name, node && node->backward ? " (grad)" : "");
}

void bt_lower_emit(bt_lowering *lo, const bt_emission *e, const void *args, size_t args_bytes) {
    const bt_kernel_info *kernel = &bt_kernel_table[e->kernel];
    bool writes_something = false;
    for (int i = 0; kernel->bindings[i]; i++)
        if (kernel->bindings[i] != 'r' && kernel->bindings[i] != 'R' && e->binding[i] &&
            lo->slots[e->binding[i]].bytes)
            writes_something = true;
    if (!writes_something || lo->status != BT_OK) return;
    uint32_t capacity = (uint32_t)lo->launch_capacity;
    if (!grow(lo, (void **)&lo->launches, (uint32_t)lo->launch_count, &capacity,
              sizeof *lo->launches))
        return;
    lo->launch_capacity = (int)capacity;
    bt_lowered_launch *l = &lo->launches[lo->launch_count];
    memset(l, 0, sizeof *l);
    l->launch.kernel = (uint16_t)e->kernel;
    l->launch.dtype = (uint8_t)e->dtype;
    l->launch.binding_count = (uint8_t)strlen(kernel->bindings);
    memcpy(l->launch.scalars, args, args_bytes);
    l->flops = e->flops;
    l->bytes = e->bytes;
    label(lo, e->kernel, l->label, sizeof l->label);
    const unsigned char *joined = lo->ctx->api->joined;
    for (int i = 0; i < l->launch.binding_count; i++) {
        bt_slot *slot = &lo->slots[e->binding[i]];
        l->binding[i] = e->binding[i];
        if (!e->binding[i]) continue;
        int last = lo->launch_count + (joined ? joined[e->kernel] : 0);
        if (slot->first > slot->last) slot->first = lo->launch_count;
        if (slot->last < last) slot->last = last;
    }
    lo->launch_count++;
}

bt_status bt_lowering_emit_all(bt_lowering *lo) {
    for (uint32_t id = 1; id < lo->node_count; id++) {
        const bt_plan_node *plan = &lo->nodes[id];
        if (!plan->live || plan->absorbed || has_value(lo, id)) continue;
        uint32_t emits = plan->emits ? plan->emits : id;
        const bt_op_info *op = &bt_op_table[lo->ctx->nodes[emits].op];
        lo->current = emits;
        if (op->lower) op->lower(lo, emits);
    }
    lo->current = 0;
    return lo->status;
}

void bt_lowering_bind(bt_lowering *lo, bt_buffer *temporary) {
    for (int i = 0; i < lo->launch_count; i++)
        for (int j = 0; j < lo->launches[i].launch.binding_count; j++) {
            bt_storage storage = lo->launches[i].binding[j];
            if (!storage) continue;
            bt_slot *slot = &lo->slots[storage];
            if (!slot->fixed) slot->binding.buffer = temporary;
            lo->launches[i].launch.binding[j] = slot->binding;
        }
}
