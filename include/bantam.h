// Bantam: train small neural networks in C, on any device. This header is the whole public
// interface and its manual. Start with examples/ if you would rather read code.
//
//   If you want to                       see
//   train a classifier in one call       bt_train, bt_model_make, bt_dataset_open
//   classify images with a checkpoint    bt_model_load, bt_predict
//   compute with matrices                bt_from, bt_matmul, bt_add, bt_read
//   build a network by hand              bt_parameter, bt_grad, bt_program_make
//
// Conventions
// - A descriptor struct filled with zeros asks for the defaults; a field whose zero is meaningful
//   says so.
// - A context owns everything made with it; bt_close frees it all. There are no reference counts.
//   Pointers passed in are borrowed for the call.
// - Operators never compute: they extend a graph. bt_read, or running a program, computes.
// - Errors of the world outside (memory, files, devices, user input) return a bt_status, and
//   bt_error_text then holds one sentence: what, where, numbers, a hint. Graph building is
//   sticky: an operator on impossible shapes returns {0}, operators on {0} return {0}, and the
//   first sentence is reported when the graph is read or compiled, so models need no checks.
// - A context is used by one thread at a time; different contexts are independent.
// - The library never exits, and never prints but where a FILE * is passed to it.
#ifndef BANTAM_H
#define BANTAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

// The library is built with hidden symbols; what is declared here is its interface.
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#define BT_VERSION_MAJOR 0
#define BT_VERSION_MINOR 1
#define BT_VERSION_PATCH 0
#define BT_VERSION_TEXT  "0.1.0"

// ---- Status ----------------------------------------------------------------------------------

// The numbers are also the exit codes of the `bantam` command.
typedef enum bt_status {
    BT_OK = 0,
    BT_ERROR_INTERNAL = 1, // a bug in Bantam
    BT_ERROR_USAGE = 2,    // impossible shapes, settings or names
    BT_ERROR_DATA = 3,     // a data or model file is missing, damaged or does not fit
    BT_ERROR_DEVICE = 4,   // the device is absent or was lost
    BT_ERROR_NUMERIC = 5,  // the loss became NaN or infinite
    BT_ERROR_MEMORY = 6,   // out of memory or disk space, or a file cannot be written
    BT_STOPPED = 75,       // a callback asked to stop; a checkpoint was written if one was wanted
} bt_status;

const char *bt_status_name(bt_status status);

// ---- Context ---------------------------------------------------------------------------------

typedef struct bt_context bt_context;

// How products of F32 tensors are computed where a device has faster units for less. Weights, sums
// and everything else stay F32. Devices without such units ignore it (bt_context_precision tells).
typedef enum bt_precision {
    BT_PRECISION_FP32 = 0, // as exact as F32 arithmetic
    BT_PRECISION_TF32,     // operands rounded to 10 bits of mantissa
    BT_PRECISION_BF16,     // operands rounded to 7 bits
} bt_precision;

typedef struct bt_context_desc {
    const char *device; // "cpu", "cpu:0", "gpu", ... as `bantam devices` lists them; NULL: "cpu"
    int threads;        // CPU workers; 0: one per core. Results do not depend on it.
    bt_precision precision;
    // Launch by launch: on GPUs with portable kernels alone, none tuned by hand and none for whole
    // programs; on the CPU none done together with others, and no zeros of the input left out.
    bool no_overrides;
} bt_context_desc;

// Opens a context. On failure *out still holds the sentence (unless memory for it ran out, when
// *out is NULL) and must be closed. desc may be NULL.
bt_status bt_open(const bt_context_desc *desc, bt_context **out);
void bt_close(bt_context *ctx);

// The sentence of the first failure since the last bt_error_reset, "" when there was none.
const char *bt_error_text(const bt_context *ctx);
void bt_error_reset(bt_context *ctx);

typedef struct bt_device_info {
    char name[32];         // what bt_context_desc.device accepts: "cpu"
    char description[128]; // model, cores, instruction set
    bool available;
    char reason[192]; // when not available: what is missing and what to do about it
    size_t memory_bytes;
    bool software; // a CPU that plays a GPU; never what "gpu" means
} bt_device_info;

// Describes up to `max` devices, absent kinds included, and returns how many there are.
int bt_devices(bt_device_info *out, int max);

// The device that the context runs on.
void bt_context_device(const bt_context *ctx, bt_device_info *out);

// Bytes now allocated on the device.
size_t bt_device_bytes(const bt_context *ctx);

// The precision that the device computes products with: what was asked for, or FP32 where it has
// only that.
bt_precision bt_context_precision(const bt_context *ctx);
const char *bt_precision_name(bt_precision precision); // "tf32"

