/*
 * Plans as protocol.h packs them: the check that no plan passes which breaks a rule, and a walk over the steps of one
 * that passed. Pure: no I/O, no allocation, nothing kept.
 */
#ifndef IMMURED_PLAN_H
#define IMMURED_PLAN_H

#include "error.h"
#include "protocol.h"

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IMD_MAX_FILTER = 4096, IMD_FILTER_INSTRUCTION = 8 };

/*
 * `plan` is 8-aligned and stays unchanged while it is used. 0 when every rule of protocol.h holds: magic, version and
 * lengths; of its kind, whichever, known operations in their order, the required ones present, none twice that may not be;
 * counts of numbers and strings; bounds of every number; NUL padding; paths absolute, without `..`, without NUL, below
 * PATH_MAX; names of tenants, sandboxes and execs; the filter's length; argv and environment. -1 with stage
 * IMD_STAGE_PLAN, the step and why.
 */
int imd_plan_check(const void *plan, size_t length, struct imd_error *err);

/* Of a checked plan: that it is of this kind (enum imd_plan_kind). */
int imd_plan_is(const void *plan, uint32_t kind, struct imd_error *err);

/*
 * Once, before any plan: what landlock_rung answered. From then on a plan (but a sandbox's) without LANDLOCK, or with it
 * on another rung, is refused; without this, or with 0, one with it is.
 */
void imd_plan_require_landlock(uint32_t rung);

/* A step in place. `numbers` and strings point into the plan; strings are NUL-terminated there. */
struct imd_plan_step {
  uint32_t index;
  uint32_t op;                     /* enum imd_op */
  uint16_t number_count, string_count;
  const uint64_t *numbers;
  const char *strings;             /* for imd_plan_string */
};

/* Start with {.plan = checked plan}; imd_plan_next answers false after the last step. */
struct imd_plan_cursor {
  const void *plan;
  size_t offset;
  uint32_t index;
};
bool imd_plan_next(struct imd_plan_cursor *cursor, struct imd_plan_step *step);

/* The string at `*cursor` (start: step.strings), and on to the next. `length` excludes the NUL; may be NULL. */
const char *imd_plan_string(const char **cursor, uint32_t *length);

/* String `number` of a step, from 0. */
const char *imd_plan_string_at(const struct imd_plan_step *step, uint16_t number, uint32_t *length);

/* `0-1,4` as a set; false where it is no ascending list of numbers below CPU_SETSIZE and ranges of such. */
bool imd_plan_processors(const char *text, cpu_set_t *set);

/* The plan's step of this operation; false: it has none. */
bool plan_step(const void *plan, uint32_t op, struct imd_plan_step *found);

#endif
