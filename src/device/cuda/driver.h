// As much of the CUDA driver API as Bantam uses, declared by hand from NVIDIA's documentation, so
// that building needs no header of CUDA. Names are the driver's own.
#ifndef BT_DEVICE_CUDA_DRIVER_H
#define BT_DEVICE_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr; // an address on the GPU
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;

enum { // CUresult
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_DEINITIALIZED = 4,
    CUDA_ERROR_DEVICE_UNAVAILABLE = 46,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
    CUDA_ERROR_ECC_UNCORRECTABLE = 214,
    CUDA_ERROR_INVALID_PTX = 218,
    CUDA_ERROR_NVLINK_UNCORRECTABLE = 220,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_LAUNCH_TIMEOUT = 702,
    CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,
    CUDA_ERROR_ASSERT = 710,
    CUDA_ERROR_HARDWARE_STACK_ERROR = 714,
    CUDA_ERROR_LAUNCH_FAILED = 719, // 714 to 719: what a kernel can do wrong
    CUDA_ERROR_UNKNOWN = 999,
};

enum { // CUdevice_attribute
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
};

enum { // CUfunction_attribute
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14,
};

// How a launch hands over its arguments: as bytes, laid out as the kernel's parameters.
#define CU_LAUNCH_PARAM_END            ((void *)0)
#define CU_LAUNCH_PARAM_BUFFER_POINTER ((void *)1)
#define CU_LAUNCH_PARAM_BUFFER_SIZE    ((void *)2)

enum { // CUlaunchAttributeID
    CU_LAUNCH_ATTRIBUTE_COOPERATIVE = 2,
    CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4,
};
typedef union CUlaunchAttributeValue {
    char pad[64];
    int cooperative;
    struct {
        unsigned x, y, z;
    } clusterDim;
} CUlaunchAttributeValue;
typedef struct CUlaunchAttribute {
    int id;
    char pad[4];
    CUlaunchAttributeValue value;
} CUlaunchAttribute;
typedef struct CUlaunchConfig {
    unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    CUstream hStream;
    CUlaunchAttribute *attrs;
    unsigned numAttrs;
} CUlaunchConfig;

typedef struct CUDA_KERNEL_NODE_PARAMS {
    CUfunction func;
    unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
    void **kernelParams, **extra;
    void *kern;
    CUcontext ctx;
} CUDA_KERNEL_NODE_PARAMS;

// An edge of a graph. from_port 1 and type 1: the second kernel is launched before the first one
// has ended, and itself waits for that (griddepcontrol.wait).
typedef struct CUgraphEdgeData {
    unsigned char from_port, to_port, type, reserved[5];
} CUgraphEdgeData;

typedef struct CUtensorMap {
    _Alignas(64) uint64_t opaque[16];
} CUtensorMap;

enum { CU_JIT_INFO_LOG_BUFFER = 3, CU_JIT_ERROR_LOG_BUFFER = 5, CU_JIT_ERROR_LOG_BUFFER_BYTES = 6 };