// What crossed between host and device since bt_open.
typedef struct bt_counters {
    uint64_t submissions;               // times the device was given work
    uint64_t launches;                  // kernels run by that
    uint64_t bytes_written, bytes_read; // host to device, and back
} bt_counters;
void bt_context_counters(const bt_context *ctx, bt_counters *out);

// Number of device buffer allocations so far; it stands still while a program runs.
uint64_t bt_device_allocations(const bt_context *ctx);

// ---- Kernels ---------------------------------------------------------------------------------

// What a GPU runs, written once in kernels/*.k (docs/kernel-language.md). A kernel may have
// variants, each better under a condition.
typedef struct bt_kernel_desc {
    const char *name, *of; // of: what it does; its own name when it is no variant
    const char *file;      // "kernels/matmul.k"
    int line;
    const char *bindings; // one letter per buffer: r w u, upper case where it may be absent
    int group;            // threads that run together
    int shared_bytes;     // memory that they share
    char when[160];       // the condition of a variant; "": always
} bt_kernel_desc;

// Describes up to `max` kernels and returns how many there are.
int bt_kernels(bt_kernel_desc *out, int max);

// Prints a kernel as it is written, or (language not NULL) as "glsl", "cuda", "msl", "wgsl", "c".
bt_status bt_kernel_print(bt_context *ctx, const char *name, const char *language, FILE *out);

// Runs the kernels of a folder (a changed copy of kernels/) from now on, in programs that exist
// too. `swapped` gets the names of those that differed from what ran before, a space after each.
// When anything fails, the old ones go on. What is not understood is named by file and line.
bt_status bt_kernels_load(bt_context *ctx, const char *folder, char *swapped, size_t bytes);

// ---- Tensors ---------------------------------------------------------------------------------

// U8 and I32 hold images, labels and indices; arithmetic is on F32 and F64.
typedef enum bt_dtype { BT_F32 = 0, BT_F64, BT_I32, BT_U8 } bt_dtype;

size_t bt_dtype_size(bt_dtype dtype);
const char *bt_dtype_name(bt_dtype dtype); // "f32"
// Can the context's device compute with it? F64 is for CPUs.
bool bt_context_computes(const bt_context *ctx, bt_dtype dtype);

enum { BT_RANK_MAX = 4 };

// Row-major; rank 0 is a scalar; a dimension may be 0. Fewer than 2^31 elements in all.
typedef struct bt_shape {
    int rank;
    int dim[BT_RANK_MAX];
} bt_shape;

// BT_SHAPE(2, 3) is a 2 x 3 matrix. (C only; in C++ fill the struct.)
#define BT_SHAPE(...) \
    ((bt_shape){.rank = (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), .dim = {__VA_ARGS__}})
#define BT_SCALAR ((bt_shape){.rank = 0})

size_t bt_shape_count(bt_shape shape); // elements

// A handle; {0} is "no tensor".
typedef struct bt_tensor {
    uint32_t id;
} bt_tensor;

// Values given now. `data` holds bt_shape_count elements of dtype, copied during the call.
bt_tensor bt_from(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data);
bt_tensor bt_zeros(bt_context *ctx, bt_dtype dtype, bt_shape shape);
bt_tensor bt_ones(bt_context *ctx, bt_dtype dtype, bt_shape shape);
bt_tensor bt_full(bt_context *ctx, bt_dtype dtype, bt_shape shape, double value);
bt_tensor bt_eye(bt_context *ctx, bt_dtype dtype, int n);
// Uniform in [low, high), and normal: element i depends on the seed and i alone. F32 is drawn on
// the device when needed, anew in each step of a program that reads it. The same values on every
// device but for rounding (none from 0 to 1), which may also give `high`. Other types come from the
// host.
bt_tensor bt_random_uniform(bt_context *ctx, bt_dtype dtype, bt_shape shape, uint64_t seed,
                            double low, double high);
bt_tensor bt_random_normal(bt_context *ctx, bt_dtype dtype, bt_shape shape, uint64_t seed,
                           double mean, double deviation);

// A tensor whose values may be written later with bt_write (an input), and one that is also
// trained (a parameter; F32 or F64). data may be NULL: zeros.
bt_tensor bt_input(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data);
bt_tensor bt_parameter(bt_context *ctx, bt_dtype dtype, bt_shape shape, const void *data);

bt_shape bt_tensor_shape(const bt_context *ctx, bt_tensor t);
bt_dtype bt_tensor_dtype(const bt_context *ctx, bt_tensor t);

