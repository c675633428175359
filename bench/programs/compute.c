/* A fixed computation with a working set beyond the nearest caches; prints the CPU nanoseconds that it took. Static. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WORDS = 1 << 16 };

static uint64_t cpu_ns(void)
{
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
  static uint64_t words[WORDS];
  const int rounds = argc > 1 ? atoi(argv[1]) : 100;
  const uint64_t start = cpu_ns();
  uint64_t x = 88172645463325252u, sum = 0;
  for (int round = 0; round < rounds; round++)
    for (uint32_t i = 0; i < WORDS; i++) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      words[x % WORDS] += i;
      sum += words[i];
    }
  const uint64_t took = cpu_ns() - start;
  /* The sum is used, or there would be nothing to compute. */
  printf("%llu %llu\n", (unsigned long long)took, (unsigned long long)(sum & 1));
  return 0;
}
