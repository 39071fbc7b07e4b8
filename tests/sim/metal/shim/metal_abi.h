// Between the simulator, in C, and a kernel that it has compiled as C++.
#ifndef BT_TESTS_METAL_ABI_H
#define BT_TESTS_METAL_ABI_H

typedef struct sim_binding {
    unsigned char *data;
    unsigned long long bytes; // from there to the end of the buffer
} sim_binding;

typedef struct sim_thread {
    unsigned index, group[3], groups[3], local[3], size[3];
} sim_thread;

// An argument that is bound: its place, and the least that must be there.
typedef struct sim_argument {
    const char *name;
    int index;
    int constant; // its address space: constant, or device
    unsigned long long bytes, align;
} sim_argument;

// A function constant, and the variable that plays it. A table of them ends with a NULL name.
typedef struct sim_constant {
    const char *name;
    unsigned index, type; // MTLDataType
    unsigned long long bytes;
    void *value;
} sim_constant;

typedef struct sim_kernel {
    const char *name;
    void (*run)(const sim_thread *thread, const sim_binding *bindings);
    const sim_argument *arguments;
    int count;
    unsigned threads; // of a group, at most; 0: not said
    unsigned long long constants; // that it uses: bit i is row i of the table
    char *shared, *shared_end;    // its threadgroup memory
} sim_kernel;

enum { SIM_CONSTANTS_MAX = 64, SIM_SLOT_WORDS = 128 };

// What all threads of a SIMD-group do together.
typedef enum sim_operation {
    SIM_LOAD,
    SIM_STORE,
    SIM_MULTIPLY,
    SIM_BARRIER,
    SIM_SUM,
    SIM_MAX,
    SIM_SHUFFLE_XOR,
    SIM_BROADCAST,
    SIM_OPERATIONS
} sim_operation;

// A thread's view of its SIMD-group, in one operation.
typedef struct sim_simd {
    unsigned lane, lanes;
    unsigned *words; // SIM_SLOT_WORDS that all of them write before, and read after, they meet
} sim_simd;

// What a kernel calls; outside... and misused do not return.
typedef struct sim_hooks {
    void (*barrier)(const char *file, int line);
    void (*outside)(int index, unsigned long long at, unsigned long long count);
    void (*outside_array)(const char *file, unsigned line, unsigned long long at);
    sim_simd (*simd)(sim_operation operation, const char *file, int line);
    void (*meet)(void); // returns when all threads of the SIMD-group have come
    void (*in_group)(const void *at, unsigned long long bytes, const char *file, int line);
    void (*misused)(const char *file, int line, const char *what);
} sim_hooks;

#endif
