/*
 * The clerk for snapshots: copies each of the sandbox's own writable places into a directory of the broker's, once, with ids
 * that are nobody's slot. The clerk becomes the broker's user, who writes; what is left of root is the right to read.
 * A place N is the directory N there: a tmpfs as it is, or what was changed in a captured directory or a layered root.
 */
#ifndef IMMURED_CLERK_SNAPSHOT_H
#define IMMURED_CLERK_SNAPSHOT_H

#include "clerk_snapshot_words.h"

/* On a saved layer's directory: the place's made_ns, uint64_t. Only root sets and sees such. */
#define IMD_SNAPSHOT_MADE "trusted.immured.made_ns"

#endif
