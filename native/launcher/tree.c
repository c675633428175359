#define _GNU_SOURCE
#include "tree.h"
#include "kernel.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

enum { MODES = 01777, MAX_VALUE = 65536, MAX_LIST = 65536, MAX_DEPTH = 1000 };

#define OPAQUE "trusted.overlay.opaque"

/* What is copied: one tree, or two layers of an overlay and what lies below them, which is only looked at. */
enum { UPPER, BELOW, BASE, SIDES };
enum { OF_UPPER = 1 << UPPER, OF_BELOW = 1 << BELOW, OF_BASE = 1 << BASE, IS_OPAQUE = 1 << SIDES };

/* Where the walk is. A side that has no such directory waits at the last that it had. */
struct place_of { int from[SIDES], to; bool merging; };

/* The directories of one level that are still to be done. */
struct level {
  char *names;                     /* one after the other: what it will be (its `sides`), its name, NUL */
  size_t used, next;
  unsigned sides;                  /* which have this directory; whether it hides what lies below */
  struct stat from[SIDES], to;     /* where to come back to */
};

static int primary(const struct level *level)
{
  return level->sides & OF_UPPER ? UPPER : BELOW;
}

/* Where root reads, it does not write: the kernel takes its overrides away with the file system uid. */
static void be_reader(void)
{
  setfsuid(geteuid());
  setfsgid(getegid());
}

static void be_writer(const struct tree_copy *copy)
{
  setfsgid(copy->gid);
  setfsuid(copy->uid);
}

static int spend(struct tree_copy *copy, uint64_t bytes, uint64_t files)
{
  if (copy->bytes + bytes > copy->max_bytes || copy->files + files > copy->max_files) {
    errno = EDQUOT;
    return -1;
  }
  copy->bytes += bytes;
  copy->files += files;
  return 0;
}

/* --- one entry --------------------------------------------------------------------------------------------------- */

static int copy_range(int from, int to, off_t start, off_t end, struct tree_copy *copy)
{
  if (spend(copy, (uint64_t)(end - start), 0) < 0 || lseek(to, start, SEEK_SET) < 0)
    return -1;
  for (off_t at = start; at < end;) {
    const ssize_t sent = sendfile(to, from, &at, (size_t)(end - at));
    if (sent < 0 && errno == EINTR)
      continue;
    if (sent < 0)
      return -1;
    if (sent == 0)
      break;                       /* it became shorter meanwhile */
  }
  return 0;
}

static int copy_data(int from, int to, off_t size, struct tree_copy *copy)
{
  for (off_t at = 0; at < size;) {
    const off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
      break;
    off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    if (hole < 0)
      return -1;
    hole = hole < size ? hole : size;
    if (hole > data && copy_range(from, to, data, hole, copy) < 0)
      return -1;
    at = hole > data ? hole : size;
  }
  return ftruncate(to, size);
}

static int copy_attributes(int from, int to, const struct tree_copy *copy)
{
  static __thread char names[MAX_LIST], value[MAX_VALUE];
  const ssize_t size = flistxattr(from, names, sizeof names);
  if (size < 0)
    return errno == ENOTSUP ? 0 : -1;
  for (const char *name = names; name < names + size; name += strlen(name) + 1) {
    const bool wanted = strncmp(name, "user.", 5) == 0 || (copy->layer && strcmp(name, OPAQUE) == 0);
    const ssize_t length = wanted ? fgetxattr(from, name, value, sizeof value) : -1;
    if (!wanted)
      continue;
    if (length < 0 || (fsetxattr(to, name, value, (size_t)length, 0) < 0 && errno != ENOTSUP))
      return -1;
  }
  return 0;
}

static int dress(int from, int to, const struct stat *st, const struct tree_copy *copy)
{
  const struct timespec times[2] = {st->st_atim, st->st_mtim};
  if (copy_attributes(from, to, copy) < 0)
    return -1;
  be_writer(copy);
  const int result = fchmod(to, st->st_mode & MODES) < 0 ? -1 : futimens(to, times);
  be_reader();
  return result;
}

/* What lies in several layers may have one number. */
static void name_link(char *name, size_t size, const struct stat *st)
{
  snprintf(name, size, "%" PRIx64 "-%" PRIx64, (uint64_t)st->st_dev, (uint64_t)st->st_ino);
}

/* 1: it is one more name of what was copied before. */
static int copy_link(const struct stat *st, int to, const char *name, const struct tree_copy *copy)
{
  char number[48];
  name_link(number, sizeof number, st);
  be_writer(copy);
  const int result = linkat(copy->links, number, to, name, 0);
  be_reader();
  return result == 0 ? 1 : errno == ENOENT ? 0 : -1;
}

