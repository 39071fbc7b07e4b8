// See net.h.
#include "net.h"

const char *net_spec(const settings *s) {
    return s->arg_count ? s->args[0] : "mlp";
}

int net_make(bt_context *ctx, const settings *s, const bt_dataset_info *data, bt_batch in,
             net *out) {
    bt_model_desc desc = {.spec = net_spec(s),
                          .channels = data->channels,
                          .height = data->height,
                          .width = data->width,
                          .classes = data->classes,
                          .seed = (uint64_t)opt_number(s, "seed"),
                          .dtype = bt_tensor_dtype(ctx, in.images)};
    CHECK(ctx, bt_model_make(ctx, &desc, &out->model));
    out->count = bt_model_parameter_count(out->model);
    if (out->count > PARAMETERS_MAX)
        return fail(BT_ERROR_USAGE, "%s: %d parameter tensors; `%s` takes at most %d", desc.spec,
                    out->count, s->title, PARAMETERS_MAX);
    for (int i = 0; i < out->count; i++) out->parameters[i] = bt_model_parameter(out->model, i);
    out->labels = in.labels;
    out->logits = bt_model_forward(ctx, out->model, in.images);
    out->loss = bt_cross_entropy(ctx, out->logits, in.labels);
    return 0;
}

int net_program(bt_context *ctx, const net *n, double lr, int log_steps, bool profile,
                bt_program **out) {
    bt_hyper hyper = {.lr = lr, .momentum = 0.9};
    bt_program_desc desc = {.loss = n->loss,
                            .parameters = n->parameters,
                            .parameter_count = n->count,
                            .hyper = &hyper,
                            .hyper_count = 1,
                            .logits = n->logits,
                            .labels = n->labels,
                            .log_steps = log_steps,
                            .profile = profile};
    CHECK(ctx, bt_program_make(ctx, &desc, out));
    return 0;
}
