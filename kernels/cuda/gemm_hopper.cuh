// The parts of Hopper that a large product needs, each as a function: barriers that count bytes
// (mbarrier), tiles fetched by the copy engine (TMA), products by a warp group (wgmma), and the
// ring of stages in which one warp group fetches and two multiply.
// PTX ISA: mbarrier, cp.async.bulk.tensor, "Asynchronous Warpgroup Level Matrix Instructions".
#ifndef BT_CUDA_GEMM_HOPPER_CUH
#define BT_CUDA_GEMM_HOPPER_CUH

#include "gemm_args.h"
#include "gemm_cluster.cuh"

typedef unsigned long long u64;

// ---- Barriers ---------------------------------------------------------------------------------

static __device__ __forceinline__ void barrier_init(u64 *bar, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)),
                 "r"(arrivals));
}

static __device__ __forceinline__ void barrier_expect(u64 *bar, unsigned bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)),
        "r"(bytes)
        : "memory");
}

static __device__ __forceinline__ void barrier_arrive(u64 *bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(bar)) : "memory");
}

// Arrives at the barrier that block `rank` of the cluster has in the same place. (What it guards is
// read and written by the tensor cores and the copy engine, which wait for each other. A release
// for the cluster would also wait until the results stored before have reached memory: measured,
// a fifth of the speed.)
static __device__ __forceinline__ void barrier_arrive_at(u64 *bar, unsigned rank) {
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}" ::"r"(shared_address(bar)),
                 "r"(rank)
                 : "memory");
}

// Waits until the phase of this parity has ended.
static __device__ __forceinline__ void barrier_wait(u64 *bar, unsigned parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra.uni over;\n"
                 "bra.uni again;\n"
                 "over:\n"
                 "}" ::"r"(shared_address(bar)),
                 "r"(parity)
                 : "memory");
}

// ---- Tiles by the copy engine -----------------------------------------------------------------

// Fetches the tile at (column, row, matrix) of a map; what lies outside of the tensor is 0. `bar`
// counts its bytes.
static __device__ __forceinline__ void fetch_tile(void *to, const bt_tensor_map *map, u64 *bar,
                                                  int column, int row, int matrix) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
                 "l"(map), "r"(shared_address(bar)), "r"(column), "r"(row), "r"(matrix)
                 : "memory");
}

// The same for all blocks of the cluster named by the bits of `blocks`: each gets the tile in the
// same place, and its own barrier counts it.
static __device__ __forceinline__ void fetch_tile_for(void *to, const bt_tensor_map *map, u64 *bar,
                                                      int column, int row, int matrix,
                                                      unsigned short blocks) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
        "l"(map), "r"(shared_address(bar)), "r"(column), "r"(row), "r"(matrix), "h"(blocks)
        : "memory");
}

// ---- Products by a warp group -----------------------------------------------------------------