// Computes t where needed and copies its values out; `bytes` must be its exact size. Tensors
// that depend on inputs or parameters are computed anew at each read.
bt_status bt_read(bt_context *ctx, bt_tensor t, void *out, size_t bytes);
// Overwrites an input or a parameter.
bt_status bt_write(bt_context *ctx, bt_tensor t, const void *data, size_t bytes);
// Prints shape and values (long rows shortened) as nested brackets.
bt_status bt_print(bt_context *ctx, bt_tensor t, FILE *out);

// Everything made after bt_mark can be freed together, tensors and programs alike; handles made
// since then are dead afterwards. At most 64 marks are open at a time; the next one is 0, which
// frees nothing.
uint32_t bt_mark(const bt_context *ctx);
void bt_release(bt_context *ctx, uint32_t mark);

// ---- Operators -------------------------------------------------------------------------------

// Elementwise with broadcasting: shapes are aligned at the last dimension, and a dimension of 1
// (or a missing one) repeats, as in NumPy.
bt_tensor bt_add(bt_context *ctx, bt_tensor a, bt_tensor b);
bt_tensor bt_sub(bt_context *ctx, bt_tensor a, bt_tensor b);
bt_tensor bt_mul(bt_context *ctx, bt_tensor a, bt_tensor b);
bt_tensor bt_div(bt_context *ctx, bt_tensor a, bt_tensor b);
bt_tensor bt_add_scalar(bt_context *ctx, bt_tensor a, double s);
bt_tensor bt_sub_scalar(bt_context *ctx, bt_tensor a, double s);
bt_tensor bt_mul_scalar(bt_context *ctx, bt_tensor a, double s);
bt_tensor bt_div_scalar(bt_context *ctx, bt_tensor a, double s);

bt_tensor bt_neg(bt_context *ctx, bt_tensor a);
bt_tensor bt_relu(bt_context *ctx, bt_tensor a); // gradient 0 at 0
bt_tensor bt_sigmoid(bt_context *ctx, bt_tensor a);
bt_tensor bt_tanh(bt_context *ctx, bt_tensor a);
bt_tensor bt_gelu(bt_context *ctx, bt_tensor a); // a Phi(a), exact (Hendrycks and Gimpel, 2016)
bt_tensor bt_exp(bt_context *ctx, bt_tensor a);
bt_tensor bt_log(bt_context *ctx, bt_tensor a);
bt_tensor bt_sqrt(bt_context *ctx, bt_tensor a);

// out[i] = fn(user, a[i]) on the CPU device; elsewhere the graph reports BT_ERROR_DEVICE.
// derivative may be NULL where no gradient is asked for. Called from several threads at once.
typedef double (*bt_map_fn)(void *user, double value);
bt_tensor bt_map(bt_context *ctx, bt_tensor a, bt_map_fn fn, bt_map_fn derivative, void *user);

// Matrix product over the last two dimensions, op(a) [.., m, k] op(b) [.., k, n] -> [.., m, n];
// leading dimensions broadcast. _ex multiplies with transposes of the last two dimensions.
bt_tensor bt_matmul(bt_context *ctx, bt_tensor a, bt_tensor b);
bt_tensor bt_matmul_ex(bt_context *ctx, bt_tensor a, bool transpose_a, bt_tensor b,
                       bool transpose_b);

// order[i] is the input dimension that becomes dimension i.
bt_tensor bt_permute(bt_context *ctx, bt_tensor a, const int order[BT_RANK_MAX]);
bt_tensor bt_transpose(bt_context *ctx, bt_tensor a);               // swaps the last two dimensions
bt_tensor bt_reshape(bt_context *ctx, bt_tensor a, bt_shape shape); // one dim may be -1
bt_tensor bt_broadcast(bt_context *ctx, bt_tensor a, bt_shape shape);

// Reductions over a set of dimensions: bit d of `axes` means dimension d; 0 means all. Reduced
// dimensions stay as 1 with keep, and go otherwise. An empty sum is 0, an empty mean NaN, an
// empty maximum -infinity. The gradient of a maximum goes to its first position.
bt_tensor bt_sum(bt_context *ctx, bt_tensor a, unsigned axes, bool keep);
bt_tensor bt_mean(bt_context *ctx, bt_tensor a, unsigned axes, bool keep);
bt_tensor bt_max(bt_context *ctx, bt_tensor a, unsigned axes, bool keep);
// Position (I32) of the first maximum along one axis (>= 0), which goes.
bt_tensor bt_argmax(bt_context *ctx, bt_tensor a, int axis);

