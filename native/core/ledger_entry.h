/*
 * A line of the ledger as it is written: docs/ledger.md, "How values enter". daemon/immured/ledger/entry.py says the same
 * in Python, and is what this is compared with; what this declines is left to it.
 */
#ifndef IMMURED_LEDGER_ENTRY_H
#define IMMURED_LEDGER_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
  IMD_ENTRY_MAX_LINE = 65535,          /* bytes, without the newline */
  IMD_ENTRY_MAX_TEXT = 1024,           /* bytes of a text or a byte string; a longer one enters as its digest */
  IMD_ENTRY_HEAD = 256,                /* bytes of a longer one that stay readable */
  IMD_ENTRY_MAX_DEPTH = 16,            /* of maps and lists; the line is the first */
  IMD_ENTRY_FRAME = 256,               /* kept for a line's own fields; the rest is type, actor and data */
  IMD_ENTRY_MAX_TYPE = 64,
};

static const int64_t IMD_ENTRY_MAX_INTEGER = (int64_t)9007199254740991; /* 2^53 - 1 */

/* JSON that grows within `room` bytes. Once it would not, `full` is set, and `at` holds nothing of use. */
struct imd_text { uint8_t *at; size_t used, room; bool full; };

static inline void imd_text_add(struct imd_text *text, const void *bytes, size_t size)
{
  if (text->full || size > text->room - text->used) {
    text->full = true;
    return;
  }
  memcpy(text->at + text->used, bytes, size);
  text->used += size;
}

/* A JSON string: quotes, what JSON escapes, and characters that nobody sees. `utf8` is UTF-8. */
void imd_text_string(struct imd_text *text, const uint8_t *utf8, size_t size);

/* Values as they enter: an integer; text; bytes, which are text where they are UTF-8. */
void imd_text_integer(struct imd_text *text, int64_t value);
void imd_text_text(struct imd_text *text, const uint8_t *utf8, size_t size);
void imd_text_octets(struct imd_text *text, const uint8_t *bytes, size_t size);

/* Whether these bytes are UTF-8 (RFC 3629: no overlong forms, no surrogates). */
bool imd_text_is_utf8(const uint8_t *bytes, size_t size);

/* `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ` for nanoseconds since the epoch, of 1970 and later. */
enum { IMD_ENTRY_TIMESTAMP = 30 };
void imd_timestamp(int64_t ns, uint8_t out[IMD_ENTRY_TIMESTAMP]);

/*
 * A line at the end of `text`: what stands before its members (actor and data as JSON, without braces), then, once those were
 * added, what stands behind them, its newline, and its leaf hash. `start` is where it begins in `text`, `prev` the leaf of the
 * line before.
 */
void imd_line_begin(struct imd_text *text, uint64_t seq, int64_t ns, const uint8_t *type, size_t type_size);
void imd_line_end(struct imd_text *text, size_t start, const uint8_t prev[32], uint8_t leaf[32]);

/* SHA-256(0x00 || line), of a line without its newline. */
void imd_leaf(const uint8_t *line, size_t size, uint8_t leaf[32]);

#endif
