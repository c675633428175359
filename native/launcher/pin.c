#define _GNU_SOURCE
#include "pin.h"
#include "kernel.h"
#include "sha256.h"
#include "util.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#if defined __x86_64__
#define OUR_MACHINE EM_X86_64
#elif defined __aarch64__
#define OUR_MACHINE EM_AARCH64
#endif

/*
 * The kernel takes a file's times from a clock that stands still between two ticks, of a busy virtual machine for tens of
 * milliseconds (before 6.13 without exception): until they are as old as this a change may leave them as they were. Generous,
 * for clocks are also set.
 */
enum { MAX_READS = 4, SETTLED_S = 10 };

#define exec_fail(err, error, ...) imd_fail((err), IMD_STAGE_EXEC, (error), __VA_ARGS__)
#define pin_fail(err, error, ...) imd_fail((err), IMD_STAGE_PIN, (error), __VA_ARGS__)

struct pins *pins_make(void)
{
  struct pins *pins = mmap(NULL, sizeof *pins, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return pins == MAP_FAILED ? NULL : pins;
}

/* --- one file ---------------------------------------------------------------------------------------------------- */

/*
 * A disk's, or memory's. Whoever serves another may answer each question differently, or none. An overlay's answers are those of
 * what lies below it, which may be anybody's.
 */
static bool is_local(uint64_t magic)
{
  static const uint32_t magics[] = {
      EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, RAMFS_MAGIC,
      SQUASHFS_MAGIC, EROFS_SUPER_MAGIC_V1, ISOFS_SUPER_MAGIC, 0xca451a4e /* bcachefs */,
      0x2fc12fc1 /* zfs */,
  };
  for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++)
    if ((uint32_t)magic == magics[i])
      return true;
  return false;
}

static bool may_execute(int fd, const char *path)
{
  return fd >= 0 ? syscall(SYS_faccessat2, fd, "", X_OK, AT_EMPTY_PATH | AT_EACCESS) == 0
                 : syscall(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

/* What execve would say of `path`, in errno; -1. Else what it opened, into the next of `pins`. */
static int open_one(struct pins *pins, int first, const char *path, struct imd_error *err)
{
  struct stat st;
  struct statfs file_system;
  struct pin *pin = &pins->at[pins->count];
  /* A FIFO must not make us wait, nor a terminal become ours. */
  cleanup_fd int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == EACCES && stat(path, &st) == 0 && S_ISREG(st.st_mode) && may_execute(-1, path))
      pin_fail(err, EACCES, "%s may be executed, and not read", path);
    else if (errno == ENXIO || errno == ENODEV)
      errno = EACCES;
    return -1;
  }
  if (fstat(fd, &st) < 0 || fstatfs(fd, &file_system) < 0)
    return -1;
  if (!S_ISREG(st.st_mode)) {
    errno = EACCES;
    return -1;
  }
  if (!may_execute(fd, NULL))
    return -1;
  pin->device = st.st_dev;
  pin->inode = st.st_ino;
  pin->local = is_local((uint64_t)file_system.f_type);
  pin->leasable = pin->local || (uint32_t)file_system.f_type == OVERLAYFS_SUPER_MAGIC;
  snprintf(pin->path, sizeof pin->path, "%s", path);
  pin->fd = fcntl(fd, F_DUPFD_CLOEXEC, first);
  if (pin->fd < 0)
    return -1;
  pins->count++;
  return 0;
}

/* As execvp, see search_and_execute (payload.c). */
static int look_up(struct pins *pins, int first, const char *name, const char *path, struct imd_error *err)
{
  if (strchr(name, '/')) {
    if (open_one(pins, first, name, err) == 0)
      return 0;
    return err->stage != 0 ? -1 : exec_fail(err, errno, "%s", name);
  }
  int found = ENOENT;
  for (const char *at = path;; at++) {
    const size_t size = strcspn(at, ":");
    char candidate[PATH_MAX + NAME_MAX];
    if (snprintf(candidate, sizeof candidate, "%.*s%s%s", (int)size, at, size > 0 ? "/" : "", name) <
        (int)sizeof candidate) {
      if (open_one(pins, first, candidate, err) == 0)
        return 0;
      if (err->stage != 0)
        return -1;
      if (errno == EACCES)
        found = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP && errno != ESTALE)
        return exec_fail(err, errno, "%s", name);
    }
    at += size;
    if (*at == '\0')
      return exec_fail(err, found, "%s", name);
  }
}

/* --- what it names ----------------------------------------------------------------------------------------------- */

static bool is_blank(char byte)
{
  return byte == ' ' || byte == '\t';
}

