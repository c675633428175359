#define _GNU_SOURCE
#include "relay.h"
#include "plan.h"
#include "relay_run.h"
#include "util.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum {
  MAX_WAITING = 4096,
  MAX_WAITING_BYTES = 64 << 20,
  KEEPER_BUFFER = 4 << 20,         /* bytes that a keeper may leave unread: execs come faster than it forks */
};

void imd_plan_unmap(const struct imd_placed_plan *plan)
{
  if (plan->mapping)
    munmap(plan->mapping, plan->length);
}

static void forget_letter(struct imd_run *run)
{
  imd_fds_drop(&run->fds);
  if (run->letter) {
    explicit_bzero(run->letter, run->letter_size);
    free(run->letter);
    run->letter = NULL;
  }
}

static void stop_waiting(struct imd_launcher *launcher, struct imd_run *run)
{
  TAILQ_REMOVE(&launcher->waiting, run, link);
  launcher->waiting_count--;
  launcher->waiting_bytes -= run->letter_size;
  forget_letter(run);
}

/* The broker knows of its end, or nobody is there to know. */
static void forget(struct imd_launcher *launcher, struct imd_run *run)
{
  imd_table_remove(&launcher->runs, &run->node);
  if (run->kind == IMD_PLAN_SANDBOX)
    launcher->sandboxes--;
}

/* Tells the broker that a run without a cell is over. */
static void fail_waiting(struct imd_launcher *launcher, struct imd_run *run, const struct imd_error *error)
{
  stop_waiting(launcher, run);
  imd_outbox_fail(&launcher->outbox, run->node.key, error);
  forget(launcher, run);
  free(run);
}

void imd_run_fail_waiting(struct imd_launcher *launcher)
{
  while (!TAILQ_EMPTY(&launcher->waiting))
    fail_waiting(launcher, TAILQ_FIRST(&launcher->waiting), &launcher->pool.failure);
}

void imd_run_forget_waiting(struct imd_launcher *launcher)
{
  while (!TAILQ_EMPTY(&launcher->waiting)) {
    struct imd_run *run = TAILQ_FIRST(&launcher->waiting);
    stop_waiting(launcher, run);
    forget(launcher, run);
    free(run);
  }
}

/* Nobody may change a plan after it was checked. */
static int map_plan(int memfd, struct imd_placed_plan *plan, struct imd_error *err)
{
  const int needed = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
  const int seals = fcntl(memfd, F_GET_SEALS);
  struct stat status;
  if (seals < 0 || (seals & needed) != needed || fstat(memfd, &status) < 0)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "the plan's memory is not sealed");
  if (plan->length == 0 || plan->length > IMD_MAX_PLAN || (uint64_t)status.st_size != plan->length)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "a plan of %zu bytes in a file of %lld", plan->length,
                    (long long)status.st_size);
  void *mapping = mmap(NULL, plan->length, PROT_READ, MAP_SHARED, memfd, 0);
  if (mapping == MAP_FAILED)
    return imd_fail(err, IMD_STAGE_PLAN, errno, "mapping the plan");
  plan->mapping = mapping;
  plan->bytes = mapping;
  return 0;
}

int imd_plan_place(const struct imd_plan_letter *letter, const struct imd_fds *fds, struct imd_placed_plan *plan,
                   struct imd_error *err)
{
  const bool in_memfd = letter->flags & IMD_PLAN_IN_MEMFD;
  if (letter->flags & ~letter->known)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "unknown flags %#x", letter->flags);
  if (fds->count != letter->wanted)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "%u descriptors came with the plan", fds->count);
  if (letter->length - letter->head != (in_memfd ? 0 : letter->plan_length))
    return imd_fail(err, IMD_STAGE_PLAN, 0, "a plan of %u bytes in %zu", letter->plan_length,
                    letter->length - letter->head);
  plan->length = letter->plan_length;
  plan->bytes = letter->packet + letter->head;
  if (in_memfd && map_plan(fds->fd[0], plan, err) < 0)
    return -1;
  if (imd_plan_check(plan->bytes, plan->length, err) < 0)
    return -1;
  return imd_plan_is(plan->bytes, letter->kind, err);
}

