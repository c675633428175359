/* A run or a sandbox as the launcher has it; relay.c's and relay_sandboxes.c's own. */
#ifndef IMMURED_RELAY_RUN_H
#define IMMURED_RELAY_RUN_H

#include "relay.h"

#include <sys/queue.h>

enum {
  IMD_NAME_SPACE = 65,             /* of a tenant or sandbox, with its NUL; plan.c */
  IMD_MAX_SANDBOXES = 7000,        /* whose numbers one READY holds, beside a path */
};

enum imd_run_state {
  RUN_WAITING,                     /* for a cell */
  RUN_GIVEN,                       /* to its warden, which has not said that it is over */
  RUN_OVER,                        /* the broker knows; its warden is not gone yet */
};

struct imd_exec_entry;
TAILQ_HEAD(imd_exec_entries, imd_exec_entry);

struct imd_run {
  struct imd_node node;            /* key: the broker's number */
  TAILQ_ENTRY(imd_run) link;       /* among those that wait */
  enum imd_run_state state;
  uint32_t kind;                   /* enum imd_plan_kind: RUN or SANDBOX */
  bool kill_sent;
  struct imd_cell *cell;           /* NULL while it waits */
  char *letter;                    /* IMD_W_PREPARE's body, while it waits */
  size_t letter_size;
  struct imd_fds fds;              /* those that came with it, while it waits */
  char tenant[IMD_NAME_SPACE], sandbox[IMD_NAME_SPACE];
  struct imd_exec_entries execs;   /* of a sandbox */
};

/* The plan in place: in the packet, or mapped. */
struct imd_placed_plan {
  const void *bytes;
  size_t length;
  void *mapping;                   /* NULL: none */
};
void imd_plan_unmap(const struct imd_placed_plan *plan);
#define cleanup_plan __attribute__((cleanup(imd_plan_unmap)))

/*
 * A plan of `plan_length` behind `head` bytes of a packet, or in the first of its descriptors, checked and of `kind`; it
 * came with `wanted` descriptors, and no flags but `known`.
 */
struct imd_plan_letter {
  const char *packet;
  size_t length, head;
  uint32_t plan_length, flags, known, wanted, kind;
};
int imd_plan_place(const struct imd_plan_letter *letter, const struct imd_fds *fds, struct imd_placed_plan *plan,
                   struct imd_error *err);

/* To its warden. One that has ended may have said how it did: that is still to be read. One that takes no more is ended. */
void imd_run_tell(struct imd_launcher *launcher, struct imd_run *run, uint32_t type, uint64_t id, const void *body,
                  size_t size);

/* A live sandbox, that nobody ended; NULL. */
struct imd_run *imd_sandbox_find(const struct imd_launcher *launcher, uint64_t number);

/* A keeper says that an exec is over; false where it has none of this number. */
bool imd_exec_over(struct imd_launcher *launcher, struct imd_run *sandbox, uint64_t number);

/* What is left of a sandbox whose warden is gone: the broker has not heard of their ends. */
void imd_execs_lost(struct imd_launcher *launcher, struct imd_run *sandbox, const struct imd_error *error);

#endif
