/*
 * The ledger's reader in C under the sanitizers. Standard input is pieces: 4 bytes of size (of the machine's order), then
 * so many bytes of lines; each is copied to memory that ends where it does. For each piece the answer is 8 numbers of 4
 * bytes: the piece's good lines and their bytes, its hits, a checksum of the leaves, then for the first line taken by
 * itself whether it is an entry, its seq, and the sizes of its actor and data.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_scan.h"

static struct imd_reader reader;

static uint32_t checksum(const uint8_t *bytes, size_t size)
{
  uint32_t sum = 0;
  for (size_t i = 0; i < size; i++)
    sum = sum * 31 + bytes[i];
  return sum;
}

static void *room(size_t size)
{
  void *made = malloc(size > 0 ? size : 1);
  if (made == NULL)
    errx(EXIT_FAILURE, "no memory");
  return made;
}

static void one(const uint8_t *data, uint32_t size)
{
  const size_t lines = size / IMD_PIECE_SHORTEST + 1;
  static const char wanted[] = "run.accepted", left[] = "ledger.rotated";
  const struct imd_text type = {(const uint8_t *)wanted, sizeof wanted - 1};
  struct imd_piece piece = {.data = data, .size = size, .wanted = &type, .wants = 1};
  piece.left = (struct imd_text){(const uint8_t *)left, sizeof left - 1};
  piece.leaves = room(32 * lines);
  piece.ends = room(sizeof *piece.ends * lines);
  piece.hits = room(sizeof *piece.hits * lines);
  imd_piece_read(&reader, &piece);

  struct imd_entry entry = {0};
  const uint8_t *newline = memchr(data, '\n', size);
  const size_t first = newline != NULL ? (size_t)(newline - data) : size;
  uint8_t *line = room(first); /* nothing may be read behind it */
  memcpy(line, data, first);
  const bool good = imd_line_read(&reader, line, first, &entry);
  const uint32_t answer[8] = {
      (uint32_t)piece.lines, (uint32_t)piece.end, (uint32_t)piece.hit, checksum(piece.leaves, 32 * piece.lines),
      good, good ? (uint32_t)entry.seq : 0, good ? (uint32_t)entry.actor.size : 0, good ? (uint32_t)entry.data.size : 0,
  };
  if (fwrite(answer, sizeof answer, 1, stdout) != 1)
    err(EXIT_FAILURE, "answer");
  free(line);
  free(piece.leaves);
  free(piece.ends);
  free(piece.hits);
}

int main(void)
{
  uint32_t size;
  while (fread(&size, sizeof size, 1, stdin) == 1) {
    uint8_t *data = room(size);
    if (size > 0 && fread(data, size, 1, stdin) != 1)
      errx(EXIT_FAILURE, "a piece ends early");
    one(data, size);
    free(data);
  }
  return 0;
}
