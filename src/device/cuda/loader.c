// The driver, opened at run time, and the GPUs it finds. It is never closed: contexts come and go,
// in several threads.
#include "device/cuda/cuda_internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bt_cuda_functions bt_cu;

enum {
    CHIPS_MAX = 16,
    DRIVER_MIN = 12030,  // edges of graphs that let a kernel start early
    CAPABILITY_MIN = 70, // what the portable kernels are compiled for
};

static struct {
    pthread_mutex_t lock;
    pid_t process; // that opened it: a child that was forked cannot use what it inherits
    bt_cuda_chip chips[CHIPS_MAX];
    int count;
    char reason[BT_CUDA_REASON_BYTES]; // why there are none
} loader = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define because(...) (snprintf(loader.reason, sizeof loader.reason, __VA_ARGS__), false)

// Fills bt_cu. BANTAM_LIBCUDA names another driver than the installed one: that of the tests.
static bool open_library(void) {
    const char *wish = getenv("BANTAM_LIBCUDA");
    void *library = dlopen(wish && *wish ? wish : "libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return because("there is no NVIDIA driver (libcuda.so.1); install it (Debian: "
                       "nvidia-driver)");
    const char *missing = NULL;
#define X(name, symbol, parameters)                  \
    *(void **)&bt_cu.name = dlsym(library, #symbol); \
    if (!bt_cu.name && !missing) missing = #symbol;
    BT_CUDA_FUNCTIONS(X)
#undef X
    int version = 0;
    if (bt_cu.cuDriverGetVersion) bt_cu.cuDriverGetVersion(&version);
    if (version < DRIVER_MIN)
        return because(
            "the NVIDIA driver is too old: it is for CUDA %d.%d, and Bantam needs one for "
            "CUDA 12.3 (545 or newer)",
            version / 1000, version % 1000 / 10);
    if (missing) return because("the NVIDIA driver has no %s; reinstall it", missing);
    return true;
}

static int attribute(CUdevice device, int which) {
    int value = 0;
    return bt_cu.cuDeviceGetAttribute(&value, which, device) == CUDA_SUCCESS ? value : 0;
}

static bool describe(int index, bt_cuda_chip *chip) {
    *chip = (bt_cuda_chip){0};
    if (bt_cu.cuDeviceGet(&chip->handle, index) != CUDA_SUCCESS ||
        bt_cu.cuDeviceGetName(chip->name, sizeof chip->name, chip->handle) != CUDA_SUCCESS ||
        bt_cu.cuDeviceTotalMem(&chip->memory_bytes, chip->handle) != CUDA_SUCCESS)
        return false;
    bt_cu.cuDriverGetVersion(&chip->driver);
    chip->capability = 10 * attribute(chip->handle, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
                       attribute(chip->handle, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    chip->sms = attribute(chip->handle, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    chip->shared_max =
        (size_t)attribute(chip->handle, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    return true;
}

static bool find_chips(void) {
    int count = 0;
    CUresult result = bt_cu.cuInit(0);
    if (result == CUDA_SUCCESS) result = bt_cu.cuDeviceGetCount(&count);
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_NO_DEVICE) {
        const char *text = "no explanation";
        bt_cu.cuGetErrorString(result, &text);
        return because("the NVIDIA driver does not start (%d: %.80s); is its kernel module loaded "
                       "(nvidia-smi)?",
                       result, text);
    }
    if (count == 0)
        return because("the NVIDIA driver finds no GPU; nvidia-smi and CUDA_VISIBLE_DEVICES say "
                       "which it may use");
    for (int i = 0; i < count && loader.count < CHIPS_MAX; i++) {
        bt_cuda_chip *chip = &loader.chips[loader.count];
        if (!describe(i, chip))
            (void)because("the NVIDIA driver does not describe GPU %d; nvidia-smi may", i);
        else if (chip->capability < CAPABILITY_MIN)
            (void)because("%.60s has compute capability %d.%d, and Bantam needs %d.%d", chip->name,
                          chip->capability / 10, chip->capability % 10, CAPABILITY_MIN / 10,
                          CAPABILITY_MIN % 10);
        else
            loader.count++;
    }
    return loader.count > 0;
}

bool bt_cuda_chip_at(int index, bt_cuda_chip *out, char reason[BT_CUDA_REASON_BYTES]) {
    pthread_mutex_lock(&loader.lock);
    if (loader.process != getpid()) {
        bool forked = loader.process && loader.count > 0;
        loader.process = getpid();
        loader.count = 0;
        if (forked)
            (void)because("this process was forked from one that used CUDA, which CUDA does not "
                          "survive; use it in one of them, or start a new program");
        else if (open_library())
            (void)find_chips();
    }
    int count = loader.count;
    bool found = index >= 0 && index < count;
    if (found)
        *out = loader.chips[index];
    else if (count == 0)
        snprintf(reason, BT_CUDA_REASON_BYTES, "%s", loader.reason);
    else
        snprintf(reason, BT_CUDA_REASON_BYTES, "the last NVIDIA GPU is cuda:%d", count - 1);
    pthread_mutex_unlock(&loader.lock);
    return found;
}