/* The first of [at, last] that is none; NULL. */
static char *next_word(char *at, const char *last)
{
  for (; at <= last; at++)
    if (!is_blank(*at))
      return at;
  return NULL;
}

/* The first of [at, last] that ends a word; NULL. */
static char *next_end(char *at, const char *last)
{
  for (; at <= last; at++)
    if (is_blank(*at) || *at == '\0')
      return at;
  return NULL;
}

/*
 * The kernel's own reading (fs/binfmt_script.c), of the first 256 bytes, with NULs behind a shorter file. False where it says
 * ENOEXEC: nothing is named, or the name was cut off.
 */
static bool read_shebang(char *head, const char **interpreter, const char **argument)
{
  char *const last = head + IMD_MAX_SHEBANG - 1;
  char *end = memchr(head, '\n', IMD_MAX_SHEBANG);
  if (!end) {
    end = next_word(head + 2, last);
    if (!end || !next_end(end, last))
      return false;
    end = last;
  }
  while (is_blank(end[-1]))
    end--;
  char *name = next_word(head + 2, end);
  if (!name || name == end)
    return false;
  char *separator = next_end(name, end);
  char *more = separator && *separator != '\0' ? next_word(separator, end) : NULL;
  *end = '\0';
  if (more)
    *separator = '\0';
  *interpreter = name;
  *argument = more ? more : "";
  return true;
}

/* An ELF program of this machine's: of any other kind a handler of the host's could make something that we do not know. */
static bool is_program(const char *head)
{
  const Elf64_Ehdr *elf = (const void *)head;
  if (memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0)
    return false;
#ifdef OUR_MACHINE
  return elf->e_ident[EI_CLASS] == ELFCLASS64 && elf->e_machine == OUR_MACHINE;
#else
  return true;
#endif
}

int pins_open(struct pins *pins, int first, const char *name, const char *path, struct imd_error *err)
{
  if (look_up(pins, first, name, path, err) < 0)
    return -1;
  for (;;) {
    _Alignas(Elf64_Ehdr) char head[IMD_MAX_SHEBANG + 1] = {0};
    const char *interpreter, *argument;
    if (pread(pins->at[pins->count - 1].fd, head, IMD_MAX_SHEBANG, 0) < 0)
      return exec_fail(err, errno, "%s", name);
    if (head[0] != '#' || head[1] != '!')
      return is_program(head) ? 0 : exec_fail(err, ENOEXEC, "%s", pins->at[pins->count - 1].path);
    if (!read_shebang(head, &interpreter, &argument))
      return exec_fail(err, ENOEXEC, "%s", pins->at[pins->count - 1].path);
    if (pins->count == IMD_MAX_PINNED)
      return exec_fail(err, ELOOP, "%s", name);
    /* Without a name the kernel finds the working directory. */
    if (open_one(pins, first, interpreter[0] != '\0' ? interpreter : ".", err) < 0)
      return err->stage != 0 ? -1 : exec_fail(err, errno, "%s: its interpreter %s", name, interpreter);
    snprintf(pins->at[pins->count - 1].argument, IMD_MAX_SHEBANG, "%s", argument);
  }
}

/* --- what is in it ----------------------------------------------------------------------------------------------- */

static bool is_same(const struct timespec *one, const struct timespec *other)
{
  return one->tv_sec == other->tv_sec && one->tv_nsec == other->tv_nsec;
}

static bool is_as_it_was(const struct pin *pin, const struct stat *now)
{
  return pin->size == (uint64_t)now->st_size && is_same(&pin->modified, &now->st_mtim) &&
         is_same(&pin->changed, &now->st_ctim);
}

static bool is_settled(const struct stat *found)
{
  struct timespec now;
  return clock_gettime(CLOCK_REALTIME, &now) == 0 && found->st_ctim.tv_sec < now.tv_sec - SETTLED_S;
}

/* Whether nothing was done to it meanwhile; -1 with errno. */
static int read_one(struct pin *pin)
{
  static char piece[1 << 16];
  struct stat before, now;
  struct sha256 sum;
  off_t done = 0;
  sha256_begin(&sum);
  if (fstat(pin->fd, &before) < 0)
    return -1;
  pin->modified = before.st_mtim;
  pin->changed = before.st_ctim;
  pin->settled = is_settled(&before);
  for (ssize_t got = 1; got > 0; done += got) {
    do
      got = pread(pin->fd, piece, sizeof piece, done);
    while (got < 0 && errno == EINTR);
    if (got < 0)
      return -1;
    sha256_add(&sum, piece, (size_t)got);
  }
  sha256_end(&sum, pin->sha256);
  pin->size = (uint64_t)done;
  return fstat(pin->fd, &now) < 0 ? -1 : before.st_size == done && is_as_it_was(pin, &now);
}

