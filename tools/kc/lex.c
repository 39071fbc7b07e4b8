// Memory, errors and tokens of a unit. Only plain ASCII and // comments pass, so that a comment
// ends at the same place in every language that the text is translated to.
#include "kc/unit.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

struct kc_chunk {
    _Alignas(16) kc_chunk *next;
    size_t used, size;
};

void *kc_alloc(kc_unit *unit, size_t bytes) {
    enum { CHUNK = 1 << 16 };
    bytes = (bytes + 15) / 16 * 16;
    if (!unit->memory || unit->memory->size - unit->memory->used < bytes) {
        size_t size = sizeof(kc_chunk) + (bytes > CHUNK ? bytes : CHUNK);
        kc_chunk *chunk = calloc(1, size);
        if (!chunk) kc_fail(unit, NULL, NULL, "out of memory: %zu bytes", size);
        *chunk = (kc_chunk){unit->memory, sizeof *chunk, size};
        unit->memory = chunk;
    }
    void *memory = (char *)unit->memory + unit->memory->used;
    unit->memory->used += bytes;
    return memory;
}

void kc_free(kc_unit *unit) {
    for (kc_chunk *next; unit && unit->memory; unit->memory = next) {
        next = unit->memory->next;
        free(unit->memory);
    }
    free(unit);
}

_Noreturn void kc_fail(kc_unit *unit, const kc_file *file, const kc_token *at, const char *format,
                       ...) {
    char sentence[300];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    int column = 1;
    for (const char *s = at ? at->text : NULL; s && s > file->source->text && s[-1] != '\n'; s--)
        column++;
    char place[32] = "";
    if (at) snprintf(place, sizeof place, ":%d:%d", at->line, column);
    snprintf(unit->error->text, sizeof unit->error->text, "%.160s%s: error: %s",
             file ? file->source->path : "kernels", place, sentence);
    longjmp(*unit->fail, 1);
}

bool kc_is(const kc_token *t, const char *text) {
    return t->kind != KC_STRING && !strncmp(t->text, text, t->length) && !text[t->length];
}

bool kc_same(const kc_token *a, const kc_token *b) {
    return a->length == b->length && !memcmp(a->text, b->text, a->length);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// Passes blanks and comments. `bad` is where a character that no text may have stands.
static const char *skip_space(const char *s, const char *end, int *line, const char **bad) {
    for (bool comment = false; s < end; s++) {
        if (*s == '\n') {
            (*line)++;
            comment = false;
        } else if (*s < ' ' || *s > '~' || *s == '\\') {
            *bad = s;
            return s;
        } else if (comment) {
            // Three characters that old C takes for a backslash.
            if (end - s > 2 && !memcmp(s, "\?\?/", 3)) return *bad = s;
        } else if (*s == '/' && end - s > 1 && s[1] == '/') {
            comment = true;
        } else if (*s != ' ') {
            break;
        }
    }
    return s;
}

static uint32_t symbol_length(const char *s, const char *end) {
    static const char *const longer[] = {
        "<<=", ">>=", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||",
        "+=",  "-=",  "*=", "/=", "%=", "&=", "|=", "^=", "++", "--"};
    for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) {
        size_t length = strlen(longer[i]);
        if ((size_t)(end - s) >= length && !memcmp(s, longer[i], length)) return (uint32_t)length;
    }
    return *s && strchr("+-*/%&|^~!<>=(){}[],;?", *s) ? 1 : 0;
}

static const char *number_end(const char *s, const char *end) {
    bool hex = *s == '0' && end - s > 1 && s[1] == 'x';
    while (s < end && (is_letter(*s) || is_digit(*s) || *s == '.' ||
                       ((*s == '-' || *s == '+') && s[-1] == 'e' && !hex)))
        s++;
    return s;
}

static const char *read_token(kc_unit *unit, kc_file *file, kc_token *t, const char *end) {
    const char *s = t->text;
    t->length = 1;
    if (s == end) {
        t->length = 0;
        t->kind = KC_END;
    } else if (is_letter(*s)) {
        t->kind = KC_NAME;
        while (s < end && (is_letter(*s) || is_digit(*s))) s++;
        t->length = (uint32_t)(s - t->text);
    } else if (is_digit(*s)) {
        t->kind = KC_NUMBER;
        t->length = (uint32_t)(number_end(s, end) - s);
    } else if (*s == '"') {
        t->kind = KC_STRING;
        for (s++; s < end && *s != '"' && *s > ' ' && *s <= '~' && *s != '\\';) s++;
        if (s == end || *s != '"') kc_fail(unit, file, t, "a file name ends with \" on its line");
        t->length = (uint32_t)(s - t->text) + 1;
    } else {
        t->kind = KC_SYMBOL;
        t->length = symbol_length(s, end);
        if (!t->length) kc_fail(unit, file, t, "'%c' means nothing here", *s);
    }
    if (t->kind == KC_NAME && t->length > 63)
        kc_fail(unit, file, t, "a name of %u letters: at most 63", (unsigned)t->length);
    return t->text + t->length;
}

void kc_lex(kc_unit *unit, kc_file *file) {
    const char *s = file->source->text, *end = s + file->source->length;
    if (file->source->length > KC_FILE_BYTES_MAX)
        kc_fail(unit, file, NULL, "%zu bytes: a file has at most %d", file->source->length,
                KC_FILE_BYTES_MAX);
    uint32_t capacity = 0;
    for (int line = 1;;) {
        if (file->token_count == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            kc_token *more = kc_alloc(unit, capacity * sizeof *more);
            if (file->token) memcpy(more, file->token, file->token_count * sizeof *more);
            file->token = more;
        }
        kc_token *t = &file->token[file->token_count++];
        const char *bad = NULL;
        *t = (kc_token){.space = s, .text = skip_space(s, end, &line, &bad)};
        t->line = line;
        if (bad)
            kc_fail(unit, file, t,
                    "byte 0x%02x: a file is plain ASCII, without tabs and backslashes",
                    (unsigned char)*bad);
        t->spaces = (uint32_t)(t->text - t->space);
        s = read_token(unit, file, t, end);
        if (t->kind == KC_END) return;
    }
}
