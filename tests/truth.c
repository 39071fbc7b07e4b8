// The reference loops of truth.h: no blocking, no fusion, no cleverness.
#include "truth.h"

#include <math.h>
#include <stdlib.h>

array array_new(bt_shape shape) {
    array a = {.shape = shape, .count = 1};
    for (int i = 0; i < shape.rank; i++) a.count *= (size_t)shape.dim[i];
    a.v = calloc(a.count ? a.count : 1, sizeof *a.v);
    if (!a.v) abort();
    return a;
}

void array_free(array *a) {
    free(a->v);
    a->v = NULL;
}

double truth_relu(double x) {
    return isnan(x) ? x : x > 0 ? x : 0;
}
double truth_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
double truth_gelu(double x) {
    return x * erfc(-x / sqrt(2)) / 2;
}

static size_t count_of(const int *dim, int from, int to) {
    size_t n = 1;
    for (int i = from; i < to; i++) n *= (size_t)dim[i];
    return n;
}

// The coordinates of flat position `at`.
static void unravel(bt_shape shape, size_t at, int *coordinate) {
    for (int i = shape.rank - 1; i >= 0; i--) {
        coordinate[i] = (int)(at % (size_t)shape.dim[i]);
        at /= (size_t)shape.dim[i];
    }
}

// The flat position in a, seen as broadcast to a shape of `rank`, of these coordinates.
static size_t broadcast_at(array a, int rank, const int *coordinate) {
    size_t at = 0;
    for (int i = 0; i < a.shape.rank; i++) {
        int c = coordinate[rank - a.shape.rank + i];
        at = at * (size_t)a.shape.dim[i] + (size_t)(a.shape.dim[i] == 1 ? 0 : c);
    }
    return at;
}

array truth_map(array a, double (*fn)(double)) {
    array y = array_new(a.shape);
    for (size_t i = 0; i < a.count; i++) y.v[i] = fn(a.v[i]);
    return y;
}

array truth_broadcast(array a, bt_shape shape) {
    array y = array_new(shape);
    int c[BT_RANK_MAX];
    for (size_t i = 0; i < y.count; i++) {
        unravel(shape, i, c);
        y.v[i] = a.v[broadcast_at(a, shape.rank, c)];
    }
    return y;
}

static bt_shape broadcast_shape(bt_shape a, bt_shape b) {
    bt_shape s = a.rank >= b.rank ? a : b, o = a.rank >= b.rank ? b : a;
    for (int i = 1; i <= o.rank; i++) {
        int *dim = &s.dim[s.rank - i];
        if (*dim == 1) *dim = o.dim[o.rank - i];
    }
    return s;
}

array truth_binary(array a, array b, double (*fn)(double, double)) {
    array y = array_new(broadcast_shape(a.shape, b.shape));
    int c[BT_RANK_MAX];
    for (size_t i = 0; i < y.count; i++) {
        unravel(y.shape, i, c);
        y.v[i] = fn(a.v[broadcast_at(a, y.shape.rank, c)], b.v[broadcast_at(b, y.shape.rank, c)]);
    }
    return y;
}

array truth_permute(array a, const int *order) {
    bt_shape shape = a.shape;
    for (int i = 0; i < shape.rank; i++) shape.dim[i] = a.shape.dim[order[i]];
    array y = array_new(shape);
    int to[BT_RANK_MAX], from[BT_RANK_MAX];
    for (size_t i = 0; i < y.count; i++) {
        unravel(shape, i, to);
        for (int d = 0; d < shape.rank; d++) from[order[d]] = to[d];
        y.v[i] = a.v[broadcast_at(a, shape.rank, from)];
    }
    return y;
}

static array swap_last(array a) {
    int order[BT_RANK_MAX] = {0, 1, 2, 3}, r = a.shape.rank;
    order[r - 2] = r - 1;
    order[r - 1] = r - 2;
    return truth_permute(a, order);
}

