// Which elements of a gathered batch are not 0: images of digits are zeros for the most part, and
// products with them leave these out, to the same bits (sparse_isa.c).
#ifndef BT_DEVICE_CPU_NONZEROS_H
#define BT_DEVICE_CPU_NONZEROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bt_cpu_nonzeros {
    uint32_t rows, columns;
    uint32_t words;  // of a row: more than columns / 64 + 1, those past the last column are 0
    uint32_t *count; // [rows] nonzeros of each
    uint64_t *bits;  // [rows, words]: bit c % 64 of word c / 64 is column c
} bt_cpu_nonzeros;

// Are they of use for a batch of this shape?
bool bt_cpu_nonzeros_fit(size_t rows, size_t columns);

// Those of a batch of zeros, which gather_batch then keeps up to date. NULL: there is no memory.
bt_cpu_nonzeros *bt_cpu_nonzeros_make(uint32_t rows, uint32_t columns);
void bt_cpu_nonzeros_free(bt_cpu_nonzeros *nonzeros);

#endif
