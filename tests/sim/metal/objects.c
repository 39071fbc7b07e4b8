// As much of Objective-C's runtime as C needs: classes, messages, retain counts, autorelease pools;
// and the log of what was done that is not allowed.
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLAB = 4096, SLABS_MAX = 1 << 14, SELECTORS_MAX = 256, POOLS_MAX = 64, LOG = 1 << 16 };

metal_sim_state metal_state;
metal_sim_wish metal_wish;

// ---- One lock ---------------------------------------------------------------------------------

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

int metal_lock(void) {
    return pthread_mutex_lock(&lock);
}

void metal_unlock(int *unused) {
    (void)unused;
    pthread_mutex_unlock(&lock);
}

// ---- What was found ---------------------------------------------------------------------------

static char findings[LOG];

void metal_finding(const char *format, ...) {
    METAL_LOCKED;
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (length > (int)sizeof line - 2) length = (int)sizeof line - 2;
    memcpy(line + length, "\n", 2);
    size_t used = strlen(findings);
    if (strstr(findings, line) || used + strlen(line) >= sizeof findings) return;
    memcpy(findings + used, line, strlen(line) + 1);
}

METAL_EXPORT const char *metal_sim_findings(void);
METAL_EXPORT void metal_sim_reset(void);
METAL_EXPORT void metal_sim_wish_for(const metal_sim_wish *wish);
METAL_EXPORT const metal_sim_state *metal_sim_state_now(void);

const char *metal_sim_findings(void) {
    return findings;
}

void metal_sim_reset(void) {
    METAL_LOCKED;
    findings[0] = '\0';
    metal_wish = (metal_sim_wish){0};
}

void metal_sim_wish_for(const metal_sim_wish *wish) {
    METAL_LOCKED;
    metal_wish = *wish;
}

const metal_sim_state *metal_sim_state_now(void) {
    return &metal_state;
}

static void copy_setting(char *to, size_t bytes, const char *name) {
    const char *value = getenv(name);
    if (value) snprintf(to, bytes, "%s", value);
}

static size_t number_setting(const char *name) {
    const char *value = getenv(name);
    return value ? (size_t)strtoull(value, NULL, 0) : 0;
}

// Wishes of the environment, for processes that call none of the above.
__attribute__((constructor)) static void read_environment(void) {
    metal_wish.no_device = number_setting("METAL_SIM_NO_DEVICE");
    metal_wish.no_function = number_setting("METAL_SIM_NO_FUNCTION");
    metal_wish.not_unified = number_setting("METAL_SIM_NOT_UNIFIED");
    metal_wish.memory_max = number_setting("METAL_SIM_MEMORY");
    metal_wish.command_code = (long)number_setting("METAL_SIM_COMMAND_CODE");
    metal_wish.command_after = (int)number_setting("METAL_SIM_COMMAND_AFTER");
    metal_wish.family = (int)number_setting("METAL_SIM_FAMILY");
    copy_setting(metal_wish.compile_error, sizeof metal_wish.compile_error,
                 "METAL_SIM_COMPILE_ERROR");
    copy_setting(metal_wish.pipeline_error, sizeof metal_wish.pipeline_error,
                 "METAL_SIM_PIPELINE_ERROR");
    copy_setting(metal_wish.command_error, sizeof metal_wish.command_error,
                 "METAL_SIM_COMMAND_ERROR");
}

// A process that leaves something in the log fails by it. (The library is never unloaded, so this
// is the end of the process.)
__attribute__((destructor)) static void report(void) {
    if (!findings[0]) return;
    fflush(NULL);
    fprintf(stderr, "metal_sim: Metal was used in ways that it does not allow:\n%s", findings);
    _exit(86);
}

// ---- Objects ----------------------------------------------------------------------------------

static metal_object *slabs[SLABS_MAX];
static size_t object_count;

static bool is_object(const metal_object *o) {
    for (size_t i = 0; i * SLAB < object_count; i++) {
        size_t at = (size_t)((const char *)o - (const char *)slabs[i]);
        if ((const char *)o >= (const char *)slabs[i] && at < SLAB * sizeof *o)
            return at % sizeof *o == 0;
    }
    return false;
}

metal_object *metal_new(const metal_class *isa, size_t data_bytes) {
    METAL_LOCKED;
    metal_object **slab = &slabs[object_count / SLAB];
    if (object_count % SLAB == 0)
        *slab = object_count / SLAB < SLABS_MAX ? calloc(SLAB, sizeof **slab) : NULL;
    void *data = data_bytes ? calloc(1, data_bytes) : NULL;
    if (!*slab || (data_bytes && !data)) {
        fprintf(stderr, "metal_sim: no memory for an object of %s\n", isa->name);
        abort();
    }
    metal_object *o = &(*slab)[object_count++ % SLAB];
    *o = (metal_object){isa, 1, data};
    if (isa->alive) ++*isa->alive;
    return o;
}

