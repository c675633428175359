#define _GNU_SOURCE
#include "remains.h"
#include "util.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
  PLACES = 32,
  TRIES = 20,                      /* to empty one; what is dirty is written first, and that takes its time */
  TRY_NS = 10000000,
  MANY_DYING = 64,
};

/* A warden that dies while it has one loses that place, and nothing else: no lock is held. */
struct place {
  _Atomic uint32_t busy;
  char path[160];                  /* below the subtree; empty: nobody's */
};

static struct {
  _Atomic uint32_t next;
  struct place places[PLACES];
} *remains;
static int subtree = -1;

void remains_open(int directory)
{
  if (directory < 0)
    return;
  void *room = mmap(NULL, sizeof *remains, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) {
    imd_log("no room for what remains of runs: %s", strerror(errno));
    return;
  }
  remains = room;
  subtree = directory;
}

static uint64_t number_of(const char *text, const char *line)
{
  const char *found = strstr(text, line);
  return found ? strtoull(found + strlen(line), NULL, 10) : 0;
}

/* Bytes of files in the page cache. Those of a tmpfs are counted with them, and go when its mount does. */
static uint64_t cached(int dir)
{
  cleanup_free char *text = malloc(16384);
  if (!text || imd_read_at(dir, "memory.stat", text, 16384) < 0)
    return 0;
  const uint64_t files = number_of(text, "\nfile "), shared = number_of(text, "\nshmem ");
  return files > shared ? files - shared : 0;
}

static void empty(int dir, uint64_t bytes)
{
  char text[32];
  for (int i = 0; bytes > 0 && i < TRIES; i++) {
    if (i > 0)
      nanosleep(&(struct timespec){.tv_nsec = TRY_NS}, NULL);
    snprintf(text, sizeof text, "%" PRIu64, bytes);
    /* EAGAIN: less than that; it has woken whoever writes dirty pages to the disk. */
    if (imd_write_at(dir, "memory.reclaim", text) < 0 && errno != EAGAIN && errno != EINTR)
      return;
    bytes = cached(dir);
  }
}

void remains_trim(int dir)
{
  char text[256];
  if (imd_read_at(dir, "cgroup.stat", text, sizeof text) > 0 && number_of(text, "nr_dying_descendants ") > MANY_DYING)
    empty(dir, cached(dir));
}

static void end(const char *path)
{
  cleanup_fd int dir = openat(subtree, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0)
    return;
  empty(dir, cached(dir));
  if (unlinkat(subtree, path, AT_REMOVEDIR) < 0 && errno != ENOENT)
    imd_log("cgroup %s: %s", path, strerror(errno));
}

bool remains_keep(int dir, const char *tenant, const char *name)
{
  const uint64_t bytes = cached(dir);
  if (bytes == 0)
    return false;
  struct place *place = remains ? &remains->places[atomic_fetch_add(&remains->next, 1) % PLACES] : NULL;
  if (!place || atomic_exchange(&place->busy, 1) != 0) {
    empty(dir, bytes);
    return false;
  }
  char oldest[sizeof place->path];
  memcpy(oldest, place->path, sizeof oldest);
  snprintf(place->path, sizeof place->path, "tenants/%s/%s", tenant, name);
  atomic_store(&place->busy, 0);
  if (oldest[0] != '\0')
    end(oldest);
  return true;
}
