/* Runs, between the broker's messages and the wardens': from IMD_PREPARE to IMD_FAILED or IMD_EXITED. */
#ifndef IMMURED_RELAY_H
#define IMMURED_RELAY_H

#include "launcher.h"

/*
 * The broker's messages, whole packets. IMD_PREPARE answers whatever is wrong with a run by IMD_FAILED; -1 with a line
 * in the log means that the broker breaks the protocol.
 */
int imd_run_prepare(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds);
int imd_run_kill(struct imd_launcher *launcher, const char *packet, size_t length);

/* A warden's socket has something to read. True when a message was taken, so that there may be another. */
bool imd_run_warden_spoke(struct imd_launcher *launcher, struct imd_cell *cell);

/* Gives parked cells to runs that wait. */
void imd_run_serve_waiting(struct imd_launcher *launcher);

/* No cell can be made: every run that waits fails with the pool's reason. */
void imd_run_fail_waiting(struct imd_launcher *launcher);

/* The warden of this run (NULL: it had none) is gone. */
void imd_run_warden_gone(struct imd_launcher *launcher, struct imd_run *run, const struct imd_p_gone *gone);

/* The broker is gone: runs that wait are forgotten; the others go with their cells. */
void imd_run_forget_waiting(struct imd_launcher *launcher);

#endif
