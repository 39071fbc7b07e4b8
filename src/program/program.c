// Programs: a step compiled once and run many times; see bantam.h.
#include "program/program.h"

#include "base/launch_log.h"
#include "device/reload.h"

#include <stdlib.h>
#include <string.h>

// ---- Making ----------------------------------------------------------------------------------

static bt_status check_desc(bt_context *ctx, const bt_program_desc *d) {
    for (int i = 0; i < d->output_count; i++)
        if (!bt_graph_has(ctx, "bt_program_make", d->outputs[i])) return bt_error_of(ctx)->status;
    for (int i = 0; i < d->parameter_count; i++)
        if (!bt_graph_has(ctx, "bt_program_make", d->parameters[i]))
            return bt_error_of(ctx)->status;
    if (d->loss.id && !bt_graph_has_reals(ctx, "bt_program_make", d->loss, d->loss))
        return bt_error_of(ctx)->status;
    if (d->loss.id && bt_shape_count(bt_node_of(ctx, d->loss)->shape) != 1)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_program_make: the loss has shape %s; it must be one number",
                       bt_shape_text(bt_node_of(ctx, d->loss)->shape));
    if (!d->logits.id != !d->labels.id)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_program_make: logits and labels are given together or not at all");
    if (!d->logits.id) return BT_OK;
    // One kernel reads loss and logits, so they have one dtype.
    if (!bt_graph_has_reals(ctx, "bt_program_make", d->logits, d->loss.id ? d->loss : d->logits) ||
        !bt_graph_has(ctx, "bt_program_make", d->labels))
        return bt_error_of(ctx)->status;
    bt_shape logits = bt_node_of(ctx, d->logits)->shape, labels = bt_node_of(ctx, d->labels)->shape;
    if (logits.rank != 2 || labels.rank != 1 || labels.dim[0] != logits.dim[0] ||
        bt_node_of(ctx, d->labels)->dtype != BT_I32)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_program_make: logits %s and labels %s; expected [rows, classes] and i32 "
                       "[rows]",
                       bt_shape_text(logits), bt_shape_text(labels));
    return BT_OK;
}

static uint32_t steps_per_epoch(const bt_lowering *lo, uint32_t otherwise) {
    for (uint32_t id = 1; id < lo->node_count; id++) {
        const bt_node *node = &lo->ctx->nodes[id];
        if (!lo->nodes[id].live || node->op != BT_OP_GATHER || !node->attr.gather.batch) continue;
        return (node->attr.gather.count + node->attr.gather.batch - 1) / node->attr.gather.batch;
    }
    return otherwise;
}

static bt_storage whole(bt_lowering *lo, bt_buffer *buffer) {
    return buffer ? bt_lowering_fix(lo, (bt_binding){buffer, 0, buffer->bytes}) : BT_NO_STORAGE;
}

static void emit_step_end(bt_lowering *lo, const bt_program *p, const bt_program_desc *d) {
    bt_shape logits = d->logits.id ? bt_node_of(lo->ctx, d->logits)->shape : BT_SHAPE(0, 0);
    bt_step_args args = {.rows = (uint32_t)logits.dim[0],
                         .cols = (uint32_t)logits.dim[1],
                         .log_steps = p->log_steps,
                         .prediction_count = p->prediction_count};
    args.epoch_steps = steps_per_epoch(lo, p->log_steps);
    bt_emit_step_end(
        lo,
        (bt_emission){.dtype = p->dtype,
                      .binding = {bt_lower_value(lo, d->loss.id), bt_lower_value(lo, d->logits.id),
                                  bt_lower_value(lo, d->labels.id), lo->state, whole(lo, p->log),
                                  whole(lo, p->predictions)},
                      .bytes = (double)bt_dtype_size(p->dtype) * (args.rows * args.cols + 3.0)},
        &args);
}

static bt_status make_buffers(bt_context *ctx, bt_program *p) {
    size_t log_bytes = 2 * (size_t)p->log_steps * bt_dtype_size(p->dtype);
    BT_TRY(bt_buffer_make(ctx, sizeof(bt_step_state), &p->state));
    BT_TRY(bt_zero(ctx, (bt_binding){p->state, 0, p->state->bytes}));
    BT_TRY(bt_buffer_make(ctx, log_bytes, &p->log));
    BT_TRY(bt_zero(ctx, (bt_binding){p->log, 0, p->log->bytes}));
    if (!p->prediction_count) return BT_OK;
    BT_TRY(bt_buffer_make(ctx, 4 * (size_t)p->prediction_count, &p->predictions));
    return bt_zero(ctx, (bt_binding){p->predictions, 0, p->predictions->bytes});
}

