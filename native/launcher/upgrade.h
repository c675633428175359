/*
 * The launcher becomes a newer one without an end: it executes its own file anew, as the same process, with its sockets and
 * children, and what it knew in a memfd. Cells go on with the parker that made them, until the last of those is gone; new
 * ones come of a new parker.
 */
#ifndef IMMURED_UPGRADE_H
#define IMMURED_UPGRADE_H

#include "launcher.h"

/* SIGHUP came. Nothing is read or begun until it is done, or given up. */
void imd_upgrade_begin(struct imd_launcher *launcher);

/* As soon as nothing is under way. It does not return where it succeeds; the log says why it did not. */
void imd_upgrade_tend(struct imd_launcher *launcher);
uint64_t imd_upgrade_wake(const struct imd_launcher *launcher);

/* `--takes-over N`: whether this program reads a state of that number. The exit status. */
int imd_upgrade_takes_over(uint32_t number);

/*
 * In the new image, before anything is opened: what the old one wrote. Every descriptor in it is taken, close-on-exec.
 * NULL with a line in the log.
 */
struct imd_inherited;
struct imd_inherited *imd_upgrade_read(int memfd);

struct imd_kept_head;
const struct imd_kept_head *imd_upgrade_head(const struct imd_inherited *inherited);

/* After the pool was opened; the state is freed. */
int imd_upgrade_restore(struct imd_launcher *launcher, struct imd_inherited *inherited);

#endif
