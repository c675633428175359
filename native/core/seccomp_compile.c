/*
 * The compiler. Code is made from its end backwards, so that every jump's target exists before the jump: a position is
 * a distance from the program's end, and a jump's offset is the difference of two. At the end the whole is turned over.
 *
 * Numbers are found by binary search over stretches of neighbours with one verdict. A stretch of one number inside
 * another's costs one comparison instead of two: the outer verdict is a leaf of the search with exceptions.
 */
#include "seccomp.h"

#include <linux/audit.h>
#include <stdbool.h>
#include <string.h>

enum {
  REACH = 255,                         /* of a conditional jump's eight-bit offsets */
  MAX_RETURNS = 64,                    /* distinct actions whose last RET is remembered */
  MAX_BLOCKS = 64,                     /* distinct lists of rules whose code is remembered */
  MAX_EXCEPTIONS = 3,                  /* of one leaf: tried one after the other */
  X32_BIT = 0x40000000,
};

typedef size_t position;               /* instructions between here and the end; the last instruction is 0 */

struct returned { uint32_t action; position at; };

/* One stretch of numbers with one verdict, from `first` to the next stretch: `action` where none of the rules holds. */
struct stretch { uint32_t first, action; const struct imd_rule *rule; size_t rules; };

struct block { struct stretch of; position at; };

struct emitter {
  const struct imd_filter *filter;
  struct sock_filter *code;            /* back to front */
  size_t capacity, length;
  bool full;
  struct returned known[MAX_RETURNS];
  size_t returns;
  struct block block[MAX_BLOCKS];
  size_t blocks;
};

static position emit(struct emitter *e, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
  if (e->length == e->capacity) {
    e->full = true;
    return e->length ? e->length - 1 : 0;
  }
  e->code[e->length] = (struct sock_filter){ .code = code, .jt = jt, .jf = jf, .k = k };
  return e->length++;
}

/* The offset that reaches `target` from the next instruction to be emitted. */
static size_t offset(const struct emitter *e, position target) { return e->length - target - 1; }

/* A place near enough for a conditional jump that is at most `ahead` instructions from being emitted. */
static position near(struct emitter *e, position target, size_t ahead)
{
  if (e->full || offset(e, target) + ahead <= REACH)
    return target;
  return emit(e, BPF_JMP | BPF_JA, 0, 0, (uint32_t)offset(e, target));
}

static position jump(struct emitter *e, uint16_t test, uint32_t k, position if_true, position if_false)
{
  if_true = near(e, if_true, 1);       /* the other's trampoline may come between */
  if_false = near(e, if_false, 0);
  if (e->full)
    return 0;
  return emit(e, BPF_JMP | test | BPF_K, (uint8_t)offset(e, if_true), (uint8_t)offset(e, if_false), k);
}

/* A RET of this action: one that stands in reach, or a new one, which is as cheap as a jump to the old. */
static position give(struct emitter *e, uint32_t action)
{
  size_t i;
  for (i = 0; i < e->returns; i++)
    if (e->known[i].action == action)
      break;
  if (i < e->returns && offset(e, e->known[i].at) + 8 <= REACH)
    return e->known[i].at;
  position at = emit(e, BPF_RET | BPF_K, 0, 0, action);
  if (i < MAX_RETURNS)
    e->known[i] = (struct returned){ action, at };
  if (i == e->returns && i < MAX_RETURNS)
    e->returns++;
  return at;
}

static uint32_t low(uint64_t value) { return (uint32_t)value; }
static uint32_t high(uint64_t value) { return (uint32_t)(value >> 32); }

/* Both architectures are little-endian. */
static position load(struct emitter *e, uint32_t argument, bool upper)
{
  size_t at = offsetof(struct seccomp_data, args) + 8 * (size_t)argument + (upper ? 4 : 0);
  return emit(e, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)at);
}

