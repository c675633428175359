/*
 * A sandbox's keeper: what its warden becomes once its plan is applied. It watches over a cell in which nothing runs but what
 * comes and goes: execs, each with a warden that it forks (exec.h), and clerks (clerk.h).
 */
#ifndef IMMURED_KEEPER_H
#define IMMURED_KEEPER_H

#include "ending.h"
#include "order.h"

/*
 * `order` is an IMD_W_CREATE, and stays unchanged. Says CREATED to the broker and IMD_W_CREATED to the launcher, and from then
 * on does what they ask; or FAILED. It ends by KILL, with its time to live, its PID 1, or the host's doings (IMD_UNCOVERED): then
 * every exec's end is told first, then EXITED with the figures of all of it; or at the end of the launcher's socket, without a
 * word.
 */
_Noreturn void keeper_serve(struct warden *warden, struct order *order);

#endif
