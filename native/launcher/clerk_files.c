#define _GNU_SOURCE
#include "clerk_files.h"
#include "clerk.h"
#include "peer.h"
#include "util.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { DESCRIPTORS = 2 * IMD_FILES_MAX_DEPTH + 64 };

static int become_payload(const struct clerk *clerk)
{
  const struct run *run = clerk->run;
  gid_t groups[IMD_MAX_GROUPS];
  const struct rlimit descriptors = {DESCRIPTORS, DESCRIPTORS}, no_core = {0, 0};
  if (setrlimit(RLIMIT_NOFILE, &descriptors) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0 || setsid() < 0)
    return -1;
  /* Groups first: in the user namespace nobody may set them. */
  if (setgroups(peer_groups(clerk->cell, run, groups), groups) < 0 || setns(clerk->cell->user_ns, CLONE_NEWUSER) < 0 ||
      setresgid(run->inner_gid, run->inner_gid, run->inner_gid) < 0 ||
      setresuid(run->inner_uid, run->inner_uid, run->inner_uid) < 0 || drop_capabilities() < 0 ||
      prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return -1;
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
    return -1;
  return 0;
}

_Noreturn void clerk_files(const struct clerk *clerk)
{
  const dev_t *kernel = clerk->cell->view.kernel;
  const int socket = clerk->socket;
  prctl(PR_SET_NAME, "immured-files");
  imd_reset_signals();
  signal(SIGPIPE, SIG_IGN);
  umask(0);
  cleanup_fd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0 || become_payload(clerk) < 0) {
    imd_log("the clerk for files did not become the payload");
    _exit(EXIT_FAILURE);
  }
  int keep[] = {socket, root};
  imd_close_others(keep, 2);
  if (files_restrict() < 0) {
    imd_log("the clerk for files has no filter");
    _exit(EXIT_FAILURE);
  }
  files_serve(socket, root, kernel);
}
