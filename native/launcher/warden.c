#define _GNU_SOURCE
#include "warden.h"
#include "ending.h"
#include "keeper.h"
#include "message.h"
#include "order.h"
#include "payload.h"
#include "protect.h"
#include "stand.h"
#include "supervise.h"

#include <string.h>

static int prepare(struct warden *warden, struct imd_error *err)
{
  if (stand_up(warden, CGROUP_OF_RUN, err) < 0 ||
      explain_watch_read(&warden->cell.explain, warden->run.plan, warden->run.log, err) < 0)
    return -1;
  return payload_start(&warden->payload, &warden->cell, &warden->cgroup, &warden->run, err);
}

static void serve_run(struct warden *warden, struct order *order)
{
  struct imd_error err = IMD_ERROR_INIT;
  if (order_read(order, &warden->run, NULL, warden->cell.config->slot_base, &err) < 0 || prepare(warden, &err) < 0)
    ending_fail(warden, &err);
  /* Ours must not keep the payload's pipes open. */
  order_close(order);
  memcpy(warden->run.stdio, (int[]){-1, -1, -1}, sizeof warden->run.stdio);
  warden->run.go = warden->run.log = -1;

  struct imd_outcome outcome;
  bool orphaned = false;
  const int result =
      supervise(&warden->cell, &warden->cgroup, &warden->run, &warden->payload, &outcome, &orphaned, &err);
  protect_release(&warden->cell, &warden->run, &warden->held);
  if (result < 0)
    ending_fail(warden, &err);
  if (!orphaned)
    ending_report(warden, &outcome);
}

static void serve(struct warden *warden)
{
  cleanup_order struct order order = {.packet = NULL};
  if (!order_wait(&order, warden->run.launcher))
    return;
  if (((const struct imd_header *)order.packet)->type == IMD_W_CREATE)
    keeper_serve(warden, &order);
  else
    serve_run(warden, &order);
}

_Noreturn void warden_main(const struct warden_config *config, int launcher_fd)
{
  struct warden warden = {.cgroup = CGROUP_NONE, .payload = PAYLOAD_NONE, .run = RUN_NONE(launcher_fd), .held = HELD_NONE};
  struct imd_error err = IMD_ERROR_INIT;
  if (cell_make(&warden.cell, config, &err) < 0)
    ending_fail(&warden, &err);
  if (imd_send_message(launcher_fd, IMD_W_PARKED, config->cell, NULL, 0, 0) == 0)
    serve(&warden);
  ending_leave(&warden);
}
