/* One file in or out: made beside its name and renamed to it, so that nobody sees half of one. */
#define _GNU_SOURCE
#include "clerk_files.h"
#include "kernel.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x00002000
#endif

enum { PIECE = 256 << 10, ATTEMPTS = 16 };

/* --- out */

static int refuse_kind(const struct stat *st, const char *path, struct imd_error *err)
{
  const char *kind = S_ISDIR(st->st_mode)    ? "a directory"
                     : S_ISFIFO(st->st_mode) ? "a pipe with a name"
                     : S_ISSOCK(st->st_mode) ? "a socket"
                     : S_ISLNK(st->st_mode)  ? "a symbolic link"
                                             : "a device";
  return imd_fail(err, IMD_FILES_KIND, 0, "%s is %s, no regular file", path, kind);
}

int files_get(struct files *files, const struct files_question *question, struct files_reply *reply,
              struct imd_error *err)
{
  struct stat before, st;
  /* Looked at first: opening a pipe or a device is already an act. */
  cleanup_fd int place = files_open(files, question->path, O_PATH, err);
  if (place < 0 || files_look(files, place, question->path, &before, err) < 0)
    return -1;
  if (!S_ISREG(before.st_mode))
    return refuse_kind(&before, question->path, err);
  imd_close(&files->get);
  files->get = files_open(files, question->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, err);
  if (files->get < 0 || files_look(files, files->get, question->path, &st, err) < 0)
    return -1;
  if (!S_ISREG(st.st_mode) || st.st_dev != before.st_dev || st.st_ino != before.st_ino)
    return imd_fail(err, IMD_FILES_RACED, 0, "%s was replaced while it was opened", question->path);
  files->get_most = question->ask->number[0];
  if ((uint64_t)st.st_size > files->get_most) {
    reply->answer.number[0] = (uint64_t)st.st_size;
    reply->answer.number[1] = (uint64_t)st.st_blocks * 512u;
    return imd_fail(err, IMD_FILES_LARGE, 0, "%s has %lld bytes (%lld on disk)", question->path,
                    (long long)st.st_size, (long long)st.st_blocks * 512);
  }
  reply->answer.flags |= files_where(files->get);
  if (reply->answer.flags & IMD_FILES_LOCAL)
    reply->fd = files->get;
  return files_put_row(reply, &st, "", 0, "", 0);
}

static int flow(int from, int to, uint64_t most, uint64_t *done, struct imd_error *err)
{
  cleanup_free char *buffer = malloc(PIECE);
  if (!buffer)
    return files_fail(err, IMD_FILES_FAILED, "memory");
  for (;;) {
    const ssize_t got = read(from, buffer, PIECE);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return files_fail(err, IMD_FILES_FAILED, "what is read");
    if (got == 0)
      return 0;
    if ((uint64_t)got > most - *done)
      return imd_fail(err, IMD_FILES_LARGE, 0, "there is more than %llu bytes of it", (unsigned long long)most);
    if (imd_write_full(to, buffer, (size_t)got) < 0)
      return files_fail(err, IMD_FILES_FAILED, "what is written");
    *done += (uint64_t)got;
  }
}

int files_pour(struct files *files, int pipe, struct imd_error *err)
{
  if (files->get < 0 || lseek(files->get, 0, SEEK_SET) < 0)
    return imd_fail(err, IMD_FILES_ORDER, 0, "no file was opened");
  files->flowed[1] = 1;
  return flow(files->get, pipe, files->get_most, &files->flowed[0], err);
}

/* --- in */

void files_put_drop(struct files *files)
{
  struct files_put *put = &files->put;
  if (put->dir >= 0 && put->temporary[0] != '\0')
    unlinkat(put->dir, put->temporary, 0);
  imd_close(&put->dir);
  imd_close(&put->fd);
  put->temporary[0] = '\0';
}

static bool is_mounted(int dir, const char *name)
{
  struct statx found;
  return statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &found) == 0 &&
         (found.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

static int open_temporary(struct files_put *put)
{
  for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
    uint64_t word;
    if (getrandom(&word, sizeof word, 0) != (ssize_t)sizeof word)
      return -1;
    snprintf(put->temporary, sizeof put->temporary, ".immured-%016llx", (unsigned long long)word);
    put->fd = openat(put->dir, put->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600);
    if (put->fd >= 0)
      return 0;
    put->temporary[0] = '\0';
    if (errno != EEXIST)
      return -1;
  }
  return -1;
}

