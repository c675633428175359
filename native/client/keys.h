/* Ed25519 by libsodium, and keys as files hold them. */
#ifndef IMMURE_KEYS_H
#define IMMURE_KEYS_H

#include "bytes.h"

enum { IMC_SEED = 32, IMC_PUBLIC = 32, IMC_SIGNATURE = 64, IMC_KEY_ID = 40 };

struct imc_public {
  uint8_t raw[IMC_PUBLIC];
  char id[IMC_KEY_ID + 1];         /* `ed25519:` and 32 hex digits */
};

/* A private key's seed from a PEM file in the one form that we write: PKCS#8 version 1 without attributes. False for
 * all else: the Python command line reads more forms, and says what is wrong. */
bool imc_read_seed(const char *path, uint8_t seed[IMC_SEED]);

/* A public key from an SPKI PEM file. False: errno says why it cannot be read, 0 that it holds none in our form. */
bool imc_read_public(const char *path, struct imc_public *key);

/* Whether a pinned key is a point of large order in canonical form. Slow (0.1 ms): asked once a signature failed. */
bool imc_is_good_key(const struct imc_public *key);

/* Signs and forgets: the seed is wiped. Gives the key's id. */
void imc_sign(uint8_t seed[IMC_SEED], struct imc_bytes message, uint8_t signature[IMC_SIGNATURE],
              char id[IMC_KEY_ID + 1]);

/* Strict: S < L; A and R canonical and not of small order; the equation without the cofactor. */
bool imc_verify(const struct imc_public *key, struct imc_bytes message, const uint8_t signature[IMC_SIGNATURE]);

#endif
