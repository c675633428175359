/* What was written to captured directories: looked at, handed over, thrown away. What the parts of the clerk share. */
#ifndef IMMURED_CLERK_CHANGES_H
#define IMMURED_CLERK_CHANGES_H

#include "clerk.h"
#include "clerk_changes_words.h"
#include "sha256.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct handle { uint8_t size, type, bytes[128]; };    /* a file's, as the kernel tells it; size 0: none */

struct change {
  char *path;                      /* from the captured directory, no slash at either end; "" for itself */
  char *from;                      /* of RENAMED */
  char *before_link, *after_link;
  enum imd_change_kind kind;
  enum imd_change_trouble trouble;
  uint32_t before_mode, after_mode;
  uint64_t before_size, after_size;
  uint8_t before_digest[SHA256_SIZE], after_digest[SHA256_SIZE];
  uint64_t before_device, before_inode;   /* the host's, when it was looked at */
  int64_t before_mtime_ns;
  uint32_t before_uid;
  struct handle origin;            /* of what was made above: what it was copied from; of what is gone below: its own */
  bool foreign;                    /* a copy of another file than the one that stands there */
  bool chosen;
};

struct changes { struct change *at; size_t count, space; };

struct accepted { char *path; uint64_t inode; int64_t ctime_ns; size_t order; };

/* One captured directory in hand. */
struct captured {
  const struct place *place;
  const struct clerk *clerk;
  int upper;                       /* the layer */
  int host;                        /* the caller's directory, opened by who asks; -1 */
  char *const *protects;           /* below it, as struct change's paths */
  size_t protect_count;
  uint64_t largest;                /* bytes that the layer can hold */
  struct accepted *accepted;
  size_t accepted_count;
  char staging[IMD_CHANGES_STAGING]; /* a directory of ours in `host` while something is accepted; "" */
  uint8_t journal[SHA256_SIZE];    /* of the journal in it: others may write there too */
  bool others;                     /* what is recovered was another sandbox's */
  uint64_t looked;
};

/* What was refused, for the answer. */
struct refusal { uint32_t code, count; int error; char text[512]; };
int changes_refuse(struct refusal *refusal, enum imd_changes_refusal code, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * The caller's own rights, and none besides: the rest of the time the clerk has what it needs to read its layer
 * (clerk_changes.c). Every look at `upper` stands between the two.
 */
void changes_above(void);
void changes_below(void);

/* From the captured directory of the host, never out of it, through no link and no mount; the last name is not followed. */
int changes_open_below(const struct captured *captured, const char *path, uint64_t flags);
/* The directory that holds `path`, and its last name. */
int changes_parent_below(const struct captured *captured, const char *path, const char **name);

/* Opens what a descriptor (O_PATH) stands for. */
int changes_reopen(const struct captured *captured, int fd, int flags);
/* Opens a regular file of the layer to read, and nothing else (EINVAL). */
int changes_open_above(const struct captured *captured, const char *path, struct stat *st);

int changes_digest(int fd, uint64_t size, uint8_t digest[SHA256_SIZE]);

/* clerk_changes_walk.c: every change, by path. */
int changes_find(struct captured *captured, struct changes *changes, struct refusal *refusal);
void changes_free(struct changes *changes);
bool changes_is_conflict(const struct change *change);

/* clerk_changes_apply.c: those `chosen`, all or none. */
int changes_apply(struct captured *captured, struct changes *changes, struct refusal *refusal);
/* clerk_changes.c: the broker notes what is being accepted, durably. */
int changes_say_begun(const struct captured *captured);

/* What a clerk that was killed left half done is undone, or seen to its end. */
int changes_recover(struct captured *captured, struct refusal *refusal);

/* clerk_changes_accepted.c: what was accepted already is no conflict later; kept in the place's memfd. */
int accepted_load(struct captured *captured);
/* Whatever stands there now is as the sandbox has it. accepted_holds knows it after accepted_save. */
int accepted_note(struct captured *captured, const char *path);
int accepted_save(struct captured *captured);
bool accepted_holds(const struct captured *captured, const char *path, uint64_t inode, int64_t ctime_ns);

/* clerk_changes_discard.c: the caller is root in the cell's mount namespace. */
int changes_discard(struct captured *captured, char *const *paths, size_t count, uint32_t *gone, struct refusal *refusal);

#endif