static int open_in_place(const struct files *files, struct files_put *put, const char *path, struct imd_error *err)
{
  struct stat st;
  put->temporary[0] = '\0';
  put->fd = openat(put->dir, put->name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (put->fd < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", path);
  if (files_look(files, put->fd, path, &st, err) < 0)
    return -1;
  return S_ISREG(st.st_mode) ? 0 : refuse_kind(&st, path, err);
}

static int open_put(struct files *files, const struct files_question *question, struct imd_error *err)
{
  struct files_put *put = &files->put;
  const char *path = question->path;
  cleanup_place struct files_place place = FILES_PLACE_NONE;
  if (files_find_place(files, path, question->ask->flags & IMD_FILES_PARENTS, &place, err) < 0)
    return -1;
  if (place.directory)
    return imd_fail(err, IMD_FILES_KIND, 0, "%s: a file's name ends without a slash", path);
  *put = (struct files_put){
      .dir = imd_take_fd(&place.dir), .fd = -1, .mode = question->ask->mode,
      .replace = question->ask->flags & IMD_FILES_REPLACE, .keep_mode = question->ask->flags & IMD_FILES_KEEP_MODE};
  memcpy(put->name, place.name, sizeof put->name);

  struct stat st;
  const bool there = fstatat(put->dir, put->name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0;
  if (!there && errno != ENOENT)
    return files_fail(err, IMD_FILES_FAILED, "%s", path);
  if (there && !put->replace)
    return imd_fail(err, IMD_FILES_EXISTS, 0, "%s is there already", path);
  if (there && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
    return refuse_kind(&st, path, err);
  if (there && put->keep_mode && S_ISREG(st.st_mode))
    put->mode = st.st_mode & 0777;
  /* A file that is a mount of its own can be written, and not be replaced. */
  if (there && is_mounted(put->dir, put->name))
    return open_in_place(files, put, path, err);
  if (open_temporary(put) == 0)
    return 0;
  if (there && S_ISREG(st.st_mode) && (errno == EACCES || errno == EPERM || errno == EROFS))
    return open_in_place(files, put, path, err);
  return files_fail(err, IMD_FILES_FAILED, "%s", path);
}

int files_put(struct files *files, const struct files_question *question, struct files_reply *reply,
              struct imd_error *err)
{
  files_put_drop(files);
  if (question->ask->mode & ~0777u)
    return imd_fail(err, IMD_FILES_SETID, 0, "%s: the mode %o has more than permissions", question->path,
                    question->ask->mode);
  if (open_put(files, question, err) < 0) {
    files_put_drop(files);
    return -1;
  }
  reply->answer.flags |= files_where(files->put.fd) | (files->put.temporary[0] == '\0' ? IMD_FILES_IN_PLACE : 0u);
  if (reply->answer.flags & IMD_FILES_LOCAL)
    reply->fd = files->put.fd;
  return 0;
}

int files_reserve(struct files *files, const struct files_question *question, struct files_reply *reply,
                  struct imd_error *err)
{
  (void)reply;
  const off_t from = (off_t)question->ask->number[0], size = (off_t)question->ask->number[1];
  if (files->put.fd < 0 || from < 0 || size <= 0)
    return imd_fail(err, IMD_FILES_ORDER, 0, "no file was begun");
  /* Memory is its who touched it first: pages made here are the sandbox's, however they are filled. */
  int result;
  do
    result = fallocate(files->put.fd, FALLOC_FL_KEEP_SIZE, from, size);
  while (result < 0 && errno == EINTR);
  return result < 0 ? files_fail(err, IMD_FILES_FAILED, "%s", files->put.name) : 0;
}

int files_fill(struct files *files, int pipe, struct imd_error *err)
{
  if (files->put.fd < 0)
    return imd_fail(err, IMD_FILES_ORDER, 0, "no file was begun");
  files->put.filled = true;
  files->flowed[1] = 1;
  const int result = flow(pipe, files->put.fd, UINT64_MAX, &files->flowed[0], err);
  files->put.came = files->flowed[0];
  return result;
}

int files_commit(struct files *files, const struct files_question *question, struct files_reply *reply,
                 struct imd_error *err)
{
  struct files_put *put = &files->put;
  const uint64_t length = question->ask->number[0];
  struct stat st;
  if (put->fd < 0)
    return imd_fail(err, IMD_FILES_ORDER, 0, "no file was begun");
  if (fstat(put->fd, &st) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", put->name);
  if (put->filled ? put->came != length : (uint64_t)st.st_size < length)
    return imd_fail(err, IMD_FILES_SHORT, 0, "%s: %llu of %llu bytes came", put->name,
                    (unsigned long long)(put->filled ? put->came : (uint64_t)st.st_size), (unsigned long long)length);
  /* What was reserved beyond its end goes too. */
  if (ftruncate(put->fd, (off_t)length) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", put->name);
  if (put->temporary[0] != '\0') {
    if (fchmod(put->fd, put->mode) < 0)
      return files_fail(err, IMD_FILES_FAILED, "%s", put->name);
    if (renameat2(put->dir, put->temporary, put->dir, put->name, put->replace ? 0 : RENAME_NOREPLACE) < 0)
      return imd_fail(err, errno == EEXIST ? IMD_FILES_EXISTS : errno == EBUSY ? IMD_FILES_MOUNTED
                           : errno == EISDIR ? IMD_FILES_KIND : IMD_FILES_FAILED, errno, "%s", put->name);
    put->temporary[0] = '\0';
  }
  if (fstat(put->fd, &st) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", put->name);
  files_put_drop(files);
  return files_put_row(reply, &st, "", 0, "", 0);
}
