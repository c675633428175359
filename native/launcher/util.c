#define _GNU_SOURCE
#include "util.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

enum { ALARM_US = 1000 };

static void wake_up(int signal)
{
  (void)signal;
}

static bool may_linger(const int *fds, size_t count)
{
  int type;
  for (size_t i = 0; i < count; i++)
    if (fds[i] >= 0 && getsockopt(fds[i], SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) == 0)
      return true;
  return false;
}

void imd_drop(int *fds, size_t count)
{
  const int saved = errno;
  const bool slow = may_linger(fds, count);
  const struct sigaction waken = {.sa_handler = wake_up, .sa_flags = SA_RESTART};
  const struct itimerval often = {{0, ALARM_US}, {0, ALARM_US}}, never = {{0, 0}, {0, 0}};
  struct sigaction usual;
  sigset_t alarm, before;
  if (slow) {
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    sigaction(SIGALRM, &waken, &usual);
    sigprocmask(SIG_UNBLOCK, &alarm, &before);
    setitimer(ITIMER_REAL, &often, NULL);
  }
  for (size_t i = 0; i < count; i++)
    imd_close(&fds[i]);
  if (slow) {
    setitimer(ITIMER_REAL, &never, NULL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    /* What is forked from here on has none of ours: before its exec a payload would take an alarm for nothing. */
    sigaction(SIGALRM, &usual, NULL);
  }
  errno = saved;
}

ssize_t imd_read_full(int fd, void *buffer, size_t size)
{
  size_t done = 0;
  while (done < size) {
    const ssize_t got = read(fd, (char *)buffer + done, size - done);
    if (got == 0)
      break;
    if (got < 0) {
      if (errno == EINTR)
        continue;
      return -1;
    }
    done += (size_t)got;
  }
  return (ssize_t)done;
}

int imd_write_full(int fd, const void *buffer, size_t size)
{
  size_t done = 0;
  while (done < size) {
    const ssize_t put = write(fd, (const char *)buffer + done, size - done);
    if (put < 0) {
      if (errno == EINTR)
        continue;
      return -1;
    }
    done += (size_t)put;
  }
  return 0;
}

ssize_t imd_read_at(int dir, const char *path, char *buffer, size_t size)
{
  cleanup_fd int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  const ssize_t got = imd_read_full(fd, buffer, size);
  if (got < 0)
    return -1;
  if ((size_t)got == size) {
    errno = E2BIG;
    return -1;
  }
  buffer[got] = '\0';
  return got;
}

int imd_write_at(int dir, const char *path, const char *text)
{
  cleanup_fd int fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
  if (fd < 0)
    return -1;
  return imd_write_full(fd, text, strlen(text));
}

static int compare(const void *left, const void *right)
{
  return *(const int *)left - *(const int *)right;
}

void imd_close_others(int *keep, size_t count)
{
  qsort(keep, count, sizeof *keep, compare);
  unsigned int next = STDERR_FILENO + 1;
  for (size_t i = 0; i < count; i++) {
    if (keep[i] < (int)next)
      continue;
    if (keep[i] > (int)next)
      close_range(next, (unsigned int)keep[i] - 1, 0);
    next = (unsigned int)keep[i] + 1;
  }
  close_range(next, UINT_MAX, 0);
}

void *imd_allocate(size_t size)
{
  void *memory = calloc(1, size);
  if (!memory) {
    imd_log("no memory");
    _exit(EXIT_FAILURE);
  }
  return memory;
}

void imd_reset_signals(void)
{
  /* All zeros is SIG_DFL without a flag or a mask; SIGKILL and SIGSTOP are refused, and need nothing. */
  static const unsigned char by_default[64];
  for (int number = 1; number < NSIG; number++)
    syscall(SYS_rt_sigaction, number, by_default, NULL, (size_t)8);
}

uint64_t imd_now_ns(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void imd_log(const char *format, ...)
{
  const int saved = errno;
  char line[512];
  char name[16] = "immured";
  prctl(PR_GET_NAME, name);
  int used = snprintf(line, sizeof line, "%s[%d]: ", name, (int)getpid());

  va_list arguments;
  va_start(arguments, format);
  const int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, arguments);
  va_end(arguments);
  if (more > 0)
    used += more;
  if ((size_t)used > sizeof line - 2)
    used = (int)sizeof line - 2;
  line[used++] = '\n';
  (void)!write(STDERR_FILENO, line, (size_t)used);
  errno = saved;
}
