/* The launcher's executable: puts the process in order, before anything else is done. The daemon starts it. */
#define _GNU_SOURCE
#include "launcher.h"
#include "options.h"
#include "util.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* The daemon decides when this ends, by closing its socket; no signal but SIGKILL does. Wardens unblock them all. */
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
  int keep[] = {options->control_fd, options->outcome_fd, options->lock_fd};
  imd_close_others(keep, sizeof keep / sizeof keep[0]);
  fcntl(options->control_fd, F_SETFD, FD_CLOEXEC);
  fcntl(options->outcome_fd, F_SETFD, FD_CLOEXEC);
  if (options->lock_fd >= 0)
    fcntl(options->lock_fd, F_SETFD, FD_CLOEXEC);
}

int main(int argc, char **argv)
{
  struct imd_options options;
  prctl(PR_SET_NAME, "immured-launch");
  if (imd_options_parse(&options, argc, argv) < 0)
    return 2;
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
