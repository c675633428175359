/* What one launcher writes and the next one reads. Whoever changes this, or what launcher and keeper say, counts it up. */
#ifndef IMMURED_UPGRADE_STATE_H
#define IMMURED_UPGRADE_STATE_H

#include "launcher.h"
#include "relay_run.h"

#include <stdint.h>

enum { IMD_UPGRADE_NUMBER = IMD_PROTOCOL_VERSION << 16 | 3 };
#define IMD_UPGRADE_MAGIC 0x55444d49u  /* "IMDU" */

/* Then `cells` imd_kept_cell, `runs` imd_kept_run, `execs` imd_kept_exec, `peers` imd_kept_peer with their groups. */
struct imd_kept_head {
  uint32_t magic, number, size;
  uint32_t slots, slot_base;
  uint32_t controllers, swap;
  uint32_t cells, runs, execs, peers;
  uint32_t paused, failed;
  uint32_t generation;             /* of the parker that was the newest */
  int32_t broker, outcomes[2], control, control_directory, listener, listener_directory, subtree, processors, counts;
  int32_t parkers[IMD_MAX_PARKERS];
  uint32_t generations[IMD_MAX_PARKERS];
  uint64_t next_connection, alone_until;
  struct imd_address control_address, listener_address;
};

struct imd_kept_cell { uint64_t number; uint32_t slot, state, generation; int32_t socket; };
struct imd_kept_run {
  uint64_t number;
  uint32_t slot, kind, state, kill_sent;
  char tenant[IMD_NAME_SPACE], sandbox[IMD_NAME_SPACE];
};
struct imd_kept_exec { uint64_t number, sandbox; };
struct imd_kept_peer { uint64_t number; uint32_t uid, gid; int32_t pid; uint32_t ngroups; };

/* relay_sandboxes.c's: how many execs there are, written; and one that a sandbox has. */
uint32_t imd_execs_write(const struct imd_launcher *launcher, struct imd_kept_exec *execs);
void imd_exec_note(struct imd_launcher *launcher, uint64_t number, struct imd_run *sandbox);

#endif
