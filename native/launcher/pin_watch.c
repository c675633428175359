#define _GNU_SOURCE
#include "pin_watch.h"
#include "message.h"
#include "util.h"

#include <fcntl.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

/* As the host counts users: in the payload's user namespace root is one of all that nobody there can be. */
static bool is_roots(int fd)
{
  struct statx about;
  return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &about) == 0 && about.stx_uid == 0 &&
         S_ISREG(about.stx_mode) && (about.stx_mode & (S_IWGRP | S_IWOTH)) == 0;
}

int pins_classify(struct pins *pins, int payload, int *fds, struct imd_error *err)
{
  const uint32_t count = pins->count <= IMD_MAX_PINNED ? pins->count : IMD_MAX_PINNED;
  for (uint32_t i = 0; i < count; i++) {
    struct pin *pin = &pins->at[i];
    if (!pin->local)
      continue;
    cleanup_fd int fd = pidfd_getfd(payload, pin->fd, 0);
    if (fd < 0)
      return imd_fail(err, IMD_STAGE_PIN, errno, "%s", pin->path);
    pin->fixed = is_roots(fd);
    if (pin->fixed)
      fds[i] = imd_take_fd(&fd);
  }
  return 0;
}

static size_t put(char *at, const struct pin *pin)
{
  struct imd_pinned_file head = {.size = pin->size,
                                 .flags = pin->fixed ? IMD_PINNED_FIXED : 0,
                                 .path_length = (uint16_t)strnlen(pin->path, sizeof pin->path - 1),
                                 .argument_length = (uint16_t)strnlen(pin->argument, sizeof pin->argument - 1)};
  memcpy(head.sha256, pin->sha256, sizeof head.sha256);
  memcpy(at, &head, sizeof head);
  memcpy(at + sizeof head, pin->path, head.path_length);
  memcpy(at + sizeof head + head.path_length, pin->argument, head.argument_length);
  return sizeof head + head.path_length + head.argument_length;
}

int pins_tell(const struct pins *pins, int outcomes, uint64_t run, const int *fds)
{
  struct imd_pinned head = {.files = pins->count <= IMD_MAX_PINNED ? pins->count : IMD_MAX_PINNED};
  char space[IMD_MAX_PINNED * (sizeof(struct imd_pinned_file) + sizeof pins->at[0].path + sizeof pins->at[0].argument)];
  size_t used = 0;
  int given[IMD_MAX_PINNED];
  uint32_t nfds = 0;
  for (uint32_t i = 0; i < head.files; i++) {
    used += put(space + used, &pins->at[i]);
    if (fds[i] >= 0)
      given[nfds++] = fds[i];
  }
  const struct iovec body[] = {{&head, sizeof head}, {space, used}};
  return imd_send_packet(outcomes, IMD_PINNED, run, body, 2, given, nfds, 0);
}
