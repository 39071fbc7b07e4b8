// NumPy's .npz files, zips of .npy files, as numpy.savez and savez_compressed write them. What is
// read looks like a safetensors file to the rest of the library. docs/formats.md says what is
// refused.
#ifndef BT_DATA_NPZ_H
#define BT_DATA_NPZ_H

#include "data/file.h"
#include "data/safetensors.h"

bool bt_is_zip(bt_bytes file);

// As bt_st_open; names come without ".npy", and arrays in Fortran order are turned into C order.
bt_status bt_npz_open(const char *path, bt_error *err, bt_st_file *out) BT_MUST_CHECK;

// Opens a safetensors or an .npz file, told by its content.
bt_status bt_tensors_open(const char *path, bt_error *err, bt_st_file *out) BT_MUST_CHECK;

// F32, F64, I32 or U8 tensors, uncompressed, in the given order; the same bytes every time.
bt_status bt_npz_write(const char *path, const bt_st_tensor *tensors, int count,
                       bt_error *err) BT_MUST_CHECK;

#endif
