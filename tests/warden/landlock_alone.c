/*
 * Landlock's rules of a cell, and no other wall: no namespaces, mounts as they are. In a process that may write wherever
 * its user may.
 *
 * TMP WRITABLE FLAGS|- COMMAND...: TMP stands for the cell's /tmp, WRITABLE for a writable bind. `-`: no rules at all,
 * for control.
 */
#define _GNU_SOURCE
#include "kernel.h"
#include "landlock.h"
#include "plan.h"
#include "view.h"

#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  if (argc < 5)
    return 2;
  if (strcmp(argv[3], "-") != 0) {
    const struct view view = {
        .root = open("/", O_PATH), .dev = open("/dev", O_PATH), .proc = open("/proc", O_PATH), .tmp = open(argv[1], O_PATH)};
    const uint64_t numbers[] = {landlock_rung(), (uint64_t)atoi(argv[3])};
    const struct imd_plan_step step = {.op = IMD_OP_LANDLOCK, .numbers = numbers, .number_count = 2};
    struct imd_error error = IMD_ERROR_INIT;
    int ruleset;
    if (landlock_make(&view, &ruleset, &error) < 0 ||
        landlock_allow(ruleset, open(argv[2], O_PATH), true, argv[2], &error) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || landlock_restrict(ruleset, &view, &step, &error) < 0)
      errx(EXIT_FAILURE, "%s", error.text);
    close_range(3, ~0u, 0);
  }
  execvp(argv[4], argv + 4);
  err(EXIT_FAILURE, "%s", argv[4]);
}
