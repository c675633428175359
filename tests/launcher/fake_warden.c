/*
 * A warden that makes no cell and does what argv[0] of the plan says, so that the launcher's own part can be tried:
 * deaths at every moment, orphans, descriptors both ways. In place of the warden's files, in tests only.
 */
#define _GNU_SOURCE
#include "message.h"
#include "plan.h"
#include "util.h"
#include "warden.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static _Alignas(8) char packet[IMD_W_MAX_PACKET];

/* As a warden does: the broker, then the launcher. */
static int outcomes = -1;

static void tell(int launcher, uint32_t type, uint64_t run, const struct iovec *piece, const struct imd_fds *fds)
{
  imd_send_packet(outcomes >= 0 ? outcomes : launcher, type, run, piece, 1, fds ? fds->fd : NULL, fds ? fds->count : 0, 0);
  if (outcomes >= 0)
    imd_send_message(launcher, IMD_W_OVER, run, NULL, 0, 0);
}

static void say_failed(int launcher, uint64_t run, uint32_t stage, int error, const char *text)
{
  char body[1024];
  const struct imd_failed failed = {.stage = stage, .step = UINT32_MAX, .error = error};
  memcpy(body, &failed, sizeof failed);
  strcpy(body + sizeof failed, text);
  const struct iovec piece = {body, sizeof failed + strlen(text)};
  tell(launcher, IMD_FAILED, run, &piece, NULL);
}

static void say_exited(int launcher, uint64_t run, uint32_t cause, const struct imd_fds *fds)
{
  const struct imd_outcome outcome = {.cause = cause, .collected = fds ? 7 : 0};
  const struct iovec piece = {(void *)(uintptr_t)&outcome, sizeof outcome};
  tell(launcher, IMD_EXITED, run, &piece, fds);
}

static struct imd_fds created;

static uint64_t expect(int launcher, uint32_t type, struct imd_fds *fds)
{
  const ssize_t got = imd_recv_packet(launcher, packet, sizeof packet, fds, 0);
  const struct imd_header *header = (const void *)packet;
  if (got == 0)
    _exit(0);
  if (got < 0 || header->type != type) {
    imd_log("fake: got %zd, type %u, not %u", got, got > 0 ? header->type : 0, type);
    _exit(9);
  }
  return header->id;
}

static _Noreturn void be_killed(void)
{
  raise(SIGKILL);
  _exit(9);
}

/* GO, by the pipe that came last; or the launcher's word before it, and then the run is over. */
static void wait_for_go(int launcher, uint64_t run, const struct imd_fds *fds)
{
  const int gate = fds->fd[fds->count - 1];
  struct pollfd events[] = {{.fd = gate, .events = POLLIN}, {.fd = launcher, .events = POLLIN}};
  char byte;
  if (poll(events, 2, -1) < 0)
    _exit(9);
  if (events[0].revents && read(gate, &byte, 1) == 1)
    return;
  if (!events[0].revents)
    expect(launcher, IMD_KILL, &(struct imd_fds){.count = 0});
  say_failed(launcher, run, IMD_STAGE_KILLED, 0, "killed before GO");
  _exit(0);
}

/* Somebody of the dead cell who says so on descriptor 1 of its run, and lives until 0 ends. */
static void leave_orphan(const int *standard)
{
  if (fork() == 0) {
    char byte = 'o';
    int input = standard[0];
    (void)!write(standard[1], &byte, 1);
    imd_close_others(&input, 1);
    while (read(input, &byte, 1) > 0)
      ;
    _exit(0);
  }
}

static void describe(int launcher, uint64_t run, const struct imd_w_prepare *prepare, const struct warden_config *config)
{
  char text[512];
  int used = snprintf(text, sizeof text, "uid %u gid %u slot %u cell %llu groups", prepare->uid, prepare->gid,
                      config->slot_base, (unsigned long long)config->cell);
  const uint32_t *groups = (const void *)(packet + sizeof(struct imd_header) + sizeof *prepare);
  for (uint32_t i = 0; i < prepare->ngroups; i++)
    used += snprintf(text + used, sizeof text - (size_t)used, " %u", groups[i]);
  say_failed(launcher, run, IMD_STAGE_OPEN, 0, text);
}

static const void *plan_of(const struct imd_w_prepare *prepare, struct imd_fds *fds)
{
  if (!(prepare->flags & IMD_PLAN_IN_MEMFD))
    return packet + imd_w_plan_offset(prepare->ngroups);
  return mmap(NULL, prepare->plan_length, PROT_READ, MAP_SHARED, fds->fd[0], 0);
}

static const char *argument(const void *plan)
{
  struct imd_plan_cursor cursor = {.plan = plan};
  struct imd_plan_step step;
  while (imd_plan_next(&cursor, &step) && step.op != IMD_OP_EXEC)
    ;
  return imd_plan_string_at(&step, 1, NULL);
}

/* Says what came: a keeper that only listens. */
static void echo(uint64_t id, const struct imd_header *header, const struct imd_fds *fds)
{
  char text[128];
  const struct imd_failed failed = {.stage = IMD_STAGE_FILE, .step = UINT32_MAX};
  snprintf(text, sizeof text, "type %u of %u bytes, %u descriptors", header->type, header->length, fds->count);
  const struct iovec body[] = {{(void *)(uintptr_t)&failed, sizeof failed}, {text, strlen(text)}};
  imd_send_packet(outcomes, IMD_FAILED, id, body, 2, NULL, 0, 0);
}

