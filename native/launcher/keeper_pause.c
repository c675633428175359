#define _GNU_SOURCE
#include "keeper_state.h"
#include "util.h"

#include <string.h>

static void tell_frozen(const struct keeper *keeper, int error)
{
  const struct imd_freeze is = {keeper->frozen, (uint32_t)error};
  keeper_tell(keeper, IMD_FROZEN, keeper->warden->run.id, &is, sizeof is, NULL, 0);
}

/*
 * An exec's clock stands still for at least as long as its processes do: its warden hears of the pause before they do, and
 * of its end after them.
 */
static int set_frozen(const struct keeper *keeper, bool on)
{
  const struct imd_freeze said = {on, 0};
  if (on)
    keeper_pass_to_all(keeper, IMD_FREEZE, &said, sizeof said);
  const int result = cgroup_freeze(&keeper->warden->cgroup, on);
  const struct imd_freeze off = {0, 0};
  if (!on || result < 0)
    keeper_pass_to_all(keeper, IMD_FREEZE, &off, sizeof off);
  return result;
}

bool keeper_stands_still(const struct keeper *keeper)
{
  return keeper->freezing ? keeper->freeze_to : keeper->frozen;
}

static void answer_freeze(struct keeper *keeper, int error)
{
  if (keeper->freeze_asked)
    tell_frozen(keeper, error);
  keeper->freeze_asked = false;
}

void keeper_look_at_freezing(struct keeper *keeper)
{
  if (!keeper->freezing)
    return;
  const bool is = cgroup_is_frozen(&keeper->warden->cgroup);
  if (is != keeper->freeze_to && imd_now_ns() < keeper->freeze_deadline)
    return;
  keeper->freezing = false;
  imd_close(&keeper->frozen_events);
  if (is == keeper->freeze_to) {
    keeper->frozen = is;
    answer_freeze(keeper, 0);
    return;
  }
  /* A process that waits in the kernel for something that does not come (a file system of the caller's) cannot be stopped. */
  set_frozen(keeper, keeper->frozen);
  answer_freeze(keeper, ETIMEDOUT);
}

void keeper_freeze(struct keeper *keeper, bool on)
{
  if (keeper->freeze_asked) {
    tell_frozen(keeper, EBUSY);
    return;
  }
  keeper->freeze_asked = true;
  if (!keeper->freezing && on == keeper->frozen) {
    answer_freeze(keeper, 0);
    return;
  }
  if (!keeper->freezing)
    keeper->frozen_events = cgroup_frozen_events(&keeper->warden->cgroup);
  if (keeper->frozen_events < 0 || set_frozen(keeper, on) < 0) {
    const int error = errno;
    if (!keeper->freezing)
      imd_close(&keeper->frozen_events);
    answer_freeze(keeper, error);
    return;
  }
  keeper->freezing = true;
  keeper->freeze_to = on;
  keeper->freeze_deadline = imd_now_ns() + FREEZE_MS * 1000000ull;
  keeper_look_at_freezing(keeper);
}

/*
 * Who asked is dead, and nobody else would ever learn how it came out: the next broker, told that it is not frozen, would have a
 * sandbox that stops a moment later, for good. What was not answered has not happened.
 */
void keeper_drop_freezing(struct keeper *keeper)
{
  keeper->freeze_asked = false;
  if (!keeper->freezing || !keeper->freeze_to)
    return;
  if (set_frozen(keeper, false) < 0)
    imd_log("sandbox %llu: %s", (unsigned long long)keeper->warden->run.id, strerror(errno));
  keeper->freeze_to = false;
  keeper_look_at_freezing(keeper);
}
