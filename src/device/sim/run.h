// Running one launch of the simulated GPU: the door between the device and its checks, and for
// tests that bring kernels of their own.
#ifndef BT_DEVICE_SIM_RUN_H
#define BT_DEVICE_SIM_RUN_H

#include "device/sim/sim.h"

extern const bt_device_api bt_device_sim;

typedef struct bt_sim bt_sim; // stacks, shared memory, and what the checks remember

bt_status bt_sim_open(bt_error *err, bt_sim **out) BT_MUST_CHECK;
void bt_sim_close(bt_sim *sim);

// Runs all groups of a launch, one thread after the other between barriers, and gives the first
// thing that is wrong. The handles of the buffers are memory.
bt_status bt_sim_run(bt_sim *sim, const bt_sim_kernel *kernel, const bt_portable *portable,
                     const uint32_t grid[3], const bt_launch *launch, bt_error *err) BT_MUST_CHECK;

#endif
