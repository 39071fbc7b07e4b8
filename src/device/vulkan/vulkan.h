// Any GPU with a Vulkan 1.2 driver as a device. The loader is opened at run time: nothing is
// linked.
#ifndef BT_DEVICE_VULKAN_VULKAN_H
#define BT_DEVICE_VULKAN_VULKAN_H

#include "device/device.h"

extern const bt_device_api bt_device_vulkan;

#endif
