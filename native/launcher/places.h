/*
 * A sandbox's own writable places: what is written there is nobody else's, counts against its disk, and can be saved
 * (snapshots) or handed over (change sets). Kept open in the cell for as long as it lives.
 */
#ifndef IMMURED_PLACES_H
#define IMMURED_PLACES_H

#include "protocol.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { IMD_MAX_PLACES = 64 };

enum place_kind {
  PLACE_TMPFS = 1,                 /* a file system of its own: /tmp and /dev/shm among them */
  PLACE_LAYER,                     /* what was written over something else, as overlayfs keeps it (layer.h) */
};

struct place {
  enum place_kind kind;
  char *target;                    /* inside; the place's own copy */
  int root;                        /* O_RDONLY directory: a tmpfs's root, or a layer's upper */
  int lower;                       /* O_PATH, of what lies below a layer, as the cell may read it; -1 */
  int saved;                       /* a saved layer, between this one and `lower`, as the cell may read it; -1 */
  int work;                        /* a layer's work directory; -1 */
  int stage;                       /* O_PATH, the file system that holds a layer: `lower`, `upper` and `work` in it; -1 */
  int accepted;                    /* of a captured directory: a memfd, what was accepted already (clerk_changes.h); -1 */
  char *source;                    /* of a captured directory: the caller's path; NULL: it is none */
  uint64_t device, inode;          /* of a captured directory, as its caller opened it: the source's */
  uint64_t attributes;             /* of a layer's mount, of mount_setattr(2) */
  uint64_t made_ns;                /* CLOCK_REALTIME */
};

struct places {
  struct place at[IMD_MAX_PLACES];
  uint32_t count;
  /* Of a sandbox with captured directories: shared with its clerks. One that lays a layer anew says so before; when it has
     ended, there must be as many mounts as before, or something else went meanwhile. */
  _Atomic pid_t *relaying;         /* 0: none */
  uint32_t mounts;                 /* in the cell, once all are made */
};

/*
 * One more. Its descriptors are of its own, and those given stay the caller's (-1: none); kind, target, source and the
 * figures are copied, made_ns is set. -1 with errno: E2BIG beyond IMD_MAX_PLACES.
 */
int places_add(struct places *places, const struct place *place);

/* The place whose root is what stands at `target`; NULL. */
struct place *places_find(struct places *places, const char *target);

void places_close(struct places *places);

#endif
