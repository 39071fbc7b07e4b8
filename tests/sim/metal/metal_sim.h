// What the tests ask of the simulated Metal, a library that they open a second time for it.
#ifndef BT_TESTS_METAL_SIM_H
#define BT_TESTS_METAL_SIM_H

#include <stdbool.h>
#include <stddef.h>

typedef struct metal_sim_state {
    // What is alive now.
    int buffers, queues, commands, encoders, libraries, functions, pipelines, strings, errors;
    int devices, arrays, options, constants, pools;
    size_t bytes; // of buffers
    int flying;   // command buffers that were committed and are not done
    // What has been done since the library was opened.
    int commits, dispatches, libraries_made, compiled; // compiled: not found in the cache
    int fast_math;                                     // libraries that were asked for with it
    int concurrent;                                    // encoders
} metal_sim_state;

// Things to go wrong, and limits to be smaller. 0 or "": as usual.
typedef struct metal_sim_wish {
    bool no_device;
    bool no_default;          // no default device, but one among all
    bool no_function;         // newFunctionWithName: gives nil, and
    bool no_words;            // no error
    bool not_unified;         // memory is not shared with the CPU
    char compile_error[256];  // what newLibraryWithSource: fails with
    char pipeline_error[256]; // what newComputePipelineStateWithFunction: fails with
    char command_error[256];  // what the command buffer after command_after others fails with,
    char command_domain[64];  // in this domain ("": MTLCommandBufferErrorDomain)
    long command_code;        // and with this code
    int command_after;
    size_t memory_max;    // of all buffers; beyond it there is no buffer
    size_t buffer_max;    // maxBufferLength
    unsigned threads_max; // maxTotalThreadsPerThreadgroup of every pipeline
    unsigned shared_max;  // maxThreadgroupMemoryLength
    int family;           // of Apple's GPUs; 7
} metal_sim_wish;

// What was done that Metal does not allow: sentences, one a line; "": nothing.
typedef const char *(*metal_sim_findings_fn)(void);
// Forgets findings and wishes.
typedef void (*metal_sim_reset_fn)(void);
typedef const metal_sim_state *(*metal_sim_state_fn)(void);
typedef void (*metal_sim_wish_fn)(const metal_sim_wish *wish);

#endif
