/* An order as a warden or keeper gets it: one packet with a plan, inline or as a memfd, and what it points into. */
#ifndef IMMURED_ORDER_H
#define IMMURED_ORDER_H

#include "error.h"
#include "message.h"
#include "run.h"

#include <stdbool.h>
#include <stddef.h>

enum { TERMINAL_FDS = 2 };         /* master and slave, which a keeper adds to an EXEC's descriptors */

struct order {
  void *packet, *plan_copy;
  size_t size;                     /* of the packet */
  struct imd_fds fds;
  uint32_t added;                  /* how many descriptors more an EXEC may have: what a keeper put behind the broker's */
  const void *plan;                /* checked */
};

/* Blocks for the next packet on `launcher`. False: its other end is gone, or talks no sense. */
bool order_wait(struct order *order, int launcher);

/*
 * A PREPARE or a CREATE, into `run`: whose it is, its plan, its number, and its descriptors: for a PREPARE stdio, GO's and the
 * log; for a CREATE the record in `*record`. They stay the order's to close.
 */
int order_read(struct order *order, struct run *run, int *record, uint32_t slot_base, struct imd_error *err);

/* An EXEC, likewise; `first` is the number of the first descriptor behind the plan's. The identity is not set. */
int order_read_exec(struct order *order, struct run *run, struct imd_exec *exec, uint32_t *first, struct imd_error *err);

/* The plan's words that more than one part needs. */
void order_read_plan(struct run *run, uint32_t slot_base);

/* Its descriptors; or all of it. */
void order_close(struct order *order);
void order_free(struct order *order);
#define cleanup_order __attribute__((cleanup(order_free)))

#endif