/* Whose cgroup to clear if the warden cannot; `plan` is checked, so both names fit. */
static void note_names(struct imd_run *run, const void *plan)
{
  struct imd_plan_cursor cursor = {.plan = plan};
  struct imd_plan_step step;
  while (imd_plan_next(&cursor, &step) && step.op != IMD_OP_CGROUP)
    ;
  strcpy(run->tenant, imd_plan_string_at(&step, 0, NULL));
  strcpy(run->sandbox, imd_plan_string_at(&step, 1, NULL));
}

/* To a parked cell; one that has died meanwhile is passed over. False: no cell is parked. */
static bool hand_over(struct imd_launcher *launcher, struct imd_run *run, const struct iovec *body, size_t pieces,
                      const struct imd_fds *fds)
{
  struct imd_cell *cell;
  while ((cell = imd_pool_take(&launcher->pool, run))) {
    const bool lives = run->kind == IMD_PLAN_SANDBOX;
    if (lives)
      setsockopt(cell->socket, SOL_SOCKET, SO_SNDBUFFORCE, &(int){KEEPER_BUFFER}, sizeof(int));
    if (imd_send_packet(cell->socket, lives ? IMD_W_CREATE : IMD_W_PREPARE, run->node.key, body, pieces, fds->fd,
                        fds->count, MSG_DONTWAIT) == 0) {
      run->cell = cell;
      run->state = RUN_GIVEN;
      return true;
    }
    cell->run = NULL;
    imd_pool_close(&launcher->pool, cell);
  }
  return false;
}

static int wait_for_cell(struct imd_launcher *launcher, struct imd_run *run, const struct iovec *body, size_t pieces,
                         struct imd_fds *fds, struct imd_error *err)
{
  size_t size = 0;
  for (size_t i = 0; i < pieces; i++)
    size += body[i].iov_len;
  if (launcher->waiting_count >= MAX_WAITING || launcher->waiting_bytes + size > MAX_WAITING_BYTES)
    return imd_fail(err, IMD_STAGE_CELL, EAGAIN, "%u runs wait for a cell", launcher->waiting_count);

  run->letter = imd_allocate(size);
  run->letter_size = size;
  char *at = run->letter;
  for (size_t i = 0; i < pieces; i++)
    at = mempcpy(at, body[i].iov_base, body[i].iov_len);
  run->fds = *fds;
  fds->count = 0;
  run->state = RUN_WAITING;
  TAILQ_INSERT_TAIL(&launcher->waiting, run, link);
  launcher->waiting_count++;
  launcher->waiting_bytes += size;
  return 0;
}

/* A plan may name what only the caller can open: then there must be one. */
static int needs_nobody(const void *plan, struct imd_error *err)
{
  struct imd_plan_cursor cursor = {.plan = plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);)
    if (step.op == IMD_OP_ROOTFS || step.op == IMD_OP_CAPTURE ||
        (step.op == IMD_OP_BIND && !(step.numbers[0] & IMD_BIND_GRANTED)))
      return imd_fail(err, IMD_STAGE_PLAN, 0, "step %u names a caller's path, and there is no connection", step.index);
  return 0;
}

static int start(struct imd_launcher *launcher, uint64_t id, const struct imd_prepare *prepare, uint32_t kind,
                 const struct imd_placed_plan *plan, struct imd_fds *fds, struct imd_error *err)
{
  static const char nothing[8];
  /* Of the ids that the kernel shows for every id that it cannot: nobody's files are these. */
  static const struct imd_peer nobody = {.uid = 65534, .gid = 65534};
  const struct imd_peer *peer = imd_listener_peer(&launcher->listener, prepare->connection);
  if (!peer && kind == IMD_PLAN_SANDBOX && prepare->connection == 0) {
    if (needs_nobody(plan->bytes, err) < 0)
      return -1;
    peer = &nobody;
  }
  if (!peer)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "unknown connection %llu", (unsigned long long)prepare->connection);
  if (kind == IMD_PLAN_SANDBOX && launcher->sandboxes >= IMD_MAX_SANDBOXES)
    return imd_fail(err, IMD_STAGE_CELL, EAGAIN, "%u sandboxes live", launcher->sandboxes);

  struct imd_w_prepare head = {.uid = peer->uid,
                               .gid = peer->gid,
                               .ngroups = peer->ngroups,
                               .plan_length = prepare->plan_length,
                               .flags = prepare->flags};
  const size_t groups = peer->ngroups * sizeof peer->groups[0];
  const size_t used = sizeof(struct imd_header) + sizeof head + groups;
  const struct iovec body[] = {
      {&head, sizeof head},
      {(void *)(uintptr_t)peer->groups, groups},
      {(void *)(uintptr_t)nothing, imd_w_plan_offset(peer->ngroups) - used},
      {(void *)(uintptr_t)plan->bytes, plan->mapping ? 0 : plan->length},
  };

  struct imd_run *run = imd_allocate(sizeof *run);
  run->node.key = id;
  run->kind = kind;
  TAILQ_INIT(&run->execs);
  note_names(run, plan->bytes);
  if (!hand_over(launcher, run, body, 4, fds) && wait_for_cell(launcher, run, body, 4, fds, err) < 0) {
    free(run);
    return -1;
  }
  imd_table_insert(&launcher->runs, &run->node);
  if (kind == IMD_PLAN_SANDBOX)
    launcher->sandboxes++;
  return 0;
}

