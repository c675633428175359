#define _GNU_SOURCE
#include "control.h"
#include "util.h"

#include <sys/socket.h>

int imd_control_open(struct imd_control *control, const char *path, uid_t uid, struct imd_error *err)
{
  control->uid = uid;
  control->socket = imd_address_listen(&control->address, path, SOCK_SEQPACKET, 0600, uid, err);
  return control->socket;
}

void imd_control_close(struct imd_control *control)
{
  if (control->socket < 0)
    return;
  imd_address_leave(&control->address);
  imd_drop(&control->socket, 1);
}

int imd_control_accept(const struct imd_control *control)
{
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  cleanup_dropped int broker = accept4(control->socket, NULL, NULL, SOCK_CLOEXEC);
  if (broker < 0)
    return -1;
  if (getsockopt(broker, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0 ||
      (credentials.uid != 0 && credentials.uid != control->uid)) {
    imd_log("a broker of uid %u is turned away", credentials.uid);
    return -1;
  }
  return imd_take_fd(&broker);
}
