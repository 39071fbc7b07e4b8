// Metal and the Objective-C runtime, opened at run time: a message is a call of objc_msgSend with
// the types of the method, a class and a selector are what the runtime gives for a name. They are
// never closed: contexts come and go, in several threads.
#include "device/metal/metal_internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bt_metal_functions bt_metal;

static struct {
    pthread_mutex_t lock;
    bool open, simulated;
} loader = {.lock = PTHREAD_MUTEX_INITIALIZER};

// Where they live; without a Mac, nowhere.
#ifdef __APPLE__
static const char *const metal_path = "/System/Library/Frameworks/Metal.framework/Metal";
static const char *const runtime_path = "/usr/lib/libobjc.A.dylib";
static const char *const graphics_path =
    "/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics";
#else
static const char *const metal_path = NULL, *const runtime_path = NULL, *const graphics_path = NULL;
#endif

#define because(...) (snprintf(reason, BT_METAL_REASON_BYTES, __VA_ARGS__), false)

// Looks every name up; the address of a function as an object is what dlsym gives.
static bool fill(void *metal, void *runtime, const char *named, char *reason) {
    bt_metal_functions f = {0};
    bt_mtl_selector (*selector_of)(const char *) = NULL;
    const struct {
        void *from, *to;
        const char *name;
    } symbols[] = {
        {metal, &f.default_device, "MTLCreateSystemDefaultDevice"},
        {metal, &f.all_devices, "MTLCopyAllDevices"},
        {runtime, &f.send, "objc_msgSend"},
        {runtime, &selector_of, "sel_registerName"},
        {runtime, &f.class_of, "objc_getClass"},
        {runtime, &f.pool_push, "objc_autoreleasePoolPush"},
        {runtime, &f.pool_pop, "objc_autoreleasePoolPop"},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(symbols[i].from, symbols[i].name);
        if (!address && named)
            return because("%.90s, which BANTAM_METAL names, plays no Metal: it has no %s", named,
                           symbols[i].name);
        if (!address)
            return because("the Metal that is installed has no %s; Bantam needs macOS 13 or newer",
                           symbols[i].name);
        memcpy(symbols[i].to, &address, sizeof address);
    }
#define X(name, selector) f.name = selector_of(selector);
    BT_METAL_SELECTORS(X)
#undef X
    bt_metal = f;
    return true;
}

// Fills bt_metal. BANTAM_METAL names one library that has both: that of the tests.
static bool open_libraries(char *reason, bool *possible) {
    const char *wish = getenv("BANTAM_METAL");
    bool simulated = wish && *wish;
    const char *paths[2] = {simulated ? wish : metal_path, simulated ? wish : runtime_path};
    *possible = paths[0];
    if (!*possible)
        return because("Metal is part of macOS, and this is another system; `bantam devices` lists "
                       "what is here");
    void *library[2];
    for (int i = 0; i < 2; i++) {
        library[i] = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
        if (library[i]) continue;
        const char *why = dlerror();
        return because("%s: %.110s",
                       simulated ? "BANTAM_METAL names no library (`make "
                                   "build/tests/metal_sim.so` makes one)"
                                 : "Metal, a part of macOS, cannot be opened",
                       why ? why : "no reason is known");
    }
    if (!fill(library[0], library[1], simulated ? wish : NULL, reason)) return false;
    loader.simulated = simulated;
    // Apple asks programs without windows to have it, or there may be no default device.
    if (!simulated) (void)dlopen(graphics_path, RTLD_NOW | RTLD_LOCAL);
    return true;
}

// macOS has a default device for programs that somebody sees; over ssh or in a service there may be
// none, and yet a list of devices.
static bt_mtl find_gpu(void) {
    bt_mtl gpu = bt_metal.default_device();
    if (gpu) return gpu;
    bt_mtl all = bt_metal.all_devices(), first = bt_mtl_object(all, bt_metal.first);
    gpu = bt_mtl_object(first, bt_metal.retain);
    bt_mtl_release(all);
    return gpu;
}

bt_mtl bt_metal_gpu(char reason[BT_METAL_REASON_BYTES], bool *possible) {
    pthread_mutex_lock(&loader.lock);
    *possible = true;
    if (!loader.open) loader.open = open_libraries(reason, possible);
    bool open = loader.open;
    pthread_mutex_unlock(&loader.lock);
    if (!open) return NULL;
    void *pool = bt_metal.pool_push();
    bt_mtl gpu = find_gpu();
    bt_metal.pool_pop(pool);
    if (!gpu)
        (void)because("Metal finds no GPU: this Mac, or the virtual machine on it, offers none");
    return gpu;
}

bool bt_metal_simulated(void) {
    pthread_mutex_lock(&loader.lock);
    bool simulated = loader.simulated;
    pthread_mutex_unlock(&loader.lock);
    return simulated;
}

bt_mtl bt_mtl_string(const char *text) {
    return BT_METAL(bt_mtl, const char *)(bt_metal.class_of("NSString"), bt_metal.string, text);
}

const char *bt_mtl_text(bt_mtl string) {
    const char *text = string ? BT_METAL(const char *)(string, bt_metal.utf8) : NULL;
    return text ? text : "";
}
