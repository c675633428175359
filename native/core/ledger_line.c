#include "ledger_scan.h"

#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { MAX_TYPE = 64, PAIRWISE = 32, LONGEST_NUMBER = 17 };
#define MAX_INTEGER ((1ull << 53) - 1)

static bool is_digit(uint8_t c)
{
  return c >= '0' && c <= '9';
}

static bool is_lower(uint8_t c)
{
  return c >= 'a' && c <= 'z';
}

static void skip_space(struct imd_reader *r)
{
  while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
    r->at++;
}

static bool take(struct imd_reader *r, uint8_t c)
{
  if (r->at == r->end || *r->at != c)
    return false;
  r->at++;
  return true;
}

static bool take_word(struct imd_reader *r, const char *word, size_t size)
{
  if ((size_t)(r->end - r->at) < size || memcmp(r->at, word, size) != 0)
    return false;
  r->at += size;
  return true;
}

/* The first byte from `at` that is no plain ASCII of a string: a quote, a backslash, a control, or beyond ASCII. */
static const uint8_t *after_plain(const uint8_t *at, const uint8_t *end)
{
#ifdef __SSE2__
  const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(' ');
  for (; end - at >= 16; at += 16) {
    const __m128i bytes = _mm_loadu_si128((const __m128i *)at);
    /* Signed, what is beyond ASCII is less than a space too. */
    const __m128i other = _mm_or_si128(_mm_cmplt_epi8(bytes, space),
                                       _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)));
    const unsigned found = (unsigned)_mm_movemask_epi8(other);
    if (found != 0)
      return at + __builtin_ctz(found);
  }
#endif
  while (at < end && *at >= ' ' && *at < 0x80 && *at != '"' && *at != '\\')
    at++;
  return at;
}

/* Behind the character that begins at `at` with a byte beyond ASCII; NULL where it is not UTF-8 (RFC 3629). */
static const uint8_t *after_utf8(const uint8_t *at, const uint8_t *end)
{
  const uint8_t lead = *at++;
  uint8_t low = 0x80, high = 0xbf;
  unsigned more;
  if (lead >= 0xc2 && lead <= 0xdf)
    more = 1;
  else if (lead >= 0xe0 && lead <= 0xef)
    more = 2;
  else if (lead >= 0xf0 && lead <= 0xf4)
    more = 3;
  else
    return NULL;
  if (lead == 0xe0)
    low = 0xa0;                        /* shorter ones are not taken */
  else if (lead == 0xed)
    high = 0x9f;                       /* nor halves of surrogate pairs */
  else if (lead == 0xf0)
    low = 0x90;
  else if (lead == 0xf4)
    high = 0x8f;
  for (; more > 0; more--, at++, low = 0x80, high = 0xbf)
    if (at == end || *at < low || *at > high)
      return NULL;
  return at;
}

static int hex_value(uint8_t c)
{
  if (is_digit(c))
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The number of four hexadecimal digits; negative where they are not. */
static int32_t take_unit(const uint8_t *at, const uint8_t *end)
{
  int32_t unit = 0;
  if (end - at < 4)
    return -1;
  for (unsigned i = 0; i < 4; i++) {
    const int digit = hex_value(at[i]);
    if (digit < 0)
      return -1;
    unit = unit << 4 | digit;
  }
  return unit;
}

/* The character that the escape at `*at` (its backslash) stands for, and `*at` behind it; negative where it is none. */
static int32_t take_escape(const uint8_t **at, const uint8_t *end)
{
  static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  const uint8_t *c = *at + 1;
  if (c == end)
    return -1;
  if (*c != 'u') {
    const char *name = *c != '\0' ? strchr(names, *c) : NULL;
    *at = c + 1;
    return name != NULL ? meant[name - names] : -1;
  }
  const int32_t unit = take_unit(c + 1, end);
  c += 5;
  *at = c;
  if (unit < 0xd800 || unit > 0xdfff)
    return unit;
  if (unit > 0xdbff || end - c < 6 || c[0] != '\\' || c[1] != 'u')
    return -1;
  const int32_t second = take_unit(c + 2, end);
  *at = c + 6;
  return second >= 0xdc00 && second <= 0xdfff ? 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00) : -1;
}

static uint8_t *put_utf8(uint8_t *to, uint32_t c)
{
  if (c < 0x80) {
    *to++ = (uint8_t)c;
    return to;
  }
  if (c < 0x800) {
    *to++ = (uint8_t)(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      *to++ = (uint8_t)(0xe0 | c >> 12);
    } else {
      *to++ = (uint8_t)(0xf0 | c >> 18);
      *to++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    }
    *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
  }
  *to++ = (uint8_t)(0x80 | (c & 0x3f));
  return to;
}

