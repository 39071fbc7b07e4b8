// One table of operator cases over awkward shapes, used for values (test_ops) and for gradients
// (test_grad): an operator that is added here is tested in both.
#ifndef BT_TESTS_CASES_H
#define BT_TESTS_CASES_H

#include "truth.h"

typedef struct op_case {
    const char *name;
    int inputs;
    bt_shape in[3];
    double low, high; // of the inputs
    double depth;     // terms in the longest sum: widens the tolerance
    bool labels;      // the last input holds I32 labels
    bool no_gradient;
    bt_tensor (*build)(bt_context *ctx, const struct op_case *c, const bt_tensor *in);
    array (*truth)(const struct op_case *c, const array *in);
    // What build and truth need to know.
    const struct unary_op *unary;
    const struct binary_op *binary;
    int p[6];
    double scalar;
} op_case;

typedef void (*case_fn)(void *user, const op_case *c);

void unary_cases(case_fn fn, void *user);
void binary_cases(case_fn fn, void *user);
void scalar_cases(case_fn fn, void *user);
void matmul_cases(case_fn fn, void *user);
void shape_cases(case_fn fn, void *user);
void reduce_cases(case_fn fn, void *user);
void softmax_cases(case_fn fn, void *user);
void conv_cases(case_fn fn, void *user);
void pool_cases(case_fn fn, void *user);
void loss_cases(case_fn fn, void *user);

// "matmul [3,5] [5,2]"
void case_text(const op_case *c, char *text, size_t bytes);
// Input i of the case, the same at every call; labels are classes below the logits' columns.
array case_input(const op_case *c, int i);

#endif
