/*
 * The ledger's lines, read as docs/ledger.md ("A line") demands: a line is taken here exactly when parse_line() of
 * immured/ledger/entry.py takes it. Why one is not is for that one to say; here there are no messages.
 */
#ifndef IMMURED_LEDGER_SCAN_H
#define IMMURED_LEDGER_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  IMD_LINE_MAX = 65535,                /* bytes, without the newline */
  IMD_LINE_DEPTH = 16,                 /* levels of maps and lists; the line is the first */
  IMD_LINE_KEYS = IMD_LINE_MAX / 5,    /* `"":1,` is the shortest member */
  IMD_TIME_SIZE = 30,
  IMD_PIECE_SHORTEST = 128,            /* no entry is shorter, with its newline */
};

struct imd_text {
  const uint8_t *at;
  size_t size;
};

/* An entry. Texts are without their quotes and escapes; `actor` and `data` are JSON as it stands in the line. */
struct imd_entry {
  uint64_t seq;
  struct imd_text ts, type, actor, data;
  uint8_t prev[32];
};

struct imd_key {
  uint64_t begins;
  struct imd_text name;
};

/* What reading a line takes: 450 KiB, of which an ordinary line touches little. Nothing in it outlives the next line. */
struct imd_reader {
  const uint8_t *at, *end;
  size_t keys, scratched;
  struct imd_key key[IMD_LINE_KEYS + 1];
  uint8_t scratch[IMD_LINE_MAX];
};

bool imd_line_read(struct imd_reader *reader, const uint8_t *line, size_t size, struct imd_entry *entry);

/* Whole lines, with their newlines, that follow one another in a ledger. The rows are the caller's, for size / 128 + 1. */
struct imd_piece {
  const uint8_t *data;
  size_t size;
  const struct imd_text *wanted;       /* types; none: every one */
  size_t wants;
  uint8_t *leaves;                     /* 32 bytes a line */
  uint32_t *ends;                      /* of each line, its newline included */
  uint32_t *hits;                      /* numbers of lines, from 0; NULL: none is asked for */
  struct imd_text left;                /* a type whose lines are for the caller to read; without `at`, none */

  size_t lines, hit, end;              /* good lines; of them asked for; their bytes */
  uint64_t seq;                        /* of the first */
  uint8_t prev[32];
  char last_ts[IMD_TIME_SIZE];
};

/* Reads up to the first line that is no entry, is not the next after the one before it, or is left to the caller. */
void imd_piece_read(struct imd_reader *reader, struct imd_piece *piece);

#endif
