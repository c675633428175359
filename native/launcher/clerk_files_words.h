/*
 * What the broker and the clerk for files say to each other: a packet asked (struct imd_header, its type an enum
 * imd_files_op; struct imd_files_ask; the bytes of `first`, then of `second`), a packet answered, in turn. The Python side
 * takes the numbers from here, as it does those of protocol.h.
 *
 * Paths are a sandbox's own, absolute, of any bytes but NUL; none leads through `..`. What is long flows through a pipe that
 * the broker made and of which one end comes as a descriptor.
 */
#ifndef IMMURED_CLERK_FILES_WORDS_H
#define IMMURED_CLERK_FILES_WORDS_H

#include <stdint.h>

enum {
  IMD_FILES_MAX_PATH = 4095,       /* bytes; the kernel's own bound */
  IMD_FILES_MAX_DEPTH = 512,       /* directories below each other, where a whole tree is read */
  IMD_FILES_MAX_ENTRIES = 1 << 20, /* of a tree or an archive */
  IMD_FILES_MAX_FOUND = 768 << 10, /* bytes of all rows of a GLOB */
  IMD_FILES_BODY = 60 << 10,       /* bytes of rows in one answer */
};

enum imd_files_op {
  IMD_FILES_STAT = 1,              /* path | one row */
  IMD_FILES_LIST,                  /* path, number[0] where to go on (0: at the start), number[1] rows at most
                                      | rows; with MORE number[0] where to go on */
  IMD_FILES_MKDIR,                 /* path, mode */
  IMD_FILES_MOVE,                  /* path, second: where to */
  IMD_FILES_REMOVE,                /* path | MORE: not all yet, ask again */
  IMD_FILES_CHMOD,                 /* path, mode */
  IMD_FILES_GLOB,                  /* pattern, number[1] rows at most | rows; MORE: FOUND has more of them */
  IMD_FILES_FOUND,
  IMD_FILES_GET,                   /* path, number[0] bytes at most | one row; LOCAL: a descriptor to read it */
  IMD_FILES_POUR,                  /* a pipe to be written to: the file that GET opened */
  IMD_FILES_PUT,                   /* path, mode | LOCAL: a descriptor to write to */
  IMD_FILES_FILL,                  /* a pipe to be read: what PUT is to hold; number[0] bytes at most */
  IMD_FILES_RESERVE,               /* number[0] from, number[1] bytes: of the file that PUT made */
  IMD_FILES_COMMIT,                /* number[0] its length: it gets its name | one row */
  IMD_FILES_ARCHIVE,               /* path, number[0] bytes at most; a pipe to be written to */
  IMD_FILES_EXTRACT,               /* path, number[0] bytes at most; a pipe to be read */
  IMD_FILES_DONE,                  /* what POUR, FILL, ARCHIVE or EXTRACT came to | number[0] bytes of contents, [1] entries,
                                      [2] left out, [3] grew or shrank meanwhile; the first that was left out, as a row */
};

enum imd_files_flag {
  /* asked */
  IMD_FILES_FOLLOW = 1,            /* STAT: where a last link leads */
  IMD_FILES_PARENTS = 2,           /* MKDIR, PUT, EXTRACT: make what is missing on the way */
  IMD_FILES_REPLACE = 4,           /* MOVE, PUT, EXTRACT: what is there may go */
  IMD_FILES_RECURSIVE = 8,         /* REMOVE */
  IMD_FILES_KEEP_MODE = 16,        /* PUT: the mode of what is replaced, where there is something */
  /* answered */
  IMD_FILES_MORE = 256,
  IMD_FILES_LOCAL = 512,           /* on a file system that asks no other process: the broker may touch it */
  IMD_FILES_MEMORY = 1024,         /* and one of memory, which counts as that of who reserves it */
  IMD_FILES_IN_PLACE = 2048,       /* it is written where it stands: its directory takes no new names */
  IMD_FILES_CUT = 4096,            /* there is more than may be told */
};

struct imd_files_ask {
  uint32_t flags, mode;
  uint32_t first, second;          /* bytes of the two texts behind */
  uint64_t number[2];
};

enum imd_files_refusal {
  IMD_FILES_FAILED = 1,            /* as `error` says */
  IMD_FILES_OUTSIDE,               /* it leads, or might lead, out of the sandbox: `..`, absolute links */
  IMD_FILES_LINK,                  /* a symbolic link where none is followed */
  IMD_FILES_KIND,                  /* no regular file, or no directory, where one is wanted */
  IMD_FILES_KERNEL,                /* on a file system of the kernel's own: /proc and its like */
  IMD_FILES_SETID,                 /* a mode with a set-id bit */
  IMD_FILES_DEEP,                  /* a tree, or a path in it, beyond the bounds above */
  IMD_FILES_LARGE,                 /* more bytes or entries than may be; number[0] its size, [1] what it takes on disk */
  IMD_FILES_MALFORMED,             /* an archive that is none */
  IMD_FILES_NAME,                  /* no name that can be made, or an archive's that leads elsewhere */
  IMD_FILES_EXISTS,
  IMD_FILES_ACROSS,                /* a move from one file system to another */
  IMD_FILES_MOUNTED,               /* another place is mounted there */
  IMD_FILES_RACED,                 /* it changed under our hands, again and again */
  IMD_FILES_SHORT,                 /* fewer bytes came than were said */
  IMD_FILES_ORDER,                 /* asked out of turn, or not understood */
};

struct imd_files_answer {
  uint32_t refusal;                /* enum imd_files_refusal; 0: none. Else behind it: what to say, in words */
  int32_t error;                   /* errno, 0 where none fits */
  uint32_t flags, rows;
  uint64_t number[4];
};

/* Then the name (of a GLOB: the path), then where a link points; nothing is aligned. */
struct imd_files_row {
  uint64_t size, allocated;        /* bytes */
  int64_t mtime_ns;
  uint32_t mode, uid, gid, links;  /* as st_mode; the ids are the sandbox's own */
  uint16_t name_length, target_length;
  uint32_t reserved;
};

#endif
