/*
 * What of one call's rules cannot matter: a condition that an earlier one of its rule, or the failure of an earlier rule,
 * already decides. Profiles from elsewhere under the walls' guards, and the explained form's watches, are full of such.
 */
#include "seccomp.h"

#include <stdbool.h>

enum { MAX_FACTS = 32 };               /* more are forgotten: the code is longer then, and right */

enum answer { UNKNOWN, NO, YES };

/* (x & mask) == value, != value, or low <= x <= high where x are all the bits of mask. */
enum form { EQUAL, UNEQUAL, WITHIN, NOTHING };

struct fact { uint32_t argument; enum form form; uint64_t mask, low, high; };   /* EQUAL, UNEQUAL: low is the value */

static uint64_t width_of(const struct imd_condition *c)
{
  return c->compare & IMD_COMPARE_WIDE ? UINT64_MAX : UINT32_MAX;
}

static struct fact within(const struct imd_condition *c, uint64_t low, uint64_t high, bool any)
{
  return (struct fact){ c->argument, any ? WITHIN : NOTHING, width_of(c), low, high };
}

/* What is known where `c` holds, or where it does not. */
static struct fact fact_of(const struct imd_condition *c, bool holds)
{
  const uint64_t all = width_of(c), value = c->value;
  switch ((enum imd_compare)(c->compare & ~(uint32_t)IMD_COMPARE_WIDE)) {
  case IMD_COMPARE_EQ:
    return (struct fact){ c->argument, holds ? EQUAL : UNEQUAL, c->mask & all, value, value };
  case IMD_COMPARE_NE:
    return (struct fact){ c->argument, holds ? UNEQUAL : EQUAL, c->mask & all, value, value };
  case IMD_COMPARE_LT:
    return holds ? within(c, 0, value - 1, value > 0) : within(c, value, all, true);
  case IMD_COMPARE_LE:
    return holds ? within(c, 0, value, true) : within(c, value + 1, all, value < all);
  case IMD_COMPARE_GT:
    return holds ? within(c, value + 1, all, value < all) : within(c, 0, value, true);
  case IMD_COMPARE_GE:
    return holds ? within(c, value, all, true) : within(c, 0, value - 1, value > 0);
  case IMD_COMPARE_IN:
    if (holds)
      return within(c, value, c->mask, true);
    break;
  case IMD_COMPARE_WIDE: break;
  }
  return (struct fact){ c->argument, NOTHING, 0, 0, 0 };
}

static enum answer yes_if(bool holds) { return holds ? YES : NO; }

/* Whether (x & mask) == value, given the fact. */
static enum answer is_equal(const struct fact *fact, uint64_t mask, uint64_t value)
{
  switch (fact->form) {
  case EQUAL:
    if ((mask & ~fact->mask) == 0)
      return yes_if((fact->low & mask) == value);
    return (fact->low ^ value) & fact->mask & mask ? NO : UNKNOWN;
  case UNEQUAL:
    return (fact->mask & ~mask) == 0 && (value & fact->mask) == fact->low ? NO : UNKNOWN;
  case WITHIN:
    if (fact->mask != mask)
      return UNKNOWN;
    if (value < fact->low || value > fact->high)
      return NO;
    return fact->low == fact->high ? YES : UNKNOWN;
  case NOTHING: break;
  }
  return UNKNOWN;
}

/* Whether low <= x <= high, of all the bits of `width`, given the fact. */
static enum answer is_within(const struct fact *fact, uint64_t width, uint64_t low, uint64_t high)
{
  if (fact->form == EQUAL && (width & ~fact->mask) == 0)
    return yes_if((fact->low & width) >= low && (fact->low & width) <= high);
  if (fact->form != WITHIN || fact->mask != width)
    return UNKNOWN;
  if (fact->low >= low && fact->high <= high)
    return YES;
  return fact->high < low || fact->low > high ? NO : UNKNOWN;
}

static enum answer decide(const struct fact *fact, const struct imd_condition *c)
{
  struct fact wanted = fact_of(c, true);
  if (fact->argument != c->argument)
    return UNKNOWN;
  switch (wanted.form) {
  case EQUAL: return is_equal(fact, wanted.mask, wanted.low);
  case UNEQUAL:
    switch (is_equal(fact, wanted.mask, wanted.low)) {
    case YES: return NO;
    case NO: return YES;
    case UNKNOWN: return UNKNOWN;
    }
    break;
  case WITHIN: return is_within(fact, wanted.mask, wanted.low, wanted.high);
  case NOTHING: return NO;             /* below 0, or above all */
  }
  return UNKNOWN;
}

struct facts { struct fact fact[MAX_FACTS]; size_t count; };

static void learn(struct facts *facts, struct fact fact)
{
  if (fact.form != NOTHING && facts->count < MAX_FACTS)
    facts->fact[facts->count++] = fact;
}

static enum answer known(const struct facts *facts, const struct imd_condition *c)
{
  for (size_t i = 0; i < facts->count; i++) {
    enum answer answer = decide(&facts->fact[i], c);
    if (answer != UNKNOWN)
      return answer;
  }
  return UNKNOWN;
}

void imd_seccomp_simplify(const struct imd_filter *filter, const struct imd_rule *rule, size_t rules, uint32_t *keep)
{
  struct facts failed = { .count = 0 };
  bool decided = false;
  for (size_t i = 0; i < rules; i++) {
    const struct imd_condition *condition = &filter->condition[rule[i].first];
    struct facts facts = failed;
    size_t kept = 0, last = 0;
    keep[i] = decided ? IMD_SECCOMP_NEVER : 0;
    for (size_t c = 0; c < rule[i].conditions && keep[i] != IMD_SECCOMP_NEVER; c++) {
      enum answer answer = known(&facts, &condition[c]);
      if (answer == NO || (answer == UNKNOWN && fact_of(&condition[c], true).form == NOTHING)) {
        keep[i] = IMD_SECCOMP_NEVER;
      } else if (answer == UNKNOWN) {
        keep[i] |= UINT32_C(1) << c;
        learn(&facts, fact_of(&condition[c], true));
        last = c;
        kept++;
      }
    }
    if (keep[i] == IMD_SECCOMP_NEVER)
      continue;
    decided = kept == 0;
    if (kept == 1)
      learn(&failed, fact_of(&condition[last], false));
  }
}
