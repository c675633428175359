#define _GNU_SOURCE
#include "clerk_rights.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the clerks' filter knows x86_64 and aarch64"
#endif

static const uint32_t always[] = {
    SYS_read, SYS_write, SYS_close, SYS_fcntl, SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_madvise, SYS_mprotect,
    SYS_futex, SYS_getrandom, SYS_clock_gettime, SYS_getpid, SYS_gettid, SYS_prctl, SYS_rt_sigreturn, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_restart_syscall, SYS_exit, SYS_exit_group,
    SYS_sysinfo,                   /* how much a C library's qsort may take */
#ifdef __SANITIZE_ADDRESS__        /* of the sanitizers' own, in builds for tests */
    SYS_sigaltstack,
#endif
};
enum { ALWAYS = sizeof always / sizeof always[0], MOST = 128 };

int clerk_capabilities(uint64_t permitted, uint64_t effective)
{
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {
      {.permitted = (uint32_t)permitted, .effective = (uint32_t)effective},
      {.permitted = (uint32_t)(permitted >> 32), .effective = (uint32_t)(effective >> 32)},
  };
  return (int)syscall(SYS_capset, &header, data);
}

int clerk_filter(const uint32_t *calls, size_t count)
{
  struct sock_filter program[MOST + 7];
  uint16_t at = 0;
  const size_t all = ALWAYS + count;
  if (all > MOST) {
    errno = E2BIG;
    return -1;
  }
  program[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCHITECTURE, 1, 0);
  program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  program[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (size_t i = 0; i < all; i++)
    program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                 i < count ? calls[i] : always[i - count], (uint8_t)(all - i), 0);
  program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const struct sock_fprog filter = {.len = at, .filter = program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return -1;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) < 0 ? -1 : 0;
}