/* What a string that was found good says, in the scratch: never longer than it stands in the line, so there is room. */
static struct imd_text without_escapes(struct imd_reader *r, const uint8_t *at, const uint8_t *end)
{
  uint8_t *const begin = r->scratch + r->scratched, *to = begin;
  while (at < end) {
    if (*at == '\\')
      to = put_utf8(to, (uint32_t)take_escape(&at, end));
    else
      *to++ = *at++;
  }
  r->scratched += (size_t)(to - begin);
  return (struct imd_text){begin, (size_t)(to - begin)};
}

/* A string, whose opening quote comes next. `text` may be NULL. */
static bool take_string(struct imd_reader *r, struct imd_text *text)
{
  if (!take(r, '"'))
    return false;
  const uint8_t *const begin = r->at, *at = begin, *const end = r->end;
  bool escaped = false;
  for (;;) {
    at = after_plain(at, end);
    if (at == end)
      return false;
    if (*at == '"')
      break;
    if (*at == '\\') {
      escaped = true;
      if (take_escape(&at, end) < 0)
        return false;
    } else if (*at < 0x80 || (at = after_utf8(at, end)) == NULL) {
      return false;
    }
  }
  r->at = at + 1;
  if (text != NULL)
    *text = escaped ? without_escapes(r, begin, at) : (struct imd_text){begin, (size_t)(at - begin)};
  return true;
}

/* An integer within 2^53 - 1 of zero. A fraction or an exponent is left standing, where nothing may follow but , ] }. */
static bool take_integer(struct imd_reader *r, bool *negative, uint64_t *value)
{
  const uint8_t *const begin = r->at;
  uint64_t sum = 0;
  *negative = take(r, '-');
  if (r->at == r->end || !is_digit(*r->at))
    return false;
  if (*r->at == '0') {
    r->at++;
  } else {
    for (; r->at < r->end && is_digit(*r->at); r->at++) {
      if (r->at - begin >= LONGEST_NUMBER)
        return false;
      sum = sum * 10 + (*r->at - '0');
    }
  }
  *value = sum;
  return sum <= MAX_INTEGER;
}

/* The first eight bytes of a name, or as many as it has: names that differ mostly differ there. */
static uint64_t begins_with(const struct imd_text *name)
{
  uint64_t begins = 0;
  memcpy(&begins, name->at, name->size < 8 ? name->size : 8);
  return begins;
}

static bool same(const struct imd_key *one, const struct imd_key *other)
{
  return one->begins == other->begins && one->name.size == other->name.size &&
         memcmp(one->name.at, other->name.at, one->name.size) == 0;
}

static int by_name(const void *one, const void *other)
{
  const struct imd_text *a = &((const struct imd_key *)one)->name, *b = &((const struct imd_key *)other)->name;
  if (a->size != b->size)
    return a->size < b->size ? -1 : 1;
  return memcmp(a->at, b->at, a->size);
}

/* Whether no name stands twice. A map of many members is sorted: whoever chose its names can make no reader slow. */
static bool all_differ(struct imd_key *key, size_t count)
{
  if (count <= PAIRWISE) {
    for (size_t i = 1; i < count; i++)
      for (size_t j = 0; j < i; j++)
        if (same(&key[i], &key[j]))
          return false;
    return true;
  }
  qsort(key, count, sizeof *key, by_name);
  for (size_t i = 1; i < count; i++)
    if (same(&key[i - 1], &key[i]))
      return false;
  return true;
}

static bool take_value(struct imd_reader *r, unsigned depth);

/* A map at this level, whose brace comes next. */
static bool take_map(struct imd_reader *r, unsigned depth)
{
  if (depth > IMD_LINE_DEPTH || !take(r, '{'))
    return false;
  const size_t first = r->keys;
  skip_space(r);
  if (take(r, '}'))
    return true;
  for (;;) {
    struct imd_key *const key = &r->key[r->keys];
    if (r->keys++ == IMD_LINE_KEYS || !take_string(r, &key->name))
      return false;
    key->begins = begins_with(&key->name);
    skip_space(r);
    if (!take(r, ':'))
      return false;
    skip_space(r);
    if (!take_value(r, depth + 1))
      return false;
    skip_space(r);
    if (take(r, '}'))
      break;
    if (!take(r, ','))
      return false;
    skip_space(r);
  }
  const bool good = all_differ(r->key + first, r->keys - first);
  r->keys = first;
  return good;
}

static bool take_list(struct imd_reader *r, unsigned depth)
{
  if (depth > IMD_LINE_DEPTH || !take(r, '['))
    return false;
  skip_space(r);
  if (take(r, ']'))
    return true;
  for (;;) {
    if (!take_value(r, depth + 1))
      return false;
    skip_space(r);
    if (take(r, ']'))
      return true;
    if (!take(r, ','))
      return false;
    skip_space(r);
  }
}

