// Tables on the terminal and in files; see table.h.
#include "table.h"

#include <stdlib.h>
#include <string.h>

static int width_of(const column *c) {
    if (c->format[0] != '%') return -(int)strcspn(c->format, "|");
    return atoi(c->format + 1);
}

static void print_cell(const column *c, const json_t *cell) {
    int split = (int)strcspn(c->format, "|");
    if (json_is_string(cell))
        printf(c->format, json_string_value(cell));
    else if (json_is_integer(cell))
        printf(c->format, (long long)json_integer_value(cell));
    else if (json_is_real(cell))
        printf(c->format, json_real_value(cell));
    else if (json_is_true(cell))
        printf("%.*s", split, c->format);
    else if (json_is_false(cell))
        printf("%s", c->format + split + 1);
    else
        printf("%*s", width_of(c), "-");
}

void table_begin(table *t, const column *columns, int count, bool silent) {
    *t = (table){columns, count, silent, json_array()};
    for (int i = 0; i < count && !silent; i++)
        if (*columns[i].title)
            printf("%s%*s", i ? "  " : "", width_of(&columns[i]), columns[i].title);
    if (!silent) putchar('\n');
}

void table_add(table *t, json_t *row) {
    for (int i = 0; i < t->count && !t->silent; i++) {
        json_t *cell = json_object_get(row, t->columns[i].key);
        // (An empty text of any width has no room: the next one, a reason say, takes its place.)
        bool fits = !strcmp(t->columns[i].format, "%s");
        if (fits && json_is_string(cell) && !json_string_length(cell)) continue;
        if (i) fputs("  ", stdout);
        print_cell(&t->columns[i], cell);
    }
    if (!t->silent) putchar('\n');
    json_array_append_new(t->rows, row);
}

void table_end(table *t) {
    json_decref(t->rows);
}

void table_print(const column *columns, int count, const json_t *rows) {
    table t;
    size_t i;
    json_t *row;
    table_begin(&t, columns, count, false);
    json_array_foreach(rows, i, row) table_add(&t, json_incref(row));
    table_end(&t);
}

// A comma, or what else would end a field, becomes a space.
static void put_text(const char *text, FILE *out) {
    for (; *text; text++) fputc(strchr(",\"\r\n", *text) ? ' ' : *text, out);
}

void csv_write(const json_t *rows, FILE *out) {
    size_t i;
    json_t *row, *cell;
    const char *key;
    json_array_foreach(rows, i, row) {
        const char *comma = "";
        if (i == 0) {
            json_object_foreach(row, key, cell) fprintf(out, "%s%s", comma, key), comma = ",";
            fputc('\n', out);
        }
        comma = "";
        json_object_foreach(row, key, cell) {
            fputs(comma, out);
            if (json_is_string(cell))
                put_text(json_string_value(cell), out);
            else if (json_is_real(cell))
                fprintf(out, "%.9g", json_real_value(cell));
            else
                fprintf(out, "%lld", (long long)json_integer_value(cell));
            comma = ",";
        }
        fputc('\n', out);
    }
}
