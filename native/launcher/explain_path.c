/*
 * Two ways. The quick one asks the kernel by one or two calls of statfs, and is believed where it says that the place
 * can be written to. It sees /proc/self as PID 1's own: PID 1 stands in a /proc that has no parent and has no files, so
 * that whatever leads through there ends in /proc, at nothing, or at a socket, and is not believed. Everything else goes
 * the slow way: component by component, with /proc/self taken as the other process's.
 */
#define _GNU_SOURCE
#include "explain_path.h"
#include "kernel.h"
#include "util.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#ifndef SOCKFS_MAGIC
#define SOCKFS_MAGIC 0x534f434b
#endif
#ifndef ANON_INODE_FS_MAGIC
#define ANON_INODE_FS_MAGIC 0x09041934
#endif

enum {
  PROC_ROOT_INODE = 1, MAX_LINKS = 40, PREFIX = 48,
  MAX_STEPS = 512,                 /* one name each; who names more is not waited for */
};

/* Where our own executable lies: "/proc/self/exe" leads there. */
static fsid_t own_file_system;

void explain_path_settle(void)
{
  struct statfs own;
  if (statfs("1/exe", &own) == 0)
    own_file_system = own.f_fsid;
}

static bool is_absolute(const struct explain_path *path)
{
  return path->text && path->text[0] == '/';
}

/* What a relative path starts at, seen from /proc. */
static int base_name(const struct explain_path *path, char *name, size_t size)
{
  return path->dir == AT_FDCWD ? snprintf(name, size, "%d/cwd", path->pid)
                               : snprintf(name, size, "%d/fd/%d", path->pid, path->dir);
}

/* --- the quick way ----------------------------------------------------------------------------------------------- */

enum look { LOOK_WRITABLE, LOOK_READ_ONLY, LOOK_MISSING, LOOK_UNSURE };

static enum look look_at(const char *name)
{
  struct statfs found;
  if (statfs(name, &found) < 0)
    return errno == ENOENT ? LOOK_MISSING : LOOK_UNSURE;
  if (found.f_type == PROC_SUPER_MAGIC || found.f_type == SOCKFS_MAGIC || found.f_type == ANON_INODE_FS_MAGIC ||
      memcmp(&found.f_fsid, &own_file_system, sizeof own_file_system) == 0)
    return LOOK_UNSURE;
  return found.f_flags & ST_RDONLY ? LOOK_READ_ONLY : LOOK_WRITABLE;
}

/* Of the directory that holds the last name. Changes `name`. */
static enum look look_at_parent(char *name)
{
  char *end = name + strlen(name);
  while (end > name + 1 && end[-1] == '/')
    *--end = '\0';
  char *slash = strrchr(name, '/');
  if (!slash || strcmp(slash, "/.") == 0 || strcmp(slash, "/..") == 0)
    return LOOK_UNSURE;
  slash[slash == name ? 1 : 0] = '\0';
  return look_at(name);
}

static bool is_link(const char *name)
{
  char byte;
  return readlinkat(AT_FDCWD, name, &byte, 1) >= 0 || errno != ENOENT;
}

static bool surely_allowed(const struct explain_path *path, enum explain_want want, int flags, bool follow)
{
  char space[PREFIX + PATH_MAX];
  const char *name = path->text;
  if (!is_absolute(path)) {
    const int used = base_name(path, space, PREFIX);
    if (path->text) {
      const size_t length = strlen(path->text);
      if (length >= PATH_MAX)
        return false;
      space[used] = '/';
      memcpy(space + used + 1, path->text, length + 1);
    }
    name = space;
  }
  enum look found = LOOK_MISSING;
  if (want != WANT_MAKE)
    found = look_at(name);
  const bool by_itself = !path->text || want == WANT_OPEN || (want == WANT_CHANGE && follow);
  if (by_itself && found != LOOK_MISSING)
    return found == LOOK_WRITABLE;
  if (found == LOOK_READ_ONLY || found == LOOK_UNSURE || !path->text)
    return false;
  if (want == WANT_CHANGE && follow)
    return false;
  /* A new name, perhaps by way of a link that leads to nothing. */
  if (want == WANT_OPEN && (!(flags & O_CREAT) || is_link(name)))
    return false;
  if (name != space) {
    if (strlen(name) >= sizeof space)
      return false;
    strcpy(space, name);
  }
  return look_at_parent(space) == LOOK_WRITABLE;
}

/* --- the slow way ------------------------------------------------------------------------------------------------ */

struct place {
  int parent, target;              /* O_PATH; -1 where there is none */
  mode_t type;                     /* the target's */
  int error;                       /* why there is no target */
};

static void close_place(struct place *place)
{
  imd_close(&place->parent);
  imd_close(&place->target);
}
#define cleanup_place __attribute__((cleanup(close_place)))

int explain_process(int thread)
{
  char name[PREFIX], text[1024];
  snprintf(name, sizeof name, "%d/status", thread);
  cleanup_fd int fd = openat(AT_FDCWD, name, O_RDONLY | O_CLOEXEC);
  const ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (got <= 0)
    return thread;
  text[got] = '\0';
  const char *at = strstr(text, "\nTgid:");
  const int process = at ? (int)strtol(at + strlen("\nTgid:"), NULL, 10) : 0;
  return process > 0 ? process : thread;
}

