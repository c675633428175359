/* Mounts by descriptor, and small things to make in them. Every function answers -1 with errno. */
#ifndef IMMURED_VFS_H
#define IMMURED_VFS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/types.h>

/* What mounts of ours are, at the least; see mount_setattr(2). */
#define VFS_PLAIN (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define VFS_READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define VFS_INERT (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

/* Options of an fsopen context, and the mount (not attached yet) that comes of it. */
int vfs_set_number(int context, const char *key, uint64_t number);
int vfs_set_mode(int context, const char *key, uint32_t mode);
int vfs_finish(int context, uint64_t attributes);

/* A new tmpfs of this owner (host ids), not attached yet. */
int vfs_tmpfs(uint64_t size, uint64_t inodes, uint32_t mode, uid_t uid, gid_t gid, uint64_t attributes);

/* The same for a tmpfs of ours that is mounted and empty: `root` is its root. A third of the cost, and one less to end. */
int vfs_refit_tmpfs(int root, uint64_t size, uint64_t inodes, uint32_t mode, uid_t uid, gid_t gid);

/* A copy of the mount tree at `fd`, private, not attached, with these attributes set on all of it. */
int vfs_clone(int fd, uint64_t attributes);

/* Attaches a mount (or moves one) to where `target`, or the directory `name` in `dir`, points. It is noted (covers.h). */
int vfs_attach(int mount, int target);
int vfs_attach_at(int mount, int dir, const char *name);

/* Onto the root of a mount of our own, without which it cannot go: it is not noted, and may be exchanged. */
int vfs_stack(int mount, int below);

/* `O_PATH`, not above `dir`, and through no symbolic link. */
int vfs_open_beneath(int dir, const char *path);

/* As such, what is at `path` beneath the directory `root`, of whichever kind; ENOENT or ENOTDIR where nothing is. */
int vfs_find(int root, const char *path, bool *directory);

/* What a mount can stand on: an empty directory or file. */
int vfs_make_place(int dir, const char *name, bool directory);

int vfs_write_file(int dir, const char *path, const char *text);

/* Our root becomes `root`, which is a mount point; the old one goes. */
int vfs_change_root(int root);

#endif
