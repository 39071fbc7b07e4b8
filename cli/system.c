// See system.h.
#include "system.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifdef __APPLE__

#include <pthread/qos.h>

// Niceness is of the process there; a class of service is of the thread.
void give_way(const char *name) {
    pthread_set_qos_class_self_np(QOS_CLASS_UTILITY, 0);
    pthread_setname_np(name);
}

void condition_make(pthread_cond_t *condition) {
    pthread_cond_init(condition, NULL);
}

bool condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    return !pthread_cond_timedwait_relative_np(condition, lock, &time);
}

#else

enum { NICENESS = 10 };

// (On Linux niceness is of the thread, not of the process.)
void give_way(const char *name) {
    (void)!setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS);
    pthread_setname_np(pthread_self(), name);
}

void condition_make(pthread_cond_t *condition) {
    pthread_condattr_t how;
    pthread_condattr_init(&how);
    pthread_condattr_setclock(&how, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &how);
    pthread_condattr_destroy(&how);
}

bool condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += milliseconds % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    return !pthread_cond_timedwait(condition, lock, &until);
}

#endif
