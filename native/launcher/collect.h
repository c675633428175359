/* The files that a plan brings back. */
#ifndef IMMURED_COLLECT_H
#define IMMURED_COLLECT_H

#include "cell.h"
#include "guard.h"
#include "run.h"

/*
 * Opens them as the payload could, once nothing of it lives: `findings` gets their descriptors in the plan's order
 * and a bit for each that is there and a regular file. What lies in a caller's own file system comes as a copy of at
 * most max_bytes + 1 bytes, so that its reader waits for nobody. Fails where that takes longer than open_timeout_ms.
 */
int collect_files(const struct cell *cell, const struct run *run, struct findings *findings, struct imd_error *err);

#endif
