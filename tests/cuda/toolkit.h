// What kernels/cuda uses of CUDA beyond tools/kc/ptx.h, declared alone: with it Debian's clang can read
// the whole-program kernels, which without nvcc nothing else does before a GPU is there.
#include "../../tools/kc/ptx.h"

#define __host__ __attribute__((host))
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

typedef decltype(sizeof 0) size_t;
struct uint2 { uint x, y; };
struct uint4 { uint x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
__device__ uint2 make_uint2(uint, uint);
__device__ uint4 make_uint4(uint, uint, uint, uint);
__device__ float2 make_float2(float, float);
__device__ float4 make_float4(float, float, float, float);
extern const __device__ bt_grid_size blockDim;

__device__ size_t __cvta_generic_to_shared(const void *);
__device__ int __float2int_rn(float), __ffs(int);
__device__ float __int_as_float(int), __expf(float), __logf(float), __fdividef(float, float), tanhf(float);
__device__ uint __byte_perm(uint, uint, uint), __ballot_sync(uint, int);
__device__ uint __reduce_max_sync(uint, uint), __reduce_min_sync(uint, uint);
__device__ void __syncwarp(uint lanes = ~0u);
template <class T> __device__ T __shfl_sync(uint, T, int, int width = 32);
template <class T> __device__ T __shfl_xor_sync(uint, T, int, int width = 32);
template <class T> __device__ T __ldg(const T *);
template <class T> __device__ T __ldcg(const T *);
template <class T> __device__ void __stcg(T *, T);
