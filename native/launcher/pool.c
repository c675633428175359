#define _GNU_SOURCE
#include "pool.h"
#include "util.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define MILLISECOND 1000000ull
#define REVIEW_NS (2000 * MILLISECOND)
#define PUT_OFF_NS (5 * MILLISECOND)
#define LONGEST_REST_NS (1000 * MILLISECOND)
enum { FAILURES_IN_A_ROW = 3 };

void imd_pool_open(struct imd_pool *pool, uint32_t slot_base, uint32_t slots, uint32_t min, uint32_t max, int parker,
                   int epoll)
{
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  *pool = (struct imd_pool){
      .cells = imd_allocate(slots * sizeof *pool->cells),
      .slot_base = slot_base,
      .slots = slots,
      .min = min,
      .max = max,
      .target = min,
      .at_once = cpus > 2 ? 2 * (uint32_t)cpus : 4,
      .parker = parker,
      .epoll = epoll,
      .failure = IMD_ERROR_INIT,
      .review = UINT64_MAX,
  };
  TAILQ_INIT(&pool->free_cells);
  TAILQ_INIT(&pool->parked_cells);
  for (uint32_t slot = 0; slot < slots; slot++) {
    struct imd_cell *cell = &pool->cells[slot];
    cell->number = slot;
    cell->socket = -1;
    TAILQ_INSERT_TAIL(&pool->free_cells, cell, link);
  }
}

/* Leaves the state it is in, whose lists and counts then no longer have it. */
static void leave(struct imd_pool *pool, struct imd_cell *cell, enum imd_cell_state next)
{
  switch (cell->state) {
  case IMD_CELL_FREE:
    TAILQ_REMOVE(&pool->free_cells, cell, link);
    pool->busy++;
    break;
  case IMD_CELL_PARKED:
    TAILQ_REMOVE(&pool->parked_cells, cell, link);
    pool->parked--;
    break;
  case IMD_CELL_PARKING:
    pool->parking--;
    break;
  default:
    break;
  }
  cell->state = next;
}

void imd_pool_close(struct imd_pool *pool, struct imd_cell *cell)
{
  if (cell->state != IMD_CELL_ENDING)
    leave(pool, cell, IMD_CELL_ENDING);
  imd_close(&cell->socket);        /* leaves the epoll set with its last descriptor */
}

void imd_pool_close_all(struct imd_pool *pool)
{
  for (uint32_t slot = 0; slot < pool->slots; slot++)
    if (pool->cells[slot].state != IMD_CELL_FREE && pool->cells[slot].state != IMD_CELL_RETIRED)
      imd_pool_close(pool, &pool->cells[slot]);
}

void imd_pool_close_parked(struct imd_pool *pool)
{
  while (!TAILQ_EMPTY(&pool->parked_cells))
    imd_pool_close(pool, TAILQ_FIRST(&pool->parked_cells));
  pool->low_water = 0;
}

int imd_pool_restore(struct imd_pool *pool, uint32_t slot, uint64_t number, uint32_t state, uint32_t generation,
                     int socket)
{
  struct imd_cell *cell = &pool->cells[slot];
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = slot};
  if (cell->state != IMD_CELL_FREE || number % pool->slots != slot || state == IMD_CELL_PARKING ||
      state == IMD_CELL_PARKED || state > IMD_CELL_RETIRED)
    return -1;
  cell->number = number;
  if (state == IMD_CELL_FREE)
    return 0;
  leave(pool, cell, state);
  if (state == IMD_CELL_RETIRED)
    pool->busy--;
  cell->generation = generation;
  cell->socket = socket;
  return socket < 0 ? 0 : epoll_ctl(pool->epoll, EPOLL_CTL_ADD, socket, &event);
}

bool imd_pool_has(const struct imd_pool *pool, uint32_t generation)
{
  for (uint32_t slot = 0; slot < pool->slots; slot++) {
    const struct imd_cell *cell = &pool->cells[slot];
    if (cell->generation == generation && cell->state != IMD_CELL_FREE && cell->state != IMD_CELL_RETIRED)
      return true;
  }
  return false;
}

static void grow(struct imd_pool *pool)
{
  if (pool->target >= pool->max)
    return;
  pool->target++;
  if (pool->review == UINT64_MAX)
    pool->review = imd_now_ns() + REVIEW_NS;
}

struct imd_cell *imd_pool_take(struct imd_pool *pool, struct imd_run *run)
{
  struct imd_cell *cell = TAILQ_FIRST(&pool->parked_cells);
  if (!cell) {
    pool->low_water = 0;
    grow(pool);
    return NULL;
  }
  leave(pool, cell, IMD_CELL_TAKEN);
  cell->run = run;
  if (pool->parked < pool->low_water)
    pool->low_water = pool->parked;
  return cell;
}

/* Half of what nobody needed since the last time is let go. */
static void review(struct imd_pool *pool, uint64_t now)
{
  if (now < pool->review)
    return;
  const uint32_t excess = pool->target > pool->min ? pool->target - pool->min : 0;
  uint32_t fewer = (pool->low_water + 1) / 2;
  if (fewer > excess)
    fewer = excess;
  pool->target -= fewer;
  while (pool->parked > pool->target)
    imd_pool_close(pool, TAILQ_LAST(&pool->parked_cells, imd_cells));
  pool->low_water = pool->parked;
  pool->review = pool->target > pool->min ? now + REVIEW_NS : UINT64_MAX;
}

