// What the warps of mlp.cu share: matrices in two halves and their products, activations, the
// optimizer, and sums over clusters.
#ifndef BT_CUDA_MLP_PARTS
#define BT_CUDA_MLP_PARTS
#include "mlp_shapes.cuh"

namespace mlp {

// ---- Matrices in two halves ------------------------------------------------------------------

// Each half (0 high, 1 low) is strips of 8 columns, each strip [rows, 8] fp16 numbers: so eight
// rows of a strip are 128 bytes without a gap, which ldmatrix reads without conflicts of banks, and
// a strip is one piece when it is sent to other blocks.
struct split_matrix {
    u32 base, rows, half;
    DEVICE u32 at(int part, int strip, int row) const {
        return base + part * half + (strip * rows + row) * 16;
    }
};

// The gradients by the logits: 16 columns, and the four pieces of a row side by side, because they
// are sent row by row. Which of them comes first changes from row to row, again because of banks.
struct row_matrix {
    u32 base;
    DEVICE u32 at(int part, int strip, int row) const {
        return base + row * 64 + ((strip * 2 + part) ^ (row >> 1 & 3)) * 16;
    }
};

// Two neighbours of a row, columns 8 strip + pair and the next (pair is even).
DEVICE void store_pair(const split_matrix &m, int strip, int row, int pair, float x, float y) {
    u32 high, low;
    split_pair(x, y, high, low);
    store_shared(m.at(0, strip, row) + 2 * pair, high);
    store_shared(m.at(1, strip, row) + 2 * pair, low);
}

DEVICE float2 load_pair(const split_matrix &m, int strip, int row, int pair) {
    float2 high = unpack_fp16(load_shared(m.at(0, strip, row) + 2 * pair));
    float2 low = unpack_fp16(load_shared(m.at(1, strip, row) + 2 * pair));
    return make_float2(high.x + low.x, high.y + low.y);
}

// The 16 x 16 of a that mma takes: rows from `row`, columns from strip `strip`.
template <class M>
DEVICE void load_a(u32 (&a)[4], const M &m, int part, int row, int strip, int lane) {
    load_matrices(a, m.at(part, strip + (lane >> 4), row + (lane & 15)));
}

// The same of the transposed matrix: rows of a are columns from strip `strip`, columns rows.
template <class M>
DEVICE void load_a_transposed(u32 (&a)[4], const M &m, int part, int strip, int row, int lane) {
    load_transposed(a, m.at(part, strip + (lane >> 3 & 1), row + (lane >> 4) * 8 + (lane & 7)));
}

// The 16 x 8 of b, both halves: high b[0], b[1], low b[2], b[3]. b is the transposed matrix, as
// weights [out, in] are multiplied with: its columns are rows from `row`.
DEVICE void load_b(u32 (&b)[4], const split_matrix &m, int strip, int row, int lane) {
    load_matrices(b, m.at(lane >> 4, strip + (lane >> 3 & 1), row + (lane & 7)));
}

// As it is: rows of b are rows from `row`, columns those of the strip.
template <class M>
DEVICE void load_b_straight(u32 (&b)[4], const M &m, int row, int strip, int lane) {
    load_transposed(b, m.at(lane >> 4, strip, row + (lane & 15)));
}

// c += a b with three products; each has its own sums, so that they need not wait for each other.
struct split_sum {
    float high[4], mixed[4], other[4];
    DEVICE split_sum() {
#pragma unroll
        for (int i = 0; i < 4; i++) high[i] = mixed[i] = other[i] = 0.0f;
    }
    DEVICE void add(const u32 (&a_high)[4], const u32 (&a_low)[4], const u32 (&b)[4]) {
        mma16(high, a_high, b[0], b[1]);
        mma16(mixed, a_high, b[2], b[3]);
        mma16(other, a_low, b[0], b[1]);
    }
    DEVICE void add8(const u32 (&a_high)[2], const u32 (&a_low)[2], u32 b_high, u32 b_low) {
        mma8(high, a_high[0], a_high[1], b_high);
        mma8(mixed, a_high[0], a_high[1], b_low);
        mma8(other, a_low[0], a_low[1], b_high);
    }
    DEVICE float operator[](int i) const {
        return high[i] + (mixed[i] + other[i]);
    }
};

// 16 rows of values [., STRIPS * 8] in registers, to be multiplied with weights.
template <int STRIPS> struct row_operand {
    static constexpr int PAIRS = STRIPS / 2, REST = STRIPS % 2;
    u32 high[PAIRS + 1][4], low[PAIRS + 1][4], last_high[2], last_low[2];

    DEVICE row_operand(const split_matrix &values, int row, int lane) {
#pragma unroll
        for (int s = 0; s < PAIRS; s++) {
            load_a(high[s], values, 0, row, 2 * s, lane);
            load_a(low[s], values, 1, row, 2 * s, lane);
        }
        if (REST) {
            load_matrices(last_high, values.at(0, STRIPS - 1, row + (lane & 15)));
            load_matrices(last_low, values.at(1, STRIPS - 1, row + (lane & 15)));
        }
    }
    // Times the rows weight_row .. weight_row + 7 of weights [out, in].
    DEVICE split_sum times(const split_matrix &weights, int weight_row, int lane) const {
        split_sum sum;
#pragma unroll
        for (int s = 0; s < PAIRS; s++) {
            u32 b[4];
            load_b(b, weights, 2 * s, weight_row, lane);
            sum.add(high[s], low[s], b);
        }
        if (REST) {
            u32 b[2];
            load_matrices(b, weights.at(lane >> 3 & 1, STRIPS - 1, weight_row + (lane & 7)));
            sum.add8(last_high, last_low, b[0], b[1]);
        }
        return sum;
    }
};

// The gradient by inputs: rows row .. row + 15 of `slopes` times a column strip of weights, which
// load_b_straight has fetched.
template <int STEPS, class M>
DEVICE split_sum back_product(const M &slopes, int row, const u32 (&weights)[STEPS][4], int lane) {
    split_sum sum;
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        u32 high[4], low[4];
        load_a(high, slopes, 0, row, 2 * s, lane);
        load_a(low, slopes, 1, row, 2 * s, lane);
        sum.add(high, low, weights[s]);
    }
    return sum;
}

