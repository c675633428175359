/* Exit statuses of `immure run` (README), and how a result becomes one. The Python twin is cli/exits.py. */
#ifndef IMMURE_EXITS_H
#define IMMURE_EXITS_H

#include "bytes.h"

enum {
  IMC_TIMEOUT = 124,
  IMC_REFUSED = 125,
  IMC_CANNOT_EXECUTE = 126,
  IMC_NOT_FOUND = 127,
  IMC_SIGNALLED = 128,
  IMC_KILLED = 137,
  IMC_NOBODY_READS = 141,
};

/* The exit status for a cause of the contract. `exit_code` and `signal` are -1 where the result has none; `failure` is
 * the code of a `setup_failed` result. */
int imc_status(struct imc_bytes cause, int64_t exit_code, int64_t signal, struct imc_bytes failure);

/* What is said about an end that was not the command's own; false for one that was. */
bool imc_explain(struct imc_bytes cause, struct imc_error *said);

#endif
