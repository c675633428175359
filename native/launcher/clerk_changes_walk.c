#define _GNU_SOURCE
#include "clerk_changes.h"
#include "kernel.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

enum { HASHED_ANYHOW = 64 << 20, OVERLAY_HANDLE = 21 };   /* struct ovl_fb up to its fid; fs/overlayfs/overlayfs.h */

/* The name of a directory that only we make in a captured one. */
static const char staging_prefix[] = ".immured-";

struct entry {                     /* one name on either side */
  struct stat st;
  char *link;
  struct handle handle;            /* above: where it was copied from; below: its own */
  int64_t ctime_ns, mtime_ns;
  bool there, opaque;
  int error;                       /* why nobody knows; 0 */
};

struct walk {
  struct captured *captured;
  struct changes *changes;
  struct refusal *refusal;
  uint64_t *seen;                  /* handles of what is there on the host still, hashed */
  size_t seen_count, seen_space;
};

static int64_t nanoseconds(const struct timespec *time)
{
  return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec;
}

static int out_of_memory(struct refusal *refusal)
{
  return changes_refuse(refusal, IMD_CHANGES_TOO_MANY, ENOMEM, "the change set does not fit into memory");
}

static char *join(const char *directory, const char *name)
{
  char *path = NULL;
  if (asprintf(&path, "%s%s%s", directory, directory[0] ? "/" : "", name) < 0)
    return NULL;
  return path;
}

static char *read_link(int fd)
{
  char text[PATH_MAX];
  const ssize_t size = readlinkat(fd, "", text, sizeof text - 1);
  if (size < 0)
    return NULL;
  text[size] = '\0';
  return strdup(text);
}

static void forget(struct entry *entry)
{
  free(entry->link);
}
#define cleanup_entry __attribute__((cleanup(forget)))

/* --- the layer's side -------------------------------------------------------------------------------------------- */

static ssize_t layer_attribute(int directory, const char *name, const char *attribute, void *value, size_t size)
{
  /* By name: what is open by O_PATH has no attributes to be read. */
  return fchdir(directory) < 0 ? -1 : lgetxattr(name, attribute, value, size);
}

static void read_origin(int directory, const char *name, struct handle *origin)
{
  uint8_t raw[OVERLAY_HANDLE + sizeof origin->bytes];
  const ssize_t size = layer_attribute(directory, name, "trusted.overlay.origin", raw, sizeof raw);
  if (size <= OVERLAY_HANDLE || raw[1] != 0xfb || raw[2] != size)
    return;
  origin->type = raw[4];
  origin->size = (uint8_t)(size - OVERLAY_HANDLE);
  memcpy(origin->bytes, raw + OVERLAY_HANDLE, origin->size);
}

/* The clerk's rights are up. */
static int look_above(int directory, const char *name, struct entry *entry)
{
  cleanup_fd int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &entry->st) < 0)
    return -1;
  entry->there = true;
  if (S_ISLNK(entry->st.st_mode) && !(entry->link = read_link(fd)))
    return -1;
  if (S_ISREG(entry->st.st_mode) || S_ISDIR(entry->st.st_mode))
    read_origin(directory, name, &entry->handle);
  char opaque = '\0';
  entry->opaque = S_ISDIR(entry->st.st_mode) &&
                  layer_attribute(directory, name, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y';
  return 0;
}

static bool is_whiteout(const struct entry *entry)
{
  return entry->there && S_ISCHR(entry->st.st_mode) && entry->st.st_rdev == makedev(0, 0);
}

/* --- the host's side --------------------------------------------------------------------------------------------- */

static void own_handle(int fd, struct handle *handle)
{
  union { struct file_handle head; char space[sizeof(struct file_handle) + sizeof handle->bytes]; } found;
  int mount;
  found.head.handle_bytes = sizeof handle->bytes;
  if (name_to_handle_at(fd, "", &found.head, &mount, AT_EMPTY_PATH) < 0 || found.head.handle_bytes > sizeof handle->bytes)
    return;
  handle->type = (uint8_t)found.head.handle_type;
  handle->size = (uint8_t)found.head.handle_bytes;
  memcpy(handle->bytes, found.head.f_handle, handle->size);
}

