/* A warden alone, with the test in the launcher's place: becomes warden_main as the parker's child would. */
#define _GNU_SOURCE
#include "landlock.h"
#include "plan.h"
#include "processors.h"
#include "util.h"
#include "warden.h"

#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { MAX_GRANTS = 8 };

static int open_or_die(const char *path, int flags)
{
  const int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0)
    err(EXIT_FAILURE, "%s", path);
  return fd;
}

/* SOCKET SLOT_BASE CGROUP|- CONTROLLERS OPEN_TIMEOUT_MS [read PATH | write PATH]... */
int main(int argc, char **argv)
{
  char *read[MAX_GRANTS + 1] = {NULL}, *write[MAX_GRANTS + 1] = {NULL};
  if (argc < 6 || argc > 6 + 2 * MAX_GRANTS)
    return 2;
  for (int i = 6, reads = 0, writes = 0; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "write") == 0)
      write[writes++] = argv[i + 1];
    else
      read[reads++] = argv[i + 1];
  }
  const int socket = atoi(argv[1]);
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  const struct warden_config config = {
      .slot_base = (uint32_t)strtoul(argv[2], NULL, 0),
      .host_proc = open_or_die("/proc", O_PATH | O_DIRECTORY),
      .host_mounts = open_or_die("/proc/self/ns/mnt", O_RDONLY),
      .outcomes = socket,
      .cgroup = strcmp(argv[3], "-") == 0 ? -1 : open_or_die(argv[3], O_RDONLY | O_DIRECTORY),
      .controllers = (uint32_t)strtoul(argv[4], NULL, 0),
      .processors = processors_open(),
      .open_timeout_ms = atoi(argv[5]),
      .grant_read = read,
      .grant_write = write,
      .cell = 7,
  };
  imd_reset_signals();
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_NAME, "immured-warden");
  if (chdir("/") < 0)
    return 2;
  imd_plan_require_landlock(landlock_rung());
  warden_main(&config, socket);
}
