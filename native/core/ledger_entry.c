#include "ledger_entry.h"

#include "sha256.h"

static const char hex_digits[16] = "0123456789abcdef";

#define ADD(text, literal) imd_text_add(text, literal, sizeof(literal) - 1)

static void add_hex(struct imd_text *text, const uint8_t *bytes, size_t size)
{
  uint8_t digits[64];
  for (size_t i = 0; i < size; i++) {
    digits[2 * i] = (uint8_t)hex_digits[bytes[i] >> 4];
    digits[2 * i + 1] = (uint8_t)hex_digits[bytes[i] & 15];
  }
  imd_text_add(text, digits, 2 * size);
}

/* --- UTF-8 --- */

/* The length of the character at `s`, of which `left` bytes are there; 0 where there is none. */
static size_t character(const uint8_t *s, size_t left, uint32_t *code)
{
  const uint8_t first = s[0];
  size_t size;
  uint32_t least;
  if (first < 0x80) {
    *code = first;
    return 1;
  }
  if (first >= 0xc2 && first <= 0xdf) {
    size = 2, least = 0x80, *code = first & 0x1f;
  } else if ((first & 0xf0) == 0xe0) {
    size = 3, least = 0x800, *code = first & 0x0f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    size = 4, least = 0x10000, *code = first & 0x07;
  } else {
    return 0;
  }
  if (size > left)
    return 0;
  for (size_t i = 1; i < size; i++) {
    if ((s[i] & 0xc0) != 0x80)
      return 0;
    *code = *code << 6 | (s[i] & 0x3f);
  }
  return *code < least || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff) ? 0 : size;
}

bool imd_text_is_utf8(const uint8_t *bytes, size_t size)
{
  uint32_t code;
  for (size_t at = 0, step; at < size; at += step)
    if ((step = character(bytes + at, size - at, &code)) == 0)
      return false;
  return true;
}