static void want_all(bt_lowering *lo, const bt_program_desc *d, const bt_tensor *grads) {
    for (int i = 0; i < d->output_count; i++) bt_lowering_want(lo, d->outputs[i], true);
    for (int i = 0; grads && i < d->parameter_count; i++) bt_lowering_want(lo, grads[i], true);
    if (d->loss.id) bt_lowering_want(lo, d->loss, true);
    if (d->logits.id) bt_lowering_want(lo, d->logits, true);
    if (d->labels.id) bt_lowering_want(lo, d->labels, true);
}

// Bytes that a launch must move: each binding once.
static double launch_bytes(const bt_launch *launch) {
    double bytes = 0;
    for (int i = 0; i < launch->binding_count; i++)
        if (launch->binding[i].buffer) bytes += (double)launch->binding[i].bytes;
    return bytes;
}

static bt_status keep_outputs(bt_lowering *lo, bt_program *p, const bt_program_desc *d) {
    p->output_count = d->output_count;
    p->outputs = calloc((size_t)d->output_count + 1, sizeof *p->outputs);
    if (!p->outputs) return bt_fail_memory(bt_error_of(lo->ctx), "a program", sizeof *p->outputs);
    for (int i = 0; i < d->output_count; i++) {
        bt_storage storage = bt_lower_value(lo, d->outputs[i].id);
        if (storage) p->outputs[i] = lo->slots[storage].binding;
    }
    return BT_OK;
}

// Says what the device does in another way than launch by launch: the arithmetic of launches that
// are done with another one counts where their time does.
static void name_merged(bt_program *p) {
    for (int i = 0; p->api->merged && i < p->launch_count; i++) {
        int into = i;
        const char *kernel = p->api->merged(p->device_program, i, &into, &p->infos[i].bytes);
        if (!kernel) continue;
        p->infos[i].kernel = kernel;
        if (into == i) continue;
        p->infos[i].merged = true;
        p->infos[into].flops += p->infos[i].flops;
        p->infos[into].bytes += p->infos[i].bytes;
        p->infos[i].flops = p->infos[i].bytes = 0;
    }
}

bt_status bt_lowering_finish(bt_lowering *lo, bt_program *p, const bt_program_desc *d) {
    p->api = lo->ctx->api;
    p->device = lo->ctx->device;
    bt_context *ctx = lo->ctx;
    bt_lowering_place(lo);
    BT_TRY(lo->status);
    p->stats.temporary_bytes = lo->temporary_bytes;
    p->stats.unplanned_bytes = lo->unplanned_bytes;
    BT_TRY(bt_buffer_make(ctx, lo->temporary_bytes, &p->temporary));
    bt_lowering_bind(lo, p->temporary);
    BT_TRY(keep_outputs(lo, p, d));
    p->launch_count = p->stats.launches = lo->launch_count;
    size_t count = (size_t)lo->launch_count + 1; // never 0
    p->infos = calloc(count, sizeof *p->infos);
    bt_launch *launches = calloc(count, sizeof *launches);
    bt_program_use use = {p->timed, p->outputs, p->output_count};
    bt_status status = p->infos && launches ? BT_OK
                                            : bt_fail_memory(bt_error_of(ctx), "a program",
                                                             count * sizeof *launches);
    for (int i = 0; status == BT_OK && i < lo->launch_count; i++) {
        const bt_lowered_launch *l = &lo->launches[i];
        launches[i] = l->launch;
        memcpy(p->infos[i].label, l->label, sizeof l->label);
        p->infos[i].kernel = bt_kernel_name(ctx->api, &launches[i]);
        p->infos[i].flops = l->flops;
        p->infos[i].bytes = l->bytes > 0 ? l->bytes : launch_bytes(&l->launch);
        p->stats.flops += l->flops;
        status = bt_launch_validate(&launches[i], l->label, bt_error_of(ctx));
    }
    if (status == BT_OK)
        status = ctx->api->program_init(ctx->device, launches, lo->launch_count, &use,
                                        bt_error_of(ctx), &p->device_program);
    free(launches);
    if (status == BT_OK) name_merged(p);
    return status;
}

static bt_status compile(bt_lowering *lo, bt_program *p, const bt_program_desc *d,
                         const bt_tensor *grads) {
    want_all(lo, d, grads);
    bt_lowering_fuse(lo);
    lo->state = whole(lo, p->state);
    if (grads) bt_optimizer_place_gradients(lo, p, grads);
    BT_TRY(bt_lowering_emit_all(lo));
    if (grads) bt_optimizer_emit(lo, p, d, grads);
    emit_step_end(lo, p, d);
    BT_TRY(lo->status);
    return bt_lowering_finish(lo, p, d);
}

