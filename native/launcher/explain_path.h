/* A path that another process named: where it leads, and whether something may be written there. In PID 1. */
#ifndef IMMURED_EXPLAIN_PATH_H
#define IMMURED_EXPLAIN_PATH_H

#include <stdbool.h>
#include <stddef.h>

struct explain_path {
  int pid;                         /* the thread that named it */
  int dir;                         /* its descriptor that the path starts at, or AT_FDCWD */
  const char *text;                /* NULL: what `dir` itself is */
};

enum explain_want {
  WANT_OPEN,                       /* with `flags` of open(2) */
  WANT_MAKE,
  WANT_REMOVE,
  WANT_REPLACE,                    /* a name that is new or another's */
  WANT_CHANGE,
};

/*
 * Is this a write where none is allowed: would the call get past "no such file" and "exists already", and is the mount
 * that it would write to read-only? Devices, FIFOs and sockets are not files of a mount. `follow`: a last symbolic link.
 */
bool explain_forbidden(const struct explain_path *path, enum explain_want want, int flags, bool follow);

/* Is there anything at all? Of a rename's first name. */
bool explain_exists(const struct explain_path *path);

/* The path for people, absolute where it can be told, at most `size` bytes, without NUL. Its length. */
size_t explain_path_text(const struct explain_path *path, char *text, size_t size);

/* The process that a thread belongs to; the thread itself where that cannot be told. */
int explain_process(int thread);

/* Before the first of these: they stand in /proc. */
void explain_path_settle(void);

#endif
