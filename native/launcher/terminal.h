/* An exec's terminal: a pair of the cell's own devpts. */
#ifndef IMMURED_TERMINAL_H
#define IMMURED_TERMINAL_H

#include "cell.h"
#include "error.h"
#include "run.h"

#include <stdint.h>

/* Of the plan's TERMINAL: `*master`, which does not block, and `*slave`, the payload's. Fails with IMD_STAGE_TERMINAL. */
int terminal_open(const struct cell *cell, const struct run *run, uint64_t rows, uint64_t columns, int *master, int *slave,
                  struct imd_error *err);

void terminal_resize(int master, uint64_t rows, uint64_t columns);

#endif
