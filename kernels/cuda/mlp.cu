// Trains a multi-layer perceptron for any number of steps in one launch, without the host.
//
// A cluster of blocks, which can write into each other's shared memory, holds the whole network on
// chip: every block has some units of each hidden layer (mlp_shapes.cuh), and keeps weights and
// moments of the optimizer in registers from the first step to the last. In a step
// - each block multiplies the images with the weights of its units of the first layer;
// - for each further layer it multiplies its units with the weights that lead from them, and sends
//   parts of sums to the blocks that own the sums: those of logits to the block that computes the
//   softmax of the row;
// - the gradients by the logits, and by the units of further layers, go to all blocks;
// - so every block has what the gradients of its own weights need, and updates them.
// So for one hidden layer blocks wait for each other twice a step, for each further one twice more.
//
// Products run on tensor cores and are as exact as f32: a byte of an image is an exact fp16 number,
// everything else is split into two (common.cuh). All sums have a fixed order.
//
// Several clusters share larger batches and add their gradients in global memory (mailbox).
#include "mlp_first.cuh"
#include "mlp_middle.cuh"
#include "mlp_softmax.cuh"

namespace mlp {

// ---- The warps that multiply: a step ---------------------------------------------------------

// Layers LAYER .. LAYERS - 1, the hidden ones after the first: none when LAYER is LAYERS.
template <int LAYER> struct middle_layers {
    middle_weights<LAYER> here;
    middle_layers<LAYER + 1> rest;
    static constexpr int MAIL_AT = packets_before(LAYER);

    DEVICE void load(const block &b) {
        here.load(b);
        rest.load(b);
    }
    DEVICE void forward(const block &b, u32 phase) const {
        send_parts<LAYER>(b);
        add_parts<LAYER>(b, phase);
        if (b.warp == 0 && b.lane == 0) mbarrier_expect(b.at(parts_come(LAYER)), part_bytes(LAYER));
        math_barrier();
        rest.forward(b, phase);
    }
    DEVICE void backward(const block &b, u32 phase) {
        rest.backward(b, phase);
        share_slopes<LAYER>(b);
        const back_operands<LAYER> with(b);
        mbarrier_wait_cluster(b.at(slopes_come(LAYER)), phase);
        back_through<LAYER>(b, with);
        math_barrier();
        barrier_arrive(SLOPES_READY + LAYER - 1, WITH_SOFTMAX);
        if (b.warp == 0 && b.lane == 0) {
            mbarrier_expect(b.at(slopes_come(LAYER)), slope_bytes(LAYER, b.rank == 0));
        }
        here.add_chunk(b);
    }
    DEVICE void post(const mailbox &mail, u32 ticket) const {
        mail.post(here.gradient, MAIL_AT, ticket);
        rest.post(mail, ticket);
    }
    DEVICE void add(const mailbox &mail, u32 ticket) {
        mail.add(here.gradient, MAIL_AT, ticket);
        rest.add(mail, ticket);
    }
    DEVICE void update(const block &b, const hyper &h) {
        here.update(b, h);
        rest.update(b, h);
    }
    DEVICE void finish(const block &b) const {
        here.finish(b);
        rest.finish(b);
    }
};
template <> struct middle_layers<LAYERS> {
    DEVICE void load(const block &) {}
    DEVICE void forward(const block &, u32) const {}
    DEVICE void backward(const block &, u32) {}
    DEVICE void post(const mailbox &, u32) const {}
    DEVICE void add(const mailbox &, u32) {}
    DEVICE void update(const block &, const hyper &) {}
    DEVICE void finish(const block &) const {}
};

struct math_state {
    first_weights first;
    middle_layers<2> middle;
};

// From the sums of the first layer in PARTIAL to the logits.
DEVICE void forward(const block &b, const math_state &s, u32 phase) {
    barrier_sync(READY, WITH_SOFTMAX);
    add_first(b);
    math_barrier();
    s.middle.forward(b, phase);
    send_logits(b);
}

DEVICE void backward(const block &b, math_state &s, u32 stage, u32 phase, u32 step, int chunk) {
    const back_operands<LAYERS> with(b);
    mbarrier_wait_cluster(b.at(slopes_come(LAYERS)), phase);
    finish_stage_before(b, stage, step == 0 && chunk == 0);
    back_through<LAYERS>(b, with);
    math_barrier();
    barrier_arrive(SLOPES_READY + LAYERS - 1, WITH_SOFTMAX);
    if (b.warp == 0 && b.lane == 0) {
        mbarrier_expect(b.at(slopes_come(LAYERS)), slope_bytes(LAYERS, b.rank == 0));
    }
    s.middle.backward(b, phase);
    first_gradient gradient;
    gradient.clear();
    gradient.add_chunk(b, stage);
    gradient.give(s.first.gradient, CHUNKS > 1 && chunk > 0);
}

// Adds up what the clusters have of the step's gradients.
DEVICE void sum_over_clusters(const block &b, math_state &s, u32 ticket) {
    if (CLUSTERS == 1) return;
    const mailbox mail = b.mail();
    mail.post(s.first.gradient, 0, ticket);
    s.middle.post(mail, ticket);
    mail.add(s.first.gradient, 0, ticket);
    s.middle.add(mail, ticket);
}

DEVICE void math_warp(const block &b) {
    math_state s;
    s.first.load(b);
    s.middle.load(b);
    const u32 tickets = ((scratch_head *)b.args.scratch)->steps + 1;
    cluster_sync(); // the end of set_up
    u32 stage = 0, round = 0, phase = 0;
    hyper h = {0, 1, 1, 1, 0, 1, 1, 0}; // the first step begins with an update that changes nothing
    batch_place place = place_of_step(b.args, b.first_step);
    for (u32 step = 0; step < b.args.steps; step++) {
        for (int chunk = 0; chunk < CHUNKS; chunk++, phase ^= 1) {
            mbarrier_wait(b.at(images_full(stage)), round & 1);
            if (CHUNKS == 1 || chunk == 0) {
                first_forward<true>(b, s.first, stage, h); // the update of the step before
            } else {
                first_forward<false>(b, s.first, stage, h);
            }
            forward(b, s, phase);
            if (chunk == CHUNKS - 1) { // early, because memory is far
                const u32 now = b.first_step + step;
                if (step > 0) advance_place(b.args, place, now);
                h = hyper_of_step(b.args, now, place.valid);
            }
            backward(b, s, stage, phase, step, chunk);
            if (++stage == STAGES) stage = 0, round++;
        }
        sum_over_clusters(b, s, tickets + step);
        s.middle.update(b, h);
    }
#pragma unroll
    for (int part = 0; part < WARP_BLOCKS; part++) s.first.update_block(b, part, h);
    if (b.cluster == 0) {
        s.first.finish(b);
        s.middle.finish(b);
    }
}

// ---- The kernel ------------------------------------------------------------------------------

DEVICE void set_up(const block &b) {
    if (threadIdx.x != 0) return;
    for (int stage = 0; stage < STAGES; stage++) {
        mbarrier_init(b.at(images_full(stage)), 1);
        mbarrier_init(b.at(images_empty(stage)), 1);
    }
    for (int layer = 2; layer <= LAYERS; layer++) {
        mbarrier_init(b.at(parts_come(layer)), 1);
        mbarrier_init(b.at(slopes_come(layer)), 1);
    }
    mbarrier_init_fence();
    for (int layer = 2; layer <= LAYERS; layer++) {
        mbarrier_expect(b.at(parts_come(layer)), part_bytes(layer));
        mbarrier_expect(b.at(slopes_come(layer)), slope_bytes(layer, b.rank == 0));
    }
}

} // namespace mlp

extern "C" __global__ void __launch_bounds__(mlp::THREADS, 1)
    mlp_train(const __grid_constant__ bt_net_args args) {
    using namespace mlp;
    extern __shared__ __align__(1024) unsigned char memory[];
    // With two strips there are no registers left for what would follow from it.
    const u32 thread = FIRST_STRIPS == 1 ? thread_number() : threadIdx.x;
    const int warp = thread / 32, lane = thread % 32;
    const block b = {
        args,     shared_address(memory), cluster_rank(), blockIdx.x / BLOCKS, warp, lane, lane / 4,
        lane % 4, args.state[0]};
    if (args.steps == 0) return;
    set_up(b);
    if (warp < WARPS) {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MATH_REGISTERS));
        math_warp(b);
    } else {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(SERVICE_REGISTERS));
        if (warp < WARPS + 2) {
            softmax_warp(b, warp - WARPS);
        } else {
            cluster_sync(); // the end of set_up
            if (warp == WARPS + 2) fetch_images(b);
        }
    }
    __syncthreads();
    cluster_sync(); // nobody leaves while others may still write to it
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        args.state[0] = b.first_step + args.steps;
        ((scratch_head *)args.scratch)->steps += args.steps;
    }
}
