/*
 * Which mounts a plan made, so that when one of the cell's goes it can be told whether it was one of those
 * (docs/isolation.md, "When a mount goes"). By the numbers that the kernel never gives a second time, which it has
 * since Linux 6.8; before, nothing can be told, and nobody is to rely on it.
 */
#ifndef IMMURED_COVERS_H
#define IMMURED_COVERS_H

#include <stdint.h>

enum { MAX_COVERS = 4000 };

struct covers {
  uint64_t *ids;                   /* NULL: it cannot be told */
  uint32_t count;
};

enum covered { COVERED, UNCOVERED, CANNOT_TELL };

/* From here to covers_end what this process and its children attach is noted. Without memory for it, it cannot be told. */
void covers_begin(void);
void covers_end(struct covers *covers);

/* The mount that `fd` is in is one without which the plan is not what it was. Between covers_begin and covers_end. */
void covers_note(int fd);

/* In the cell's mount namespace: does each of them stand there? In the time of a system call each. */
enum covered covers_look(const struct covers *covers);

#endif
