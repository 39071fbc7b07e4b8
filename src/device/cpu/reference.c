// The plain kernels in both types (see reference.inc).
#include "device/cpu/worker.h"

#include <math.h>

#define REAL         double
#define FN(name)     name##_f64
#define MATH(name)   name
#define KERNEL_TABLE bt_cpu_reference_f64
#include "device/cpu/reference.inc"
#undef REAL
#undef FN
#undef MATH
#undef KERNEL_TABLE

#define REAL         float
#define FN(name)     name##_f32
#define MATH(name)   name##f
#define KERNEL_TABLE bt_cpu_reference_f32
#include "device/cpu/reference.inc"
