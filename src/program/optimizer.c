// Where parameters, gradients and moments lie, and the launches that update them.
#include "program/program.h"

#include <math.h>
#include <stdlib.h>

static size_t aligned(size_t bytes) {
    return (bytes + BT_BINDING_ALIGN - 1) / BT_BINDING_ALIGN * BT_BINDING_ALIGN;
}

static bt_status check_parameters(bt_context *ctx, const bt_program *p, const bt_program_desc *d) {
    bt_error *err = bt_error_of(ctx);
    if (d->hyper_count < 1)
        return bt_fail(err, BT_ERROR_USAGE,
                       "bt_program_make: training needs at least one bt_hyper");
    for (int i = 0; i < d->parameter_count; i++) {
        const bt_node *node = bt_node_of(ctx, d->parameters[i]);
        if (!node->writable || node->owns_value || node->op != BT_OP_LEAF ||
            node->dtype != p->dtype)
            return bt_fail(err, BT_ERROR_USAGE,
                           "bt_program_make: parameter %d of %d is not a bt_parameter of %s", i,
                           d->parameter_count, bt_dtype_name(p->dtype));
    }
    return BT_OK;
}

// Parameters in the order of their addresses, as positions in d->parameters.
static void sort_parameters(bt_context *ctx, const bt_program_desc *d, int *order) {
    for (int i = 0; i < d->parameter_count; i++) {
        const bt_binding *v = &bt_node_of(ctx, d->parameters[i])->value;
        int at = i;
        for (; at > 0; at--) {
            const bt_binding *u = &bt_node_of(ctx, d->parameters[order[at - 1]])->value;
            if (u->buffer < v->buffer || (u->buffer == v->buffer && u->offset < v->offset)) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

static void group_runs(bt_context *ctx, bt_program *p, const bt_program_desc *d, const int *order) {
    for (int i = 0; i < d->parameter_count; i++) {
        const bt_binding *v = &bt_node_of(ctx, d->parameters[order[i]])->value;
        bt_run *run = p->run_count ? &p->runs[p->run_count - 1] : NULL;
        if (!run || run->params.buffer != v->buffer ||
            aligned(run->params.offset + run->params.bytes) != v->offset) {
            run = &p->runs[p->run_count++];
            run->params = (bt_binding){v->buffer, v->offset, 0};
        }
        p->trained[order[i]] =
            (bt_trained){p->run_count - 1, v->offset - run->params.offset, v->bytes};
        run->params.bytes = v->offset - run->params.offset + v->bytes;
    }
}

static bt_status make_zeroed(bt_context *ctx, size_t bytes, bt_buffer **out) {
    BT_TRY(bt_buffer_make(ctx, bytes, out));
    return bt_zero(ctx, (bt_binding){*out, 0, (*out)->bytes});
}

static bool clips(const bt_program_desc *d) {
    for (int i = 0; i < d->hyper_count; i++)
        if (d->hyper[i].clip > 0) return true;
    return false;
}

static bt_status make_run_buffers(bt_context *ctx, bt_program *p, const bt_program_desc *d) {
    size_t partials = 0, element = bt_dtype_size(p->dtype);
    for (int i = 0; i < p->run_count; i++) {
        bt_run *run = &p->runs[i];
        BT_TRY(make_zeroed(ctx, run->params.bytes, &run->grads));
        for (int m = 0; m < p->moment_count; m++)
            BT_TRY(make_zeroed(ctx, run->params.bytes, &run->moment[m]));
        run->chunks =
            (uint32_t)((run->params.bytes / element + BT_SUMSQ_CHUNK - 1) / BT_SUMSQ_CHUNK);
        run->partial_offset = partials;
        partials += aligned(run->chunks * element);
    }
    return clips(d) ? make_zeroed(ctx, partials, &p->partials) : BT_OK;
}

// One row per step; Adam's corrections are computed here in double precision.
static bt_status write_table(bt_context *ctx, bt_program *p, const bt_program_desc *d) {
    size_t element = bt_dtype_size(p->dtype);
    size_t bytes = (size_t)d->hyper_count * BT_HYPER_COLUMNS * element;
    void *table = malloc(bytes);
    if (!table) return bt_fail_memory(bt_error_of(ctx), "the table of learning rates", bytes);
    for (int i = 0; i < d->hyper_count; i++) {
        const bt_hyper *h = &d->hyper[i];
        double row[BT_HYPER_COLUMNS] = {
            [BT_HYPER_LR] = h->lr,
            [BT_HYPER_MOMENTUM] = h->momentum,
            [BT_HYPER_BETA2] = h->beta2,
            [BT_HYPER_EPSILON] = h->epsilon,
            [BT_HYPER_DECAY] = h->weight_decay,
            [BT_HYPER_CLIP] = h->clip,
            [BT_HYPER_CORRECTION1] = 1 / (1 - pow(h->momentum, i + 1.0)),
            [BT_HYPER_CORRECTION2] = 1 / (1 - pow(h->beta2, i + 1.0)),
        };
        for (int c = 0; c < BT_HYPER_COLUMNS; c++) {
            size_t at = (size_t)i * BT_HYPER_COLUMNS + (size_t)c;
            if (p->dtype == BT_F64)
                ((double *)table)[at] = row[c];
            else
                ((float *)table)[at] = (float)row[c];
        }
    }
    bt_status status = bt_buffer_make(ctx, bytes, &p->table);
    if (status == BT_OK)
        status = ctx->api->write(ctx->device, p->table, 0, table, bytes, bt_error_of(ctx));
    free(table);
    return status;
}

bt_status bt_optimizer_open(bt_context *ctx, bt_program *p, const bt_program_desc *d) {
    BT_TRY(check_parameters(ctx, p, d));
    size_t count = (size_t)d->parameter_count;
    int *order = malloc(count * sizeof *order);
    p->runs = calloc(count, sizeof *p->runs);
    p->trained = calloc(count, sizeof *p->trained);
    if (!order || !p->runs || !p->trained) {
        free(order);
        return bt_fail_memory(bt_error_of(ctx), "a program", count * sizeof *p->runs);
    }
    p->trained_count = d->parameter_count;
    bool adam = d->optimizer == BT_ADAM || d->optimizer == BT_ADAMW;
    bool velocity = false;
    for (int i = 0; i < d->hyper_count; i++) velocity |= d->hyper[i].momentum != 0;
    p->moment_count = adam ? 2 : velocity ? 1 : 0;
    sort_parameters(ctx, d, order);
    group_runs(ctx, p, d, order);
    free(order);
    BT_TRY(make_run_buffers(ctx, p, d));
    return write_table(ctx, p, d);
}

static bt_binding gradient_place(const bt_program *p, int parameter) {
    const bt_trained *t = &p->trained[parameter];
    return (bt_binding){p->runs[t->run].grads, t->offset, t->bytes};
}

// A gradient that is computed by a launch of its own is computed where it belongs.
void bt_optimizer_place_gradients(bt_lowering *lo, const bt_program *p, const bt_tensor *grads) {
    for (int i = 0; i < p->trained_count; i++) {
        uint32_t root = bt_lowering_root(lo, grads[i].id);
        if (lo->ctx->nodes[root].value.buffer || lo->nodes[root].storage) continue;
        lo->nodes[root].storage = bt_lowering_fix(lo, gradient_place(p, i));
    }
}

static void copy_gradient(bt_lowering *lo, const bt_program *p, int i, uint32_t id) {
    bt_storage from = bt_lower_value(lo, id);
    if (!from) return;
    bt_binding place = gradient_place(p, i);
    const bt_slot *slot = &lo->slots[from];
    if (slot->fixed && slot->binding.buffer == place.buffer && slot->binding.offset == place.offset)
        return;
    uint32_t n = (uint32_t)(place.bytes / bt_dtype_size(p->dtype));
    bt_storage to = bt_lowering_fix(lo, place);
    bt_emit_map(lo, (bt_emission){.dtype = p->dtype, .binding = {from, BT_NO_STORAGE, to}},
                &(bt_map_args){.op = BT_MAP_COPY,
                               .dim = {1, 1, 1, n},
                               .a_stride = {0, 0, 0, 1},
                               .b_stride = {0, 0, 0, 1}});
}

void bt_optimizer_emit(bt_lowering *lo, bt_program *p, const bt_program_desc *d,
                       const bt_tensor *grads) {
    size_t element = bt_dtype_size(p->dtype);
    for (int i = 0; i < p->trained_count; i++) copy_gradient(lo, p, i, grads[i].id);
    for (int i = 0; i < p->run_count && p->partials; i++) {
        const bt_run *run = &p->runs[i];
        uint32_t n = (uint32_t)(run->params.bytes / element);
        bt_storage g = bt_lowering_fix(lo, (bt_binding){run->grads, 0, run->params.bytes});
        bt_storage part = bt_lowering_fix(
            lo, (bt_binding){p->partials, run->partial_offset, run->chunks * element});
        bt_emit_grad_sumsq(lo,
                           (bt_emission){.dtype = p->dtype, .binding = {g, part}, .flops = 2.0 * n},
                           &(bt_sumsq_args){n});
    }
    // The gaps that alignment leaves between partial sums are zero and add nothing.
    size_t partials_bytes = 0;
    if (p->partials) {
        const bt_run *last = &p->runs[p->run_count - 1];
        partials_bytes = last->partial_offset + last->chunks * element;
    }
    bt_storage partials = p->partials
                              ? bt_lowering_fix(lo, (bt_binding){p->partials, 0, partials_bytes})
                              : BT_NO_STORAGE;
    bt_storage table = bt_lowering_fix(lo, (bt_binding){p->table, 0, p->table->bytes});
    for (int i = 0; i < p->run_count; i++) {
        bt_run *run = &p->runs[i];
        size_t bytes = run->params.bytes;
        bt_storage moment[2] = {BT_NO_STORAGE, BT_NO_STORAGE};
        for (int m = 0; m < p->moment_count; m++)
            moment[m] = bt_lowering_fix(lo, (bt_binding){run->moment[m], 0, bytes});
        uint32_t n = (uint32_t)(bytes / element);
        bt_emit_update(
            lo,
            (bt_emission){.dtype = p->dtype,
                          .binding = {bt_lowering_fix(lo, run->params),
                                      bt_lowering_fix(lo, (bt_binding){run->grads, 0, bytes}),
                                      moment[0], moment[1], table, lo->state, partials},
                          .flops = 4.0 * n,
                          // (One row of the table, which is as long as the training, is read.)
                          .bytes = (3.0 + 2 * p->moment_count) * (double)bytes},
            &(bt_update_args){.n = n,
                              .rows = (uint32_t)d->hyper_count,
                              .chunks = (uint32_t)(partials_bytes / element),
                              .optimizer = (uint32_t)d->optimizer});
    }
}
