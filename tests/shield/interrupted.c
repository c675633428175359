/*
 * Opens to write under a shower of signals, in children by fork and vfork and in threads: every one must succeed. EINTR
 * is no failure: until PID 1 has taken a notification the kernel lets a signal end the wait (docs/kernel-notes.md).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OPENS = 3000, THREADS = 4 };
static volatile sig_atomic_t signals;

static void count(int number)
{
  (void)number;
  signals++;
}

static int open_to_write(const char *path)
{
  int fd;
  do
    fd = open(path, O_WRONLY | O_CREAT, 0600);
  while (fd < 0 && errno == EINTR);
  return fd;
}

static void *open_many(void *failures)
{
  for (int i = 0; i < OPENS; i++) {
    const int fd = open_to_write("/tmp/written");
    if (fd < 0)
      __atomic_add_fetch((int *)failures, 1, __ATOMIC_SEQ_CST);
    else
      close(fd);
  }
  return NULL;
}

int main(int argc, char **argv)
{
  if (argc > 1) {                  /* executed by a vfork child */
    const int fd = open_to_write("/tmp/vforked");
    return fd < 0;
  }
  int failures = 0, status;
  pthread_t threads[THREADS];
  const struct sigaction action = {.sa_handler = count};   /* no SA_RESTART */
  const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &often, NULL);
  for (int i = 0; i < THREADS; i++)
    pthread_create(&threads[i], NULL, open_many, &failures);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  setitimer(ITIMER_REAL, &never, NULL);
  for (int i = 0; i < 20; i++) {
    const pid_t child = fork();
    if (child == 0)
      _exit(open_to_write("/tmp/forked") < 0);
    while (waitpid(child, &status, 0) < 0)
      continue;
    failures += status != 0;
    const pid_t other = vfork();
    if (other == 0) {
      execl(argv[0], argv[0], "again", NULL);
      _exit(1);
    }
    while (waitpid(other, &status, 0) < 0)
      continue;
    failures += status != 0;
  }
  printf("%d %s\n", failures, signals > 0 ? "interrupted" : "quiet");
  return 0;
}
