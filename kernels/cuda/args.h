// What a whole-program kernel gets: read by the host (C) and put before every kernels/cuda/*.cu.
// Everything that has a shape is a #define instead, so that the kernel is compiled for its network.
#ifndef BT_CUDA_ARGS_H
#define BT_CUDA_ARGS_H

typedef struct bt_net_args {
    const unsigned char *bytes; // U8 [total, pixels]: the images
    const int *labels;          // [total]
    const int *index;           // [count]: which samples belong to the set (gather_batch of batch.k)
    unsigned *state;            // [0]: the step, from which epoch and position follow
    float *params;              // all of them; offsets are in the layers (defines)
    float *moment1, *moment2;   // as params, for the optimizers that have them; 0: absent
    const float *table;         // [rows, 8]: learning rate ..., row min(step, rows - 1); update.k
    float *log;                 // [log_steps, 2]: mean loss, rows predicted right; 0: absent
    int *predictions;           // [prediction_count]; 0: absent
    float *logits, *probabilities; // [batch, classes] of the last step; evaluation alone; 0: absent
    void *scratch;              // of the plan; zeroed when the program is made, kept between runs
    unsigned count, batch, shuffle, seed; // as scalars gather of batch.k
    unsigned epoch_steps, rows, log_steps, prediction_count;
    unsigned steps; // how many to run in this launch
} bt_net_args;

#endif
