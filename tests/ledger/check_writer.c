/*
 * The native writer in one thread, as nobody else may be there to see it: whatever is divided, and whatever allocation fails, the
 * lines that were taken are those that were queued, in their order.
 *
 * Linked with --wrap for calloc and realloc. Says nothing when all is well.
 */
#include "ledger_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 1 << 20, LONGEST = 65536, LINES = 600 };

static unsigned long allocations, fails_at;
static bool fails_on;
static long sync_ns;
static uint8_t line[LONGEST];

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static void must(bool good, const char *what)
{
  if (!good) {
    fprintf(stderr, "%s\n", what);
    abort();
  }
}

static bool fails(void)
{
  allocations++;
  return fails_at != 0 && (allocations == fails_at || (fails_on && allocations % fails_at == 0));
}

void *__wrap_calloc(size_t count, size_t size)
{
  return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
  return fails() ? NULL : __real_realloc(old, size);
}

int fdatasync(int fd)
{
  const struct timespec lasts = {0, sync_ns};
  (void)fd;
  return nanosleep(&lasts, NULL);
}

static size_t long_as(unsigned seq)
{
  return seq % 50 == 49 ? LONGEST : 1 + seq * 37 % 700;
}

/* It can be told from all others by any byte, and its leaf too. */
static int submit(struct imd_writer *writer, unsigned seq)
{
  uint8_t leaf[IMD_LEAF];
  memset(line, (int)(seq % 251), long_as(seq));
  memset(leaf, (int)(seq % 241), sizeof leaf);
  return imd_writer_submit(writer, line, long_as(seq), leaf, true);
}

/* Take all there is: it begins with this one. The next after it. */
static unsigned take(struct imd_writer *writer, unsigned seq, struct imd_batch *(*next)(struct imd_writer *))
{
  for (struct imd_batch *batch; (batch = next(writer)) != NULL;) {
    size_t at = 0;
    must(batch->count > 0 && batch->used <= LARGEST, "a batch of another size");
    for (size_t i = 0; i < batch->count; i++, seq++) {
      must(batch->ends[i] == at + long_as(seq), "a line of another length");
      for (; at < batch->ends[i]; at++)
        must(batch->lines[at] == seq % 251, "another line");
      must(batch->leaves[i * IMD_LEAF] == seq % 241 && batch->leaves[i * IMD_LEAF + 31] == seq % 241, "another leaf");
    }
    must(at == batch->used, "bytes that are no line's");
    imd_writer_spare(writer, batch);
  }
  must(imd_writer_is_empty(writer) && writer->queued == 0 && writer->last == NULL, "the queue is not empty");
  return seq;
}

static struct imd_batch *collect_one(struct imd_writer *writer)
{
  size_t size;
  const size_t all = imd_writer_collectable(writer, &size);
  struct imd_batch *batch = imd_writer_collect(writer, writer->done != NULL ? writer->done->count : 0);
  must((batch == NULL) == (all == 0), "collectable, and not collected");
  must(batch == NULL || batch->next == NULL, "more than was asked for");
  return batch;
}

static void begin(struct imd_awaited *awaited, struct imd_writer *writer)
{
  must(imd_awaited_begin(awaited, 0) == 0 && imd_writer_begin(writer, awaited, LARGEST) == 0, "begin");
}

static void end(struct imd_awaited *awaited, struct imd_writer *writer)
{
  imd_writer_end(writer);
  imd_awaited_end(awaited);
}

static void divides(void)
{
  for (unsigned count = 1; count < 90; count++) {
    for (unsigned recent = 0; recent < 180; recent += 1 + recent / 20) {
      struct imd_awaited awaited;
      struct imd_writer writer;
      begin(&awaited, &writer);
      writer.swift = true;
      writer.recent = recent;
      for (unsigned seq = 0; seq < count; seq++)
        must(submit(&writer, seq) == 0, "submit");
      must(take(&writer, 0, imd_writer_take) == count, "not as many as were queued");
      end(&awaited, &writer);
    }
  }
}

/* All of them, however often it takes; some are taken meanwhile, as if half of so many went together. */
static void starves(unsigned long at, bool on)
{
  struct imd_awaited awaited;
  struct imd_writer writer;
  unsigned taken = 0;
  begin(&awaited, &writer);
  writer.swift = true;
  writer.recent = 40;
  allocations = 0;
  fails_at = at;
  fails_on = on;
  for (unsigned seq = 0; seq < LINES; seq++) {
    unsigned tries = 0;
    for (int error; (error = submit(&writer, seq)) != 0;)
      must(error == ENOMEM && tries++ < 5, "submit");
    if (seq % 100 == 90)
      taken = take(&writer, taken, imd_writer_take);
  }
  must(take(&writer, taken, imd_writer_take) == LINES, "not as many as were queued");
  fails_at = 0;
  end(&awaited, &writer);
}

/* Committed one after the other, and collected one after the other, while more come. */
static void collects(void)
{
  struct imd_awaited awaited;
  struct imd_writer writer;
  char name[] = "/tmp/check_writer.XXXXXX";
  unsigned taken = 0;
  begin(&awaited, &writer);
  writer.fd = mkstemp(name);
  must(writer.fd >= 0 && unlink(name) == 0, "mkstemp");
  for (unsigned seq = 0; seq < LINES; seq++) {
    must(submit(&writer, seq) == 0, "submit");
    if (seq % 7 == 6)
      must(imd_writer_commit(&writer) == 0, "commit");
    if (seq % 60 == 59) {
      while (!imd_writer_is_empty(&writer))
        must(imd_writer_commit(&writer) == 0, "commit");
      taken = take(&writer, taken, collect_one);
      must(taken == seq + 1 && writer.done_size == 0 && writer.done_count == 0, "not as many as were committed");
    }
  }
  close(writer.fd);
  end(&awaited, &writer);
}

/* What a sync took says nothing, where that is long, about how long to wait for more. */
static void gathers_briefly(void)
{
  struct imd_awaited awaited;
  struct imd_writer writer;
  struct timespec now;
  begin(&awaited, &writer);
  writer.synced = true;
  sync_ns = 400000000;
  const int null = open("/dev/null", O_WRONLY);
  writer.fd = null;
  must(null >= 0, "/dev/null");
  for (unsigned seq = 0; seq < 5; seq++)
    must(submit(&writer, seq) == 0, "submit");
  must(imd_writer_commit(&writer) == 0, "commit");
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
  must(writer.took_ns >= sync_ns && writer.gather_until_ns <= now_ns + sync_ns / 8, "it waits as long as a disk that hung");
  close(null);
  end(&awaited, &writer);
}

int main(void)
{
  divides();
  for (unsigned long at = 1; at < 60; at++)
    starves(at, false);
  for (unsigned long at = 6; at < 14; at++)
    starves(at, true);
  collects();
  gathers_briefly();
  return 0;
}