/* A value that would be at this level if it were a map or a list. There is no null. */
static bool take_value(struct imd_reader *r, unsigned depth)
{
  bool negative;
  uint64_t number;
  if (r->at == r->end)
    return false;
  switch (*r->at) {
  case '"':
    return take_string(r, NULL);
  case '{':
    return take_map(r, depth);
  case '[':
    return take_list(r, depth);
  case 't':
    return take_word(r, "true", 4);
  case 'f':
    return take_word(r, "false", 5);
  default:
    return take_integer(r, &negative, &number);
  }
}

static unsigned two_digits(const uint8_t *at)
{
  return 10u * (at[0] - '0') + (at[1] - '0');
}

/* `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ`, of a day that the calendar has; years begin with 1. */
static bool is_time(const struct imd_text *text)
{
  static const char shape[IMD_TIME_SIZE + 1] = "0000-00-00T00:00:00.000000000Z";
  static const uint8_t days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const uint8_t *at = text->at;
  if (text->size != IMD_TIME_SIZE)
    return false;
  for (size_t i = 0; i < IMD_TIME_SIZE; i++)
    if (shape[i] == '0' ? !is_digit(at[i]) : at[i] != (uint8_t)shape[i])
      return false;
  const unsigned year = 100 * two_digits(at) + two_digits(at + 2), month = two_digits(at + 5), day = two_digits(at + 8);
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  return year >= 1 && month >= 1 && month <= 12 && day >= 1 && day <= days[month] + (month == 2 && leap ? 1u : 0u) &&
         two_digits(at + 11) < 24 && two_digits(at + 14) < 60 && two_digits(at + 17) < 60;
}

/* `[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+`, of at most 64 characters. */
static bool is_type(const struct imd_text *text)
{
  bool begins = true, dotted = false;
  if (text->size == 0 || text->size > MAX_TYPE)
    return false;
  for (size_t i = 0; i < text->size; i++) {
    const uint8_t c = text->at[i];
    if (c == '.' && !begins) {
      begins = dotted = true;
    } else if (is_lower(c) || (!begins && (is_digit(c) || c == '_'))) {
      begins = false;
    } else {
      return false;
    }
  }
  return dotted && !begins;
}

static bool is_leaf(const struct imd_text *text, uint8_t leaf[32])
{
  if (text->size != 64)
    return false;
  for (size_t i = 0; i < 32; i++) {
    const uint8_t high = text->at[2 * i], low = text->at[2 * i + 1];
    if ((high >= 'A' && high <= 'F') || (low >= 'A' && low <= 'F') || hex_value(high) < 0 || hex_value(low) < 0)
      return false;
    leaf[i] = (uint8_t)(hex_value(high) << 4 | hex_value(low));
  }
  return true;
}

static bool take_span(struct imd_reader *r, struct imd_text *span)
{
  span->at = r->at;
  if (!take_map(r, 2))
    return false;
  span->size = (size_t)(r->at - span->at);
  return true;
}

enum field { V, SEQ, TS, TYPE, ACTOR, DATA, PREV, FIELDS };

static enum field field_of(const struct imd_text *name)
{
  static const char *const names[FIELDS] = {"v", "seq", "ts", "type", "actor", "data", "prev"};
  enum field field = 0;
  while (field < FIELDS && !(name->size == strlen(names[field]) && memcmp(name->at, names[field], name->size) == 0))
    field++;
  return field;
}

static bool take_field(struct imd_reader *r, enum field field, struct imd_entry *entry)
{
  struct imd_text text;
  uint64_t number;
  bool negative;
  switch (field) {
  case V:
    return take_integer(r, &negative, &number) && number == 1 && !negative;
  case SEQ:
    return take_integer(r, &negative, &entry->seq) && (!negative || entry->seq == 0);
  case TS:
    return take_string(r, &entry->ts) && is_time(&entry->ts);
  case TYPE:
    return take_string(r, &entry->type) && is_type(&entry->type);
  case ACTOR:
    return take_span(r, &entry->actor);
  case DATA:
    return take_span(r, &entry->data);
  case PREV:
    return take_string(r, &text) && is_leaf(&text, entry->prev);
  default:
    return false;
  }
}

bool imd_line_read(struct imd_reader *r, const uint8_t *line, size_t size, struct imd_entry *entry)
{
  unsigned seen = 0;
  if (size > IMD_LINE_MAX)
    return false;
  r->at = line;
  r->end = line + size;
  r->keys = r->scratched = 0;
  if (!take(r, '{'))
    return false;
  do {
    struct imd_text name;
    skip_space(r);
    if (!take_string(r, &name))
      return false;
    const enum field field = field_of(&name);
    skip_space(r);
    if (!take(r, ':') || seen & 1u << field)
      return false;
    skip_space(r);
    if (!take_field(r, field, entry))
      return false;
    seen |= 1u << field;
    skip_space(r);
  } while (take(r, ','));
  return take(r, '}') && r->at == r->end && seen == (1u << FIELDS) - 1;
}
