/* A file system of a bounded size in a file: what holds a volume where there are no project quotas. */
#ifndef IMMURED_LOOP_H
#define IMMURED_LOOP_H

#include "error.h"

#include <stdint.h>
#include <sys/stat.h>

/*
 * `volume`: a directory of `owner`'s, in which `image` lies or is made: root's own, or what is in it would be a stranger's
 * bytes for the kernel to mount. A detached mount of it, whose root is `owner`'s; the loop device goes with the last mount.
 * Waits for who has it still. Fails with IMD_STAGE_LAYER.
 */
int loop_open(int volume, const struct stat *owner, uint64_t size, uint64_t inodes, const char *name,
              struct imd_error *err);

#endif
