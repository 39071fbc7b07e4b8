// Which products and convolutions go to kernels of their own on an NVIDIA GPU, and what these are
// told: sizes that the copy engine accepts, scratch memory that holds what is packed. A driver that
// only remembers stands for the real one.
#include "support.h"

#ifdef BT_HAVE_CUDA

#include <string.h>

#include "device/cuda/gemm.h"

enum { MAPS_MAX = 16 };
static uint64_t scratch_bytes; // what was allocated last
static int maps;               // that were described
static CUdeviceptr map_begin[MAPS_MAX];
static uint64_t map_bytes[MAPS_MAX];

static CUresult fake_enter(CUcontext context) {
    (void)context;
    return CUDA_SUCCESS;
}

static CUresult fake_alloc(CUdeviceptr *address, size_t bytes) {
    *address = 0x10000000;
    scratch_bytes = bytes;
    return CUDA_SUCCESS;
}

static CUresult fake_load(CUmodule *module, const void *image, unsigned count, int *options,
                          void **values) {
    (void)image, (void)count, (void)options, (void)values;
    *module = (CUmodule)(uintptr_t)1;
    return CUDA_SUCCESS;
}

static CUresult fake_function(CUfunction *function, CUmodule module, const char *name) {
    (void)module, (void)name;
    *function = (CUfunction)(uintptr_t)1;
    return CUDA_SUCCESS;
}

static CUresult fake_attribute(CUfunction function, int attribute, int value) {
    (void)function, (void)attribute;
    assert_true(value <= 232448);
    return CUDA_SUCCESS;
}

static CUresult fake_map(CUtensorMap *map, int type, unsigned rank, void *address,
                         const uint64_t *dims, const uint64_t *strides, const uint32_t *box,
                         const uint32_t *element_strides, int interleave, int swizzle,
                         int promotion, int fill) {
    uint64_t number = type == 9 ? 2 : 4;
    (void)element_strides, (void)interleave, (void)swizzle, (void)promotion, (void)fill;
    memset(map, 0x5a, sizeof *map);
    assert_int_equal(rank, 3);
    assert_int_equal((uintptr_t)address % 16, 0);
    for (int i = 0; i < 3; i++) assert_true(dims[i] > 0 && box[i] > 0 && box[i] <= 256);
    for (int i = 0; i < 2; i++) assert_true(strides[i] % 16 == 0 && strides[i] < (uint64_t)1 << 40);
    assert_int_equal(box[0] * number, 128);
    assert_true(dims[0] * number <= strides[0]);
    assert_true(maps < MAPS_MAX);
    map_begin[maps] = (CUdeviceptr)(uintptr_t)address;
    map_bytes[maps++] = (dims[2] - 1) * strides[1] + (dims[1] - 1) * strides[0] + dims[0] * number;
    return CUDA_SUCCESS;
}

// Expands a launch on an H200; returns how many kernels do it, 0: the portable one.
static int expand(bt_precision precision, bt_launch *launch, bt_cuda_node *nodes) {
    bt_device dev = {.chip = {.capability = 90, .sms = 132}, .precision = precision};
    bt_error err = {0};
    int count = 0;
    bt_cu.cuCtxSetCurrent = fake_enter;
    bt_cu.cuMemAlloc = fake_alloc;
    bt_cu.cuModuleLoadDataEx = fake_load;
    bt_cu.cuModuleGetFunction = fake_function;
    bt_cu.cuFuncSetAttribute = fake_attribute;
    bt_cu.cuTensorMapEncodeTiled = fake_map;
    maps = 0;
    scratch_bytes = 0;
    bool taken = bt_cuda_gemm_expand(&dev, launch, nodes, &count, &err);
    assert_int_equal(err.status, BT_OK);
    for (int i = 0; taken && i < count; i++) {
        assert_true(nodes[i].one && nodes[i].args_bytes <= BT_CUDA_ARGS_BYTES);
        assert_true(nodes[i].grid[0] > 0 && nodes[i].grid[1] > 0 && nodes[i].grid[2] > 0);
        assert_true(nodes[i].cluster == 0 || nodes[i].grid[0] % nodes[i].cluster == 0);
        assert_true(nodes[i].grid[1] <= 65535 && nodes[i].grid[2] <= 65535);
    }
    for (int i = 0; i < maps; i++) // all that is described was allocated
        assert_true(map_begin[i] - 0x10000000 + map_bytes[i] <= scratch_bytes);
    while (dev.modules) {
        bt_cuda_module *module = dev.modules;
        dev.modules = module->next;
        free(module);
    }
    free(dev.scratch);
    return taken ? count : 0;
}

static bt_launch launch_of(uint16_t kernel, const void *args, size_t bytes) {
    static bt_buffer somewhere = {(void *)(uintptr_t)0x7f0000000000, (size_t)1 << 40};
    bt_launch launch = {.kernel = kernel, .dtype = BT_F32, .binding_count = 5};
    for (int i = 0; i < 5; i++) launch.binding[i].buffer = i == 3 ? NULL : &somewhere;
    memcpy(launch.scalars, args, bytes);
    return launch;
}

static bt_launch matmul(uint32_t m, uint32_t n, uint32_t k, uint32_t ta, uint32_t tb) {
    bt_matmul_args args = {.m = m, .n = n, .k = k, .batch1 = 1, .batch2 = 1};
    args.transpose_a = ta;
    args.transpose_b = tb;
    return launch_of(BT_KERNEL_matmul, &args, sizeof args);
}

