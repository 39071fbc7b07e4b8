// What products and convolutions share that do without the copy engine: tiles copied to shared
// memory ahead of the arithmetic, the arithmetic, in f32 or TF32, and sums on their way out.
//
// A thread has 8 x 8 sums in registers, so that each number it reads from shared memory serves 8 of
// them: every instruction that is no multiplication takes the place of one. Both operands lie with
// the rows (columns) of y contiguous, so tiles of STEP_K rows are copied as they are,
// asynchronously, GEMM_STAGES - 1 ahead.
#ifndef BT_CUDA_GEMM_F32_CUH
#define BT_CUDA_GEMM_F32_CUH

#include "gemm_cluster.cuh"

enum { STEP_K = 32, GEMM_STAGES = 3 };

// ---- Copying to shared memory -----------------------------------------------------------------

// Copies 16 bytes, or writes zeros where not `there`.
static __device__ __forceinline__ void copy_async(float *to, const float *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
}

static __device__ __forceinline__ void copies_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int PENDING> static __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// One operand as this thread copies it: its part of a tile [STEP_K, WIDTH]. SWIZZLE: 8 or 0; the
// numbers of row k lie at their place ^ SWIZZLE * (k % 4), so that threads that read a column of
// four rows do so from distinct banks.
template <int WIDTH, int THREADS, int SWIZZLE> struct tile_copier {
    static constexpr int DOWN = THREADS * 4 / WIDTH; // rows from one copy to the next
    const float *from;                               // of the first copy
    unsigned at;                                     // where it goes in the tile
    unsigned k;                                      // its row
    unsigned stride;
    bool there; // within the matrix

    // The column of the tile that this thread begins with.
    static __device__ __forceinline__ unsigned across() { return threadIdx.x * 4 % WIDTH; }

    // `first`: the number in row 0 and column across() of the tile, if that is `inside`; else
    // `any`.
    __device__ __forceinline__ tile_copier(const float *first, unsigned row_stride, bool inside,
                                           const float *any) {
        k = threadIdx.x * 4 / WIDTH;
        at = k * WIDTH + (across() ^ SWIZZLE * (k % 4));
        stride = row_stride;
        there = inside;
        from = there ? first + (size_t)k * stride : any;
    }

    // Copies the tile that begins at row k0 of `depth`, and goes on to the next.
    __device__ __forceinline__ void copy(float *tile, unsigned k0, unsigned depth) {
#pragma unroll
        for (int i = 0; i < STEP_K / DOWN; i++) {
            bool inside = there && k0 + k + i * DOWN < depth;
            copy_async(tile + at + i * DOWN * WIDTH,
                       inside ? from + i * DOWN * (size_t)stride : from, inside);
        }
        if (there && k0 + STEP_K < depth) from += STEP_K * (size_t)stride;
    }
};

// ---- Multiplying ------------------------------------------------------------------------------

// WARPS_M x WARPS_N warps of 8 x 4 threads, with 4 ROWS_4 x 4 COLUMNS_4 sums each. UNROLL rows of a
// stage are compiled as one: 16 gain a twenty-fifth over 8, and take the compiler twice as long.
template <int WARPS_M, int WARPS_N, int ROWS_4, int COLUMNS_4, int UNROLL> struct f32_tile {
    static constexpr int M = WARPS_M * ROWS_4 * 32, N = WARPS_N * COLUMNS_4 * 16;
    static constexpr int THREADS = WARPS_M * WARPS_N * 32;
    static constexpr int STAGE = STEP_K * (M + N); // numbers
    static constexpr int PITCH = N + 4; // of the sums in shared memory, for distinct banks
    static constexpr int SWIZZLE = 0;

    float sum[ROWS_4 * 4][COLUMNS_4 * 4];
    unsigned top, left; // of this thread's first sum; the others lie 32 and 16 apart

    // The rows of a thread in its warp follow from bits 1, 3 and 4 of its number, the columns from
    // 0 and 2: threads that differ in bit 0 read the same of a, in bit 1 the same of b, and that is
    // what lets shared memory serve 16 threads at once when each reads 16 bytes.
    __device__ __forceinline__ f32_tile() {
        unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        unsigned down = (lane >> 1 & 1) | (lane >> 2 & 6), right = (lane & 1) | (lane >> 1 & 2);
        top = warp / WARPS_N * ROWS_4 * 32 + down * 4;
        left = warp % WARPS_N * COLUMNS_4 * 16 + right * 4;
#pragma unroll
        for (int i = 0; i < ROWS_4 * 4; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS_4 * 4; j++) sum[i][j] = 0.0f;
    }

    __device__ __forceinline__ void multiply(const float *a, const float *b) {
        a += top;
        b += left;
#pragma unroll UNROLL
        for (int s = 0; s < STEP_K; s++) {
            float4 x[ROWS_4], z[COLUMNS_4];
#pragma unroll
            for (int i = 0; i < ROWS_4; i++) x[i] = *(const float4 *)&a[s * M + i * 32];
#pragma unroll
            for (int j = 0; j < COLUMNS_4; j++) z[j] = *(const float4 *)&b[s * N + j * 16];
#pragma unroll
            for (int i = 0; i < ROWS_4 * 4; i++)
#pragma unroll
                for (int j = 0; j < COLUMNS_4 * 4; j++)
                    sum[i][j] = fmaf(part(x[i / 4], i % 4), part(z[j / 4], j % 4), sum[i][j]);
        }
    }

    __device__ __forceinline__ void put(float *room) const {
#pragma unroll
        for (int i = 0; i < ROWS_4 * 4; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS_4; j++)
                *(float4 *)&room[(top + i / 4 * 32 + i % 4) * PITCH + left + j * 16] = make_float4(
                    sum[i][j * 4], sum[i][j * 4 + 1], sum[i][j * 4 + 2], sum[i][j * 4 + 3]);
    }

    static __device__ __forceinline__ float part(float4 v, int i) {
        return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
    }
};

