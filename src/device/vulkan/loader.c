// The loader, opened at run time; one instance for the process; the GPUs that can run Bantam. The
// instance is never destroyed: contexts come and go, in several threads, and a driver takes long to
// load.
#include "device/vulkan/vulkan_internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bt_vk_functions bt_vk;

enum { GPUS_MAX = 16 };

static struct {
    pthread_mutex_t lock;
    pid_t process; // that opened it: what a child inherits has no threads, and it opens its own
    bt_vk_gpu gpus[GPUS_MAX];
    int count;
    char reason[BT_VK_REASON_BYTES]; // why there are none
} loader = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct {
    bool on;
    atomic_int count;
    char first[1024];
} validation;

int bt_vulkan_validation_messages(const char **first) {
    *first = validation.first;
    return validation.on ? atomic_load(&validation.count) : -1;
}

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT type,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user) {
    (void)severity, (void)type, (void)user;
    if (atomic_fetch_add(&validation.count, 1) == 0)
        snprintf(validation.first, sizeof validation.first, "%s", data->pMessage);
    return VK_FALSE;
}

static const VkDebugUtilsMessengerCreateInfoEXT messenger = {
    .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
    .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
    .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
    .pfnUserCallback = on_message,
};

static bool has_extension(const VkExtensionProperties *list, uint32_t count, const char *name) {
    for (uint32_t i = 0; i < count; i++)
        if (!strcmp(list[i].extensionName, name)) return true;
    return false;
}

static bool instance_has(const char *name) {
    uint32_t count = 0;
    if (bt_vk.EnumerateInstanceExtensionProperties(NULL, &count, NULL) != VK_SUCCESS) return false;
    VkExtensionProperties *list = calloc(count + 1, sizeof *list);
    bool found = list &&
                 bt_vk.EnumerateInstanceExtensionProperties(NULL, &count, list) >= VK_SUCCESS &&
                 has_extension(list, count, name);
    free(list);
    return found;
}

static VkResult create_instance(bool validate, VkInstance *out) {
    const char *layer = "VK_LAYER_KHRONOS_validation", *extensions[2];
    uint32_t count = 0;
    bool portable = instance_has("VK_KHR_portability_enumeration"); // MoltenVK hides otherwise
    if (portable) extensions[count++] = "VK_KHR_portability_enumeration";
    if (validate) extensions[count++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validate ? &messenger : NULL,
        .flags = portable ? VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR : 0,
        .pApplicationInfo = &(VkApplicationInfo){.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                                 .pApplicationName = "bantam",
                                                 .apiVersion = VK_API_VERSION_1_2},
        .enabledLayerCount = validate,
        .ppEnabledLayerNames = &layer,
        .enabledExtensionCount = count,
        .ppEnabledExtensionNames = extensions,
    };
    return bt_vk.CreateInstance(&info, NULL, out);
}

static void start_validation(PFN_vkGetInstanceProcAddr get, VkInstance instance) {
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)get(instance, "vkCreateDebugUtilsMessengerEXT");
    VkDebugUtilsMessengerEXT handle;
    validation.on = create && create(instance, &messenger, NULL, &handle) == VK_SUCCESS;
}

// Opens the loader, makes the instance and fills bt_vk; NULL: loader.reason says why not.
static VkInstance open_instance(void) {
    static const char *const names[] = {"libvulkan.so.1", "libvulkan.1.dylib", "libMoltenVK.dylib"};
    const char *wish = getenv("BANTAM_VULKAN_VALIDATION");
    VkInstance instance = VK_NULL_HANDLE;
    void *library = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !library; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    PFN_vkGetInstanceProcAddr get =
        library ? (PFN_vkGetInstanceProcAddr)dlsym(library, "vkGetInstanceProcAddr") : NULL;
    if (!get) {
        snprintf(
            loader.reason, sizeof loader.reason,
            "there is no Vulkan loader (libvulkan.so.1); install it (Debian: libvulkan1) and a "
            "driver of the GPU (Debian: mesa-vulkan-drivers or nvidia-vulkan-icd)");
        return VK_NULL_HANDLE;
    }
#define X(name) bt_vk.name = (PFN_vk##name)get(instance, "vk" #name);
    BT_VK_GLOBAL(X)
    uint32_t version = VK_API_VERSION_1_0;
    if (bt_vk.EnumerateInstanceVersion) bt_vk.EnumerateInstanceVersion(&version);
    bool validate = version >= VK_API_VERSION_1_2 && wish && !strcmp(wish, "1");
    VkResult result = version < VK_API_VERSION_1_2 ? VK_ERROR_INCOMPATIBLE_DRIVER
                                                   : create_instance(validate, &instance);
    if (validate && result != VK_SUCCESS) {
        validate = false;
        result = create_instance(false, &instance);
    }
    if (result != VK_SUCCESS) {
        snprintf(loader.reason, sizeof loader.reason,
                 "the Vulkan loader finds no driver (VkResult %d); install the GPU's (Debian: "
                 "mesa-vulkan-drivers or nvidia-vulkan-icd), or name its .json in VK_DRIVER_FILES",
                 (int)result);
        return VK_NULL_HANDLE;
    }
    BT_VK_INSTANCE(X)
#undef X
    if (validate) start_validation(get, instance);
    return instance;
}

