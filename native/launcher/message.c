#define _GNU_SOURCE
#include "message.h"
#include "util.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* The most that a packet carries, the kernel's SCM_MAX_FD: what found no room here the kernel would close, and wait for. */
enum { MOST_PASSED = 253 };

union descriptors {
  struct cmsghdr align;
  char space[CMSG_SPACE(sizeof(int) * MOST_PASSED)];
};

void imd_fds_close(struct imd_fds *fds)
{
  for (uint32_t i = 0; i < fds->count; i++)
    imd_close(&fds->fd[i]);
  fds->count = 0;
}

void imd_fds_drop(struct imd_fds *fds)
{
  imd_drop(fds->fd, fds->count);
  fds->count = 0;
}

int imd_send_packet(int socket, uint32_t type, uint64_t id, const struct iovec *body, size_t pieces, const int *fds,
                    uint32_t nfds, int flags)
{
  struct iovec iov[8];
  struct imd_header header = {.type = type, .length = sizeof header, .id = id};
  if (pieces > 7 || nfds > IMD_MAX_FDS) {
    errno = EINVAL;
    return -1;
  }
  iov[0] = (struct iovec){&header, sizeof header};
  for (size_t i = 0; i < pieces; i++) {
    iov[i + 1] = body[i];
    header.length += (uint32_t)body[i].iov_len;
  }
  struct msghdr message = {.msg_iov = iov, .msg_iovlen = pieces + 1};

  union descriptors control;
  if (nfds > 0) {
    memset(&control, 0, CMSG_SPACE(sizeof(int) * nfds));
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
    memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nfds);
  }

  ssize_t sent;
  do
    sent = sendmsg(socket, &message, flags | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -1 : 0;
}

int imd_forward_packet(int socket, const void *packet, size_t size, const int *fds, uint32_t nfds, int flags)
{
  struct imd_header header;
  memcpy(&header, packet, sizeof header);
  const struct iovec body = {(char *)(uintptr_t)packet + sizeof header, size - sizeof header};
  return imd_send_packet(socket, header.type, header.id, &body, body.iov_len > 0 ? 1 : 0, fds, nfds, flags);
}

int imd_send_message(int socket, uint32_t type, uint64_t id, const void *body, size_t size, int flags)
{
  const struct iovec piece = {(void *)(uintptr_t)body, size};
  return imd_send_packet(socket, type, id, &piece, size > 0 ? 1 : 0, NULL, 0, flags);
}

ssize_t imd_recv_packet(int socket, void *buffer, size_t size, struct imd_fds *fds, int flags)
{
  union descriptors control;
  struct iovec iov = {buffer, size};
  struct msghdr message = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

  fds->count = 0;
  ssize_t got;
  do
    got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  while (got < 0 && (errno == EINTR || errno == ECONNRESET));
  if (got < 0)
    return -1;

  int beyond[MOST_PASSED];
  size_t too_many = 0;
  for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message); cmsg; cmsg = CMSG_NXTHDR(&message, cmsg)) {
    if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
      continue;
    const size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
      if (fds->count < IMD_MAX_FDS)
        fds->fd[fds->count++] = fd;
      else
        beyond[too_many++] = fd;
    }
  }
  imd_drop(beyond, too_many);
  if (too_many > 0 || (message.msg_flags & MSG_CTRUNC))
    imd_fds_drop(fds);
  if (got == 0)
    return 0;

  const struct imd_header *header = buffer;
  if ((message.msg_flags & MSG_TRUNC) || (size_t)got < sizeof *header || header->length != (size_t)got) {
    imd_fds_drop(fds);
    errno = EBADMSG;
    return -1;
  }
  return got;
}