static bool is_nothing(int error)
{
  return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG;
}

static void look_below(struct captured *captured, const char *path, struct entry *entry)
{
  captured->looked++;
  cleanup_fd int fd = changes_open_below(captured, path, O_PATH | O_NOFOLLOW);
  if (fd < 0 || fstat(fd, &entry->st) < 0) {
    entry->error = is_nothing(errno) ? 0 : errno;
    return;
  }
  entry->there = true;
  entry->ctime_ns = nanoseconds(&entry->st.st_ctim);
  entry->mtime_ns = nanoseconds(&entry->st.st_mtim);
  own_handle(fd, &entry->handle);
  if (S_ISLNK(entry->st.st_mode) && !(entry->link = read_link(fd)))
    entry->error = errno;
}

static enum imd_change_trouble trouble_of(const struct captured *captured, const char *path, const struct entry *below)
{
  if (below->error)
    return below->error == EXDEV ? IMD_CHANGE_MOUNTED : IMD_CHANGE_HIDDEN;
  if (!below->there)
    return IMD_CHANGE_FREE;
  if (below->st.st_uid != captured->clerk->run->peer.uid)
    return IMD_CHANGE_FOREIGN;
  if (accepted_holds(captured, path, below->st.st_ino, below->ctime_ns))
    return IMD_CHANGE_FREE;
  return below->ctime_ns > (int64_t)captured->place->made_ns ? IMD_CHANGE_CHANGED : IMD_CHANGE_FREE;
}

static uint64_t hashed(const struct handle *handle)
{
  uint64_t hash = 14695981039346656037u;               /* FNV-1a: for a look-up, and for nothing that must hold */
  for (size_t i = 0; i < handle->size; i++)
    hash = (hash ^ handle->bytes[i]) * 1099511628211u;
  return hash;
}

static int compare_hashes(const void *a, const void *b)
{
  const uint64_t one = *(const uint64_t *)a, two = *(const uint64_t *)b;
  return one < two ? -1 : one > two;
}

static int note_seen(struct walk *walk, const struct entry *below)
{
  if (!below->there || below->handle.size == 0)
    return 0;
  if (walk->seen_count == walk->seen_space) {
    const size_t space = walk->seen_space ? 2 * walk->seen_space : 256;
    uint64_t *seen = realloc(walk->seen, space * sizeof *seen);
    if (!seen)
      return out_of_memory(walk->refusal);
    walk->seen = seen;
    walk->seen_space = space;
  }
  walk->seen[walk->seen_count++] = hashed(&below->handle);
  return 0;
}

