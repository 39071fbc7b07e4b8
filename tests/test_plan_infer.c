// The plans of the kernels that evaluate: which of them does a network, and what they say of the
// others. The numbers of bytes are compared with the kernels' when those are compiled.
#include "support.h"

#include "device/cuda/whole.h"

extern const bt_whole bt_whole_infer_one, bt_whole_infer_mlp, bt_whole_infer_cnn;

static const bt_gpu hopper = {90, 132, 232448, BT_PRECISION_FP32};

static void add_fc(bt_net *net, uint32_t inputs, uint32_t outputs) {
    net->layer[net->layers++] = (bt_net_layer){.kind = BT_NET_FC,
                                               .c = inputs,
                                               .h = 1,
                                               .w = 1,
                                               .o = outputs,
                                               .oh = 1,
                                               .ow = 1,
                                               .size = 1,
                                               .activation = BT_MAP_RELU,
                                               .pool = 1};
    net->classes = outputs;
}

static void add_conv(bt_net *net, uint32_t channels, uint32_t side, uint32_t outputs) {
    net->layer[net->layers++] = (bt_net_layer){.kind = BT_NET_CONV,
                                               .c = channels,
                                               .h = side,
                                               .w = side,
                                               .o = outputs,
                                               .oh = side - 4,
                                               .ow = side - 4,
                                               .size = 5,
                                               .activation = BT_MAP_RELU,
                                               .pool = 2};
}

static bt_net begin(uint32_t batch) {
    return (bt_net){.gather = {.count = 10000, .batch = batch, .pixels = 784},
                    .step = {.rows = batch, .log_steps = 1, .epoch_steps = 1}};
}
static bt_net mlp(uint32_t hidden, uint32_t batch) {
    bt_net net = begin(batch);
    add_fc(&net, 784, hidden);
    add_fc(&net, hidden, 10);
    return net;
}
static bt_net lenet(uint32_t batch) {
    bt_net net = begin(batch);
    add_conv(&net, 1, 28, 8);
    add_conv(&net, 8, 12, 16);
    add_fc(&net, 256, 10);
    return net;
}

static bt_whole_plan plan_of(const bt_whole *whole, bt_net net, const bt_gpu *gpu, char *why) {
    bt_whole_plan plan = {0};
    why[0] = 0;
    if (!whole->plan(&net, gpu, &plan, why)) plan.source = NULL;
    return plan;
}

static void test_takes(void **state) {
    (void)state;
    char why[BT_WHY_BYTES];
    bt_whole_plan plan = plan_of(&bt_whole_infer_mlp, mlp(128, 10000), &hopper, why);
    check(plan.source, "not taken: %s", why);
    check(plan.cluster == 2 && plan.grid == 132, "%u blocks of %u", plan.grid, plan.cluster);
    check(strstr(plan.defines, "#define PRODUCTS 3\n"), "defines: %s", plan.defines);
    for (uint32_t hidden = 10; hidden <= 1024; hidden += 78) {
        plan = plan_of(&bt_whole_infer_mlp, mlp(hidden, 100), &hopper, why);
        check(plan.source && plan.shared_bytes < hopper.shared_max, "%u units: %zu bytes, %s",
              hidden, plan.shared_bytes, why);
        check(plan.cluster > 1 && plan.grid % plan.cluster == 0 && plan.grid <= 132,
              "%u units: %u blocks of %u", hidden, plan.grid, plan.cluster);
    }
    plan = plan_of(&bt_whole_infer_cnn, lenet(10000), &hopper, why);
    check(plan.source && plan.shared_bytes == 76032, "%zu bytes, %s", plan.shared_bytes, why);
    for (uint32_t batch = 1; batch <= 32; batch += 31) {
        plan = plan_of(&bt_whole_infer_one, mlp(128, batch), &hopper, why);
        check(plan.source && plan.cluster == 16, "blocks of %u, %s", plan.cluster, why);
        plan = plan_of(&bt_whole_infer_one, lenet(batch), &hopper, why);
        check(plan.source && plan.cluster == 8, "blocks of %u, %s", plan.cluster, why);
    }
}

static void refuses(const bt_whole *whole, bt_net net, const bt_gpu *gpu, const char *part) {
    char why[BT_WHY_BYTES];
    bt_whole_plan plan = plan_of(whole, net, gpu, why);
    check(!plan.source, "taken, although: %s", part);
    check(strstr(why, part), "\"%s\" does not say \"%s\"", why, part);
}

static void test_steps_aside(void **state) {
    (void)state;
    const bt_gpu ampere = {80, 108, 166912, BT_PRECISION_FP32}, other = {100, 148, 232448, 0};
    refuses(&bt_whole_infer_one, mlp(128, 33), &hopper, "33 images");
    refuses(&bt_whole_infer_one, mlp(65536, 1), &hopper, "shared memory");
    refuses(&bt_whole_infer_one, mlp(128, 1), &ampere, "is for 9.0");
    refuses(&bt_whole_infer_mlp, mlp(2048, 100), &hopper, "2048 outputs of 784 pixels");
    refuses(&bt_whole_infer_mlp, lenet(100), &hopper, "convolutions");
    refuses(&bt_whole_infer_mlp, mlp(128, 100), &other, "10.0");
    refuses(&bt_whole_infer_cnn, mlp(128, 100), &hopper, "0 convolutions");
    bt_net net = lenet(100);
    net.layer[1].pool = 4;
    refuses(&bt_whole_infer_cnn, net, &hopper, "pooling of 4");
    net = lenet(100);
    net.trains = true;
    refuses(&bt_whole_infer_cnn, net, &hopper, "trains");
    net = mlp(128, 100);
    net.gather.pixels = 785;
    refuses(&bt_whole_infer_mlp, net, &hopper, "785 pixels");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes),
        cmocka_unit_test(test_steps_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
