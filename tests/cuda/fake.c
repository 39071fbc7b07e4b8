// A CUDA driver that is none: the functions that Bantam calls, on the CPU. It runs the portable
// kernels in the simulator, so that whole programs can be tested where no GPU is. It is strict:
// work is done as late as the rules allow (when somebody waits), the nodes of a graph in the
// reverse of the order they were made in wherever its edges allow it, addresses are not the host's,
// and whatever is used after its end, twice, or in the wrong place is noted as misuse.
//
// FAKE_CUDA_DEVICES, FAKE_CUDA_VERSION, FAKE_CUDA_CAPABILITY and FAKE_CUDA_INIT in the environment
// are what it reports.
#include "fake.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The simulator, with another table: a driver does not know how long a binding is, and so cannot
// check that it is written whole. What is written is updated here.
#define bt_kernel_table fake_kernel_table
#include "device/sim/run.c"

#include "device/cuda/driver.h"
#include "device/kernels.h"
#include "device/portable.h"

#define EXPORT __attribute__((visibility("default")))

enum { INVALID_VALUE = 1, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500 };
enum { NODES_MAX = 1 << 16, QUEUE_MAX = 1 << 16, NAME_BYTES = 64 };
enum { POOL = 4096 }; // streams, modules: never used again, so that a use after its end is seen

static fake_state state;
static fake_wish wish;
static CUresult fault; // once set every call answers it
static uint64_t clock_us;
static _Thread_local CUcontext current;
static int primary;

EXPORT const fake_state *fake_cuda_state(void);
EXPORT void fake_cuda_wish(const fake_wish *w);

const fake_state *fake_cuda_state(void) {
    return &state;
}

void fake_cuda_wish(const fake_wish *w) {
    wish = *w;
    fault = CUDA_SUCCESS;
}

static CUresult misuse(CUresult result, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!state.misuse[0]) vsnprintf(state.misuse, sizeof state.misuse, format, args);
    va_end(args);
    return result;
}

// What every call but a few begins with.
#define ENTER()                                                                         \
    do {                                                                                \
        if (!current) return misuse(INVALID_CONTEXT, "%s without a context", __func__); \
        if (fault) return fault;                                                        \
    } while (0)

// ---- Objects ----------------------------------------------------------------------------------

typedef struct allocation {
    struct allocation *next;
    CUdeviceptr address;
    size_t bytes;
    unsigned char *memory;
} allocation;
static allocation *allocations;

struct CUmod_st {
    bool alive;
};
struct CUfunc_st {
    char name[NAME_BYTES];
    int portable; // -1: it is not one
};
struct CUstream_st {
    bool alive;
};
struct CUevent_st {
    bool recorded;
    uint64_t us;
};
typedef struct kernel {
    CUfunction function;
    unsigned grid[3], block;
    unsigned char args[512];
    size_t args_bytes;
} kernel;
struct CUgraphNode_st {
    kernel kernel;
    CUevent event; // instead of a kernel
    int *before;   // nodes that come first
    int before_count;
};
struct CUgraph_st {
    CUgraphNode *nodes;
    int count;
    bool owned; // by an executable
};
struct CUgraphExec_st {
    CUgraph graph;
};

static allocation *allocation_at(CUdeviceptr address, size_t bytes) {
    for (allocation *a = allocations; a; a = a->next)
        if (address >= a->address && address - a->address <= a->bytes &&
            bytes <= a->bytes - (size_t)(address - a->address))
            return a;
    return NULL;
}

// ---- Running a kernel in the simulator --------------------------------------------------------

static char modes[BT_KERNEL_COUNT][BT_BINDINGS_MAX + 1];
const bt_kernel_info bt_kernel_table[BT_KERNEL_COUNT] = {
#define X(name, bindings, args) {#name, modes[BT_KERNEL_##name], sizeof(args)},
    BT_KERNELS(X)
#undef X
};

