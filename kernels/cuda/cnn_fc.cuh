// The fully connected layers of a small CNN, softmax and loss. Inputs and gradients of all images
// of the block are kept, so that the gradient of the weights is one sum. Layers whose weights are
// too large for shared memory are in cnn_far.cuh.
#ifndef BT_CUDA_CNN_FC
#define BT_CUDA_CNN_FC
#include "cnn_conv.cuh"
#include "cnn_far.cuh"

namespace cnn {

// Output j of layer K, before its activation.
template <int K> DEVICE void fc_output(float *shared, int slot, int image, int j, float sum) {
    sum += shared[FC_BIAS<K> + j];
    if constexpr (K + 1 < FCS) {
        shared[AT.fc[K + 1].input + image * FC[K].out + j] = activate<FC[K].activation>(sum);
    } else {
        shared[AT.logits + slot * CLASSES + j] = sum;
    }
}

// y = activation(W x + b): a warp has one or four outputs of an image, so that every warp has
// something to do, but not one thing after the other.
template <int K> DEVICE void fc_forward(float *shared, int first, int thread) {
    constexpr Fc f = FC[K];
    constexpr int rows = f.out * AT_ONCE <= 2 * WARPS ? 1 : 4, groups = (f.out + rows - 1) / rows;
    int lane = thread % 32;
    for (int item = thread / 32; item < AT_ONCE * groups; item += WARPS) {
        int begin = item % groups * rows, slot = item / groups;
        const float *x = shared + AT.fc[K].input + (first + slot) * f.in;
        float sum[rows] = {};
#pragma unroll(rows == 1 ? 8 : 4)
        for (int k = 0; k < (f.in + 31) / 32; k++) {
            int i = lane + 32 * k;
            float v = i < f.in ? x[i] : 0.f;
#pragma unroll
            for (int r = 0; r < rows; r++) {
                int j = min(begin + r, f.out - 1);
                sum[r] += shared[FC_WEIGHTS<K> + j * f.in + min(i, f.in - 1)] * v;
            }
        }
#pragma unroll
        for (int r = 0; r < rows; r++) {
            float total = warp_sum(sum[r]);
            if (lane == r && begin + r < f.out)
                fc_output<K>(shared, slot, first + slot, begin + r, total);
        }
    }
}

// Softmax of the logits of an image, by a warp: e = exp(logit - largest), a class a lane, and their
// sum.
struct Softmax {
    static constexpr int EACH = (CLASSES + 31) / 32;
    float e[EACH], most, sum;
    int best; // the first of the largest
};

DEVICE Softmax softmax_of(const float *logits, int lane) {
    Softmax s;
    u32 key = 0;
    s.best = CLASSES;
#pragma unroll
    for (int i = 0; i < Softmax::EACH; i++) {
        int j = lane + 32 * i;
        u32 other = j < CLASSES ? order_of(logits[j]) : 0;
        if (other > key) key = other, s.best = j;
    }
    u32 largest = __reduce_max_sync(~0u, key);
    s.best = __reduce_min_sync(~0u, key == largest ? s.best : CLASSES);
    s.most = logits[s.best];
    s.sum = 0;
#pragma unroll
    for (int i = 0; i < Softmax::EACH; i++) {
        int j = lane + 32 * i;
        s.e[i] = j < CLASSES ? __expf(logits[j] - s.most) : 0.f; // 1e-7 of the largest
        s.sum += s.e[i];
    }
    s.sum = warp_sum(s.sum);
    return s;
}

// The gradient of the logits (of the sum of losses, not of the mean). A label below 0 marks an
// image that does not count.
DEVICE void softmax_slope(float *shared, int slot, int image, int label, int lane) {
    Softmax s = softmax_of(shared + AT.logits + slot * CLASSES, lane);
    float *slope = shared + AT.fc[FCS - 1].slope + image * CLASSES;
    float scale = label < 0 ? 0.f : __fdividef(1.f, s.sum);
    if (label >= CLASSES) scale = __int_as_float(0x7fc00000); // NaN, as the launches give
#pragma unroll
    for (int i = 0; i < Softmax::EACH; i++) {
        int j = lane + 32 * i;
        if (j < CLASSES) slope[j] = s.e[i] * scale - (j == label ? 1.f : 0.f);
    }
}

// By another warp: the loss, and whether the first largest logit is the label.
DEVICE void softmax_loss(float *shared, int slot, int image, int label, int *predicted, int lane) {
    const float *logits = shared + AT.logits + slot * CLASSES;
    Softmax s = softmax_of(logits, lane);
    if (lane > 0) return;
    float other = label < 0 ? 0.f : __int_as_float(0x7fc00000);
    bool usable = label >= 0 && label < CLASSES;
    shared[AT.loss + image] = usable ? logf(s.sum) + (s.most - logits[label]) : other;
    shared[AT.right + image] = s.best == label ? 1.f : 0.f;
    if (predicted) *predicted = s.best;
}

// The gradient of an input of layer K goes to the layer before.
template <int K> DEVICE void fc_hand_back(float *shared, int slot, int image, int i, float slope) {
    if constexpr (K > 0) {
        float y = shared[AT.fc[K].input + image * FC[K].in + i];
        shared[AT.fc[K - 1].slope + image * FC[K].in + i] =
            slope * derivative<FC[K - 1].activation>(y);
    } else {
        using S = ConvShape<CONVS - 1>;
        conv_take_slope<CONVS - 1>(shared, slot, image, i / S::WINDOWS, i / S::PW % S::PH,
                                   i % S::PW, slope * SLOPE_SCALE);
    }
}

// dx = W^T dy: a thread has an input of one image.
template <int K> DEVICE void fc_input_slope(float *shared, int first, int thread) {
    constexpr Fc f = FC[K];
    for (int item = thread; item < AT_ONCE * f.in; item += THREADS) {
        int i = item % f.in, slot = item / f.in;
        const float *slope = shared + AT.fc[K].slope + (first + slot) * f.out;
        const float *w = shared + FC_WEIGHTS<K> + i;
        float sum = 0;
#pragma unroll 12
        for (int j = 0; j < f.out; j++) sum += w[j * f.in] * slope[j];
        fc_hand_back<K>(shared, slot, first + slot, i, sum);
    }
}

// The gradients of weights and biases of all layers from K on, over all images of the block.
template <int K = 0> DEVICE void fc_weight_slope(float *shared, int thread) {
    constexpr Fc f = FC[K];
    constexpr int weights = f.on_chip ? f.out * f.in : 0;
    const float *x = shared + AT.fc[K].input, *dy = shared + AT.fc[K].slope;
    float *to = shared + AT.gradient + fc_first(K);
    // A thread keeps to an input, or as few as possible, and reads it once.
    constexpr int wide = f.in < THREADS ? THREADS / f.in : 1,
                  step = f.in < THREADS ? f.in : THREADS;
    int row = f.in < THREADS ? thread / f.in : 0;
    for (int i = thread - row * step; weights > 0 && row < wide && i < f.in; i += THREADS) {
        float v[IMAGES];
#pragma unroll
        for (int image = 0; image < IMAGES; image++) v[image] = x[image * f.in + i];
#pragma unroll 5
        for (int j = row; j < f.out; j += wide) {
            float sum = 0;
#pragma unroll
            for (int image = 0; image < IMAGES; image++) sum += dy[image * f.out + j] * v[image];
            to[j * f.in + i] = sum;
        }
    }
    for (int j = thread; j < f.out; j += THREADS) {
        float sum = 0;
#pragma unroll
        for (int image = 0; image < IMAGES; image++) sum += dy[image * f.out + j];
        to[weights + j] = sum;
    }
    if constexpr (K + 1 < FCS) fc_weight_slope<K + 1>(shared, thread);
}

// All layers there and back.
template <int K = 0>
DEVICE void fc_all_forward(float *shared, const float *params, int first, int thread) {
    if constexpr (FC[K].on_chip) {
        fc_forward<K>(shared, first, thread);
    } else {
        far_forward<K>(
            shared, params + FC[K].weight, first, thread,
            [&](int slot, int j, float sum) { fc_output<K>(shared, slot, first + slot, j, sum); });
    }
    __syncthreads();
    if constexpr (K + 1 < FCS) fc_all_forward<K + 1>(shared, params, first, thread);
}

template <int K = FCS - 1>
DEVICE void fc_all_back(float *shared, const float *params, int first, int thread) {
    if constexpr (FC[K].on_chip) {
        fc_input_slope<K>(shared, first, thread);
    } else {
        far_input_slope<K>(shared, params + FC[K].weight, first, thread,
                           [&](int slot, int i, float sum) {
                               fc_hand_back<K>(shared, slot, first + slot, i, sum);
                           });
    }
    __syncthreads();
    if constexpr (K > 0) fc_all_back<K - 1>(shared, params, first, thread);
}

} // namespace cnn
#endif
