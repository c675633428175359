/*
 * What is native about a line of the ledger, asked piece by piece. A question on stdin: one letter, the room that the answer
 * has (uint32), the length of what follows (uint32), and that. The answer: its length (uint32), UINT32_MAX where it did not fit,
 * and its bytes. Each question and each answer has memory of its own, of exactly its length.
 *
 *   t  text, as it enters          o  bytes, as they enter       s  a JSON string          u  whether it is UTF-8
 *   i  an integer (int64)          l  a line: seq (uint64), time (int64), leaf before (32), length of the type (uint8), type,
 *                                     members. The answer ends with the leaf hash
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_entry.h"

static void must_read(void *to, size_t size)
{
  if (size > 0 && fread(to, 1, size, stdin) != size)
    abort();
}

static void answer_line(struct imd_text *text, const uint8_t *data, size_t size)
{
  uint64_t seq;
  int64_t ns;
  uint8_t leaf[32] = {0};
  if (size < 49 || size < 49u + data[48])
    abort();
  memcpy(&seq, data, sizeof seq);
  memcpy(&ns, data + 8, sizeof ns);
  imd_line_begin(text, seq, ns, data + 49, data[48]);
  imd_text_add(text, data + 49 + data[48], size - 49 - data[48]);
  imd_line_end(text, 0, data + 16, leaf);
  imd_text_add(text, leaf, sizeof leaf);
}

int main(void)
{
  for (int what; (what = getchar()) != EOF;) {
    uint32_t room, size, said;
    int64_t value;
    must_read(&room, sizeof room);
    must_read(&size, sizeof size);
    uint8_t *data = malloc(size > 0 ? size : 1);
    struct imd_text text = {.at = malloc(room > 0 ? room : 1), .room = room};
    if (data == NULL || text.at == NULL)
      abort();
    must_read(data, size);
    switch (what) {
    case 't': imd_text_text(&text, data, size); break;
    case 'o': imd_text_octets(&text, data, size); break;
    case 's': imd_text_string(&text, data, size); break;
    case 'u': imd_text_add(&text, imd_text_is_utf8(data, size) ? "1" : "0", 1); break;
    case 'l': answer_line(&text, data, size); break;
    case 'i':
      if (size != sizeof value)
        abort();
      memcpy(&value, data, sizeof value);
      imd_text_integer(&text, value);
      break;
    default: abort();
    }
    said = text.full ? UINT32_MAX : (uint32_t)text.used;
    fwrite(&said, sizeof said, 1, stdout);
    if (!text.full)
      fwrite(text.at, 1, text.used, stdout);
    fflush(stdout);
    free(text.at);
    free(data);
  }
  return 0;
}
