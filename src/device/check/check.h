// The checking device: the CPU's kernels, each launch by itself, with everything checked around it
// that a kernel might get wrong unseen.
#ifndef BT_DEVICE_CHECK_CHECK_H
#define BT_DEVICE_CHECK_CHECK_H

#include "device/device.h"

extern const bt_device_api bt_device_check;

// Opens it around another device whose handles are memory (tests bring one that misbehaves).
bt_status bt_check_open(const bt_device_api *under, int index, const bt_context_desc *desc,
                        bt_error *err, bt_device **out) BT_MUST_CHECK;

#endif
