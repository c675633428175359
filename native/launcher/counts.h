/* How many payloads were let go, counted where that happens and outside of every ledger: in a page that the launcher shares
   with all that it forks, and passes on to the launcher that it becomes. */
#ifndef IMMURED_COUNTS_H
#define IMMURED_COUNTS_H

#include <stdint.h>

struct imd_counts;                 /* protocol.h */

/* The page, from now on in every process that is forked from this one. `memfd`: of the launcher that this was, -1: there
   was none. Its descriptor, -1 with errno. Where it was not called, nothing is counted. */
int counts_open(int memfd);

/* By the payload's own process: GO came, and exec follows; there was no exec after all. */
void counts_started(void);
void counts_undone(void);

void counts_read(struct imd_counts *counts);

#endif
