// The parts of the simulated Metal: objects.c (Objective-C's runtime), foundation.c; classes and
// rules in metal.c (device, buffers), library.c (to pipelines), command.c, encoder.c; text.c and
// compile.c (MSL to machine code), group.c (running it).
#ifndef BT_TESTS_METAL_INTERNAL_H
#define BT_TESTS_METAL_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "metal_sim.h"
#include "shim/metal_abi.h"

#define METAL_EXPORT __attribute__((visibility("default")))

enum { METAL_BUFFERS = 31, METAL_THREADS = 1024, METAL_SIMD = 32 };
enum { METAL_FLOAT = 3, METAL_INT = 29, METAL_UINT = 33, METAL_BOOL = 53 }; // MTLDataType

// ---- Objects (objects.c) ----------------------------------------------------------------------

typedef const char *metal_sel; // its own text, one pointer for each text
typedef void (*metal_imp)(void);
typedef struct metal_method {
    metal_sel selector;
    metal_imp imp;
} metal_method;

typedef struct metal_class {
    const char *name;
    const metal_method *methods; // beside what all have; selector NULL at the end
    void (*done)(void *data);    // before its data is freed; NULL: nothing
    int *alive;                  // in metal_state; NULL: not counted
} metal_class;

// An object is never freed, only what it holds: a message to a dead one is told from a living one.
typedef struct metal_object {
    const metal_class *isa;
    int refs;
    void *data;
} metal_object;

metal_object *metal_new(const metal_class *isa, size_t data_bytes); // of one reference
metal_object *metal_keep(metal_object *object);                     // NULL: nothing
void metal_drop(metal_object *object);                              // NULL: nothing
metal_object *metal_autorelease(metal_object *object);

// A sentence for the log, once.
void metal_finding(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define METAL_METHOD(selector, function) \
    { selector, (metal_imp)(function) }

// Foundation (foundation.c). Strings are autoreleased; errors are not.
extern const metal_class metal_string_factory, metal_options_factory; // what objc_getClass gives
extern const metal_class metal_class_string, metal_class_options;
metal_object *metal_string(const char *text);
const char *metal_string_text(const metal_object *string);
metal_object *metal_error(const char *domain, long code, const char *text);
// NULL, and an autoreleased error in *error where that is wanted.
void *metal_refuse(metal_object **error, const char *domain, long code, const char *text);

extern metal_sim_state metal_state;
extern metal_sim_wish metal_wish;

// All state is one, and guarded by one lock that its holder may take again.
int metal_lock(void);
void metal_unlock(int *unused);
#define METAL_LOCKED int metal_locked __attribute__((cleanup(metal_unlock), unused)) = metal_lock()

// ---- Kernels (text.c, compile.c, group.c) -------------------------------------------------------

typedef struct metal_program {
    void *handle;
    const sim_constant *constants; // ends with one without a name
} metal_program;

METAL_EXPORT void metal_text_put(FILE *out, const char *text); // as C++
// A function of this text that GPUs of Apple's family lack. NULL: none.
const char *metal_text_beyond(const char *text, int family);

// Compiles MSL. false: `error` says why not.
bool metal_compile(const char *text, metal_program *out, char *error, size_t error_bytes);
const sim_kernel *metal_kernel(const metal_program *program, const char *name); // NULL: none

// Runs a grid of groups. false: it did what is not allowed, which was found.
bool metal_run(const sim_kernel *kernel, const sim_binding *bindings, const unsigned groups[3],
               const unsigned threads[3]);
extern const sim_hooks metal_hooks;

// ---- Classes ----------------------------------------------------------------------------------

typedef unsigned long metal_uint; // NSUInteger
typedef struct metal_size {       // MTLSize
    metal_uint width, height, depth;
} metal_size;

#define METAL_CLASS(variable, name, done, alive, ...) \
    const metal_class variable = {name, (const metal_method[]){__VA_ARGS__, {0}}, done, alive}

// false: it is nil, or of another class, or was released for the last time, which was found.
bool metal_is_a(const metal_object *object, const metal_class *isa, const char *where);

typedef struct metal_buffer {
    unsigned char *memory;
    size_t bytes;
} metal_buffer;
extern const metal_class metal_class_buffer; // metal.c

typedef struct metal_values { // of function constants
    uint64_t value[SIM_CONSTANTS_MAX];
} metal_values;

typedef struct metal_pipeline { // or a function
    metal_object *made_of;      // a library
    const sim_kernel *kernel;
    bool ready; // nothing of it lacks a value
    metal_values values;
} metal_pipeline;
extern const metal_class metal_class_pipeline; // library.c
extern const metal_class metal_constants_factory, metal_class_constants;
metal_object *metal_library_make(metal_object *text, metal_object *options, int family,
                                 metal_object **error);
metal_object *metal_pipeline_make(metal_object *function, metal_object **error);
metal_uint metal_threads_max(const sim_kernel *kernel), metal_shared_max(void);
// The constants of its program get the values that its function was made with.
void metal_pipeline_prepare(const metal_pipeline *pipeline);

typedef struct metal_place { // what is bound at an index
    metal_object *buffer;
    size_t offset;
    unsigned char *bytes; // instead of a buffer
    size_t byte_count;
} metal_place;

typedef struct metal_dispatch {
    struct metal_dispatch *next;
    metal_object *pipeline;
    unsigned groups[3], threads[3];
    metal_place places[METAL_BUFFERS];
} metal_dispatch;

typedef struct metal_command {
    metal_object *queue, *next, *error;
    metal_object *encoder; // that has not ended; not kept
    bool keeps;            // what its encoders are given
    metal_dispatch *first, **end;
    int status;
    double start_s, end_s;
} metal_command;

// MTLCommandBufferStatus.
enum { METAL_NOT_ENQUEUED = 0, METAL_COMMITTED = 2, METAL_COMPLETED = 4, METAL_FAILED = 5 };

metal_object *metal_queue_make(void); // command.c
bool metal_rule_encoding_ended(const metal_command *c, const char *where);

metal_object *metal_encoder_make(metal_object *command, bool concurrent); // encoder.c
void metal_places_drop(const metal_command *c, metal_place *places);

#endif
