// Messages to the simulated Metal, as the tests of it send them.
#ifndef BT_TESTS_METAL_MESSAGES_H
#define BT_TESTS_METAL_MESSAGES_H

#include "metal.h"

typedef void *id;
typedef const void *SEL;
typedef unsigned long ulong;
typedef struct size3 {
    ulong width, height, depth;
} size3;

extern id (*create_device)(void);
extern SEL (*selector)(const char *);
extern id (*class_named)(const char *);
extern void *(*pool_push)(void);
extern void (*pool_pop)(void *);
extern void *message; // objc_msgSend: cast to what the method is

// metal_start, and finds these: a group's setup.
int metal_start_messages(void **state);
// The rule must have been broken, in these words, and no other; forgets it.
void found(const char *part);
void nothing_found(void);

static inline id get(id self, const char *name) {
    return ((id(*)(id, SEL))message)(self, selector(name));
}
static inline void tell(id self, const char *name) {
    ((void (*)(id, SEL))message)(self, selector(name));
}
static inline ulong number(id self, const char *name) {
    return ((ulong(*)(id, SEL))message)(self, selector(name));
}
static inline double real(id self, const char *name) {
    return ((double (*)(id, SEL))message)(self, selector(name));
}
static inline const char *utf8(id string) {
    return ((const char *(*)(id, SEL))message)(string, selector("UTF8String"));
}
static inline id string(const char *text) {
    return ((id(*)(id, SEL, const char *))message)(class_named("NSString"),
                                                   selector("stringWithUTF8String:"), text);
}
static inline id buffer_of(id device, ulong bytes) {
    return ((id(*)(id, SEL, ulong, ulong))message)(device, selector("newBufferWithLength:options:"),
                                                   bytes, 0);
}
static inline id library_of(id device, const char *text, id *error) {
    return ((id(*)(id, SEL, id, id, id *))message)(
        device, selector("newLibraryWithSource:options:error:"), string(text), NULL, error);
}
static inline id function_of(id library, const char *name) {
    return ((id(*)(id, SEL, id))message)(library, selector("newFunctionWithName:"), string(name));
}
static inline id pipeline_of(id device, id function, id *error) {
    return ((id(*)(id, SEL, id, id *))message)(
        device, selector("newComputePipelineStateWithFunction:error:"), function, error);
}
static inline void set_pipeline(id encoder, id pipeline) {
    ((void (*)(id, SEL, id))message)(encoder, selector("setComputePipelineState:"), pipeline);
}
static inline void set_buffer(id encoder, id buffer, ulong offset, ulong index) {
    ((void (*)(id, SEL, id, ulong, ulong))message)(encoder, selector("setBuffer:offset:atIndex:"),
                                                   buffer, offset, index);
}
static inline void set_bytes(id encoder, const void *bytes, ulong length, ulong index) {
    ((void (*)(id, SEL, const void *, ulong, ulong))message)(
        encoder, selector("setBytes:length:atIndex:"), bytes, length, index);
}
static inline void set_constant(id values, const void *value, ulong type, ulong index) {
    ((void (*)(id, SEL, const void *, ulong, ulong))message)(
        values, selector("setConstantValue:type:atIndex:"), value, type, index);
}
static inline id specialized(id library, const char *name, id values, id *error) {
    return ((id(*)(id, SEL, id, id, id *))message)(
        library, selector("newFunctionWithName:constantValues:error:"), string(name), values,
        error);
}
static inline id encoder_of(id command, ulong dispatch_type) {
    return ((id(*)(id, SEL, ulong))message)(
        command, selector("computeCommandEncoderWithDispatchType:"), dispatch_type);
}
static inline void barrier(id encoder, ulong scope) {
    ((void (*)(id, SEL, ulong))message)(encoder, selector("memoryBarrierWithScope:"), scope);
}
static inline float *floats(id buffer) {
    return ((float *(*)(id, SEL))message)(buffer, selector("contents"));
}
static inline const char *said(id error) {
    return utf8(get(error, "localizedDescription"));
}
static inline void dispatch(id encoder, ulong groups, ulong threads) {
    ((void (*)(id, SEL, size3, size3))message)(
        encoder, selector("dispatchThreadgroups:threadsPerThreadgroup:"), (size3){groups, 1, 1},
        (size3){threads, 1, 1});
}

#endif
