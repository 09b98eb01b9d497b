/* When did the disk have it? Preloaded into every contender, so that all are timed alike, whatever their language.
 *
 * A commit is durable when its fsync or fdatasync returns. A contender's call may do more after that (look again, ring,
 * clean up), so the end of the call is no common mark; this is one. It also counts, which shows that all sync equally. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { KEPT = 256 };
static _Atomic int64_t count, returned[KEPT];

static int (*real_fsync)(int), (*real_fdatasync)(int);

__attribute__((constructor)) static void look_up(void) {
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
}

static int timed(int (*sync)(int), int fd) {
    int result = sync(fd);
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    atomic_store(&returned[atomic_fetch_add(&count, 1) % KEPT], t.tv_sec * 1000000000LL + t.tv_nsec);
    return result;
}

int fsync(int fd) { return timed(real_fsync, fd); }
int fdatasync(int fd) { return timed(real_fdatasync, fd); }

/* How many returned so far. */
int64_t synced_count(void) { return atomic_load(&count); }

/* When the first one after `start` (CLOCK_MONOTONIC, ns) returned; 0: none did, or more than KEPT ago. */
int64_t synced_since(int64_t start) {
    int64_t end = atomic_load(&count), first = end > KEPT ? end - KEPT : 0;
    for (int64_t i = first; i < end; i++)
        if (atomic_load(&returned[i % KEPT]) > start) return atomic_load(&returned[i % KEPT]);
    return 0;
}