bt_tensor bt_softmax(bt_context *ctx, bt_tensor a, int axis);
bt_tensor bt_log_softmax(bt_context *ctx, bt_tensor a, int axis);

// x [n, c, h, w], w [o, c, kh, kw], bias [o] or {0} -> [n, o, oh, ow] with
// oh = (h + 2 padding - kh) / stride + 1. Cross-correlation, as PyTorch's conv2d. stride 0 is 1.
bt_tensor bt_conv2d(bt_context *ctx, bt_tensor x, bt_tensor w, bt_tensor bias, int stride,
                    int padding);
// The patches of x as columns: [n, c kh kw, oh ow] (PyTorch's unfold).
bt_tensor bt_im2col(bt_context *ctx, bt_tensor x, int kh, int kw, int stride, int padding);
// Square windows; stride 0 is `size`; padding counts as -infinity (max) or 0 (average, which
// divides by size^2 always), and is at most size / 2.
bt_tensor bt_max_pool(bt_context *ctx, bt_tensor x, int size, int stride, int padding);
bt_tensor bt_avg_pool(bt_context *ctx, bt_tensor x, int size, int stride, int padding);
// x [n, c, ...] + bias [c] along dimension 1.
bt_tensor bt_bias(bt_context *ctx, bt_tensor x, bt_tensor bias);

// Mean over rows of -log softmax(logits)[label], from log-sum-exp. logits [n, classes], labels
// I32 [n]; a row with a negative label is left out, and a label >= classes gives NaN.
bt_tensor bt_cross_entropy(bt_context *ctx, bt_tensor logits, bt_tensor labels);
// Mean of (a - b)^2 over all elements.
bt_tensor bt_mse(bt_context *ctx, bt_tensor a, bt_tensor b);

// Gradients of `loss` (one element) with respect to wrt[0 .. count-1], as new tensors. A tensor
// that the loss does not depend on gets zeros. Everything above has a gradient but bt_argmax.
bt_status bt_grad(bt_context *ctx, bt_tensor loss, const bt_tensor *wrt, int count,
                  bt_tensor *grads);

// Names what is built next in profiles and errors ("0.conv"); borrowed string, NULL: none.
void bt_scope(bt_context *ctx, const char *name);

// ---- Data sets -------------------------------------------------------------------------------

typedef struct bt_dataset bt_dataset;

typedef struct bt_dataset_desc {
    const char *name;   // "mnist", "fashion-mnist", "digits", or the path of a folder of IDX files
    const char *folder; // holds one folder per set; NULL: $BANTAM_DATA, then the user's data folder
    bool test;          // the test part instead of the training part
    int limit;          // the first `limit` samples only; 0: all
} bt_dataset_desc;

typedef struct bt_dataset_info {
    char name[64];
    char source[512]; // files or "built in"
    char sha256[65];  // of the unpacked image file, then the label file, as one text of hex
    int count, channels, height, width, classes;
} bt_dataset_info;

bt_status bt_dataset_open(bt_context *ctx, const bt_dataset_desc *desc, bt_dataset **out);
// A set from memory: images [count, channels, height, width] bytes, labels below `classes`; both
// are copied.
bt_status bt_dataset_make(bt_context *ctx, const uint8_t *images, const uint8_t *labels, int count,
                          int channels, int height, int width, int classes, bt_dataset **out);
// Splits off round(fraction * count) random samples (chosen by seed) as *second; both parts keep
// file order and share the bytes of the original.
bt_status bt_dataset_split(bt_context *ctx, const bt_dataset *set, double fraction, uint64_t seed,
                           bt_dataset **first, bt_dataset **second);
void bt_dataset_describe(const bt_dataset *set, bt_dataset_info *out);
const uint8_t *bt_dataset_image(const bt_dataset *set, int i); // [channels, height, width]
int bt_dataset_label(const bt_dataset *set, int i);

typedef struct bt_dataset_entry {
    const char *name, *description;
    bool built_in;
    bool present;     // all files found in the data folder, or built in
    char folder[512]; // where it is, or would be put
} bt_dataset_entry;

// The known sets and whether they are here; returns how many. folder as in bt_dataset_desc.
int bt_dataset_list(const char *folder, bt_dataset_entry *out, int max);

// Brings a known set to the data folder: from `from` (a folder that has the files) or, when NULL,
// from its pinned mirrors through the `curl` program, resuming partial files. Every file's
// SHA-256 is checked before it is put in place. Progress lines go to `log` (may be NULL).
bt_status bt_dataset_get(bt_context *ctx, const char *name, const char *folder, const char *from,
                         FILE *log);