static void say_kept(uint64_t sandbox, int record)
{
  const struct imd_kept kept = {.sandbox = sandbox, .kind = IMD_KEPT_SANDBOX, .wall_left_ns = 5};
  const struct iovec body = {(void *)(uintptr_t)&kept, sizeof kept};
  imd_send_packet(outcomes, IMD_KEPT, sandbox, &body, 1, &record, 1, 0);
}

/* A sandbox named `dies` does so as soon as it has an exec. What it is told is echoed as FAILED of the same number. */
_Noreturn static void keep(int launcher)
{
  struct imd_fds given = {.count = 0};
  const struct imd_header *header = (const void *)packet;
  const uint64_t sandbox = header->id;
  const struct imd_w_prepare *order = (const void *)(header + 1);
  struct imd_plan_cursor cursor = {.plan = packet + imd_w_plan_offset(order->ngroups)};
  struct imd_plan_step step;
  while (imd_plan_next(&cursor, &step) && step.op != IMD_OP_CGROUP)
    ;
  const bool dies = strcmp(imd_plan_string_at(&step, 1, NULL), "dies") == 0;
  const int record = created.fd[created.count - 1];
  imd_send_packet(outcomes, IMD_CREATED, sandbox, NULL, 0, NULL, 0, 0);
  imd_send_message(launcher, IMD_W_CREATED, sandbox, NULL, 0, 0);
  while (imd_recv_packet(launcher, packet, sizeof packet, &given, 0) > 0) {
    if (header->type == IMD_W_AGAIN)
      say_kept(sandbox, record);
    else if (header->type == IMD_EXEC && dies)
      be_killed();
    else if (header->type == IMD_KILL && header->id == sandbox)
      break;
    else if (header->type == IMD_KILL)
      tell(launcher, IMD_FAILED, header->id, &(struct iovec){(void *)(uintptr_t)&(struct imd_failed){.stage = IMD_STAGE_KILLED}, sizeof(struct imd_failed)}, NULL);
    else if (header->type != IMD_W_ALONE)
      echo(header->id, header, &given);
    imd_fds_close(&given);
  }
  say_exited(launcher, sandbox, IMD_CAUSE_KILLED, NULL);
  _exit(0);
}

_Noreturn void warden_main(const struct warden_config *config, int launcher)
{
  struct stat status;
  struct imd_fds fds = {.count = 0}, none = {.count = 0};
  /* The parker's view is the template; the tests' paths are the host's. */
  setns(config->host_mounts, CLONE_NEWNS);
  if (config->grant_read[0] && stat(config->grant_read[0], &status) == 0) {
    say_failed(launcher, 0, IMD_STAGE_CELL, EPERM, "the fake was told to fail");
    _exit(0);
  }
  imd_send_message(launcher, IMD_W_PARKED, 0, NULL, 0, 0);
  outcomes = config->outcomes;

  /* The first word says whether this is a run or a sandbox. */
  const ssize_t first = imd_recv_packet(launcher, packet, sizeof packet, &fds, 0);
  if (first <= 0)
    _exit(first == 0 ? 0 : 9);
  if (((const struct imd_header *)(const void *)packet)->type == IMD_W_CREATE) {
    created = fds;
    keep(launcher);
  }
  const uint64_t run = ((const struct imd_header *)(const void *)packet)->id;
  const struct imd_w_prepare *prepare = (const void *)(packet + sizeof(struct imd_header));
  const void *plan = plan_of(prepare, &fds);
  struct imd_error error = IMD_ERROR_INIT;
  if (imd_plan_check(plan, prepare->plan_length, &error) < 0) {
    say_failed(launcher, run, error.stage, 0, error.text);
    _exit(0);
  }
  char act[32];
  snprintf(act, sizeof act, "%s", argument(plan));

  if (strcmp(act, "describe") == 0) {
    describe(launcher, run, prepare, config);
    _exit(0);
  }
  if (strcmp(act, "die-preparing") == 0)
    be_killed();
  if (strcmp(act, "never-prepared") == 0) {
    expect(launcher, IMD_KILL, &none);
    say_failed(launcher, run, IMD_STAGE_KILLED, 0, "killed");
    _exit(0);
  }
  wait_for_go(launcher, run, &fds);
  if (strcmp(act, "die-running") == 0)
    be_killed();
  if (strcmp(act, "orphan") == 0) {
    leave_orphan(&fds.fd[fds.count - 4]);
    be_killed();
  }
  if (strcmp(act, "hold") == 0) {
    (void)!write(fds.fd[fds.count - 3], "h", 1);
    expect(launcher, IMD_KILL, &none);
    say_exited(launcher, run, IMD_CAUSE_KILLED, NULL);
  } else if (strcmp(act, "collect") == 0) {
    fds.count = 3;                 /* 0, 1 and 2 */
    say_exited(launcher, run, IMD_CAUSE_EXITED, &fds);
  } else {
    say_exited(launcher, run, IMD_CAUSE_EXITED, NULL);
  }
  _exit(0);
}