int imd_run_prepare(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds)
{
  struct imd_header header;
  struct imd_prepare prepare;
  memcpy(&header, packet, sizeof header);
  const bool lives = header.type == IMD_CREATE;
  if (length < sizeof header + sizeof prepare) {
    imd_log("a message %u of %zu bytes", header.type, length);
    return -1;
  }
  memcpy(&prepare, packet + sizeof header, sizeof prepare);
  if (imd_number_is_used(launcher, header.id))
    return -1;
  struct imd_error error = IMD_ERROR_INIT;
  cleanup_plan struct imd_placed_plan plan = {.bytes = NULL};
  const struct imd_plan_letter letter = {
      .packet = packet,
      .length = length,
      .head = sizeof header + sizeof prepare,
      .plan_length = prepare.plan_length,
      .flags = prepare.flags,
      .known = lives ? IMD_PLAN_IN_MEMFD
                     : IMD_PLAN_IN_MEMFD | IMD_OURS_0 | IMD_OURS_1 | IMD_OURS_2 | IMD_WITH_LOG,
      .wanted = lives ? (uint32_t)IMD_W_CREATE_FDS + !!(prepare.flags & IMD_PLAN_IN_MEMFD)
                      : imd_w_prepare_fds(prepare.flags),
      .kind = lives ? IMD_PLAN_SANDBOX : IMD_PLAN_RUN,
  };
  if (imd_plan_place(&letter, fds, &plan, &error) < 0 ||
      start(launcher, header.id, &prepare, letter.kind, &plan, fds, &error) < 0)
    imd_outbox_fail(&launcher->outbox, header.id, &error);
  return 0;
}

bool imd_number_is_used(const struct imd_launcher *launcher, uint64_t number)
{
  if (!imd_table_find(&launcher->runs, number) && !imd_table_find(&launcher->execs, number))
    return false;
  imd_log("the number %llu is somebody's who is not over", (unsigned long long)number);
  return true;
}

void imd_run_serve_waiting(struct imd_launcher *launcher)
{
  struct imd_run *run;
  while (launcher->pool.parked > 0 && (run = TAILQ_FIRST(&launcher->waiting))) {
    const struct iovec body = {run->letter, run->letter_size};
    if (!hand_over(launcher, run, &body, 1, &run->fds))
      return;
    stop_waiting(launcher, run);
  }
}

void imd_run_tell(struct imd_launcher *launcher, struct imd_run *run, uint32_t type, uint64_t id, const void *body,
                  size_t size)
{
  struct imd_cell *cell = run->cell;
  if (cell->socket >= 0 && imd_send_message(cell->socket, type, id, body, size, MSG_DONTWAIT) < 0 && errno != EPIPE &&
      errno != ECONNRESET)
    imd_pool_close(&launcher->pool, cell);
}

int imd_run_kill(struct imd_launcher *launcher, const char *packet, size_t length)
{
  struct imd_header header;
  struct imd_kill kill;
  if (length != sizeof header + sizeof kill) {
    imd_log("a KILL of %zu bytes", length);
    return -1;
  }
  memcpy(&header, packet, sizeof header);
  memcpy(&kill, packet + sizeof header, sizeof kill);
  struct imd_run *run = (struct imd_run *)imd_table_find(&launcher->runs, header.id);
  if (!run)
    return imd_exec_kill(launcher, packet, length);
  if (run->state == RUN_WAITING) {
    struct imd_error error = IMD_ERROR_INIT;
    imd_fail(&error, IMD_STAGE_KILLED, 0, "killed while it waited for a cell");
    fail_waiting(launcher, run, &error);
  } else if (!run->kill_sent) {
    run->kill_sent = true;
    imd_run_tell(launcher, run, IMD_KILL, header.id, &kill, sizeof kill);
  }
  return 0;
}

