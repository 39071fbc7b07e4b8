// See fiber.h.
#include "device/sim/fiber.h"

#include <stdint.h>
#include <string.h>

#ifdef BT_FIBER_UCONTEXT

void bt_fiber_make(bt_fiber *fiber, void *stack, size_t bytes, void (*entry)(void)) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = stack;
    fiber->context.uc_stack.ss_size = bytes;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, entry, 0);
}

void bt_fiber_switch(bt_fiber *from, bt_fiber *to) {
    swapcontext(&from->context, &to->context);
}

#else

// Saves what a called function must preserve on the stack, stores the stack pointer to *save, takes
// `to` as the stack and returns to whoever saved it. Not .globl: nobody else may see it.
void fiber_swap(void **save, void *to) __asm__("fiber_swap");

#if defined(__x86_64__)
enum { FRAME = 8, RETURN = 6 }; // words: six registers, the return address, alignment
__asm__(".text\n"
        "fiber_swap:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n"
        "    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n"
        "    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n");
#else
enum {
    FRAME = 20,
    RETURN = 11
}; // words: x19 .. x30, of which x30 is the return address, d8 .. d15
__asm__(".text\n"
        "fiber_swap:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n        stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n   stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n   stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n     stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
        "    mov x2, sp\n    str x2, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n        ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n   ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n   ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n     ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n    ret\n");
#endif

// A frame as fiber_swap leaves it, that returns to `entry`.
void bt_fiber_make(bt_fiber *fiber, void *stack, size_t bytes, void (*entry)(void)) {
    uintptr_t top = ((uintptr_t)stack + bytes) & ~(uintptr_t)15;
    uintptr_t *frame = (uintptr_t *)top - FRAME;
    memset(frame, 0, FRAME * sizeof *frame);
    frame[RETURN] = (uintptr_t)entry;
    fiber->stack = frame;
}

void bt_fiber_switch(bt_fiber *from, bt_fiber *to) {
    fiber_swap(&from->stack, to->stack);
}

#endif
