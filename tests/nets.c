// See nets.h.
#include "nets.h"
#include "support.h"

bt_dataset *digits(bt_context *ctx, int limit, bool test) {
    bt_dataset *set = NULL;
    ok(ctx, bt_dataset_open(ctx, &(bt_dataset_desc){.name = "digits", .limit = limit, .test = test},
                            &set));
    return set;
}

trained net_make(bt_context *ctx, const net_desc *desc) {
    trained net = {.ctx = ctx, .set = desc->set};
    int batch = desc->batch ? desc->batch : 64;
    if (!net.set) net.set = digits(ctx, desc->limit ? desc->limit : 320, false);
    bt_dataset_info info;
    bt_dataset_describe(net.set, &info);
    net.epoch_steps = (uint32_t)((info.count + batch - 1) / batch);
    bt_model_desc model = {.spec = desc->spec,
                           .channels = info.channels,
                           .height = info.height,
                           .width = info.width,
                           .classes = info.classes,
                           .seed = desc->seed,
                           .dtype = desc->dtype};
    ok(ctx, bt_model_make(ctx, &model, &net.model));
    net.batch = bt_dataset_batch(ctx, &(bt_batch_desc){.set = net.set,
                                                       .batch = batch,
                                                       .dtype = desc->dtype,
                                                       .seed = desc->seed,
                                                       .shuffle = !desc->file_order});
    net.logits = bt_model_forward(ctx, net.model, net.batch.images);
    net.loss = bt_cross_entropy(ctx, net.logits, net.batch.labels);
    bt_hyper hyper = desc->hyper;
    if (hyper.lr == 0) hyper = (bt_hyper){.lr = 0.1, .momentum = 0.9};
    int count = bt_model_parameter_count(net.model);
    bt_tensor parameters[32];
    check(count <= 32, "%d parameters", count);
    for (int i = 0; i < count; i++) parameters[i] = bt_model_parameter(net.model, i);
    bt_program_desc program = {.outputs = &net.logits,
                               .output_count = 1,
                               .loss = net.loss,
                               .parameters = parameters,
                               .parameter_count = count,
                               .optimizer = desc->optimizer,
                               .hyper = &hyper,
                               .hyper_count = 1,
                               .logits = net.logits,
                               .labels = net.batch.labels,
                               .log_steps = 1000,
                               .prediction_count = info.count,
                               .profile = desc->profile};
    ok(ctx, bt_program_make(ctx, &program, &net.program));
    return net;
}

void *net_state(trained *net, size_t *bytes) {
    int count = bt_model_parameter_count(net->model),
        moments = bt_program_moment_count(net->program);
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        bt_tensor t = bt_model_parameter(net->model, i);
        total += bt_shape_count(bt_tensor_shape(net->ctx, t)) *
                 bt_dtype_size(bt_tensor_dtype(net->ctx, t));
    }
    *bytes = total * (size_t)(1 + moments);
    uint8_t *state = allocate(*bytes), *to = state;
    for (int m = -1; m < moments; m++) {
        for (int i = 0; i < count; i++) {
            bt_tensor t = bt_model_parameter(net->model, i);
            size_t size = bt_shape_count(bt_tensor_shape(net->ctx, t)) *
                          bt_dtype_size(bt_tensor_dtype(net->ctx, t));
            if (m < 0)
                ok(net->ctx, bt_read(net->ctx, t, to, size));
            else
                ok(net->ctx, bt_program_moment_read(net->ctx, net->program, i, m, to, size));
            to += size;
        }
    }
    return state;
}

double net_loss(trained *net, uint32_t step) {
    bt_log_entry entry;
    ok(net->ctx, bt_program_log(net->ctx, net->program, step, 1, &entry));
    return entry.loss;
}
