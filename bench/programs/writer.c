/* writer FILE: writes 16 KiB there. Static: what a run that writes costs should be the run. */
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
  static char data[16384];
  const int fd = argc == 2 ? open(argv[1], O_WRONLY | O_CREAT | O_EXCL, 0600) : -1;
  return fd < 0 || write(fd, data, sizeof data) != sizeof data;
}
