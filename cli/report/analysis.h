// What a trained network makes of its test set, for pages: confusion matrix, the worst mistakes,
// the filters of the first layer, figures of each layer. RUN/analysis.json keeps it, so that it is
// computed once for each checkpoint.
#ifndef CLI_REPORT_ANALYSIS_H
#define CLI_REPORT_ANALYSIS_H

#include "cli.h"

enum { MISTAKES_MAX = 25, FILTERS_MAX = 64, LAYERS_MAX = 64 };

// Images and filters are kept as bytes: 255 is white, and of filters 128 is 0.
typedef struct mistake {
    int index, label, predicted;
    double p_label, p_predicted;
    uint8_t *grey; // [height, width]
} mistake;

typedef struct analysis {
    char checkpoint[32]; // "last.safetensors"
    uint32_t step;
    int64_t bytes; // of the checkpoint
    char data[64];
    int count, correct, classes, height, width;
    double loss, accuracy, standard_error;
    uint32_t *confusion;            // [true, predicted]
    mistake mistakes[MISTAKES_MAX]; // the least probable true label first
    int mistake_count;
    char filter_name[48]; // "0.weight"; "": the first layer has no pictures
    int filter_count, filter_all, filter_height, filter_width; // those kept, of how many
    double filter_full;                                        // the weight that 1 (or 255) means
    uint8_t *filters;
    bt_layer_stats layers[LAYERS_MAX];
    int layer_count;
} analysis;

// Of the test set with what bt_evaluate said of it. NULL: it could not be made; the context or a
// lack of memory tells why.
analysis *analysis_make(bt_context *ctx, bt_model *model, bt_dataset *test, const bt_evaluation *e,
                        const int32_t *predictions);
void analysis_free(analysis *a);

typedef struct class_scores {
    double precision, recall, f1;
    uint32_t count;
} class_scores;

// Of class c, by a matrix [true, predicted].
class_scores scores_of_class(const uint32_t *matrix, int classes, int c);

// The size of RUN/checkpoints/NAME; -1: it is not there.
int64_t checkpoint_bytes(const char *path, const char *checkpoint);

// analysis.json of a run directory. Reading checks everything; NULL: not there, damaged, or of
// another checkpoint than one of this name, step and size.
analysis *analysis_read(const char *path, const char *checkpoint, uint32_t step, int64_t bytes);
// Of the checkpoint of this name, which must be there. False: errno tells why.
bool analysis_write(analysis *a, const char *path, const char *checkpoint, uint32_t step);

#endif
