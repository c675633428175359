/* The one interface of a cell's network. */
#ifndef IMMURED_LOOPBACK_H
#define IMMURED_LOOPBACK_H

#include "error.h"

#include <stdbool.h>

/* lo of the caller's network namespace goes up or down. 0, or -1 with IMD_STAGE_NETWORK. */
int loopback_set(bool up, struct imd_error *err);

#endif
