// See metal.h.
#include "metal_messages.h"
#include "support.h"

#include <dlfcn.h>

metal_sim_findings_fn findings;
metal_sim_reset_fn reset;
metal_sim_state_fn state_now;
metal_sim_wish_fn wish_for;
void *metal_library;

id (*create_device)(void);
SEL (*selector)(const char *);
id (*class_named)(const char *);
void *(*pool_push)(void);
void (*pool_pop)(void *);
void *message;

void metal_find(const char *name, void *function) {
    *(void **)function = dlsym(metal_library, name);
    if (!*(void **)function) fprintf(stderr, "ERROR: the simulated Metal has no %s\n", name);
    if (!*(void **)function) exit(1);
}

int metal_start(void **state) {
    (void)state;
    char path[1024];
    const char *build = getenv("BUILD");
    snprintf(path, sizeof path, "%s/tests/metal_sim.so", build ? build : "build");
    setenv("BANTAM_METAL", path, 1);
    metal_library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!metal_library) fprintf(stderr, "ERROR: %s\n", dlerror());
    if (!metal_library) return 1;
    metal_find("metal_sim_findings", &findings);
    metal_find("metal_sim_reset", &reset);
    metal_find("metal_sim_state_now", &state_now);
    metal_find("metal_sim_wish_for", &wish_for);
    return 0;
}

int metal_nothing_left(void) {
    const metal_sim_state *s = state_now();
    int left = s->buffers + s->queues + s->commands + s->encoders + s->libraries + s->functions +
               s->pipelines + s->strings + s->errors + s->options + s->constants + s->devices +
               s->arrays + s->pools;
    if (findings()[0]) fprintf(stderr, "ERROR: found: %s", findings());
    if (left)
        fprintf(stderr,
                "ERROR: left: %d buffers, %d queues, %d command buffers, %d encoders, %d "
                "libraries, %d functions, %d pipelines, %d strings, %d errors, %d options, %d "
                "constant values, %d devices, %d arrays, %d pools\n",
                s->buffers, s->queues, s->commands, s->encoders, s->libraries, s->functions,
                s->pipelines, s->strings, s->errors, s->options, s->constants, s->devices,
                s->arrays, s->pools);
    return left || findings()[0];
}

int metal_start_messages(void **state) {
    if (metal_start(state)) return 1;
    metal_find("MTLCreateSystemDefaultDevice", &create_device);
    metal_find("sel_registerName", &selector);
    metal_find("objc_getClass", &class_named);
    metal_find("objc_autoreleasePoolPush", &pool_push);
    metal_find("objc_autoreleasePoolPop", &pool_pop);
    metal_find("objc_msgSend", &message);
    return 0;
}

void found(const char *part) {
    const char *all = findings(), *end = strchr(all, '\n');
    check(strstr(all, part) && end && !end[1], "not \"%s\" was found, but \"%s\"", part, all);
    reset();
}

void nothing_found(void) {
    check(!findings()[0], "found: %s", findings());
}
