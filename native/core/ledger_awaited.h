/*
 * How many of the ledger's entries are durable, and who waits for one: threads, and event loops with one bell each. Everything
 * here may be called from any thread, without the interpreter's lock; nothing here waits for it.
 */
#ifndef IMMURED_LEDGER_AWAITED_H
#define IMMURED_LEDGER_AWAITED_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

enum imd_heard {
  IMD_HEARD_DURABLE,
  IMD_HEARD_LOST,                      /* and so is all that comes */
  IMD_HEARD_LATE,                      /* the time is up */
  IMD_HEARD_SIGNAL,                    /* a signal came */
};

/* An event loop's: its descriptor is readable once something that is waited for there is durable, or nothing more will be. */
struct imd_bell {
  struct imd_bell *next;
  uint64_t lowest;                     /* no entry before this one is waited for; changed by the loop's own thread alone */
  int fd;                              /* an eventfd; -1 for none */
  bool rung;                           /* it is readable, and the loop has not looked yet */
};

struct imd_awaiting;

struct imd_awaited {
  _Atomic uint64_t count;              /* entries that are durable: changed under the lock, looked at by anybody */
  pthread_mutex_t lock;                /* for all that follows */
  bool lost;                           /* there will be no more */
  struct imd_bell *bells;
  struct imd_awaiting *threads;
};

/* 0, or an errno. */
int imd_awaited_begin(struct imd_awaited *awaited, uint64_t count);

/* Nobody waits any more, and there are no bells. */
void imd_awaited_end(struct imd_awaited *awaited);

/* Entries below `count` are durable; less than it was changes nothing. */
void imd_awaited_advance(struct imd_awaited *awaited, uint64_t count);

/* Nothing more will be durable. */
void imd_awaited_lose(struct imd_awaited *awaited);

/* Entries that are durable. */
uint64_t imd_awaited_count(struct imd_awaited *awaited);

/* Wait in this thread until the entry `seq` is durable, at most until `deadline_ns` of CLOCK_MONOTONIC; INT64_MAX for ever. */
enum imd_heard imd_awaited_wait(struct imd_awaited *awaited, uint64_t seq, int64_t deadline_ns);

/* 0, or an errno. */
int imd_bell_hang(struct imd_awaited *awaited, struct imd_bell *bell);

/* Have it ring once the entry `seq` is durable: soon, where that is so already. */
void imd_bell_expect(struct imd_awaited *awaited, struct imd_bell *bell, uint64_t seq);

/* It is silent again, and expects nothing. How many entries are durable, and whether there will be no more. */
uint64_t imd_bell_heard(struct imd_awaited *awaited, struct imd_bell *bell, bool *lost);

/* Have it ring now. */
void imd_bell_ring(struct imd_awaited *awaited, struct imd_bell *bell);

/* Close it; it may have been taken down. */
void imd_bell_take_down(struct imd_awaited *awaited, struct imd_bell *bell);

#endif
