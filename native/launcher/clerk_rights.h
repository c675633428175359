/*
 * What a clerk lets go of before it looks at what strangers wrote: capabilities, and every system call but those of a list.
 * None needs a program to be executed, a socket, or a process.
 */
#ifndef IMMURED_CLERK_RIGHTS_H
#define IMMURED_CLERK_RIGHTS_H

#include <stddef.h>
#include <stdint.h>

#define CLERK_CAP(name) (1ull << (name))

/* Exactly these; what is not among `permitted` does not come back. Inheritable and ambient: none. -1 with errno. */
int clerk_capabilities(uint64_t permitted, uint64_t effective);

/*
 * From now on `calls`, and what memory, clocks and an orderly end need; anything else kills the clerk. For good, and after
 * no_new_privs, which it sets. -1 with errno.
 */
int clerk_filter(const uint32_t *calls, size_t count);

#endif
