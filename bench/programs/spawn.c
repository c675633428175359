/*
 * The other side of the comparison: start a command by vfork + exec, wait for it, say how long that took.
 *
 * A tiny C parent, because what a run costs must not contain what forking a Python interpreter costs. An empty line on
 * stdin runs the command once; one line on stdout answers with wall and CPU time in nanoseconds (the CPU time is the
 * command's and that of every descendant that was waited for, getrusage(2) RUSAGE_CHILDREN). A number on stdin is so many
 * milliseconds of runs back to back, answered with how many ended in that time and how many nanoseconds it was.
 *
 * spawn REWIND UID COMMAND [ARG...]
 *
 * REWIND: a descriptor that the command reads to its end (bwrap's --seccomp) and that is rewound before each run, or
 * "-". UID: whose the command is, or "-" for the caller's own.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct command {
  char **argv;
  int rewound;
};

static uint64_t now_ns(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t children_cpu_ns(void)
{
  struct rusage usage;
  getrusage(RUSAGE_CHILDREN, &usage);
  const uint64_t us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  return us * 1000u;
}

static void run(const struct command *command)
{
  if (command->rewound >= 0 && lseek(command->rewound, 0, SEEK_SET) != 0) {
    perror("spawn: rewind");
    exit(1);
  }
  const pid_t child = vfork();
  if (child == 0) {
    execv(command->argv[0], command->argv);
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    fprintf(stderr, "spawn: %s did not end well (wait status %d)\n", command->argv[0], status);
    exit(1);
  }
}

/* What a tool leaves behind (bwrap its PID 1), or its CPU time would be nobody's. */
static void wait_for_the_rest(void)
{
  while (waitpid(-1, NULL, 0) > 0)
    continue;
}

static int become(const char *uid)
{
  if (uid[0] == '-')
    return 0;
  const uid_t id = (uid_t)atoi(uid);
  return setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
  if (argc < 4) {
    fprintf(stderr, "usage: spawn REWIND|- UID|- COMMAND [ARG...]   (a line on stdin: one run, or milliseconds)\n");
    return 2;
  }
  const struct command command = {.argv = argv + 3, .rewound = argv[1][0] == '-' ? -1 : atoi(argv[1])};
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (become(argv[2]) < 0) {
    perror("spawn: uid");
    return 1;
  }
  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    const uint64_t cpu = children_cpu_ns(), start = now_ns(), span = strtoull(line, NULL, 10) * 1000000u;
    uint64_t runs = 0, took;
    do {
      run(&command);
      runs++;
      took = now_ns() - start;
      wait_for_the_rest();
    } while (took < span);
    printf("%llu %llu\n", (unsigned long long)(span ? runs : took),
           (unsigned long long)(span ? took : children_cpu_ns() - cpu));
    fflush(stdout);
  }
  free(line);
  return 0;
}
