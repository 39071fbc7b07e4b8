// The simulated Metal (sim/metal) as the tests that open it see it.
#ifndef BT_TESTS_METAL_H
#define BT_TESTS_METAL_H

#include "sim/metal/metal_sim.h"

extern metal_sim_findings_fn findings;
extern metal_sim_reset_fn reset;
extern metal_sim_state_fn state_now;
extern metal_sim_wish_fn wish_for;

// Makes it the one that the device opens, and opens it: a group's setup. `metal_library` is of
// dlopen.
int metal_start(void **state);
extern void *metal_library;
// A function of it, into the pointer at `function`.
void metal_find(const char *name, void *function);
// Everything was given back, and nothing was found that a test did not expect; else 1.
int metal_nothing_left(void);

#endif
