/*
 * A tree out of an archive. Its names are a stranger's: one that is absolute, leads through `..` or through a symbolic link
 * refuses the whole, at that entry. What is there in the way of a file is removed, never written through.
 */
#define _GNU_SOURCE
#include "clerk_files.h"
#include "clerk_files_tar.h"
#include "kernel.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { BUFFER = 256 << 10, ATTEMPTS = 100 };
#define WITHIN (RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS)

struct entry {
  char name[IMD_FILES_MAX_PATH + 2], link[IMD_FILES_MAX_PATH + 2];
  bool long_name, long_link, long_size;
  uint64_t size, mtime, mode;
  char type;
};

struct extraction {
  struct files *files;
  int top, pipe;
  uint64_t most;
  bool replace;
  char *buffer;
  struct entry entry;
};

#define malformed(err, ...) imd_fail((err), IMD_FILES_MALFORMED, 0, __VA_ARGS__)

static int take(struct extraction *extraction, void *bytes, size_t size, struct imd_error *err)
{
  const ssize_t got = imd_read_full(extraction->pipe, bytes, size);
  if (got < 0)
    return files_fail(err, IMD_FILES_FAILED, "the archive");
  return (size_t)got == size ? 0 : imd_fail(err, IMD_FILES_SHORT, 0, "the archive ends in the middle");
}

