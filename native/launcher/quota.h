/* Project quotas: what bounds a directory, and everything beneath it, in bytes and in files. */
#ifndef IMMURED_QUOTA_H
#define IMMURED_QUOTA_H

#include "error.h"

#include <stdbool.h>
#include <stdint.h>

/* Whether the file system of this directory refuses what is beyond a project's limit. */
bool quota_is_enforced(int directory);

/*
 * The directory's project has these limits from now on; it gets one of its own if it has none yet, which only an empty one
 * may. The caller sees to it that no other does the same meanwhile. Fails with IMD_STAGE_LAYER.
 */
int quota_bound(int directory, uint64_t bytes, uint64_t inodes, const char *name, struct imd_error *err);

#endif
