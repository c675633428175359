#define _GNU_SOURCE
#include "exec_log.h"
#include "util.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum { ALIGNMENT = 16, MOST = 65536 };

_Static_assert(sizeof(struct imd_log_record) == ALIGNMENT, "a record's head never wraps");

int exec_log_open(struct exec_log *log, int memory, int event, struct imd_error *err)
{
  const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
  const int seals = fcntl(memory, F_GET_SEALS);
  struct stat st;
  if (seals < 0 || (seals & needed) != needed || fstat(memory, &st) < 0)
    return imd_fail(err, IMD_STAGE_PROCESS, 0, "the log's memory is not sealed");
  const uint64_t capacity = (uint64_t)st.st_size - IMD_LOG_PAGE;
  if (st.st_size < IMD_LOG_PAGE + IMD_LOG_MIN || capacity > IMD_LOG_MAX || (capacity & (capacity - 1)) != 0)
    return imd_fail(err, IMD_STAGE_PROCESS, 0, "a log of %lld bytes", (long long)st.st_size);
  /* It counts, and never fills up: but should it be something else, nobody here waits for it. */
  if (fcntl(event, F_SETFL, O_NONBLOCK) < 0)
    return imd_fail(err, IMD_STAGE_PROCESS, errno, "the log's eventfd");
  void *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (map == MAP_FAILED)
    return imd_fail(err, IMD_STAGE_PROCESS, errno, "the log");
  *log = (struct exec_log){.map = map, .ring = (char *)map + IMD_LOG_PAGE, .capacity = capacity, .event = event};
  log->map->capacity = (uint32_t)capacity;
  log->map->magic = IMD_LOG_MAGIC;
  return 0;
}

static uint64_t space_of(uint64_t length)
{
  return sizeof(struct imd_log_record) + ((length + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1));
}

static void make_room(struct exec_log *log, uint64_t needed)
{
  while (log->end + needed - log->start > log->capacity) {
    struct imd_log_record oldest;
    memcpy(&oldest, log->ring + (log->start & (log->capacity - 1)), sizeof oldest);
    /* Only who has the memory too can have written anything else there: then the log begins anew. */
    log->start = oldest.length <= MOST && log->start + space_of(oldest.length) <= log->end
                     ? log->start + space_of(oldest.length) : log->end;
  }
  __atomic_store_n(&log->map->start, log->start, __ATOMIC_RELEASE);
  /* No byte of the new record may be seen before it is known that what stood there is gone. */
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void put(struct exec_log *log, uint64_t at, const void *data, size_t size)
{
  const size_t offset = (size_t)(at & (log->capacity - 1));
  const size_t first = size < log->capacity - offset ? size : (size_t)log->capacity - offset;
  memcpy(log->ring + offset, data, first);
  memcpy(log->ring, (const char *)data + first, size - first);
}

void exec_log_write(struct exec_log *log, int stream, const char *data, size_t size)
{
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const struct imd_log_record record = {
      .time_ms = (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u,
      .stream = (uint32_t)stream, .length = (uint32_t)size};
  make_room(log, space_of(size));
  put(log, log->end, &record, sizeof record);
  put(log, log->end + sizeof record, data, size);
  log->end += space_of(size);
  log->total[stream - 1] += size;
  __atomic_store_n(&log->map->total[stream - 1], log->total[stream - 1], __ATOMIC_RELAXED);
  __atomic_store_n(&log->map->end, log->end, __ATOMIC_RELEASE);
  (void)!write(log->event, &(uint64_t){1}, sizeof(uint64_t));
}