metal_object *metal_keep(metal_object *object) {
    METAL_LOCKED;
    if (object) object->refs++;
    return object;
}

void metal_drop(metal_object *object) {
    METAL_LOCKED;
    if (!object || --object->refs > 0) return;
    if (object->isa->done) object->isa->done(object->data);
    free(object->data);
    object->data = NULL;
    if (object->isa->alive) --*object->isa->alive;
}

// ---- Autorelease pools ------------------------------------------------------------------------

typedef struct pooled {
    struct pooled *next;
    metal_object *object;
} pooled;

typedef struct pool {
    pooled *first;
} pool;

static _Thread_local pool pools[POOLS_MAX];
static _Thread_local int depth;

// Objective-C runtime, "objc_autorelease" and Advanced Memory Management Programming Guide, "Using
// Autorelease Pool Blocks": an object that is autoreleased outside of any pool is never released.
static void rule_pool_there(const metal_object *object) {
    if (depth == 0)
        metal_finding("An object of %s is autoreleased where no pool is in place, and leaks: push "
                      "a pool first.",
                      object->isa->name);
}

metal_object *metal_autorelease(metal_object *object) {
    METAL_LOCKED;
    rule_pool_there(object);
    if (depth == 0) return object;
    pooled *p = malloc(sizeof *p);
    if (!p) abort();
    *p = (pooled){pools[depth - 1].first, object};
    pools[depth - 1].first = p;
    return object;
}

METAL_EXPORT void *objc_autoreleasePoolPush(void);
METAL_EXPORT void objc_autoreleasePoolPop(void *token);

void *objc_autoreleasePoolPush(void) {
    METAL_LOCKED;
    if (depth == POOLS_MAX) {
        metal_finding("%d autorelease pools are pushed inside each other: pop them.", depth);
        return NULL;
    }
    metal_state.pools++;
    return &pools[depth++];
}

// Clang, "Automatic Reference Counting", objc_autoreleasePoolPop: takes what a push of this thread
// gave; pools that were pushed since end with it.
static bool rule_pool_pushed(const void *token) {
    for (int i = 0; i < depth; i++)
        if (token == &pools[i]) return true;
    metal_finding("objc_autoreleasePoolPop: gets a pool that is not in place on this thread.");
    return false;
}

void objc_autoreleasePoolPop(void *token) {
    METAL_LOCKED;
    if (!rule_pool_pushed(token)) return;
    do {
        pool *top = &pools[depth - 1];
        while (top->first) {
            pooled *p = top->first;
            top->first = p->next;
            metal_drop(p->object);
            free(p);
        }
        depth--;
        metal_state.pools--;
    } while (token != &pools[depth]);
}

// ---- Messages ---------------------------------------------------------------------------------

static char *selectors[SELECTORS_MAX];
static int selector_count;

METAL_EXPORT metal_sel sel_registerName(const char *text);
METAL_EXPORT void *objc_getClass(const char *name);

metal_sel sel_registerName(const char *text) {
    METAL_LOCKED;
    for (int i = 0; i < selector_count; i++)
        if (!strcmp(selectors[i], text)) return selectors[i];
    if (selector_count == SELECTORS_MAX) abort();
    return selectors[selector_count++] = strdup(text);
}

void *objc_getClass(const char *name) {
    METAL_LOCKED;
    static const metal_class *const known[] = {&metal_string_factory, &metal_options_factory,
                                               &metal_constants_factory};
    enum { KNOWN = sizeof known / sizeof *known };
    static metal_object *made[KNOWN];
    for (int i = 0; i < KNOWN; i++) {
        if (strcmp(name, known[i]->name) != 0) continue;
        if (!made[i]) made[i] = metal_new(known[i], 0);
        return made[i];
    }
    metal_finding("objc_getClass: there is no class %s here.", name);
    return NULL;
}

// Objective-C runtime, sel_registerName: gives the selector of a name; nothing else does.
static bool rule_selector_registered(metal_sel selector) {
    for (int i = 0; i < selector_count; i++)
        if (selectors[i] == selector) return true;
    metal_finding("objc_msgSend: gets a selector that sel_registerName did not give.");
    return false;
}