__attribute__((constructor)) static void fill_modes(void) {
#define X(name, bindings, args) strcpy(modes[BT_KERNEL_##name], bindings);
    BT_KERNELS(X)
#undef X
    for (int i = 0; i < BT_KERNEL_COUNT; i++)
        for (char *c = modes[i]; *c; c++) *c = *c == 'w' ? 'u' : *c == 'W' ? 'U' : *c;
}

static CUresult fail_with(CUresult result) {
    return fault = result;
}

// The launch that the arguments of a portable kernel stand for.
static CUresult read_args(const kernel *k, const bt_portable *p, bt_launch *launch,
                          bt_buffer *buffers) {
    const bt_kernel_info *info = &bt_kernel_table[p->kernel];
    size_t count = strlen(info->bindings), want = 8 * count + info->scalar_bytes + 4;
    if (k->args_bytes != want)
        return misuse(INVALID_VALUE, "%s got %zu bytes of arguments, not %zu", p->name,
                      k->args_bytes, want);
    *launch = (bt_launch){.kernel = p->kernel, .dtype = BT_F32, .binding_count = (uint8_t)count};
    uint32_t present;
    memcpy(launch->scalars, k->args + 8 * count, info->scalar_bytes);
    memcpy(&present, k->args + want - 4, 4);
    for (size_t i = 0; i < count; i++) {
        CUdeviceptr address;
        memcpy(&address, k->args + 8 * i, 8);
        if ((address != 0) != (present >> i & 1))
            return misuse(INVALID_VALUE, "%s is wrong about binding %zu", p->name, i);
        if (!address) continue;
        allocation *a = allocation_at(address, 1);
        if (!a)
            return misuse(fail_with(CUDA_ERROR_ILLEGAL_ADDRESS), "%s reads freed memory", p->name);
        size_t offset = (size_t)(address - a->address);
        if (offset % BT_BINDING_ALIGN)
            return misuse(INVALID_VALUE, "%s: binding %zu is not aligned", p->name, i);
        buffers[i] = (bt_buffer){a->memory, a->bytes};
        launch->binding[i] = (bt_binding){&buffers[i], offset, a->bytes - offset};
    }
    return CUDA_SUCCESS;
}

static CUresult run_kernel(const kernel *k) {
    static bt_sim *sim;
    bt_error err = {0};
    bt_launch launch;
    bt_buffer buffers[BT_BINDINGS_MAX];
    if (fault) return fault;
    state.kernels++;
    clock_us += 2;
    if (wish.fault_after > 0 && --wish.fault_after == 0)
        return fail_with(CUDA_ERROR_ILLEGAL_ADDRESS);
    if (k->function->portable < 0) return CUDA_SUCCESS;
    const bt_portable *p = &bt_portable_table[k->function->portable];
    CUresult result = read_args(k, p, &launch, buffers);
    if (result != CUDA_SUCCESS) return result;
    if (k->block != p->group) return misuse(INVALID_VALUE, "%s got %u threads", p->name, k->block);
    bt_status status = sim ? BT_OK : bt_sim_open(&err, &sim);
    if (status == BT_OK)
        status = bt_sim_run(sim, &bt_sim_kernels[k->function->portable], p, k->grid, &launch, &err);
    if (status == BT_OK) return CUDA_SUCCESS;
    return misuse(fail_with(CUDA_ERROR_LAUNCH_FAILED), "%.200s", err.text);
}

// ---- What is under way ------------------------------------------------------------------------

typedef struct work {
    CUgraphExec exec;
    CUevent event;
    kernel kernel; // function NULL: none
    void *to;      // a copy to the host
    CUdeviceptr from;
    size_t bytes;
} work;
static work *queue[QUEUE_MAX];
static int queued;

static void send(work w) {
    work *copy = malloc(sizeof *copy);
    *copy = w;
    if (queued < QUEUE_MAX)
        queue[queued++] = copy;
    else
        (void)misuse(INVALID_VALUE, "too much is under way");
}

