// The table of known data sets, and where they are looked for.
#ifndef BT_DATA_SETS_H
#define BT_DATA_SETS_H

#include "base/status.h"

enum { BT_SET_FILES = 4, BT_SET_MIRRORS = 2, BT_PATH_BYTES = 512 };

// The order of the files everywhere: training images, training labels, test images, test labels.
typedef struct bt_set {
    const char *name, *description;
    const char *mirrors[BT_SET_MIRRORS]; // end in '/'; NULL: none
    const char *sha256[BT_SET_FILES];    // of the unpacked files; NULL: built in
    const char *parts[2];                // bt_dataset_info.sha256 of the training and test part
    int counts[2];                       // of samples in them
} bt_set;

extern const bt_set bt_sets[];
extern const int bt_set_count;

const bt_set *bt_set_find(const char *name);               // NULL: unknown
bt_status bt_set_unknown(const char *name, bt_error *err); // names the known ones
const char *bt_set_file(int file, int spelling);           // file name; NULL: no more spellings

// Writes the path of file `file` of a folder to `out` if it is there in any spelling.
bool bt_set_locate(const char *folder, int file, char out[BT_PATH_BYTES]);

// Folder number `i` in which a set is looked for; false: no more. The first is where
// bt_dataset_get puts it. `folder` as in bt_dataset_desc.
bool bt_set_folder(const char *folder, const char *name, int i, char out[BT_PATH_BYTES]);

#endif