/* What of a directory's that is to go has changed; `count`: its names. */
static int look_beneath(struct walk *walk, const char *path, unsigned depth, uint64_t *count,
                        enum imd_change_trouble *trouble)
{
  struct captured *captured = walk->captured;
  cleanup_fd int fd = changes_open_below(captured, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  DIR *directory = fd < 0 ? NULL : fdopendir(fd);
  if (!directory) {
    if (*trouble == IMD_CHANGE_FREE)
      *trouble = errno == EXDEV ? IMD_CHANGE_MOUNTED : IMD_CHANGE_HIDDEN;
    return 0;
  }
  imd_take_fd(&fd);
  int result = depth > IMD_CHANGES_MAX_DEPTH ? changes_refuse(walk->refusal, IMD_CHANGES_TOO_MANY, 0, "%s: too deep", path) : 0;
  for (const struct dirent *name; result == 0 && (name = readdir(directory)) != NULL;) {
    if (strcmp(name->d_name, ".") == 0 || strcmp(name->d_name, "..") == 0)
      continue;
    cleanup_free char *child = join(path, name->d_name);
    cleanup_entry struct entry below = {.there = false};
    if (!child) {
      result = out_of_memory(walk->refusal);
      break;
    }
    look_below(captured, child, &below);
    ++*count;
    if (note_seen(walk, &below) < 0) {
      result = -1;
      break;
    }
    if (*trouble == IMD_CHANGE_FREE)
      *trouble = trouble_of(captured, child, &below);
    if (captured->looked > IMD_CHANGES_MAX_LOOKED)
      result = changes_refuse(walk->refusal, IMD_CHANGES_TOO_MANY, 0, "%s: too many names", path);
    else if (below.there && S_ISDIR(below.st.st_mode))
      result = look_beneath(walk, child, depth + 1, count, trouble);
  }
  closedir(directory);
  return result;
}

/* --- a change ---------------------------------------------------------------------------------------------------- */

static bool beneath(const char *path, const char *directory)
{
  /* As if case did not count: on some file systems it does not. */
  const size_t size = strlen(directory);
  return strncasecmp(path, directory, size) == 0 && (path[size] == '\0' || path[size] == '/' || size == 0);
}

static bool is_protected(const struct captured *captured, const struct change *change)
{
  const bool removes = S_ISDIR(change->before_mode) && !S_ISDIR(change->after_mode);
  for (size_t i = 0; i < captured->protect_count; i++) {
    const char *protect = captured->protects[i];
    if (beneath(change->path, protect) || (change->from && beneath(change->from, protect)) ||
        (removes && beneath(protect, change->path)))
      return true;
  }
  return strncasecmp(change->path, staging_prefix, strlen(staging_prefix)) == 0;
}

bool changes_is_conflict(const struct change *change)
{
  return change->trouble != IMD_CHANGE_FREE && change->trouble <= IMD_CHANGE_LAST_CONFLICT;
}

static struct change *add(struct walk *walk, const char *path, enum imd_change_kind kind)
{
  struct changes *changes = walk->changes;
  if (strlen(path) >= PATH_MAX) {
    changes_refuse(walk->refusal, IMD_CHANGES_TOO_MANY, ENAMETOOLONG, "%.200s...", path);
    return NULL;
  }
  if (changes->count == IMD_CHANGES_MAX_ROWS) {
    changes_refuse(walk->refusal, IMD_CHANGES_TOO_MANY, 0, "more than %d changes", IMD_CHANGES_MAX_ROWS);
    return NULL;
  }
  if (changes->count == changes->space) {
    const size_t space = changes->space ? 2 * changes->space : 64;
    struct change *at = realloc(changes->at, space * sizeof *at);
    if (!at) {
      out_of_memory(walk->refusal);
      return NULL;
    }
    changes->at = at;
    changes->space = space;
  }
  struct change *change = &changes->at[changes->count];
  *change = (struct change){.path = strdup(path), .kind = kind};
  if (!change->path) {
    out_of_memory(walk->refusal);
    return NULL;
  }
  changes->count++;
  return change;
}

static uint64_t size_of(const struct stat *st)
{
  return S_ISREG(st->st_mode) || S_ISLNK(st->st_mode) ? (uint64_t)st->st_size : 0;
}

static void digest_link(const char *link, uint8_t digest[SHA256_SIZE])
{
  struct sha256 sum;
  sha256_begin(&sum);
  sha256_add(&sum, link, strlen(link));
  sha256_end(&sum, digest);
}

static void tell_before(struct change *change, struct entry *below)
{
  if (!below->there)
    return;
  change->before_mode = below->st.st_mode;
  change->before_size = size_of(&below->st);
  change->before_device = below->st.st_dev;
  change->before_inode = below->st.st_ino;
  change->before_mtime_ns = below->mtime_ns;
  change->before_uid = below->st.st_uid;
  change->before_link = below->link;
  below->link = NULL;
  if (change->before_link)
    digest_link(change->before_link, change->before_digest);
}

static void tell_after(struct change *change, struct entry *above)
{
  change->after_mode = above->st.st_mode;
  change->after_size = size_of(&above->st);
  change->after_link = above->link;
  above->link = NULL;
  if (change->after_link)
    digest_link(change->after_link, change->after_digest);
}

/* A regular file's on the host; false: nobody may read it, or it changed its length meanwhile. */
static bool digest_below(const struct captured *captured, const char *path, const struct entry *below, uint8_t *digest)
{
  cleanup_fd int found = changes_open_below(captured, path, O_PATH | O_NOFOLLOW);
  struct stat st;
  if (found < 0 || fstat(found, &st) < 0 || !S_ISREG(st.st_mode) || st.st_ino != below->st.st_ino)
    return false;
  cleanup_fd int file = changes_reopen(captured, found, O_RDONLY | O_NONBLOCK | O_NOCTTY);
  return file >= 0 && changes_digest(file, (uint64_t)below->st.st_size, digest) == 0;
}

static bool digest_above(const struct captured *captured, const char *path, uint64_t size, uint8_t *digest)
{
  struct stat st;
  cleanup_fd int file = changes_open_above(captured, path, &st);
  return file >= 0 && changes_digest(file, size, digest) == 0;
}

static enum imd_change_trouble unacceptable(const struct captured *captured, const struct entry *above)
{
  const mode_t mode = above->st.st_mode;
  if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
    return IMD_CHANGE_SPECIAL;
  if (!S_ISDIR(mode) && (mode & (S_ISUID | S_ISGID)))
    return IMD_CHANGE_SETID;
  if (S_ISREG(mode) && (uint64_t)above->st.st_size > captured->largest)
    return IMD_CHANGE_HUGE;
  return IMD_CHANGE_FREE;
}

/* A directory's inherited group bit is not the payload's business. */
static mode_t mode_bits(mode_t mode)
{
  return mode & (S_ISDIR(mode) ? 01777 : 07777);
}

/* It was copied from another file than the one that is there. */
static bool is_foreign(const struct entry *above, const struct entry *below)
{
  const struct handle *from = &above->handle, *now = &below->handle;
  return below->there && from->size > 0 && now->size > 0 &&
         (from->type != now->type || from->size != now->size || memcmp(from->bytes, now->bytes, from->size) != 0);
}

static int note_deleted(struct walk *walk, const char *path, struct entry *below)
{
  struct change *change = add(walk, path, IMD_CHANGE_DELETED);
  if (!change)
    return -1;
  change->origin = below->handle;
  enum imd_change_trouble trouble = trouble_of(walk->captured, path, below);
  tell_before(change, below);
  if (S_ISDIR(change->before_mode)) {
    uint64_t count = 0;
    if (look_beneath(walk, path, 0, &count, &trouble) < 0)
      return -1;
    change->before_size = count;
  }
  change->trouble = is_protected(walk->captured, change) ? IMD_CHANGE_PROTECTED : trouble;
  return 0;
}

/* Anything but a directory over a directory. `replaced`: above it stands another directory than there was. */
static int note_written(struct walk *walk, const char *path, struct entry *above, struct entry *below, bool replaced)
{
  struct captured *captured = walk->captured;
  const mode_t before = below->st.st_mode, after = above->st.st_mode;
  const bool same_kind = below->there && (before & S_IFMT) == (after & S_IFMT);
  enum imd_change_trouble refused = unacceptable(captured, above);
  uint8_t before_digest[SHA256_SIZE] = {0}, after_digest[SHA256_SIZE] = {0};
  if (S_ISREG(after) && refused != IMD_CHANGE_HUGE &&
      !digest_above(captured, path, (uint64_t)above->st.st_size, after_digest))
    refused = IMD_CHANGE_UNREADABLE;
  bool readable = true;
  if (below->there && S_ISREG(before) && (below->st.st_size == above->st.st_size || below->st.st_size <= HASHED_ANYHOW))
    readable = digest_below(captured, path, below, before_digest);

  const bool same = same_kind && refused != IMD_CHANGE_UNREADABLE && readable &&
                    (S_ISREG(after) ? below->st.st_size == above->st.st_size &&
                                          memcmp(before_digest, after_digest, SHA256_SIZE) == 0
                     : S_ISLNK(after) ? below->link && strcmp(below->link, above->link) == 0
                                      : S_ISDIR(after));
  const bool same_mode = S_ISLNK(after) || mode_bits(before) == mode_bits(after);
  if (same && same_mode)
    return 0;

  struct change *change = add(walk, path, !below->there ? IMD_CHANGE_CREATED : same ? IMD_CHANGE_MODE : IMD_CHANGE_MODIFIED);
  if (!change)
    return -1;
  change->origin = above->handle;
  enum imd_change_trouble trouble = trouble_of(captured, path, below);
  if (trouble == IMD_CHANGE_FREE && !readable)
    trouble = IMD_CHANGE_HIDDEN;
  if (trouble == IMD_CHANGE_FREE && replaced && below->there &&
      !accepted_holds(captured, path, below->st.st_ino, below->ctime_ns))
    trouble = IMD_CHANGE_REPLACED;
  if (S_ISDIR(before) && below->there && !S_ISDIR(after)) {
    uint64_t count = 0;
    if (look_beneath(walk, path, 0, &count, &trouble) < 0)
      return -1;
  }
  /* Whether that is a conflict is told when it is known what was renamed (settle_origins). */
  change->foreign = S_ISREG(after) && is_foreign(above, below) &&
                    !accepted_holds(captured, path, below->st.st_ino, below->ctime_ns);
  tell_before(change, below);
  tell_after(change, above);
  if (S_ISREG(before))
    memcpy(change->before_digest, before_digest, SHA256_SIZE);
  if (S_ISREG(after))
    memcpy(change->after_digest, after_digest, SHA256_SIZE);
  change->trouble = refused != IMD_CHANGE_FREE ? refused
                    : is_protected(captured, change) ? IMD_CHANGE_PROTECTED
                                                     : trouble;
  return 0;
}

/* --- the walk ---------------------------------------------------------------------------------------------------- */

struct names { char **at; size_t count, space; };

static void names_free(struct names *names)
{
  for (size_t i = 0; i < names->count; i++)
    free(names->at[i]);
  free(names->at);
}

static int compare_names(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Consumes `fd`. */
static int names_read(int fd, struct names *names)
{
  DIR *directory = fd < 0 ? NULL : fdopendir(fd);
  if (!directory) {
    if (fd >= 0)
      close(fd);
    return -1;
  }
  int result = 0;
  errno = 0;
  for (const struct dirent *name; result == 0 && (name = readdir(directory)) != NULL; errno = 0) {
    if (strcmp(name->d_name, ".") == 0 || strcmp(name->d_name, "..") == 0)
      continue;
    if (names->count > IMD_CHANGES_MAX_LOOKED) {
      errno = E2BIG;
      result = -1;
    } else if (names->count == names->space) {
      const size_t space = names->space ? 2 * names->space : 32;
      char **at = realloc(names->at, space * sizeof *at);
      if (!at) {
        result = -1;
        break;
      }
      names->at = at;
      names->space = space;
    }
    if (result == 0 && !(names->at[names->count] = strdup(name->d_name)))
      result = -1;
    else if (result == 0)
      names->count++;
  }
  if (errno != 0)
    result = -1;
  const int error = errno;
  closedir(directory);
  errno = error;
  if (result == 0 && names->count > 1)
    qsort(names->at, names->count, sizeof *names->at, compare_names);
  return result;
}

static int walk_directory(struct walk *walk, int upper, const char *path, bool merged, bool opaque, bool replaced,
                          unsigned depth);

static int walk_one(struct walk *walk, int upper, const char *name, const char *path, bool merged, bool replaced,
                    unsigned depth)
{
  struct captured *captured = walk->captured;
  cleanup_entry struct entry above = {.there = false}, below = {.there = false};
  changes_above();
  const int found = look_above(upper, name, &above);
  cleanup_fd int inner = found == 0 && S_ISDIR(above.st.st_mode)
                             ? openat(upper, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                             : -1;
  changes_below();
  if (found < 0)                   /* it went while we looked: the sandbox lives */
    return errno == ENOENT ? 0 : changes_refuse(walk->refusal, IMD_CHANGES_FAILED, errno, "the layer's %s", path);
  if (merged)
    look_below(captured, path, &below);
  if (!is_whiteout(&above) && note_seen(walk, &below) < 0)
    return -1;
  if (is_whiteout(&above))
    return below.there || below.error ? note_deleted(walk, path, &below) : 0;
  if (!S_ISDIR(above.st.st_mode))
    return note_written(walk, path, &above, &below, replaced);

  const bool over = below.there && S_ISDIR(below.st.st_mode);
  const bool other = over && is_foreign(&above, &below);
  const bool opaque = above.opaque;
  if (note_written(walk, path, &above, &below, replaced || other) < 0)
    return -1;
  return inner < 0 ? 0 : walk_directory(walk, inner, path, over, opaque, replaced || other, depth + 1);
}

static bool holds_name(const struct names *names, const char *name)
{
  return names->count > 0 && bsearch(&name, names->at, names->count, sizeof *names->at, compare_names) != NULL;
}

static int walk_hidden(struct walk *walk, const char *path, const struct names *shown)
{
  struct captured *captured = walk->captured;
  __attribute__((cleanup(names_free))) struct names below = {.count = 0};
  const int directory = changes_open_below(captured, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  /* One that is closed to its caller: what it holds can neither be told nor removed before its mode lets him in. */
  if (directory < 0 && errno == EACCES)
    return 0;
  if (names_read(directory, &below) < 0)
    return errno == E2BIG ? changes_refuse(walk->refusal, IMD_CHANGES_TOO_MANY, 0, "%s: too many names", path)
                          : changes_refuse(walk->refusal, IMD_CHANGES_DENIED, errno, "%s on the host", path);
  for (size_t i = 0; i < below.count; i++) {
    if (holds_name(shown, below.at[i]))
      continue;
    cleanup_free char *child = join(path, below.at[i]);
    cleanup_entry struct entry entry = {.there = false};
    if (!child)
      return out_of_memory(walk->refusal);
    look_below(captured, child, &entry);
    if ((entry.there || entry.error) && note_deleted(walk, child, &entry) < 0)
      return -1;
    if (captured->looked > IMD_CHANGES_MAX_LOOKED)
      return changes_refuse(walk->refusal, IMD_CHANGES_TOO_MANY, 0, "%s: too many names", path);
  }
  return 0;
}

/* `merged`: a directory of the same path lies below; `opaque`: nothing of it shows. */
static int walk_directory(struct walk *walk, int upper, const char *path, bool merged, bool opaque, bool replaced,
                          unsigned depth)
{
  if (depth > IMD_CHANGES_MAX_DEPTH)
    return changes_refuse(walk->refusal, IMD_CHANGES_TOO_MANY, 0, "%.200s...: more than %d directories deep", path,
                          IMD_CHANGES_MAX_DEPTH);
  __attribute__((cleanup(names_free))) struct names names = {.count = 0};
  changes_above();
  const int readable = openat(upper, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  changes_below();
  if (names_read(readable, &names) < 0)
    return changes_refuse(walk->refusal, errno == E2BIG ? IMD_CHANGES_TOO_MANY : IMD_CHANGES_FAILED, errno,
                          "the layer's %s", path);
  for (size_t i = 0; i < names.count; i++) {
    cleanup_free char *child = join(path, names.at[i]);
    if (!child)
      return out_of_memory(walk->refusal);
    if (walk_one(walk, upper, names.at[i], child, merged, replaced, depth) < 0)
      return -1;
  }
  return merged && opaque ? walk_hidden(walk, path, &names) : 0;
}

/* --- what was renamed -------------------------------------------------------------------------------------------- */

static int compare_handles(const void *a, const void *b)
{
  const struct handle *one = &(*(struct change *const *)a)->origin, *two = &(*(struct change *const *)b)->origin;
  const int sizes = (int)one->size - (int)two->size, types = (int)one->type - (int)two->type;
  return sizes ? sizes : types ? types : memcmp(one->bytes, two->bytes, one->size);
}

static int compare_paths(const void *a, const void *b)
{
  return strcmp(((const struct change *)a)->path, ((const struct change *)b)->path);
}

/* A copy knows what it was copied from: where that is gone from its own name, the file was moved. */
static int settle_origins(struct walk *walk)
{
  struct changes *changes = walk->changes;
  struct change **gone = calloc(changes->count + 1, sizeof(struct change *));
  size_t count = 0;
  if (!gone)
    return out_of_memory(walk->refusal);
  for (size_t i = 0; i < changes->count; i++)
    if (changes->at[i].kind == IMD_CHANGE_DELETED && S_ISREG(changes->at[i].before_mode) && changes->at[i].origin.size > 0)
      gone[count++] = &changes->at[i];
  if (count > 1)
    qsort(gone, count, sizeof(struct change *), compare_handles);
  if (walk->seen_count > 1)
    qsort(walk->seen, walk->seen_count, sizeof *walk->seen, compare_hashes);
  for (size_t i = 0; i < changes->count; i++) {
    struct change *change = &changes->at[i];
    if ((change->kind != IMD_CHANGE_CREATED && change->kind != IMD_CHANGE_MODIFIED) || change->origin.size == 0)
      continue;
    struct change **found =
        S_ISREG(change->after_mode) && count > 0 ? bsearch(&change, gone, count, sizeof(struct change *), compare_handles)
                                                 : NULL;
    if (found && (*found)->kind == IMD_CHANGE_DELETED) {
      struct change *former = *found;
      if (change->kind != IMD_CHANGE_CREATED)
        continue;                  /* moved over another: both are told, the one as gone, the other as changed */
      change->kind = IMD_CHANGE_RENAMED;
      change->from = former->path;
      change->before_mode = former->before_mode;
      change->before_size = former->before_size;
      change->before_device = former->before_device;
      change->before_inode = former->before_inode;
      change->before_mtime_ns = former->before_mtime_ns;
      change->before_uid = former->before_uid;
      if (former->trouble == IMD_CHANGE_PROTECTED || change->trouble == IMD_CHANGE_FREE)
        change->trouble = former->trouble;
      former->path = NULL;         /* it is this one now */
      former->kind = 0;
      const struct entry below = {.st = {.st_ino = former->before_inode, .st_size = (off_t)former->before_size}};
      if (former->before_size <= HASHED_ANYHOW)
        digest_below(walk->captured, change->from, &below, change->before_digest);
      continue;
    }
    const uint64_t hash = hashed(&change->origin);
    const bool seen = walk->seen_count > 0 && bsearch(&hash, walk->seen, walk->seen_count, sizeof hash, compare_hashes);
    if (change->trouble == IMD_CHANGE_FREE && !found && !seen && (change->foreign || change->kind == IMD_CHANGE_CREATED))
      change->trouble = change->foreign ? IMD_CHANGE_REPLACED : IMD_CHANGE_GONE;
  }
  free(gone);
  size_t kept = 0;
  for (size_t i = 0; i < changes->count; i++) {
    if (changes->at[i].path)
      changes->at[kept++] = changes->at[i];
    else
      free(changes->at[i].before_link);
  }
  changes->count = kept;
  return 0;
}

int changes_find(struct captured *captured, struct changes *changes, struct refusal *refusal)
{
  struct walk walk = {.captured = captured, .changes = changes, .refusal = refusal};
  cleanup_entry struct entry above = {.there = false}, below = {.there = false};
  captured->looked = 0;
  if (fstat(captured->upper, &above.st) < 0 || fstat(captured->host, &below.st) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, errno, "the captured directory");
  if ((above.st.st_mode & 0777) != (below.st.st_mode & 0777)) {
    struct change *change = add(&walk, "", IMD_CHANGE_MODE);
    if (!change)
      return -1;
    above.there = below.there = true;
    below.ctime_ns = nanoseconds(&below.st.st_ctim);
    tell_before(change, &below);
    tell_after(change, &above);
  }
  char opaque = '\0';
  changes_above();
  const bool hides = fgetxattr(captured->upper, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y';
  changes_below();
  const int result =
      walk_directory(&walk, captured->upper, "", true, hides, false, 0) < 0 ? -1 : settle_origins(&walk);
  free(walk.seen);
  if (result < 0)
    return -1;
  if (changes->count > 1)
    qsort(changes->at, changes->count, sizeof *changes->at, compare_paths);
  return 0;
}

void changes_free(struct changes *changes)
{
  for (size_t i = 0; i < changes->count; i++) {
    free(changes->at[i].path);
    free(changes->at[i].from);
    free(changes->at[i].before_link);
    free(changes->at[i].after_link);
  }
  free(changes->at);
  *changes = (struct changes){.at = NULL};
}