// Of the nodes that may run, the one that was made last.
static CUresult run_graph(const struct CUgraph_st *graph) {
    bool *done = calloc((size_t)graph->count + 1, 1);
    CUresult result = CUDA_SUCCESS;
    for (int left = graph->count; left > 0 && result == CUDA_SUCCESS; left--) {
        int at = graph->count - 1;
        for (; at >= 0; at--) {
            const struct CUgraphNode_st *node = graph->nodes[at];
            int i = 0;
            while (i < node->before_count && done[node->before[i]]) i++;
            if (!done[at] && i == node->before_count) break;
        }
        if (at < 0) result = misuse(INVALID_VALUE, "the graph has a circle");
        if (at < 0) break;
        done[at] = true;
        if (graph->nodes[at]->event)
            graph->nodes[at]->event->us = ++clock_us, graph->nodes[at]->event->recorded = true;
        else
            result = run_kernel(&graph->nodes[at]->kernel);
    }
    free(done);
    return result;
}

static CUresult copy_to_host(const work *w) {
    allocation *a = allocation_at(w->from, w->bytes);
    if (!a) return misuse(fail_with(CUDA_ERROR_ILLEGAL_ADDRESS), "a copy from freed memory");
    memcpy(w->to, a->memory + (w->from - a->address), w->bytes);
    return CUDA_SUCCESS;
}

static CUresult finish_all(void) {
    CUresult result = fault;
    for (int i = 0; i < queued; i++) {
        work *w = queue[i];
        if (result == CUDA_SUCCESS && w->exec) result = run_graph(w->exec->graph);
        if (result == CUDA_SUCCESS && w->kernel.function) result = run_kernel(&w->kernel);
        if (result == CUDA_SUCCESS && w->to) result = copy_to_host(w);
        if (result == CUDA_SUCCESS && w->event)
            w->event->us = ++clock_us, w->event->recorded = true;
        free(w);
    }
    queued = 0;
    return result;
}

// ---- The driver -------------------------------------------------------------------------------

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

#define X(name, symbol, parameters) EXPORT CUresult symbol parameters;
BT_CUDA_FUNCTIONS(X)
#undef X

CUresult cuInit(unsigned flags) {
    (void)flags;
    return setting("FAKE_CUDA_INIT", 0);
}
CUresult cuDriverGetVersion(int *version) {
    *version = setting("FAKE_CUDA_VERSION", 13000);
    return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_FAKE";
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
                                                : "something is wrong";
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int *count) {
    *count = setting("FAKE_CUDA_DEVICES", 1);
    return *count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult cuDeviceGet(CUdevice *device, int index) {
    *device = index;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char *name, int bytes, CUdevice device) {
    snprintf(name, (size_t)bytes, "Fake GPU %d", device);
    return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
    (void)device;
    *bytes = (size_t)8 << 30;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    (void)device;
    int capability = setting("FAKE_CUDA_CAPABILITY", 90);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = capability / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = capability % 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 227 << 10; break;
    default: return misuse(INVALID_VALUE, "attribute %d was asked for", attribute);
    }
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    (void)device;
    primary++;
    state.contexts = primary;
    *context = (CUcontext)(uintptr_t)0x1000;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    (void)device;
    if (primary <= 0) return misuse(INVALID_CONTEXT, "the context is released twice");
    state.contexts = --primary;
    return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
    if (context && primary <= 0) return misuse(INVALID_CONTEXT, "a dead context is entered");
    current = context;
    return CUDA_SUCCESS;
}

// ---- Memory -----------------------------------------------------------------------------------

