#define _GNU_SOURCE
#include "view.h"
#include "kernel.h"
#include "template.h"
#include "util.h"
#include "vfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum {
  ROOT_SIZE = 16 << 20, ROOT_INODES = 8192,        /* mount points, and files that a plan puts in */
  ETC_SIZE = 4 << 20, ETC_INODES = 1024,
  TMP_SIZE = 512 << 20, TMP_INODES = 1 << 18,      /* until a plan says better */
  SHM_SIZE = 64 << 20, SHM_INODES = 1 << 14,
};

#define COUNT(array) (sizeof (array) / sizeof (array)[0])
#define cell_fail(err, ...) imd_fail((err), IMD_STAGE_CELL, errno, __VA_ARGS__)

/* The lists of the OCI runtimes; what a kernel does not have is passed over. */
static const char *const proc_masked[] = {
    "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list",
    "timer_stats",
};
static const char *const proc_read_only[] = {"bus", "fs", "irq", "pressure", "sys", "sysrq-trigger"};

int view_cover(const struct view *view, int target, bool directory)
{
  cleanup_fd int mount = vfs_clone(directory ? view->empty_directory : view->empty_file, VFS_READ_ONLY | MOUNT_ATTR_NOEXEC);
  return mount < 0 ? -1 : vfs_attach(mount, target);
}

int view_own(struct view *view, int mount)
{
  struct stat st;
  if (fstat(mount, &st) < 0)
    return -1;
  if (view->own_count == VIEW_OWN_DEVICES) {
    errno = ENOSPC;
    return -1;
  }
  view->own[view->own_count++] = st.st_dev;
  return 0;
}

bool view_owns(const struct view *view, int fd)
{
  struct stat st;
  if (fstat(fd, &st) < 0)
    return false;
  for (uint32_t i = 0; i < view->own_count; i++)
    if (view->own[i] == st.st_dev)
      return true;
  return false;
}

bool view_is_spare(const struct view *view, int place)
{
  struct stat st;
  if (fstat(place, &st) < 0)
    return false;
  for (size_t i = 0; i < COUNT(view->spare); i++)
    if (st.st_dev == view->spare[i].device && st.st_ino == view->spare[i].inode)
      return true;
  return false;
}

static bool is_same(int one, int other)
{
  struct stat a, b;
  return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* /etc is every cell's; one that is to hold more than the others' is given a copy of its own, of the same mounts. */
int view_unfold(struct view *view, int *place, struct imd_error *err)
{
  if (view->etc < 0 || !is_same(*place, view->etc))
    return 0;
  cleanup_fd int own = vfs_tmpfs(ETC_SIZE, ETC_INODES, 0755, 0, 0, VFS_PLAIN | MOUNT_ATTR_NOEXEC);
  const int fd = own < 0 || view_own(view, own) < 0 ? -1 : openat(view->etc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *listing = fd < 0 ? NULL : fdopendir(fd);
  if (!listing) {
    if (fd >= 0)
      close(fd);
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "/etc");
  }
  int result = vfs_attach(own, view->etc) < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "/etc") : 0;
  for (const struct dirent *entry; result == 0 && (entry = readdir(listing));)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
      result = template_borrow(view->etc, own, entry->d_name, VFS_READ_ONLY | MOUNT_ATTR_NOEXEC, err);
  closedir(listing);
  if (result < 0)
    return -1;
  imd_close(&view->etc);
  imd_close(place);
  *place = fcntl(own, F_DUPFD_CLOEXEC, 0);
  view->own_etc = imd_take_fd(&own);
  return 0;
}

int view_target(struct view *view, const char *path, bool directory, bool make, struct imd_error *err)
{
  cleanup_fd int place = vfs_open_beneath(view->root, ".");
  if (place < 0)
    return imd_fail(err, IMD_STAGE_TARGET, errno, "the cell's root");

  for (const char *at = path; *at != '\0';) {
    at += strspn(at, "/");
    const size_t size = strcspn(at, "/");
    char name[256];
    if (size == 0)
      break;
    if (size >= sizeof name)
      return imd_fail(err, IMD_STAGE_TARGET, ENAMETOOLONG, "%s", path);
    memcpy(name, at, size);
    name[size] = '\0';
    at += size;

    int next = vfs_open_beneath(place, name);
    if (next < 0 && errno == ENOENT && make) {
      if (view_unfold(view, &place, err) < 0)
        return -1;
      errno = ENOENT;
      if (view_owns(view, place) && vfs_make_place(place, name, directory || *at != '\0') == 0)
        next = vfs_open_beneath(place, name);
    }
    if (next < 0)
      return imd_fail(err, IMD_STAGE_TARGET, errno, "%s (at %.*s)", path, (int)(at - path), path);
    imd_close(&place);
    place = next;
  }

  struct stat st;
  if (fstat(place, &st) < 0)
    return imd_fail(err, IMD_STAGE_TARGET, errno, "%s", path);
  if (directory != S_ISDIR(st.st_mode))
    return imd_fail(err, IMD_STAGE_TARGET, directory ? ENOTDIR : EISDIR, "%s is there already", path);
  return imd_take_fd(&place);
}

