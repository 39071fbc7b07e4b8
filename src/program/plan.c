// Memory planning: values whose lifetimes do not meet may share the same bytes. Largest first,
// each at the lowest offset that is free for as long as it lives (Pisarchyk and Lee, "Efficient
// memory management for deep neural net inference", 2020, section 4.3, greedy by size).
#include "program/lower.h"

#include <stdlib.h>

static size_t padded(size_t bytes) {
    return (bytes + BT_BINDING_ALIGN - 1) / BT_BINDING_ALIGN * BT_BINDING_ALIGN;
}

static bool planned(const bt_slot *slot) {
    return !slot->fixed && slot->first <= slot->last;
}

static bool meet(const bt_slot *a, const bt_slot *b) {
    return a->first <= b->last && b->first <= a->last;
}

// The lowest offset at which `slot` overlaps none of the placed slots that live with it.
static size_t lowest_offset(const bt_lowering *lo, const bt_slot *slot, const bool *placed) {
    size_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t i = 1; i < lo->slot_count; i++) {
            const bt_slot *other = &lo->slots[i];
            size_t begin = other->binding.offset, end = begin + padded(other->bytes);
            if (!placed[i] || !meet(slot, other) || offset >= end ||
                offset + padded(slot->bytes) <= begin)
                continue;
            offset = end;
            moved = true;
        }
    }
    return offset;
}

// Kept values last to the end of the step.
static void extend_kept(bt_lowering *lo) {
    for (uint32_t id = 1; id < lo->node_count; id++) {
        bt_slot *slot = &lo->slots[lo->nodes[id].storage];
        if (lo->nodes[id].kept && lo->nodes[id].storage && slot->first <= slot->last)
            slot->last = lo->launch_count;
    }
}

void bt_lowering_place(bt_lowering *lo) {
    extend_kept(lo);
    bool *placed = calloc(lo->slot_count, sizeof *placed);
    if (!placed) {
        bt_lower_fail(lo, BT_ERROR_MEMORY, "out of memory while planning a program");
        return;
    }
    for (;;) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < lo->slot_count; i++)
            if (planned(&lo->slots[i]) && !placed[i] &&
                (!best || lo->slots[i].bytes > lo->slots[best].bytes))
                best = i;
        if (!best) break;
        bt_slot *slot = &lo->slots[best];
        slot->binding = (bt_binding){NULL, lowest_offset(lo, slot, placed), slot->bytes};
        placed[best] = true;
        lo->unplanned_bytes += padded(slot->bytes);
        size_t end = slot->binding.offset + padded(slot->bytes);
        if (end > lo->temporary_bytes) lo->temporary_bytes = end;
    }
    free(placed);
}
