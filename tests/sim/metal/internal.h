// The parts of the simulated Metal: objects.c (Objective-C's runtime), foundation.c, metal.c
// (classes and rules), compile.c (MSL to machine code), group.c (running it).
#ifndef BT_TESTS_METAL_INTERNAL_H
#define BT_TESTS_METAL_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "metal_sim.h"
#include "shim/metal_abi.h"

#define METAL_EXPORT __attribute__((visibility("default")))

enum { METAL_BUFFERS = 31, METAL_THREADS = 1024, METAL_SIMD = 32 };

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
    void (*done)(void *data);    // before data is freed; NULL: nothing
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

// ---- Kernels (compile.c, group.c) -------------------------------------------------------------

typedef struct metal_program {
    void *handle;
    char *shared; // threadgroup memory of all its kernels
    unsigned long long shared_bytes;
} metal_program;

// Compiles MSL. false: `error` says why not.
bool metal_compile(const char *text, metal_program *out, char *error, size_t error_bytes);
const sim_kernel *metal_kernel(const metal_program *program, const char *name); // NULL: none

// Runs a grid of groups. false: it did what is not allowed, which was found.
bool metal_run(const sim_kernel *kernel, const metal_program *program, const sim_binding *bindings,
               const unsigned groups[3], const unsigned threads[3]);
extern const sim_hooks metal_hooks;

#endif
