/*
 * Cgroups of runs that are over while files of theirs are still in the page cache. Linux keeps a removed memory cgroup
 * for as long as one page is charged to it ("dying"): thousands of them slow reclaim and hold memory that nobody counts.
 * Emptying each at once would be as bad: a project's next run would read everything from the disk again. So the last
 * few stay, and the oldest is emptied (memory.reclaim, Linux 5.19) and removed when another needs its place.
 */
#ifndef IMMURED_REMAINS_H
#define IMMURED_REMAINS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Makes room for them, shared with every process forked from then on; `subtree` is the directory of our cgroups (-1:
 * none), by this number in those processes too. Without room, what remains is emptied at once.
 */
void remains_open(int subtree);

/*
 * The cgroup tenants/`tenant`/`name`, whose directory is `dir` and in which no process is left. True: it has files in
 * the page cache, stays, and is removed when it is the oldest. False: it is empty now, or as good, and the caller's.
 */
bool remains_keep(int dir, const char *tenant, const char *name);

/* `dir` has cgroups of execs beneath it: where many removed ones are still held by files in the page cache, they are emptied. */
void remains_trim(int dir);

#endif
