/* What a system call would do to which file or address: the arguments that say so. */
#ifndef IMMURED_EXPLAIN_CALLS_H
#define IMMURED_EXPLAIN_CALLS_H

#include <stdint.h>

enum effect {
  EFFECT_OPEN,                     /* opens, perhaps creates */
  EFFECT_MAKE,                     /* a new name */
  EFFECT_REMOVE,                   /* a name goes */
  EFFECT_RENAME,                   /* the first goes, the second comes (and may replace one) */
  EFFECT_CHANGE,                   /* what is there, or its inode */
  EFFECT_CONNECT,
  EFFECT_LOOK,                     /* nothing, and it depends on what is there: of runs that are learned from alone */
  EFFECT_EXEC,                     /* likewise */
  EFFECT_BIND,                     /* likewise, an address of its own */
};

enum { NO_ARGUMENT = -1 };

/* Numbers of arguments, NO_ARGUMENT where there is none. Without `path`, `dir` is the file's own descriptor. */
struct call_shape {
  int number;
  enum effect effect;
  int8_t dir, path, flags;
  int8_t dir2, path2;              /* RENAME's second */
  int32_t nofollow;                /* this bit of `flags`; -1: it never follows a last link */
  int32_t open_flags;              /* of an open without flags */
};

/* NULL: nothing is known of this call but its number. */
const struct call_shape *explain_shape(int number);

#endif
