/*
 * System-call filters: rules to classic BPF, and an interpreter that answers what a filter says to one call.
 *
 * A filter is a list of rules sorted by system-call number. For a call, the rules of its number are tried in order, and
 * the first whose conditions all hold gives the action; where none holds it is `fallback`; for a number without rules
 * `unknown`. Another architecture's calls, and on x86_64 those of x32, get `foreign`.
 */
#ifndef IMMURED_SECCOMP_H
#define IMMURED_SECCOMP_H

#include <stddef.h>
#include <stdint.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

enum {
  IMD_SECCOMP_ARGUMENTS = 6,
  IMD_SECCOMP_MAX_CONDITIONS = 16,     /* of one rule */
  IMD_SECCOMP_MAX_RULES = 2048,
  IMD_SECCOMP_MAX_TABLE = 16384,       /* conditions of a filter */
  IMD_SECCOMP_MAX_INSTRUCTIONS = 4096, /* BPF_MAXINSNS */
};

/*
 * How an argument is compared, always unsigned. Without IMD_COMPARE_WIDE only its low 32 bits are seen, which is what
 * the kernel does with an int: junk above must never change a verdict.
 */
enum imd_compare {
  IMD_COMPARE_EQ = 1,                  /* (argument & mask) == value */
  IMD_COMPARE_NE,                      /* (argument & mask) != value */
  IMD_COMPARE_LT,
  IMD_COMPARE_LE,
  IMD_COMPARE_GT,
  IMD_COMPARE_GE,
  IMD_COMPARE_IN,                      /* value <= argument <= mask */
  IMD_COMPARE_WIDE = 0x100,            /* or-ed: all 64 bits */
};

struct imd_condition {
  uint32_t argument;                   /* 0 to 5 */
  uint32_t compare;                    /* enum imd_compare */
  uint64_t value;
  uint64_t mask;                       /* EQ, NE: a mask; IN: the upper end; else unused */
};

struct imd_rule {
  uint32_t number;
  uint32_t action;                     /* SECCOMP_RET_* with its data */
  uint32_t first;                      /* of its conditions in the filter's */
  uint32_t conditions;
};

struct imd_filter {
  uint32_t architecture;               /* AUDIT_ARCH_* */
  uint32_t fallback, unknown, foreign;
  const struct imd_rule *rule;
  size_t rules;
  const struct imd_condition *condition;
  size_t conditions;
};

enum imd_seccomp_stage {
  IMD_SECCOMP_RULES = 1,               /* the rule at `index` is malformed or out of order */
  IMD_SECCOMP_SIZE,                    /* more than BPF_MAXINSNS instructions */
  IMD_SECCOMP_PROGRAM,                 /* the instruction at `index` is not one that seccomp accepts */
};

struct imd_seccomp_error { enum imd_seccomp_stage stage; size_t index; const char *text; };

/*
 * Compiles into `out`, which has room for `capacity` instructions. 0, or -1 with `error`. A number whose verdict depends on
 * no argument is decided by loads of `arch` and `nr` alone: where it is ALLOW, the kernel (since 5.11) finds that out when
 * the filter is set, and never runs the program for it.
 */
int imd_seccomp_compile(const struct imd_filter *filter, struct sock_filter *out, size_t capacity, size_t *length,
                        struct imd_seccomp_error *error);

/*
 * What of the rules of one number matters: `keep[i]` has a bit for each condition of the i-th rule that must be tested, or is
 * IMD_SECCOMP_NEVER where the rule cannot hold when it is its turn.
 */
#define IMD_SECCOMP_NEVER UINT32_MAX
void imd_seccomp_simplify(const struct imd_filter *filter, const struct imd_rule *rule, size_t rules, uint32_t *keep);

/* Leaves out of a program what changes no answer: loads of what A holds, jumps to jumps, what is never reached. */
void imd_seccomp_shorten(struct sock_filter *program, size_t *length);

/* Whether the kernel would take `program`. 0, or -1 with `error`. */
int imd_seccomp_check(const struct sock_filter *program, size_t length, struct imd_seccomp_error *error);

/*
 * What a checked program returns for `data`, after `*steps` instructions (`steps` may be NULL). Reads nothing beyond the
 * program and `data` whatever the program holds, and ends within `length` steps; where an unchecked one goes astray, the
 * answer is SECCOMP_RET_KILL_THREAD, as the kernel's is.
 */
uint32_t imd_seccomp_run(const struct sock_filter *program, size_t length, const struct seccomp_data *data,
                         size_t *steps);

/* Both. 0, or -1 with `error`. */
int imd_seccomp_evaluate(const struct sock_filter *program, size_t length, const struct seccomp_data *data,
                         uint32_t *action, struct imd_seccomp_error *error);

#endif
