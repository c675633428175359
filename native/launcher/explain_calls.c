#define _GNU_SOURCE
#include "explain_calls.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/syscall.h>

/* Newer than the oldest headers; from 424 up every architecture numbers alike. */
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#endif
#ifndef SYS_removexattrat
#define SYS_removexattrat 466
#endif
#ifndef SYS_file_setattr
#define SYS_file_setattr 469
#endif

#define NONE NO_ARGUMENT
#define CALL(name, what, d, p, ...) \
  {.number = SYS_##name, .effect = EFFECT_##what, .dir = (d), .path = (p), .flags = NONE, .dir2 = NONE, .path2 = NONE, \
   ##__VA_ARGS__}

_Pragma("GCC diagnostic push")
_Pragma("GCC diagnostic ignored \"-Woverride-init\"")
#ifdef __clang__
_Pragma("clang diagnostic ignored \"-Winitializer-overrides\"")
#endif

static const struct call_shape shapes[] = {
    CALL(openat, OPEN, 0, 1, .flags = 2, .nofollow = O_NOFOLLOW),
    CALL(mkdirat, MAKE, 0, 1),
    CALL(mknodat, MAKE, 0, 1),
    CALL(symlinkat, MAKE, 1, 2),
    CALL(linkat, MAKE, 2, 3),
    CALL(unlinkat, REMOVE, 0, 1),
    CALL(renameat2, RENAME, 0, 1, .dir2 = 2, .path2 = 3),
    CALL(truncate, CHANGE, NONE, 0),
    CALL(ftruncate, CHANGE, 0, NONE),
    CALL(fchmod, CHANGE, 0, NONE),
    CALL(fchmodat, CHANGE, 0, 1),
    CALL(fchmodat2, CHANGE, 0, 1, .flags = 3, .nofollow = AT_SYMLINK_NOFOLLOW),
    CALL(fchown, CHANGE, 0, NONE),
    CALL(fchownat, CHANGE, 0, 1, .flags = 4, .nofollow = AT_SYMLINK_NOFOLLOW),
    CALL(utimensat, CHANGE, 0, 1, .flags = 3, .nofollow = AT_SYMLINK_NOFOLLOW),
    CALL(setxattr, CHANGE, NONE, 0),
    CALL(lsetxattr, CHANGE, NONE, 0, .nofollow = -1),
    CALL(fsetxattr, CHANGE, 0, NONE),
    CALL(setxattrat, CHANGE, 0, 1, .flags = 2, .nofollow = AT_SYMLINK_NOFOLLOW),
    CALL(removexattr, CHANGE, NONE, 0),
    CALL(lremovexattr, CHANGE, NONE, 0, .nofollow = -1),
    CALL(fremovexattr, CHANGE, 0, NONE),
    CALL(removexattrat, CHANGE, 0, 1, .flags = 2, .nofollow = AT_SYMLINK_NOFOLLOW),
    CALL(file_setattr, CHANGE, 0, 1, .flags = 4, .nofollow = AT_SYMLINK_NOFOLLOW),
    CALL(connect, CONNECT, NONE, 1),
    CALL(sendto, CONNECT, NONE, 4),
    CALL(bind, BIND, NONE, 1),
    CALL(newfstatat, LOOK, 0, 1),
    CALL(statx, LOOK, 0, 1),
    CALL(faccessat, LOOK, 0, 1),
    CALL(faccessat2, LOOK, 0, 1),
    CALL(readlinkat, LOOK, 0, 1),
    CALL(statfs, LOOK, NONE, 0),
    CALL(chdir, LOOK, NONE, 0),
    CALL(execve, EXEC, NONE, 0),
    CALL(execveat, EXEC, 0, 1),
#ifdef SYS_renameat
    CALL(renameat, RENAME, 0, 1, .dir2 = 2, .path2 = 3),
#endif
#ifdef SYS_open                    /* x86_64's older calls, which newer architectures lack */
    CALL(stat, LOOK, NONE, 0),
    CALL(lstat, LOOK, NONE, 0),
    CALL(access, LOOK, NONE, 0),
    CALL(readlink, LOOK, NONE, 0),
    CALL(open, OPEN, NONE, 0, .flags = 1, .nofollow = O_NOFOLLOW),
    CALL(creat, OPEN, NONE, 0, .open_flags = O_CREAT | O_WRONLY | O_TRUNC),
    CALL(mkdir, MAKE, NONE, 0),
    CALL(mknod, MAKE, NONE, 0),
    CALL(symlink, MAKE, NONE, 1),
    CALL(link, MAKE, NONE, 1),
    CALL(unlink, REMOVE, NONE, 0),
    CALL(rmdir, REMOVE, NONE, 0),
    CALL(rename, RENAME, NONE, 0, .path2 = 1),
    CALL(chmod, CHANGE, NONE, 0),
    CALL(chown, CHANGE, NONE, 0),
    CALL(lchown, CHANGE, NONE, 0, .nofollow = -1),
    CALL(utime, CHANGE, NONE, 0),
    CALL(utimes, CHANGE, NONE, 0),
    CALL(futimesat, CHANGE, 0, 1),
#endif
};
_Pragma("GCC diagnostic pop")

const struct call_shape *explain_shape(int number)
{
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
    if (shapes[i].number == number)
      return &shapes[i];
  return NULL;
}
