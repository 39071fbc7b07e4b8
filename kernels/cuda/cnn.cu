// Trains a small CNN for any number of steps in one launch. Every block has all weights in shared
// memory and some images of each batch; what crosses between blocks is the sum of the gradients:
//
//     all blocks     images -> convolutions -> fully connected -> loss, and back
//     block b        adds up part b of the gradients of all blocks and updates these parameters
//     all blocks     receive the new parameters
//
// The optimizer's moments of a parameter are in the one block that updates it. While some warps do
// softmax, others bring the images of the next step. All sums have a fixed order: the bits are the
// same from run to run, and however the steps are cut into launches.
#include "allreduce.cuh"
#include "cnn_batch.cuh"
#include "cnn_conv.cuh"
#include "cnn_far.cuh"
#include "cnn_fc.cuh"
#include "cnn_shapes.cuh"

namespace cnn {

enum { LR, MOMENTUM, BETA2, EPSILON, DECAY, CLIP, CORRECTION1, CORRECTION2 }; // kernels/update.k

// The convolutions forward and back, recursively over the layers.
template <int L = 0> DEVICE void conv_all_forward(float *shared, int first, int thread) {
    if constexpr (L == 0) {
        image_forward(shared, first, thread); // with the barrier before it
    } else {
        conv_forward<L>(shared, first, thread); // likewise
    }
    if constexpr (L + 1 < CONVS) {
        conv_all_forward<L + 1>(shared, first, thread);
    } else {
        __syncthreads();
    }
}

// With `send`, which is given numbers that are final while the first convolution is still to come.
template <int L = CONVS - 1, typename Send>
DEVICE void conv_all_back(float *shared, int thread, Send send) {
    if constexpr (L == 0) {
        if (CONVS == 1) __syncthreads(); // the gradients of the other layers are there
        send();
        image_weight_slope(shared, thread);
    } else {
        conv_back<L>(shared, thread);
        __syncthreads();
        conv_all_back<L - 1>(shared, thread, send);
    }
}

// What is summed once for all images of the block.
DEVICE void sum_images(float *shared, int thread) {
    fc_weight_slope(shared, thread);
    if (thread != THREADS - 1) return;
    float loss = 0, right = 0;
    for (int image = 0; image < IMAGES; image++) {
        loss += shared[AT.loss + image];
        right += shared[AT.right + image];
    }
    shared[AT.gradient + LOSS_AT] = loss;
    shared[AT.gradient + RIGHT_AT] = right;
}

// The warp that brings images: one that has no part in softmax.
enum { FETCHER = WARPS - 1 };
static_assert(2 * AT_ONCE < FETCHER, "softmax is to leave two warps");

// Images and hyper-parameters of the first step; which images come next.
DEVICE Ahead fetch_first(float *shared, const bt_net_args &args, u32 steps, const Step &step,
                         int thread) {
    Ahead ahead = {step.number, -1};
    if (thread / 32 == FETCHER) {
        fetch(shared, args, look_up(args, step, thread % 32), thread % 32);
        ahead = look_up(args, next_step(args, steps, step), thread % 32);
    }
    finish_fetch();
    return ahead;
}

// What warps do between forward and back: softmax, and what can be done beside it.
DEVICE void turn_around(float *shared, const bt_net_args &args, const Step &step,
                        const Ahead &ahead, int first, int thread) {
    int warp = thread / 32, slot = warp % AT_ONCE;
    if (warp < 2 * AT_ONCE) {
        int label = ((const int *)(shared + AT.labels))[step.number % 2 * IMAGES + first + slot];
        if (warp < AT_ONCE) {
            softmax_slope(shared, slot, first + slot, label, thread % 32);
        } else {
            u32 row = row_of(first + slot), at = step.in_list * args.batch + row;
            bool listed = args.predictions && row < step.rows && at < args.prediction_count;
            softmax_loss(shared, slot, first + slot, label, listed ? args.predictions + at : 0,
                         thread % 32);
        }
    } else if (first > 0) {
        return;
    } else if (warp == FETCHER) {
        fetch(shared, args, ahead, thread % 32);
    } else {
        conv_lay_weights(shared, thread - 64 * AT_ONCE, 32 * (FETCHER - 2 * AT_ONCE));
    }
}

// Forward and back for all images of the block.
template <typename Send>
DEVICE void run_images(float *shared, const bt_net_args &args, const Step &step, const Ahead &ahead,
                       int thread, Send send) {
    for (int i = thread; ROUNDS > 1 && i < CONV_PARAMS; i += THREADS) shared[AT.gradient + i] = 0;
    for (int first = 0; first < IMAGES; first += AT_ONCE) {
        if (first > 0) __syncthreads();
        bool last = first + AT_ONCE == IMAGES;
        load_images(shared, step.number, first, thread);
        conv_all_forward(shared, first, thread);
        fc_all_forward(shared, args.params, first, thread);
        turn_around(shared, args, step, ahead, first, thread);
        __syncthreads();
        fc_all_back(shared, args.params, first, thread);
        if (last) sum_images(shared, thread);
        conv_all_back(shared, thread, [&]() {
            if (last) send();
        });
    }
    finish_fetch();
}

// ---- The update --------------------------------------------------------------------------------

// A parameter and its moments after a step, by its summed gradient, as kernels/update.k does it.
// `has_momentum`: SGD keeps v.
struct Parameter {
    float p, moment1, moment2;
};

constexpr bool IS_ADAM = CNN_OPTIMIZER == ADAM || CNN_OPTIMIZER == ADAMW;

DEVICE void update(Parameter &it, float g, const float *hyper, bool has_momentum) {
    float lr = hyper[LR], beta1 = hyper[MOMENTUM], beta2 = hyper[BETA2];
    if (CNN_OPTIMIZER == ADAMW) {
        it.p -= lr * hyper[DECAY] * it.p;
    } else {
        g += hyper[DECAY] * it.p;
    }
    if (IS_ADAM) {
        it.moment1 = beta1 * it.moment1 + (1.f - beta1) * g;
        it.moment2 = beta2 * it.moment2 + (1.f - beta2) * g * g;
        it.p -= lr * (it.moment1 * hyper[CORRECTION1]) /
                (sqrtf(it.moment2 * hyper[CORRECTION2]) + hyper[EPSILON]);
    } else {
        float v = has_momentum ? beta1 * it.moment1 + g : g;
        it.moment1 = v;
        it.p -= lr * (CNN_OPTIMIZER == NESTEROV ? g + beta1 * v : v);
    }
}

DEVICE Parameter read_parameter(const bt_net_args &args, int at) {
    Parameter it = {__ldcg(args.params + at), 0, 0};
    if (args.moment1) it.moment1 = __ldcg(args.moment1 + at);
    if (IS_ADAM) it.moment2 = __ldcg(args.moment2 + at);
    return it;
}

DEVICE void write_parameter(const bt_net_args &args, int at, const Parameter &it) {
    __stcg(args.params + at, it.p);
    if (args.moment1) __stcg(args.moment1 + at, it.moment1);
    if (IS_ADAM) __stcg(args.moment2 + at, it.moment2);
}

DEVICE const float *hyper_of(const float *shared, const Step &step) {
    return shared + AT.hyper + step.number % 2 * 8;
}

// Gradients of layers whose weights stay in global memory.
template <int K = 0>
DEVICE void update_far(float *shared, const bt_net_args &args, const float *slots, const Step &step,
                       int thread) {
    if constexpr (!FC[K].on_chip) {
        far_weight_slope<K>(shared, slots, thread, [&](int at, const float(&g)[4]) {
            Parameter it[4]; // all are read before one is written
#pragma unroll
            for (int n = 0; n < 4; n++) it[n] = read_parameter(args, at + n);
#pragma unroll
            for (int n = 0; n < 4; n++) {
                update(it[n], g[n] * step.share, hyper_of(shared, step), args.moment1);
            }
#pragma unroll
            for (int n = 0; n < 4; n++) write_parameter(args, at + n, it[n]);
        });
    }
    if constexpr (K + 1 < FCS) update_far<K + 1>(shared, args, slots, step, thread);
}

// The sums behind those of the parameters: the loss, and how many images were told right.
DEVICE void log_sum(const bt_net_args &args, const Step &step, int i, float sum) {
    if (!args.log || args.log_steps == 0) return;
    float *entry = args.log + step.number % args.log_steps * 2;
    if (i == LOSS_AT) entry[0] = sum / (float)step.rows;
    if (i == RIGHT_AT) entry[1] = sum;
}

// This block's part of the parameters, from the sums of their gradients.
DEVICE void update_part(float *shared, const bt_net_args &args, const Step &step, int thread) {
    for (int i = thread; i < Exchange::PART; i += THREADS) {
        float sum = Exchange::sum(shared + AT.partial, i);
        int number = blockIdx.x * Exchange::PART + i;
        if (number < PARAMS) {
            float *moments = shared + AT.part_moments + 2 * i;
            Parameter it = {shared[AT.params + number], moments[0], moments[1]};
            update(it, sum * step.share, hyper_of(shared, step), args.moment1);
            shared[AT.part_params + i] = it.p;
            moments[0] = it.moment1;
            moments[1] = it.moment2;
        } else {
            log_sum(args, step, number, sum);
        }
    }
}

// From the gradients of all blocks to new parameters in all blocks. `wait` is what can be done
// while the others are waited for. What goes through global memory beside the exchange
// (cnn_far.cuh) is ordered by it: fences stand before what is sent and behind what has come; and
// then nothing is sent early. Packets from number EARLY on do not hold gradients of the first
// convolution.
constexpr u32 EARLY = (conv_first(1) + 2) / 3, PACKETS = Exchange::ALL / 3;

DEVICE packet *ring_of(const bt_net_args &args) {
    return (packet *)args.scratch + 16;
}

template <typename Wait>
DEVICE void exchange(float *shared, const bt_net_args &args, const Step &step, u32 tag, int thread,
                     Wait wait) {
    packet *ring = ring_of(args);
    float *slots = (float *)(ring + Exchange::SCRATCH_PACKETS);
    if (HAS_FAR) far_send(shared, slots + (size_t)blockIdx.x * SLOT_STRIDE, thread);
    __syncthreads();
    if (HAS_FAR) grid_fence();
    Exchange::send(ring, shared + AT.gradient, tag, 0, HAS_FAR ? PACKETS : EARLY, thread);
    Exchange::add(ring, shared + AT.partial, tag, thread);
    if (HAS_FAR) grid_fence();
    __syncthreads();
    update_part(shared, args, step, thread);
    __syncthreads();
    if (HAS_FAR) {
        update_far(shared, args, slots, step, thread);
        __syncthreads();
        grid_fence();
    }
    Exchange::publish(ring, shared + AT.part_params, tag, thread);
    wait();
    Exchange::receive(ring, shared + AT.params, tag, thread);
    if (HAS_FAR) grid_fence();
}

// ---- Beginning and end -------------------------------------------------------------------------

DEVICE void load_parameters(float *shared, const bt_net_args &args, int thread) {
    for (int i = thread; i < PARAMS; i += THREADS) {
        shared[AT.params + i] = __ldcg(args.params + param_at(i));
    }
    int first = blockIdx.x * Exchange::PART;
    for (int i = thread; i < min(Exchange::PART, PARAMS - first); i += THREADS) {
        Parameter it = read_parameter(args, param_at(first + i));
        shared[AT.part_moments + 2 * i] = it.moment1;
        shared[AT.part_moments + 2 * i + 1] = it.moment2;
    }
}

DEVICE void store_parameters(const float *shared, const bt_net_args &args, int thread) {
    int first = blockIdx.x * Exchange::PART;
    for (int i = thread; i < min(Exchange::PART, PARAMS - first); i += THREADS) {
        const float *moments = shared + AT.part_moments + 2 * i;
        write_parameter(args, param_at(first + i),
                        {shared[AT.part_params + i], moments[0], moments[1]});
    }
}

DEVICE void train(float *shared, const bt_net_args &args, int thread) {
    u32 *exchanges = (u32 *)args.scratch; // how many there have been
    u32 tag = __ldcg(exchanges), begin = __ldcg(args.state);
    load_parameters(shared, args, thread);
    u32 steps = steps_of_epoch(args);
    Step step = first_step(args, begin);
    Ahead ahead = fetch_first(shared, args, steps, step, thread);
    while (step.number != begin + args.steps) {
        __syncthreads(); // parameters and images of this step are there
        tag++;
        run_images(shared, args, step, ahead, thread, [&]() {
            if (!HAS_FAR)
                Exchange::send(ring_of(args), shared + AT.gradient, tag, EARLY, PACKETS, thread);
        });
        Step next = next_step(args, steps, step);
        exchange(shared, args, step, tag, thread, [&]() {
            if (thread / 32 == FETCHER)
                ahead = look_up(args, next_step(args, steps, next), thread % 32);
        });
        step = next;
    }
    store_parameters(shared, args, thread);
    if (blockIdx.x == 0 &&
        thread == 0) { // all blocks have read them: they took part in an exchange
        *exchanges = tag;
        *args.state = begin + args.steps;
    }
}

} // namespace cnn

extern "C" __global__ void __launch_bounds__(cnn::THREADS, 1) cnn_train(bt_net_args args) {
    extern __shared__ __align__(16) float shared[];
    if (args.steps == 0) return;
    for (int i = threadIdx.x; i < cnn::AT.floats; i += cnn::THREADS) shared[i] = 0;
    __syncthreads();
    cnn::train(shared, args, threadIdx.x);
}
