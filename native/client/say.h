/* What the command line says besides a command's own output: on stderr, with nothing of a stranger's as a control
 * character. Ends the process with 141 when nobody reads any more, with 125 when it cannot be written. */
#ifndef IMMURE_SAY_H
#define IMMURE_SAY_H

#include "bytes.h"

/* `immure: <code>: <message>` and, where there is one, a `remedy:` line. */
void imc_complain(struct imc_bytes code, struct imc_bytes message, struct imc_bytes remedy);

/* The same, of an error of our own. */
void imc_complain_of(const struct imc_error *err);

/* `immure: note: ` and the parts, one behind the other. */
void imc_note(const struct imc_bytes *parts, size_t count);

#endif
