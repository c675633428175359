#define _GNU_SOURCE
#include "counts.h"
#include "protocol.h"
#include "util.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static struct page {
  uint8_t id[16];
  uint64_t since_ns;
  _Atomic uint64_t started, undone;
} *page;

/* No payload is left with it: exec gives up every mapping. */
static struct page *map(int memfd)
{
  void *at = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
  return at == MAP_FAILED ? NULL : at;
}

int counts_open(int memfd)
{
  if (memfd >= 0) {
    page = map(memfd);
    return page ? memfd : -1;
  }
  cleanup_fd int made = memfd_create("immured-counts", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (made < 0 || ftruncate(made, sizeof(struct page)) < 0 ||
      fcntl(made, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
    return -1;
  page = map(made);
  if (!page)
    return -1;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  page->since_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  if (getrandom(page->id, sizeof page->id, 0) != (ssize_t)sizeof page->id)
    return -1;
  return imd_take_fd(&made);
}

void counts_started(void)
{
  if (page)
    atomic_fetch_add_explicit(&page->started, 1, memory_order_relaxed);
}

void counts_undone(void)
{
  if (page)
    atomic_fetch_add_explicit(&page->undone, 1, memory_order_relaxed);
}

void counts_read(struct imd_counts *counts)
{
  memset(counts, 0, sizeof *counts);
  if (!page)
    return;
  memcpy(counts->id, page->id, sizeof counts->id);
  counts->since_ns = page->since_ns;
  counts->undone = atomic_load(&page->undone);   /* first: what is undone was started before */
  counts->started = atomic_load(&page->started);
}
