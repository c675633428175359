/*
 * What PID 1 makes of calls, beside what the kernel does with them: any write-like call, with any path, also one that
 * memory ends before. It stands in a PID 1's place (of its own pid namespace, in a /proc without a parent); a child is
 * the payload, whose memory it reads and which then makes the call. It aborts where a descriptor of its own is left.
 *
 * Needs root. Descriptor 0 is a stream socket: each question is a struct question, each answer a struct answer.
 */
#include "explain.c"

#include <err.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { CALLER = 61001, ROOM = 2 * 4096, READ_ONLY_DIR = 10, READ_ONLY_FILE = 11, WRITABLE_DIR = 12, FIRST_FREE = 13 };

struct question {
  uint64_t args[6];
  uint32_t number, length[2];      /* of the two texts, at most ROOM; argument 6 + i is the i-th text's address */
  char text[2][ROOM];
};

struct answer { int32_t forbidden, error; uint32_t length; char target[IMD_MAX_TARGET]; };

/* Shared with the child, at the same addresses: each text ends where memory does. */
static char *room[2];

static void must(int result, const char *what)
{
  if (result < 0)
    err(EXIT_FAILURE, "%s", what);
}

static void file(const char *path, int flags)
{
  const int fd = open(path, O_CREAT | O_WRONLY | flags, 0666);
  must(fd, path);
  close(fd);
}

static void populate(const char *mine, const char *other)
{
  char text[64];
  must(mkdir("dir", 0777), "dir");
  must(mkdir("dir/sub", 0777), "sub");
  must(mkdir("empty", 0777), "empty");
  file("file", 0);
  file("dir/file", 0);
  must(mkfifo("fifo", 0666), "fifo");
  must(symlink("file", "link"), "link");
  must(symlink("loop", "loop"), "loop");
  must(symlink("/proc/self/cwd", "here"), "here");
  must(symlink("/proc/self/fd/11", "opened"), "opened");
  const char *const names[] = {"file", "none", "dir", "dir/none/x"}, *const links[] = {"to", "lost", "over", "astray"};
  for (size_t i = 0; i < 4; i++) {
    snprintf(text, sizeof text, "../%s/%s", other, names[i]);
    must(symlink(text, links[i]), "link");
  }
  snprintf(text, sizeof text, "/%s/dir", mine);
  must(symlink(text, "absolute"), "absolute");
}

/* A root of three: a directory to be written, one of the same kind that is not, /proc. */
static void make_tree(const char *place)
{
  must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "propagation");
  must(mount("tmpfs", place, "tmpfs", 0, "size=16m,mode=755"), "tmpfs");
  must(chdir(place), "the place");
  umask(0);
  must(mkdir("rw", 0777) | mkdir("ro", 0777) | mkdir("proc", 0555), "directories");
  must(mount("tmpfs", "rw", "tmpfs", 0, "size=16m,mode=777"), "rw");
  must(mount("proc", "proc", "proc", 0, NULL), "proc");
  must(chroot("."), "root");
  setfsgid(CALLER);
  setfsuid(CALLER);
  must(chdir("/rw"), "rw");
  populate("rw", "ro");
  setfsuid(0);
  must(mount("tmpfs", "/ro", "tmpfs", 0, "size=16m,mode=777"), "ro");
  must(chdir("/ro"), "ro");
  setfsuid(CALLER);
  populate("ro", "rw");
  setfsuid(0);
  setfsgid(0);
  must(mount(NULL, "/ro", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "read-only");
}

static void open_at(int number, const char *path, int flags)
{
  const int fd = open(path, flags);
  must(fd, path);
  must(dup2(fd, number), path);
  close(fd);
}

/* Makes the calls that it is told to, as the caller. */
_Noreturn static void be_payload(int socket)
{
  must(dup2(socket, 3), "socket");
  must(close_range(4, ~0u, 0), "descriptors");
  open_at(READ_ONLY_DIR, "/ro", O_PATH);
  open_at(READ_ONLY_FILE, "/ro/file", O_RDONLY);
  open_at(WRITABLE_DIR, "/rw/dir", O_RDONLY);
  must(chdir("/rw"), "rw");
  must(setresgid(CALLER, CALLER, CALLER), "gid");
  must(setresuid(CALLER, CALLER, CALLER), "uid");
  must(prctl(PR_SET_DUMPABLE, 1), "dumpable");  /* as after exec */
  umask(0);
  struct question ask;
  while (read(3, &ask, sizeof ask) == (ssize_t)sizeof ask) {
    errno = 0;
    const long result =
        syscall((long)ask.number, ask.args[0], ask.args[1], ask.args[2], ask.args[3], ask.args[4], ask.args[5]);
    const int32_t error = result < 0 ? errno : 0;
    must(close_range(FIRST_FREE, ~0u, 0), "descriptors");
    close(4);
    if (write(3, &error, sizeof error) != (ssize_t)sizeof error)
      break;
  }
  _exit(EXIT_SUCCESS);
}

