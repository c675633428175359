#define _GNU_SOURCE
#include "clerk_changes.h"
#include "clerk_rights.h"
#include "kernel.h"
#include "landlock.h"
#include "message.h"
#include "util.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

enum { DESCRIPTORS = 4 * IMD_CHANGES_MAX_DEPTH + 64, BODY = 60 << 10, TOLD_WITH_REFUSAL = 32 };

#define CAP CLERK_CAP
/* A layer holds what a payload made, of whatever mode; what overlayfs noted there is for who may administer. */
#define READS_LAYERS (CAP(CAP_DAC_READ_SEARCH) | CAP(CAP_SYS_ADMIN))
/* Also what overlayfs then does with who laid it. */
#define CLEARS_LAYERS                                                                                                  \
  (READS_LAYERS | CAP(CAP_DAC_OVERRIDE) | CAP(CAP_FOWNER) | CAP(CAP_CHOWN))
#define BECOMES_PEER (READS_LAYERS | CAP(CAP_SYS_CHROOT) | CAP(CAP_SETUID) | CAP(CAP_SETGID))

static const uint32_t looking[] = {
    SYS_capset, SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_recvmsg, SYS_sendmsg, SYS_openat, SYS_openat2, SYS_newfstatat,
    SYS_fstat, SYS_statx, SYS_readlinkat, SYS_getdents64, SYS_fchdir, SYS_name_to_handle_at, SYS_lgetxattr, SYS_fgetxattr,
    SYS_flistxattr, SYS_fsetxattr, SYS_mkdirat, SYS_unlinkat, SYS_symlinkat, SYS_renameat2, SYS_fchown, SYS_fchmod,
    SYS_fchmodat, SYS_utimensat, SYS_ftruncate, SYS_syncfs, SYS_flock,
#ifdef SYS_renameat
    SYS_renameat,                  /* what the C library makes of renameat2 without a flag */
#endif
};
static const uint32_t clearing[] = {
    SYS_sendmsg, SYS_openat, SYS_openat2, SYS_newfstatat, SYS_fstat, SYS_statfs, SYS_getdents64, SYS_fchdir, SYS_fgetxattr,
    SYS_unlinkat, SYS_renameat2, SYS_fchown, SYS_fchmod, SYS_umount2, SYS_fsopen, SYS_fsconfig, SYS_fsmount,
    SYS_move_mount, SYS_landlock_add_rule,
};
#define filter(calls) clerk_filter((calls), sizeof(calls) / sizeof(calls)[0])

struct question {
  uint32_t verb;
  struct imd_changes_ask ask;
  char *texts;
  const char *target;
  char **paths, **skips, **protects;
};

int changes_refuse(struct refusal *refusal, enum imd_changes_refusal code, int error, const char *format, ...)
{
  va_list arguments;
  va_start(arguments, format);
  const int said = vsnprintf(refusal->text, sizeof refusal->text, format, arguments);
  va_end(arguments);
  if (error != 0 && said >= 0 && (size_t)said < sizeof refusal->text)
    snprintf(refusal->text + said, sizeof refusal->text - (size_t)said, ": %s", strerrordesc_np(error));
  refusal->code = code;
  refusal->error = error;
  return -1;
}

/* --- rights ------------------------------------------------------------------------------------------------------ */

void changes_above(void)
{
  if (clerk_capabilities(READS_LAYERS, READS_LAYERS) < 0)
    _exit(EXIT_FAILURE);
}

void changes_below(void)
{
  if (clerk_capabilities(READS_LAYERS, 0) < 0)
    _exit(EXIT_FAILURE);
}

