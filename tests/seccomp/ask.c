/*
 * Asks the kernel what a filter says to each of many calls. Two file descriptors: 3 is memory to share, 4 the program.
 * The memory holds a count, then rows of a number, six arguments and room for the answer: the errno.
 * The filter allows nothing (the test has made its allowances into errors), so that no call does anything; that is also
 * why the only way out is a trap.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SAID_DONE = 5000 };         /* errno:0: not done, and said to be */

struct row { int64_t number; uint64_t argument[6], answer; };
struct table { uint64_t rows; struct row row[]; };

int main(void)
{
  struct stat program, memory;
  if (fstat(4, &program) || fstat(3, &memory))
    return 1;
  struct sock_filter *code = mmap(NULL, (size_t)program.st_size, PROT_READ, MAP_PRIVATE, 4, 0);
  struct table *table = mmap(NULL, (size_t)memory.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
  struct sock_fprog filter = { (unsigned short)(program.st_size / (off_t)sizeof *code), code };
  if (code == MAP_FAILED || table == MAP_FAILED)
    return 2;
  struct rlimit none = { 0, 0 };
  if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    return 3;
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter))
    return 4;
  for (uint64_t i = 0; i < table->rows; i++) {
    struct row *r = &table->row[i];
    const uint64_t *a = r->argument;
    long answer = syscall(r->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    r->answer = answer == -1 ? (uint64_t)errno : answer == 0 ? SAID_DONE : UINT64_MAX;
  }
  __builtin_trap();
}
