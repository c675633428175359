#include "ledger_awaited.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* On the stack of the thread that waits. */
struct imd_awaiting {
  struct imd_awaiting *next;
  uint64_t seq;
  sem_t due;
};

static void unlock(pthread_mutex_t **lock)
{
  pthread_mutex_unlock(*lock);
}

/* Until the end of the block. */
#define LOCKED(awaited)                                                                                                     \
  __attribute__((cleanup(unlock))) pthread_mutex_t *locked = &(awaited)->lock;                                              \
  pthread_mutex_lock(locked)

int imd_awaited_begin(struct imd_awaited *awaited, uint64_t count)
{
  *awaited = (struct imd_awaited){.count = count};
  return pthread_mutex_init(&awaited->lock, NULL);
}

void imd_awaited_end(struct imd_awaited *awaited)
{
  pthread_mutex_destroy(&awaited->lock);
}

static void ring(struct imd_bell *bell)
{
  const uint64_t once = 1;
  if (bell->rung)
    return;
  bell->rung = true;
  /* It is a counter that was zero: nothing is written short, and it is never full. */
  while (write(bell->fd, &once, sizeof once) < 0 && errno == EINTR)
    ;
}

/* Whoever is due hears of it. */
static void tell(struct imd_awaited *awaited)
{
  for (struct imd_bell *bell = awaited->bells; bell != NULL; bell = bell->next)
    if (awaited->lost || bell->lowest < awaited->count)
      ring(bell);
  for (struct imd_awaiting **at = &awaited->threads, *one; (one = *at) != NULL;) {
    if (awaited->lost || one->seq < awaited->count) {
      *at = one->next;
      sem_post(&one->due);             /* from here on it may be gone */
    } else {
      at = &one->next;
    }
  }
}

void imd_awaited_advance(struct imd_awaited *awaited, uint64_t count)
{
  LOCKED(awaited);
  if (count > awaited->count) {
    awaited->count = count;
    tell(awaited);
  }
}

void imd_awaited_lose(struct imd_awaited *awaited)
{
  LOCKED(awaited);
  awaited->lost = true;
  tell(awaited);
}

uint64_t imd_awaited_count(struct imd_awaited *awaited)
{
  return awaited->count;
}

/* Whether somebody told it already: then it is in the list no more. */
static bool withdraw(struct imd_awaited *awaited, struct imd_awaiting *mine)
{
  LOCKED(awaited);
  for (struct imd_awaiting **at = &awaited->threads; *at != NULL; at = &(*at)->next) {
    if (*at == mine) {
      *at = mine->next;
      return false;
    }
  }
  return true;
}

static bool begins_to_wait(struct imd_awaited *awaited, struct imd_awaiting *mine, enum imd_heard *heard)
{
  LOCKED(awaited);
  if (mine->seq < awaited->count || awaited->lost) {
    *heard = mine->seq < awaited->count ? IMD_HEARD_DURABLE : IMD_HEARD_LOST;
    return false;
  }
  sem_init(&mine->due, 0, 0);
  mine->next = awaited->threads;
  awaited->threads = mine;
  return true;
}

enum imd_heard imd_awaited_wait(struct imd_awaited *awaited, uint64_t seq, int64_t deadline_ns)
{
  struct imd_awaiting mine = {.seq = seq};
  enum imd_heard heard = IMD_HEARD_DURABLE;
  if (!begins_to_wait(awaited, &mine, &heard))
    return heard;
  const struct timespec until = {deadline_ns / 1000000000, deadline_ns % 1000000000};
  const int failed = deadline_ns == INT64_MAX ? sem_wait(&mine.due) : sem_clockwait(&mine.due, CLOCK_MONOTONIC, &until);
  if (failed != 0) {
    heard = errno == EINTR ? IMD_HEARD_SIGNAL : IMD_HEARD_LATE;
    if (!withdraw(awaited, &mine)) {
      sem_destroy(&mine.due);
      return heard;
    }
    while (sem_wait(&mine.due) != 0)   /* it is posted, or about to be */
      ;
  }
  sem_destroy(&mine.due);
  LOCKED(awaited);
  return seq < awaited->count ? IMD_HEARD_DURABLE : IMD_HEARD_LOST;
}

int imd_bell_hang(struct imd_awaited *awaited, struct imd_bell *bell)
{
  bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (bell->fd < 0)
    return errno;
  bell->lowest = UINT64_MAX;
  bell->rung = false;
  LOCKED(awaited);
  bell->next = awaited->bells;
  awaited->bells = bell;
  return 0;
}

void imd_bell_expect(struct imd_awaited *awaited, struct imd_bell *bell, uint64_t seq)
{
  /* It rings for an earlier one first, after which the loop expects anew what is left: nearly always so, and no lock's worth. */
  if (seq >= bell->lowest)
    return;
  LOCKED(awaited);
  bell->lowest = seq;
  if (awaited->lost || seq < awaited->count)
    ring(bell);
}

uint64_t imd_bell_heard(struct imd_awaited *awaited, struct imd_bell *bell, bool *lost)
{
  uint64_t rung;
  LOCKED(awaited);
  while (read(bell->fd, &rung, sizeof rung) < 0 && errno == EINTR)
    ;
  bell->rung = false;
  bell->lowest = UINT64_MAX;
  *lost = awaited->lost;
  return awaited->count;
}

void imd_bell_ring(struct imd_awaited *awaited, struct imd_bell *bell)
{
  LOCKED(awaited);
  ring(bell);
}

void imd_bell_take_down(struct imd_awaited *awaited, struct imd_bell *bell)
{
  LOCKED(awaited);
  if (bell->fd < 0)
    return;
  for (struct imd_bell **at = &awaited->bells; *at != NULL; at = &(*at)->next) {
    if (*at == bell) {
      *at = bell->next;
      break;
    }
  }
  close(bell->fd);
  bell->fd = -1;
}
