#define _GNU_SOURCE
#include "template.h"
#include "kernel.h"
#include "util.h"
#include "vfs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum {
  ROOT_SIZE = 64 << 10, ROOT_INODES = 64,
  ETC_SIZE = 1 << 20, ETC_INODES = 512,
  DEV_SIZE = 64 << 10, DEV_INODES = 64,
};

#define COUNT(array) (sizeof (array) / sizeof (array)[0])
#define cell_fail(err, ...) imd_fail((err), IMD_STAGE_CELL, errno, __VA_ARGS__)

const char *const template_programs[] = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", NULL};

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

int template_borrow(int from, int to, const char *name, uint64_t attributes, struct imd_error *err)
{
  struct stat st;
  if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
    return errno == ENOENT || errno == ENOTDIR ? 0 : cell_fail(err, "%s cannot be lent", name);
  if (S_ISLNK(st.st_mode)) {
    char target[512];
    const ssize_t size = readlinkat(from, name, target, sizeof target);
    if (size < 0 || (size_t)size == sizeof target)
      return cell_fail(err, "link %s", name);
    target[size] = '\0';
    return symlinkat(target, to, name) < 0 ? cell_fail(err, "link %s", name) : 0;
  }
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
    return 0;

  cleanup_fd int source = openat(from, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  cleanup_fd int mount = source < 0 ? -1 : vfs_clone(source, attributes);
  if (mount < 0)
    return cell_fail(err, "%s cannot be lent", name);
  if (vfs_make_place(to, name, S_ISDIR(st.st_mode)) < 0)
    return cell_fail(err, "place for %s", name);
  cleanup_fd int place = openat(to, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (place < 0 || vfs_attach(mount, place) < 0)
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
      result = template_borrow(from, to, entry->d_name, VFS_READ_ONLY | MOUNT_ATTR_NOEXEC, err);
  closedir(listing);
  return result;
}

static int seal(int mount)
{
  struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
  return mount_setattr(mount, "", AT_EMPTY_PATH, &attr, sizeof attr);
}

static int make_etc(int host, int root, struct imd_error *err)
{
  cleanup_fd int to = vfs_tmpfs(ETC_SIZE, ETC_INODES, 0755, 0, 0, VFS_PLAIN | MOUNT_ATTR_NOEXEC);
  if (to < 0 || mkdirat(root, "etc", 0755) < 0 || vfs_attach_at(to, root, "etc") < 0)
    return cell_fail(err, "/etc");
  for (size_t i = 0; i < COUNT(etc_files); i++)
    if (vfs_write_file(to, etc_files[i].path, etc_files[i].text) < 0)
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
    if (template_borrow(from, to, name, VFS_READ_ONLY | MOUNT_ATTR_NOEXEC, err) < 0)
      return -1;
  }
  return seal(to) < 0 ? cell_fail(err, "/etc") : 0;
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
  cleanup_fd int mount = source < 0 ? -1 : vfs_clone(source, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (mount < 0 || vfs_make_place(dev, name, false) < 0)
    return -1;
  cleanup_fd int place = openat(dev, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  return place < 0 ? -1 : vfs_attach(mount, place);
}

/* What cells mount on it, and, beneath their /dev/shm, what they hide paths with. */
static int make_dev_places(int dev)
{
  static const char *const names[] = {"mqueue", "pts", "shm"};
  for (size_t i = 0; i < COUNT(names); i++)
    if (mkdirat(dev, names[i], 0755) < 0)
      return -1;
  return mkdirat(dev, TEMPLATE_EMPTY_DIRECTORY, 0555) < 0 ? -1 : vfs_write_file(dev, TEMPLATE_EMPTY_FILE, "");
}

static int make_dev(int host, int root, struct imd_error *err)
{
  cleanup_fd int dev = vfs_tmpfs(DEV_SIZE, DEV_INODES, 0755, 0, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  if (dev < 0 || mkdirat(root, "dev", 0755) < 0 || vfs_attach_at(dev, root, "dev") < 0)
    return cell_fail(err, "/dev");
  for (size_t i = 0; i < COUNT(devices); i++)
    if (make_device(host, dev, devices[i].name, devices[i].major, devices[i].minor) < 0)
      return cell_fail(err, "/dev/%s", devices[i].name);
  for (size_t i = 0; i < COUNT(dev_links); i++)
    if (symlinkat(dev_links[i].target, dev, dev_links[i].name) < 0)
      return cell_fail(err, "/dev/%s", dev_links[i].name);
  return make_dev_places(dev) < 0 || seal(dev) < 0 ? cell_fail(err, "/dev") : 0;
}

int template_make(struct imd_error *err)
{
  const mode_t mask = umask(0);
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
    return cell_fail(err, "private mounts");
  cleanup_fd int host = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  cleanup_fd int root = vfs_tmpfs(ROOT_SIZE, ROOT_INODES, 0755, 0, 0, VFS_PLAIN);
  if (host < 0 || root < 0 || vfs_attach(root, host) < 0)
    return cell_fail(err, "the template's root");
  for (const char *const *name = template_programs; *name; name++)
    if (template_borrow(host, root, *name, VFS_READ_ONLY, err) < 0)
      return -1;
  if (make_etc(host, root, err) < 0 || make_dev(host, root, err) < 0)
    return -1;
  if (seal(root) < 0 || vfs_change_root(root) < 0)
    return cell_fail(err, "change of the root");
  umask(mask);
  return 0;
}

static bool is_fresh(const struct template *template)
{
  struct stat st;
  return template->host_etc >= 0 && fstat(template->host_etc, &st) == 0 &&
         st.st_mtim.tv_sec == template->changed.tv_sec && st.st_mtim.tv_nsec == template->changed.tv_nsec;
}

int template_refresh(struct template *template, int host_mounts, struct imd_error *err)
{
  if (is_fresh(template))
    return 0;
  imd_close(&template->host_etc);
  if (setns(host_mounts, CLONE_NEWNS) < 0)
    return cell_fail(err, "the host's mount namespace");
  struct stat st;
  cleanup_fd int etc = open("/etc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (etc >= 0 && fstat(etc, &st) < 0)
    return cell_fail(err, "the host's /etc");
  if (unshare(CLONE_NEWNS) < 0)
    return cell_fail(err, "a mount namespace");
  if (template_make(err) < 0)
    return -1;
  if (etc >= 0)
    template->changed = st.st_mtim;
  template->host_etc = imd_take_fd(&etc);
  return 0;
}
