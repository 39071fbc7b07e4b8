// Coroutines: one stack for each thread of a work group, so that a barrier can stop it in the
// middle of its kernel. Switching is a dozen instructions where we have them written down, and
// ucontext (two system calls) elsewhere.
#ifndef BT_DEVICE_SIM_FIBER_H
#define BT_DEVICE_SIM_FIBER_H

#include <stddef.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define BT_FIBER_UCONTEXT
#endif

#ifdef BT_FIBER_UCONTEXT
#include <ucontext.h>
#endif

typedef struct bt_fiber {
#ifdef BT_FIBER_UCONTEXT
    ucontext_t context;
#else
    void *stack; // where it stopped
#endif
} bt_fiber;

// A fiber that begins with entry(), which must not return.
void bt_fiber_make(bt_fiber *fiber, void *stack, size_t bytes, void (*entry)(void));
// Goes on with `to`; returns when somebody switches back to `from`.
void bt_fiber_switch(bt_fiber *from, bt_fiber *to);

#endif
