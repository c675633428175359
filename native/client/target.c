#include "target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SYSTEM_SOCKET "/run/immured/immured.sock"
#define USER_KEY ".config/immure/key.pem"

static const char *environment(const char *name)
{
  const char *const value = getenv(name);
  return value && value[0] ? value : NULL;
}

static bool join(char made[PATH_MAX], const char *base, const char *path)
{
  const int length = snprintf(made, PATH_MAX, "%s/%s", base, path);
  return length > 0 && length < PATH_MAX;
}

/* The first that is given: the option, the state directory's file, the variable. NULL: none, or too long a path. */
static const char *first(const char *option, const char *state, const char *file, const char *variable,
                         char room[PATH_MAX])
{
  if (option)
    return option;
  if (state)
    return join(room, state, file) ? room : NULL;
  return environment(variable);
}

static bool read_daemon(struct imc_target *target, const char *given, const char *socket)
{
  char place[PATH_MAX], base[PATH_MAX];
  if (given)
    return given[0] != '~' && imc_read_public(given, &target->daemon);
  const char *const slash = strrchr(socket, '/');
  const size_t length = slash == socket ? 1 : (size_t)(slash - socket);
  memcpy(base, socket, length);
  base[length] = '\0';
  if (!join(place, base, "daemon.pub"))
    return false;
  if (imc_read_public(place, &target->daemon))
    return true;
  if (errno != ENOENT && errno != ENOTDIR)
    return false;
  return join(place, base, "keys/daemon.pub") && imc_read_public(place, &target->daemon);
}

bool imc_settle(struct imc_target *target, const struct imc_options *options, const char *here)
{
  char socket_room[PATH_MAX], key_room[PATH_MAX], daemon_room[PATH_MAX], socket[PATH_MAX];
  const char *const state = options->state;
  const char *given = first(options->socket, state, "immured.sock", "IMMURE_SOCKET", socket_room);
  const char *key = first(options->key, state, "keys/admin.pem", "IMMURE_KEY", key_room);
  const char *daemon = first(options->daemon_key, state, "keys/daemon.pub", "IMMURE_DAEMON_KEY", daemon_room);
  if (!given)
    given = SYSTEM_SOCKET;
  if (given[0] == '/' ? snprintf(socket, sizeof socket, "%s", given) >= (int)sizeof socket : !join(socket, here, given))
    return false;
  if (strlen(socket) >= sizeof target->address.sun_path)
    return false;
  if (!key) {
    const char *const home = getenv("HOME");
    if (!home || home[0] != '/' || !join(key_room, home, USER_KEY))
      return false;
    key = key_room;
  }
  if (key[0] == '~')               /* rare, and whose home it means is the name service's to say */
    return false;
  target->address.sun_family = AF_UNIX;
  strcpy(target->address.sun_path, socket);
  return read_daemon(target, daemon, socket) && imc_read_seed(key, target->seed);
}