// Reads a PNG, PGM or IDX file (gzipped or not; "-": standard input) as grey images of height x
// width, scaled to fit where they differ. *images (count * height * width bytes) belongs to the
// context. *scaled tells whether any was scaled.
bt_status bt_images_read(bt_context *ctx, const char *path, int height, int width, uint8_t **images,
                         int *count, bool *scaled);

// Batches of a set as tensors that change with a program's step counter: step s of a program
// takes samples s * batch ... of the epoch. images dtype [batch, c, h, w] = byte / 255; labels I32
// [batch], -1 in the rows that the last, short batch of an epoch leaves empty (their images are
// zeros). The bytes are resident on the device; the gathering and shuffling happens there.
typedef struct bt_batch {
    bt_tensor images, labels;
} bt_batch;
typedef struct bt_batch_desc {
    bt_dataset *set;
    int batch;
    bt_dtype dtype;
    bool shuffle; // a new order each epoch, from seed
    uint64_t seed;
} bt_batch_desc;
bt_batch bt_dataset_batch(bt_context *ctx, const bt_batch_desc *desc);

// ---- Programs --------------------------------------------------------------------------------

typedef enum bt_optimizer { BT_SGD = 0, BT_NESTEROV, BT_ADAM, BT_ADAMW } bt_optimizer;

// What one training step uses; formulas as in PyTorch's torch.optim.
// SGD:   g += weight_decay p; v = momentum v + g; p -= lr v   (Nesterov: p -= lr (g + momentum v))
// Adam:  Kingma and Ba, 2015, algorithm 1 (weight decay added to g); AdamW: Loshchilov and
//        Hutter, 2019, algorithm 2 (p -= lr weight_decay p).
typedef struct bt_hyper {
    double lr;
    double momentum; // SGD; beta1 of Adam
    double beta2, epsilon;
    double weight_decay;
    double clip; // > 0: gradients are scaled so that their global norm is at most this
} bt_hyper;

typedef struct bt_program bt_program;

typedef struct bt_program_desc {
    const bt_tensor *outputs; // computed at every step, read with bt_program_read
    int output_count;
    bt_tensor loss;              // logged, and minimised where parameters are given; {0}: none
    const bt_tensor *parameters; // what is trained
    int parameter_count;
    bt_optimizer optimizer;
    const bt_hyper *hyper; // one row per step (borrowed for the call); the last one repeats
    int hyper_count;
    bt_tensor logits, labels; // with both: correct predictions are counted; labels as above
    int log_steps;            // steps after which the log wraps around; 0: 1
    int prediction_count;     // > 0: remember the predicted class of this many samples
    bool profile;             // time every launch (slower by a clock read each)
} bt_program_desc;

// Compiles a step: forward, backward, update, log. Nothing is allocated after this.
bt_status bt_program_make(bt_context *ctx, const bt_program_desc *desc, bt_program **out);
// Runs the program `steps` times on the device, without the host in between, and waits.
bt_status bt_program_run(bt_context *ctx, bt_program *program, uint32_t steps);
bt_status bt_program_read(bt_context *ctx, bt_program *program, int output, void *out,
                          size_t bytes);

// The step counter on the device: set it to go to any step of any epoch.
bt_status bt_program_seek(bt_context *ctx, bt_program *program, uint32_t step);
uint32_t bt_program_step(const bt_program *program);

typedef struct bt_log_entry {
    double loss;    // mean over the rows of the batch
    double correct; // rows predicted right
} bt_log_entry;
// Log entries `first` .. of the ring of log_steps entries.
bt_status bt_program_log(bt_context *ctx, bt_program *program, uint32_t first, uint32_t count,
                         bt_log_entry *out);
bt_status bt_program_predictions(bt_context *ctx, bt_program *program, int32_t *out, size_t count);

// Optimizer state of a parameter, in its dtype and shape: moment 0 (SGD's velocity, Adam's first
// moment) or 1 (Adam's second). bt_program_moment_count is 0, 1 or 2.
int bt_program_moment_count(const bt_program *program);
bt_status bt_program_moment_read(bt_context *ctx, bt_program *program, int parameter, int moment,
                                 void *out, size_t bytes);
bt_status bt_program_moment_write(bt_context *ctx, bt_program *program, int parameter, int moment,
                                  const void *data, size_t bytes);

typedef struct bt_profile_row {
    char op[48]; // "2.conv2d_grad_weight"
    const char *kernel;
    uint64_t calls;
    double seconds;      // in all
    double flops, bytes; // in all: useful arithmetic, and bytes read and written once each
} bt_profile_row;
// Rows in launch order, then one named "launch gaps"; returns how many there are (0 when the
// program was made without profile). Launches that the device does as one have the name of its
// kernel in common, and all of their time and arithmetic counts to the first. Arithmetic is that of
// dense layers: a device that leaves out exact zeros may seem to exceed its roofline.
int bt_program_profile(const bt_program *program, bt_profile_row *rows, int max);

