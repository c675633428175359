#include "sha256.h"

#include <string.h>

const uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t word, unsigned bits)
{
  return word >> bits | word << (32 - bits);
}

/* Word k of the eight, which move on by one with every round instead of being moved. */
#define S(k, r) s[((k) - (r)) & 7]
#define ROUND(r)                                                                                                       \
  do {                                                                                                                 \
    const uint32_t one = S(7, r) + (rotated(S(4, r), 6) ^ rotated(S(4, r), 11) ^ rotated(S(4, r), 25)) +               \
                         ((S(4, r) & S(5, r)) ^ (~S(4, r) & S(6, r))) + sha256_constants[i + (r)] + w[i + (r)];        \
    S(3, r) += one;                                                                                                    \
    S(7, r) = one + (rotated(S(0, r), 2) ^ rotated(S(0, r), 13) ^ rotated(S(0, r), 22)) +                              \
              ((S(0, r) & S(1, r)) ^ (S(0, r) & S(2, r)) ^ (S(1, r) & S(2, r)));                                       \
  } while (0)

static void take_block(struct sha256 *sum, const uint8_t *block)
{
  uint32_t w[64], s[8];
  for (size_t i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
           block[4 * i + 3];
  for (size_t i = 16; i < 64; i++)
    w[i] = w[i - 16] + w[i - 7] + (rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3) +
           (rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10);
  memcpy(s, sum->state, sizeof s);
  for (size_t i = 0; i < 64; i += 8) {
    ROUND(0); ROUND(1); ROUND(2); ROUND(3); ROUND(4); ROUND(5); ROUND(6); ROUND(7);
  }
  for (size_t i = 0; i < 8; i++)
    sum->state[i] += s[i];
}

static void take_blocks(struct sha256 *sum, const uint8_t *blocks, size_t count)
{
#if defined __x86_64__
  if (sha256_x86_can()) {
    sha256_x86_take(sum->state, blocks, count);
    return;
  }
#endif
  for (; count > 0; count--, blocks += 64)
    take_block(sum, blocks);
}

void sha256_begin(struct sha256 *sum)
{
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(sum->state, start, sizeof start);
  sum->length = 0;
}

void sha256_add(struct sha256 *sum, const void *data, size_t size)
{
  const uint8_t *at = data;
  const size_t held = sum->length % 64;
  sum->length += size;
  if (held > 0) {
    const size_t part = size < 64 - held ? size : 64 - held;
    memcpy(sum->block + held, at, part);
    if (held + part < 64)
      return;
    take_blocks(sum, sum->block, 1);
    at += part;
    size -= part;
  }
  take_blocks(sum, at, size / 64);
  at += size - size % 64;
  size %= 64;
  memcpy(sum->block, at, size);
}

void sha256_end(struct sha256 *sum, uint8_t digest[SHA256_SIZE])
{
  const uint64_t bits = sum->length * 8;
  static const uint8_t padding[64] = {0x80};
  uint8_t length[8];
  sha256_add(sum, padding, 1 + (119 - sum->length % 64) % 64);
  for (unsigned i = 0; i < 8; i++)
    length[i] = (uint8_t)(bits >> (56 - 8 * i));
  sha256_add(sum, length, sizeof length);
  for (unsigned i = 0; i < 32; i++)
    digest[i] = (uint8_t)(sum->state[i / 4] >> (24 - 8 * (i % 4)));
}