// Every function that is called: X(name, name in the library, parameters).
// clang-format off
#define BT_CUDA_FUNCTIONS(X) \
    X(cuInit, cuInit, (unsigned flags)) \
    X(cuDriverGetVersion, cuDriverGetVersion, (int *version)) \
    X(cuGetErrorName, cuGetErrorName, (CUresult error, const char **text)) \
    X(cuGetErrorString, cuGetErrorString, (CUresult error, const char **text)) \
    X(cuDeviceGetCount, cuDeviceGetCount, (int *count)) \
    X(cuDeviceGet, cuDeviceGet, (CUdevice *device, int index)) \
    X(cuDeviceGetName, cuDeviceGetName, (char *name, int bytes, CUdevice device)) \
    X(cuDeviceTotalMem, cuDeviceTotalMem_v2, (size_t *bytes, CUdevice device)) \
    X(cuDeviceGetAttribute, cuDeviceGetAttribute, (int *value, int attribute, CUdevice device)) \
    X(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, (CUcontext *context, CUdevice device)) \
    X(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, (CUdevice device)) \
    X(cuCtxSetCurrent, cuCtxSetCurrent, (CUcontext context)) \
    X(cuMemGetInfo, cuMemGetInfo_v2, (size_t *free, size_t *total)) \
    X(cuMemAlloc, cuMemAlloc_v2, (CUdeviceptr *address, size_t bytes)) \
    X(cuMemFree, cuMemFree_v2, (CUdeviceptr address)) \
    X(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, \
      (CUdeviceptr to, const void *from, size_t bytes, CUstream stream)) \
    X(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, \
      (void *to, CUdeviceptr from, size_t bytes, CUstream stream)) \
    X(cuMemsetD8Async, cuMemsetD8Async, \
      (CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream)) \
    X(cuStreamCreate, cuStreamCreate, (CUstream *stream, unsigned flags)) \
    X(cuStreamDestroy, cuStreamDestroy_v2, (CUstream stream)) \
    X(cuStreamSynchronize, cuStreamSynchronize, (CUstream stream)) \
    X(cuEventCreate, cuEventCreate, (CUevent *event, unsigned flags)) \
    X(cuEventDestroy, cuEventDestroy_v2, (CUevent event)) \
    X(cuEventRecord, cuEventRecord, (CUevent event, CUstream stream)) \
    X(cuEventSynchronize, cuEventSynchronize, (CUevent event)) \
    X(cuEventElapsedTime, cuEventElapsedTime, (float *ms, CUevent start, CUevent end)) \
    X(cuModuleLoadDataEx, cuModuleLoadDataEx, \
      (CUmodule *module, const void *image, unsigned count, int *options, void **values)) \
    X(cuModuleUnload, cuModuleUnload, (CUmodule module)) \
    X(cuModuleGetFunction, cuModuleGetFunction, \
      (CUfunction *function, CUmodule module, const char *name)) \
    X(cuFuncSetAttribute, cuFuncSetAttribute, (CUfunction function, int attribute, int value)) \
    X(cuLaunchKernelEx, cuLaunchKernelEx, \
      (const CUlaunchConfig *config, CUfunction function, void **params, void **extra)) \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor, cuOccupancyMaxActiveBlocksPerMultiprocessor, \
      (int *blocks, CUfunction function, int block, size_t shared)) \
    X(cuOccupancyMaxActiveClusters, cuOccupancyMaxActiveClusters, \
      (int *clusters, CUfunction function, const CUlaunchConfig *config)) \
    X(cuGraphCreate, cuGraphCreate, (CUgraph *graph, unsigned flags)) \
    X(cuGraphDestroy, cuGraphDestroy, (CUgraph graph)) \
    X(cuGraphAddKernelNode, cuGraphAddKernelNode_v2, \
      (CUgraphNode *node, CUgraph graph, const CUgraphNode *from, size_t count, \
       const CUDA_KERNEL_NODE_PARAMS *params)) \
    X(cuGraphAddEventRecordNode, cuGraphAddEventRecordNode, \
      (CUgraphNode *node, CUgraph graph, const CUgraphNode *from, size_t count, CUevent event)) \
    X(cuGraphAddDependencies, cuGraphAddDependencies_v2, \
      (CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, \
       const CUgraphEdgeData *edges, size_t count)) \
    X(cuGraphKernelNodeSetAttribute, cuGraphKernelNodeSetAttribute, \
      (CUgraphNode node, int attribute, const CUlaunchAttributeValue *value)) \
    X(cuGraphInstantiate, cuGraphInstantiateWithFlags, \
      (CUgraphExec *exec, CUgraph graph, unsigned long long flags)) \
    X(cuGraphExecDestroy, cuGraphExecDestroy, (CUgraphExec exec)) \
    X(cuGraphLaunch, cuGraphLaunch, (CUgraphExec exec, CUstream stream)) \
    X(cuTensorMapEncodeTiled, cuTensorMapEncodeTiled, \
      (CUtensorMap *map, int type, unsigned rank, void *address, const uint64_t *dims, \
       const uint64_t *strides, const uint32_t *box, const uint32_t *element_strides, \
       int interleave, int swizzle, int promotion, int fill))
// clang-format on

// Tests put failing ones in their place.
typedef struct bt_cuda_functions {
#define X(name, symbol, parameters) CUresult(*name) parameters;
    BT_CUDA_FUNCTIONS(X)
#undef X
} bt_cuda_functions;
extern bt_cuda_functions bt_cu; // loader.c

#endif
