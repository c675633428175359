/* What the walls refused, a note each: it may be why the command failed. The Python twin is cli/run.py. */
#ifndef IMMURE_VIOLATIONS_H
#define IMMURE_VIOLATIONS_H

#include "unpack.h"

/* `rows` is a result's `violations`: the first of them as they are, of many of a kind their count. */
void imc_note_violations(const struct imc_value *rows);

#endif
