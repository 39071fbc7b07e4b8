// What the files of kc share: tokens and what the parser notes at them, symbols, the unit. A source
// is lexed whole, then parsed and checked in one go (again for a kernel body until nothing new
// turns out to differ between threads); the emitters walk the annotated tokens and print them.
#ifndef KC_UNIT_H
#define KC_UNIT_H

#include "kc/kc.h"

#include <setjmp.h>

enum {
    KC_FILES_MAX = 64,
    KC_FILE_BYTES_MAX = 1 << 18,
    KC_GLOBALS_MAX = 4096, // constants and helpers of all files
    KC_LOCALS_MAX = 256,   // names in scope inside a kernel or helper
    KC_KERNELS_MAX = 512,
    KC_PARAMS_MAX = 16,
    KC_DIMS_MAX = 4,
    KC_SHARED_MAX = 16,     // shared arrays of a kernel
    KC_ELEMENTS_MAX = 1024, // of an array of a thread
    KC_DEPTH_MAX = 64,      // nested parentheses and blocks
    KC_PASSES_MAX = 16,
    KC_RULE_DEPTH = 16, // as BT_RULE_DEPTH
    KC_GROUP_MAX = 256,
    KC_SHARED_BYTES_MAX = 16384,
    KC_SCALAR_BYTES_MAX = 64,
};

typedef enum kc_type { KC_BOOL, KC_INT, KC_UINT, KC_FLOAT, KC_TYPE_COUNT } kc_type;
extern const char *const kc_type_names[KC_TYPE_COUNT];

typedef enum kc_builtin {
    KC_EXP,
    KC_LOG,
    KC_SQRT,
    KC_FLOOR,
    KC_ABS,
    KC_MIN,
    KC_MAX,
    KC_FMA,
    KC_PICK,
    KC_AS_UINT,
    KC_AS_FLOAT,
    KC_UMULHI,
    KC_HAS,
    KC_BARRIER,
    KC_BUILTIN_COUNT
} kc_builtin;

// The words of a rule, as bt_rule_op of src/device/portable.h.
typedef enum kc_rule_op {
    KC_RULE_END,
    KC_RULE_NUMBER,
    KC_RULE_WORD,
    KC_RULE_ADD,
    KC_RULE_SUB,
    KC_RULE_MUL,
    KC_RULE_DIV,
    KC_RULE_MOD,
    KC_RULE_MIN,
    KC_RULE_MAX,
    KC_RULE_LT,
    KC_RULE_LE,
    KC_RULE_GT,
    KC_RULE_GE,
    KC_RULE_EQ,
    KC_RULE_NE,
    KC_RULE_AND,
    KC_RULE_OR,
    KC_RULE_NOT,
} kc_rule_op;

typedef struct kc_symbol kc_symbol;

typedef enum kc_kind { KC_END, KC_NAME, KC_NUMBER, KC_STRING, KC_SYMBOL } kc_kind;

// What a token is, for the emitters; the ones without a role are printed as they are.
typedef enum kc_role {
    KC_PLAIN,
    KC_LITERAL, // of `type`
    KC_USE,     // a name: `symbol`
    KC_INDEX,   // [ or ] of an element of `symbol`; `number` is the size of the dimension
    KC_CONVERT, // a type called: from `type` to `to`
    KC_CALL,    // a built-in function `number` on `type`, up to the parenthesis at `mate`
    KC_DECLARE, // the type of a declaration; the name follows; the declarator ends before `mate`
    KC_SHARED,  // `shared`; the declaration ends at `mate`
    KC_SETTLE,  // ; after the declaration of an array `symbol`
} kc_role;

typedef struct kc_token {
    const char *space, *text; // space: blanks and comments before the text
    kc_symbol *symbol;
    uint32_t spaces, length, number, mate;
    int line;
    uint8_t kind, role, type, to;
    bool varying;    // at a declaration or loop: what differs between threads
    bool open, shut; // WGSL wants this argument in parentheses
} kc_token;

typedef enum kc_symbol_kind {
    KC_CONSTANT, // `const` or of an enum
    KC_HELPER,
    KC_SCALAR,
    KC_BUFFER,
    KC_SHARED_ARRAY,
    KC_LOCAL,
    KC_PARAMETER,
    KC_BUILT_IN, // lid, gx ...
} kc_symbol_kind;

struct kc_symbol {
    const kc_token *at; // its name
    kc_token *varying;  // where it is noted that its value differs between threads
    kc_symbol_kind kind;
    kc_type type;
    int file, item, global; // global: its index among those of the unit, else -1
    int dim_count, param_count;
    uint32_t dims[KC_DIMS_MAX];
    uint8_t params[KC_PARAMS_MAX];
    uint32_t value;  // constant: its bits; buffer: binding; scalar: word; built-in: which
    char mode;       // buffer: 'r' 'w' 'u'
    bool optional;   // buffer
    bool special;    // scalar that a device may compile in
    bool exported;   // constant
    bool unfinished; // helper whose body is being read
};

