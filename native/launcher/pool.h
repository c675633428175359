/*
 * The cells: which range of ids each has, which wait parked, how many should. A cell's place in `cells` is its slot,
 * and is used again only after the parker has said that the warden before is gone.
 */
#ifndef IMMURED_POOL_H
#define IMMURED_POOL_H

#include "error.h"
#include "message.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct imd_run;

enum imd_cell_state {
  IMD_CELL_FREE,
  IMD_CELL_PARKING,                /* asked of the parker; not ready yet */
  IMD_CELL_PARKED,
  IMD_CELL_TAKEN,                  /* has its run */
  IMD_CELL_ENDING,                 /* its socket is closed; the parker has yet to say that it is gone */
  IMD_CELL_RETIRED,                /* nobody knows what still has its ids */
};

struct imd_cell {
  TAILQ_ENTRY(imd_cell) link;      /* among the free or the parked */
  enum imd_cell_state state;
  uint64_t number;                 /* of the cell, never used twice; modulo the slots, its slot */
  int socket;                      /* to the warden, -1: none */
  uint32_t generation;             /* of the parker that made it */
  struct imd_run *run;             /* the run that it has, until that is reported */
};
TAILQ_HEAD(imd_cells, imd_cell);

struct imd_pool {
  struct imd_cell *cells;
  uint32_t slot_base, slots;
  uint32_t min, max;
  uint32_t target;                 /* how many should be parked, from min to max */
  uint32_t parked, parking, busy;  /* busy: neither free nor retired */
  uint32_t at_once;                /* most that park at the same time */
  struct imd_cells free_cells;     /* first in, first out: a range of ids rests for as long as it can */
  struct imd_cells parked_cells;   /* last in, first out: warm */
  int parker;                      /* SEQPACKET */
  uint32_t generation;             /* which it is */
  int epoll;                       /* wardens' sockets are watched here, as their slot */

  uint64_t put_off;                /* ns: refill then at the latest, for the sake of a run in hand; 0: not put off */
  uint32_t failures;               /* cells in a row that could not be made */
  uint64_t not_before;             /* ns: no other attempt before */
  struct imd_error failure;        /* why the last one was not */
  uint64_t review;                 /* ns: when to see whether fewer would do; UINT64_MAX: at the minimum */
  uint32_t low_water;              /* fewest parked since the last review */
};

void imd_pool_open(struct imd_pool *pool, uint32_t slot_base, uint32_t slots, uint32_t min, uint32_t max, int parker,
                   int epoll);

/* A parked cell, now this run's; NULL when there is none, and then the pool grows. */
struct imd_cell *imd_pool_take(struct imd_pool *pool, struct imd_run *run);

/*
 * Asks for what is missing, for `waiting` runs and the target; lets go of what is too much. While the broker is
 * `engaged` with runs and half the target is there, it does so a little later. -1: the parker is gone.
 */
int imd_pool_tend(struct imd_pool *pool, uint32_t waiting, bool engaged);

/* When to tend next without another reason (imd_now_ns), UINT64_MAX: never. */
uint64_t imd_pool_wake(const struct imd_pool *pool, uint32_t waiting);

/* No cell could be made, repeatedly: runs that waited for the last attempt should hear pool->failure. */
bool imd_pool_failing(const struct imd_pool *pool);

/* The cell of this number, NULL when it is gone. */
struct imd_cell *imd_pool_find(struct imd_pool *pool, uint64_t number);

/* What the parker said. `made` takes the socket; `gone` answers the run that the cell had, or NULL. */
void imd_pool_made(struct imd_pool *pool, uint64_t number, int socket);
struct imd_run *imd_pool_gone(struct imd_pool *pool, struct imd_cell *cell, const struct imd_p_gone *gone);

/* What a warden said. */
void imd_pool_ready(struct imd_pool *pool, struct imd_cell *cell);
void imd_pool_failed(struct imd_pool *pool, const struct imd_error *failure);

/* Ends the warden by closing its socket; it kills its cell. */
void imd_pool_close(struct imd_pool *pool, struct imd_cell *cell);
void imd_pool_close_all(struct imd_pool *pool);
void imd_pool_close_parked(struct imd_pool *pool);

/* A cell as another launcher had it (upgrade.h), in a pool that is new. It does not park. -1: no such slot is free. */
int imd_pool_restore(struct imd_pool *pool, uint32_t slot, uint64_t number, uint32_t state, uint32_t generation,
                     int socket);

/* Whether a cell is left that the parker of this generation made. */
bool imd_pool_has(const struct imd_pool *pool, uint32_t generation);

#endif
