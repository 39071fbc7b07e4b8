// Rows of figures that are printed as a table, and kept as JSON objects for --json and CSV files.
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

// How a member of the rows is printed: a printf format of text ("%-8s"), of a number ("%9.1f",
// "%6lld"), or two words for true and false ("ok|FAILED").
typedef struct column {
    const char *key, *title, *format;
} column;

typedef struct table {
    const column *columns;
    int count;
    bool silent;  // keeps the rows without printing them
    json_t *rows; // owned
} table;

void table_begin(table *t, const column *columns, int count, bool silent);
void table_add(table *t, json_t *row); // takes over the row
void table_end(table *t);
void table_print(const column *columns, int count, const json_t *rows); // rows that are there

// All members of rows that have the same keys.
void csv_write(const json_t *rows, FILE *out);

#endif
