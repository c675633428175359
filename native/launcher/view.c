#define _GNU_SOURCE
#include "view.h"
#include "kernel.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum {
  ROOT_SIZE = 16 << 20, ROOT_INODES = 8192,        /* mount points, and files that a plan puts in */
  DEV_SIZE = 64 << 10, DEV_INODES = 64,
  TMP_SIZE = 512 << 20, TMP_INODES = 1 << 18,      /* until a plan says better */
  SHM_SIZE = 64 << 20, SHM_INODES = 1 << 14,
};

#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define PLAIN (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define INERT (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

#define cell_fail(err, ...) imd_fail((err), IMD_STAGE_CELL, errno, __VA_ARGS__)

/* Links on a host with a merged /usr, directories elsewhere. */
static const char *const program_roots[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};

/*
 * What programs need of the host's /etc, and nothing that could be somebody's secret or say which machine this is.
 * A name that ends in `*` is a prefix.
 */
static const char *const etc_names[] = {
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "default/locale", "fonts", "gai.conf",
    "host.conf", "inputrc", "java-*", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf",
    "localtime", "lsb-release", "magic", "magic.mime", "mime.types", "os-release", "perl", "pki/ca-trust/extracted",
    "pki/tls/cert.pem", "pki/tls/certs", "protocols", "python3", "python3.*", "redhat-release", "rpc", "services",
    "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "timezone", "xattr.conf",
};

