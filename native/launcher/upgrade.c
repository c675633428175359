#define _GNU_SOURCE
#include "upgrade.h"
#include "upgrade_state.h"
#include "util.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PATIENCE_NS (5 * 1000000000ull)
enum { PROBE_MS = 2000, MOST_WORDS = 256 };

extern char **environ;

void imd_upgrade_begin(struct imd_launcher *launcher)
{
  if (!launcher->options->program) {
    imd_log("there is no --program to become: SIGHUP changes nothing");
  } else if (!launcher->stopping && launcher->upgrade_deadline == 0) {
    launcher->upgrade_deadline = imd_now_ns() + PATIENCE_NS;
  }
}

uint64_t imd_upgrade_wake(const struct imd_launcher *launcher)
{
  return launcher->upgrade_deadline != 0 ? launcher->upgrade_deadline : UINT64_MAX;
}

int imd_upgrade_takes_over(uint32_t number)
{
  return number == IMD_UPGRADE_NUMBER ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- what is written --------------------------------------------------------------------------------------------- */

static uint32_t write_cells(const struct imd_pool *pool, FILE *state)
{
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < pool->slots; slot++) {
    const struct imd_cell *cell = &pool->cells[slot];
    const struct imd_kept_cell kept = {.number = cell->number, .slot = slot, .state = cell->state,
                                       .generation = cell->generation, .socket = cell->socket};
    count += (uint32_t)fwrite(&kept, sizeof kept, 1, state);
  }
  return count;
}

static uint32_t write_runs(const struct imd_pool *pool, FILE *state)
{
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < pool->slots; slot++) {
    const struct imd_run *run = pool->cells[slot].run;
    if (!run)
      continue;
    struct imd_kept_run kept = {
        .number = run->node.key, .slot = slot, .kind = run->kind, .state = run->state, .kill_sent = run->kill_sent};
    memcpy(kept.tenant, run->tenant, sizeof kept.tenant);
    memcpy(kept.sandbox, run->sandbox, sizeof kept.sandbox);
    count += (uint32_t)fwrite(&kept, sizeof kept, 1, state);
  }
  return count;
}

static uint32_t write_execs(const struct imd_launcher *launcher, FILE *state)
{
  struct imd_kept_exec *execs = imd_allocate((launcher->execs.count + 1) * sizeof *execs);
  const uint32_t count = imd_execs_write(launcher, execs);
  const size_t written = fwrite(execs, sizeof *execs, count, state);
  free(execs);
  return (uint32_t)written;
}

static uint32_t write_peers(const struct imd_listener *listener, FILE *state)
{
  uint32_t count = 0;
  for (uint32_t bucket = 0; bucket < IMD_TABLE_BUCKETS; bucket++)
    for (const struct imd_node *node = listener->peers.buckets[bucket]; node; node = node->next) {
      const struct imd_peer *peer = (const void *)node;
      const struct imd_kept_peer kept = {.number = peer->node.key, .uid = peer->uid, .gid = peer->gid, .pid = peer->pid,
                                         .ngroups = peer->ngroups};
      count += (uint32_t)fwrite(&kept, sizeof kept, 1, state);
      fwrite(peer->groups, sizeof peer->groups[0], peer->ngroups, state);
    }
  return count;
}

