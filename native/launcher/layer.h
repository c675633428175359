/*
 * A directory of the caller's that may be written to without being changed: what is written goes to a tmpfs of the
 * cell's, over it as it is (overlayfs), and ends with the cell. For runs that are learned from (docs/adr/0016), and for
 * captured directories (docs/changes.md), whose layer can be looked at and handed over.
 */
#ifndef IMMURED_LAYER_H
#define IMMURED_LAYER_H

#include "error.h"
#include "places.h"
#include "run.h"

#include <stdint.h>

/*
 * `attributes` are the mount's, of mount_setattr(2). `lower`: a detached mount, read-only and mapped as any other source. `target`: the place, which the layered directory
 * then stands at. Its descriptor in `*made`. -1 with `err`; what of it is mounted by then the cell's end takes along.
 */
int layer_attach(const struct run *run, int lower, int target, const char *path, uint64_t attributes, int *made,
                 struct imd_error *err);

/* A layer that is kept in the places. `lower`, `saved` and `source` as in struct place; `source` NULL: not one to hand over. */
struct layer {
  const char *target, *source;
  int lower, saved;
  uint64_t size, inodes, attributes;
  uint64_t device, inode;
};

/* Its file system, not attached yet, and its place, the last of `places`. Touches nothing of the caller's. */
int layer_prepare(struct places *places, const struct layer *layer, struct imd_error *err);

/* It stands at `target`, once. Looks at the caller's directory: under a deadline (guard.h). */
int layer_lay(const struct place *place, int target, int *made, struct imd_error *err);

/* Anew where it stood, over what its upper directory holds now; the former mount of it is gone. */
int layer_lay_again(const struct place *place, int *made, struct imd_error *err);

#endif
