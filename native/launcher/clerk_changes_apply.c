/*
 * All or none. What is new is first copied into a directory of ours beside it, on the same file system and closed to
 * others; then renames, each of which can be taken back, bring what is old into it and what is new out of it. What is to
 * happen stands in a journal there before the first of them.
 *
 * The caller's directory lives: its owner, or another sandbox, may change it at any moment. So every name is found anew
 * from the directory's descriptor, and what came out by a rename is compared with what was meant, and goes back if it is
 * not that.
 */
#define _GNU_SOURCE
#include "clerk_changes.h"
#include "kernel.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/xattr.h>
#include <time.h>

enum op_kind { OP_TAKE = 'T', OP_PLACE = 'P', OP_SWAP = 'S', OP_MODE = 'M' };

struct op {
  enum op_kind kind;
  unsigned number;                 /* of its file in the staging directory: `o<n>` what was there, `n<n>` what comes */
  char *path;
  uint64_t inode;                  /* of PLACE and SWAP: what comes; of TAKE: what goes */
  mode_t former, later;            /* of MODE */
  int64_t mtime_ns;                /* of what was there and was no conflict; -1 */
  const struct change *change;     /* NULL in a journal that was read */
};

struct apply {
  struct captured *captured;
  struct refusal *refusal;
  int staging;
  struct op *ops;
  size_t count, space;
};

static const char journal_name[] = "journal", journal_head[] = "immured changes 1\n", done_name[] = "done";

#define failed(apply, ...) changes_refuse((apply)->refusal, IMD_CHANGES_FAILED, errno, __VA_ARGS__)

static void name_of(char name[24], const struct op *op)
{
  snprintf(name, 24, "%c%u", op->kind == OP_TAKE ? 'o' : 'n', op->number);
}

static struct op *add(struct apply *apply, enum op_kind kind, const char *path, const struct change *change)
{
  if (apply->count == apply->space) {
    const size_t space = apply->space ? 2 * apply->space : 64;
    struct op *ops = realloc(apply->ops, space * sizeof *ops);
    if (!ops)
      return NULL;
    apply->ops = ops;
    apply->space = space;
  }
  struct op *op = &apply->ops[apply->count];
  *op = (struct op){.kind = kind, .number = (unsigned)apply->count, .path = strdup(path), .change = change,
                    .mtime_ns = change && change->trouble == IMD_CHANGE_FREE && change->before_mode
                                    ? change->before_mtime_ns
                                    : -1};
  if (!op->path)
    return NULL;
  apply->count++;
  return op;
}

static void forget(struct apply *apply)
{
  for (size_t i = 0; i < apply->count; i++)
    free(apply->ops[i].path);
  free(apply->ops);
  imd_close(&apply->staging);
}

/* --- small deeds ------------------------------------------------------------------------------------------------- */

/* Through no link: `found` is O_PATH. */
static int set_mode(const struct captured *captured, int found, mode_t mode)
{
  char name[32];
  snprintf(name, sizeof name, "self/fd/%d", found);
  return fchmodat(captured->clerk->cell->config->host_proc, name, mode, 0);
}

