#define _GNU_SOURCE
#include "places.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/*
 * The fine clock, though file times are of a coarse one (since 6.13 of either): what was changed just before may have
 * been given the fine time, and must not seem to lie behind. What is changed within the same tick (1 to 10 ms) may seem to
 * lie before: no exec has begun by then.
 */
static uint64_t now(void)
{
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int duplicate(int fd)
{
  return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* An O_PATH descriptor cannot be read: a directory is opened anew. Only of our own: a caller's may never answer. */
static int readable(int fd)
{
  return fd < 0 ? -1 : openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void forget(struct place *place)
{
  imd_close(&place->root);
  imd_close(&place->lower);
  imd_close(&place->saved);
  imd_close(&place->work);
  imd_close(&place->stage);
  imd_close(&place->accepted);
  free(place->target);
  free(place->source);
}

int places_add(struct places *places, const struct place *place)
{
  if (places->count == IMD_MAX_PLACES) {
    errno = E2BIG;
    return -1;
  }
  struct place own = *place;
  own.target = strdup(place->target);
  own.source = place->source ? strdup(place->source) : NULL;
  own.root = readable(place->root);
  own.lower = duplicate(place->lower);
  own.saved = duplicate(place->saved);
  own.work = readable(place->work);
  own.stage = duplicate(place->stage);
  own.accepted = duplicate(place->accepted);
  own.made_ns = now();
  if (!own.target || (place->source && !own.source) || own.root < 0 || (place->lower >= 0 && own.lower < 0) ||
      (place->saved >= 0 && own.saved < 0) || (place->work >= 0 && own.work < 0) ||
      (place->stage >= 0 && own.stage < 0) || (place->accepted >= 0 && own.accepted < 0)) {
    const int error = errno;
    forget(&own);
    errno = error;
    return -1;
  }
  places->at[places->count++] = own;
  return 0;
}

struct place *places_find(struct places *places, const char *target)
{
  /* The last: what was mounted later stands on top. */
  for (uint32_t i = places->count; i-- > 0;)
    if (strcmp(places->at[i].target, target) == 0)
      return &places->at[i];
  return NULL;
}

void places_close(struct places *places)
{
  while (places->count > 0)
    forget(&places->at[--places->count]);
}
