// The built-in data set: handwriting-like digits, drawn by a program.
#ifndef BT_DATA_DIGITS_H
#define BT_DATA_DIGITS_H

#include "base/status.h"

enum { BT_DIGITS_SIDE = 28, BT_DIGITS_TRAIN = 60000, BT_DIGITS_TEST = 10000 };

// Draws samples first .. first + count - 1 into images [count, 28, 28] and labels [count], the same
// bits on every machine. The test part begins at BT_DIGITS_TRAIN.
bt_status bt_digits_draw(int first, int count, uint8_t *images, uint8_t *labels,
                         bt_error *err) BT_MUST_CHECK;

#endif
