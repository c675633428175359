/* The launcher's executable: puts the process in order, before anything else is done. The daemon starts it. */
#define _GNU_SOURCE
#include "launcher.h"
#include "options.h"
#include "upgrade.h"
#include "util.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* The daemon decides when this ends, by closing its socket; signals do only where no daemon started it. Wardens unblock
   them all. */
static void settle_signals(void)
{
  imd_reset_signals();             /* once for all that is forked from here on: the payloads too */
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
}

/* 0, 1 and 2 exist, so that nothing we open becomes one of them; of the others, those that we were told of. */
static void settle_descriptors(const struct imd_options *options)
{
  int fd;
  while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd <= STDERR_FILENO)
    fcntl(fd, F_SETFD, 0);
  if (options->state_fd >= 0)
    return;                        /* the launcher that this was has passed on what is needed, and nothing else */
  int keep[2 + IMD_MAX_LOCKS] = {options->control_fd, options->listen_fd};
  memcpy(keep + 2, options->lock_fds, sizeof options->lock_fds);
  imd_close_others(keep, sizeof keep / sizeof keep[0]);
  for (size_t i = 0; i < sizeof keep / sizeof keep[0]; i++)
    if (keep[i] >= 0)
      fcntl(keep[i], F_SETFD, FD_CLOEXEC);
}

int main(int argc, char **argv)
{
  struct imd_options options;
  prctl(PR_SET_NAME, "immured-launch");
  if (imd_options_parse(&options, argc, argv) < 0)
    return 2;
  if (options.takes_over >= 0)
    return imd_upgrade_takes_over((uint32_t)options.takes_over);
  if (geteuid() != 0) {
    imd_log("this needs root: start the daemon as root");
    return 2;
  }
  settle_signals();
  settle_descriptors(&options);
  prctl(PR_SET_DUMPABLE, 0);
  setrlimit(RLIMIT_CORE, &(struct rlimit){1, 1});   /* payloads' too, whatever a plan leaves out; plan.c */
  setsid();
  umask(022);
  if (chdir("/") < 0) {
    imd_log("/: %s", strerror(errno));
    return EXIT_FAILURE;
  }
  return imd_launcher_main(&options);
}
