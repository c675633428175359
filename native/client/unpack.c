#include "unpack.h"

#include "text.h"

#include <stdlib.h>

#define SEE "see docs/protocol.md, Values"

static int bad(struct imc_error *err, const char *what)
{
  return imc_fail(err, "bad_msgpack", SEE, "%s", what);
}

static int bad_at(struct imc_error *err, const char *what, size_t position)
{
  return imc_fail(err, "bad_msgpack", SEE, "%s at byte %zu", what, position);
}

const char *imc_kind_name(enum imc_kind kind)
{
  static const char *const names[] = {"a boolean", "an integer", "a str", "bin", "an array", "a map"};
  return names[kind];
}

/* --- one head --- */

/* What a first byte announces: `width` bytes of length or number follow it. False: none that is allowed. */
struct head {
  enum imc_kind kind;
  unsigned width;
  uint64_t small;                  /* the value, or the length, that the byte itself holds */
};

static bool classify(uint8_t first, struct head *head)
{
  *head = (struct head){.kind = IMC_INT, .small = first};
  if (first < 0x80)
    return true;
  if (first >= 0xe0)
    head->small = (uint64_t)(int64_t)(int8_t)first;
  else if (first < 0x90)
    *head = (struct head){IMC_MAP, 0, first & 0x0f};
  else if (first < 0xa0)
    *head = (struct head){IMC_ARRAY, 0, first & 0x0f};
  else if (first < 0xc0)
    *head = (struct head){IMC_STR, 0, first & 0x1f};
  else if (first == 0xc2 || first == 0xc3)
    *head = (struct head){IMC_BOOL, 0, first == 0xc3};
  else if (first >= 0xc4 && first <= 0xc6)
    *head = (struct head){IMC_BIN, 1u << (first - 0xc4), 0};
  else if (first >= 0xcc && first <= 0xcf)
    *head = (struct head){IMC_INT, 1u << (first - 0xcc), 0};
  else if (first >= 0xd0 && first <= 0xd3)
    *head = (struct head){IMC_INT, 1u << (first - 0xd0), 0};
  else if (first >= 0xd9 && first <= 0xdb)
    *head = (struct head){IMC_STR, 1u << (first - 0xd9), 0};
  else if (first == 0xdc || first == 0xdd)
    *head = (struct head){IMC_ARRAY, first == 0xdc ? 2 : 4, 0};
  else if (first == 0xde || first == 0xdf)
    *head = (struct head){IMC_MAP, first == 0xde ? 2 : 4, 0};
  else
    return false;
  return true;
}

static uint64_t big_endian(const uint8_t *bytes, unsigned width)
{
  uint64_t number = 0;
  for (unsigned i = 0; i < width; i++)
    number = number << 8 | bytes[i];
  return number;
}

bool imc_next(struct imc_bytes *rest, struct imc_value *value)
{
  struct head head;
  if (rest->size == 0 || !classify(rest->at[0], &head) || head.width >= rest->size)
    return false;
  const uint8_t first = rest->at[0];
  *value = (struct imc_value){.kind = head.kind, .number = head.small};
  if (head.width > 0)
    value->number = big_endian(rest->at + 1, head.width);
  rest->at += 1 + head.width;
  rest->size -= 1 + head.width;
  if (head.kind == IMC_BOOL) {
    value->truth = head.small != 0;
  } else if (head.kind == IMC_INT) {
    if (first >= 0xd0 && first <= 0xd3 && head.width < 8 && value->number >> (8 * head.width - 1))
      value->number |= UINT64_MAX << 8 * head.width;
    value->negative = (first >= 0xd0) && (int64_t)value->number < 0;
  } else if (head.kind == IMC_STR || head.kind == IMC_BIN) {
    if (value->number > rest->size)
      return false;
    value->bytes = (struct imc_bytes){rest->at, (size_t)value->number};
    rest->at += value->bytes.size;
    rest->size -= value->bytes.size;
  } else {
    value->bytes = *rest;
  }
  return true;
}

bool imc_skip(struct imc_bytes *rest)
{
  struct imc_value value;
  for (uint64_t due = 1; due > 0; due--) {
    if (!imc_next(rest, &value))
      return false;
    if (value.kind == IMC_ARRAY)
      due += value.number;
    else if (value.kind == IMC_MAP)
      due += 2 * value.number;
  }
  return true;
}

bool imc_find(const struct imc_value *map, const char *name, struct imc_value *value)
{
  struct imc_bytes rest = map->bytes;
  for (uint64_t i = 0; i < map->number; i++) {
    struct imc_value key;
    if (!imc_next(&rest, &key))
      return false;
    if (key.kind == IMC_STR && imc_is(key.bytes, name))
      return imc_next(&rest, value);
    if (!imc_skip(&rest))
      return false;
  }
  return false;
}

/* --- the check: first all lengths, then what they hold --- */

