/* The launcher's command line, which the broker writes. */
#ifndef IMMURED_OPTIONS_H
#define IMMURED_OPTIONS_H

#include <stdint.h>

struct imd_options {
  int control_fd;                  /* SEQPACKET, to the broker */
  int outcome_fd;                  /* SEQPACKET: the wardens' way to the broker */
  int lock_fd;                     /* kept open for as long as anything of ours lives, -1: none */
  const char *socket;
  const char *cgroup;              /* our own subtree, NULL: none */
  uint32_t slot_base, slot_count;
  uint32_t pool_min, pool_max;
  uint32_t max_connections;
  int open_timeout_ms;
  char **grant_read, **grant_write;   /* NULL-terminated, absolute */
};

/* The strings stay argv's. -1 after a line on stderr that names the option. */
int imd_options_parse(struct imd_options *options, int argc, char **argv);

#endif
