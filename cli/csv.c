// Reading CSV files; see csv.h.
#include "csv.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

FILE *csv_open(const char *path) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), error = 0;
    if (fd < 0) return NULL;
    if (fstat(fd, &info))
        error = errno;
    else if (!S_ISREG(info.st_mode))
        error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    FILE *file = error ? NULL : fdopen(fd, "r");
    if (!file) close(fd);
    if (error) errno = error;
    return file;
}

static char *read_text(const char *path) {
    enum { BYTES_MAX = 8 << 20 };
    struct stat info;
    FILE *file = csv_open(path);
    if (!file) return NULL;
    size_t bytes = fstat(fileno(file), &info) ? 0 : (size_t)info.st_size;
    if (bytes > BYTES_MAX) bytes = BYTES_MAX;
    char *text = malloc(bytes + 1);
    if (text) text[fread(text, 1, bytes, file)] = 0;
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
