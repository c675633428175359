/* The launcher's command line, which the broker writes. */
#ifndef IMMURED_OPTIONS_H
#define IMMURED_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum { IMD_MAX_LOCKS = 4 };

struct imd_options {
  int control_fd;                  /* SEQPACKET, to the broker that started this, -1: none did */
  int lock_fds[IMD_MAX_LOCKS];     /* kept open for as long as anything of ours lives, -1: none */
  int listen_fd;                   /* listens for clients already, -1: `socket` is made */
  bool standing;                   /* no broker started this: it waits for one, whether or not there are sandboxes */
  const char *control;             /* where brokers find this, NULL: none but the first */
  uint32_t broker_uid;             /* who they are */
  int orphan_ms;                   /* how long sandboxes live without one */
  const char *program;             /* what SIGHUP has it become, NULL: nothing */
  int state_fd;                    /* what the launcher that this was before has written, -1: there was none */
  int64_t takes_over;              /* only asked whether it would read such a state, -1: no */
  char **words;                    /* the command line */
  const char *socket;
  const char *cgroup;              /* our own subtree, NULL: none */
  uint32_t slot_base, slot_count;
  uint32_t pool_min, pool_max;
  uint32_t max_connections;
  int open_timeout_ms;
  const char *storage;             /* absolute; the directory of volumes, snapshots and images, NULL: none */
  char **grant_read, **grant_write;   /* NULL-terminated, absolute */
};

/* The strings stay argv's. -1 after a line on stderr that names the option. */
int imd_options_parse(struct imd_options *options, int argc, char **argv);

#endif
