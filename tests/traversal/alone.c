/* The files' clerk alone: SOCKET ROOT. Becomes uid 1000 in a mount namespace whose root is ROOT, under its filter, and serves. */
#define _GNU_SOURCE
#include "clerk_files.h"
#include "kernel.h"
#include "util.h"

#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  if (argc != 3)
    return 2;
  const int socket = atoi(argv[1]);
  const struct rlimit descriptors = {1088, 1088};
  if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
      mount(argv[2], argv[2], NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(argv[2]) < 0 || sys_pivot_root(".", ".") < 0 ||
      umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
    err(EXIT_FAILURE, "the root");
  signal(SIGPIPE, SIG_IGN);
  umask(0);
  const int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct stat proc;
  const bool has_proc = stat("/proc", &proc) == 0;
  struct stat own;
  if (root < 0 || fstat(root, &own) < 0 || setrlimit(RLIMIT_NOFILE, &descriptors) < 0 || setgroups(0, NULL) < 0 ||
      setresgid(1000, 1000, 1000) < 0 || setresuid(1000, 1000, 1000) < 0)
    err(EXIT_FAILURE, "the payload");
  const dev_t kernel[3] = {has_proc && proc.st_dev != own.st_dev ? proc.st_dev : 0};
  int keep[] = {socket, root};
  imd_close_others(keep, 2);
#ifndef UNFILTERED                 /* the sanitizers call what no clerk needs */
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || files_restrict() < 0)
    err(EXIT_FAILURE, "the filter");
#endif
  files_serve(socket, root, kernel);
}