/* The memfd, -1 with errno. */
static int write_state(const struct imd_launcher *launcher)
{
  struct imd_kept_head head = {
      .magic = IMD_UPGRADE_MAGIC,
      .number = IMD_UPGRADE_NUMBER,
      .size = sizeof head,
      .slots = launcher->pool.slots,
      .slot_base = launcher->pool.slot_base,
      .controllers = launcher->subtree.controllers,
      .swap = launcher->subtree.swap,
      .paused = launcher->paused,
      .failed = launcher->failed,
      .generation = launcher->generation,
      .broker = launcher->broker,
      .outcomes = {launcher->outcomes[0], launcher->outcomes[1]},
      .control = launcher->control.socket,
      .control_directory = launcher->control.address.directory,
      .listener = launcher->listener.socket,
      .listener_directory = launcher->listener.address.directory,
      .subtree = launcher->subtree.directory,
      .processors = launcher->processors,
      .counts = launcher->counts,
      .next_connection = launcher->listener.next,
      .alone_until = launcher->alone_until,
      .control_address = launcher->control.address,
      .listener_address = launcher->listener.address,
  };
  memcpy(head.parkers, launcher->parkers, sizeof head.parkers);
  memcpy(head.generations, launcher->generations, sizeof head.generations);
  cleanup_fd int memfd = memfd_create("immured-state", MFD_CLOEXEC);
  const int copy = memfd < 0 ? -1 : fcntl(memfd, F_DUPFD_CLOEXEC, 3);
  FILE *state = copy < 0 ? NULL : fdopen(copy, "w+");
  if (!state) {
    if (copy >= 0)
      close(copy);
    return -1;
  }
  fwrite(&head, sizeof head, 1, state);
  head.cells = write_cells(&launcher->pool, state);
  head.runs = write_runs(&launcher->pool, state);
  head.execs = write_execs(launcher, state);
  head.peers = write_peers(&launcher->listener, state);
  rewind(state);
  fwrite(&head, sizeof head, 1, state);
  const bool whole = !ferror(state);
  if (fclose(state) != 0 || !whole)
    return -1;
  return imd_take_fd(&memfd);
}

/* --- becoming it ------------------------------------------------------------------------------------------------- */

/* Root's, and nobody else may write it. */
static int open_program(const char *path)
{
  struct stat status;
  cleanup_fd int program = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (program < 0 || fstat(program, &status) < 0) {
    imd_log("%s: %s", path, strerror(errno));
    return -1;
  }
  if (!S_ISREG(status.st_mode) || status.st_uid != 0 || (status.st_mode & 022)) {
    imd_log("%s is not a file that only root may write: it is not executed", path);
    return -1;
  }
  return imd_take_fd(&program);
}

static int execute(int program, char *const *words)
{
  return (int)syscall(SYS_execveat, program, "", words, environ, AT_EMPTY_PATH);
}

/* Asked in a process of its own, before there is no way back: does it start, and does it read what we write? */
static bool takes_over(int program)
{
  char number[16];
  snprintf(number, sizeof number, "%u", (unsigned)IMD_UPGRADE_NUMBER);
  char *words[] = {(char *)(uintptr_t)"immured-launcher", (char *)(uintptr_t)"--takes-over", number, NULL};
  const pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execute(program, words);
    _exit(127);
  }
  if (pid < 0)
    return false;
  cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
  struct pollfd event = {.fd = pidfd, .events = POLLIN};
  int status = -1;
  if (pidfd < 0 || poll(&event, 1, PROBE_MS) != 1)
    kill(pid, SIGKILL);
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    continue;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void pass_on(int fd, bool on)
{
  if (fd >= 0)
    fcntl(fd, F_SETFD, on ? 0 : FD_CLOEXEC);
}

static void pass_all_on(const struct imd_launcher *launcher, int memfd, bool on)
{
  const int fds[] = {
      memfd, launcher->broker, launcher->outcomes[0], launcher->outcomes[1], launcher->control.socket,
      launcher->control.address.directory, launcher->listener.socket, launcher->listener.address.directory,
      launcher->subtree.directory, launcher->processors, launcher->counts};
  for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
    pass_on(fds[i], on);
  for (int i = 0; i < IMD_MAX_PARKERS; i++)
    pass_on(launcher->parkers[i], on);
  for (int i = 0; i < IMD_MAX_LOCKS; i++)
    pass_on(launcher->options->lock_fds[i], on);
  for (uint32_t slot = 0; slot < launcher->pool.slots; slot++)
    pass_on(launcher->pool.cells[slot].socket, on);
}

