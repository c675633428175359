#define _GNU_SOURCE
#include "ending.h"
#include "collect.h"
#include "processors.h"
#include "protect.h"
#include "supervise.h"
#include "util.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { TEARDOWN_NICE = 10 };

/*
 * What we said must arrive. A unix socket that closes with something unread in it gives its other end ECONNRESET
 * before whatever we sent: so nothing more is let in, and what is there is taken out.
 */
_Noreturn static void leave(const struct warden *warden)
{
  char byte;
  shutdown(warden->run.launcher, SHUT_RD);
  while (recv(warden->run.launcher, &byte, 1, MSG_DONTWAIT) > 0)
    continue;
  _exit(EXIT_SUCCESS);
}

_Noreturn void ending_leave(struct warden *warden)
{
  kill_cell(&warden->cell, &warden->cgroup, &warden->payload, -1);
  cgroup_remove(&warden->cgroup);
  leave(warden);
}

/* Before there was a run: to the launcher alone. */
void ending_tell(const struct warden *warden, uint32_t type, const struct iovec *body, size_t pieces,
                 const struct imd_fds *fds)
{
  const struct run *run = &warden->run;
  const int broker = run->id != 0 ? warden->cell.config->outcomes : run->launcher;
  const int told = imd_send_packet(broker, type, run->id, body, pieces, fds ? fds->fd : NULL, fds ? fds->count : 0, 0);
  if (told < 0)
    imd_log("the end of run %llu could not be told: %s", (unsigned long long)run->id, strerror(errno));
  else if (run->id != 0 && !warden->cell.shared)
    imd_send_message(run->launcher, IMD_W_OVER, run->id, NULL, 0, 0);
}

static struct imd_failed failed_of(const struct imd_error *err)
{
  return (struct imd_failed){.stage = err->stage, .step = err->step, .error = err->error};
}

int ending_tell_failed(const struct warden_config *config, uint64_t id, const struct imd_error *err)
{
  const struct imd_failed failed = failed_of(err);
  const struct iovec body[] = {
      {(void *)(uintptr_t)&failed, sizeof failed},
      {(void *)(uintptr_t)err->text, strnlen(err->text, sizeof err->text)},
  };
  return imd_send_packet(config->outcomes, IMD_FAILED, id, body, 2, NULL, 0, 0);
}

_Noreturn void ending_fail(struct warden *warden, const struct imd_error *err)
{
  const struct imd_failed failed = failed_of(err);
  const struct iovec body[] = {
      {(void *)(uintptr_t)&failed, sizeof failed},
      {(void *)(uintptr_t)err->text, strnlen(err->text, sizeof err->text)},
  };
  /* The protocol's word: by then everything is torn down. What cannot be killed is waited for after it. */
  if (kill_cell(&warden->cell, &warden->cgroup, &warden->payload, UNKILLABLE_MS)) {
    cgroup_remove(&warden->cgroup);
    processors_release(&warden->run, warden->cell.config);
  }
  protect_release(&warden->cell, &warden->run, &warden->held);
  ending_tell(warden, IMD_FAILED, body, 2, NULL);
  ending_leave(warden);
}

void ending_report(struct warden *warden, struct imd_outcome *outcome)
{
  char space[IMD_VIOLATIONS_SPACE];
  struct findings findings = {.which = 0};
  struct imd_error err = IMD_ERROR_INIT;
  if (collect_files(&warden->cell, &warden->run, &findings, &err) < 0)
    imd_log("nothing collected: %s", err.text);
  outcome->collected = findings.which;
  const size_t violations = explain_watch_report(&warden->cell.explain, space);
  const struct iovec body[] = {{outcome, sizeof *outcome}, {space, violations}};
  /* Who hears of the end may ask for the same processors at once. */
  processors_release(&warden->run, warden->cell.config);
  ending_tell(warden, IMD_EXITED, body, 2, &findings.fds);
  imd_fds_close(&findings.fds);
  /* What is left to do has time, and whoever waits for the outcome has not. */
  setpriority(PRIO_PROCESS, 0, TEARDOWN_NICE);
}
