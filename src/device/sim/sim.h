// What the C text of the portable kernels sees (written by tools/kc, one text for all kernels): the
// built-in functions, and the checked ways to buffers, shared memory, arrays and barriers. Kernel
// K:
//
//   typedef struct K_shared { float tile[16][65]; } K_shared;
//   static void K_thread(bt_sim_thread *t) {
//       const uint32_t lid = t->lid, gx = t->gx, gy = t->gy, gz = t->gz, ngx = t->ngx;
//       const bt_scale_args *p = t->group->scalars;
//       K_shared *sh = t->group->shared;
//       ... BT_SIM_IN(float, 0, i) BT_SIM_AT(float, 2, i) BT_SIM_HAS(1) BT_SIM_BARRIER();
//       ... BT_SIM_SHARED(sh->tile[BT_SIM_INDEX(i, 16u)][BT_SIM_INDEX(j, 65u)])
//       ... float acc[4]; BT_SIM_POISON(acc); acc[BT_SIM_INDEX(i, 4u)]
//
// A check that fails records the first sentence and lets the kernel go on with a harmless place, so
// that no stack is left in the middle.
#ifndef BT_DEVICE_SIM_SIM_H
#define BT_DEVICE_SIM_SIM_H

#include <math.h>
#include <string.h>

#include "device/kernels.h"
#include "device/portable.h"

#if defined(__GNUC__) // a kernel names every built-in value and shared array, used or not
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif

// Who touched a 32-bit word last. A moment is group << 32 | epoch << 8 | thread: an epoch is the
// time between two barriers of a group, the first is 1; 0: nobody.
typedef struct bt_sim_mark {
    uint64_t toucher;       // of those whose writes are not settled yet
    uint64_t writer;        // the last one
    uint64_t reader, other; // the last one, and the last one before it that was another thread
} bt_sim_mark;

typedef struct bt_sim_binding {
    unsigned char *data;
    uint32_t count;     // 32-bit elements
    char mode;          // r, w or u
    bt_sim_mark *marks; // one for each element; of what is written only
} bt_sim_binding;

typedef struct bt_sim_group {
    const void *scalars;
    void *shared;
    bt_sim_mark *shared_marks;
    uint32_t present; // as in bt_portable_present
    bt_sim_binding binding[BT_BINDINGS_MAX];
} bt_sim_group;

typedef struct bt_sim_thread {
    bt_sim_group *group;
    uint32_t lid, gx, gy, gz, ngx;
    uint64_t moment;
} bt_sim_thread;

typedef struct bt_sim_kernel {
    const char *name;
    void (*thread)(bt_sim_thread *t);
    size_t shared_bytes;
    bool has_barrier;
} bt_sim_kernel;

// In the order of bt_portable_table (generated).
extern const bt_sim_kernel bt_sim_kernels[];

enum { BT_SIM_UNWRITTEN = 0x7fc0dead /* a NaN, and far beyond any array */ };

// ---- Checks (run.c) --------------------------------------------------------------------------

// Report, and give an index or a place that does no harm.
uint32_t bt_sim_bad_index(uint32_t index, uint32_t size, const char *file, int line);
void *bt_sim_bad_place(int binding, uint32_t index, const char *file, int line);
// Notes the first touch of a word by a thread since its last barrier.
void bt_sim_touch(bt_sim_mark *mark, int binding, void *word, const char *file, int line);
void bt_sim_barrier(const char *file, int line);

static inline uint32_t bt_sim_index(uint32_t index, uint32_t size, const char *file, int line) {
    return index < size ? index : bt_sim_bad_index(index, size, file, line);
}

static inline const void *bt_sim_in(const bt_sim_thread *t, int binding, uint32_t index,
                                    const char *file, int line) {
    const bt_sim_binding *b = &t->group->binding[binding];
    return index < b->count ? b->data + (size_t)index * 4
                            : bt_sim_bad_place(binding, index, file, line);
}

