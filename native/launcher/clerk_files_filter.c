/*
 * The clerk reads what strangers wrote: names, archives. It can be the payload at most, and here it loses what a payload's
 * own filter would not let it do either, and all that files do not need.
 */
#define _GNU_SOURCE
#include "clerk_files.h"
#include "clerk_rights.h"

#include <sys/syscall.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static const uint32_t calls[] = {
    SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_recvmsg, SYS_sendmsg, SYS_openat, SYS_openat2, SYS_newfstatat, SYS_fstat,
    SYS_statx, SYS_statfs, SYS_fstatfs, SYS_readlinkat, SYS_getdents64, SYS_mkdirat, SYS_mknodat, SYS_unlinkat,
    SYS_symlinkat, SYS_linkat, SYS_renameat2, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2, SYS_utimensat, SYS_ftruncate,
    SYS_fallocate,
#ifdef SYS_renameat
    SYS_renameat,                  /* what the C library makes of renameat2 without a flag */
#endif
};

int files_restrict(void)
{
  return clerk_filter(calls, sizeof calls / sizeof calls[0]);
}
