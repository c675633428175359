/* The connection: frames in, bytes out. It never waits; `imc_link_connect` alone does, within a bound. */
#ifndef IMMURE_LINK_H
#define IMMURE_LINK_H

#include "bytes.h"
#include "pack.h"

#include <sys/un.h>

/* A daemon says hello as soon as it accepts. Who has not heard it for so long speaks to something else. */
enum { IMC_HELLO_MS = 10000 };

struct imc_link {
  int fd;
  struct imc_pack out;             /* frames to send; `sent` of it are */
  size_t sent;
  bool unheard;                    /* the daemon takes no more: what is sent from here on is for nobody */
  size_t begin, end;               /* what was received and not yet taken */
};

/* Begins with nothing to send and no connection. */
void imc_link_begin(struct imc_link *link);

/* Connects. 0; 1: nobody listens, or there is no such socket (errno); -1: an error. */
int imc_link_connect(struct imc_link *link, const struct sockaddr_un *address, struct imc_error *err);

/* Sends as much of `out` as goes. */
void imc_link_send(struct imc_link *link);

static inline bool imc_link_has_to_send(const struct imc_link *link)
{
  return !link->unheard && link->sent < link->out.size;
}

/* Receives what is there. -1: the connection is over; what came before is in `imc_link_frame` still. */
int imc_link_receive(struct imc_link *link, struct imc_error *err);

/* The next whole frame's body, valid up to the next receive. 1: one; 0: none yet; -1: what came is no frame. */
int imc_link_frame(struct imc_link *link, struct imc_bytes *body, struct imc_error *err);

#endif
