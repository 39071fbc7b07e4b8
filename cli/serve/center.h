// A drawing as MNIST's digits were made: cut out, scaled to a box of 20 x 20, and put into 28 x 28
// by its centre of mass (yann.lecun.com/exdb/mnist). A network knows no others.
#ifndef CLI_SERVE_CENTER_H
#define CLI_SERVE_CENTER_H

#include <stdbool.h>
#include <stdint.h>

// grey [side, side], 0 where nothing is drawn -> out [height, width], whose box is 20/28 of its
// smaller side. False, and all zeros: nothing is drawn.
bool center_drawing(const uint8_t *grey, int side, uint8_t *out, int height, int width);

#endif
