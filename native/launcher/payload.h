/* The payload's first process, from clone3 in its cgroup and pid namespace to execve. */
#ifndef IMMURED_PAYLOAD_H
#define IMMURED_PAYLOAD_H

#include "cell.h"
#include "cgroup.h"
#include "error.h"
#include "pin.h"
#include "run.h"

#include <stdatomic.h>

enum birth_stage {
  BIRTH_PREPARING,
  BIRTH_WAITING,                   /* for GO, every step taken, the filter too */
  BIRTH_CALLED_OFF,                /* GO never came */
  BIRTH_STARTED,                   /* GO came: `started` is when, and exec follows */
  BIRTH_FAILED,                    /* `err` says why there was no exec */
};

/*
 * How far the payload's process is: memory that it shares with the warden until it executes. So nobody is woken on the
 * way, and no filter is in the way of what it has to say.
 */
struct birth {
  _Atomic uint32_t stage;          /* enum birth_stage */
  uint64_t started;                /* imd_now_ns */
  int listener;                    /* its descriptor, of an explained filter; said on cell->explain.payload_channel */
  _Atomic uint32_t taken;          /* the warden and PID 1 have it */
  struct imd_error err;
};

struct payload {
  pid_t pid;
  int pidfd;
  struct birth *birth;             /* NULL: no process was made; an exec's keeper makes it beforehand, and looks at it too */
  struct pins *pins;               /* of a plan with PIN; else NULL */
};

#define PAYLOAD_NONE {.pid = -1, .pidfd = -1, .birth = NULL, .pins = NULL}

/* NULL with errno. */
struct birth *payload_birth(void);

/*
 * Makes the process, which takes every step of the plan but the last: born in its cgroup, with the payload's identity,
 * in its working directory, without capabilities, under its filter, it waits at run->go and executes.
 */
int payload_start(struct payload *payload, const struct cell *cell, const struct cgroup *cgroup,
                  const struct run *run, struct imd_error *err);

static inline enum birth_stage payload_stage(const struct payload *payload)
{
  return payload->birth ? (enum birth_stage)atomic_load(&payload->birth->stage) : BIRTH_PREPARING;
}

/* What the payload's process says on cell->explain.payload_channel, and hears there. */
enum payload_word {
  PAYLOAD_PINS = 'p',              /* its pins are open; answered by the same word once they are classified */
  PAYLOAD_READY = 'l',             /* it waits for GO; of an explained one its listener is there, and the answer is 't' */
};

/* Of a dead process that never started: why. */
void payload_failure(const struct payload *payload, struct imd_error *err);

#endif