// Something that took its time, for a timeline. Times are seconds on the system's monotonic clock.
// Spans of a kind nest or follow each other, and never overlap otherwise.
typedef struct bt_span {
    char name[48];      // "2.conv2d_grad_weight"; of the host "epoch 3"
    const char *kernel; // what the device ran; NULL: the host's
    double start, seconds;
    uint32_t step;   // that a launch belongs to, or the first one of several; 1 is the first
    uint32_t images; // trained on meanwhile; 0: no such thing
} bt_span;
// Every launch of the first and the last 20 steps (or fewer) of a program made with profile, in
// order; returns how many. Launches done as one have one span. The device's times are placed where
// the host sent the work, which is some microseconds early.
int bt_program_trace(const bt_program *program, bt_span *spans, int max);

// The most that the device was seen to do with the library's own kernels, over sizes from the small
// to the large: of arithmetic in a matrix product, and of memory, caches included, in a copy. A
// launch that needs neither more arithmetic nor more bytes cannot take less than these allow.
typedef struct bt_roofline {
    double gflops, gbytes_s; // 10^9 per second
} bt_roofline;
// Measured once on each device (less than half a second) and kept in the user's cache folder.
bt_status bt_roofline_find(bt_context *ctx, bt_dtype dtype, bt_roofline *out);

typedef struct bt_program_stats {
    int launches;           // per step
    size_t temporary_bytes; // planned memory of intermediate results
    size_t unplanned_bytes; // what they would take without sharing
    double flops;           // per step
} bt_program_stats;
void bt_program_describe(const bt_program *program, bt_program_stats *out);
// How the device runs it, for a log: "one kernel for all steps: ..."; "": nothing special. Lives as
// long as the program.
const char *bt_program_note(const bt_program *program);
// Gives ctx the kernels that `from` loaded, as they were read then: those that were tried there.
bt_status bt_kernels_copy(bt_context *ctx, const bt_context *from, char *swapped, size_t bytes);

// The kernel that runs launch i on this device ("matmul_small"); NULL from stats.launches on.
const char *bt_program_kernel(const bt_program *program, int i);

// ---- Models ----------------------------------------------------------------------------------

typedef struct bt_model bt_model;

typedef enum bt_init { BT_INIT_HE = 0, BT_INIT_XAVIER } bt_init;

typedef struct bt_model_desc {
    const char *spec; // "mlp", "lenet", "lenet5", or layers: "conv8x5,relu,pool2,fc10"
    int channels, height, width, classes;
    bt_init init; // He: N(0, 2 / fan_in). Xavier: U(+-sqrt(6 / (fan_in + fan_out))). Biases 0.
    uint64_t seed;
    bt_dtype dtype;
} bt_model_desc;

bt_status bt_model_make(bt_context *ctx, const bt_model_desc *desc, bt_model **out);
// The full layer text of a preset or of itself, "conv8x5,relu,pool2,fc10"; "" if not understood.
const char *bt_model_spec(const bt_model *model);
void bt_model_describe(const bt_model *model, bt_model_desc *out); // out->spec is the model's
bt_tensor bt_model_forward(bt_context *ctx, const bt_model *model, bt_tensor images); // -> logits
// What comes out of the first `layers` layers, [n, channels, h, w] or [n, features].
bt_tensor bt_model_forward_to(bt_context *ctx, const bt_model *model, bt_tensor images, int layers);
int bt_model_layer_count(const bt_model *model);
const char *bt_model_layer_name(const bt_model *model, int i); // "0.conv8x5"
int bt_model_parameter_count(const bt_model *model);           // tensors: weights and biases
bt_tensor bt_model_parameter(const bt_model *model, int i);
const char *bt_model_parameter_name(const bt_model *model, int i); // "0.weight"
size_t bt_model_size(const bt_model *model);                       // numbers in all of them

// The model of a checkpoint, with its weights.
bt_status bt_model_load(bt_context *ctx, const char *path, bt_dtype dtype, bt_model **out);
// Weights by name from a safetensors or .npz file whose names and shapes are those of PyTorch's
// nn.Sequential of the same layers; where names differ but order and shapes fit, in order.
// `how` (may be NULL) gets a sentence that says what was matched, and a line for each tensor that
// was not: on failure "missing: 0.bias [128]", "wrong shape: ...", "unexpected: ...".
bt_status bt_model_import(bt_context *ctx, bt_model *model, const char *path, char *how,
                          size_t how_bytes);