CUresult cuMemGetInfo_v2(size_t *unused, size_t *total) {
    *total = (size_t)8 << 30;
    *unused = *total - state.bytes;
    return CUDA_SUCCESS;
}
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
    static CUdeviceptr next = 0x700000000000;
    ENTER();
    if (bytes == 0) return misuse(INVALID_VALUE, "0 bytes are allocated");
    if (wish.bytes_max && state.bytes + bytes > wish.bytes_max) return CUDA_ERROR_OUT_OF_MEMORY;
    allocation *a = malloc(sizeof *a);
    *a = (allocation){allocations, next, bytes, aligned_alloc(256, (bytes + 255) / 256 * 256)};
    bt_sim_poison(a->memory, (bytes + 255) / 256 * 256);
    allocations = a;
    next += (bytes + 4095) / 512 * 512; // nothing stands right behind it
    state.allocations++;
    state.bytes += bytes;
    *address = a->address;
    return CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr address) {
    ENTER();
    CUresult result = finish_all();
    for (allocation **at = &allocations; *at; at = &(*at)->next) {
        allocation *a = *at;
        if (a->address != address) continue;
        *at = a->next;
        state.allocations--;
        state.bytes -= a->bytes;
        free(a->memory);
        free(a);
        return result;
    }
    return misuse(INVALID_VALUE, "what was never allocated is freed, or freed twice");
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    ENTER();
    if (!stream->alive) return misuse(INVALID_HANDLE, "a dead stream is used");
    CUresult result = finish_all(); // the copy is made now, after what was sent before
    allocation *a = allocation_at(to, bytes);
    if (!a) return misuse(INVALID_VALUE, "a copy beyond an allocation");
    memcpy(a->memory + (to - a->address), from, bytes);
    return result;
}
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    ENTER();
    if (!stream->alive) return misuse(INVALID_HANDLE, "a dead stream is used");
    if (!allocation_at(from, bytes)) return misuse(INVALID_VALUE, "a copy beyond an allocation");
    send((work){.to = to, .from = from, .bytes = bytes});
    return CUDA_SUCCESS;
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
    ENTER();
    (void)stream;
    allocation *a = allocation_at(to, bytes);
    if (!a) return misuse(INVALID_VALUE, "memory beyond an allocation is set");
    memset(a->memory + (to - a->address), value, bytes);
    return CUDA_SUCCESS;
}

// ---- Streams and events -----------------------------------------------------------------------

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
    (void)flags;
    ENTER();
    static struct CUstream_st pool[POOL];
    static int used;
    if (used == POOL) return CUDA_ERROR_OUT_OF_MEMORY;
    *stream = &pool[used++];
    (*stream)->alive = true;
    state.streams++;
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
    if (!stream->alive) return misuse(INVALID_HANDLE, "a stream is destroyed twice");
    stream->alive = false;
    state.streams--;
    return fault;
}
CUresult cuStreamSynchronize(CUstream stream) {
    ENTER();
    if (!stream->alive) return misuse(INVALID_HANDLE, "a dead stream is waited for");
    return finish_all();
}
CUresult cuEventCreate(CUevent *event, unsigned flags) {
    (void)flags;
    ENTER();
    *event = calloc(1, sizeof **event);
    state.events++;
    return CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent event) {
    CUresult result = finish_all();
    free(event);
    state.events--;
    return result;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
    ENTER();
    if (!stream->alive) return misuse(INVALID_HANDLE, "a dead stream is used");
    event->recorded = false;
    send((work){.event = event});
    return CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent event) {
    ENTER();
    (void)event;
    return finish_all();
}
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end) {
    ENTER();
    if (!start->recorded || !end->recorded)
        return misuse(CUDA_ERROR_NOT_READY, "the time of an event that was not waited for");
    *ms = (float)(end->us - start->us) * 1e-3f;
    return CUDA_SUCCESS;
}