static int forbidden(uint8_t first, size_t position, struct imc_error *err)
{
  return bad_at(err,
                first == 0xc0                    ? "nil"
                : first == 0xca || first == 0xcb ? "a float"
                : first == 0xc1                  ? "the byte c1, which msgpack never uses,"
                                                 : "an ext type",
                position);
}

/* Every value that a head declares must be paid for by at least one byte and by the budget, before it is believed. */
static int scan(struct imc_bytes data, unsigned max_depth, unsigned max_items, struct imc_error *err)
{
  struct { uint64_t left; bool in_map; } outer[IMC_MAX_DEPTH];
  unsigned depth = 0;
  uint64_t left = 1, budget = max_items - 1;
  bool in_map = false;
  size_t position = 0;
  while (left > 0 || depth > 0) {
    if (left == 0) {
      depth--;
      left = outer[depth].left;
      in_map = outer[depth].in_map;
      continue;
    }
    if (position >= data.size)
      return bad(err, "the value ends early");
    struct head head;
    const bool known = classify(data.at[position], &head);
    if (in_map && left % 2 == 0 && !(known && head.kind == IMC_STR))
      return bad_at(err, "a map's key is not a str,", position);
    left--;
    if (!known)
      return forbidden(data.at[position], position, err);
    const size_t body = position + 1;
    if (head.width > data.size - body)
      return bad(err, "the value ends early");
    const uint64_t length = head.width > 0 ? big_endian(data.at + body, head.width) : head.small;
    const size_t start = body + head.width;
    if (head.kind == IMC_STR || head.kind == IMC_BIN) {
      if (length > data.size - start)
        return bad(err, "the value ends early");
      position = start + (size_t)length;
      continue;
    }
    if (head.kind == IMC_INT || head.kind == IMC_BOOL) {
      position = start;
      continue;
    }
    if (depth >= max_depth)
      return imc_fail(err, "bad_msgpack", SEE, "arrays and maps nest more than %u deep, at byte %zu", max_depth,
                      position);
    outer[depth].left = left;
    outer[depth].in_map = in_map;
    depth++;
    in_map = head.kind == IMC_MAP;
    left = in_map ? 2 * length : length;
    if (left > data.size - start)
      return bad_at(err, "a length says more than there is,", position);
    if (left > budget)
      return imc_fail(err, "bad_msgpack", SEE, "more than %u values", max_items);
    budget -= left;
    position = start;
  }
  if (position < data.size)
    return imc_fail(err, "bad_msgpack", SEE, "%zu bytes follow the value, at byte %zu", data.size - position, position);
  return 0;
}

static int compare(const void *left, const void *right)
{
  const struct imc_bytes *a = left, *b = right;
  if (a->size != b->size)
    return a->size < b->size ? -1 : 1;
  return a->size > 0 ? memcmp(a->at, b->at, a->size) : 0;
}

/* No key twice. Sorted, because a stranger may send thirty thousand of them. */
static int unique(const struct imc_value *map, struct imc_error *err)
{
  static struct imc_bytes keys[IMC_MAX_ITEMS / 2];
  struct imc_bytes rest = map->bytes;
  const size_t count = (size_t)map->number;
  if (count > sizeof keys / sizeof keys[0])
    return bad(err, "more values than a map may hold");
  for (size_t i = 0; i < count; i++) {
    struct imc_value key;
    if (!imc_next(&rest, &key) || !imc_skip(&rest))
      return bad(err, "the value ends early");
    keys[i] = key.bytes;
  }
  if (count > 1)
    qsort(keys, count, sizeof keys[0], compare);
  for (size_t i = 1; i < count; i++) {
    char room[384];
    if (compare(&keys[i - 1], &keys[i]) == 0)
      return imc_fail(err, "bad_msgpack", SEE, "the key %s stands twice in a map",
                      imc_shown(keys[i], room, sizeof room));
  }
  return 0;
}

/* What `scan` passed is at most IMC_MAX_DEPTH deep, and so is this. */
static int contents(struct imc_bytes *rest, struct imc_error *err)
{
  struct imc_value value;
  if (!imc_next(rest, &value))
    return bad(err, "the value ends early");
  if (value.kind == IMC_STR && !imc_is_utf8(value.bytes))
    return bad(err, "a str is not valid UTF-8");
  if (value.kind != IMC_ARRAY && value.kind != IMC_MAP)
    return 0;
  const uint64_t due = value.kind == IMC_MAP ? 2 * value.number : value.number;
  for (uint64_t i = 0; i < due; i++) {
    if (contents(rest, err) < 0)
      return -1;
  }
  return value.kind == IMC_MAP ? unique(&value, err) : 0;
}

int imc_check(struct imc_bytes data, unsigned depth, unsigned items, struct imc_error *err)
{
  if (scan(data, depth, items, err) < 0)
    return -1;
  return contents(&data, err);
}