typedef enum kc_item_kind {
    KC_ITEM_INCLUDE,
    KC_ITEM_CONST,
    KC_ITEM_ENUM,
    KC_ITEM_HELPER,
    KC_ITEM_SCALARS,
    KC_ITEM_KERNEL
} kc_item_kind;

// A declaration at the top of a file: tokens first .. end - 1; body: its opening brace.
typedef struct kc_item {
    kc_item_kind kind;
    uint32_t first, body, end;
    int index; // file, global, block of scalars or kernel
} kc_item;

typedef struct kc_block {
    const char *name;
    int file, count;
    uint32_t bytes;
    kc_symbol field[KC_SCALAR_BYTES_MAX / 4];
} kc_block;

typedef struct kc_file {
    const kc_source *source;
    const char *name; // the path without its folders
    kc_token *token;
    kc_item *item;
    uint32_t token_count;
    int item_count, state; // 0: not parsed, 1: being parsed, 2: parsed
    uint64_t sees;         // files whose names it may use
} kc_file;

typedef struct kc_entry {
    kc_kernel public; // first
    int file, item, block;
    const kc_token *name, *of; // of: the same token, but in a variant
    int buffer_count, shared_count;
    kc_symbol *buffer[KC_BUFFERS_MAX], *shared[KC_SHARED_MAX];
    uint32_t values; // bit i: built-in value i is used
} kc_entry;

typedef struct kc_chunk kc_chunk;

struct kc_unit {
    kc_chunk *memory; // everything below lies in it
    kc_error *error;
    jmp_buf *fail;
    int file_count, global_count, block_count, kernel_count;
    kc_file file[KC_FILES_MAX];
    kc_symbol *global[KC_GLOBALS_MAX];
    kc_block *block[KC_KERNELS_MAX];
    kc_entry *kernel[KC_KERNELS_MAX]; // in the order of the tables
};

// The parser at work on a file.
typedef struct kc_parser {
    kc_unit *unit;
    kc_file *file;
    int file_index;
    kc_token *t; // the next token
    kc_symbol *scope[KC_LOCALS_MAX];
    int scope_count, depth, loops;
    kc_entry *kernel;  // whose body, condition or grid is read
    kc_symbol *helper; // whose body is read
    kc_token *loop[KC_DEPTH_MAX];
    bool flow;           // control flow here differs between threads
    bool returned;       // so does all below: some threads have returned
    bool all_varying;    // gave up finding out which variables do
    bool changed;        // something new was found to differ
    bool check_barriers; // the last pass over a body
    uint32_t *rule;      // the condition or grid that is read
    int rule_count, rule_depth;
} kc_parser;

// lex.c
void *kc_alloc(kc_unit *unit, size_t bytes); // zeros
_Noreturn void kc_fail(kc_unit *unit, const kc_file *file, const kc_token *at, const char *format,
                       ...) __attribute__((format(printf, 4, 5)));
void kc_lex(kc_unit *unit, kc_file *file);
bool kc_is(const kc_token *t, const char *text);
bool kc_same(const kc_token *a, const kc_token *b);

// names.c
kc_symbol *kc_find(const kc_parser *p, const kc_token *name);
void kc_check_name(kc_parser *p, const kc_token *name, bool global);
kc_symbol *kc_declare(kc_parser *p, kc_token *name, kc_symbol_kind kind, kc_type type);
int kc_find_builtin(const kc_token *name); // -1: none
int kc_find_type(const kc_token *name);    // -1: none

// expr.c
typedef struct kc_expr {
    kc_type type;
    bool constant, varying;
    uint32_t bits; // of a constant
    kc_token *first;
} kc_expr;

// A token for "%.*s"; a name has at most 63 letters.
#define KC_TEXT(t)         (int)((t)->length > 63 ? 63 : (t)->length), (t)->text
#define kc_bad(p, at, ...) kc_fail((p)->unit, (p)->file, at, __VA_ARGS__)
kc_token *kc_need(kc_parser *p, const char *symbol);
bool kc_take(kc_parser *p, const char *symbol);
kc_expr kc_expression(kc_parser *p);
kc_expr kc_expression_of(kc_parser *p, kc_type type, const char *what);
uint32_t kc_size(kc_parser *p, uint32_t most, const char *what); // a constant from 1 to most
// The element or variable that begins here, as the target of an assignment or a value.
kc_symbol *kc_place(kc_parser *p, kc_expr *e);
kc_expr kc_binary(kc_parser *p, const kc_token *op, kc_expr a, kc_expr b);

// parse.c
void kc_parse_file(kc_unit *unit, int index);
// body.c
void kc_body(kc_parser *p, bool top);
void kc_kernel_body(kc_parser *p);

#endif
