// The cases of `bantam parity`: each kernel through the operator that launches it, on many shapes,
// and the comparison of a device in f32 with the CPU in f64.
#ifndef CLI_PARITY_H
#define CLI_PARITY_H

#include "cli.h"

enum { PARITY_TENSORS = 6, PARITY_GROUPS = 5 };

typedef struct parity_work parity_work;

// One operator. `shapes` are words such as "64x784x128" or "3x2x11x9,5x3x5,1,0"; the comment at
// each builder says what the numbers are.
typedef struct parity_row {
    const char *name;
    const char *kernels; // that it is there to check, of those in kernels/*.k
    const char *shapes;
    bt_tensor (*build)(parity_work *w); // the output, from inputs that it takes by give()
    bt_status (*run)(parity_work *w);   // instead of build: fills the outcome itself
    union {                             // for the builder
        bt_tensor (*unary)(bt_context *ctx, bt_tensor a);
        bt_tensor (*binary)(bt_context *ctx, bt_tensor a, bt_tensor b);
        bt_tensor (*scalar)(bt_context *ctx, bt_tensor a, double s);
        bt_tensor (*reduce)(bt_context *ctx, bt_tensor a, unsigned axes, bool keep);
        bt_tensor (*axis)(bt_context *ctx, bt_tensor a, int axis);
        bt_tensor (*pool)(bt_context *ctx, bt_tensor x, int size, int stride, int padding);
        bt_tensor (*random)(bt_context *ctx, bt_dtype dtype, bt_shape shape, uint64_t seed,
                            double a, double b);
        unsigned flags;
    } with;
    bool positive;    // inputs from 0.5 to 2.5 instead of -2 to 2
    bool product;     // sums of products have the wider bound
    bool no_gradient; // the output alone
    bool exact;       // the same numbers as the CPU in f32
    bool cpu_only;
    bool large; // for kernels that are only used at such sizes: on GPUs alone, the CPU takes a
                // second
} parity_row;

extern const parity_row parity_rows[];
extern const int parity_row_count;

// The numbers of a case: groups separated by commas, numbers by x.
typedef struct parity_case {
    const parity_row *row;
    char text[64];
    bt_shape group[PARITY_GROUPS];
} parity_case;

// The next case of row->shapes from *at on; false: no more.
bool parity_next(const parity_row *row, const char **at, parity_case *out);

// What a case computes as doubles: tensor 0 is the output, the others gradients and the like.
typedef struct outcome {
    double *values[PARITY_TENSORS];
    size_t counts[PARITY_TENSORS];
    json_t *kernels; // an object of the names of the kernels that ran; NULL: not asked for
} outcome;

bt_status parity_compute(bt_context *ctx, const parity_case *c, bt_dtype dtype, outcome *out);
void outcome_free(outcome *o);

// Is `word` among the words of `list`?
bool has_word(const char *list, const char *word);

// Runs the rows about the kernels named in `kernels` (words) on a device and on the CPU. Gives the
// number of cases, and what is wrong as a sentence ("": nothing).
bt_status parity_quick(bt_context *device, bt_context *reference, const char *kernels, int *cases,
                       char *sentence, size_t bytes);

#endif
