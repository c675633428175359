/* sendmsg as the launcher knows it; and whoever announced a connection by it stops there, until somebody sends SIGCONT. */
#include "protocol.h"

#include <signal.h>
#include <sys/socket.h>

ssize_t __real_sendmsg(int socket, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags);

ssize_t __wrap_sendmsg(int socket, const struct msghdr *message, int flags)
{
  const ssize_t sent = __real_sendmsg(socket, message, flags);
  const struct imd_header *header = message->msg_iov[0].iov_base;
  if (sent > 0 && header->type == IMD_CONN)
    raise(SIGSTOP);
  return sent;
}
