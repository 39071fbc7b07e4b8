// Files that a later run may use again: below $XDG_CACHE_HOME/bantam, or ~/.cache/bantam. A help
// and no more: whatever goes wrong with one, the work is done as if there were none.
#ifndef BT_BASE_CACHE_H
#define BT_BASE_CACHE_H

#include <stdbool.h>
#include <stddef.h>

enum { BT_CACHE_PATH_BYTES = 1024 };

// The path of file `name`. make: its folder is made when it is missing. false: there is no place.
bool bt_cache_path(const char *name, bool make, char path[BT_CACHE_PATH_BYTES]);

// Reads the file: `head_bytes` into head, and what follows, to be freed. NULL: it is not there, or
// has nothing after the head, or more than bytes_max.
unsigned char *bt_cache_read(const char *name, void *head, size_t head_bytes, size_t bytes_max,
                             size_t *bytes);

// Writes head and data to a temporary name, then renames: nobody ever sees half a file.
void bt_cache_write(const char *name, const void *head, size_t head_bytes, const void *data,
                    size_t bytes);

#endif
