/*
 * What every cell's view starts from: the host's programs, the few files of its /etc that programs need, device nodes.
 * Made once, in a mount namespace of its own, which each cell's is a copy of: a cell only moves these mounts to its root.
 */
#ifndef IMMURED_TEMPLATE_H
#define IMMURED_TEMPLATE_H

#include "error.h"
#include "protocol.h"

#include <stdint.h>
#include <time.h>

/* Below the template's root, where the host has them; NULL at the end. Links on a host with a merged /usr. */
extern const char *const template_programs[];

/* In the template's dev, out of a cell's reach: a mount lies on shm there. */
#define TEMPLATE_EMPTY_DIRECTORY "shm/empty"
#define TEMPLATE_EMPTY_FILE "shm/file"

/* The root of the calling process's mount namespace, which no other process uses, becomes the template. */
int template_make(struct imd_error *err);

struct template {
  int host_etc;                    /* -1: not made yet */
  struct timespec changed;         /* of the host's /etc, when this template was made of it */
};

/*
 * Moves the calling process into a new mount namespace whose root is the template, unless it is there already and the
 * host's /etc has not changed since (programs replace its files by rename, and a mount of one goes on showing the
 * old). What else is lent is seen as the host has it.
 */
int template_refresh(struct template *template, int host_mounts, struct imd_error *err);

/* `name` in `from` at the same name in `to`: a link as a link, else mounted; what is not there is passed over. */
int template_borrow(int from, int to, const char *name, uint64_t attributes, struct imd_error *err);

#endif
