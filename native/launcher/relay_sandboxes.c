/* Sandboxes that live: what the broker says to their keepers, and which execs are whose. */
#define _GNU_SOURCE
#include "plan.h"
#include "relay.h"
#include "relay_run.h"
#include "upgrade_state.h"
#include "util.h"

#include <string.h>
#include <sys/socket.h>

struct imd_exec_entry {
  struct imd_node node;            /* key: the broker's number */
  TAILQ_ENTRY(imd_exec_entry) link;
  struct imd_run *sandbox;
};

/* Bodies as long as they are: a keeper trusts their lengths. */
static const struct {
  uint32_t type;
  size_t size;
} bodies[] = {
    {IMD_SIGNAL, sizeof(struct imd_signal)}, {IMD_RESIZE, sizeof(struct imd_resize)},
    {IMD_CLOSE_STDIN, 0},                    {IMD_FREEZE, sizeof(struct imd_freeze)},
    {IMD_EXTEND, sizeof(struct imd_extend)}, {IMD_MEASURE, 0},
    {IMD_KILL, sizeof(struct imd_kill)},
};

static int check_body(const struct imd_header *header, size_t length)
{
  for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
    if (bodies[i].type == header->type && length == sizeof *header + bodies[i].size)
      return 0;
  imd_log("a message %u of %zu bytes", header->type, length);
  return -1;
}

struct imd_run *imd_sandbox_find(const struct imd_launcher *launcher, uint64_t number)
{
  struct imd_run *run = (struct imd_run *)imd_table_find(&launcher->runs, number);
  return run && run->kind == IMD_PLAN_SANDBOX && run->state == RUN_GIVEN && !run->kill_sent ? run : NULL;
}

static void forget_exec(struct imd_launcher *launcher, struct imd_exec_entry *exec)
{
  TAILQ_REMOVE(&exec->sandbox->execs, exec, link);
  imd_table_remove(&launcher->execs, &exec->node);
  free(exec);
}

void imd_exec_note(struct imd_launcher *launcher, uint64_t number, struct imd_run *sandbox)
{
  struct imd_exec_entry *entry = imd_allocate(sizeof *entry);
  entry->node.key = number;
  entry->sandbox = sandbox;
  TAILQ_INSERT_TAIL(&sandbox->execs, entry, link);
  imd_table_insert(&launcher->execs, &entry->node);
}

uint32_t imd_execs_write(const struct imd_launcher *launcher, struct imd_kept_exec *execs)
{
  uint32_t count = 0;
  for (uint32_t bucket = 0; bucket < IMD_TABLE_BUCKETS; bucket++)
    for (const struct imd_node *node = launcher->execs.buckets[bucket]; node; node = node->next) {
      const struct imd_exec_entry *entry = (const void *)node;
      execs[count++] = (struct imd_kept_exec){.number = node->key, .sandbox = entry->sandbox->node.key};
    }
  return count;
}

static int give(struct imd_launcher *launcher, const struct imd_header *header, const struct imd_exec *exec,
                const char *packet, size_t length, struct imd_fds *fds, struct imd_error *err)
{
  cleanup_plan struct imd_placed_plan plan = {.bytes = NULL};
  const struct imd_plan_letter letter = {
      .packet = packet,
      .length = length,
      .head = sizeof *header + sizeof *exec,
      .plan_length = exec->plan_length,
      .flags = exec->flags,
      .known = IMD_PLAN_IN_MEMFD | IMD_OURS_0 | IMD_OURS_1 | IMD_OURS_2 | IMD_WITH_LOG | IMD_EXEC_KEPT,
      .wanted = imd_w_exec_fds(exec->flags),
      .kind = IMD_PLAN_EXEC,
  };
  if (imd_plan_place(&letter, fds, &plan, err) < 0)
    return -1;
  struct imd_run *sandbox = imd_sandbox_find(launcher, exec->sandbox);
  if (!sandbox || sandbox->cell->socket < 0)
    return imd_fail(err, IMD_STAGE_SANDBOX, 0, "the sandbox is over");
  const struct iovec body = {(void *)(uintptr_t)(packet + sizeof *header), length - sizeof *header};
  if (imd_send_packet(sandbox->cell->socket, IMD_EXEC, header->id, &body, 1, fds->fd, fds->count, MSG_DONTWAIT) < 0)
    return imd_fail(err, IMD_STAGE_SANDBOX, errno, "the sandbox's keeper takes no exec");

  imd_exec_note(launcher, header->id, sandbox);
  return 0;
}

int imd_exec_start(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds)
{
  struct imd_header header;
  struct imd_exec exec;
  if (length < sizeof header + sizeof exec) {
    imd_log("an EXEC of %zu bytes", length);
    return -1;
  }
  memcpy(&header, packet, sizeof header);
  memcpy(&exec, packet + sizeof header, sizeof exec);
  if (imd_number_is_used(launcher, header.id))
    return -1;
  struct imd_error error = IMD_ERROR_INIT;
  if (give(launcher, &header, &exec, packet, length, fds, &error) < 0)
    imd_outbox_fail(&launcher->outbox, header.id, &error);
  return 0;
}

