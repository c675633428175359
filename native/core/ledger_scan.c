#include "ledger_scan.h"

#include <string.h>

#include "ledger_tree.h"

static bool same(const struct imd_text *one, const struct imd_text *other)
{
  return one->size == other->size && memcmp(one->at, other->at, one->size) == 0;
}

static bool is_wanted(const struct imd_piece *piece, const struct imd_text *type)
{
  if (piece->wants == 0)
    return true;
  for (size_t i = 0; i < piece->wants; i++)
    if (same(&piece->wanted[i], type))
      return true;
  return false;
}

void imd_piece_read(struct imd_reader *reader, struct imd_piece *piece)
{
  const size_t room = piece->size / IMD_PIECE_SHORTEST + 1;
  const uint8_t *newline;
  piece->lines = piece->hit = piece->end = 0;
  while (piece->lines < room && piece->end < piece->size &&
         (newline = memchr(piece->data + piece->end, '\n', piece->size - piece->end)) != NULL) {
    const uint8_t *const line = piece->data + piece->end;
    const size_t size = (size_t)(newline - line), n = piece->lines;
    struct imd_entry entry;
    if (!imd_line_read(reader, line, size, &entry) || (piece->left.at != NULL && same(&piece->left, &entry.type)))
      return;
    if (n == 0) {
      piece->seq = entry.seq;
      memcpy(piece->prev, entry.prev, sizeof piece->prev);
    } else if (entry.seq != piece->seq + n || memcmp(entry.prev, piece->leaves + 32 * (n - 1), 32) != 0) {
      return;
    }
    imd_tree_leaf(piece->leaves + 32 * n, line, size);
    memcpy(piece->last_ts, entry.ts.at, sizeof piece->last_ts);
    if (piece->hits != NULL && is_wanted(piece, &entry.type))
      piece->hits[piece->hit++] = (uint32_t)n;
    piece->end += size + 1;
    piece->ends[piece->lines++] = (uint32_t)piece->end;
  }
}
