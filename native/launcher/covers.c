#define _GNU_SOURCE
#include "covers.h"
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { BLIND = UINT32_MAX };       /* of a count: some mount could not be noted */

/* Shared: what walks through a caller's tree is done by a child. Nobody else has it, and it is gone before a payload is. */
static struct noted {
  _Atomic uint32_t count;
  uint64_t ids[MAX_COVERS];
} *noted;

void covers_begin(void)
{
  void *memory = mmap(NULL, sizeof *noted, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  noted = memory == MAP_FAILED ? NULL : memory;
}

void covers_end(struct covers *covers)
{
  *covers = (struct covers){.ids = NULL};
  if (!noted)
    return;
  const uint32_t count = noted->count;
  if (count != BLIND && (covers->ids = calloc(count + 1, sizeof *covers->ids))) {
    memcpy(covers->ids, noted->ids, count * sizeof *covers->ids);
    covers->count = count;
  }
  munmap(noted, sizeof *noted);
  noted = NULL;
}

void covers_note(int fd)
{
  struct statx about = {.stx_mask = 0};
  if (!noted || noted->count == BLIND)
    return;
  if (noted->count == MAX_COVERS || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID_UNIQUE, &about) < 0 ||
      !(about.stx_mask & STATX_MNT_ID_UNIQUE))
    noted->count = BLIND;
  else
    noted->ids[noted->count++] = about.stx_mnt_id;
}

enum covered covers_look(const struct covers *covers)
{
  if (!covers->ids)
    return CANNOT_TELL;
  for (uint32_t i = 0; i < covers->count; i++)
    if (sys_statmount(covers->ids[i]) < 0)
      return errno == ENOENT ? UNCOVERED : CANNOT_TELL;
  return COVERED;
}
