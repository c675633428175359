/* The options as one order: the arguments of the command `run`. Python twins: cli/flags.py and client/order.py. */
#ifndef IMMURE_ORDER_H
#define IMMURE_ORDER_H

#include "options.h"
#include "pack.h"
#include "paths.h"

struct imc_order {
  const struct imc_options *options;
  struct imc_bound *bounds;        /* of --ro, then of --rw */
  size_t readable, writable;
  char cwd[PATH_MAX];
  bool has_cwd;
  bool no_input;                   /* descriptor 0 is a directory: nothing to read */
};

/* False: for the Python command line. */
bool imc_make_order(struct imc_order *order, const struct imc_options *options, const char *here);

/* The directories of --rw that do not exist yet, made as who we are; a note for each. False: for the Python command
 * line. */
bool imc_prepare_writable(const struct imc_order *order);

/* Writes the map `args`. False: for the Python command line. */
bool imc_put_arguments(struct imc_pack *pack, const struct imc_order *order);

#endif