/* Who asks, in the host's mount namespace: the caller's directory is opened anew, with the rights that he has today. */
static int become_peer(const struct clerk *clerk)
{
  const struct peer *peer = &clerk->peer;
  if (clerk_capabilities(BECOMES_PEER, BECOMES_PEER) < 0 || setns(clerk->cell->config->host_mounts, CLONE_NEWNS) < 0 || setgroups(peer->ngroups, peer->groups) < 0 ||
      setresgid(peer->gid, peer->gid, peer->gid) < 0 || prctl(PR_SET_KEEPCAPS, 1) < 0 ||
      setresuid(peer->uid, peer->uid, peer->uid) < 0 || clerk_capabilities(READS_LAYERS, 0) < 0 ||
      prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    return -1;
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
    return -1;
  return 0;
}

/* --- files ------------------------------------------------------------------------------------------------------- */

enum { BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV };

int changes_open_below(const struct captured *captured, const char *path, uint64_t flags)
{
  return sys_openat2(captured->host, path[0] ? path : ".", flags | O_CLOEXEC, 0, BENEATH);
}

int changes_parent_below(const struct captured *captured, const char *path, const char **name)
{
  const char *slash = strrchr(path, '/');
  char parent[PATH_MAX];
  *name = slash ? slash + 1 : path;
  if (slash && (size_t)(slash - path) >= sizeof parent) {
    errno = ENAMETOOLONG;
    return -1;
  }
  snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 0, path);
  return changes_open_below(captured, parent, O_PATH | O_DIRECTORY | O_NOFOLLOW);
}

int changes_reopen(const struct captured *captured, int fd, int flags)
{
  char name[32];
  snprintf(name, sizeof name, "self/fd/%d", fd);
  return openat(captured->clerk->cell->config->host_proc, name, flags | O_CLOEXEC);
}

int changes_open_above(const struct captured *captured, const char *path, struct stat *st)
{
  changes_above();
  cleanup_fd int fd = sys_openat2(captured->upper, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0,
                                  BENEATH);
  changes_below();
  if (fd < 0 || fstat(fd, st) < 0)
    return -1;
  if (!S_ISREG(st->st_mode)) {
    errno = EINVAL;
    return -1;
  }
  return imd_take_fd(&fd);
}

int changes_digest(int fd, uint64_t size, uint8_t digest[SHA256_SIZE])
{
  static uint8_t buffer[1 << 18];
  struct sha256 sum;
  uint64_t done = 0;
  sha256_begin(&sum);
  for (;;) {
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return -1;
    if (got == 0)
      break;
    sha256_add(&sum, buffer, (size_t)got);
    done += (uint64_t)got;
    if (done > size)
      break;                       /* it grows under us */
  }
  sha256_end(&sum, digest);
  errno = EAGAIN;
  return done == size ? 0 : -1;
}

/* --- the question ------------------------------------------------------------------------------------------------ */

static bool is_inner_path(const char *path)
{
  if (path[0] == '/' || strlen(path) >= PATH_MAX)
    return false;
  for (const char *at = path; *at; at += strspn(at, "/")) {
    const size_t size = strcspn(at, "/");
    if ((size == 1 && at[0] == '.') || (size == 2 && at[0] == '.' && at[1] == '.'))
      return false;
    at += size;
  }
  return true;
}

static char **take_texts(char **at, const char *end, uint32_t count, bool inner)
{
  char **texts = calloc((size_t)count + 1, sizeof *texts);
  for (uint32_t i = 0; texts && i < count; i++) {
    uint32_t length;
    if ((size_t)(end - *at) < sizeof length)
      return NULL;
    memcpy(&length, *at, sizeof length);
    *at += sizeof length;
    if ((size_t)(end - *at) < length || memchr(*at, '\0', length))
      return NULL;
    /* The length before the next is read already when its place becomes this one's NUL: so the texts move down. */
    texts[i] = *at - sizeof length;
    memmove(texts[i], *at, length);
    texts[i][length] = '\0';
    *at += length;
    if (inner && !is_inner_path(texts[i]))
      return NULL;
  }
  return texts;
}