static bt_status make(bt_context *ctx, bt_program *p, const bt_program_desc *d, bt_tensor *grads) {
    p->dtype = bt_tensor_dtype(ctx, d->loss.id ? d->loss : d->logits);
    p->log_steps = d->log_steps > 0 ? (uint32_t)d->log_steps : 1;
    p->prediction_count = d->prediction_count > 0 ? (uint32_t)d->prediction_count : 0;
    p->timed = d->profile;
    BT_TRY(make_buffers(ctx, p));
    bool trains = d->loss.id && d->parameter_count > 0;
    if (trains) {
        BT_TRY(bt_optimizer_open(ctx, p, d));
        BT_TRY(bt_grad(ctx, d->loss, d->parameters, d->parameter_count, grads));
    }
    bt_lowering lo;
    bt_status status = bt_lowering_open(&lo, ctx);
    if (status == BT_OK) status = compile(&lo, p, d, trains ? grads : NULL);
    bt_lowering_close(&lo);
    return status;
}

bt_status bt_program_make(bt_context *ctx, const bt_program_desc *d, bt_program **out) {
    *out = NULL;
    BT_TRY(bt_error_of(ctx)->status); // the sentence of a graph that could not be built
    BT_TRY(check_desc(ctx, d));
    size_t count = d->parameter_count > 0 ? (size_t)d->parameter_count : 1;
    bt_tensor *grads = calloc(count, sizeof *grads);
    bt_program *p = calloc(1, sizeof *p);
    bt_status status = grads && p ? make(ctx, p, d, grads)
                                  : bt_fail_memory(bt_error_of(ctx), "a program", sizeof *p);
    free(grads);
    if (status != BT_OK) {
        bt_program_free(ctx, p);
        return status;
    }
    BT_TRY(bt_own(ctx, p, bt_program_free));
    *out = p;
    return BT_OK;
}

void bt_program_free(bt_context *ctx, void *object) {
    bt_program *p = object;
    if (!p) return;
    if (p->device_program) ctx->api->program_done(ctx->device, p->device_program);
    bt_buffer *buffers[] = {p->temporary, p->state, p->table, p->log, p->predictions, p->partials};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) bt_buffer_free(ctx, buffers[i]);
    for (int i = 0; i < p->run_count; i++) {
        bt_buffer_free(ctx, p->runs[i].grads);
        for (int m = 0; m < 2; m++) bt_buffer_free(ctx, p->runs[i].moment[m]);
    }
    free(p->runs);
    free(p->trained);
    free(p->outputs);
    free(p->infos);
    free(p);
}

// ---- Running ---------------------------------------------------------------------------------

bt_status bt_program_run(bt_context *ctx, bt_program *p, uint32_t steps) {
    BT_TRY(ctx->api->run(ctx->device, p->device_program, steps, bt_error_of(ctx)));
    p->step += steps;
    p->steps_run += steps;
    return ctx->api->wait(ctx->device, bt_error_of(ctx));
}

bt_status bt_program_seek(bt_context *ctx, bt_program *p, uint32_t step) {
    bt_step_state state = {.step = step};
    p->step = step;
    return ctx->api->write(ctx->device, p->state, 0, &state, sizeof state, bt_error_of(ctx));
}

uint32_t bt_program_step(const bt_program *p) {
    return p->step;
}

static bt_status read_binding(bt_context *ctx, const char *what, const bt_binding *b, void *out,
                              size_t bytes) {
    if (bytes != b->bytes)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE, "%s: %zu bytes asked for, it has %zu",
                       what, bytes, b->bytes);
    return bytes ? ctx->api->read(ctx->device, b->buffer, b->offset, out, bytes, bt_error_of(ctx))
                 : BT_OK;
}

bt_status bt_program_read(bt_context *ctx, bt_program *p, int output, void *out, size_t bytes) {
    if (output < 0 || output >= p->output_count)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE, "bt_program_read: output %d of %d", output,
                       p->output_count);
    return read_binding(ctx, "bt_program_read", &p->outputs[output], out, bytes);
}

bt_status bt_program_log(bt_context *ctx, bt_program *p, uint32_t first, uint32_t count,
                         bt_log_entry *out) {
    if (count > p->log_steps || first > p->log_steps - count)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_program_log: entries %u to %u of a log of %u", first, first + count,
                       p->log_steps);
    if (count == 0) return BT_OK;
    size_t element = bt_dtype_size(p->dtype), offset = 2 * element * first;
    BT_TRY(ctx->api->read(ctx->device, p->log, offset, out, 2 * element * count, bt_error_of(ctx)));
    if (p->dtype == BT_F64) return BT_OK;
    // Floats were read into the front of `out`: widen from the back.
    double *wide = &out[0].loss;
    for (size_t i = 2 * (size_t)count; i-- > 0;) {
        float narrow;
        memcpy(&narrow, (const char *)out + i * sizeof narrow, sizeof narrow);
        memcpy((char *)wide + i * sizeof(double), &(double){(double)narrow}, sizeof(double));
    }
    return BT_OK;
}