// NSObject, release(): the object is deallocated when its reference count reaches 0, and messages
// to it are errors from then on.
static bool rule_alive(const metal_object *object, metal_sel selector) {
    if (!is_object(object)) {
        metal_finding("objc_msgSend: [%p %s]: this is no object.", (const void *)object, selector);
        return false;
    }
    if (object->refs > 0) return true;
    metal_finding("-[%s %s]: the object was released for the last time before.", object->isa->name,
                  selector);
    return false;
}

static metal_object *send_retain(metal_object *self, metal_sel selector) {
    (void)selector;
    return metal_keep(self);
}

static void send_release(metal_object *self, metal_sel selector) {
    (void)selector;
    metal_drop(self);
}

// NSObject, doesNotRecognizeSelector(_:): what an object gets that has no method of this name.
static metal_imp rule_selector_known(const metal_object *object, metal_sel selector) {
    for (const metal_method *m = object->isa->methods; m->selector; m++)
        if (!strcmp(m->selector, selector)) return m->imp;
    if (!strcmp(selector, "retain")) return (metal_imp)send_retain;
    if (!strcmp(selector, "release")) return (metal_imp)send_release;
    metal_finding("-[%s %s]: unrecognized selector.", object->isa->name, selector);
    return NULL;
}

// (A local symbol would do, but GNU's linker for ARM takes the start of the section for it.)
void metal_nil(void) __asm__("metal_nil") __attribute__((visibility("hidden")));
metal_imp metal_method_of(const metal_object *object, metal_sel selector) __asm__("metal_method_of")
    __attribute__((used));

// The function that objc_msgSend goes on to. A message to nil, and one that breaks a rule, gives 0.
metal_imp metal_method_of(const metal_object *object, metal_sel selector) {
    METAL_LOCKED;
    if (!object || !rule_selector_registered(selector) || !rule_alive(object, selector))
        return metal_nil;
    metal_imp imp = rule_selector_known(object, selector);
    return imp ? imp : metal_nil;
}

// All arguments stay where they are, in registers and on the stack, so that any signature will do.
// (No method here takes a floating-point number.)
#ifdef __APPLE__
#error "a Mac has a Metal of its own"
#elif defined(__x86_64__)
__asm__(".text\n"
        ".globl objc_msgSend\n"
        ".type objc_msgSend, @function\n"
        "objc_msgSend:\n"
        "    pushq %rbp\n    movq %rsp, %rbp\n    subq $48, %rsp\n"
        "    movq %rdi, (%rsp)\n     movq %rsi, 8(%rsp)\n   movq %rdx, 16(%rsp)\n"
        "    movq %rcx, 24(%rsp)\n   movq %r8, 32(%rsp)\n   movq %r9, 40(%rsp)\n"
        "    call metal_method_of\n"
        "    movq %rax, %r11\n"
        "    movq (%rsp), %rdi\n     movq 8(%rsp), %rsi\n   movq 16(%rsp), %rdx\n"
        "    movq 24(%rsp), %rcx\n   movq 32(%rsp), %r8\n   movq 40(%rsp), %r9\n"
        "    leave\n    jmp *%r11\n"
        ".size objc_msgSend, .-objc_msgSend\n"
        ".globl metal_nil\n"
        ".hidden metal_nil\n"
        "metal_nil:\n"
        "    xorl %eax, %eax\n    xorl %edx, %edx\n    pxor %xmm0, %xmm0\n    ret\n");
#elif defined(__aarch64__)
__asm__(".text\n"
        ".globl objc_msgSend\n"
        ".type objc_msgSend, @function\n"
        "objc_msgSend:\n"
        "    stp x29, x30, [sp, #-96]!\n    mov x29, sp\n"
        "    stp x0, x1, [sp, #16]\n    stp x2, x3, [sp, #32]\n"
        "    stp x4, x5, [sp, #48]\n    stp x6, x7, [sp, #64]\n    str x8, [sp, #80]\n"
        "    bl metal_method_of\n"
        "    mov x16, x0\n"
        "    ldp x0, x1, [sp, #16]\n    ldp x2, x3, [sp, #32]\n"
        "    ldp x4, x5, [sp, #48]\n    ldp x6, x7, [sp, #64]\n    ldr x8, [sp, #80]\n"
        "    ldp x29, x30, [sp], #96\n    br x16\n"
        ".size objc_msgSend, .-objc_msgSend\n"
        ".globl metal_nil\n"
        ".hidden metal_nil\n"
        "metal_nil:\n"
        "    mov x0, #0\n    mov x1, #0\n    fmov d0, xzr\n    ret\n");
#else
#error "objc_msgSend is written for x86-64 and 64-bit ARM alone"
#endif
