#define _GNU_SOURCE
#include "loopback.h"
#include "protocol.h"
#include "util.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* With its address goes its route: a connection fails at once, and does not wait for an answer that cannot come. */
static int forget_address(int fd)
{
  struct ifreq request = {.ifr_name = "lo", .ifr_addr.sa_family = AF_INET};
  return ioctl(fd, SIOCSIFADDR, &request) < 0 && errno != EADDRNOTAVAIL ? -1 : 0;
}

int loopback_set(bool up, struct imd_error *err)
{
  struct ifreq request = {.ifr_name = "lo"};
  cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0 || (!up && forget_address(fd) < 0))
    return imd_fail(err, IMD_STAGE_NETWORK, errno, "lo");
  const short flags = up ? IFF_UP | IFF_RUNNING : 0;
  request.ifr_flags = (short)((request.ifr_flags & ~(IFF_UP | IFF_RUNNING)) | flags);
  return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? imd_fail(err, IMD_STAGE_NETWORK, errno, "lo") : 0;
}
