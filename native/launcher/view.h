/* What a cell sees of the file system before its plan adds anything: the host's programs and no more. */
#ifndef IMMURED_VIEW_H
#define IMMURED_VIEW_H

#include "error.h"
#include "protocol.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { VIEW_OWN_DEVICES = 64 };

struct view {
  int root;                        /* O_PATH, the cell's root */
  int dev, proc, tmp;              /* O_PATH, roots of these mounts */
  struct { dev_t device; ino_t inode; } spare[2];   /* the roots of /tmp and /dev/shm as the cell was parked with them */
  int etc;                         /* the same, while it is the template's; -1 once the cell has its own */
  int own_etc;
  int empty_directory, empty_file; /* O_PATH, where the cell cannot reach them; what hides a path is a mount of these */
  /* File systems that we made ourselves, with no caller's file in them: there we may make what a mount stands on. */
  dev_t own[VIEW_OWN_DEVICES];
  uint32_t own_count;
  dev_t kernel[3];                 /* the cell's own /proc, /dev/pts and /dev/mqueue */
};

/*
 * The caller is host root in a mount namespace of its own, whose root is the template (`templated`) or the host's, and
 * is the cell's afterwards. All but /proc.
 */
int view_make(struct view *view, bool templated, struct imd_error *err);

/* /proc, by a process of the cell's pid namespace: masked and read-only as container runtimes do it. */
int view_mount_proc(const struct view *view, struct imd_error *err);

/* view->proc, in the process that did not mount it. */
int view_find_proc(struct view *view, struct imd_error *err);

/*
 * A path inside, as `O_PATH`; no symbolic link anywhere on the way. With `make`, what is missing is made (as an empty
 * directory or file) where it would stand in a file system of our own. `directory`: the kind that is wanted.
 * Fails with IMD_STAGE_TARGET.
 */
int view_target(struct view *view, const char *path, bool directory, bool make, struct imd_error *err);

/* The file system of `fd` is one that we made. */
bool view_owns(const struct view *view, int fd);
int view_own(struct view *view, int mount);

/*
 * Before something is made in `*place`: where that is the template's /etc, the cell gets one of its own, and `*place`
 * is that.
 */
int view_unfold(struct view *view, int *place, struct imd_error *err);

/* `place` is the root of a tmpfs that the cell was parked with: it can be refitted while nothing was done to it. */
bool view_is_spare(const struct view *view, int place);

/* Covers the directory or file `target` with nothing. */
int view_cover(const struct view *view, int target, bool directory);

/*
 * Makes `mount` (a directory, not attached yet) the root, moves /dev, /proc and /tmp over where it has such
 * directories, and lets go of the old one.
 */
int view_change_root(struct view *view, int mount, struct imd_error *err);

/* The same with one that is attached there already. */
int view_enter_root(struct view *view, int mount, struct imd_error *err);

#endif
