#define _GNU_SOURCE
#include "clerk_changes.h"
#include "util.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>

/*
 * In the place's memfd, which the keeper holds and one clerk after the other reads and writes: the name of a staging
 * directory while something is being accepted, then what was: on the host these files changed since the sandbox was
 * made, by its owner's own word.
 */
enum { MAX_ACCEPTED = 1 << 20 };

struct head { char staging[IMD_CHANGES_STAGING]; uint8_t journal[SHA256_SIZE]; uint32_t count, reserved; };
struct row { uint64_t inode; int64_t ctime_ns; uint32_t length, reserved; };

static int compare(const void *a, const void *b)
{
  return strcmp(((const struct accepted *)a)->path, ((const struct accepted *)b)->path);
}

static int read_at(int fd, void *to, size_t size, off_t *at)
{
  const ssize_t got = pread(fd, to, size, *at);
  if (got != (ssize_t)size)
    return -1;
  *at += (off_t)size;
  return 0;
}

int accepted_load(struct captured *captured)
{
  const int fd = captured->place->accepted;
  struct head head;
  off_t at = 0;
  if (read_at(fd, &head, sizeof head, &at) < 0)
    return 0;                      /* nothing yet */
  memcpy(captured->staging, head.staging, sizeof captured->staging);
  captured->staging[sizeof captured->staging - 1] = '\0';
  memcpy(captured->journal, head.journal, sizeof captured->journal);
  if (head.count > MAX_ACCEPTED)
    return -1;
  captured->accepted = calloc(head.count + 1, sizeof *captured->accepted);
  if (!captured->accepted)
    return -1;
  for (uint32_t i = 0; i < head.count; i++) {
    struct row row;
    if (read_at(fd, &row, sizeof row, &at) < 0 || row.length >= PATH_MAX)
      return -1;
    char *path = calloc(1, row.length + 1);
    if (!path || read_at(fd, path, row.length, &at) < 0) {
      free(path);
      return -1;
    }
    captured->accepted[captured->accepted_count++] = (struct accepted){path, row.inode, row.ctime_ns, i};
  }
  return 0;
}

bool accepted_holds(const struct captured *captured, const char *path, uint64_t inode, int64_t ctime_ns)
{
  const struct accepted wanted = {.path = (char *)(uintptr_t)path};
  const struct accepted *found =
      captured->accepted_count > 0
          ? bsearch(&wanted, captured->accepted, captured->accepted_count, sizeof wanted, compare)
          : NULL;
  return found && found->inode == inode && found->ctime_ns == ctime_ns;
}

int accepted_note(struct captured *captured, const char *path)
{
  struct stat st;
  cleanup_fd int fd = changes_open_below(captured, path, O_PATH | O_NOFOLLOW);
  if (fd < 0 || fstat(fd, &st) < 0)
    return errno == ENOENT ? 0 : -1;
  const int64_t ctime_ns = (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec;
  struct accepted *more = realloc(captured->accepted, (captured->accepted_count + 1) * sizeof *more);
  if (!more)
    return -1;
  captured->accepted = more;
  char *own = strdup(path);
  if (!own)
    return -1;
  more[captured->accepted_count] = (struct accepted){own, st.st_ino, ctime_ns, captured->accepted_count};
  captured->accepted_count++;
  return 0;
}

static int write_at(int fd, const void *from, size_t size, off_t *at)
{
  if (pwrite(fd, from, size, *at) != (ssize_t)size)
    return -1;
  *at += (off_t)size;
  return 0;
}

static int compare_notes(const void *a, const void *b)
{
  const struct accepted *one = a, *two = b;
  const int order = compare(one, two);
  return order != 0 ? order : one->order < two->order ? -1 : one->order > two->order;
}

/* By path, and of each path the last that was noted. */
static void sort_out(struct captured *captured)
{
  struct accepted *all = captured->accepted;
  size_t kept = 0;
  if (captured->accepted_count > 1)
    qsort(all, captured->accepted_count, sizeof *all, compare_notes);
  for (size_t i = 0; i < captured->accepted_count; i++) {
    if (i + 1 < captured->accepted_count && strcmp(all[i].path, all[i + 1].path) == 0) {
      free(all[i].path);
      continue;
    }
    all[kept] = all[i];
    all[kept].order = kept;
    kept++;
  }
  captured->accepted_count = kept;
}

int accepted_save(struct captured *captured)
{
  const int fd = captured->place->accepted;
  sort_out(captured);
  struct head head = {.count = (uint32_t)captured->accepted_count};
  memcpy(head.staging, captured->staging, sizeof head.staging);
  memcpy(head.journal, captured->journal, sizeof head.journal);
  off_t at = 0;
  if (write_at(fd, &head, sizeof head, &at) < 0)
    return -1;
  for (size_t i = 0; i < captured->accepted_count; i++) {
    const struct accepted *one = &captured->accepted[i];
    const struct row row = {one->inode, one->ctime_ns, (uint32_t)strlen(one->path), 0};
    if (write_at(fd, &row, sizeof row, &at) < 0 || write_at(fd, one->path, row.length, &at) < 0)
      return -1;
  }
  return ftruncate(fd, at);
}