static int note_device(int mount, dev_t *device)
{
  struct stat st;
  if (fstat(mount, &st) < 0)
    return -1;
  *device = st.st_dev;
  return 0;
}

static int note_spare(struct view *view, size_t which, int mount)
{
  struct stat st;
  if (fstat(mount, &st) < 0)
    return -1;
  view->spare[which].device = st.st_dev;
  view->spare[which].inode = st.st_ino;
  return 0;
}

static int make_terminals(struct view *view, struct imd_error *err)
{
  cleanup_fd int context = fsopen("devpts", FSOPEN_CLOEXEC);
  /* The host's ptys are counted together: an unbounded instance could use them all up. */
  if (context < 0 || vfs_set_mode(context, "ptmxmode", 0666) < 0 || vfs_set_mode(context, "mode", 0620) < 0 ||
      vfs_set_number(context, "max", 64) < 0)
    return cell_fail(err, "/dev/pts");
  cleanup_fd int mount = vfs_finish(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (mount < 0 || note_device(mount, &view->kernel[1]) < 0 ||
      vfs_attach_at(mount, view->dev, "pts") < 0)
    return cell_fail(err, "/dev/pts");
  return 0;
}

static int make_queues(struct view *view, struct imd_error *err)
{
  cleanup_fd int context = fsopen("mqueue", FSOPEN_CLOEXEC);
  cleanup_fd int mount = context < 0 ? -1 : vfs_finish(context, VFS_INERT);
  if (mount < 0)
    return errno == ENODEV ? 0 : cell_fail(err, "/dev/mqueue");
  /* Its own mode is 1777, and stays so. */
  if (note_device(mount, &view->kernel[2]) < 0 || vfs_attach_at(mount, view->dev, "mqueue") < 0)
    return cell_fail(err, "/dev/mqueue");
  return 0;
}

static int make_shared_memory(struct view *view, struct imd_error *err)
{
  view->empty_directory = openat(view->dev, TEMPLATE_EMPTY_DIRECTORY, O_PATH | O_CLOEXEC);
  view->empty_file = openat(view->dev, TEMPLATE_EMPTY_FILE, O_PATH | O_CLOEXEC);
  cleanup_fd int mount = vfs_tmpfs(SHM_SIZE, SHM_INODES, 01777, 0, 0, VFS_PLAIN);
  if (view->empty_directory < 0 || view->empty_file < 0 || mount < 0 || view_own(view, mount) < 0 ||
      note_spare(view, 1, mount) < 0 || vfs_attach_at(mount, view->dev, "shm") < 0)
    return cell_fail(err, "/dev/shm");
  return 0;
}

static int make_directories(struct view *view, struct imd_error *err)
{
  static const char *const names[] = {"proc", "run", "tmp", "var"};
  for (size_t i = 0; i < COUNT(names); i++)
    if (mkdirat(view->root, names[i], 0755) < 0)
      return cell_fail(err, "/%s", names[i]);
  /* A link, so that one tmpfs, and one bound, holds for both. */
  if (symlinkat("/tmp", view->root, "var/tmp") < 0)
    return cell_fail(err, "/var/tmp");
  view->tmp = vfs_tmpfs(TMP_SIZE, TMP_INODES, 01777, 0, 0, VFS_PLAIN);
  if (view->tmp < 0 || view_own(view, view->tmp) < 0 || note_spare(view, 0, view->tmp) < 0 ||
      vfs_attach_at(view->tmp, view->root, "tmp") < 0)
    return cell_fail(err, "/tmp");
  return 0;
}

/* A mount of the template's, moved to the same name in the cell's root; returns it. */
static int take(int template, const struct view *view, const char *name)
{
  cleanup_fd int mount = openat(template, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (mount < 0 || mkdirat(view->root, name, 0755) < 0 || vfs_attach_at(mount, view->root, name) < 0)
    return -1;
  return imd_take_fd(&mount);
}

static int take_programs(int template, const struct view *view, struct imd_error *err)
{
  for (const char *const *name = template_programs; *name; name++) {
    char link[512];
    const ssize_t size = readlinkat(template, *name, link, sizeof link - 1);
    if (size >= 0) {
      link[size] = '\0';
      if (symlinkat(link, view->root, *name) < 0)
        return cell_fail(err, "/%s", *name);
      continue;
    }
    cleanup_fd int mount = errno == EINVAL ? take(template, view, *name) : -1;
    if (mount < 0 && errno != ENOENT)
      return cell_fail(err, "/%s", *name);
  }
  return 0;
}

int view_make(struct view *view, bool templated, struct imd_error *err)
{
  *view = (struct view){
      .root = -1, .dev = -1, .etc = -1, .own_etc = -1, .proc = -1, .tmp = -1, .empty_directory = -1, .empty_file = -1};
  umask(0);
  if (!templated && template_make(err) < 0)
    return -1;
  cleanup_fd int template = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  view->root = vfs_tmpfs(ROOT_SIZE, ROOT_INODES, 0755, 0, 0, VFS_PLAIN);
  if (template < 0 || view->root < 0 || view_own(view, view->root) < 0 || vfs_attach(view->root, template) < 0)
    return cell_fail(err, "the cell's root");
  if (take_programs(template, view, err) < 0 || make_directories(view, err) < 0)
    return -1;
  view->etc = take(template, view, "etc");
  view->dev = take(template, view, "dev");
  if (view->etc < 0 || view->dev < 0)
    return cell_fail(err, "/etc and /dev");
  if (make_shared_memory(view, err) < 0 || make_terminals(view, err) < 0 || make_queues(view, err) < 0)
    return -1;
  return vfs_change_root(view->root) < 0 ? cell_fail(err, "change of the root") : 0;
}

static int mask(const struct view *view, int proc, const char *name)
{
  cleanup_fd int place = vfs_open_beneath(proc, name);
  if (place < 0)
    return errno == ENOENT ? 0 : -1;
  struct stat st;
  return fstat(place, &st) < 0 ? -1 : view_cover(view, place, S_ISDIR(st.st_mode));
}

static int make_read_only(int proc, const char *name)
{
  cleanup_fd int place = vfs_open_beneath(proc, name);
  if (place < 0)
    return errno == ENOENT ? 0 : -1;
  cleanup_fd int mount = vfs_clone(place, VFS_READ_ONLY | MOUNT_ATTR_NOEXEC);
  return mount < 0 ? -1 : vfs_attach(mount, place);
}

int view_mount_proc(const struct view *view, struct imd_error *err)
{
  cleanup_fd int context = fsopen("proc", FSOPEN_CLOEXEC);
  cleanup_fd int proc = context < 0 ? -1 : vfs_finish(context, VFS_INERT);
  if (proc < 0 || vfs_attach_at(proc, view->root, "proc") < 0)
    return cell_fail(err, "/proc");
  for (size_t i = 0; i < COUNT(proc_masked); i++)
    if (mask(view, proc, proc_masked[i]) < 0)
      return cell_fail(err, "mask of /proc/%s", proc_masked[i]);
  for (size_t i = 0; i < COUNT(proc_read_only); i++)
    if (make_read_only(proc, proc_read_only[i]) < 0)
      return cell_fail(err, "/proc/%s", proc_read_only[i]);
  return 0;
}

int view_find_proc(struct view *view, struct imd_error *err)
{
  view->proc = openat(view->root, "proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return view->proc < 0 || note_device(view->proc, &view->kernel[0]) < 0 ? cell_fail(err, "/proc") : 0;
}

int view_change_root(struct view *view, int mount, struct imd_error *err)
{
  return vfs_attach(mount, view->root) < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "the new root")
                                           : view_enter_root(view, mount, err);
}

int view_enter_root(struct view *view, int mount, struct imd_error *err)
{
  static const char *const names[] = {"dev", "proc", "tmp"};
  const int moved[] = {view->dev, view->proc, view->tmp};
  for (size_t i = 0; i < COUNT(names); i++) {
    cleanup_fd int place = vfs_open_beneath(mount, names[i]);
    struct stat st;
    if (place < 0 || fstat(place, &st) < 0 || !S_ISDIR(st.st_mode))
      continue;
    if (vfs_attach(moved[i], place) < 0)
      return imd_fail(err, IMD_STAGE_MOUNT, errno, "/%s of the new root", names[i]);
  }
  if (vfs_change_root(mount) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "change of the root");
  imd_close(&view->root);
  view->root = fcntl(mount, F_DUPFD_CLOEXEC, 0);
  return view->root < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "the new root") : 0;
}
