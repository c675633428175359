/*
 * What is executed, opened once: by the payload's own process, with its rights and in its root, after every wall but the filter. It
 * is what was digested, and by its descriptor it is what runs, whatever its name means by then. Names are opened again by an
 * interpreter alone, of its script: that the name is the same file's is looked at after GO, and at nothing later.
 */
#ifndef IMMURED_PIN_H
#define IMMURED_PIN_H

#include "error.h"
#include "protocol.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct pin {
  int fd;                          /* of the payload's process, close-on-exec */
  bool local;                      /* in a file system that answers without asking anybody else */
  bool leasable;                   /* in a file system whose leases are this kernel's own */
  bool fixed;                      /* the warden's word: nobody but root can change it */
  bool held;                       /* by a lease: who opens it to write waits until it is executed */
  bool settled;                    /* when that was read, its times were so old that no change since can have left them */
  dev_t device;
  ino_t inode;
  uint64_t size;
  uint8_t sha256[32];              /* of one that is not fixed */
  struct timespec modified, changed;   /* when that was read */
  char path[PATH_MAX + NAME_MAX];  /* as it was looked up: perhaps relative */
  char argument[IMD_MAX_SHEBANG];  /* which the script before it gives it; empty: none */
};

/* Shared by the payload's process with its warden, until it executes. */
struct pins { uint32_t count; struct pin at[IMD_MAX_PINNED]; };

/* NULL with errno. */
struct pins *pins_make(void);

/*
 * argv[0], looked up as execvp does (`path` is PATH), and its interpreters, as the kernel reads `#!`; descriptors from
 * `first` on. Fails with
 * IMD_STAGE_EXEC where execve would, and IMD_STAGE_PIN where it would not, and cannot be pinned.
 */
int pins_open(struct pins *pins, int first, const char *name, const char *path, struct imd_error *err);

/* Reads those that are not fixed, and holds them as they are, as far as the kernel can be asked for that. */
int pins_digest(struct pins *pins, struct imd_error *err);

/* What the last of them is given, before `argv`'s own from the second on; NULL with errno. The caller's to free. */
char **pins_argv(const struct pins *pins, char *const *argv);

/* After GO. Returns only what went wrong. */
void pins_execute(struct pins *pins, char *const *argv, char *const *envp, struct imd_error *err);

#endif