// What the GPU lacks; NULL: nothing.
static const char *lacks(const bt_vk_gpu *gpu) {
    VkPhysicalDeviceVulkan12Features has = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceFeatures2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                     .pNext = &has};
    if (gpu->properties.apiVersion < VK_API_VERSION_1_2) return "Vulkan 1.2";
    bt_vk.GetPhysicalDeviceFeatures2(gpu->handle, &all);
    const VkPhysicalDeviceLimits *limits = &gpu->properties.limits;
    if (!has.bufferDeviceAddress) return "bufferDeviceAddress";
    if (!has.timelineSemaphore) return "timelineSemaphore";
    if (!has.hostQueryReset) return "hostQueryReset";
    if (!gpu->timestamp_mask) return "a compute queue with timestamps";
    if (limits->maxComputeWorkGroupInvocations < BT_GROUP_THREADS_MAX ||
        limits->maxComputeWorkGroupSize[0] < BT_GROUP_THREADS_MAX)
        return "work groups of 256";
    return NULL;
}

static void find_queue(bt_vk_gpu *gpu) {
    VkQueueFamilyProperties family[16];
    uint32_t count = 16;
    bt_vk.GetPhysicalDeviceQueueFamilyProperties(gpu->handle, &count, family);
    for (uint32_t i = 0; i < count && !gpu->timestamp_mask; i++) {
        uint32_t bits = family[i].timestampValidBits;
        if (!(family[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || bits == 0) continue;
        gpu->family = i;
        gpu->timestamp_mask = bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX;
    }
}

static void describe(VkPhysicalDevice handle, bt_vk_gpu *gpu) {
    *gpu = (bt_vk_gpu){.handle = handle};
    gpu->driver.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES;
    VkPhysicalDeviceVulkan11Properties v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, .pNext = &gpu->driver};
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    bt_vk.GetPhysicalDeviceProperties2(handle, &all);
    if (all.properties.apiVersion >= VK_API_VERSION_1_2) {
        all.pNext = &v11;
        bt_vk.GetPhysicalDeviceProperties2(handle, &all);
    }
    gpu->properties = all.properties;
    gpu->max_allocation = v11.maxMemoryAllocationSize;
    find_queue(gpu);
    VkExtensionProperties *list = NULL;
    uint32_t count = 0;
    bt_vk.EnumerateDeviceExtensionProperties(handle, NULL, &count, NULL);
    if (count > 0 && (list = calloc(count, sizeof *list)) &&
        bt_vk.EnumerateDeviceExtensionProperties(handle, NULL, &count, list) >= VK_SUCCESS)
        gpu->subset = has_extension(list, count, "VK_KHR_portability_subset");
    free(list);
}

static int rank(const bt_vk_gpu *gpu) {
    switch (gpu->properties.deviceType) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU: return 0;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU: return 1;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU: return 2;
    case VK_PHYSICAL_DEVICE_TYPE_CPU: return 4;
    default: return 3;
    }
}

static void find_gpus(VkInstance instance) {
    VkPhysicalDevice handles[GPUS_MAX];
    uint32_t count = GPUS_MAX;
    if (bt_vk.EnumeratePhysicalDevices(instance, &count, handles) < VK_SUCCESS) count = 0;
    snprintf(loader.reason, sizeof loader.reason,
             "the Vulkan drivers that are installed find no GPU; install the GPU's (Debian: "
             "mesa-vulkan-drivers or nvidia-vulkan-icd), or name its .json in VK_DRIVER_FILES");
    for (uint32_t i = 0; i < count; i++) {
        bt_vk_gpu gpu;
        describe(handles[i], &gpu);
        const char *missing = lacks(&gpu);
        if (missing) {
            snprintf(loader.reason, sizeof loader.reason,
                     "%.60s (Vulkan %u.%u) lacks %s, which Bantam needs; try a newer driver",
                     gpu.properties.deviceName, VK_API_VERSION_MAJOR(gpu.properties.apiVersion),
                     VK_API_VERSION_MINOR(gpu.properties.apiVersion), missing);
            continue;
        }
        int at = loader.count++;
        for (; at > 0 && rank(&loader.gpus[at - 1]) > rank(&gpu); at--)
            loader.gpus[at] = loader.gpus[at - 1];
        loader.gpus[at] = gpu;
    }
}

bool bt_vk_gpu_at(int index, bt_vk_gpu *out, char reason[BT_VK_REASON_BYTES]) {
    pthread_mutex_lock(&loader.lock);
    if (loader.process != getpid()) {
        loader.process = getpid();
        loader.count = 0;
        VkInstance instance = open_instance();
        if (instance) find_gpus(instance);
    }
    int count = loader.count;
    bool found = index >= 0 && index < count;
    if (found)
        *out = loader.gpus[index];
    else if (count == 0)
        snprintf(reason, BT_VK_REASON_BYTES, "%s", loader.reason);
    else
        snprintf(reason, BT_VK_REASON_BYTES, "the last Vulkan device is vulkan:%d", count - 1);
    pthread_mutex_unlock(&loader.lock);
    return found;
}
