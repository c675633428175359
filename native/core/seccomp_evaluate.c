/*
 * The interpreter: classic BPF as seccomp(2) takes it, with the checks that the kernel makes when a filter is set. The
 * launcher has it too: whoever answers a notification asks the base program what the call would have got.
 */
#include "seccomp.h"

#include <stdbool.h>
#include <string.h>

static int refuse(struct imd_seccomp_error *error, size_t index, const char *text)
{
  *error = (struct imd_seccomp_error){ .stage = IMD_SECCOMP_PROGRAM, .index = index, .text = text };
  return -1;
}

/* The instructions of seccomp_check_filter in the kernel, less those that only sockets have. */
static const char *fault_of(const struct sock_filter *i, size_t index, size_t length)
{
  switch (i->code) {
  case BPF_LD | BPF_W | BPF_ABS:
    return i->k < sizeof(struct seccomp_data) && i->k % 4 == 0 ? NULL : "a load outside seccomp_data";
  case BPF_LD | BPF_W | BPF_LEN: case BPF_LDX | BPF_W | BPF_LEN:
  case BPF_LD | BPF_IMM: case BPF_LDX | BPF_IMM:
  case BPF_RET | BPF_K: case BPF_RET | BPF_A:
  case BPF_MISC | BPF_TAX: case BPF_MISC | BPF_TXA:
  case BPF_ALU | BPF_ADD | BPF_K: case BPF_ALU | BPF_ADD | BPF_X:
  case BPF_ALU | BPF_SUB | BPF_K: case BPF_ALU | BPF_SUB | BPF_X:
  case BPF_ALU | BPF_MUL | BPF_K: case BPF_ALU | BPF_MUL | BPF_X:
  case BPF_ALU | BPF_DIV | BPF_X:
  case BPF_ALU | BPF_AND | BPF_K: case BPF_ALU | BPF_AND | BPF_X:
  case BPF_ALU | BPF_OR | BPF_K: case BPF_ALU | BPF_OR | BPF_X:
  case BPF_ALU | BPF_XOR | BPF_K: case BPF_ALU | BPF_XOR | BPF_X:
  case BPF_ALU | BPF_LSH | BPF_X: case BPF_ALU | BPF_RSH | BPF_X:
  case BPF_ALU | BPF_NEG:
    return NULL;
  case BPF_ALU | BPF_DIV | BPF_K:
    return i->k ? NULL : "a division by zero";
  case BPF_ALU | BPF_LSH | BPF_K: case BPF_ALU | BPF_RSH | BPF_K:
    return i->k < 32 ? NULL : "a shift by 32 bits or more";
  case BPF_LD | BPF_MEM: case BPF_LDX | BPF_MEM: case BPF_ST: case BPF_STX:
    return i->k < BPF_MEMWORDS ? NULL : "a memory cell that does not exist";
  case BPF_JMP | BPF_JA:
    return i->k < length - index - 1 ? NULL : "a jump past the end";
  case BPF_JMP | BPF_JEQ | BPF_K: case BPF_JMP | BPF_JEQ | BPF_X:
  case BPF_JMP | BPF_JGE | BPF_K: case BPF_JMP | BPF_JGE | BPF_X:
  case BPF_JMP | BPF_JGT | BPF_K: case BPF_JMP | BPF_JGT | BPF_X:
  case BPF_JMP | BPF_JSET | BPF_K: case BPF_JMP | BPF_JSET | BPF_X:
    return i->jt < length - index - 1 && i->jf < length - index - 1 ? NULL : "a jump past the end";
  default:
    return "an instruction that seccomp does not take";
  }
}

/* No memory cell is read that some way to the instruction has not written: check_load_and_stores in the kernel. */
static int check_memory(const struct sock_filter *program, size_t length, struct imd_seccomp_error *error)
{
  uint16_t written = 0, on_entry[IMD_SECCOMP_MAX_INSTRUCTIONS];
  memset(on_entry, 0xff, length * sizeof *on_entry);
  for (size_t at = 0; at < length; at++) {
    const struct sock_filter *i = &program[at];
    written &= on_entry[at];
    switch (BPF_CLASS(i->code)) {
    case BPF_ST: case BPF_STX:
      written |= (uint16_t)(1 << i->k);
      break;
    case BPF_LD: case BPF_LDX:
      if (BPF_MODE(i->code) == BPF_MEM && !(written & 1 << i->k))
        return refuse(error, at, "a memory cell that may not have been written");
      break;
    case BPF_JMP:
      if (BPF_OP(i->code) == BPF_JA) {
        on_entry[at + 1 + i->k] &= written;
      } else {
        on_entry[at + 1 + i->jt] &= written;
        on_entry[at + 1 + i->jf] &= written;
      }
      written = UINT16_MAX;            /* the next instruction is entered by jumps alone */
      break;
    }
  }
  return 0;
}

