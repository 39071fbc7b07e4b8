// The CPU device: a pool of threads that walk a program's launches together, and kernels as C
// functions, vectorised for the instruction set at hand.
#ifndef BT_DEVICE_CPU_H
#define BT_DEVICE_CPU_H

#include "device/device.h"

extern const bt_device_api bt_device_cpu;

#endif
