/* What is there: one file, a directory, what a pattern finds. */
#define _GNU_SOURCE
#include "clerk_files.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

enum { LISTING = 32 << 10, LOOKED_AT = 1 << 20, MAX_PARTS = 60 };
#define GLOB_NS 5000000000u        /* for one pattern */

int files_put_row(struct files_reply *reply, const struct stat *st, const char *name, size_t name_length,
                  const char *target, size_t target_length)
{
  struct imd_files_row row = {
      .size = (uint64_t)st->st_size, .allocated = (uint64_t)st->st_blocks * 512u,
      .mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
      .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .links = (uint32_t)st->st_nlink,
      .name_length = (uint16_t)name_length, .target_length = (uint16_t)target_length,
  };
  if (reply->size + sizeof row + name_length + target_length > IMD_FILES_BODY)
    return -1;
  memcpy(reply->body + reply->size, &row, sizeof row);
  reply->size += sizeof row;
  memcpy(reply->body + reply->size, name, name_length);
  reply->size += name_length;
  if (target_length > 0)
    memcpy(reply->body + reply->size, target, target_length);
  reply->size += target_length;
  reply->answer.rows++;
  return 0;
}

int files_stat(struct files *files, const struct files_question *question, struct files_reply *reply,
               struct imd_error *err)
{
  const uint64_t flags = O_PATH | (question->ask->flags & IMD_FILES_FOLLOW ? 0 : O_NOFOLLOW);
  cleanup_fd int fd = files_open(files, question->path, flags, err);
  struct stat st;
  if (fd < 0 || files_look(files, fd, question->path, &st, err) < 0)
    return -1;
  char target[IMD_FILES_MAX_PATH + 1];
  const ssize_t length = S_ISLNK(st.st_mode) ? readlinkat(fd, "", target, sizeof target) : 0;
  return files_put_row(reply, &st, "", 0, target, length > 0 ? (size_t)length : 0);
}

/* --- a directory */

struct linux_dirent64 {
  uint64_t ino;
  int64_t off;
  unsigned short reclen;
  unsigned char type;
  char name[];
};

