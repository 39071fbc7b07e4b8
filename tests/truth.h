// Every operator again, as plain double-precision loops: what the library is compared with.
#ifndef BT_TESTS_TRUTH_H
#define BT_TESTS_TRUTH_H

#include "bantam.h"

typedef struct array {
    bt_shape shape;
    size_t count;
    double *v;
} array;

array array_new(bt_shape shape); // zeros
void array_free(array *a);

array truth_map(array a, double (*fn)(double));
array truth_binary(array a, array b, double (*fn)(double, double));
array truth_matmul(array a, bool transpose_a, array b, bool transpose_b);
array truth_permute(array a, const int *order);
array truth_broadcast(array a, bt_shape shape);
array truth_reduce(array a, char op, unsigned axes, bool keep); // op: s(um) m(ean) x (maximum)
array truth_argmax(array a, int axis);
array truth_softmax(array a, int axis, bool log);
array truth_conv2d(array x, array w, const array *bias, int stride, int padding);
array truth_im2col(array x, int kh, int kw, int stride, int padding);
array truth_pool(array x, bool max, int size, int stride, int padding);
array truth_bias(array x, array bias);
array truth_cross_entropy(array logits, array labels);
array truth_mse(array a, array b);

double truth_relu(double x);
double truth_sigmoid(double x);
double truth_gelu(double x);

#endif
