#define _GNU_SOURCE
#include "notify.h"
#include "util.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

void imd_notify(const char *state)
{
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path)
    return;
  const size_t length = strlen(path);
  memcpy(address.sun_path, path, length);
  if (path[0] == '@')
    address.sun_path[0] = '\0';
  cleanup_fd int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (sock >= 0)
    (void)!sendto(sock, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
}

uint64_t imd_notify_interval(void)
{
  const char *text = getenv("WATCHDOG_USEC");
  char *end;
  if (!text || text[0] < '0' || text[0] > '9')
    return 0;
  errno = 0;
  const unsigned long long allowed = strtoull(text, &end, 10);
  return errno == 0 && *end == '\0' && allowed < UINT64_MAX / 1000 ? allowed * 1000 / 2 : 0;
}