static void make_room(void)
{
  for (size_t i = 0; i < 2; i++) {
    room[i] = mmap(NULL, ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (room[i] == MAP_FAILED || mprotect(room[i] + ROOM, PAGE, PROT_NONE) < 0)
      err(EXIT_FAILURE, "memory");
  }
}

/* An argument that is 1 or 2 on a page of zeros stands for the first or the second text. */
static void place_texts(struct question *ask)
{
  for (size_t i = 0; i < 2; i++) {
    if (ask->length[i] > ROOM)
      abort();
    memcpy(room[i] + ROOM - ask->length[i], ask->text[i], ask->length[i]);
    for (size_t k = 0; k < 6; k++)
      if (ask->args[k] == 0x7e57000 + i)
        ask->args[k] = (uintptr_t)(room[i] + ROOM - ask->length[i]);
  }
}

static int lowest_free(void)
{
  const int fd = dup(0);
  close(fd);
  return fd;
}

static void judge(struct explainer *explainer, const struct question *ask, int payload, struct answer *answer)
{
  struct seccomp_notif notif = {.id = 1, .pid = (uint32_t)payload, .data = {.nr = (int)ask->number}};
  memcpy(notif.data.args, ask->args, sizeof ask->args);
  const struct call_shape *shape = explain_shape(notif.data.nr);
  const int before = lowest_free();
  struct finding finding = {.forbidden = false}, refused = finding;
  if (shape && shape->effect == EFFECT_CONNECT)
    judge_address(explainer->shared, &notif, shape, &finding);
  else if (shape && shape->effect < EFFECT_CONNECT)
    judge_write(explainer, &notif, shape, &finding);
  name_refused(explainer, &notif, shape, &refused);
  if (finding.forbidden)
    keep(explainer->shared, &notif, &finding);
  keep(explainer->shared, &notif, &refused);
  if (lowest_free() != before || explainer->shared->records > IMD_MAX_VIOLATIONS ||
      finding.length > sizeof finding.target || refused.length > sizeof refused.target)
    abort();
  *answer = (struct answer){.forbidden = finding.forbidden, .length = (uint32_t)finding.length};
  memcpy(answer->target, finding.target, finding.length);
}

static int be_init(const char *place)
{
  int pair[2];
  make_tree(place);
  make_room();
  must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socket");
  const int payload = fork();
  must(payload, "fork");
  if (payload == 0)
    be_payload(pair[1]);
  must(dup2(pair[0], 1), "socket");
  must(close_range(3, ~0u, 0), "descriptors");
  must(explain_stand_in_proc(AT_FDCWD, "/proc"), "proc");
  setfsgid(CALLER);
  setfsuid(CALLER);
  explain_path_settle();
  struct explainer explainer = {.shared = calloc(1, sizeof *explainer.shared)};
  static struct question ask;
  while (recv(0, &ask, sizeof ask, MSG_WAITALL) == (ssize_t)sizeof ask) {
    struct answer answer;
    place_texts(&ask);
    judge(&explainer, &ask, payload, &answer);
    if (write(1, &ask, sizeof ask) != (ssize_t)sizeof ask ||
        read(1, &answer.error, sizeof answer.error) != (ssize_t)sizeof answer.error ||
        write(0, &answer, sizeof answer) != (ssize_t)sizeof answer)
      err(EXIT_FAILURE, "an answer");
  }
  free(explainer.shared);
  return EXIT_SUCCESS;
}

/* PLACE: an empty directory, over which it mounts in a namespace of its own. */
int main(int argc, char **argv)
{
  if (argc != 2)
    return 2;
  must(unshare(CLONE_NEWNS | CLONE_NEWPID), "namespaces");
  const int init = fork();
  must(init, "fork");
  if (init == 0)
    return be_init(argv[1]);
  int status;
  must(waitpid(init, &status, 0), "PID 1");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
