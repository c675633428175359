/*
 * Drives the native writer as the ledger does, without Python: threads that submit a line and wait for it, one that listens to a
 * bell, one that hangs another up and takes it down all the time, one that attends, one that follows, one that commits itself
 * where the turn is free.
 *
 * drive_writer FILE THREADS LINES LIMIT: each of THREADS submits LINES; FILE holds them in their order. With a LIMIT (not 0) of the
 * file's size (RLIMIT_FSIZE) a write fails, and all who wait hear of it. Says how many were durable.
 */
#include "ledger_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LARGEST = 4096 };

static struct imd_awaited awaited;
static struct imd_writer writer;
static pthread_mutex_t places = PTHREAD_MUTEX_INITIALIZER;
static uint64_t placed;
static size_t lines;
static _Atomic uint64_t durable, lost, collected;
static _Atomic bool over;
static bool dead;                      /* for whoever has the turn */

static void must(bool good, const char *what)
{
  if (!good) {
    fprintf(stderr, "%s\n", what);
    abort();
  }
}

static void *submits(void *argument)
{
  const unsigned who = *(const unsigned *)argument;
  for (size_t number = 0; number < lines; number++) {
    char line[64];
    uint8_t leaf[IMD_LEAF] = {0};
    pthread_mutex_lock(&places);
    const uint64_t seq = placed++;
    const int size = snprintf(line, sizeof line, "%llu %u %zu\n", (unsigned long long)seq, who, number);
    memcpy(leaf, &seq, sizeof seq);
    must(imd_writer_submit(&writer, (const uint8_t *)line, (size_t)size, leaf, true) == 0, "submit");
    pthread_mutex_unlock(&places);
    if (number % 16 == 15)
      imd_awaited_wait(&awaited, seq, 1);            /* long ago */
    const enum imd_heard heard = imd_awaited_wait(&awaited, seq, INT64_MAX);
    must(heard == IMD_HEARD_DURABLE || heard == IMD_HEARD_LOST, "wait");
    *(heard == IMD_HEARD_DURABLE ? &durable : &lost) += 1;
  }
  return NULL;
}

/* With the turn. */
static void commits(void)
{
  const int trouble = dead ? 0 : imd_writer_commit(&writer);
  if (trouble == 0)
    return;
  must(trouble == EFBIG, "trouble");
  dead = true;
  imd_writer_stop(&writer, true);
  imd_awaited_lose(&awaited);
}

static void *attends(void *argument)
{
  (void)argument;
  while (imd_writer_attend(&writer) != 0) {
    imd_writer_turn(&writer);
    commits();                         /* or somebody else was told of it first */
    imd_writer_give_turn(&writer);
  }
  return NULL;
}

static void *commits_here(void *argument)
{
  (void)argument;
  while (!over) {
    if (imd_writer_try_turn(&writer)) {
      commits();
      imd_writer_give_turn(&writer);
    }
    imd_writer_rouse(&writer, false);
    usleep(300);
  }
  return NULL;
}

static void *comes_and_goes(void *argument)
{
  (void)argument;
  while (!over) {
    struct imd_bell bell;
    bool none_more;
    must(imd_bell_hang(&awaited, &bell) == 0, "bell");
    imd_bell_expect(&awaited, &bell, imd_awaited_count(&awaited));
    if (imd_awaited_count(&awaited) % 2 == 0)
      imd_bell_heard(&awaited, &bell, &none_more);
    imd_bell_take_down(&awaited, &bell);
    imd_bell_ring(&awaited, &bell);    /* who closes may be late: it changes nothing */
    usleep(100);
  }
  return NULL;
}

static void collect(void)
{
  size_t size, bytes = 0;
  const size_t count = imd_writer_collectable(&writer, &size);
  const uint64_t before = collected;
  for (struct imd_batch *batch = imd_writer_collect(&writer, count), *next; batch != NULL; batch = next) {
    next = batch->next;
    bytes += batch->used;
    for (size_t i = 0; i < batch->count; i++) {
      uint64_t seq;
      memcpy(&seq, batch->leaves + i * IMD_LEAF, sizeof seq);
      must(seq == collected++, "collected out of order");
    }
    imd_writer_spare(&writer, batch);
  }
  must(collected - before == count && bytes == size, "not as many were collected as there were");
}

static void *follows(void *argument)
{
  (void)argument;
  const struct imd_patience patience = {100, 1000000, UINT64_MAX};
  while (!over) {
    imd_writer_follow(&writer, INT64_MAX, &patience);
    imd_writer_turn(&writer);
    collect();
    imd_writer_give_turn(&writer);
  }
  return NULL;
}

static void *listens(void *argument)
{
  (void)argument;
  struct imd_bell bell;
  uint64_t count = 0;
  bool none_more = false;
  must(imd_bell_hang(&awaited, &bell) == 0, "bell");
  while (!over && !none_more) {
    imd_bell_expect(&awaited, &bell, count);
    struct pollfd at = {.fd = bell.fd, .events = POLLIN};
    if (poll(&at, 1, 10) == 1) {
      const uint64_t now = imd_bell_heard(&awaited, &bell, &none_more);
      must(now > count || none_more, "it rang for nothing");
      count = now;
    }
  }
  imd_bell_take_down(&awaited, &bell);
  return NULL;
}

int main(int count, char **said)
{
  must(count == 5, "drive_writer FILE THREADS LINES LIMIT");
  const unsigned threads = (unsigned)atoi(said[2]);
  pthread_t submitting[64], attending, following, listening, committing, coming;
  unsigned who[64];
  must(threads <= 64, "threads");
  lines = (size_t)atol(said[3]);
  if (atol(said[4]) > 0) {
    const struct rlimit limit = {(rlim_t)atol(said[4]), (rlim_t)atol(said[4])};
    signal(SIGXFSZ, SIG_IGN);
    must(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
  }
  must(imd_awaited_begin(&awaited, 0) == 0 && imd_writer_begin(&writer, &awaited, LARGEST) == 0, "begin");
  writer.fd = open(said[1], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  writer.synced = true;
  must(writer.fd >= 0, "open");
  pthread_create(&attending, NULL, attends, NULL);
  pthread_create(&following, NULL, follows, NULL);
  pthread_create(&listening, NULL, listens, NULL);
  pthread_create(&committing, NULL, commits_here, NULL);
  pthread_create(&coming, NULL, comes_and_goes, NULL);
  for (unsigned i = 0; i < threads; i++) {
    who[i] = i;
    pthread_create(&submitting[i], NULL, submits, &who[i]);
  }
  for (unsigned i = 0; i < threads; i++)
    pthread_join(submitting[i], NULL);
  imd_writer_stop(&writer, false);
  pthread_join(attending, NULL);
  over = true;
  pthread_join(committing, NULL);
  pthread_join(coming, NULL);
  imd_writer_rouse(&writer, true);
  pthread_join(following, NULL);
  pthread_join(listening, NULL);
  collect();
  must(collected == imd_awaited_count(&awaited), "not all were collected");
  must(durable + lost == placed, "somebody heard nothing");
  printf("%llu %llu\n", (unsigned long long)durable, (unsigned long long)imd_awaited_count(&awaited));
  close(writer.fd);
  imd_writer_end(&writer);
  imd_awaited_end(&awaited);
  return 0;
}
