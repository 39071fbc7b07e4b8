// What the tests ask of the fake driver (fake.c), which they open a second time for it.
#ifndef BT_TESTS_CUDA_FAKE_H
#define BT_TESTS_CUDA_FAKE_H

#include <stddef.h>

typedef struct fake_state {
    // What is alive now.
    int allocations, streams, events, modules, graphs, executables, contexts;
    size_t bytes;
    // What has been done since the process began.
    int kernels, graph_launches, direct_launches;
    // The last kernel that was launched directly.
    char entry[64];
    unsigned grid, block, cluster, shared;
    int cooperative;
    unsigned args_steps; // last word of its arguments
    int edges_early;     // edges of graphs that let a kernel start early
    char misuse[256];    // the first; "": none
} fake_state;

// Things to go wrong.
typedef struct fake_wish {
    size_t bytes_max; // of all allocations; 0: no limit
    int fault_after;  // the kernel after so many more fails and takes the context with it; 0: never
    int blocks_fit;   // what occupancy answers for the whole GPU; 0: enough
    int refuse_module; // CUresult for loading modules
} fake_wish;

typedef const fake_state *(*fake_state_fn)(void);
typedef void (*fake_wish_fn)(const fake_wish *wish);

#endif
