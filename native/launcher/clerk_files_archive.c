/* A tree as an archive: every kind of file as itself, names of any bytes, no link followed. */
#define _GNU_SOURCE
#include "clerk_files.h"
#include "clerk_files_tar.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

enum { BUFFER = 256 << 10, RECORD = 20 * TAR_BLOCK };

_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "an archive's header is one block");

struct archive {
  struct files *files;
  int pipe;
  uint64_t most, written;
  char *buffer;
  char path[IMD_FILES_MAX_PATH + 1];
};

static int put_bytes(struct archive *archive, const void *bytes, size_t size, struct imd_error *err)
{
  if (imd_write_full(archive->pipe, bytes, size) < 0)
    return files_fail(err, IMD_FILES_FAILED, "the archive");
  archive->written += size;
  return 0;
}

static int pad(struct archive *archive, uint64_t size, uint64_t to, struct imd_error *err)
{
  static const char zeros[RECORD];
  const size_t rest = (size_t)((to - size % to) % to);
  return rest == 0 ? 0 : put_bytes(archive, zeros, rest, err);
}

/* Octal where it fits, else GNU's: the highest bit, then the number, most significant byte first. */
static void put_number(char *field, size_t size, uint64_t value)
{
  if (value >> (3 * (size - 1)) == 0) {
    char digits[32];
    snprintf(digits, sizeof digits, "%0*llo", (int)size - 1, (unsigned long long)value);
    memcpy(field, digits, size - 1);
    return;
  }
  for (size_t i = size; i-- > 1; value >>= 8)
    field[i] = (char)(value & 0xff);
  field[0] = (char)0x80;
}

static int put_header(struct archive *archive, struct tar_header *header, struct imd_error *err)
{
  memcpy(header->magic, "ustar  ", sizeof header->magic);
  char sum[8];
  snprintf(sum, sizeof sum, "%06o", tar_checksum(header));
  memcpy(header->checksum, sum, 7);
  header->checksum[7] = ' ';
  return put_bytes(archive, header, sizeof *header, err);
}

/* A name that is too long for its field stands before its header, as a file of its own. */
static int put_long(struct archive *archive, char type, const char *text, struct imd_error *err)
{
  struct tar_header header = {.type = type};
  const size_t size = strlen(text) + 1;
  memcpy(header.name, "././@LongLink", 14);
  put_number(header.mode, sizeof header.mode, 0);
  put_number(header.uid, sizeof header.uid, 0);
  put_number(header.gid, sizeof header.gid, 0);
  put_number(header.mtime, sizeof header.mtime, 0);
  put_number(header.size, sizeof header.size, size);
  if (put_header(archive, &header, err) < 0 || put_bytes(archive, text, size, err) < 0)
    return -1;
  return pad(archive, size, TAR_BLOCK, err);
}

static int put_entry(struct archive *archive, const struct stat *st, char type, uint64_t size, const char *target,
                     struct imd_error *err)
{
  struct tar_header header = {.type = type};
  char name[IMD_FILES_MAX_PATH + 2];
  snprintf(name, sizeof name, "%s%s", archive->path, type == '5' ? "/" : "");
  if (strlen(target) > sizeof header.link && put_long(archive, 'K', target, err) < 0)
    return -1;
  if (strlen(name) > sizeof header.name && put_long(archive, 'L', name, err) < 0)
    return -1;
  memcpy(header.name, name, strnlen(name, sizeof header.name));
  memcpy(header.link, target, strnlen(target, sizeof header.link));
  put_number(header.mode, sizeof header.mode, st->st_mode & 01777);
  put_number(header.uid, sizeof header.uid, st->st_uid);
  put_number(header.gid, sizeof header.gid, st->st_gid);
  put_number(header.size, sizeof header.size, size);
  put_number(header.mtime, sizeof header.mtime, st->st_mtime > 0 ? (uint64_t)st->st_mtime : 0);
  if (type == '3' || type == '4') {
    put_number(header.major, sizeof header.major, major(st->st_rdev));
    put_number(header.minor, sizeof header.minor, minor(st->st_rdev));
  }
  if (++archive->files->flowed[1] > IMD_FILES_MAX_ENTRIES)
    return imd_fail(err, IMD_FILES_LARGE, 0, "more than %d files", IMD_FILES_MAX_ENTRIES);
  return put_header(archive, &header, err);
}

static void leave_out(struct archive *archive)
{
  struct files *files = archive->files;
  if (files->flowed[2]++ == 0)
    snprintf(files->left_out, sizeof files->left_out, "%s", archive->path);
}

/* As many bytes as its header says, whatever happens to the file meanwhile. */
static int put_contents(struct archive *archive, int fd, uint64_t size, struct imd_error *err)
{
  uint64_t left = size;
  bool shrank = false;
  while (left > 0) {
    const size_t piece = left < BUFFER ? (size_t)left : BUFFER;
    ssize_t got = shrank ? 0 : read(fd, archive->buffer, piece);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return files_fail(err, IMD_FILES_FAILED, "%s", archive->path);
    if (got == 0) {
      shrank = true;
      memset(archive->buffer, 0, piece);
      got = (ssize_t)piece;
    }
    if (put_bytes(archive, archive->buffer, (size_t)got, err) < 0)
      return -1;
    left -= (uint64_t)got;
  }
  char more;
  archive->files->flowed[3] += shrank || read(fd, &more, 1) == 1;
  archive->files->flowed[0] += size;
  return pad(archive, size, TAR_BLOCK, err);
}