// (Else all products are the portable one's here, where there is no NVRTC either.)
static void need_kernels(void) {
    if (!bt_cuda_image_named("gemm_f32.cubin"))
        skip_because("this build has no kernels tuned for a GPU (TUNED=on)");
}

static void large_products_are_taken(void **state) {
    bt_cuda_node nodes[BT_CUDA_NODES_MAX];
    (void)state;
    need_kernels();
    bt_launch square = matmul(4096, 4096, 4096, 0, 0), odd = matmul(4095, 4097, 1023, 0, 1);
    bt_launch fits = matmul(4096, 4096, 4096, 1, 0);
    assert_int_equal(expand(BT_PRECISION_FP32, &fits, nodes), 1); // both lie as they should
    assert_int_equal(expand(BT_PRECISION_FP32, &square, nodes), 2);
    assert_int_equal(expand(BT_PRECISION_FP32, &odd, nodes), 2);
    for (int i = BT_PRECISION_TF32; i <= BT_PRECISION_BF16; i++) {
        assert_int_equal(expand((bt_precision)i, &square, nodes), 2);
        assert_int_equal(nodes[0].grid[0], 2 * 64 * 64); // tiles of both operands
        assert_int_equal(nodes[1].cluster, 2);
        assert_int_equal(nodes[1].grid[0] % 2, 0);
        assert_int_equal(expand((bt_precision)i, &odd, nodes), 2);
    }
}

// Where there are fewer tiles than the chip has room for, blocks share the depth of one.
static void few_tiles_are_split(void **state) {
    bt_cuda_node nodes[BT_CUDA_NODES_MAX];
    (void)state;
    need_kernels();
    bt_launch many = matmul(4096, 4096, 4096, 1, 0), few = matmul(1024, 1024, 1024, 1, 0);
    assert_int_equal(expand(BT_PRECISION_FP32, &many, nodes), 1);
    assert_int_equal(nodes[0].cluster, 1);
    assert_int_equal(nodes[0].grid[0], 32 * 32);
    assert_int_equal(expand(BT_PRECISION_FP32, &few, nodes), 1);
    assert_int_equal(nodes[0].cluster, 2);
    assert_int_equal(nodes[0].grid[0], 8 * 8 * 2);
}

static void small_ones_are_not(void **state) {
    bt_cuda_node nodes[BT_CUDA_NODES_MAX];
    (void)state;
    bt_launch small = matmul(64, 128, 784, 0, 1), flat = matmul(100000, 10, 1024, 0, 0);
    bt_launch nothing = matmul(4096, 4096, 0, 0, 0), real = matmul(4096, 4096, 4096, 0, 0);
    real.dtype = BT_F64;
    for (int i = BT_PRECISION_FP32; i <= BT_PRECISION_BF16; i++) {
        assert_int_equal(expand((bt_precision)i, &small, nodes), 0);
        assert_int_equal(expand((bt_precision)i, &flat, nodes), 0);
        assert_int_equal(expand((bt_precision)i, &nothing, nodes), 0);
        assert_int_equal(expand((bt_precision)i, &real, nodes), 0);
    }
}

static void batches(void **state) {
    bt_cuda_node nodes[BT_CUDA_NODES_MAX];
    (void)state;
    need_kernels();
    bt_matmul_args args = {.m = 500, .n = 700, .k = 301, .batch1 = 4, .batch2 = 5};
    args.a_step[0] = 5 * 500 * 301, args.a_step[1] = 500 * 301; // b is one for all
    bt_launch launch = launch_of(BT_KERNEL_matmul, &args, sizeof args);
    assert_int_equal(expand(BT_PRECISION_BF16, &launch, nodes), 2);
    assert_int_equal(nodes[0].grid[0], 8 * 5 * 20 + 11 * 5);
    assert_int_equal(expand(BT_PRECISION_FP32, &launch, nodes), 2); // b lies as it should
}

static void convolutions(void **state) {
    static const uint16_t kernels[] = {BT_KERNEL_conv2d, BT_KERNEL_conv2d_grad_input,
                                       BT_KERNEL_conv2d_grad_weight};
    bt_cuda_node nodes[BT_CUDA_NODES_MAX];
    (void)state;
    need_kernels();
    bt_conv_args wide = {100, 40, 15, 17, 136, 5, 3, 13, 17, 1, 1, BT_MAP_RELU}, other = wide;
    bt_conv_args few = {100, 1, 28, 28, 8, 5, 5, 24, 24, 1, 0, BT_MAP_COPY};
    other.stride = 2, other.oh = 7, other.ow = 9;
    for (int i = 0; i < 3; i++)
        for (int p = BT_PRECISION_FP32; p <= BT_PRECISION_BF16; p++) {
            bt_launch launch = launch_of(kernels[i], &wide, sizeof wide);
            launch.binding[3].buffer = launch.binding[0].buffer;
            assert_int_equal(expand((bt_precision)p, &launch, nodes), 3);
            launch = launch_of(kernels[i], &few, sizeof few);
            assert_int_equal(expand((bt_precision)p, &launch, nodes), 0);
            launch = launch_of(kernels[i], &other, sizeof other);
            assert_int_equal(expand((bt_precision)p, &launch, nodes), 0);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_products_are_taken),
        cmocka_unit_test(few_tiles_are_split),
        cmocka_unit_test(small_ones_are_not),
        cmocka_unit_test(batches),
        cmocka_unit_test(convolutions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void) {
    return 0; // no CUDA in this build
}

#endif
