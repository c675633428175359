#include "link.h"

#include "envelope.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>

#define LOOK "look whether the daemon runs: immure status"

/* Room for the largest frame and for what came along behind it. It is touched only as far as it is used. */
static uint8_t incoming[IMC_HEADER + IMC_MAX_FRAME + 65536];
static uint8_t outgoing[IMC_HEADER + IMC_MAX_FRAME + 2 * 65536];

void imc_link_begin(struct imc_link *link)
{
  *link = (struct imc_link){.fd = -1, .out = {.at = outgoing, .room = sizeof outgoing}};
}

int imc_link_connect(struct imc_link *link, const struct sockaddr_un *address, struct imc_error *err)
{
  link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (link->fd < 0)
    return 1;
  /* Where the backlog is full, connect waits for room: within this bound. All else here is said not to wait. */
  const struct timeval bound = {.tv_sec = IMC_HELLO_MS / 1000};
  setsockopt(link->fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound);
  if (connect(link->fd, (const struct sockaddr *)address, sizeof *address) == 0)
    return 0;
  if (errno != EAGAIN)
    return 1;
  return imc_fail(err, "connection_lost", LOOK, "%s: no connection within %d s", address->sun_path,
                  IMC_HELLO_MS / 1000);
}

void imc_link_send(struct imc_link *link)
{
  while (imc_link_has_to_send(link)) {
    const ssize_t sent =
        send(link->fd, link->out.at + link->sent, link->out.size - link->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0)
      link->sent += (size_t)sent;
    else if (errno == EAGAIN)
      return;
    else if (errno != EINTR)
      link->unheard = true;        /* what it said before it left is the better reason, and is still to be read */
  }
  link->out.size = link->sent = 0;
}

int imc_link_receive(struct imc_link *link, struct imc_error *err)
{
  if (link->begin > 0) {
    memmove(incoming, incoming + link->begin, link->end - link->begin);
    link->end -= link->begin;
    link->begin = 0;
  }
  /* Plain recv: descriptors that come along, against the protocol, are closed by the kernel. */
  const ssize_t got = recv(link->fd, incoming + link->end, sizeof incoming - link->end, MSG_DONTWAIT);
  if (got > 0) {
    link->end += (size_t)got;
    return 0;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR))
    return 0;
  if (got < 0)
    return imc_fail(err, "connection_lost", LOOK, "the connection broke: %s", strerrordesc_np(errno));
  return imc_fail(err, "connection_lost", LOOK, "the daemon closed the connection%s",
                  link->end > 0 ? " inside a frame" : "");
}

int imc_link_frame(struct imc_link *link, struct imc_bytes *body, struct imc_error *err)
{
  const uint8_t *const at = incoming + link->begin;
  const size_t there = link->end - link->begin;
  if (there < IMC_HEADER)
    return 0;
  const uint32_t size = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
  if (size == 0)
    return imc_fail(err, "connection_lost", LOOK, "the daemon sent no frame: a frame of no bytes");
  if (size > IMC_MAX_FRAME)
    return imc_fail(err, "connection_lost", LOOK, "the daemon sent no frame: a frame of %u bytes; the limit is %d",
                    size, IMC_MAX_FRAME);
  if (there - IMC_HEADER < size)
    return 0;
  *body = (struct imc_bytes){at + IMC_HEADER, size};
  link->begin += IMC_HEADER + (size_t)size;
  return 1;
}
