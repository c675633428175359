#define _GNU_SOURCE
#include "brokers.h"
#include "counts.h"
#include "relay.h"
#include "relay_run.h"
#include "util.h"

#include <linux/landlock.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum { BROKER_MESSAGES_AT_ONCE = 32 };

static int obey(struct imd_launcher *launcher, const char *packet, size_t length, struct imd_fds *fds)
{
  struct imd_header header;
  memcpy(&header, packet, sizeof header);
  switch (header.type) {
  case IMD_PREPARE:
  case IMD_CREATE:
    return imd_run_prepare(launcher, packet, length, fds);
  case IMD_KILL:
    return imd_run_kill(launcher, packet, length);
  case IMD_EXEC:
    return imd_exec_start(launcher, packet, length, fds);
  case IMD_SIGNAL:
  case IMD_RESIZE:
  case IMD_CLOSE_STDIN:
    return imd_exec_tell(launcher, packet, length);
  case IMD_FREEZE:
  case IMD_EXTEND:
  case IMD_MEASURE:
    return imd_sandbox_tell(launcher, packet, length);
  case IMD_ASK:
    return imd_sandbox_ask(launcher, packet, length, fds);
  case IMD_CONN_CLOSED:
    imd_listener_forget(&launcher->listener, header.id);
    return 0;
  case IMD_TURN_AWAY: {
    struct imd_turn_away away;
    if (length != sizeof header + sizeof away)
      return -1;
    memcpy(&away, packet + sizeof header, sizeof away);
    imd_listener_turn_away(&launcher->listener, away.uid, away.ms);
    return 0;
  }
  case IMD_COUNT: {
    struct imd_counts counts;
    counts_read(&counts);
    imd_outbox_put(&launcher->outbox, IMD_COUNTS, 0, &counts, sizeof counts, NULL, 0);
    return 0;
  }
  case IMD_STOP:
    imd_launcher_stop_accepting(launcher);
    return 0;
  case IMD_PAUSE:
    launcher->paused = true;
    return 0;
  default:
    imd_log("unknown message %u", header.type);
    return -1;
  }
}

void imd_broker_spoke(struct imd_launcher *launcher)
{
  static _Alignas(8) char packet[IMD_MAX_PACKET];
  for (int i = 0; i < BROKER_MESSAGES_AT_ONCE && launcher->broker >= 0 && !imd_outbox_waits(&launcher->outbox); i++) {
    cleanup_fds_dropped struct imd_fds fds = {.count = 0};
    const ssize_t length = imd_recv_packet(launcher->broker, packet, sizeof packet, &fds, MSG_DONTWAIT);
    if (length < 0 && errno == EAGAIN)
      return;
    if (length == 0 || (length < 0 && errno != EBADMSG)) {
      imd_broker_gone(launcher);
      return;
    }
    if (length < 0 || obey(launcher, packet, (size_t)length, &fds) < 0) {
      imd_log("the broker breaks the protocol");
      launcher->failed = true;
      imd_broker_gone(launcher);
    }
    if (length > 0)
      explicit_bzero(packet, (size_t)length);   /* plans hold secrets */
  }
}

static void say_ready(struct imd_launcher *launcher)
{
  static _Alignas(8) char body[IMD_MAX_PACKET];
  const size_t path = strnlen(launcher->subtree.path, PATH_MAX);
  const long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
  uint64_t *numbers = (uint64_t *)(void *)(body + sizeof(struct imd_ready));
  const struct imd_ready ready = {
      .version = IMD_PROTOCOL_VERSION,
      .controllers = launcher->subtree.controllers,
      .landlock_abi = landlock > 0 ? (uint32_t)landlock : 0,
      .slot_base = launcher->options->slot_base,
      .slot_count = launcher->options->slot_count,
      .swap = launcher->subtree.swap,
      .abilities = IMD_CAN_TURN_AWAY | IMD_CAN_COUNT,
      .sandboxes = imd_sandboxes_living(launcher, numbers, IMD_MAX_SANDBOXES),
  };
  const size_t head = sizeof ready + ready.sandboxes * sizeof *numbers;
  memcpy(body, &ready, sizeof ready);
  memcpy(body + head, launcher->subtree.path, path);
  imd_outbox_put(&launcher->outbox, IMD_READY, 0, body, head + path, &launcher->outcomes[0], 1);
}

