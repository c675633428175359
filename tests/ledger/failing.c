/*
 * Preloaded into a process that appends to a ledger: the Nth write or sync of its file fails, falls short, or is the last thing
 * that the process does. Notes, a byte each, in a file: 'p' a write and 's' a sync began, 'F' this was the one; and 'P', 'S' for a
 * write or a sync after one that failed for good.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum call { PWRITE, FDATASYNC };

static struct {
  bool armed;
  enum call call;
  int number;                          /* the one that fails, from 1 on */
  bool on;                             /* and each after it */
  long take;                           /* bytes of a write that are written all the same; -1 for half of them, -2 for all */
  int error;                           /* 0 for none: the call says what it took */
  int signal;                          /* what the process gets then; 0 for nothing */
  bool final;                          /* nothing may follow */
  long hold_ms;                        /* before it fails */
  int notes;
} fault;

static atomic_int seen;
static atomic_bool over;
static bool no_room_ahead;

/* From Python, by ctypes, in a process that has one thread. */
void fault_arm(int call, int number, int on, long take, int error, int signal, int final, long hold_ms, const char *notes)
{
  fault.call = (enum call)call;
  fault.number = number;
  fault.on = on;
  fault.take = take;
  fault.error = error;
  fault.signal = signal;
  fault.final = final;
  fault.hold_ms = hold_ms;
  fault.notes = open(notes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  fault.armed = true;
}

/* As a file system that takes no space in advance. */
void fault_no_room_ahead(void)
{
  no_room_ahead = true;
}

static void note(char what)
{
  if (syscall(SYS_write, fault.notes, &what, 1) != 1)
    abort();
}

static bool is_log(int fd)
{
  static const char name[] = "/ledger/current.jsonl";
  char link[64] = "/proc/self/fd/", path[4096];
  char digits[12];
  size_t count = 0, at = strlen(link);
  for (int rest = fd; rest > 0 || count == 0; rest /= 10)
    digits[count++] = (char)('0' + rest % 10);
  while (count > 0)
    link[at++] = digits[--count];
  const ssize_t length = readlink(link, path, sizeof path);
  const size_t suffix = sizeof name - 1;
  return length >= (ssize_t)suffix && memcmp(path + length - suffix, name, suffix) == 0;
}

/* Whether this call is one that fails. */
static bool falls(enum call call, int fd)
{
  if (!fault.armed || !is_log(fd))
    return false;
  if (over)
    note(call == PWRITE ? 'P' : 'S');
  note(call == PWRITE ? 'p' : 's');
  if (call != fault.call)
    return false;
  const int number = ++seen;
  if (number != fault.number && !(fault.on && number > fault.number))
    return false;
  note('F');
  over = fault.final;
  const struct timespec hold = {fault.hold_ms / 1000, fault.hold_ms % 1000 * 1000000};
  nanosleep(&hold, NULL);
  return true;
}

static ssize_t fell(ssize_t took)
{
  if (fault.signal != 0) {
    kill(getpid(), fault.signal);
    for (;;)
      pause();
  }
  if (fault.error == 0)
    return took;
  errno = fault.error;
  return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
  if (!falls(PWRITE, fd))
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
  size_t take = fault.take == -2 ? size : fault.take == -1 ? size / 2 : (size_t)fault.take;
  if (take > size)
    take = size;
  ssize_t took = take > 0 ? syscall(SYS_pwrite64, fd, bytes, take, offset) : 0;
  return fell(took);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
  return pwrite64(fd, bytes, size, offset);
}

int fdatasync(int fd)
{
  const struct timespec while_it_lasts = {0, 300000};
  if (!falls(FDATASYNC, fd))
    return nanosleep(&while_it_lasts, NULL);         /* a real one would take as long, or a hundred times that */
  return (int)fell(0);
}

/* Nothing here depends on it: the process dies, and not the machine. */
int fsync(int fd)
{
  (void)fd;
  return 0;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
  if (no_room_ahead) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}
