/*
 * A directory of the caller's that may be written to without being changed: what is written goes to a tmpfs of the
 * cell's, over it as it is (overlayfs), and ends with the cell. For runs that are learned from (docs/adr/0016).
 */
#ifndef IMMURED_LAYER_H
#define IMMURED_LAYER_H

#include "error.h"
#include "run.h"

#include <stdint.h>

/*
 * `attributes` are the mount's, of mount_setattr(2). `lower`: a detached mount, read-only and mapped as any other source. `target`: the place, which the layered directory
 * then stands at. Its descriptor in `*made`. -1 with `err`; what of it is mounted by then the cell's end takes along.
 */
int layer_attach(const struct run *run, int lower, int target, const char *path, uint64_t attributes, int *made,
                 struct imd_error *err);

#endif