array truth_matmul(array a, bool transpose_a, array b, bool transpose_b) {
    array ta = {0}, tb = {0};
    if (transpose_a) a = ta = swap_last(a);
    if (transpose_b) b = tb = swap_last(b);
    int ra = a.shape.rank, rb = b.shape.rank;
    int m = a.shape.dim[ra - 2], k = a.shape.dim[ra - 1], n = b.shape.dim[rb - 1];
    bt_shape lead_a = {.rank = ra - 2}, lead_b = {.rank = rb - 2};
    for (int i = 0; i < ra - 2; i++) lead_a.dim[i] = a.shape.dim[i];
    for (int i = 0; i < rb - 2; i++) lead_b.dim[i] = b.shape.dim[i];
    bt_shape shape = broadcast_shape(lead_a, lead_b);
    array batch_a = {.shape = lead_a}, batch_b = {.shape = lead_b};
    size_t batches = count_of(shape.dim, 0, shape.rank);
    bt_shape lead = shape;
    shape.dim[shape.rank++] = m;
    shape.dim[shape.rank++] = n;
    array y = array_new(shape);
    int c[BT_RANK_MAX];
    for (size_t batch = 0; batch < batches; batch++) {
        unravel(lead, batch, c);
        const double *pa = a.v + broadcast_at(batch_a, lead.rank, c) * (size_t)(m * k);
        const double *pb = b.v + broadcast_at(batch_b, lead.rank, c) * (size_t)(k * n);
        for (int i = 0; i < m; i++) {
            for (int j = 0; j < n; j++) {
                double sum = 0;
                for (int l = 0; l < k; l++) sum += pa[i * k + l] * pb[l * n + j];
                y.v[(batch * (size_t)m + (size_t)i) * (size_t)n + (size_t)j] = sum;
            }
        }
    }
    array_free(&ta);
    array_free(&tb);
    return y;
}

array truth_reduce(array a, char op, unsigned axes, bool keep) {
    bt_shape kept = a.shape, gone = {.rank = 0};
    size_t n = 1;
    for (int i = 0; i < a.shape.rank; i++) {
        if (!axes || axes >> i & 1) {
            n *= (size_t)a.shape.dim[i];
            kept.dim[i] = 1;
        } else {
            gone.dim[gone.rank++] = a.shape.dim[i];
        }
    }
    array y = array_new(kept);
    for (size_t i = 0; i < y.count; i++) y.v[i] = op == 'x' ? -INFINITY : 0;
    int c[BT_RANK_MAX];
    for (size_t i = 0; i < a.count; i++) {
        unravel(a.shape, i, c);
        double *to = &y.v[broadcast_at(y, a.shape.rank, c)];
        if (op != 'x')
            *to += a.v[i];
        else if (a.v[i] > *to || isnan(a.v[i]))
            *to = a.v[i];
    }
    for (size_t i = 0; i < y.count && op == 'm'; i++) y.v[i] /= (double)n;
    if (!keep) y.shape = gone;
    return y;
}

array truth_argmax(array a, int axis) {
    bt_shape shape = {.rank = a.shape.rank - 1};
    for (int i = 0, o = 0; i < a.shape.rank; i++) {
        if (i != axis) shape.dim[o++] = a.shape.dim[i];
    }
    array y = array_new(shape);
    size_t n = (size_t)a.shape.dim[axis], inner = count_of(a.shape.dim, axis + 1, a.shape.rank);
    for (size_t i = 0; i < y.count; i++) {
        const double *row = a.v + i / inner * n * inner + i % inner;
        for (size_t j = 1; j < n; j++) {
            if (row[j * inner] > row[(size_t)y.v[i] * inner]) y.v[i] = (double)j;
        }
    }
    return y;
}

array truth_softmax(array a, int axis, bool log_of) {
    array y = array_new(a.shape);
    size_t n = (size_t)a.shape.dim[axis], inner = count_of(a.shape.dim, axis + 1, a.shape.rank);
    for (size_t i = 0; n && i < a.count / n; i++) {
        size_t first = i / inner * n * inner + i % inner;
        double max = -INFINITY, sum = 0;
        for (size_t j = 0; j < n; j++) max = fmax(max, a.v[first + j * inner]);
        for (size_t j = 0; j < n; j++) sum += exp(a.v[first + j * inner] - max);
        for (size_t j = 0; j < n; j++) {
            double x = a.v[first + j * inner] - max - log(sum);
            y.v[first + j * inner] = log_of ? x : exp(x);
        }
    }
    return y;
}