/* Characters that change what a terminal or an editor shows, without being seen. */
static bool is_invisible(uint32_t c)
{
  return (c >= 0x7f && c <= 0x9f) || c == 0xad || c == 0x61c || c == 0x70f || c == 0x180e ||
         (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
         (c >= 0xfff0 && c <= 0xffff) || (c >= 0xe0000 && c <= 0xe0fff);
}

static void add_unit(struct imd_text *text, uint32_t unit)
{
  uint8_t escape[6] = {'\\', 'u'};
  for (int i = 0; i < 4; i++)
    escape[2 + i] = (uint8_t)hex_digits[unit >> (12 - 4 * i) & 15];
  imd_text_add(text, escape, sizeof escape);
}

static void add_escaped(struct imd_text *text, uint32_t code)
{
  static const char shorter[][3] = {['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r",
                                    ['"'] = "\\\"", ['\\'] = "\\\\"};
  if (code < sizeof shorter / sizeof *shorter && shorter[code][0] != '\0') {
    imd_text_add(text, shorter[code], 2);
  } else if (code > 0xffff) {
    add_unit(text, 0xd800 + ((code - 0x10000) >> 10));
    add_unit(text, 0xdc00 + ((code - 0x10000) & 0x3ff));
  } else {
    add_unit(text, code);
  }
}

/* Whether a byte stands for itself: printable ASCII but for the quote and the backslash. */
static bool is_plain(uint8_t c)
{
  return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* Whether eight bytes do: the highest bit of a byte that does not is set in one of these sums. */
static bool are_plain(const uint8_t *eight)
{
  const uint64_t each = 0x0101010101010101u, high = 0x80 * each;
  uint64_t word, quote, slash;
  memcpy(&word, eight, sizeof word);
  quote = word ^ '"' * each;
  slash = word ^ '\\' * each;
  return ((word | (word + each) | (word - 0x20 * each) | ((quote - each) & ~quote) | ((slash - each) & ~slash)) & high) == 0;
}

void imd_text_string(struct imd_text *text, const uint8_t *utf8, size_t size)
{
  size_t kept = 0, at = 0;             /* from `kept` to `at` all stands for itself */
  ADD(text, "\"");
  while (at < size) {
    uint32_t code = utf8[at];
    if (size - at >= 8 && are_plain(utf8 + at)) {
      at += 8;
      continue;
    }
    if (is_plain((uint8_t)code)) {
      at++;
      continue;
    }
    size_t step = character(utf8 + at, size - at, &code);
    if (step == 0) {                   /* no caller lets this happen; a line with it must not come to be */
      text->full = true;
      return;
    }
    if (code < 0x20 || code == '"' || code == '\\' || is_invisible(code)) {
      imd_text_add(text, utf8 + kept, at - kept);
      add_escaped(text, code);
      kept = at + step;
    }
    at += step;
  }
  imd_text_add(text, utf8 + kept, at - kept);
  ADD(text, "\"");
}

/* --- values --- */

void imd_text_integer(struct imd_text *text, int64_t value)
{
  uint8_t digits[24];
  size_t at = sizeof digits;
  uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  const bool quoted = value > IMD_ENTRY_MAX_INTEGER || value < -IMD_ENTRY_MAX_INTEGER;
  do {
    digits[--at] = (uint8_t)('0' + rest % 10);
    rest /= 10;
  } while (rest > 0);
  if (value < 0)
    digits[--at] = '-';
  if (quoted)
    ADD(text, "\"");
  imd_text_add(text, digits + at, sizeof digits - at);
  if (quoted)
    ADD(text, "\"");
}

static void add_base64(struct imd_text *text, const uint8_t *bytes, size_t size)
{
  static const char letters[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  ADD(text, "{\"b64\":\"");
  for (; size > 0; bytes += 3, size -= size < 3 ? size : 3) {
    const uint32_t word = (uint32_t)bytes[0] << 16 | (size > 1 ? (uint32_t)bytes[1] << 8 : 0) | (size > 2 ? bytes[2] : 0);
    uint8_t four[4];
    for (unsigned i = 0; i < 4; i++)
      four[i] = i <= size ? (uint8_t)letters[word >> (18 - 6 * i) & 63] : '=';
    imd_text_add(text, four, sizeof four);
    if (size < 3)
      break;
  }
  ADD(text, "\"}");
}

/* As far as whole characters go. */
static size_t whole(const uint8_t *utf8, size_t size)
{
  while (size > 0 && (utf8[size] & 0xc0) == 0x80)
    size--;
  return size;
}

/* What stands before the head of a value that is too long. */
static void add_digest(struct imd_text *text, const uint8_t *bytes, size_t size)
{
  uint8_t digest[SHA256_SIZE];
  struct sha256 sum;
  sha256_begin(&sum);
  sha256_add(&sum, bytes, size);
  sha256_end(&sum, digest);
  ADD(text, "{\"sha256\":\"");
  add_hex(text, digest, sizeof digest);
  ADD(text, "\",\"len\":");
  imd_text_integer(text, (int64_t)size);
  ADD(text, ",\"head\":");
}

void imd_text_text(struct imd_text *text, const uint8_t *utf8, size_t size)
{
  if (size <= IMD_ENTRY_MAX_TEXT) {
    imd_text_string(text, utf8, size);
    return;
  }
  add_digest(text, utf8, size);
  imd_text_string(text, utf8, whole(utf8, IMD_ENTRY_HEAD));
  ADD(text, "}");
}

void imd_text_octets(struct imd_text *text, const uint8_t *bytes, size_t size)
{
  if (imd_text_is_utf8(bytes, size)) {
    imd_text_text(text, bytes, size);
  } else if (size <= IMD_ENTRY_MAX_TEXT) {
    add_base64(text, bytes, size);
  } else {
    add_digest(text, bytes, size);
    add_base64(text, bytes, IMD_ENTRY_HEAD);
    ADD(text, "}");
  }
}

/* --- the line --- */

static void put_digits(uint8_t *out, unsigned digits, uint64_t value)
{
  for (; digits-- > 0; value /= 10)
    out[digits] = (uint8_t)('0' + value % 10);
}

void imd_timestamp(int64_t ns, uint8_t out[IMD_ENTRY_TIMESTAMP])
{
  const uint64_t seconds = (uint64_t)ns / 1000000000, days = seconds / 86400, second = seconds % 86400;
  /* Years that begin in March have their odd day last. From 0000-03-01, in periods of 400 years (146,097 days). */
  const uint64_t all = days + 719468, period = all / 146097, day = all % 146097;
  const uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
  const uint64_t of_year = day - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
  memcpy(out, "YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ", IMD_ENTRY_TIMESTAMP);
  put_digits(out, 4, period * 400 + year + (month >= 10));
  put_digits(out + 5, 2, month < 10 ? month + 3 : month - 9);
  put_digits(out + 8, 2, of_year - (153 * month + 2) / 5 + 1);
  put_digits(out + 11, 2, second / 3600);
  put_digits(out + 14, 2, second / 60 % 60);
  put_digits(out + 17, 2, second % 60);
  put_digits(out + 20, 9, (uint64_t)ns % 1000000000);
}

void imd_leaf(const uint8_t *line, size_t size, uint8_t leaf[32])
{
  static const uint8_t zero[1];
  struct sha256 sum;
  sha256_begin(&sum);
  sha256_add(&sum, zero, 1);
  sha256_add(&sum, line, size);
  sha256_end(&sum, leaf);
}

void imd_line_begin(struct imd_text *text, uint64_t seq, int64_t ns, const uint8_t *type, size_t type_size)
{
  uint8_t ts[IMD_ENTRY_TIMESTAMP];
  imd_timestamp(ns, ts);
  ADD(text, "{\"v\":1,\"seq\":");
  imd_text_integer(text, (int64_t)seq);
  ADD(text, ",\"ts\":\"");
  imd_text_add(text, ts, sizeof ts);
  ADD(text, "\",\"type\":\"");
  imd_text_add(text, type, type_size);
  ADD(text, "\",");
}

void imd_line_end(struct imd_text *text, size_t start, const uint8_t prev[32], uint8_t leaf[32])
{
  ADD(text, ",\"prev\":\"");
  add_hex(text, prev, 32);
  ADD(text, "\"}");
  if (!text->full)
    imd_leaf(text->at + start, text->used - start, leaf);
  ADD(text, "\n");
}
