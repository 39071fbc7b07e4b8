// As much of CUDA as the kernels use, only declared: with it clang compiles their CUDA text to PTX
// without CUDA's toolkit.
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define __forceinline__ inline __attribute__((always_inline))

typedef unsigned int uint;
struct dim3 {
    uint x, y, z;
};
extern const __device__ dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" __device__ float expf(float), logf(float), sqrtf(float), floorf(float), fabsf(float);
extern "C" __device__ float fminf(float, float), fmaxf(float, float), fmaf(float, float, float);
extern "C" __device__ float __uint_as_float(uint);
extern "C" __device__ uint __float_as_uint(float), __umulhi(uint, uint);
__device__ int abs(int), min(int, int), max(int, int);
__device__ uint min(uint, uint), max(uint, uint);
