/* A unix socket that is listened at, by a path of any length: made, and its file removed again if it is still ours. */
#ifndef IMMURED_ADDRESS_H
#define IMMURED_ADDRESS_H

#include "error.h"

#include <limits.h>
#include <sys/types.h>

struct imd_address {
  int directory;                   /* -1: there is no file of ours */
  char name[NAME_MAX + 1];         /* of the socket, in its directory */
  dev_t device;
  ino_t inode;
};

/*
 * A listening socket of `type`, non-blocking, at `path` (absolute) with `mode`, whatever the umask; one left there is
 * replaced, anything else is not. `owner`: whose the file becomes. -1 with `err`.
 */
int imd_address_listen(struct imd_address *address, const char *path, int type, mode_t mode, uid_t owner,
                       struct imd_error *err);

/* Removes the file, if it is still the one that we made. */
void imd_address_leave(struct imd_address *address);

#endif