/* A tree of the caller's own, from the directory that holds it. */
static int remove_tree(const struct captured *captured, int directory, const char *name, unsigned depth)
{
  if (unlinkat(directory, name, 0) == 0 || errno == ENOENT)
    return 0;
  if (errno != EISDIR && errno != EPERM)
    return -1;
  if (unlinkat(directory, name, AT_REMOVEDIR) == 0)
    return 0;
  if ((errno != ENOTEMPTY && errno != EEXIST) || depth > 2 * IMD_CHANGES_MAX_DEPTH)
    return -1;
  cleanup_fd int found = openat(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (found < 0)
    return -1;
  set_mode(captured, found, 0700);
  cleanup_fd int fd = openat(found, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *inner = fd < 0 ? NULL : fdopendir(fd);
  if (!inner)
    return -1;
  const int at = imd_take_fd(&fd);
  int result = 0;
  for (const struct dirent *one; (one = readdir(inner)) != NULL;)
    if (strcmp(one->d_name, ".") != 0 && strcmp(one->d_name, "..") != 0)
      result |= remove_tree(captured, at, one->d_name, depth + 1);
  closedir(inner);
  return result < 0 ? -1 : unlinkat(directory, name, AT_REMOVEDIR);
}

static int inode_at(int directory, const char *name, uint64_t *inode)
{
  struct stat st;
  if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return -1;
  *inode = st.st_ino;
  return 0;
}

/* --- copies ------------------------------------------------------------------------------------------------------ */

static int copy_range(int from, int to, off_t at, off_t end, struct sha256 *sum)
{
  static uint8_t buffer[1 << 18];
  while (at < end) {
    const size_t wanted = (uint64_t)(end - at) < sizeof buffer ? (size_t)(end - at) : sizeof buffer;
    const ssize_t got = pread(from, buffer, wanted, at);
    if (got < 0 && errno == EINTR)
      continue;
    if (got <= 0) {
      errno = got < 0 ? errno : EAGAIN;
      return -1;
    }
    sha256_add(sum, buffer, (size_t)got);
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = pwrite(to, buffer + done, (size_t)(got - done), at + done);
      if (put < 0 && errno == EINTR)
        continue;
      if (put < 0)
        return -1;
      done += put;
    }
    at += got;
  }
  return 0;
}

static void add_zeros(struct sha256 *sum, off_t count)
{
  static const uint8_t zeros[1 << 16];
  for (; count > 0; count -= (off_t)sizeof zeros)
    sha256_add(sum, zeros, count < (off_t)sizeof zeros ? (size_t)count : sizeof zeros);
}

/* Holes stay holes: what a layer holds in little room must not fill the host's disk. */
static int copy_content(int from, int to, off_t size, uint8_t digest[SHA256_SIZE])
{
  struct sha256 sum;
  sha256_begin(&sum);
  for (off_t at = 0; at < size;) {
    off_t data = lseek(from, at, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
      return -1;
    if (data < 0 || data > size)
      data = size;
    add_zeros(&sum, data - at);
    off_t hole = data < size ? lseek(from, data, SEEK_HOLE) : size;
    if (hole < 0)
      return -1;
    if (hole > size)
      hole = size;
    if (copy_range(from, to, data, hole, &sum) < 0)
      return -1;
    at = hole;
  }
  sha256_end(&sum, digest);
  return ftruncate(to, size);
}

static int copy_attribute(int from, int to, const char *name)
{
  char value[65536];
  const ssize_t size = fgetxattr(from, name, value, sizeof value);
  return size < 0 || fsetxattr(to, name, value, (size_t)size, 0) < 0 ? -1 : 0;
}

/* What its owner had put on the file that goes: attributes and access lists, and its group. */
static int keep_attributes(const struct captured *captured, const char *path, int to)
{
  cleanup_fd int found = changes_open_below(captured, path, O_PATH | O_NOFOLLOW);
  struct stat st;
  if (found < 0 || fstat(found, &st) < 0 || !S_ISREG(st.st_mode))
    return 0;
  if (fchown(to, (uid_t)-1, st.st_gid) < 0 && errno != EPERM)
    return -1;
  cleanup_fd int from = changes_reopen(captured, found, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  char names[65536];
  const ssize_t size = from < 0 ? 0 : flistxattr(from, names, sizeof names);
  if (size < 0)
    return errno == EOPNOTSUPP ? 0 : -1;
  for (const char *name = names; name < names + size; name += strlen(name) + 1)
    if ((strncmp(name, "user.", 5) == 0 || strcmp(name, "system.posix_acl_access") == 0) &&
        copy_attribute(from, to, name) < 0)
      return -1;
  return 0;
}

/* A directory that hands its group on does so here too, though the file is made elsewhere. */
static void inherit_group(const struct captured *captured, const char *path, int to)
{
  const char *name;
  struct stat st;
  cleanup_fd int parent = changes_parent_below(captured, path, &name);
  if (parent >= 0 && fstat(parent, &st) == 0 && (st.st_mode & S_ISGID))
    (void)!fchown(to, (uid_t)-1, st.st_gid);
}

static int stage_file(struct apply *apply, const struct op *op, const char *name)
{
  const struct change *change = op->change;
  struct stat st;
  uint8_t digest[SHA256_SIZE];
  cleanup_fd int from = changes_open_above(apply->captured, change->path, &st);
  if (from < 0 || (uint64_t)st.st_size != change->after_size)
    return changes_refuse(apply->refusal, IMD_CHANGES_DIFFERENT, from < 0 ? errno : 0, "%s changed meanwhile", op->path);
  cleanup_fd int to = openat(apply->staging, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (to < 0)
    return failed(apply, "%s", op->path);
  if (copy_content(from, to, st.st_size, digest) < 0)
    return errno == EAGAIN ? changes_refuse(apply->refusal, IMD_CHANGES_DIFFERENT, 0, "%s changed meanwhile", op->path)
                           : failed(apply, "%s", op->path);
  if (memcmp(digest, change->after_digest, SHA256_SIZE) != 0)
    return changes_refuse(apply->refusal, IMD_CHANGES_DIFFERENT, 0, "%s changed meanwhile", op->path);
  const char *former = change->from ? change->from : op->kind == OP_SWAP ? change->path : NULL;
  if (!former)
    inherit_group(apply->captured, op->path, to);
  else if (keep_attributes(apply->captured, former, to) < 0)
    return failed(apply, "%s", op->path);
  const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, st.st_mtim};
  /* The mode last: an access list that was copied has its mask there. Never a bit that makes root of somebody. */
  if (fchmod(to, change->after_mode & 0777) < 0 || futimens(to, times) < 0)
    return failed(apply, "%s", op->path);
  return 0;
}

static int stage_one(struct apply *apply, struct op *op)
{
  char name[24];
  name_of(name, op);
  const mode_t mode = op->change->after_mode;
  if (S_ISREG(mode)) {
    if (stage_file(apply, op, name) < 0)
      return -1;
  } else if (S_ISLNK(mode) ? symlinkat(op->change->after_link, apply->staging, name) < 0
                           : mkdirat(apply->staging, name, 0700) < 0) {
    return failed(apply, "%s", op->path);
  } else if (S_ISDIR(mode)) {
    cleanup_fd int fd = openat(apply->staging, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
      inherit_group(apply->captured, op->path, fd);
  }
  return inode_at(apply->staging, name, &op->inode) < 0 ? failed(apply, "%s", op->path) : 0;
}

/* --- there and back ---------------------------------------------------------------------------------------------- */

/* The directory that holds `path`: the caller's own, or a writable directory's payload could not write there either. */
static int open_parent(const struct captured *captured, const char *path, const char **name)
{
  struct stat st;
  cleanup_fd int parent = changes_parent_below(captured, path, name);
  if (parent < 0 || fstat(parent, &st) < 0)
    return -1;
  if (st.st_uid != captured->clerk->run->peer.uid) {
    errno = EPERM;
    return -1;
  }
  return imd_take_fd(&parent);
}

static int change_mode(const struct captured *captured, const char *path, mode_t from, mode_t to)
{
  struct stat st;
  cleanup_fd int found = changes_open_below(captured, path, O_PATH | O_NOFOLLOW);
  if (found < 0 || fstat(found, &st) < 0)
    return -1;
  if (S_ISLNK(st.st_mode) || st.st_uid != captured->clerk->run->peer.uid || (st.st_mode & 0777) != (from & 0777)) {
    errno = EAGAIN;
    return -1;
  }
  return set_mode(captured, found, (st.st_mode & (S_ISDIR(st.st_mode) ? 07000 : 0)) | (to & 0777));
}

static bool is_meant(const struct apply *apply, const struct op *op, const char *name)
{
  const struct change *change = op->change;
  struct stat st;
  if (fstatat(apply->staging, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return false;
  const int64_t mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
  return st.st_ino == change->before_inode && (st.st_mode & S_IFMT) == (change->before_mode & S_IFMT) &&
         (!S_ISREG(st.st_mode) || ((uint64_t)st.st_size == change->before_size && mtime_ns == change->before_mtime_ns));
}

static int perform(struct apply *apply, const struct op *op)
{
  char name[24];
  const char *last;
  name_of(name, op);
  if (op->kind == OP_MODE)
    return change_mode(apply->captured, op->path, op->former, op->later) < 0 ? failed(apply, "%s", op->path) : 0;
  cleanup_fd int parent = open_parent(apply->captured, op->path, &last);
  if (parent < 0)
    return failed(apply, "where %s is", op->path);
  const int result =
      op->kind == OP_TAKE    ? renameat2(parent, last, apply->staging, name, RENAME_NOREPLACE)
      : op->kind == OP_PLACE ? renameat2(apply->staging, name, parent, last, RENAME_NOREPLACE)
                             : renameat2(apply->staging, name, parent, last, RENAME_EXCHANGE);
  if (result < 0 && errno == EEXIST)
    return changes_refuse(apply->refusal, IMD_CHANGES_CONFLICT, EEXIST, "%s", op->path);
  if (result < 0)
    return failed(apply, "%s", op->path);
  if (op->kind != OP_PLACE && !is_meant(apply, op, name))
    return changes_refuse(apply->refusal, IMD_CHANGES_CONFLICT, 0, "%s changed on the host meanwhile", op->path);
  return 0;
}

/* By what is there, since who reads a journal does not know how far its writer came. */
static int take_back(const struct captured *captured, int staging, const struct op *op)
{
  char name[24];
  const char *last;
  uint64_t staged = 0, placed = 0;
  name_of(name, op);
  if (op->kind == OP_MODE)
    return change_mode(captured, op->path, op->later, op->former) < 0 && errno != EAGAIN && errno != ENOENT ? -1 : 0;
  const bool holds = inode_at(staging, name, &staged) == 0;
  if (op->kind == OP_TAKE ? !holds : holds && staged == op->inode)
    return 0;                      /* it did not come to that */
  cleanup_fd int parent = open_parent(captured, op->path, &last);
  if (parent < 0)
    return -1;
  if (op->kind == OP_TAKE && staged == op->inode)
    return renameat2(staging, name, parent, last, RENAME_NOREPLACE);
  if (op->kind == OP_TAKE || inode_at(parent, last, &placed) < 0 || placed != op->inode) {
    errno = ESTALE;
    return -1;
  }
  return op->kind == OP_PLACE ? renameat2(parent, last, staging, name, RENAME_NOREPLACE)
                              : renameat2(staging, name, parent, last, RENAME_EXCHANGE);
}

static int take_all_back(const struct captured *captured, int staging, const struct op *ops, size_t count,
                         const char **stuck)
{
  int result = 0;
  for (size_t i = count; i-- > 0;)
    if (take_back(captured, staging, &ops[i]) < 0) {
      *stuck = ops[i].path;
      result = -1;
    }
  return result;
}

/* --- the journal ------------------------------------------------------------------------------------------------- */

/* Another sandbox may write to the captured directory, and so to what is in it of ours: what was written there is known
   by its digest, which only we keep. */
static int digest_journal(int staging, const char *name, uint8_t digest[SHA256_SIZE])
{
  struct stat st;
  cleanup_fd int file = openat(staging, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  return file < 0 || fstat(file, &st) < 0 || !S_ISREG(st.st_mode) ? -1 : changes_digest(file, (uint64_t)st.st_size, digest);
}

/* A line an operation: kind, number, inode (of MODE: the former mode and the later, octal), mtime_ns, the path in hex. */
static int write_journal(const struct apply *apply)
{
  cleanup_fd int file = openat(apply->staging, "journal.new", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  FILE *journal = file < 0 ? NULL : fdopen(file, "w");
  if (!journal)
    return -1;
  imd_take_fd(&file);
  fputs(journal_head, journal);
  for (size_t i = 0; i < apply->count; i++) {
    const struct op *op = &apply->ops[i];
    if (op->kind == OP_MODE)
      fprintf(journal, "M %u %o,%o,%" PRId64 " ", op->number, (unsigned)op->former, (unsigned)op->later, op->mtime_ns);
    else
      fprintf(journal, "%c %u %" PRIu64 ",%" PRId64 " ", op->kind, op->number, op->inode, op->mtime_ns);
    for (const char *at = op->path; *at; at++)
      fprintf(journal, "%02x", (unsigned char)*at);
    fputs(op->path[0] ? "\n" : "-\n", journal);
  }
  /* Everything that was staged before it: one for all of them, where each file's own would wait as often. */
  const bool bad = fflush(journal) != 0 || ferror(journal) || syncfs(fileno(journal)) < 0;
  fclose(journal);
  if (bad || renameat2(apply->staging, "journal.new", apply->staging, journal_name, RENAME_NOREPLACE) < 0 ||
      digest_journal(apply->staging, journal_name, apply->captured->journal) < 0)
    return -1;
  return accepted_save(apply->captured);
}

static int read_hex(const char *hex, char *path)
{
  const size_t size = strlen(hex);
  if (size % 2 != 0 || size / 2 >= PATH_MAX || strspn(hex, "0123456789abcdef") != size)
    return -1;
  for (size_t i = 0; i < size / 2; i++) {
    const char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
    path[i] = (char)strtoul(digits, NULL, 16);
    if (path[i] == '\0')
      return -1;
  }
  path[size / 2] = '\0';
  return 0;
}

static int read_journal(struct apply *apply, const char *from)
{
  cleanup_fd int file = openat(apply->staging, from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  FILE *journal = file < 0 ? NULL : fdopen(file, "r");
  if (!journal)
    return -1;
  imd_take_fd(&file);
  cleanup_free char *line = NULL;
  size_t size = 0;
  int result = getline(&line, &size, journal) > 0 && strcmp(line, journal_head) == 0 ? 0 : -1;
  while (result == 0 && getline(&line, &size, journal) > 0) {
    char kind, middle[64], path[PATH_MAX];
    unsigned number, former = 0, later = 0;
    uint64_t inode = 0;
    int64_t mtime_ns = -1;
    int at = 0;
    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%c %u %63s %n", &kind, &number, middle, &at) != 3 || at == 0 || !strchr("TPSM", kind) ||
        read_hex(strcmp(line + at, "-") == 0 ? "" : line + at, path) < 0 ||
        (kind == 'M' ? sscanf(middle, "%o,%o,%" SCNd64, &former, &later, &mtime_ns) != 3
                     : sscanf(middle, "%" SCNu64 ",%" SCNd64, &inode, &mtime_ns) != 2)) {
      result = -1;
      break;
    }
    struct op *op = add(apply, (enum op_kind)kind, path, NULL);
    if (!op) {
      result = -1;
      break;
    }
    op->number = number;
    op->former = (mode_t)former;
    op->later = (mode_t)later;
    op->inode = inode;
    op->mtime_ns = mtime_ns;
  }
  fclose(journal);
  return result;
}

/* What went there and back has a change time of our making: what was no conflict before it went is none now. */
static void note_undone(const struct apply *apply)
{
  struct captured *captured = apply->captured;
  for (size_t i = 0; i < apply->count; i++) {
    const struct op *op = &apply->ops[i];
    struct stat st;
    cleanup_fd int found = op->mtime_ns < 0 ? -1 : changes_open_below(captured, op->path, O_PATH | O_NOFOLLOW);
    if (found >= 0 && fstat(found, &st) == 0 &&
        (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec == op->mtime_ns)
      accepted_note(captured, op->path);
  }
}

/* --- from beginning to end --------------------------------------------------------------------------------------- */

static bool opens(mode_t mode)
{
  return (mode & 0300) == 0300;
}

static int plan(struct apply *apply, const struct changes *changes)
{
  enum { EARLY, TAKES, PLACES, LATE, PASSES };
  for (int pass = EARLY; pass < PASSES; pass++)
    for (size_t i = 0; i < changes->count; i++) {
      const struct change *change = &changes->at[i];
      const bool directory = S_ISDIR(change->after_mode);
      struct op *op = NULL;
      bool wanted = false;
      if (!change->chosen)
        continue;
      if (change->kind == IMD_CHANGE_MODE && pass == (directory && opens(change->after_mode) ? EARLY : LATE)) {
        wanted = true;
        op = add(apply, OP_MODE, change->path, change);
        if (op)
          op->former = change->before_mode & 07777;
      } else if (pass == TAKES && (change->kind == IMD_CHANGE_DELETED || change->kind == IMD_CHANGE_RENAMED)) {
        wanted = true;
        op = add(apply, OP_TAKE, change->from ? change->from : change->path, change);
        if (op)
          op->inode = change->before_inode;
      } else if (pass == PLACES && change->kind != IMD_CHANGE_MODE && change->kind != IMD_CHANGE_DELETED) {
        wanted = true;
        op = add(apply, change->kind == IMD_CHANGE_MODIFIED ? OP_SWAP : OP_PLACE, change->path, change);
      } else if (pass == LATE && directory && (change->kind == IMD_CHANGE_CREATED || change->kind == IMD_CHANGE_MODIFIED)) {
        wanted = true;
        op = add(apply, OP_MODE, change->path, change);
        if (op)
          op->former = 0700;
      }
      if (wanted && !op)
        return changes_refuse(apply->refusal, IMD_CHANGES_TOO_MANY, ENOMEM, "the changes");
      if (op && op->kind == OP_MODE)
        op->later = change->after_mode & 0777;
    }
  return 0;
}

static int make_staging(struct apply *apply)
{
  struct captured *captured = apply->captured;
  uint64_t random;
  if (getrandom(&random, sizeof random, 0) != sizeof random)
    return failed(apply, "a name");
  snprintf(captured->staging, sizeof captured->staging, ".immured-%016" PRIx64, random);
  /* Noted first: were we killed now, the next clerk would look for it. */
  if (accepted_save(captured) < 0)
    return failed(apply, "what is being accepted");
  if (mkdirat(captured->host, captured->staging, 0700) < 0)
    return failed(apply, "%s", captured->place->source);
  apply->staging = openat(captured->host, captured->staging, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat st;
  if (apply->staging < 0 || fstat(apply->staging, &st) < 0 || flock(apply->staging, LOCK_EX | LOCK_NB) < 0)
    return failed(apply, "%s", captured->staging);
  return 0;
}

/* The staging directory goes, and nobody need remember it. */
static int clear(struct captured *captured)
{
  struct stat st;
  /* Looked for first: a file system that became read-only refuses to remove even what is not there. */
  const bool there = captured->staging[0] && (fstatat(captured->host, captured->staging, &st, AT_SYMLINK_NOFOLLOW) == 0 ||
                                              errno != ENOENT);
  if (there && remove_tree(captured, captured->host, captured->staging, 0) < 0)
    return -1;
  captured->staging[0] = '\0';
  return accepted_save(captured);
}

static int undo(struct apply *apply, size_t performed)
{
  const char *stuck = NULL;
  if (take_all_back(apply->captured, apply->staging, apply->ops, performed, &stuck) < 0) {
    struct refusal why = *apply->refusal;
    return changes_refuse(apply->refusal, IMD_CHANGES_TORN, errno,
                          "%.200s; and %.100s could not be put back: what is missing is in %s", why.text, stuck,
                          apply->captured->staging);
  }
  if (performed > 0)
    note_undone(apply);
  clear(apply->captured);
  return -1;
}

/* To the layer it is new, with nothing below it; now something is: what is missing above was removed there. */
static void hide_below(const struct captured *captured, const char *path)
{
  changes_above();
  cleanup_fd int fd = sys_openat2(captured->upper, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
                                  RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
  if (fd >= 0)
    fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0);
  changes_below();
}

/* What was done, and the directories that it was done in, are on the host as the sandbox has them now. */
static void note_accepted(struct apply *apply)
{
  struct captured *captured = apply->captured;
  static char above[PATH_MAX], noted[PATH_MAX];
  for (size_t i = 0; i < apply->count; i++) {
    const struct op *op = &apply->ops[i];
    const char *slash = strrchr(op->path, '/');
    snprintf(above, sizeof above, "%.*s", slash ? (int)(slash - op->path) : 0, op->path);
    if (i == 0 || strcmp(above, noted) != 0)
      accepted_note(captured, strcpy(noted, above));
    if (op->kind != OP_TAKE)
      accepted_note(captured, op->path);
    if (op->kind == OP_PLACE || op->kind == OP_SWAP)
      hide_below(captured, op->path);
  }
}

static int run(struct apply *apply, struct changes *changes)
{
  struct captured *captured = apply->captured;
  if (plan(apply, changes) < 0)
    return -1;
  if (apply->count == 0)
    return 0;
  if (make_staging(apply) < 0) {
    clear(captured);
    return -1;
  }
  for (size_t i = 0; i < apply->count; i++)
    if ((apply->ops[i].kind == OP_PLACE || apply->ops[i].kind == OP_SWAP) && stage_one(apply, &apply->ops[i]) < 0)
      return undo(apply, 0);
  if (write_journal(apply) < 0) {
    failed(apply, "the journal");
    return undo(apply, 0);
  }
  if (changes_say_begun(captured) < 0) {
    failed(apply, "a record of what is being accepted");
    return undo(apply, 0);
  }
  for (size_t i = 0; i < apply->count; i++) {
    /* The last modes may close directories, even to us. */
    if (i > 0 && apply->ops[i].kind == OP_MODE && apply->ops[i - 1].kind != OP_MODE)
      note_accepted(apply);
    if (perform(apply, &apply->ops[i]) < 0)
      /* A rename may have failed by what it brought; a mode that was not set is whatever it was. */
      return undo(apply, apply->ops[i].kind == OP_MODE ? i : i + 1);
  }
  if (syncfs(apply->staging) < 0 || renameat2(apply->staging, journal_name, apply->staging, done_name, 0) < 0) {
    failed(apply, "the journal");
    return undo(apply, apply->count);
  }
  note_accepted(apply);
  accepted_save(captured);
  /* It is done; what cannot be removed is told nobody but the log. */
  if (clear(captured) < 0)
    imd_log("%s in %s could not be removed: %s", captured->staging, captured->place->source, strerror(errno));
  accepted_note(captured, "");
  accepted_save(captured);
  return 0;
}

int changes_apply(struct captured *captured, struct changes *changes, struct refusal *refusal)
{
  struct apply apply = {.captured = captured, .refusal = refusal, .staging = -1};
  const int result = run(&apply, changes);
  forget(&apply);
  return result;
}

int changes_recover(struct captured *captured, struct refusal *refusal)
{
  struct apply apply = {.captured = captured, .refusal = refusal, .staging = -1};
  apply.staging = openat(captured->host, captured->staging, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  int result = 0;
  uint64_t inode;
  if (apply.staging < 0) {
    result = errno == ENOENT ? 0 : failed(&apply, "%s", captured->staging);
  } else if (flock(apply.staging, LOCK_EX | LOCK_NB) < 0) {
    result = changes_refuse(refusal, IMD_CHANGES_BUSY, errno, "what is being accepted in %s", captured->staging);
  } else {
    const bool done = inode_at(apply.staging, done_name, &inode) == 0;
    const char *name = done ? done_name : journal_name, *stuck = "its journal";
    uint8_t digest[SHA256_SIZE];
    if (!done && inode_at(apply.staging, journal_name, &inode) < 0)
      result = 0;                  /* nothing was moved yet */
    else if (digest_journal(apply.staging, name, digest) < 0 || memcmp(digest, captured->journal, sizeof digest) != 0)
      result = changes_refuse(refusal, IMD_CHANGES_TORN, 0, "the journal of an acceptance that was cut off was changed: %s",
                              captured->staging);
    else if (read_journal(&apply, name) < 0 ||
             (!done && take_all_back(captured, apply.staging, apply.ops, apply.count, &stuck) < 0))
      result = changes_refuse(refusal, IMD_CHANGES_TORN, errno, "%s of an acceptance that was cut off, in %s", stuck,
                              captured->staging);
    else if (done && !captured->others)
      note_accepted(&apply);
    else if (!captured->others)
      note_undone(&apply);
  }
  if (result == 0 && clear(captured) < 0)
    result = failed(&apply, "%s", captured->staging);
  if (result == 0 && apply.count > 0 && !captured->others && (accepted_note(captured, "") < 0 || accepted_save(captured) < 0))
    result = failed(&apply, "what was accepted");
  forget(&apply);
  return result;
}