// The gradient by weights: columns of strips out, out + 1 of slopes times those of strip `in` of
// values, summed over the rows.
template <class M>
DEVICE split_sum weight_product(const M &slopes, int out, const split_matrix &values, int in,
                                int lane) {
    split_sum sum;
#pragma unroll
    for (int row = 0; row < ROWS; row += 16) {
        u32 high[4], low[4], b[4];
        load_a_transposed(high, slopes, 0, out, row, lane);
        load_a_transposed(low, slopes, 1, out, row, lane);
        load_b_straight(b, values, row, in, lane);
        sum.add(high, low, b);
    }
    return sum;
}

// The sums of the columns of a strip: every lane gets those of columns 2t and 2t + 1. A product
// with a matrix of ones, because tensor cores add faster than shuffles.
template <class M> DEVICE float2 column_sums(const M &m, int strip, int lane) {
    const u32 ones[4] = {0x3c003c00u, 0x3c003c00u, 0x3c003c00u, 0x3c003c00u};
    float high[4] = {0, 0, 0, 0}, low[4] = {0, 0, 0, 0};
#pragma unroll
    for (int row = 0; row < ROWS; row += 16) {
        u32 b[4];
        load_b_straight(b, m, row, strip, lane);
        mma16(high, ones, b[0], b[1]);
        mma16(low, ones, b[2], b[3]);
    }
    return make_float2(high[0] + low[0], high[1] + low[1]);
}

// ---- Activations -----------------------------------------------------------------------------

template <int ACTIVATION> DEVICE float activate(float x) {
    if constexpr (ACTIVATION == RELU) return x <= 0.0f ? 0.0f : x; // NaN stays
    if constexpr (ACTIVATION == SIGMOID) return 1.0f / (1.0f + expf(-x));
    return tanhf(x);
}

// The derivative, from what the activation gave.
template <int ACTIVATION> DEVICE float derivative(float y) {
    if constexpr (ACTIVATION == RELU) return y > 0.0f ? 1.0f : 0.0f;
    if constexpr (ACTIVATION == SIGMOID) return y * (1.0f - y);
    return 1.0f - y * y;
}

// ---- The optimizer ---------------------------------------------------------------------------

// A row of the table of hyper-parameters, in the order of kernels/update.k.
struct hyper {
    float lr, momentum, beta2, epsilon, decay, correction1, correction2;
    float mean; // 1 / rows of the batch that count
};

DEVICE hyper hyper_of_step(const bt_net_args &args, u32 step, u32 valid) {
    const float4 *row = (const float4 *)(args.table + 8 * (size_t)min(step, args.rows - 1u));
    float4 a = row[0], b = row[1];
    return {a.x, a.y, a.z, a.w, b.x, b.z, b.w, valid > 0 ? 1.0f / (float)valid : 0.0f};
}