static int skip_padding(struct extraction *extraction, uint64_t size, struct imd_error *err)
{
  char rest[TAR_BLOCK];
  const size_t padding = (size_t)((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
  return padding == 0 ? 0 : take(extraction, rest, padding, err);
}

static int read_number(const char *field, size_t size, uint64_t *value, struct imd_error *err)
{
  *value = 0;
  if ((unsigned char)field[0] & 0x80) {
    if ((unsigned char)field[0] != 0x80)
      return malformed(err, "a number below zero");
    for (size_t i = 1; i < size; i++) {
      if (*value >> 55)
        return malformed(err, "a number that is too large");
      *value = *value << 8 | (unsigned char)field[i];
    }
    return 0;
  }
  size_t at = 0;
  while (at < size && field[at] == ' ')
    at++;
  for (; at < size && field[at] != '\0' && field[at] != ' '; at++) {
    if (field[at] < '0' || field[at] > '7')
      return malformed(err, "a number that is none");
    *value = *value << 3 | (uint64_t)(field[at] - '0');
  }
  return 0;
}

/* What GNU's L and K hold. */
static int read_long(struct extraction *extraction, char *text, uint64_t size, struct imd_error *err)
{
  if (size == 0 || size > IMD_FILES_MAX_PATH + 1)
    return imd_fail(err, IMD_FILES_DEEP, 0, "a name of %llu bytes", (unsigned long long)size);
  if (take(extraction, text, (size_t)size, err) < 0)
    return -1;
  text[size] = '\0';
  if (strlen(text) + 1 < size)
    return malformed(err, "a name with a NUL in it");
  return skip_padding(extraction, size, err);
}

static int take_record(struct entry *entry, const char *key, const char *value, size_t length, struct imd_error *err)
{
  char *text = strcmp(key, "path") == 0 ? entry->name : strcmp(key, "linkpath") == 0 ? entry->link : NULL;
  if (text) {
    if (length > IMD_FILES_MAX_PATH || memchr(value, '\0', length))
      return imd_fail(err, IMD_FILES_NAME, 0, "a name of %zu bytes, or with a NUL in it", length);
    memcpy(text, value, length);
    text[length] = '\0';
    *(text == entry->name ? &entry->long_name : &entry->long_link) = true;
  }
  if (strcmp(key, "size") == 0) {
    entry->size = 0;
    for (size_t i = 0; i < length; i++) {
      if (value[i] < '0' || value[i] > '9' || entry->size > UINT64_MAX / 16)
        return malformed(err, "a size that is none");
      entry->size = entry->size * 10 + (uint64_t)(value[i] - '0');
    }
    entry->long_size = true;
  }
  return strncmp(key, "GNU.sparse", 10) == 0 ? malformed(err, "a sparse file: archive it without --sparse") : 0;
}

/* POSIX's x: "LENGTH KEY=VALUE\n", each LENGTH the whole record's. */
static int read_records(struct extraction *extraction, uint64_t size, struct imd_error *err)
{
  char *text = extraction->buffer;
  if (size > TAR_MAX_EXTENSION)
    return malformed(err, "an extended header of %llu bytes", (unsigned long long)size);
  if (take(extraction, text, (size_t)size, err) < 0 || skip_padding(extraction, size, err) < 0)
    return -1;
  for (size_t at = 0; at < size;) {
    size_t length = 0, p = at;
    for (; p < size && text[p] >= '0' && text[p] <= '9' && length <= TAR_MAX_EXTENSION; p++)
      length = length * 10 + (size_t)(text[p] - '0');
    const size_t end = at + length;
    if (p == at || p >= size || text[p] != ' ' || length > size - at || end < p + 3 || text[end - 1] != '\n')
      return malformed(err, "an extended header that is none");
    char key[32] = "";
    const char *equals = memchr(text + p + 1, '=', end - p - 2);
    if (!equals)
      return malformed(err, "an extended header without a value");
    const size_t key_length = (size_t)(equals - (text + p + 1));
    if (key_length < sizeof key)
      memcpy(key, text + p + 1, key_length);
    if (take_record(&extraction->entry, key, equals + 1, (size_t)(text + end - 1 - (equals + 1)), err) < 0)
      return -1;
    at = end;
  }
  return 0;
}

static bool is_end(const struct tar_header *header)
{
  const char *bytes = (const void *)header;
  for (size_t i = 0; i < TAR_BLOCK; i++)
    if (bytes[i] != '\0')
      return false;
  return true;
}

static int check_header(const struct tar_header *header, struct imd_error *err)
{
  uint64_t sum;
  if (read_number(header->checksum, sizeof header->checksum, &sum, err) < 0)
    return -1;
  return sum == tar_checksum(header) ? 0 : malformed(err, "a header whose sum is wrong: no tar archive, or compressed");
}

static int read_names(struct entry *entry, const struct tar_header *header)
{
  /* GNU's own format has other things where POSIX has a prefix. */
  const bool prefixed = memcmp(header->magic, "ustar", 6) == 0 && header->prefix[0] != '\0';
  if (!entry->long_name)
    snprintf(entry->name, sizeof entry->name, "%.155s%s%.100s", prefixed ? header->prefix : "", prefixed ? "/" : "",
             header->name);
  if (!entry->long_link)
    snprintf(entry->link, sizeof entry->link, "%.100s", header->link);
  return 0;
}

/* 1: an entry; 0: the archive's end; -1. */
static int read_entry(struct extraction *extraction, struct imd_error *err)
{
  struct entry *entry = &extraction->entry;
  *entry = (struct entry){.type = 0};
  for (;;) {
    struct tar_header header;
    uint64_t size;
    if (take(extraction, &header, sizeof header, err) < 0)
      return -1;
    if (is_end(&header))
      return 0;
    if (++extraction->files->flowed[1] > IMD_FILES_MAX_ENTRIES)
      return imd_fail(err, IMD_FILES_LARGE, 0, "more than %d entries", IMD_FILES_MAX_ENTRIES);
    if (check_header(&header, err) < 0 || read_number(header.size, sizeof header.size, &size, err) < 0)
      return -1;
    int result = 0;
    switch (header.type) {
    case 'L': entry->long_name = true; result = read_long(extraction, entry->name, size, err); break;
    case 'K': entry->long_link = true; result = read_long(extraction, entry->link, size, err); break;
    case 'x': result = read_records(extraction, size, err); break;
    case 'g': {
      struct entry kept = *entry;  /* of the archive as a whole: comments, in practice */
      result = read_records(extraction, size, err);
      *entry = kept;
      break;
    }
    default:
      read_names(entry, &header);
      entry->type = header.type;
      if (!entry->long_size)
        entry->size = size;
      if (read_number(header.mode, sizeof header.mode, &entry->mode, err) < 0 ||
          read_number(header.mtime, sizeof header.mtime, &entry->mtime, err) < 0)
        return -1;
      return 1;
    }
    if (result < 0)
      return -1;
    extraction->files->flowed[1]--;
  }
}

/* Relative, and down all the way; `.` and slashes that say nothing are passed over. *last: where its last part begins. */
static int check_name(char *name, const char **last, struct imd_error *err)
{
  if (name[0] == '/')
    return imd_fail(err, IMD_FILES_NAME, 0, "%s: an absolute name in an archive", name);
  size_t to = 0;
  *last = name;
  for (size_t at = 0; name[at] != '\0';) {
    at += strspn(name + at, "/");
    const size_t size = strcspn(name + at, "/");
    if (size == 2 && memcmp(name + at, "..", 2) == 0)
      return imd_fail(err, IMD_FILES_NAME, 0, "%s: a name in an archive that leads through `..`", name);
    if (size > 0 && !(size == 1 && name[at] == '.')) {
      if (to > 0)
        name[to++] = '/';
      *last = name + to;
      memmove(name + to, name + at, size);
      to += size;
    }
    at += size;
  }
  name[to] = '\0';
  return 0;
}

static int open_within(int top, const char *path, uint64_t flags)
{
  int fd = -1;
  for (int attempt = 0; fd < 0 && attempt < ATTEMPTS && (attempt == 0 || errno == EAGAIN); attempt++)
    fd = sys_openat2(top, *path ? path : ".", flags | O_CLOEXEC, 0, WITHIN);
  return fd;
}

static int refuse_way(const char *name, struct imd_error *err)
{
  if (errno == ELOOP || errno == EXDEV || errno == ENOTDIR)
    return imd_fail(err, IMD_FILES_LINK, 0, "%s: what is on the way is a link or no directory", name);
  return imd_fail(err, errno == EAGAIN ? IMD_FILES_RACED : IMD_FILES_FAILED, errno, "%s", name);
}

/* The directory that holds an entry, made where it is missing; no link on the way. */
static int open_above(struct extraction *extraction, const char *name, size_t length, struct imd_error *err)
{
  char prefix[IMD_FILES_MAX_PATH + 2];
  memcpy(prefix, name, length);
  prefix[length] = '\0';
  int fd = open_within(extraction->top, prefix, O_PATH | O_DIRECTORY);
  if (fd >= 0)
    return fd;
  if (errno != ENOENT)
    return refuse_way(name, err);
  fd = openat(extraction->top, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  for (size_t at = 0; fd >= 0 && at < length;) {
    const size_t size = strcspn(prefix + at, "/");
    prefix[at + size] = '\0';
    if (mkdirat(fd, prefix + at, 0755) < 0 && errno != EEXIST) {
      close(fd);
      return refuse_way(name, err);
    }
    const int next = open_within(fd, prefix + at, O_PATH | O_DIRECTORY);
    const int error = errno;
    close(fd);
    errno = error;
    fd = next;
    at += size + 1;
  }
  return fd < 0 ? refuse_way(name, err) : fd;
}

/* Room for what is no directory: what is there goes, if it may, and is no directory either. */
static int make_room(const struct extraction *extraction, int dir, const char *name, struct imd_error *err)
{
  const struct entry *entry = &extraction->entry;
  if (!extraction->replace) {
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0)
      return imd_fail(err, IMD_FILES_EXISTS, 0, "%s is there already", entry->name);
    return errno == ENOENT ? 0 : files_fail(err, IMD_FILES_FAILED, "%s", entry->name);
  }
  if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
    return 0;
  if (errno == EISDIR || errno == EPERM)
    return imd_fail(err, IMD_FILES_KIND, errno, "%s: a directory is in its way", entry->name);
  return imd_fail(err, errno == EBUSY ? IMD_FILES_MOUNTED : IMD_FILES_FAILED, errno, "%s", entry->name);
}

static int set_time(const struct entry *entry, int dir, const char *name, struct imd_error *err)
{
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)entry->mtime}};
  return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT
             ? files_fail(err, IMD_FILES_FAILED, "%s", entry->name)
             : 0;
}

