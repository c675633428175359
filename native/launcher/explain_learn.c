#define _GNU_SOURCE
#include "explain_learn.h"

#include <stdbool.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SLOTS = 4 * IMD_MAX_LEARNED_ROWS };

/* Of PID 1 alone, which serves one run: pages that no other run touches. */
static uint64_t seen[SLOTS];
static uint32_t rows, used;
static bool full;

/* FNV-1a. Who makes two of its own paths collide hides one of them from a manifest that it would have been granted in. */
static uint64_t digest(uint32_t kind, uint32_t number, const unsigned char *text, size_t length)
{
  uint64_t hash = 0xcbf29ce484222325u ^ ((uint64_t)kind << 32 | number);
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ text[i]) * 0x100000001b3u;
  return hash ? hash : 1;
}

static bool is_new(uint64_t hash)
{
  for (uint32_t i = 0; i < SLOTS; i++) {
    uint64_t *slot = &seen[(hash + i) % SLOTS];
    if (*slot == hash)
      return false;
    if (*slot == 0) {
      *slot = hash;
      return true;
    }
  }
  return false;
}

static void put(int log, uint32_t kind, uint32_t number, const void *text, size_t length)
{
  const struct imd_learned head = {.kind = kind, .number = number, .length = (uint32_t)length};
  char row[sizeof head + IMD_MAX_TARGET];
  memcpy(row, &head, sizeof head);
  if (length > 0)
    memcpy(row + sizeof head, text, length);
  rows++;
  used += (uint32_t)(sizeof head + length);
  (void)!write(log, row, sizeof head + length);
}

void explain_learn_note(int log, uint32_t kind, uint32_t number, const void *text, size_t length)
{
  if (full || length > IMD_MAX_TARGET || !is_new(digest(kind, number, text, length)))
    return;
  full = rows + 1 >= IMD_MAX_LEARNED_ROWS || used + 2 * sizeof(struct imd_learned) + length > IMD_MAX_LEARNED;
  if (full)
    put(log, IMD_LEARNED_CUT, 0, NULL, 0);
  else
    put(log, kind, number, text, length);
}