// ---- Modules ----------------------------------------------------------------------------------

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count, int *options,
                            void **values) {
    (void)count, (void)options, (void)values;
    ENTER();
    if (wish.refuse_module) return wish.refuse_module;
    if (memcmp(image, "\177ELF", 4) && !strstr(image, ".version"))
        return misuse(CUDA_ERROR_INVALID_PTX, "a module is neither machine code nor PTX");
    static struct CUmod_st pool[POOL];
    static int used;
    if (used == POOL) return CUDA_ERROR_OUT_OF_MEMORY;
    *module = &pool[used++];
    (*module)->alive = true;
    state.modules++;
    return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) {
    if (!module->alive) return misuse(INVALID_HANDLE, "a module is unloaded twice");
    module->alive = false;
    state.modules--;
    return fault;
}
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    static struct CUfunc_st known[256];
    static int count;
    ENTER();
    if (!module->alive) return misuse(INVALID_HANDLE, "a dead module is used");
    // bt_conv2d, or bt_conv2d__3: compiled for a program.
    char plain[NAME_BYTES] = "";
    if (!strncmp(name, "bt_", 3)) snprintf(plain, sizeof plain, "%s", name + 3);
    if (strstr(plain, "__")) *strstr(plain, "__") = 0;
    int portable = bt_portable_count - 1;
    while (portable >= 0 && strcmp(bt_portable_table[portable].name, plain)) portable--;
    for (int i = 0; i < count; i++)
        if (!strcmp(known[i].name, name)) {
            *function = &known[i];
            return CUDA_SUCCESS;
        }
    if (count == 256) return NOT_FOUND;
    snprintf(known[count].name, sizeof known[count].name, "%s", name);
    known[count].portable = portable;
    *function = &known[count++];
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
    ENTER();
    (void)function, (void)attribute;
    return value > 0 ? CUDA_SUCCESS : misuse(INVALID_VALUE, "an attribute is set to %d", value);
}

// ---- Launches ---------------------------------------------------------------------------------

