// Reading CSV files; see csv.h.
#include "csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char *read_text(const char *path) {
    enum { BYTES_MAX = 64 << 20 };
    struct stat info;
    FILE *file = fopen(path, "r");
    if (!file) return NULL;
    char *text = NULL;
    if (fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode)) {
        size_t bytes = info.st_size < BYTES_MAX ? (size_t)info.st_size : BYTES_MAX;
        text = malloc(bytes + 1);
        if (text) text[fread(text, 1, bytes, file)] = 0;
    } else {
        errno = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    }
    fclose(file);
    return text;
}

// Cuts a line at its commas into at most `max` cells; returns how many it has.
static int cut(char *line, const char **cells, int max) {
    int count = 0;
    for (char *next; line; line = next) {
        next = strchr(line, ',');
        if (next) *next++ = 0;
        if (count < max) cells[count] = line;
        count++;
    }
    return count;
}

// The line at *at, ended by 0 in place of its newline; NULL: no whole line is left.
static char *take_line(char **at) {
    char *line = *at, *end = strchr(line, '\n');
    if (!end) return NULL;
    *at = end + 1;
    if (end > line && end[-1] == '\r') end--;
    *end = 0;
    return line;
}

bool csv_read(csv *out, const char *path) {
    *out = (csv){.text = read_text(path)};
    if (!out->text) return false;
    size_t lines = 0;
    for (const char *p = out->text; (p = strchr(p, '\n')); p++) lines++;
    char *at = out->text, *line = take_line(&at);
    int columns = line ? cut(line, out->names, CSV_COLUMNS_MAX) : 0;
    if (columns > CSV_COLUMNS_MAX) columns = 0;
    out->columns = columns;
    if (columns && lines > 1) {
        out->cells = calloc(lines - 1, (size_t)columns * sizeof *out->cells);
        if (!out->cells) return csv_free(out), errno = ENOMEM, false;
    }
    while (columns && (line = take_line(&at))) {
        if (cut(line, &out->cells[out->rows * (size_t)columns], columns) == columns)
            out->rows++;
        else
            out->damaged++;
    }
    return true;
}

void csv_free(csv *c) {
    free(c->text);
    free(c->cells);
    *c = (csv){0};
}

int csv_column(const csv *c, const char *name) {
    for (int i = 0; i < c->columns; i++)
        if (!strcmp(c->names[i], name)) return i;
    return -1;
}

const char *csv_text(const csv *c, size_t row, int column) {
    return column >= 0 && row < c->rows ? c->cells[row * (size_t)c->columns + (size_t)column] : "";
}

double csv_number(const csv *c, size_t row, int column) {
    const char *text = csv_text(c, row, column);
    char *end;
    double number = strtod(text, &end);
    return end == text || *end ? NAN : number;
}
