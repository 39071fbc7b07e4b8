// Reads the CSV files that Bantam writes: a header, no quotes. Whatever else is in the file,
// reading ends well: lines with another number of fields than the header are left out and counted,
// and so is a last line without its end, which may still be written.
#ifndef CLI_CSV_H
#define CLI_CSV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { CSV_COLUMNS_MAX = 32 };

typedef struct csv {
    char *text; // the file, cut into cells
    const char *names[CSV_COLUMNS_MAX];
    const char **cells; // rows * columns
    int columns;
    size_t rows, damaged;
} csv;

// Opens a regular file; NULL for all else, without waiting as a FIFO would. errno tells.
FILE *csv_open(const char *path);

// False, with an empty table, when the file is not there or cannot be read; errno tells. A file of
// more than 8 MB is read up to there.
bool csv_read(csv *out, const char *path);
void csv_free(csv *c);

int csv_column(const csv *c, const char *name); // -1: none of this name
// "" and NaN where there is no such column or no number.
const char *csv_text(const csv *c, size_t row, int column);
double csv_number(const csv *c, size_t row, int column);

#endif