// Weights alone, as safetensors.
bt_status bt_model_save(bt_context *ctx, const bt_model *model, const char *path);

// For other programs. ONNX (opset 13): floats "images" [N, channels, height, width], bytes / 255,
// to "logits" [N, classes]. NPZ: the weights under their names, for NumPy. C: a file that ends in
// ".c" and a header beside it, C99 with nothing but math.h, whose function NAME_classify is named
// after the file.
typedef enum bt_export { BT_EXPORT_ONNX = 0, BT_EXPORT_NPZ, BT_EXPORT_C } bt_export;
bt_status bt_model_export(bt_context *ctx, const bt_model *model, bt_export format,
                          const char *path);

typedef struct bt_evaluation {
    int count, correct;
    double loss, accuracy, standard_error; // of the accuracy: sqrt(p (1 - p) / n)
    double seconds;
} bt_evaluation;

// predictions may be NULL; else room for one int32_t per sample. batch 0: a good one is chosen.
bt_status bt_evaluate(bt_context *ctx, bt_model *model, bt_dataset *set, int batch,
                      bt_evaluation *out, int32_t *predictions);
// images [count, c, h, w] bytes -> probabilities [count, classes].
bt_status bt_predict(bt_context *ctx, bt_model *model, const uint8_t *images, int count,
                     float *probabilities);

// What a layer does with samples. A unit is an output of fc, or a channel with all its places. NaN:
// the layer has no such thing.
typedef struct bt_layer_stats {
    char name[56]; // as bt_model_layer_name
    int units;
    double weight_norm, gradient_norm; // of the weights without biases, by the mean loss
    double activation_mean;
    // Of a unit over samples and places, root mean square over the units: 0 where all samples
    // look alike.
    double activation_deviation;
    // Of an activation function: the share of units that no gradient passes for any of the samples.
    // relu and gelu at 0, sigmoid and tanh at their bounds.
    double dead;
} bt_layer_stats;

// Looks at the first `samples` samples of the set (0: 1000; up to a batch more may be looked at)
// and describes up to `max` layers; *count is how many there are.
bt_status bt_model_statistics(bt_context *ctx, const bt_model *model, bt_dataset *set, int samples,
                              bt_layer_stats *out, int max, int *count);

// ---- Training --------------------------------------------------------------------------------

typedef enum bt_schedule {
    BT_SCHEDULE_CONST = 0,
    BT_SCHEDULE_STEP,    // x 0.1 after each third of the run
    BT_SCHEDULE_COSINE,  // to 0: Loshchilov and Hutter, 2017, equation 5, without restarts
    BT_SCHEDULE_ONECYCLE // up for the first 30 %, then down to 0: Smith, 2018
} bt_schedule;

typedef enum bt_event {
    BT_EVENT_START, // the program is compiled
    BT_EVENT_STEPS, // some steps are done
    BT_EVENT_EPOCH, // an epoch is done and validated
} bt_event;

// What the callback sees. Numbers of the running epoch; NaN where not known.
typedef struct bt_progress {
    bt_event event;
    int epoch;                         // 1 is the first
    uint32_t step, steps, epoch_steps; // done in all, in the whole run, and per epoch
    double seconds;                    // of training alone
    double train_loss, train_accuracy, val_loss, val_accuracy, lr;
    double images_per_second;      // of the epoch so far
    bool best;                     // this epoch has the best validation accuracy so far
    const bt_log_entry *log;       // the steps done since the last call
    uint32_t log_first, log_count; // log[0] belongs to step log_first (the first step is 0)
    const char *warning;           // a save that failed and will be tried again; NULL: none
    const char *program;           // at the start: bt_program_note of what trains
} bt_progress;

// What the callback may answer.
typedef enum bt_answer { BT_CONTINUE = 0, BT_SAVE, BT_STOP } bt_answer;

typedef struct bt_train_desc {
    bt_model *model;
    bt_dataset *train;
    bt_dataset *validation; // NULL: none
    int epochs;             // 0: 10
    int batch;              // 0: 64
    bt_optimizer optimizer;
    bt_hyper hyper; // lr at its peak; zeros mean zero
    bt_schedule schedule;
    double warmup;   // epochs of linear rise from 0
    bool file_order; // do not shuffle
    uint64_t seed;
    double target_accuracy; // > 0: stop when validation (without one: training) accuracy is there
    double seconds_max;     // > 0: stop then
    int patience;           // > 0: stop after so many epochs without a better validation accuracy
    const char *folder;     // gets last.safetensors and best.safetensors; NULL: nothing is saved
    const char *resume;     // a checkpoint to continue from
    const char *settings;   // JSON text kept in the checkpoint
    bool profile;
    bt_answer (*callback)(void *user, const bt_progress *progress);
    void *user;
} bt_train_desc;

