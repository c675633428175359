/* The warden's part in pinning: which files are fixed, and what the broker is told of all of them. */
#ifndef IMMURED_PIN_WATCH_H
#define IMMURED_PIN_WATCH_H

#include "error.h"
#include "pin.h"

#include <stdint.h>

/*
 * The payload's process has opened them: copies of its descriptors of those that are root's, and nobody else's to write, in a
 * file system that answers by itself. The others it has to read.
 */
int pins_classify(struct pins *pins, int payload, int *fds, struct imd_error *err);

/* PINNED, with `fds`. 0, or -1 with errno. */
int pins_tell(const struct pins *pins, int outcomes, uint64_t run, const int *fds);

#endif
