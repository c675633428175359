/*
 * A payload that tries each way out, with no filter in its way: one line per attempt, its name and the errno's name,
 * or `ok` where it got through.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static void tried(const char *name, long result)
{
  printf("%s %s\n", name, result >= 0 ? "ok" : strerrorname_np(errno));
  fflush(stdout);
}

/* In a child, so that what succeeds does not change the rest. */
#define TRY(name, expression)                        \
  do {                                               \
    fflush(stdout);                                  \
    const pid_t child = fork();                      \
    if (child == 0) {                                \
      tried(name, (long)(expression));               \
      _exit(0);                                      \
    }                                                \
    siginfo_t info;                                  \
    waitid(P_PID, (id_t)child, &info, WEXITED);      \
  } while (0)

#include <sys/wait.h>

static long set_all_capabilities(void)
{
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
  return syscall(SYS_capset, &header, data);
}

static long raise_interface(void)
{
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = 0};
  return ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &request);
}

static long join(const char *path)
{
  const int fd = open(path, O_RDONLY);
  return fd < 0 ? -1 : setns(fd, 0);
}

static long write_to(const char *path, const char *text)
{
  const int fd = open(path, O_WRONLY);
  return fd < 0 ? -1 : write(fd, text, strlen(text));
}

static long read_some(const char *path)
{
  char byte;
  const int fd = open(path, O_RDONLY);
  if (fd >= 0 && read(fd, &byte, 1) == 0)
    errno = ENODATA;
  else if (fd >= 0)
    return 0;
  return -1;
}

static long read_memory_of_init(void)
{
  char byte;
  struct iovec ours = {&byte, 1}, theirs = {(void *)0x400000, 1};
  return process_vm_readv(1, &ours, 1, &theirs, 1, 0);
}

static long take_descriptor_of_init(void)
{
  const long pidfd = syscall(SYS_pidfd_open, 1, 0);
  return pidfd < 0 ? -1 : syscall(SYS_pidfd_getfd, pidfd, 0, 0);
}