static bool is_dots(const char *name)
{
  return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

int files_list(struct files *files, const struct files_question *question, struct files_reply *reply,
               struct imd_error *err)
{
  cleanup_fd int fd = files_open(files, question->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK, err);
  struct stat st;
  if (fd < 0 || files_look(files, fd, question->path, &st, err) < 0)
    return -1;
  int64_t next = (int64_t)question->ask->number[0];
  if (next != 0 && lseek(fd, next, SEEK_SET) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", question->path);
  cleanup_free char *entries = malloc(LISTING);
  if (!entries)
    return files_fail(err, IMD_FILES_FAILED, "memory");
  for (;;) {
    const long got = syscall(SYS_getdents64, fd, entries, LISTING);
    if (got < 0)
      return files_fail(err, IMD_FILES_FAILED, "%s", question->path);
    if (got == 0)
      return 0;
    for (long at = 0; at < got;) {
      const struct linux_dirent64 *entry = (const void *)(entries + at);
      at += entry->reclen;
      char target[IMD_FILES_MAX_PATH + 1];
      ssize_t length = 0;
      if (!is_dots(entry->name) &&
          fstatat(fd, entry->name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0) {
        if (S_ISLNK(st.st_mode))
          length = readlinkat(fd, entry->name, target, sizeof target);
        if (reply->answer.rows >= question->ask->number[1] ||
            files_put_row(reply, &st, entry->name, strlen(entry->name), target, length > 0 ? (size_t)length : 0) < 0) {
          reply->answer.number[0] = (uint64_t)next;
          reply->answer.flags |= IMD_FILES_MORE;
          return 0;
        }
      }
      next = entry->off;
    }
  }
}

/* --- a pattern */

struct glob {
  struct files *files;
  char *text;                      /* the pattern, cut at its slashes */
  const char *parts[MAX_PARTS];
  uint32_t count;
  char path[IMD_FILES_MAX_PATH + 1];
  uint64_t deadline, looked_at, most, rows;
  bool cut;
};

/* `[...]` at *at: whether it takes `c`, and *at behind it. A bracket that does not end is a character. */
static bool in_set(const char **at, unsigned char c)
{
  const char *p = *at + 1;
  const bool inverted = *p == '!' || *p == '^';
  p += inverted;
  bool found = false;
  for (bool first = true; *p != '\0' && (first || *p != ']'); first = false) {
    const unsigned char low = (unsigned char)*p;
    unsigned char high = low;
    if (p[1] == '-' && p[2] != '\0' && p[2] != ']') {
      high = (unsigned char)p[2];
      p += 2;
    }
    p++;
    found |= low <= c && c <= high;
  }
  if (*p == '\0') {
    *at += 1;
    return c == '[';
  }
  *at = p + 1;
  return found != inverted;
}

/*
 * One name and one part of a pattern: `*`, `?`, `[...]` and a backslash. Only the last star is ever tried again, so that no
 * pattern takes more than its length times the name's; the C library's fnmatch can take for ever.
 */
static bool matches(const char *pattern, const char *name)
{
  if (name[0] == '.' && pattern[0] != '.' && !(pattern[0] == '\\' && pattern[1] == '.'))
    return false;
  const char *star = NULL, *resume = NULL;
  while (*name != '\0') {
    const char *next = pattern;
    bool fits = false;
    if (*pattern == '*') {
      star = ++pattern;
      resume = name;
      continue;
    }
    if (*pattern == '?') {
      fits = true;
      next = pattern + 1;
    } else if (*pattern == '[') {
      fits = in_set(&next, (unsigned char)*name);
    } else if (*pattern != '\0') {
      next += *pattern == '\\' && pattern[1] != '\0';
      fits = *next == *name;
      next++;
    }
    if (fits) {
      pattern = next;
      name++;
    } else if (star) {
      pattern = star;
      name = ++resume;
    } else {
      return false;
    }
  }
  pattern += strspn(pattern, "*");
  return *pattern == '\0';
}

static bool is_any_depth(const char *part)
{
  return strcmp(part, "**") == 0;
}

/* Parts that may come next, as bits: where `**` may come, so may what follows it. Bit `count`: it is found. */
static uint64_t settle(const struct glob *glob, uint64_t parts)
{
  for (uint32_t i = 0; i < glob->count; i++)
    if ((parts >> i & 1u) && is_any_depth(glob->parts[i]))
      parts |= (uint64_t)1 << (i + 1);
  return parts;
}

static uint64_t step(const struct glob *glob, uint64_t parts, const char *name)
{
  uint64_t next = 0;
  for (uint32_t i = 0; i < glob->count; i++) {
    if (!(parts >> i & 1u))
      continue;
    if (!is_any_depth(glob->parts[i]))
      next |= (uint64_t)matches(glob->parts[i], name) << (i + 1);
    else if (name[0] != '.')
      next |= (uint64_t)1 << i;
  }
  return settle(glob, next);
}

static int keep(struct glob *glob, const struct stat *st, size_t length, int dir, const char *name)
{
  struct files *files = glob->files;
  char target[IMD_FILES_MAX_PATH + 1];
  const ssize_t points = S_ISLNK(st->st_mode) ? readlinkat(dir, name, target, sizeof target) : 0;
  struct files_reply one = {.body = files->found + files->found_size};
  if (glob->rows >= glob->most || files->found_size + IMD_FILES_BODY > IMD_FILES_MAX_FOUND) {
    glob->cut = true;
    return -1;
  }
  files_put_row(&one, st, glob->path, length, target, points > 0 ? (size_t)points : 0);
  files->found_size += one.size;
  glob->rows++;
  return 0;
}

/* What cannot be read is as if it were not there: a pattern finds what the payload could see. -1: enough. */
static int search(struct glob *glob, int dir, size_t length, uint64_t parts, uint32_t depth)
{
  DIR *listing = fdopendir(dir);
  if (!listing) {
    close(dir);
    return 0;
  }
  int result = 0;
  for (const struct dirent *entry; result == 0 && (entry = readdir(listing));) {
    if (is_dots(entry->d_name))
      continue;
    if (++glob->looked_at > LOOKED_AT || imd_now_ns() > glob->deadline) {
      glob->cut = true;
      result = -1;
      break;
    }
    const uint64_t next = step(glob, parts, entry->d_name);
    const size_t more = strlen(entry->d_name);
    struct stat st;
    if (next == 0 || length + more + 2 > sizeof glob->path ||
        fstatat(dirfd(listing), entry->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
      continue;
    glob->path[length] = '/';
    memcpy(glob->path + length + 1, entry->d_name, more + 1);
    if (next >> glob->count & 1u)
      result = keep(glob, &st, length + 1 + more, dirfd(listing), entry->d_name);
    if (result < 0 || !S_ISDIR(st.st_mode) || !(next & (((uint64_t)1 << glob->count) - 1)))
      continue;
    if (depth == 0) {
      glob->cut = true;
      continue;
    }
    const int below = openat(dirfd(listing), entry->d_name,
                             O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct imd_error ignored = IMD_ERROR_INIT;
    if (below >= 0 && files_look(glob->files, below, "", &st, &ignored) < 0)
      close(below);
    else if (below >= 0)
      result = search(glob, below, length + 1 + more, next, depth - 1);
  }
  closedir(listing);
  return result;
}

static int cut_up(struct glob *glob, const char *pattern, struct imd_error *err)
{
  if (pattern[0] != '/')
    return imd_fail(err, IMD_FILES_NAME, 0, "%s is no absolute pattern", pattern);
  glob->text = strdup(pattern);
  if (!glob->text)
    return files_fail(err, IMD_FILES_FAILED, "memory");
  for (char *rest = glob->text, *part; (part = strsep(&rest, "/"));) {
    if (*part == '\0' || strcmp(part, ".") == 0)
      continue;
    if (strcmp(part, "..") == 0)
      return imd_fail(err, IMD_FILES_OUTSIDE, 0, "%s leads through `..`", pattern);
    if (glob->count == MAX_PARTS)
      return imd_fail(err, IMD_FILES_DEEP, 0, "%s has more than %d parts", pattern, MAX_PARTS);
    if (glob->count > 0 && is_any_depth(part) && is_any_depth(glob->parts[glob->count - 1]))
      continue;
    glob->parts[glob->count++] = part;
  }
  return glob->count > 0 ? 0 : imd_fail(err, IMD_FILES_NAME, 0, "%s is no pattern", pattern);
}

/* Leading parts without a wildcard are walked as a path is, links and all: a search begins where they end. */
static uint32_t literal(const struct glob *glob)
{
  uint32_t count = 0;
  while (count + 1 < glob->count && !strpbrk(glob->parts[count], "*?[\\"))
    count++;
  return count;
}

int files_found(struct files *files, const struct files_question *question, struct files_reply *reply,
                struct imd_error *err)
{
  (void)question;
  (void)err;
  while (files->found_at < files->found_size) {
    struct imd_files_row row;
    memcpy(&row, files->found + files->found_at, sizeof row);
    const size_t size = sizeof row + row.name_length + row.target_length;
    if (reply->size + size > IMD_FILES_BODY) {
      reply->answer.flags |= IMD_FILES_MORE;
      return 0;
    }
    memcpy(reply->body + reply->size, files->found + files->found_at, size);
    reply->size += size;
    reply->answer.rows++;
    files->found_at += size;
  }
  return 0;
}

int files_glob(struct files *files, const struct files_question *question, struct files_reply *reply,
               struct imd_error *err)
{
  struct glob glob = {.files = files, .most = question->ask->number[1], .deadline = imd_now_ns() + GLOB_NS};
  if (!files->found)
    files->found = malloc(IMD_FILES_MAX_FOUND);
  files->found_size = files->found_at = 0;
  if (!files->found)
    return files_fail(err, IMD_FILES_FAILED, "memory");
  int result = cut_up(&glob, question->path, err);
  cleanup_free char *text = glob.text;
  if (result < 0)
    return -1;
  const uint32_t first = literal(&glob);
  size_t length = 0;
  for (uint32_t i = 0; i < first; i++)
    length += (size_t)snprintf(glob.path + length, sizeof glob.path - length, "/%s", glob.parts[i]);
  const int fd = files_open(files, length > 0 ? glob.path : "/", O_RDONLY | O_DIRECTORY | O_NONBLOCK, err);
  if (fd < 0) {
    const bool absent = err->stage == IMD_FILES_FAILED && (err->error == ENOENT || err->error == ENOTDIR);
    if (absent)
      *err = (struct imd_error)IMD_ERROR_INIT;
    return absent ? 0 : -1;
  }
  struct stat st;
  if (files_look(files, fd, glob.path, &st, err) < 0) {
    close(fd);
    return -1;
  }
  memmove(glob.parts, glob.parts + first, (glob.count - first) * sizeof *glob.parts);
  glob.count -= first;
  search(&glob, fd, length, settle(&glob, 1), IMD_FILES_MAX_DEPTH);
  reply->answer.flags |= glob.cut ? IMD_FILES_CUT : 0u;
  return files_found(files, question, reply, err);
}