static int read_question(const struct clerk *clerk, struct question *question, struct refusal *refusal)
{
  _Alignas(8) char packet[sizeof(struct imd_header) + sizeof(struct imd_changes_ask)];
  cleanup_fds struct imd_fds fds = {.count = 0};
  struct stat st;
  if (imd_recv_packet(clerk->socket, packet, sizeof packet, &fds, 0) != (ssize_t)sizeof packet || fds.count != 1 ||
      fstat(fds.fd[0], &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > IMD_CHANGES_MAX_TEXTS)
    return changes_refuse(refusal, IMD_CHANGES_BAD_QUESTION, 0, "no question");
  const struct imd_header *header = (const void *)packet;
  question->verb = header->type;
  memcpy(&question->ask, header + 1, sizeof question->ask);
  const size_t size = (size_t)st.st_size;
  question->texts = calloc(1, size + 1);
  if (!question->texts || pread(fds.fd[0], question->texts, size, 0) != (ssize_t)size)
    return changes_refuse(refusal, IMD_CHANGES_BAD_QUESTION, 0, "no texts");
  char *at = question->texts, *const end = at + size;
  const struct imd_changes_ask *ask = &question->ask;
  char **target = NULL;
  if (ask->paths > size / 4 || ask->skips > size / 4 || ask->protects > size / 4 ||
      !(target = take_texts(&at, end, 1, false)) || !(question->paths = take_texts(&at, end, ask->paths, true)) ||
      !(question->skips = take_texts(&at, end, ask->skips, true)) ||
      !(question->protects = take_texts(&at, end, ask->protects, true)) || at != end)
    return changes_refuse(refusal, IMD_CHANGES_BAD_QUESTION, 0, "texts that are none");
  question->target = target[0];
  return 0;
}

/* --- answers ----------------------------------------------------------------------------------------------------- */

static int say(const struct clerk *clerk, uint32_t word, const struct imd_changes_answer *answer, const void *body,
               size_t size, const int *fds, uint32_t count)
{
  const struct iovec pieces[] = {{(void *)(uintptr_t)answer, sizeof *answer}, {(void *)(uintptr_t)body, size}};
  return imd_send_packet(clerk->socket, word, 0, pieces, 2, fds, count, 0);
}

_Noreturn static void say_refused(const struct clerk *clerk, const struct refusal *refusal)
{
  const struct imd_changes_answer answer = {.count = refusal->count, .code = refusal->code, .error = refusal->error,
                                            .length = (uint32_t)strnlen(refusal->text, sizeof refusal->text)};
  say(clerk, IMD_CHANGES_REFUSED, &answer, refusal->text, answer.length, NULL, 0);
  _exit(EXIT_SUCCESS);
}

int changes_say_begun(const struct captured *captured)
{
  const struct imd_changes_answer answer = {.count = 0};
  struct imd_changes_begun begun = {.inode = captured->place->inode};
  struct imd_header heard;
  struct imd_fds fds = {.count = 0};
  memcpy(begun.journal, captured->journal, sizeof begun.journal);
  memcpy(begun.staging, captured->staging, sizeof begun.staging);
  if (say(captured->clerk, IMD_CHANGES_BEGUN, &answer, &begun, sizeof begun, NULL, 0) < 0)
    return -1;
  if (imd_recv_packet(captured->clerk->socket, (char *)&heard, sizeof heard, &fds, 0) == (ssize_t)sizeof heard &&
      fds.count == 0)
    return 0;
  errno = ECONNRESET;
  return -1;
}

static uint32_t length_of(const char *text)
{
  return text ? (uint32_t)strlen(text) : 0;
}

static uint32_t put_text(char *to, const char *text)
{
  const uint32_t length = length_of(text);
  if (length > 0)
    memcpy(to, text, length);
  return length;
}

/* Into `to`, which has room for the largest. */
static size_t pack(const struct change *change, char *to)
{
  struct imd_change row = {
      .kind = change->kind, .trouble = change->trouble, .before_mode = change->before_mode,
      .after_mode = change->after_mode, .before_size = change->before_size, .after_size = change->after_size,
      .path_length = length_of(change->path), .from_length = length_of(change->from),
      .before_link_length = length_of(change->before_link), .after_link_length = length_of(change->after_link)};
  memcpy(row.before_digest, change->before_digest, sizeof row.before_digest);
  memcpy(row.after_digest, change->after_digest, sizeof row.after_digest);
  char *at = to + sizeof row;
  at += put_text(at, change->path);
  at += put_text(at, change->from);
  at += put_text(at, change->before_link);
  at += put_text(at, change->after_link);
  while ((at - to) % 8 != 0)
    *at++ = '\0';
  row.length = (uint32_t)(at - to);
  memcpy(to, &row, sizeof row);
  return row.length;
}

enum { LARGEST_ROW = sizeof(struct imd_change) + 4 * PATH_MAX + 8 };

/* `which`: 0 all, else those chosen; at most `most`. */
static int say_rows(const struct clerk *clerk, const struct changes *changes, bool chosen, uint32_t most, uint32_t *told)
{
  static char body[BODY];
  size_t used = 0;
  struct imd_changes_answer answer = {.count = 0};
  *told = 0;
  for (size_t i = 0; i < changes->count && *told < most; i++) {
    if (chosen && !changes->at[i].chosen)
      continue;
    if (used + LARGEST_ROW > sizeof body) {
      if (say(clerk, IMD_CHANGES_ROWS, &answer, body, used, NULL, 0) < 0)
        return -1;
      used = answer.count = 0;
    }
    used += pack(&changes->at[i], body + used);
    answer.count++;
    ++*told;
  }
  return answer.count > 0 ? say(clerk, IMD_CHANGES_ROWS, &answer, body, used, NULL, 0) : 0;
}

/* Of everything that was changed, and to what: not of how the host stands to it. */
static void digest_set(const struct changes *changes, uint8_t set[SHA256_SIZE])
{
  static char row[LARGEST_ROW];
  struct sha256 sum;
  sha256_begin(&sum);
  for (size_t i = 0; i < changes->count; i++) {
    struct change plain = changes->at[i];
    plain.trouble = IMD_CHANGE_FREE;
    sha256_add(&sum, row, pack(&plain, row));
  }
  sha256_end(&sum, set);
}

/* --- what is chosen ---------------------------------------------------------------------------------------------- */

static bool lies_beneath(const char *path, const char *directory)
{
  const size_t size = strlen(directory);
  return size == 0 || (strncmp(path, directory, size) == 0 && (path[size] == '\0' || path[size] == '/'));
}

static struct change *find(const struct changes *changes, const char *path, size_t length)
{
  for (size_t low = 0, high = changes->count; low < high;) {
    const size_t middle = (low + high) / 2;
    const int order = strncmp(changes->at[middle].path, path, length);
    const int compared = order != 0 ? order : changes->at[middle].path[length] != '\0';
    if (compared == 0)
      return &changes->at[middle];
    if (compared < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}

static bool is_among(const struct change *change, char *const *paths, uint32_t count)
{
  for (uint32_t i = 0; i < count; i++)
    if (lies_beneath(change->path, paths[i]) || (change->from && lies_beneath(change->from, paths[i])))
      return true;
  return false;
}

/* A file in a directory that is new needs the directory. */
static int choose_above(const struct changes *changes, const struct change *change, const struct question *question,
                        struct refusal *refusal)
{
  for (const char *slash = strchr(change->path, '/'); slash; slash = strchr(slash + 1, '/')) {
    struct change *directory = find(changes, change->path, (size_t)(slash - change->path));
    if (!directory || (directory->kind != IMD_CHANGE_CREATED && directory->kind != IMD_CHANGE_MODIFIED))
      continue;
    if (is_among(directory, question->skips, question->ask.skips))
      return changes_refuse(refusal, IMD_CHANGES_INCOMPLETE, 0, "%s needs %s", change->path, directory->path);
    directory->chosen = true;
  }
  return 0;
}

static int choose(struct changes *changes, const struct question *question, struct refusal *refusal)
{
  const struct imd_changes_ask *ask = &question->ask;
  for (uint32_t p = 0; p < ask->paths; p++) {
    bool found = false;
    for (size_t i = 0; i < changes->count && !found; i++)
      found = is_among(&changes->at[i], &question->paths[p], 1);
    if (!found)
      return changes_refuse(refusal, IMD_CHANGES_NO_PLACE, 0, "no change of %s", question->paths[p]);
  }
  for (size_t i = 0; i < changes->count; i++)
    changes->at[i].chosen = (ask->paths == 0 || is_among(&changes->at[i], question->paths, ask->paths)) &&
                            !is_among(&changes->at[i], question->skips, ask->skips);
  for (size_t i = 0; i < changes->count; i++)
    if (changes->at[i].chosen && choose_above(changes, &changes->at[i], question, refusal) < 0)
      return -1;
  return 0;
}

/* --- verbs ------------------------------------------------------------------------------------------------------- */

static int open_host(struct captured *captured, struct refusal *refusal)
{
  const struct place *place = captured->place;
  cleanup_fd int found = sys_openat2(AT_FDCWD, place->source, O_PATH | O_CLOEXEC, 0, RESOLVE_NO_MAGICLINKS);
  struct statx about;
  if (found < 0)
    return changes_refuse(refusal, errno == EACCES ? IMD_CHANGES_DENIED : IMD_CHANGES_MOVED, errno, "%s", place->source);
  if (statx(found, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &about) < 0)
    return changes_refuse(refusal, IMD_CHANGES_MOVED, errno, "%s", place->source);
  if (about.stx_ino != place->inode || makedev(about.stx_dev_major, about.stx_dev_minor) != place->device)
    return changes_refuse(refusal, IMD_CHANGES_MOVED, 0, "%s is another directory than the one that was captured",
                          place->source);
  captured->host = changes_reopen(captured, found, O_RDONLY | O_DIRECTORY);
  return captured->host < 0 ? changes_refuse(refusal, IMD_CHANGES_DENIED, errno, "%s", place->source) : 0;
}

/*
 * From here on strangers' trees are walked. The right to read what anybody has is for the layer: where the kernel has
 * Landlock, it opens nothing besides; in the caller's directory his own rights are what counts.
 */
static int confine(const struct captured *captured)
{
  const uint64_t reads = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
  const uint64_t changes =
      reads | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
      LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
      LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
      LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER;
  if (landlock_rung() > 0) {
    cleanup_fd int rules = sys_landlock_create(&(struct landlock_ruleset){.files = changes});
    if (rules < 0 || sys_landlock_allow(rules, captured->host, changes) < 0 ||
        sys_landlock_allow(rules, captured->upper, reads) < 0 || sys_landlock_restrict(rules, 0) < 0)
      return -1;
  }
  return filter(looking);
}

static bool is_troubled(const struct change *change, const struct question *question, enum imd_changes_refusal *code)
{
  if (change->trouble == IMD_CHANGE_FREE)
    return false;
  *code = changes_is_conflict(change)                  ? IMD_CHANGES_CONFLICT
          : change->trouble == IMD_CHANGE_PROTECTED ? IMD_CHANGES_PROTECTED
                                                    : IMD_CHANGES_UNACCEPTABLE;
  return *code != IMD_CHANGES_CONFLICT || !(question->ask.flags & IMD_CHANGES_OVER_CONFLICTS);
}

/* What cannot be accepted, told with its rows: protected names first, since nothing helps there. */
static void check_troubles(const struct clerk *clerk, struct changes *changes, const struct question *question)
{
  static const enum imd_changes_refusal order[] = {IMD_CHANGES_PROTECTED, IMD_CHANGES_UNACCEPTABLE, IMD_CHANGES_CONFLICT};
  for (size_t o = 0; o < sizeof order / sizeof order[0]; o++) {
    struct refusal refusal = {.code = 0};
    enum imd_changes_refusal code = 0;
    for (size_t i = 0; i < changes->count; i++) {
      const struct change *change = &changes->at[i];
      if (!change->chosen || !is_troubled(change, question, &code) || code != order[o])
        continue;
      if (refusal.count++ == 0)
        changes_refuse(&refusal, code, 0, "%s", change->path);
    }
    if (refusal.count == 0)
      continue;
    for (size_t i = 0; i < changes->count; i++)
      changes->at[i].chosen &= is_troubled(&changes->at[i], question, &code) && code == order[o];
    uint32_t told;
    say_rows(clerk, changes, true, TOLD_WITH_REFUSAL, &told);
    say_refused(clerk, &refusal);
  }
}

static int check_right(const struct captured *captured, struct refusal *refusal)
{
  const struct clerk *clerk = captured->clerk;
  struct stat st;
  if (fstat(captured->host, &st) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, errno, "%s", captured->place->source);
  if (clerk->peer.uid == 0 || st.st_uid == 0)
    return changes_refuse(refusal, IMD_CHANGES_ROOT_OWNED, 0, "%s", captured->place->source);
  if (clerk->peer.uid != clerk->run->peer.uid)
    return changes_refuse(refusal, IMD_CHANGES_DENIED, 0, "uid %u captured %s, and uid %u asks", clerk->run->peer.uid,
                          captured->place->source, clerk->peer.uid);
  if (st.st_uid != clerk->peer.uid)
    return changes_refuse(refusal, IMD_CHANGES_DENIED, 0, "%s belongs to uid %u", captured->place->source, st.st_uid);
  return 0;
}

static int accept_chosen(struct captured *captured, struct changes *changes, const struct question *question,
                         struct imd_changes_answer *answer, struct refusal *refusal)
{
  if (check_right(captured, refusal) < 0)
    return -1;
  if ((question->ask.flags & IMD_CHANGES_AS_LISTED) && memcmp(question->ask.set, answer->set, SHA256_SIZE) != 0)
    return changes_refuse(refusal, IMD_CHANGES_DIFFERENT, 0, "the change set is not the one that was listed");
  if (choose(changes, question, refusal) < 0)
    return -1;
  check_troubles(captured->clerk, changes, question);
  if (changes_apply(captured, changes, refusal) < 0)
    return -1;
  say_rows(captured->clerk, changes, true, UINT32_MAX, &answer->count);
  return 0;
}

static int open_sides(struct captured *captured, struct changes *changes, const struct question *question,
                      struct refusal *refusal)
{
  struct change *change =
      question->ask.paths == 1 ? find(changes, question->paths[0], strlen(question->paths[0])) : NULL;
  if (!change)
    return changes_refuse(refusal, IMD_CHANGES_NO_PLACE, 0, "no change of %s",
                          question->ask.paths == 1 ? question->paths[0] : "that");
  static char row[LARGEST_ROW];
  cleanup_fd int before = -1;
  cleanup_fd int after = -1;
  struct stat st;
  if (S_ISREG(change->before_mode)) {
    cleanup_fd int found =
        changes_open_below(captured, change->from ? change->from : change->path, O_PATH | O_NOFOLLOW);
    if (found < 0 || fstat(found, &st) < 0 || !S_ISREG(st.st_mode) ||
        (before = changes_reopen(captured, found, O_RDONLY | O_NONBLOCK | O_NOCTTY)) < 0)
      return changes_refuse(refusal, IMD_CHANGES_DENIED, errno, "%s on the host", change->path);
  }
  if (S_ISREG(change->after_mode) && (after = changes_open_above(captured, change->path, &st)) < 0)
    return changes_refuse(refusal, IMD_CHANGES_DIFFERENT, errno, "%s in the layer", change->path);
  int fds[2];
  uint32_t count = 0;
  if (before >= 0)
    fds[count++] = before;
  if (after >= 0)
    fds[count++] = after;
  const struct imd_changes_answer answer = {.count = 1};
  say(captured->clerk, IMD_CHANGES_CONTENT, &answer, row, pack(change, row), fds, count);
  _exit(EXIT_SUCCESS);
}

/* That of a sandbox that is gone, or will find it done. */
static int recover_others(struct captured *captured, const struct question *question, struct refusal *refusal)
{
  static const char prefix[] = ".immured-";
  const struct imd_changes_ask *ask = &question->ask;
  struct imd_changes_answer answer = {.count = 0};
  struct stat st;
  if (check_right(captured, refusal) < 0)
    return -1;
  if (strnlen(ask->staging, sizeof ask->staging) == sizeof ask->staging ||
      strncmp(ask->staging, prefix, strlen(prefix)) != 0 || strchr(ask->staging, '/'))
    return changes_refuse(refusal, IMD_CHANGES_BAD_QUESTION, 0, "no staging directory");
  if (ask->inode != captured->place->inode)
    return changes_refuse(refusal, IMD_CHANGES_NO_PLACE, 0, "another directory");
  memcpy(captured->staging, ask->staging, sizeof captured->staging);
  memcpy(captured->journal, ask->journal, sizeof captured->journal);
  captured->others = true;
  answer.count = fstatat(captured->host, captured->staging, &st, AT_SYMLINK_NOFOLLOW) == 0;
  if (changes_recover(captured, refusal) < 0)
    return -1;
  say(captured->clerk, IMD_CHANGES_DONE, &answer, NULL, 0, NULL, 0);
  return 0;
}

static int look(struct captured *captured, const struct question *question, struct refusal *refusal)
{
  struct changes changes = {.at = NULL};
  struct imd_changes_answer answer = {.count = 0};
  struct statvfs space;
  if (accepted_load(captured) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, 0, "what was accepted before cannot be read");
  if (fstatvfs(captured->upper, &space) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, errno, "the layer");
  captured->largest = (uint64_t)space.f_blocks * space.f_frsize;
  if (open_host(captured, refusal) < 0)
    return -1;
  if (confine(captured) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, errno, "the clerk's rights");
  if (captured->staging[0] && captured->clerk->peer.uid == captured->clerk->run->peer.uid &&
      changes_recover(captured, refusal) < 0)
    return -1;
  if (question->verb == IMD_CHANGES_RECOVER)
    return recover_others(captured, question, refusal);
  if (changes_find(captured, &changes, refusal) < 0)
    return -1;
  digest_set(&changes, answer.set);
  if (question->verb == IMD_CHANGES_OPEN)
    return open_sides(captured, &changes, question, refusal);
  if (question->verb == IMD_CHANGES_ACCEPT) {
    if (accept_chosen(captured, &changes, question, &answer, refusal) < 0)
      return -1;
  } else if (say_rows(captured->clerk, &changes, false, UINT32_MAX, &answer.count) < 0) {
    return -1;
  }
  say(captured->clerk, IMD_CHANGES_DONE, &answer, NULL, 0, NULL, 0);
  return 0;
}

static int throw_away(struct captured *captured, const struct question *question, struct refusal *refusal)
{
  struct imd_changes_answer answer = {.count = 0};
  if (clerk_capabilities(CLEARS_LAYERS, CLEARS_LAYERS) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 || filter(clearing) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, errno, "the clerk's rights");
  if (changes_discard(captured, question->paths, question->ask.paths, &answer.count, refusal) < 0)
    return -1;
  say(captured->clerk, IMD_CHANGES_DONE, &answer, NULL, 0, NULL, 0);
  return 0;
}

static int answer(const struct clerk *clerk, const struct question *question, struct refusal *refusal)
{
  const struct place *place = NULL;
  for (uint32_t i = clerk->cell->places.count; i-- > 0 && !place;)
    if (clerk->cell->places.at[i].source && strcmp(clerk->cell->places.at[i].target, question->target) == 0)
      place = &clerk->cell->places.at[i];
  if (!place)
    return changes_refuse(refusal, IMD_CHANGES_NO_PLACE, 0, "%s is not captured", question->target);
  struct captured captured = {.place = place, .clerk = clerk, .upper = place->root, .host = -1,
                              .protects = question->protects, .protect_count = question->ask.protects};
  if (question->verb == IMD_CHANGES_DISCARD)
    return throw_away(&captured, question, refusal);
  if (question->verb < IMD_CHANGES_LIST || (question->verb > IMD_CHANGES_ACCEPT && question->verb != IMD_CHANGES_RECOVER))
    return changes_refuse(refusal, IMD_CHANGES_BAD_QUESTION, 0, "no verb");
  if (!clerk->attended)
    return changes_refuse(refusal, IMD_CHANGES_NOBODY, 0, "nobody's connection");
  if (become_peer(clerk) < 0)
    return changes_refuse(refusal, IMD_CHANGES_FAILED, errno, "to be uid %u", clerk->peer.uid);
  int keep[] = {clerk->socket, place->root, place->accepted, clerk->cell->config->host_proc};
  imd_close_others(keep, sizeof keep / sizeof keep[0]);
  return look(&captured, question, refusal);
}

_Noreturn void clerk_changes(const struct clerk *clerk)
{
  const struct rlimit descriptors = {DESCRIPTORS, DESCRIPTORS}, no_core = {0, 0};
  struct question question = {.verb = 0};
  struct refusal refusal = {.code = IMD_CHANGES_FAILED};
  prctl(PR_SET_NAME, "immured-changes");
  imd_reset_signals();
  signal(SIGPIPE, SIG_IGN);
  umask(0);
  if (setrlimit(RLIMIT_NOFILE, &descriptors) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0)
    _exit(EXIT_FAILURE);
  /* Not yet: only what one of the verbs may come to. */
  if (clerk_capabilities(BECOMES_PEER | CLEARS_LAYERS, 0) < 0)
    _exit(EXIT_FAILURE);
  if (read_question(clerk, &question, &refusal) < 0 || answer(clerk, &question, &refusal) < 0)
    say_refused(clerk, &refusal);
  _exit(EXIT_SUCCESS);
}
