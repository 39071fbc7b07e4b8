// What bt_inspect shares with bt_images_read.
#ifndef BT_DATA_IMAGE_H
#define BT_DATA_IMAGE_H

#include "data/file.h"

bool bt_is_png(bt_bytes file);
bool bt_is_pgm(bt_bytes file);

// Decodes a PNG or PGM wholly to see that it is sound, and tells its size.
bt_status bt_image_check(bt_bytes file, const char *name, bt_error *err, int *height,
                         int *width) BT_MUST_CHECK;

#endif