typedef struct bt_train_result {
    int epochs; // whole epochs done
    uint32_t steps;
    double seconds; // of training alone: no loading, validation or saving
    double images_per_second;
    double train_loss, train_accuracy, val_loss, val_accuracy, best_accuracy;
    int best_epoch;
    const char *stop;              // why it ended: "epochs", "target", "time", "patience", "asked"
    const bt_profile_row *profile; // with desc.profile; belongs to the context
    int profile_count;
    const bt_span *trace; // as well: what the host did, in the order of ends, then the launches
    int trace_count;
} bt_train_result;

// Trains until something in desc ends it. BT_STOPPED when the callback asked to stop. A run that
// is stopped at any step and resumed ends with the same bits as one that was not.
bt_status bt_train(bt_context *ctx, const bt_train_desc *desc, bt_train_result *out);

// The learning rate (and the rest) of step s as a pure function of the settings.
bt_hyper bt_schedule_at(const bt_train_desc *desc, uint32_t step, uint32_t steps,
                        uint32_t epoch_steps);

// ---- Doctor ----------------------------------------------------------------------------------

// Looks for what commonly keeps a network from learning (docs/doctor.md has the list).
typedef enum bt_severity {
    BT_SEVERITY_WARNING = 0, // it learns worse than it could
    BT_SEVERITY_PROBLEM,     // it does not learn, or what it learns is of no use
} bt_severity;

const char *bt_severity_name(bt_severity severity); // "warning"

typedef struct bt_finding {
    bt_severity severity;
    const char *code; // "dead-units"
    char layer[56];   // bt_model_layer_name; "": no layer in particular
    char text[256];   // what was seen, in numbers
    const char *hint; // what to try
} bt_finding;

enum { BT_FINDINGS_MAX = 32 };

typedef struct bt_diagnosis {
    bt_finding findings[BT_FINDINGS_MAX];
    int count;
    char looked_at[768];    // what was examined, and its numbers
    double lr_low, lr_high; // learning rates that help, by a range test; NaN: not known
} bt_diagnosis;

// The figures of an epoch, as bt_progress has them.
typedef struct bt_epoch {
    int epoch; // from 1
    double train_loss, train_accuracy, val_loss, val_accuracy;
} bt_epoch;

// What can be told before the training that desc describes: data, first loss, layers, learning rate
// (100 steps with a copy of the model). Training gives the same bits afterwards.
bt_status bt_doctor_before(bt_context *ctx, const bt_train_desc *desc, bt_diagnosis *out);
// What can be told afterwards, from the model and the epochs; adds to what was found before.
bt_status bt_doctor_after(bt_context *ctx, const bt_train_desc *desc, const bt_epoch *epochs,
                          int count, bt_diagnosis *diagnosis);

// ---- Files -----------------------------------------------------------------------------------

// Writes what a file is to `out`: format, shapes, metadata, checksum verified; as JSON if asked.
bt_status bt_inspect(bt_context *ctx, const char *path, bool json, FILE *out);

// TensorBoard's log: the first record makes a new file in `folder`, "events.out.tfevents...", which
// the viewer puts together with those that are there, and may read while it grows. step: where the
// run begins; what earlier files have from there on is no longer shown. Tags with a slash are
// grouped by what is before it.
typedef struct bt_events bt_events;
bt_status bt_events_open(bt_context *ctx, const char *folder, uint32_t step, bt_events **out);
bt_status bt_events_scalar(bt_context *ctx, bt_events *events, const char *tag, uint32_t step,
                           double value);
// pixels [channels, height, width], 1 (grey) or 3 (RGB) channels.
bt_status bt_events_image(bt_context *ctx, bt_events *events, const char *tag, uint32_t step,
                          const uint8_t *pixels, int channels, int height, int width);
// Of the values of a tensor.
bt_status bt_events_histogram(bt_context *ctx, bt_events *events, const char *tag, uint32_t step,
                              bt_tensor values);
// Reports what a full disk kept from the file; bt_close closes it too.
bt_status bt_events_close(bt_context *ctx, bt_events *events);

// The settings text of a checkpoint (see bt_train_desc.settings); belongs to the context.
bt_status bt_checkpoint_settings(bt_context *ctx, const char *path, const char **settings,
                                 uint32_t *step);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
