/*
 * Makes a program shorter without changing an answer. Jumps only go forward, so one pass from the front knows what A
 * holds wherever it comes to: what all the ways there agree on.
 */
#include "seccomp.h"

#include <stdbool.h>
#include <string.h>

/* What A holds: a word of seccomp_data under a mask. */
struct held { bool known; uint32_t word, mask; };

/* An instruction with its jumps' targets as indices. */
struct node { struct held entry; uint32_t if_true, if_false; bool reached, kept; };

static bool is_load(const struct sock_filter *i) { return i->code == (BPF_LD | BPF_W | BPF_ABS); }
static bool is_and(const struct sock_filter *i) { return i->code == (BPF_ALU | BPF_AND | BPF_K); }
static bool is_always(const struct sock_filter *i) { return i->code == (BPF_JMP | BPF_JA); }
static bool is_jump(const struct sock_filter *i) { return BPF_CLASS(i->code) == BPF_JMP; }
static bool is_return(const struct sock_filter *i) { return BPF_CLASS(i->code) == BPF_RET; }

static bool holds(struct held held, uint32_t word, uint32_t mask)
{
  return held.known && held.word == word && held.mask == mask;
}

static void enter(struct node *node, struct held held)
{
  if (!node->reached)
    node->entry = held;
  else if (!holds(held, node->entry.word, node->entry.mask))
    node->entry.known = false;
  node->reached = true;
}

static struct held after(struct held held, const struct sock_filter *i)
{
  if (is_load(i))
    return (struct held){ true, i->k, UINT32_MAX };
  if (is_and(i))
    held.mask &= i->k;
  else if (!is_jump(i))
    held.known = false;                /* whatever else this compiler may come to make */
  return held;
}

/* Past unconditional jumps, as far as eight bits reach. */
static uint32_t last_target(const struct sock_filter *program, size_t at, uint32_t target)
{
  while (is_always(&program[target]) && target + 1 + program[target].k - at - 1 <= UINT8_MAX)
    target += 1 + program[target].k;
  return target;
}

static void find_targets(const struct sock_filter *program, size_t length, struct node *node)
{
  for (size_t at = 0; at < length; at++) {
    const struct sock_filter *i = &program[at];
    if (is_always(i)) {
      node[at].if_true = node[at].if_false = (uint32_t)at + 1 + i->k;
    } else if (is_jump(i)) {
      node[at].if_true = last_target(program, at, (uint32_t)at + 1 + i->jt);
      node[at].if_false = last_target(program, at, (uint32_t)at + 1 + i->jf);
    }
  }
}

/* Which instructions stay. */
static void choose(const struct sock_filter *program, size_t length, struct node *node)
{
  node[0].reached = true;
  for (size_t at = 0; at < length; at++) {
    const struct sock_filter *i = &program[at];
    if (!node[at].reached)
      continue;
    struct held held = node[at].entry;
    bool masked = is_load(i) && is_and(i + 1) && !node[at + 1].reached;  /* no jump leads between them */
    if (masked && holds(held, i->k, i[1].k)) {
      at++;                            /* both go */
    } else if (!is_load(i) || !holds(held, i->k, UINT32_MAX)) {
      node[at].kept = true;
      held = after(held, i);
    }
    if (is_jump(i)) {
      enter(&node[node[at].if_true], held);
      enter(&node[node[at].if_false], held);
    } else if (!is_return(i)) {
      enter(&node[at + 1], held);
    }
  }
}

void imd_seccomp_shorten(struct sock_filter *program, size_t *length)
{
  struct node node[IMD_SECCOMP_MAX_INSTRUCTIONS];
  uint32_t place[IMD_SECCOMP_MAX_INSTRUCTIONS];  /* of what is kept; of what is not, of the next that is */
  memset(node, 0, *length * sizeof *node);
  find_targets(program, *length, node);
  choose(program, *length, node);

  uint32_t kept = 0;
  for (size_t at = 0; at < *length; at++) {
    place[at] = kept;
    kept += node[at].kept;
  }
  for (size_t at = 0; at < *length; at++) {
    if (!node[at].kept)
      continue;
    struct sock_filter i = program[at];
    uint32_t next = place[at] + 1;
    if (is_always(&i)) {
      i.k = place[node[at].if_true] - next;
    } else if (is_jump(&i)) {
      i.jt = (uint8_t)(place[node[at].if_true] - next);
      i.jf = (uint8_t)(place[node[at].if_false] - next);
    }
    program[place[at]] = i;
  }
  *length = kept;
}
