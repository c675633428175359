/*
 * Lines on their way to the disk: they queue in memory in the order of their submission, and go to the file as many together
 * as came while the ones before were synced. Nothing here needs the interpreter.
 *
 * Whoever has the turn may touch the file. After a write or a sync that failed he who has it decides; nobody else goes on.
 */
#ifndef IMMURED_LEDGER_WRITER_H
#define IMMURED_LEDGER_WRITER_H

#include "ledger_awaited.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IMD_LEAF = 32 };

/* Lines that are written and synced together, newlines included, and their leaf hashes. */
struct imd_batch {
  struct imd_batch *next;
  size_t count, used, lines_room, leaves_room, ends_room;
  uint8_t *lines;
  uint8_t *leaves;
  uint32_t *ends;                      /* in `lines` */
};

/* How much may wait to be collected: entries; the first of them so long; bytes of the file. */
struct imd_patience { size_t entries; int64_t ns; uint64_t end; };

struct imd_writer {
  struct imd_awaited *awaited;         /* who waits for what is written here */
  size_t largest;                      /* bytes of a batch */

  /* For whoever has the turn. */
  int fd;                              /* the file; -1 where lines are taken with imd_writer_take and written elsewhere */
  bool synced;                         /* a sync is one */
  uint64_t end;                        /* in the file: where what was written ends */
  struct imd_batch *going;             /* a batch of which a part may be written */
  size_t gone;                         /* that part's bytes */
  int64_t took_ns;                     /* what the last sync took */
  uint64_t count;                      /* entries that are durable */
  int trouble;                         /* that nobody has seen to: an errno, negated where it was the sync's */

  pthread_mutex_t lock;                /* for what follows */
  pthread_cond_t work, free, news;     /* for whoever attends, waits for the turn, follows */
  bool taken, asleep, asked, stopping, stopped;
  unsigned waiting;                    /* for the turn, patiently */
  struct imd_batch *first, *last;      /* the queue */
  _Atomic size_t queued;               /* lines in it; whoever gathers looks at it without the lock */
  /*
   * As many callers as a batch had entries go on when it is durable, and most of them come with another. Until then the next
   * batch gathers, for a part of the time that sync took. Where syncs are swift, half of all who wait are enough, and no more go
   * together: so they make two batches in turn, of which one is written while the other gathers. Where they are not, as many
   * together as can be are the best.
   */
  size_t recent;                       /* callers who went on with the last batch */
  bool swift;                          /* its sync was */
  int64_t gather_until_ns;
  bool gathering;
  struct imd_batch *done, *done_last;  /* durable, and not yet collected */
  size_t done_count, done_size;        /* entries, bytes */
  uint64_t done_end;                   /* in the file: where it ends */
  struct imd_patience patience;        /* of whoever follows */
  int64_t done_ns;                     /* since when there is something in it */
  struct imd_batch *spare;
};

/* 0, or an errno. */
int imd_writer_begin(struct imd_writer *writer, struct imd_awaited *awaited, size_t largest);
void imd_writer_end(struct imd_writer *writer);

/* Queue a line, at most `largest` bytes; with `rouse` whoever attends is woken. 0, or ENOMEM, and then nothing is queued. */
int imd_writer_submit(struct imd_writer *writer, const uint8_t *line, size_t size, const uint8_t leaf[IMD_LEAF], bool rouse);

/* Have whoever attends write what is queued, and with `asked` whoever follows look. */
void imd_writer_rouse(struct imd_writer *writer, bool asked);

bool imd_writer_is_empty(struct imd_writer *writer);

/* The turn: as soon as it is free, or only if it is. */
void imd_writer_turn(struct imd_writer *writer);
bool imd_writer_try_turn(struct imd_writer *writer);
void imd_writer_give_turn(struct imd_writer *writer);

/*
 * With the turn: write and sync the batch that comes next, if there is one, and advance who awaits it. 0; an errno where a write
 * failed, of which nothing was taken, so that it may be tried again; an errno, negated, where the sync did.
 */
int imd_writer_commit(struct imd_writer *writer);

/* With the turn: take what would be written next, NULL for nothing. It is the caller's, to be given to imd_batch_free. */
struct imd_batch *imd_writer_take(struct imd_writer *writer);

/* How many entries are durable and not yet collected, and their bytes. */
size_t imd_writer_collectable(struct imd_writer *writer, size_t *size);

/* Collect so many of them, as imd_writer_collectable said, oldest first; NULL for none. The batches are the caller's. */
struct imd_batch *imd_writer_collect(struct imd_writer *writer, size_t count);
void imd_batch_free(struct imd_batch *batch);

/* Give one back to be used again. */
void imd_writer_spare(struct imd_writer *writer, struct imd_batch *batch);

/*
 * Commit what comes, in turns with others, until there is trouble, as imd_writer_commit says it (and will say to the next who has
 * the turn), or until imd_writer_stop: 0.
 */
int imd_writer_attend(struct imd_writer *writer);

/* Have imd_writer_attend return once all is written; `now`: as soon as may be. */
void imd_writer_stop(struct imd_writer *writer, bool now);

/*
 * Wait until somebody asked, or `deadline_ns` of CLOCK_MONOTONIC (INT64_MAX for never), or there is something to be collected: as
 * many entries as `patience` says, or the first of them for so long, or the file is `patience->end` bytes long. Where `fd` is -1,
 * until lines are queued.
 */
void imd_writer_follow(struct imd_writer *writer, int64_t deadline_ns, const struct imd_patience *patience);

#endif