int imd_broker_watch(struct imd_launcher *launcher, int broker)
{
  struct epoll_event read = {.events = EPOLLIN, .data.u64 = IMD_FROM_BROKER};
  struct epoll_event write = {.events = EPOLLOUT, .data.u64 = IMD_FROM_BROKER};
  launcher->broker = broker;
  imd_outbox_open(&launcher->outbox, broker);
  if (broker < 0) {
    launcher->outbox.broken = true;
    return 0;
  }
  if (epoll_ctl(launcher->everybody, EPOLL_CTL_ADD, broker, &read) < 0 ||
      epoll_ctl(launcher->urgent, EPOLL_CTL_ADD, broker, &write) < 0) {
    imd_log("epoll: %s", strerror(errno));
    return -1;
  }
  return 0;
}

int imd_broker_open(struct imd_launcher *launcher, int broker)
{
  launcher->alone_until = 0;
  if (imd_broker_watch(launcher, broker) < 0)
    return -1;
  if (broker >= 0)
    say_ready(launcher);
  return 0;
}

void imd_broker_knocked(struct imd_launcher *launcher)
{
  struct imd_error error = IMD_ERROR_INIT;
  const int broker = launcher->broker < 0 ? imd_control_accept(&launcher->control) : -1;
  if (broker < 0)
    return;
  launcher->paused = false;
  launcher->failed = false;
  if (launcher->listener.socket < 0 && imd_launcher_listen(launcher, &error) < 0)
    imd_log("socket: %s", error.text);
  if (imd_broker_open(launcher, broker) < 0) {
    imd_broker_gone(launcher);
    return;
  }
  imd_sandboxes_again(launcher);
}

/* Whether anybody may come after the one who was. */
static bool is_awaited(const struct imd_launcher *launcher)
{
  return launcher->control.socket >= 0 && !launcher->terminated &&
         (launcher->options->standing || imd_sandboxes_living(launcher, NULL, UINT32_MAX) > 0);
}

void imd_broker_gone(struct imd_launcher *launcher)
{
  if (launcher->stopping)
    return;
  if (launcher->alone_until == 0) {
    launcher->outbox.broken = true;
    imd_outbox_flush(&launcher->outbox);
    imd_drop(&launcher->broker, 1);  /* leaves both epoll sets */
    imd_listener_forget_all(&launcher->listener);
    imd_run_forget_waiting(launcher);
    launcher->alone_until = imd_now_ns() + (uint64_t)launcher->options->orphan_ms * 1000000;
    if (is_awaited(launcher)) {
      imd_log("the broker is gone: %u sandboxes are kept", launcher->sandboxes);
      imd_sandboxes_alone(launcher);
    }
  }
  if (!is_awaited(launcher))
    imd_launcher_stop(launcher);
}

void imd_broker_tend(struct imd_launcher *launcher)
{
  if (launcher->stopping || launcher->broker >= 0)
    return;
  if (launcher->alone_until != 0 && imd_now_ns() >= launcher->alone_until && launcher->sandboxes > 0) {
    imd_log("no broker came for %d ms: %u sandboxes end", launcher->options->orphan_ms, launcher->sandboxes);
    imd_sandboxes_end(launcher);
    launcher->alone_until = UINT64_MAX;
  }
  if (!is_awaited(launcher))
    imd_launcher_stop(launcher);
}

uint64_t imd_broker_wake(const struct imd_launcher *launcher)
{
  return launcher->broker < 0 && launcher->alone_until != 0 && launcher->sandboxes > 0 ? launcher->alone_until
                                                                                       : UINT64_MAX;
}
