#include "ledger_writer.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
  LINES_ROOM = 1 << 16,
  LEAVES_ROOM = 1 << 12,
  SWIFT_NS = 400000,                   /* a sync that takes less leaves callers busy meanwhile */
  GATHER_NS = 20000000,                /* at most, where one took very long: that says nothing about who comes now */
  LEAST_SHARE = 16,                    /* lines that are not divided */
};

static void unlock(pthread_mutex_t **lock)
{
  pthread_mutex_unlock(*lock);
}

/* Until the end of the block. */
#define LOCKED(writer)                                                                                                      \
  __attribute__((cleanup(unlock))) pthread_mutex_t *locked = &(writer)->lock;                                               \
  pthread_mutex_lock(locked)

static int64_t now_ns(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int imd_writer_begin(struct imd_writer *writer, struct imd_awaited *awaited, size_t largest)
{
  pthread_condattr_t monotonic;
  *writer = (struct imd_writer){.awaited = awaited, .largest = largest, .fd = -1};
  int error = pthread_mutex_init(&writer->lock, NULL);
  if (error != 0)
    return error;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&writer->work, &monotonic);
  pthread_cond_init(&writer->news, &monotonic);
  pthread_cond_init(&writer->free, NULL);
  pthread_condattr_destroy(&monotonic);
  return 0;
}

void imd_batch_free(struct imd_batch *batch)
{
  if (batch == NULL)
    return;
  free(batch->lines);
  free(batch->leaves);
  free(batch->ends);
  free(batch);
}

static void free_all(struct imd_batch *batch)
{
  while (batch != NULL) {
    struct imd_batch *next = batch->next;
    imd_batch_free(batch);
    batch = next;
  }
}

void imd_writer_end(struct imd_writer *writer)
{
  free_all(writer->first);
  free_all(writer->done);
  imd_batch_free(writer->going);
  imd_batch_free(writer->spare);
  pthread_cond_destroy(&writer->free);
  pthread_cond_destroy(&writer->news);
  pthread_cond_destroy(&writer->work);
  pthread_mutex_destroy(&writer->lock);
}

/* `bytes` or more with room for `need`; NULL without memory, and then it is as it was. */
static void *grown(void *bytes, size_t *room, size_t need, size_t least)
{
  if (need <= *room)
    return bytes;
  size_t size = *room < least ? least : *room;
  while (size < need)
    size *= 2;
  void *more = realloc(bytes, size);
  if (more != NULL)
    *room = size;
  return more;
}

/* Make room for so many lines more. */
static bool make_room(struct imd_batch *batch, size_t count, size_t size)
{
  uint8_t *lines = grown(batch->lines, &batch->lines_room, batch->used + size, LINES_ROOM);
  if (lines == NULL)
    return false;
  batch->lines = lines;
  uint8_t *leaves = grown(batch->leaves, &batch->leaves_room, (batch->count + count) * IMD_LEAF, LEAVES_ROOM);
  if (leaves == NULL)
    return false;
  batch->leaves = leaves;
  uint32_t *ends = grown(batch->ends, &batch->ends_room, (batch->count + count) * sizeof *ends, LEAVES_ROOM);
  if (ends == NULL)
    return false;
  batch->ends = ends;
  return true;
}

/* An empty one; NULL without memory. */
static struct imd_batch *fresh(struct imd_writer *writer)
{
  struct imd_batch *batch = writer->spare;
  writer->spare = NULL;
  return batch != NULL ? batch : calloc(1, sizeof *batch);
}

/* The batch that a line of this size goes to; NULL without memory. */
static struct imd_batch *gathering(struct imd_writer *writer, size_t size)
{
  struct imd_batch *batch = writer->last;
  if (batch == NULL || batch->used + size > writer->largest)
    batch = fresh(writer);
  if (batch == NULL || make_room(batch, 1, size))
    return batch;
  if (batch != writer->last)
    imd_batch_free(batch);
  return NULL;
}

static void wake(struct imd_writer *writer)
{
  if (writer->asleep) {
    writer->asleep = false;
    pthread_cond_signal(writer->fd < 0 ? &writer->news : &writer->work);
  }
}

/* As many lines as go together now. */
static size_t share(const struct imd_writer *writer)
{
  const size_t all = writer->queued + writer->recent;
  if (!writer->swift || all <= LEAST_SHARE)
    return writer->recent > 0 ? writer->recent : 1;
  return (all + 1) / 2;
}

int imd_writer_submit(struct imd_writer *writer, const uint8_t *line, size_t size, const uint8_t leaf[IMD_LEAF], bool rouse)
{
  LOCKED(writer);
  struct imd_batch *batch = gathering(writer, size);
  if (batch == NULL)
    return ENOMEM;
  memcpy(batch->lines + batch->used, line, size);
  memcpy(batch->leaves + batch->count * IMD_LEAF, leaf, IMD_LEAF);
  batch->used += size;
  batch->ends[batch->count++] = (uint32_t)batch->used;
  if (batch != writer->last) {
    *(writer->last != NULL ? &writer->last->next : &writer->first) = batch;
    writer->last = batch;
  }
  writer->queued++;
  if (rouse && (!writer->gathering || writer->queued >= share(writer)))
    wake(writer);
  return 0;
}