/* A new version that is renamed over it changes its times too, once. */
static int digest_one(struct pin *pin, struct imd_error *err)
{
  for (int tries = 0; tries < MAX_READS; tries++) {
    const int same = read_one(pin);
    if (same < 0)
      return pin_fail(err, errno, "%s", pin->path);
    if (same)
      return 0;
  }
  return pin_fail(err, 0, "%s was changed while it was read", pin->path);
}

/*
 * A lease of our own file's, which nobody has open to be written: who opens it so, or cuts it, waits until exec lets go of it, when
 * a program is already the kernel's to guard (ETXTBSY), or until the host's fs.lease-break-time. Times do not do: what is written
 * through a mapping changes none on tmpfs. Without one (another's file, a file system that has none) they have to.
 */
static void hold(struct pin *pin)
{
  /* Whoever wants to write is told of by a signal: one that does nothing here, instead of SIGIO, which ends us. */
  pin->held = fcntl(pin->fd, F_SETSIG, SIGURG) == 0 && fcntl(pin->fd, F_SETLEASE, F_RDLCK) == 0;
}

int pins_digest(struct pins *pins, struct imd_error *err)
{
  for (uint32_t i = 0; i < pins->count; i++) {
    struct pin *pin = &pins->at[i];
    if (pin->fixed)
      continue;
    hold(pin);
    /* As execve would say of a program; of a script it would not. NFS and SMB mean by it that their server promises nothing. */
    if (!pin->held && errno == EAGAIN && pin->leasable && i == pins->count - 1)
      return exec_fail(err, ETXTBSY, "%s", pin->path);
    if (digest_one(pin, err) < 0)
      return -1;
  }
  return 0;
}

/* Whether a file that may change is what was told of it. */
static int check_unchanged(struct pin *pin, struct imd_error *err)
{
  uint8_t told[sizeof pin->sha256];
  struct stat now;
  if (pin->fixed || (pin->held && fcntl(pin->fd, F_GETLEASE) == F_RDLCK))
    return 0;
  /* Somebody waits to write, or waited for so long that he may: the times of the first say nothing of a mapping. */
  if (!pin->held && pin->settled && fstat(pin->fd, &now) == 0 && is_as_it_was(pin, &now))
    return 0;
  memcpy(told, pin->sha256, sizeof told);
  if (digest_one(pin, err) < 0)
    return -1;
  return memcmp(told, pin->sha256, sizeof told) == 0
             ? 0
             : pin_fail(err, 0, "%s was changed after it was read", pin->path);
}

/* --- and runs ---------------------------------------------------------------------------------------------------- */

/* As the kernel makes them: each interpreter has its argument and its script's path in the place of argv[0]. */
char **pins_argv(const struct pins *pins, char *const *argv)
{
  size_t count = 0, at = 0;
  while (argv[count])
    count++;
  char **words = calloc(count + 2 * pins->count + 1, sizeof *words);
  if (!words)
    return NULL;
  for (uint32_t i = pins->count - 1; i > 0; i--) {
    words[at++] = (char *)(uintptr_t)pins->at[i].path;
    if (pins->at[i].argument[0] != '\0')
      words[at++] = (char *)(uintptr_t)pins->at[i].argument;
  }
  words[at++] = pins->count > 1 ? (char *)(uintptr_t)pins->at[0].path : argv[0];
  for (size_t i = 1; i < count; i++)
    words[at++] = argv[i];
  return words;
}

void pins_execute(struct pins *pins, char *const *argv, char *const *envp, struct imd_error *err)
{
  const struct pin *last = &pins->at[pins->count - 1];
  for (uint32_t i = 0; i < pins->count; i++)
    if (check_unchanged(&pins->at[i], err) < 0)
      return;
  for (const struct pin *script = pins->at; script < last; script++) {
    struct stat st;
    if (stat(script->path, &st) < 0) {
      pin_fail(err, errno, "%s, which was pinned", script->path);
      return;
    }
    if (st.st_dev != script->device || st.st_ino != script->inode) {
      pin_fail(err, 0, "%s is not the file any more that was pinned", script->path);
      return;
    }
  }
  syscall(SYS_execveat, last->fd, "", argv, envp, AT_EMPTY_PATH);
  exec_fail(err, errno, errno == ENOENT ? "%s: its loader" : "%s", last->path);
}
