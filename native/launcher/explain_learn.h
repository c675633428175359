/* In PID 1, of a run that is learned from: what the payload asked for, once each, into the file that the broker gave. */
#ifndef IMMURED_EXPLAIN_LEARN_H
#define IMMURED_EXPLAIN_LEARN_H

#include "protocol.h"

#include <stddef.h>
#include <stdint.h>

/* Where rows go: enum imd_learned_kind, then bounds of protocol.h. Nothing is told of a row that cannot be written. */
void explain_learn_note(int log, uint32_t kind, uint32_t number, const void *text, size_t length);

#endif
