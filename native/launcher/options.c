#define _GNU_SOURCE
#include "options.h"
#include "protocol.h"
#include "util.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>

enum option_name {
  CONTROL_FD = 256,
  SOCKET,
  SLOT_BASE,
  SLOT_COUNT,
  CGROUP,
  LOCK_FD,
  LISTEN_FD,
  CONTROL,
  BROKER_UID,
  ORPHAN_MS,
  PROGRAM,
  STATE_FD,
  TAKES_OVER,
  POOL_MIN,
  POOL_MAX,
  MAX_CONNECTIONS,
  GRANT_READ,
  GRANT_WRITE,
  OPEN_TIMEOUT_MS,
  STORAGE,
};

static const struct option names[] = {
    {"control-fd", required_argument, NULL, CONTROL_FD},
    {"socket", required_argument, NULL, SOCKET},
    {"slot-base", required_argument, NULL, SLOT_BASE},
    {"slot-count", required_argument, NULL, SLOT_COUNT},
    {"cgroup", required_argument, NULL, CGROUP},
    {"lock-fd", required_argument, NULL, LOCK_FD},
    {"listen-fd", required_argument, NULL, LISTEN_FD},
    {"control", required_argument, NULL, CONTROL},
    {"broker-uid", required_argument, NULL, BROKER_UID},
    {"orphan-ms", required_argument, NULL, ORPHAN_MS},
    {"program", required_argument, NULL, PROGRAM},
    {"state-fd", required_argument, NULL, STATE_FD},
    {"takes-over", required_argument, NULL, TAKES_OVER},
    {"pool-min", required_argument, NULL, POOL_MIN},
    {"pool-max", required_argument, NULL, POOL_MAX},
    {"max-connections", required_argument, NULL, MAX_CONNECTIONS},
    {"grant-read", required_argument, NULL, GRANT_READ},
    {"grant-write", required_argument, NULL, GRANT_WRITE},
    {"open-timeout-ms", required_argument, NULL, OPEN_TIMEOUT_MS},
    {"storage", required_argument, NULL, STORAGE},
    {NULL, 0, NULL, 0},
};

enum { MAX_SLOTS = 65535 };

static int take_number(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
  char *end;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || text[0] < '0' || text[0] > '9' || value < least || value > most)
    return -1;
  *number = value;
  return 0;
}

static int take_descriptor(const char *text, int *fd)
{
  uint64_t number;
  if (take_number(text, 3, INT_MAX, &number) < 0 || fcntl((int)number, F_GETFD) < 0)
    return -1;
  *fd = (int)number;
  return 0;
}

static int take_lock(const char *text, int *locks)
{
  for (int i = 0; i < IMD_MAX_LOCKS; i++)
    if (locks[i] < 0)
      return take_descriptor(text, &locks[i]);
  return -1;
}

static int take_count(const char *text, uint32_t least, uint32_t most, uint32_t *count)
{
  uint64_t number;
  if (take_number(text, least, most, &number) < 0)
    return -1;
  *count = (uint32_t)number;
  return 0;
}

static int take_grant(char *text, char **grants)
{
  if (text[0] != '/')
    return -1;
  while (*grants)
    grants++;
  *grants = text;
  return 0;
}

static int take(struct imd_options *options, int name, char *text)
{
  uint32_t number;
  switch (name) {
  case CONTROL_FD:
    return take_descriptor(text, &options->control_fd);
  case LISTEN_FD:
    return take_descriptor(text, &options->listen_fd);
  case LOCK_FD:
    return take_lock(text, options->lock_fds);
  case CONTROL:
    options->control = text;
    return text[0] == '/' ? 0 : -1;
  case BROKER_UID:
    return take_count(text, 1, UINT32_MAX - 1, &options->broker_uid);
  case PROGRAM:
    options->program = text;
    return text[0] == '/' ? 0 : -1;
  case STATE_FD:
    return take_descriptor(text, &options->state_fd);
  case TAKES_OVER:
    if (take_count(text, 0, UINT32_MAX, &number) < 0)
      return -1;
    options->takes_over = number;
    return 0;
  case ORPHAN_MS:
    if (take_count(text, 0, 24 * 3600 * 1000, &number) < 0)
      return -1;
    options->orphan_ms = (int)number;
    return 0;
  case SOCKET:
    options->socket = text;
    return text[0] == '/' ? 0 : -1;
  case CGROUP:
    options->cgroup = text[0] != '\0' ? text : NULL;
    return text[0] == '/' || text[0] == '\0' ? 0 : -1;
  case SLOT_BASE:
    /* Never the host's own ids, which end well below. */
    return take_count(text, IMD_SLOT_SIZE, UINT32_MAX - IMD_SLOT_SIZE, &options->slot_base);
  case SLOT_COUNT:
    return take_count(text, 1, MAX_SLOTS, &options->slot_count);
  case POOL_MIN:
    return take_count(text, 0, MAX_SLOTS, &options->pool_min);
  case POOL_MAX:
    return take_count(text, 0, MAX_SLOTS, &options->pool_max);
  case MAX_CONNECTIONS:
    return take_count(text, 1, 1 << 20, &options->max_connections);
  case OPEN_TIMEOUT_MS:
    if (take_count(text, 1, 3600 * 1000, &number) < 0)
      return -1;
    options->open_timeout_ms = (int)number;
    return 0;
  case STORAGE:
    /* A keeper wipes its arguments, and asks for it later. */
    options->storage = strdup(text);
    return text[0] == '/' && options->storage ? 0 : -1;
  case GRANT_READ:
    return take_grant(text, options->grant_read);
  case GRANT_WRITE:
    return take_grant(text, options->grant_write);
  default:
    return -1;
  }
}

int imd_options_parse(struct imd_options *options, int argc, char **argv)
{
  *options = (struct imd_options){
      .control_fd = -1,
      .lock_fds = {-1, -1, -1, -1},
      .listen_fd = -1,
      .state_fd = -1,
      .takes_over = -1,
      .words = argv,
      .orphan_ms = 300 * 1000,
      .max_connections = 16384,
      .open_timeout_ms = 5000,
      .grant_read = calloc((size_t)argc + 1, sizeof(char *)),
      .grant_write = calloc((size_t)argc + 1, sizeof(char *)),
  };
  if (!options->grant_read || !options->grant_write) {
    imd_log("no memory");
    return -1;
  }
  int index = 0;
  for (int name; (name = getopt_long(argc, argv, "", names, &index)) != -1;) {
    if (name == '?')
      return -1;
    if (take(options, name, optarg) < 0) {
      imd_log("--%s: not usable: %s", names[index].name, optarg);
      return -1;
    }
  }
  if (optind != argc) {
    imd_log("unexpected argument: %s", argv[optind]);
    return -1;
  }
  if (options->takes_over >= 0)
    return 0;
  options->standing = options->control_fd < 0;
  if ((options->standing && !options->control) || !options->socket || options->slot_base == 0 ||
      options->slot_count == 0) {
    imd_log("--control-fd or --control, --socket, --slot-base and --slot-count are needed: the daemon `immured` starts "
            "this program");
    return -1;
  }
  if ((uint64_t)options->slot_base + (uint64_t)options->slot_count * IMD_SLOT_SIZE > UINT32_MAX) {
    imd_log("--slot-count: the ranges end beyond the largest id");
    return -1;
  }
  if (options->pool_max < options->pool_min || options->pool_max > options->slot_count) {
    imd_log("--pool-max: not between --pool-min and --slot-count");
    return -1;
  }
  return 0;
}
