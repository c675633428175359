/* As many refused calls as said: `unshare` (by the filter) or a write to PATH (by the mount), or an allowed write. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* unshare | PATH, COUNT [vary]: prints how many got through, and how many failed otherwise than they should. */
int main(int argc, char **argv)
{
  long through = 0, wrong = 0;
  if (argc < 3)
    return 2;
  for (long i = 0, count = atol(argv[2]); i < count; i++) {
    char name[256];
    int result, expected = EROFS;
    if (strcmp(argv[1], "unshare") == 0) {
      result = unshare(CLONE_NEWNS);
      expected = EPERM;
    } else {
      if (argc > 3)
        snprintf(name, sizeof name, "%s/%ld", argv[1], i);
      result = open(argc > 3 ? name : argv[1], O_WRONLY | O_CREAT, 0600);
      if (result >= 0)
        close(result);
    }
    if (result >= 0)
      through++;
    else if (errno != expected)
      wrong++;
  }
  printf("%ld %ld\n", through, wrong);
  return 0;
}