static int note_link(const struct stat *st, int to, const char *name, const struct tree_copy *copy)
{
  char number[48];
  name_link(number, sizeof number, st);
  be_writer(copy);
  const int result = linkat(to, name, copy->links, number, 0);
  be_reader();
  return result;
}

static int copy_file(int from, int to, const char *name, struct tree_copy *copy)
{
  cleanup_fd int source = sys_openat2(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0,
                                      RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
  struct stat st;
  if (source < 0 || fstat(source, &st) < 0)
    return -1;
  if (!S_ISREG(st.st_mode)) {
    errno = ESTALE;
    return -1;
  }
  if (st.st_nlink > 1) {
    const int linked = copy_link(&st, to, name, copy);
    if (linked != 0)
      return linked < 0 ? -1 : 0;
  }
  be_writer(copy);
  cleanup_fd int target = openat(to, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  be_reader();
  if (target < 0 || copy_data(source, target, st.st_size, copy) < 0 || dress(source, target, &st, copy) < 0)
    return -1;
  return st.st_nlink > 1 ? note_link(&st, to, name, copy) : 0;
}

static int copy_symlink(int from, int to, const char *name, const struct stat *st, const struct tree_copy *copy)
{
  char path[PATH_MAX];
  const ssize_t size = readlinkat(from, name, path, sizeof path - 1);
  if (size < 0)
    return -1;
  path[size] = '\0';
  const struct timespec times[2] = {st->st_atim, st->st_mtim};
  be_writer(copy);
  const int result = symlinkat(path, to, name) < 0 ? -1 : utimensat(to, name, times, AT_SYMLINK_NOFOLLOW);
  be_reader();
  return result;
}

static int make_node(int to, const char *name, mode_t mode, const struct tree_copy *copy)
{
  be_writer(copy);
  const int result = mknodat(to, name, mode, 0);
  be_reader();
  return result;
}

/* 1 with `st`, 0: `side` has no such name at this level. */
static int look(const struct place_of *at, const struct level *level, int side, const char *name, struct stat *st)
{
  if (!(level->sides & 1u << side))
    return 0;
  if (fstatat(at->from[side], name, st, AT_SYMLINK_NOFOLLOW) == 0)
    return 1;
  return errno == ENOENT ? 0 : -1;
}

static int is_opaque(int directory, const char *name)
{
  char value[2];
  cleanup_fd int fd = sys_openat2(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
                                  RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
  if (fd < 0)
    return -1;
  if (fgetxattr(fd, OPAQUE, value, sizeof value) == 1)
    return value[0] == 'y';
  return errno == ENODATA || errno == ENOTSUP ? 0 : -1;
}

/* Which sides a directory that `side` has is made of: its `sides`, or -1. */
static int sides_of(const struct place_of *at, const struct level *level, int side, const char *name)
{
  struct stat st;
  unsigned sides = 1u << side;
  if (!at->merging)
    return (int)sides;
  int opaque = is_opaque(at->from[side], name);
  if (opaque == 0 && side == UPPER) {
    const int found = look(at, level, BELOW, name, &st);
    if (found < 0)
      return -1;
    if (found && S_ISDIR(st.st_mode)) {
      sides |= OF_BELOW;
      opaque = is_opaque(at->from[BELOW], name);
    } else if (found) {
      opaque = 1;                  /* a whiteout or a file ended it there, and stands for what lies further below, too */
    }
  }
  if (opaque < 0)
    return -1;
  if (opaque)
    return (int)(sides | IS_OPAQUE);
  const int found = look(at, level, BASE, name, &st);
  return found < 0 ? -1 : (int)(sides | (found && S_ISDIR(st.st_mode) ? OF_BASE : 0));
}

/* A directory's name is kept for later. */
static int keep_name(const struct place_of *at, struct level *level, int side, const char *name)
{
  const int sides = sides_of(at, level, side, name);
  const size_t size = strlen(name) + 1;
  char *grown = sides < 0 ? NULL : realloc(level->names, level->used + 1 + size);
  if (!grown)
    return -1;
  grown[level->used] = (char)sides;
  memcpy(grown + level->used + 1, name, size);
  level->names = grown;
  level->used += 1 + size;
  return 0;
}

/* 1: nothing of it is copied. */
static int is_passed_over(const struct place_of *at, const struct level *level, const char *name, const struct stat *st,
                          struct tree_copy *copy)
{
  struct stat other;
  if (S_ISSOCK(st->st_mode)) {
    copy->skipped++;
    return 1;
  }
  if (!at->merging || !S_ISCHR(st->st_mode) || st->st_rdev != makedev(0, 0))
    return 0;
  const int found = look(at, level, BASE, name, &other);
  return found < 0 ? -1 : !found;
}

static int copy_entry(const struct place_of *at, const char *name, int side, struct level *level, struct tree_copy *copy)
{
  struct stat st, above;
  const int from = at->from[side], to = at->to;
  const int hidden = side == BELOW ? look(at, level, UPPER, name, &above) : 0;
  if (hidden != 0)
    return hidden < 0 ? -1 : 0;
  if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return -1;
  const int passed = is_passed_over(at, level, name, &st, copy);
  if (passed != 0)
    return passed < 0 ? -1 : 0;
  if (spend(copy, 0, 1) < 0)
    return -1;
  switch (st.st_mode & S_IFMT) {
  case S_IFREG: return copy_file(from, to, name, copy);
  case S_IFLNK: return copy_symlink(from, to, name, &st, copy);
  case S_IFIFO: return make_node(to, name, S_IFIFO | (st.st_mode & 0777), copy);
  case S_IFCHR:                    /* the name is gone from what lies below */
    if (copy->layer && st.st_rdev == makedev(0, 0))
      return make_node(to, name, S_IFCHR, copy);
    break;
  case S_IFDIR: return keep_name(at, level, side, name);
  default: break;
  }
  errno = EPERM;                   /* a device: none can have been made in there */
  return -1;
}

/* --- level by level ---------------------------------------------------------------------------------------------- */

static void tell_where(struct tree_copy *copy, const char *name)
{
  if (copy->where[0] == '\0')
    snprintf(copy->where, sizeof copy->where, "%.250s", name);
}

static int copy_names(const struct place_of *at, int side, struct level *level, struct tree_copy *copy)
{
  const int again = openat(at->from[side], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = again < 0 ? NULL : fdopendir(again);
  if (!entries) {
    imd_cleanup_fd(&again);
    return -1;
  }
  int result = 0;
  while (result == 0) {
    errno = 0;
    const struct dirent *entry = readdir(entries);
    if (!entry) {
      result = errno == 0 ? 0 : -1;
      break;
    }
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
      continue;
    result = copy_entry(at, entry->d_name, side, level, copy);
    if (result < 0)
      tell_where(copy, entry->d_name);
  }
  const int error = errno;
  closedir(entries);
  errno = error;
  return result;
}

static int copy_level(const struct place_of *at, struct level *level, struct tree_copy *copy)
{
  for (int side = 0; side < SIDES; side++)
    if ((level->sides & 1u << side) && fstat(at->from[side], &level->from[side]) < 0)
      return -1;
  if (fstat(at->to, &level->to) < 0)
    return -1;
  for (int side = UPPER; side <= BELOW; side++)
    if ((level->sides & 1u << side) && copy_names(at, side, level, copy) < 0)
      return -1;
  return 0;
}

static void close_sides(int (*from)[SIDES])
{
  for (int side = 0; side < SIDES; side++)
    imd_close(&(*from)[side]);
}

/* Into the directory `name`, on the sides that have it. 1: it is a mount of its own, whose place stays empty. */
static int descend(struct place_of *at, unsigned sides, const char *name, const struct tree_copy *copy)
{
  be_writer(copy);
  const int made = mkdirat(at->to, name, 0700);
  cleanup_fd int to = made < 0 ? -1 : openat(at->to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  be_reader();
  if (to < 0)
    return -1;
  __attribute__((cleanup(close_sides))) int from[SIDES] = {-1, -1, -1};
  for (int side = 0; side < SIDES; side++) {
    if (!(sides & 1u << side))
      continue;
    from[side] = sys_openat2(at->from[side], name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
                             RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
    if (from[side] < 0)
      return errno == EXDEV ? 1 : -1;
  }
  for (int side = 0; side < SIDES; side++) {
    if (from[side] < 0)
      continue;
    imd_close(&at->from[side]);
    at->from[side] = imd_take_fd(&from[side]);
  }
  imd_close(&at->to);
  at->to = imd_take_fd(&to);
  return 0;
}

static bool is_same(int fd, const struct stat *st)
{
  struct stat now;
  if (fstat(fd, &now) < 0)
    return false;
  if (now.st_dev != st->st_dev || now.st_ino != st->st_ino) {
    errno = ESTALE;
    return false;
  }
  return true;
}

static int climb(int *fd, const struct stat *where)
{
  cleanup_fd int above = openat(*fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (above < 0 || !is_same(above, where))
    return -1;
  imd_close(fd);
  *fd = imd_take_fd(&above);
  return 0;
}

static int climb_all(struct place_of *at, const struct level *level, const struct level *above)
{
  for (int side = 0; side < SIDES; side++)
    if ((level->sides & 1u << side) && climb(&at->from[side], &above->from[side]) < 0)
      return -1;
  return climb(&at->to, &above->to);
}

/* Modes and times last: what is made in a directory changes them, and some do not let anything be made. */
static int finish_level(const struct place_of *at, const struct level *level, const struct tree_copy *copy)
{
  struct stat st;
  const int from = at->from[primary(level)];
  if (fstat(from, &st) < 0 || dress(from, at->to, &st, copy) < 0)
    return -1;
  return at->merging && (level->sides & IS_OPAQUE) ? fsetxattr(at->to, OPAQUE, "y", 1, 0) : 0;
}

struct levels { struct level *at; size_t count, room; };

static void levels_free(struct levels *levels)
{
  while (levels->count > 0)
    free(levels->at[--levels->count].names);
  free(levels->at);
}

static int push(struct levels *levels, unsigned sides)
{
  if (levels->count == levels->room) {
    const size_t room = levels->room ? 2 * levels->room : 64;
    struct level *grown = realloc(levels->at, room * sizeof *grown);
    if (!grown)
      return -1;
    levels->at = grown;
    levels->room = room;
  }
  levels->at[levels->count++] = (struct level){.sides = sides};
  return 0;
}

static int walk(struct place_of *at, unsigned all, struct levels *levels, struct tree_copy *copy)
{
  if (push(levels, all) < 0 || copy_level(at, &levels->at[0], copy) < 0)
    return -1;
  while (levels->count > 0) {
    struct level *level = &levels->at[levels->count - 1];
    if (level->next < level->used) {
      const unsigned sides = (unsigned char)level->names[level->next];
      const char *name = level->names + level->next + 1;
      level->next += 1 + strlen(name) + 1;
      /* Somebody must remove the copy: under Landlock each removal walks up to the root. */
      if (levels->count > MAX_DEPTH) {
        snprintf(copy->where, sizeof copy->where, "%.200s, below %d directories", name, MAX_DEPTH);
        errno = ENAMETOOLONG;
        return -1;
      }
      const int entered = descend(at, sides, name, copy);
      if (entered < 0)
        tell_where(copy, name);
      if (entered < 0 || (entered == 0 && (push(levels, sides) < 0 ||
                                           copy_level(at, &levels->at[levels->count - 1], copy) < 0)))
        return -1;
      continue;
    }
    if (finish_level(at, level, copy) < 0)
      return -1;
    free(level->names);
    level->names = NULL;
    if (levels->count == 1) {
      levels->count = 0;
      break;
    }
    if (climb_all(at, level, &levels->at[levels->count - 2]) < 0)
      return -1;
    levels->count--;
  }
  return 0;
}

static int empty(int directory)
{
  const int again = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *entries = again < 0 ? NULL : fdopendir(again);
  if (!entries) {
    imd_cleanup_fd(&again);
    return -1;
  }
  for (const struct dirent *entry; (entry = readdir(entries));)
    if (entry->d_name[0] != '.')
      unlinkat(directory, entry->d_name, 0);
  closedir(entries);
  return 0;
}

static int open_again(int directory, bool wanted)
{
  return wanted ? openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

int tree_merge(int upper, int below, int base, int to, struct tree_copy *copy)
{
  const bool merging = below >= 0;
  struct place_of at = {.from = {open_again(upper, true), open_again(below, merging), open_again(base, merging)},
                        .to = open_again(to, true), .merging = merging};
  __attribute__((cleanup(levels_free))) struct levels levels = {.at = NULL};
  copy->where[0] = '\0';
  int result = at.to < 0 || at.from[UPPER] < 0 || (merging && (at.from[BELOW] < 0 || at.from[BASE] < 0)) ? -1 : 0;
  if (result == 0)
    result = walk(&at, merging ? OF_UPPER | OF_BELOW | OF_BASE : OF_UPPER, &levels, copy);
  const int error = errno;
  close_sides(&at.from);
  imd_close(&at.to);
  if (empty(copy->links) < 0 && result == 0)
    return -1;
  errno = error;
  return result;
}

int tree_copy(int from, int to, struct tree_copy *copy)
{
  return tree_merge(from, -1, -1, to, copy);
}
