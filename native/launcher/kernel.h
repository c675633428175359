/* System calls that the C library has no function for, and constants newer than some of its headers. */
#ifndef IMMURED_KERNEL_H
#define IMMURED_KERNEL_H

#include <linux/landlock.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif
#ifndef MQUEUE_MAGIC
#define MQUEUE_MAGIC 0x19800202
#endif
#ifndef FUSECTL_SUPER_MAGIC
#define FUSECTL_SUPER_MAGIC 0x65735543
#endif
#ifndef CONFIGFS_MAGIC
#define CONFIGFS_MAGIC 0x62656570
#endif
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446
#endif

/* Newer than 6.1's headers: the same on x86-64 and aarch64. */
#ifndef SYS_statmount
#define SYS_statmount 457                                        /* 6.8 */
#endif
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u                              /* 6.8 */
#endif

/* Landlock, newer than 6.1's headers: the kernel's own numbers, and since when. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)                 /* ABI 3, 6.2 */
#endif
#ifndef LANDLOCK_ACCESS_NET_BIND_TCP
#define LANDLOCK_ACCESS_NET_BIND_TCP (1ULL << 0)                 /* ABI 4, 6.7 */
#define LANDLOCK_ACCESS_NET_CONNECT_TCP (1ULL << 1)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)                /* ABI 5, 6.10 */
#endif
#ifndef LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
#define LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)          /* ABI 6, 6.12 */
#define LANDLOCK_SCOPE_SIGNAL (1ULL << 1)
#endif
#ifndef LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON
#define LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON (1U << 1)         /* ABI 7, 6.15 */
#define LANDLOCK_RESTRICT_SELF_LOG_SUBDOMAINS_OFF (1U << 2)
#endif
#ifndef LANDLOCK_ACCESS_FS_RESOLVE_UNIX
#define LANDLOCK_ACCESS_FS_RESOLVE_UNIX (1ULL << 16)             /* ABI 9, 7.1 */
#endif
#ifndef LANDLOCK_ACCESS_NET_BIND_UDP
#define LANDLOCK_ACCESS_NET_BIND_UDP (1ULL << 2)                 /* ABI 10, 7.2 */
#define LANDLOCK_ACCESS_NET_CONNECT_SEND_UDP (1ULL << 3)
#endif

/* struct landlock_ruleset_attr as of ABI 6; an older kernel takes it where what it does not know is zero. */
struct landlock_ruleset { uint64_t files, net, scoped; };

/* As fork for a single thread: the child has a copy of everything. Returns the child's pid, 0 in the child, or -1. */
static inline pid_t sys_clone3(struct clone_args *args)
{
  return (pid_t)syscall(SYS_clone3, args, sizeof *args);
}

static inline int sys_openat2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
  struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
  return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

static inline int sys_close_range(unsigned first, unsigned last)
{
  return (int)syscall(SYS_close_range, first, last, 0);
}

/* Descriptors of rulesets are close-on-exec by themselves. */
static inline int sys_landlock_create(const struct landlock_ruleset *ruleset)
{
  return (int)syscall(SYS_landlock_create_ruleset, ruleset, sizeof *ruleset, 0);
}

static inline int sys_landlock_allow(int ruleset, int place, uint64_t rights)
{
  const struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = place};
  return (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

static inline int sys_landlock_restrict(int ruleset, uint32_t flags)
{
  return (int)syscall(SYS_landlock_restrict_self, ruleset, flags);
}

/* Whether a mount of this number, one of STATX_MNT_ID_UNIQUE, is in the caller's mount namespace: 0, or -1 with ENOENT. */
static inline int sys_statmount(uint64_t id)
{
  const struct { uint32_t size, spare; uint64_t id, wanted; } asked = {.size = sizeof asked, .id = id};
  uint64_t answer[64];                                           /* of which nothing was wanted */
  return (int)syscall(SYS_statmount, &asked, answer, sizeof answer, 0);
}

static inline int sys_pivot_root(const char *new_root, const char *put_old)
{
  return (int)syscall(SYS_pivot_root, new_root, put_old);
}

#endif
