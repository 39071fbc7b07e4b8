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

typedef struct sim_kernel {
    const char *name;
    void (*run)(const sim_thread *thread, const sim_binding *bindings);
    const sim_argument *arguments;
    int count;
} sim_kernel;

// What a kernel calls; only barrier returns.
typedef struct sim_hooks {
    void (*barrier)(const char *file, int line);
    void (*outside)(int index, unsigned long long at, unsigned long long count);
    void (*outside_array)(const char *file, unsigned line, unsigned long long at);
} sim_hooks;

#endif
