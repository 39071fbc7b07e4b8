// Launches of single CPU kernels with random shapes and values, made by hand on memory that is
// watched, so that a kernel can be tested without the operators and the device around it.
#ifndef BT_TESTS_LAUNCHES_H
#define BT_TESTS_LAUNCHES_H

#include "device/cpu/worker.h"

// What a binding holds before the launch, as doubles that a float holds exactly.
typedef struct operand {
    char type; // r(eal), i(nt32), b(ytes); 0: absent
    size_t count;
    double *v;
} operand;

typedef struct launch_case {
    bt_launch launch; // without memory
    operand operand[BT_BINDINGS_MAX];
    double depth; // terms in the longest sum
    double slope; // largest derivative of what is applied to the sums
    bool linear;  // sums of products: of absolute values, they bound the error
    bool exact;   // nothing is rounded that division would not
    char text[160];
} launch_case;

// Can make_case make launches of this kernel?
bool has_cases(bt_kernel_id kernel);
// The same seed gives the same case.
launch_case make_case(bt_kernel_id kernel, uint64_t seed);
void free_case(launch_case *c);

// All bindings as a launch leaves them, in one block with guards before and after each.
typedef struct outcome {
    char *block;
    size_t bytes, at[BT_BINDINGS_MAX];
} outcome;

// Runs the case as so many workers, the last one first, each on working memory full of NaN, and
// fails the test when anything changes that the kernel must not write.
// `by` names the kernel's instruction set.
outcome run_case(const char *by, const launch_case *c, const bt_cpu_kernel *kernel, bt_dtype dtype,
                 int workers);
// Element i of binding b, which is of dtype where it is real.
double element_of(const launch_case *c, const outcome *out, bt_dtype dtype, int b, size_t i);
bool is_written(const launch_case *c, int b);

// The same launch with absolute values and nothing applied to the sums.
launch_case absolute_case(const launch_case *c);

#endif