static inline void *bt_sim_at(const bt_sim_thread *t, int binding, uint32_t index, const char *file,
                              int line) {
    const bt_sim_binding *b = &t->group->binding[binding];
    if (index >= b->count || !b->marks) return bt_sim_bad_place(binding, index, file, line);
    void *word = b->data + (size_t)index * 4;
    bt_sim_mark *mark = &b->marks[index];
    if (mark->toucher != t->moment) bt_sim_touch(mark, binding, word, file, line);
    return word;
}

static inline void *bt_sim_shared(const bt_sim_thread *t, void *word, const char *file, int line) {
    size_t at = (size_t)((char *)word - (char *)t->group->shared) / 4;
    bt_sim_mark *mark = &t->group->shared_marks[at];
    if (mark->toucher != t->moment) bt_sim_touch(mark, -1, word, file, line);
    return word;
}

static inline void bt_sim_poison(void *array, size_t bytes) {
    const uint32_t word = BT_SIM_UNWRITTEN;
    for (size_t i = 0; i + 4 <= bytes; i += 4) memcpy((char *)array + i, &word, 4);
}

#define BT_SIM_INDEX(i, size) bt_sim_index((i), (size), __FILE__, __LINE__)
#define BT_SIM_IN(type, binding, i) \
    (*(const type *)bt_sim_in(t, (binding), (i), __FILE__, __LINE__))
#define BT_SIM_AT(type, binding, i) (*(type *)bt_sim_at(t, (binding), (i), __FILE__, __LINE__))
#define BT_SIM_SHARED(w)            (*(__typeof__(w) *)bt_sim_shared(t, &(w), __FILE__, __LINE__))
#define BT_SIM_POISON(array)        bt_sim_poison((array), sizeof(array))
#define BT_SIM_BARRIER()            bt_sim_barrier(__FILE__, __LINE__)
#define BT_SIM_HAS(binding)         ((t->group->present >> (binding)&1u) != 0)

// ---- Built-in functions ----------------------------------------------------------------------

#define BT_SIM_ORDERED(type, suffix)                         \
    static inline type bt_sim_min_##suffix(type a, type b) { \
        return a < b ? a : b;                                \
    }                                                        \
    static inline type bt_sim_max_##suffix(type a, type b) { \
        return a > b ? a : b;                                \
    }
BT_SIM_ORDERED(uint32_t, u)
BT_SIM_ORDERED(int32_t, i)
#undef BT_SIM_ORDERED

// Devices give the number of a number and a NaN.
static inline float bt_sim_min_f(float a, float b) {
    return fminf(a, b);
}
static inline float bt_sim_max_f(float a, float b) {
    return fmaxf(a, b);
}
static inline float bt_sim_abs_f(float a) {
    return fabsf(a);
}
static inline int32_t bt_sim_abs_i(int32_t a) {
    return a < 0 ? (int32_t)(0u - (uint32_t)a) : a;
}
static inline float bt_sim_exp(float a) {
    return expf(a);
}
static inline float bt_sim_log(float a) {
    return logf(a);
}
static inline float bt_sim_sqrt(float a) {
    return sqrtf(a);
}
static inline float bt_sim_floor(float a) {
    return floorf(a);
}
static inline float bt_sim_fma(float a, float b, float c) {
    return fmaf(a, b, c);
}

static inline uint32_t bt_sim_umulhi(uint32_t a, uint32_t b) {
    return (uint32_t)((uint64_t)a * b >> 32);
}

static inline uint32_t bt_sim_as_uint(float a) {
    uint32_t bits;
    memcpy(&bits, &a, 4);
    return bits;
}

static inline float bt_sim_as_float(uint32_t bits) {
    float a;
    memcpy(&a, &bits, 4);
    return a;
}

// Beyond the range of the type, which C leaves undefined: the nearest number, and 0 for NaN.
static inline uint32_t bt_sim_to_uint_f(float a) {
    return a >= 4294967296.0f ? UINT32_MAX : a > 0 ? (uint32_t)a : 0;
}

static inline int32_t bt_sim_to_int_f(float a) {
    if (a >= 2147483648.0f) return INT32_MAX;
    return a >= -2147483648.0f ? (int32_t)a : a < 0 ? INT32_MIN : 0;
}

#endif
