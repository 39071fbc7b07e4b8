// Which launches of a program must wait for the ones before them: decided once, from the byte
// ranges of the bindings, for every device.
#ifndef BT_DEVICE_DEPEND_H
#define BT_DEVICE_DEPEND_H

#include "device/device.h"

// Does either launch write what the other one touches?
bool bt_launches_depend(const bt_launch *a, const bt_launch *b);

// Sets barrier[i] where launch i must see launches before it finished. The launches are run again
// and again: barrier[0] is between one step and the next. solo[i] (NULL: never): the launch is run
// by the one worker that runs all such launches in order, so two of them need no barrier. group
// (NULL: each its own): neighbours with the same number are run as one, which waits as a whole.
void bt_place_barriers(const bt_launch *launches, int count, const bool *solo, const int *group,
                       bool *barrier);

#endif