// x[plane, i, j], or `outside` there.
static double pixel(array x, size_t plane, int i, int j, double outside) {
    int h = x.shape.dim[2], w = x.shape.dim[3];
    if (i < 0 || j < 0 || i >= h || j >= w) return outside;
    return x.v[(plane * (size_t)h + (size_t)i) * (size_t)w + (size_t)j];
}

array truth_conv2d(array x, array w, const array *bias, int stride, int padding) {
    int n = x.shape.dim[0], c = x.shape.dim[1], o = w.shape.dim[0];
    int kh = w.shape.dim[2], kw = w.shape.dim[3];
    int oh = (x.shape.dim[2] + 2 * padding - kh) / stride + 1;
    int ow = (x.shape.dim[3] + 2 * padding - kw) / stride + 1;
    array y = array_new(BT_SHAPE(n, o, oh, ow));
    for (size_t at = 0; at < y.count; at++) {
        int to[4];
        unravel(y.shape, at, to);
        double sum = bias ? bias->v[to[1]] : 0;
        for (int l = 0; l < c * kh * kw; l++) {
            int ch = l / (kh * kw), i = l / kw % kh, j = l % kw;
            sum += w.v[to[1] * c * kh * kw + l] * pixel(x, (size_t)(to[0] * c + ch),
                                                        to[2] * stride + i - padding,
                                                        to[3] * stride + j - padding, 0);
        }
        y.v[at] = sum;
    }
    return y;
}

array truth_im2col(array x, int kh, int kw, int stride, int padding) {
    int n = x.shape.dim[0], c = x.shape.dim[1];
    int oh = (x.shape.dim[2] + 2 * padding - kh) / stride + 1;
    int ow = (x.shape.dim[3] + 2 * padding - kw) / stride + 1;
    array y = array_new(BT_SHAPE(n, c * kh * kw, oh * ow));
    for (size_t at = 0; at < y.count; at++) {
        int to[3];
        unravel(y.shape, at, to);
        int ch = to[1] / (kh * kw), i = to[1] / kw % kh, j = to[1] % kw;
        y.v[at] = pixel(x, (size_t)(to[0] * c + ch), to[2] / ow * stride + i - padding,
                        to[2] % ow * stride + j - padding, 0);
    }
    return y;
}

array truth_pool(array x, bool max, int size, int stride, int padding) {
    int oh = (x.shape.dim[2] + 2 * padding - size) / stride + 1;
    int ow = (x.shape.dim[3] + 2 * padding - size) / stride + 1;
    array y = array_new(BT_SHAPE(x.shape.dim[0], x.shape.dim[1], oh, ow));
    for (size_t at = 0; at < y.count; at++) {
        int to[4];
        unravel(y.shape, at, to);
        size_t plane = (size_t)(to[0] * x.shape.dim[1] + to[1]);
        double best = -INFINITY, sum = 0;
        for (int l = 0; l < size * size; l++) {
            int i = to[2] * stride + l / size - padding, j = to[3] * stride + l % size - padding;
            best = fmax(best, pixel(x, plane, i, j, -INFINITY));
            sum += pixel(x, plane, i, j, 0);
        }
        y.v[at] = max ? best : sum / (size * size);
    }
    return y;
}

array truth_bias(array x, array bias) {
    array y = array_new(x.shape);
    size_t inner = count_of(x.shape.dim, 2, x.shape.rank);
    for (size_t i = 0; i < x.count; i++) {
        y.v[i] = x.v[i] + bias.v[i / inner % (size_t)x.shape.dim[1]];
    }
    return y;
}

array truth_cross_entropy(array logits, array labels) {
    array y = array_new(BT_SCALAR), log_p = truth_softmax(logits, 1, true);
    size_t cols = (size_t)logits.shape.dim[1], valid = 0;
    for (size_t i = 0; i < labels.count; i++) {
        if (labels.v[i] < 0) continue;
        y.v[0] -= log_p.v[i * cols + (size_t)labels.v[i]];
        valid++;
    }
    if (valid) y.v[0] /= (double)valid;
    array_free(&log_p);
    return y;
}

array truth_mse(array a, array b) {
    array y = array_new(BT_SCALAR);
    for (size_t i = 0; i < a.count; i++) y.v[0] += (a.v[i] - b.v[i]) * (a.v[i] - b.v[i]);
    y.v[0] /= (double)a.count;
    return y;
}
