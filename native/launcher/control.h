/* Where a broker finds a launcher that lives on: a SEQPACKET socket that only its user may open. */
#ifndef IMMURED_CONTROL_H
#define IMMURED_CONTROL_H

#include "address.h"
#include "error.h"

#include <sys/types.h>

struct imd_control {
  int socket;                      /* -1: there is none */
  uid_t uid;                       /* the broker's; root may come too */
  struct imd_address address;
};

/* `path`, mode 0600, becomes `uid`'s. */
int imd_control_open(struct imd_control *control, const char *path, uid_t uid, struct imd_error *err);
void imd_control_close(struct imd_control *control);

/*
 * A broker that came: its socket, which is the caller's. -1: nobody waits, or one was turned away who is neither root nor
 * the broker's user (a mode of a file is checked when it is opened; who may have handed the socket on since shows here).
 */
int imd_control_accept(const struct imd_control *control);

#endif
