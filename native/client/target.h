/* Which daemon to speak to, with which key: options, then --state, then the environment, then the system's. The Python
 * twins are cli/target.py and client/trust.py. */
#ifndef IMMURE_TARGET_H
#define IMMURE_TARGET_H

#include "keys.h"
#include "options.h"

#include <limits.h>
#include <sys/socket.h>
#include <sys/un.h>

struct imc_target {
  struct sockaddr_un address;
  uint8_t seed[IMC_SEED];
  struct imc_public daemon;
};

/* Settles the three and reads the keys. False: the Python command line reads it otherwise, or says what is wrong. */
bool imc_settle(struct imc_target *target, const struct imc_options *options, const char *here);

#endif