static int extract_file(struct extraction *extraction, int dir, const char *name, struct imd_error *err)
{
  const struct entry *entry = &extraction->entry;
  if (entry->size > extraction->most - extraction->files->flowed[0])
    return imd_fail(err, IMD_FILES_LARGE, 0, "%s, of %llu bytes, makes it more than %llu", entry->name,
                    (unsigned long long)entry->size, (unsigned long long)extraction->most);
  if (make_room(extraction, dir, name, err) < 0)
    return -1;
  cleanup_fd int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600);
  if (fd < 0)
    return imd_fail(err, errno == EEXIST ? IMD_FILES_RACED : IMD_FILES_FAILED, errno, "%s", entry->name);
  for (uint64_t left = entry->size; left > 0;) {
    const size_t piece = left < BUFFER ? (size_t)left : BUFFER;
    if (take(extraction, extraction->buffer, piece, err) < 0)
      return -1;
    if (imd_write_full(fd, extraction->buffer, piece) < 0)
      return files_fail(err, IMD_FILES_FAILED, "%s", entry->name);
    left -= piece;
  }
  extraction->files->flowed[0] += entry->size;
  const struct timespec times[] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)entry->mtime}};
  if (fchmod(fd, (mode_t)entry->mode) < 0 || futimens(fd, times) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", entry->name);
  return skip_padding(extraction, entry->size, err);
}