static const struct { const char *path, *text; } etc_files[] = {
    {"passwd", "root:x:0:0:root:/:/usr/sbin/nologin\n"
               "sandbox:x:1000:1000:sandbox:/tmp:/bin/sh\n"
               "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
    {"group", "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n"},
    {"hosts", "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n"},
    {"hostname", "sandbox\n"},
    {"resolv.conf", ""},
    {"nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
                      "protocols: files\nservices: files\nethers: files\nrpc: files\n"},
};

static const struct { const char *name; unsigned minor, major; } devices[] = {
    {"null", 3, 1}, {"zero", 5, 1}, {"full", 7, 1}, {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5},
};

static const struct { const char *name, *target; } dev_links[] = {
    {"ptmx", "pts/ptmx"}, {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"},
    {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
};

/* The lists of the OCI runtimes; what a kernel does not have is passed over. */
static const char *const proc_masked[] = {
    "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list",
    "timer_stats",
};
static const char *const proc_read_only[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};

#define COUNT(array) (sizeof (array) / sizeof (array)[0])

static int set_number(int context, const char *key, uint64_t number)
{
  char text[32];
  snprintf(text, sizeof text, "%" PRIu64, number);
  return fsconfig(context, FSCONFIG_SET_STRING, key, text, 0);
}

static int set_mode(int context, const char *key, uint32_t mode)
{
  char text[32];
  snprintf(text, sizeof text, "%" PRIo32, mode);
  return fsconfig(context, FSCONFIG_SET_STRING, key, text, 0);
}

static int finish_mount(int context, uint64_t attributes)
{
  if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
    return -1;
  return fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
}

int view_tmpfs(uint64_t size, uint64_t inodes, uint32_t mode, uid_t uid, gid_t gid, uint64_t attributes)
{
  cleanup_fd int context = fsopen("tmpfs", FSOPEN_CLOEXEC);
  if (context < 0 || set_number(context, "size", size) < 0 ||
      set_number(context, "nr_inodes", inodes) < 0 || set_mode(context, "mode", mode) < 0 ||
      (uid != 0 && set_number(context, "uid", uid) < 0) ||
      (gid != 0 && set_number(context, "gid", gid) < 0))
    return -1;
  return finish_mount(context, attributes);
}

int view_attach(int mount, int target)
{
  return move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

int view_clone(int fd, uint64_t attributes)
{
  cleanup_fd int mount =
      open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (mount < 0)
    return -1;
  struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
  if (mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0)
    return -1;
  return imd_take_fd(&mount);
}

int view_cover(const struct view *view, int target, bool directory)
{
  cleanup_fd int mount = view_clone(directory ? view->empty_directory : view->empty_file, READ_ONLY | MOUNT_ATTR_NOEXEC);
  return mount < 0 ? -1 : view_attach(mount, target);
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

static int open_beneath(int dir, const char *path)
{
  return sys_openat2(dir, path, O_PATH | O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
}

static int make_place(int dir, const char *name, bool directory)
{
  if (directory)
    return mkdirat(dir, name, 0755);
  cleanup_fd int file = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
  return file < 0 ? -1 : 0;
}

int view_target(const struct view *view, const char *path, bool directory, bool make, struct imd_error *err)
{
  cleanup_fd int place = open_beneath(view->root, ".");
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

    int next = open_beneath(place, name);
    if (next < 0 && errno == ENOENT && make && view_owns(view, place) &&
        make_place(place, name, directory || *at != '\0') == 0)
      next = open_beneath(place, name);
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

static int write_file(int dir, const char *path, const char *text)
{
  cleanup_fd int file = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444);
  return file < 0 ? -1 : imd_write_full(file, text, strlen(text));
}

/* `name` of the host's directory `from` at the same name below `to`: a link as a link, anything else read-only. */
static int borrow(int from, int to, const char *name, uint64_t attributes, struct imd_error *err)
{
  struct stat st;
  if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return errno == ENOENT || errno == ENOTDIR ? 0 : cell_fail(err, "%s of the host", name);
  if (S_ISLNK(st.st_mode)) {
    char target[512];
    const ssize_t size = readlinkat(from, name, target, sizeof target);
    if (size < 0 || (size_t)size == sizeof target)
      return cell_fail(err, "the host's link %s", name);
    target[size] = '\0';
    return symlinkat(target, to, name) < 0 ? cell_fail(err, "link %s", name) : 0;
  }
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
    return 0;

  cleanup_fd int source = openat(from, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  cleanup_fd int mount = source < 0 ? -1 : view_clone(source, attributes);
  if (mount < 0)
    return cell_fail(err, "%s of the host", name);
  if (make_place(to, name, S_ISDIR(st.st_mode)) < 0)
    return cell_fail(err, "place for %s", name);
  cleanup_fd int place = openat(to, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (place < 0 || view_attach(mount, place) < 0)
    return cell_fail(err, "mount of %s", name);
  return 0;
}

static int make_parents(int dir, const char *name)
{
  char path[128];
  for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
    snprintf(path, sizeof path, "%.*s", (int)(slash - name), name);
    if (mkdirat(dir, path, 0755) < 0 && errno != EEXIST)
      return -1;
  }
  return 0;
}

static int borrow_prefix(int from, int to, const char *prefix, size_t size, struct imd_error *err)
{
  const int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *listing = fd < 0 ? NULL : fdopendir(fd);
  if (!listing) {
    if (fd >= 0)
      close(fd);
    return cell_fail(err, "the host's /etc");
  }
  int result = 0;
  for (const struct dirent *entry; result == 0 && (entry = readdir(listing));)
    if (strncmp(entry->d_name, prefix, size) == 0)
      result = borrow(from, to, entry->d_name, READ_ONLY | MOUNT_ATTR_NOEXEC, err);
  closedir(listing);
  return result;
}

static int make_etc(int host, int root, struct imd_error *err)
{
  if (mkdirat(root, "etc", 0755) < 0)
    return cell_fail(err, "/etc");
  cleanup_fd int to = openat(root, "etc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (to < 0)
    return cell_fail(err, "/etc");
  for (size_t i = 0; i < COUNT(etc_files); i++)
    if (write_file(to, etc_files[i].path, etc_files[i].text) < 0)
      return cell_fail(err, "/etc/%s", etc_files[i].path);
  if (symlinkat("/proc/self/mounts", to, "mtab") < 0)
    return cell_fail(err, "/etc/mtab");

  cleanup_fd int from = openat(host, "etc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (from < 0)
    return errno == ENOENT ? 0 : cell_fail(err, "the host's /etc");
  for (size_t i = 0; i < COUNT(etc_names); i++) {
    const char *name = etc_names[i];
    const size_t size = strlen(name);
    if (name[size - 1] == '*') {
      if (borrow_prefix(from, to, name, size - 1, err) < 0)
        return -1;
      continue;
    }
    if (faccessat(from, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
      continue;
    if (make_parents(to, name) < 0)
      return cell_fail(err, "/etc/%s", name);
    if (borrow(from, to, name, READ_ONLY | MOUNT_ATTR_NOEXEC, err) < 0)
      return -1;
  }
  return 0;
}

static int attach_at(int mount, int dir, const char *name)
{
  cleanup_fd int place = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return place < 0 ? -1 : view_attach(mount, place);
}

/* A node of our own; where the daemon may not make nodes (no CAP_MKNOD), the host's. */
static int make_device(int host, int dev, const char *name, unsigned major, unsigned minor)
{
  if (mknodat(dev, name, S_IFCHR | 0666, makedev(major, minor)) == 0)
    return fchmodat(dev, name, 0666, 0);
  if (errno != EPERM)
    return -1;
  char path[32];
  snprintf(path, sizeof path, "dev/%s", name);
  cleanup_fd int source = openat(host, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  cleanup_fd int mount = source < 0 ? -1 : view_clone(source, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (mount < 0 || make_place(dev, name, false) < 0)
    return -1;
  cleanup_fd int place = openat(dev, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  return place < 0 ? -1 : view_attach(mount, place);
}

static int note_device(int mount, dev_t *device)
{
  struct stat st;
  if (fstat(mount, &st) < 0)
    return -1;
  *device = st.st_dev;
  return 0;
}

static int make_terminals(struct view *view, struct imd_error *err)
{
  cleanup_fd int context = fsopen("devpts", FSOPEN_CLOEXEC);
  /* The host's ptys are counted together: an unbounded instance could use them all up. */
  if (context < 0 || set_mode(context, "ptmxmode", 0666) < 0 || set_mode(context, "mode", 0620) < 0 ||
      set_number(context, "max", 64) < 0)
    return cell_fail(err, "/dev/pts");
  cleanup_fd int mount = finish_mount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (mount < 0 || note_device(mount, &view->kernel[1]) < 0 || mkdirat(view->dev, "pts", 0755) < 0 ||
      attach_at(mount, view->dev, "pts") < 0)
    return cell_fail(err, "/dev/pts");
  return 0;
}

static int make_queues(struct view *view, struct imd_error *err)
{
  cleanup_fd int context = fsopen("mqueue", FSOPEN_CLOEXEC);
  cleanup_fd int mount = context < 0 ? -1 : finish_mount(context, INERT);
  if (mount < 0)
    return errno == ENODEV ? 0 : cell_fail(err, "/dev/mqueue");
  /* Its own mode is 1777, and stays so. */
  if (note_device(mount, &view->kernel[2]) < 0 || mkdirat(view->dev, "mqueue", 0755) < 0 ||
      attach_at(mount, view->dev, "mqueue") < 0)
    return cell_fail(err, "/dev/mqueue");
  return 0;
}

/* What hides a path lies beneath the mount of /dev/shm, where only descriptors from before that mount lead. */
static int make_shared_memory(struct view *view, struct imd_error *err)
{
  if (mkdirat(view->dev, "shm", 0755) < 0 || mkdirat(view->dev, "shm/empty", 0555) < 0 ||
      write_file(view->dev, "shm/file", "") < 0)
    return cell_fail(err, "/dev/shm");
  view->empty_directory = openat(view->dev, "shm/empty", O_PATH | O_CLOEXEC);
  view->empty_file = openat(view->dev, "shm/file", O_PATH | O_CLOEXEC);
  cleanup_fd int mount = view_tmpfs(SHM_SIZE, SHM_INODES, 01777, 0, 0, PLAIN);
  if (view->empty_directory < 0 || view->empty_file < 0 || mount < 0 || view_own(view, mount) < 0 ||
      attach_at(mount, view->dev, "shm") < 0)
    return cell_fail(err, "/dev/shm");
  return 0;
}

static int make_dev(struct view *view, int host, struct imd_error *err)
{
  view->dev = view_tmpfs(DEV_SIZE, DEV_INODES, 0755, 0, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (view->dev < 0 || mkdirat(view->root, "dev", 0755) < 0 || attach_at(view->dev, view->root, "dev") < 0)
    return cell_fail(err, "/dev");
  for (size_t i = 0; i < COUNT(devices); i++)
    if (make_device(host, view->dev, devices[i].name, devices[i].major, devices[i].minor) < 0)
      return cell_fail(err, "/dev/%s", devices[i].name);
  for (size_t i = 0; i < COUNT(dev_links); i++)
    if (symlinkat(dev_links[i].target, view->dev, dev_links[i].name) < 0)
      return cell_fail(err, "/dev/%s", dev_links[i].name);
  if (make_shared_memory(view, err) < 0 || make_terminals(view, err) < 0 || make_queues(view, err) < 0)
    return -1;

  struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
  if (mount_setattr(view->dev, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
    return cell_fail(err, "/dev");
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
  view->tmp = view_tmpfs(TMP_SIZE, TMP_INODES, 01777, 0, 0, PLAIN);
  if (view->tmp < 0 || view_own(view, view->tmp) < 0 || attach_at(view->tmp, view->root, "tmp") < 0)
    return cell_fail(err, "/tmp");
  return 0;
}

/* Our root becomes `root`, which is a mount point; the old one goes. */
static int change_root(int root)
{
  if (fchdir(root) < 0 || sys_pivot_root(".", ".") < 0)
    return -1;
  /* Here the old root lies on top of the new one. */
  if (umount2(".", MNT_DETACH) < 0)
    return -1;
  return chdir("/");
}

int view_make(struct view *view, struct imd_error *err)
{
  *view = (struct view){.root = -1, .dev = -1, .proc = -1, .tmp = -1, .empty_directory = -1, .empty_file = -1};
  umask(0);
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
    return cell_fail(err, "private mounts");
  cleanup_fd int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  view->root = view_tmpfs(ROOT_SIZE, ROOT_INODES, 0755, 0, 0, PLAIN);
  if (host < 0 || view->root < 0 || view_own(view, view->root) < 0 || view_attach(view->root, host) < 0)
    return cell_fail(err, "the cell's root");

  if (borrow(host, view->root, "usr", READ_ONLY, err) < 0)
    return -1;
  for (size_t i = 0; i < COUNT(program_roots); i++)
    if (borrow(host, view->root, program_roots[i], READ_ONLY, err) < 0)
      return -1;
  if (make_directories(view, err) < 0 || make_etc(host, view->root, err) < 0 || make_dev(view, host, err) < 0)
    return -1;
  return change_root(view->root) < 0 ? cell_fail(err, "change of the root") : 0;
}

static int mask(const struct view *view, int proc, const char *name)
{
  cleanup_fd int place = open_beneath(proc, name);
  if (place < 0)
    return errno == ENOENT ? 0 : -1;
  struct stat st;
  return fstat(place, &st) < 0 ? -1 : view_cover(view, place, S_ISDIR(st.st_mode));
}

static int make_read_only(int proc, const char *name)
{
  cleanup_fd int place = open_beneath(proc, name);
  if (place < 0)
    return errno == ENOENT ? 0 : -1;
  cleanup_fd int mount = view_clone(place, READ_ONLY | MOUNT_ATTR_NOEXEC);
  return mount < 0 ? -1 : view_attach(mount, place);
}

int view_mount_proc(const struct view *view, struct imd_error *err)
{
  cleanup_fd int context = fsopen("proc", FSOPEN_CLOEXEC);
  cleanup_fd int proc = context < 0 ? -1 : finish_mount(context, INERT);
  if (proc < 0 || attach_at(proc, view->root, "proc") < 0)
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
  static const char *const names[] = {"dev", "proc", "tmp"};
  const int moved[] = {view->dev, view->proc, view->tmp};
  if (view_attach(mount, view->root) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "the new root");
  for (size_t i = 0; i < COUNT(names); i++) {
    cleanup_fd int place = open_beneath(mount, names[i]);
    struct stat st;
    if (place < 0 || fstat(place, &st) < 0 || !S_ISDIR(st.st_mode))
      continue;
    if (view_attach(moved[i], place) < 0)
      return imd_fail(err, IMD_STAGE_MOUNT, errno, "/%s of the new root", names[i]);
  }
  if (change_root(mount) < 0)
    return imd_fail(err, IMD_STAGE_MOUNT, errno, "change of the root");
  imd_close(&view->root);
  view->root = fcntl(mount, F_DUPFD_CLOEXEC, 0);
  return view->root < 0 ? imd_fail(err, IMD_STAGE_MOUNT, errno, "the new root") : 0;
}
