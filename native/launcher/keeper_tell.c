#define _GNU_SOURCE
#include "keeper_state.h"
#include "util.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

/* A broker that reads slowly is waited for a while; a time to live is not put off for good by one that went. */
void keeper_tell(const struct keeper *keeper, uint32_t type, uint64_t id, const void *body, size_t size, const int *fds,
                 uint32_t nfds)
{
  const int outcomes = keeper->warden->cell.config->outcomes;
  const struct iovec piece = {(void *)(uintptr_t)body, size};
  struct pollfd room = {.fd = outcomes, .events = POLLOUT};
  const uint64_t deadline = imd_now_ns() + TELL_MS * 1000000ull;
  while (imd_send_packet(outcomes, type, id, &piece, size > 0, fds, nfds, MSG_DONTWAIT) < 0) {
    if (errno != EAGAIN || imd_now_ns() >= deadline) {
      imd_log("sandbox %llu could not tell %u: %s", (unsigned long long)keeper->warden->run.id, type, strerror(errno));
      return;
    }
    poll(&room, 1, TELL_MS / 10);
  }
}

void keeper_tell_launcher(const struct keeper *keeper, uint32_t type, uint64_t id)
{
  imd_send_message(keeper->warden->run.launcher, type, id, NULL, 0, 0);
}

static void measure_places(const struct places *places, struct imd_measures *measures)
{
  dev_t seen[IMD_MAX_PLACES];
  for (uint32_t i = 0; i < places->count; i++) {
    struct stat st;
    struct statfs is;
    bool known = fstat(places->at[i].root, &st) < 0 || fstatfs(places->at[i].root, &is) < 0;
    seen[i] = known ? 0 : st.st_dev;
    for (uint32_t j = 0; j < i && !known; j++)
      known = seen[j] == st.st_dev;
    if (known)
      continue;
    measures->disk_used += (uint64_t)(is.f_blocks - is.f_bfree) * (uint64_t)is.f_bsize;
    measures->disk_files += (uint64_t)(is.f_files - is.f_ffree);
  }
}

void keeper_fill_outcome(const struct keeper *keeper, struct imd_outcome *outcome)
{
  memset(outcome, 0, sizeof *outcome);
  cgroup_measure(&keeper->warden->cgroup, outcome);
  outcome->wall_ns = imd_now_ns() - keeper->created;
}

void keeper_measure(const struct keeper *keeper)
{
  struct imd_measures measures = {.execs = keeper->count};
  keeper_fill_outcome(keeper, &measures.so_far);
  cgroup_measure_now(&keeper->warden->cgroup, &measures.memory_now, &measures.pids_now);
  measure_places(&keeper->warden->cell.places, &measures);
  keeper_tell(keeper, IMD_MEASURES, keeper->warden->run.id, &measures, sizeof measures, NULL, 0);
}

static uint64_t realtime_of(uint64_t monotonic)
{
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - (imd_now_ns() - monotonic);
}

static void tell_kept_exec(const struct keeper *keeper, const struct exec *exec)
{
  const bool started = atomic_load(&exec->birth->stage) == BIRTH_STARTED;
  const struct imd_kept kept = {
      .sandbox = keeper->warden->run.id, .kind = IMD_KEPT_EXEC, .frozen = keeper_stands_still(keeper), .started = started,
      .started_ns = started ? realtime_of(exec->birth->started) : 0};
  int fds[IMD_KEPT_FDS];
  memcpy(fds, exec->fds, sizeof fds);
  if (fds[IMD_KEPT_FDS - 1] < 0)
    fds[IMD_KEPT_FDS - 1] = fds[0];    /* its stdin was closed */
  keeper_tell(keeper, IMD_KEPT, exec->number, &kept, sizeof kept, fds, IMD_KEPT_FDS);
  if (exec->terminal >= 0)
    keeper_tell(keeper, IMD_TERMINAL, exec->number, NULL, 0, &exec->terminal, 1);
}

void keeper_tell_kept(const struct keeper *keeper)
{
  const uint64_t now = imd_now_ns();
  struct imd_kept kept = {.sandbox = keeper->warden->run.id,
                          .kind = IMD_KEPT_SANDBOX,
                          .frozen = keeper_stands_still(keeper),
                          .started = 1,
                          .started_ns = realtime_of(keeper->created),
                          .wall_left_ns = keeper->deadline > now ? keeper->deadline - now : 0};
  for (size_t i = 0; i < keeper->count; i++)
    kept.execs += keeper->execs[i].kept;
  keeper_tell(keeper, IMD_KEPT, keeper->warden->run.id, &kept, sizeof kept, &keeper->record, 1);
  for (size_t i = 0; i < keeper->count; i++)
    if (keeper->execs[i].kept)
      tell_kept_exec(keeper, &keeper->execs[i]);
}
