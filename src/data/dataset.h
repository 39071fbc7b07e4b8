// A labelled image set in memory: bytes, labels, and an index that picks and orders its samples.
#ifndef BT_DATA_DATASET_H
#define BT_DATA_DATASET_H

#include "base/owner.h"

struct bt_dataset {
    bt_dataset *base;     // whose bytes these are; itself unless split from another
    uint8_t *images;      // [total, channels, height, width]; owned by base
    uint8_t *labels;      // [total]; owned by base
    uint32_t *index;      // [info.count] positions in images; owned
    uint32_t total;       // samples in images
    bt_dataset_info info; // info.count samples are in this set
    // Tensors that hold images, labels and index on the device, 0 until first used there (in base
    // for the first two). Set by train/batch.c.
    uint32_t images_id, labels_id, index_id;
};

#endif
