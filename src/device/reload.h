// Kernels as text: listing the built-in ones, printing them in any language, and running others
// from a folder instead, while the program runs.
#ifndef BT_DEVICE_RELOAD_H
#define BT_DEVICE_RELOAD_H

#include "device/portable.h"

// What a device runs now. NULL at first: what is built in.
typedef struct bt_reload bt_reload;

// Translates the .k files of `folder` and gives the device those kernels that differ from what it
// runs now; `swapped` gets their names, with a space after each. All of them or, when anything
// fails, none.
bt_status bt_reload_folder(bt_reload **now, const bt_device_api *api, bt_device *dev,
                           const char *folder, char *swapped, size_t bytes,
                           bt_error *err) BT_MUST_CHECK;
// The same with the kernels that another device runs, as they were read then.
bt_status bt_reload_copy(bt_reload **now, const bt_device_api *api, bt_device *dev,
                         const bt_reload *from, char *swapped, size_t bytes,
                         bt_error *err) BT_MUST_CHECK;
void bt_reload_free(bt_reload *now);

// What a device of this kind runs for a launch: "matmul_small".
const char *bt_kernel_name(const bt_device_api *api, const bt_launch *launch);

#endif
