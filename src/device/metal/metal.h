// The GPU of a Mac as a device, in C: Metal and the Objective-C runtime are opened at run time, and
// nothing is linked. Elsewhere BANTAM_METAL may name a library that plays them.
#ifndef BT_DEVICE_METAL_METAL_H
#define BT_DEVICE_METAL_METAL_H

#include "device/device.h"

extern const bt_device_api bt_device_metal;

#endif
