#include "violations.h"

#include "say.h"
#include "text.h"

#include <stdio.h>

enum { SHOWN = 8 };

static struct imc_bytes text_of(const struct imc_value *row, const char *name)
{
  struct imc_value value;
  return imc_find(row, name, &value) && value.kind == IMC_STR ? value.bytes : (struct imc_bytes){NULL, 0};
}

static bool same(struct imc_bytes a, struct imc_bytes b)
{
  return a.size == b.size && (a.size == 0 || memcmp(a.at, b.at, a.size) == 0);
}

/* Text, or bytes with what is not UTF-8 in them as `\xff`. */
static struct imc_bytes path_of(const struct imc_value *row)
{
  static char room[8192];
  struct imc_value value;
  if (!imc_find(row, "path", &value) || (value.kind != IMC_STR && value.kind != IMC_BIN) || value.bytes.size == 0)
    return text_of(row, "address");
  if (value.kind == IMC_STR)
    return value.bytes;
  size_t used = 0;
  for (struct imc_bytes rest = value.bytes; rest.size > 0 && used + 8 < sizeof room;) {
    uint32_t code;
    const size_t length = imc_character(rest, &code);
    if (length > 0)
      memcpy(room + used, rest.at, length);
    used += length > 0 ? length : (size_t)snprintf(room + used, sizeof room - used, "\\x%02x", rest.at[0]);
    rest.at += length > 0 ? length : 1;
    rest.size -= length > 0 ? length : 1;
  }
  return (struct imc_bytes){(const uint8_t *)room, used};
}

static struct imc_bytes stripped(struct imc_bytes text)
{
  while (text.size > 0 && (memchr(" \t\n\v\f\r", text.at[text.size - 1], 6) || (text.at[text.size - 1] & 0xfc) == 0x1c))
    text.size--;
  return text;
}

static void note(const struct imc_value *row)
{
  const struct imc_bytes syscall = text_of(row, "syscall"), path = stripped(path_of(row));
  const struct imc_bytes parts[] = {
      imc_text(syscall.size + path.size > 0 ? "refused: " : "refused:"),
      path.size > 0 ? syscall : stripped(syscall),
      imc_text(path.size > 0 ? " " : ""),
      path,
      imc_text(" ("),
      text_of(row, "rule"),
      imc_text(")"),
  };
  imc_note(parts, sizeof parts / sizeof parts[0]);
}

/* The rows are few, and signed: each is read again as often as it is asked about. */
static bool row_at(const struct imc_value *rows, uint64_t index, struct imc_value *row)
{
  struct imc_bytes rest = rows->bytes;
  for (uint64_t i = 0; i < index; i++) {
    if (!imc_skip(&rest))
      return false;
  }
  return imc_next(&rest, row) && row->kind == IMC_MAP;
}

/* Whether a row at or behind `from` holds the count of a kind. */
static bool is_counted(const struct imc_value *rows, uint64_t from, struct imc_bytes kind)
{
  struct imc_value row, count;
  for (uint64_t i = from; i < rows->number; i++) {
    if (row_at(rows, i, &row) && imc_find(&row, "count", &count) && count.kind == IMC_INT &&
        same(text_of(&row, "kind"), kind))
      return true;
  }
  return false;
}

void imc_note_violations(const struct imc_value *rows)
{
  uint64_t shown = 0, total = 0;
  for (uint64_t i = 0; i < rows->number; i++) {
    struct imc_value row, count;
    if (!row_at(rows, i, &row))
      continue;
    const struct imc_bytes kind = text_of(&row, "kind");
    if (imc_find(&row, "count", &count)) {
      if (count.kind == IMC_INT && !is_counted(rows, i + 1, kind))
        total += count.number;
      continue;
    }
    total += !is_counted(rows, 0, kind);
    if (shown < SHOWN) {
      note(&row);
      shown++;
    }
  }
  if (total > shown) {
    char said[80];
    snprintf(said, sizeof said, "refused: %llu more (--json has up to 64)", (unsigned long long)(total - shown));
    const struct imc_bytes part = imc_text(said);
    imc_note(&part, 1);
  }
}
