// Kernels for GPUs of Apple that have more than the portable ones use (kernels/metal), and which
// launches they run.
#include "device/metal/metal_internal.h"

#include <string.h>

#include "device/kernels.h"

enum { SIMD_TILE = 64, SIMD_THREADS = 128 }; // kernels/metal/matmul_simd.metal

const int bt_metal_override_count = 1;

void bt_metal_overrides_fill(bt_portable *table) {
    int like = 0; // the kernel that has the same scalars
    while (bt_portable_table[like].kernel != BT_KERNEL_matmul) like++;
    table[0] = (bt_portable){.name = "matmul_simd",
                             .file = "kernels/metal/matmul_simd.metal",
                             .kernel = BT_KERNEL_matmul,
                             .group = SIMD_THREADS,
                             .special_count = bt_portable_table[like].special_count};
    memcpy(table[0].special, bt_portable_table[like].special, sizeof table[0].special);
}

// SIMD-group matrices are there from family Apple 7 on (Metal Feature Set Tables). A tile of 64 x
// 64 is worth it where there are some for each core, eight in the smallest M1, and the sums are
// long enough to pay for it; the portable kernels make more groups of smaller products.
static bool takes(const bt_device *dev, const bt_launch *launch, uint32_t grid[3]) {
    enum { FAMILY = 7, TILES = 16, DEPTH = 32 };
    bt_matmul_args g;
    if (dev->family < FAMILY || launch->kernel != BT_KERNEL_matmul || launch->dtype != BT_F32)
        return false;
    memcpy(&g, launch->scalars, sizeof g);
    uint64_t batch = (uint64_t)g.batch1 * g.batch2;
    grid[0] = g.n / SIMD_TILE + (g.n % SIMD_TILE > 0);
    grid[1] = g.m / SIMD_TILE + (g.m % SIMD_TILE > 0);
    grid[2] = (uint32_t)batch;
    return g.k >= DEPTH && g.m >= SIMD_TILE / 2 && g.n >= SIMD_TILE / 2 && batch > 0 &&
           batch <= BT_GROUPS_MAX && grid[0] <= BT_GROUPS_MAX && grid[1] <= BT_GROUPS_MAX &&
           (uint64_t)grid[0] * grid[1] * batch >= TILES;
}

int bt_metal_override_for(const bt_device *dev, const bt_launch *launch, uint32_t grid[3]) {
    if (dev->no_overrides || !takes(dev, launch, grid)) return -1;
    for (int i = 0; i < bt_portable_count; i++) // what an exchanged kernel does is to be seen
        if (dev->rules[i] && dev->table[i].kernel == launch->kernel) return -1;
    return bt_portable_count;
}
