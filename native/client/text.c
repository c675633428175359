#include "text.h"

#include <stdio.h>

/* Made at build time from the very Python that the command line falls back to: {first, last} of what its
 * str.isprintable() says yes to, beyond ASCII, in order. */
static const struct { uint32_t first, last; } printable[] = {
#include "printable.inc"
};

size_t imc_character(struct imc_bytes bytes, uint32_t *code)
{
  if (bytes.size == 0)
    return 0;
  const uint8_t head = bytes.at[0];
  if (head < 0x80) {
    *code = head;
    return 1;
  }
  const size_t length = head >= 0xc2 && head <= 0xdf   ? 2
                        : head >= 0xe0 && head <= 0xef ? 3
                        : head >= 0xf0 && head <= 0xf4 ? 4
                                                       : 0;
  if (length == 0 || length > bytes.size)
    return 0;
  uint32_t value = head & (0xffu >> (length + 1));
  for (size_t i = 1; i < length; i++) {
    if ((bytes.at[i] & 0xc0) != 0x80)
      return 0;
    value = value << 6 | (bytes.at[i] & 0x3f);
  }
  if ((length == 3 && (value < 0x800 || (value >= 0xd800 && value <= 0xdfff))) ||
      (length == 4 && (value < 0x10000 || value > 0x10ffff)))
    return 0;
  *code = value;
  return length;
}

bool imc_is_utf8(struct imc_bytes bytes)
{
  for (uint32_t code; bytes.size > 0;) {
    const size_t length = imc_character(bytes, &code);
    if (length == 0)
      return false;
    bytes.at += length;
    bytes.size -= length;
  }
  return true;
}

size_t imc_characters(struct imc_bytes bytes)
{
  size_t count = 0;
  for (size_t i = 0; i < bytes.size; i++)
    count += (bytes.at[i] & 0xc0) != 0x80;
  return count;
}

static bool is_printable(uint32_t code)
{
  if (code < 0x7f)
    return code >= 0x20;
  size_t low = 0, high = sizeof printable / sizeof printable[0];
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (code > printable[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < sizeof printable / sizeof printable[0] && code >= printable[low].first;
}

size_t imc_escape(struct imc_bytes bytes, char said[IMC_ESCAPED])
{
  uint32_t code;
  size_t length = imc_character(bytes, &code);
  if (length == 0) {
    code = 0xdc00 + bytes.at[0];
    length = 1;
  } else if (is_printable(code)) {
    memcpy(said, bytes.at, length);
    said[length] = '\0';
    return length;
  }
  if (code == '\n' || code == '\r' || code == '\t')
    snprintf(said, IMC_ESCAPED, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
  else
    snprintf(said, IMC_ESCAPED, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
  return length;
}

const char *imc_shown(struct imc_bytes text, char *room, size_t size)
{
  enum { LIMIT = 64 };
  const bool cut = imc_characters(text) > LIMIT;
  const char quote = memchr(text.at, '\'', text.size) && !memchr(text.at, '"', text.size) ? '"' : '\'';
  size_t used = 0;
  room[used++] = quote;
  for (int count = 0; count < LIMIT && text.size > 0 && used + IMC_ESCAPED + 5 < size; count++) {
    char said[IMC_ESCAPED];
    const size_t length = imc_escape(text, said);
    if (said[1] == '\0' && (said[0] == '\\' || said[0] == quote))
      room[used++] = '\\';
    memcpy(room + used, said, strlen(said));
    used += strlen(said);
    text.at += length;
    text.size -= length;
  }
  snprintf(room + used, size - used, "%s%c", cut ? "…" : "", quote);
  return room;
}
