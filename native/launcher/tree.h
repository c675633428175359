/*
 * A copy of a tree of strangers' files: bounded, following nothing, and whole or not at all as far as the caller removes what
 * a failure left. Hard links stay links, holes stay holes; setuid and setgid bits do not stay. Sockets are counted, not copied.
 */
#ifndef IMMURED_TREE_H
#define IMMURED_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct tree_copy {
  uid_t uid;                       /* whose all of the copy is: it is written by somebody with no more rights than that */
  gid_t gid;
  bool layer;                      /* an overlay's upper directory: what it says of the lower one is kept */
  uint64_t max_bytes, max_files;   /* EDQUOT beyond */
  int links;                       /* an empty directory beside the copy, for hard links: emptied again */
  uint64_t bytes, files, skipped;  /* so far: bytes that files hold, entries of any kind, sockets */
  char where[256];                 /* what it failed at */
};

/*
 * What lies in the directory `from` into the empty directory `to`, and `from`'s own mode and times. The caller is host root, or
 * that `uid` and `gid` with the right to read all (CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN).
 * Stays in the mount of `from`, with a few descriptors, and refuses directories nested more than 1,000 deep (ENAMETOOLONG). Nobody
 * should be at work in either; who is makes it fail, or the copy one of several moments. -1 with errno.
 */
int tree_copy(int from, int to, struct tree_copy *copy);

/*
 * The same of an overlay's upper directory `upper` and of the layer `below` it, as one such layer above `base`, which lies below
 * both and holds no whiteouts. A whiteout stays where `base` has the name, and nowhere else: in a directory that is merged with
 * nothing overlayfs would list it.
 */
int tree_merge(int upper, int below, int base, int to, struct tree_copy *copy);

#endif