static int extract_directory(const struct extraction *extraction, int dir, const char *name, struct imd_error *err)
{
  const struct entry *entry = &extraction->entry;
  if (mkdirat(dir, name, 0700) < 0 && errno != EEXIST)
    return files_fail(err, IMD_FILES_FAILED, "%s", entry->name);
  cleanup_fd int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0)
    return refuse_way(entry->name, err);
  /* Its owner can always go on in it: what follows in the archive has to be written. */
  return fchmod(fd, (mode_t)entry->mode | 0700) < 0 && errno != EPERM ? files_fail(err, IMD_FILES_FAILED, "%s", entry->name)
                                                                      : 0;
}

static int extract_hard_link(struct extraction *extraction, int dir, const char *name, struct imd_error *err)
{
  struct entry *entry = &extraction->entry;
  const char *last;
  if (check_name(entry->link, &last, err) < 0)
    return -1;
  char above[IMD_FILES_MAX_PATH + 2];
  const size_t length = last > entry->link ? (size_t)(last - entry->link - 1) : 0;
  memcpy(above, entry->link, length);
  above[length] = '\0';
  cleanup_fd int from = open_within(extraction->top, above, O_PATH | O_DIRECTORY);
  struct stat st;
  if (from < 0)
    return refuse_way(entry->link, err);
  if (fstatat(from, last, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", entry->link);
  if (!S_ISREG(st.st_mode))
    return imd_fail(err, IMD_FILES_LINK, 0, "%s: a hard link to what is no file", entry->name);
  if (make_room(extraction, dir, name, err) < 0)
    return -1;
  return linkat(from, last, dir, name, 0) < 0 ? files_fail(err, IMD_FILES_FAILED, "%s", entry->name) : 0;
}

static int extract_entry(struct extraction *extraction, struct imd_error *err)
{
  struct entry *entry = &extraction->entry;
  const char *last;
  if (check_name(entry->name, &last, err) < 0)
    return -1;
  if (entry->mode & 06000)
    return imd_fail(err, IMD_FILES_SETID, 0, "%s: its mode %llo has a set-id bit", entry->name,
                    (unsigned long long)entry->mode);
  entry->mode &= entry->type == '5' ? 01777 : 0777;
  if (entry->size > 0 && entry->type != '0' && entry->type != '\0' && entry->type != '7')
    return malformed(err, "%s: %llu bytes of what holds none", entry->name, (unsigned long long)entry->size);
  if (*last == '\0')               /* the directory itself */
    return entry->type == '5' ? 0 : malformed(err, "an entry without a name");
  if (strlen(last) > 255)
    return imd_fail(err, IMD_FILES_NAME, ENAMETOOLONG, "%s", last);
  cleanup_fd int dir = open_above(extraction, entry->name, last > entry->name ? (size_t)(last - entry->name - 1) : 0, err);
  if (dir < 0)
    return -1;
  switch (entry->type) {
  case '0': case '\0': case '7': return extract_file(extraction, dir, last, err);
  case '5': return extract_directory(extraction, dir, last, err);
  case '1': return extract_hard_link(extraction, dir, last, err);
  case '2':
    if (make_room(extraction, dir, last, err) < 0)
      return -1;
    if (symlinkat(entry->link, dir, last) < 0)
      return files_fail(err, IMD_FILES_FAILED, "%s", entry->name);
    return set_time(entry, dir, last, err);
  case '6':
    if (make_room(extraction, dir, last, err) < 0)
      return -1;
    return mkfifoat(dir, last, (mode_t)entry->mode) < 0 ? files_fail(err, IMD_FILES_FAILED, "%s", entry->name)
                                                       : set_time(entry, dir, last, err);
  case '3': case '4': return imd_fail(err, IMD_FILES_KIND, 0, "%s: a device in an archive", entry->name);
  default: return malformed(err, "%s: a kind of entry that is not known", entry->name);
  }
}

int files_extract(struct files *files, int top, int pipe, uint64_t most, bool replace, struct imd_error *err)
{
  struct extraction *extraction = calloc(1, sizeof *extraction);
  cleanup_free char *buffer = malloc(BUFFER);
  if (!extraction || !buffer) {
    free(extraction);
    return files_fail(err, IMD_FILES_FAILED, "memory");
  }
  *extraction = (struct extraction){
      .files = files, .top = top, .pipe = pipe, .most = most, .replace = replace, .buffer = buffer};
  int result;
  while ((result = read_entry(extraction, err)) > 0) {
    result = extract_entry(extraction, err);
    if (result < 0)
      break;
  }
  /* Blocks up to the end of its last record. */
  for (ssize_t got; result == 0 && (got = read(pipe, buffer, BUFFER)) != 0;)
    if (got < 0 && errno != EINTR)
      result = files_fail(err, IMD_FILES_FAILED, "the archive");
  free(extraction);
  return result;
}