/* The command line that we were given, but for descriptors that are in the state now. */
static bool write_words(const struct imd_options *options, char *state, char **words)
{
  size_t count = 0;
  for (char **word = options->words; *word; word++) {
    if (count >= MOST_WORDS - 3)
      return false;
    if (word != options->words && word[1] &&
        (strcmp(*word, "--listen-fd") == 0 || strcmp(*word, "--state-fd") == 0)) {
      word++;
      continue;
    }
    words[count++] = *word;
  }
  words[count++] = (char *)(uintptr_t)"--state-fd";
  words[count++] = state;
  words[count] = NULL;
  return true;
}

static void become(struct imd_launcher *launcher)
{
  char state[16], *words[MOST_WORDS];
  bool room = false;
  for (int i = 0; i < IMD_MAX_PARKERS; i++)
    room |= launcher->parkers[i] < 0;
  if (!room) {
    imd_log("cells of %d earlier launchers still live: no other is begun", IMD_MAX_PARKERS);
    return;
  }
  cleanup_fd int program = open_program(launcher->options->program);
  if (program < 0)
    return;
  if (!takes_over(program)) {
    imd_log("%s does not take over from this launcher: it goes on as it is", launcher->options->program);
    return;
  }
  cleanup_fd int memfd = write_state(launcher);
  snprintf(state, sizeof state, "%d", memfd);
  if (memfd < 0 || !write_words(launcher->options, state, words)) {
    imd_log("no state for the next launcher: %s", strerror(errno));
    return;
  }
  imd_log("becoming %s with %u sandboxes", launcher->options->program, launcher->sandboxes);
  pass_all_on(launcher, memfd, true);
  execute(program, words);
  imd_log("%s: %s", launcher->options->program, strerror(errno));
  pass_all_on(launcher, memfd, false);
}

void imd_upgrade_tend(struct imd_launcher *launcher)
{
  if (launcher->upgrade_deadline == 0)
    return;
  if (launcher->waiting_count == 0 && launcher->pool.parking == 0 && !imd_outbox_waits(&launcher->outbox)) {
    imd_pool_close_parked(&launcher->pool);   /* they were made as the old launcher makes them */
    become(launcher);
    launcher->upgrade_deadline = 0;
  } else if (imd_now_ns() >= launcher->upgrade_deadline) {
    imd_log("%u runs wait for a cell, %u cells are being made: not now", launcher->waiting_count,
            launcher->pool.parking);
    launcher->upgrade_deadline = 0;
  }
}

/* --- what is read ------------------------------------------------------------------------------------------------ */

struct imd_inherited {
  struct imd_kept_head head;
  char *at, *end;
  char bytes[];
};

static const void *take(struct imd_inherited *inherited, size_t size)
{
  if ((size_t)(inherited->end - inherited->at) < size)
    return NULL;
  const void *taken = inherited->at;
  inherited->at += size;
  return taken;
}

struct imd_inherited *imd_upgrade_read(int memfd)
{
  struct stat status;
  if (fstat(memfd, &status) < 0 || status.st_size < (off_t)sizeof(struct imd_kept_head)) {
    imd_log("--state-fd: no state");
    return NULL;
  }
  const size_t size = (size_t)status.st_size - sizeof(struct imd_kept_head);
  struct imd_inherited *inherited = imd_allocate(sizeof *inherited + size);
  if (lseek(memfd, 0, SEEK_SET) != 0 ||
      imd_read_full(memfd, &inherited->head, sizeof inherited->head) != (ssize_t)sizeof inherited->head ||
      imd_read_full(memfd, inherited->bytes, size) != (ssize_t)size ||
      inherited->head.magic != IMD_UPGRADE_MAGIC || inherited->head.number != IMD_UPGRADE_NUMBER ||
      inherited->head.size != sizeof inherited->head) {
    imd_log("--state-fd: a state of another launcher");
    free(inherited);
    return NULL;
  }
  inherited->at = inherited->bytes;
  inherited->end = inherited->bytes + size;
  return inherited;
}

