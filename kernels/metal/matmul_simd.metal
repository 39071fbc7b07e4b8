// Matrix products on GPUs with SIMD-group matrices (Apple 7 and newer: M1, A14): 32 threads multiply
// two 8 x 8 matrices in one instruction, whose operands they load from threadgroup memory together.
// Above this text the build puts the helpers, the scalars (bt_p) and the function constants of
// kernel matmul (kernels/matmul.k), which says what is computed; which products come here says
// src/device/metal/override.c.
//
// A group of 128 threads has a tile of 64 x 64 of y, each of its four SIMD-groups a quarter of it: 32
// x 32, as 4 x 4 matrices in registers. Of a and b 16 steps of k at a time lie in threadgroup memory,
// as they lie in device memory, so that neighbours load neighbours whatever is transposed; the next
// 16 are on their way in registers meanwhile. Rows are 4 floats longer than what is in them, which
// puts the eight rows of a matrix on different banks. Loops over matrices and loads are unrolled by
// order: what they index must stay in registers.
constant uint SIDE = 64u;               // of the tile
constant uint DEPTH = 16u;              // steps of k
constant uint SHORT_ROW = DEPTH + 4u;   // of [SIDE, DEPTH] in threadgroup memory
constant uint LONG_ROW = SIDE + 4u;     // of [DEPTH, SIDE]
constant uint LOADS = 8u;               // of a thread, of a and of b: SIDE * DEPTH / 128
constant uint STRIP = 256u;             // 8 rows of a SIMD-group's quarter

[[max_total_threads_per_threadgroup(128)]] kernel void matmul_simd(device const float *a [[buffer(0)]],
    device const float *b [[buffer(1)]],
    device const float *bias [[buffer(2)]],
    device const float *y_forward [[buffer(3)]],
    device float *y [[buffer(4)]],
    constant bt_args &bt_p [[buffer(5)]],
    uint lid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint part [[simdgroup_index_in_threadgroup]],
    uint3 group [[threadgroup_position_in_grid]]) {
    threadgroup float tile_a[1280];
    threadgroup float tile_b[1280];
    const uint m = bt_p.m, n = bt_p.n, k = bt_p.k, batch2 = bt_p.batch2;
    const uint row = group.y * SIDE, col = group.x * SIDE;
    const bool a_long = transpose_a != 0u, b_long = transpose_b == 0u;

    // This thread loads row (of y) ar and step ak of a, and then further ones, 8 rows or 2 steps on.
    const uint ar = a_long ? lid % SIDE : lid / DEPTH, ak = a_long ? lid / SIDE : lid % DEPTH;
    const uint bc = b_long ? lid % SIDE : lid / DEPTH, bk = b_long ? lid / SIDE : lid % DEPTH;
    const uint ar_step = a_long ? 0u : 8u, ak_step = a_long ? 2u : 0u;
    const uint bc_step = b_long ? 0u : 8u, bk_step = b_long ? 2u : 0u;
    const uint a_down = a_long ? 1u : k, a_right = a_long ? m : 1u;
    const uint b_down = b_long ? n : 1u, b_right = b_long ? 1u : k;
    const uint a_at = group.z / batch2 * bt_p.a_step[0] + group.z % batch2 * bt_p.a_step[1];
    const uint b_at = group.z / batch2 * bt_p.b_step[0] + group.z % batch2 * bt_p.b_step[1];
    float next_a[LOADS], next_b[LOADS];
    simdgroup_float8x8 acc[4][4], left[4], right[4];
#pragma clang loop unroll(full)
    for (uint i = 0u; i < 4u; i++) {
#pragma clang loop unroll(full)
        for (uint j = 0u; j < 4u; j++) { acc[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f); }
    }

    for (uint k0 = 0u; k0 < k + DEPTH; k0 += DEPTH) { // loads [k0, k0 + 16), multiplies the 16 before
#pragma clang loop unroll(full)
        for (uint i = 0u; i < LOADS; i++) {
            uint r = row + ar + i * ar_step, p = k0 + ak + i * ak_step;
            next_a[i] = r < m && p < k ? a[a_at + r * a_down + p * a_right] : 0.0f;
            r = col + bc + i * bc_step;
            p = k0 + bk + i * bk_step;
            next_b[i] = r < n && p < k ? b[b_at + r * b_right + p * b_down] : 0.0f;
        }
        for (uint s = 0u; s < DEPTH && k0 > 0u; s += 8u) {
#pragma clang loop unroll(full)
            for (uint i = 0u; i < 4u; i++) {
                const uint r = part / 2u * 32u + i * 8u, c = part % 2u * 32u + i * 8u;
                if (a_long) {
                    simdgroup_load(left[i], tile_a + s * LONG_ROW + r, LONG_ROW, ulong2(0, 0), true);
                } else {
                    simdgroup_load(left[i], tile_a + r * SHORT_ROW + s, SHORT_ROW);
                }
                if (b_long) {
                    simdgroup_load(right[i], tile_b + s * LONG_ROW + c, LONG_ROW);
                } else {
                    simdgroup_load(right[i], tile_b + c * SHORT_ROW + s, SHORT_ROW, ulong2(0, 0), true);
                }
            }
#pragma clang loop unroll(full)
            for (uint i = 0u; i < 4u; i++) {
#pragma clang loop unroll(full)
                for (uint j = 0u; j < 4u; j++) {
                    simdgroup_multiply_accumulate(acc[i][j], left[i], right[j], acc[i][j]);
                }
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup); // all have read the tiles
#pragma clang loop unroll(full)
        for (uint i = 0u; i < LOADS; i++) {
            uint r = ar + i * ar_step, p = ak + i * ak_step;
            tile_a[a_long ? p * LONG_ROW + r : r * SHORT_ROW + p] = next_a[i];
            r = bc + i * bc_step;
            p = bk + i * bk_step;
            tile_b[b_long ? p * LONG_ROW + r : r * SHORT_ROW + p] = next_b[i];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

    // Strip by strip through threadgroup memory (a SIMD-group's own), so that what happens to a sum
    // is done by element and neighbours store neighbours.
#pragma clang loop unroll(full)
    for (uint i = 0u; i < 4u; i++) {
#pragma clang loop unroll(full)
        for (uint j = 0u; j < 4u; j++) {
            simdgroup_store(acc[i][j], tile_a + part * STRIP + j * 8u, 32u);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint s = 0u; s < 8u; s++) {
            const uint r = row + part / 2u * 32u + i * 8u + s, c = col + part % 2u * 32u + lane;
            if (r < m && c < n) {
                const uint at = (group.z * m + r) * n + c;
                float v = tile_a[part * STRIP + s * 32u + lane];
                if ((bt_present & 4u) != 0u) { v += bias[c]; }
                const float first = (bt_present & 8u) != 0u ? y_forward[at] : v;
                y[at] = apply(epilogue, first, v);
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}
