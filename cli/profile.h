// The time of each operator, beside what the device's roofline would allow.
#ifndef CLI_PROFILE_H
#define CLI_PROFILE_H

#include "bantam.h"
#include <jansson.h>

// The rows of a profile, as --json prints them and op_timings.csv has them; percent sums to 100.
json_t *profile_rows(const bt_profile_row *rows, int count, const bt_roofline *roofline);
void profile_print(json_t *rows, const bt_roofline *roofline);

#endif