/* The descriptor itself, of a process that forbids others to look at its own: /proc/PID/fd is root's then. */
static int borrow(const struct explain_path *path)
{
  cleanup_fd int process = pidfd_open(explain_process(path->pid), 0);
  return process < 0 ? -1 : pidfd_getfd(process, path->dir, 0);
}

static int open_base(const struct explain_path *path)
{
  char name[PREFIX];
  if (is_absolute(path))
    return open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  base_name(path, name, sizeof name);
  const int fd = open(name, O_PATH | O_CLOEXEC);
  return fd < 0 && errno == EACCES && path->dir >= 0 ? borrow(path) : fd;
}

static bool is_proc(int fd)
{
  struct statfs found;
  return fstatfs(fd, &found) == 0 && found.f_type == PROC_SUPER_MAGIC;
}

static bool is_proc_root(int dir)
{
  struct stat st;
  return is_proc(dir) && fstat(dir, &st) == 0 && st.st_ino == PROC_ROOT_INODE;
}

/*
 * Where the link `fd`, found as `name` in `dir`, leads: 1 with its text; 0 with `*jump`, where there is none (what is
 * behind /proc/PID/cwd, fd and such has no way to it); or an errno, negative.
 */
static int read_link(int thread, int dir, int fd, const char *name, char *text, size_t size, int *jump)
{
  if (is_proc(fd)) {
    if (!is_proc_root(dir)) {
      *jump = openat(dir, name, O_PATH | O_CLOEXEC);
      return *jump < 0 ? -errno : 0;
    }
    if (strcmp(name, "self") == 0 || strcmp(name, "thread-self") == 0) {
      snprintf(text, size, "%d", thread);
      return 1;
    }
  }
  const ssize_t got = readlinkat(fd, "", text, size - 1);
  if (got < 0)
    return -errno;
  text[got] = '\0';
  return 1;
}

/* `rest` becomes the link's text before what is left of it. */
static int put_before(char *rest, size_t size, const char *link, const char *left)
{
  char joined[2 * PATH_MAX];
  const int length = snprintf(joined, sizeof joined, "%s%s%s", link, *left ? "/" : "", left);
  if (length < 0 || (size_t)length >= size)
    return -ENAMETOOLONG;
  memcpy(rest, joined, (size_t)length + 1);
  return 0;
}

