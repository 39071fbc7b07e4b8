// Fusion: a product absorbs the bias row and the activation that follow it, or the derivative of
// an activation, where nobody else needs the values in between.
#include "program/lower.h"

static void count_uses(bt_lowering *lo) {
    for (uint32_t id = 1; id < lo->node_count; id++) {
        if (!lo->nodes[id].live || lo->ctx->nodes[id].value.buffer) continue;
        for (int i = 0; i < BT_INPUTS_MAX; i++) {
            uint32_t in = lo->ctx->nodes[id].in[i];
            lo->nodes[in].uses++;
            lo->nodes[in].user = id;
        }
    }
}

// The only user of a value that nobody else reads, if it is an elementwise node of the same
// shape that no other product has absorbed; 0 if there is none.
static uint32_t only_map_user(const bt_lowering *lo, uint32_t id) {
    const bt_plan_node *plan = &lo->nodes[id];
    if (plan->uses != 1 || plan->kept) return 0;
    if (lo->nodes[plan->user].emits || lo->nodes[plan->user].absorbed) return 0;
    const bt_node *user = &lo->ctx->nodes[plan->user];
    bool fits = user->op == BT_OP_MAP && bt_shape_equal(user->shape, lo->ctx->nodes[id].shape);
    return fits ? plan->user : 0;
}

// The row that `user` adds to `id`; 0 if it does something else.
static uint32_t added_row(const bt_lowering *lo, uint32_t id, uint32_t user) {
    const bt_node *add = &lo->ctx->nodes[user];
    if (add->attr.map != BT_MAP_ADD) return 0;
    uint32_t other = add->in[0] == id ? add->in[1] : add->in[0];
    bt_shape row = lo->ctx->nodes[other].shape;
    int columns = add->shape.dim[add->shape.rank - 1];
    bool is_row = other != id && row.rank >= 1 && row.dim[row.rank - 1] == columns &&
                  bt_shape_count(row) == (size_t)columns;
    return is_row ? other : 0;
}

static bool is_activation(bt_map_op op) {
    return op == BT_MAP_RELU || op == BT_MAP_SIGMOID || op == BT_MAP_TANH || op == BT_MAP_GELU;
}

static bool is_derivative(bt_map_op op) {
    return op == BT_MAP_RELU_GRAD || op == BT_MAP_SIGMOID_GRAD || op == BT_MAP_TANH_GRAD;
}

static void absorb(bt_lowering *lo, bt_fusion *fusion, uint32_t user) {
    lo->nodes[fusion->out].absorbed = true;
    fusion->out = user;
}

static void fuse_into(bt_lowering *lo, uint32_t product) {
    bool matmul = lo->ctx->nodes[product].op == BT_OP_MATMUL;
    bt_fusion fusion = {.out = product, .epilogue = BT_MAP_COPY};
    uint32_t user = only_map_user(lo, product);
    if (user && matmul && (fusion.bias = added_row(lo, product, user))) {
        absorb(lo, &fusion, user);
        user = only_map_user(lo, user);
    }
    const bt_node *map = user ? &lo->ctx->nodes[user] : NULL;
    if (map && is_activation(map->attr.map)) {
        fusion.epilogue = map->attr.map;
        absorb(lo, &fusion, user);
    } else if (map && matmul && is_derivative(map->attr.map) && map->in[1] == fusion.out &&
               bt_shape_equal(lo->ctx->nodes[map->in[0]].shape, map->shape)) {
        fusion.epilogue = map->attr.map;
        fusion.y_forward = map->in[0];
        absorb(lo, &fusion, user);
    }
    if (fusion.out == product) return;
    lo->nodes[product].fusion = fusion;
    lo->nodes[fusion.out].emits = product; // there all operands are ready
}

void bt_lowering_fuse(bt_lowering *lo) {
    count_uses(lo);
    for (uint32_t id = 1; id < lo->node_count; id++) {
        const bt_node *node = &lo->ctx->nodes[id];
        if (lo->nodes[id].live && !node->value.buffer &&
            (node->op == BT_OP_MATMUL || node->op == BT_OP_CONV2D))
            fuse_into(lo, id);
    }
}
