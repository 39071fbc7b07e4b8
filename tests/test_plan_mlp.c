// The plan of the MLP kernel: which networks it takes, on how many blocks, and what it says of the
// others. The numbers of bytes are compared with the kernel's when that is compiled.
#include "support.h"

#include "device/cuda/whole.h"

extern const bt_whole bt_whole_mlp;

static const bt_gpu hopper = {90, 132, 232448, BT_PRECISION_FP32};

// Fully connected layers of these widths, the first that of the image.
static bt_net net_of(const uint32_t *widths, int layers, uint32_t batch) {
    static bt_buffer somewhere;
    bt_net net = {.layers = layers, .classes = widths[layers], .trains = true};
    net.gather.pixels = widths[0];
    net.gather.batch = batch;
    net.moment[0].buffer = &somewhere;
    uint32_t at = 0;
    for (int i = 0; i < layers; i++) {
        bool last = i == layers - 1;
        net.layer[i] = (bt_net_layer){.c = widths[i],
                                      .o = widths[i + 1],
                                      .activation = last ? BT_MAP_COPY : BT_MAP_RELU,
                                      .weight = at,
                                      .bias = at + widths[i] * widths[i + 1]};
        at = net.layer[i].bias + widths[i + 1];
    }
    return net;
}

static bt_whole_plan plan_of(const bt_net *net, const bt_gpu *gpu, char why[BT_WHY_BYTES]) {
    bt_whole_plan plan = {0};
    why[0] = 0;
    if (!bt_whole_mlp.plan(net, gpu, &plan, why)) plan.source = NULL;
    return plan;
}

#define PLAN(plan, why, gpu, batch, ...)                                  \
    static const uint32_t plan##_widths[] = {__VA_ARGS__};                \
    enum { plan##_layers = sizeof plan##_widths / sizeof(uint32_t) - 1 }; \
    bt_net plan##_net = net_of(plan##_widths, plan##_layers, batch);      \
    char why[BT_WHY_BYTES];                                               \
    bt_whole_plan plan = plan_of(&plan##_net, gpu, why)

static void test_shapes(void **state) {
    (void)state;
    PLAN(mlp, mlp_why, &hopper, 64, 784, 128, 10);
    check(mlp.source, "not taken: %s", mlp_why);
    check(mlp.cluster == 16 && mlp.grid == 16 && mlp.resident, "%u blocks of %u", mlp.grid,
          mlp.cluster);
    check(strstr(mlp.defines, "#define WIDTHS 784, 128, 10\n"), "defines: %s", mlp.defines);
    check(strstr(mlp.defines, "#define WEIGHTS_AT 0, 100480\n"), "defines: %s", mlp.defines);
    PLAN(deep, deep_why, &hopper, 64, 784, 256, 128, 10);
    check(deep.source && deep.cluster == 16, "not taken: %s", deep_why);
    check(deep.shared_bytes <= hopper.shared_max, "%zu bytes", deep.shared_bytes);
    PLAN(small, small_why, &hopper, 64, 784, 64, 10);
    check(small.source && small.cluster == 8, "%u blocks in a cluster", small.cluster);
}

// 256 rows are 4 chunks of 64; 500 are 8, two for each of 4 clusters; 300 are 5, on 3.
static void test_clusters(void **state) {
    (void)state;
    static const uint32_t batches[][2] = {{1, 1}, {64, 1}, {65, 2}, {256, 4}, {300, 3}, {500, 4}};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
        PLAN(mlp, why, &hopper, batches[i][0], 784, 128, 10);
        check(mlp.source, "not taken: %s", why);
        check(mlp.grid == 16 * batches[i][1], "batch %u: %u blocks", batches[i][0], mlp.grid);
    }
}

static void refuses(const bt_net *net, const bt_gpu *gpu, const char *part) {
    char why[BT_WHY_BYTES];
    bt_whole_plan plan = plan_of(net, gpu, why);
    check(!plan.source, "taken, although: %s", part);
    check(strstr(why, part), "\"%s\" does not say \"%s\"", why, part);
}

static void test_steps_aside(void **state) {
    (void)state;
    static const uint32_t widths[] = {784, 128, 10}, wide[] = {784, 1024, 10},
                          many[] = {784, 128, 100}, odd[] = {785, 128, 10};
    bt_net net = net_of(wide, 2, 64);
    refuses(&net, &hopper, "1024 units");
    net = net_of(many, 2, 64);
    refuses(&net, &hopper, "100 classes");
    net = net_of(odd, 2, 64);
    refuses(&net, &hopper, "785 bytes");
    net = net_of(widths, 1, 64);
    refuses(&net, &hopper, "1 layers");
    net = net_of(widths, 2, 64);
    refuses(&net, &(bt_gpu){80, 108, 166912, BT_PRECISION_FP32}, "needs 9.0");
    net.clips = true;
    refuses(&net, &hopper, "clipped");
    net = net_of(widths, 2, 64);
    net.trains = false;
    refuses(&net, &hopper, "does not");
    net = net_of(widths, 2, 64);
    net.layer[0].kind = BT_NET_CONV;
    refuses(&net, &hopper, "convolution");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_clusters),
        cmocka_unit_test(test_steps_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