// Some parameters in registers, with what the optimizer remembers of them.
template <int N> struct trained {
    float value[N];
    float moment1[MOMENTS > 0 ? N : 1], moment2[MOMENTS > 1 ? N : 1];

    // Parameters that are not there (`present` false) are 0 and stay 0.
    DEVICE void load(int i, const bt_net_args &args, u32 at, bool present) {
        value[i] = present ? args.params[at] : 0.0f;
        if (MOMENTS > 0) moment1[i] = present ? args.moment1[at] : 0.0f;
        if (MOMENTS > 1) moment2[i] = present ? args.moment2[at] : 0.0f;
    }
    DEVICE void store(int i, const bt_net_args &args, u32 at) const {
        args.params[at] = value[i];
        if (MOMENTS > 0) args.moment1[at] = moment1[i];
        if (MOMENTS > 1) args.moment2[at] = moment2[i];
    }
    // As the kernel `update` of kernels/update.k.
    DEVICE void update(int i, float g, const hyper &h) {
        float p = value[i];
        if (OPTIMIZER == ADAMW) {
            p -= h.lr * h.decay * p;
        } else {
            g += h.decay * p;
        }
        if (OPTIMIZER == ADAM || OPTIMIZER == ADAMW) {
            constexpr int second = MOMENTS > 1 ? 1 : 0; // 0 never happens: keeps the compiler quiet
            float m = h.momentum * moment1[MOMENTS > 0 ? i : 0] + (1.0f - h.momentum) * g;
            float v = h.beta2 * moment2[second * i] + (1.0f - h.beta2) * g * g;
            moment1[MOMENTS > 0 ? i : 0] = m;
            moment2[second * i] = v;
            float root = sqrtf(v * h.correction2);
            p -= __fdividef(h.lr * (m * h.correction1), root + h.epsilon);
        } else {
            float v = g;
            if (MOMENTS > 0) {
                v = h.momentum * moment1[i] + g;
                moment1[i] = v;
            }
            p -= h.lr * (OPTIMIZER == NESTEROV ? g + h.momentum * v : v);
        }
        value[i] = p;
    }
};

// ---- Sums over clusters ----------------------------------------------------------------------

// Clusters share a batch, and each has all parameters. A warp adds its gradients to those of the
// same warp of the other clusters: each sends its own through global memory, and adds all in the
// order of the clusters. So all have the same sums, bit for bit.
struct scratch_head {
    u32 steps; // that all launches so far have made: tickets are never used twice
    u32 unused[31];
};

constexpr int OTHERS = CLUSTERS > 1 ? CLUSTERS - 1 : 1; // clusters

struct mailbox {
    packet *box; // of this warp, in cluster 0; the other clusters follow
    u32 stride;  // from cluster to cluster
    u32 cluster, lane;

    // Packet i of a cluster. Odd and even steps have their own: one is read, the other written.
    DEVICE packet *place(u32 from, u32 i, u32 ticket) const {
        return box + ((ticket & 1) * CLUSTERS + from) * stride + i * 32 + lane;
    }
    // `first`: packets before those of v.
    template <int N> DEVICE void post(const float (&v)[N], u32 first, u32 ticket) const {
#pragma unroll
        for (int i = 0; i < N; i += 3) {
            send_packet(place(cluster, first + i / 3, ticket), v[i], i + 1 < N ? v[i + 1] : 0.0f,
                        i + 2 < N ? v[i + 2] : 0.0f, ticket);
        }
    }
    // Adds the others' numbers to v.
    template <int N> DEVICE void add(float (&v)[N], u32 first, u32 ticket) const {
        constexpr int PACKETS = divide_up(N, 3), AT_ONCE = PACKETS < 5 ? PACKETS : 5;
#pragma unroll
        for (int i = 0; i < PACKETS; i += AT_ONCE) {
            packet got[AT_ONCE][OTHERS];
            while (!look(got, i, PACKETS, first, ticket)) {
            }
#pragma unroll
            for (int j = 0; j < 3 * AT_ONCE; j++) {
                if (3 * i + j < N) v[3 * i + j] = sum(got[j / 3], j % 3, v[3 * i + j]);
            }
        }
    }
    // All are asked for before the first is looked at.
    template <int AT_ONCE>
    DEVICE bool look(packet (&got)[AT_ONCE][OTHERS], int i, int packets, u32 first,
                     u32 ticket) const {
        bool all = true;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
#pragma unroll
            for (int c = 0; c < OTHERS; c++) {
                if (i + j < packets)
                    got[j][c] = look_at_packet(place(other(c), first + i + j, ticket));
            }
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE * OTHERS; j++) {
            if (i + j / OTHERS < packets) all = all && got[j / OTHERS][j % OTHERS].ticket == ticket;
        }
        return all;
    }
    // The c-th of the other clusters.
    DEVICE u32 other(u32 c) const {
        return c < cluster ? c : c + 1;
    }
    // The sum in the order of the clusters, of which this one has `own`.
    DEVICE float sum(const packet (&got)[OTHERS], int j, float own) const {
        float total = 0.0f;
#pragma unroll
        for (int c = 0; c < OTHERS; c++) {
            if (c == cluster) total += own;
            total += got[c].value[j];
        }
        return OTHERS == cluster ? total + own : total;
    }
};

} // namespace mlp
#endif