const struct imd_kept_head *imd_upgrade_head(const struct imd_inherited *inherited)
{
  return &inherited->head;
}

static int restore_runs(struct imd_launcher *launcher, struct imd_inherited *inherited)
{
  for (uint32_t i = 0; i < inherited->head.runs; i++) {
    struct imd_kept_run kept;
    const void *from = take(inherited, sizeof kept);
    if (!from)
      return -1;
    memcpy(&kept, from, sizeof kept);
    if (kept.slot >= launcher->pool.slots)
      return -1;
    struct imd_run *run = imd_allocate(sizeof *run);
    run->node.key = kept.number;
    run->kind = kept.kind;
    run->state = kept.state;
    run->kill_sent = kept.kill_sent;
    run->cell = &launcher->pool.cells[kept.slot];
    run->cell->run = run;
    memcpy(run->tenant, kept.tenant, sizeof run->tenant - 1);
    memcpy(run->sandbox, kept.sandbox, sizeof run->sandbox - 1);
    TAILQ_INIT(&run->execs);
    if (run->state == RUN_OVER)
      continue;
    imd_table_insert(&launcher->runs, &run->node);
    launcher->sandboxes += run->kind == IMD_PLAN_SANDBOX;
  }
  return 0;
}

static int restore_execs(struct imd_launcher *launcher, struct imd_inherited *inherited)
{
  for (uint32_t i = 0; i < inherited->head.execs; i++) {
    struct imd_kept_exec kept;
    const void *from = take(inherited, sizeof kept);
    if (!from)
      return -1;
    memcpy(&kept, from, sizeof kept);
    struct imd_run *sandbox = (struct imd_run *)imd_table_find(&launcher->runs, kept.sandbox);
    if (sandbox)
      imd_exec_note(launcher, kept.number, sandbox);
  }
  return 0;
}

static int restore_peers(struct imd_launcher *launcher, struct imd_inherited *inherited)
{
  for (uint32_t i = 0; i < inherited->head.peers; i++) {
    struct imd_kept_peer kept;
    const void *from = take(inherited, sizeof kept);
    if (!from)
      return -1;
    memcpy(&kept, from, sizeof kept);
    const size_t groups = kept.ngroups * sizeof(uint32_t);
    if (kept.ngroups > IMD_MAX_GROUPS || !(from = take(inherited, groups)))
      return -1;
    struct imd_peer *peer = imd_allocate(sizeof *peer + groups);
    peer->node.key = kept.number;
    peer->uid = kept.uid;
    peer->gid = kept.gid;
    peer->pid = kept.pid;
    peer->ngroups = kept.ngroups;
    memcpy(peer->groups, from, groups);
    imd_table_insert(&launcher->listener.peers, &peer->node);
  }
  return 0;
}

static int restore_cells(struct imd_launcher *launcher, struct imd_inherited *inherited)
{
  if (inherited->head.slots != launcher->pool.slots || inherited->head.slot_base != launcher->pool.slot_base)
    return -1;
  for (uint32_t i = 0; i < inherited->head.cells; i++) {
    struct imd_kept_cell kept;
    const void *from = take(inherited, sizeof kept);
    if (!from)
      return -1;
    memcpy(&kept, from, sizeof kept);
    if (kept.slot >= launcher->pool.slots ||
        imd_pool_restore(&launcher->pool, kept.slot, kept.number, kept.state, kept.generation, kept.socket) < 0)
      return -1;
  }
  return 0;
}

int imd_upgrade_restore(struct imd_launcher *launcher, struct imd_inherited *inherited)
{
  const int result = restore_cells(launcher, inherited) < 0 || restore_runs(launcher, inherited) < 0 ||
                             restore_execs(launcher, inherited) < 0 || restore_peers(launcher, inherited) < 0
                         ? -1
                         : 0;
  if (result < 0)
    imd_log("--state-fd: cut short, or of another block of ids");
  pass_on(inherited->head.broker, false);
  pass_all_on(launcher, -1, false);
  free(inherited);
  return result;
}
