#include "keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>

/* DER around the 32 raw bytes: SubjectPublicKeyInfo, and PKCS#8 version 1 with id-Ed25519 (RFC 8410). */
static const uint8_t SPKI[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
static const uint8_t PKCS8[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};

enum { PEM = 4096 };               /* ours have less than 128 bytes; what is longer has something else in it */

struct secret { char pem[PEM]; uint8_t der[64]; };

static void wipe(struct secret *secret)
{
  sodium_memzero(secret, sizeof *secret);
}

/* The content between the two lines of `label`, base64 without its white space, as `head` and 32 bytes. */
static bool unarmour(struct secret *secret, size_t size, const char *label, struct imc_bytes head, uint8_t raw[32])
{
  char begin[40] = "-----BEGIN ", end[40] = "-----END ";
  strcat(strcat(begin, label), "-----");
  strcat(strcat(end, label), "-----");
  if (memmem(secret->pem, size, "ENCRYPTED", 9))
    return false;
  const char *body = memmem(secret->pem, size, begin, strlen(begin));
  if (!body)
    return false;
  body += strlen(begin);
  const char *stop = memmem(body, size - (size_t)(body - secret->pem), end, strlen(end));
  size_t length;
  if (!stop || sodium_base642bin(secret->der, sizeof secret->der, body, (size_t)(stop - body), " \t\n\r\v\f", &length,
                                 NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
    return false;
  if (length != head.size + 32 || memcmp(secret->der, head.at, head.size) != 0)
    return false;
  memcpy(raw, secret->der + head.size, 32);
  return true;
}

static bool read_pem(const char *path, const char *label, struct imc_bytes head, uint8_t raw[32])
{
  struct secret secret __attribute__((cleanup(wipe)));
  cleanup_fd const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0)
    return false;
  /* A file is read again by Python, should it come to that; what a pipe gave would be gone, so that none is read. */
  errno = 0;
  if (lseek(fd, 0, SEEK_CUR) < 0) {
    errno = 0;
    return false;
  }
  const ssize_t got = read(fd, secret.pem, sizeof secret.pem);
  errno = 0;
  return got > 0 && got < PEM && unarmour(&secret, (size_t)got, label, head, raw);
}

static void name_key(char id[IMC_KEY_ID + 1], const uint8_t raw[IMC_PUBLIC])
{
  uint8_t hash[crypto_hash_sha256_BYTES];
  crypto_hash_sha256(hash, raw, IMC_PUBLIC);
  memcpy(id, "ed25519:", 8);
  sodium_bin2hex(id + 8, 33, hash, 16);
}

bool imc_read_seed(const char *path, uint8_t seed[IMC_SEED])
{
  return read_pem(path, "PRIVATE KEY", (struct imc_bytes){PKCS8, sizeof PKCS8}, seed);
}

bool imc_read_public(const char *path, struct imc_public *key)
{
  if (!read_pem(path, "PUBLIC KEY", (struct imc_bytes){SPKI, sizeof SPKI}, key->raw))
    return false;
  name_key(key->id, key->raw);
  return true;
}

bool imc_is_good_key(const struct imc_public *key)
{
  return crypto_core_ed25519_is_valid_point(key->raw) == 1;
}

void imc_sign(uint8_t seed[IMC_SEED], struct imc_bytes message, uint8_t signature[IMC_SIGNATURE],
              char id[IMC_KEY_ID + 1])
{
  uint8_t public_key[IMC_PUBLIC], secret[crypto_sign_SECRETKEYBYTES];
  crypto_sign_seed_keypair(public_key, secret, seed);
  sodium_memzero(seed, IMC_SEED);
  crypto_sign_detached(signature, NULL, message.at, message.size, secret);
  sodium_memzero(secret, sizeof secret);
  name_key(id, public_key);
}

bool imc_verify(const struct imc_public *key, struct imc_bytes message, const uint8_t signature[IMC_SIGNATURE])
{
  return crypto_sign_verify_detached(signature, message.at, message.size, key->raw) == 0;
}
