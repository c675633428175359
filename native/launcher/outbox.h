/*
 * What the broker is told. A full socket keeps packets here, in order; while anything waits, the launcher reads from
 * nobody but the parker, so that what waits is bounded by what was in hand.
 */
#ifndef IMMURED_OUTBOX_H
#define IMMURED_OUTBOX_H

#include "error.h"
#include "message.h"

#include <stdbool.h>
#include <sys/queue.h>

struct imd_letter;
STAILQ_HEAD(imd_letters, imd_letter);

struct imd_outbox {
  int broker;                      /* SEQPACKET */
  bool broken;                     /* the broker is gone: nothing is kept or sent */
  struct imd_letters letters;
};

void imd_outbox_open(struct imd_outbox *outbox, int broker);

/* Sends, or keeps, one packet. Descriptors are the caller's still. */
void imd_outbox_put(struct imd_outbox *outbox, uint32_t type, uint64_t id, const void *body, size_t size,
                    const int *fds, uint32_t nfds);

/* IMD_FAILED for a run. */
void imd_outbox_fail(struct imd_outbox *outbox, uint64_t run, const struct imd_error *error);

/* Does something wait? Then flush when the socket is writable. */
static inline bool imd_outbox_waits(const struct imd_outbox *outbox)
{
  return !STAILQ_EMPTY(&outbox->letters);
}
void imd_outbox_flush(struct imd_outbox *outbox);

#endif