/* Is (half & mask) == value? Loads the half first. */
static position half_equal(struct emitter *e, uint32_t argument, bool upper, uint32_t mask, uint32_t value,
                           position if_true, position if_false)
{
  jump(e, BPF_JEQ, value, if_true, if_false);
  if (mask != UINT32_MAX)
    emit(e, BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
  return load(e, argument, upper);
}

/* Is half > value (JGT) or half >= value (JGE)? */
static position half_above(struct emitter *e, uint32_t argument, bool upper, uint16_t test, uint32_t value,
                           position if_true, position if_false)
{
  jump(e, test, value, if_true, if_false);
  return load(e, argument, upper);
}

static position equal(struct emitter *e, const struct imd_condition *c, bool wide, position if_true, position if_false)
{
  position at = half_equal(e, c->argument, false, low(c->mask), low(c->value), if_true, if_false);
  if (wide)
    at = half_equal(e, c->argument, true, high(c->mask), high(c->value), at, if_false);
  return at;
}

static position above(struct emitter *e, uint32_t argument, bool wide, uint16_t test, uint64_t value, position if_true,
                      position if_false)
{
  position at = half_above(e, argument, false, test, low(value), if_true, if_false);
  if (!wide)
    return at;
  /* high > value's: above; equal: the low half decides; less: not above. A stays the high half between the tests. */
  at = jump(e, BPF_JEQ, high(value), at, if_false);
  jump(e, BPF_JGT, high(value), if_true, at);
  return load(e, argument, true);
}

static position test_condition(struct emitter *e, const struct imd_condition *c, position holds, position fails)
{
  bool wide = c->compare & IMD_COMPARE_WIDE;
  switch ((enum imd_compare)(c->compare & ~(uint32_t)IMD_COMPARE_WIDE)) {
  case IMD_COMPARE_EQ: return equal(e, c, wide, holds, fails);
  case IMD_COMPARE_NE: return equal(e, c, wide, fails, holds);
  case IMD_COMPARE_GT: return above(e, c->argument, wide, BPF_JGT, c->value, holds, fails);
  case IMD_COMPARE_GE: return above(e, c->argument, wide, BPF_JGE, c->value, holds, fails);
  case IMD_COMPARE_LT: return above(e, c->argument, wide, BPF_JGE, c->value, fails, holds);
  case IMD_COMPARE_LE: return above(e, c->argument, wide, BPF_JGT, c->value, fails, holds);
  case IMD_COMPARE_IN:
    holds = above(e, c->argument, wide, BPF_JGT, c->mask, fails, holds);
    return above(e, c->argument, wide, BPF_JGE, c->value, holds, fails);
  case IMD_COMPARE_WIDE: break;
  }
  return fails;                        /* check_rules has refused anything else */
}

static bool same_rule(const struct imd_filter *filter, const struct imd_rule *a, const struct imd_rule *b)
{
  return a->action == b->action && a->conditions == b->conditions &&
         memcmp(&filter->condition[a->first], &filter->condition[b->first],
                a->conditions * sizeof *filter->condition) == 0;
}

static bool same_verdict(const struct imd_filter *filter, const struct stretch *a, const struct stretch *b)
{
  if (a->rules != b->rules || a->action != b->action)
    return false;
  for (size_t i = 0; i < a->rules; i++)
    if (!same_rule(filter, &a->rule[i], &b->rule[i]))
      return false;
  return true;
}

static position emit_rules(struct emitter *e, const struct stretch *s)
{
  uint32_t keep[IMD_SECCOMP_MAX_RULES];
  imd_seccomp_simplify(e->filter, s->rule, s->rules, keep);
  position next = give(e, s->action);
  bool other = false;                  /* a later rule answers otherwise */
  for (size_t i = s->rules; i-- > 0;) {
    const struct imd_rule *rule = &s->rule[i];
    other = other || (keep[i] != IMD_SECCOMP_NEVER && rule->action != s->action);
    if (keep[i] == IMD_SECCOMP_NEVER || !other)
      continue;
    position at = give(e, rule->action);
    for (size_t c = rule->conditions; c-- > 0;)
      if (keep[i] >> c & 1)
        at = test_condition(e, &e->filter->condition[rule->first + c], at, next);
    next = at;
  }
  return next;
}

/* Code that was made for the same rules serves again: a jump to it is shorter, however far. */
static position emit_stretch(struct emitter *e, const struct stretch *s)
{
  if (s->rules == 0)
    return give(e, s->action);
  for (size_t i = 0; i < e->blocks; i++)
    if (same_verdict(e->filter, &e->block[i].of, s))
      return e->block[i].at;
  position at = emit_rules(e, s);
  if (e->blocks < MAX_BLOCKS)
    e->block[e->blocks++] = (struct block){ *s, at };
  return at;
}

/* Stretches [from, to): the first's verdict, with exceptions of one number each. */
struct leaf { size_t from, to; };

/* How far the leaf that begins at `from` goes: its last stretch has the first's verdict. */
static size_t leaf_end(const struct imd_filter *filter, const struct stretch *s, size_t from, size_t count)
{
  size_t end = from + 1, exceptions = 0;
  for (size_t i = from + 1; i < count; i++) {
    if (same_verdict(filter, &s[from], &s[i])) {
      end = i + 1;
      continue;
    }
    bool one = i + 1 < count && s[i + 1].first == s[i].first + 1;
    if (!one || exceptions++ == MAX_EXCEPTIONS)
      break;
  }
  return end;
}

static position emit_leaf(struct emitter *e, const struct stretch *s, struct leaf leaf)
{
  position at = emit_stretch(e, &s[leaf.from]);
  for (size_t i = leaf.to; i-- > leaf.from + 1;) {
    if (same_verdict(e->filter, &s[leaf.from], &s[i]))
      continue;
    position exception = emit_stretch(e, &s[i]);
    at = jump(e, BPF_JEQ, s[i].first, exception, at);
  }
  return at;
}

/* Binary search over leaves [from, to); A holds the number. Depth is the logarithm of the count. */
static position emit_search(struct emitter *e, const struct stretch *s, const struct leaf *leaf, size_t from, size_t to)
{
  if (to - from == 1)
    return emit_leaf(e, s, leaf[from]);
  size_t middle = from + (to - from) / 2;
  position upper = emit_search(e, s, leaf, middle, to);
  position lower = emit_search(e, s, leaf, from, middle);
  return jump(e, BPF_JGE, s[leaf[middle].from].first, upper, lower);
}

static int refuse(struct imd_seccomp_error *error, enum imd_seccomp_stage stage, size_t index, const char *text)
{
  *error = (struct imd_seccomp_error){ .stage = stage, .index = index, .text = text };
  return -1;
}

static const char *fault_of(const struct imd_condition *c)
{
  bool wide = c->compare & IMD_COMPARE_WIDE;
  uint32_t kind = c->compare & ~(uint32_t)IMD_COMPARE_WIDE;
  if (c->argument >= IMD_SECCOMP_ARGUMENTS)
    return "there are six arguments";
  if (kind < IMD_COMPARE_EQ || kind > IMD_COMPARE_IN)
    return "an unknown comparison";
  if (!wide && high(c->value))
    return "the value is wider than the 32 bits compared";
  if (!wide && kind == IMD_COMPARE_IN && high(c->mask))
    return "the upper end is wider than the 32 bits compared";
  if (kind == IMD_COMPARE_IN && c->value > c->mask)
    return "the range is empty";
  if ((kind == IMD_COMPARE_EQ || kind == IMD_COMPARE_NE) && (c->value & ~c->mask))
    return "the value has bits that its mask clears";
  return NULL;
}

static int check_rules(const struct imd_filter *filter, struct imd_seccomp_error *error)
{
  bool x86 = filter->architecture == AUDIT_ARCH_X86_64;
  if (!x86 && filter->architecture != AUDIT_ARCH_AARCH64)
    return refuse(error, IMD_SECCOMP_RULES, 0, "an architecture that is not known here");
  if (filter->rules > IMD_SECCOMP_MAX_RULES)
    return refuse(error, IMD_SECCOMP_RULES, filter->rules, "too many rules");
  for (size_t i = 0; i < filter->rules; i++) {
    const struct imd_rule *rule = &filter->rule[i];
    if (i && rule->number < filter->rule[i - 1].number)
      return refuse(error, IMD_SECCOMP_RULES, i, "rules are sorted by number");
    if (rule->number >= X32_BIT)
      return refuse(error, IMD_SECCOMP_RULES, i, "no system call has such a number");
    if (rule->conditions > IMD_SECCOMP_MAX_CONDITIONS)
      return refuse(error, IMD_SECCOMP_RULES, i, "too many conditions");
    if (rule->first > filter->conditions || rule->conditions > filter->conditions - rule->first)
      return refuse(error, IMD_SECCOMP_RULES, i, "conditions that are not there");
    for (size_t c = 0; c < rule->conditions; c++) {
      const char *fault = fault_of(&filter->condition[rule->first + c]);
      if (fault)
        return refuse(error, IMD_SECCOMP_RULES, i, fault);
    }
  }
  return 0;
}

static void push(const struct imd_filter *filter, struct stretch *s, size_t *count, struct stretch next)
{
  if (*count == 0 || !same_verdict(filter, &s[*count - 1], &next))
    s[(*count)++] = next;
}

/* The verdict of one number, of whose `same` rules `rule` is the first; what can never decide is left out. */
static struct stretch stretch_of(const struct imd_filter *filter, const struct imd_rule *rule, size_t same)
{
  struct stretch s = { .first = rule->number, .action = filter->fallback, .rule = rule };
  while (s.rules < same && rule[s.rules].conditions)
    s.rules++;
  if (s.rules < same)
    s.action = rule[s.rules].action;
  while (s.rules && rule[s.rules - 1].action == s.action)
    s.rules--;
  return s;
}

/* At most two stretches a rule and one at the end. */
static size_t make_stretches(const struct imd_filter *filter, struct stretch *s)
{
  size_t count = 0, i = 0;
  uint32_t expected = 0;
  while (i < filter->rules) {
    const struct imd_rule *rule = &filter->rule[i];
    size_t same = 1;
    while (i + same < filter->rules && filter->rule[i + same].number == rule->number)
      same++;
    if (rule->number != expected)
      push(filter, s, &count, (struct stretch){ .first = expected, .action = filter->unknown });
    push(filter, s, &count, stretch_of(filter, rule, same));
    expected = rule->number + 1;
    i += same;
  }
  push(filter, s, &count, (struct stretch){ .first = expected, .action = filter->unknown });
  return count;
}

static void turn_over(struct sock_filter *code, size_t length)
{
  for (size_t i = 0; i < length / 2; i++) {
    struct sock_filter first = code[i];
    code[i] = code[length - 1 - i];
    code[length - 1 - i] = first;
  }
}

int imd_seccomp_compile(const struct imd_filter *filter, struct sock_filter *out, size_t capacity, size_t *length,
                        struct imd_seccomp_error *error)
{
  if (check_rules(filter, error))
    return -1;
  struct stretch stretches[2 * IMD_SECCOMP_MAX_RULES + 1];
  struct leaf leaves[2 * IMD_SECCOMP_MAX_RULES + 1];
  size_t count = make_stretches(filter, stretches), found = 0;
  for (size_t from = 0; from < count; from = leaves[found++].to)
    leaves[found] = (struct leaf){ from, leaf_end(filter, stretches, from, count) };
  struct emitter e = {
    .filter = filter,
    .code = out,
    .capacity = capacity < IMD_SECCOMP_MAX_INSTRUCTIONS ? capacity : IMD_SECCOMP_MAX_INSTRUCTIONS,
  };

  position native = emit_search(&e, stretches, leaves, 0, found);
  if (filter->architecture == AUDIT_ARCH_X86_64) {
    /* -1 is how a tracer skips a call; every other number with the x32 bit or above is another ABI's. */
    position unknown = give(&e, filter->unknown);
    position foreign = give(&e, filter->foreign);
    position beyond = jump(&e, BPF_JEQ, UINT32_MAX, unknown, foreign);
    native = jump(&e, BPF_JGE, X32_BIT, beyond, native);
  }
  native = emit(&e, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
  jump(&e, BPF_JEQ, filter->architecture, native, give(&e, filter->foreign));
  emit(&e, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
  if (e.full)
    return refuse(error, IMD_SECCOMP_SIZE, e.capacity, "more instructions than the kernel takes");
  turn_over(out, e.length);
  *length = e.length;
  imd_seccomp_shorten(out, length);
  return 0;
}
