/* Small things that every part needs: resources that free themselves, whole reads and writes, time, the log. */
#ifndef IMMURED_UTIL_H
#define IMMURED_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static inline void imd_cleanup_fd(const int *fd)
{
  if (*fd >= 0) {
    const int saved = errno;
    close(*fd);
    errno = saved;
  }
}

static inline void imd_cleanup_free(void *pointer)
{
  free(*(void **)pointer);
}

#define cleanup_fd __attribute__((cleanup(imd_cleanup_fd), unused))
#define cleanup_free __attribute__((cleanup(imd_cleanup_free), unused))

/* Hands a descriptor on: the variable forgets it, so that its cleanup does not close it. */
static inline int imd_take_fd(int *fd)
{
  const int taken = *fd;
  *fd = -1;
  return taken;
}

static inline void imd_close(int *fd)
{
  imd_cleanup_fd(fd);
  *fd = -1;
}

/*
 * Closes what a stranger made, or may have passed descriptors to: whoever closes a socket that lingers (SO_LINGER) as the last
 * one waits for as long as its owner said, and so does who closes a connection with such a one among what was never read.
 * Not we: a signal ends that wait, and here there is one every millisecond. What is -1 is none; all are -1 afterwards.
 */
void imd_drop(int *fds, size_t count);

static inline void imd_cleanup_dropped(int *fd)
{
  imd_drop(fd, 1);
}

#define cleanup_dropped __attribute__((cleanup(imd_cleanup_dropped), unused))

/* Whole reads and writes: EINTR and short counts are seen to. Read returns less than `size` at the end of the file. */
ssize_t imd_read_full(int fd, void *buffer, size_t size);
int imd_write_full(int fd, const void *buffer, size_t size);

/* A small file below `dir` (cgroup and proc knobs). Read NUL-terminates and fails with E2BIG when it does not fit. */
ssize_t imd_read_at(int dir, const char *path, char *buffer, size_t size);
int imd_write_at(int dir, const char *path, const char *text);

/* Closes every descriptor above 2 but those of `keep` (-1: none; any order; changed here). */
void imd_close_others(int *keep, size_t count);

/* Memory, zeroed. Ends the process without it: everything that it ran is then ended by the wardens. */
void *imd_allocate(size_t size);

/*
 * Every signal's disposition the default. By the call itself: the C library refuses the two that it keeps for its threads,
 * and its posix_spawn leaves them ignored.
 */
void imd_reset_signals(void);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t imd_now_ns(void);

/* One line to stderr, in one write, after the name of the process. Keeps errno. */
void imd_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
