// See nonzeros.h.
#include "device/cpu/nonzeros.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = 64, LINE_WORDS = LINE / sizeof(uint64_t) }; // rows of workers share no cache line

bool bt_cpu_nonzeros_fit(size_t rows, size_t columns) {
    const size_t columns_max = (size_t)1 << 20, elements_max = (size_t)1 << 31;
    return columns >= 64 && columns <= columns_max && rows > 0 && rows <= elements_max / columns;
}

bt_cpu_nonzeros *bt_cpu_nonzeros_make(uint32_t rows, uint32_t columns) {
    uint32_t words = (columns / 64 + 2 + LINE_WORDS - 1) / LINE_WORDS * LINE_WORDS;
    size_t counts = (rows * sizeof(uint32_t) + LINE - 1) / LINE * LINE;
    size_t bytes = LINE + counts + (size_t)rows * words * sizeof(uint64_t);
    char *memory = aligned_alloc(LINE, bytes);
    if (!memory) return NULL;
    memset(memory, 0, bytes);
    bt_cpu_nonzeros *made = (bt_cpu_nonzeros *)memory;
    *made = (bt_cpu_nonzeros){.rows = rows, .columns = columns, .words = words};
    made->count = (uint32_t *)(memory + LINE);
    made->bits = (uint64_t *)(memory + LINE + counts);
    return made;
}

void bt_cpu_nonzeros_free(bt_cpu_nonzeros *nonzeros) {
    free(nonzeros);
}