/* One name below place->parent, which moves on (`last`: the target is found). 1: a link was put before the rest. */
static int step(struct place *place, int thread, char *rest, size_t size, char *name, char *left, bool last, bool follow,
                unsigned *links)
{
  char link[PATH_MAX];
  struct stat st;
  cleanup_fd int next = openat(place->parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (next < 0 || fstat(next, &st) < 0)
    return -errno;
  if (S_ISLNK(st.st_mode) && (!last || follow)) {
    if (++*links > MAX_LINKS)
      return -ELOOP;
    int jump = -1;
    const int kind = read_link(thread, place->parent, next, name, link, sizeof link, &jump);
    if (kind < 0)
      return kind;
    if (kind == 1) {
      const int put = put_before(rest, size, link, left);
      if (put == 0 && link[0] == '/') {
        imd_close(&place->parent);
        place->parent = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (place->parent < 0)
          return -errno;
      }
      return put < 0 ? put : 1;
    }
    imd_close(&next);
    next = jump;
    if (fstat(next, &st) < 0)
      return -errno;
  }
  if (last) {
    place->target = imd_take_fd(&next);
    place->type = st.st_mode & S_IFMT;
    return 0;
  }
  imd_close(&place->parent);
  place->parent = imd_take_fd(&next);
  return 0;
}

/*
 * The names before the last of `at` in one step, or as many as the kernel takes at once: it walks links by itself, and
 * takes /proc/self for ours. What is left, or NULL with place->error.
 */
static char *leap(struct place *place, char *at)
{
  char *end = at + strlen(at);
  while (end > at && end[-1] == '/')
    end--;
  const size_t most = (size_t)(end - at) < PATH_MAX ? (size_t)(end - at) : PATH_MAX - 1;
  char *slash = memrchr(at, '/', most);
  if (!slash) {
    place->error = ENAMETOOLONG;
    return NULL;
  }
  *slash = '\0';
  cleanup_fd int next = openat(place->parent, at, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (next < 0) {
    place->error = errno == ENOENT ? ENOTDIR : errno;
    return NULL;
  }
  imd_close(&place->parent);
  place->parent = imd_take_fd(&next);
  return slash + 1;
}

/* place->error is 0, ENOENT with a parent (the last name alone is missing), or what stood in the way below `parent`. */
static void find(const struct explain_path *path, bool follow, struct place *place)
{
  char rest[2 * PATH_MAX];
  unsigned links = 0, steps = 0;
  *place = (struct place){.parent = open_base(path), .target = -1};
  if (place->parent < 0 || !path->text) {
    struct stat st;
    place->error = place->parent < 0 || fstat(place->parent, &st) < 0 ? errno : 0;
    if (place->error == 0) {
      place->target = imd_take_fd(&place->parent);
      place->type = st.st_mode & S_IFMT;
    }
    return;
  }
  if (strlen(path->text) >= PATH_MAX) {
    place->error = ENAMETOOLONG;
    return;
  }
  strcpy(rest, path->text);
  for (char *at = rest;;) {
    at += strspn(at, "/");
    const size_t length = strcspn(at, "/");
    char *left = at + length;
    left += strspn(left, "/");
    const bool last = *left == '\0';
    if (length == 1 && *at == '.' && !last) {
      at = left;                   /* costs nothing to write, and should cost nothing here */
      continue;
    }
    if (!last && ++steps > MAX_STEPS) {
      at = leap(place, at);
      if (!at)
        return;
      continue;
    }
    char name[NAME_MAX + 1] = ".";
    if (length > NAME_MAX) {
      place->error = ENAMETOOLONG;
      return;
    }
    if (length > 0) {
      memcpy(name, at, length);
      name[length] = '\0';
    }
    const int done = step(place, path->pid, rest, sizeof rest, name, left, last, follow, &links);
    if (done == -ENAMETOOLONG && !last) {
      steps = MAX_STEPS;           /* links in links, longer together than we keep: the kernel's own walk keeps them */
      continue;
    }
    if (done < 0) {
      place->error = done == -ENOENT && !last ? ENOTDIR : -done;
      return;
    }
    if (done == 0 && last)
      return;
    at = done == 1 ? rest : left;
  }
}

static bool read_only(int fd)
{
  struct statfs found;
  return fd >= 0 && fstatfs(fd, &found) == 0 && (found.f_flags & ST_RDONLY);
}

static bool is_file(const struct place *place)
{
  return !S_ISCHR(place->type) && !S_ISBLK(place->type) && !S_ISFIFO(place->type) && !S_ISSOCK(place->type);
}

static bool open_forbidden(const struct place *place, int flags)
{
  const bool unnamed = (flags & O_TMPFILE) == O_TMPFILE;
  if (flags & O_PATH)              /* the rest of the flags says nothing then */
    return false;
  if (place->target < 0)
    return (flags & O_CREAT) && read_only(place->parent);
  if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL) || S_ISLNK(place->type) || S_ISDIR(place->type) != unnamed)
    return false;
  /* The fourth mode, O_ACCMODE itself, is for ioctl: such a descriptor is neither read from nor written to. */
  const int mode = flags & O_ACCMODE;
  const bool writes = mode == O_WRONLY || mode == O_RDWR || (flags & O_TRUNC);
  return writes && is_file(place) && read_only(place->target);
}

bool explain_forbidden(const struct explain_path *path, enum explain_want want, int flags, bool follow)
{
  if (path->text && path->text[0] == '\0')
    return false;
  /* A slash at the end has a link followed, whatever the flags say. */
  if (want == WANT_CHANGE && path->text && path->text[strlen(path->text) - 1] == '/')
    follow = true;
  if (surely_allowed(path, want, flags, follow))
    return false;
  cleanup_place struct place place;
  find(path, follow, &place);
  if (place.error == EACCES)
    return read_only(place.parent);
  if (place.error != 0 && (place.error != ENOENT || place.parent < 0))
    return false;
  switch (want) {
  case WANT_OPEN: return open_forbidden(&place, flags);
  case WANT_MAKE: return place.target < 0 && read_only(place.parent);
  case WANT_REMOVE:
    return place.target >= 0 && (read_only(place.parent) || (!S_ISLNK(place.type) && read_only(place.target)));
  case WANT_REPLACE: return read_only(place.parent) || (!S_ISLNK(place.type) && read_only(place.target));
  case WANT_CHANGE: return place.target >= 0 && is_file(&place) && read_only(place.target);
  }
  return false;
}

bool explain_exists(const struct explain_path *path)
{
  cleanup_place struct place place;
  find(path, false, &place);
  return place.target >= 0;
}

/* Where a relative path starts, by name. */
static ssize_t base_text(const struct explain_path *path, char *text, size_t size)
{
  char name[PREFIX];
  base_name(path, name, sizeof name);
  const ssize_t got = readlinkat(AT_FDCWD, name, text, size);
  if (got >= 0 || errno != EACCES || path->dir < 0)
    return got;
  cleanup_fd int fd = borrow(path);
  snprintf(name, sizeof name, "1/fd/%d", fd);
  return fd < 0 ? -1 : readlinkat(AT_FDCWD, name, text, size);
}

size_t explain_path_text(const struct explain_path *path, char *text, size_t size)
{
  size_t used = 0;
  if (!is_absolute(path)) {
    const ssize_t got = base_text(path, text, size);
    used = got > 0 ? (size_t)got : 0;
    if (path->text && used > 0 && used < size && text[used - 1] != '/')
      text[used++] = '/';
  }
  if (path->text) {
    const size_t length = strnlen(path->text, size - used);
    memcpy(text + used, path->text, length);
    used += length;
  }
  return used;
}