static CUresult take_args(kernel *k, void **extra) {
    if (extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER || extra[2] != CU_LAUNCH_PARAM_BUFFER_SIZE ||
        extra[4] != CU_LAUNCH_PARAM_END)
        return misuse(INVALID_VALUE, "the arguments are not given as bytes");
    k->args_bytes = *(size_t *)extra[3];
    if (k->args_bytes > sizeof k->args) return misuse(INVALID_VALUE, "too many arguments");
    memcpy(k->args, extra[1], k->args_bytes);
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params,
                          void **extra) {
    ENTER();
    if (!config->hStream->alive) return misuse(INVALID_HANDLE, "a dead stream is used");
    kernel k = {.function = function,
                .grid = {config->gridDimX, config->gridDimY, config->gridDimZ},
                .block = config->blockDimX};
    if (extra && take_args(&k, extra) != CUDA_SUCCESS) return INVALID_VALUE;
    if (!params && !extra) return misuse(INVALID_VALUE, "a launch without arguments");
    snprintf(state.entry, sizeof state.entry, "%s", function->name);
    state.grid = config->gridDimX;
    state.block = config->blockDimX;
    state.shared = config->sharedMemBytes;
    state.cluster = 0;
    state.cooperative = 0;
    for (unsigned i = 0; i < config->numAttrs; i++) {
        if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
            state.cluster = config->attrs[i].value.clusterDim.x;
        if (config->attrs[i].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
            state.cooperative = config->attrs[i].value.cooperative;
    }
    state.direct_launches++;
    send((work){.kernel = k});
    return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int block,
                                                     size_t shared) {
    ENTER();
    (void)function, (void)block, (void)shared;
    *blocks = wish.blocks_fit ? wish.blocks_fit / 132 : 1;
    return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveClusters(int *clusters, CUfunction function,
                                      const CUlaunchConfig *config) {
    ENTER();
    (void)function;
    unsigned size = config->numAttrs ? config->attrs[0].value.clusterDim.x : 1;
    *clusters = (wish.blocks_fit ? wish.blocks_fit : 132) / (int)size;
    return CUDA_SUCCESS;
}

// ---- Graphs -----------------------------------------------------------------------------------

static int index_of(CUgraph graph, CUgraphNode node) {
    int i = graph->count - 1;
    while (i >= 0 && graph->nodes[i] != node) i--;
    return i;
}
static CUresult add_before(CUgraph graph, CUgraphNode from, CUgraphNode to) {
    int before = index_of(graph, from);
    if (before < 0 || index_of(graph, to) < 0)
        return misuse(INVALID_VALUE, "an edge between nodes that the graph has not");
    to->before = realloc(to->before, (size_t)(to->before_count + 1) * sizeof *to->before);
    to->before[to->before_count++] = before;
    return CUDA_SUCCESS;
}
static CUgraphNode new_node(CUgraph graph) {
    CUgraphNode node = graph->count < NODES_MAX ? calloc(1, sizeof *node) : NULL;
    if (!node) return NULL;
    graph->nodes = realloc(graph->nodes, (size_t)(graph->count + 1) * sizeof node);
    graph->nodes[graph->count++] = node;
    return node;
}
static void free_graph(CUgraph graph) {
    for (int i = 0; i < graph->count; i++) {
        free(graph->nodes[i]->before);
        free(graph->nodes[i]);
    }
    free(graph->nodes);
    free(graph);
}
CUresult cuGraphCreate(CUgraph *graph, unsigned flags) {
    (void)flags;
    ENTER();
    *graph = calloc(1, sizeof **graph);
    state.graphs++;
    return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) {
    state.graphs--;
    if (!graph->owned) free_graph(graph);
    return fault;
}
CUresult cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *from,
                                 size_t count, const CUDA_KERNEL_NODE_PARAMS *params) {
    ENTER();
    *node = new_node(graph);
    if (!*node) return misuse(INVALID_VALUE, "the graph has too many nodes");
    (*node)->kernel = (kernel){.function = params->func,
                               .grid = {params->gridDimX, params->gridDimY, params->gridDimZ},
                               .block = params->blockDimX};
    for (size_t i = 0; i < count; i++)
        if (add_before(graph, from[i], *node) != CUDA_SUCCESS) return INVALID_VALUE;
    if (!params->extra) return misuse(INVALID_VALUE, "only portable kernels run here");
    return take_args(&(*node)->kernel, params->extra);
}
CUresult cuGraphAddEventRecordNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *from,
                                   size_t count, CUevent event) {
    ENTER();
    *node = new_node(graph);
    if (!*node) return misuse(INVALID_VALUE, "the graph has too many nodes");
    (*node)->event = event;
    for (size_t i = 0; i < count; i++)
        if (add_before(graph, from[i], *node) != CUDA_SUCCESS) return INVALID_VALUE;
    return CUDA_SUCCESS;
}
CUresult cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
                                   const CUgraphEdgeData *edges, size_t count) {
    ENTER();
    for (size_t i = 0; i < count; i++) {
        if (add_before(graph, from[i], to[i]) != CUDA_SUCCESS) return INVALID_VALUE;
        if (edges[i].from_port != edges[i].type)
            return misuse(INVALID_VALUE, "an edge that CUDA does not know");
        state.edges_early += edges[i].type == 1;
    }
    return CUDA_SUCCESS;
}
CUresult cuGraphKernelNodeSetAttribute(CUgraphNode node, int attribute,
                                       const CUlaunchAttributeValue *value) {
    ENTER();
    (void)node, (void)attribute, (void)value;
    return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    (void)flags;
    ENTER();
    *exec = calloc(1, sizeof **exec);
    (*exec)->graph = graph;
    graph->owned = true;
    state.executables++;
    return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec exec) {
    CUresult result = finish_all();
    free_graph(exec->graph);
    free(exec);
    state.executables--;
    return result;
}
CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    ENTER();
    if (!stream->alive) return misuse(INVALID_HANDLE, "a dead stream is used");
    state.graph_launches++;
    send((work){.exec = exec});
    return CUDA_SUCCESS;
}
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, int type, unsigned rank, void *address,
                                const uint64_t *dims, const uint64_t *strides, const uint32_t *box,
                                const uint32_t *element_strides, int interleave, int swizzle,
                                int promotion, int fill) {
    (void)type, (void)rank, (void)address, (void)dims, (void)strides, (void)box;
    (void)element_strides, (void)interleave, (void)swizzle, (void)promotion, (void)fill;
    *map = (CUtensorMap){0};
    return CUDA_SUCCESS;
}
