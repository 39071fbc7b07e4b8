// What the files of this folder share: the model behind bt_model, evaluation programs that run more
// than once, and checkpoints.
#ifndef BT_TRAIN_TRAIN_H
#define BT_TRAIN_TRAIN_H

#include "base/owner.h"
#include "data/safetensors.h"

#include <locale.h>

// ---- Models ----------------------------------------------------------------------------------

enum { BT_LAYERS_MAX = 256, BT_LAYER_TEXT = 40 };

typedef enum bt_layer_kind {
    BT_LAYER_FC,
    BT_LAYER_CONV,
    BT_LAYER_MAX_POOL,
    BT_LAYER_AVG_POOL,
    BT_LAYER_RELU,
    BT_LAYER_SIGMOID,
    BT_LAYER_TANH,
    BT_LAYER_GELU,
    BT_LAYER_FLATTEN
} bt_layer_kind;

typedef struct bt_layer {
    bt_layer_kind kind;
    int index;  // position among the layers, flatten not counted, as PyTorch's names have it
    int inputs; // features (fc) or channels (conv)
    int outputs, size, stride, padding;
    char text[BT_LAYER_TEXT];      // "conv8x5"
    char name[BT_LAYER_TEXT + 16]; // "0.conv8x5"
} bt_layer;

struct bt_model {
    bt_model_desc desc; // spec points to the text below
    char *spec;
    bt_layer layers[BT_LAYERS_MAX];
    int layer_count, parameter_count;
    bt_tensor parameters[2 * BT_LAYERS_MAX]; // weight and bias of each layer that has them
    char names[2 * BT_LAYERS_MAX][16];
    size_t size;
};

// Fills in layers, layer_count and spec from desc; model->spec is to be freed by the caller.
bt_status bt_spec_parse(bt_model *model, bt_error *err) BT_MUST_CHECK;
// bt_model_forward_to, where outputs (may be NULL) gets what comes out of each of those layers.
bt_tensor bt_model_layers(bt_context *ctx, const bt_model *model, bt_tensor images, int layers,
                          bt_tensor *outputs);
// A sentence where images of the set cannot go through the model.
bt_status bt_model_fits(bt_context *ctx, const bt_model *model,
                        const bt_dataset *set) BT_MUST_CHECK;

// ---- Evaluation ------------------------------------------------------------------------------

typedef struct bt_evaluator {
    bt_program *program; // NULL: nothing to evaluate
    int count, batch;
    uint32_t steps;
    bt_log_entry *log; // [steps]
} bt_evaluator;

// batch 0: a good one is chosen.
bt_status bt_evaluator_make(bt_context *ctx, const bt_model *model, bt_dataset *set, int batch,
                            bool predictions, bt_evaluator *out) BT_MUST_CHECK;
bt_status bt_evaluator_run(bt_context *ctx, bt_evaluator *e, bt_evaluation *out,
                           int32_t *predictions) BT_MUST_CHECK;

// ---- Weights ---------------------------------------------------------------------------------

// The tensor `name` of the file, which must have the shape of parameter i; and its way there.
bt_status bt_weight_find(bt_context *ctx, const char *path, const bt_st_file *file,
                         const bt_model *model, int i, const char *name,
                         const bt_st_tensor **out) BT_MUST_CHECK;
bt_status bt_weight_write(bt_context *ctx, const bt_model *model, int i,
                          const bt_st_tensor *t) BT_MUST_CHECK;

// ---- Other formats ---------------------------------------------------------------------------

// A model as files of other programs have it; weights are its parameters in their order, in F32.
bt_status bt_onnx_write(const bt_model *model, const bt_st_tensor *weights, const char *path,
                        bt_error *err) BT_MUST_CHECK;
// Writes `path`, which ends in ".c", and the header beside it.
bt_status bt_c_source_write(const bt_model *model, const bt_st_tensor *weights, const char *path,
                            bt_error *err) BT_MUST_CHECK;

// Numbers in files have a decimal point, whatever locale the host program has set.
typedef struct bt_c_locale {
    locale_t locale, before;
} bt_c_locale;
bt_c_locale bt_c_locale_enter(void);
void bt_c_locale_leave(bt_c_locale l);

// ---- Checkpoints -----------------------------------------------------------------------------

// The numbers of a run. checkpoint.c has the table of their names in files.
typedef struct bt_run_state {
    int optimizer, schedule, epochs, batch, train_count, file_order; // what it is
    uint64_t seed;
    bt_hyper hyper;
    double warmup;
    uint32_t step; // where it is
    int best_epoch, stale_epochs;
    double seconds, best_accuracy;
    double train_loss, train_accuracy, val_loss, val_accuracy; // of the last whole epoch
} bt_run_state;

// A run, or a model alone, at one moment, in host memory.
typedef struct bt_checkpoint bt_checkpoint;

// Makes room for copies of the model and, where program is not NULL, of its run with epochs of
// epoch_steps. Owned by the context; taking and writing allocate nothing large.
bt_status bt_checkpoint_make(bt_context *ctx, const bt_model *model, bt_program *program,
                             uint32_t epoch_steps, const char *settings,
                             bt_checkpoint **out) BT_MUST_CHECK;
// Copies weights and moments from the device, and the log of the steps of the unfinished epoch.
// Numbers that are not finite are an error: no such checkpoint shall be written.
bt_status bt_checkpoint_take(bt_context *ctx, bt_checkpoint *c, const bt_run_state *state,
                             const bt_log_entry *log, uint32_t log_count) BT_MUST_CHECK;
// What was taken: first of all the model's parameters, in their order.
const bt_st_tensor *bt_checkpoint_tensors(const bt_checkpoint *c);
bt_status bt_checkpoint_write(const bt_checkpoint *c, const char *path,
                              bt_error *err) BT_MUST_CHECK;
// Checks that the run of `path` is the one that `state` describes and puts weights, moments, log
// and the rest of the state back.
bt_status bt_checkpoint_restore(bt_context *ctx, const char *path, const bt_model *model,
                                bt_program *program, uint32_t epoch_steps, bt_run_state *state,
                                bt_log_entry *log, uint32_t *log_count) BT_MUST_CHECK;

#endif
