// Strings, errors and options: what Metal takes and gives beside its own objects.
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef metal_object object;

typedef struct string_data {
    char *text;
} string_data;

typedef struct error_data {
    char domain[64], text[8192];
    long code;
} error_data;

static const metal_class class_error;

// ---- Strings and errors -----------------------------------------------------------------------

object *metal_string(const char *text) {
    object *o = metal_new(&metal_class_string, sizeof(string_data));
    ((string_data *)o->data)->text = strdup(text);
    return metal_autorelease(o);
}

static void string_done(void *data) {
    string_data *s = data;
    memset(s->text, '?', strlen(s->text)); // shows if it is read again
    free(s->text);
}

const char *metal_string_text(const object *string) {
    return ((string_data *)string->data)->text;
}

static object *string_make(object *self, metal_sel sel, const char *text) {
    (void)self, (void)sel;
    METAL_LOCKED;
    return metal_string(text);
}

static const char *string_utf8(object *self, metal_sel sel) {
    (void)sel;
    return metal_string_text(self);
}

object *metal_error(const char *domain, long code, const char *text) {
    object *o = metal_new(&class_error, sizeof(error_data));
    error_data *e = o->data;
    snprintf(e->domain, sizeof e->domain, "%s", domain);
    snprintf(e->text, sizeof e->text, "%s", text);
    e->code = code;
    return o;
}

static object *error_text(object *self, metal_sel sel) {
    (void)sel;
    return metal_string(((error_data *)self->data)->text);
}
static object *error_domain(object *self, metal_sel sel) {
    (void)sel;
    return metal_string(((error_data *)self->data)->domain);
}
static long error_code(object *self, metal_sel sel) {
    (void)sel;
    return ((error_data *)self->data)->code;
}

void *metal_refuse(object **error, const char *domain, long code, const char *text) {
    object *e = metal_autorelease(metal_error(domain, code, text));
    if (error && !metal_wish.no_words) *error = e;
    return NULL;
}

// MTLCompileOptions, fastMathEnabled: true where nobody says otherwise. (The CPU is exact either
// way, so it is only counted.)
static object *options_make(object *self, metal_sel sel) {
    (void)self, (void)sel;
    object *o = metal_new(&metal_class_options, sizeof(bool));
    *(bool *)o->data = true;
    return o;
}

static void options_fast(object *self, metal_sel sel, bool fast) {
    (void)sel;
    *(bool *)self->data = fast;
}

// ---- Classes ----------------------------------------------------------------------------------

const metal_class metal_string_factory = {
    "NSString", (const metal_method[]){METAL_METHOD("stringWithUTF8String:", string_make), {0}},
    NULL, NULL};
const metal_class metal_options_factory = {
    "MTLCompileOptions", (const metal_method[]){METAL_METHOD("new", options_make), {0}}, NULL,
    NULL};
const metal_class metal_class_options = {
    "MTLCompileOptions",
    (const metal_method[]){METAL_METHOD("setFastMathEnabled:", options_fast), {0}}, NULL,
    &metal_state.options};
const metal_class metal_class_string = {
    "NSString", (const metal_method[]){METAL_METHOD("UTF8String", string_utf8), {0}}, string_done,
    &metal_state.strings};
static const metal_class class_error = {
    "NSError",
    (const metal_method[]){METAL_METHOD("localizedDescription", error_text),
                           METAL_METHOD("domain", error_domain),
                           METAL_METHOD("code", error_code),
                           {0}},
    NULL, &metal_state.errors};