// Describes rows of 128 bytes, swizzled by the copy engine, to wgmma: the address, and 1024 bytes
// from eight rows to the next eight. Adding 2 moves 32 bytes along the rows.
static __device__ __forceinline__ u64 tile_descriptor(const void *tile) {
    return (u64)((shared_address(tile) & 0x3ffff) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 |
           (u64)1 << 62;
}

// Orders the registers of the sums before the products that follow.
static __device__ __forceinline__ void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most PENDING of the committed groups are under way.
template <int PENDING> static __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <int COUNT> static __device__ __forceinline__ void registers_more() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT> static __device__ __forceinline__ void registers_less() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// The operands of an asm statement: %0 ... and the registers d[0] ...
#define BT_NAMES_32_0                                                                              \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                       \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define BT_NAMES_32_1                                                                              \
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                             \
    "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define BT_NAMES_32_2                                                                              \
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"                             \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define BT_NAMES_32_3                                                                              \
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"                 \
    "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define BT_REGISTERS_8(d, i)                                                                       \
    "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3]), "+f"((d)[(i) + 4]),  \
        "+f"((d)[(i) + 5]), "+f"((d)[(i) + 6]), "+f"((d)[(i) + 7])
#define BT_REGISTERS_32(d, i)                                                                      \
    BT_REGISTERS_8(d, i), BT_REGISTERS_8(d, (i) + 8), BT_REGISTERS_8(d, (i) + 16),                 \
        BT_REGISTERS_8(d, (i) + 24)
// Four products: the sums stay in the registers named first, and the descriptors after them (a, b)
// move 32 bytes along the rows. The first replaces the sums where not `add`.
#define BT_PRODUCT(shape, tail, sums, a, b, add)                                                   \
    "wgmma.mma_async.sync.aligned." shape " {" sums "}, " a ", " b ", " add ", 1, 1" tail ";\n"
#define BT_PRODUCTS(shape, tail, sums, a, b, add)                                                  \
    "{.reg .pred add; .reg .b64 a, b;\n"                                                           \
    "setp.ne.b32 add, " add ", 0;\n" BT_PRODUCT(shape, tail, sums, a, b, "add") BT_NEXT(a, b, "2") \
        BT_PRODUCT(shape, tail, sums, "a", "b", "1") BT_NEXT(a, b, "4")                            \
            BT_PRODUCT(shape, tail, sums, "a", "b", "1") BT_NEXT(a, b, "6")                        \
                BT_PRODUCT(shape, tail, sums, "a", "b", "1") "}"
#define BT_NEXT(a_0, b_0, step) "add.s64 a, " a_0 ", " step "; add.s64 b, " b_0 ", " step ";\n"
#define BT_PRODUCTS_128(shape, tail)                                                               \
    asm volatile(BT_PRODUCTS(shape, tail, BT_NAMES_32_0 "," BT_NAMES_32_1, "%64", "%65", "%66")    \
                 : BT_REGISTERS_32(sum, 0), BT_REGISTERS_32(sum, 32)                               \
                 : "l"(a), "l"(b), "r"(add))
#define BT_PRODUCTS_256(shape, tail)                                                               \
    asm volatile(BT_PRODUCTS(shape, tail,                                                          \
                             BT_NAMES_32_0 "," BT_NAMES_32_1 "," BT_NAMES_32_2 "," BT_NAMES_32_3,  \
                             "%128", "%129", "%130")                                               \
                 : BT_REGISTERS_32(sum, 0), BT_REGISTERS_32(sum, 32), BT_REGISTERS_32(sum, 64),    \
                   BT_REGISTERS_32(sum, 96)                                                        \
                 : "l"(a), "l"(b), "r"(add))

// How 128 bytes of k are multiplied: sum [64, N] += a [64, 128 bytes] b [N, 128 bytes]^T, or =
// where not `add`. Thread t of the group has of row t / 32 * 16 + t % 32 / 4 the columns 8 j + t %
// 4 * 2 and the next in sum[4 j] and sum[4 j + 1], of the row 8 further in sum[4 j + 2] and sum[4 j
// + 3].
struct bf16_products {
    static constexpr unsigned ELEMENTS = 64; // in 128 bytes

    static __device__ __forceinline__ void add_up(float (&sum)[64], u64 a, u64 b, int add) {
        BT_PRODUCTS_128("m64n128k16.f32.bf16.bf16", ", 0, 0");
    }
    static __device__ __forceinline__ void add_up(float (&sum)[128], u64 a, u64 b, int add) {
        BT_PRODUCTS_256("m64n256k16.f32.bf16.bf16", ", 0, 0");
    }
};

struct tf32_products {
    static constexpr unsigned ELEMENTS = 32;

    static __device__ __forceinline__ void add_up(float (&sum)[64], u64 a, u64 b, int add) {
        BT_PRODUCTS_128("m64n128k8.f32.tf32.tf32", "");
    }
    static __device__ __forceinline__ void add_up(float (&sum)[128], u64 a, u64 b, int add) {
        BT_PRODUCTS_256("m64n256k8.f32.tf32.tf32", "");
    }
};

// ---- The ring of stages -----------------------------------------------------------------------

enum {
    ROW_BYTES = 128, // of a tile: k elements of one row
    MULTIPLIERS = 2, // warp groups that multiply
    GROUP_THREADS = 128,
    THREADS = GROUP_THREADS * (1 + MULTIPLIERS), // the first group fetches
};

// What is in flight of a [M, k] and b [N, k].
template <int M, int N, int STAGES> struct gemm_ring {
    unsigned char a[STAGES][M * ROW_BYTES];
    unsigned char b[STAGES][N * ROW_BYTES];
    u64 full[STAGES];  // the tiles of the stage are there
    u64 empty[STAGES]; // what was in it has been multiplied
};

// A stage and the parity of the round, which both sides advance in step.
template <int STAGES> struct ring_place {
    unsigned stage = 0, parity = 0;
    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

template <int M, int N, int STAGES>
static __device__ __forceinline__ void ring_begin(gemm_ring<M, N, STAGES> &ring, unsigned blocks) {
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&ring.full[i], 1);
            barrier_init(&ring.empty[i], MULTIPLIERS * blocks);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
}

// A warp group multiplies `steps` stages: 64 rows of a, from a_row on, by 2 COUNT rows of b, from
// b_row on. `release(stage)` is called by all its threads when they have done with a stage.
template <typename PRODUCTS, int COUNT, int M, int N, int STAGES, typename RELEASE>
static __device__ __forceinline__ void multiply_stages(float (&sum)[COUNT],
                                                       gemm_ring<M, N, STAGES> &ring,
                                                       ring_place<STAGES> &at, unsigned steps,
                                                       unsigned a_row, unsigned b_row,
                                                       RELEASE release) {
    unsigned previous = 0;
    for (unsigned step = 0; step < steps; step++, at.advance()) {
        barrier_wait(&ring.full[at.stage], at.parity);
        u64 a = tile_descriptor(ring.a[at.stage] + a_row * ROW_BYTES);
        u64 b = tile_descriptor(ring.b[at.stage] + b_row * ROW_BYTES);
        products_begin();
        PRODUCTS::add_up(sum, a, b, step > 0);
        products_commit();
        // The products of the step before are done when only these are under way.
        products_wait<1>();
        if (step > 0) release(previous);
        previous = at.stage;
    }
    products_wait<0>();
    release(previous);
}

// ---- Handing on the sums ----------------------------------------------------------------------

// Sums lie in registers as wgmma leaves them: a thread has two of every eight columns. Each warp
// brings its 16 rows, 32 columns at a time, through shared memory.
enum { STORE_ROWS = 16, STORE_COLUMNS = 32, STORE_PITCH = 40 /* no two in one bank */ };

struct store_room {
    float sums[MULTIPLIERS * GROUP_THREADS / 32][STORE_ROWS][STORE_PITCH];
};

// Calls store(column, sums) for each column of this thread, of the 16 rows of its warp; column 0 is
// the first of the warp group.
template <int COUNT, typename STORE>
static __device__ __forceinline__ void each_column(const float (&sum)[COUNT], store_room &room,
                                                   STORE store) {
    unsigned lane = threadIdx.x % 32;
    float(&sums)[STORE_ROWS][STORE_PITCH] = room.sums[threadIdx.x / 32 - GROUP_THREADS / 32];
    constexpr int PART = STORE_COLUMNS / 2; // sums of this thread
#pragma unroll 1
    for (int part = 0; part < COUNT / PART; part++) {
        __syncwarp();
        // (All of the sums, as registers have no index when running.)
#pragma unroll
        for (int i = 0; i < COUNT; i += 2)
            if (i / PART == part)
                *(float2 *)&sums[lane / 4 + i % 4 * 4][i % PART / 4 * 8 + lane % 4 * 2] =
                    make_float2(sum[i], sum[i + 1]);
        __syncwarp();
        store(part * STORE_COLUMNS + lane, &sums[0][lane]);
    }
    __syncwarp(); // storing has parted the threads of a warp, and wgmma is of whole warps
}

#endif