static long remount(const char *path, unsigned long flags)
{
  return mount("none", path, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
}

static long open_by_handle(void)
{
  struct {
    struct file_handle handle;
    unsigned char bytes[128];
  } name = {.handle = {.handle_bytes = 128}};
  int mount_id;
  const int at = open("/usr", O_RDONLY);
  if (name_to_handle_at(AT_FDCWD, "/usr", &name.handle, &mount_id, 0) < 0)
    return -1;
  return open_by_handle_at(at, &name.handle, O_RDONLY);
}

int main(void)
{
  static const struct timespec now = {1000000000, 0};
  TRY("become root", setresuid(0, 0, 0));
  TRY("become root's group", setresgid(0, 0, 0));
  TRY("join groups", setgroups(1, (gid_t[]){0}));
  TRY("take capabilities", set_all_capabilities());
  TRY("raise ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0));
  TRY("clear securebits", prctl(PR_SET_SECUREBITS, 0));
  TRY("new user namespace", unshare(CLONE_NEWUSER));
  TRY("new mount namespace", unshare(CLONE_NEWNS));
  TRY("new network namespace", unshare(CLONE_NEWNET));
  TRY("new pid namespace", unshare(CLONE_NEWPID));
  TRY("new cgroup namespace", unshare(CLONE_NEWCGROUP));
  TRY("new time namespace", unshare(0x80));
  TRY("join init's mounts", join("/proc/1/ns/mnt"));
  TRY("join init's users", join("/proc/1/ns/user"));
  TRY("join own users", join("/proc/self/ns/user"));
  TRY("mount tmpfs", mount("x", "/tmp", "tmpfs", 0, NULL));
  TRY("mount proc", mount("x", "/tmp", "proc", 0, NULL));
  TRY("bind", mount("/usr", "/tmp", NULL, MS_BIND, NULL));
  TRY("remount root", remount("/", 0));
  TRY("remount usr", remount("/usr", 0));
  TRY("unmount proc/sys", umount2("/proc/sys", MNT_DETACH));
  TRY("unmount proc/keys", umount2("/proc/keys", MNT_DETACH));
  TRY("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
  TRY("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/usr", OPEN_TREE_CLONE));
  TRY("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
  TRY("chroot", chroot("/tmp"));
  TRY("make device", mknod("/tmp/sda", S_IFBLK | 0666, makedev(8, 0)));
  TRY("make null", mknod("/tmp/null", S_IFCHR | 0666, makedev(1, 3)));
  TRY("write usr", open("/usr/bin/immured", O_CREAT | O_WRONLY, 0755));
  TRY("write root", open("/immured", O_CREAT | O_WRONLY, 0755));
  TRY("write etc", open("/etc/passwd", O_WRONLY));
  TRY("write dev", open("/dev/immured", O_CREAT | O_WRONLY, 0600));
  TRY("change null", chmod("/dev/null", 0600));
  TRY("write core_pattern", write_to("/proc/sys/kernel/core_pattern", "|/tmp/x"));
  TRY("write sysctl", write_to("/proc/sys/kernel/hostname", "x"));
  TRY("write namespaces", write_to("/proc/sys/user/max_user_namespaces", "9"));
  TRY("sysrq", write_to("/proc/sysrq-trigger", "h"));
  TRY("uid_map", write_to("/proc/self/uid_map", "0 0 1"));
  TRY("init's memory", open("/proc/1/mem", O_RDONLY));
  TRY("init's maps", open("/proc/1/maps", O_RDONLY));
  TRY("init's root", open("/proc/1/root", O_RDONLY));
  TRY("init's cwd", open("/proc/1/cwd", O_RDONLY));
  TRY("init's descriptor", open("/proc/1/fd/0", O_RDONLY));
  TRY("init's environment", open("/proc/1/environ", O_RDONLY));
  TRY("init's vm", read_memory_of_init());
  TRY("init's descriptor by pidfd", take_descriptor_of_init());
  TRY("trace init", ptrace(PTRACE_ATTACH, 1, 0, 0));
  TRY("seize init", ptrace(PTRACE_SEIZE, 1, 0, 0));
  TRY("kill init", kill(1, SIGKILL));
  TRY("stop init", kill(1, SIGSTOP));
  TRY("limit init", prlimit(1, RLIMIT_NOFILE, &(struct rlimit){0, 0}, NULL));
  TRY("renice init", setpriority(PRIO_PROCESS, 1, 19));
  TRY("host name", sethostname("x", 1));
  TRY("clock", clock_settime(CLOCK_REALTIME, &now));
  TRY("clear the kernel log", klogctl(5, NULL, 0));
  TRY("kcore", read_some("/proc/kcore"));
  TRY("kmsg", open("/proc/kmsg", O_RDONLY));
  TRY("reboot", reboot(RB_DISABLE_CAD));
  TRY("swap", swapon("/tmp", 0));
  TRY("module", syscall(SYS_init_module, "", 0, ""));
  TRY("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
  TRY("bpf", syscall(SYS_bpf, 5, (char[128]){0}, 128));
  TRY("raw socket", socket(AF_INET, SOCK_RAW, 1));
  TRY("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
  TRY("lower lo", raise_interface());
  TRY("open by handle", open_by_handle());
  TRY("raise niceness", setpriority(PRIO_PROCESS, 0, -5));
  TRY("realtime", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}));
  TRY("raise a limit", setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
  TRY("lower oom score", write_to("/proc/self/oom_score_adj", "-500"));
  TRY("acct", acct("/tmp/x"));
  TRY("quota", syscall(SYS_quotactl, 0x800002, "/dev/vda", 0, NULL));
  TRY("give a file away", chown("/tmp", 0, 0));
  TRY("trusted attribute", setxattr("/tmp", "trusted.x", "x", 1, 0));
  TRY("file capability", setxattr("/tmp/hostile", "security.capability", (char[20]){1, 0, 0, 2}, 20, 0));
  return 0;
}