void imd_writer_rouse(struct imd_writer *writer, bool asked)
{
  LOCKED(writer);
  if (asked) {
    writer->asked = true;
    pthread_cond_signal(&writer->news);
  }
  if (writer->first != NULL)
    wake(writer);
}

bool imd_writer_is_empty(struct imd_writer *writer)
{
  LOCKED(writer);
  return writer->first == NULL;
}

void imd_writer_turn(struct imd_writer *writer)
{
  LOCKED(writer);
  writer->waiting++;
  while (writer->taken)
    pthread_cond_wait(&writer->free, &writer->lock);
  writer->waiting--;
  writer->taken = true;
}

bool imd_writer_try_turn(struct imd_writer *writer)
{
  LOCKED(writer);
  if (writer->taken || writer->waiting > 0)
    return false;
  return writer->taken = true;
}

static void give(struct imd_writer *writer)
{
  writer->taken = false;
  pthread_cond_broadcast(&writer->free);
}

void imd_writer_give_turn(struct imd_writer *writer)
{
  LOCKED(writer);
  give(writer);
}

/* Leave what is beyond the share of this one, the first, to another; all stays where there is no memory for that. */
static void divide(struct imd_writer *writer, struct imd_batch *batch)
{
  const size_t kept = share(writer);
  if (!writer->swift || writer->recent == 0 || kept < LEAST_SHARE || batch->count <= kept)
    return;
  const size_t at = batch->ends[kept - 1], count = batch->count - kept;
  struct imd_batch *rest = fresh(writer);
  if (rest == NULL)
    return;
  if (!make_room(rest, count, batch->used - at)) {
    imd_batch_free(rest);
    return;
  }
  rest->count = count;
  rest->used = batch->used - at;
  memcpy(rest->lines, batch->lines + at, rest->used);
  memcpy(rest->leaves, batch->leaves + kept * IMD_LEAF, count * IMD_LEAF);
  for (size_t i = 0; i < count; i++)
    rest->ends[i] = batch->ends[kept + i] - (uint32_t)at;
  batch->count = kept;
  batch->used = at;
  rest->next = batch->next;
  batch->next = rest;
  if (writer->last == batch)
    writer->last = rest;
}

struct imd_batch *imd_writer_take(struct imd_writer *writer)
{
  LOCKED(writer);
  struct imd_batch *batch = writer->first;
  if (batch != NULL) {
    divide(writer, batch);
    writer->first = batch->next;
    batch->next = NULL;
    writer->queued -= batch->count;
    if (writer->first == NULL)
      writer->last = NULL;
  }
  return batch;
}

size_t imd_writer_collectable(struct imd_writer *writer, size_t *size)
{
  LOCKED(writer);
  *size = writer->done_size;
  return writer->done_count;
}

struct imd_batch *imd_writer_collect(struct imd_writer *writer, size_t count)
{
  LOCKED(writer);
  struct imd_batch *done = writer->done, **after = &writer->done;
  while (*after != NULL && (*after)->count <= count) {
    count -= (*after)->count;
    writer->done_count -= (*after)->count;
    writer->done_size -= (*after)->used;
    after = &(*after)->next;
  }
  if (after == &writer->done)
    return NULL;
  writer->done = *after;
  *after = NULL;
  if (writer->done == NULL)
    writer->done_last = NULL;
  return done;
}

void imd_writer_spare(struct imd_writer *writer, struct imd_batch *batch)
{
  batch->count = batch->used = 0;
  batch->next = NULL;
  {
    LOCKED(writer);
    if (writer->spare == NULL) {
      writer->spare = batch;
      return;
    }
  }
  imd_batch_free(batch);
}

static int write_all(struct imd_writer *writer)
{
  const struct imd_batch *batch = writer->going;
  while (writer->gone < batch->used) {
    ssize_t wrote = pwrite(writer->fd, batch->lines + writer->gone, batch->used - writer->gone, (off_t)writer->end);
    if (wrote < 0 && errno == EINTR)
      continue;
    if (wrote <= 0)
      return wrote < 0 ? errno : EIO;
    writer->gone += (size_t)wrote;
    writer->end += (uint64_t)wrote;
  }
  return 0;
}

static int sync_all(struct imd_writer *writer)
{
  const int64_t began = now_ns();
  int failed = 0;
  if (writer->synced)
    while ((failed = fdatasync(writer->fd)) != 0 && errno == EINTR)
      ;
  if (failed != 0)
    return -errno;
  writer->took_ns = now_ns() - began;
  return 0;
}

