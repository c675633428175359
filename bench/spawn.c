/*
 * The other side of the comparison: start a command by vfork + exec, wait for it, say how long that took.
 *
 * A tiny C parent, because what a run costs must not contain what forking a Python interpreter costs. One line on
 * stdin runs the command once; one line on stdout answers with wall and CPU time in nanoseconds (the CPU time is the
 * command's and that of every descendant that was waited for, getrusage(2) RUSAGE_CHILDREN). The first argument is a
 * descriptor that the command reads to its end (bwrap's --seccomp) and that is rewound before each run, or "-".
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t children_cpu_ns(void) {
  struct rusage usage;
  getrusage(RUSAGE_CHILDREN, &usage);
  uint64_t us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  return us * 1000u;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: spawn REWIND|- COMMAND [ARG...]   (a line on stdin for each run)\n");
    return 2;
  }
  int rewound = argv[1][0] == '-' ? -1 : atoi(argv[1]);
  /* What a tool leaves behind (bwrap its PID 1) is ours to wait for, or its CPU time would be nobody's. */
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    if (rewound >= 0 && lseek(rewound, 0, SEEK_SET) != 0) {
      perror("spawn: rewind");
      return 1;
    }
    uint64_t cpu = children_cpu_ns(), start = now_ns();
    pid_t child = vfork();
    if (child == 0) {
      execv(argv[2], argv + 2);
      _exit(127);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
      fprintf(stderr, "spawn: %s did not end well (wait status %d)\n", argv[2], status);
      return 1;
    }
    uint64_t wall = now_ns() - start;
    while (waitpid(-1, NULL, 0) > 0)
      continue;
    printf("%llu %llu\n", (unsigned long long)wall, (unsigned long long)(children_cpu_ns() - cpu));
    fflush(stdout);
  }
  free(line);
  return 0;
}
