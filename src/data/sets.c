// See sets.h.
#include "data/sets.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const bt_set bt_sets[] = {
    {"digits",
     "drawn digits, 60000 + 10000 of 28 x 28",
     {NULL, NULL},
     {NULL, NULL, NULL, NULL},
     {NULL, NULL},
     {60000, 10000}},
    {"mnist",
     "handwritten digits, 60000 + 10000 of 28 x 28",
     {"https://ossci-datasets.s3.amazonaws.com/mnist/",
      "https://storage.googleapis.com/cvdf-datasets/mnist/"},
     {"ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
      "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
      "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
      "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"},
     {"c5097fdd51cfdbe7695fd9df3612695696864b5c424f58d843ffdc5d335e9914",
      "18489308deedfe2f7bd3a11e599a597126f161d991b1ffcffb71642aa76f7f62"},
     {60000, 10000}},
    {"fashion-mnist",
     "clothes (Zalando), 60000 + 10000 of 28 x 28",
     {"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", NULL},
     {"c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
      "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
      "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
      "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"},
     {"d9ef4273af5c2e360155dad0c06bd939447bf37a6620db007d69fc79e4732045",
      "30214f3fe91405cb8ea60b11ecf0914a65dd6a6ca8e13c13a62eb434f2d9fe56"},
     {60000, 10000}},
};
const int bt_set_count = sizeof bt_sets / sizeof *bt_sets;

const bt_set *bt_set_find(const char *name) {
    for (int i = 0; i < bt_set_count; i++)
        if (strcmp(bt_sets[i].name, name) == 0) return &bt_sets[i];
    return NULL;
}

bt_status bt_set_unknown(const char *name, bt_error *err) {
    char known[256] = "";
    for (int i = 0; i < bt_set_count; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", bt_sets[i].name);
    }
    return bt_fail(err, BT_ERROR_USAGE,
                   "no data set is named '%.100s'; known are %s, and any folder of IDX files "
                   "written as a path (./%.100s)",
                   name, known, name);
}

const char *bt_set_file(int file, int spelling) {
    static const char *const names[BT_SET_FILES][4] = {
        {"train-images-idx3-ubyte", "train-images.idx3-ubyte", "train-images-idx3-ubyte.gz",
         "train-images.idx3-ubyte.gz"},
        {"train-labels-idx1-ubyte", "train-labels.idx1-ubyte", "train-labels-idx1-ubyte.gz",
         "train-labels.idx1-ubyte.gz"},
        {"t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte", "t10k-images-idx3-ubyte.gz",
         "t10k-images.idx3-ubyte.gz"},
        {"t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte", "t10k-labels-idx1-ubyte.gz",
         "t10k-labels.idx1-ubyte.gz"}};
    return spelling < 4 ? names[file][spelling] : NULL;
}

bool bt_set_locate(const char *folder, int file, char out[BT_PATH_BYTES]) {
    const char *name;
    for (int i = 0; (name = bt_set_file(file, i)); i++) {
        int n = snprintf(out, BT_PATH_BYTES, "%s/%s", folder, name);
        if (n < BT_PATH_BYTES && access(out, F_OK) == 0) return true;
    }
    return false;
}

// The folder of the user's data sets: what was asked for, else the environment's, else XDG's.
static bool user_folder(const char *folder, const char *name, char out[BT_PATH_BYTES]) {
    const char *asked = folder ? folder : getenv("BANTAM_DATA");
    const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n;
    if (asked && *asked)
        n = snprintf(out, BT_PATH_BYTES, "%s/%s", asked, name);
    else if (xdg && *xdg == '/')
        n = snprintf(out, BT_PATH_BYTES, "%s/bantam/%s", xdg, name);
    else
        n = snprintf(out, BT_PATH_BYTES, "%s/.local/share/bantam/%s", home ? home : ".", name);
    return n < BT_PATH_BYTES;
}

bool bt_set_folder(const char *folder, const char *name, int i, char out[BT_PATH_BYTES]) {
    if (i == 0) return user_folder(folder, name, out);
    if (i > 1 || folder) return false;
    // Where Debian's packages, such as dataset-fashion-mnist, put data sets.
    return snprintf(out, BT_PATH_BYTES, "/usr/share/datasets/%s", name) < BT_PATH_BYTES;
}
