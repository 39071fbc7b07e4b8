// NVIDIA GPUs as a device, through the driver's own API. The driver is opened at run time: nothing
// is linked, and no toolkit is needed to run.
#ifndef BT_DEVICE_CUDA_CUDA_H
#define BT_DEVICE_CUDA_CUDA_H

#include "device/device.h"

extern const bt_device_api bt_device_cuda;

#endif