static int put_file(struct archive *archive, int dir, const char *name, const struct stat *seen, struct imd_error *err)
{
  cleanup_fd int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_dev != seen->st_dev || st.st_ino != seen->st_ino) {
    leave_out(archive);
    return 0;
  }
  const uint64_t size = (uint64_t)st.st_size;
  if (size > archive->most - archive->files->flowed[0])
    return imd_fail(err, IMD_FILES_LARGE, 0, "%s, of %llu bytes, makes it more than the %llu that were asked for",
                    archive->path, (unsigned long long)size, (unsigned long long)archive->most);
  if (put_entry(archive, &st, '0', size, "", err) < 0)
    return -1;
  return put_contents(archive, fd, size, err);
}

static int put_link(struct archive *archive, int dir, const char *name, const struct stat *st, struct imd_error *err)
{
  char target[IMD_FILES_MAX_PATH + 1];
  const ssize_t size = readlinkat(dir, name, target, sizeof target - 1);
  if (size < 0) {
    leave_out(archive);
    return 0;
  }
  target[size] = '\0';
  return put_entry(archive, st, '2', 0, target, err);
}

static int put_directory(struct archive *archive, int fd, size_t length, uint32_t depth, struct imd_error *err);

static int put_any(struct archive *archive, int dir, const char *name, size_t length, uint32_t depth,
                   struct imd_error *err)
{
  struct stat st;
  if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
    if (errno != ENOENT)
      leave_out(archive);
    return 0;
  }
  switch (st.st_mode & S_IFMT) {
  case S_IFREG: return put_file(archive, dir, name, &st, err);
  case S_IFLNK: return put_link(archive, dir, name, &st, err);
  case S_IFCHR: return put_entry(archive, &st, '3', 0, "", err);
  case S_IFBLK: return put_entry(archive, &st, '4', 0, "", err);
  case S_IFIFO: return put_entry(archive, &st, '6', 0, "", err);
  case S_IFDIR: break;
  default:                         /* an archive has no word for a socket */
    leave_out(archive);
    return 0;
  }
  if (depth == 0)
    return imd_fail(err, IMD_FILES_DEEP, 0, "%.100s...: more than %d directories deep", archive->path, IMD_FILES_MAX_DEPTH);
  const int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct imd_error kernel = IMD_ERROR_INIT;
  if (fd < 0 || files_look(archive->files, fd, archive->path, &st, &kernel) < 0) {
    if (fd >= 0)
      close(fd);
    leave_out(archive);
    return 0;
  }
  return put_directory(archive, fd, length, depth - 1, err);
}

/* Closes `fd`. The directory's own path stands in archive->path, `length` long. */
static int put_directory(struct archive *archive, int fd, size_t length, uint32_t depth, struct imd_error *err)
{
  struct stat st;
  DIR *listing = fdopendir(fd);
  if (!listing) {
    close(fd);
    return files_fail(err, IMD_FILES_FAILED, "%s", archive->path);
  }
  int result = fstat(fd, &st) < 0 ? files_fail(err, IMD_FILES_FAILED, "%s", archive->path)
                                  : put_entry(archive, &st, '5', 0, "", err);
  for (const struct dirent *entry; result == 0 && (entry = readdir(listing));) {
    const size_t more = strlen(entry->d_name);
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
      continue;
    if (length + more + 3 > sizeof archive->path) {
      result = imd_fail(err, IMD_FILES_DEEP, 0, "%.100s...: a path of more than %d bytes", archive->path,
                        IMD_FILES_MAX_PATH);
      break;
    }
    archive->path[length] = '/';
    memcpy(archive->path + length + 1, entry->d_name, more + 1);
    result = put_any(archive, fd, entry->d_name, length + 1 + more, depth, err);
    archive->path[length] = '\0';
  }
  closedir(listing);
  return result;
}

int files_archive(struct files *files, int top, const char *name, int pipe, uint64_t most, struct imd_error *err)
{
  struct archive archive = {.files = files, .pipe = pipe, .most = most, .buffer = malloc(BUFFER)};
  cleanup_free char *buffer = archive.buffer;
  struct stat st;
  if (!buffer || fstat(top, &st) < 0)
    return files_fail(err, IMD_FILES_FAILED, "the archive");
  int result;
  if (S_ISDIR(st.st_mode)) {
    /* What is in it is named from here: no name of an archive is absolute. */
    snprintf(archive.path, sizeof archive.path, ".");
    const int own = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    result = own < 0 ? files_fail(err, IMD_FILES_FAILED, "the directory")
                     : put_directory(&archive, own, 1, IMD_FILES_MAX_DEPTH, err);
  } else {
    snprintf(archive.path, sizeof archive.path, "%s", name);
    if ((uint64_t)st.st_size > most)
      return imd_fail(err, IMD_FILES_LARGE, 0, "%s has %lld bytes", name, (long long)st.st_size);
    result = put_entry(&archive, &st, '0', (uint64_t)st.st_size, "", err);
    if (result == 0)
      result = put_contents(&archive, top, (uint64_t)st.st_size, err);
  }
  static const char end[2 * TAR_BLOCK];
  if (result < 0 || put_bytes(&archive, end, sizeof end, err) < 0)
    return -1;
  return pad(&archive, archive.written, RECORD, err);
}