bt_status bt_program_predictions(bt_context *ctx, bt_program *p, int32_t *out, size_t count) {
    if (count > p->prediction_count)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "bt_program_predictions: %zu asked for, %u remembered", count,
                       p->prediction_count);
    if (count == 0) return BT_OK;
    return ctx->api->read(ctx->device, p->predictions, 0, out, 4 * count, bt_error_of(ctx));
}

// ---- Optimizer state -------------------------------------------------------------------------

int bt_program_moment_count(const bt_program *p) {
    return p->moment_count;
}

static bt_status find_moment(bt_context *ctx, const bt_program *p, int parameter, int moment,
                             size_t bytes, bt_binding *out) {
    if (parameter < 0 || parameter >= p->trained_count || moment < 0 || moment >= p->moment_count)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "moment %d of parameter %d: there are %d of %d parameters", moment,
                       parameter, p->moment_count, p->trained_count);
    const bt_trained *t = &p->trained[parameter];
    if (bytes != t->bytes)
        return bt_fail(bt_error_of(ctx), BT_ERROR_USAGE,
                       "moment of parameter %d: %zu bytes given, "
                       "it has %zu",
                       parameter, bytes, t->bytes);
    *out = (bt_binding){p->runs[t->run].moment[moment], t->offset, t->bytes};
    return BT_OK;
}

bt_status bt_program_moment_read(bt_context *ctx, bt_program *p, int parameter, int moment,
                                 void *out, size_t bytes) {
    bt_binding b = {0};
    BT_TRY(find_moment(ctx, p, parameter, moment, bytes, &b));
    return ctx->api->read(ctx->device, b.buffer, b.offset, out, bytes, bt_error_of(ctx));
}

bt_status bt_program_moment_write(bt_context *ctx, bt_program *p, int parameter, int moment,
                                  const void *data, size_t bytes) {
    bt_binding b = {0};
    BT_TRY(find_moment(ctx, p, parameter, moment, bytes, &b));
    return ctx->api->write(ctx->device, b.buffer, b.offset, data, bytes, bt_error_of(ctx));
}

const char *bt_program_note(const bt_program *p) {
    const char *note = p->api->note ? p->api->note(p->device_program) : NULL;
    return note ? note : "";
}

// ---- Profile ---------------------------------------------------------------------------------

int bt_program_profile(const bt_program *p, bt_profile_row *rows, int max) {
    if (!p->timed) return 0;
    int count = p->launch_count + 1;
    if (!rows) return count;
    double *seconds = calloc((size_t)count, sizeof *seconds), total = 0, launches = 0;
    if (!seconds) return 0;
    p->api->times(p->device, p->device_program, seconds, &total);
    for (int i = 0; i < p->launch_count; i++) {
        launches += seconds[i];
        if (i >= max) continue;
        double steps = (double)p->steps_run;
        rows[i] = (bt_profile_row){.kernel = p->infos[i].kernel,
                                   .calls = p->steps_run,
                                   .seconds = seconds[i],
                                   .flops = steps * p->infos[i].flops,
                                   .bytes = steps * p->infos[i].bytes};
        memcpy(rows[i].op, p->infos[i].label, sizeof rows[i].op);
    }
    if (count <= max) {
        double gaps = total > launches ? total - launches : 0;
        rows[count - 1] = (bt_profile_row){.op = "launch gaps", .kernel = "", .seconds = gaps};
    }
    free(seconds);
    return count;
}

int bt_program_trace(const bt_program *p, bt_span *spans, int max) {
    const bt_launch_log *log = p->timed ? p->api->log(p->device_program) : NULL;
    int steps = log ? bt_launch_log_kept(log) : 0, count = 0;
    for (int s = 0; s < steps; s++) {
        uint64_t step;
        const bt_launch_time *times = bt_launch_log_step(log, s, &step);
        for (int i = 0; i < p->launch_count; i++) {
            if (p->infos[i].merged || count++ >= max) continue;
            spans[count - 1] = (bt_span){.kernel = p->infos[i].kernel,
                                         .start = times[i].start,
                                         .seconds = times[i].seconds,
                                         .step = (uint32_t)(p->step - p->steps_run + step) + 1};
            memcpy(spans[count - 1].name, p->infos[i].label, sizeof spans->name);
        }
    }
    return count;
}

void bt_program_describe(const bt_program *p, bt_program_stats *out) {
    *out = p->stats;
}

const char *bt_program_kernel(const bt_program *p, int i) {
    return i >= 0 && i < p->launch_count ? p->infos[i].kernel : NULL;
}