int imd_exec_tell(struct imd_launcher *launcher, const char *packet, size_t length)
{
  struct imd_header header;
  memcpy(&header, packet, sizeof header);
  if (check_body(&header, length) < 0)
    return -1;
  const struct imd_exec_entry *exec = (const void *)imd_table_find(&launcher->execs, header.id);
  if (exec)
    imd_run_tell(launcher, exec->sandbox, header.type, header.id, packet + sizeof header, length - sizeof header);
  return 0;
}

int imd_exec_kill(struct imd_launcher *launcher, const char *packet, size_t length)
{
  return imd_exec_tell(launcher, packet, length);
}

int imd_sandbox_tell(struct imd_launcher *launcher, const char *packet, size_t length)
{
  struct imd_header header;
  memcpy(&header, packet, sizeof header);
  if (check_body(&header, length) < 0)
    return -1;
  struct imd_run *sandbox = imd_sandbox_find(launcher, header.id);
  if (sandbox)
    imd_run_tell(launcher, sandbox, header.type, header.id, packet + sizeof header, length - sizeof header);
  return 0;
}

int imd_sandbox_ask(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds)
{
  struct imd_header header;
  struct imd_ask ask;
  if (length != sizeof header + sizeof ask) {
    imd_log("an ASK of %zu bytes", length);
    return -1;
  }
  memcpy(&header, packet, sizeof header);
  memcpy(&ask, packet + sizeof header, sizeof ask);
  struct imd_run *sandbox = imd_sandbox_find(launcher, header.id);
  const struct imd_peer *peer = imd_listener_peer(&launcher->listener, ask.connection);
  /* Unanswered, the socket closes: who asked sees its end. */
  if (!sandbox || sandbox->cell->socket < 0 || fds->count != 1 || (!peer && ask.connection != 0))
    return 0;
  struct imd_w_ask head = {.uid = UINT32_MAX, .gid = UINT32_MAX, .clerk = ask.clerk};
  struct iovec body[] = {{&head, sizeof head}, {NULL, 0}};
  if (peer) {
    head.uid = peer->uid;
    head.gid = peer->gid;
    head.ngroups = peer->ngroups;
    body[1] = (struct iovec){(void *)(uintptr_t)peer->groups, peer->ngroups * sizeof peer->groups[0]};
  }
  if (imd_send_packet(sandbox->cell->socket, IMD_W_ASK, header.id, body, 2, fds->fd, 1, MSG_DONTWAIT) < 0)
    imd_log("sandbox %llu: no clerk: %s", (unsigned long long)header.id, strerror(errno));
  return 0;
}

bool imd_exec_over(struct imd_launcher *launcher, struct imd_run *sandbox, uint64_t number)
{
  struct imd_exec_entry *exec = (struct imd_exec_entry *)imd_table_find(&launcher->execs, number);
  if (!exec || exec->sandbox != sandbox)
    return false;
  forget_exec(launcher, exec);
  return true;
}

void imd_execs_lost(struct imd_launcher *launcher, struct imd_run *sandbox, const struct imd_error *error)
{
  struct imd_exec_entry *exec;
  while ((exec = TAILQ_FIRST(&sandbox->execs))) {
    if (!launcher->stopping && launcher->broker >= 0)
      imd_outbox_fail(&launcher->outbox, exec->node.key, error);
    forget_exec(launcher, exec);
  }
}

/* Calls `act` on every run and sandbox that has a cell and is not over. */
static void for_all(struct imd_launcher *launcher, void (*act)(struct imd_launcher *, struct imd_run *))
{
  for (uint32_t slot = 0; slot < launcher->pool.slots; slot++) {
    struct imd_run *run = launcher->pool.cells[slot].run;
    if (run && run->state == RUN_GIVEN)
      act(launcher, run);
  }
}

uint32_t imd_sandboxes_living(const struct imd_launcher *launcher, uint64_t *numbers, uint32_t space)
{
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < launcher->pool.slots && launcher->sandboxes > 0; slot++) {
    const struct imd_run *run = launcher->pool.cells[slot].run;
    if (!run || !imd_sandbox_find(launcher, run->node.key) || launcher->pool.cells[slot].socket < 0)
      continue;
    if (numbers && count < space)
      numbers[count] = run->node.key;
    count++;
  }
  return count < space ? count : space;
}

static void leave_alone(struct imd_launcher *launcher, struct imd_run *run)
{
  if (run->kind != IMD_PLAN_SANDBOX)
    imd_pool_close(&launcher->pool, run->cell);   /* its warden kills it, and has nobody to tell */
  else
    imd_run_tell(launcher, run, IMD_W_ALONE, run->node.key, NULL, 0);
}

void imd_sandboxes_alone(struct imd_launcher *launcher)
{
  for_all(launcher, leave_alone);
}

static void tell_again(struct imd_launcher *launcher, struct imd_run *run)
{
  if (run->kind == IMD_PLAN_SANDBOX && !run->kill_sent)
    imd_run_tell(launcher, run, IMD_W_AGAIN, run->node.key, NULL, 0);
}

void imd_sandboxes_again(struct imd_launcher *launcher)
{
  for_all(launcher, tell_again);
}

static void end_one(struct imd_launcher *launcher, struct imd_run *run)
{
  imd_pool_close(&launcher->pool, run->cell);
}

void imd_sandboxes_end(struct imd_launcher *launcher)
{
  for_all(launcher, end_one);
}
