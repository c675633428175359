/* ONE OTHER...: exchanges the two names of each pair, over and over, until it is killed. As the owner of a bound directory could. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>

int main(int argc, char **argv)
{
  for (;;)
    for (int i = 1; i + 1 < argc; i += 2)
      renameat2(AT_FDCWD, argv[i], AT_FDCWD, argv[i + 1], RENAME_EXCHANGE);
}
