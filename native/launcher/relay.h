/* Runs and sandboxes, between the broker's messages and the wardens': from IMD_PREPARE to IMD_FAILED or IMD_EXITED. */
#ifndef IMMURED_RELAY_H
#define IMMURED_RELAY_H

#include "launcher.h"

/*
 * The broker's messages, whole packets. PREPARE, CREATE and EXEC answer whatever is wrong by IMD_FAILED; -1 with a line
 * in the log means that the broker breaks the protocol. What is said of a sandbox or an exec that is over is dropped: its
 * end is told.
 */
int imd_run_prepare(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds); /* CREATE too */
int imd_run_kill(struct imd_launcher *launcher, const char *packet, size_t length);
int imd_exec_start(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds);
int imd_exec_kill(struct imd_launcher *launcher, const char *packet, size_t length);
int imd_exec_tell(struct imd_launcher *launcher, const char *packet, size_t length);     /* SIGNAL, RESIZE, CLOSE_STDIN */
int imd_sandbox_tell(struct imd_launcher *launcher, const char *packet, size_t length);  /* FREEZE, EXTEND, MEASURE */
int imd_sandbox_ask(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds);

/* Has somebody this number who is not over? Then with a line in the log. */
bool imd_number_is_used(const struct imd_launcher *launcher, uint64_t number);

/* How many sandboxes live that nobody ended, and their numbers. */
uint32_t imd_sandboxes_living(const struct imd_launcher *launcher, uint64_t *numbers, uint32_t space);

/* The broker is gone: runs end, and of a sandbox what is not kept. */
void imd_sandboxes_alone(struct imd_launcher *launcher);

/* A broker is there again: every keeper tells it what it has. */
void imd_sandboxes_again(struct imd_launcher *launcher);

/* They end, with what they keep. */
void imd_sandboxes_end(struct imd_launcher *launcher);

/* A warden's socket has something to read. True when a message was taken, so that there may be another. */
bool imd_run_warden_spoke(struct imd_launcher *launcher, struct imd_cell *cell);

/* Gives parked cells to runs that wait. */
void imd_run_serve_waiting(struct imd_launcher *launcher);

/* No cell can be made: every run that waits fails with the pool's reason. */
void imd_run_fail_waiting(struct imd_launcher *launcher);

/* The warden of this run (NULL: it had none) is gone. */
void imd_run_warden_gone(struct imd_launcher *launcher, struct imd_run *run, const struct imd_p_gone *gone);

/* The broker is gone: whoever waits is forgotten; the others go with their cells. */
void imd_run_forget_waiting(struct imd_launcher *launcher);

#endif