static bool wants_more(const struct imd_pool *pool, uint32_t waiting)
{
  return pool->parking < pool->at_once && pool->parked + pool->parking < pool->target + waiting &&
         !TAILQ_EMPTY(&pool->free_cells);
}

/* Making a cell takes a processor as long as a short run does: it may wait until that run is over. */
static bool put_off(struct imd_pool *pool, uint64_t now, uint32_t waiting, bool engaged)
{
  if (!engaged || waiting > 0 || pool->parked * 2 <= pool->target) {
    pool->put_off = 0;
    return false;
  }
  if (pool->put_off == 0)
    pool->put_off = now + PUT_OFF_NS;
  return now < pool->put_off;
}

int imd_pool_tend(struct imd_pool *pool, uint32_t waiting, bool engaged)
{
  const bool wanted = wants_more(pool, waiting);
  if (!wanted)
    pool->put_off = 0;
  if (!wanted && pool->review == UINT64_MAX)
    return 0;
  const uint64_t now = imd_now_ns();
  review(pool, now);
  if (now < pool->not_before || (wanted && put_off(pool, now, waiting, engaged)))
    return 0;
  pool->put_off = 0;
  /* After a failure one is tried before the rest. */
  while (wants_more(pool, waiting) && (pool->failures == 0 || pool->parking == 0)) {
    struct imd_cell *cell = TAILQ_FIRST(&pool->free_cells);
    const uint32_t slot = (uint32_t)(cell - pool->cells);
    const struct imd_p_park request = {.slot_base = pool->slot_base + slot * IMD_SLOT_SIZE};
    if (imd_send_message(pool->parker, IMD_P_PARK, cell->number, &request, sizeof request, MSG_DONTWAIT) < 0)
      return errno == EAGAIN ? 0 : -1;
    leave(pool, cell, IMD_CELL_PARKING);
    cell->generation = pool->generation;
    pool->parking++;
  }
  return 0;
}

uint64_t imd_pool_wake(const struct imd_pool *pool, uint32_t waiting)
{
  uint64_t wake = UINT64_MAX;
  if (pool->put_off != 0)
    wake = pool->put_off;
  else if (pool->not_before != 0 && wants_more(pool, waiting) && pool->parking == 0)
    wake = pool->not_before;
  return wake < pool->review ? wake : pool->review;
}

bool imd_pool_failing(const struct imd_pool *pool)
{
  return pool->failures >= FAILURES_IN_A_ROW;
}

struct imd_cell *imd_pool_find(struct imd_pool *pool, uint64_t number)
{
  struct imd_cell *cell = &pool->cells[number % pool->slots];
  return cell->number == number && cell->state != IMD_CELL_FREE ? cell : NULL;
}

void imd_pool_made(struct imd_pool *pool, uint64_t number, int socket)
{
  struct imd_cell *cell = imd_pool_find(pool, number);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = number % pool->slots};
  if (!cell || cell->state != IMD_CELL_PARKING || epoll_ctl(pool->epoll, EPOLL_CTL_ADD, socket, &event) < 0) {
    close(socket);                 /* the warden sees it and ends */
    return;
  }
  cell->socket = socket;
}

void imd_pool_ready(struct imd_pool *pool, struct imd_cell *cell)
{
  leave(pool, cell, IMD_CELL_PARKED);
  TAILQ_INSERT_HEAD(&pool->parked_cells, cell, link);
  pool->parked++;
  pool->failures = 0;
  pool->not_before = 0;
  pool->failure = (struct imd_error)IMD_ERROR_INIT;
}

void imd_pool_failed(struct imd_pool *pool, const struct imd_error *failure)
{
  pool->failure = *failure;
}

/* A cell that never was ready: rest before the next, longer each time. */
static void count_failure(struct imd_pool *pool, const struct imd_p_gone *gone)
{
  if (gone->error != 0)
    imd_fail(&pool->failure, IMD_STAGE_CELL, gone->error, "no process for a cell");
  else if (pool->failure.stage == 0)
    imd_fail(&pool->failure, IMD_STAGE_CELL, 0, "the cell's warden ended with wait status %#x", (unsigned)gone->status);

  uint64_t rest = 50 * MILLISECOND << (pool->failures < 8 ? pool->failures : 8);
  if (rest > LONGEST_REST_NS)
    rest = LONGEST_REST_NS;
  pool->failures++;
  pool->not_before = imd_now_ns() + rest;
  if (pool->failures == 1 || pool->failures % 32 == 0)
    imd_log("no cell could be made (%u in a row): %s", pool->failures, pool->failure.text);
}

struct imd_run *imd_pool_gone(struct imd_pool *pool, struct imd_cell *cell, const struct imd_p_gone *gone)
{
  if (cell->state == IMD_CELL_PARKING)
    count_failure(pool, gone);
  imd_pool_close(pool, cell);

  struct imd_run *run = cell->run;
  cell->run = NULL;
  pool->busy--;
  cell->number += pool->slots;
  if (gone->unsure) {
    imd_log("slot %u is used no more: what its warden left did not end", (unsigned)(cell - pool->cells));
    cell->state = IMD_CELL_RETIRED;
    return run;
  }
  cell->state = IMD_CELL_FREE;
  TAILQ_INSERT_TAIL(&pool->free_cells, cell, link);
  return run;
}
