// Compilation of a part of the graph: which nodes are needed, what is fused, the launches, and
// where every value lies. program.c drives it.
#ifndef BT_PROGRAM_LOWER_H
#define BT_PROGRAM_LOWER_H

#include "tensor/graph.h"

// A value: bound to memory that exists (fixed), or to be planned into the temporary buffer.
typedef struct bt_slot {
    size_t bytes;
    bool fixed;
    bt_binding binding;
    int first, last; // launches that touch it, or may be done with such; first > last: none
} bt_slot;

typedef struct bt_lowered_launch {
    bt_launch launch;
    bt_storage binding[BT_BINDINGS_MAX];
    char label[48];
    double flops, bytes; // as in bt_emission
} bt_lowered_launch;

// What fusion decided about a node.
typedef struct bt_plan_node {
    bool live;
    bool kept;          // read from outside: must have its own value
    bool absorbed;      // computed inside another launch
    uint32_t uses;      // by live nodes
    uint32_t user;      // the last of them
    uint32_t emits;     // the node that is lowered at this place; itself when nothing is fused
    bt_fusion fusion;   // of a node that absorbed others
    bt_storage storage; // 0: none yet
} bt_plan_node;

struct bt_lowering {
    bt_context *ctx;
    bt_plan_node *nodes; // by node id
    uint32_t node_count;
    bt_slot *slots; // slots[0] is unused
    uint32_t slot_count, slot_capacity;
    bt_lowered_launch *launches;
    int launch_count, launch_capacity;
    bt_storage state;
    uint32_t current; // node that is being lowered; 0: none
    bt_status status; // first failure
    size_t temporary_bytes, unplanned_bytes;
};

bt_status bt_lowering_open(bt_lowering *lo, bt_context *ctx) BT_MUST_CHECK;
void bt_lowering_close(bt_lowering *lo);

// Marks t and everything it needs; `kept` gives t a value that lasts to the end of the step.
void bt_lowering_want(bt_lowering *lo, bt_tensor t, bool kept);
// The node whose storage t has: t itself, or what it is a reshape of.
uint32_t bt_lowering_root(const bt_lowering *lo, uint32_t id);
// A value that lies in memory that exists.
bt_storage bt_lowering_fix(bt_lowering *lo, bt_binding binding);

void bt_lowering_fuse(bt_lowering *lo); // fuse.c
bt_status bt_lowering_emit_all(bt_lowering *lo) BT_MUST_CHECK;
// Places all values that are not fixed into one buffer of lo->temporary_bytes (plan.c).
void bt_lowering_place(bt_lowering *lo);
// Turns storages into bindings; `temporary` may be NULL when temporary_bytes is 0.
void bt_lowering_bind(bt_lowering *lo, bt_buffer *temporary);
// Checks every launch against the contract of its kernel and the portable limits (validate.c).
bt_status bt_launch_validate(const bt_launch *launch, const char *label,
                             bt_error *err) BT_MUST_CHECK;

#endif