// The same on the tensor cores, of operands that are rounded to TF32: 64 x 32 sums for each warp.
template <int WARPS_M, int WARPS_N> struct tf32_tile {
    static constexpr int M = WARPS_M * 64, N = WARPS_N * 32;
    static constexpr int THREADS = WARPS_M * WARPS_N * 32;
    static constexpr int STAGE = STEP_K * (M + N), PITCH = N + 4, SWIZZLE = 8;

    float sum[4][4][4]; // of each 16 x 8: row `down`, columns 2 `right` and the next, and 8 rows on
    unsigned top, left; // of the warp
    unsigned down, right;

    __device__ __forceinline__ tf32_tile() {
        unsigned warp = threadIdx.x / 32;
        top = warp / WARPS_N * 64;
        left = warp % WARPS_N * 32;
        down = threadIdx.x % 32 / 4;
        right = threadIdx.x % 4;
#pragma unroll
        for (int e = 0; e < 64; e++) sum[e / 16][e / 4 % 4][e % 4] = 0.0f;
    }

    // A thread has of the operands rows `right` and `right` + 4 of every eight.
    __device__ __forceinline__ void multiply(const float *a, const float *b) {
        a += right * M + top;
        b += right * N + left;
#pragma unroll
        for (int s = 0; s < STEP_K; s += 8) {
            unsigned x[4][4], z[4][2];
#pragma unroll
            for (int i = 0; i < 16; i++) {
                unsigned row = (i / 4 * 16 + i % 2 * 8 + down) ^ SWIZZLE * right;
                x[i / 4][i % 4] = __float_as_uint(a[(s + i / 2 % 2 * 4) * M + row]);
            }
#pragma unroll
            for (int j = 0; j < 8; j++) {
                unsigned column = (j / 2 * 8 + down) ^ SWIZZLE * right;
                z[j / 2][j % 2] = __float_as_uint(b[(s + j % 2 * 4) * N + column]);
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) add_up(sum[i][j], x[i], z[j]);
        }
    }

    static __device__ __forceinline__ void add_up(float (&d)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
            "{%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }

    __device__ __forceinline__ void put(float *room) const {
#pragma unroll
        for (int e = 0; e < 64; e += 2)
            *(float2 *)&room[(top + e / 16 * 16 + e / 2 % 2 * 8 + down) * PITCH + left +
                             e / 4 % 4 * 8 + 2 * right] =
                make_float2(sum[e / 16][e / 4 % 4][e % 4], sum[e / 16][e / 4 % 4][e % 4 + 1]);
    }
};

// ---- The ring of stages -----------------------------------------------------------------------

// Multiplies the tiles of rows 0 ... depth - 1. fetch(stage, k) copies those of both operands that
// begin at row k: that of a to `stage`, that of b behind it; beyond the depth zeros.
template <typename TILE, typename FETCH>
static __device__ __forceinline__ void multiply_tiles(TILE &tile, float *tiles, unsigned depth,
                                                      FETCH fetch) {
    unsigned now = 0, next = 0, k0 = 0;
    for (; next < GEMM_STAGES - 1; next++, k0 += STEP_K) {
        fetch(tiles + next * TILE::STAGE, k0);
        copies_commit();
    }
    for (unsigned k = 0; k < depth; k += STEP_K, k0 += STEP_K) {
        copies_wait<GEMM_STAGES - 2>();
        __syncthreads(); // the stage is whole, and nobody reads the one before any more
        fetch(tiles + next * TILE::STAGE, k0);
        copies_commit();
        tile.multiply(tiles + now * TILE::STAGE, tiles + now * TILE::STAGE + STEP_K * TILE::M);
        now = now + 1 == GEMM_STAGES ? 0 : now + 1;
        next = next + 1 == GEMM_STAGES ? 0 : next + 1;
    }
}

// ---- Handing on the sums ----------------------------------------------------------------------

// The blocks of a cluster share the depth of a tile: each multiplies `count` rows from `first` on.
struct depth_part {
    unsigned first, count;
    __device__ __forceinline__ depth_part(unsigned depth) {
        unsigned size = (depth + cluster_blocks() - 1) / cluster_blocks();
        size = (size + STEP_K - 1) / STEP_K * STEP_K;
        first = min(depth, cluster_rank() * size);
        count = min(size, depth - first);
    }
};

// Calls store(column, row, sums, count) for the column of this thread: the sum of row + r is
// sums[r * PITCH]. What the blocks of a cluster have is added up, always in the same order, and
// each stores a part of the rows. `tiles` is the room of the stages, which have been multiplied.
template <typename TILE, typename STORE>
static __device__ __forceinline__ void each_column(const TILE &tile, float *tiles, STORE store) {
    unsigned blocks = cluster_blocks(), rows = TILE::M * TILE::N / TILE::THREADS / blocks;
    unsigned part = cluster_rank() * (TILE::THREADS / TILE::N) + threadIdx.x / TILE::N;
    float *sums = tiles + part * rows * TILE::PITCH + threadIdx.x % TILE::N;
    copies_wait<0>();
    __syncthreads();
    tile.put(tiles);
    cluster_sync();
    if (blocks > 1) {
#pragma unroll 4
        for (unsigned r = 0; r < rows; r++) {
            float total = 0.0f;
            for (unsigned i = 0; i < blocks; i++) total += number_of(i, sums + r * TILE::PITCH);
            sums[r * TILE::PITCH] = total;
        }
        cluster_sync(); // the others may still be reading
    }
    store(threadIdx.x % TILE::N, part * rows, sums, rows);
}

#endif
