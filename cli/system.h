// What differs between Linux and macOS, for the command.
#ifndef CLI_SYSTEM_H
#define CLI_SYSTEM_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>

#ifdef __APPLE__
#define st_mtim st_mtimespec // of struct stat
#endif

// The calling thread, and those it starts if they call this too, gives way to all others; `name` is
// what tools that list threads show of it.
void give_way(const char *name);

// A condition, and waiting for it: at most so many milliseconds of a clock that nobody sets. False:
// they are over.
void condition_make(pthread_cond_t *condition);
bool condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int milliseconds);

#endif
