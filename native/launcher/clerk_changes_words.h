/*
 * The broker's words with the clerk for change sets (docs/changes.md). The Python side takes the numbers from here, as it
 * does those of protocol.h.
 *
 * One question a clerk: struct imd_changes_ask, and a memfd of texts (each a uint32_t length and its bytes): where the
 * captured directory stands inside; then `paths`, `skips` and `protects`, all from that directory, without a slash at either
 * end. Answers, each a packet; those of REFUSED may follow rows, which are those that it is about.
 */
#ifndef IMMURED_CLERK_CHANGES_WORDS_H
#define IMMURED_CLERK_CHANGES_WORDS_H

#include <stdint.h>

enum {
  IMD_CHANGES_DIGEST = 32,         /* SHA-256 */
  IMD_CHANGES_STAGING = 40,        /* a staging directory's name, filled up with NUL */
  IMD_CHANGES_MAX_TEXTS = 4 << 20, /* bytes of a question's texts */
  IMD_CHANGES_MAX_ROWS = 65536,
  IMD_CHANGES_MAX_DEPTH = 256,
  IMD_CHANGES_MAX_LOOKED = 1 << 20, /* names that are looked at on the host's side in one question */
};

enum imd_changes_verb {
  IMD_CHANGES_LIST = 1,
  IMD_CHANGES_OPEN,                /* the first of `paths`: its content on both sides, as descriptors */
  IMD_CHANGES_ACCEPT,
  IMD_CHANGES_DISCARD,
  IMD_CHANGES_RECOVER,             /* the acceptance that `staging` is of, another sandbox's: undone, or finished */
};

enum imd_changes_flag {
  IMD_CHANGES_OVER_CONFLICTS = 1,  /* what changed on the host is replaced all the same */
  IMD_CHANGES_AS_LISTED = 2,       /* `set` is what a LIST told, and must be so still */
};

/* Behind a struct imd_header of this verb. */
struct imd_changes_ask {
  uint32_t flags, spare;
  uint32_t paths, skips, protects, reserved;
  uint8_t set[IMD_CHANGES_DIGEST];
  /* Of RECOVER: as BEGUN told them. */
  uint64_t inode;
  uint8_t journal[IMD_CHANGES_DIGEST];
  char staging[IMD_CHANGES_STAGING];
};

enum imd_changes_word {
  IMD_CHANGES_ROWS = 1,            /* `count` rows */
  IMD_CHANGES_DONE,                /* the last: `count` rows in all (that were listed, accepted, discarded) and `set` */
  IMD_CHANGES_REFUSED,             /* the last: `code`, and a text */
  IMD_CHANGES_CONTENT,             /* the last: one row; then a descriptor for each side it has (before, after) */
  IMD_CHANGES_BEGUN,               /* struct imd_changes_begun; nothing was moved yet, nor is before a header comes back */
};

enum imd_changes_refusal {
  IMD_CHANGES_BAD_QUESTION = 1,
  IMD_CHANGES_NOBODY,              /* no caller's connection */
  IMD_CHANGES_NO_PLACE,            /* no such captured directory, or no such change */
  IMD_CHANGES_MOVED,               /* the caller's directory is not there any more, or another is */
  IMD_CHANGES_DENIED,              /* the caller may not: another user's, or not to be opened */
  IMD_CHANGES_ROOT_OWNED,
  IMD_CHANGES_CONFLICT,
  IMD_CHANGES_PROTECTED,
  IMD_CHANGES_UNACCEPTABLE,
  IMD_CHANGES_DIFFERENT,           /* the set is not the one that was listed, or changed meanwhile */
  IMD_CHANGES_INCOMPLETE,          /* the choice leaves out what a chosen one needs */
  IMD_CHANGES_TOO_MANY,
  IMD_CHANGES_BUSY,                /* DISCARD while something holds the directory */
  IMD_CHANGES_FAILED,              /* the host's file system said no: all is as it was */
  IMD_CHANGES_TORN,                /* and it said no to the way back too: the text says what is left */
};

/* Behind a struct imd_header of this word. REFUSED's text is `length` bytes behind it; `count`: how many changes that is
   about. */
struct imd_changes_answer {
  uint32_t count, code, length;
  int32_t error;
  uint8_t set[IMD_CHANGES_DIGEST];
};

/* Behind a struct imd_changes_answer. */
struct imd_changes_begun {
  uint64_t inode;                  /* of the captured directory */
  uint8_t journal[IMD_CHANGES_DIGEST];
  char staging[IMD_CHANGES_STAGING];
};

enum imd_change_kind {
  IMD_CHANGE_CREATED = 1,
  IMD_CHANGE_MODIFIED,
  IMD_CHANGE_DELETED,
  IMD_CHANGE_RENAMED,              /* of files alone: a directory that is moved is copied */
  IMD_CHANGE_MODE,
};

enum imd_change_trouble {          /* why it cannot simply be accepted */
  IMD_CHANGE_FREE = 0,
  IMD_CHANGE_CHANGED,              /* conflict: on the host (or made there) since the sandbox was made */
  IMD_CHANGE_GONE,                 /* conflict: removed or moved on the host */
  IMD_CHANGE_REPLACED,             /* conflict: another file of the same name */
  IMD_CHANGE_HIDDEN,               /* conflict: the caller may not look at the host's */
  IMD_CHANGE_MOUNTED,              /* conflict: something is mounted there */
  IMD_CHANGE_LAST_CONFLICT = IMD_CHANGE_MOUNTED,
  IMD_CHANGE_FOREIGN,              /* another user's, on the host: to a writable directory's payload it would be nobody's */
  IMD_CHANGE_PROTECTED,
  IMD_CHANGE_SPECIAL,              /* a FIFO, a socket */
  IMD_CHANGE_SETID,
  IMD_CHANGE_HUGE,                 /* larger than the layer that holds it: sparse */
  IMD_CHANGE_UNREADABLE,           /* what was written could not be read */
};

/* Then the texts: the path, whence (of RENAMED), both sides' links; filled up to 8. Modes are st_mode, 0 where there is
   nothing; sizes of links are their lengths, of directories 0, of one deleted how many names. A digest of zeros: none. */
struct imd_change {
  uint32_t length;                 /* of all of it */
  uint32_t kind, trouble, reserved;
  uint32_t before_mode, after_mode;
  uint64_t before_size, after_size;
  uint8_t before_digest[IMD_CHANGES_DIGEST], after_digest[IMD_CHANGES_DIGEST];
  uint32_t path_length, from_length, before_link_length, after_link_length;
};

#endif
