// Files and folders that nobody else has: made under a name that was not there, never through a
// link that somebody laid out.
#ifndef BT_BASE_TEMPORARY_H
#define BT_BASE_TEMPORARY_H

#include <stdbool.h>
#include <stddef.h>

// Opens a new file beside `path`, since a rename works only within a file system, and puts its name
// into `name`. Returns the descriptor; -1: errno says why not.
int bt_temporary_file(const char *path, char *name, size_t name_bytes);

// Makes an empty folder of the user's own in $TMPDIR or the system's folder for such things.
bool bt_temporary_folder(char *name, size_t name_bytes);

#endif
