/* SHA-256 (FIPS 180-4), for what is compared and told by digest. Static and without libraries, as the rest of the launcher. */
#ifndef IMMURED_SHA256_H
#define IMMURED_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA256_SIZE = 32 };

struct sha256 { uint32_t state[8]; uint64_t length; uint8_t block[64]; };

void sha256_begin(struct sha256 *sum);
void sha256_add(struct sha256 *sum, const void *data, size_t size);
void sha256_end(struct sha256 *sum, uint8_t digest[SHA256_SIZE]);

extern const uint32_t sha256_constants[64];

/* On x86-64: whether this processor has instructions for it; and whole blocks, by those. */
bool sha256_x86_can(void);
void sha256_x86_take(uint32_t *state, const uint8_t *data, size_t blocks);

#endif
