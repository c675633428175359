/* burn MS [THREADS [CHILDREN]]: uses MS milliseconds of processor time in each of THREADS threads of CHILDREN processes
 * (waited for) and of its own, and prints what its own clocks say of all that, in microseconds: an ordinary program's view. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long wanted_us;

static long used_us(clockid_t clock)
{
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static void *burn(void *unused)
{
  (void)unused;
  volatile unsigned x = 1;
  while (used_us(CLOCK_THREAD_CPUTIME_ID) < wanted_us)
    for (int i = 0; i < 1000; i++)
      x = x * 1664525u + 1013904223u;
  return NULL;
}

static void burn_in_threads(int threads)
{
  pthread_t others[64];
  for (int i = 1; i < threads; i++)
    pthread_create(&others[i], NULL, burn, NULL);
  burn(NULL);
  for (int i = 1; i < threads; i++)
    pthread_join(others[i], NULL);
}

static long children_us(void)
{
  struct rusage usage;
  getrusage(RUSAGE_CHILDREN, &usage);
  return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

int main(int argc, char **argv)
{
  const int threads = argc > 2 ? atoi(argv[2]) : 1, children = argc > 3 ? atoi(argv[3]) : 0;
  if (argc < 2 || threads < 1 || threads > 64)
    return 2;
  wanted_us = atol(argv[1]) * 1000;
  for (int i = 0; i < children; i++)
    if (fork() == 0) {
      burn_in_threads(threads);
      _exit(0);
    }
  burn_in_threads(threads);
  while (wait(NULL) > 0)
    continue;
  printf("%ld\n", used_us(CLOCK_PROCESS_CPUTIME_ID) + children_us());
  return 0;
}
