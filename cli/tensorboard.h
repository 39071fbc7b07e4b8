// `train --tensorboard`: event files in the run directory, for TensorBoard. A failure to write them
// is said once and does not end the training.
#ifndef CLI_TENSORBOARD_H
#define CLI_TENSORBOARD_H

#include "cli.h"

typedef struct tensorboard {
    const settings *s;
    bt_context *ctx;
    bt_model *model;
    bt_events *events; // NULL: not wanted, or no longer
} tensorboard;

// Does nothing, like all of these, without --tensorboard. The file comes with the first epoch.
void tensorboard_open(tensorboard *t, const settings *s, bt_context *ctx, bt_model *model,
                      const char *folder, uint32_t first_step);
// After an epoch: the figures of it as scalars, and the weights as histograms.
void tensorboard_epoch(tensorboard *t, const bt_progress *now);
// The misclassified samples of which the network was surest; predictions as bt_evaluate gives them.
void tensorboard_misclassified(tensorboard *t, const bt_dataset *set, const int32_t *predictions,
                               uint32_t step);
void tensorboard_close(tensorboard *t);

#endif