/* The broker knows the end; the run stays with its cell until the warden is gone. */
static void end(struct imd_launcher *launcher, struct imd_run *run)
{
  forget(launcher, run);
  run->state = RUN_OVER;
}

static void note_cell_failure(struct imd_launcher *launcher, const char *body, size_t size)
{
  struct imd_failed failed;
  struct imd_error error = IMD_ERROR_INIT;
  if (size < sizeof failed)
    return;
  memcpy(&failed, body, sizeof failed);
  error.stage = failed.stage;
  error.error = failed.error;
  size_t length = size - sizeof failed;
  if (length >= sizeof error.text)
    length = sizeof error.text - 1;
  memcpy(error.text, body + sizeof failed, length);
  imd_pool_failed(&launcher->pool, &error);
}

/* False: this is not what a warden says now. */
static bool take_from_warden(struct imd_launcher *launcher, struct imd_cell *cell, const char *packet, size_t length)
{
  struct imd_header header;
  memcpy(&header, packet, sizeof header);
  if (cell->state == IMD_CELL_PARKING) {
    if (header.type == IMD_W_PARKED)
      imd_pool_ready(&launcher->pool, cell);
    else if (header.type == IMD_FAILED)
      note_cell_failure(launcher, packet + sizeof header, length - sizeof header);
    return header.type == IMD_W_PARKED || header.type == IMD_FAILED;
  }
  struct imd_run *run = cell->run;
  if (!run || run->state != RUN_GIVEN)
    return false;
  if (header.type == IMD_W_CREATED && run->kind == IMD_PLAN_SANDBOX && header.id == run->node.key)
    return true;
  if (header.type != IMD_W_OVER)
    return false;
  if (header.id != run->node.key)
    return imd_exec_over(launcher, run, header.id);
  end(launcher, run);
  imd_pool_close(&launcher->pool, cell);
  return true;
}

bool imd_run_warden_spoke(struct imd_launcher *launcher, struct imd_cell *cell)
{
  static _Alignas(8) char packet[IMD_MAX_PACKET];
  cleanup_fds struct imd_fds fds = {.count = 0};
  if (cell->socket < 0)
    return false;                  /* closed after the kernel had told us of it */
  const ssize_t length = imd_recv_packet(cell->socket, packet, sizeof packet, &fds, MSG_DONTWAIT);
  if (length < 0 && errno == EAGAIN)
    return false;
  if (length > 0 && take_from_warden(launcher, cell, packet, (size_t)length))
    return true;
  if (length != 0)
    imd_log("cell %llu: unexpected message", (unsigned long long)cell->number);
  if (cell->state == IMD_CELL_PARKING)
    imd_close(&cell->socket);      /* counted as a failure once it is gone */
  else
    imd_pool_close(&launcher->pool, cell);
  return false;
}

static void say_lost(const struct imd_p_gone *gone, struct imd_error *error)
{
  if (WIFSIGNALED(gone->status))
    imd_fail(error, IMD_STAGE_LOST, 0, "the cell's warden was killed by signal %d", WTERMSIG(gone->status));
  else
    imd_fail(error, IMD_STAGE_LOST, 0, "the cell's warden ended with status %d", WEXITSTATUS(gone->status));
}

void imd_run_warden_gone(struct imd_launcher *launcher, struct imd_run *run, const struct imd_p_gone *gone)
{
  struct imd_error error = IMD_ERROR_INIT;
  if (!run)
    return;
  if (gone->status != 0)
    imd_subtree_end_run(&launcher->subtree, run->tenant, run->sandbox);
  say_lost(gone, &error);
  imd_execs_lost(launcher, run, &error);
  if (run->state != RUN_OVER) {
    if (!launcher->stopping && launcher->broker >= 0) {
      imd_log("run %llu lost its warden (wait status %#x)", (unsigned long long)run->node.key, (unsigned)gone->status);
      imd_outbox_fail(&launcher->outbox, run->node.key, &error);
    }
    forget(launcher, run);
  }
  free(run);
}