static void keep_done(struct imd_writer *writer, struct imd_batch *batch)
{
  LOCKED(writer);
  const bool first = writer->done == NULL;
  if (first)
    writer->done_ns = now_ns();
  *(writer->done_last != NULL ? &writer->done_last->next : &writer->done) = batch;
  writer->done_last = batch;
  writer->done_count += batch->count;
  writer->done_size += batch->used;
  writer->done_end = writer->end;
  if (first || writer->done_count >= writer->patience.entries || writer->done_end >= writer->patience.end)
    pthread_cond_signal(&writer->news);
  writer->recent = batch->count;
  writer->swift = writer->took_ns < SWIFT_NS;
  const int64_t pause = writer->swift ? writer->took_ns : writer->took_ns / 2;
  writer->gather_until_ns = now_ns() + (pause < GATHER_NS ? pause : GATHER_NS);
}

int imd_writer_commit(struct imd_writer *writer)
{
  if (writer->trouble != 0) {
    const int trouble = writer->trouble;
    writer->trouble = 0;
    return trouble;
  }
  if (writer->going == NULL) {
    writer->going = imd_writer_take(writer);
    writer->gone = 0;
  }
  struct imd_batch *batch = writer->going;
  if (batch == NULL)
    return 0;
  int error = write_all(writer);
  if (error == 0)
    error = sync_all(writer);
  if (error != 0)
    return error;
  writer->going = NULL;
  writer->count += batch->count;
  keep_done(writer, batch);
  imd_awaited_advance(writer->awaited, writer->count);
  return 0;
}

static struct timespec at_ns(int64_t ns)
{
  return (struct timespec){ns / 1000000000, ns % 1000000000};
}

/* Until there is work, or that time has come. With the lock. */
static void sleep_until(struct imd_writer *writer, int64_t until_ns)
{
  const struct timespec until = at_ns(until_ns);
  writer->asleep = true;
  if (until_ns == INT64_MAX)
    pthread_cond_wait(&writer->work, &writer->lock);
  else
    pthread_cond_timedwait(&writer->work, &writer->lock, &until);
  writer->asleep = false;
}

/*
 * Until as many came as went on with the last batch, or have had their time: at most as long as a swift sync. With the lock, which
 * others have meanwhile. Awake: callers are at it on another processor, and waking this one again would cost them and it as much as
 * what is waited for; where there is no other, they have this one.
 */
static void watch_them_gather(struct imd_writer *writer)
{
  const size_t enough = writer->recent;
  const int64_t until_ns = writer->gather_until_ns;
  pthread_mutex_unlock(&writer->lock);
  while (writer->queued < enough && now_ns() < until_ns)
    sched_yield();
  pthread_mutex_lock(&writer->lock);
}

/* Until as many lines are there as go together, or those who went on with the last have had their time. With the lock. */
static bool has_gathered(struct imd_writer *writer)
{
  if (writer->recent > 0 && now_ns() >= writer->gather_until_ns)
    writer->recent = 0;                /* they are gone, or slow */
  return writer->queued >= share(writer);
}

int imd_writer_attend(struct imd_writer *writer)
{
  LOCKED(writer);
  while (!writer->stopped && !(writer->stopping && writer->first == NULL)) {
    if (writer->first == NULL) {
      sleep_until(writer, INT64_MAX);
    } else if (!writer->stopping && !has_gathered(writer)) {
      if (writer->swift) {
        watch_them_gather(writer);
      } else {
        writer->gathering = true;
        sleep_until(writer, writer->gather_until_ns);
        writer->gathering = false;
      }
    } else if (writer->taken || writer->waiting > 0) {
      pthread_cond_wait(&writer->free, &writer->lock);
    } else {
      writer->taken = true;
      pthread_mutex_unlock(&writer->lock);
      const int error = imd_writer_commit(writer);
      pthread_mutex_lock(&writer->lock);
      writer->trouble = error;
      give(writer);
      if (error != 0)
        return error;
    }
  }
  return 0;
}

void imd_writer_stop(struct imd_writer *writer, bool now)
{
  LOCKED(writer);
  writer->stopping = true;
  writer->stopped |= now;
  wake(writer);
  pthread_cond_broadcast(&writer->free);
}

void imd_writer_follow(struct imd_writer *writer, int64_t deadline_ns, const struct imd_patience *patience)
{
  LOCKED(writer);
  writer->patience = *patience;
  while (!writer->asked && writer->done_count < patience->entries) {
    int64_t until_ns = deadline_ns;
    if (writer->done != NULL) {
      if (writer->done_end >= patience->end)
        break;
      if (writer->done_ns + patience->ns < until_ns)
        until_ns = writer->done_ns + patience->ns;
    }
    if (writer->fd < 0 && writer->first != NULL)
      break;
    if (until_ns != INT64_MAX && now_ns() >= until_ns)
      break;
    const struct timespec until = at_ns(until_ns);
    if (writer->fd < 0)
      writer->asleep = true;
    if (until_ns == INT64_MAX)
      pthread_cond_wait(&writer->news, &writer->lock);
    else
      pthread_cond_timedwait(&writer->news, &writer->lock, &until);
    if (writer->fd < 0)
      writer->asleep = false;
  }
  writer->asked = false;
}
