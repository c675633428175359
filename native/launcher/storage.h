/*
 * What of the daemon's own is mounted in a cell: volumes and saved trees, which are the broker's user's, and images, which
 * are the operator's. They lie beneath one directory of root's (`--storage`, the state directory), and are named, never
 * pathed: a broker that was taken over reaches nothing else by them.
 */
#ifndef IMMURED_STORAGE_H
#define IMMURED_STORAGE_H

#include "error.h"
#include "plan.h"
#include "warden.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether this operation mounts something of the storage, and which of its strings is the name. */
bool storage_is_source(uint32_t op);

struct stored { int mount; uid_t uid; gid_t gid; };   /* `mount`: detached; whose the directory is */

/*
 * The caller is root in the host's mount namespace. A volume that is used for the first time is made: bounded by a project
 * quota where its file system enforces them, else a file system of its size in a file; never unbounded. Fails with
 * IMD_STAGE_LAYER.
 */
int storage_open(const struct warden_config *config, const struct imd_plan_step *step, struct stored *stored,
                 struct imd_error *err);

/* The directory `name` ("TENANT/NAME") of a collection ("snapshots"), as O_RDONLY; for who is root. */
int storage_find(const struct warden_config *config, const char *collection, const char *name, struct imd_error *err);

#endif