int imd_seccomp_check(const struct sock_filter *program, size_t length, struct imd_seccomp_error *error)
{
  if (length == 0 || length > IMD_SECCOMP_MAX_INSTRUCTIONS)
    return refuse(error, length, "a program has 1 to 4096 instructions");
  for (size_t i = 0; i < length; i++) {
    const char *fault = fault_of(&program[i], i, length);
    if (fault)
      return refuse(error, i, fault);
  }
  if (BPF_CLASS(program[length - 1].code) != BPF_RET)
    return refuse(error, length - 1, "the last instruction does not return");
  return check_memory(program, length, error);
}

struct machine { uint32_t a, x, memory[BPF_MEMWORDS]; };

/* False where the kernel ends the program with 0: a division by zero. */
static bool calculate(struct machine *m, const struct sock_filter *i)
{
  uint32_t operand = BPF_SRC(i->code) == BPF_X ? m->x : i->k;
  switch (BPF_OP(i->code)) {
  case BPF_ADD: m->a += operand; break;
  case BPF_SUB: m->a -= operand; break;
  case BPF_MUL: m->a *= operand; break;
  case BPF_DIV:
    if (operand == 0)
      return false;
    m->a /= operand;
    break;
  case BPF_AND: m->a &= operand; break;
  case BPF_OR: m->a |= operand; break;
  case BPF_XOR: m->a ^= operand; break;
  case BPF_LSH: m->a <<= operand & 31; break;
  case BPF_RSH: m->a >>= operand & 31; break;
  case BPF_NEG: m->a = -m->a; break;
  }
  return true;
}

/* How many instructions to pass over. */
static size_t branch(const struct machine *m, const struct sock_filter *i)
{
  uint32_t operand = BPF_SRC(i->code) == BPF_X ? m->x : i->k;
  bool holds = false;
  switch (BPF_OP(i->code)) {
  case BPF_JA: return i->k;
  case BPF_JEQ: holds = m->a == operand; break;
  case BPF_JGT: holds = m->a > operand; break;
  case BPF_JGE: holds = m->a >= operand; break;
  case BPF_JSET: holds = m->a & operand; break;
  }
  return holds ? i->jt : i->jf;
}

/* The bounds are those of a checked program; they are kept here as well. */
static uint32_t fetch(const struct machine *m, const struct sock_filter *i, const struct seccomp_data *data)
{
  uint32_t word = i->k;
  switch (BPF_MODE(i->code)) {
  case BPF_ABS:
    word = 0;
    if (i->k <= sizeof *data - sizeof word)
      memcpy(&word, (const char *)data + i->k, sizeof word);
    break;
  case BPF_LEN: word = sizeof *data; break;
  case BPF_MEM: word = m->memory[i->k % BPF_MEMWORDS]; break;
  }
  return word;
}

uint32_t imd_seccomp_run(const struct sock_filter *program, size_t length, const struct seccomp_data *data,
                         size_t *steps)
{
  struct machine m = { 0 };
  size_t unused;
  steps = steps ? steps : &unused;
  *steps = 0;
  for (size_t at = 0; at < length; at++) {
    const struct sock_filter *i = &program[at];
    (*steps)++;
    switch (BPF_CLASS(i->code)) {
    case BPF_LD: m.a = fetch(&m, i, data); break;
    case BPF_LDX: m.x = fetch(&m, i, data); break;
    case BPF_ST: m.memory[i->k % BPF_MEMWORDS] = m.a; break;
    case BPF_STX: m.memory[i->k % BPF_MEMWORDS] = m.x; break;
    case BPF_ALU:
      if (!calculate(&m, i))
        return SECCOMP_RET_KILL_THREAD;
      break;
    case BPF_JMP: at += branch(&m, i); break;
    case BPF_RET: return BPF_RVAL(i->code) == BPF_A ? m.a : i->k;
    case BPF_MISC:
      if (BPF_MISCOP(i->code) == BPF_TAX)
        m.x = m.a;
      else
        m.a = m.x;
      break;
    }
  }
  return SECCOMP_RET_KILL_THREAD;
}

int imd_seccomp_evaluate(const struct sock_filter *program, size_t length, const struct seccomp_data *data,
                         uint32_t *action, struct imd_seccomp_error *error)
{
  if (imd_seccomp_check(program, length, error))
    return -1;
  *action = imd_seccomp_run(program, length, data, NULL);
  return 0;
}
