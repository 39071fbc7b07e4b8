// Blocks of a cluster: who they are, waiting for each other, and reading each other's shared
// memory.
#ifndef BT_CUDA_GEMM_CLUSTER_CUH
#define BT_CUDA_GEMM_CLUSTER_CUH

static __device__ __forceinline__ unsigned shared_address(const void *p) {
    return (unsigned)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

static __device__ __forceinline__ unsigned cluster_rank() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

static __device__ __forceinline__ unsigned cluster_blocks() {
    unsigned count;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(count));
    return count;
}

// The number that block `rank` of the cluster has in the same place.
static __device__ __forceinline__ float number_of(unsigned rank, const float *p) {
    float x;
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %1, %2;\n"
                 "ld.shared::cluster.f32 %0, [there];\n"
                 "}"
                 : "=f"(x)
                 : "r"(shared_address(p)), "r"(rank)
                 : "memory");
    return x;
}

#endif
